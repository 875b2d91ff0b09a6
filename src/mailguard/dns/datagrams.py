"""Datagrams: a UDP socket for each query, all of them behind one file of the event loop.

RFC 5452 §9.2 (a port of its own for each query, which the kernel chooses at random). A selector within the loop's own
one: to enter a socket there takes a tenth of the time that the loop takes, and replies that come together are taken
together. Belongs to one event loop.
"""

from __future__ import annotations

import asyncio
import selectors
import socket
from collections.abc import Callable

__all__ = ["Datagrams"]


class Datagrams:
    """The sockets of one event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._selector = selectors.DefaultSelector()
        loop.add_reader(self._selector, self._readable)

    def send(self, wire: bytes, *, server: str, port: int, readable: Callable[[], None]) -> socket.socket:
        """Send `wire` to `server` (an address) and call `readable` whenever something has come back.

        The socket does not block, and `readable` may be called for nothing. Raises OSError.
        """
        family = socket.AF_INET6 if ":" in server else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_DGRAM)
        try:
            sock.setblocking(False)
            # A connected socket: the kernel drops what comes from elsewhere and reports a closed port at once.
            sock.connect((server, port))
            sock.send(wire)
            self._selector.register(sock, selectors.EVENT_READ, readable)
        except OSError:
            sock.close()
            raise
        return sock

    def forget(self, sock: socket.socket) -> None:
        """Close a socket. Its callback may be called once more, if it was found readable together with others."""
        # Not left to close(): a process that was forked meanwhile has the socket too, and epoll would go on telling.
        self._selector.unregister(sock)
        sock.close()

    def close(self) -> None:
        """Leave the event loop. All sockets have been forgotten."""
        self._loop.remove_reader(self._selector)
        self._selector.close()

    def _readable(self) -> None:
        for key, _ in self._selector.select(0):
            key.data()
