"""PolicyCache: which policy counts now for a domain, and what is to be looked up and fetched (RFC 8461 §3.3, §5.1).

A policy counts from a valid fetch until its max_age is over, or until a valid fetch of another one, whatever the DNS
and the policy host do meanwhile (RFC 8461 §10.2). It is fetched again when the DNS has another id and, ahead of its
end, in any case. A policy whose text changes while its id does not is seen at that refresh and not before. How a
server uses it, with `fetcher.fetch` and `cache.save` in a thread of a pool:

    standing = cache.policy_for(domain, now=now)
    if standing.is_to_be_recalled:           # memory is bounded; the store has more
        cache.recall(domain, now=now)
        standing = cache.policy_for(domain, now=now)
    if standing.is_to_be_looked_up:          # where standing.held is None, the answer waits for what follows
        discovery = await evaluate_async(lambda answers: discover(domain, answers), resolver, deadline=...)
        fetch = cache.noticed(domain, discovery, now=now)
        if fetch is not None:
            cache.fetched(fetch, fetcher.fetch(domain), now=now)
            cache.save(now=now)
    for fetch in cache.due(now=now): ...     # every minute or so, the same with each; then cache.save

Each `Fetch` that was given out is brought back with `fetched`, with FetchReason.FAULT if all else fails. Nothing here
waits but `load`, `recall` and `save`. Where memory is full, what was asked for least recently leaves it, policies
that demand nothing before those of mode enforce; the store keeps it, and `recall` brings it back. Left out: the
doing, and the clock: `now` is in POSIX seconds. Thread-safe.
"""

from __future__ import annotations

import heapq
import logging
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from math import inf
from threading import Lock

from mailguard.domain import Domain
from mailguard.errors import DomainError
from mailguard.mtasts.cache_entry import (
    CLOCK_SKEW_S,
    SHORTEST_PAUSE_S,
    CacheEntry,
    Fetch,
    HeldPolicy,
    Standing,
)
from mailguard.mtasts.malformed import Malformed
from mailguard.mtasts.policy import StsMode, StsPolicy
from mailguard.mtasts.record import Discovery
from mailguard.mtasts.result import FetchOutcome, FetchReason
from mailguard.mtasts.store import PolicyRow, PolicyStore, StoreUnusable

__all__ = ["CacheLimits", "Fetch", "HeldPolicy", "PolicyCache", "Standing"]

# RFC 8461 §3.3: a fetch that failed is not tried again for five minutes or longer, for one id.
FIRST_PAUSE_S = 300.0
LONGEST_PAUSE_S = 3600.0
# A pause is up to so much longer, as drawn.
PAUSE_SPREAD = 0.5
# When, as a part of max_age, a policy is fetched anew: a random moment between these, so that those that came
# together do not go together, and so that the pauses above leave room for many attempts.
REFRESH_FROM = 0.5
REFRESH_UNTIL = 0.75
# What nobody has asked for as long is left to expire.
REFRESHED_WHILE_ASKED_S = 30 * 86_400.0
# How long the DNS is not asked again: as long as it said, within bounds; where it failed, briefly.
LOOKED_UP_AT_MOST_S = 300.0
LOOKED_UP_AT_LEAST_S = 10.0
# The store learns that a policy is asked for when it has not heard of it for so long.
NOTED_EVERY_S = 86_400.0
# The part of the memory for what was pushed out of it and is not in the store yet.
WAITING_SHARE = 0.125
# Entries of the queue that mean nothing any more, for each that does.
STALE_FACTOR = 2
_LOGGER = "mailguard"


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheLimits:
    """What a cache may take."""

    entries: int = 50_000
    """Domains with a policy; and as many without one, which never displace those."""
    bytes: int = 128 * 1024 * 1024
    """For the policies."""
    refreshes: int = 8
    """Fetches that go on at once for domains of which a policy counts already."""
    fetches: int = 256
    """Fetches that go on at once."""


