"""Mail of our own users: may they send it under the names that it bears? Pure.

Held against what the login may use (senders/), or against the domains of a listed network, are the reverse path and
the mailboxes in From, Sender, Resent-From, Resent-Sender and Reply-To (RFC 5322 §3.6.2, RFC 5322 §3.6.6). Postfix
looks at the reverse path at most. Left out: whose mail is signed, which is decided before, and the sources.
Values are frozen and safe to share between threads.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

from mailguard.address import AddressSyntaxError, Mailbox, parse_mailboxes
from mailguard.dmarc.align import same_organization
from mailguard.dmarc.discover import tree_walk, walk_questions
from mailguard.dmarc.record import AlignmentMode
from mailguard.dmarc.result import Aligned
from mailguard.dmarc.suffixes import PublicSuffixes
from mailguard.dns.answers import Answers
from mailguard.dns.question import Question
from mailguard.domain import Domain
from mailguard.envelope import Envelope
from mailguard.message import Message
from mailguard.policy import MAX_REASON_CHARS, Refusal
from mailguard.rule import STRICTNESS, Disposition, Mode, Rule
from mailguard.senders.identity import Address, Unusable, parse_address
from mailguard.senders.permission import Permission, PermissionStatus
from mailguard.senders.question import permission_in, sender_question

__all__ = [
    "ACTION_KEYS",
    "SenderFinding",
    "SubmissionDecision",
    "SubmissionPlan",
    "SubmissionRules",
    "Use",
    "judge_submission",
    "plan_submission",
]

# Each may cost a query of a database. Nobody writes in the name of so many.
MAX_ADDRESSES = 50

ACTION_KEYS: Mapping[Rule, str] = MappingProxyType(
    {
        Rule.SENDER_ENVELOPE: "envelope",
        Rule.SENDER_FROM: "header_from",
        Rule.SENDER_SENDER: "sender",
        Rule.SENDER_RESENT: "resent",
        Rule.SENDER_REPLY_TO: "reply_to",
        Rule.SENDER_NULL: "null_sender",
        Rule.SENDER_ALIGNMENT: "alignment",
    }
)
"""The key in [senders.actions] that says what a rule does."""

_FIELDS = (
    (b"sender", "Sender", Rule.SENDER_SENDER),
    (b"resent-from", "Resent-From", Rule.SENDER_RESENT),
    (b"resent-sender", "Resent-Sender", Rule.SENDER_RESENT),
    (b"reply-to", "Reply-To", Rule.SENDER_REPLY_TO),
)
_ENVELOPE, _FROM, _SENDER = "MAIL FROM", "From", "Sender"
_TOO_MANY = f"more than {MAX_ADDRESSES} addresses of senders"


@dataclass(frozen=True, slots=True, kw_only=True)
class SubmissionRules:
    """The administrator's choices."""

    mode: Mode
    actions: Mapping[Rule, Disposition | None]
    """For each rule of senders; None: off. A source that is down counts by the rule that asks it."""
    alignment: AlignmentMode = AlignmentMode.RELAXED
    """What the reverse path and From must have in common where that is a rule."""
    suffixes: PublicSuffixes | None = None
    """A list to tell Organizational Domains by, in place of the DNS."""


class Use(NamedTuple):
    """An address that the message bears, and where."""

    place: str
    rule: Rule
    address: bytes


@dataclass(frozen=True, slots=True)
class SubmissionPlan:
    """What is known of a message's senders before anything is asked."""

    envelope: Envelope
    rules: SubmissionRules
    login: bytes | None
    network_domains: frozenset[Domain] | None
    authors: int
    """How many different mailboxes From has, whatever else some readers take for one."""
    uses: tuple[Use, ...]
    unreadable: tuple[tuple[Rule, str], ...]
    """Fields that cannot be read, and why."""
    aligned_domains: tuple[Domain, Domain] | None
    """Of From and of the reverse path, where they have to agree and are not the same."""
    questions: tuple[Question, ...]


