"""Certificate chains against TLSA records: what authenticates a server, and what does not."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import x25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID

from dane_certificates import NOW, Digest, Made, server, spki
from mailguard.dane.certificate import Certificate
from mailguard.dane.record import CertificateUsage, MatchingType, Selector
from mailguard.dane.result import TlsaReason, TlsaResult, TlsaStatus
from mailguard.dane.verify import names_for, tlsa_of, verify_tlsa
from mailguard.dns.question import TLSA

IDS = ("mx.example.com", "example.com")
EE, TA = CertificateUsage.DANE_EE, CertificateUsage.DANE_TA
FULL, CERT, SPKI = MatchingType.FULL, Selector.CERT, Selector.SPKI

ROOT = Made.of("root")
MIDDLE = Made.of("middle", ROOT)
SERVER = server(MIDDLE, "mx.example.com")
CHAIN = [SERVER, MIDDLE, ROOT]
SELF_SIGNED = server(None, *IDS)
OWN_ROOT = Made.of("own", names=IDS)
VERSION_1 = base64.b64decode(
    "MIIBLTCB1QIUSpwmPzl/C7cGT5wgExE/6elP0d8wCgYIKoZIzj0EAwIwGTEXMBUGA1UEAwwObXguZXhhbXBsZS5jb20wIBcNMjYxMTIxMTMz"
    "ODMxWhgPMjEyNjEwMjgxMzM4MzFaMBkxFzAVBgNVBAMMDm14LmV4YW1wbGUuY29tMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEbFg4N163"
    "nnPU/7+tzJm6/nHKpWG/xdgfwXS+iE0FBPAXjsooY/tly/lkahOX33BrqMOaOrUSZSzO5viVKt/m9DAKBggqhkjOPQQDAgNHADBEAiBdHasO"
    "SYHrbSrq14p6b4TkoYfqtvnMEPcZuQ9EH+WvQwIgeahNyuwkhBUcN+CLpThlii9JRiy1eowhq1r35AfibZY="
)
"""A certificate without a version field and without extensions, made by `openssl x509 -req` without any."""


def of(
    made: Made,
    usage: CertificateUsage = TA,
    selector: Selector = CERT,
    matching_type: MatchingType = MatchingType.SHA2_256,
) -> TLSA:
    return tlsa_of(made.der, usage=usage, selector=selector, matching_type=matching_type)


def verified(chain: Sequence[Made | bytes], *records: TLSA, ids: Sequence[str] = IDS, now: float = NOW) -> TlsaResult:
    der = [one if isinstance(one, bytes) else one.der for one in chain]
    return verify_tlsa(der, records, reference_ids=ids, now=now)


def reason(chain: Sequence[Made | bytes], *records: TLSA, ids: Sequence[str] = IDS, now: float = NOW) -> TlsaReason:
    result = verified(chain, *records, ids=ids, now=now)
    expected = {
        TlsaReason.MATCHED: TlsaStatus.AUTHENTICATED,
        TlsaReason.NO_USABLE_RECORD: TlsaStatus.UNUSABLE,
    }.get(result.reason, TlsaStatus.FAILED)
    assert result.status is expected
    assert result.detail.isascii()
    assert result.detail.isprintable()
    return result.reason


# -- DANE-EE ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("selector", Selector)
@pytest.mark.parametrize("matching_type", MatchingType)
def test_dane_ee(selector: Selector, matching_type: MatchingType) -> None:
    """RFC 7672 §3.1.1: whatever its names and dates, and whoever signed it."""
    stranger = server(Made.of("unknown"), "elsewhere.test", days=(-30, -10), key_name="stranger")
    record = of(stranger, EE, selector, matching_type)
    result = verified([stranger], record)
    assert (result.status, result.record, result.depth) == (TlsaStatus.AUTHENTICATED, record, 0)
    assert result.matched_name is None
    assert verified([SERVER], of(SERVER, EE, selector, matching_type)).matched_name == "mx.example.com"
    assert reason([server(None, "mx.example.com", key_name="other")], record) is TlsaReason.NO_MATCH
    assert reason([SERVER, stranger], record) is TlsaReason.NO_MATCH, "it is not the server's own"


def test_dane_ee_of_a_certificate_that_cannot_be_read() -> None:
    """Octets can be compared without being understood; a key cannot be found in them."""
    octets = b"\x30\x03\x02\x01\x01"
    assert reason([octets], TLSA(3, 0, 1, sha256(octets).digest())) is TlsaReason.MATCHED
    assert reason([octets], TLSA(3, 1, 1, bytes(32))) is TlsaReason.MALFORMED
    assert reason([octets], TLSA(3, 0, 0, octets)) is TlsaReason.NO_USABLE_RECORD
    for record in (of(SERVER, EE, SPKI), of(SERVER, EE), of(ROOT)):
        said = reason([octets, SERVER, MIDDLE, ROOT], record)
        assert said is TlsaReason.MALFORMED, "the next certificate does not stand in for it"


def test_dane_ee_of_a_certificate_whose_subject_cannot_be_read() -> None:
    """Its key can be found; the name in it counts for nothing."""
    made = server(None, subject="mx.example.com")
    for octets in (made.der, made.der.replace(b"mx.example.com", b"mx.example.\xff\xff\xff")):
        result = verified([octets], of(made, EE, SPKI))
        assert (result.status, result.depth) == (TlsaStatus.AUTHENTICATED, 0)
        assert result.matched_name == ("mx.example.com" if octets == made.der else None)


def test_dane_ee_of_a_certificate_that_is_no_der() -> None:
    """RFC 7671 §5.1: but for its key it does not matter. OpenSSL does not mind an `@` in a PrintableString."""
    made = server(None, subject="mx.example.com")
    odd = made.der.replace(b"\x0c\x0emx.example.com", b"\x13\x0emx@example.com")
    with pytest.raises(ValueError, match="PrintableString"):
        Certificate.parse(odd)
    result = verified([odd], of(made, EE, SPKI))
    assert (result.status, result.matched_name) == (TlsaStatus.AUTHENTICATED, None)
    assert reason([odd], of(SERVER, EE, SPKI)) is TlsaReason.MALFORMED
    assert reason([odd], of(made, TA, SPKI)) is TlsaReason.MALFORMED
    assert reason([odd + b"x"], of(made, EE, SPKI)) is TlsaReason.MALFORMED


def element(tag: int, *parts: bytes) -> bytes:
    octets = b"".join(parts)
    return bytes([tag, 0x82]) + len(octets).to_bytes(2, "big") + octets


SERIAL, SEQUENCE = b"\x02\x01\x01", b"\x30\x00"
HEAD = (SERIAL, SEQUENCE, SEQUENCE, SEQUENCE, SEQUENCE)


@pytest.mark.parametrize(
    ("head", "is_found"),
    [
        pytest.param(HEAD, True, id="nothing-but-the-key"),
        pytest.param((b"\xa0\x03\x02\x01\x00", *HEAD), True, id="version"),
        pytest.param(HEAD[1:], False, id="no-serial"),
        pytest.param((*HEAD, SEQUENCE), False, id="one-too-many"),
        pytest.param((*HEAD[:4], b"\x31\x00"), False, id="another-tag"),
        # Who knows indefinite lengths (BER) finds the end of the issuer behind this key, and another key.
        pytest.param((SERIAL, SEQUENCE, b"\x30\x80", SEQUENCE, SEQUENCE), False, id="indefinite-length"),
        pytest.param((SERIAL, SEQUENCE, b"\x30\x85\x00", SEQUENCE, SEQUENCE), False, id="length-too-long"),
    ],
)
def test_the_key_of_a_certificate_that_is_no_der(head: Sequence[bytes], is_found: bool) -> None:
    octets = element(0x30, element(0x30, *head, SERVER.spki), SEQUENCE)
    assert reason([octets], of(SERVER, EE, SPKI)) is (TlsaReason.MATCHED if is_found else TlsaReason.MALFORMED)


# -- DANE-TA ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("selector", Selector)
@pytest.mark.parametrize("matching_type", MatchingType)
@pytest.mark.parametrize(("anchor", "depth"), [(MIDDLE, 1), (ROOT, 2)], ids=["middle", "root"])
def test_dane_ta_in_the_chain(selector: Selector, matching_type: MatchingType, anchor: Made, depth: int) -> None:
    record = of(anchor, TA, selector, matching_type)
    result = verified(CHAIN, record)
    assert (result.status, result.record, result.depth) == (TlsaStatus.AUTHENTICATED, record, depth)
    assert result.matched_name == "mx.example.com"
    # The order of what comes after the server's own does not matter, nor does what does not belong there.
    assert verified([SERVER, Made.of("unknown"), ROOT, MIDDLE], record).depth == depth
    assert verified([SERVER, b"rubbish", MIDDLE, ROOT], record).depth == depth


# (id, RFC section, chain, records, reason)
TRUST: list[tuple[str, str, list[Made], list[TLSA], TlsaReason]] = [
    ("certificate in the record", "7671 5.2.2", [SERVER, MIDDLE], [of(ROOT, TA, CERT, FULL)], TlsaReason.MATCHED),
    ("intermediate in the record", "7671 5.2.2", [SERVER], [of(MIDDLE, TA, CERT, FULL)], TlsaReason.MATCHED),
    ("digest of what is not there", "7671 5.2.2", [SERVER, MIDDLE], [of(ROOT)], TlsaReason.NO_MATCH),
    ("key in the record", "7671 5.2.3", [SERVER, MIDDLE], [of(ROOT, TA, SPKI, FULL)], TlsaReason.MATCHED),
    ("key that signed the leaf", "7671 5.2.3", [SERVER], [of(MIDDLE, TA, SPKI, FULL)], TlsaReason.MATCHED),
    ("key of somebody else", "7671 5.2.3", CHAIN, [of(Made.of("x"), TA, SPKI, FULL)], TlsaReason.NO_MATCH),
    ("no intermediate", "7671 5.2", [SERVER, ROOT], [of(ROOT)], TlsaReason.CHAIN),
    ("the leaf is no anchor", "6698 2.1.1", [SERVER], [of(SERVER)], TlsaReason.NO_MATCH),
    ("self-signed leaf", "6698 2.1.1", [SELF_SIGNED], [of(SELF_SIGNED)], TlsaReason.NO_MATCH),
    ("self-signed leaf, twice", "6698 2.1.1", [SELF_SIGNED] * 2, [of(SELF_SIGNED)], TlsaReason.NO_MATCH),
    ("self-signed authority as leaf, twice", "6698 2.1.1", [OWN_ROOT] * 2, [of(OWN_ROOT)], TlsaReason.NO_MATCH),
    ("leaf again, behind others", "6698 2.1.1", [OWN_ROOT, ROOT, OWN_ROOT], [of(OWN_ROOT)], TlsaReason.NO_MATCH),
    ("the leaf, in full", "6698 2.1.1", CHAIN, [of(SERVER, TA, CERT, FULL)], TlsaReason.NO_MATCH),
    ("self-signed leaf, in full", "6698 2.1.1", [OWN_ROOT], [of(OWN_ROOT, TA, CERT, FULL)], TlsaReason.NO_MATCH),
    ("beside the chain", "7671 5.2", [SERVER, Made.of("x")], [of(Made.of("x"), TA, SPKI)], TlsaReason.CHAIN),
    (
        "the first beside the chain, the second in it",
        "7671 8.1",
        [SERVER, Made.of("x"), MIDDLE, ROOT],
        [of(Made.of("x"), TA, CERT), of(ROOT, TA, SPKI)],
        TlsaReason.MATCHED,
    ),
    ("EE or TA", "7672 3.2", CHAIN, [of(Made.of("x"), EE), of(ROOT)], TlsaReason.MATCHED),
    ("TA with PKIX beside", "7672 3.1.3", CHAIN, [TLSA(0, 0, 1, bytes(32)), of(ROOT)], TlsaReason.MATCHED),
    ("PKIX alone", "7672 3.1.3", CHAIN, [of(SERVER, CertificateUsage.PKIX_EE)], TlsaReason.NO_USABLE_RECORD),
    ("none", "7672 2.2", CHAIN, [], TlsaReason.NO_USABLE_RECORD),
    ("no certificate", "7672 2.2", [], [of(ROOT)], TlsaReason.NO_CERTIFICATE),
    ("rubbish as anchor", "6698 4.1", CHAIN, [TLSA(2, 0, 0, b"x"), TLSA(2, 1, 0, b"x")], TlsaReason.NO_USABLE_RECORD),
    ("rubbish and an anchor", "6698 2.1.4", CHAIN, [TLSA(2, 0, 0, b"rubbish"), of(ROOT)], TlsaReason.MATCHED),
    (
        "weaker digest alone matches",
        "7671 9",
        CHAIN,
        [of(ROOT), of(Made.of("x"), TA, CERT, MatchingType.SHA2_512)],
        TlsaReason.NO_MATCH,
    ),
]


@pytest.mark.parametrize(("name", "section", "chain", "records", "expected"), TRUST, ids=[row[0] for row in TRUST])
def test_trust(name: str, section: str, chain: list[Made], records: list[TLSA], expected: TlsaReason) -> None:
    assert reason(chain, *records) is expected


def key_usage(*, signs: bool, is_for_tls: bool = True) -> x509.KeyUsage:
    return x509.KeyUsage(is_for_tls, False, False, False, False, signs, False, False, False)


PERMITTED = x509.NameConstraints([x509.DNSName("example.com")], None)
ELSEWHERE = x509.NameConstraints([x509.DNSName("elsewhere.test")], None)
EXCLUDED = x509.NameConstraints(None, [x509.DNSName("example.com")])
FOR_SERVERS = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
FOR_ANYTHING = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE])
FOR_MAIL = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION])
UNKNOWN = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.99999.1"), b"\x05\x00")
EXPIRED, FUTURE = (-30, -10), (10, 30)


def chain_of(odd: Mapping[str, Mapping[str, Any]]) -> list[Made]:
    root = Made.of("root", **odd.get("root", {}))
    middle = Made.of("middle", root, **odd.get("middle", {}))
    return [server(middle, "mx.example.com", **odd.get("leaf", {})), middle, root]


# (id, RFC 5280 section, what is odd, whether the chain is good)
PATHS: list[tuple[str, str, Mapping[str, Mapping[str, Any]], bool]] = [
    ("plain", "6.1", {}, True),
    ("leaf expired", "6.1.3", {"leaf": {"days": EXPIRED}}, False),
    ("leaf of tomorrow", "6.1.3", {"leaf": {"days": FUTURE}}, False),
    ("intermediate expired", "6.1.3", {"middle": {"days": EXPIRED}}, False),
    ("anchor expired", "6.1.3", {"root": {"days": EXPIRED}}, False),
    ("intermediate is no authority", "4.2.1.9", {"middle": {"is_authority": False}}, False),
    ("intermediate says nothing", "4.2.1.9", {"middle": {"has_basic_constraints": False}}, False),
    ("anchor is no authority", "4.2.1.9", {"root": {"is_authority": False}}, False),
    ("path length", "4.2.1.9", {"root": {"path_length": 0}}, False),
    ("path length enough", "4.2.1.9", {"root": {"path_length": 1}}, True),
    ("intermediate may not sign", "4.2.1.3", {"middle": {"extensions": [key_usage(signs=False)]}}, False),
    ("anchor may not sign", "4.2.1.3", {"root": {"extensions": [key_usage(signs=False)]}}, False),
    ("intermediate may sign", "4.2.1.3", {"middle": {"extensions": [key_usage(signs=True)]}}, True),
    ("names permitted", "4.2.1.10", {"root": {"extensions": [PERMITTED]}}, True),
    ("names not permitted", "4.2.1.10", {"root": {"extensions": [ELSEWHERE]}}, False),
    ("names excluded", "4.2.1.10", {"middle": {"extensions": [EXCLUDED]}}, False),
    ("leaf for servers", "4.2.1.12", {"leaf": {"extensions": [FOR_SERVERS]}}, True),
    ("leaf for mail", "4.2.1.12", {"leaf": {"extensions": [FOR_MAIL]}}, False),
    # "Applications [...] MAY reject", and OpenSSL does.
    ("leaf for anything", "4.2.1.12", {"leaf": {"extensions": [FOR_ANYTHING]}}, False),
    ("intermediate for anything", "4.2.1.12", {"middle": {"extensions": [FOR_ANYTHING]}}, False),
    ("the leaf's key is for TLS", "4.2.1.3", {"leaf": {"extensions": [key_usage(signs=False)]}}, True),
    ("the leaf's key is not", "4.2.1.3", {"leaf": {"extensions": [key_usage(signs=True, is_for_tls=False)]}}, False),
    ("intermediate for mail", "4.2.1.12", {"middle": {"extensions": [FOR_MAIL]}}, False),
    ("unknown and critical", "4.2", {"leaf": {"extensions": [UNKNOWN]}}, False),
    ("weak key above", "7671 12", {"root": {"key_name": "rsa1024"}}, False),
    ("strong key above", "7671 12", {"root": {"key_name": "rsa2048"}}, True),
    ("Ed25519 in the leaf", "8410 3", {"leaf": {"key_name": "ed"}}, True),
]


@pytest.mark.parametrize(("name", "section", "odd", "is_good"), PATHS, ids=[row[0] for row in PATHS])
def test_paths(name: str, section: str, odd: Mapping[str, Mapping[str, Any]], is_good: bool) -> None:
    """Each rule that a path has to keep; DANE-EE asks for none of them."""
    chain = chain_of(odd)
    assert reason(chain, of(chain[2])) is (TlsaReason.MATCHED if is_good else TlsaReason.CHAIN)
    assert reason(chain, of(chain[0], EE)) is TlsaReason.MATCHED
    assert reason(chain, of(chain[0], EE), of(chain[2])) is TlsaReason.MATCHED


def test_after_the_year_9999_no_certificate_is_valid() -> None:
    chain = chain_of({})
    assert reason(chain, of(chain[2]), now=10**12) is TlsaReason.CHAIN
    assert reason(chain, of(chain[0], EE), now=10**12) is TlsaReason.MATCHED


def test_a_forged_signature_is_none() -> None:
    """The same names all the way up, another key below the anchor's name."""
    forged = Made.of("root", key_name="forger")
    leaf = server(forged, "mx.example.com")
    assert reason([leaf, ROOT], of(ROOT)) is TlsaReason.CHAIN
    assert reason([leaf, forged, ROOT], of(ROOT)) is TlsaReason.CHAIN
    assert reason([leaf, ROOT], of(ROOT, TA, SPKI, FULL)) is TlsaReason.CHAIN
    assert reason([leaf], of(ROOT, TA, SPKI, FULL)) is TlsaReason.NO_MATCH


