"""What PolicyCache knows of a domain, and what it says: HeldPolicy, Fetch, Standing (RFC 8461 §3.3).

The values are frozen and safe to share between threads; a CacheEntry is changed by its cache alone. Pure.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from math import inf
from typing import NoReturn, Self

from mailguard.domain import Domain
from mailguard.mtasts.policy import StsPolicy

__all__ = [
    "CLOCK_SKEW_S",
    "SHORTEST_PAUSE_S",
    "SHORTEST_STAY_S",
    "CacheEntry",
    "Fetch",
    "HeldPolicy",
    "Standing",
]

# For any id: a zone may have another one in each answer.
SHORTEST_PAUSE_S = 60.0
# How long a policy counts at least. RFC 8461 §3.2 allows a max_age of any length from 0 on, but less than the pauses
# between fetches would leave the domain without a policy in each of them, though its host always answers.
SHORTEST_STAY_S = 300
# The clock may be corrected by as much without notice.
CLOCK_SKEW_S = 300.0
# The store is not asked again for as long.
RECALLED_EVERY_S = 3600.0
# What an entry takes beside the patterns of its policy, and the place of each of those.
ENTRY_BYTES = 1_200
PLACE_BYTES = 8


@dataclass(frozen=True, slots=True)
class HeldPolicy:
    """A policy that was fetched. Times are POSIX seconds."""

    policy: StsPolicy
    record_id: str
    """The id in the DNS when it was fetched."""
    fetched_at: float
    expires_at: float

    @classmethod
    def of(cls, policy: StsPolicy, *, record_id: str, now: float) -> Self:
        """A policy that was fetched at `now`. It counts for its max_age, and for SHORTEST_STAY_S at least."""
        return cls(policy, record_id, fetched_at=now, expires_at=now + _lasts_s(policy))

    def as_of(self, now: float) -> Self:
        """As it can be at `now`, when it has been fetched already and cannot count for longer than a new one."""
        fetched_at = min(self.fetched_at, now)
        expires_at = min(self.expires_at, fetched_at + _lasts_s(self.policy))
        return type(self)(self.policy, self.record_id, fetched_at, expires_at)

    @property
    def weight(self) -> int:
        """The octets of memory that it takes, with its entry, about."""
        return ENTRY_BYTES + sum(sys.getsizeof(pattern) + PLACE_BYTES for pattern in self.policy.mx)


def _lasts_s(policy: StsPolicy) -> int:
    """How long it counts after a fetch."""
    return max(policy.max_age_s, SHORTEST_STAY_S)


@dataclass(frozen=True, slots=True)
class Fetch:
    """A fetch that is to be done now."""

    domain: Domain
    record_id: str
    is_refresh: bool
    """A policy counts meanwhile."""


@dataclass(frozen=True, slots=True)
class Standing:
    """What counts for a domain now."""

    held: HeldPolicy | None
    """None where no policy counts."""
    is_to_be_looked_up: bool
    """What the DNS said last is too old, or nothing was asked yet."""
    fetch: Fetch | None
    """The one that goes on."""
    is_to_be_recalled: bool = False
    """No policy is in memory, and one may be in the store: to be read before anything else."""

    def __bool__(self) -> NoReturn:
        raise TypeError("a Standing is not true or false: read its held")


@dataclass(slots=True)
class CacheEntry:
    """What the cache knows of one domain. Belongs to the cache, and changes."""

    held: HeldPolicy | None = None
    recalled_at: float = -inf
    """When the store was asked, and had none that counts."""
    refresh_at: float = 0.0
    asked_at: float = 0.0
    noted_at: float = 0.0
    """What the store has for `asked_at`."""
    look_up_at: float = 0.0
    failures: int = 0
    """In a row, for `tried_id`."""
    tried_id: str = ""
    tried_at: float = 0.0
    retry_at: float = 0.0

    def counting(self, now: float) -> HeldPolicy | None:
        """The policy, if its time is not over."""
        return self.held if self.held is not None and now <= self.held.expires_at else None

    def is_recalled(self, now: float) -> bool:
        # What has expired by a clock that is ahead counts when it is set right.
        return -CLOCK_SKEW_S <= now - self.recalled_at < RECALLED_EVERY_S

    def is_refresh_due(self, held: HeldPolicy, now: float) -> bool:
        # When a policy from the future was fetched is unknown: it counts, and is fetched anew.
        return now >= self.refresh_at or held.fetched_at > now + CLOCK_SKEW_S

    def is_paused(self, record_id: str, now: float) -> bool:
        if now < self.tried_at - CLOCK_SKEW_S:
            return False
        until = self.retry_at if record_id == self.tried_id else self.tried_at + SHORTEST_PAUSE_S
        return now < until
