"""Local policy: evidence and DMARC's verdict become a decision. Pure.

RFC 7372 (reply codes for authentication failures), RFC 9989 §5.3.6 and RFC 9989 §5.4 (a receiver's own choice, and
its exceptions). What strangers wrote reaches a reply only as validated domain names. Left out: whose mail is signed,
which is decided before. Frozen values; safe to share between threads.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from ipaddress import IPv4Network, IPv6Network

from mailguard.argument import check_each, check_type
from mailguard.dkim.result import DkimStatus
from mailguard.dmarc.record import DmarcPolicy
from mailguard.dmarc.result import DmarcStatus, DmarcVerdict
from mailguard.domain import Domain
from mailguard.evidence import Evidence
from mailguard.evidence_text import identifiers_text
from mailguard.inbound import Judged
from mailguard.iprev import IprevStatus
from mailguard.rule import STRICTNESS, Disposition, Mode, Rule
from mailguard.spf.result import SpfIdentity, SpfResult, SpfStatus

__all__ = [
    "MAX_REASON_CHARS",
    "Decision",
    "DomainPolicy",
    "Finding",
    "Override",
    "OverrideKind",
    "Policy",
    "Refusal",
    "TrustedSource",
    "decide",
]


_ACCEPT = Disposition.ACCEPT
_REFUSED = frozenset({Disposition.TEMPFAIL, Disposition.REJECT})
_SPF_RULES = {status: Rule(f"spf-{status.value}") for status in SpfStatus if status is not SpfStatus.PASS}
_HELO_RULES = {status: Rule(f"helo-{status.value}") for status in SpfStatus if status is not SpfStatus.PASS}
# Unless told to, the first of each keeps a message back only where one of the others, known, would have.
_DEPENDS = {
    Rule.SPF_TEMPERROR: tuple(rule for status, rule in _SPF_RULES.items() if status is not SpfStatus.TEMPERROR),
    Rule.HELO_TEMPERROR: tuple(rule for status, rule in _HELO_RULES.items() if status is not SpfStatus.TEMPERROR),
    Rule.DKIM_TEMPERROR: (Rule.DKIM_NO_PASS, Rule.DKIM_NO_AUTHOR_PASS),
    Rule.IPREV_TEMPERROR: (Rule.IPREV_FAIL,),
}
_DMARC_RULES = {
    DmarcPolicy.REJECT: Rule.DMARC_REJECT,
    DmarcPolicy.QUARANTINE: Rule.DMARC_QUARANTINE,
    DmarcPolicy.NONE: Rule.DMARC_NONE,
}
_DMARC_ACCEPTS = frozenset([*_DMARC_RULES.values(), Rule.DMARC_PERMERROR])
# RFC 7372 §3 for DKIM, SPF, iprev and DMARC (several checks failed); RFC 3463 §3.7 for a message's structure. Of SPF,
# RFC 7208 §8.4, RFC 7208 §8.6 and RFC 7208 §8.7 have older ones, which tell less.
_REJECT_CODES = {
    Rule.MALFORMED: "5.6.0",
    Rule.DMARC_REJECT: "5.7.26",
    Rule.DMARC_QUARANTINE: "5.7.26",
    Rule.DMARC_NONE: "5.7.26",
    Rule.DKIM_NO_PASS: "5.7.20",
    Rule.DKIM_NO_AUTHOR_PASS: "5.7.22",
    Rule.IPREV_FAIL: "5.7.25",
    **dict.fromkeys([*_SPF_RULES.values(), *_HELO_RULES.values()], "5.7.23"),
    Rule.SPF_PERMERROR: "5.7.24",
    Rule.HELO_PERMERROR: "5.7.24",
}
# RFC 5321 §4.5.3.1.5 allows 512 octets for a reply; the code, our name, the rule and the end need some of them.
MAX_REASON_CHARS = 380
_TEMPFAIL_CODES = {Rule.SPF_TEMPERROR: "4.7.24", Rule.HELO_TEMPERROR: "4.7.24"}
_DEFAULT_ACTIONS = {
    **dict.fromkeys(Rule, Disposition.ACCEPT),
    Rule.MALFORMED: Disposition.REJECT,
    Rule.DMARC_REJECT: Disposition.REJECT,
    Rule.DMARC_QUARANTINE: Disposition.QUARANTINE,
    # These wait for the DNS only where its answer could keep the message back.
    **dict.fromkeys([Rule.DMARC_TEMPERROR, *_DEPENDS, Rule.TRUSTED_TEMPERROR], Disposition.TEMPFAIL),
    # sender-alignment is off, and sender-reply-to is only told.
    Rule.SENDER_ENVELOPE: Disposition.REJECT,
    Rule.SENDER_FROM: Disposition.REJECT,
    Rule.SENDER_SENDER: Disposition.REJECT,
    Rule.SENDER_RESENT: Disposition.REJECT,
    Rule.SENDER_NULL: Disposition.REJECT,
    Rule.SENDER_UNAVAILABLE: Disposition.TEMPFAIL,
}


class OverrideKind(Enum):
    """Why a policy was set aside, in the words of RFC 9990."""

    MAILING_LIST = "mailing_list"
    TRUSTED_FORWARDER = "trusted_forwarder"
    LOCAL_POLICY = "local_policy"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustedSource:
    """Who may send what policy would refuse. One of the entries has to hold, and nothing unverified counts.

    `networks` and `logins` are of the connection, and excuse malformed messages too. Domain names match
    themselves and their subdomains. Raises TypeError for values of another type.
    """

    kind: OverrideKind
    networks: tuple[IPv4Network | IPv6Network, ...] = ()
    logins: tuple[str, ...] = ()
    dkim: tuple[Domain, ...] = ()
    """d= of a signature that passes."""
    spf: tuple[Domain, ...] = ()
    """The domain for which SPF passes."""
    ptr: tuple[Domain, ...] = ()
    """The client's name, confirmed by its address (iprev pass)."""

    def __post_init__(self) -> None:
        check_type("kind", self.kind, OverrideKind)
        check_each("networks", self.networks, IPv4Network, IPv6Network)
        check_each("logins", self.logins, str)
        for name in ("dkim", "spf", "ptr"):
            check_each(name, getattr(self, name), Domain)