@dataclass(frozen=True, slots=True)
class SenderFinding:
    """A rule that applies: what it would do by itself, why, and what the source said, which is for the log alone."""

    rule: Rule
    disposition: Disposition
    reason: str
    detail: str = ""

    @property
    def full_reason(self) -> str:
        """For the administrator."""
        return f"{self.reason} ({self.detail})" if self.detail else self.reason


@dataclass(frozen=True, slots=True, kw_only=True)
class SubmissionDecision:
    """What is done with the message, and why. `deciding` is None where no rule applies."""

    disposition: Disposition
    """In monitor mode never QUARANTINE, TEMPFAIL or REJECT."""
    would: Disposition
    """What enforcing does."""
    deciding: SenderFinding | None = None
    refusal: Refusal | None = None
    """The reply that belongs to `would`."""
    noted: tuple[SenderFinding, ...] = ()
    """Rules that apply beside the one that decided, the strictest first."""


def plan_submission(
    message: Message,
    envelope: Envelope,
    rules: SubmissionRules,
    *,
    login: bytes | None,
    network_domains: frozenset[Domain] | None = None,
) -> SubmissionPlan:
    """What has to be asked about a message that is not malformed.

    `login` is that of the envelope; empty where nobody knows it, who then may use nothing. `network_domains` is for a
    client that has none: addresses in these domains are its own.
    """
    authors = len({str(mailbox) for mailbox in message.author.mailboxes})
    uses, unreadable = _uses(message, envelope, rules)
    pair = _domains_to_align(message, envelope, rules)
    questions: list[Question] = []
    if login is not None:
        questions += dict.fromkeys(sender_question(login, use.address) for use in uses)
    if pair is not None and rules.alignment is AlignmentMode.RELAXED and rules.suffixes is None:
        questions += [*walk_questions(pair[0]), *walk_questions(pair[1])]
    return SubmissionPlan(envelope, rules, login, network_domains, authors, uses, unreadable, pair, tuple(questions))


def judge_submission(plan: SubmissionPlan, answers: Answers) -> SubmissionDecision:
    """Apply the rules. Raises Unanswered while something is not known."""
    answers.need(plan.questions)
    findings = sorted(
        dict.fromkeys(_findings(plan, answers)), key=lambda each: STRICTNESS[each.disposition], reverse=True
    )
    if not findings or findings[0].disposition is Disposition.ACCEPT:
        return SubmissionDecision(disposition=Disposition.ACCEPT, would=Disposition.ACCEPT, noted=tuple(findings))
    deciding = findings[0]
    would = deciding.disposition
    return SubmissionDecision(
        disposition=Disposition.ACCEPT if would.keeps_back and plan.rules.mode is Mode.MONITOR else would,
        would=would,
        deciding=deciding,
        refusal=_refusal(deciding),
        noted=tuple(findings[1:]),
    )


# What is asked


def _uses(
    message: Message, envelope: Envelope, rules: SubmissionRules
) -> tuple[tuple[Use, ...], tuple[tuple[Rule, str], ...]]:
    actions = rules.actions
    uses: list[Use] = []
    unreadable: list[tuple[Rule, str]] = []
    paths = _reverse_paths(envelope)
    authors = message.author.mailboxes
    if actions[Rule.SENDER_ENVELOPE] is not None:
        uses += [Use(_ENVELOPE, Rule.SENDER_ENVELOPE, path) for path in paths]
    rule = Rule.SENDER_FROM if actions[Rule.SENDER_FROM] is not None or paths else Rule.SENDER_NULL
    if actions[rule] is not None:
        uses += _of_mailboxes(_FROM, rule, authors)
    for key, name, rule in _FIELDS:
        asks_for_several = name == _SENDER and len(authors) > 1 and actions[Rule.SENDER_FROM] is not None
        if actions[rule] is None and not asks_for_several:
            continue
        for number, header_field in enumerate(message.named(key)):
            if number and name == _SENDER:
                # RFC 5322 §3.6: one at most. Who reads the message sees either.
                unreadable.append((rule, "there are several Sender fields"))
                break
            if len(uses) > MAX_ADDRESSES:
                # Reading on costs time, and what would be found there could not be asked for.
                unreadable.append((rule, f"{name} comes after {_TOO_MANY}"))
                break
            try:
                uses += _of_mailboxes(name, rule, parse_mailboxes(header_field.value).mailboxes)
            except AddressSyntaxError as error:
                unreadable.append((rule, f"{name} cannot be read: {error}"))
    if _reverse_path(envelope) and isinstance(parse_address(_reverse_path(envelope)), Unusable):
        unreadable.append((Rule.SENDER_ALIGNMENT, "the reverse path has no domain that From could be compared with"))
    unreadable += [
        (rule, f"it bears {_TOO_MANY}") for rule in dict.fromkeys(use.rule for use in uses[MAX_ADDRESSES:])
    ]
    return tuple(uses[:MAX_ADDRESSES]), tuple(unreadable)


