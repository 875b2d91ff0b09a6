"""Worker: one process that serves one listener or several, from its fork to its end.

Made by the generation parent. Threads, the resolver and the engine begin here. Signals that would end a service are
ignored, because libmilter's own thread would take them: the worker obeys its control channel alone, and the end
of file on it means that nobody is left to give orders. It accepts nothing more then, and ends when its sessions
have. Left out: restarting, which is the generation parent's.
"""

from __future__ import annotations

import logging
import os
import resource
import select
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import partial
from types import TracebackType

from mailguard.config import Config, Listener
from mailguard.dns.answers import Resolver
from mailguard_milter.allocation import is_full
from mailguard_milter.awake_clock import AwakeClock
from mailguard_milter.channel import Channel, Closed, Word
from mailguard_milter.engine import Dialogue, Door, Engine, Surroundings
from mailguard_milter.engine_choice import engine_class
from mailguard_milter.log import Format, Log, Severity, Sink, StderrSink, SyslogSink
from mailguard_milter.refusal import EX_SOFTWARE
from mailguard_milter.trace_pipe import TraceSender

__all__ = ["Application", "serve"]

TICK_S = 0.25
DRAIN_TICK_S = 0.1
# After a reload: longer than Postfix waits for a client that says nothing (smtpd_timeout, 300 s). Who keeps a session
# open with commands that the milter does not hear of can outlast this, and Postfix does then what
# milter_default_action says, as at a restart. No longer, because the keys and the configuration of before are in use
# until then: mailguard.rotation.step waits for it.
DRAIN_DEADLINE_S = 600.0
# The worker serves afterwards in any case.
WARM_UP_S = 2.0
# Below systemd's TimeoutStopSec and above the longest time that a message may wait for its look-ups.
STOP_DEADLINE_S = 20.0
# No message may take this long beyond its look-ups: a callback that does will never end. One that was stopped for so
# long, with the whole machine, has HUNG_GRACE_S to go on.
HUNG_AFTER_S = 60.0
HUNG_GRACE_S = 5.0
# At a limit on its memory, a session ends, and the MTA tells its client to come again. Most such times pass; a worker
# that gets no more for so long makes room for another one.
STARVED_AFTER_S = 10.0
# Each session needs one descriptor; the rest is for look-ups, libraries and what comes in between two ticks.
MAX_SESSIONS = 4096
SESSIONS_PER_DESCRIPTOR = 0.5


@dataclass(frozen=True, slots=True)
class Application:
    """What a generation loads before it forks, and each worker uses."""

    config: Config
    open_dialogue: Callable[[Listener], Dialogue]
    open_resolver: Callable[[], Resolver]
    keys: str = ""
    """What it signs with, as the supervisor makes it known."""


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
    listening: Sequence[tuple[Listener, socket.socket]],
    control: Channel,
    *,
    scratch_directory: str,
    trace: socket.socket | None = None,
) -> int:
    """Serve these listeners until told to end; the exit code. Raises what opening raises (OSError, MailguardError).

    `scratch_directory` is the one that the daemon holds: the configuration may name another one since it started.
    `trace` is where traces go, None for nowhere.
    """
    log = open_log(application.config)
    log.start()
    _send_uncaught_to(log)
    traces = TraceSender(trace, log) if trace is not None else None
    if traces is not None:
        traces.start()
    try:
        # Never closed: its end is the end of the process. Until then a message may wait for it, and must not be
        # judged without it.
        resolver = application.open_resolver()
        resolver.warm_up(within_s=WARM_UP_S)
        engine = engine_class(application.config)(
            Surroundings(
                doors=tuple(Door(each, partial(application.open_dialogue, listener)) for listener, each in listening),
                resolver=resolver,
                deadline_s=application.config.dns.deadline_s,
                log=log,
                keep_trace=traces.put if traces is not None else None,
                max_sessions=_max_sessions(),
                scratch_directory=scratch_directory,
            )
        )
        engine.start()
        control.send(Word.READY)
        return _Watch(engine, control, log, hung_after_s=HUNG_AFTER_S + application.config.dns.deadline_s).run()
    finally:
        if traces is not None:
            traces.close(timeout_s=2.0)
        log.close(timeout_s=2.0)