@dataclass(frozen=True, slots=True, kw_only=True)
class DomainPolicy:
    """Actions for mail whose From is in this domain, in place of the general ones.

    Raises TypeError for values of another type.
    """

    domain: Domain
    subdomains: bool = False
    actions: Mapping[Rule, Disposition] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_type("domain", self.domain, Domain)
        check_type("subdomains", self.subdomains, bool)
        _check_actions(self.actions)


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """The administrator's choices. The defaults enforce what DMARC asks for, and nothing else.

    Raises TypeError for values of another type.
    """

    mode: Mode = Mode.ENFORCE
    actions: Mapping[Rule, Disposition] = field(default_factory=dict)
    """A rule that is not in it does what the default says."""
    domains: tuple[DomainPolicy, ...] = ()
    trusted: tuple[TrustedSource, ...] = ()

    def __post_init__(self) -> None:
        check_type("mode", self.mode, Mode)
        _check_actions(self.actions)
        check_each("domains", self.domains, DomainPolicy)
        check_each("trusted", self.trusted, TrustedSource)

    def action(
        self, rule: Rule, author_domains: Iterable[Domain], *, default: Disposition | None = None
    ) -> Disposition:
        """What `rule` does with mail from these domains; with several, the strictest. `default`: in place of ours."""
        general = self.actions.get(rule, default or _DEFAULT_ACTIONS[rule])
        if not self.domains:
            return general
        own = [self._domain_action(rule, domain, general) for domain in author_domains]
        return max(own, key=STRICTNESS.__getitem__, default=general)

    def _domain_action(self, rule: Rule, author: Domain, general: Disposition) -> Disposition:
        """The nearest rule for the domain that names an action."""
        found = [
            each
            for each in self.domains
            if rule in each.actions
            and (author == each.domain or (each.subdomains and author.is_equal_or_below(each.domain)))
        ]
        return max(found, key=lambda each: len(each.domain)).actions[rule] if found else general


