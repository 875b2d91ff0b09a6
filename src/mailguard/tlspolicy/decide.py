"""What Postfix is to demand of a destination: DANE first, then MTA-STS, and never less because something failed.

RFC 7672 §2.2 (the four outcomes of a host), RFC 8461 §2 (MTA-STS never overrides DANE), RFC 8461 §5 (modes). Postfix
takes one policy for all hosts of a destination, and looks DANE up itself for each of them at the levels `dane` and
`dane-only`; the level that is chosen here demands at least what each host's outcome demands:

    hosts                                   no MTA-STS        MTA-STS enforce
    all authenticated by DANE               dane-only         dane-only
    some of them                            dane              dane-only
    none, some with unusable records        dane              secure
    none, and a look-up failed              dane or TEMP      TEMP
    DANE asks for nothing                   not found         secure

A host whose look-up fails is skipped by Postfix at the levels of DANE (RFC 7672 §2.1.2), and the others get the mail;
where nothing else is known of the destination, or MTA-STS would count, there is no level that says so: TEMP. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import NoReturn

from mailguard.dane.discover import InsecureMx, discover
from mailguard.dane.result import DanePolicy, DaneStatus, HostOutcome, HostReason
from mailguard.dns.answers import Answers
from mailguard.domain import Domain
from mailguard.mtasts.policy import StsMode, StsPolicy
from mailguard.tlspolicy.next_hop import NextHop

__all__ = ["UNMATCHABLE", "Decision", "DecisionStatus", "Level", "Why", "decide", "is_sts_needed", "weigh"]

UNMATCHABLE = frozenset({"nexthop", "hostname", "dot-nexthop"})
"""What `match` of Postfix takes for a rule of its own; as a pattern, `hostname` would let any host pass."""


class DecisionStatus(Enum):
    """What Postfix is told."""

    FOUND = "found"
    NOT_FOUND = "not-found"
    """Nothing is demanded: smtp_tls_security_level counts."""
    TEMPORARY = "temporary"
    """Nothing may be sent now."""


class Level(Enum):
    """The security levels of Postfix that are chosen here."""

    DANE = "dane"
    DANE_ONLY = "dane-only"
    SECURE = "secure"


class Why(Enum):
    """Why, in one word for programs."""

    ALL_DANE = "all-dane"
    """Every host has usable TLSA records."""
    SOME_DANE = "some-dane"
    """Some hosts have."""
    UNUSABLE_RECORDS = "unusable-records"
    """No host has usable TLSA records, and some have others, so that they promise TLS."""
    HOST_UNKNOWN = "host-unknown"
    """No host has any, as far as could be found out; of some it could not."""
    LOOKUP_FAILED = "lookup-failed"
    STS_ENFORCE = "sts-enforce"
    STS_UNMATCHABLE = "sts-unmatchable"
    """The MTA-STS policy names nothing that a certificate could have."""
    STS_TESTING = "sts-testing"
    NO_POLICY = "no-policy"
    ADDRESS = "address"
    """The destination is an address: neither DANE nor MTA-STS knows those."""


@dataclass(frozen=True, slots=True)
class Decision:
    """`level` is there exactly where `status` is FOUND, and `sts` where `level` is SECURE."""

    status: DecisionStatus
    why: Why
    detail: str
    """For people, one line; printable ASCII."""
    level: Level | None = None
    sts: StsPolicy | None = None
    policy_domain: Domain | None = None
    """Whose policy `sts` is."""

    def __bool__(self) -> NoReturn:
        raise TypeError("a Decision is not true or false: read its status")


def decide(
    next_hop: NextHop, answers: Answers, sts: StsPolicy | None, *, insecure_mx: InsecureMx = InsecureMx.MAY
) -> Decision:
    """The decision for `next_hop`, `sts` being the policy that counts for its domain. Raises Unanswered."""
    return weigh(next_hop, discover(next_hop.destination, answers, insecure_mx=insecure_mx), sts)


def is_sts_needed(dane: DanePolicy) -> bool:
    """Whether an MTA-STS policy could make a difference."""
    if dane.status in (DaneStatus.DEFER, DaneStatus.NOT_APPLICABLE):
        return False
    hosts = _Hosts.of(dane)
    if hosts.authenticated or hosts.failed:
        return bool(hosts.unusable or hosts.opportunistic)
    return True


def weigh(next_hop: NextHop, dane: DanePolicy, sts: StsPolicy | None) -> Decision:
    """The decision, from what DANE says and the MTA-STS policy that counts, if any."""
    if dane.status is DaneStatus.NOT_APPLICABLE:
        return Decision(DecisionStatus.NOT_FOUND, Why.ADDRESS, "the destination is an address")
    if dane.status is DaneStatus.DEFER:
        return _temporary(dane.detail)
    hosts = _Hosts.of(dane)
    demands_sts = sts is not None and sts.mode is StsMode.ENFORCE
    if hosts.authenticated:
        if not hosts.unusable and not hosts.opportunistic:
            return _dane(Level.DANE_ONLY, Why.ALL_DANE, hosts)
        # The hosts without usable records are to be authenticated as well, and Postfix takes one level for all: those
        # that DANE authenticates get the mail.
        return _dane(Level.DANE_ONLY if demands_sts else Level.DANE, Why.SOME_DANE, hosts)
    if hosts.failed:
        # RFC 8461 §2: MTA-STS never stands in for DANE that could not be looked up.
        if demands_sts or not (hosts.unusable or hosts.opportunistic):
            return _temporary(hosts.failure)
        return _dane(Level.DANE, Why.UNUSABLE_RECORDS if hosts.unusable else Why.HOST_UNKNOWN, hosts)
    if demands_sts and sts is not None:
        # Unusable records demand TLS without authentication (RFC 7672 §2.2): less than this, which does not override.
        return _secure(next_hop, sts)
    if hosts.unusable:
        return _dane(Level.DANE, Why.UNUSABLE_RECORDS, hosts)
    if sts is not None and sts.mode is StsMode.TESTING:
        return Decision(DecisionStatus.NOT_FOUND, Why.STS_TESTING, "the MTA-STS policy is in testing")
    return Decision(DecisionStatus.NOT_FOUND, Why.NO_POLICY, f"neither DANE nor MTA-STS: {dane.detail}")


@dataclass(frozen=True, slots=True)
class _Hosts:
    """How many hosts have which outcome. One without address is none: there is nothing to connect to."""

    authenticated: int
    unusable: int
    opportunistic: int
    failed: int
    failure: str
    """The first that failed, and why."""

    @classmethod
    def of(cls, dane: DanePolicy) -> _Hosts:
        outcomes = [host.outcome for host in dane.hosts]
        failed = [host for host in dane.hosts if host.reason is HostReason.LOOKUP_FAILED]
        return cls(
            outcomes.count(HostOutcome.AUTHENTICATE),
            outcomes.count(HostOutcome.ENCRYPT),
            outcomes.count(HostOutcome.OPPORTUNISTIC),
            len(failed),
            f"{failed[0].name}: {failed[0].detail}" if failed else "",
        )

    def __str__(self) -> str:
        counted = (
            (self.authenticated, "with usable TLSA records"),
            (self.unusable, "with unusable ones"),
            (self.opportunistic, "without"),
            (self.failed, "unknown"),
        )
        return "hosts: " + ", ".join(f"{number} {what}" for number, what in counted if number)


def _dane(level: Level, why: Why, hosts: _Hosts) -> Decision:
    detail = f"{hosts} ({hosts.failure})" if hosts.failed else str(hosts)
    return Decision(DecisionStatus.FOUND, why, detail, level)


def _temporary(detail: str) -> Decision:
    return Decision(DecisionStatus.TEMPORARY, Why.LOOKUP_FAILED, f"DANE cannot be looked up: {detail}")


def _secure(next_hop: NextHop, sts: StsPolicy) -> Decision:
    domain = next_hop.policy_domain
    if not any(pattern not in UNMATCHABLE for pattern in sts.mx):
        return Decision(
            DecisionStatus.TEMPORARY,
            Why.STS_UNMATCHABLE,
            f"the MTA-STS policy of {domain} names no host that Postfix can be told of",
        )
    detail = f"the MTA-STS policy of {domain} is enforced"
    return Decision(DecisionStatus.FOUND, Why.STS_ENFORCE, detail, Level.SECURE, sts, domain)
