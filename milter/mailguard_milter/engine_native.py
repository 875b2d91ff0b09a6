"""The engine without libmilter: the milter protocol on an asyncio event loop, on uvloop where that is installed.

One thread serves all sessions of the worker; the worker's main thread looks after it. A session that waits for the
DNS holds no thread, and delays no other one. Connections are accepted one at a time, among whatever else is ready:
a burst spreads over the workers. Their number has a bound, beyond which they wait in the backlog, where another
worker finds them. The only importer of uvloop.
"""

from __future__ import annotations

import asyncio
import os
import socket
import threading
import time
from concurrent.futures import Future
from functools import partial

from mailguard_milter.allocation import give_back
from mailguard_milter.conversation import Shared
from mailguard_milter.engine import Surroundings
from mailguard_milter.log import Severity
from mailguard_milter.milter_connection import Connection
from mailguard_milter.readiness import READABLE, Readiness

try:
    import uvloop
except ImportError:
    # asyncio's own loop is slower, and the same in all else.
    uvloop = None  # type: ignore[assignment]  # what stands for its absence

__all__ = ["Engine"]

# How often time-outs are looked at; and whether the loop turns is seen with this precision.
SWEEP_EVERY_S = 1.0
GIVE_BACK_EVERY_S = 1.0
# The loop answers within milliseconds; a host that swaps at start may need longer.
ANSWER_TIMEOUT_S = 20.0
# When so many of the most sessions are left, more are accepted again.
ROOM_AGAIN = 0.9


class Engine:
    """See engine.Engine."""

    def __init__(self, surroundings: Surroundings) -> None:
        self._log = surroundings.log
        self._max_sessions = surroundings.max_sessions
        self._resolver = surroundings.resolver
        # For each listening socket, what its sessions have in common.
        self._doors = {
            door.listening: Shared(
                open_dialogue=door.open_dialogue,
                resolver=surroundings.resolver,
                deadline_s=surroundings.deadline_s,
                log=surroundings.log,
                keep_trace=surroundings.keep_trace,
            )
            for door in surroundings.doors
        }
        self._connections: set[Connection] = set()
        self._is_accepting = False
        self._is_detached = False
        self._turned = self._gave_back = time.monotonic()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._readiness: Readiness | None = None
        self._ready: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, name="milter", daemon=True)
        self.failure: BaseException | None = None

    # For the worker's main thread

    def start(self) -> None:
        """See engine.Engine."""
        self._thread.start()
        self._ready.result(ANSWER_TIMEOUT_S)

    @property
    def is_serving(self) -> bool:
        """See engine.Engine."""
        return self._thread.is_alive()

    @property
    def messages(self) -> int:
        """See engine.Engine."""
        return sum(shared.messages for shared in self._doors.values())

    def sessions(self) -> int:
        """See engine.Engine."""
        return len(self._connections)

    def longest_callback_s(self) -> float:
        """See engine.Engine. The loop turns at least once in SWEEP_EVERY_S unless something holds it."""
        return max(0.0, time.monotonic() - self._turned - SWEEP_EVERY_S)

    def trouble(self, now: float) -> str | None:
        """See engine.Engine: a loop that stands still is seen by `longest_callback_s`."""
        if now - self._gave_back > GIVE_BACK_EVERY_S:
            # What the bodies of large messages took. Here, where it holds up no message.
            self._gave_back = now
            give_back()
        return None

    def detach(self) -> None:
        """See engine.Engine. Returns when nothing more is accepted."""
        if self._loop is None:
            return
        done: Future[None] = Future()

        def stop_accepting() -> None:
            self._is_detached = True
            self._accept_no_more()
            for listening in self._doors:
                listening.close()
            done.set_result(None)

        self._loop.call_soon_threadsafe(stop_accepting)
        try:
            done.result(ANSWER_TIMEOUT_S)
        except TimeoutError:
            self._log.event("the event loop does not answer", Severity.ERROR)

    # In the loop's thread

    def _run(self) -> None:
        try:
            loop = asyncio.new_event_loop() if uvloop is None else uvloop.new_event_loop()
            self._loop = loop
            loop.set_exception_handler(self._uncaught)
            loop.call_soon(self._begin, loop)
            loop.run_forever()
        except BaseException as error:  # noqa: BLE001 - told to the worker, which ends the process
            self.failure = error
            if not self._ready.done():
                self._ready.set_exception(OSError(f"the event loop does not run: {error}"))

    def _begin(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            # What is looked up needs no thread of its own then, and wakes nobody.
            self._resolver.use_this_loop()
            self._readiness = Readiness(loop)
            self._accept_again()
        except OSError as error:
            self._ready.set_exception(error)
            return
        self._sweep()
        self._ready.set_result(None)

    def _accept_again(self) -> None:
        if not self._is_accepting and not self._is_detached and self._readiness is not None:
            for listening, shared in self._doors.items():
                accept = partial(self._accept, listening, listening.family, shared)
                self._readiness.watch(listening.fileno(), READABLE, accept)
            # Not before: where epoll(7) takes no more, it is tried again.
            self._is_accepting = True

    def _accept_no_more(self) -> None:
        self._is_accepting = False
        if self._readiness is not None:
            for listening in self._doors:
                self._readiness.unwatch(listening.fileno())

    def _accept(self, listening: socket.socket, family: int, shared: Shared) -> None:
        """One connection: those that wait behind it are for whoever is idle."""
        descriptor = -1
        try:
            # The public accept() looks for the names of family and type besides, and makes an object in Python: that
            # was a fourteenth of what this engine costs a message.
            descriptor, _ = listening._accept()  # type: ignore[attr-defined]
            accepted = socket.SocketType(family, socket.SOCK_STREAM, 0, descriptor)
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return  # another worker was faster, or the MTA has gone
        except (OSError, MemoryError) as error:
            # No descriptor or no memory left: without a pause the loop would spin.
            if descriptor >= 0:
                os.close(descriptor)
            self._log.event("cannot accept a connection", Severity.ERROR, error=str(error))
            self._accept_no_more()
            return
        if self._loop is not None and self._readiness is not None:
            Connection(accepted, shared, loop=self._loop, readiness=self._readiness, others=self._connections)
        if len(self._connections) >= self._max_sessions:
            self._log.event(
                "too many sessions: accepting none until some end", Severity.ERROR, sessions=len(self._connections)
            )
            self._accept_no_more()

    def _sweep(self) -> None:
        if self._loop is not None:
            self._loop.call_later(SWEEP_EVERY_S, self._sweep)
        now = self._turned = time.monotonic()
        for connection in list(self._connections):
            connection.look(now)
        if len(self._connections) < self._max_sessions * ROOM_AGAIN:
            self._accept_again()

    def _uncaught(self, loop: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
        error = context.get("exception")
        why = f"{type(error).__name__}: {error}" if error is not None else str(context.get("message"))
        self._log.event("uncaught", Severity.ERROR, error=why, place="loop")
