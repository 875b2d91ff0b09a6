"""dkimpy's verdict beside ours: that it is asked fairly, and that nothing it does gets out."""

from __future__ import annotations

import base64
import hashlib
import time
from collections.abc import Callable

import dkim
import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicNumbers
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

import mailguard.dkim.second_opinion as module
from cpu_time import best_cpu_s
from mailguard.dkim.result import DkimReason, DkimResult, DkimStatus
from mailguard.dkim.second_opinion import SecondOpinion, SecondVerdict, difference, second_opinion
from mailguard.dkim.sign import SigningRules
from mailguard.dkim.signing_key import SigningKey, generate_ed25519, generate_rsa
from mailguard.dns.answers import Answers, Unanswered, evaluate
from mailguard.dns.question import Question, RecordType, Status
from mailguard.dns.zone import ZoneResolver
from mailguard.message import Message
from mailguard.pipeline import sign_dkim, verify_dkim
from zone0 import rsa_key, sign_as

PRIVATE = rsa_key(2048)
RSA_PEM = PRIVATE.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
RSA = SigningKey.from_bytes(RSA_PEM, domain="example.com", selector="r")
ED25519 = SigningKey.from_bytes(generate_ed25519(), domain="example.com", selector="e")
MAIL = b"From: a@example.com\r\nTo: b@example.net\r\nSubject: hello\r\n\r\nGood day\r\n"
RECORDS = {key.public_name: {"TXT": [key.record()]} for key in (RSA, ED25519)}


def signed(*keys: SigningKey, mail: bytes = MAIL, now: float | None = None, lifetime_s: int = 604_800) -> bytes:
    rules = SigningRules(lifetime_s=lifetime_s)
    fields = sign_dkim(Message.parse(mail), keys=keys, now=time.time() if now is None else now, rules=rules)
    return b"".join(field.raw + b"\r\n" for field in fields) + mail


def by_dkimpy(*, identity: bytes | None = None, length: bool = False) -> bytes:
    """MAIL, signed by dkimpy with what we never make."""
    field = dkim.sign(
        MAIL, b"r", b"example.com", RSA_PEM, identity=identity, length=length, include_headers=[b"from"]
    )
    return bytes(field) + MAIL


def asked(raw: bytes, resolver: ZoneResolver | None = None) -> tuple[SecondOpinion, ...]:
    resolver = resolver or ZoneResolver(RECORDS)
    return evaluate(lambda answers: second_opinion(raw, answers), resolver, deadline=0.0)


def both(raw: bytes, resolver: ZoneResolver, now: float | None = None) -> tuple[DkimResult, SecondOpinion, str]:
    """Our result, dkimpy's and the difference, for a message with one signature."""
    now = time.time() if now is None else now
    (ours,) = verify_dkim(Message.parse(raw), resolver=resolver, now=now)
    (theirs,) = asked(raw, resolver)
    return ours, theirs, difference(ours, theirs)


def test_one_opinion_for_each_signature_from_the_top() -> None:
    raw = signed(RSA, ED25519)
    assert [each.verdict for each in asked(raw)] == [SecondVerdict.PASS, SecondVerdict.PASS]
    resolver = ZoneResolver({RSA.public_name: {"TXT": [RSA.record()]}})
    assert [each.verdict for each in asked(raw, resolver)] == [SecondVerdict.PASS, SecondVerdict.FAIL]
    assert [each.verdict for each in asked(raw.replace(b"\r\n", b"\n"))] == [SecondVerdict.PASS] * 2
    assert asked(MAIL) == ()


@pytest.mark.parametrize(
    ("old", "new"), [(b"Good day", b"Bad day"), (b"Subject: hello", b"Subject: hallo"), (b"; s=r;", b"; s=none;")]
)
def test_what_was_changed_fails_with_a_reason(old: bytes, new: bytes) -> None:
    raw = signed(RSA)
    unfolded = raw.replace(b";\r\n\ts=r;", b"; s=r;")
    changed = unfolded.replace(old, new)
    assert changed != unfolded
    (theirs,) = asked(changed)
    assert theirs.verdict is SecondVerdict.FAIL
    assert theirs.detail


