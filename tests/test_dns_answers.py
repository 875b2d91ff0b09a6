"""evaluate and Answers: the evaluation is started again until nothing is missing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

import pytest

from mailguard.dns import answers as answers_module
from mailguard.dns.answers import Answers, Resolver, Unanswered, evaluate, evaluate_async
from mailguard.dns.question import Answer, Question, RecordType, Status

A, B, C = (Question(f"{letter}.test", RecordType.TXT) for letter in "abc")


class RecordingResolver(Resolver):
    """Answers everything, and notes the batches."""

    def __init__(self) -> None:
        self.batches: list[tuple[Question, ...]] = []
        self.prefetched: list[tuple[Question, ...]] = []

    def resolve(self, questions: Iterable[Question], *, deadline: float) -> dict[Question, Answer]:
        batch = tuple(questions)
        self.batches.append(batch)
        return {question: Answer(question, Status.NOERROR, (question.name.encode(),)) for question in batch}

    async def resolve_async(self, questions: Iterable[Question], *, deadline: float) -> dict[Question, Answer]:
        return self.resolve(questions, deadline=deadline)

    def prefetch(self, questions: Iterable[Question]) -> None:
        self.prefetched.append(tuple(questions))

    def close(self) -> None:
        """Nothing to give back."""


Evaluation = Callable[[Answers], object]


@pytest.fixture(params=["evaluate", "evaluate_async"])
def run(request: pytest.FixtureRequest) -> Callable[[Evaluation, Resolver], object]:
    if request.param == "evaluate":
        return lambda evaluation, resolver: evaluate(evaluation, resolver, deadline=0.0)
    return lambda evaluation, resolver: asyncio.run(evaluate_async(evaluation, resolver, deadline=0.0))


Run = Callable[[Evaluation, Resolver], object]


def test_starts_again_from_the_top(run: Run) -> None:
    starts: list[int] = []

    def evaluation(answers: Answers) -> object:
        starts.append(len(starts))
        return answers.get(A).records + answers.get(B).records

    resolver = RecordingResolver()
    assert run(evaluation, resolver) == (b"a.test", b"b.test")
    assert resolver.batches == [(A,), (B,)]
    assert starts == [0, 1, 2]


def test_need_makes_one_batch(run: Run) -> None:
    def evaluation(answers: Answers) -> object:
        answers.need([A, B, A, C])
        return [answers.get(question).status for question in (C, B, A)]

    resolver = RecordingResolver()
    assert run(evaluation, resolver) == [Status.NOERROR] * 3
    assert resolver.batches == [(A, B, C)]


def test_need_asks_only_for_what_is_unknown(run: Run) -> None:
    def evaluation(answers: Answers) -> object:
        answers.get(A)
        answers.need([A, B])
        return "done"

    resolver = RecordingResolver()
    assert run(evaluation, resolver) == "done"
    assert resolver.batches == [(A,), (B,)]


def test_a_result_is_void_while_a_miss_is_recorded(run: Run) -> None:
    """pyspf has a bare except, which takes Unanswered for a failed look-up."""

    def evaluation(answers: Answers) -> object:
        try:
            return answers.get(A).records
        except Exception:  # noqa: BLE001  # it stands for pyspf, which does so
            return "wrong: a failed look-up"

    resolver = RecordingResolver()
    assert run(evaluation, resolver) == (b"a.test",)
    assert resolver.batches == [(A,)]


def test_misses_that_were_swallowed_are_one_batch(run: Run) -> None:
    def evaluation(answers: Answers) -> object:
        found = []
        for question in (A, B):
            try:
                found.append(answers.get(question).status)
            except Unanswered:
                continue
        return found

    resolver = RecordingResolver()
    assert run(evaluation, resolver) == [Status.NOERROR, Status.NOERROR]
    assert resolver.batches == [(A, B)]


def test_what_is_needed_but_not_read_is_not_consumed() -> None:
    known = RecordingResolver().resolve([A, B, C], deadline=0.0)
    answers = Answers(known)
    answers.need([A, B, C])
    assert list(answers.consumed) == []
    answers.get(C)
    answers.get(A)
    answers.get(C)
    assert answers.consumed == (known[C], known[A])
    assert answers.missing == ()


def test_an_endless_evaluation_is_closed(run: Run) -> None:
    """After MAX_ROUNDS every unknown question is answered TEMPFAIL."""
    last: list[tuple[int, Status]] = []

    def evaluation(answers: Answers) -> object:
        for number in range(10_000):
            answers.need([Question(f"{number}.need.test", RecordType.A)] if number % 2 else [])
            answer = answers.get(Question(f"{number}.test", RecordType.A))
            if answer.status is not Status.NOERROR:
                last.append((number, answer.status))
                return answer.detail
        raise AssertionError("never closed")

    resolver = RecordingResolver()
    detail = run(evaluation, resolver)
    assert len(resolver.batches) == answers_module.MAX_ROUNDS
    assert len(last) == 1
    assert last[0][1] is Status.TEMPFAIL
    assert "time for look-ups is over" in str(detail)


def test_an_exception_of_the_evaluation_comes_out(run: Run) -> None:
    def evaluation(answers: Answers) -> object:
        answers.get(A)
        raise KeyError("of its own")

    with pytest.raises(KeyError, match="of its own"):
        run(evaluation, RecordingResolver())


class ResolverWithCache(RecordingResolver):
    """Has some answers at hand."""

    def __init__(self, *at_hand: Question) -> None:
        super().__init__()
        self.known = {question: Answer(question, Status.NOERROR, (b"at hand",)) for question in at_hand}

    def at_hand(self, question: Question) -> Answer | None:
        return self.known.get(question)


def test_what_is_at_hand_needs_no_round(run: Run) -> None:
    starts: list[int] = []

    def evaluation(answers: Answers) -> object:
        starts.append(len(starts))
        answers.need([A, B])
        return answers.get(A).records + answers.get(B).records

    resolver = ResolverWithCache(A, B)
    assert run(evaluation, resolver) == (b"at hand", b"at hand")
    assert (resolver.batches, starts) == ([], [0])


def test_an_answer_that_was_read_stays_through_the_evaluation(run: Run) -> None:
    resolver = ResolverWithCache(A)

    def evaluation(answers: Answers) -> object:
        first = answers.get(A)
        resolver.known.clear()  # its time is over
        answers.get(B)
        return first.records

    assert run(evaluation, resolver) == (b"at hand",)
    assert resolver.batches == [(B,)]


def test_what_is_wanted_is_asked_for_and_not_waited_for(run: Run) -> None:
    def evaluation(answers: Answers) -> object:
        answers.want([A, B, C])
        return answers.get(A).status

    resolver = ResolverWithCache(C)
    assert run(evaluation, resolver) is Status.NOERROR
    assert resolver.batches == [(A,)]
    assert resolver.prefetched == [(B,)]


def test_peeking_asks_nothing_and_consumes_nothing() -> None:
    answers = Answers({A: Answer(A, Status.NODATA)})
    assert answers.peek(A) == Answer(A, Status.NODATA)
    assert answers.peek(B) is None
    assert (answers.missing, answers.wanted, answers.consumed) == ((), (), ())


def test_a_closed_one_wants_nothing() -> None:
    answers = Answers(closed=True)
    answers.want([A])
    assert answers.wanted == ()
