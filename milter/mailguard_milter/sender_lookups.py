"""SenderLookups: the resolver of a worker that also asks who may use which address.

The sources block, so that they are asked on a few threads of their own; one question is asked once, however many wait
for it. What is not answered in time counts as not known, which is neither a yes nor a no. Thread-safe.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from threading import Lock

from mailguard.dns.answers import Peek, Resolver
from mailguard.dns.question import Answer, Question, RecordType, Status
from mailguard.senders.combine import Senders
from mailguard.senders.identity import Unusable, parse_address
from mailguard.senders.question import asked_of, permission_answer, sender_question

__all__ = ["SenderLookups"]

# Each may hold a connection to each database; a query takes a millisecond where all is well.
THREADS = 4
# Beyond that the sources do not keep up, and whoever asks is to come again.
MAX_UNDER_WAY = 1_000


class SenderLookups(Resolver):
    """Asks `senders` what is for it, and `dns` the rest. Owns both."""

    def __init__(self, dns: Resolver, senders: Senders) -> None:
        self._dns = dns
        self._senders = senders
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="senders")
        self._lock = Lock()
        self._under_way: dict[Question, Future[Answer]] = {}

    def resolve(self, questions: Iterable[Question], *, deadline: float) -> dict[Question, Answer]:
        """Both at the same time. Blocks until all is answered or the deadline passes."""
        running, others = self._begin(questions)
        found = self._dns.resolve(others, deadline=deadline) if others else {}
        wait(running.values(), timeout=max(0.0, deadline - time.monotonic()))
        return {**found, **_answers(running)}

    async def resolve_async(self, questions: Iterable[Question], *, deadline: float) -> dict[Question, Answer]:
        """The same, awaited."""
        running, others = self._begin(questions)
        found = await self._dns.resolve_async(others, deadline=deadline) if others else {}
        waiting = [asyncio.wrap_future(future) for future in running.values() if not future.done()]
        if waiting:
            await asyncio.wait(waiting, timeout=max(0.0, deadline - time.monotonic()))
        return {**found, **_answers(running)}

    def prefetch(self, questions: Iterable[Question]) -> None:
        """Begin, and let others wait."""
        _, others = self._begin(questions)
        if others:
            self._dns.prefetch(others)

    def at_hand(self, question: Question) -> Answer | None:
        """What was answered a short while ago, or needs nobody to be asked."""
        return self._known(question) if question.rdtype is RecordType.SENDER else self._dns.at_hand(question)

    def reader(self) -> Peek:
        """`at_hand` for one evaluation."""
        at_hand = self._dns.reader()
        return lambda question: self._known(question) if question.rdtype is RecordType.SENDER else at_hand(question)

    def use_this_loop(self) -> None:
        """For the DNS; the sources stay on their threads."""
        self._dns.use_this_loop()

    def warm_up(self, *, within_s: float) -> None:
        """Have each thread connect to the sources: that takes longer than a question may."""
        self._dns.warm_up(within_s=within_s)
        # Not their own address: that, the configuration may grant without asking anybody.
        asked = [
            sender_question(b"%d@warm-up.invalid" % number, b"other@warm-up.invalid") for number in range(THREADS)
        ]
        wait([self._asked(question) for question in asked], timeout=within_s)

    def close(self) -> None:
        """Let what runs end by itself."""
        self._dns.close()
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._senders.close()

    def _begin(self, questions: Iterable[Question]) -> tuple[dict[Question, Future[Answer]], list[Question]]:
        """What is being asked of the sources now, and what is for the DNS."""
        running: dict[Question, Future[Answer]] = {}
        others: list[Question] = []
        for question in questions:
            if question.rdtype is not RecordType.SENDER:
                others.append(question)
            elif (known := self._known(question)) is not None:
                running[question] = _done(known)
            else:
                running[question] = self._asked(question)
        return running, others

    def _asked(self, question: Question) -> Future[Answer]:
        with self._lock:
            future = self._under_way.get(question)
            if future is not None:
                return future
            if len(self._under_way) >= MAX_UNDER_WAY:
                return _done(_unanswered(question, "too many questions wait for the sources"))
            future = self._under_way[question] = self._threads.submit(self._ask, question)
            return future

    def _ask(self, question: Question) -> Answer:
        try:
            return permission_answer(question, self._senders.ask(*asked_of(question)))
        except Exception as error:  # noqa: BLE001 - a fault of ours or of a driver: the message waits, and the log says why
            return _unanswered(question, f"{type(error).__name__}: {error}")
        finally:
            # Before anybody has the answer: who has it finds its place free.
            with self._lock:
                del self._under_way[question]

    def _known(self, question: Question) -> Answer | None:
        login, address = asked_of(question)
        who, what = self._senders.rules.login(login), parse_address(address)
        if isinstance(who, Unusable) or isinstance(what, Unusable):
            return permission_answer(question, self._senders.ask(login, address))
        known = self._senders.known(who, what)
        return permission_answer(question, known) if known is not None else None


def _answers(running: dict[Question, Future[Answer]]) -> dict[Question, Answer]:
    return {
        question: future.result()
        if future.done() and not future.cancelled()
        else _unanswered(question, "the sources did not answer in time")
        for question, future in running.items()
    }


def _unanswered(question: Question, why: str) -> Answer:
    return Answer(question, Status.TEMPFAIL, detail=why)


def _done(answer: Answer) -> Future[Answer]:
    future: Future[Answer] = Future()
    future.set_result(answer)
    return future
