"""DKIM verification against five third-party suites, read in place (see vectors.py and each SOURCE.txt).

Each suite is compared row by row, and the set of differences is asserted as a whole, with the number of rows:
neither a new difference, nor the end of a known one, nor an empty suite passes. RFC 6376, RFC 8301, RFC 8463.
Left out: dkimpy's message.mbox and test2.message, whose keys are not in that suite.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest

from mailguard.dkim.result import DkimReason, DkimResult, DkimStatus
from mailguard.dkim.sign import SigningRules
from mailguard.dkim.signature import Signature, SignatureError
from mailguard.dkim.signing_key import KeyCheck, SigningKey
from mailguard.dkim.verify import VerifyRules, plan_verification
from mailguard.dns.question import Status
from mailguard.dns.zone import ZoneResolver
from mailguard.errors import SigningRefused
from mailguard.message import MalformedReason, Message
from mailguard.pipeline import sign_dkim, verify_dkim
from test_dkim_rfc_examples import RFC_8463_ZONE
from vectors import require

# After every t= in the suites; no signature but that of mail-auth's 005 has an x= before it.
NOW = 1_760_000_000


def zone_of(records: Mapping[str, str | Iterable[str]]) -> ZoneResolver:
    """A zone of TXT records."""
    return ZoneResolver({k: {"TXT": [v] if isinstance(v, str) else list(v)} for k, v in records.items()})


def read_message(path: Path) -> Message:
    """A message from a file with LF, CRLF or mixed line ends, as CRLF."""
    return Message.parse(path.read_bytes().replace(b"\r\n", b"\n").replace(b"\n", b"\r\n"))


def outcomes(results: Iterable[DkimResult]) -> list[tuple[str, str]]:
    return [(result.status.value, result.reason.value) for result in results]


# --- lieser/dkim_verifier -------------------------------------------------------------------------------------

LIESER_ROWS = 35
LIESER_ASSERTIONS = 138
LIESER_POLICY = "DKIM_POLICYERROR_UNSIGNED_HEADER_ADDED"

# The add-on's error type, by our reason. It calls both a failure and a permanent error PERMFAIL.
LIESER_ERRORS = {
    (DkimReason.SYNTAX, "the tag v= is missing"): "DKIM_SIGERROR_MISSING_V",
    (DkimReason.KEY_REVOKED, ""): "DKIM_SIGERROR_KEY_REVOKED",
    (DkimReason.KEY_HASH, ""): "DKIM_SIGERROR_KEY_HASHNOTINCLUDED",
    (DkimReason.KEY_TYPE, ""): "DKIM_SIGERROR_KEY_MISMATCHED_K",
    (DkimReason.KEY_SERVICE, ""): "DKIM_SIGERROR_KEY_NOTEMAILKEY",
    (DkimReason.KEY_STRICT, ""): "DKIM_SIGERROR_DOMAIN_I",
    (DkimReason.BODY_HASH, ""): "DKIM_SIGERROR_CORRUPT_BH",
    (DkimReason.SIGNATURE, ""): "DKIM_SIGERROR_BADSIG",
}
LIESER_RESULTS = {
    DkimStatus.PASS: "SUCCESS",
    DkimStatus.FAIL: "PERMFAIL",
    DkimStatus.PERMERROR: "PERMFAIL",
    DkimStatus.TEMPERROR: "TEMPFAIL",
}


def lieser_value(text: str) -> object:
    """A value of the suite: a piece of JavaScript, as its author wrote it."""
    if text.startswith("["):
        return re.findall(r'"([^"]*)"', text)
    if text.startswith('"'):
        return text.strip('"')
    words: dict[str, object] = {"null": None, "undefined": "undefined", "empty": []}
    return words[text] if text in words else int(text.replace("_", ""))


def lieser_view(field: str, result: DkimResult, found: Signature | SignatureError) -> object:
    """Our result in the add-on's words."""
    match field:
        case "result":
            return LIESER_RESULTS.get(result.status, result.status.value)
        case "errorType":
            return LIESER_ERRORS.get((result.reason, ""), LIESER_ERRORS.get((result.reason, result.detail)))
        case "errorStrParams":
            # The name of the field that the add-on's policy objects to; there is no such policy here.
            return []
        case "warnings":
            # The add-on warns of passes that its policy finds weak. Ours have nothing to warn of but t=y.
            return ["testing"] if result.testing or result.status is not DkimStatus.PASS else []
    if isinstance(found, SignatureError):
        return "undefined"  # RFC 6376 §6.1.1: an ill-formed signature is ignored; it has no d=
    return {
        "sdid": found.domain,
        "auid": found.known.identity,
        "selector": found.known.selector,
        "timestamp": found.signed_at,
        "expiration": found.expires_at,
        "algorithmSignature": found.algorithm.partition("-")[0],
        "algorithmHash": found.algorithm.partition("-")[2],
        "signedHeaders": [name.decode("ascii") for name in found.signed_names],
    }[field]


