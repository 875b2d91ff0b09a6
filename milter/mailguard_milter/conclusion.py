"""Conclusion: how a message ends, as actions in order and a record for the log. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mailguard import authresults
from mailguard.dkim.result import DkimResult
from mailguard.dkim.sign import sign
from mailguard.dkim.verify import VerificationPlan, verify
from mailguard.dns.answers import Answers
from mailguard.message import HeaderField, Message
from mailguard_milter.actions import Accept, Action, DeleteHeader, InsertHeader, Reply
from mailguard_milter.service import Service
from mailguard_milter.transaction import Role, Transaction

__all__ = ["Conclusion", "conclude"]


@dataclass(frozen=True, slots=True)
class Conclusion:
    """What to do with the message, in order, and what to say about it in the log."""

    actions: tuple[Action, ...]
    record: dict[str, object]


def conclude(service: Service, state: Transaction, message: Message, answers: Answers, *, now: float) -> Conclusion:
    """Judge a complete message. Raises Unanswered while look-ups are missing; `now` is in POSIX seconds."""
    if state.role is Role.SIGN:
        return _signed(service, state, message, now)
    if state.role is Role.VERIFY and state.plan is not None:
        return _verified(service, state, message, state.plan, answers, now)
    return _unsigned(service, state, message)


def _signed(service: Service, state: Transaction, message: Message, now: float) -> Conclusion:
    if message.malformed is not None:
        return _malformed(service, state, message, _deletions(state.forged))
    if state.key_error:
        # Never 250 without the signature that the configuration asks for.
        refusal = Reply("451", "4.7.5", "mailguard: the signing key of the sender's domain is unavailable; try again")
        return _end(state, message, [refusal], action="tempfail", reason=f"signing key: {state.key_error}")
    if not state.keys:
        return _unsigned(service, state, message)
    made = sign(message, state.digests, keys=state.keys, now=now, rules=service.signing)
    # Each insertion at the top goes above the last: the first key's signature is to stand first.
    signatures = [_insertion(signature) for signature in reversed(made)]
    return _end(
        state,
        message,
        [*_deletions(state.forged), *signatures, Accept()],
        action="sign",
        reason="signed",
        d=state.keys[0].domain,
        s=" ".join(key.selector for key in state.keys),
    )


def _unsigned(service: Service, state: Transaction, message: Message) -> Conclusion:
    if state.role is Role.NONE and state.warning and service.enforcing:
        # Whether the client authenticated cannot be known: do not guess.
        refusal = Reply(
            "451", "4.7.0", "mailguard: this mail system is misconfigured (milter_mail_macros); try again"
        )
        return _end(state, message, [refusal], action="tempfail", reason=state.warning)
    reason = state.unsigned_because or "the client is not authenticated and not in a listed network"
    return _end(state, message, [*_deletions(state.forged), Accept()], action="accept", reason=f"unsigned: {reason}")


def _verified(
    service: Service, state: Transaction, message: Message, plan: VerificationPlan, answers: Answers, now: float
) -> Conclusion:
    results = verify(plan, state.digests, answers, now=now)
    field = authresults.build(
        service.config.authserv_id,
        dkim=results,
        ignored_signatures=plan.ignored,
        malformed=message.malformed_detail,
    )
    actions: list[Action] = [*_deletions([*state.forged, *state.listed]), _insertion(field)]
    dkim = _summary(results)
    if message.malformed is not None:
        return _malformed(service, state, message, actions, dkim=dkim)
    reason = "verified" if results else "no signature"
    return _end(state, message, [*actions, Accept()], action="accept", reason=reason, dkim=dkim)


def _malformed(
    service: Service, state: Transaction, message: Message, actions: Sequence[Action], **results: object
) -> Conclusion:
    """No one domain answers for the message: refuse it, or say that enforcing would. It is never signed."""
    reason = f"malformed message: {message.malformed_detail}"
    if service.enforcing:
        refusal = Reply("550", "5.6.0", f"mailguard: {reason}")
        return _end(state, message, [refusal], action="reject", reason=reason, **results)
    reason = f"{reason} (enforcing would reject)"
    if state.role is Role.SIGN:
        reason = f"unsigned: {reason}"
    return _end(state, message, [*actions, Accept()], action="accept", reason=reason, **results)


def _end(
    state: Transaction, message: Message, actions: Sequence[Action], *, action: str, reason: str, **results: object
) -> Conclusion:
    record: dict[str, object] = {
        "role": state.role.value,
        "client": state.client,
        "login": state.login,
        "mail_from": state.mail_from,
        "from": ",".join(map(str, message.author.mailboxes)),
        **results,
        "action": action,
        "reason": reason,
    }
    if state.forged:
        record["forged_results_removed"] = len(state.forged)
    if state.warning:
        record["warning"] = state.warning
    return Conclusion(tuple(actions), record)


def _deletions(found: Sequence[DeleteHeader]) -> list[DeleteHeader]:
    """RFC 8601 §5, from the highest ordinal down: removing a field renumbers those below it."""
    return sorted(found, key=lambda deletion: deletion.index, reverse=True)


def _insertion(field: HeaderField) -> InsertHeader:
    return InsertHeader(0, field.name, field.value.replace(b"\r\n", b"\n"))


def _summary(results: tuple[DkimResult, ...]) -> str:
    """The results in one log value: status, d= and s= of each, and the reason of what did not pass."""
    return "; ".join(map(_one_result, results)) or "none"


def _one_result(result: DkimResult) -> str:
    text = f"{result.status.value} d={result.domain or '?'} s={result.selector or '?'}"
    return text if result.status.value == "pass" else f"{text} ({result.detail})"
