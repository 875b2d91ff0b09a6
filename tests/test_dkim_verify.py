"""Verifying what attackers send: no pass that RFC 6376, 8301 and 8463 forbid, and a reason for every result."""

from __future__ import annotations

import base64
import itertools
import re
import subprocess
from collections.abc import Iterator

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from mailguard.dkim.result import DkimReason, DkimResult, DkimStatus
from mailguard.dkim.sign import SigningRules
from mailguard.dkim.verify import MAX_KEYS, BodyLengthRule, VerifyRules, plan_verification
from mailguard.dns.question import Status
from mailguard.dns.zone import ZoneResolver
from mailguard.domain import Domain
from mailguard.message import MalformedReason, Message
from mailguard.pipeline import sign_dkim
from zone0 import (
    BANK,
    DAY_S,
    EVIL,
    NOW,
    PrivateKey,
    ed25519_key,
    evil_key,
    kb,
    ke,
    key_record,
    mail,
    naive_body,
    naive_field,
    our_key,
    result_of,
    results_of,
    rsa_key,
    sign_as,
    signed_fields,
    split_fields,
    zone,
)

PASS, FAIL, POLICY, NEUTRAL = DkimStatus.PASS, DkimStatus.FAIL, DkimStatus.POLICY, DkimStatus.NEUTRAL
PERMERROR, TEMPERROR = DkimStatus.PERMERROR, DkimStatus.TEMPERROR
EVIL_KEY_NAME = "s1._domainkey.evil.test"


def status_and_reason(result: DkimResult) -> tuple[DkimStatus, DkimReason]:
    return result.status, result.reason


def signed_by_us(raw: bytes) -> bytes:
    (field,) = sign_dkim(Message.parse(raw), keys=[our_key()], now=NOW, rules=SigningRules())
    return field.raw + b"\r\n" + raw


@pytest.mark.attack("D01")
def test_the_attackers_signature_passes_for_the_attackers_domain_only() -> None:
    result = result_of(sign_as(ke(), mail(f"<ceo@{BANK}>")))
    assert status_and_reason(result) == (PASS, DkimReason.VERIFIED)
    assert (result.domain, result.selector, result.identity) == (EVIL, "s1", f"@{EVIL}")
    assert (result.algorithm, result.key_bits, result.testing) == ("ed25519-sha256", 256, False)


@pytest.mark.parametrize(
    ("private", "bits"),
    [(rsa_key(1024), 1024), (rsa_key(2048), 2048), (ed25519_key(), 256)],
    ids=["1024", "2048", "ed"],
)
def test_algorithms(private: PrivateKey, bits: int) -> None:
    raw = sign_as(private, mail())
    result = result_of(raw, evil_key(key_record(private)))
    assert (result.status, result.key_bits) == (PASS, bits)
    assert result_of(raw.replace(b"offer", b"Offer"), evil_key(key_record(private))).reason is DkimReason.SIGNATURE
    assert result_of(raw.replace(b"world", b"World"), evil_key(key_record(private))).reason is DkimReason.BODY_HASH


def test_somebody_elses_key_for_the_banks_domain() -> None:
    assert status_and_reason(result_of(sign_as(rsa_key(2048, 9), mail(), d=BANK))) == (FAIL, DkimReason.SIGNATURE)
    assert status_and_reason(result_of(sign_as(ke(), mail(), d=BANK))) == (PERMERROR, DkimReason.KEY_TYPE)


@pytest.mark.attack("D07")
def test_second_from() -> None:
    second = b"From: <x@evil.test>\r\n"
    once = sign_as(kb(), mail(f"<ceo@{BANK}>"), d=BANK, h="from:to")
    twice = sign_as(kb(), mail(f"<ceo@{BANK}>"), d=BANK, h="from:from:to")
    assert [result_of(raw).status for raw in (once, twice)] == [PASS, PASS]
    # RFC 6376 §5.4.2: the lowest From is the signed one. The structural check is the only defence.
    assert result_of(second + once).status is PASS
    assert Message.parse(second + once).malformed is MalformedReason.SEVERAL_FROM
    assert status_and_reason(result_of(second + twice)) == (FAIL, DkimReason.SIGNATURE)
    below = once.replace(b"To:", second + b"To:")
    assert status_and_reason(result_of(below)) == (FAIL, DkimReason.SIGNATURE)