@pytest.mark.attack("D18", "D25", "D26")
def test_lieser() -> None:
    suite = require("dkim-lieser")
    keys = json.loads((suite / "dns.json").read_text(encoding="utf-8"))
    rows = json.loads((suite / "expected.json").read_text(encoding="utf-8"))
    assertions = 0
    differences: dict[str, list[tuple[str, object, object]]] = {}
    for row in rows:
        message = read_message(suite / "data" / row["file"])
        # The add-on counts signatures from the bottom of the header.
        found = [signature for _, signature in plan_verification(message).chosen][::-1]
        results = verify_dkim(message, resolver=zone_of({**keys, **row["dns_override"]}), now=NOW)[::-1]
        for assertion in row["asserts"]:
            assertions += 1
            assert assertion["list"] == "signatures"
            expected = lieser_value(assertion["value"])
            index, field = assertion["index"], assertion["field"]
            if index is None:
                ours: object = {"length": len(results)}[field]
            else:
                ours = lieser_view(field, results[index], found[index])
            if ours != expected:
                differences.setdefault(row["file"], []).append((field, expected, ours))
    assert (len(rows), assertions) == (LIESER_ROWS, LIESER_ASSERTIONS)
    # DKIM_POLICYERROR_* is the add-on's local policy: it takes a signature for bad where a second From, Subject,
    # Date or To stands above the signed one. RFC 6376 §5.4.2 and §6.1.3 verify such a signature; the second From
    # makes the message malformed, the others are what oversigning is for (RFC 6376 §8.15).
    assert differences == {
        f"dkim/added_header-{name.lower()}.eml": [
            ("result", "PERMFAIL", "SUCCESS"),
            ("errorType", LIESER_POLICY, None),
            ("errorStrParams", [name], []),
        ]
        for name in ("From", "Subject", "Date", "To")
    }
    assert read_message(suite / "data/dkim/added_header-from.eml").malformed is MalformedReason.SEVERAL_FROM


# --- albertito/chasquid ---------------------------------------------------------------------------------------

CHASQUID_ROWS = 11
CHASQUID_STATES = {
    DkimStatus.PASS: "SUCCESS",
    DkimStatus.FAIL: "PERMFAIL",
    DkimStatus.PERMERROR: "PERMFAIL",
    DkimStatus.TEMPERROR: "TEMPFAIL",
}
# Its error text, by our reason; it has no more to say of a key with t=s than that it does not verify.
CHASQUID_ERRORS = {
    DkimReason.VERIFIED: "",
    DkimReason.VERSION: "invalid version",
    DkimReason.KEY_UNAVAILABLE: "lookup : temporary error (for testing)",
    DkimReason.KEY_MISSING: "lookup : permanent error (for testing)",
    DkimReason.KEY_STRICT: "verification failed",
}
SUCCESS = ("SUCCESS", "")


def chasquid_file(suite: Path, name: str) -> bytes:
    """A file of the suite; a symbolic link was stored as a file with the other's name."""
    octets = (suite / name).read_bytes()
    target = octets.strip()
    return (suite / target.decode("ascii")).read_bytes() if re.fullmatch(rb"[0-9]{2}-\w+\.\w+", target) else octets


def chasquid_zone(suite: Path, case: str) -> ZoneResolver:
    if not (suite / f"{case}.dns").exists():
        return zone_of({})
    records: dict[str, list[str]] = {}
    statuses: dict[tuple[str, str], Status] = {}
    text = chasquid_file(suite, f"{case}.dns").decode("ascii").replace("\\\n", "")
    for line in filter(None, text.splitlines()):
        name, _, record = line.partition(":")
        if record.strip() in ("TEMPERROR", "PERMERROR"):
            statuses[name, "TXT"] = Status.TEMPFAIL if record.strip() == "TEMPERROR" else Status.NXDOMAIN
        else:
            records.setdefault(name, []).append(record.strip())
    return ZoneResolver({name: {"TXT": texts} for name, texts in records.items()}, status=statuses)


