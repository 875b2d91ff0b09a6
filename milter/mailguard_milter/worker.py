"""Worker: one process that serves one listener, from its fork to its end.

Made by the generation parent. Threads, the resolver and libmilter begin here. Signals that would end a service are
ignored, because libmilter's own thread would take them: the worker obeys its control channel alone, and the end
of file on it means that nobody is left to give orders. It accepts nothing more then, and ends when its sessions
have. Left out: restarting, which is the generation parent's.
"""

from __future__ import annotations

import os
import resource
import select
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from types import TracebackType

from mailguard.config import Config, Listener
from mailguard.dns.answers import Resolver
from mailguard_milter.channel import Channel, Closed, Word
from mailguard_milter.engine_libmilter import Dialogue, Engine
from mailguard_milter.log import Format, Log, Severity, Sink, StderrSink, SyslogSink
from mailguard_milter.refusal import EX_SOFTWARE
from mailguard_milter.trace_pipe import TraceSender

__all__ = ["Application", "serve"]

TICK_S = 0.25
DRAIN_TICK_S = 0.1
# Postfix ends an idle SMTP session after 300 s (smtpd_timeout); who holds on longer has to try again.
DRAIN_DEADLINE_S = 600.0
# Below systemd's TimeoutStopSec and above the longest time that a message may wait for its look-ups.
STOP_DEADLINE_S = 20.0
# No message may take this long beyond its look-ups: a callback that does will never end.
HUNG_AFTER_S = 60.0
# An MTA gives a milter 30 s for a command (milter_command_timeout). When libmilter could not start a thread, it never
# reads again from the session that it was for, and others may wait behind it.
STALLED_AFTER_S = 45.0
# Often enough for each of our own sessions to say something before libmilter's time-out (SESSION_TIMEOUT_S).
WAKE_EVERY_S = 60.0
# Each session needs one descriptor; the rest is for look-ups, libraries and what comes in between two ticks.
MAX_SESSIONS = 4096
SESSIONS_PER_DESCRIPTOR = 0.5


@dataclass(frozen=True, slots=True)
class Application:
    """What a generation loads before it forks, and each worker uses."""

    config: Config
    open_dialogue: Callable[[Listener], Dialogue]
    open_resolver: Callable[[], Resolver]


class _State(Enum):
    SERVING = "serving"
    DRAINING = "draining"
    STOPPING = "stopping"


def open_log(config: Config) -> Log:
    """The log that the configuration names, not started."""
    format = Format(config.log.format)
    if config.log.destination == "syslog":
        sink: Sink = SyslogSink()
        # syslog writes the time; in JSON it may be wanted beside.
        return Log(sink, format, timestamps=format is Format.JSON)
    return Log(StderrSink(), format, timestamps=True)


def serve(
    application: Application,
    listener: Listener,
    listening: socket.socket,
    control: Channel,
    *,
    trace: socket.socket | None = None,
) -> int:
    """Serve `listener` until told to end; the exit code. Raises what opening raises (OSError, MailguardError).

    `trace` is where traces go, None for nowhere.
    """
    log = open_log(application.config)
    log.start()
    _send_uncaught_to(log)
    traces = TraceSender(trace, log) if trace is not None else None
    if traces is not None:
        traces.start()
    try:
        with application.open_resolver() as resolver:
            engine = Engine(
                listening,
                open_dialogue=lambda: application.open_dialogue(listener),
                resolver=resolver,
                deadline_s=application.config.dns.deadline_s,
                log=log,
                keep_trace=traces.put if traces is not None else None,
                scratch_directory=application.config.runtime_directory,
            )
            engine.start()
            control.send(Word.READY)
            return _Watch(engine, control, log, hung_after_s=HUNG_AFTER_S + application.config.dns.deadline_s).run()
    finally:
        if traces is not None:
            traces.close(timeout_s=2.0)
        log.close(timeout_s=2.0)


class Stalls:
    """Notices a session whose input waits unread and unchanged for too long. For one thread."""

    def __init__(self, patience_s: float) -> None:
        self._patience_s = patience_s
        self._waiting: dict[int, tuple[int, float]] = {}

    def found(self, unread: Mapping[int, int], now: float) -> bool:
        """Whether one has waited too long. `unread`: octets by session; `now`: a monotonic clock's seconds."""
        waiting = {}
        for session, octets in unread.items():
            before = self._waiting.get(session)
            if octets:
                waiting[session] = before if before is not None and before[0] == octets else (octets, now)
        self._waiting = waiting
        return any(now - since > self._patience_s for _, since in waiting.values())