def test_all_missing_keys_are_noted_in_one_round() -> None:
    answers = Answers()
    with pytest.raises(Unanswered):
        second_opinion(signed(RSA, ED25519), answers)
    assert answers.missing == (
        Question("r._domainkey.example.com", RecordType.TXT),
        Question("e._domainkey.example.com", RecordType.TXT),
    )


@pytest.mark.parametrize("status", [Status.TEMPFAIL, Status.BOGUS])
def test_no_answer_is_false_to_dkimpy_and_the_comparison_says_so(status: Status) -> None:
    resolver = ZoneResolver(RECORDS, status={(RSA.public_name, "TXT"): status})
    ours, theirs, text = both(signed(RSA), resolver)
    assert (ours.status, theirs.verdict) == (DkimStatus.TEMPERROR, SecondVerdict.FAIL)
    assert "DNS did not answer" in theirs.detail
    assert "it has no temporary error" in text


def records(change: Callable[[bytes], bytes]) -> ZoneResolver:
    return ZoneResolver({RSA.public_name: {"TXT": [change(RSA.record())]}})


def test_known_differences_are_explained() -> None:
    raw = signed(RSA)
    ours, theirs, text = both(raw, records(lambda record: record + b"; h=sha1"))
    assert (ours.reason, theirs.verdict) == (DkimReason.KEY_HASH, SecondVerdict.PASS)
    assert text == "dkimpy ignores h= of the key record"

    ours, theirs, text = both(raw, records(lambda record: record + b"; s=other"))
    assert (ours.reason, theirs.verdict) == (DkimReason.KEY_SERVICE, SecondVerdict.FAIL)
    assert text == ""

    below = by_dkimpy(identity=b"@x.example.com")
    ours, theirs, text = both(below, records(lambda record: record + b"; t=s"))
    assert (ours.reason, theirs.verdict) == (DkimReason.KEY_STRICT, SecondVerdict.PASS)
    assert text == "dkimpy ignores t=s of the key record"

    for raw_again, tags in ((below, b"; t=y:s"), (raw, b"; t=y; h=sha1")):
        ours, theirs, text = both(raw_again, ZoneResolver({RSA.public_name: {"TXT": [RSA.record() + tags]}}))
        assert (ours.reason, theirs.verdict) == (DkimReason.TESTING, SecondVerdict.PASS)
        assert text == "dkimpy ignores h= and t= of the key record"

    ours, theirs, text = both(raw, records(lambda record: b"k=rsa; " + record.replace(b" k=rsa;", b"")))
    assert (ours.reason, theirs.verdict) == (DkimReason.KEY_SYNTAX, SecondVerdict.PASS)
    assert text == "dkimpy accepts malformed key records, such as one in which v= is not the first tag"

    ours, theirs, text = both(signed(RSA, mail=MAIL.replace(b"To:", b"To :")), ZoneResolver(RECORDS))
    assert (ours.status, theirs.verdict) == (DkimStatus.PASS, SecondVerdict.FAIL)
    assert text == "dkimpy refuses a header in which white space stands before a colon, or a line is no field"

    ours, theirs, text = both(by_dkimpy(length=True), ZoneResolver(RECORDS))
    assert (ours.reason, theirs.verdict) == (DkimReason.BODY_LENGTH, SecondVerdict.PASS)
    assert text == "dkimpy accepts a signature with l=, after which anyone can append"


OTHER_RECORD = SigningKey.from_bytes(generate_rsa(), domain="example.com", selector="r").record()


