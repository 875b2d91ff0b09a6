"""Message: which octets are fields, and whether exactly one domain answers for the message (attack rows F)."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cpu_time import best_cpu_s
from mailguard.address import AddressFlag
from mailguard.dkim.canonical import BodyDigests, BodyRequest, Canonicalization
from mailguard.dkim.sign import check_signable
from mailguard.dns.zone import ZoneResolver
from mailguard.errors import SigningRefused
from mailguard.message import MAX_FIELDS, MAX_HEADER_BYTES, HeaderField, MalformedReason, Message
from mailguard.pipeline import authenticate
from zone0 import BANK, EVIL, NOW, ke, mail, result_of, results_of, sign_as, zone

NO_FROM, SEVERAL, DOMAINS = MalformedReason.NO_FROM, MalformedReason.SEVERAL_FROM, MalformedReason.SEVERAL_DOMAINS
SYNTAX, HEADER, SIZE = MalformedReason.FROM_SYNTAX, MalformedReason.HEADER_SYNTAX, MalformedReason.HEADER_SIZE

REST = b"To: <alice@us.test>\r\nSubject: An offer\r\n\r\nHello.\r\n"


def authors(value: bytes) -> bytes:
    return b"From: " + value + b"\r\n" + REST


F = pytest.mark.attack


def row(name: str, raw: bytes, reason: MalformedReason, what: str = "") -> object:
    return pytest.param(raw, reason, id=f"{name} {what}".strip(), marks=F(name))


MALFORMED = [
    row("F01", b"From: <x@evil.test>\r\nFrom: <ceo@bank.test>\r\n" + REST, SEVERAL),
    row("F02", b"From: <ceo@bank.test>\r\nFrom: <x@evil.test>\r\n" + REST, SEVERAL),
    row("F03", b"From: <x@evil.test>\r\nfrom: <x@evil.test>\r\nFROM: <ceo@bank.test>\r\n" + REST, SEVERAL),
    row("F04", b" From: <x@evil.test>\r\nFrom: <ceo@bank.test>\r\n" + REST, HEADER),
    row("F05", b"H: a\r\n From: <x@evil.test>\r\n" + REST, NO_FROM),
    row("F06", b"From : <ceo@bank.test>\r\nFrom: <x@evil.test>\r\n" + REST, SEVERAL, "space"),
    row("F06", b"From: <x@evil.test>\r\nFrom\t : <ceo@bank.test>\r\n" + REST, SEVERAL, "tab"),
    row("F07", b"From\r\n : <x@evil.test>\r\nFrom: <ceo@bank.test>\r\n" + REST, HEADER),
    row("F08", b"From\0: <ceo@bank.test>\r\nFrom: <x@evil.test>\r\n" + REST, HEADER),
    row("F08", b"From: <x@evil.test>\r\nFrom\0: <ceo@bank.test>\r\n" + REST, HEADER, "below"),
    row("F09", authors(b"<x@evil.test>\0<ceo@bank.test>"), HEADER),
    row("F09", b"X-Other: a\0b\r\n" + authors(b"<x@evil.test>"), HEADER, "in another field"),
    row("F10", "X-ö: y\r\n".encode() + authors(b"<x@evil.test>"), HEADER),
    row("F10", b"X-\xff: y\r\n" + authors(b"<x@evil.test>"), HEADER, "no UTF-8"),
    row("F12", b": y\r\n" + authors(b"<x@evil.test>"), HEADER),
    row("F12", b" : y\r\n" + authors(b"<x@evil.test>"), HEADER, "blank"),
    row("F13", b"From x@evil.test Mon Jan  1 00:00:00 2024\r\n" + authors(b"<x@evil.test>"), HEADER, "first"),
    row("F13", b"To: a\r\nFrom x@evil.test Mon Jan  1 00:00:00 2024\r\n" + authors(b"<x@evil.test>"), HEADER),
    row("F14", b"Sender: <ceo@bank.test>\r\n" + REST, NO_FROM),
    row("F15", b"Resent-From: <ceo@bank.test>\r\n" + REST, NO_FROM),
    row("F15", b"Resent-From: <ceo@bank.test>\r\nResent-Sender: <ceo@bank.test>\r\nFrom:\r\n" + REST, SYNTAX),
    row("F16", authors(b"<x@evil.test>, <ceo@bank.test>"), DOMAINS),
    row("F16", authors(b"<x@evil.test>, <y@sub.evil.test>"), DOMAINS, "subdomain"),
    row("F18", authors(b"<x@evil.test>, bogus"), SYNTAX),
    row("F19", authors(b"=?utf-8?B?PGNlb0BiYW5rLnRlc3Q+?=,<x@evil.test>"), SYNTAX),
    row("F20", authors(b"<@evil.test,@any.test:ceo@bank.test>"), SYNTAX),
    row("F21", authors(b"<ceo@bank.test>\\,<x@evil.test>"), SYNTAX),
    row("F22", authors(b"ceo@bank.test,<x@evil.test>"), DOMAINS),
    row("F23", authors(b"<x@evil.test>ceo@bank.test"), SYNTAX),
    row("F26", authors(b"ceo@bank.test(<x@evil.test>"), SYNTAX),
    row("F28", authors(b"x@evil.test " + b"(" * 100_000), SYNTAX),
    row("F29", authors(b"a@b@bank.test"), SYNTAX),
    row("F30", authors(b"<ceo@bank.test.>"), SYNTAX, "trailing dot"),
    row("F31", authors(b"<ceo@bank..test>"), SYNTAX, "empty label"),
    row("F31", authors(b"<ceo@" + b"a" * 64 + b".test>"), SYNTAX, "label of 64"),
    row("F31", authors(b"<ceo@" + b"a." * 125 + b"test>"), SYNTAX, "name of 254"),
    row("F31", authors(b"<ceo@b_nk.test>"), SYNTAX, "underscore"),
    row("F31", authors(b"<ceo@-bank.test>"), SYNTAX, "hyphen"),
    row("F32", authors(b"<x@[192.0.2.1]>"), SYNTAX),
    row("F32", authors(b"<x@[IPv6:::1]>"), SYNTAX, "IPv6"),
    row("F35", authors(b"<x@xn--a.test>"), SYNTAX),
    row("F35", authors(b"<x@" + "ü".encode() * 60 + b".test>"), SYNTAX, "long"),
    row("F37", authors(b"g: ceo@bank.test;"), SYNTAX),
    row("F38", authors(b"undisclosed:;"), SYNTAX, "group"),
    row("F38", authors(b""), SYNTAX, "empty"),
    row("F38", authors(b"\r\n (c)\r\n\t(d)\r\n "), SYNTAX, "comments"),
    row("F41", authors(b",".join([b"a@evil.test"] * 5_000)), SYNTAX),
    row("F42", b"X-A: b\r\n" * 20_000 + authors(b"<x@evil.test>"), SIZE),
    row("F42", b"X-A: b\r\n" * (MAX_FIELDS - 2) + authors(b"<x@evil.test>"), SIZE, "one more"),
    row("F42", b"X-A: " + b"b" * MAX_HEADER_BYTES + b"\r\n" + authors(b"<x@evil.test>"), SIZE, "octets of a value"),
    row("F42", b"X" * MAX_HEADER_BYTES + b": b\r\n" + authors(b"<x@evil.test>"), SIZE, "octets of a name"),
    row("F45", b"", NO_FROM, "neither header nor body"),
    row("F45", b"\r\n", NO_FROM, "an empty line"),
    row("F45", b"\r\nHello.\r\n", NO_FROM, "no header"),
    row("F45", b"Hello.\r\n", HEADER, "no header, no empty line"),
    row("F46", b"Subject: a\nFrom: <ceo@bank.test>\r\nFrom: <x@evil.test>\r\n" + REST, SEVERAL),
    row("F47", b"Subject: a\r\n" + authors(b"<x@evil.test>\r,<ceo@bank.test>"), SYNTAX, "in From"),
    row("F47", b"From\r: <ceo@bank.test>\r\n" + authors(b"<x@evil.test>"), HEADER, "in a name"),
    row("F47", b"Subject: a\r\n\r\r\n" + authors(b"<x@evil.test>"), HEADER, "as a line"),
]  # fmt: skip


@pytest.mark.attack("D47")
@pytest.mark.parametrize(("raw", "reason"), MALFORMED)
def test_malformed(raw: bytes, reason: MalformedReason) -> None:
    message = Message.parse(raw)
    assert message.malformed is reason
    assert message.malformed_detail.isprintable()
    assert message.malformed_detail
    assert reason is DOMAINS or message.author.domains == () or message.header_defect
    with pytest.raises(SigningRefused) as refused:
        check_signable(message)
    assert refused.value.reason == reason.value


@pytest.mark.parametrize("line", ["x@evil.test Mon Jan  1 00:00:00 2024", "- Mon Jan  1 00:00:00 2024", "x y"])
def test_the_line_of_an_mbox_file_is_named_as_what_it_is(line: str) -> None:
    raw = f"From {line}\n".encode() + authors(b"<x@evil.test>")
    assert Message.parse(raw).malformed_detail == (
        "line 1 of the header is not a field: it is the line in front of a message in an mbox file: leave it out"
    )


def test_a_repr_shows_no_body() -> None:
    """Logs and reports of errors have what they show of a value from its repr."""
    outcome = authenticate(
        authors(b"<x@evil.test>") + b"nobody else's business\r\n" * 2,
        ip="203.0.113.1",
        helo="a.test",
        mail_from="",
        resolver=ZoneResolver(zone()),
        now=NOW,
    )
    assert outcome.message.body is not None
    assert b"business" in outcome.message.body
    assert "business" not in repr(outcome)
    assert "x@evil.test" in repr(outcome)


@pytest.mark.parametrize(("raw", "reason"), MALFORMED)
def test_a_malformed_message_is_reported_without_any_pass(raw: bytes, reason: MalformedReason) -> None:
    """For several domains, which are judged one by one, a signature may still pass for its own."""
    # Under a signature, a blank at the beginning would be a fold of it.
    signed = raw if raw.startswith(b" ") else sign_as(ke(), raw)
    outcome = authenticate(
        signed, ip="203.0.113.1", helo="a.test", mail_from="", resolver=ZoneResolver(zone()), now=NOW
    )
    value = outcome.header("mx.us.test").value
    assert b"dmarc=pass" not in value
    if reason is not DOMAINS:
        assert b"=pass" not in value
        assert b"dmarc=permerror" in value


def ok(name: str, raw: bytes, domain: str, what: str = "") -> object:
    return pytest.param(raw, domain, id=f"{name} {what}".strip(), marks=F(name))


JUDGED = [
    ok("F06", b"From\t : <ceo@bank.test>\r\n" + REST, BANK, "alone"),
    ok("F11", b'From"(: y\r\n' + authors(b"<x@evil.test>"), EVIL),
    # RFC 5322 §2.2: the first and the last octet that a name may have.
    ok("F11", b"!X~: y\r\n" + authors(b"<x@evil.test>"), EVIL, "! and ~"),
    ok("F17", b"Sender: <c@other.test>\r\n" + authors(b"<a@us.test>, <b@us.test>"), "us.test"),
    ok("F24", authors(b'"ceo@bank.test" <x@evil.test>'), EVIL),
    ok("F25", authors(b"ceo@bank.test (<x@evil.test>)"), BANK),
    ok("F27", authors(b"(ceo@bank.test) x@evil.test"), EVIL),
    ok("F29", authors(b'"a@b"@bank.test'), BANK),
    ok("F30", authors(b"<ceo@BANK.Test>"), BANK),
    ok("F33", authors("<ceo@b\u0430nk.test>".encode()), "xn--bnk-6cd.test"),
    ok("F34", authors("<ceo@bank\u3002test>".encode()), BANK, "U+3002"),
    ok("F34", authors("<ceo@bank\uff0etest>".encode()), BANK, "U+FF0E"),
    ok("F36", authors(b'"\xff\xfe" <x@evil.test>'), EVIL),
    ok("F39", authors(b"\r\n \t\r\n <ceo@bank.test>"), BANK),
    ok("F40", authors("\u202etset.knab\u202c <x@evil.test>".encode()), EVIL),
    ok("F40", authors("ba\u200bnk <x@evil.test>".encode()), EVIL, "zero width"),
    ok("F42", b"X-A: b\r\n" * (MAX_FIELDS - 3) + authors(b"<x@evil.test>"), EVIL, "as many as allowed"),
    ok("F43", b"X-A: " + b"b" * 70_000 + b"\r\n" + authors(b"<x@evil.test>"), EVIL, "70,000"),
    ok("F43", b"X-A: " + b"b\r\n " * 37_500 + b"\r\n" + authors(b"<x@evil.test>"), EVIL, "150,000"),
    ok("F44", b"X" * 900 + b": a\r\n" + authors(b"<x@evil.test>"), EVIL),
    ok("F45", b"From: <x@evil.test>", EVIL, "no body, no line end"),
    ok("F45", b"From: <x@evil.test>\r\n", EVIL, "no body"),
    ok("F46", (b"Subject: a\r\n" + authors(b"<ceo@bank.test>")).replace(b"\r\n", b"\n"), BANK, "LF throughout"),
    ok("F47", b"Subject: a\rFrom: <ceo@bank.test>\r\n" + authors(b"<x@evil.test>"), EVIL),
    ok("F48", b"Content-Type: text/plain\r\nContent-Type: text/html\r\n" + authors(b"<x@evil.test>"), EVIL),
]


@pytest.mark.parametrize(("raw", "domain"), JUDGED)
def test_judged_by_one_domain(raw: bytes, domain: str) -> None:
    message = Message.parse(raw)
    assert message.malformed is None
    assert message.malformed_detail == ""
    assert message.author.domains == (domain,)
    check_signable(message)


@pytest.mark.attack("F24", "F40")
def test_flags_reach_the_author() -> None:
    assert Message.parse(authors(b'"a@b" <x@evil.test>')).author.flags == {AddressFlag.DISPLAY_NAME_ADDRESS}
    deceptive = Message.parse(authors("a\u202eb <x@evil.test>".encode())).author
    assert deceptive.flags == {AddressFlag.DECEPTIVE_CHARACTERS}


@pytest.mark.attack("F36")
def test_octets_that_are_no_text_reach_the_signature_unchanged() -> None:
    assert result_of(sign_as(ke(), mail(b'"\xff\xfe" <x@evil.test>'))).status.value == "pass"


@pytest.mark.attack("F45")
@pytest.mark.parametrize("raw", [b"From: <x@evil.test>", b"From: <x@evil.test>\r\n", b"From: <x@evil.test>\r\n\r\n"])
@pytest.mark.parametrize("c", ["simple/simple", "relaxed/relaxed"])
def test_no_body_is_an_empty_body(raw: bytes, c: str) -> None:
    assert Message.parse(raw).body == b""
    signed = sign_as(ke(), raw.removesuffix(b"\r\n\r\n").removesuffix(b"\r\n") + b"\r\n\r\n", c=c)
    assert result_of(signed.removesuffix(b"\r\n\r\n")).status.value == "pass"


@pytest.mark.attack("F48")
def test_of_two_fields_the_lower_one_is_signed() -> None:
    signed = sign_as(ke(), mail(more=b"Content-Type: text/plain\r\n"), h="from:content-type")
    above = b"Content-Type: text/html\r\n" + signed
    below = signed.replace(b"text/plain\r\n", b"text/plain\r\nContent-Type: text/html\r\n")
    assert [result_of(raw).status.value for raw in (signed, above, below)] == ["pass", "pass", "fail"]


@pytest.mark.attack("F28", "F41", "F42")
@pytest.mark.parametrize(
    ("raw", "limit_s"),
    [
        (authors(b"x@evil.test " + b"(" * 100_000), 0.05),
        (authors(b"x@evil.test " + b"(" * 30_000), 0.05),
        (authors(b",".join(b"a%d@evil.test" % n for n in range(5_000))), 0.05),
        (b"X-A: b\r\n" * 20_000 + authors(b"<x@evil.test>"), 0.2),
        (b"DKIM-Signature: v=1; d=bank.test\r\n" * 5_000 + authors(b"<x@evil.test>"), 0.2),
        (b"a:\r\n" * 1_000_000 + authors(b"<x@evil.test>"), 1.5),
    ],
    ids=["F28", "F28 within the size", "F41", "F42", "F42 signatures", "F42 nothing but fields"],
)
def test_hostile_size_costs_little(raw: bytes, limit_s: float) -> None:
    def work() -> None:
        message = Message.parse(raw)
        assert message.malformed is not None
        results_of(raw)

    # The usual time is a tenth of the limit.
    assert best_cpu_s(work) < limit_s


@pytest.mark.attack("F42")
def test_a_header_far_beyond_the_bounds_is_not_kept() -> None:
    raw = b"a:\r\n" * 500_000 + authors(b"<x@evil.test>")
    tracemalloc.start()
    try:
        message = Message.parse(raw)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert message.malformed is MalformedReason.HEADER_SIZE
    # It was 88 times the message.
    assert peak < 20 * len(raw)


@pytest.mark.parametrize("before", [1, 60_000])
def test_what_follows_a_line_that_is_no_field_is_body(before: int) -> None:
    """However much there is of it before the first empty line."""
    rest = b"no field\r\n" + b"a: b\r\n" * 100_000 + b"\r\nbody\r\n"
    message = Message.parse(b"A: " + b"b" * before + b"\r\n" + rest)
    assert message.malformed is MalformedReason.HEADER_SYNTAX
    assert message.body == rest


@pytest.mark.parametrize(
    ("raw", "fields", "body"),
    [
        (b"A: 1\r\nB:2\r\n\r\nx\r\n", [(b"A", b" 1"), (b"B", b"2")], b"x\r\n"),
        (b"A: 1\nB:2\n\nx\n", [(b"A", b" 1"), (b"B", b"2")], b"x\r\n"),
        (b"A: 1\r\n\r\nx\ny\rz\r\r\n", [(b"A", b" 1")], b"x\r\ny\rz\r\r\n"),
        (b"A: 1\r\n 2\n\t3\r\n\r\n", [(b"A", b" 1\r\n 2\r\n\t3")], b""),
        (b"A:\r\n \r\n\r\n", [(b"A", b"\r\n ")], b""),
        (b"A: 1\r\n\r\n\r\nx", [(b"A", b" 1")], b"\r\nx"),
        (b"A::1:2\r\n\r\n", [(b"A", b":1:2")], b""),
        (b"A: 1\r\r\n\r\n", [(b"A", b" 1\r")], b""),
        (b"A: 1\r\njunk\r\n", [(b"A", b" 1")], b"junk\r\n"),
        (b"A: 1\r\njunk\r\n\r\nx\r\n", [(b"A", b" 1")], b"junk\r\n\r\nx\r\n"),
        (b"A: 1\r\njunk", [(b"A", b" 1")], b"junk"),
        (b"\r\nA: 1\r\n", [], b"A: 1\r\n"),
    ],
)
def test_fields_and_body(raw: bytes, fields: list[tuple[bytes, bytes]], body: bytes) -> None:
    message = Message.parse(raw)
    assert [(field.name, field.value) for field in message.fields] == fields
    assert message.body == body


def test_white_space_before_the_colon_is_kept_apart() -> None:
    (field,) = Message.parse(b"Subject \t: a\r\n\r\n").fields
    assert field == HeaderField(b"Subject", b" a", b" \t")
    assert field.raw == b"Subject \t: a"


def test_from_fields_judges_like_parse() -> None:
    fields = (HeaderField(b"From", b" <x@evil.test>"), HeaderField(b"FROM", b" <ceo@bank.test>"))
    assert Message.from_fields(fields).malformed is SEVERAL
    assert Message.from_fields(fields[:1]).author.domains == (EVIL,)
    assert Message.from_fields([HeaderField(b"From", b" <x@evil.test>\0")]).malformed is HEADER
    assert Message.from_fields(fields[:1]).body is None


LINE = st.sampled_from(
    [b"From: <x@evil.test>", b" fold", b"\t", b"", b"X : y", b": z", b"junk", b"\r", b"a\0: b", b"From", b"\xff:"]
)


@given(
    st.binary(max_size=200)
    | st.lists(LINE, max_size=12).map(b"\r\n".join)
    | st.lists(LINE, max_size=12).map(b"\n".join)
)
def test_any_octets_are_a_message(raw: bytes) -> None:
    message = Message.parse(raw)
    assert message.body is not None
    assert (message.malformed is None) == (message.malformed_detail == "")
    assert (
        message.malformed is None
        or message.malformed is DOMAINS
        or message.header_defect
        or not message.author.domains
    )
    normal = raw.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
    header = b"".join(field.raw + b"\r\n" for field in message.fields)
    # Nothing is lost or made up: the header as read and the body are the octets that came.
    assert normal.rstrip(b"\r\n") in {
        (header + message.body).rstrip(b"\r\n"),
        (header + b"\r\n" + message.body).rstrip(b"\r\n"),
    }
    digests = BodyDigests([BodyRequest(form) for form in Canonicalization])
    digests.update(message.body)
    digests.finish()


NAME = st.from_regex(rb"[!-9;-~]{1,12}", fullmatch=True)
TEXT = st.binary(max_size=20).map(lambda octets: octets.replace(b"\n", b"").replace(b"\0", b"").removesuffix(b"\r"))
VALUE = st.lists(st.tuples(st.sampled_from([b" ", b"\t"]), TEXT).map(b"".join), max_size=3).map(b"\r\n".join)


@given(st.lists(st.tuples(NAME, TEXT, VALUE), min_size=1, max_size=6), st.binary(max_size=50))
def test_well_formed_headers_round_trip(fields: list[tuple[bytes, bytes, bytes]], body: bytes) -> None:
    raw = b"".join(name + b":" + first + (b"\r\n" + rest if rest else b"") + b"\r\n" for name, first, rest in fields)
    body = body.replace(b"\r", b"").replace(b"\n", b"\r\n")
    message = Message.parse(raw + b"\r\n" + body)
    assert message.header_defect is None
    assert [field.name for field in message.fields] == [name for name, _, _ in fields]
    assert b"".join(field.raw + b"\r\n" for field in message.fields) == raw
    assert message.body == body
