"""ReplyCache: replies that are ready to be sent, for a short time, in a bounded space.

What is asked for often is looked up anew before its reply is too old (`due`), at a moment drawn for each, so that
those that came together do not go together. What fails is not kept at all. Left out: doing the look-ups, and the
clock: `now` is in seconds of one that never goes back. For one thread.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["CacheBounds", "Kept", "ReplyCache"]

# A reply may outlive the TTL of the records it was made from by as much. It says what Postfix has to demand; the TLSA
# records themselves are looked up by Postfix.
LIFETIME_AT_MOST_S = 120.0
# A TTL of 0 would have each of a thousand messages wait for the DNS.
LIFETIME_AT_LEAST_S = 5.0
# When, as a part of its lifetime, a reply is looked up anew: a random moment between these.
REFRESH_FROM = 0.6
REFRESH_UNTIL = 0.9
# However short a lifetime is, its refresh is no sooner: nobody makes us ask ten times a second.
REFRESH_INTERVAL_S = 30.0
# What CPython takes for an entry beside its octets, with its places here. Measured with tracemalloc, rounded up.
ENTRY_BYTES = 900
# Entries of the queue that mean nothing any more, for each that does.
_STALE_FACTOR = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheBounds:
    """What a cache may take."""

    entries: int = 50_000
    bytes: int = 64 * 1024 * 1024
    refreshed_while_asked_s: float = 600.0
    """What nobody has asked for as long is not looked up ahead; 0: nothing is."""


@dataclass(slots=True)
class Kept:
    """A reply that counts until `expires_at`."""

    plain: bytes
    reporting: bytes
    """With what is for TLS reports; often the same object."""
    summary: str
    """What it says, for the log."""
    expires_at: float
    refresh_at: float
    asked_at: float

    @property
    def weight(self) -> int:
        """The octets of memory that it takes, about."""
        both = len(self.plain) + (len(self.reporting) if self.reporting is not self.plain else 0)
        return ENTRY_BYTES + both + len(self.summary)


class ReplyCache:
    """Replies by the key that Postfix asks for, in lower case."""

    def __init__(self, bounds: CacheBounds, *, draw: Callable[[], float]) -> None:
        """`draw` gives random numbers from 0 to 1."""
        self._bounds = bounds
        self._draw = draw
        # Least recently asked for first.
        self._kept: OrderedDict[bytes, Kept] = OrderedDict()
        self._bytes = 0
        # Soonest first; what an entry does not say any more is passed over.
        self._queue: list[tuple[float, bytes]] = []

    def get(self, key: bytes, now: float) -> Kept | None:
        """The reply, if it counts. Notes that somebody asked."""
        kept = self._kept.get(key)
        if kept is None or now >= kept.expires_at:
            return None
        kept.asked_at = now
        self._kept.move_to_end(key)
        return kept

    def summary(self, key: bytes) -> str | None:
        """What was last said, though it may not count any more."""
        kept = self._kept.get(key)
        return kept.summary if kept is not None else None

    def put(
        self, key: bytes, plain: bytes, reporting: bytes, *, summary: str, ttl_s: float, now: float, is_asked: bool
    ) -> None:
        """Keep a reply that was made from records with this TTL. `is_asked`: somebody waits for it."""
        old = self._kept.get(key)
        asked_at = now if is_asked or old is None else old.asked_at
        lifetime_s = max(LIFETIME_AT_LEAST_S, min(LIFETIME_AT_MOST_S, ttl_s))
        share = REFRESH_FROM + (REFRESH_UNTIL - REFRESH_FROM) * self._draw()
        refresh_at = now + max(share * lifetime_s, REFRESH_INTERVAL_S)
        if plain == reporting:
            reporting = plain
        kept = Kept(plain, reporting, summary, now + lifetime_s, refresh_at, asked_at)
        if old is not None:
            self._bytes -= old.weight
        self._kept[key] = kept
        if is_asked:
            self._kept.move_to_end(key)
        self._bytes += kept.weight
        while len(self._kept) > self._bounds.entries or self._bytes > self._bounds.bytes:
            _, gone = self._kept.popitem(last=False)
            self._bytes -= gone.weight
        if self._bounds.refreshed_while_asked_s:
            self._enqueue(refresh_at, key)

    def due(self, now: float, limit: int) -> list[bytes]:
        """Up to `limit` keys to look up anew; each is told once for each reply."""
        found: list[bytes] = []
        while self._queue and self._queue[0][0] <= now and len(found) < limit:
            at, key = heapq.heappop(self._queue)
            kept = self._kept.get(key)
            if (
                kept is not None
                and kept.refresh_at == at
                and now - kept.asked_at <= self._bounds.refreshed_while_asked_s
            ):
                found.append(key)
        return found

    def _enqueue(self, at: float, key: bytes) -> None:
        heapq.heappush(self._queue, (at, key))
        if len(self._queue) > _STALE_FACTOR * len(self._kept) + _STALE_FACTOR:
            self._queue = [(kept.refresh_at, name) for name, kept in self._kept.items()]
            heapq.heapify(self._queue)

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def estimated_bytes(self) -> int:
        """What the replies take in memory, about."""
        return self._bytes
