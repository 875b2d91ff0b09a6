"""`python -m mailguard_milter.trace_writer ORDERS`: the one process that writes the database of traces.

It reads packets (trace_pipe.py) from its end of the pipe, which the supervisor keeps open while nobody reads, and
writes them in batches. When the database cannot be written (a full or read-only disk, a lock) it goes on reading and
drops, says so once, tries again now and then, and says how much was lost when it succeeds. A damaged database is
moved aside and a new one made. Mail knows nothing of all this. It ends at SIGTERM, and when nobody is left to write
to the pipe; what is in the pipe at SIGTERM is for its successor.

Argument: one JSON object, {"pipe": DESCRIPTOR, "path": PATH, "max_days": DAYS, "max_megabytes": MEGABYTES}.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from types import FrameType

from mailguard.errors import StoreDamaged, TraceStoreError
from mailguard.trace_store import Row, TraceStore, set_aside
from mailguard_milter.log import Severity, tell
from mailguard_milter.trace_pipe import MAX_PACKET_BYTES, unpack

__all__ = ["Keeper", "main"]

# What is written in one transaction, and how long the first of it waits for others.
BATCH_TRACES = 256
BATCH_BYTES = 2 * 1024 * 1024
BATCH_WAIT_S = 0.2
TICK_S = 1.0
# What is too old goes within so long; what is too much goes after each batch of so many octets.
PRUNE_EVERY_S = 60.0
# How often a database that cannot be used is tried.
RETRY_S = 15.0


class Keeper:
    """The database, whatever becomes of it. `clock` is monotonic, in seconds."""

    def __init__(self, open_store: Callable[[], TraceStore], path: str, *, clock: Callable[[], float]) -> None:
        self._open_store = open_store
        self._path = path
        self._clock = clock
        self._store: TraceStore | None = None
        self._dropped = 0
        self._is_failing = False
        self._try_at = 0.0
        self._prune_at = 0.0

    def add(self, rows: Sequence[Row]) -> None:
        """Write these, or drop and count them. Never raises for what the database does."""
        if not self._attempt(lambda store: store.add(rows)):
            self._dropped += len(rows)
        elif self._is_failing or self._dropped:
            tell("traces are written again", path=self._path, lost=self._dropped)
            self._is_failing, self._dropped = False, 0

    def tend(self, now: float, *, soon: bool) -> None:
        """Delete what is too old at `now` (POSIX seconds) or too much; `soon` is after writing."""
        if soon or self._clock() >= self._prune_at:
            self._prune_at = self._clock() + PRUNE_EVERY_S
            self._attempt(lambda store: store.prune(now))

    def drop(self) -> None:
        """Count a packet that is none."""
        self._dropped += 1

    def close(self) -> None:
        """Close the database and say what was lost."""
        if self._store is not None:
            self._store.close()
        if self._dropped:
            tell("traces were not written", Severity.WARNING, count=self._dropped, path=self._path)

    def _attempt(self, act: Callable[[TraceStore], None]) -> bool:
        """Whether it was done. After a failure nothing is tried for a while."""
        if self._store is None and self._clock() < self._try_at:
            return False
        try:
            try:
                self._do(act)
            except StoreDamaged as damage:
                self._let_go()
                tell("trace database renamed", Severity.ERROR, why=str(damage), now_at=set_aside(self._path))
                self._do(act)
        except TraceStoreError as error:
            self._let_go()
            if not self._is_failing:
                tell("traces are not written; mail is not concerned", Severity.ERROR, why=str(error))
            self._is_failing = True
            self._try_at = self._clock() + RETRY_S
            return False
        return True

    def _do(self, act: Callable[[TraceStore], None]) -> None:
        if self._store is not None and not self._store.is_in_place():
            # Somebody has deleted or replaced it.
            self._let_go()
        if self._store is None:
            self._store = self._open_store()
        act(self._store)

    def _let_go(self) -> None:
        if self._store is not None:
            self._store.close()
            self._store = None


class _Pipe:
    """The reading end."""

    def __init__(self, end: socket.socket, keeper: Keeper) -> None:
        self._end = end
        self._keeper = keeper
        self.is_open = True

    def batch(self) -> list[Row]:
        """The rows that are there, or come within a moment of the first; none after a second without any."""
        rows: list[Row] = []
        size = 0
        until = time.monotonic() + TICK_S
        while self.is_open and len(rows) < BATCH_TRACES and size < BATCH_BYTES:
            if not self._is_readable(max(0.0, until - time.monotonic())):
                break
            packet = self._receive()
            if packet is None:
                continue
            if not rows:
                until = time.monotonic() + BATCH_WAIT_S
            size += len(packet)
            try:
                rows.append(unpack(packet))
            except ValueError:
                self._keeper.drop()
        return rows

    def _is_readable(self, within_s: float) -> bool:
        return bool(select.select([self._end], [], [], within_s)[0])

    def _receive(self) -> bytes | None:
        try:
            packet = self._end.recv(MAX_PACKET_BYTES + 1, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return None
        except OSError:
            packet = b""
        if not packet:
            self.is_open = False
            return None
        return packet


def main(arguments: Sequence[str]) -> int:
    """Write until told to end, or until nobody is left; 0."""
    orders = json.loads(arguments[0])
    os.umask(0o077)
    ending: list[int] = []

    def end(number: int, frame: FrameType | None) -> None:
        ending.append(number)

    signal.signal(signal.SIGTERM, end)
    for ignored in (signal.SIGHUP, signal.SIGINT):
        signal.signal(ignored, signal.SIG_IGN)
    path = orders["path"]
    keeper = Keeper(
        lambda: TraceStore(path, max_days=orders["max_days"], max_bytes=orders["max_megabytes"] << 20),
        path,
        clock=time.monotonic,
    )
    pipe = _Pipe(socket.socket(fileno=orders["pipe"]), keeper)
    while pipe.is_open and not ending:
        rows = pipe.batch()
        if rows:
            keeper.add(rows)
        keeper.tend(time.time(), soon=bool(rows))
    keeper.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