@pytest.mark.parametrize(
    "first", [b"v=spf1 -all", b"hello", b"v=DKIM1; p=", OTHER_RECORD], ids=["SPF", "no list", "revoked", "other"]
)
def test_dkimpy_is_given_the_first_record_only(first: bytes) -> None:
    raw = signed(RSA)
    ours, theirs, text = both(raw, ZoneResolver({RSA.public_name: {"TXT": [first, RSA.record()]}}))
    assert (ours.status, theirs.verdict) == (DkimStatus.PASS, SecondVerdict.FAIL)
    assert theirs.detail.startswith("it is given the first of 2 TXT records: ")
    assert text == "dkimpy is given the first of several TXT records only"
    ours, theirs, text = both(raw, ZoneResolver({RSA.public_name: {"TXT": [RSA.record(), first]}}))
    assert (ours.status, theirs.verdict, text) == (DkimStatus.PASS, SecondVerdict.PASS, "")


@pytest.mark.parametrize(
    ("tags", "record"),
    [
        ({"a": "RSA-SHA256"}, b""),
        ({"c": "Relaxed/relaxed"}, b""),
        ({"q": "dns/txt:http"}, b""),
        ({"q": "DNS/TXT"}, b""),
        ({"i": "a @ example.com"}, b""),
        ({}, b"k=RSA; "),
        ({}, b"s=email:tlsrpt; "),
    ],
    ids=str,
)
def test_dkimpy_knows_one_form_of_a_tag(tags: dict[str, str | bytes | None], record: bytes) -> None:
    raw = sign_as(PRIVATE, MAIL, d="example.com", s="r", h="from", tags=tags)
    ours, theirs, text = both(
        raw, records(lambda published: published.replace(b"k=rsa; ", b"").replace(b"p=", record + b"p="))
    )
    assert (ours.status, theirs.verdict) == (DkimStatus.PASS, SecondVerdict.FAIL)
    assert text.startswith("dkimpy knows no upper case in a=")


@pytest.mark.parametrize("tags", [{"i": "a@_x.example.com"}, {"zz": "\x01"}, {"t-": "1"}], ids=str)
def test_dkimpy_accepts_malformed_signatures(tags: dict[str, str | bytes | None]) -> None:
    ours, theirs, text = both(
        sign_as(PRIVATE, MAIL, d="example.com", s="r", h="from", tags=tags), ZoneResolver(RECORDS)
    )
    assert (ours.reason, theirs.verdict) == (DkimReason.SYNTAX, SecondVerdict.PASS)
    assert text.startswith("dkimpy accepts malformed signatures")


def test_dkimpy_reads_the_clock_itself() -> None:
    long_ago = 1_000_000_000
    raw = signed(RSA, now=long_ago, lifetime_s=3600)
    ours, theirs, text = both(raw, ZoneResolver(RECORDS), now=long_ago + 60)
    assert (ours.status, theirs.verdict) == (DkimStatus.PASS, SecondVerdict.FAIL)
    assert text == "dkimpy reads the clock itself, and by that the signature is not valid now"
    an_hour_late = signed(RSA, now=time.time() - 7200, lifetime_s=3600)
    ours, theirs, text = both(an_hour_late, ZoneResolver(RECORDS))
    assert (ours.reason, theirs.verdict) == (DkimReason.EXPIRED, SecondVerdict.PASS)
    assert text == "dkimpy reads the clock itself and allows 10 hours"


def result(status: DkimStatus, reason: DkimReason) -> DkimResult:
    return DkimResult(status=status, reason=reason, detail="")


PASS = result(DkimStatus.PASS, DkimReason.VERIFIED)
FAIL = result(DkimStatus.FAIL, DkimReason.SIGNATURE)


@pytest.mark.parametrize(
    ("ours", "verdict", "said"),
    [
        (PASS, SecondVerdict.PASS, ""),
        (PASS, SecondVerdict.NOT_ASKED, ""),
        (PASS, SecondVerdict.FAIL, "does not pass it"),
        (PASS, SecondVerdict.ERROR, "error of its own"),
        (FAIL, SecondVerdict.FAIL, ""),
        (FAIL, SecondVerdict.ERROR, ""),
        (FAIL, SecondVerdict.NOT_ASKED, ""),
        (FAIL, SecondVerdict.PASS, "no fault that is known"),
        (result(DkimStatus.TEMPERROR, DkimReason.KEY_UNAVAILABLE), SecondVerdict.PASS, "no fault that is known"),
    ],
)
def test_difference(ours: DkimResult, verdict: SecondVerdict, said: str) -> None:
    text = difference(ours, SecondOpinion(verdict=verdict, detail="x"))
    assert said in text
    assert bool(said) is bool(text)


