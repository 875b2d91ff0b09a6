"""Readiness: which sockets can be read or written, and who is told so: an epoll(7) of our own in an event loop.

To the loop it is one descriptor. A connection that comes and goes through the loop's own add_reader costs eight
system calls with uvloop, and as many objects; here it costs one. For the loop's thread. Linux.
"""

from __future__ import annotations

import asyncio
import select
from collections.abc import Callable
from typing import Final

__all__ = ["READABLE", "WRITABLE", "Readiness"]

READABLE: Final = select.EPOLLIN
WRITABLE: Final = select.EPOLLOUT
# After so many the loop sees to its other work.
MOST_AT_ONCE = 64


class Readiness:
    """Tells those who watch a socket when, and as long as, it is ready."""

    __slots__ = ("_epoll", "_loop", "_told")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Raises OSError if there is no descriptor left."""
        self._loop = loop
        self._epoll = select.epoll()
        self._told: dict[int, Callable[[], None]] = {}
        loop.add_reader(self._epoll.fileno(), self._tell)

    def watch(self, descriptor: int, what: int, tell: Callable[[], None]) -> None:
        """Call `tell` when `what` can be done or the peer is gone, in place of what was watched for before."""
        if descriptor in self._told:
            self._epoll.modify(descriptor, what)
        else:
            self._epoll.register(descriptor, what)
        self._told[descriptor] = tell

    def unwatch(self, descriptor: int) -> None:
        """Call nobody, even if the peer is gone."""
        if self._told.pop(descriptor, None) is not None:
            self._epoll.unregister(descriptor)

    def forget(self, descriptor: int) -> None:
        """As unwatch, for a socket that nobody shares and that is closed now: with that, epoll(7) forgets it."""
        self._told.pop(descriptor, None)

    def _tell(self) -> None:
        told, left = self._told, MOST_AT_ONCE
        # What has become ready meanwhile is told without another turn of the loop.
        while left > 0 and (ready := self._epoll.poll(0, left)):
            left -= len(ready)
            for descriptor, _ in ready:
                # One of those before it may have ended the watch.
                if (tell := told.get(descriptor)) is not None:
                    try:
                        tell()
                    except Exception as error:  # noqa: BLE001 - the edge: those behind it are told all the same
                        self._loop.call_exception_handler({"message": "a socket was not served", "exception": error})
