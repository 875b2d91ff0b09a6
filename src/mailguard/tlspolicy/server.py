"""Server: accepts the clients of the socketmap, and ends those that are silent, do not read, or are too many.

For one event loop.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Sequence
from dataclasses import dataclass

from mailguard.tlspolicy.connection import Connection
from mailguard.tlspolicy.destinations import Destinations
from mailguard.tlspolicy.listening import BACKLOG

__all__ = ["Server", "ServerLimits"]

# How often idle clients are looked for.
_SWEEP_S = 1.0
# For look-ups that are under way when the end comes.
GRACE_S = 5.0
_LOGGER = "mailguard"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerLimits:
    """What clients may take."""

    connections: int = 500
    idle_s: float = 60.0
    """For a request to be complete, and for a reply to be read. Postfix closes after 10 s of silence."""


class Server:
    """The listening sockets and the connections that came through them."""

    def __init__(self, destinations: Destinations, limits: ServerLimits) -> None:
        self._destinations = destinations
        self._limits = limits
        self._servers: list[asyncio.Server] = []
        self._connections: set[Connection] = set()
        self._loop = asyncio.get_running_loop()

    async def start(self, sockets: Sequence[socket.socket]) -> None:
        """Accept on these."""
        for listening in sockets:
            if listening.family == socket.AF_UNIX:
                server = await self._loop.create_unix_server(self._connection, sock=listening, backlog=BACKLOG)
            else:
                server = await self._loop.create_server(self._connection, sock=listening, backlog=BACKLOG)
            self._servers.append(server)

    async def sweep(self) -> None:
        """Close what is idle; runs until it is cancelled."""
        while True:
            await asyncio.sleep(_SWEEP_S)
            before = self._loop.time() - self._limits.idle_s
            for connection in [one for one in self._connections if one.is_waited_for and one.since < before]:
                connection.abort()

    async def close(self) -> None:
        """Accept nothing more, answer what is asked, and end every connection."""
        for server in self._servers:
            server.close()
        for connection in tuple(self._connections):
            connection.end()
        give_up_at = self._loop.time() + GRACE_S
        while self._connections and self._loop.time() < give_up_at:
            await asyncio.sleep(0.02)
        for connection in tuple(self._connections):
            connection.abort()
        # A turn of the loop, so that they are closed.
        await asyncio.sleep(0)

    @property
    def connections(self) -> int:
        """Clients that are connected."""
        return len(self._connections)

    def _connection(self) -> Connection:
        return Connection(
            self._destinations, opened=self._opened, closed=self._connections.discard, clock=self._loop.time
        )

    def _opened(self, connection: Connection) -> None:
        self._connections.add(connection)
        if len(self._connections) > self._limits.connections:
            idle = [one for one in self._connections if one.is_waited_for and one is not connection]
            # The one that has been silent for longest, so that nobody can keep Postfix out by holding on to all.
            gone = min(idle, key=lambda one: one.since, default=connection)
            logging.getLogger(_LOGGER).warning(
                "too many clients: one is closed", extra={"fields": {"connections": len(self._connections)}}
            )
            # It is over at the loop's next turn; the next client to come has to find another one.
            self._connections.discard(gone)
            gone.abort()
