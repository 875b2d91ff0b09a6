"""Judging a message from outside: SPF, DKIM, iprev and DMARC together. Pure.

Two steps, as for DKIM alone: `plan_inbound` reads the header and the envelope and says which body digests and which
look-ups will be wanted; `judge_inbound` takes the digests and the answers. Everything that waits for the DNS is asked
for together and before any signature is checked, so that a restart repeats no cryptography.
Left out: what to do about it (policy.py). Values are frozen; safe to share between threads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from types import NoneType
from typing import ParamSpec, TypeVar

from mailguard.argument import check_each, check_type
from mailguard.dkim.canonical import BodyDigests, BodyRequest
from mailguard.dkim.signature import Signature
from mailguard.dkim.verify import VerificationPlan, VerifyRules, plan_verification, verify
from mailguard.dmarc.discover import Discovery, discovery_questions
from mailguard.dmarc.evaluate import judge, needs, strictest
from mailguard.dmarc.result import DmarcReason, DmarcStatus, DmarcVerdict
from mailguard.dmarc.suffixes import PublicSuffixes
from mailguard.dns.answers import Answers, Unanswered
from mailguard.dns.question import Question
from mailguard.domain import Domain
from mailguard.envelope import Envelope
from mailguard.evidence import Evidence
from mailguard.iprev import check_iprev
from mailguard.message import MalformedReason, Message
from mailguard.spf.check import check_sender, sender_questions
from mailguard.spf.identity import Sender, Unchecked, read_identity
from mailguard.spf.result import SpfIdentity

__all__ = ["DEFAULT_INTERNAL_NETWORKS", "InboundPlan", "InboundRules", "Judged", "judge_inbound", "plan_inbound"]

# Real mail names one domain. Each further one costs a tree walk of up to eight look-ups.
MAX_AUTHOR_DOMAINS = 4
DEFAULT_INTERNAL_NETWORKS = (ip_network("127.0.0.0/8"), ip_network("::1/128"))

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class InboundRules:
    """Local choices that the RFCs leave to the receiver. Raises TypeError for values of another type."""

    verifying: VerifyRules = field(default_factory=VerifyRules)
    checks_helo: bool = True
    """RFC 7208 §2.3 recommends to check the HELO name beside the reverse path."""
    checks_iprev: bool = False
    receiver: str = "unknown"
    """This host's name, for %{r} in an explanation (RFC 7208 §7.3)."""
    suffixes: PublicSuffixes | None = None
    """Organizational Domains by this list, as RFC 7489 has it. None: by tree walk (RFC 9989 §4.10)."""
    counts_permissive_spf: bool = True
    """Whether a pass of SPF counts for DMARC where its term covers half of all addresses or more. RFC 9989: yes."""
    internal_networks: tuple[IPv4Network | IPv6Network, ...] = DEFAULT_INTERNAL_NETWORKS
    """Clients of our own: their address says nothing about the sender's domain."""

    def __post_init__(self) -> None:
        check_type("verifying", self.verifying, VerifyRules)
        for name in ("checks_helo", "checks_iprev", "counts_permissive_spf"):
            check_type(name, getattr(self, name), bool)
        check_type("receiver", self.receiver, str)
        check_type("suffixes", self.suffixes, PublicSuffixes, NoneType)
        check_each("internal_networks", self.internal_networks, IPv4Network, IPv6Network)


@dataclass(frozen=True, slots=True, kw_only=True)
class InboundPlan:
    """What will be judged."""

    message: Message
    envelope: Envelope
    rules: InboundRules
    signatures: VerificationPlan
    author_domains: tuple[Domain, ...]
    """Those to judge; empty where the message is malformed."""
    malformed: MalformedReason | None
    sender: Sender | Unchecked
    """Whom SPF checks for the reverse path."""
    helo: Sender | Unchecked | None
    """Whom SPF checks for the HELO name; None where it does not, or `sender` is that name already."""
    is_internal: bool
    """The client is our own: SPF, iprev and DMARC would judge ourselves."""

    @property
    def body_requests(self) -> tuple[BodyRequest, ...]:
        """What BodyDigests must compute."""
        return self.signatures.body_requests

    @property
    def questions(self) -> tuple[Question, ...]:
        """What can be asked before the body is there; `judge_inbound` may need more."""
        asked = [*self.signatures.questions]
        if not self.is_internal:
            asked += sender_questions(self.sender, self.envelope)
            for domain in self.author_domains:
                asked += discovery_questions(domain, self.rules.suffixes)
        return tuple(dict.fromkeys(asked))

    def _discover(self, answers: Answers) -> tuple[Discovery | None, ...]:
        """The policy of each author domain; None while an answer is missing, which `answers.missing` tells."""
        candidates = {found.domain for _, found in self.signatures.chosen if isinstance(found, Signature)}
        if isinstance(self.sender, Sender):
            candidates.add(self.sender.domain)
        ask = partial(needs, candidates=sorted(candidates), answers=answers, suffixes=self.rules.suffixes)
        return tuple([_attempt(ask, domain) for domain in self.author_domains])


