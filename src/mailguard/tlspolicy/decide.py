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
    MX records without DNSSEC               dane, not found   secure

A host whose look-up fails is skipped by Postfix at the levels of DANE (RFC 7672 §2.1.2), and the others get the mail;
where nothing else is known of the destination, or MTA-STS would count, there is no level that says so: TEMP. Hosts
from MX records without DNSSEC may be anybody's: their TLSA records set no MTA-STS policy aside (RFC 8461 §2), and
Postfix takes none of them at `dane-only`. With `Mixed.DANE_ONLY` nothing is `dane`: `dane-only` or TEMP is in its
place, and behind such MX records, not found. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import NoReturn

from mailguard.dane.result import DanePolicy, DaneStatus, HostOutcome, HostReason
from mailguard.dns.question import Dnssec
from mailguard.domain import Domain
from mailguard.mtasts.policy import StsMode, StsPolicy
from mailguard.tlspolicy.next_hop import NextHop

__all__ = ["UNMATCHABLE", "Decision", "DecisionStatus", "Level", "Mixed", "Why", "is_sts_needed", "weigh"]

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


class Mixed(Enum):
    """What is demanded where `dane` would be: where not every host is known to have usable TLSA records."""

    DANE = "dane"
    """Each host by what it has: one without TLSA records gets mail with TLS if it can be had."""
    DANE_ONLY = "dane-only"
    """Never `dane`, for sites whose smtp_tls_security_level demands more, which the reply takes the place of."""


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
    INSECURE_MX = "insecure-mx"
    """Some hosts have TLSA records, or may have; the MX records that name them come without DNSSEC."""
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


def is_sts_needed(dane: DanePolicy) -> bool:
    """Whether an MTA-STS policy could make a difference."""
    if dane.status in (DaneStatus.DEFER, DaneStatus.NOT_APPLICABLE):
        return False
    if _is_forgeable(dane):
        return True
    hosts = _Hosts.of(dane)
    if hosts.authenticated or hosts.failed:
        return bool(hosts.unusable or hosts.opportunistic)
    return True


def weigh(next_hop: NextHop, dane: DanePolicy, sts: StsPolicy | None, *, mixed: Mixed) -> Decision:
    """The decision, from what DANE says and the MTA-STS policy that counts, if any."""
    if dane.status is DaneStatus.NOT_APPLICABLE:
        return Decision(DecisionStatus.NOT_FOUND, Why.ADDRESS, "the destination is an address")
    if dane.status is DaneStatus.DEFER:
        return _temporary(dane.detail)
    hosts = _Hosts.of(dane)
    demands_sts = sts is not None and sts.mode is StsMode.ENFORCE
    is_strict = mixed is Mixed.DANE_ONLY
    if _is_forgeable(dane):
        if demands_sts and sts is not None:
            return _secure(next_hop, sts)
        if not is_strict and (hosts.authenticated or hosts.unusable or hosts.failed):
            return _dane(Level.DANE, Why.INSECURE_MX, hosts)
        return _nothing(dane, sts)
    some = Level.DANE_ONLY if is_strict else Level.DANE
    if hosts.authenticated:
        if not hosts.unusable and not hosts.opportunistic:
            return _dane(Level.DANE_ONLY, Why.ALL_DANE, hosts)
        # The hosts without usable records are to be authenticated as well, and Postfix takes one level for all: those
        # that DANE authenticates get the mail.
        return _dane(Level.DANE_ONLY if demands_sts else some, Why.SOME_DANE, hosts)
    if hosts.failed:
        # RFC 8461 §2: MTA-STS never stands in for DANE that could not be looked up.
        if demands_sts or is_strict or not (hosts.unusable or hosts.opportunistic):
            return _temporary(hosts.failure)
        return _dane(Level.DANE, Why.UNUSABLE_RECORDS if hosts.unusable else Why.HOST_UNKNOWN, hosts)
    if demands_sts and sts is not None:
        # Unusable records demand TLS without authentication (RFC 7672 §2.2): less than this, which does not override.
        return _secure(next_hop, sts)
    if hosts.unusable:
        return _dane(some, Why.UNUSABLE_RECORDS, hosts)
    return _nothing(dane, sts)


def _is_forgeable(dane: DanePolicy) -> bool:
    """Whether the hosts come from MX records without DNSSEC (RFC 7672 §2.2.1)."""
    is_by_mx = any(host.preference is not None for host in dane.hosts)
    return is_by_mx and dane.mx_dnssec is not Dnssec.SECURE


def _nothing(dane: DanePolicy, sts: StsPolicy | None) -> Decision:
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