@pytest.mark.attack("D09")
@pytest.mark.parametrize("added", [b"Subject: Another\r\n", b"subject:\r\n", b"SUBJECT : An offer\r\n"])
def test_a_subject_added_to_what_we_signed(added: bytes) -> None:
    raw = signed_by_us(mail("<alice@us.test>"))
    assert result_of(raw).status is PASS
    assert status_and_reason(result_of(added + raw)) == (FAIL, DkimReason.SIGNATURE)
    assert status_and_reason(result_of(raw.replace(b"\r\nDate", b"\r\n" + added + b"Date"))) == (
        FAIL,
        DkimReason.SIGNATURE,
    )


BODY = b"Hello,\r\n\r\nworld.\r\n"
HTML = b"<html>An advertisement</html>\r\n"


@pytest.mark.attack("D10", "D11")
@pytest.mark.parametrize("c", ["simple/simple", "relaxed/relaxed"])
@pytest.mark.parametrize(
    ("length", "added", "by_default", "accepting_whole"),
    [
        (len(BODY), b"", POLICY, PASS),
        (len(BODY), b"\r\n\r\n", POLICY, PASS),
        (len(BODY), HTML, POLICY, POLICY),
        (5, b"", POLICY, POLICY),
        (1, HTML, POLICY, POLICY),
        (0, b"", POLICY, POLICY),
        (0, HTML, POLICY, POLICY),
        (len(BODY) + 1, b"", PERMERROR, PERMERROR),
        (10**75, b"", PERMERROR, PERMERROR),
    ],
)
def test_body_length(c: str, length: int, added: bytes, by_default: DkimStatus, accepting_whole: DkimStatus) -> None:
    raw = sign_as(ke(), mail(body=BODY), c=c, tags={"l": str(length)}) + added
    assert result_of(raw).status is by_default
    accepting = VerifyRules(body_length=BodyLengthRule.ACCEPT_WHOLE)
    assert result_of(raw, rules=accepting).status is accepting_whole


@pytest.mark.attack("D11")
def test_l_0_of_an_empty_body_is_no_credit() -> None:
    accepting = VerifyRules(body_length=BodyLengthRule.ACCEPT_WHOLE)
    raw = sign_as(ke(), mail(body=b""), tags={"l": "0"})
    assert result_of(raw, rules=accepting).status is POLICY


@pytest.mark.attack("D10")
def test_a_change_within_l_fails() -> None:
    raw = sign_as(ke(), mail(body=BODY), tags={"l": "5"})
    assert status_and_reason(result_of(raw.replace(b"Hello", b"hello"))) == (FAIL, DkimReason.BODY_HASH)


@pytest.mark.attack("D13", "D14")
@pytest.mark.parametrize(
    ("t", "x", "status", "reason"),
    [
        (NOW, NOW + 1, PASS, DkimReason.VERIFIED),
        (NOW - DAY_S, NOW - 300, PASS, DkimReason.VERIFIED),
        (NOW - DAY_S, NOW - 301, FAIL, DkimReason.EXPIRED),
        (NOW - DAY_S, NOW - 3_600, FAIL, DkimReason.EXPIRED),
        (None, 0, FAIL, DkimReason.EXPIRED),
        (None, 10**11, PASS, DkimReason.VERIFIED),
        (NOW + 300, None, PASS, DkimReason.VERIFIED),
        (NOW + 301, None, POLICY, DkimReason.FUTURE),
        (NOW + DAY_S, NOW + 2 * DAY_S, POLICY, DkimReason.FUTURE),
        (10**20, None, POLICY, DkimReason.FUTURE),
        (0, None, PASS, DkimReason.VERIFIED),
        (NOW, NOW - 1, PERMERROR, DkimReason.SYNTAX),
        (NOW, NOW, PERMERROR, DkimReason.SYNTAX),
    ],
)
def test_times(t: int | None, x: int | None, status: DkimStatus, reason: DkimReason) -> None:
    tags = {name: None if value is None else str(value) for name, value in (("t", t), ("x", x))}
    assert status_and_reason(result_of(sign_as(ke(), mail(), tags=tags))) == (status, reason)


KEY = key_record(ke())


