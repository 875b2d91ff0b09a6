"""X.509 certificates as DANE needs them: the certificate and its key, the names, a valid path to an anchor.

RFC 6698 §2.1.2 (certificate and key), RFC 5280 §6 (paths, by `cryptography`: signatures, dates, basic constraints,
path lengths, name constraints, critical extensions), RFC 7671 §5.2.3 (bare keys). Stricter than OpenSSL: above a
server's certificate it takes RSA keys of 2048 bits or NIST curves, SHA-2 and basic constraints. Left out: revocation
(RFC 7672 §4), what TLSA records are (record.py). Reads no clock. Values are immutable, safe to share between threads.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Self

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import load_der_public_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from cryptography.x509.verification import (
    Criticality,
    ExtensionPolicy,
    Policy,
    PolicyBuilder,
    Store,
    VerificationError,
)

__all__ = [
    "MAX_CERTIFICATE_OCTETS",
    "Certificate",
    "PathError",
    "is_certificate",
    "is_public_key",
    "is_signed_by",
    "path_to",
    "public_key_in",
]

# OpenSSL takes 100 kB for a whole chain (SSL_CTX_set_max_cert_list(3)); one with a post-quantum key has 20 kB.
MAX_CERTIFICATE_OCTETS = 65_536
# The least that `cryptography` takes in a path; the most, because the work grows with the cube.
_MIN_RSA_BITS, _MAX_RSA_BITS = 2048, 8192
_MAX_REASON_CHARS = 120

# Tags of DER.
_SEQUENCE, _INTEGER, _BIT_STRING, _OID = 0x30, 0x02, 0x03, b"\x06"
_SHA_2 = (hashes.SHA256, hashes.SHA384, hashes.SHA512)


class PathError(Exception):
    """There is no valid path to an anchor. The text, printable ASCII, says what was wrong last."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate that can be read."""

    der: bytes
    spki: bytes
    """Its SubjectPublicKeyInfo, octet for octet."""
    dns_ids: tuple[str, ...]
    """The names that it is for, lower case: its DNS-IDs, or without any its one CN-ID (RFC 7672 §3.2.3)."""
    is_common_name: bool
    """Whether `dns_ids` is the CN-ID."""
    not_before: float
    """In POSIX seconds."""
    not_after: float
    _x509: x509.Certificate = field(repr=False)

    @classmethod
    def parse(cls, der: bytes) -> Self:
        """The certificate in these octets. Raises ValueError."""
        if len(der) > MAX_CERTIFICATE_OCTETS:
            raise ValueError(f"more than {MAX_CERTIFICATE_OCTETS} octets")
        certificate = _loaded(der)
        alternative, common = _dns_ids(certificate), _common_names(certificate)
        return cls(
            der=der,
            spki=_spki(certificate.tbs_certificate_bytes),
            dns_ids=common if alternative == () else alternative or (),
            is_common_name=alternative == () and bool(common),
            not_before=certificate.not_valid_before_utc.timestamp(),
            not_after=certificate.not_valid_after_utc.timestamp(),
            _x509=certificate,
        )

    @property
    def has_name_constraints(self) -> bool:
        """Whether it limits the names of those below it, or cannot be read well enough to tell."""
        try:
            return any(extension.oid == x509.NameConstraints.oid for extension in self._x509.extensions)
        except (ValueError, x509.DuplicateExtension):
            return True


def is_certificate(der: bytes) -> bool:
    """Whether these octets are a certificate, and nothing else."""
    try:
        _loaded(der)
    except ValueError:
        return False
    return True


def is_public_key(der: bytes) -> bool:
    """Whether these octets are a SubjectPublicKeyInfo (RFC 5280 §4.1), and nothing else.

    What kind of key it is does not matter, nor whether there is such a key: to find out about some takes long.
    """
    try:
        outer, at, end = _element(der, 0)
        algorithm, oid_at, at = _element(der, at)
        key, bits_at, key_end = _element(der, at)
    except ValueError:
        return False
    is_key = (outer, algorithm, der[oid_at : oid_at + 1], key) == (_SEQUENCE, _SEQUENCE, _OID, _BIT_STRING)
    # The first octet of a BIT STRING says how many bits of the last one are none.
    return is_key and key_end == end == len(der) and der[bits_at : bits_at + 1] == b"\x00" and bits_at + 1 < end


def public_key_in(der: bytes) -> bytes | None:
    """The SubjectPublicKeyInfo of a certificate that need not be readable otherwise; None if there is none.

    It is where any other reader finds it: each element on the way has its tag and a definite length.
    """
    try:
        outer, at, end = _element(der, 0)
        inner, _, tbs_end = _element(der, at)
        spki = _spki(der[at:tbs_end])
    except ValueError:
        return None
    return spki if outer == inner == _SEQUENCE and end == len(der) and is_public_key(spki) else None