@pytest.mark.parametrize("key_name", ["rsa2048", "p256"])
def test_bare_keys(key_name: str) -> None:
    """RFC 7671 §5.2.3: the leaf's dates and names count, and an intermediate that the key signed is an authority."""
    record = TLSA(2, 1, 0, spki(key_name))
    anchor = Made.of("anchor", key_name=key_name)
    assert verified([server(anchor, "mx.example.com")], record).depth == 0
    assert reason([server(anchor, "mx.example.com", days=EXPIRED)], record) is TlsaReason.CHAIN
    assert reason([server(anchor, "mx.example.com", extensions=[UNKNOWN])], record) is TlsaReason.CHAIN
    assert reason([server(anchor, "elsewhere.test")], record) is TlsaReason.NAME
    between = Made.of("between", anchor)
    assert verified([server(between, "mx.example.com"), between], record).depth == 1
    customer = server(anchor, "customer.test", subject="customer")
    assert reason([server(customer, "mx.example.com"), customer], record) is TlsaReason.CHAIN


@pytest.mark.parametrize("key_name", ["rsa1024", "ed"])
def test_bare_keys_of_other_kinds_vouch_for_nothing(key_name: str) -> None:
    anchor = Made.of("anchor", key_name=key_name)
    assert reason([server(anchor, "mx.example.com")], TLSA(2, 1, 0, spki(key_name))) is TlsaReason.NO_MATCH


