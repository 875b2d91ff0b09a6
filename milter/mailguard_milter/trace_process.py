"""The supervisor's hold on the process that writes traces: one at a time, through every reload and every death.

The supervisor makes the pipe and keeps both ends, so that nothing is lost while no process reads. Each generation
inherits the writing end, as it does the listeners. When a reload changes where or how much is kept, the writer is
told to end, and its successor reads on from the same pipe. For the supervisor: no import of mailguard.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from mailguard_milter.backoff import HEALTHY_AFTER_S, Backoff
from mailguard_milter.log import Severity, tell
from mailguard_milter.refusal import why_not_started

__all__ = ["TraceProcess"]

WRITER = (sys.executable, "-P", "-m", "mailguard_milter.trace_writer")
# Some hundred traces of common size. The kernel may grant less; the largest trace fits into what it always grants.
PIPE_BYTES = 1024 * 1024
# A writer ends within a batch, a second or two; one whose disk hangs is left behind.
END_TIMEOUT_S = 5.0


@dataclass(slots=True)
class TraceProcess:
    """The writer, if there is to be one, and its pipe."""

    command: Sequence[str] = WRITER
    _ends: tuple[socket.socket, socket.socket] | None = None
    _wanted: Mapping[str, object] | None = None
    _running: Mapping[str, object] | None = None
    """What the process was started with."""
    _process: subprocess.Popen[bytes] | None = None
    _ends_by: float | None = None
    """When a writer that was told to end is killed."""
    _started: float = 0.0
    _start_at: float = 0.0
    _deaths: Backoff = field(default_factory=Backoff)

    def pipe_for(self, settings: Mapping[str, object] | None) -> int | None:
        """The descriptor for a generation with these settings to write to, to be inherited; None for no traces."""
        if settings is None:
            return None
        if self._ends is None:
            reading, writing = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            writing.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, PIPE_BYTES)
            self._ends = reading, writing
        return self._ends[1].fileno()

    def adopt(self, settings: Mapping[str, object] | None) -> None:
        """From now on write by these settings ("path", "max_days", "max_megabytes"); None: no more."""
        self._wanted = settings
        if settings != self._running:
            self._start_at = 0.0
            self._deaths = Backoff()
        if settings is None:
            # What old generations still send is lost, and they know it at once.
            self._close_pipe()
        self.tend()

    def tend(self) -> None:
        """Start, replace or end the writer, as is due. Never waits."""
        if self._process is not None:
            self._watch(self._process)
        if self._process is None and self._wanted is not None and time.monotonic() >= self._start_at:
            self._start(self._wanted)

    def end(self) -> None:
        """After the last worker has ended: let the writer write what it has, and wait for it, not for ever."""
        self._wanted = None
        self._close_pipe()
        if self._process is None:
            return
        try:
            self._process.wait(END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            tell("the trace writer does not end and is killed", Severity.WARNING)
            self.kill()

    def kill(self) -> None:
        """End it at once, without waiting: a process whose disk hangs cannot be waited for."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()

    def _watch(self, process: subprocess.Popen[bytes]) -> None:
        code = process.poll()
        now = time.monotonic()
        if code is None:
            if self._ends_by is None and self._wanted != self._running:
                process.terminate()
                self._ends_by = now + END_TIMEOUT_S
            elif self._ends_by is not None and now > self._ends_by:
                process.kill()
            return
        was_told = self._ends_by is not None
        self._process, self._running, self._ends_by = None, None, None
        if not was_told:
            delay = self._deaths.failed(was_healthy=now - self._started > HEALTHY_AFTER_S)
            self._start_at = now + delay
            tell("the trace writer died", Severity.ERROR, pid=process.pid, status=code, again_in_s=delay)

    def _start(self, settings: Mapping[str, object]) -> None:
        self.pipe_for(settings)
        assert self._ends is not None  # noqa: S101 - just made
        reading = self._ends[0].fileno()
        try:
            self._process = subprocess.Popen(
                [*self.command, json.dumps({"pipe": reading, **settings})],
                stdin=subprocess.DEVNULL,
                pass_fds=[reading],
                # Ctrl-C in a terminal is for the supervisor.
                start_new_session=True,
            )
        except OSError as error:
            delay = self._deaths.failed()
            self._start_at = time.monotonic() + max(delay, 1.0)
            tell("the trace writer cannot be started", Severity.ERROR, why=why_not_started(error))
            return
        self._running, self._started = settings, time.monotonic()

    def _close_pipe(self) -> None:
        for end in self._ends or ():
            end.close()
        self._ends = None