def _of_mailboxes(place: str, rule: Rule, mailboxes: Iterable[Mailbox]) -> list[Use]:
    """Each address of a field, also those that only some readers take for one."""
    written = (text for mailbox in mailboxes for text in (str(mailbox), *mailbox.also_written))
    return [Use(place, rule, text.encode("utf-8", "surrogateescape")) for text in dict.fromkeys(written)]


def _reverse_path(envelope: Envelope) -> bytes:
    """As Postfix reads it, where it has told: that is whom the message is from."""
    return envelope.mail_from if envelope.mail_from_as_read is None else envelope.mail_from_as_read


def _reverse_paths(envelope: Envelope) -> tuple[bytes, ...]:
    """That, and as it is written, where that is another address: others will read it there."""
    read = _reverse_path(envelope)
    # RFC 5321 §4.1.1.3: a source route is ignored. A dot at the end Postfix takes away.
    written = envelope.mail_from
    if written.startswith(b"@"):
        written = written.partition(b":")[2]
    written = written.removesuffix(b".")
    if not read:
        return ()
    if b"@" not in written or _same_address(written, read):
        return (read,)
    return read, written


def _same_address(first: bytes, second: bytes) -> bool:
    one, other = parse_address(first), parse_address(second)
    return isinstance(one, Address) and isinstance(other, Address) and one.folded == other.folded


def _domains_to_align(message: Message, envelope: Envelope, rules: SubmissionRules) -> tuple[Domain, Domain] | None:
    path = parse_address(_reverse_path(envelope))
    if rules.actions[Rule.SENDER_ALIGNMENT] is None or not isinstance(path, Address) or not message.author.domains:
        return None
    author = message.author.domains[0]
    return None if path.domain == author else (author, path.domain)


# What follows


def _findings(plan: SubmissionPlan, answers: Answers) -> Iterator[SenderFinding]:
    permissions = [(use, _permission(plan, use, answers)) for use in plan.uses]
    for use, permission in permissions:
        if use.rule is not Rule.SENDER_NULL:
            yield from _of_use(plan, use.rule, use, permission)
    for rule, reason in plan.unreadable:
        yield from _finding(plan, rule, reason)
    yield from _of_several(plan, permissions)
    if not _reverse_path(plan.envelope):
        for use, permission in permissions:
            if use.place == _FROM:
                yield from _of_use(plan, Rule.SENDER_NULL, use, permission)
    yield from _of_alignment(plan, answers)


def _finding(plan: SubmissionPlan, rule: Rule, reason: str) -> Iterator[SenderFinding]:
    action = plan.rules.actions[rule]
    if action is not None:
        yield SenderFinding(rule, action, reason)