@pytest.mark.parametrize("kind", ["rsa2048", "p256"])
def test_a_bare_key_that_signed_nothing_vouches_for_nothing(kind: str) -> None:
    """RFC 7671 §5.2.3: the signature is checked with the key of the record, not only its kind."""
    leaf = server(Made.of("anchor", key_name=kind), "mx.example.com")
    assert reason([leaf], TLSA(2, 1, 0, spki(f"{kind} of a stranger"))) is TlsaReason.NO_MATCH


@pytest.mark.parametrize("signer", ["rsa2048", "p256", "ed"])
def test_a_bare_key_of_one_kind_and_a_signature_of_another(signer: str) -> None:
    leaf = server(Made.of("anchor", key_name=signer), "mx.example.com")
    agreement = x25519.X25519PrivateKey.generate().public_key()
    keys = [spki(name) for name in ("rsa2048", "p256", "ed") if name != signer]
    for data in (*keys, agreement.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)):
        assert reason([leaf], TLSA(2, 1, 0, data)) is TlsaReason.NO_MATCH


@pytest.mark.parametrize("key_name", ["rsa2048", "p256"])
@pytest.mark.parametrize(
    ("digest", "expected"),
    [
        (hashes.SHA224(), TlsaReason.NO_MATCH),
        (hashes.SHA384(), TlsaReason.MATCHED),
        (hashes.SHA512(), TlsaReason.MATCHED),
    ],
    ids=lambda one: getattr(one, "name", ""),
)
def test_a_bare_key_vouches_by_a_sound_digest_alone(key_name: str, digest: Digest, expected: TlsaReason) -> None:
    """RFC 7671 §5.2.3. With SHA-1, `cryptography` no longer makes nor checks a signature."""
    leaf = server(Made.of("anchor", key_name=key_name), "mx.example.com", digest=digest)
    assert reason([leaf], TLSA(2, 1, 0, spki(key_name))) is expected


