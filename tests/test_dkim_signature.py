"""The DKIM-Signature field: what is refused before any key is asked for (RFC 6376 §3.5, §6.1.1)."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailguard.dkim.canonical import Canonicalization
from mailguard.dkim.result import DkimReason, DkimResult, DkimStatus
from mailguard.dkim.signature import Signature, SignatureError, parse_selector
from mailguard.dns.zone import ZoneResolver
from mailguard.errors import DomainError
from mailguard.message import HeaderField, MalformedReason, Message
from zone0 import (
    BANK,
    EVIL,
    evil_key,
    ke,
    key_record,
    mail,
    questions_of,
    result_of,
    results_of,
    sign_as,
    written,
    zone,
)

SYNTAX, ALGORITHM, VERSION = DkimReason.SYNTAX, DkimReason.ALGORITHM, DkimReason.VERSION
IDENTITY, FROM, QUERY = DkimReason.IDENTITY, DkimReason.FROM_UNSIGNED, DkimReason.QUERY_METHOD
# Whatever name is asked for, the attacker's key is there.
ATTACKERS_DNS = ZoneResolver({"*": {"TXT": [key_record(ke())]}, "*.evil.test": {"TXT": [key_record(ke())]}})


def row(name: str, reason: DkimReason, what: str = "", **tags: str | bytes | None) -> object:
    return pytest.param(tags, reason, id=f"{name} {what or tags!r}"[:60], marks=pytest.mark.attack(name))


REFUSED = [
    row("D02", SYNTAX, d=BANK, s=b"selector._domainkey.evil.test.\0.any"),
    row("D02", SYNTAX, d=BANK, s=r"selector._domainkey.evil.test.\0.any"),
    row("D02", SYNTAX, d=b"bank.test\0.evil.test"),
    row("D03", SYNTAX, d="bank.test'a.evil.test"),
    row("D04", SYNTAX, d="bank.test(.evil.test"),
    row("D04", SYNTAX, d='"bank.test"'),
    row("D04", SYNTAX, d="bank.test .evil.test"),
    row("D04", SYNTAX, d="bank.test\r\n .evil.test"),
    row("D06", SYNTAX, s="x.evil.test."),
    row("D06", SYNTAX, s="../x"),
    row("D06", SYNTAX, s="*"),
    row("D06", SYNTAX, s=""),
    row("D06", SYNTAX, s=".."),
    row("D06", SYNTAX, s="a..b"),
    row("D06", SYNTAX, what="s of 300", s="s" * 300),
    row("D06", SYNTAX, what="s and d of 300", s=".".join(["s" * 60] * 4), d="a.evil.test"),
    row("D06", SYNTAX, s="s 1"),
    row("D06", SYNTAX, s="s1;"),
    row("D06", SYNTAX, s=b"\xff"),
    row("D17", IDENTITY, i="@other.test"),
    row("D17", IDENTITY, i="@test"),
    row("D17", IDENTITY, i="@notevil.test"),
    row("D17", IDENTITY, i="x@bank.test"),
    row("D17", SYNTAX, i="evil.test"),
    row("D17", SYNTAX, i=""),
    row("D17", SYNTAX, i="@"),
    row("D17", SYNTAX, i="@.evil.test"),
    row("D21", ALGORITHM, a="rsa-sha1"),
    row("D22", ALGORITHM, a="rsasha256"),
    row("D22", ALGORITHM, a=""),
    row("D22", ALGORITHM, a="rsa-sha256-x"),
    row("D22", ALGORITHM, a="ed25519-sha512"),
    row("D22", ALGORITHM, a="none"),
    row("D22", ALGORITHM, a="rsa -sha256"),
    row("D26", VERSION, v="2"),
    row("D26", VERSION, v=""),
    row("D26", VERSION, v="1.0"),
    row("D26", VERSION, v="01"),
    row("D27", SYNTAX, bh=base64.b64encode(b"x" * 31).decode()),
    row("D27", SYNTAX, bh=base64.b64encode(b"x" * 33).decode()),
    row("D27", SYNTAX, bh=base64.b64encode(b"x" * 20).decode()),
    row("D27", SYNTAX, what="bh of 10 kB", bh=base64.b64encode(b"x" * 10_000).decode()),
    row("D27", SYNTAX, bh=""),
    row("D27", SYNTAX, bh="***"),
    row("D27", SYNTAX, bh="YWJj" * 10 + "YQ==YQ=="),
    row("D27", SYNTAX, what="b with an octet that is not base64", b="YW$Jj"),
    row("D27", SYNTAX, what="b with padding inside", b="YQ==YWJj"),
    row("D27", SYNTAX, b=""),
    row("D27", SYNTAX, b=" \r\n "),
    row("D27", SYNTAX, b="===="),
    row("D27", SYNTAX, b="Y"),
    row("D27", SYNTAX, b="Y=Q="),
    row("D27", SYNTAX, b="YWJj==="),
    row("D27", SYNTAX, b="YWJj===="),
    row("D27", SYNTAX, what="b of 150 kB", b="YWJj" * 50_000),
    row("D27", SYNTAX, what="b of 1,029 octets", b="YWJj" * 343),
    row("D28", SYNTAX, what="h of 100,000", h="from:" + "a:" * 100_000 + "to"),
    row("D28", SYNTAX, what="h of 1,001", h="from" + ":a" * 1_000),
    row("D28", FROM, h="to:subject"),
    row("D28", FROM, h="xfrom:from2:resent-from"),
    row("D28", SYNTAX, h=""),
    row("D28", SYNTAX, h="from::to"),
    row("D28", SYNTAX, h=":from"),
    row("D28", SYNTAX, h="from:"),
    row("D28", SYNTAX, h="from: :to"),
    row("D28", SYNTAX, h="fr om:to"),
    row("D28", SYNTAX, h="from:t\r\n o"),
    row("D28", SYNTAX, h=b"from:\xc3\xb6"),
    row("D29", SYNTAX, what="no v", v=None),
    row("D29", SYNTAX, what="no a", a=None),
    row("D29", SYNTAX, what="no b", b=None),
    row("D29", SYNTAX, what="no bh", bh=None),
    row("D29", SYNTAX, what="no d", d=None),
    row("D29", SYNTAX, what="no h", h=None),
    row("D29", SYNTAX, what="no s", s=None),
    row("D29", SYNTAX, d=f"{EVIL}; d={BANK}"),
    row("D29", SYNTAX, v="1; ="),
    row("D29", SYNTAX, v="1; a"),
    row("D29", SYNTAX, v="1 a=rsa-sha256; x y=1"),
    row("D29", SYNTAX, v="1;;"),
    row("D29", QUERY, q="http"),
    row("D29", QUERY, q=""),
    row("D29", SYNTAX, c="relaxed/loose"),
    row("D29", SYNTAX, c="loose"),
    row("D29", SYNTAX, c="relaxed/"),
    row("D29", SYNTAX, c="/relaxed"),
    row("D29", SYNTAX, c=""),
    row("D29", SYNTAX, c="relaxed/relaxed/relaxed"),
    row("D13", SYNTAX, t="1000", x="999"),
    row("D13", SYNTAX, t="1000", x="1000"),
    row("D13", SYNTAX, t="x"),
    row("D13", SYNTAX, x="-1"),
    row("D13", SYNTAX, x=""),
    row("D13", SYNTAX, t="1e3"),
    row("D13", SYNTAX, t="\u0661".encode()),
    row("D13", SYNTAX, what="x negative, 400 digits", x="-" + "1" * 400),
    row("D11", SYNTAX, l="-1"),
    row("D11", SYNTAX, l=""),
    row("D11", SYNTAX, l="0x10"),
    row("D11", SYNTAX, what="l of 400 digits", l="9" * 400),
    row("D11", SYNTAX, what="l of 77 digits", l="9" * 77),
]  # fmt: skip


@pytest.mark.attack("D38")
@pytest.mark.parametrize(("tags", "reason"), REFUSED)
def test_refused_without_any_question(tags: dict[str, str | bytes | None], reason: DkimReason) -> None:
    raw = sign_as(ke(), mail(), tags=tags)
    result = result_of(raw, ATTACKERS_DNS)
    assert (result.status, result.reason) == (DkimStatus.PERMERROR, reason)
    assert questions_of(raw) == ()
    _assert_harmless(result)


@pytest.mark.attack("D27")
@pytest.mark.parametrize(
    ("tags", "detail"),
    [
        ({"bh": "@BH@=="}, "bh= is not base64"),
        ({"bh": "@BH@!"}, "bh= is not base64"),
        ({"bh": "YWJj" * 20}, "bh= is not the length of a SHA-256 digest"),
        ({"b": "@B@" + "!" * 2_000}, "b= is not base64"),
        ({"b": "YWJj" * 341 + "YWI="}, "b= has more than 1024 octets"),
    ],
    ids=["padding", "another octet", "80 octets", "many others", "1,025 octets"],
)
def test_what_is_wrong_with_base64(tags: dict[str, str | bytes | None], detail: str) -> None:
    assert result_of(sign_as(ke(), mail(), tags=tags)).detail == detail


def _assert_harmless(result: DkimResult) -> None:
    """What the result repeats is validated, and the field that is made of it names nothing else."""
    assert result.detail.isprintable()
    value = written(result)
    assert b"dkim=permerror" in value
    assert b"\0" not in value
    assert b"(." not in value
    assert not value.replace(b"\r\n\t", b"").count(b"\n")


@pytest.mark.attack("D27")
def test_a_signature_of_a_megabyte_makes_the_message_malformed() -> None:
    raw = sign_as(ke(), mail(), tags={"b": "YWJj" * 350_000})
    assert Message.parse(raw).malformed is MalformedReason.HEADER_SIZE
    assert questions_of(raw) == ()
    assert results_of(raw) == ()


@pytest.mark.attack("D02", "D03", "D04")
@pytest.mark.parametrize("d", [b"bank.test\0.evil.test", b"bank.test'a.evil.test", b"bank.test(.evil.test"])
def test_an_unusable_domain_is_not_repeated(d: bytes) -> None:
    result = result_of(sign_as(ke(), mail(), tags={"d": d}), ATTACKERS_DNS)
    assert (result.domain, result.selector, result.identity) == (None, None, None)
    assert b"header.d" not in written(result)


@pytest.mark.attack("D05")
@pytest.mark.parametrize(
    ("s", "name"),
    [
        ("a.b.c", "a.b.c._domainkey.evil.test"),
        ("A.b", "a.b._domainkey.evil.test"),
        ("2024_01-x", "2024_01-x._domainkey.evil.test"),
        ("bücher", "xn--bcher-kva._domainkey.evil.test"),
        (" s1 ", "s1._domainkey.evil.test"),
    ],
)
def test_selectors(s: str, name: str) -> None:
    raw = sign_as(ke(), mail(), s=s)
    resolver = ZoneResolver(zone({name: {"TXT": [key_record(ke())]}}))
    assert [question.name for question in questions_of(raw)] == [name]
    assert result_of(raw, resolver).status is DkimStatus.PASS


@pytest.mark.attack("D05", "D17", "D22", "D28", "D29", "D45")
@pytest.mark.parametrize(
    "tags",
    [
        {"i": "@sub.evil.test"},
        {"i": "x@EVIL.test"},
        {"i": "a=40b@evil.test"},
        {"i": "a@b@evil.test"},
        {"i": "x @ evil.test"},
        {"d": "EVIL.test"},
        {"a": "ED25519-SHA256"},
        {"c": "RELAXED/Relaxed"},
        {"q": "dns/txt"},
        {"q": "http : DNS/TXT"},
        {"zz": "unknown", "r": "y"},
        {"z": "From:a=20b|To:b"},
        {"h": "FROM:From:from:fRoM:To"},
        {"h": " From : To\r\n : Subject "},
        {"h": "from" + ":a" * 999},
        {"h": "from:dkim-signature:dkim-signature"},
        {"t": "1", "x": "9" * 12},
        {"t": "1", "x": "9" * 400},
        {"t": "0"},
        {"x": "1" * 13},
    ],
    ids=lambda tags: repr(tags)[:50],
)
def test_accepted(tags: dict[str, str]) -> None:
    result = result_of(sign_as(ke(), mail(), tags=tags))
    assert (result.status, result.domain) == (DkimStatus.PASS, EVIL)


@pytest.mark.attack("D45")
@pytest.mark.parametrize("c", ["simple/simple", "relaxed/relaxed"])
@pytest.mark.parametrize(
    "template",
    [
        b"DKIM-Signature: v=1; a=ed25519-sha256; c=%c; d=evil.test; s=s1; h=from; b=@B@; bh=@BH@",
        b"DKIM-Signature: b=@B@; v=1; a=ed25519-sha256; c=%c; d=evil.test; s=s1; h=from; bh=@BH@;",
        b"DKIM-Signature:v=1;a=ed25519-sha256;c=%c;d=evil.test;s=s1;h=from;bh=@BH@;b=@B@",
        b"DKIM-Signature: v=1; a=ed25519-sha256; c=%c; d=evil.test; s=s1; h=from; bh=@BH@;\r\n b = \r\n\t@B@ \r\n ;",
        b"DKIM-Signature\t: \r\n v = 1 ; a\t=\r\n ed25519-sha256 ; c = %c ;\r\n d = evil.test ; s = s1 ;\r\n"
        b" h\r\n = from ; bh = @BH@ ; b\r\n\t=\r\n @B@",
        b"dkim-SIGNATURE: v=1; a=ed25519-sha256; c=%c; d=evil.test; s=s1; h=from; bh=@BH@; b=@B@; bx=b=1",
        b"DKIM-Signature: v=1; xb=b=; a=ed25519-sha256; c=%c; d=evil.test; s=s1; h=from; bh=@BH@; b=@B@ \t ",
    ],
    ids=["b before bh", "b first", "no space", "folds around b", "white space everywhere", "b in values", "trailing"],
)
def test_white_space_and_order(template: bytes, c: str) -> None:
    signed = sign_as(ke(), mail(), h="from", c=c, template=template.replace(b"%c", c.encode()))
    assert result_of(signed).status is DkimStatus.PASS


@pytest.mark.attack("D45")
def test_white_space_inside_b_and_bh() -> None:
    signed = sign_as(ke(), mail(), h="from")
    start = signed.index(b"; b=") + 4
    folded = signed[:start] + b"\r\n " + signed[start : start + 9] + b"\r\n\t " + signed[start + 9 :]
    assert result_of(folded).status is DkimStatus.PASS
    template = b"DKIM-Signature: v=1; a=ed25519-sha256; c=relaxed; d=evil.test; s=s1; h=from; bh=@BH@; b=@B@"
    body_hash = sign_as(ke(), mail(), h="from", c="relaxed", template=template).partition(b"bh=")[2][:44]
    template = template.replace(b"@BH@", body_hash[:10] + b"\r\n " + body_hash[10:])
    assert result_of(sign_as(ke(), mail(), h="from", c="relaxed", template=template)).status is DkimStatus.PASS


@pytest.mark.parametrize(
    ("c", "header", "body"),
    [
        (None, "simple", "simple"),
        ("simple", "simple", "simple"),
        ("relaxed", "relaxed", "simple"),
        ("simple/relaxed", "simple", "relaxed"),
        ("relaxed/relaxed", "relaxed", "relaxed"),
    ],
)
def test_canonicalizations(c: str | None, header: str, body: str) -> None:
    raw = sign_as(ke(), mail(), c=f"{header}/{body}", tags={"c": c})
    name, _, value = raw.partition(b"\r\n")[0].partition(b":")
    signature = Signature.parse(HeaderField(name, value))
    assert signature.header_canonicalization is Canonicalization(header)
    assert signature.body.canonicalization is Canonicalization(body)
    assert result_of(raw).status is DkimStatus.PASS


@pytest.mark.parametrize("i", [None, "@evil.test"])
def test_identity_is_the_domain_by_default(i: str | None) -> None:
    assert result_of(sign_as(ke(), mail(), tags={"i": i})).identity == "@evil.test"


def test_identity_is_asked_of_the_domain_of_d() -> None:
    raw = sign_as(ke(), mail(), tags={"i": "@a.b.evil.test"})
    assert [question.name for question in questions_of(raw)] == ["s1._domainkey.evil.test"]
    assert result_of(raw, evil_key(key_record(ke(), "t=s; "))).reason is DkimReason.KEY_STRICT


@given(st.text(max_size=30) | st.text(alphabet="ab.-_*/ é\0", max_size=12))
def test_any_text_is_a_selector_or_domain_error(text: str) -> None:
    try:
        selector = parse_selector(text)
    except DomainError:
        return
    assert selector.isascii()
    assert all(label.replace("-", "a").replace("_", "a").isalnum() for label in selector.split("."))
    assert parse_selector(selector) == selector


GOOD_FIELD = sign_as(ke(), mail()).partition(b"\r\n")[0].partition(b":")[2]
TAGS = st.lists(
    st.sampled_from(["v", "a", "b", "bh", "c", "d", "h", "i", "l", "q", "s", "t", "x", "z"]).flatmap(
        lambda name: st.binary(max_size=12).map(lambda value: name.encode() + b"=" + value)
    ),
    max_size=14,
).map(b";".join)


@settings(max_examples=300)
@given(
    st.binary(max_size=300)
    | TAGS
    | st.tuples(st.integers(0, len(GOOD_FIELD)), st.binary(max_size=3)).map(
        lambda change: GOOD_FIELD[: change[0]] + change[1] + GOOD_FIELD[change[0] + 1 :]
    )
)
def test_octets_become_a_signature_or_signature_error(value: bytes) -> None:
    try:
        signature = Signature.parse(HeaderField(b"DKIM-Signature", value))
    except SignatureError as error:
        known, detail = error.known, str(error)
    else:
        known, detail = signature.known, ""
        assert b"from" in signature.signed_names
        assert signature.identity_domain.is_equal_or_below(signature.domain)
        assert signature.key_question.name.isascii()
        assert len(signature.key_question.name) <= 253
    assert detail.isprintable()
    assert known.signature_prefix is None or known.signature_prefix.isascii()