@pytest.mark.attack("D18", "D25", "D26", "D34", "D46")
@pytest.mark.parametrize(
    ("record", "status", "reason"),
    [
        (KEY, PASS, DkimReason.VERIFIED),
        (key_record(ke(), "t=s; "), PERMERROR, DkimReason.KEY_STRICT),
        (key_record(ke(), "t=y:s; "), NEUTRAL, DkimReason.TESTING),
        (b"v=DKIM1; k=ed25519; p=", PERMERROR, DkimReason.KEY_REVOKED),
        (b"v=DKIM1; k=ed25519; t=y; p=", NEUTRAL, DkimReason.TESTING),
        (key_record(rsa_key(1024)), PERMERROR, DkimReason.KEY_TYPE),
        (key_record(ke(), "h=sha1; "), PERMERROR, DkimReason.KEY_HASH),
        (key_record(ke(), "s=tlsrpt; "), PERMERROR, DkimReason.KEY_SERVICE),
        (KEY.replace(b"DKIM1", b"DKIM2"), PERMERROR, DkimReason.KEY_SYNTAX),
        (b"v=spf1 -all", PERMERROR, DkimReason.KEY_SYNTAX),
        (b"", PERMERROR, DkimReason.KEY_SYNTAX),
        (tuple([KEY] + [b"x" * 15] * 3_999), PERMERROR, DkimReason.KEY_SYNTAX),
        (key_record(ed25519_key(9)), FAIL, DkimReason.SIGNATURE),
        (key_record(ed25519_key(9), "t=y; "), NEUTRAL, DkimReason.TESTING),
    ],
)
def test_key_records(record: bytes | tuple[bytes, ...], status: DkimStatus, reason: DkimReason) -> None:
    raw = sign_as(ke(), mail(), tags={"i": "@sub.evil.test"})
    assert status_and_reason(result_of(raw, evil_key(record))) == (status, reason)


@pytest.mark.attack("D20")
@pytest.mark.parametrize("bits", [512, 1023])
def test_a_right_signature_of_a_key_that_is_too_small_never_passes(bits: int) -> None:
    made = subprocess.run(["openssl", "genrsa", str(bits)], capture_output=True, check=True).stdout
    private = load_pem_private_key(made, password=None)
    assert isinstance(private, rsa.RSAPrivateKey)
    result = result_of(sign_as(private, mail()), evil_key(key_record(private)))
    assert (result.status, result.reason, result.key_bits) == (PERMERROR, DkimReason.KEY_SIZE, bits)


@pytest.mark.attack("D46")
def test_testing_key_is_no_worse_and_no_better_than_none() -> None:
    resolver = evil_key(key_record(ke(), "t=y; "))
    raw = sign_as(ke(), mail())
    passed, failed = result_of(raw, resolver), result_of(raw.replace(b"world", b"World"), resolver)
    assert (passed.status, passed.testing) == (PASS, True)
    assert (failed.status, failed.reason, failed.testing) == (NEUTRAL, DkimReason.TESTING, True)
    # Beside one that is not in testing, what fails fails, and what passes passes by the key that made it.
    both = ZoneResolver(zone({EVIL_KEY_NAME: {"TXT": [key_record(ed25519_key(9), "t=y; "), KEY]}}))
    assert (result_of(raw, both).status, result_of(raw, both).testing) == (PASS, False)
    assert result_of(raw.replace(b"world", b"World"), both).status is FAIL
    assert result_of(raw.replace(b"offer", b"Offer"), both).status is FAIL


@pytest.mark.attack("D11", "D36", "D37", "D46")
@pytest.mark.parametrize(
    ("said", "tags", "status", "reason"),
    [
        (Status.NOERROR, "", PERMERROR, DkimReason.BODY_TOO_SHORT),
        (Status.NOERROR, "t=y; ", NEUTRAL, DkimReason.TESTING),
        (Status.NXDOMAIN, "", PERMERROR, DkimReason.KEY_MISSING),
        (Status.TEMPFAIL, "", PERMERROR, DkimReason.BODY_TOO_SHORT),
    ],
)
def test_key_of_a_body_that_was_cut(said: Status, tags: str, status: DkimStatus, reason: DkimReason) -> None:
    raw = sign_as(ke(), mail(), tags={"l": "1000"})
    records = {EVIL_KEY_NAME: {"TXT": [key_record(ke(), tags)]}}
    resolver = ZoneResolver(zone(records), status={(EVIL_KEY_NAME, "TXT"): said})
    assert status_and_reason(result_of(raw, resolver)) == (status, reason)