def header(value: bytes) -> bytes:
    return b"DKIM-Signature: " + value + b"\r\n" + MAIL


SIGNATURE = b"v=1; a=rsa-sha256; c=relaxed/relaxed; d=example.com; s=r; h=from; bh=AAAA; b=AAAA"

# What made dkimpy slow, or would: each takes it seconds without the bounds.
HOSTILE = [
    ("long-body", header(SIGNATURE) + b"x" * 300_000, "the body has more than"),
    ("blanks-in-body", header(SIGNATURE) + b" " * 200_000 + b"x", "blanks in a row"),
    ("tabs-in-body", header(SIGNATURE) + b" \t" * 100_000 + b"x", "blanks in a row"),
    ("blanks-in-b", header(SIGNATURE.replace(b"b=AAAA", b"b=A" + b" " * 1_000 + b"(")), "blanks in a row"),
    ("long-signature", header(SIGNATURE + b"; h=" + b"from:" * 2_000), "a signature has more than"),
    (
        "long-header",
        header(SIGNATURE)[: -len(b"\r\n\r\nGood day\r\n")] + b"x" * 70_000 + b"\r\n\r\n",
        "the header has more",
    ),
    ("many-fields", b"A: b\r\n" * 2_000 + header(SIGNATURE), "the header has more"),
]


@pytest.mark.parametrize(("raw", "why"), [row[1:] for row in HOSTILE], ids=[row[0] for row in HOSTILE])
def test_what_dkimpy_is_slow_on_is_not_asked(raw: bytes, why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(dkim, "DKIM")
    (theirs,) = asked(raw)
    assert theirs.verdict is SecondVerdict.NOT_ASKED
    assert why in theirs.detail


def rsa_record(modulus: int, exponent: int, tags: bytes = b"", junk: bytes = b"") -> bytes:
    octets = RSAPublicNumbers(exponent, modulus).public_key().public_bytes(Encoding.DER, PublicFormat.PKCS1)
    return tags + b"p=" + junk + base64.b64encode(octets)


BITS_11800 = (1 << 11_800) - 159
BITS_8192 = (1 << 8_192) - 12_345
LARGE_KEYS = [
    rsa_record(BITS_11800, BITS_11800 - 2),
    rsa_record(BITS_11800, 65537),
    rsa_record(BITS_8192, (1 << 64) + 1),
    # Ours refuses these before it looks at the numbers; dkimpy does not.
    rsa_record(BITS_11800, BITS_11800 - 2, b"v=DKIM1; h=sha1; "),
    rsa_record(BITS_11800, BITS_11800 - 2, b"k=rsa; v=DKIM1; "),
    rsa_record(BITS_11800, BITS_11800 - 2, junk=b"!"),
]


@pytest.mark.parametrize("record", LARGE_KEYS, ids=["both", "modulus", "exponent", "hash", "version", "base64"])
def test_a_key_with_which_dkimpy_computes_for_long_is_refused(record: bytes) -> None:
    (theirs,) = asked(header(SIGNATURE), ZoneResolver({RSA.public_name: {"TXT": [record]}}))
    assert theirs.verdict is SecondVerdict.FAIL
    assert "bits: it takes very long" in theirs.detail


def test_the_largest_key_that_we_accept_is_no_work_for_dkimpy() -> None:
    body_hash = base64.b64encode(hashlib.sha256(b"Good day\r\n").digest())
    value = SIGNATURE.replace(b"bh=AAAA; b=AAAA", b"bh=" + body_hash + b"; b=" + b"Q" * 1_364)
    raw = (b"DKIM-Signature: " + value + b"\r\n") * 10 + MAIL
    resolver = ZoneResolver({RSA.public_name: {"TXT": [rsa_record(BITS_8192, (1 << 64) - 1)]}})
    assert {each.detail for each in asked(raw, resolver)} == {"it says False and gives no reason"}
    assert best_cpu_s(lambda: asked(raw, resolver)) < 2


def test_ten_signatures_are_asked() -> None:
    raw = (b"DKIM-Signature: " + SIGNATURE + b"\r\n") * 12 + MAIL
    verdicts = [each.verdict for each in asked(raw)]
    assert verdicts == [SecondVerdict.FAIL] * 10 + [SecondVerdict.NOT_ASKED] * 2


@pytest.mark.attack("D02")
@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"s=r;", b"s=r._domainkey.evil.test.\0.any;"),
        (b"s=r;", b"s=a b;"),
        (b"s=r;", b"s=;"),
        (b"s=r;", b"s=" + b"x" * 64 + b";"),
        (b"d=example.com;", b"d=" + b"x." * 130 + b"com;"),
        (b"d=example.com;", b"d=b\xc3\xbccher.example;"),
    ],
)
def test_a_name_that_is_none_is_never_looked_up(old: bytes, new: bytes) -> None:
    answers = Answers(closed=True)
    (theirs,) = second_opinion(header(SIGNATURE.replace(old, new)), answers)
    assert theirs.verdict is SecondVerdict.ERROR
    assert theirs.detail == "it asks for a name that is not a host name"
    assert answers.consumed == ()


