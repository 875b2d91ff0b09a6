"""Generation parent: loads the configuration and the keys once, forks the workers, and keeps them alive.

A freshly executed process, so that a reload also picks up new code, and so that nothing but what it loads itself is
in the memory that its workers share. It has one thread and opens nothing that a fork would break. Dead workers are
forked again, at once the first time and then with growing delays; a worker that does not answer is killed.

Arguments: one JSON object, {"config": PATH, "control": DESCRIPTOR, "listeners": {ADDRESS: DESCRIPTOR}, "trace":
DESCRIPTOR or null, "directory": PATH, "keys": PATH}. The directory is that of the daemon, for sockets of the workers'
own; to the last it writes what its workers sign with, before it says that they serve.
"""

from __future__ import annotations

import gc
import json
import os
import select
import signal
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from mailguard.config import Listener
from mailguard.configured_dns import resolver_config, servers_of
from mailguard.dns.answers import Resolver
from mailguard.dns.live import open_resolver
from mailguard.dns.servers import ServerAddress
from mailguard.errors import ConfigError, MailguardError
from mailguard.sender_sources import open_senders
from mailguard_milter import engine_choice, worker
from mailguard_milter.allocation import share_one_arena
from mailguard_milter.awake_clock import AwakeClock
from mailguard_milter.backoff import HEALTHY_AFTER_S, Backoff
from mailguard_milter.channel import Channel, Closed, Word
from mailguard_milter.loaded_keys import loaded_keys
from mailguard_milter.log import Severity, tell
from mailguard_milter.placement import Placement, keep_to
from mailguard_milter.private_memory import keep_private
from mailguard_milter.refusal import EX_CONFIG, EX_SOFTWARE, why_not_started
from mailguard_milter.sender_lookups import SenderLookups
from mailguard_milter.service import Service
from mailguard_milter.session import Session
from mailguard_milter.worker import Application

__all__ = ["Patience", "load", "main"]

TICK_S = 0.25
REAP_TICK_S = 0.02
# How often it is looked whether /etc/resolv.conf names other resolvers than those that are asked.
RESOLVERS_EVERY_S = 60.0
# So many deaths in a row before the first worker was ever ready: this generation cannot serve.
HOPELESS_AFTER = 3