@pytest.mark.attack("D30")
def test_very_many_signatures() -> None:
    raw = mail(f"<ceo@{BANK}>", more=b"X: y\r\n")
    one = sign_as(ke(), raw).partition(b"\r\n")[0] + b"\r\n"
    plan = plan_verification(Message.parse(one * 900 + raw))
    assert (len(plan.chosen), plan.ignored) == (10, 890)
    results = results_of(one * 900 + raw)
    assert [result.status for result in results] == [PASS] * 10
    assert len(results_of(one * 900 + raw, rules=VerifyRules(max_signatures=3))) == 3
    too_many = plan_verification(Message.parse(one * 2_000 + raw))
    assert (too_many.chosen, too_many.ignored, too_many.questions) == ((), 2_000, ())


JUNK = [
    b"DKIM-Signature: v=1; a=rsa-sha256; d=evil.test; s=s%d; h=from; bh=" + b"A" * 43 + b"=; b=YWJj\r\n",
    b"DKIM-Signature: v=1; a=rsa-sha256; d=notbank.test; s=s%d; h=from; bh=" + b"A" * 43 + b"=; b=YWJj\r\n",
    b"DKIM-Signature: %d\r\n",
    b"DKIM-Signature: v=1; d=\xff%d\r\n",
    b"DKIM-Signature: v=1; d=bank.test; d=bank.test; s=s%d\r\n",
]


@pytest.mark.attack("D31")
@pytest.mark.parametrize("junk", JUNK)
@pytest.mark.parametrize("domain", [BANK, f"news.{BANK}", "test"])
def test_the_aligned_signature_is_found_below_the_flood(junk: bytes, domain: str) -> None:
    resolver = ZoneResolver(zone({f"s1._domainkey.{domain}": {"TXT": [key_record(kb())]}}))
    raw = sign_as(kb(), mail(f"<ceo@{BANK}>"), d=domain)
    flood = b"".join(junk.replace(b"%d", b"%d" % number) for number in range(900))
    results = results_of(flood + raw, resolver)
    assert len(results) == 10
    assert [result.domain for result in results if result.status is PASS] == [domain]


@pytest.mark.attack("D31")
@pytest.mark.parametrize("domain", ["bücher.test", "BÜCHER.test", "xn--bcher-kva.test", "lesen.bücher.test"])
def test_the_flood_does_not_hide_an_aligned_signature_with_u_labels(domain: str) -> None:
    a_labels = Domain.parse(domain)
    resolver = ZoneResolver(zone({f"s1._domainkey.{a_labels}": {"TXT": [key_record(kb())]}}))
    raw = sign_as(kb(), mail("<x@bücher.test>"), d=domain)
    for junk in (JUNK[0], "DKIM-Signature: v=1; d=ü%d.test; s=s1\r\n".encode()):
        flood = b"".join(junk.replace(b"%d", b"%d" % number) for number in range(900))
        results = results_of(flood + raw, resolver)
        assert [result.domain for result in results if result.status is PASS] == [a_labels]


@pytest.mark.attack("D31")
def test_unreadable_signatures_of_the_authors_domain_do_not_hide_a_readable_one() -> None:
    junk = b"DKIM-Signature: v=1; a=rsa-sha256; d=bank.test; s=s1; h=from; bh=x; b=YWJj\r\n" * 80
    results = results_of(junk + sign_as(kb(), mail(f"<ceo@{BANK}>"), d=BANK))
    assert [result.status for result in results].count(PASS) == 1


@pytest.mark.attack("D32", "D38")
def test_each_signature_has_its_own_result_in_the_order_of_the_header() -> None:
    raw = sign_as(ke(), mail())
    raw = sign_as(rsa_key(2048, 9), raw, d=BANK)
    raw = b"DKIM-Signature: junk\r\n" + raw
    assert [(result.status, result.domain) for result in results_of(raw)] == [
        (PERMERROR, None),
        (FAIL, BANK),
        (PASS, EVIL),
    ]
    # Of too many, those of the author's domain are chosen, and stay where they are.
    for first, second in (("a1", "b1"), ("b1", "a1")):
        raw = sign_as(kb(), sign_as(ke(), mail(f"<ceo@{BANK}>")), d=BANK, s=second)
        results = results_of(sign_as(kb(), raw, d=BANK, s=first), rules=VerifyRules(max_signatures=2))
        assert [result.selector for result in results] == [first, second]