def path_to(
    anchors: Sequence[Certificate], leaf: Certificate, others: Iterable[Certificate], *, now: float
) -> tuple[Certificate, ...]:
    """A valid path at `now` (POSIX seconds) from the leaf to one of the anchors, which is its last.

    It goes through `others`, and consists of the leaf alone if that is an anchor. Nearer anchors are tried first at
    each step. Raises PathError.
    """
    others = tuple(others)
    by_certificate = {one._x509: one for one in (*anchors, *others, leaf)}
    try:
        verifier = (
            PolicyBuilder()
            .store(Store([anchor._x509 for anchor in anchors]))
            .time(datetime.fromtimestamp(now, UTC))
            .extension_policies(ca_policy=_authority_policy(), ee_policy=_server_policy())
            .build_client_verifier()
        )
        verified = verifier.verify(leaf._x509, [other._x509 for other in others])
    except (VerificationError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        # What follows the bracket quotes the certificate.
        reason = str(error).partition(" (encountered")[0][:_MAX_REASON_CHARS]
        raise PathError("".join(char if " " <= char <= "~" else "?" for char in reason)) from error
    return tuple(by_certificate[one] for one in verified.chain)


def is_signed_by(certificate: Certificate, spki: bytes) -> bool:
    """Whether `certificate` is signed with the key in this SubjectPublicKeyInfo, which may be anything."""
    signed = certificate._x509
    try:
        key, algorithm = load_der_public_key(spki), signed.signature_hash_algorithm
        if not isinstance(algorithm, _SHA_2):
            return False
        parameters = signed.signature_algorithm_parameters
        if isinstance(key, rsa.RSAPublicKey) and isinstance(parameters, padding.PKCS1v15 | padding.PSS):
            if not _MIN_RSA_BITS <= key.key_size <= _MAX_RSA_BITS:
                return False
            key.verify(signed.signature, signed.tbs_certificate_bytes, parameters, algorithm)
        elif isinstance(key, ec.EllipticCurvePublicKey) and isinstance(parameters, ec.ECDSA):
            key.verify(signed.signature, signed.tbs_certificate_bytes, parameters)
        else:
            return False
    except (InvalidSignature, UnsupportedAlgorithm, ValueError, TypeError):
        return False
    return True


def _loaded(der: bytes) -> x509.Certificate:
    """Raises ValueError."""
    try:
        return x509.load_der_x509_certificate(der)
    except x509.InvalidVersion as error:
        raise ValueError(str(error)) from error


def _server_policy() -> ExtensionPolicy:
    return (
        ExtensionPolicy.permit_all()
        .may_be_present(x509.KeyUsage, Criticality.AGNOSTIC, _may_do_tls)
        .may_be_present(x509.ExtendedKeyUsage, Criticality.AGNOSTIC, _is_for_servers)
    )


def _authority_policy() -> ExtensionPolicy:
    return (
        ExtensionPolicy.permit_all()
        .require_present(x509.BasicConstraints, Criticality.AGNOSTIC, None)
        .may_be_present(x509.KeyUsage, Criticality.AGNOSTIC, _may_sign)
        .may_be_present(x509.ExtendedKeyUsage, Criticality.AGNOSTIC, _is_for_servers)
    )


def _may_sign(_policy: Policy, _certificate: x509.Certificate, usage: x509.KeyUsage | None) -> None:
    if usage is not None and not usage.key_cert_sign:
        raise ValueError("the key of an authority is not for certificates")


def _may_do_tls(_policy: Policy, _certificate: x509.Certificate, usage: x509.KeyUsage | None) -> None:
    if usage is not None and not (usage.digital_signature or usage.key_encipherment or usage.key_agreement):
        raise ValueError("the key of the server is not for TLS")


def _is_for_servers(_policy: Policy, _certificate: x509.Certificate, usage: x509.ExtendedKeyUsage | None) -> None:
    # RFC 5280 §4.2.1.12 lets applications reject anyExtendedKeyUsage alone, and OpenSSL does.
    if usage is not None and ExtendedKeyUsageOID.SERVER_AUTH not in usage:
        raise ValueError("a certificate is not for servers")


def _dns_ids(certificate: x509.Certificate) -> tuple[str, ...] | None:
    """The DNS-IDs; None where the extension cannot be read, so that nothing stands in for it."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    except (ValueError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType):
        return None
    return tuple(name.lower() for name in names.get_values_for_type(x509.DNSName))


def _common_names(certificate: x509.Certificate) -> tuple[str, ...]:
    """The CN-ID (RFC 6125 §1.8), which only a subject with one CN has."""
    try:
        names = [name.value for name in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    except (ValueError, KeyError):  # KeyError: a kind of string that cryptography does not know (48)
        return ()
    return (names[0].lower(),) if len(names) == 1 and isinstance(names[0], str) else ()


def _spki(tbs: bytes) -> bytes:
    """RFC 5280 §4.1: what follows the subject in a TBSCertificate. Raises ValueError.

    Not from the key as an object: written anew, it need not be the same octets, and not every key can be read.
    """
    _, at, _ = _element(tbs, 0)
    tag, _, end = _element(tbs, at)
    # The version may be left out.
    at = end if tag == 0xA0 else at
    # The serial number, signature, issuer, validity, subject.
    for wanted in (_INTEGER, _SEQUENCE, _SEQUENCE, _SEQUENCE, _SEQUENCE):
        tag, _, end = _element(tbs, at)
        if tag != wanted:
            raise ValueError("an element is another than the standard has there")
        at = end
    _, _, end = _element(tbs, at)
    return tbs[at:end]


def _element(der: bytes, at: int) -> tuple[int, int, int]:
    """The tag of the element at `at`, where its content begins, and where it ends. Raises ValueError."""
    try:
        tag, length = der[at], der[at + 1]
    except IndexError:
        raise ValueError("an element has no length") from None
    start = at + 2
    if length & 0x80:
        octets = length & 0x7F
        if not octets:
            raise ValueError("an element has no definite length")
        start += octets
        length = int.from_bytes(der[at + 2 : start], "big")
    if start + length > len(der):
        raise ValueError("an element is longer than what is there")
    return tag, start, start + length
