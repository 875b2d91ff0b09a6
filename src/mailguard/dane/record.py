"""TLSA records for SMTP: which of them are usable, and which of these are taken.

RFC 6698 §2 (the record), RFC 7672 §3.1 (usages of SMTP), RFC 6698 §4.1 (what is unusable), RFC 7671 §9 (digest
algorithm agility). Left out: PKIX-TA(0) and PKIX-EE(1), which RFC 7672 §3.1.3 lets a client treat as unusable; it has
no list of certification authorities that all senders trust. Pure, safe to share between threads.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum, IntEnum

from mailguard.dane.certificate import is_certificate, is_public_key
from mailguard.dns.question import TLSA

__all__ = [
    "MAX_RECORDS",
    "CertificateUsage",
    "MatchingType",
    "Selector",
    "TlsaRecords",
    "Unusable",
    "association",
    "parse_tlsa",
    "read_records",
    "why_unusable",
]

# RFC 7671 §8.1: a roll-over takes two for each combination; those with many keys have eight. An answer has room for
# a thousand, and each of some kinds costs signature checks.
MAX_RECORDS = 64
# What a message by TCP could hold (RFC 1035 §4.2.2), in hexadecimal digits.
_MAX_TEXT_CHARS = 2 * 65_535


class CertificateUsage(IntEnum):
    """RFC 6698 §2.1.1, with the names of RFC 7218 §2.1."""

    PKIX_TA = 0
    PKIX_EE = 1
    DANE_TA = 2
    DANE_EE = 3


class Selector(IntEnum):
    """RFC 6698 §2.1.2: what of a certificate is compared."""

    CERT = 0
    """The whole certificate."""
    SPKI = 1
    """Its public key, as SubjectPublicKeyInfo."""


class MatchingType(IntEnum):
    """RFC 6698 §2.1.3: how it is compared."""

    FULL = 0
    SHA2_256 = 1
    SHA2_512 = 2


class Unusable(Enum):
    """Why a record is of no use to a sender of mail."""

    PKIX_USAGE = "pkix-usage"
    """Usage 0 or 1, which mean nothing between mail servers (RFC 7672 §3.1.3)."""
    USAGE = "usage"
    """A usage that no RFC defines."""
    SELECTOR = "selector"
    MATCHING_TYPE = "matching-type"
    LENGTH = "length"
    """A digest of another length than its algorithm has."""
    MALFORMED = "malformed"
    """In full, and neither a certificate nor, with that selector, a public key."""


@dataclass(frozen=True, slots=True)
class TlsaRecords:
    """The records at one name, sorted out. Each list is in one order, whatever that of the reply was."""

    taken: tuple[TLSA, ...] = ()
    """What a certificate chain is compared with; those of DANE-EE(3) first. Empty if no record is usable."""
    weaker: tuple[TLSA, ...] = ()
    """Usable, and passed over for a stronger digest with the same usage and selector."""
    unusable: tuple[tuple[TLSA, Unusable], ...] = ()
    left_out: int = 0
    """How many more are usable than MAX_RECORDS; nothing is compared with these."""


_DIGESTS = {MatchingType.SHA2_256: hashlib.sha256, MatchingType.SHA2_512: hashlib.sha512}
_DIGEST_OCTETS = {matching_type: digest().digest_size for matching_type, digest in _DIGESTS.items()}


def why_unusable(record: TLSA) -> Unusable | None:
    """Why `record` cannot be used for SMTP; None if it can."""
    if record.usage in (CertificateUsage.PKIX_TA, CertificateUsage.PKIX_EE):
        return Unusable.PKIX_USAGE
    if record.usage not in (CertificateUsage.DANE_TA, CertificateUsage.DANE_EE):
        return Unusable.USAGE
    if record.selector not in (Selector.CERT, Selector.SPKI):
        return Unusable.SELECTOR
    if record.matching_type == MatchingType.FULL:
        is_well_formed = is_certificate if record.selector == Selector.CERT else is_public_key
        return None if is_well_formed(record.data) else Unusable.MALFORMED
    octets = _DIGEST_OCTETS.get(MatchingType(record.matching_type)) if record.matching_type in (1, 2) else None
    if octets is None:
        return Unusable.MATCHING_TYPE
    return None if len(record.data) == octets else Unusable.LENGTH


def read_records(records: Iterable[TLSA]) -> TlsaRecords:
    """The records of one RRset by what is to be done with them. A record that is there twice counts once."""
    usable: list[TLSA] = []
    unusable: list[tuple[TLSA, Unusable]] = []
    # DANE-EE(3) before DANE-TA(2), Full(0) before SHA2-512(2) before SHA2-256(1).
    for record in sorted(set(records), key=_rank):
        why = why_unusable(record)
        if why is None:
            usable.append(record)
        else:
            unusable.append((record, why))
    # RFC 7672 §5 and RFC 7671 §9: "after first discarding any unusable or malformed records", for each usage and
    # selector.
    strongest: dict[tuple[int, int], int] = {}
    for record in usable:
        if record.matching_type != MatchingType.FULL:
            strongest.setdefault((record.usage, record.selector), record.matching_type)
    taken: list[TLSA] = []
    weaker: list[TLSA] = []
    for record in usable:
        is_best = record.matching_type in (MatchingType.FULL, strongest.get((record.usage, record.selector)))
        (taken if is_best else weaker).append(record)
    return TlsaRecords(
        tuple(taken[:MAX_RECORDS]), tuple(weaker), tuple(unusable), left_out=max(0, len(taken) - MAX_RECORDS)
    )


def association(der: bytes, spki: bytes | None, selector: int, matching_type: int) -> bytes | None:
    """RFC 6698 §2.1.4: the data that a record which matches this certificate has. None where it cannot be told."""
    selected = der if selector == Selector.CERT else spki if selector == Selector.SPKI else None
    if selected is None or matching_type == MatchingType.FULL:
        return selected
    digest = _DIGESTS.get(MatchingType(matching_type)) if matching_type in (1, 2) else None
    return digest(selected).digest() if digest is not None else None


def parse_tlsa(text: str) -> TLSA:
    """The record that `text` writes as in a master file (RFC 6698 §2.2): `3 1 1 8cb0fc...`.

    Spaces are allowed between the digits. Raises ValueError.
    """
    words = text[: _MAX_TEXT_CHARS + 1].split() if len(text) <= _MAX_TEXT_CHARS else []
    if len(words) < 4 or not all(word.isascii() and word.isdigit() and len(word) <= 3 for word in words[:3]):
        raise ValueError("a TLSA record is three numbers and hexadecimal digits: 3 1 1 8cb0fc6c...")
    usage, selector, matching_type = bytes(map(int, words[:3]))
    return TLSA(usage, selector, matching_type, bytes.fromhex("".join(words[3:])))


def _rank(record: TLSA) -> tuple[int, int, int, bytes]:
    strength = 256 if record.matching_type == MatchingType.FULL else record.matching_type
    return (-record.usage, record.selector, -strength, record.data)
