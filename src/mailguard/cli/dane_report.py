"""What `mailguard dane check` shows: a tree from the domain to each MX, each of its addresses, each certificate."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from enum import Enum

from mailguard.cli.dane_certificates import certificate_nodes
from mailguard.cli.exit_code import ExitCode
from mailguard.dane.destination import SMTP_PORT
from mailguard.dane.record import TlsaRecords
from mailguard.dane.result import DanePolicy, DaneStatus, HostOutcome, HostPolicy, HostReason, TlsaStatus
from mailguard.dane.verify import verify_tlsa
from mailguard.dns.question import Dnssec
from mailguard.explain import Explanation
from mailguard.starttls.presented import Handshake, HandshakeStatus

__all__ = ["EXIT_CODES", "Mark", "dane_tree", "failed_handshake", "mark_of", "worst"]

MAX_SHOWN_RECORDS = 20


class Mark(Enum):
    """How a node came out, the best first."""

    PASS = "pass"
    UNKNOWN = "unknown"
    """It could not be found out now."""
    FAIL = "fail"


EXIT_CODES: Mapping[Mark, ExitCode] = {
    Mark.PASS: ExitCode.PASS,
    Mark.UNKNOWN: ExitCode.TEMPORARY,
    Mark.FAIL: ExitCode.FAIL,
}
_BY_STATUS: Mapping[DaneStatus, Mark] = {
    DaneStatus.DEFER: Mark.UNKNOWN,
    DaneStatus.NO_DOMAIN: Mark.FAIL,
    # Nothing can be diverted of what is not sent.
    DaneStatus.NO_MAIL: Mark.PASS,
    DaneStatus.NOT_APPLICABLE: Mark.FAIL,
}
_ADVICE: Mapping[HostReason, str] = {
    HostReason.UNUSABLE_RECORDS: "publish a record that senders can use: mailguard dane tlsa prints it",
    HostReason.NO_RECORDS: "publish one: mailguard dane tlsa prints it",
    HostReason.INSECURE_RECORDS: "sign the zone of the records with DNSSEC",
    HostReason.INSECURE_ADDRESS: "sign the zone of the host with DNSSEC, then publish TLSA records",
    HostReason.INSECURE_MX: "sign the zone of the domain with DNSSEC; until then MTA-STS protects it",
    HostReason.ADDRESS_AS_NAME: "let the MX record name a host",
    HostReason.NO_ADDRESS: "give the host an address, or remove the MX record",
    HostReason.LOOKUP_FAILED: "repair its DNS: senders that know DANE do not deliver to this host",
}
_UNKNOWN_STATUSES = frozenset(
    {HandshakeStatus.UNREACHABLE, HandshakeStatus.TIMED_OUT, HandshakeStatus.REFUSED, HandshakeStatus.SMTP}
    | {HandshakeStatus.NO_ROUTE}
)
_NO_CONNECTION = "many networks let nobody out on port 25: run this on a mail server"
_NOT_VISITED = "not connected to"


def worst(marks: Iterable[Mark]) -> Mark:
    """Of none, PASS."""
    order = tuple(Mark)
    return max(marks, key=order.index, default=Mark.PASS)


def dane_tree(
    policy: DanePolicy, shown: Mapping[str, Sequence[Handshake]] | None, *, now: float
) -> tuple[Explanation, Mark]:
    """The tree, and how it came out. `shown` has the handshakes by host; None where nobody tried."""
    hosts = [_host_node(host, (shown or {}).get(host.name, ()), shown is not None, now) for host in policy.hosts]
    mark = worst(mark for _, mark in hosts) if hosts else _BY_STATUS.get(policy.status, Mark.UNKNOWN)
    facts = [("port", str(policy.port))]
    if policy.hosts_left_out:
        facts.append(("hosts left out", str(policy.hosts_left_out)))
    if mark is Mark.PASS and hosts and policy.mx_dnssec is Dnssec.INSECURE:
        facts.append(("note", "the MX records come without DNSSEC: who forges them diverts the mail all the same"))
    return (
        Explanation(
            title=f"DANE of {policy.destination}",
            status=mark.value,
            reason=policy.status.value,
            detail=policy.detail,
            facts=tuple(facts),
            children=tuple(node for node, _ in hosts),
        ),
        mark,
    )


def _host_node(
    host: HostPolicy, shown: Sequence[Handshake], is_visited: bool, now: float
) -> tuple[Explanation, Mark]:
    own = _own_mark(host)
    below = [_address_node(host, each, now) for each in shown]
    mark = worst([own, mark_of(shown, [mark for _, mark in below])])
    if own is Mark.PASS and is_visited and not below:
        mark = Mark.UNKNOWN
    facts = [("addresses", ", ".join(host.addresses) or "not asked for")]
    if host.base_domain is not None:
        facts.append(("TLSA base domain", host.base_domain))
    facts += _record_facts(host.records)
    if not below:
        facts.append(("certificates", _NOT_VISITED))
    title = f"MX {host.preference} {host.name}" if host.preference is not None else f"host {host.name}"
    return (
        Explanation(
            title=title,
            status=host.outcome.value,
            reason=host.reason.value,
            detail=host.detail,
            advice=_ADVICE.get(host.reason, ""),
            facts=tuple(facts),
            children=tuple(node for node, _ in below),
        ),
        mark,
    )


def _own_mark(host: HostPolicy) -> Mark:
    """What the DNS alone says."""
    if host.outcome is HostOutcome.AUTHENTICATE:
        return Mark.PASS
    return Mark.UNKNOWN if host.reason is HostReason.LOOKUP_FAILED else Mark.FAIL


def _record_facts(records: TlsaRecords) -> list[tuple[str, str]]:
    facts = [("TLSA", str(record)) for record in records.taken]
    facts += [("TLSA, passed over for a stronger digest", str(record)) for record in records.weaker]
    facts += [(f"TLSA, unusable ({why.value})", str(record)) for record, why in records.unusable]
    left_out = records.left_out + max(0, len(facts) - MAX_SHOWN_RECORDS)
    return [*facts[:MAX_SHOWN_RECORDS], *([("further records", str(left_out))] if left_out else [])]


def _address_node(host: HostPolicy, shown: Handshake, now: float) -> tuple[Explanation, Mark]:
    if shown.status is not HandshakeStatus.DONE:
        return failed_handshake(shown)
    found = verify_tlsa(shown.chain, host.records.taken, reference_ids=host.reference_ids, now=now)
    facts = [("TLS", f"{shown.protocol}, {shown.cipher}")]
    advice = ""
    if found.status is TlsaStatus.UNUSABLE:
        # There is nothing to compare with: what is wrong is said of the host.
        mark, status, reason = Mark.PASS, "", ""
    elif found.status is TlsaStatus.AUTHENTICATED:
        mark, status, reason = Mark.PASS, Mark.PASS.value, found.reason.value
    else:
        mark, status, reason = Mark.FAIL, Mark.FAIL.value, found.reason.value
        # What is shown may be that of somebody in between: nobody is told to publish it unseen.
        advice = (
            "senders that know DANE keep their mail. If this is your certificate, publish its record (mailguard dane"
            " tlsa FILE prints it) or show the published one; if it is not, somebody answers in the server's place"
        )
    if found.record is not None:
        facts.append(("matched record", str(found.record)))
    if found.matched_name is not None:
        facts.append(("matched name", found.matched_name))
    return (
        Explanation(
            title=_place(shown),
            status=status,
            reason=reason,
            detail="" if found.status is TlsaStatus.UNUSABLE else found.detail,
            advice=advice,
            facts=tuple(facts),
            children=certificate_nodes(shown.chain, host.records.taken, now=now),
        ),
        mark,
    )


def mark_of(shown: Sequence[Handshake], marks: Sequence[Mark]) -> Mark:
    """That of a host, from those of its addresses: one that we have no way to says nothing if another is seen."""
    is_seen = any(each.status is HandshakeStatus.DONE for each in shown)
    return worst(
        mark
        for each, mark in zip(shown, marks, strict=True)
        if not (is_seen and each.status is HandshakeStatus.NO_ROUTE)
    )


def failed_handshake(shown: Handshake) -> tuple[Explanation, Mark]:
    """The node of an address that showed no certificate."""
    mark = Mark.UNKNOWN if shown.status in _UNKNOWN_STATUSES else Mark.FAIL
    is_blocked = shown.status in (HandshakeStatus.UNREACHABLE, HandshakeStatus.TIMED_OUT) and shown.port == SMTP_PORT
    advice = _NO_CONNECTION if is_blocked else ""
    return Explanation(_place(shown), mark.value, shown.status.value, shown.detail, advice), mark


def _place(shown: Handshake) -> str:
    return f"[{shown.address}]:{shown.port}"
