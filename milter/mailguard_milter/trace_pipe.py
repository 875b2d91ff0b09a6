"""The way of a trace from a worker to the process that writes: a pair of SOCK_SEQPACKET sockets, one packet a trace.

All workers of all generations share one end, so each packet is whole or not there. `TraceSender` is the worker's
side: what it is given goes into a bounded queue, and a thread of its own encodes it and sends it. Nobody on the way
of the mail waits: what finds the queue or the socket full is dropped, counted and told in the log.
`TraceSender` is safe to use from every thread; it must be started after the last fork.
"""

from __future__ import annotations

import json
import math
import select
import socket
import threading
import time
from dataclasses import replace
from queue import Empty, SimpleQueue

from mailguard.errors import MailguardError
from mailguard.trace import MAX_TRACE_BYTES, Trace
from mailguard.trace_store import Row
from mailguard_milter.log import Log, Severity

__all__ = ["MAX_PACKET_BYTES", "TraceSender", "pack", "unpack"]

# A trace and its columns, each of which has its bound (`trace_store.plain`).
MAX_PACKET_BYTES = MAX_TRACE_BYTES + 16 * 1024
# What waits in a worker: messages with common headers, and few of those with the largest.
MAX_QUEUED_TRACES = 1000
MAX_QUEUED_HEADER_BYTES = 8 * 1024 * 1024
# How long the thread waits for the writer to read; after that the trace is dropped.
WRITER_PATIENCE_S = 1.0
# How often a loss is told at most, and how soon after the last trace.
TELL_EVERY_S = 10.0


def pack(row: Row) -> bytes:
    """`row` as a packet: its columns as a line of JSON, then its content."""
    return json.dumps(row[:-1]).encode("ascii") + b"\n" + row.content


def unpack(packet: bytes) -> Row:
    """The row in a packet. Raises ValueError if there is none."""
    line, separator, content = packet.partition(b"\n")
    columns = json.loads(line)
    if not separator or not isinstance(columns, list) or len(columns) != len(Row._fields) - 1:
        raise ValueError("not a packet")
    row = Row._make([*columns, content])
    texts = (row.queue_id, *row[2:-1])
    if not all(isinstance(text, str) and text.isascii() for text in texts):
        raise ValueError("a column is not text")
    if not isinstance(row.judged_at, float) or not math.isfinite(row.judged_at):
        raise ValueError("the time is none")
    return row


class TraceSender:
    """The worker's end."""

    def __init__(self, pipe: socket.socket, log: Log) -> None:
        """`pipe` is the writing end; it is closed with this."""
        self._pipe = pipe
        self._log = log
        self._queue: SimpleQueue[tuple[Trace, bytes | None, int] | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._queued_bytes = 0
        self._dropped = 0
        self._told = 0.0
        self._thread = threading.Thread(target=self._run, name="trace", daemon=True)

    def start(self) -> None:
        """Start the sending thread."""
        self._thread.start()

    def put(self, trace: Trace, queue_id: bytes | None) -> None:
        """Have `trace` written under this queue id. Never blocks, never raises; costs some microseconds."""
        size = trace.octets
        with self._lock:
            if (
                self._queue.qsize() >= MAX_QUEUED_TRACES
                or self._queued_bytes + size > MAX_QUEUED_HEADER_BYTES
                or not self._thread.is_alive()
            ):
                self._dropped += 1
                return
            self._queued_bytes += size
        self._queue.put((trace, queue_id, size))

    def close(self, *, timeout_s: float) -> None:
        """Send what is queued, for at most `timeout_s`."""
        self._queue.put(None)
        if self._thread.is_alive():
            self._thread.join(timeout_s)
        self._tell_dropped()

    def _run(self) -> None:
        while True:
            try:
                entry = self._queue.get(timeout=TELL_EVERY_S)
            except Empty:
                self._tell_dropped()
                continue
            if entry is None:
                break
            trace, queue_id, size = entry
            try:
                self._send(trace, queue_id)
            except (MailguardError, OSError):
                # Too large, or nobody reads: counted, and told together with the others.
                self._drop()
            except Exception as error:  # noqa: BLE001 - the edge of the thread: a fault here must not end all tracing
                self._drop()
                self._log.event("trace not written", Severity.ERROR, error=f"{type(error).__name__}: {error}")
            finally:
                with self._lock:
                    self._queued_bytes -= size
            if time.monotonic() - self._told >= TELL_EVERY_S:
                self._tell_dropped()
        self._pipe.close()

    def _send(self, trace: Trace, queue_id: bytes | None) -> None:
        name = (queue_id or b"").decode("ascii", "backslashreplace")
        packet = pack(Row.of(replace(trace, queue_id=name)))
        try:
            self._pipe.send(packet, socket.MSG_DONTWAIT)
        except BlockingIOError:
            # Full: here the thread may wait, and meanwhile the queue takes what comes.
            select.select([], [self._pipe], [], WRITER_PATIENCE_S)
            self._pipe.send(packet, socket.MSG_DONTWAIT)

    def _drop(self) -> None:
        with self._lock:
            self._dropped += 1

    def _tell_dropped(self) -> None:
        with self._lock:
            dropped, self._dropped = self._dropped, 0
        self._told = time.monotonic()
        if dropped:
            self._log.event("traces dropped", Severity.WARNING, count=dropped)
