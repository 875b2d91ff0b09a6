"""PermissionCache: what was answered a short while ago.

A grant is kept for longer than a refusal, so that who has just been given an address can use it at once. That a
source is unavailable is never kept, so that service is back when the source is. The least recently used entries make
room. Thread-safe; the lock is never held while a source is asked.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock
from typing import Final

import cachetools

from mailguard.senders.identity import Address, Login
from mailguard.senders.permission import Permission, PermissionStatus

__all__ = ["DEFAULT_CACHE_ENTRIES", "DEFAULT_LIFETIME_S", "PermissionCache"]

# About 1 kB each. A login uses few addresses, and a busy host has some thousand logins.
DEFAULT_CACHE_ENTRIES: Final = 10_000
# What was taken away from a login ends with this.
DEFAULT_LIFETIME_S: Final = 60.0
# A refusal must not outlive what the administrator has just changed; it only spares the source a client that repeats.
REFUSAL_LIFETIME_S = 5.0

_Key = tuple[str, str]


class PermissionCache:
    """Permissions by login and address, both in their exact form."""

    def __init__(
        self,
        *,
        clock: Callable[[], float],
        max_entries: int = DEFAULT_CACHE_ENTRIES,
        lifetime_s: float = DEFAULT_LIFETIME_S,
    ) -> None:
        """`clock` gives seconds and never goes back (`time.monotonic`)."""
        self._lifetime_s = lifetime_s
        self._lock = Lock()
        self._kept: cachetools.TLRUCache[_Key, Permission] = cachetools.TLRUCache(max_entries, self._expires, clock)

    def get(self, login: Login, address: Address) -> Permission | None:
        """What is known, or None."""
        with self._lock:
            found: Permission | None = self._kept.get((login.exact, address.exact))
            return found

    def put(self, login: Login, address: Address, permission: Permission) -> None:
        """Keep it, unless it says that a source was unavailable."""
        if permission.status is PermissionStatus.UNAVAILABLE:
            return
        with self._lock:
            self._kept[login.exact, address.exact] = permission

    def _expires(self, key: _Key, permission: Permission, now: float) -> float:
        lifetime = self._lifetime_s if permission.is_granted else min(REFUSAL_LIFETIME_S, self._lifetime_s)
        return now + lifetime
