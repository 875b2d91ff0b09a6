"""Certificates for the commands: read from files, shown with names and dates, made into TLSA records."""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from mailguard.dane.certificate import Certificate
from mailguard.dane.record import CertificateUsage, MatchingType, Selector, association
from mailguard.dane.verify import MAX_CERTIFICATES, tlsa_of
from mailguard.dns.question import TLSA
from mailguard.errors import KeyFileError
from mailguard.explain import Explanation
from mailguard.guarded_file import read_beginning

__all__ = ["certificate_nodes", "read_chain", "record_for", "record_words"]

# A chain with post-quantum keys has some 60 kB; a bundle of all authorities that a system trusts, 200 kB.
MAX_FILE_BYTES = 1 << 20
# A certificate of a large hoster has a hundred, and none of a stranger's may fill the screen.
MAX_SHOWN_NAMES = 8
_DAY_S = 86_400
_PEM = re.compile(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)

_USAGES = {0: "PKIX-TA", 1: "PKIX-EE", 2: "DANE-TA", 3: "DANE-EE"}
_SELECTORS = {0: "Cert", 1: "SPKI"}
_MATCHING_TYPES = {0: "Full", 1: "SHA2-256", 2: "SHA2-512"}


def read_chain(path: str) -> tuple[bytes, ...]:
    """The certificates of a file, as DER: all in PEM form, else the one that it is. Raises ConfigError.

    The server's own comes first, as Postfix, certbot and others write it; a private key beside it is passed over.
    """
    octets = read_beginning(path, max_octets=MAX_FILE_BYTES)
    try:
        blocks = _PEM.findall(octets.decode("ascii", "replace"))
        chain = tuple(ssl.PEM_cert_to_DER_cert(block) for block in blocks[:MAX_CERTIFICATES]) or (octets,)
        for der in chain:
            Certificate.parse(der)
    except ValueError as error:
        raise KeyFileError(f"{path}: no certificate in PEM or DER form can be read: {error}") from None
    return chain


def record_for(
    chain: Sequence[bytes],
    *,
    usage: int,
    selector: int = Selector.SPKI,
    matching_type: int = MatchingType.SHA2_256,
) -> TLSA:
    """The record of this kind for a server with `chain`, which is not empty. Raises ValueError.

    Of an authority, usages 0 and 2, it is the last certificate of the chain: RFC 7672 §3.1.2 wants it to be there.
    """
    is_authority = usage in (CertificateUsage.PKIX_TA, CertificateUsage.DANE_TA)
    return tlsa_of(
        chain[-1] if is_authority else chain[0],
        usage=CertificateUsage(usage),
        selector=Selector(selector),
        matching_type=MatchingType(matching_type),
    )


def certificate_nodes(chain: Sequence[bytes], records: Iterable[TLSA], *, now: float) -> tuple[Explanation, ...]:
    """A node for each certificate: its names, its dates, and which of the records it matches."""
    taken = tuple(records)
    return tuple(_certificate_node(number, der, taken, now) for number, der in enumerate(chain[:MAX_CERTIFICATES]))


def _certificate_node(number: int, der: bytes, records: Sequence[TLSA], now: float) -> Explanation:
    title = f"certificate {number}"
    try:
        certificate = Certificate.parse(der)
    except ValueError as error:
        return Explanation(title, "malformed", detail=f"it cannot be read: {error}")
    names = [*certificate.dns_ids[:MAX_SHOWN_NAMES], *(["..."] if len(certificate.dns_ids) > MAX_SHOWN_NAMES else [])]
    kind = "common name" if certificate.is_common_name else "names"
    facts = [(kind, ", ".join(names) or "none")]
    facts.append(
        ("valid", f"{_day(certificate.not_before)} to {_day(certificate.not_after)}, {_when(certificate, now)}")
    )
    usage = CertificateUsage.DANE_TA if number else CertificateUsage.DANE_EE
    facts.append(("record", str(record_for((der,), usage=usage))))
    for record in records:
        # The record of an authority says nothing of the server's own certificate, nor the other way round.
        is_place = (number == 0) == (record.usage == CertificateUsage.DANE_EE)
        data = association(der, certificate.spki, record.selector, record.matching_type)
        if is_place and record.data == data:
            facts.append(("matches", str(record)))
    return Explanation(title, facts=tuple(facts))


def _day(at: float) -> str:
    """A POSIX time as a date in UTC."""
    return datetime.fromtimestamp(at, UTC).date().isoformat()


def _when(certificate: Certificate, now: float) -> str:
    if now < certificate.not_before:
        return "not yet"
    if now > certificate.not_after:
        return "expired"
    return f"{int((certificate.not_after - now) // _DAY_S)} days more"


def record_words(record: TLSA) -> tuple[tuple[str, str], ...]:
    """The parts of a record as the web forms of hosters ask for them."""
    return (
        ("usage", f"{record.usage} ({_USAGES[record.usage]})"),
        ("selector", f"{record.selector} ({_SELECTORS[record.selector]})"),
        ("matching type", f"{record.matching_type} ({_MATCHING_TYPES[record.matching_type]})"),
        ("certificate data", record.data.hex()),
    )