@pytest.mark.parametrize(
    "raw",
    [
        header(b""),
        header(b";"),
        header(b"v=1; v=1"),
        header(SIGNATURE + b"; x=" + b"9" * 5_000),
        header(SIGNATURE + b"; i="),
        header(SIGNATURE.replace(b"h=from", b"h=")),
        header(SIGNATURE.replace(b"c=relaxed/relaxed", b"c=\xff/\x00")),
        header(SIGNATURE)[: -len(MAIL)],
        header(SIGNATURE).replace(b"\r\nFrom", b"\r\nno field\r\nFrom"),
        b" fold first\r\n" + header(SIGNATURE),
        header(SIGNATURE).replace(b"DKIM-Signature:", b"DKIM-Signature :"),
    ],
)
@pytest.mark.parametrize(
    "record", [b"", b"p=", b"v=DKIM1; k=rsa; p=AAAA", b"\xff\x00", b"p=" + b"A" * 5_000, b"k=x; p=A"]
)
def test_nothing_gets_out(raw: bytes, record: bytes) -> None:
    resolver = ZoneResolver({RSA.public_name: {"TXT": [record]}})
    theirs = asked(raw, resolver)
    assert len(theirs) == len(Message.parse(raw).named(b"dkim-signature"))
    for each in theirs:
        assert each.verdict in (SecondVerdict.FAIL, SecondVerdict.ERROR)
        assert each.detail.isascii()
        assert each.detail.isprintable()
        assert len(each.detail) <= module.MAX_DETAIL_CHARS + len("...")


def test_any_exception_is_an_error_with_its_text(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: object, **named: object) -> bool:
        raise AssertionError("odd\r\n\x1b[31m thing")

    monkeypatch.setattr(dkim.DKIM, "verify", broken)
    (theirs,) = asked(signed(RSA))
    assert theirs.verdict is SecondVerdict.ERROR
    assert theirs.detail == r"AssertionError: odd\r\n\x1b[31m thing"


def test_without_pynacl_ed25519_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(dkim, "nacl")
    opinions = asked(signed(RSA, ED25519))
    assert [each.verdict for each in opinions] == [SecondVerdict.PASS, SecondVerdict.NOT_ASKED]
    assert "PyNaCl" in opinions[1].detail


def test_an_opinion_is_not_a_condition() -> None:
    with pytest.raises(TypeError, match="compare its verdict"):
        bool(SecondOpinion(verdict=SecondVerdict.PASS, detail=""))