def chasquid_view(suite: Path, case: str, rules: VerifyRules | None = None) -> list[tuple[str, str]]:
    raw = chasquid_file(suite, f"{case}.msg").replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
    results = verify_dkim(Message.parse(raw), resolver=chasquid_zone(suite, case), now=NOW, rules=rules)
    return [
        (CHASQUID_STATES.get(r.status, r.status.value), CHASQUID_ERRORS.get(r.reason, r.reason.value))
        for r in results
    ]


def chasquid_expected(suite: Path, case: str) -> list[tuple[str, str]]:
    if not (suite / f"{case}.result").exists():
        return []
    found = json.loads(chasquid_file(suite, f"{case}.result"))
    expected = [(result["State"], result["Error"]) for result in found["Results"]]
    assert (found["Found"], found["Valid"]) == (len(expected), expected.count(SUCCESS))
    return expected


@pytest.mark.attack("D10")
def test_chasquid() -> None:
    suite = require("dkim-chasquid")
    cases = sorted(path.stem for path in suite.glob("[0-9]*.msg"))
    assert len(cases) == CHASQUID_ROWS
    differences = {}
    for case in cases:
        ours, expected = chasquid_view(suite, case), chasquid_expected(suite, case)
        if ours != expected:
            differences[case[:2]] = (expected, ours)
    assert differences == {
        # chasquid verifies the first five signatures of a message, and this one has seven; our bound is ten.
        "02": ([SUCCESS] * 5, [SUCCESS] * 7),
        # The first signature has l=17: text can be appended to it, so that it is never a pass (RFC 6376 §8.2).
        "09": ([SUCCESS] * 3, [("policy", "body-length"), SUCCESS, SUCCESS]),
    }
    five = VerifyRules(max_signatures=5)
    assert chasquid_view(suite, "02-too_many_headers", five) == chasquid_expected(suite, "02-too_many_headers")
    # The only row with an error and no results: its message has no header.
    no_header = read_message(suite / "03-bad_message.msg")
    assert (no_header.fields, no_header.malformed) == ((), MalformedReason.HEADER_SYNTAX)


# --- stalwartlabs/mail-auth -----------------------------------------------------------------------------------

EXPIRING = "005.txt"
EXPIRING_T, EXPIRING_X = 1_667_843_664, 1_667_930_064
SKEW = VerifyRules().clock_skew_s
MAIL_AUTH_SIGNATURES = {"001.txt": 2, "002.txt": 1, "003.txt": 2, "004.txt": 1, "005.txt": 1, "006.txt": 1}


def mail_auth_case(path: Path) -> tuple[Message, ZoneResolver]:
    """Lines of "name record", an empty line, then the message."""
    text, _, raw = path.read_bytes().partition(b"\n\n")
    records: dict[str, list[str]] = {}
    for line in text.decode("ascii").splitlines():
        name, _, record = line.partition(" ")
        records.setdefault(name, []).append(record)
    return Message.parse(raw), zone_of(records)


def test_mail_auth() -> None:
    found = {}
    for path in sorted((require("dkim-mail-auth") / "dkim").glob("*.txt")):
        message, zone = mail_auth_case(path)
        now = EXPIRING_X - 3600 if path.name == EXPIRING else NOW
        found[path.name] = outcomes(verify_dkim(message, resolver=zone, now=now))
    assert found == {name: [("pass", "verified")] * count for name, count in MAIL_AUTH_SIGNATURES.items()}


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        (EXPIRING_T - SKEW - 1, ("policy", "future")),
        (EXPIRING_T - SKEW, ("pass", "verified")),
        (EXPIRING_X + SKEW, ("pass", "verified")),
        (EXPIRING_X + SKEW + 1, ("fail", "expired")),
        (NOW, ("fail", "expired")),
    ],
)
def test_mail_auth_005_at_other_times(now: int, expected: tuple[str, str]) -> None:
    """RFC 6376 §3.5 (t=, x=), with the skew that the rules allow."""
    message, zone = mail_auth_case(require("dkim-mail-auth") / "dkim" / EXPIRING)
    assert outcomes(verify_dkim(message, resolver=zone, now=now)) == [expected]


# --- postalsys/mailauth ---------------------------------------------------------------------------------------


