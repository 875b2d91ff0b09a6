"""LiveResolver: answers from the DNS, through a cache, over one event loop in a background thread.

RFC 1034 §5.3.1 (a stub resolver; the servers it asks recurse). The cache is read in the caller's thread; what it
lacks goes to the loop in one hop for a whole batch. The thread begins with the first look-up and not before, so
that a process may fork until then; a child of a process that did look something up starts afresh, with its own
cache, thread and sockets. Thread-safe. Left out: DNSSEC validation, which is the server's.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass
from threading import Lock, Thread

from mailguard.dns.answers import Resolver
from mailguard.dns.cache import DEFAULT_CACHE_BYTES, DEFAULT_CACHE_ENTRIES, AnswerCache
from mailguard.dns.lookups import Lookups
from mailguard.dns.names import why_unaskable
from mailguard.dns.question import Answer, Question, Status
from mailguard.dns.servers import ServerAddress, Servers, server_addresses
from mailguard.dns.zone import ZoneResolver
from mailguard.errors import ConfigError

__all__ = ["LiveResolver", "ResolverConfig", "open_resolver"]

# For the thread to begin, and to end; either takes milliseconds.
_THREAD_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class ResolverConfig:
    """How to resolve. `nameservers` are addresses; without any, `resolv_conf` is read when a resolver is opened."""

    nameservers: tuple[str, ...] = ()
    port: int = 53
    query_timeout_s: float = 2.0
    cache_entries: int = DEFAULT_CACHE_ENTRIES
    cache_bytes: int = DEFAULT_CACHE_BYTES
    trust_ad: tuple[str, ...] = ()
    """Servers whose AD bit counts beside those on loopback: the way to them must be as safe as to loopback."""
    zone_file: str | None = None
    """Answer from this master file and ask nobody."""
    resolv_conf: str = "/etc/resolv.conf"


def open_resolver(config: ResolverConfig | None = None) -> Resolver:
    """The resolver that `config` describes. Raises ConfigError or ZoneError; a dead server is no error."""
    config = config or ResolverConfig()
    if config.zone_file is not None:
        return ZoneResolver.from_file(config.zone_file)
    return LiveResolver(config)


class LiveResolver(Resolver):
    """Asks the DNS. Opening one neither asks nor starts anything."""

    def __init__(self, config: ResolverConfig | None = None, *, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` times the cache and the health of servers; deadlines are of `time.monotonic()`.

        Raises ConfigError.
        """
        config = config or ResolverConfig()
        if not 0 < config.port < 65536 or config.query_timeout_s <= 0:
            raise ConfigError("dns: port must be 1 to 65535, and query_timeout_s more than 0")
        if config.cache_entries < 1 or config.cache_bytes < 1:
            raise ConfigError("dns: cache_entries and cache_bytes must be 1 or more")
        self._config = config
        self._clock = clock
        self._addresses = server_addresses(
            config.nameservers, port=config.port, trust_ad=config.trust_ad, resolv_conf=config.resolv_conf
        )
        # Of this process and of those it was forked from. Theirs are kept but never used: to dispose of an event
        # loop would take its parent's sockets out of the epoll set that both share.
        self._engines: dict[int, _Engine] = {}

    @property
    def servers(self) -> tuple[ServerAddress, ...]:
        """The servers that are asked, in the configured order."""
        return self._addresses

    def resolve(self, questions: Iterable[Question], *, deadline: float) -> dict[Question, Answer]:
        """See Resolver.resolve."""
        engine = self._engine()
        answers, missing = engine.cached(questions)
        if missing:
            batch = engine.begin(missing, deadline=deadline)
            try:
                batch.done.result(max(0.0, deadline - time.monotonic()))
            except TimeoutError:
                pass
            batch.complete(answers, missing)
        return answers

    async def resolve_async(self, questions: Iterable[Question], *, deadline: float) -> dict[Question, Answer]:
        """See Resolver.resolve_async."""
        engine = self._engine()
        answers, missing = engine.cached(questions)
        if missing:
            batch = engine.begin(missing, deadline=deadline)
            try:
                async with asyncio.timeout(max(0.0, deadline - time.monotonic())):
                    await asyncio.wrap_future(batch.done)
            except TimeoutError:
                pass
            batch.complete(answers, missing)
        return answers

    def prefetch(self, questions: Iterable[Question]) -> None:
        """See Resolver.prefetch."""
        engine = self._engine()
        _, missing = engine.cached(questions)
        if missing:
            engine.begin(missing, deadline=None)

    def at_hand(self, question: Question) -> Answer | None:
        """See Resolver.at_hand: what the cache has."""
        return self._engine().at_hand(question)

    def close(self) -> None:
        """End the thread and close the sockets. Questions still open, and later ones, are answered TEMPFAIL."""
        self._engine().close()

    def _engine(self) -> _Engine:
        pid = os.getpid()
        engine = self._engines.get(pid)
        if engine is None:
            # setdefault, not a lock: a lock might have been held by another thread when this process was forked.
            engine = self._engines.setdefault(pid, _Engine(self._config, self._addresses, self._clock))
        return engine


