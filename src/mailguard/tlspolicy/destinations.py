"""Destinations: the reply to each key that Postfix may ask for; from the configuration, at hand, or looked up.

What is asked for is looked up once however many wait for it. A reply that says that something failed is for those who
wait, and is not kept; one that counts is not touched by a look-up that fails. For one event loop.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from mailguard.dane.discover import InsecureMx, discover
from mailguard.dane.result import DanePolicy
from mailguard.dns.answers import Answers, Resolver, evaluate_async
from mailguard.dns.question import Status
from mailguard.domain import Domain
from mailguard.mtasts.cache_entry import HeldPolicy
from mailguard.tlspolicy.decide import Decision, DecisionStatus, Mixed, Why, is_sts_needed, weigh
from mailguard.tlspolicy.next_hop import NextHop, parse_key
from mailguard.tlspolicy.override import DEFAULT, Overrides
from mailguard.tlspolicy.policy_source import Busy
from mailguard.tlspolicy.policy_text import policy_text, reply_to
from mailguard.tlspolicy.reply_cache import ReplyCache
from mailguard.tlspolicy.socketmap import Reply, ReplyStatus, Request

__all__ = ["Destinations", "LookupRules", "Policies"]

TLSRPT_MAP = b"querywithtlsrpt"
"""The name of the map, in lower case, that has replies with what Postfix 3.10 reports."""
# Long enough to sleep, short enough that nobody sees the difference.
_TICK_S = 1.0
_LOGGER = "mailguard"
_NOT_FOUND = Reply(ReplyStatus.NOT_FOUND).octets()


class Policies(Protocol):
    """Where MTA-STS policies come from; the one of mail servers is PolicySource."""

    async def policy_for(self, domain: Domain) -> HeldPolicy | None:
        """The policy that counts. Raises Busy."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class LookupRules:
    """How destinations are looked up."""

    deadline_s: float = 8.0
    """For all look-ups of DANE for one destination."""
    insecure_mx: InsecureMx = InsecureMx.MAY
    mixed: Mixed = Mixed.DANE
    refreshes: int = 8
    """Destinations that are looked up ahead at once."""


@dataclass(frozen=True, slots=True)
class _Found:
    decision: Decision
    ttl_s: float


