"""Look-ups under way: each question once, over one server after the other, within fixed bounds.

RFC 1034 §5.3.1 (stub resolvers), RFC 1035 §7.2 and §7.3 (asking again, reading replies). A look-up belongs to no
caller: it goes on when a caller has lost patience, fills the cache, and ends by itself. Left out: threads and
deadlines of callers (live.py). Belongs to one event loop; nothing here is safe to call from another thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import dns.name

from mailguard.dns.cache import AnswerCache
from mailguard.dns.exchange import NoReply, exchange
from mailguard.dns.names import escaped_name, why_unaskable
from mailguard.dns.question import Answer, Question, Status
from mailguard.dns.reply import ServerFailure, Unfinished, read_reply
from mailguard.dns.servers import Server, Servers

__all__ = ["Lookups"]

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


@dataclass(slots=True)
class _Zone:
    """The turns of one zone, and how many look-ups hold or await one."""

    turns: asyncio.Semaphore
    lookups: int = 0


class Lookups:
    """The look-ups of one event loop."""

    def __init__(self, servers: Servers, cache: AnswerCache, *, query_timeout_s: float) -> None:
        self._servers = servers
        self._cache = cache
        self._query_timeout_s = query_timeout_s
        self._under_way: dict[Question, asyncio.Task[Answer]] = {}
        self._trials: set[asyncio.Task[None]] = set()
        self._turns = asyncio.Semaphore(MAX_AT_ONCE)
        self._zones: dict[str, _Zone] = {}

    def start(self, question: Question, deliver: Callable[[Answer], None]) -> None:
        """Look `question` up, or join the look-up that is under way; `deliver` is called once, on this loop."""
        answer = self._cache.get(question)
        if answer is not None:
            deliver(answer)
            return
        task = self._under_way.get(question)
        if task is None:
            if len(self._under_way) >= MAX_UNDER_WAY:
                deliver(_tempfail(question, f"more than {MAX_UNDER_WAY} look-ups are under way"))
                return
            task = asyncio.get_running_loop().create_task(self._run(question))
            self._under_way[question] = task

        def done(task: asyncio.Task[Answer]) -> None:
            deliver(_tempfail(question, "the resolver was closed") if task.cancelled() else task.result())

        task.add_done_callback(done)

    async def stop(self) -> None:
        """End every look-up; those who wait are told so."""
        tasks = [*self._under_way.values(), *self._trials]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, question: Question) -> Answer:
        try:
            async with asyncio.timeout(LOOKUP_LIMIT_S), self._turn(question):
                answer = await self._look_up(question)
        except TimeoutError:
            answer = _tempfail(question, f"no answer in {LOOKUP_LIMIT_S:g} s")
        except Exception as error:  # noqa: BLE001  # the edge: no reply, however malformed, stops a message
            answer = _tempfail(question, f"internal error: {type(error).__name__}")
        finally:
            del self._under_way[question]
        self._cache.put(answer)
        return answer

    async def _look_up(self, question: Question) -> Answer:
        outcome = await self._ask(question, None)
        # read_reply counts the aliases and gives up after MAX_ALIASES.
        while isinstance(outcome, Unfinished):
            refusal = why_unaskable(escaped_name(outcome.target.labels))
            if refusal:
                return _tempfail(question, f"an alias that is not asked for: {refusal}")
            outcome = await self._ask(question, outcome)
        return outcome

    async def _ask(self, question: Question, after: Unfinished | None) -> Answer | Unfinished:
        """What the first server to answer says; TEMPFAIL if none does."""
        self._try_a_blamed_server(question)
        failed: list[Server] = []
        detail = ""
        candidates = self._servers.in_order()
        for _ in range(ROUNDS):
            silent: list[Server] = []
            for server in candidates:
                try:
                    outcome = await self._ask_server(server, question, after)
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
            candidates = silent
        return _tempfail(question, detail)

    async def _ask_server(self, server: Server, question: Question, after: Unfinished | None) -> Answer | Unfinished:
        at = server.at
        name = after.target if after else dns.name.from_text(question.name)
        message = await exchange(
            name, question.rdtype, server=at.address, port=at.port, timeout_s=self._query_timeout_s
        )
        return read_reply(question, message, server=at.address, trust_ad=at.trust_ad, after=after)

    def _try_a_blamed_server(self, question: Question) -> None:
        server = self._servers.due_for_trial()
        if server is not None:
            trial = asyncio.get_running_loop().create_task(self._try(server, question))
            self._trials.add(trial)
            trial.add_done_callback(self._trials.discard)

    async def _try(self, server: Server, question: Question) -> None:
        try:
            await self._ask_server(server, question, None)
        except Exception:  # noqa: BLE001  # the edge: a trial that fails, however, leaves the blame where it is
            return
        self._servers.answered(server, after=())

    @asynccontextmanager
    async def _turn(self, question: Question) -> AsyncIterator[None]:
        name = _zone(question.name)
        zone = self._zones.setdefault(name, _Zone(asyncio.Semaphore(MAX_AT_ONCE_IN_ZONE)))
        zone.lookups += 1
        try:
            async with zone.turns, self._turns:
                yield
        finally:
            zone.lookups -= 1
            if not zone.lookups:
                del self._zones[name]


def _zone(name: str) -> str:
    """What stands for the zone that `name` is in: the last two labels, or the network of a reverse name."""
    labels = name.split(".")
    return ".".join(labels[-4:] if labels[-1] == "arpa" else labels[-2:])


def _tempfail(question: Question, detail: str) -> Answer:
    return Answer(question, Status.TEMPFAIL, detail=detail)
