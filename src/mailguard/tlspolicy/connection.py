"""Connection: one client of the socketmap. Its requests are answered in turn, and it cannot hold up others.

What a client may make us keep is bounded: a small buffer of what it sends, one look-up at a time, and replies until
the transport says that it does not read. Each request must be complete, and each reply taken, within the idle time.
For one event loop.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from mailguard.tlspolicy.destinations import Destinations
from mailguard.tlspolicy.socketmap import Decoder, Request, Violation

__all__ = ["Connection"]

# Postfix sends a request of a few dozen octets, and then waits.
BUFFER_BYTES = 4_096
# Replies that wait to be read: a long one, or many short ones.
MAX_UNREAD_BYTES = 128 * 1024
_LOGGER = "mailguard"


class Connection(asyncio.BufferedProtocol):
    """The protocol of one transport."""

    def __init__(
        self,
        destinations: Destinations,
        *,
        opened: Callable[[Connection], None],
        closed: Callable[[Connection], None],
        clock: Callable[[], float],
    ) -> None:
        """`opened` and `closed` are called with this connection; `clock` is that of the event loop."""
        self._destinations = destinations
        self._opened = opened
        self._closed = closed
        self._clock = clock
        self._buffer = bytearray(BUFFER_BYTES)
        self._decoder = Decoder()
        self._transport: asyncio.Transport | None = None
        self._task: asyncio.Task[None] | None = None
        self._is_unread = False
        self._is_ending = False
        self.since = 0.0
        """Since when something is awaited of the client."""
        self.answered = 0

    # -- asyncio calls these

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if not isinstance(transport, asyncio.Transport):
            raise TypeError("a connection needs a stream")
        self._transport = transport
        transport.set_write_buffer_limits(high=MAX_UNREAD_BYTES)
        self.since = self._clock()
        self._opened(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._is_ending = True
        self._transport = None
        if self._task is not None:
            self._task.cancel()
        self._closed(self)

    def get_buffer(self, sizehint: int) -> bytearray:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        self._decoder.feed(memoryview(self._buffer)[:nbytes])
        self._go_on()

    def eof_received(self) -> bool:
        # Who has asked and says that nothing more comes may still want the reply.
        self._is_ending = True
        return self._task is not None

    def pause_writing(self) -> None:
        self._is_unread = True
        self.since = self._clock()

    def resume_writing(self) -> None:
        self._is_unread = False
        self.since = self._clock()
        self._go_on()

    # -- the server calls these

    @property
    def is_waited_for(self) -> bool:
        """Whether it is the client's turn."""
        return self._task is None

    def end(self) -> None:
        """Close after the reply that is under way."""
        self._is_ending = True
        if self._task is None and self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Close now, whatever is not read."""
        self._is_ending = True
        if self._transport is not None:
            self._transport.abort()

    # -- requests, in turn

    def _go_on(self) -> None:
        """Answer what has come, until something has to be waited for."""
        transport = self._transport
        while transport is not None and self._task is None and not self._is_unread and not transport.is_closing():
            request = self._decoder.next()
            if request is None:
                break
            if isinstance(request, Violation):
                logging.getLogger(_LOGGER).warning(
                    "a client does not speak the socketmap protocol", extra={"fields": {"detail": request.detail}}
                )
                self.abort()
                return
            reply = self._destinations.at_once(request)
            if reply is None:
                self._task = asyncio.create_task(self._wait_for(request))
                self._task.add_done_callback(self._task_over)
            else:
                self._send(reply)
        if transport is None or transport.is_closing():
            return
        # What is in the kernel's buffer stays there until it is the client's turn again.
        if self._task is not None or self._is_unread:
            transport.pause_reading()
        else:
            transport.resume_reading()

    async def _wait_for(self, request: Request) -> None:
        self._send(await self._destinations.answer(request))

    def _task_over(self, task: asyncio.Task[None]) -> None:
        self._task = None
        if task.cancelled() or task.exception() is not None:
            # Postfix takes the end of a connection for a failure, and asks again later.
            self.abort()
        elif self._is_ending and self._transport is not None:
            self._transport.close()
        else:
            self._go_on()

    def _send(self, reply: bytes) -> None:
        if self._transport is not None:
            self.answered += 1
            self.since = self._clock()
            self._transport.write(reply)
