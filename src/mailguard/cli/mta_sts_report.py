"""What `mailguard mta-sts check` shows: record, policy, each MX, each of its addresses, each certificate.

RFC 8461 §4.1 (which hosts), RFC 8461 §4.2 (what their certificates need).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mailguard.cli.dane_certificates import certificate_nodes
from mailguard.cli.dane_report import Mark, failed_handshake, mark_of, worst
from mailguard.dane.certificate import Certificate
from mailguard.dane.discover import MAX_HOSTS
from mailguard.dane.verify import names_for
from mailguard.dns.answers import Answers
from mailguard.dns.question import Question, RecordType, Status
from mailguard.domain import Domain
from mailguard.explain import Explanation
from mailguard.mtasts.policy import StsMode, StsPolicy
from mailguard.mtasts.record import Discovery, DiscoveryStatus
from mailguard.mtasts.result import FetchOutcome, FetchReason
from mailguard.starttls.presented import Handshake, HandshakeStatus

__all__ = ["MxHosts", "hosts_of", "sts_tree"]

_DAY_S = 86_400
MAX_SHOWN_PATTERNS = 20
_TESTING = "when the reports are clean: mode: enforce, and a new id in the record"
_UNKNOWN_FETCHES = frozenset({FetchReason.DNS_UNAVAILABLE, FetchReason.UNREACHABLE, FetchReason.TIMED_OUT})


@dataclass(frozen=True, slots=True)
class MxHosts:
    """The hosts of a domain, the best preference first. `failure` says why they are not known."""

    named: tuple[tuple[int | None, str], ...] = ()
    failure: str = ""
    exists: bool = True
    takes_no_mail: bool = False
    left_out: int = 0


def hosts_of(domain: Domain, answers: Answers) -> MxHosts:
    """From the MX records; without any, the domain is its own host (RFC 5321 §5.1). Raises Unanswered."""
    answer = answers.get(Question(domain, RecordType.MX))
    if answer.has_failed:
        return MxHosts(failure=f"the MX records are not known: {answer.status.value}")
    if answer.status is Status.NXDOMAIN:
        return MxHosts(failure="the domain does not exist", exists=False)
    found = sorted((mx.preference, mx.exchange) for mx in answer.exchanges())
    if not found:
        return MxHosts(named=((None, domain),))
    best: dict[str, int] = {}
    for preference, name in found:
        if name:
            best.setdefault(name, preference)
    named = tuple((preference, name) for name, preference in best.items())
    return MxHosts(named[:MAX_HOSTS], takes_no_mail=not named, left_out=max(0, len(named) - MAX_HOSTS))


def sts_tree(
    domain: Domain,
    discovery: Discovery,
    fetched: FetchOutcome | None,
    hosts: MxHosts,
    shown: Mapping[str, Sequence[Handshake]] | None,
    *,
    now: float,
) -> tuple[Explanation, Mark]:
    """The tree, and how it came out. `shown` has the handshakes by host; None where nobody tried."""
    policy = fetched.policy if fetched is not None else None
    nodes = [_record_node(discovery), _policy_node(domain, fetched)]
    if hosts.failure or hosts.takes_no_mail:
        mark = Mark.PASS if hosts.takes_no_mail else Mark.UNKNOWN if hosts.exists else Mark.FAIL
        nodes.append((Explanation("MX", mark.value, detail=hosts.failure or "the domain takes no mail"), mark))
    for preference, name in hosts.named:
        nodes.append(_host_node(preference, name, policy, (shown or {}).get(name, ()), shown is not None, now))
    mark = worst(mark for _, mark in nodes)
    return (
        Explanation(
            title=f"MTA-STS of {domain}",
            status=mark.value,
            facts=(("hosts left out", str(hosts.left_out)),) if hosts.left_out else (),
            children=tuple(node for node, _ in nodes),
        ),
        mark,
    )


def _record_node(discovery: Discovery) -> tuple[Explanation, Mark]:
    status = discovery.status
    if status is DiscoveryStatus.FOUND and discovery.record is not None:
        facts = (("id", discovery.record.id),)
        return Explanation("record", Mark.PASS.value, status.value, facts=facts), Mark.PASS
    mark = Mark.UNKNOWN if status is DiscoveryStatus.UNAVAILABLE else Mark.FAIL
    advice = "mailguard dns prints the record and the policy" if status is DiscoveryStatus.ABSENT else ""
    return Explanation("record", mark.value, status.value, discovery.detail, advice), mark


def _policy_node(domain: Domain, fetched: FetchOutcome | None) -> tuple[Explanation, Mark]:
    if fetched is None:
        return Explanation("policy", "not fetched", detail="no record says that there is one"), Mark.PASS
    policy = fetched.policy
    if policy is None:
        mark = Mark.UNKNOWN if fetched.reason in _UNKNOWN_FETCHES else Mark.FAIL
        advice = f"serve it at https://mta-sts.{domain}/.well-known/mta-sts.txt"
        return Explanation("policy", mark.value, fetched.reason.value, fetched.detail, advice), mark
    patterns = [("mx", pattern) for pattern in policy.mx[:MAX_SHOWN_PATTERNS]]
    if len(policy.mx) > MAX_SHOWN_PATTERNS:
        patterns.append(("further patterns", str(len(policy.mx) - MAX_SHOWN_PATTERNS)))
    lasts = f"{policy.max_age_s} s, {policy.max_age_s // _DAY_S} days"
    facts = (("mode", policy.mode.value), ("max_age", lasts), *patterns, ("from", fetched.address))
    # With mode none nothing is demanded, and with testing nothing is refused.
    mark = Mark.FAIL if policy.mode is StsMode.NONE else Mark.PASS
    advice = _TESTING if policy.mode is StsMode.TESTING else ""
    return Explanation("policy", mark.value, fetched.reason.value, advice=advice, facts=facts), mark


def _host_node(
    preference: int | None,
    name: str,
    policy: StsPolicy | None,
    shown: Sequence[Handshake],
    is_visited: bool,
    now: float,
) -> tuple[Explanation, Mark]:
    below = [_address_node(name, each, now) for each in shown]
    is_named = policy is None or policy.mode is StsMode.NONE or policy.allows(name)
    is_refused = policy is not None and policy.mode is StsMode.ENFORCE
    unnamed = "the policy does not name it: mail does not go there" if is_refused else "the policy does not name it"
    mark = worst([Mark.PASS if is_named else Mark.FAIL, mark_of(shown, [mark for _, mark in below])])
    if mark is Mark.PASS and is_visited and not below:
        mark = Mark.UNKNOWN
    return (
        Explanation(
            title=f"MX {preference} {name}" if preference is not None else f"host {name}",
            status=mark.value,
            detail="" if is_named else unnamed,
            advice="" if is_named else "add it to the policy, with a new id in the record",
            facts=() if below else (("certificates", "no address" if is_visited else "not connected to"),),
            children=tuple(node for node, _ in below),
        ),
        mark,
    )


def _address_node(name: str, shown: Handshake, now: float) -> tuple[Explanation, Mark]:
    if shown.status is not HandshakeStatus.DONE:
        return failed_handshake(shown)
    fault = shown.authority_fault
    reason, detail = ("valid", "the certificate is valid for the host") if fault is None else ("authority", fault)
    if fault is None and not _is_for(name, shown.chain[0]):
        reason, detail = "name", f"the certificate has no alternative name that is {name}"
    mark = Mark.PASS if reason == "valid" else Mark.FAIL
    return (
        Explanation(
            title=f"[{shown.address}]:{shown.port}",
            status=mark.value,
            reason=reason,
            detail=detail,
            facts=(("TLS", f"{shown.protocol}, {shown.cipher}"),),
            children=certificate_nodes(shown.chain, (), now=now),
        ),
        mark,
    )


def _is_for(name: str, der: bytes) -> bool:
    """RFC 8461 §4.2: a subject alternative name is wanted; a common name is none."""
    try:
        certificate = Certificate.parse(der)
    except ValueError:
        return False
    return not certificate.is_common_name and not frozenset(names_for(name)).isdisjoint(certificate.dns_ids)
