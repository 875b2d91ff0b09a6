"""Answers, Unanswered and Resolver: how pure evaluation code gets what it needs from the DNS.

An evaluation is a function of `Answers`. It asks with `get`; what is known is returned, what is not is
noted as missing and ends the evaluation with `Unanswered`. A stage that will need several names calls
`need` first, so that one round of parallel look-ups serves all. What will perhaps be needed is told with `want`:
it is looked up meanwhile, and nobody waits for it. `evaluate` (and its awaited twin) resolves what is missing and
starts the evaluation again from the top. What a resolver has at hand is read at once, so that with a warm cache
the first run is the last. Nothing here does I/O by itself.

An `Answers` belongs to one evaluation and is not shared between threads.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass
from itertools import count, islice
from types import TracebackType
from typing import Generic, Self, TypeVar
from weakref import ref

from mailguard.dns.question import Answer, Question, Status

__all__ = ["Answers", "Done", "Memo", "Resolver", "Unanswered", "attempt", "evaluate", "evaluate_async"]

# How much a `Memo` keeps. The mail of a domain comes in one or two ways: its own servers, a sender of newsletters.
MAX_KEPT_RESULTS = 2
# The longest chain of dependent look-ups is SPF's: 10 terms (RFC 7208 §4.6.4), each an alias of hosts.
MAX_ROUNDS = 32

T = TypeVar("T")


class Unanswered(Exception):
    """The evaluation cannot go on until its `Answers.missing` are known."""


Peek = Callable[[Question], Answer | None]


class Answers:
    """The answers known so far, and a record of what was asked."""

    def __init__(
        self, known: Mapping[Question, Answer] | None = None, *, closed: bool = False, at_hand: Peek | None = None
    ) -> None:
        """`known` is copied; what is not in it is looked for with `at_hand`, once.

        A closed one answers every unknown question with TEMPFAIL.
        """
        # What was given comes first, and behind it what was found at hand.
        self._known: dict[Question, Answer] = dict(known) if known else {}
        self._given = len(self._known)
        self._closed = closed
        self._at_hand = at_hand
        self._missing: dict[Question, None] = {}
        self._wanted: dict[Question, None] = {}
        self._consumed: dict[Question, Answer] = {}

    def peek(self, question: Question) -> Answer | None:
        """The answer if it is known; it counts neither as missing nor as consumed."""
        answer = self._known.get(question)
        if answer is None and self._at_hand is not None and (answer := self._at_hand(question)) is not None:
            # Kept, so that one evaluation never sees two answers to one question.
            self._known[question] = answer
        return answer

    def get(self, question: Question) -> Answer:
        """The answer to `question`. Raises Unanswered where it is not known yet."""
        answer = self._known.get(question) or self.peek(question)
        if answer is None:
            if not self._closed:
                self._missing[question] = None
                raise Unanswered(str(question))
            # Kept for the same reason: another evaluation's look-up may end now.
            answer = self._known[question] = Answer(
                question, Status.TEMPFAIL, detail="not asked: the time for look-ups is over"
            )
        self._consumed[question] = answer
        return answer

    def need(self, questions: Iterable[Question]) -> None:
        """Name all that the next steps may ask. Raises Unanswered if any of it is unknown; consumes nothing."""
        if self._closed:
            return
        known = self._known
        unknown = [question for question in questions if question not in known and self.peek(question) is None]
        if unknown:
            self._missing.update(dict.fromkeys(unknown))
            raise Unanswered(", ".join(map(str, unknown)))

    def want(self, questions: Iterable[Question]) -> None:
        """Tell what may be asked later, to be looked up without waiting for it. Raises nothing, consumes nothing."""
        if not self._closed:
            self._wanted.update(dict.fromkeys(question for question in questions if self.peek(question) is None))

    def observe(self, evaluation: Callable[[], T]) -> tuple[T, tuple[Answer, ...]]:
        """What `evaluation` comes to, and the answers that it consumes, in the order of first reading."""
        before, self._consumed = self._consumed, {}
        try:
            return evaluation(), tuple(self._consumed.values())
        finally:
            self._consumed = {**before, **self._consumed}

    def consume_again(self, read: Iterable[ref[Answer]]) -> bool:
        """Whether all of these are the answers at hand. They count as consumed, down to the first that is not.

        The evaluation that read them would read the same again so far.
        """
        for reference in read:
            answer = reference()
            if answer is None or self.peek(answer.question) is not answer:
                return False
            self._consumed[answer.question] = answer
        return True

    @property
    def read(self) -> Mapping[Question, Answer]:
        """What was found at hand."""
        return dict(islice(self._known.items(), self._given, None))

    @property
    def wanted(self) -> tuple[Question, ...]:
        """What was told with `want` and is not missing."""
        return tuple(question for question in self._wanted if question not in self._missing)

    @property
    def missing(self) -> tuple[Question, ...]:
        """What was asked and is not known. A result that comes out while this is not empty is void."""
        return tuple(self._missing)

    @property
    def consumed(self) -> tuple[Answer, ...]:
        """The answers that the evaluation read, each once, in the order of first reading."""
        return tuple(self._consumed.values())


class Memo(Generic[T]):
    """Results of evaluations, each good for as long as the answers that it rests on are those at hand.

    It lives with what these evaluations have in common, as a rule the answer that they read first. It keeps no answer
    alive, and `MAX_KEPT_RESULTS` results, whose size is the caller's care. Shared between threads.
    """

    __slots__ = ("_kept",)

    def __init__(self) -> None:
        self._kept: dict[Hashable, tuple[T, tuple[ref[Answer], ...]]] = {}

    def find(self, key: Hashable, answers: Answers) -> T | None:
        """The result kept for `key`, if it is still good; `answers` then has consumed what it rests on."""
        kept = self._kept.get(key)
        if kept is None or (kept[1] and not answers.consume_again(kept[1])):
            return None
        return kept[0]

    def keep(self, key: Hashable, result: T, read: Iterable[Answer]) -> None:
        """Keep `result`, which depends on `key` and on the answers `read`, and on nothing else."""
        if len(self._kept) >= MAX_KEPT_RESULTS and key not in self._kept:
            self._kept.clear()
        self._kept[key] = result, tuple(map(ref, read))


class Resolver(ABC):
    """Answers questions. The live one asks the DNS; `ZoneResolver` reads a zone in memory."""

    @abstractmethod
    def resolve(self, questions: Iterable[Question], *, deadline: float) -> dict[Question, Answer]:
        """An answer for every one of `questions`, looked up in parallel; never raises for what the DNS does.

        `deadline` is a reading of `time.monotonic()` in seconds. What is open then is answered TEMPFAIL,
        at once. Thread-safe.
        """

    @abstractmethod
    async def resolve_async(self, questions: Iterable[Question], *, deadline: float) -> dict[Question, Answer]:
        """`resolve`, awaited, from any running event loop."""

    @abstractmethod
    def prefetch(self, questions: Iterable[Question]) -> None:
        """Begin to look these up and return at once. A later `resolve` of the same joins the look-up."""

    def at_hand(self, question: Question) -> Answer | None:
        """The answer if it can be had without asking anybody, in about a microsecond. Thread-safe."""
        return None

    def reader(self) -> Peek:
        """`at_hand` for one evaluation, which begins now and takes milliseconds."""
        return self.at_hand

    def use_this_loop(self) -> None:  # noqa: B027  # most have nothing to do
        """Look up on the running event loop, which keeps running until `close`, where that saves anything.

        To be called before anything else. In the thread of that loop `resolve_async` takes the place of `resolve`.
        """

    def warm_up(self, *, within_s: float) -> None:  # noqa: B027  # as above
        """Do ahead what would make the first look-ups slow, and take `within_s` seconds at most. Raises nothing."""

    @abstractmethod
    def close(self) -> None:
        """Give back threads and sockets. Closing twice is harmless."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@dataclass(frozen=True, slots=True)