# -- names --------------------------------------------------------------------------------------------------------

# (id, RFC 7672 section, subject, DNS-IDs, reference identifiers, whether one matches)
NAMES: list[tuple[str, str, str, list[str], Sequence[str], bool]] = [
    ("base domain", "3.2.2", "x", ["mx.example.com"], IDS, True),
    ("next hop", "3.2.2", "x", ["example.com"], IDS, True),
    ("one of many", "3.2.3", "x", ["a.test", "example.com"], IDS, True),
    ("another", "3.2.3", "x", ["mx2.example.com"], IDS, False),
    ("a parent", "3.2.3", "x", ["com"], IDS, False),
    ("a child", "3.2.3", "x", ["a.mx.example.com"], IDS, False),
    ("upper case", "3.2.3", "x", ["MX.Example.COM"], IDS, True),
    ("wildcard", "3.2.3", "x", ["*.example.com"], IDS, True),
    ("wildcard for two labels", "3.2.3", "x", ["*.example.com"], ["a.b.example.com"], False),
    ("wildcard for none", "3.2.3", "x", ["*.example.com"], ["example.com"], False),
    ("wildcard in part", "3.2.3", "x", ["mx*.example.com"], IDS, False),
    ("wildcard before", "3.2.3", "x", ["*mx.example.com"], IDS, False),
    ("wildcard inside", "3.2.3", "x", ["mx.*.com"], IDS, False),
    ("wildcard above a top-level domain", "3.2.3", "x", ["*.com"], ["example.com"], False),
    ("wildcard alone", "3.2.3", "x", ["*"], ["com"], False),
    ("NUL", "3.2.3", "x", ["mx.example.com\0.evil.test"], IDS, False),
    ("final dot", "3.2.3", "x", ["mx.example.com."], IDS, False),
    ("common name", "3.2.3", "mx.example.com", [], IDS, True),
    ("common name in upper case", "3.2.3", "MX.Example.COM", [], IDS, True),
    ("wildcard as common name", "3.2.3", "*.example.com", [], IDS, True),
    ("common name beside DNS-IDs", "3.2.3", "mx.example.com", ["a.test"], IDS, False),
    ("no name at all", "3.2.3", "", [], IDS, False),
    ("no reference identifier", "3.2.2", "x", ["mx.example.com"], [], False),
]