FOREIGN = [b"v=spf1 -all", b"google-site-verification=abc", b"", b"p=", b"v=DKIM1; p=AAAA", b"=", b"v=DKIM2; p=x"]


@pytest.mark.attack("D33")
def test_each_of_several_records_is_tried_whatever_their_order() -> None:
    raw = sign_as(ke(), mail())
    for records in itertools.permutations([KEY, key_record(ed25519_key(9)), b"v=spf1 -all", b"v=DKIM1; p="]):
        resolver = ZoneResolver(zone({EVIL_KEY_NAME: {"TXT": list(records)}}))
        assert result_of(raw, resolver).status is PASS
    for place in range(len(FOREIGN) + 1):
        resolver = ZoneResolver(zone({EVIL_KEY_NAME: {"TXT": [*FOREIGN[:place], KEY, *FOREIGN[place:]]}}))
        assert result_of(raw, resolver).status is PASS


@pytest.mark.attack("D33")
def test_of_very_many_keys_only_the_first_are_tried() -> None:
    others = [key_record(ed25519_key(seed)) for seed in range(9, 9 + MAX_KEYS)]
    for count, status in ((MAX_KEYS - 1, PASS), (MAX_KEYS, FAIL)):
        resolver = ZoneResolver(zone({EVIL_KEY_NAME: {"TXT": [*others[:count], KEY]}}))
        assert result_of(sign_as(ke(), mail()), resolver).status is status


@pytest.mark.attack("D33")
def test_the_strings_of_one_record_are_joined() -> None:
    assert result_of(sign_as(ke(), mail()), evil_key((KEY[:9], KEY[9:30], b"", KEY[30:]))).status is PASS


@pytest.mark.attack("D36", "D37")
@pytest.mark.parametrize(
    ("said", "expected", "of_a_changed_body"),
    [
        # No later attempt mends a changed body.
        (Status.TEMPFAIL, (TEMPERROR, DkimReason.KEY_UNAVAILABLE), (FAIL, DkimReason.BODY_HASH)),
        (Status.BOGUS, (TEMPERROR, DkimReason.KEY_UNAVAILABLE), (FAIL, DkimReason.BODY_HASH)),
        # RFC 6376 §6.1.2: of a key that is not there, nothing more is asked, as of one that is revoked.
        (Status.NXDOMAIN, (PERMERROR, DkimReason.KEY_MISSING), (PERMERROR, DkimReason.KEY_MISSING)),
        (Status.NODATA, (PERMERROR, DkimReason.KEY_MISSING), (PERMERROR, DkimReason.KEY_MISSING)),
    ],
)
def test_no_key(
    said: Status, expected: tuple[DkimStatus, DkimReason], of_a_changed_body: tuple[DkimStatus, DkimReason]
) -> None:
    resolver = ZoneResolver(zone(), status={(EVIL_KEY_NAME, "TXT"): said})
    raw = sign_as(ke(), mail())
    assert status_and_reason(result_of(raw, resolver)) == expected
    assert status_and_reason(result_of(raw.replace(b"world", b"World"), resolver)) == of_a_changed_body


@pytest.mark.attack("D36")
def test_one_key_that_is_unavailable_spoils_no_other_signature() -> None:
    raw = sign_as(kb(), sign_as(ke(), mail()), d=BANK)
    resolver = ZoneResolver(zone(), status={(EVIL_KEY_NAME, "TXT"): Status.TEMPFAIL})
    assert [result.status for result in results_of(raw, resolver)] == [PASS, TEMPERROR]


@pytest.mark.attack("D44")
@pytest.mark.parametrize("c", ["simple/simple", "relaxed/relaxed"])
def test_names_without_a_field_are_nothing(c: str) -> None:
    more = b"Received: lower\r\n"
    raw = b"Received: upper\r\n" + mail(more=more)
    signed = sign_as(ke(), raw, c=c, h="from:x-absent:received:received:received:x-absent:subject:from")
    assert result_of(signed).status is PASS
    for added in (b"X-Absent:\r\n", b"Received: third\r\n", b"From: <y@evil.test>\r\n"):
        assert status_and_reason(result_of(added + signed)) == (FAIL, DkimReason.SIGNATURE)
    swapped = signed.replace(b"upper", b"x").replace(b"lower", b"upper").replace(b": x\r\n", b": lower\r\n")
    assert status_and_reason(result_of(swapped)) == (FAIL, DkimReason.SIGNATURE)
    removed = signed.replace(b"Received: lower\r\n", b"")
    assert status_and_reason(result_of(removed)) == (FAIL, DkimReason.SIGNATURE)