@dataclass(frozen=True, slots=True)
class Judged:
    """The evidence and DMARC's verdict on it."""

    evidence: Evidence
    verdict: DmarcVerdict | None
    """None for a client of our own. With several author domains, the strictest of `verdicts`, and never a pass."""
    verdicts: tuple[DmarcVerdict, ...] = ()
    """One for each author domain."""


def plan_inbound(
    message: Message,
    envelope: Envelope,
    rules: InboundRules | None = None,
    *,
    sender: Sender | Unchecked | None = None,
) -> InboundPlan:
    """Read the header. `message` needs no body; `envelope` is what SMTP said.

    `sender` is the envelope's reverse path, for a caller that has read it before.
    """
    rules = rules or InboundRules()
    malformed = message.malformed
    domains = message.author.domains
    if malformed is MalformedReason.SEVERAL_DOMAINS and len(domains) <= MAX_AUTHOR_DOMAINS:
        # RFC 9989 §4.2 leaves these to the receiver: each domain is judged, and none of them is lent a pass.
        malformed = None
    return InboundPlan(
        message=message,
        envelope=envelope,
        rules=rules,
        signatures=plan_verification(message, rules.verifying),
        author_domains=domains if malformed is None else (),
        malformed=malformed,
        sender=sender if sender is not None else read_identity(envelope, SpfIdentity.MAIL_FROM),
        helo=read_identity(envelope, SpfIdentity.HELO) if rules.checks_helo and envelope.mail_from else None,
        is_internal=_is_internal(envelope.client_ip, rules.internal_networks),
    )


def judge_inbound(plan: InboundPlan, digests: BodyDigests, answers: Answers, *, now: float) -> Judged:
    """Judge. `digests` is finished; `now` is in POSIX seconds. Raises Unanswered while an answer is missing."""
    rules, envelope = plan.rules, plan.envelope
    spf = helo_spf = iprev = None
    discoveries: tuple[Discovery | None, ...] = ()
    _attempt(answers.need, plan.signatures.questions)
    if not plan.is_internal:
        check = partial(check_sender, envelope=envelope, answers=answers, now=now, receiver=rules.receiver)
        spf = _attempt(check, plan.sender)
        if plan.helo is not None:
            helo_spf = _attempt(check, plan.helo)
        if rules.checks_iprev:
            iprev = _attempt(check_iprev, envelope.client_ip, answers)
        discoveries = plan._discover(answers)
    if answers.missing:
        raise Unanswered(", ".join(map(str, answers.missing)))
    evidence = Evidence(
        envelope=envelope,
        author_domains=plan.author_domains,
        malformed=plan.malformed,
        malformed_detail=plan.message.malformed_detail if plan.malformed is not None else "",
        spf=spf,
        helo_spf=helo_spf,
        dkim=verify(plan.signatures, digests, answers, now=now),
        ignored_signatures=plan.signatures.ignored,
        iprev=iprev,
    )
    if plan.is_internal:
        return Judged(evidence, None)
    if plan.malformed is not None:
        return Judged(evidence, _malformed(evidence))
    verdicts = tuple(
        judge(
            domain,
            spf=spf,
            dkim=evidence.dkim,
            answers=answers,
            suffixes=rules.suffixes,
            discovery=discovery,
            counts_permissive=rules.counts_permissive_spf,
        )
        for domain, discovery in zip(plan.author_domains, discoveries, strict=True)
    )
    return Judged(evidence, _one(verdicts), verdicts)


def _attempt(stage: Callable[P, T], /, *arguments: P.args, **named: P.kwargs) -> T | None:
    """The stage's result; None where an answer is missing, which `Answers.missing` then tells."""
    try:
        return stage(*arguments, **named)
    except Unanswered:
        return None


def _one(verdicts: Sequence[DmarcVerdict]) -> DmarcVerdict:
    return verdicts[0] if len(verdicts) == 1 else strictest(verdicts)


def _malformed(evidence: Evidence) -> DmarcVerdict:
    return DmarcVerdict(
        status=DmarcStatus.PERMERROR,
        reason=DmarcReason.MALFORMED,
        detail=f"malformed message: {evidence.malformed_detail}",
        author_domain=None,
    )


def _is_internal(client: IPv4Address | IPv6Address | None, networks: Sequence[IPv4Network | IPv6Network]) -> bool:
    if client is None:
        return False
    return any(client in network for network in networks)