@pytest.mark.parametrize(
    ("name", "section", "subject", "dns_ids", "ids", "is_match"), NAMES, ids=[row[0] for row in NAMES]
)
def test_names(name: str, section: str, subject: str, dns_ids: list[str], ids: Sequence[str], is_match: bool) -> None:
    leaf = server(ROOT, *dns_ids, subject=subject)
    result = verified([leaf, ROOT], of(ROOT), ids=ids)
    assert result.reason is (TlsaReason.MATCHED if is_match else TlsaReason.NAME)
    assert (result.matched_name in ids) is is_match


def test_other_names_than_dns_names() -> None:
    """RFC 7672 §3.2.3: the common name counts where no DNS-ID is present, though other names are."""
    mailbox = x509.SubjectAlternativeName([x509.RFC822Name("mx.example.com@a.test")])
    leaf = server(ROOT, subject="mx.example.com", extensions=[mailbox])
    assert reason([leaf, ROOT], of(ROOT)) is TlsaReason.MATCHED
    unread = x509.UnrecognizedExtension(x509.SubjectAlternativeName.oid, b"\x30\x03rub")
    leaf = server(ROOT, subject="mx.example.com", extensions=[unread])
    assert reason([leaf, ROOT], of(ROOT)) in (TlsaReason.NAME, TlsaReason.CHAIN)
    assert Certificate.parse(leaf.der).dns_ids == ()


