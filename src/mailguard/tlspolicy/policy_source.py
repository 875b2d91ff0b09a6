"""PolicySource: the MTA-STS policy that counts for a domain, looked up and fetched when it has to be (RFC 8461 §3.3).

A policy that counts is given at once, and what is published now is looked up meanwhile. Where none counts, the answer
waits for the look-up and the fetch; before that, the store is asked for what memory had no room for. Fetches run in
threads of their own, which end with the process whatever the policy host does; there are never more than the limits
of the cache say, and the slow hosts of one zone leave room for others. What a stranger's slow host keeps occupied is
told apart from there being no policy: `Busy`. For one event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable
from threading import Thread
from typing import TypeVar

from mailguard.dns.answers import Resolver, evaluate_async
from mailguard.dns.turns import Turns, zone_of
from mailguard.domain import Domain
from mailguard.mtasts.cache import CacheLimits, PolicyCache
from mailguard.mtasts.cache_entry import Fetch, HeldPolicy
from mailguard.mtasts.record import Discovery, DiscoveryStatus, discover
from mailguard.mtasts.result import FetchOutcome, FetchReason

__all__ = ["Busy", "FetchTurns", "PolicySource", "in_thread"]

# What is new is written so long after the first of it, in one go.
SAVE_DELAY_S = 1.0
SAVE_AGAIN_S = 60.0
LAST_SAVE_S = 10.0
# How long at most nobody looks whether a refresh is due: one may have ended.
REFRESH_TICK_S = 1.0
# Postfix gives a socketmap 100 s. All that is waited for otherwise takes less than the rest.
WAIT_S = 60.0
# A look into a local file.
RECALL_WAIT_S = 5.0
# The part of all fetches that may be of hosts in one zone: who has many silent names there holds up nobody else.
ZONE_SHARE = 4
# A host that takes longer is slow; an honest one answers in less than one second.
SLOW_AFTER_S = 5.0
# For so long after that, the zone has its turns together with all others that were slow.
SLOW_FOR_S = 3_600.0
# Beyond this many, those that were slow longest ago are as good as new.
MAX_SLOW_ZONES = 10_000

# No name has it.
_SLOW_ZONES = "slow zones"
_LOGGER = "mailguard"
T = TypeVar("T")


class Busy(Exception):
    """It cannot be said now which policy counts."""


class FetchTurns:
    """How many fetches go on, in all and in one zone.

    The zones that were slow of late count as one: who has several of them holds others up once, and not for good.
    """

    def __init__(self, at_once: int) -> None:
        self._turns = Turns(at_once=at_once, at_once_in_zone=max(1, at_once // ZONE_SHARE))
        # Until when they count as slow; the one that was slow longest ago in front.
        self._slow: dict[str, float] = {}

    @contextlib.asynccontextmanager
    async def turn(self, domain: Domain) -> AsyncIterator[None]:
        """Wait for a turn, and have it meanwhile."""
        loop = asyncio.get_running_loop()
        own_zone = zone_of(domain)
        zone = _SLOW_ZONES if self._slow.get(own_zone, 0.0) > loop.time() else own_zone
        begun: asyncio.Future[None] = loop.create_future()

        def begin() -> None:
            if begun.done():
                self._turns.give_back(zone)  # nobody waits for it any more
            else:
                begun.set_result(None)

        self._turns.take(zone, begin)
        try:
            await begun
        except asyncio.CancelledError:
            if not begun.cancelled():
                self._turns.give_back(zone)
            raise
        slow = loop.call_later(SLOW_AFTER_S, self._note_slow, own_zone)
        try:
            yield
        finally:
            slow.cancel()
            self._turns.give_back(zone)

    def _note_slow(self, zone: str) -> None:
        self._slow.pop(zone, None)
        self._slow[zone] = asyncio.get_running_loop().time() + SLOW_FOR_S
        if len(self._slow) > MAX_SLOW_ZONES:
            del self._slow[next(iter(self._slow))]


class PolicySource:
    """The policies of a PolicyCache, kept up to date."""

    def __init__(
        self,
        policies: PolicyCache,
        limits: CacheLimits,
        fetch: Callable[[Domain], FetchOutcome],
        resolver: Resolver,
        *,
        lookup_s: float,
        now: Callable[[], float] = time.time,
    ) -> None:
        """`fetch` blocks, and runs in a thread; `limits` are those of `policies`. `lookup_s` is for a DNS look-up."""
        self._policies = policies
        self._fetch_policy = fetch
        self._resolver = resolver
        self.lookup_s = lookup_s
        self._now = now
        # The refreshes have room of their own, so that they always come through.
        self._turns = FetchTurns(max(1, limits.fetches - limits.refreshes))
        self._looking_up: dict[Domain, asyncio.Task[None]] = {}
        self._fetching: dict[Domain, asyncio.Task[None]] = {}
        self._is_unsaved = asyncio.Event()
        # The first time for what `load` may not have been able to read, which is then read again.
        self._is_unsaved.set()
        self._has_ended = asyncio.Event()
        """A fetch has, so that there is room for another."""

    async def load(self) -> int:
        """Read the store, once, at the start; how many policies it had."""
        return await in_thread(lambda: self._policies.load(now=self._now()))

    async def policy_for(self, domain: Domain) -> HeldPolicy | None:
        """The policy that counts. Raises Busy."""
        standing = self._policies.policy_for(domain, now=self._now())
        if standing.is_to_be_recalled:
            # Where the store does not answer, what is published now has to do.
            with contextlib.suppress(TimeoutError):
                recalling = in_thread(lambda: self._policies.recall(domain, now=self._now()))
                await asyncio.wait_for(recalling, RECALL_WAIT_S)
            standing = self._policies.policy_for(domain, now=self._now())
        if standing.held is None and not standing.is_to_be_looked_up and standing.fetch is None:
            return None
        if standing.held is not None and not standing.is_to_be_looked_up:
            return standing.held
        task = self._look_up_once(domain)
        if standing.held is not None:
            return standing.held
        try:
            await asyncio.wait_for(asyncio.shield(task), WAIT_S)
        except TimeoutError:
            raise Busy(f"the MTA-STS policy of {domain} is not there yet") from None
        return self._policies.policy_for(domain, now=self._now()).held

    async def keep_fresh(self) -> None:
        """Refresh what is due, and write what is new; runs until it is cancelled."""
        await asyncio.gather(self._refresh_due(), self._save_what_is_new())

    async def close(self) -> None:
        """Write what is not in the store yet. Fetches that go on are left to themselves."""
        tasks = [*self._looking_up.values(), *self._fetching.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._save(), LAST_SAVE_S)

    # -- what is published now

    def _look_up_once(self, domain: Domain) -> asyncio.Task[None]:
        task = self._looking_up.get(domain)
        if task is None:
            task = self._looking_up[domain] = asyncio.create_task(self._look_up(domain))
            task.add_done_callback(lambda _: self._looking_up.pop(domain, None))
        return task

    async def _look_up(self, domain: Domain) -> None:
        deadline = time.monotonic() + self.lookup_s
        discovery = await evaluate_async(lambda answers: discover(domain, answers), self._resolver, deadline=deadline)
        if discovery.status is DiscoveryStatus.FOUND:
            # First a turn: without one the cache would have no room, which looks as if there was nothing to fetch.
            async with self._turns.turn(domain):
                await self._notice(domain, discovery)
        else:
            # There is no new policy; the one that counts may be due to be fetched again.
            await self._notice(domain, discovery)

    async def _notice(self, domain: Domain, discovery: Discovery) -> None:
        fetch = self._policies.noticed(domain, discovery, now=self._now())
        task = self._begin(fetch) if fetch is not None else self._fetching.get(domain)
        if task is not None:
            await asyncio.shield(task)

    def _begin(self, fetch: Fetch) -> asyncio.Task[None]:
        task = self._fetching[fetch.domain] = asyncio.create_task(self._fetch(fetch))
        task.add_done_callback(lambda _: self._over(fetch.domain))
        return task

    def _over(self, domain: Domain) -> None:
        self._fetching.pop(domain, None)
        self._has_ended.set()

    async def _fetch(self, fetch: Fetch) -> None:
        outcome = FetchOutcome(reason=FetchReason.FAULT, detail="the fetch was given up")
        try:
            outcome = await in_thread(lambda: self._fetch_policy(fetch.domain))
        except Exception as error:  # noqa: BLE001  # the edge: whatever a policy host makes of us is no answer to mail
            outcome = FetchOutcome(reason=FetchReason.FAULT, detail=type(error).__name__)
            logging.getLogger(_LOGGER).error(
                "a policy could not be fetched: our own error",
                extra={"fields": {"domain": fetch.domain, "error": repr(error)}},
            )
        finally:
            self._policies.fetched(fetch, outcome, now=self._now())
        if outcome.policy is not None:
            self._is_unsaved.set()

    # -- refresh and store

    async def _refresh_due(self) -> None:
        while True:
            for fetch in self._policies.due(now=self._now()):
                self._begin(fetch)
            self._has_ended.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._has_ended.wait(), REFRESH_TICK_S)

    async def _save_what_is_new(self) -> None:
        while True:
            await self._is_unsaved.wait()
            await asyncio.sleep(SAVE_DELAY_S)
            self._is_unsaved.clear()
            if not await self._save():
                await asyncio.sleep(SAVE_AGAIN_S)
                self._is_unsaved.set()

    async def _save(self) -> bool:
        try:
            return await in_thread(lambda: self._policies.save(now=self._now()))
        except Exception:  # the edge: what cannot be written is in memory, and mail waits for neither
            logging.getLogger(_LOGGER).exception("policies could not be written: our own error")
            return False


async def in_thread(act: Callable[[], T]) -> T:
    """`act` in a thread of its own that does not keep the process from ending, as one of a pool would."""
    loop = asyncio.get_running_loop()
    over: asyncio.Future[T] = loop.create_future()

    def tell(result: T | None, error: Exception | None) -> None:
        if not over.done():
            if error is not None:
                over.set_exception(error)
            else:
                over.set_result(result)  # type: ignore[arg-type]  # a T where there is no error

    def run() -> None:
        result, error = None, None
        try:
            result = act()
        except Exception as raised:  # noqa: BLE001  # told to whoever waits
            error = raised
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
            loop.call_soon_threadsafe(tell, result, error)

    Thread(target=run, name="mailguard-policy", daemon=True).start()
    return await over
