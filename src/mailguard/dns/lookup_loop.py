"""LookupLoop: the cache of one process, and the event loop on which what it lacks is looked up.

The loop is our own, in a thread that begins with the first look-up, or one that a program lends. Either way a batch
of questions goes to it in one hop, and in the thread of that loop in none. Thread-safe.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, replace
from threading import Lock, Thread, get_ident

from mailguard.dns.cache import AnswerCache
from mailguard.dns.lookups import Deliver, Lookups
from mailguard.dns.names import why_unaskable
from mailguard.dns.question import Answer, Question, Status
from mailguard.dns.servers import Servers

__all__ = ["LookupLoop"]

# For the thread to begin, and to end; either takes milliseconds.
_THREAD_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class _Running:
    """The loop, and its thread if that is ours."""

    loop: asyncio.AbstractEventLoop
    lookups: Lookups
    stop: asyncio.Event
    thread_id: int
    thread: Thread | None = None

    def is_here(self) -> bool:
        return self.thread_id == get_ident() and self.loop.is_running()


class LookupLoop:
    """See above. It must not be used in another process than the one that made it."""

    def __init__(self, servers: Servers, cache: AnswerCache, *, query_timeout_s: float) -> None:
        self.cache = cache
        self._servers = servers
        self._query_timeout_s = query_timeout_s
        self._lock = Lock()
        self._running: _Running | None = None
        # Held, because an event loop does not hold its tasks.
        self._lent: asyncio.Task[None] | None = None
        self._closed = False

    def cached(self, questions: Iterable[Question]) -> tuple[dict[Question, Answer], tuple[Question, ...]]:
        """The answers that are at hand, and the questions, each once, that have none."""
        get = self.cache.get
        answers: dict[Question, Answer] = {}
        missing: dict[Question, None] = {}
        for question in questions:
            answer = get(question)
            if answer is None:
                missing[question] = None
            else:
                answers[question] = answer
        return answers, tuple(missing)

    def is_here(self) -> bool:
        """Whether the loop runs in this thread."""
        running = self._running
        return running is not None and running.is_here()

    def begin(self, questions: tuple[Question, ...], deliver: Deliver, *, deadline: float | None) -> None:
        """Start the look-ups, unless it is too late for them. Never raises."""
        if deadline is not None and deadline <= time.monotonic():
            return
        asked: list[Question] = []
        for question in questions:
            refusal = why_unaskable(question.name)
            if refusal:
                deliver(Answer(question, Status.TEMPFAIL, detail=f"not asked: {refusal}"))
            else:
                asked.append(question)
        if not asked:
            return
        try:
            running = self._start()
            is_here = running.is_here()
            if not is_here:
                running.loop.call_soon_threadsafe(_start_lookups, running.lookups, asked, deliver)
        except (OSError, RuntimeError, TimeoutError) as error:
            # No thread or no file left, or the resolver is closed.
            for question in asked:
                deliver(Answer(question, Status.TEMPFAIL, detail=f"the resolver does not run: {error}"))
        else:
            if is_here:
                _start_lookups(running.lookups, asked, deliver)

    def close(self) -> None:
        """End the look-ups, and the thread if it is ours. Closing twice is harmless."""
        running = self._end()
        if running is not None and running.thread is not None:
            running.thread.join(_THREAD_TIMEOUT_S)

    def abandon(self) -> bool:
        """`close` without waiting for the thread. Whether there was something to end."""
        return self._end() is not None

    def use_this_loop(self) -> None:
        """Look up on the event loop that runs here. Raises OSError, and RuntimeError if it is too late for that."""
        loop = asyncio.get_running_loop()
        with self._lock:
            if self._closed or self._running is not None:
                raise RuntimeError("the resolver was closed, or has looked something up")
            lookups, stop = self._lookups(), asyncio.Event()
            self._running = _Running(loop, lookups, stop, get_ident())
        self._lent = loop.create_task(_stop_later(lookups, stop))

    def _end(self) -> _Running | None:
        """Tell the loop to end; what ran until now."""
        with self._lock:
            self._closed = True
            running, self._running = self._running, None
        if running is not None:
            with suppress(RuntimeError):  # the loop was lent, and is closed
                running.loop.call_soon_threadsafe(running.stop.set)
        return running

    def _start(self) -> _Running:
        """The running loop, begun if need be. Raises OSError or RuntimeError if there can be none."""
        running = self._running
        if running is not None:
            return running
        with self._lock:
            if self._closed:
                raise RuntimeError("it was closed")
            if self._running is None:
                ready: Future[_Running] = Future()
                thread = Thread(target=self._run, args=(ready,), name="mailguard-dns", daemon=True)
                thread.start()
                self._running = replace(ready.result(_THREAD_TIMEOUT_S), thread=thread)
            return self._running

    def _run(self, ready: Future[_Running]) -> None:
        try:
            with asyncio.Runner() as runner:
                runner.get_loop()  # before there is anything to be run on it, and to be missed if it is not
                runner.run(self._serve(ready))
        except (OSError, MemoryError) as error:
            # The loop could not be made: no files left. Once it runs, only a want of memory can end it.
            if ready.done():
                raise
            ready.set_exception(OSError(str(error) or type(error).__name__))
        finally:
            with self._lock:
                # The next look-up begins another one.
                if self._running is not None and self._running.thread_id == get_ident():
                    self._running = None

    async def _serve(self, ready: Future[_Running]) -> None:
        lookups, stop = self._lookups(), asyncio.Event()
        ready.set_result(_Running(asyncio.get_running_loop(), lookups, stop, get_ident()))
        try:
            await stop.wait()
        finally:
            await lookups.stop()

    def _lookups(self) -> Lookups:
        return Lookups(self._servers, self.cache, query_timeout_s=self._query_timeout_s)


async def _stop_later(lookups: Lookups, stop: asyncio.Event) -> None:
    await stop.wait()
    await lookups.stop()


def _start_lookups(lookups: Lookups, questions: Iterable[Question], deliver: Deliver) -> None:
    for question in questions:
        lookups.start(question, deliver)