class _Batch:
    """The questions that one caller waits for. Filled by the loop's thread, read by the caller's."""

    def __init__(self, size: int) -> None:
        self._answers: dict[Question, Answer] = {}
        self._open = size
        self.done: Future[None] = Future()
        # From here on nobody can cancel it, so that whoever stops waiting does no harm to the loop.
        self.done.set_running_or_notify_cancel()

    def deliver(self, answer: Answer) -> None:
        self._answers[answer.question] = answer
        self._open -= 1
        if not self._open:
            self.done.set_result(None)

    def complete(self, answers: dict[Question, Answer], missing: Iterable[Question]) -> None:
        """Put an answer to each of `missing` into `answers`: TEMPFAIL for those still open."""
        for question in missing:
            answers[question] = self._answers.get(question) or Answer(
                question, Status.TEMPFAIL, detail="no answer by the deadline"
            )


@dataclass(frozen=True, slots=True)
class _Running:
    """The loop in its thread."""

    thread: Thread
    loop: asyncio.AbstractEventLoop
    lookups: Lookups
    stop: asyncio.Event


class _Engine:
    """Cache, thread and loop of one process."""

    def __init__(
        self, config: ResolverConfig, addresses: tuple[ServerAddress, ...], clock: Callable[[], float]
    ) -> None:
        self._cache = AnswerCache(clock=clock, max_entries=config.cache_entries, max_bytes=config.cache_bytes)
        self._servers = Servers(addresses, clock=clock)
        self._query_timeout_s = config.query_timeout_s
        self._lock = Lock()
        self._running: _Running | None = None
        self._closed = False

    def at_hand(self, question: Question) -> Answer | None:
        """The answer that is in the cache."""
        return self._cache.get(question)

    def cached(self, questions: Iterable[Question]) -> tuple[dict[Question, Answer], tuple[Question, ...]]:
        """The answers that are at hand, and the questions, each once, that have none."""
        get = self._cache.get
        answers: dict[Question, Answer] = {}
        missing: dict[Question, None] = {}
        for question in questions:
            answer = get(question)
            if answer is None:
                missing[question] = None
            else:
                answers[question] = answer
        return answers, tuple(missing)

    def begin(self, questions: tuple[Question, ...], *, deadline: float | None) -> _Batch:
        """Start the look-ups, unless it is too late for them. Never raises."""
        batch = _Batch(len(questions))
        if deadline is not None and deadline <= time.monotonic():
            return batch
        asked: list[Question] = []
        for question in questions:
            refusal = why_unaskable(question.name)
            if refusal:
                batch.deliver(Answer(question, Status.TEMPFAIL, detail=f"not asked: {refusal}"))
            else:
                asked.append(question)
        if not asked:
            return batch
        try:
            running = self._start()
            running.loop.call_soon_threadsafe(_start_lookups, running.lookups, asked, batch)
        except (OSError, RuntimeError, TimeoutError) as error:
            # No thread or no file left, or the resolver is closed.
            for question in asked:
                batch.deliver(Answer(question, Status.TEMPFAIL, detail=f"the resolver does not run: {error}"))
        return batch

    def close(self) -> None:
        with self._lock:
            self._closed = True
            running, self._running = self._running, None
        if running is not None:
            running.loop.call_soon_threadsafe(running.stop.set)
            running.thread.join(_THREAD_TIMEOUT_S)

    def _start(self) -> _Running:
        """The running loop, begun if need be. Raises OSError or RuntimeError if there can be none."""
        running = self._running
        if running is not None:
            return running
        with self._lock:
            if self._closed:
                raise RuntimeError("it was closed")
            if self._running is None:
                ready: Future[tuple[asyncio.AbstractEventLoop, Lookups, asyncio.Event]] = Future()
                thread = Thread(target=self._run, args=(ready,), name="mailguard-dns", daemon=True)
                thread.start()
                self._running = _Running(thread, *ready.result(_THREAD_TIMEOUT_S))
            return self._running

    def _run(self, ready: Future[tuple[asyncio.AbstractEventLoop, Lookups, asyncio.Event]]) -> None:
        try:
            asyncio.run(self._serve(ready))
        except OSError as error:
            # The loop could not be made: no files left. Once it runs, nothing on it raises.
            if ready.done():
                raise
            ready.set_exception(error)

    async def _serve(self, ready: Future[tuple[asyncio.AbstractEventLoop, Lookups, asyncio.Event]]) -> None:
        lookups = Lookups(self._servers, self._cache, query_timeout_s=self._query_timeout_s)
        stop = asyncio.Event()
        ready.set_result((asyncio.get_running_loop(), lookups, stop))
        await stop.wait()
        await lookups.stop()


def _start_lookups(lookups: Lookups, questions: Iterable[Question], batch: _Batch) -> None:
    for question in questions:
        lookups.start(question, batch.deliver)
