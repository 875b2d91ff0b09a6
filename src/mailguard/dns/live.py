"""LiveResolver: answers from the DNS, through a cache, over one event loop in a background thread.

RFC 1034 §5.3.1 (a stub resolver; the servers it asks recurse). The cache is read in the caller's thread; what it
lacks goes to the loop in one hop for a whole batch. The thread begins with the first look-up and not before, so
that a process may fork until then; a child of a process that did look something up starts afresh, with its own
cache, thread and sockets. A program that is one event loop lends that loop instead, which saves the hops and the
thread. A resolver that is dropped without being closed ends by itself, with a ResourceWarning. Thread-safe. Left out:
DNSSEC validation, which is the server's.
"""

from __future__ import annotations

import asyncio
import os
import time
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import inf
from threading import Lock
from types import NoneType

from mailguard.argument import check_type
from mailguard.clock import clock_that_never_sleeps
from mailguard.dns.answers import Peek, Resolver
from mailguard.dns.cache import DEFAULT_CACHE_BYTES, DEFAULT_CACHE_ENTRIES, AnswerCache
from mailguard.dns.lookup_loop import LookupLoop
from mailguard.dns.question import Answer, Question, Status
from mailguard.dns.servers import ServerAddress, Servers, server_addresses
from mailguard.dns.zone import ZoneResolver
from mailguard.errors import ConfigError

__all__ = ["LiveResolver", "ResolverConfig", "open_resolver"]


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
    check_type("config", config, ResolverConfig, NoneType)
    config = config or ResolverConfig()
    if config.zone_file is not None:
        return ZoneResolver.from_file(config.zone_file)
    return LiveResolver(config)


class LiveResolver(Resolver):
    """Asks the DNS. Opening one neither asks nor starts anything."""

    def __init__(self, config: ResolverConfig | None = None, *, clock: Callable[[], float] | None = None) -> None:
        """`clock` times the cache and the health of servers, by default one that goes on while the host is suspended.

        Deadlines are of `time.monotonic()`.

        Raises ConfigError.
        """
        # Of this process and of those it was forked from. Theirs are kept but never used: to dispose of an event
        # loop would take its parent's sockets out of the epoll set that both share.
        self._loops: dict[int, LookupLoop] = {}
        config = config or ResolverConfig()
        if not 0 < config.port < 65536 or not 0 < config.query_timeout_s < inf:
            raise ConfigError("dns: port must be 1 to 65535, and query_timeout_s more than 0")
        if config.cache_entries < 1 or config.cache_bytes < 1:
            raise ConfigError("dns: cache_entries and cache_bytes must be 1 or more")
        self._config = config
        self._clock = clock or clock_that_never_sleeps()
        self._addresses = server_addresses(
            config.nameservers, port=config.port, trust_ad=config.trust_ad, resolv_conf=config.resolv_conf
        )

    @property
    def servers(self) -> tuple[ServerAddress, ...]:
        """The servers that are asked, in the configured order."""
        return self._addresses

    def use_this_loop(self) -> None:
        """See Resolver.use_this_loop. Raises OSError if there is no file left, and RuntimeError if it is too late."""
        self._loop().use_this_loop()

    def resolve(self, questions: Iterable[Question], *, deadline: float) -> dict[Question, Answer]:
        """See Resolver.resolve. Raises RuntimeError where it would hold up the event loop that is to answer."""
        lookups = self._loop()
        answers, missing = lookups.cached(questions)
        if missing:
            if lookups.is_here():
                raise RuntimeError("the event loop that is to answer cannot wait for it: await resolve_async")
            over = Lock()
            over.acquire()
            batch = _Batch(len(missing), over.release)
            lookups.begin(missing, batch.deliver, deadline=deadline)
            over.acquire(timeout=max(0.0, deadline - time.monotonic()))
            batch.complete(answers, missing)
        return answers

    async def resolve_async(self, questions: Iterable[Question], *, deadline: float) -> dict[Question, Answer]:
        """See Resolver.resolve_async."""
        lookups = self._loop()
        answers, missing = lookups.cached(questions)
        if missing:
            loop = asyncio.get_running_loop()
            over = loop.create_future()

            def end() -> None:
                if not over.done():
                    over.set_result(None)

            def end_from_elsewhere() -> None:
                try:
                    loop.call_soon_threadsafe(end)
                except RuntimeError:
                    return  # that loop is closed: nobody waits

            batch = _Batch(len(missing), end if lookups.is_here() else end_from_elsewhere)
            timer = loop.call_later(max(0.0, deadline - time.monotonic()), end)
            try:
                lookups.begin(missing, batch.deliver, deadline=deadline)
                await over
            finally:
                timer.cancel()
            batch.complete(answers, missing)
        return answers

    def prefetch(self, questions: Iterable[Question]) -> None:
        """See Resolver.prefetch."""
        lookups = self._loop()
        _, missing = lookups.cached(questions)
        if missing:
            lookups.begin(missing, _drop, deadline=None)

    def at_hand(self, question: Question) -> Answer | None:
        """See Resolver.at_hand: what the cache has."""
        return self._loop().cache.get(question)

    def reader(self) -> Peek:
        """See Resolver.reader."""
        return self._loop().cache.reader()

    def close(self) -> None:
        """End the thread and close the sockets. Questions still open, and later ones, are answered TEMPFAIL."""
        self._loop().close()

    def __del__(self) -> None:
        # Nothing of the thread leads back here: it would keep its event loop and its files for ever.
        lookups = self._loops.get(os.getpid())
        if lookups is not None and lookups.abandon():
            warnings.warn(f"a resolver was not closed: {self!r}", ResourceWarning, source=self, stacklevel=2)

    def _loop(self) -> LookupLoop:
        pid = os.getpid()
        lookups = self._loops.get(pid)
        if lookups is None:
            # setdefault, not a lock: a lock might have been held by another thread when this process was forked.
            lookups = self._loops.setdefault(pid, self._new_loop())
        return lookups

    def _new_loop(self) -> LookupLoop:
        config = self._config
        return LookupLoop(
            Servers(self._addresses, clock=self._clock),
            AnswerCache(clock=self._clock, max_entries=config.cache_entries, max_bytes=config.cache_bytes),
            query_timeout_s=config.query_timeout_s,
        )


def _drop(answer: Answer) -> None:
    """What is looked up ahead goes to the cache, and to nobody."""


class _Batch:
    """The questions that one caller waits for. Filled by the loop's thread, read by the caller's."""

    __slots__ = ("_answers", "_open", "_over")

    def __init__(self, size: int, over: Callable[[], None]) -> None:
        """`over` is called once, by whoever delivers the last answer, perhaps when nobody waits any more."""
        self._answers: dict[Question, Answer] = {}
        self._open = size
        self._over = over

    def deliver(self, answer: Answer) -> None:
        self._answers[answer.question] = answer
        self._open -= 1
        if not self._open:
            self._over()

    def complete(self, answers: dict[Question, Answer], missing: Iterable[Question]) -> None:
        """Put an answer to each of `missing` into `answers`: TEMPFAIL for those still open."""
        for question in missing:
            answers[question] = self._answers.get(question) or Answer(
                question, Status.TEMPFAIL, detail="no answer by the deadline"
            )