def _of_use(plan: SubmissionPlan, rule: Rule, use: Use, permission: Permission) -> Iterator[SenderFinding]:
    action = plan.rules.actions[rule]
    if action is None or permission.is_granted:
        return
    if permission.status is PermissionStatus.UNAVAILABLE:
        yield _waiting(action, f"whether {_who(plan, permission)} may use {permission.address}", permission.reason)
        return
    where = f"{use.place} of a message with the null sender" if rule is Rule.SENDER_NULL else use.place
    yield SenderFinding(
        rule, action, f"{_who(plan, permission)} may not use {permission.address} in {where}", permission.reason
    )


def _waiting(action: Disposition, what: str, detail: str) -> SenderFinding:
    """Neither a yes nor a no: the message waits, if the answer could keep it back."""
    waits = Disposition.TEMPFAIL if action.keeps_back else Disposition.ACCEPT
    return SenderFinding(Rule.SENDER_UNAVAILABLE, waits, f"{what} could not be looked up", detail)


def _of_several(plan: SubmissionPlan, permissions: Sequence[tuple[Use, Permission]]) -> Iterator[SenderFinding]:
    """RFC 5322 §3.6.2: with several authors, Sender names the one who sends."""
    senders = [permission for use, permission in permissions if use.place == _SENDER]
    if plan.authors < 2 or any(each.status is PermissionStatus.UNAVAILABLE for each in senders):
        return
    if not senders or not all(each.is_granted for each in senders):
        reason = f"From has {plan.authors} mailboxes, and no Sender tells which of them sends it"
        yield from _finding(plan, Rule.SENDER_FROM, reason)


def _of_alignment(plan: SubmissionPlan, answers: Answers) -> Iterator[SenderFinding]:
    pair, action = plan.aligned_domains, plan.rules.actions[Rule.SENDER_ALIGNMENT]
    if pair is None or action is None:
        return
    author, path = pair
    match _aligned(author, path, plan.rules, answers):
        case Aligned.NO:
            reason = f"the reverse path is in {path}, and From in {author}"
            yield SenderFinding(Rule.SENDER_ALIGNMENT, action, reason, f"{plan.rules.alignment.value} alignment")
        case Aligned.UNKNOWN:
            yield _waiting(action, f"whether {path} and {author} have one Organizational Domain", "the DNS")


def _aligned(author: Domain, path: Domain, rules: SubmissionRules, answers: Answers) -> Aligned:
    """RFC 9989 §4.4, for two names that differ."""
    if rules.alignment is AlignmentMode.STRICT:
        return Aligned.NO
    if rules.suffixes is not None:
        same = rules.suffixes.organizational_domain(author) == rules.suffixes.organizational_domain(path)
        return Aligned.YES if same else Aligned.NO
    return same_organization(tree_walk(author, answers), tree_walk(path, answers))


def _permission(plan: SubmissionPlan, use: Use, answers: Answers) -> Permission:
    if plan.login is not None:
        return permission_in(answers.get(sender_question(plan.login, use.address)))
    address = parse_address(use.address)
    if isinstance(address, Address) and address.domain in (plan.network_domains or ()):
        return Permission(PermissionStatus.GRANTED, "", address.exact)
    shown = address.exact if isinstance(address, Address) else address.shown
    return Permission(PermissionStatus.DENIED, "", shown, reason="its network is not listed for that domain")


def _who(plan: SubmissionPlan, permission: Permission) -> str:
    if plan.login is None:
        return f"client {plan.envelope.client_ip}"
    return f"login {permission.login}" if permission.login else "an unknown login"


def _refusal(finding: SenderFinding) -> Refusal | None:
    if finding.disposition is Disposition.TEMPFAIL:
        # RFC 3463 §3.5: X.4.3, a directory server failed.
        text = f"mailguard: {finding.reason[:MAX_REASON_CHARS]} [{finding.rule.value}]; try again later"
        return Refusal("451", "4.4.3", text)
    if finding.disposition is Disposition.REJECT:
        # RFC 3463 §3.8: X.7.1, not authorized.
        return Refusal("550", "5.7.1", f"mailguard: {finding.reason[:MAX_REASON_CHARS]} [{finding.rule.value}]")
    return None