def _max_sessions() -> int:
    """How many sessions the limit on descriptors leaves room for."""
    return min(MAX_SESSIONS, int(resource.getrlimit(resource.RLIMIT_NOFILE)[0] * SESSIONS_PER_DESCRIPTOR))


class _Watch:
    """What the main thread does while the engine serves."""

    def __init__(self, engine: Engine, control: Channel, log: Log, *, hung_after_s: float) -> None:
        self._engine = engine
        self._control: Channel | None = control
        self._log = log
        self._hung_after_s = hung_after_s
        self._clock = AwakeClock()
        self._state = _State.SERVING
        self._deadline = float("inf")
        self._hangs_since = float("inf")
        self._starves_since = float("inf")
        self._quiet_ticks = 0

    def run(self) -> int:
        while True:
            self._obey()
            if not self._engine.is_serving:
                self._log.event("the engine ended", Severity.ERROR, error=str(self._engine.failure))
                return EX_SOFTWARE
            now = self._clock()
            if self._is_hung(now):
                self._log.event("a callback hangs; the worker ends", Severity.ERROR)
                return EX_SOFTWARE
            if self._is_starved(now):
                self._log.event(
                    "the worker ends",
                    Severity.ERROR,
                    why=f"at its memory limit (LimitAS=, ulimit -v) for {STARVED_AFTER_S:.0f} s",
                )
                return EX_SOFTWARE
            if trouble := self._engine.trouble(now):
                self._log.event("the worker ends", Severity.ERROR, why=trouble)
                return EX_SOFTWARE
            if self._state is not _State.SERVING and self._is_done():
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
            self._engine.detach()
        if self._control is not None:
            self._control.send(Word.DETACHED)
        self._state = state
        self._deadline = time.monotonic() + within_s
        self._quiet_ticks = 0

    def _is_hung(self, now: float) -> bool:
        if self._engine.longest_callback_s() <= self._hung_after_s:
            self._hangs_since = float("inf")
        else:
            self._hangs_since = min(self._hangs_since, now)
        return now - self._hangs_since > HUNG_GRACE_S

    def _is_starved(self, now: float) -> bool:
        if self._state is _State.SERVING and is_full():
            self._starves_since = min(self._starves_since, now)
        else:
            self._starves_since = float("inf")
        return now - self._starves_since > STARVED_AFTER_S

    def _is_done(self) -> bool:
        if time.monotonic() > self._deadline:
            self._log.event(
                "ended with sessions open", Severity.WARNING, sessions=self._engine.sessions(), why="deadline"
            )
            return True
        busy = self._engine.messages or (self._state is _State.DRAINING and self._engine.sessions())
        self._quiet_ticks = 0 if busy else self._quiet_ticks + 1
        # An accept that was under way when the socket was taken from the engine shows at the second look, and an
        # answer that was given a moment ago is on its way out.
        return self._quiet_ticks > 2


def _send_uncaught_to(log: Log) -> None:
    """One line of the log instead of a traceback; pymilter prints what it cannot decode through sys.excepthook."""

    def tell(kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            frames = ",".join(f"{frame.filename}:{frame.lineno}" for frame in traceback.extract_tb(trace)[-1:])
            log.event("uncaught", Severity.ERROR, error=f"{kind.__name__}: {error}", place=frames or "pymilter")
        except MemoryError:
            # Python would write five lines about it, for each callback; _Watch tells of the want of memory.
            return

    class ToLog(logging.Handler):
        """What goes wrong on an event loop, for which asyncio has a traceback on stderr, wherever the log is."""

        def emit(self, record: logging.LogRecord) -> None:
            error = record.exc_info[1] if record.exc_info else None
            why = f"{type(error).__name__}: {error}" if error is not None else record.getMessage()
            log.event("uncaught", Severity.ERROR, error=why, place="asyncio")

    logging.getLogger("asyncio").addHandler(ToLog(logging.WARNING))
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
    """End without libmilter's clean-up, which unlinks, and without waiting for threads."""
    sys.stderr.flush()
    os._exit(code)
