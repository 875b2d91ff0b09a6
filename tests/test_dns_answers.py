"""evaluate and Answers: the evaluation is started again until nothing is missing."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Callable, Iterable, Sequence

import pytest

from mailguard.dns import answers as answers_module
from mailguard.dns.answers import Answers, Memo, Resolver, Unanswered, evaluate, evaluate_async
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
            answers.need([Question(f"{number}.need.test", RecordType.TXT)] if number % 2 else [])
            answer = answers.get(Question(f"{number}.test", RecordType.TXT))
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


def test_what_arrives_after_the_time_is_over_changes_nothing() -> None:
    """Another evaluation's look-up fills the cache meanwhile: one question has one answer all the same."""
    cache: dict[Question, Answer] = {}
    answers = Answers(closed=True, at_hand=cache.get)
    first = answers.get(A)
    cache[A] = of(A)
    assert first.status is Status.TEMPFAIL
    assert answers.get(A) is first
    assert answers.consumed == (first,)


def of(question: Question) -> Answer:
    return Answer(question, Status.NOERROR, (question.name.encode(),))


class Remembering:
    """Evaluations that read B after A, with a memo; the answers at hand may change between them."""

    def __init__(self) -> None:
        self.at_hand = {question: of(question) for question in (A, B, C)}
        self.memo: Memo[tuple[Answer, ...]] = Memo()
        self.runs = 0

    def ask(self, key: str = "a and b", *questions: Question) -> tuple[tuple[Answer, ...], tuple[Answer, ...]]:
        """The result, and what was consumed."""
        answers = Answers(at_hand=self.at_hand.get)

        def evaluation() -> tuple[Answer, ...]:
            self.runs += 1
            return tuple([Answer(found.question, found.status, found.records) for found in map(answers.get, asked)])

        asked = questions or (A, B)
        kept = self.memo.find(key, answers)
        if kept is not None:
            return kept, answers.consumed
        result, read = answers.observe(evaluation)
        self.memo.keep(key, result, read)
        return result, answers.consumed


def test_a_result_is_kept_while_the_answers_are_the_same() -> None:
    asking = Remembering()
    assert [asking.ask() for _ in range(3)] == [((of(A), of(B)), (of(A), of(B)))] * 3
    assert asking.runs == 1
    asking.at_hand[C] = of(C)
    asking.ask()
    assert asking.runs == 1, "C was not read"


@pytest.mark.parametrize("question", [A, B], ids=["the first", "a later one"])
def test_another_answer_ends_it_though_it_says_the_same(question: Question) -> None:
    """One that expired and was asked for again is another."""
    asking = Remembering()
    asking.ask()
    asking.at_hand[question] = of(question)
    found, consumed = asking.ask()
    assert asking.runs == 2
    assert found == (of(A), of(B))
    assert all(one is asking.at_hand[one.question] for one in consumed)
    asking.at_hand[question] = Answer(question, Status.TEMPFAIL)
    assert asking.ask()[0] == (asking.at_hand[A], asking.at_hand[B])
    asking.at_hand[question] = of(question)
    assert asking.ask()[0] == (of(A), of(B))


def test_an_answer_that_is_gone_ends_it() -> None:
    asking = Remembering()
    asking.ask()
    del asking.at_hand[B]
    with pytest.raises(Unanswered):
        asking.ask()


def test_it_keeps_no_answer_alive() -> None:
    asking = Remembering()
    asking.ask()
    gone = weakref.ref(asking.at_hand[B])
    asking.at_hand[B] = of(B)
    gc.collect()
    assert gone() is None


def test_it_keeps_a_bounded_number_of_results() -> None:
    asking = Remembering()
    for number in range(100):
        asking.ask(str(number))
    assert len(asking.memo._kept) <= answers_module.MAX_KEPT_RESULTS
    assert asking.runs == 100
    asking.ask("99")
    assert asking.runs == 100, "the last is there"


def test_after_the_deadline_nothing_is_kept_for_others() -> None:
    memo: Memo[Status] = Memo()
    closed = Answers(closed=True)
    result, read = closed.observe(lambda: closed.get(A).status)
    memo.keep("status", result, read)
    assert result is Status.TEMPFAIL
    assert memo.find("status", Answers({A: of(A)})) is None
    assert memo.find("status", Answers(closed=True)) is None


def test_observing_leaves_what_is_consumed_in_the_order_of_first_reading() -> None:
    answers = Answers({question: of(question) for question in (A, B, C)})
    answers.get(B)
    read: Sequence[Answer] = answers.observe(lambda: [answers.get(A), answers.get(B)])[1]
    assert read == (of(A), of(B))
    assert list(answers.consumed) == [of(B), of(A)]

    def unanswered() -> None:
        answers.get(C)
        answers.get(Question("d.test", RecordType.TXT))

    with pytest.raises(Unanswered):
        answers.observe(unanswered)
    assert list(answers.consumed) == [of(B), of(A), of(C)]