def test_a_common_name_is_not_beyond_name_constraints() -> None:
    leaf = server(ROOT, subject="mx.example.com")
    for constraint in (ELSEWHERE, PERMITTED):
        top = Made.of("root", extensions=[constraint])
        assert reason([leaf, top], of(top)) is TlsaReason.NAME
    # Whether there are any cannot be told; the path does not need what is in this extension.
    unread = x509.UnrecognizedExtension(x509.SubjectKeyIdentifier.oid, b"\x30\x03rub")
    top = Made.of("root", extensions=[unread])
    assert reason([leaf, top], of(top)) is TlsaReason.NAME
    assert reason([server(top, *IDS), top], of(top)) is TlsaReason.MATCHED
    assert reason([leaf, ROOT], of(ROOT)) is TlsaReason.MATCHED


@pytest.mark.parametrize("reference", ["", ".", ".example.com", "*.example.com", "mx.*.com"])
def test_odd_reference_identifiers_match_nothing(reference: str) -> None:
    assert names_for(reference) == ()


def test_names_for_a_reference_identifier() -> None:
    assert names_for("mx.example.com") == ("mx.example.com", "*.example.com")
    assert names_for("example.com") == ("example.com",)
    assert names_for("localhost") == ("localhost",)


# -- records for certificates ---------------------------------------------------------------------------------------