class Done(Generic[T]):
    """What an evaluation came to."""

    result: T


def attempt(
    evaluation: Callable[[Answers], T], known: dict[Question, Answer], resolver: Resolver, *, round_number: int
) -> Done[T] | tuple[Question, ...]:
    """One run: the result, or what is missing for it. For drivers that wait in a way of their own.

    The first has the number 0. What a run reads at hand is put into `known`; the answers to what is missing belong
    there before the next one. A result that comes out while something is missing is void.
    """
    answers = Answers(known, closed=round_number >= MAX_ROUNDS, at_hand=resolver.reader())
    try:
        result = evaluation(answers)
    except Unanswered:
        pass  # answers.missing tells
    else:
        if not answers.missing:
            return Done(result)
    known.update(answers.read)
    if answers.wanted:
        resolver.prefetch(answers.wanted)
    return answers.missing


def evaluate(evaluation: Callable[[Answers], T], resolver: Resolver, *, deadline: float) -> T:
    """Run `evaluation` until it needs nothing more; look-ups end at `deadline` (`time.monotonic()` seconds)."""
    known: dict[Question, Answer] = {}
    for round_number in count():
        outcome = attempt(evaluation, known, resolver, round_number=round_number)
        if isinstance(outcome, Done):
            return outcome.result
        known.update(resolver.resolve(outcome, deadline=deadline))
    raise AssertionError("count() does not end")


async def evaluate_async(evaluation: Callable[[Answers], T], resolver: Resolver, *, deadline: float) -> T:
    """`evaluate`, awaited."""
    known: dict[Question, Answer] = {}
    for round_number in count():
        outcome = attempt(evaluation, known, resolver, round_number=round_number)
        if isinstance(outcome, Done):
            return outcome.result
        known.update(await resolver.resolve_async(outcome, deadline=deadline))
    raise AssertionError("count() does not end")