@pytest.mark.attack("D44")
def test_a_signature_signs_the_other_signatures_that_it_names_but_not_itself() -> None:
    inner = sign_as(ke(), mail())
    outer = sign_as(kb(), inner, d=BANK, h="from:dkim-signature:dkim-signature")
    assert [result.status for result in results_of(outer)] == [PASS, PASS]
    changed = outer.replace(b"d=evil.test", b"d=EVIL.test")
    assert [result.status for result in results_of(changed)] == [FAIL, FAIL]
    assert [result.status for result in results_of(b"DKIM-Signature: junk\r\n" + outer)] == [PERMERROR, FAIL, PASS]


LONG = (
    b"Received: from a.test (a.test [192.0.2.1])\r\n\tby mx.us.test;  Sun, 15 Jun 2025 15:06:40 +0000\r\n"
    b"From: Alice  Example <alice@us.test>\r\nTo: <bob@bank.test>,\r\n <carol@bank.test>\r\nSubject: A\tletter\r\n"
    b"Date: Sun, 15 Jun 2025 15:06:40 +0000\r\nMessage-ID: <1@us.test>\r\nMIME-Version: 1.0\r\n"
    b"Content-Type: text/plain; charset=utf-8\r\n\r\n"
    + b"".join(b"Line %d  with spaces \t and \xc3\xbc umlauts. \r\n\r\n" % number for number in range(33))
    + b"-- \r\nAlice\r\n\r\n\r\n"
)
COVERED = b"from:subject:to:date:message-id:mime-version:content-type:from:subject"


def mutations(raw: bytes) -> Iterator[tuple[int, bytes]]:
    """Each octet changed in four ways, and left out."""
    for at, octet in enumerate(raw):
        for other in {octet ^ 0x01, octet ^ 0x20, 0x20, 0x0A} - {octet}:
            yield at, raw[:at] + bytes([other]) + raw[at + 1 :]
        yield at, raw[:at] + raw[at + 1 :]


def what_is_signed(raw: bytes, form: str) -> tuple[object, ...]:
    """The covered octets and the signature, told by another implementation; None where it cannot find them."""
    header, _, body = raw.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n").partition(b"\r\n\r\n")
    own = next((field for field in split_fields(header) if re.match(rb"dkim-signature[ \t]*:", field, re.I)), b"")
    before, _, signature = own.partition(b"; b=")
    fields = signed_fields(header, COVERED, form)
    digits = b"".join(signature.split()).rstrip(b"=")
    try:
        octets = base64.b64decode(digits + b"=" * (-len(digits) % 4), validate=True)
    except ValueError:
        octets = b"not base64"
    return naive_body(body, form), tuple(fields), naive_field(before, form), octets


@pytest.mark.attack("D51")
@pytest.mark.parametrize("form", ["simple", "relaxed"])
def test_every_mutation_of_a_covered_octet_fails(form: str) -> None:
    raw = sign_as(ke(), LONG, c=f"{form}/{form}", h=COVERED)
    assert len(raw) > 1_900
    truth = what_is_signed(raw, form)
    resolver = ZoneResolver(zone())
    assert result_of(raw, resolver).status is PASS
    passed, failed = set(), set()
    for at, mutated in mutations(raw):
        results = results_of(mutated, resolver)
        if any(result.status is PASS for result in results) and Message.parse(mutated).malformed is None:
            assert what_is_signed(mutated, form) == truth, (at, raw[at : at + 20], results)
            passed.add(at)
        else:
            failed.add(at)
    # What may change: the field that is not signed, and under relaxed the letters of names and white space.
    received = range(raw.index(b"Received:"), raw.index(b"From: "))
    assert len(passed.intersection(received)) > 0.9 * len(received)
    assert failed.issuperset(set(range(len(raw) - 6)) - set(received) - (set() if form == "simple" else _spaces(raw)))


def _spaces(raw: bytes) -> set[int]:
    """Where relaxed canonicalization may take one space more, less or another for the same."""
    return {at for at in range(len(raw)) if any(octet in b" \t\r\n" for octet in raw[max(0, at - 1) : at + 2])}
