"""Whatever the DNS fails to answer: nothing is refused for it, and nothing that would be refused gets through.

Random messages, zones and policies (judged_messages.py), the same in every run, each judged with all answers and then
with some of them, or all, turned into failures.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

import pytest

from judged_messages import Scene, judge_scene, scene
from mailguard.dns.answers import Resolver
from mailguard.dns.question import Answer, Dnssec, Question, Status
from mailguard.outcome import Outcome
from mailguard.policy import Policy
from mailguard.rule import Disposition, Mode, Rule

MESSAGES = 250
FAILURES = (Status.TEMPFAIL, Status.BOGUS)
TEMPORARY = {rule for rule in Rule if rule.value.endswith("temperror")}
REFUSED = {Disposition.REJECT, Disposition.QUARANTINE}


class Failing(Resolver):
    """Another resolver, some of whose answers fail."""

    def __init__(self, base: Resolver, failure: Callable[[Question], Status | None]) -> None:
        self._base = base
        self._failure = failure

    def resolve(self, questions: Iterable[Question], *, deadline: float) -> dict[Question, Answer]:
        answers = self._base.resolve(questions, deadline=deadline)
        for question in answers:
            status = self._failure(question)
            if status is not None:
                dnssec = Dnssec.BOGUS if status is Status.BOGUS else Dnssec.INDETERMINATE
                answers[question] = Answer(question, status, dnssec=dnssec, detail="made to fail")
        return answers

    async def resolve_async(self, questions: Iterable[Question], *, deadline: float) -> dict[Question, Answer]:
        return self.resolve(questions, deadline=deadline)

    def prefetch(self, questions: Iterable[Question]) -> None:
        """Nothing to do."""

    def close(self) -> None:
        """Nothing to give back."""


def enforced(policy: Policy) -> Policy:
    """Without what an administrator may choose to do about the failures themselves."""

    def plain(actions: Mapping[Rule, Disposition]) -> dict[Rule, Disposition]:
        return {rule: action for rule, action in actions.items() if rule not in TEMPORARY}

    domains = tuple(replace(each, actions=plain(each.actions)) for each in policy.domains)
    return replace(policy, mode=Mode.ENFORCE, actions=plain(policy.actions), domains=domains)


def failures(source: random.Random, asked: list[Question]) -> list[Callable[[Question], Status | None]]:
    """Some of the questions, half of all, and all."""
    some = set(source.sample(asked, min(len(asked), source.randint(1, 3))))
    status = source.choice(FAILURES)
    half = {question for question in asked if source.random() < 0.5}
    return [
        lambda question: status if question in some else None,
        lambda question: Status.TEMPFAIL if question in half else None,
        lambda question: Status.TEMPFAIL,
    ]


def wrong(before: Outcome, after: Outcome) -> bool:
    was, becomes = before.decision.disposition, after.decision.disposition
    if was is Disposition.REJECT:
        return becomes not in (Disposition.REJECT, Disposition.TEMPFAIL)
    if was is Disposition.QUARANTINE:
        return becomes not in (Disposition.QUARANTINE, Disposition.TEMPFAIL)
    return becomes in REFUSED


@pytest.mark.attack("M03", "V11")
@pytest.mark.parametrize("default_policy", [True, False], ids=["default policy", "other policies"])
def test_a_failure_of_the_dns_neither_refuses_nor_lets_through(default_policy: bool) -> None:
    faults = []
    changed = 0
    for number in range(MESSAGES):
        found: Scene = scene(number)
        policy = Policy() if default_policy else enforced(found.policy)
        found = replace(found, policy=policy, envelope=replace(found.envelope, login=None))
        before = judge_scene(found, found.resolver).outcome
        if any(answer.status in FAILURES for answer in before.answers):
            continue
        source = random.Random(number)
        asked = [answer.question for answer in before.answers]
        for kind, failure in enumerate(failures(source, asked) if asked else ()):
            after = judge_scene(found, Failing(found.resolver, failure)).outcome
            changed += after.decision.disposition is not before.decision.disposition
            if wrong(before, after):
                faults.append((number, kind, before.decision.rule, after.decision.rule))
    assert changed > MESSAGES / 10, "the test shows something"
    assert not faults