def test_mailauth_js() -> None:
    folder = require("dkim-mailauth-js") / "dkim" / "ec" / "fixtures"
    names = json.loads((folder / "dns.json").read_text(encoding="utf-8"))
    zone = ZoneResolver({name: {"TXT": [tuple(strings) for strings in data["TXT"]]} for name, data in names.items()})
    results = verify_dkim(read_message(folder / "signed.eml"), resolver=zone, now=NOW)
    assert [(r.status.value, r.algorithm, r.domain) for r in results] == [
        ("pass", "ed25519-sha256", "football.example.com"),
        ("pass", "rsa-sha256", "football.example.com"),
    ]


# --- dkimpy ---------------------------------------------------------------------------------------------------

DKIMPY_SIGNED = {
    "rfc6376.signed.msg": [("pass", "verified")] * 2,
    "rfc6376.signed.rsa.msg": [("pass", "verified")],
    # The same b= under a changed h= and an x= of 12 digits: well-formed, but signed otherwise.
    "rfc6376.signed.no_t.msg": [("fail", "signature")],
    "ed25519test2.msg": [("pass", "verified")],
    # d=legitimate.com(.attacker.com is no domain: nothing is looked up.
    "test.message.baddomain": [("permerror", "syntax")],
}

# (private key, key record, verdict): the pairs that belong together, and the records that SOURCE.txt says must fail.
DKIMPY_KEYS = [
    ("test.private", "test.txt", "verified"),
    ("test.private", "test2.txt", "verified"),  # no k=: rsa (RFC 6376 §3.6.1)
    ("test2.private", "test.txt", "verified"),
    ("test.private", "test_bad.txt", "key-syntax"),
    ("test.private", "badversion.txt", "key-syntax"),
    ("test.private", "badk.txt", "key-type"),
    ("test.private", "test_tlsrpt.txt", "key-service"),
    ("1024_testkey.key", "1024_testkey_wo_markers.pub.txt", "verified"),
    ("1024_testkey.key", "1024_testkey_wo_markers.pub.rsa.txt", "verified"),  # a bare RSAPublicKey
    ("2048_testkey.key", "2048_testkey_wo_markers.pub.txt", "verified"),
    ("2048_testkey.key", "2048_testkey_wo_markers.pub.rsa.txt", "verified"),
    ("2048_testkey_PKCS8.key", "2048_testkey_PKCS8.key.pub.txt", "verified"),
    ("2048_testkey_PKCS8.key", "2048_testkey_wo_markers.pub.txt", "signature"),
    ("ed25519test.key", "ed25519test.dns", "verified"),
    ("ed25519test.key", "eximtest.dns", "signature"),
    ("ed25519test.key", "test.txt", "key-type"),
]
# test.message has a folded-in Authentication-Results, w1258 8-bit octets in From, extra two Received fields.
DKIMPY_MESSAGES = ("test.message", "rfc6376.msg", "rfc6376.w1258.msg", "test_extra.message", "ed25519test.msg")


def dkimpy_data() -> Path:
    return require("dkim-dkimpy") / "data"


@pytest.mark.parametrize(("name", "expected"), DKIMPY_SIGNED.items())
def test_dkimpy_signed_messages(name: str, expected: list[tuple[str, str]]) -> None:
    data = dkimpy_data()
    keys = {name: "".join(strings) for name, strings in RFC_8463_ZONE.items()}
    zone = zone_of({**keys, "sed._domainkey.test.ex": (data / "eximtest.dns").read_text(encoding="ascii")})
    assert outcomes(verify_dkim(read_message(data / name), resolver=zone, now=NOW)) == expected


@pytest.mark.parametrize(("private", "record", "expected"), DKIMPY_KEYS)
def test_dkimpy_keys_and_records(private: str, record: str, expected: str) -> None:
    data = dkimpy_data()
    key = SigningKey.from_bytes(
        (data / private).read_bytes(), domain="example.com", selector="test", check=KeyCheck.FULL
    )
    zone = zone_of({key.public_name: (data / record).read_text(encoding="ascii").strip()})
    for name in DKIMPY_MESSAGES:
        message = read_message(data / name)
        signed = sign_dkim(message, keys=[key], now=NOW, rules=SigningRules())
        results = verify_dkim(Message.from_fields((*signed, *message.fields), message.body), resolver=zone, now=NOW)
        assert [result.reason.value for result in results] == [expected], name


def test_dkimpy_message_without_from_is_not_signed() -> None:
    data = dkimpy_data()
    key = SigningKey.from_bytes((data / "test.private").read_bytes(), domain="example.com", selector="test")
    with pytest.raises(SigningRefused) as refusal:
        sign_dkim(read_message(data / "test_nofrom.message"), keys=[key], now=NOW)
    assert refusal.value.reason == MalformedReason.NO_FROM.value