class _Watch:
    """What the main thread does while libmilter serves."""

    def __init__(self, engine: Engine, control: Channel, log: Log, *, hung_after_s: float) -> None:
        self._engine = engine
        self._control: Channel | None = control
        self._log = log
        self._hung_after_s = hung_after_s
        self._state = _State.SERVING
        self._deadline = float("inf")
        self._quiet_ticks = 0
        self._paused = False
        self._stalls = Stalls(STALLED_AFTER_S)
        self._wake_at = 0.0
        descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self._max_sessions = min(MAX_SESSIONS, int(descriptors * SESSIONS_PER_DESCRIPTOR))

    def run(self) -> int:
        while True:
            self._obey()
            if not self._engine.is_serving:
                self._log.event("libmilter ended", Severity.ERROR, error=str(self._engine.failure))
                return EX_SOFTWARE
            if self._engine.longest_callback_s() > self._hung_after_s:
                self._log.event("a callback hangs; the worker ends", Severity.ERROR)
                return EX_SOFTWARE
            if time.monotonic() > self._wake_at:
                self._engine.socket.wake()
                self._wake_at = time.monotonic() + WAKE_EVERY_S
            unread = self._engine.socket.unread()
            if self._stalls.found(unread, time.monotonic()):
                self._log.event("libmilter has stopped reading; the worker ends", Severity.ERROR)
                return EX_SOFTWARE
            if self._state is _State.SERVING:
                self._limit_sessions(len(unread))
            elif self._is_done():
                return 0

    def _obey(self) -> None:
        tick_s = TICK_S if self._state is _State.SERVING else DRAIN_TICK_S
        if self._control is None:
            time.sleep(tick_s)
            return
        if not select.select([self._control], [], [], tick_s)[0]:
            return
        try:
            while packet := self._control.receive():
                match packet[0]:
                    case Word.PING:
                        self._control.send(Word.PONG)
                    case Word.DRAIN:
                        self._end(_State.DRAINING, DRAIN_DEADLINE_S)
                    case Word.STOP:
                        self._end(_State.STOPPING, STOP_DEADLINE_S)
        except Closed:
            self._control = None
            self._end(_State.DRAINING, DRAIN_DEADLINE_S)

    def _end(self, state: _State, within_s: float) -> None:
        if self._state is _State.STOPPING:
            return
        if self._state is _State.SERVING:
            self._engine.socket.detach()
        if self._control is not None:
            self._control.send(Word.DETACHED)
        self._state = state
        self._deadline = time.monotonic() + within_s
        self._quiet_ticks = 0

    def _is_done(self) -> bool:
        if time.monotonic() > self._deadline:
            self._log.event(
                "ended with sessions open", Severity.WARNING, sessions=self._engine.socket.sessions(), why="deadline"
            )
            return True
        busy = self._engine.messages or (self._state is _State.DRAINING and self._engine.sessions())
        self._quiet_ticks = 0 if busy else self._quiet_ticks + 1
        # An accept that was under way when the socket was taken from libmilter shows at the second look, and an
        # answer that was given a moment ago is on its way out.
        return self._quiet_ticks > 2

    def _limit_sessions(self, sessions: int) -> None:
        if not self._paused and sessions >= self._max_sessions:
            self._log.event("too many sessions: accepting none until some end", Severity.ERROR, sessions=sessions)
            self._engine.socket.pause()
            self._paused = True
        elif self._paused and sessions < self._max_sessions * 0.9:
            self._engine.socket.resume()
            self._paused = False


def _send_uncaught_to(log: Log) -> None:
    """pymilter prints what it cannot decode through sys.excepthook: one line of the log instead of a traceback."""

    def tell(kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> None:
        frames = ",".join(f"{frame.filename}:{frame.lineno}" for frame in traceback.extract_tb(trace)[-1:])
        log.event("uncaught", Severity.ERROR, error=f"{kind.__name__}: {error}", place=frames or "pymilter")

    sys.excepthook = tell
    threading.excepthook = lambda caught: tell(caught.exc_type, caught.exc_value, caught.exc_traceback)


def raise_descriptor_limit() -> None:
    """As many descriptors as the hard limit allows; more than the sessions need brings nothing."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = int(2 * MAX_SESSIONS / SESSIONS_PER_DESCRIPTOR)
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def end_process(code: int) -> None:
    """End without libmilter's clean-up, which unlinks, and without waiting for its threads."""
    sys.stderr.flush()
    os._exit(code)