def load(path: str) -> Application:
    """Everything that the workers share. Raises ConfigError and its kin."""
    config = engine_choice.load(path)
    service = Service.open(config)
    dns_config = resolver_config(config.dns)

    def opened() -> Resolver:
        dns = open_resolver(dns_config)
        senders = open_senders(config.senders)
        return dns if senders is None else SenderLookups(dns, senders)

    # What is wrong with a zone file or a source is found here, not in every worker.
    opened().close()
    return Application(config, lambda listener: Session(service, listener), opened, loaded_keys(service).text())


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a worker may be silent. One that hangs is killed within 30 s."""

    ask_every_s: float = 5.0
    answer_s: float = 20.0
    start_s: float = 30.0


DEFAULT_PATIENCE = Patience()


@dataclass(slots=True)
class _Slot:
    """A place for one worker."""

    listeners: tuple[Listener, ...]
    core: int | None = None
    """It keeps to this one; None: to any."""
    pid: int = 0
    channel: Channel | None = None
    is_ready: bool = False
    is_detached: bool = False
    started: float = 0.0
    heard: float = 0.0
    asked: float = 0.0
    deaths: Backoff = field(default_factory=Backoff)
    start_at: float = 0.0

    @property
    def addresses(self) -> str:
        """For people."""
        return ", ".join(listener.address for listener in self.listeners)


def _shared_out(engine: str, listeners: tuple[Listener, ...]) -> list[tuple[Listener, ...]]:
    """Which listeners are served by the same workers: each by its own where a process can have one alone."""
    return [(listener,) for listener in listeners] if engine == "libmilter" else [listeners]


@dataclass(slots=True)
class _Parent:
    application: Application
    control: Channel
    listening: Mapping[str, socket.socket]
    trace: socket.socket | None
    patience: Patience
    directory: str
    keys_file: str
    clock: AwakeClock = field(default_factory=AwakeClock)
    slots: list[_Slot] = field(default_factory=list)
    was_ready: bool = False
    ending: Word | None = None
    told_detached: bool = False
    orphaned: bool = False
    code: int = 0
    asked: tuple[ServerAddress, ...] = ()
    """The resolvers of the start."""
    named: tuple[ServerAddress, ...] = ()
    """Those of the last look."""
    look_at: float = 0.0

    def run(self) -> int:
        self.asked = self.named = servers_of(self.application.config.dns)
        self.look_at = self.clock() + RESOLVERS_EVERY_S
        engine = self.application.config.engine
        placement = Placement(engine)
        for listeners in _shared_out(engine, self.application.config.listeners):
            workers = max(listener.workers or placement.usual_workers for listener in listeners)
            self.slots += [_Slot(listeners, core) for core in placement.cores(workers)]
        while True:
            if self.ending is None:
                self._start_workers()
            elif not any(slot.pid for slot in self.slots):
                return self.code
            elif not self.told_detached and not any(slot.pid and not slot.is_detached for slot in self.slots):
                self.told_detached = True
                self.control.send(Word.DETACHED)
            self._listen()
            self._reap()
            self._ask()
            self._look_at_resolvers()
            if not self.was_ready and self.ending is None:
                if hopeless := [slot for slot in self.slots if slot.deaths.failures >= HOPELESS_AFTER]:
                    self._give_up(
                        f"the workers of {hopeless[0].addresses} cannot be started, or die while they start;"
                        " the lines before say why"
                    )
                elif all(slot.is_ready for slot in self.slots):
                    self.was_ready = True
                    self._tell_keys()
                    self.control.send(Word.READY)

    def _tell_keys(self) -> None:
        """For the supervisor, who makes it known when nobody else accepts. Mail does not wait for a full disk."""
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            with open(os.open(self.keys_file, flags, 0o644), "w", encoding="ascii") as file:
                os.fchmod(file.fileno(), 0o644)
                file.write(self.application.keys)
        except OSError as error:
            with suppress(OSError):  # half of it would be taken for what is told
                os.unlink(self.keys_file)
            tell("it cannot be told which keys sign", Severity.WARNING, file=self.keys_file, why=str(error))

    # Workers

    def _start_workers(self) -> None:
        now = self.clock()
        for slot in self.slots:
            if not slot.pid and slot.start_at <= now:
                self._fork(slot)

    def _fork(self, slot: _Slot) -> None:
        ends: tuple[Channel, ...] = ()
        try:
            ends = ours, theirs = Channel.pair()
            pid = os.fork()
        except OSError as error:
            # A limit on processes, memory or descriptors: the other workers go on, and it is tried again.
            for end in ends:
                end.close()
            delay = slot.deaths.failed()
            slot.start_at = self.clock() + delay
            why = why_not_started(error)
            tell("a worker cannot be started", Severity.ERROR, why=why, listener=slot.addresses, again_in_s=delay)
            return
        if not pid:
            self._become_worker(slot, theirs, ours)
        theirs.close()
        now = self.clock()
        slot.pid, slot.channel, slot.is_ready = pid, ours, False
        slot.started = slot.heard = slot.asked = now

    def _become_worker(self, own: _Slot, channel: Channel, parents_end: Channel) -> None:
        code = EX_SOFTWARE
        try:
            keep_to(own.core)
            # What stays open here hides from others that this process's siblings or its parent died.
            parents_end.close()
            self.control.close()
            for slot in self.slots:
                if slot.channel is not None:
                    slot.channel.close()
            for address, other in self.listening.items():
                if address not in {listener.address for listener in own.listeners}:
                    other.close()
            listening = [(listener, self.listening[listener.address]) for listener in own.listeners]
            code = worker.serve(
                self.application, listening, channel, scratch_directory=self.directory, trace=self.trace
            )
        except (OSError, MailguardError) as error:
            channel.send(Word.FAILED, why=f"{own.addresses}: {error}")
        except BaseException as error:  # noqa: BLE001 - the edge of the process: say it, whatever it is
            tell("worker failed", Severity.ERROR, error=f"{type(error).__name__}: {why_not_started(error)}")
        finally:
            worker.end_process(code)

    def _reap(self) -> None:
        for slot in self.slots:
            if not slot.pid:
                continue
            pid, status = os.waitpid(slot.pid, os.WNOHANG)
            if not pid:
                continue
            now = self.clock()
            if slot.channel is not None:
                slot.channel.close()
            slot.pid, slot.channel = 0, None
            delay = slot.deaths.failed(was_healthy=slot.is_ready and now - slot.started > HEALTHY_AFTER_S)
            slot.is_ready = False
            slot.start_at = now + delay
            if self.ending is None:
                tell(
                    "worker died",
                    Severity.ERROR,
                    pid=pid,
                    status=os.waitstatus_to_exitcode(status),
                    listener=slot.addresses,
                    again_in_s=delay,
                )

    def _ask(self) -> None:
        now = self.clock()
        for slot in self.slots:
            if not slot.pid or slot.channel is None:
                continue
            has_time_to_start = not slot.is_ready and self.ending is None
            if now - slot.heard > (self.patience.start_s if has_time_to_start else self.patience.answer_s):
                tell("worker does not answer and is killed", Severity.ERROR, pid=slot.pid)
                os.kill(slot.pid, signal.SIGKILL)
                slot.heard = now
            elif slot.is_ready and now - slot.asked >= self.patience.ask_every_s:
                slot.channel.send(Word.PING)
                slot.asked = now

    def _look_at_resolvers(self) -> None:
        """Of a host that got its network late, or another one, nobody would know why nothing is found any more."""
        now = self.clock()
        if self.ending is not None or now < self.look_at:
            return
        self.look_at = now + RESOLVERS_EVERY_S
        before, self.named = self.named, servers_of(self.application.config.dns)
        if self.named not in (before, self.asked):
            asked, named = ([each.address for each in servers] for servers in (self.asked, self.named))
            remedy = "reload the daemon"
            tell("the resolvers have changed", Severity.ERROR, asked=asked, named=named, remedy=remedy)

    # Words

    def _listen(self) -> None:
        waiting = any(slot.pid and slot.channel is None for slot in self.slots)
        channels: dict[int, _Slot | None] = {
            slot.channel.fileno(): slot for slot in self.slots if slot.channel is not None
        }
        if not self.orphaned:
            channels[self.control.fileno()] = None
        for descriptor in select.select(list(channels), [], [], REAP_TICK_S if waiting else TICK_S)[0]:
            slot = channels[descriptor]
            if slot is None:
                self._obey()
            else:
                self._hear(slot)

    def _hear(self, slot: _Slot) -> None:
        assert slot.channel is not None  # noqa: S101 - only those with a channel were waited for
        try:
            while packet := slot.channel.receive():
                slot.heard = self.clock()
                word, more = packet
                if word is Word.READY:
                    slot.is_ready = True
                elif word is Word.DETACHED:
                    slot.is_detached = True
                elif word is Word.FAILED and not self.was_ready:
                    self._give_up(str(more.get("why")))
                elif word is Word.FAILED:
                    tell("worker failed", Severity.ERROR, error=str(more.get("why")))
        except Closed:
            slot.channel.close()
            slot.channel = None

    def _obey(self) -> None:
        try:
            while packet := self.control.receive():
                if packet[0] is Word.PING:
                    self.control.send(Word.PONG)
                elif packet[0] in (Word.DRAIN, Word.STOP):
                    self._end(packet[0])
        except Closed:
            self.orphaned = True
            tell("the supervisor is gone; ending when the sessions have", Severity.ERROR)
            self._end(Word.DRAIN)

    def _end(self, word: Word) -> None:
        self.ending = word
        for listening in self.listening.values():
            listening.close()
        for slot in self.slots:
            if slot.channel is not None:
                slot.channel.send(word)

    def _give_up(self, why: str) -> None:
        """Workers that are ready have taken messages, or are about to say that they are: they end as at a stop."""
        if self.ending is not None:
            return
        self.control.send(Word.FAILED, why=why, code=EX_SOFTWARE)
        self.code = EX_SOFTWARE
        self._end(Word.STOP)


def main(
    arguments: Sequence[str], *, load: Callable[[str], Application] = load, patience: Patience = DEFAULT_PATIENCE
) -> int:
    """Run a generation; the exit code."""
    for ignored in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(ignored, signal.SIG_IGN)
    keep_private()
    orders = json.loads(arguments[0])
    control = Channel.inherited(orders["control"])
    try:
        return _serve(orders, control, load, patience)
    except (OSError, MemoryError) as error:
        # The workers see that nobody is left to give orders, and finish their sessions.
        control.send(Word.FAILED, why=why_not_started(error) or type(error).__name__, code=EX_SOFTWARE)
        return EX_SOFTWARE


def _serve(
    orders: Mapping[str, Any], control: Channel, load: Callable[[str], Application], patience: Patience
) -> int:
    listening = {address: socket.socket(fileno=number) for address, number in orders["listeners"].items()}
    for inherited in listening.values():
        inherited.set_inheritable(False)
    trace = socket.socket(fileno=orders["trace"]) if orders["trace"] is not None else None
    if trace is not None:
        trace.set_inheritable(False)
    try:
        application = load(orders["config"])
        if {listener.address for listener in application.config.listeners} != set(listening):
            raise ConfigError(f"{orders['config']}: the listeners changed while it was read; reload again")
    except MailguardError as error:
        control.send(Word.FAILED, why=str(error), code=EX_CONFIG)
        return EX_CONFIG
    worker.raise_descriptor_limit()
    share_one_arena()
    # What was loaded stays shared with the workers: their collectors leave it alone.
    gc.collect()
    gc.freeze()
    return _Parent(application, control, listening, trace, patience, orders["directory"], orders["keys"]).run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