class Destinations:
    """See above."""

    def __init__(
        self,
        resolver: Resolver,
        policies: Policies | None,
        *,
        overrides: Overrides,
        cache: ReplyCache,
        rules: LookupRules,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Without `policies` there is DANE alone. `clock` times the cache."""
        self._resolver = resolver
        self._policies = policies
        self._overrides = overrides
        self._cache = cache
        self._rules = rules
        self._clock = clock
        self._under_way: dict[bytes, asyncio.Task[_Found]] = {}
        self._outdated: set[asyncio.Task[_Found]] = set()
        self._refreshing: set[asyncio.Task[None]] = set()

    def change(self, overrides: Overrides, rules: LookupRules, cache: ReplyCache) -> None:
        """Answer by these from now on. What is being looked up goes to those who wait for it, and to nobody else."""
        self._overrides, self._rules, self._cache = overrides, rules, cache
        self._outdated |= {*self._under_way.values()}
        self._under_way = {}

    def at_once(self, request: Request) -> bytes | None:
        """The reply, if nothing has to be looked up for it."""
        key = request.key.lower()
        kept = self._cache.get(key, self._clock())
        if kept is not None:
            return kept.reporting if request.map_name.lower() == TLSRPT_MAP else kept.plain
        asked = parse_key(request.key)
        said = self._overrides.policy_for(request.key, asked)
        if said is not None:
            return _NOT_FOUND if said == DEFAULT else Reply(ReplyStatus.OK, said).octets()
        # What subdomains publish is asked for by their names, and an address publishes nothing.
        return None if isinstance(asked, NextHop) and not asked.is_address else _NOT_FOUND

    async def answer(self, request: Request) -> bytes:
        """The reply, looked up where it is not at hand."""
        found_at_once = self.at_once(request)
        if found_at_once is not None:
            return found_at_once
        key, asked = request.key.lower(), parse_key(request.key)
        if not isinstance(asked, NextHop):
            raise TypeError("at_once answers what is no next hop")
        found = await asyncio.shield(self._look_up_once(key, asked, is_asked=True))
        return reply_to(found.decision, with_tlsrpt=request.map_name.lower() == TLSRPT_MAP).octets()

    async def decision(self, next_hop: NextHop) -> Decision:
        """What is looked up for `next_hop`, whatever is at hand or said in the configuration."""
        return (await self._find_out(next_hop)).decision

    async def refresh(self) -> None:
        """Look up ahead what is asked for often; runs until it is cancelled."""
        while True:
            room = self._rules.refreshes - len(self._refreshing)
            for key in self._cache.due(self._clock(), room):
                task = asyncio.create_task(self._look_up_ahead(key))
                self._refreshing.add(task)
                task.add_done_callback(self._refreshing.discard)
            if self._refreshing and len(self._refreshing) >= self._rules.refreshes:
                await asyncio.wait(self._refreshing, return_when=asyncio.FIRST_COMPLETED)
            else:
                await asyncio.sleep(_TICK_S)

    async def close(self) -> None:
        """Give up what is looked up."""
        looking_up = (*self._under_way.values(), *self._outdated)
        tasks: list[asyncio.Task[_Found] | asyncio.Task[None]] = [*looking_up, *self._refreshing]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # -- looking up

    def _look_up_once(self, key: bytes, next_hop: NextHop, *, is_asked: bool) -> asyncio.Task[_Found]:
        task = self._under_way.get(key)
        if task is None:
            task = self._under_way[key] = asyncio.create_task(self._look_up(key, next_hop, is_asked=is_asked))
            task.add_done_callback(lambda done: self._over(key, done))
        return task

    def _over(self, key: bytes, task: asyncio.Task[_Found]) -> None:
        self._outdated.discard(task)
        if self._under_way.get(key) is task:
            del self._under_way[key]

    async def _look_up_ahead(self, key: bytes) -> None:
        asked = parse_key(key)
        if isinstance(asked, NextHop):
            await self._look_up_once(key, asked, is_asked=False)

    async def _look_up(self, key: bytes, next_hop: NextHop, *, is_asked: bool) -> _Found:
        cache = self._cache
        try:
            found = await self._find_out(next_hop)
        except Exception as error:  # the edge: an error of ours must not send mail in the clear
            logging.getLogger(_LOGGER).exception(
                "a destination could not be looked up: our own error", extra={"fields": {"destination": next_hop}}
            )
            failed = f"internal error: {type(error).__name__}"
            return _Found(Decision(DecisionStatus.TEMPORARY, Why.LOOKUP_FAILED, failed), 0.0)
        decision = found.decision
        self._tell(key, next_hop, decision)
        if decision.status is not DecisionStatus.TEMPORARY:
            plain = reply_to(decision, with_tlsrpt=False).octets()
            reporting = reply_to(decision, with_tlsrpt=True).octets()
            cache.put(
                key,
                plain,
                reporting,
                summary=_summary(decision),
                ttl_s=found.ttl_s,
                now=self._clock(),
                is_asked=is_asked,
            )
        return found

    async def _find_out(self, next_hop: NextHop) -> _Found:
        def look(answers: Answers) -> tuple[DanePolicy, float]:
            dane = discover(next_hop.destination, answers, insecure_mx=self._rules.insecure_mx)
            ttls_s = [answer.ttl_s for answer in answers.consumed if answer.status is not Status.TEMPFAIL]
            return dane, float(min(ttls_s, default=0))

        deadline = time.monotonic() + self._rules.deadline_s
        dane, ttl_s = await evaluate_async(look, self._resolver, deadline=deadline)
        held, domain = None, next_hop.policy_domain
        if self._policies is not None and domain is not None and is_sts_needed(dane):
            try:
                held = await self._policies.policy_for(domain)
            except Busy as error:
                return _Found(Decision(DecisionStatus.TEMPORARY, Why.LOOKUP_FAILED, str(error)), 0.0)
        sts = held.policy if held is not None else None
        return _Found(weigh(next_hop, dane, sts, mixed=self._rules.mixed), ttl_s)

    def _tell(self, key: bytes, next_hop: NextHop, decision: Decision) -> None:
        summary, before = _summary(decision), self._cache.summary(key)
        if summary == before or (before is None and decision.status is DecisionStatus.NOT_FOUND):
            return
        is_temporary = decision.status is DecisionStatus.TEMPORARY
        fields = {"destination": next_hop, "policy": summary, "reason": decision.why.value, "detail": decision.detail}
        if before is not None:
            fields["before"] = before
        logging.getLogger(_LOGGER).log(
            logging.WARNING if is_temporary else logging.INFO,
            "a destination cannot be looked up" if is_temporary else "policy of a destination",
            extra={"fields": fields},
        )


def _summary(decision: Decision) -> str:
    return policy_text(decision) if decision.status is DecisionStatus.FOUND else decision.status.value
