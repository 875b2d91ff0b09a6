"""Look-ups under way: each question once, over one server after the other, within fixed bounds.

RFC 1034 §5.3.1 (stub resolvers), RFC 1035 §7.2 and §7.3 (asking again, reading replies). A look-up belongs to no
caller: it goes on when a caller has lost patience, fills the cache, and ends by itself. The first query is sent at
once, and a plain reply to it ends the look-up; only for what comes after anything else a task is made. Left out:
threads and deadlines of callers (live.py). Belongs to one event loop; nothing here is safe to call from another
thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from mailguard.dns.cache import AnswerCache
from mailguard.dns.datagrams import Datagrams
from mailguard.dns.exchange import NoReply, PlainReader, UdpExchange, UdpOutcome, concluded, exchange
from mailguard.dns.names import escaped_name, why_unaskable
from mailguard.dns.plain_reply import read_plain_reply
from mailguard.dns.query import Query, labels_of_question
from mailguard.dns.question import Answer, Question, Status
from mailguard.dns.reply import ServerFailure, Unfinished, read_reply
from mailguard.dns.servers import Server, Servers
from mailguard.dns.turns import Turns, zone_of

__all__ = ["Deliver", "Lookups"]

# Sockets open at a time, of the 1024 files that a process may have without asking for more.
MAX_AT_ONCE = 200
# Of these for names in one zone: a zone that answers slowly on purpose leaves room for all others.
MAX_AT_ONCE_IN_ZONE = 50
# Look-ups that run or wait for their turn; past this, a new one fails at once instead of using memory.
MAX_UNDER_WAY = 4_000
# From its start to its end, the wait for its turn and all servers included.
LOOKUP_LIMIT_S = 15.0
# How often a server that stays silent is asked: a packet may be lost. One that refuses is asked once.
ROUNDS = 2

Deliver = Callable[[Answer], None]


@dataclass(slots=True, eq=False)
class _Lookup:
    """A look-up under way."""

    question: Question
    zone: str
    ends_at: float
    """By the clock of the event loop."""
    waiting: list[Deliver]
    has_turn: bool = False
    limit: asyncio.TimerHandle | None = None
    """While it waits for its turn."""
    first: UdpExchange | None = None
    task: asyncio.Task[None] | None = None


@dataclass(frozen=True, slots=True)
class _First:
    """What came of the first query, to be used instead of asking that server."""

    server: Server
    under_way: UdpExchange
    outcome: UdpOutcome


class Lookups:
    """The look-ups of one event loop, which is running."""

    def __init__(self, servers: Servers, cache: AnswerCache, *, query_timeout_s: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._servers = servers
        self._cache = cache
        self._query_timeout_s = query_timeout_s
        self._under_way: dict[Question, _Lookup] = {}
        self._trials: set[asyncio.Task[None]] = set()
        self._turns = Turns(at_once=MAX_AT_ONCE, at_once_in_zone=MAX_AT_ONCE_IN_ZONE)
        self._datagrams = Datagrams(self._loop)
        self._is_stopped = False

    def start(self, question: Question, deliver: Deliver) -> None:
        """Look `question` up, or join the look-up that is under way; `deliver` is called once, on this loop."""
        answer = self._cache.get(question)
        if answer is not None:
            deliver(answer)
            return
        lookup = self._under_way.get(question)
        if lookup is not None:
            lookup.waiting.append(deliver)
        elif self._is_stopped:
            deliver(_closed(question))
        elif len(self._under_way) >= MAX_UNDER_WAY:
            deliver(_tempfail(question, f"more than {MAX_UNDER_WAY} look-ups are under way"))
        else:
            lookup = _Lookup(question, zone_of(question.name), self._loop.time() + LOOKUP_LIMIT_S, [deliver])
            self._under_way[question] = lookup
            if not self._turns.take(lookup.zone, partial(self._begin, lookup)):
                lookup.limit = self._loop.call_at(lookup.ends_at, self._out_of_time, lookup)

    async def stop(self) -> None:
        """End every look-up; those who wait are told so."""
        self._is_stopped = True
        lookups = tuple(self._under_way.values())
        tasks = [*(lookup.task for lookup in lookups if lookup.task is not None), *self._trials]
        for task in tasks:
            task.cancel()
        for lookup in lookups:
            if lookup.first is not None:
                lookup.first.close()
        await asyncio.gather(*tasks, return_exceptions=True)
        for lookup in tuple(self._under_way.values()):
            self._end(lookup, _closed(lookup.question))
        self._datagrams.close()

    def _begin(self, lookup: _Lookup) -> None:
        """It is its turn: ask the first server."""
        if self._is_stopped or self._under_way.get(lookup.question) is not lookup:
            self._turns.give_back(lookup.zone)
            return
        lookup.has_turn = True
        if lookup.limit is not None:
            lookup.limit.cancel()
        self._try_a_blamed_server(lookup.question)
        server = self._servers.in_order()[0]
        done = partial(self._first_done, lookup, server)
        try:
            lookup.first = UdpExchange(
                labels_of_question(lookup.question.name),
                lookup.question.rdtype,
                datagrams=self._datagrams,
                at=(server.at.address, server.at.port),
                timeout_s=min(self._query_timeout_s, lookup.ends_at - self._loop.time()),
                read_plain=_plain_reader(lookup.question, server),
                done=done,
            )
        except OSError:
            # There is no socket. The task finds the same with each server, and says so.
            self._go_on(lookup, None)

    def _first_done(self, lookup: _Lookup, server: Server, outcome: UdpOutcome) -> None:
        if isinstance(outcome, Answer):
            self._servers.answered(server, after=())
            self._finish(lookup, outcome)
        elif lookup.first is not None:
            if isinstance(outcome, TimeoutError) and lookup.first.timeout_s < self._query_timeout_s:
                self._out_of_time(lookup)
            else:
                self._go_on(lookup, _First(server, lookup.first, outcome))

    def _go_on(self, lookup: _Lookup, first: _First | None) -> None:
        lookup.first = None
        lookup.task = self._loop.create_task(self._run(lookup, first))

    def _out_of_time(self, lookup: _Lookup) -> None:
        self._finish(lookup, _out_of_time(lookup.question))

    async def _run(self, lookup: _Lookup, first: _First | None) -> None:
        question = lookup.question
        try:
            async with asyncio.timeout_at(lookup.ends_at):
                answer = await self._look_up(question, first)
        except TimeoutError:
            answer = _out_of_time(question)
        except Exception as error:  # noqa: BLE001  # the edge: no reply, however malformed, stops a message
            answer = _tempfail(question, f"internal error: {type(error).__name__}")
        self._finish(lookup, answer)

    def _finish(self, lookup: _Lookup, answer: Answer) -> None:
        self._cache.put(answer)
        self._end(lookup, answer)

    def _end(self, lookup: _Lookup, answer: Answer) -> None:
        del self._under_way[lookup.question]
        if lookup.limit is not None:
            lookup.limit.cancel()
        if lookup.has_turn:
            self._turns.give_back(lookup.zone)
        for deliver in lookup.waiting:
            deliver(answer)

    async def _look_up(self, question: Question, first: _First | None) -> Answer:
        outcome = await self._ask(question, None, first)
        # read_reply counts the aliases and gives up after MAX_ALIASES.
        while isinstance(outcome, Unfinished):
            refusal = why_unaskable(escaped_name(outcome.target.labels))
            if refusal:
                return _tempfail(question, f"an alias that is not asked for: {refusal}")
            outcome = await self._ask(question, outcome, None)
        return outcome

    async def _ask(self, question: Question, after: Unfinished | None, first: _First | None) -> Answer | Unfinished:
        """What the first server to answer says; TEMPFAIL if none does. One was asked already, if `first` is given."""
        candidates = self._servers.in_order()
        if first is None:
            self._try_a_blamed_server(question)
        else:
            candidates = [first.server, *(server for server in candidates if server is not first.server)]
        failed: list[Server] = []
        detail = ""
        for _ in range(ROUNDS):
            silent: list[Server] = []
            for server in candidates:
                try:
                    outcome = await self._ask_server(server, question, after, first)
                except NoReply as error:
                    silent.append(server)
                    failed.append(server)
                    detail = str(error)
                except ServerFailure as error:
                    failed.append(server)
                    detail = str(error)
                else:
                    self._servers.answered(server, after=failed)
                    return outcome
                first = None
            candidates = silent
        return _tempfail(question, detail)

    async def _ask_server(
        self, server: Server, question: Question, after: Unfinished | None, first: _First | None
    ) -> Answer | Unfinished:
        at = server.at
        if first is not None:
            reply = await concluded(first.under_way, first.outcome)
        else:
            reply = await exchange(
                after.target.labels[:-1] if after else labels_of_question(question.name),
                question.rdtype,
                datagrams=self._datagrams,
                at=(at.address, at.port),
                timeout_s=self._query_timeout_s,
                read_plain=_none_is_plain if after else _plain_reader(question, server),
            )
        if isinstance(reply, Answer):
            return reply
        return read_reply(question, reply, server=at.address, trust_ad=at.trust_ad, after=after)

    def _try_a_blamed_server(self, question: Question) -> None:
        server = self._servers.due_for_trial()
        if server is not None:
            trial = self._loop.create_task(self._try(server, question))
            self._trials.add(trial)
            trial.add_done_callback(self._trials.discard)

    async def _try(self, server: Server, question: Question) -> None:
        try:
            await self._ask_server(server, question, None, None)
        except Exception:  # noqa: BLE001  # the edge: a trial that fails, however, leaves the blame where it is
            return
        self._servers.answered(server, after=())


def _plain_reader(question: Question, server: Server) -> PlainReader:
    return partial(read_plain_reply, question, server=server.at.address, trust_ad=server.at.trust_ad)


def _none_is_plain(query: Query, wire: bytes) -> None:
    """The reply to a query for the target of an alias: it answers another question than its own."""


def _tempfail(question: Question, detail: str) -> Answer:
    return Answer(question, Status.TEMPFAIL, detail=detail)


def _closed(question: Question) -> Answer:
    return _tempfail(question, "the resolver was closed")


def _out_of_time(question: Question) -> Answer:
    return _tempfail(question, f"no answer in {LOOKUP_LIMIT_S:g} s")
