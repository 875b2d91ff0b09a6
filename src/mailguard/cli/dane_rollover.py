"""What `mailguard dane rollover` shows: the certificate about to be deployed against the records that are published.

RFC 7671 §8.1 (publish first, deploy later, then remove), RFC 7671 §9 (the new record needs a digest that is as strong
as that of the old one, or nobody looks at it).
"""

from __future__ import annotations

from collections.abc import Sequence

from mailguard.cli.dane_certificates import certificate_nodes, record_for
from mailguard.cli.dane_report import Mark
from mailguard.dane.record import CertificateUsage
from mailguard.dane.result import HostOutcome, HostPolicy, HostReason, TlsaStatus
from mailguard.dane.verify import verify_tlsa
from mailguard.dns.question import TLSA
from mailguard.explain import Explanation
from mailguard.records.record import DEFAULT_TTL_S

__all__ = ["rollover_tree"]

_WAIT = "wait for two TTLs of what was published before, and until every name server has them; then ask again"
_TO_REMOVE = "to remove, once it is deployed and works"
_IN_USE = "unless another certificate of this server has it: of a second key type, or the next one"
_UNHEEDED = "senders do not heed TLSA records of this host: any certificate will do"


def rollover_tree(host: HostPolicy, chain: Sequence[bytes], *, port: int, now: float) -> tuple[Explanation, Mark]:
    """The tree, and whether senders would take `chain` (DER, not empty) of the host."""
    current = host.records.taken
    further = _next_records(chain, current)
    mark, reason, detail, advice = _verdict(host, chain, now)
    owner = f"_{port}._tcp.{host.base_domain or host.name}"
    published = [(str(record), "") for record in (*current, *host.records.weaker)]
    published += [(str(record), f"unusable ({why.value})") for record, why in host.records.unusable]
    children = [Explanation("published now", facts=tuple(published) or (("nothing", ""),))]
    missing = [record for record in further if record not in current]
    if missing:
        lines = [(f"{owner}. {DEFAULT_TTL_S} IN TLSA {record}", "") for record in (*current, *missing)]
        children.append(Explanation("to publish together, before it is deployed", facts=tuple(lines)))
    obsolete = [record for record in current if record not in further and not _stays(record, chain, host, now)]
    if obsolete:
        lines = [(f"{owner}. IN TLSA {record}", "") for record in obsolete]
        children.append(Explanation(_TO_REMOVE, detail=_IN_USE, facts=tuple(lines)))
    children += certificate_nodes(chain, current, now=now)
    title = f"certificate for {host.name}"
    return Explanation(title, mark.value, reason, detail, advice, children=tuple(children)), mark


def _next_records(chain: Sequence[bytes], current: Sequence[TLSA]) -> tuple[TLSA, ...]:
    """The records of the new chain, of the kinds that are published; 3 1 1 where nothing is."""
    kinds = dict.fromkeys((record.usage, record.selector, record.matching_type) for record in current)
    made = []
    for usage, selector, matching_type in kinds or {(3, 1, 1): None}:
        if usage == CertificateUsage.DANE_TA and len(chain) == 1:
            continue  # there is no authority in it that could be named
        made.append(record_for(chain, usage=usage, selector=selector, matching_type=matching_type))
    return tuple(dict.fromkeys(made))


def _verdict(host: HostPolicy, chain: Sequence[bytes], now: float) -> tuple[Mark, str, str, str]:
    if host.reason is HostReason.LOOKUP_FAILED:
        return Mark.UNKNOWN, host.reason.value, host.detail, "ask again; deploy nothing until then"
    if host.reason is HostReason.NO_ADDRESS:
        return Mark.FAIL, host.reason.value, f"{host.name}: {host.detail}", "name the server as its MX record does"
    if host.outcome is not HostOutcome.AUTHENTICATE:
        return Mark.PASS, host.reason.value, f"{host.detail}: {_UNHEEDED}", ""
    found = verify_tlsa(chain, host.records.taken, reference_ids=host.reference_ids, now=now)
    if found.status is TlsaStatus.AUTHENTICATED:
        # When it was published cannot be seen; where it stands alone, it is that of the certificate in use.
        is_new = len(host.records.taken) > 1
        advice = "deploy it no earlier than two TTLs after its record was published" if is_new else ""
        return Mark.PASS, found.reason.value, f"it can be deployed: {found.detail} {found.record}", advice
    detail = f"senders that know DANE would keep their mail: {found.detail}"
    return Mark.FAIL, found.reason.value, detail, f"publish the records below, {_WAIT}"


def _stays(record: TLSA, chain: Sequence[bytes], host: HostPolicy, now: float) -> bool:
    """Whether the new chain matches this record by itself."""
    found = verify_tlsa(chain, [record], reference_ids=host.reference_ids, now=now)
    return found.status is TlsaStatus.AUTHENTICATED
