"""A certificate chain against TLSA records: does it authenticate the server?

RFC 7671 §5.1 and RFC 7672 §3.1.1 (DANE-EE), RFC 7671 §5.2 and RFC 7672 §3.1.2 (DANE-TA), RFC 7672 §3.2 (names),
RFC 7671 §9 (agility). DANE-EE(3) asks for neither name (RFC 7672 §3.2.1) nor date. DANE-TA(2) asks for a valid path
to what the record matches, which stands in the chain or, in full, in the record, and for one of the reference
identifiers. Left out: how the chain and the records were come by (discover.py). Pure, safe to share between threads.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from mailguard.argument import check_each, check_now, check_type
from mailguard.dane.certificate import Certificate, PathError, is_signed_by, path_to, public_key_in
from mailguard.dane.record import CertificateUsage, MatchingType, Selector, association, read_records
from mailguard.dane.result import TlsaReason, TlsaResult, TlsaStatus
from mailguard.dns.question import TLSA

__all__ = ["MAX_CERTIFICATES", "names_for", "tlsa_of", "verify_tlsa"]

# A chain has four or five; the longest that `cryptography` follows, nine. What comes after that is not looked at.
MAX_CERTIFICATES = 16
# Records of keys without a certificate (2 1 0), which RFC 7671 §5.2.3 tells nobody to publish: each costs a signature
# check for each certificate.
MAX_BARE_KEYS = 4


def verify_tlsa(
    chain: Sequence[bytes], records: Iterable[TLSA], *, reference_ids: Sequence[str], now: float
) -> TlsaResult:
    """What `records`, the whole RRset, say of the chain that a server presented.

    `chain` is DER, the server's own certificate first; what of it cannot be read is ignored, behind that one.
    `reference_ids` are names in the form of Domain, of which the certificate has to have one for a DANE-TA(2) record.
    `now` is in POSIX seconds. Raises TypeError for arguments of another type.
    """
    check_each("chain", chain, bytes)
    records = tuple(records)
    check_each("records", records, TLSA)
    check_each("reference_ids", reference_ids, str)
    check_now(now)
    taken = read_records(records).taken
    if not taken:
        return _result(TlsaReason.NO_USABLE_RECORD, "no TLSA record is usable")
    if not chain:
        return _result(TlsaReason.NO_CERTIFICATE, "the server presented no certificate")
    leaf = next(iter(_certificates(chain[:1])), None)
    # RFC 7671 §5.1: for DANE-EE the key is all that counts of it.
    spki = leaf.spki if leaf is not None else public_key_in(chain[0])
    name = _name(leaf, reference_ids) if leaf is not None else None
    for record in taken:
        if record.usage == CertificateUsage.DANE_EE and record.data == _data(record, chain[0], spki):
            return _result(TlsaReason.MATCHED, "the server's certificate matches", record, 0, name)
    if leaf is None:
        return _result(TlsaReason.MALFORMED, "the server's certificate cannot be read")

    # What the server sends a second time is still its own, and vouches for nothing.
    others = _certificates(der for der in chain[1:MAX_CERTIFICATES] if der != chain[0])
    anchors = _anchors([record for record in taken if record.usage == CertificateUsage.DANE_TA], leaf, others)
    if not anchors:
        return _result(TlsaReason.NO_MATCH, "no TLSA record matches a certificate of the chain", name=name)
    try:
        path = path_to(tuple(anchors), leaf, others, now=now)
    except PathError as error:
        record = next(iter(anchors.values()))
        detail = f"no valid path leads to what a TLSA record matches: {error}"
        return _result(TlsaReason.CHAIN, detail, record, name=name)
    record, depth = anchors[path[-1]], len(path) - 1
    if name is None:
        return _result(TlsaReason.NAME, "the certificate has none of the names asked for", record, depth)
    if leaf.is_common_name and any(certificate.has_name_constraints for certificate in path):
        # Name constraints are checked for DNS-IDs alone.
        detail = "the certificate has its name as a common name, and name constraints above it"
        return _result(TlsaReason.NAME, detail, record, depth)
    return _result(TlsaReason.MATCHED, f"a path of {len(path)} certificates leads to the anchor", record, depth, name)


def names_for(reference_id: str) -> tuple[str, ...]:
    """RFC 7672 §3.2.3: the names, one of which a certificate needs to be that of `reference_id`.

    A wildcard is the whole first label, stands for exactly one label, and has two labels behind it at least.
    """
    first, _, rest = reference_id.partition(".")
    if not first or "*" in reference_id:
        return ()
    return (reference_id, f"*.{rest}") if "." in rest else (reference_id,)


def tlsa_of(
    certificate: bytes,
    *,
    usage: CertificateUsage = CertificateUsage.DANE_EE,
    selector: Selector = Selector.SPKI,
    matching_type: MatchingType = MatchingType.SHA2_256,
) -> TLSA:
    """The record that matches this certificate (DER); `3 1 1` unless told otherwise (RFC 7672 §3.1.1).

    Raises ValueError for octets that are no certificate, and TypeError for anything but bytes.
    """
    check_type("certificate", certificate, bytes)
    data = association(certificate, Certificate.parse(certificate).spki, selector, matching_type)
    if data is None:
        raise ValueError("no such selector or matching type")
    return TLSA(int(usage), int(selector), int(matching_type), data)


def _data(record: TLSA, der: bytes, spki: bytes | None) -> bytes | None:
    return association(der, spki, record.selector, record.matching_type)


def _name(leaf: Certificate, reference_ids: Sequence[str]) -> str | None:
    presented = frozenset(leaf.dns_ids)
    return next((one for one in reference_ids if not presented.isdisjoint(names_for(one))), None)


def _certificates(chain: Iterable[bytes]) -> list[Certificate]:
    """Those that can be read. A server that sends rubbish beside its chain is no worse for it."""
    certificates = []
    for der in dict.fromkeys(chain):
        try:
            certificates.append(Certificate.parse(der))
        except ValueError:
            continue
    return certificates


def _anchors(records: Sequence[TLSA], leaf: Certificate, others: Sequence[Certificate]) -> dict[Certificate, TLSA]:
    """What a path may lead to, and the record that says so; the server's own certificate only by a bare key."""
    anchors: dict[Certificate, TLSA] = {}
    bare_keys = []
    for record in records:
        matched = [one for one in others if record.data == _data(record, one.der, one.spki)]
        for certificate in matched:
            anchors.setdefault(certificate, record)
        if matched or record.matching_type != MatchingType.FULL:
            continue
        if record.selector == Selector.SPKI:
            bare_keys.append(record)
            continue
        # RFC 7671 §5.2.2: the anchor itself need not be in the chain if it is in the record.
        for certificate in _certificates([record.data] if record.data != leaf.der else []):
            anchors.setdefault(certificate, record)
    # RFC 7671 §5.2.3: nobody in the chain has the key, but it signed one of them.
    for record in bare_keys[:MAX_BARE_KEYS]:
        for certificate in (leaf, *others):
            if is_signed_by(certificate, record.data):
                anchors.setdefault(certificate, record)
    return anchors


def _result(
    reason: TlsaReason,
    detail: str,
    record: TLSA | None = None,
    depth: int | None = None,
    name: str | None = None,
) -> TlsaResult:
    status = {
        TlsaReason.MATCHED: TlsaStatus.AUTHENTICATED,
        TlsaReason.NO_USABLE_RECORD: TlsaStatus.UNUSABLE,
    }.get(reason, TlsaStatus.FAILED)
    return TlsaResult(status, reason, detail, record, depth, name)
