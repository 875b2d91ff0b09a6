"""Conclusion: how a message ends, as actions in order and a record for the log. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from mailguard import authresults
from mailguard.dkim.result import DkimResult, DkimStatus
from mailguard.dkim.sign import sign
from mailguard.dns.answers import Answers
from mailguard.inbound import InboundPlan, Judged, judge_inbound
from mailguard.message import HeaderField, Message
from mailguard.outcome import Outcome
from mailguard.policy import decide
from mailguard.rule import Disposition, Rule
from mailguard.spf.received import received_spf
from mailguard.spf.result import SpfResult, SpfStatus
from mailguard.submission import SenderFinding, SubmissionDecision, judge_submission
from mailguard.trace import Trace
from mailguard_milter.actions import (
    MAX_REPLY_CHARS,
    Accept,
    Action,
    DeleteHeader,
    InsertHeader,
    Quarantine,
    Reply,
)
from mailguard_milter.long_lines import has_long_line
from mailguard_milter.service import POLICY_FIELD_NAME, Service
from mailguard_milter.transaction import Role, Transaction

__all__ = ["Conclusion", "conclude"]

NO_OBJECTION = SubmissionDecision(disposition=Disposition.ACCEPT, would=Disposition.ACCEPT)

# Of what every message says, `_value_`: an Enum's `value` is the same by two functions in Python.


class Conclusion(NamedTuple):
    """What to do with the message, in order, and what to say about it in the log."""

    actions: tuple[Action, ...]
    record: dict[str, object]
    outcome: Outcome | None = None
    """Of a message that was judged; None for one of our own users."""
    trace: Trace | None = None
    """Of the same, where traces are kept."""


def conclude(service: Service, state: Transaction, message: Message, answers: Answers, *, now: float) -> Conclusion:
    """Judge a complete message. Raises Unanswered while look-ups are missing; `now` is in POSIX seconds."""
    if state.exceeds_deletions:
        return _too_many(state, message)
    if state.role is Role.SIGN:
        return _submitted(service, state, message, answers, now)
    if state.role is Role.VERIFY and state.plan is not None:
        return _judged(service, state, state.plan, answers, now)
    return _unsigned(service, state, message)


def _too_many(state: Transaction, message: Message) -> Conclusion:
    """The one refusal in either mode: left in, such fields speak in our name, and Postfix cannot take them out."""
    refusal = Reply("550", "5.6.0", "mailguard: too many header fields that are to be removed [too-many-removals]")
    reason = "too many header fields that are to be removed, such as results that claim to be ours"
    return _end(state, message, [refusal], action="reject", rule="too-many-removals", reason=reason)


# Our own users' mail


def _submitted(service: Service, state: Transaction, message: Message, answers: Answers, now: float) -> Conclusion:
    if message.malformed is not None:
        return _malformed(service, state, message)
    decision = judge_submission(state.submission, answers) if state.submission is not None else NO_OBJECTION
    finding, refusal = decision.deciding, decision.refusal
    if finding is not None and refusal is not None and decision.disposition is decision.would:
        reply = Reply(refusal.code, refusal.enhanced, _one_line(refusal.text))
        told = {"rule": finding.rule.value, **_noted(decision.noted)}
        return _end(state, message, [reply], action=decision.disposition.value, **told, reason=finding.full_reason)
    return _signed(service, state, message, decision, now)


def _signed(
    service: Service, state: Transaction, message: Message, decision: SubmissionDecision, now: float
) -> Conclusion:
    if state.key_error:
        # Never 250 without the signature that the configuration asks for.
        refusal = Reply("451", "4.7.5", "mailguard: the signing key of the sender's domain is unavailable; try again")
        return _end(state, message, [refusal], action="tempfail", reason=f"signing key: {state.key_error}")
    if not state.keys:
        return _unsigned(service, state, message, decision)
    made = sign(message, state.digests, keys=state.keys, now=now, rules=service.signing)
    # Each insertion at the top goes above the last: the first key's signature is to stand first.
    signatures = [_insertion(signature) for signature in reversed(made)]
    return _end(
        state,
        message,
        [*_deletions(state.forged), *_marks(decision), *_login_result(service, state), *signatures, *_hold(decision)],
        action="sign" if decision.disposition is not Disposition.QUARANTINE else decision.disposition.value,
        reason=_although("signed", decision),
        **_told(decision),
        d=str(state.keys[0].domain),
        s=" ".join([key.selector for key in state.keys]),
        a=" ".join([key.algorithm for key in state.keys]),
        warning=_line_warning(service, state, message),
    )


def _line_warning(service: Service, state: Transaction, message: Message) -> str:
    """RFC 6376 §5.3: what is signed should be what the verifier gets; of what Postfix changes later, it is told."""
    signed = [message.fields[place] for place in service.signing.choices.of(message.fields).places]
    if has_long_line(signed):
        return "a signed header field has a line of more than 998 octets"
    if state.body_lines is not None and state.body_lines.is_long:
        return "the body has a line of more than 998 octets"
    return ""


def _marks(decision: SubmissionDecision) -> list[InsertHeader]:
    if decision.deciding is None or decision.disposition is not Disposition.HEADER:
        return []
    return [_policy_field(decision.deciding.rule)]


def _hold(decision: SubmissionDecision) -> list[Action]:
    """How a message that is not refused ends."""
    finding = decision.deciding
    if finding is None or decision.disposition is not Disposition.QUARANTINE:
        return [Accept()]
    return [Quarantine(_one_line(f"mailguard: {finding.reason} [{finding.rule.value}]")), Accept()]


def _told(decision: SubmissionDecision) -> dict[str, object]:
    """For the log: the rules that apply to a message that was not refused."""
    told: dict[str, object] = {}
    if decision.deciding is not None:
        if decision.would is not decision.disposition:
            told["would"] = decision.would.value
        told["rule"] = decision.deciding.rule.value
    return {**told, **_noted(decision.noted)}


def _noted(findings: Sequence[SenderFinding]) -> dict[str, object]:
    if not findings:
        return {}
    return {"noted": "; ".join(f"{each.rule.value}: {each.full_reason}" for each in findings)}


def _although(done: str, decision: SubmissionDecision) -> str:
    return done if decision.deciding is None else f"{done} although {decision.deciding.full_reason}"


def _login_result(service: Service, state: Transaction) -> list[InsertHeader]:
    if not service.config.results.login or state.login is None:
        return []
    return [_insertion(authresults.build_login(service.config.authserv_id, state.envelope))]


def _unsigned(
    service: Service, state: Transaction, message: Message, decision: SubmissionDecision = NO_OBJECTION
) -> Conclusion:
    blind = state.role is Role.NONE and state.warning
    if blind and service.enforcing:
        # Whether the client authenticated cannot be known: do not guess.
        refusal = Reply(
            "451",
            "4.7.0",
            "mailguard: this mail system is misconfigured (milter_mail_macros); try again [macros-missing]",
        )
        return _end(state, message, [refusal], action="tempfail", rule="macros-missing", reason=state.warning)
    reason = state.unsigned_because or "the client is not authenticated, nor listed for the domain in From"
    would = {"would": "tempfail", "rule": "macros-missing"} if blind else _told(decision)
    actions = [*_deletions(state.forged), *_marks(decision), *_arrival_result(service, state), *_hold(decision)]
    action = decision.disposition if decision.disposition is Disposition.QUARANTINE else Disposition.ACCEPT
    reason = _although(f"unsigned: {reason}", decision)
    return _end(state, message, actions, action=action.value, **would, reason=reason)


def _arrival_result(service: Service, state: Transaction) -> list[InsertHeader]:
    """In place of the field that said so, of which nothing else is believed: the message may come back once more."""
    if state.arrival is None:
        return []
    domain, status = state.arrival
    own_id, reason = service.config.authserv_id, "found when it came in"
    return [_insertion(authresults.build_dmarc(own_id, domain=domain, status=status, reason=reason))]


def _malformed(service: Service, state: Transaction, message: Message) -> Conclusion:
    """No one domain answers for the message: refuse it, or say that enforcing would. It is never signed."""
    reason = f"malformed message: {message.malformed_detail}"
    if service.enforcing:
        refusal = Reply("550", "5.6.0", f"mailguard: {reason} [malformed]")
        return _end(state, message, [refusal], action="reject", rule="malformed", reason=reason)
    reason = f"unsigned: {reason}"
    return _end(
        state,
        message,
        [*_deletions(state.forged), Accept()],
        action="accept",
        would="reject",
        rule="malformed",
        reason=reason,
    )


# Mail from outside


def _judged(service: Service, state: Transaction, plan: InboundPlan, answers: Answers, now: float) -> Conclusion:
    judged = judge_inbound(plan, state.digests, answers, now=now)
    decision = decide(judged, policy=service.policy)
    outcome = Outcome(message=plan.message, judged=judged, decision=decision, now=now, answers=answers.consumed)
    trace: Trace | None = None
    if service.config.trace.enabled:
        trace = Trace.of(outcome, plan=plan, digests=state.digests, version=service.version)
    record = _record(
        state,
        plan.message,
        **_results(judged),
        action=decision.disposition._value_,
        would=decision.would.value if decision.would is not decision.disposition else None,
        rule=decision.rule._value_,
        override=f"{decision.override.kind.value} {decision.override.identity}" if decision.override else None,
        reason=decision.reason,
    )
    return Conclusion(tuple(_actions(service, state, outcome)), record, outcome, trace)


def _actions(service: Service, state: Transaction, outcome: Outcome) -> list[Action]:
    decision = outcome.decision
    if decision.disposition in (Disposition.REJECT, Disposition.TEMPFAIL) and decision.refusal is not None:
        refusal = decision.refusal
        return [Reply(refusal.code, refusal.enhanced, _one_line(refusal.text))]
    actions: list[Action] = _deletions([*state.forged, *state.listed])
    spf = outcome.spf
    if service.config.results.received_spf and spf is not None:
        actions.append(_insertion(received_spf(spf, state.envelope, receiver=service.config.authserv_id)))
    if decision.disposition is Disposition.HEADER:
        actions.append(_policy_field(decision.rule))
    results = service.config.results
    actions.append(_insertion(outcome.header(service.config.authserv_id, shows_login=results.login)))
    if decision.disposition is Disposition.QUARANTINE:
        actions.append(Quarantine(_one_line(f"mailguard: {decision.reason} [{decision.rule.value}]")))
    return [*actions, Accept()]


def _policy_field(rule: Rule) -> InsertHeader:
    return InsertHeader(POLICY_FIELD_NAME.encode(), f" {rule.value}".encode())


def _results(judged: Judged) -> dict[str, object]:
    evidence, verdict = judged.evidence, judged.verdict
    return {
        "spf": _spf(evidence.spf),
        "helo_spf": _spf(evidence.helo_spf),
        "dkim": _dkim(evidence.dkim),
        "iprev": evidence.iprev.status.value if evidence.iprev is not None else None,
        "dmarc": verdict.status._value_ if verdict is not None else None,
        "policy": verdict.policy._value_ if verdict is not None and verdict.policy is not None else None,
        "domain": ",".join(evidence.author_domains) or None,
    }


def _spf(result: SpfResult | None) -> str | None:
    if result is None:
        return None
    text = f"{result.status._value_} d={result.domain or '?'}"
    if result.status is SpfStatus.PASS:
        return f"{text} (permissive: {result.mechanism})" if result.is_permissive else text
    return f"{text} ({result.detail})"


def _dkim(results: tuple[DkimResult, ...]) -> str:
    """The results in one log value: status, d= and s= of each, and the reason of what did not pass."""
    return "; ".join(map(_one_signature, results)) or "none"


def _one_signature(result: DkimResult) -> str:
    text = f"{result.status._value_} d={result.domain or '?'} s={result.selector or '?'}"
    return text if result.status is DkimStatus.PASS else f"{text} ({result.detail})"


# Both


def _end(
    state: Transaction,
    message: Message,
    actions: Sequence[Action],
    *,
    action: str,
    reason: str,
    **results: object,
) -> Conclusion:
    return Conclusion(tuple(actions), _record(state, message, action=action, reason=reason, **results))


def _record(
    state: Transaction, message: Message, *, action: str, reason: str, warning: object = "", **results: object
) -> dict[str, object]:
    """What the log says, in this order."""
    record: dict[str, object] = {
        "role": state.role._value_,
        "client": str(state.envelope.client_ip) if state.envelope.client_ip is not None else "unknown",
        "helo": state.envelope.helo,
        "login": state.login,
        "mail_from": state.envelope.mail_from,
        "from": ",".join(map(str, message.author.mailboxes)),
        **results,
        "action": action,
        "reason": reason,
    }
    if state.forged:
        record["forged_results_removed"] = len(state.forged)
    if warning := state.warning or warning:
        record["warning"] = warning
    return record


def _deletions(found: Sequence[DeleteHeader]) -> list[Action]:
    """RFC 8601 §5, from the highest ordinal down: removing a field renumbers those below it."""
    return [*sorted(found, key=lambda deletion: deletion.index, reverse=True)]


def _insertion(field: HeaderField) -> InsertHeader:
    """On top, as results (RFC 8601 §4.1) and signatures (RFC 6376 §5.6) have to be."""
    return InsertHeader(field.name, field.value.replace(b"\r\n", b"\n"))


def _one_line(text: str) -> str:
    """Within what an SMTP reply may have; all that decisions say is printable ASCII, and this sees to it."""
    return "".join(char if char.isascii() and char.isprintable() else "?" for char in text)[:MAX_REPLY_CHARS]
