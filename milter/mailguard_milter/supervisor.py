"""Supervisor: owns the listening sockets, and starts, watches, reloads and drains the generations.

One thread, and next to no imports: it lives as long as the service, through every reload. What the configuration
asks of it comes as JSON from a short-lived process (plan.py); everything else is the business of the generation,
a freshly executed process that inherits the sockets. A reload starts a new generation beside the old one; when all
workers of the new one accept, the old one is told to drain. If the new one fails, the old one stays.

SIGHUP reloads, SIGTERM and SIGINT finish what is under way and end. Many SIGHUPs in a row are one reload after the
one that is running.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

from mailguard_milter.awake_clock import AwakeClock
from mailguard_milter.backoff import HEALTHY_AFTER_S, Backoff
from mailguard_milter.channel import Channel, Closed, Word
from mailguard_milter.identity import Identity
from mailguard_milter.listening import ListeningSocket
from mailguard_milter.log import Severity, tell
from mailguard_milter.notify import Notifier
from mailguard_milter.refusal import EX_SOFTWARE, EX_TEMPFAIL, Refusal, why_not_started
from mailguard_milter.runtime_directory import RuntimeDirectory
from mailguard_milter.systemd_sockets import PassedSocket, SystemdSocket, assign, take_passed
from mailguard_milter.trace_process import TraceProcess

__all__ = ["Supervisor"]

TICK_S = 1.0
# Reading 5,000 domains takes under a second, loading as many keys a few: these end what hangs, on a disk for example.
PLAN_TIMEOUT_S = 60.0
START_TIMEOUT_S = 120.0
# A generation that is silent this long, asked every few seconds, is hung: it has nothing to do but answer.
PING_EVERY_S = 5.0
PATIENCE_S = 20.0
# Workers end within 20 s of a stop (worker.STOP_DEADLINE_S); systemd waits 90 s by default.
STOP_TIMEOUT_S = 25.0
# Each draining generation keeps its workers' memory. The oldest is hurried when there are more.
MAX_DRAINING = 4

_PYTHON = (sys.executable, "-P", "-m")
PLAN = (*_PYTHON, "mailguard_milter.plan")
GENERATION = (*_PYTHON, "mailguard_milter.generation")


@dataclass(slots=True)
class _Generation:
    number: int
    process: subprocess.Popen[bytes]
    channel: Channel
    plan: dict[str, Any]
    started: float
    heard: float
    asked: float
    is_ready: bool = False
    is_detached: bool = False
    is_gone: bool = False
    failure: str = ""
    code: int = EX_SOFTWARE


@dataclass(slots=True)
class Supervisor:
    """The daemon's first process."""

    config_path: str
    plan_command: Sequence[str] = PLAN
    generation_command: Sequence[str] = GENERATION
    _passed: tuple[PassedSocket, ...] = ()
    _listening: dict[str, ListeningSocket | SystemdSocket] = field(default_factory=dict)
    _current: _Generation | None = None
    _next: _Generation | None = None
    _draining: list[_Generation] = field(default_factory=list)
    # Died before its workers, who finish their sessions.
    _orphaned: list[_Generation] = field(default_factory=list)
    # Drains, but has not let go of the sockets yet: a new session may still meet the old configuration.
    _letting_go: _Generation | None = None
    _reload_wanted: bool = False
    _stop_wanted: bool = False
    _code: int = 0
    _count: int = 0
    _deaths: Backoff = field(default_factory=Backoff)
    _clock: AwakeClock = field(default_factory=AwakeClock)
    _start_at: float | None = None
    _was_ready: bool = False
    _identity: Identity | None = None
    _directory: RuntimeDirectory | None = None
    # Whether DNSSEC was trusted at the last "serving", and of whom.
    _announced: dict[str, Any] | None = None
    _notifier: Notifier = field(default_factory=Notifier)
    _trace: TraceProcess = field(default_factory=TraceProcess)

    def run(self) -> int:
        """Serve until told to end; the exit code. Raises Refusal if it cannot start."""
        os.umask(0o077)
        self._passed = take_passed(os.environ)
        plan = self._read_plan()
        self._identity = identity = Identity.to_become(plan["user"])
        with RuntimeDirectory.claim(plan["runtime_directory"], identity) as self._directory:
            wakeup = _catch_signals(self)
            try:
                self._open_listeners(plan)
                identity.become()
                self._next = self._spawn(plan)
                while not self._stop_wanted:
                    self._step(wakeup)
                self._stop()
            finally:
                for opened in self._listening.values():
                    opened.close()
                self._kill_all()
        return self._code

    # The plan and its sockets

    def _read_plan(self) -> dict[str, Any]:
        try:
            done = subprocess.run(
                [*self.plan_command, self.config_path],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=PLAN_TIMEOUT_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise Refusal(f"{self.config_path}: reading it took over {PLAN_TIMEOUT_S:.0f} s", EX_SOFTWARE) from None
        except OSError as error:
            why = why_not_started(error)
            raise Refusal(f"no process can be started to read {self.config_path}: {why}", EX_SOFTWARE) from None
        if done.returncode:
            text = done.stderr.decode("utf-8", "replace").strip()
            raise Refusal(text or f"reading {self.config_path} ended with {done.returncode}", done.returncode)
        plan = json.loads(done.stdout)
        assert isinstance(plan, dict)  # noqa: S101 - plan.py prints nothing else
        return plan

    def _open_listeners(self, plan: dict[str, Any]) -> None:
        """Open what the plan names and is not open yet. Raises Refusal, and then nothing has changed."""
        assert self._identity is not None  # noqa: S101 - set before the first plan is carried out
        assigned = assign(self._passed, plan["listeners"], config_path=self.config_path)
        opened: list[ListeningSocket | SystemdSocket] = []
        try:
            for wanted in plan["listeners"]:
                if (existing := self._listening.get(wanted["address"])) is not None:
                    existing.adjust(wanted, self._identity)
                elif (passed := assigned.get(wanted["address"])) is not None:
                    opened.append(SystemdSocket.open(passed, wanted, self._identity))
                else:
                    opened.append(ListeningSocket.open(wanted, self._identity))
        except Refusal:
            for fresh in opened:
                fresh.close()
            raise
        self._listening.update((fresh.address, fresh) for fresh in opened)

    def _close_listeners_except(self, plan: dict[str, Any]) -> None:
        wanted = {listener["address"] for listener in plan["listeners"]}
        for address in [each for each in self._listening if each not in wanted]:
            self._listening.pop(address).close()

    def _restore_listeners(self, plan: dict[str, Any]) -> None:
        self._close_listeners_except(plan)
        try:
            self._open_listeners(plan)
        except Refusal as refusal:
            tell("a listener keeps its new group or mode", Severity.WARNING, why=str(refusal))

    # Generations

    def _spawn(self, plan: dict[str, Any]) -> _Generation:
        assert self._directory is not None  # noqa: S101 - claimed before the first generation is started
        self._count += 1
        keys = self._directory.keys_of(self._count)
        self._directory.forget_keys(self._count)
        try:
            pipe = self._trace.pipe_for(plan["trace"])
            ours, theirs = Channel.pair()
        except OSError as error:
            raise Refusal(f"no process can be started: {why_not_started(error)}", EX_SOFTWARE) from None
        sockets = {each["address"]: self._listening[each["address"]].socket.fileno() for each in plan["listeners"]}
        orders: dict[str, Any] = {"config": self.config_path, "control": theirs.fileno(), "listeners": sockets}
        orders |= {"trace": pipe, "directory": self._directory.path, "keys": keys}
        command = [*self.generation_command, json.dumps(orders)]
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno(), *sockets.values(), *([] if pipe is None else [pipe])],
                # A group of its own: its workers can be killed with it.
                start_new_session=True,
            )
        except OSError as error:
            ours.close()
            if not isinstance(error, FileNotFoundError | PermissionError):
                raise Refusal(f"no process can be started: {why_not_started(error)}", EX_SOFTWARE) from None
            raise Refusal(
                f'the user "{plan["user"]}" cannot run {command[0]} ({error.strerror}); install Python and mailguard'
                " where that user can read them, such as a virtual environment of /usr/bin/python3 below /opt",
                EX_SOFTWARE,
            ) from None
        finally:
            theirs.close()
        now = self._clock()
        return _Generation(self._count, process, ours, plan, started=now, heard=now, asked=now)

    def _step(self, wakeup: socket.socket) -> None:
        generations = self._generations()
        channels = {each.channel.fileno(): each for each in generations if not each.is_gone}
        readable, _, _ = select.select([wakeup.fileno(), *channels], [], [], self._patience())
        for descriptor in readable:
            if descriptor in channels:
                self._hear(channels[descriptor])
            else:
                wakeup.recv(4096)
        self._ask()
        self._trace.tend()
        for generation in generations:
            if generation.process.poll() is not None:
                self._bury(generation)
        # Looked at often: the number of a process group that is gone may be given anew.
        self._orphaned = [each for each in self._orphaned if _is_left(each)]
        if self._next is not None and self._next.is_ready:
            self._promote(self._next)
        letting_go = self._letting_go
        if letting_go is not None and (letting_go.is_detached or letting_go not in self._draining):
            self._letting_go = None
            if self._current is not None:
                self._announce(self._current)
        if self._start_at is not None and time.monotonic() >= self._start_at:
            self._start_at = None
            self._reload_wanted = True
        if self._reload_wanted and self._next is None and self._letting_go is None:
            self._reload_wanted = False
            self._reload()
        if lost := self._lost():
            # Not to be made again by who has given up root.
            tell("deleted or replaced; ending, to be started again", Severity.ERROR, path=lost)
            self._stop_wanted, self._code = True, EX_TEMPFAIL
        if self._notifier.watchdog_s:
            self._notifier.alive()

    def _lost(self) -> list[str]:
        """What mail, or a worker to come, would look for in vain."""
        assert self._directory is not None  # noqa: S101 - as above
        lost = [each.address for each in self._listening.values() if each.is_lost()]
        return lost + ([self._directory.path] if self._directory.is_lost() else [])

    def _patience(self) -> float:
        waits = [TICK_S]
        if self._start_at is not None:
            waits.append(max(0.0, self._start_at - time.monotonic()))
        if self._notifier.watchdog_s:
            waits.append(self._notifier.watchdog_s / 3)
        return min(waits)

    def _generations(self) -> list[_Generation]:
        return [each for each in (self._current, self._next, *self._draining) if each is not None]

    def _hear(self, generation: _Generation) -> None:
        try:
            while packet := generation.channel.receive():
                word, more = packet
                generation.heard = self._clock()
                if word is Word.READY:
                    generation.is_ready = True
                elif word is Word.DETACHED:
                    generation.is_detached = True
                elif word is Word.FAILED:
                    generation.failure = str(more.get("why", ""))
                    generation.code = int(str(more.get("code", EX_SOFTWARE)))
        except Closed:
            generation.is_gone = True

    def _ask(self) -> None:
        now = self._clock()
        for generation in self._generations():
            patience_s = PATIENCE_S if generation.is_ready else START_TIMEOUT_S
            if now - generation.heard > patience_s and generation.process.poll() is None:
                tell("a generation does not answer and is killed", Severity.ERROR, generation=generation.number)
                generation.failure = generation.failure or "it did not answer"
                # Its workers see the end of file, finish their sessions and end. Some may serve where not all do.
                generation.process.kill()
                generation.heard = now
            elif generation.is_ready and now - generation.asked >= PING_EVERY_S:
                generation.channel.send(Word.PING)
                generation.asked = now

    def _promote(self, fresh: _Generation) -> None:
        old, self._current, self._next = self._current, fresh, None
        if old is not None:
            old.channel.send(Word.DRAIN)
            self._draining.append(old)
        for hurried in self._draining[:-MAX_DRAINING]:
            hurried.channel.send(Word.STOP)
        self._close_listeners_except(fresh.plan)
        self._trace.adopt(fresh.plan["trace"])
        self._was_ready = True
        self._letting_go = old
        if old is None:
            self._announce(fresh)

    def _announce(self, serving: _Generation) -> None:
        assert self._directory is not None  # noqa: S101 - as above
        self._directory.announce_keys(serving.number)
        plan, before = serving.plan, self._announced
        # The plan is of the code that is installed by now, which may be older than this process.
        trust: dict[str, Any] = {"dnssec": plan.get("dnssec"), "resolvers": plan.get("resolvers")}
        if before is not None and (before["dnssec"], trust["dnssec"]) == ("trusted", "untrusted"):
            tell(
                "DNSSEC is not trusted any more", Severity.WARNING, before=before["resolvers"], now=trust["resolvers"]
            )
        self._announced = trust
        tell("serving", generation=serving.number, listeners=list(self._listening), **trust)
        self._notifier.ready(f"serving, generation {serving.number}")

    def _bury(self, dead: _Generation) -> None:
        self._hear(dead)
        dead.channel.close()
        self._orphaned.append(dead)
        if self._directory is not None:
            self._directory.forget_keys(dead.number)
        if dead in self._draining:
            self._draining.remove(dead)
            return
        why = dead.failure or f"it ended with {dead.process.returncode}"
        if dead is self._next:
            self._next = None
            if not self._was_ready:
                raise Refusal(why, dead.code)
            self._reload_failed(why)
        elif dead is self._current:
            self._current = None
            tell("the generation died", Severity.ERROR, generation=dead.number, why=why)
            if self._next is None:
                self._start_later(was_healthy=self._clock() - dead.started > HEALTHY_AFTER_S)

    def _start_later(self, *, was_healthy: bool = False) -> None:
        self._start_at = time.monotonic() + self._deaths.failed(was_healthy=was_healthy)

    def _reload(self) -> None:
        assert self._identity is not None  # noqa: S101 - as above
        self._notifier.reloading()
        try:
            plan = self._read_plan()
            self._open_listeners(plan)
            self._next = self._spawn(plan)
        except Refusal as refusal:
            self._reload_failed(str(refusal))
            return
        current = self._current
        if current is not None:
            for key in ("user", "runtime_directory"):
                if plan[key] != current.plan[key]:
                    tell(f"{key} changed: that takes effect at the next start", Severity.WARNING)

    def _reload_failed(self, why: str) -> None:
        if self._current is not None:
            tell("reload failed; the old configuration stays", Severity.ERROR, why=why)
            self._restore_listeners(self._current.plan)
            self._notifier.ready("serving with the old configuration: the last reload failed")
        else:
            tell("no generation can be started", Severity.ERROR, why=why)
            self._start_later()

    # The end

    def _stop(self) -> None:
        self._notifier.stopping()
        # Postfix is refused at once and answers 451, instead of waiting for someone to accept. Where the sockets are
        # systemd's it waits: for the next start.
        for opened in self._listening.values():
            opened.close()
        self._listening.clear()
        for generation in self._generations():
            generation.channel.send(Word.STOP)
        deadline = time.monotonic() + STOP_TIMEOUT_S
        left = [*self._generations(), *self._orphaned]
        while (left := [each for each in left if _is_left(each)]) and time.monotonic() < deadline:
            time.sleep(0.02)
        self._trace.end()
        late = [each.number for each in left]
        tell("ended", Severity.WARNING if late else Severity.INFO, killed_generations=late or None)

    def _kill_all(self) -> None:
        for generation in [*self._generations(), *self._orphaned]:
            if _is_left(generation):
                _kill_group(generation)
                generation.process.wait()
        self._trace.kill()


def _is_left(generation: _Generation) -> bool:
    """Whether it or a worker of it has not ended."""
    if generation.process.poll() is None:
        return True
    group = generation.process.pid
    try:
        # Where this is the first process of a container, it has become the parent of its workers.
        while os.waitpid(-group, os.WNOHANG)[0]:
            continue
    except ChildProcessError:
        pass
    try:
        os.killpg(group, 0)
    except OSError:
        return False
    return True


def _kill_group(generation: _Generation) -> None:
    try:
        os.killpg(generation.process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def _catch_signals(supervisor: Supervisor) -> socket.socket:
    """Signals set a flag and make the returned socket readable."""
    wakeup, written = socket.socketpair()
    wakeup.setblocking(False)
    written.setblocking(False)

    def reload(number: int, frame: FrameType | None) -> None:
        supervisor._reload_wanted = True

    def stop(number: int, frame: FrameType | None) -> None:
        supervisor._stop_wanted = True

    signal.signal(signal.SIGHUP, reload)
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    signal.set_wakeup_fd(written.detach(), warn_on_full_buffer=False)
    return wakeup