class PolicyCache:
    """The policies that are held: in memory, and in a store as far as that works."""

    def __init__(
        self, store: PolicyStore | None, *, draw: Callable[[], float], limits: CacheLimits | None = None
    ) -> None:
        """`draw` gives random numbers from 0 to 1. Without a store, a restart forgets everything."""
        self._store = store
        self._draw = draw
        self._limits = limits or CacheLimits()
        self._lock = Lock()
        # Least recently asked for first.
        self._with_policy: OrderedDict[Domain, CacheEntry] = OrderedDict()
        # Those of them that demand nothing.
        self._lenient: OrderedDict[Domain, None] = OrderedDict()
        self._without: OrderedDict[Domain, CacheEntry] = OrderedDict()
        self._bytes = 0
        # When policies are to be refreshed, soonest first; what an entry does not say any more is passed over.
        self._queue: list[tuple[float, Domain]] = []
        self._going_on: dict[Domain, Fetch] = {}
        self._refreshing = 0
        self._unsaved: dict[Domain, None] = {}
        # What was pushed out of memory before it was in the store, oldest first, and its weight.
        self._waiting: OrderedDict[Domain, CacheEntry] = OrderedDict()
        self._waiting_bytes = 0
        # Policies whose `asked_at` the store is to learn.
        self._asked: dict[Domain, None] = {}
        self._is_loaded = store is None
        self._is_store_down = False

    # -- what counts, and what is to be done

    def policy_for(self, domain: Domain, *, now: float) -> Standing:
        """The policy of exactly `domain` (RFC 8461 §3.4), which counts. Notes that somebody asked."""
        with self._lock:
            entry = self._with_policy.get(domain)
            if entry is not None:
                self._with_policy.move_to_end(domain)
                if domain in self._lenient:
                    self._lenient.move_to_end(domain)
                entry.asked_at = now
                if self._store is not None and abs(now - entry.noted_at) >= NOTED_EVERY_S:
                    self._asked[domain] = None
            else:
                entry = self._without.get(domain)
                if entry is None:
                    return Standing(None, True, self._going_on.get(domain), self._store is not None)
            # A clock that was set back must not make that knowledge last.
            is_fresh = entry.look_up_at - LOOKED_UP_AT_MOST_S - CLOCK_SKEW_S <= now < entry.look_up_at
            held = entry.counting(now)
            is_to_be_recalled = held is None and self._store is not None and not entry.is_recalled(now)
            return Standing(held, not is_fresh, self._going_on.get(domain), is_to_be_recalled)

    def noticed(self, domain: Domain, discovery: Discovery, *, now: float) -> Fetch | None:
        """Take in what the DNS says; what is to be fetched because of it, if anything."""
        with self._lock:
            entry = self._entry(domain)
            lasts_s = max(LOOKED_UP_AT_LEAST_S, min(LOOKED_UP_AT_MOST_S, float(discovery.ttl_s)))
            entry.look_up_at = now + lasts_s
            held = entry.counting(now)
            if held is not None:
                entry.look_up_at = min(entry.look_up_at, held.expires_at)
            published = discovery.record.id if discovery.record is not None else None
            # RFC 8461 §3.1, §5.1: without a usable record there is no new policy, and the one that counts stays. Its
            # refresh does not depend on the record (RFC 8461 §10.2).
            wanted = published or (held.record_id if held is not None else None)
            if wanted is None or (
                held is not None and wanted == held.record_id and not entry.is_refresh_due(held, now)
            ):
                return None
            fetch = self._begin(domain, entry, wanted, now)
            if fetch is None:
                # There was no room for it, or it is too early.
                entry.look_up_at = now + LOOKED_UP_AT_LEAST_S
            return fetch

    def due(self, *, now: float) -> tuple[Fetch, ...]:
        """The refreshes to begin now, whatever the DNS says (RFC 8461 §10.2); never more than are allowed at once."""
        found = []
        with self._lock:
            while self._queue and self._queue[0][0] <= now and self._has_room(is_refresh=True):
                at, domain = heapq.heappop(self._queue)
                entry = self._with_policy.get(domain)
                held = entry.counting(now) if entry is not None else None
                if entry is None or held is None or max(entry.refresh_at, entry.retry_at) != at:
                    continue
                # What is not asked for is not refreshed; when it is again, `noticed` sees that it is due.
                if now - entry.asked_at <= REFRESHED_WHILE_ASKED_S:
                    fetch = self._begin(domain, entry, held.record_id, now)
                    found += [fetch] if fetch is not None else []
        return tuple(found)

    def next_due_at(self) -> float | None:
        """When `due` may have something; None for not before a refresh is back, or a policy comes."""
        with self._lock:
            return self._queue[0][0] if self._queue and self._has_room(is_refresh=True) else None

    def fetched(self, fetch: Fetch, outcome: FetchOutcome, *, now: float) -> None:
        """Take in what a fetch came to. A failure leaves the policy that counts as it is (RFC 8461 §3.3)."""
        with self._lock:
            if self._going_on.get(fetch.domain) is not fetch:
                raise ValueError(f"the fetch of the policy of {fetch.domain} does not go on")
            del self._going_on[fetch.domain]
            self._refreshing -= fetch.is_refresh
            entry = self._entry(fetch.domain)
            is_again = entry.tried_id == fetch.record_id and outcome.policy is None
            entry.failures = (entry.failures if is_again else 0) + (outcome.policy is None)
            entry.tried_id, entry.tried_at = fetch.record_id, now
            entry.retry_at = now + self._pause_s(entry.failures)
            if not fetch.is_refresh:
                entry.asked_at = now
            if outcome.policy is not None:
                self._unsaved[fetch.domain] = None
                self._hold(fetch.domain, entry, HeldPolicy.of(outcome.policy, record_id=fetch.record_id, now=now))
            elif entry.held is not None:
                self._enqueue(fetch.domain, entry)
            held, failures = entry.counting(now), entry.failures
        # RFC 8461 §3.3: administrators are told, unless the policy is one of mode none. A fault of our own has been
        # told of where it happened.
        is_told = outcome.policy is not None or outcome.reason is FetchReason.FAULT
        if not is_told and held is not None and held.policy.mode is not StsMode.NONE:
            logging.getLogger(_LOGGER).warning(
                "the MTA-STS policy of %s cannot be fetched anew (%s, %d in a row); the old one counts %d s more: %s",
                fetch.domain,
                outcome.reason.value,
                failures,
                held.expires_at - now,
                outcome.detail,
            )

    # -- the store

    def load(self, *, now: float) -> int:
        """Read the store, once, at the start; how many of its policies are in memory then. May block for seconds."""
        if self._store is None:
            return 0
        try:
            rows = self._store.read(self._limits.entries)
        except StoreUnusable as error:
            self._note_store(error)
            return 0
        self._note_store(None)
        with self._lock:
            self._is_loaded = True
            # The most recently asked for last: the last to go.
            taken = {self._take(row, now) for row in reversed(rows)}
            return sum(domain in self._with_policy for domain in taken if domain is not None)

    def recall(self, domain: Domain, *, now: float) -> None:
        """Read the policy of one domain from the store, where memory has none that counts. May block for a second."""
        if self._store is None:
            return
        with self._lock:
            if self._is_back(domain, now):
                return
        try:
            row = self._store.recall(domain)
        except StoreUnusable as error:
            self._note_store(error)
            return
        with self._lock:
            # One may have come, and have been pushed out as well, while the store was read.
            if not self._is_back(domain, now):
                entry = self._entry(domain)
                entry.recalled_at = now
                entry.asked_at = now
                if row is not None:
                    self._take(row, now)

    def save(self, *, now: float) -> bool:
        """Write what is not in the store yet. False where that fails, and the next call tries again. May block."""
        if self._store is None:
            return True
        if not self._is_loaded:
            # What the start could not read counts, where nothing newer is known.
            self.load(now=now)
        # A second time where the file turns out to be a new one: then everything is to be written.
        for _ in range(2):
            with self._lock:
                # What is in memory is newer, and written last.
                entries = [*self._waiting.items(), *self._in_memory(self._unsaved)]
                asked = {domain: entry.asked_at for domain, entry in self._in_memory(self._asked)}
                rows = [row for domain, entry in entries if (row := _row(domain, entry)) is not None]
                held = [entry.held for _, entry in entries]
            if not rows and not asked:
                break
            try:
                self._store.note_asked(asked)
                is_whole = self._store.write(rows, now=now)
            except StoreUnusable as error:
                self._note_store(error)
                return False
            self._note_store(None)
            with self._lock:
                self._note_saved(zip(entries, held, strict=True), asked)
            if is_whole:
                break
            with self._lock:
                self._unsaved.update(dict.fromkeys(self._with_policy))
        return not self._is_store_down

    # -- inside; each is called with the lock

    def _entry(self, domain: Domain) -> CacheEntry:
        entry = self._with_policy.get(domain) or self._without.get(domain)
        if entry is None:
            entry = self._without[domain] = CacheEntry()
            while len(self._without) > self._limits.entries:
                self._without.popitem(last=False)
        elif domain in self._without:
            self._without.move_to_end(domain)
        return entry

    def _in_memory(self, domains: Iterable[Domain]) -> list[tuple[Domain, CacheEntry]]:
        return [(domain, entry) for domain in domains if (entry := self._with_policy.get(domain)) is not None]

    def _note_saved(
        self, written: Iterable[tuple[tuple[Domain, CacheEntry], HeldPolicy | None]], asked: Mapping[Domain, float]
    ) -> None:
        for (domain, entry), held in written:
            # It may have been replaced, or pushed out, or both, while it was written.
            if entry.held is held:
                if self._waiting.get(domain) is entry:
                    self._stop_waiting(domain)
                if self._with_policy.get(domain) is entry:
                    self._unsaved.pop(domain, None)
            entry.noted_at = entry.asked_at
        for domain, at in asked.items():
            self._asked.pop(domain, None)
            if domain in self._with_policy:
                self._with_policy[domain].noted_at = at

    def _is_back(self, domain: Domain, now: float) -> bool:
        """Whether a policy counts, if need be the one that waits for the store, which is in memory again then."""
        entry, waiting = self._entry(domain), self._waiting.get(domain)
        held = waiting.counting(now) if waiting is not None else None
        if waiting is not None and held is not None and entry.counting(now) is None:
            entry.asked_at = now
            self._unsaved[domain] = None
            self._hold(domain, entry, held, waiting.refresh_at)
        return entry.counting(now) is not None

    def _stop_waiting(self, domain: Domain) -> None:
        entry = self._waiting.pop(domain, None)
        if entry is not None and entry.held is not None:
            self._waiting_bytes -= entry.held.weight

    def _has_room(self, *, is_refresh: bool) -> bool:
        return len(self._going_on) < self._limits.fetches and (
            not is_refresh or self._refreshing < self._limits.refreshes
        )

    def _begin(self, domain: Domain, entry: CacheEntry, record_id: str, now: float) -> Fetch | None:
        is_refresh = entry.counting(now) is not None
        if domain in self._going_on or entry.is_paused(record_id, now) or not self._has_room(is_refresh=is_refresh):
            return None
        fetch = self._going_on[domain] = Fetch(domain, record_id, is_refresh)
        self._refreshing += is_refresh
        return fetch

    def _pause_s(self, failures: int) -> float:
        if failures == 0:
            return SHORTEST_PAUSE_S
        pause_s = min(FIRST_PAUSE_S * 2.0 ** min(failures - 1, 16), LONGEST_PAUSE_S)
        return pause_s * (1 + PAUSE_SPREAD * self._draw())

    def _hold(self, domain: Domain, entry: CacheEntry, held: HeldPolicy, refresh_at: float | None = None) -> None:
        if entry.held is not None:
            self._bytes -= entry.held.weight
        self._bytes += held.weight
        entry.held = held
        lasts_s = held.expires_at - held.fetched_at
        share = REFRESH_FROM + (REFRESH_UNTIL - REFRESH_FROM) * self._draw()
        entry.refresh_at = refresh_at if refresh_at is not None else held.fetched_at + share * lasts_s
        entry.look_up_at = min(entry.look_up_at, held.expires_at)
        entry.recalled_at = -inf
        self._without.pop(domain, None)
        self._stop_waiting(domain)
        self._with_policy[domain] = entry
        if held.policy.mode is StsMode.ENFORCE:
            self._lenient.pop(domain, None)
        else:
            self._lenient[domain] = None
        self._enqueue(domain, entry)
        while len(self._with_policy) > self._limits.entries or self._bytes > self._limits.bytes:
            self._push_out(next(iter(self._lenient or self._with_policy)))

    def _push_out(self, domain: Domain) -> None:
        gone = self._with_policy.pop(domain)
        self._lenient.pop(domain, None)
        self._asked.pop(domain, None)
        is_unsaved = domain in self._unsaved
        self._unsaved.pop(domain, None)
        # What is known of its host stays; the DNS is asked at once when it is wanted again.
        self._without[domain] = replace(gone, held=None, look_up_at=0.0)
        while len(self._without) > self._limits.entries:
            self._without.popitem(last=False)
        if gone.held is None:
            return
        self._bytes -= gone.held.weight
        if self._store is not None and is_unsaved:
            self._waiting[domain] = gone
            self._waiting_bytes += gone.held.weight
            while self._waiting_bytes > WAITING_SHARE * self._limits.bytes:
                # The store has failed for a while.
                self._stop_waiting(next(iter(self._waiting)))

    def _enqueue(self, domain: Domain, entry: CacheEntry) -> None:
        heapq.heappush(self._queue, (max(entry.refresh_at, entry.retry_at), domain))
        if len(self._queue) > STALE_FACTOR * len(self._with_policy) + STALE_FACTOR:
            self._queue = [(max(one.refresh_at, one.retry_at), name) for name, one in self._with_policy.items()]
            heapq.heapify(self._queue)

    def _take(self, row: PolicyRow, now: float) -> Domain | None:
        """Hold what a row of the store says, if it counts; whose it is then."""
        try:
            domain = Domain.parse(row.domain)
            policy = StsPolicy.parse(bytes(row.text))
            fetched_at, expires_at, refresh_at, asked_at = (float(at) for at in row[3:])
        except (DomainError, TypeError, ValueError):
            return None
        if isinstance(policy, Malformed):
            return None
        # The clock was ahead when it was fetched, or is behind now. It counts, and is fetched anew.
        is_of_the_future = fetched_at > now + CLOCK_SKEW_S
        held = HeldPolicy(policy, str(row.record_id), fetched_at, expires_at).as_of(now)
        entry = self._entry(domain)
        known = [one.held for one in (entry, self._waiting.get(domain)) if one is not None and one.held is not None]
        if held.expires_at < now or any(one.fetched_at >= held.fetched_at for one in known):
            return None
        entry.asked_at, entry.noted_at = max(entry.asked_at, min(asked_at, now)), asked_at
        self._hold(domain, entry, held, now if is_of_the_future else min(refresh_at, held.expires_at))
        return domain

    def _note_store(self, error: StoreUnusable | None) -> None:
        """Say it when the store fails, and when it works again."""
        if error is not None and not self._is_store_down:
            logging.getLogger(_LOGGER).error("MTA-STS policies are kept in memory alone for now: %s", error)
        elif error is None and self._is_store_down:
            logging.getLogger(_LOGGER).warning("MTA-STS policies are written to their file again")
        self._is_store_down = error is not None


def _row(domain: Domain, entry: CacheEntry) -> PolicyRow | None:
    held = entry.held
    if held is None:
        return None
    times = (held.fetched_at, held.expires_at, entry.refresh_at, entry.asked_at)
    return PolicyRow(domain, held.record_id, held.policy.text.encode(), *times)