def _check_actions(actions: Mapping[Rule, Disposition]) -> None:
    """Words in place of members would be in it and never be found."""
    check_type("actions", actions, Mapping)
    check_each("a rule in actions", actions.keys(), Rule)
    check_each("an action in actions", actions.values(), Disposition)


@dataclass(frozen=True, slots=True)
class Finding:
    """A rule that applies to the message, what it would do by itself, and why it applies."""

    rule: Rule
    disposition: Disposition
    reason: str


@dataclass(frozen=True, slots=True)
class Override:
    """What set the policy aside: the kind and the verified identity."""

    kind: OverrideKind
    identity: str
    """Such as "dkim=lists.example.org"; a validated name, an address or a login."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """An SMTP reply: "550", "5.7.26" and one line of printable ASCII."""

    code: str
    enhanced: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What to do with the message, and why."""

    disposition: Disposition
    """What is done. In monitor mode never QUARANTINE, TEMPFAIL or REJECT."""
    would: Disposition
    """What enforcing does."""
    rule: Rule
    """The rule that decided."""
    reason: str
    """For people, one sentence in our words."""
    refusal: Refusal | None = None
    """The reply that belongs to `would`, where that is TEMPFAIL or REJECT."""
    override: Override | None = None
    """Set where a trusted source made a difference."""
    findings: tuple[Finding, ...] = ()
    """Every rule that applies, the strictest first."""


def decide(judged: Judged, *, policy: Policy) -> Decision:
    """Apply `policy`. Sender policy means nothing for a client of our own, who has no verdict.

    Where From names several domains, what `policy` makes of each is compared, not their verdicts.
    """
    evidence, verdict = judged.evidence, judged.verdict
    findings = sorted(_findings(judged, policy), key=lambda each: STRICTNESS[each.disposition], reverse=True)
    deciding = _deciding(findings, verdict)
    override: Override | None = None
    if verdict is None:
        deciding = Finding(Rule.INTERNAL_CLIENT, _ACCEPT, "the client is in an internal network")
    elif deciding.disposition is not _ACCEPT:
        deciding, override = _excused(evidence, deciding, policy)
    would = deciding.disposition
    return Decision(
        disposition=_ACCEPT if would.keeps_back and policy.mode is Mode.MONITOR else would,
        would=would,
        rule=deciding.rule,
        reason=deciding.reason,
        refusal=_refusal(deciding),
        override=override,
        findings=tuple(findings),
    )


def _deciding(findings: Sequence[Finding], verdict: DmarcVerdict | None) -> Finding:
    """The strictest; of those that accept, only DMARC's is worth a name in the log."""
    for finding in findings:
        if finding.disposition is not _ACCEPT or finding.rule in _DMARC_ACCEPTS:
            return finding
    reason = verdict.detail if verdict is not None else "nothing speaks against it"
    return Finding(Rule.NO_OBJECTION, _ACCEPT, reason)


def _findings(judged: Judged, policy: Policy) -> Iterator[Finding]:
    """Every rule that applies, with its action."""
    evidence = judged.evidence
    authors = evidence.author_domains
    if evidence.malformed is not None:
        reason = f"malformed message: {evidence.malformed_detail}"
        yield Finding(Rule.MALFORMED, policy.action(Rule.MALFORMED, authors), reason)
    if judged.verdict is None:
        return
    verdicts = judged.verdicts if len(judged.verdicts) > 1 else (judged.verdict,)
    yield from _dmarc_findings(evidence, verdicts, policy)
    for rule, reason in _applying(evidence, policy):
        # A missing answer delays no message whose fate it cannot change.
        could = any(policy.action(each, authors).keeps_back for each in _DEPENDS.get(rule, ()))
        yield Finding(rule, policy.action(rule, authors, default=None if could else _ACCEPT), reason)