def test_the_record_of_a_certificate() -> None:
    assert tlsa_of(SERVER.der) == of(SERVER, EE, SPKI)
    assert tlsa_of(SERVER.der, matching_type=FULL).data == SERVER.spki
    with pytest.raises(ValueError, match="pars"):
        tlsa_of(b"rubbish")


@pytest.mark.parametrize("key_name", ["rsa2048", "ed", "p256"])
def test_what_is_read_of_a_certificate(key_name: str) -> None:
    made = server(ROOT, "A.test", "*.b.test", key_name=key_name, days=(-1, 2))
    certificate = Certificate.parse(made.der)
    assert (certificate.spki, certificate.dns_ids) == (spki(key_name), ("a.test", "*.b.test"))
    assert (certificate.not_before, certificate.not_after) == (NOW - 86_400, NOW + 2 * 86_400)


def test_a_certificate_of_version_1() -> None:
    """Its key, as openssl pkey -pubin -outform DER | sha256sum has it."""
    record = tlsa_of(VERSION_1)
    assert str(record) == "3 1 1 f41bb5f15dcdfa3499954ea17b3f341b7a1a7d658685967f8de32e34b849da5f"
    assert verified([VERSION_1], record).matched_name == "mx.example.com"
    assert reason([SERVER, VERSION_1], of(ROOT)) is TlsaReason.NO_MATCH