def _dmarc_findings(evidence: Evidence, verdicts: Sequence[DmarcVerdict], policy: Policy) -> Iterator[Finding]:
    """RFC 9989 §11.5: each author domain is judged, by what is asked of this host for it."""
    several = len(verdicts) > 1
    objects = False
    for verdict in verdicts:
        domains = (verdict.author_domain,) if several and verdict.author_domain else evidence.author_domains
        rule = _dmarc_rule(verdict, domains, policy)
        if rule is not None:
            objects = True
            # RFC 9989 §7.2: the reply is to have the word DMARC.
            reason = f"DMARC: {verdict.detail}: {identifiers_text(evidence, verdict)}"
            yield Finding(rule, policy.action(rule, domains), reason)
    if several and not objects:
        reason = f"DMARC: From names several domains, none of which can pass: {', '.join(evidence.author_domains)}"
        action = policy.action(Rule.DMARC_PERMERROR, evidence.author_domains)
        yield Finding(Rule.DMARC_PERMERROR, action, reason)


def _applying(evidence: Evidence, policy: Policy) -> Iterator[tuple[Rule, str]]:
    spf = evidence.spf
    # The HELO name is what the null sender is checked by, too.
    helo_spf = spf if spf is not None and spf.is_null_sender else evidence.helo_spf
    for result, rules in ((spf, _SPF_RULES), (helo_spf, _HELO_RULES)):
        if result is not None and result.status in rules:
            yield rules[SpfStatus.TEMPERROR if result.is_uncertain else result.status], _spf_reason(result)
    yield from _dkim_rules(evidence, policy)
    if evidence.iprev is not None and evidence.iprev.status is not IprevStatus.PASS:
        temporary = evidence.iprev.status is IprevStatus.TEMPERROR
        yield (Rule.IPREV_TEMPERROR if temporary else Rule.IPREV_FAIL), f"iprev: {evidence.iprev.detail}"


def _dmarc_rule(verdict: DmarcVerdict, domains: Sequence[Domain], policy: Policy) -> Rule | None:
    match verdict.status:
        case DmarcStatus.FAIL:
            return _DMARC_RULES[verdict.policy or DmarcPolicy.NONE]
        case DmarcStatus.TEMPERROR if not verdict.has_aligned_pass:
            # RFC 9989 §5.3.6 leaves errors to the receiver. What fails if the DNS says so must not pass without it,
            # and what would be accepted anyhow is not delayed.
            known = [_DMARC_RULES[verdict.policy]] if verdict.policy is not None else list(_DMARC_RULES.values())
            could = any(policy.action(rule, domains).keeps_back for rule in known)
            return Rule.DMARC_TEMPERROR if could else None
    return None


def _spf_reason(result: SpfResult) -> str:
    of_helo = result.identity is SpfIdentity.HELO or result.is_null_sender
    what = "the HELO name" if of_helo else "the sender's domain"
    name = f"{what} {result.domain}" if result.domain is not None else what
    return f"SPF {result.status.value} for {name}: {result.detail}"


def _dkim_rules(evidence: Evidence, policy: Policy) -> Iterator[tuple[Rule, str]]:
    authors = evidence.author_domains
    passing = evidence.passing_signatures
    if any(each.domain in authors for each in passing):
        return
    rule, reason = Rule.DKIM_NO_AUTHOR_PASS, "DKIM: no passing signature is of the author's domain"
    if not passing:
        what = "no signature passes" if evidence.dkim else "there is no signature"
        rule, reason = Rule.DKIM_NO_PASS, f"DKIM: {what}"
    waiting = {each.domain in authors for each in evidence.dkim if each.status is DkimStatus.TEMPERROR}
    if waiting:
        # What the missing keys could make of it.
        outcomes = {policy.action(rule, authors)}
        if False in waiting:
            outcomes.add(policy.action(Rule.DKIM_NO_AUTHOR_PASS, authors))
        if True in waiting:
            outcomes.add(_ACCEPT)
        if len(outcomes) > 1:
            rule, reason = Rule.DKIM_TEMPERROR, "DKIM: a key could not be looked up"
    yield rule, reason


def _excused(evidence: Evidence, deciding: Finding, policy: Policy) -> tuple[Finding, Override | None]:
    """The finding, or acceptance where a trusted source vouches for the message.

    RFC 9989 §5.4: other knowledge than the published policy; only a verified identity is knowledge.
    """
    for source in policy.trusted:
        identity = _vouched(evidence, source, malformed=evidence.malformed is not None)
        if identity:
            reason = (
                f"accepted as {source.kind.value} ({identity}) in spite of {deciding.rule.value}: {deciding.reason}"
            )
            return Finding(deciding.rule, _ACCEPT, reason), Override(source.kind, identity)
    if evidence.malformed is None and any(_may_vouch(evidence, source) for source in policy.trusted):
        # The refusal hangs on an answer that is missing.
        waits = policy.action(Rule.TRUSTED_TEMPERROR, evidence.author_domains)
        if deciding.disposition.keeps_back:
            reason = f"whether a trusted source vouches for it could not be looked up; otherwise {deciding.reason}"
            return Finding(Rule.TRUSTED_TEMPERROR, waits, reason), None
    return deciding, None


def _vouched(evidence: Evidence, source: TrustedSource, *, malformed: bool) -> str:
    """The verified identity that `source` lists, or nothing."""
    client, login = evidence.envelope.client_ip, evidence.envelope.login
    if client is not None and any(client in network for network in source.networks):
        return f"network {client}"
    if login is not None and login.decode("utf-8", "surrogateescape") in source.logins:
        return "login"
    if malformed:
        # A signature may not cover what makes the message malformed, such as a second From.
        return ""
    for result in evidence.passing_signatures:
        if result.domain is not None and _listed(result.domain, source.dkim):
            return f"dkim={result.domain}"
    spf = evidence.spf
    if (
        spf is not None
        and spf.status is SpfStatus.PASS
        and spf.domain is not None
        and _listed(spf.domain, source.spf)
    ):
        return f"spf={spf.domain}"
    # An address may have several names that lead back to it, in any order.
    for name in evidence.iprev.names if evidence.iprev is not None else ():
        if _listed(name, source.ptr):
            return f"ptr={name}"
    return ""


def _may_vouch(evidence: Evidence, source: TrustedSource) -> bool:
    """Whether a listed identity was not verified only because the DNS did not answer."""
    signatures = (each.domain for each in evidence.dkim if each.status is DkimStatus.TEMPERROR)
    if any(domain is not None and _listed(domain, source.dkim) for domain in signatures):
        return True
    spf = evidence.spf
    if (
        spf is not None
        and (spf.status is SpfStatus.TEMPERROR or spf.is_uncertain)
        and spf.domain is not None
        and _listed(spf.domain, source.spf)
    ):
        return True
    iprev = evidence.iprev
    if iprev is None or not source.ptr:
        return False
    if iprev.status is IprevStatus.TEMPERROR and not iprev.unanswered:
        return True  # not even the names of the address are known
    return any(_listed(name, source.ptr) for name in iprev.unanswered)


def _listed(domain: Domain, names: Iterable[Domain]) -> bool:
    return any(domain.is_equal_or_below(name) for name in names)


def _refusal(finding: Finding) -> Refusal | None:
    if finding.disposition not in _REFUSED:
        return None
    # The rule stands last, where a reader looks it up in docs/reasons.md.
    text = f"mailguard: {finding.reason[:MAX_REASON_CHARS]} [{finding.rule.value}]"
    if finding.disposition is Disposition.TEMPFAIL:
        return Refusal("451", _TEMPFAIL_CODES.get(finding.rule, "4.7.0"), f"{text}; try again later")
    return Refusal("550", _REJECT_CODES.get(finding.rule, "5.7.1"), text)
