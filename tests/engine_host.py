"""A worker with a stand-in session, as a process of its own: pymilter has one milter a process.

    python tests/engine_host.py '{"control": FD, "listening": FD, "directory": PATH, "descriptors": N or null,
                                  "engine": "libmilter" or "native"}'

The stand-in notes every event. At the end of the message it inserts the field X-Events with its notes as JSON, and
does what the fields called X-Do asked for: "raise STAGE", "exit STAGE", "true STAGE", "reply CODE ENHANCED TEXT",
"insert HEX", "delete NAME INDEX", "quarantine TEXT", "none", "wait SECONDS", "question".
"""

from __future__ import annotations

import ctypes
import json
import resource
import signal
import socket
import sys
import threading
import time
import weakref
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address
from typing import Any

from mailguard.config import Config, DnsConfig, Listener, LogConfig
from mailguard.dns.answers import Answers
from mailguard.dns.question import Answer, Question, RecordType, Status
from mailguard.dns.zone import ZoneResolver
from mailguard.trace import Trace
from mailguard_milter import worker
from mailguard_milter.actions import Accept, Action, DeleteHeader, InsertHeader, Quarantine, Reply
from mailguard_milter.channel import Channel

ALIVE: weakref.WeakSet[StandIn] = weakref.WeakSet()
QUESTION = Question("a.us.test", RecordType.A)
DEADLINE_S = 5.0
_PYTHON: Any = ctypes.PyDLL(None)
_PYTHON.PyGILState_GetThisThreadState.restype = _PYTHON.PyThreadState_Get.restype = ctypes.c_void_p
STRANGERS: list[str] = []
"""At which stages the thread remembered the thread state of another session."""


@dataclass(frozen=True)
class Conclusion:
    actions: tuple[Action, ...]
    record: Mapping[str, object]
    trace: Trace | None = None


@dataclass(eq=False)
class StandIn:
    events: list[list[str]] = field(default_factory=list)
    orders: list[str] = field(default_factory=list)
    kept_orders: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        ALIVE.add(self)

    def _note(self, stage: str, *arguments: object) -> Any:
        texts = [each.decode("latin-1") if isinstance(each, bytes) else str(each) for each in arguments]
        self.events.append([stage, *texts])
        if _PYTHON.PyGILState_GetThisThreadState() not in (None, _PYTHON.PyThreadState_Get()):
            STRANGERS.append(stage)
        for order in [*self.orders, *self.kept_orders]:
            what, _, where = order.partition(" ")
            if where != stage:
                continue
            if what == "raise":
                raise RuntimeError(f"as told, at {stage}")
            if what == "exit":
                sys.exit(3)
            if what == "interrupt":
                raise KeyboardInterrupt
            if what == "generator":
                raise GeneratorExit
            if what == "memory":
                raise MemoryError
            if what == "true":
                return True
        return None

    def connect(self, address: IPv4Address | IPv6Address | None, macros: Mapping[str, bytes | None]) -> Any:
        name = macros.get("{daemon_name}") or b""
        if name.startswith(b"do "):
            self.kept_orders.append(name[3:].decode())
        return self._note("connect", address, sorted(macros.items()))

    def helo(self, name: bytes) -> Any:
        return self._note("helo", name)

    def mail(self, path: bytes, macros: Mapping[str, bytes | None]) -> Any:
        self.events = [event for event in self.events if event[0] in ("connect", "helo")]
        # A sender of the form do+STAGE+WHAT: what fails before the first field.
        self.orders = [" ".join(path.decode("latin-1").strip("<>").split("+")[1:])] if b"do+" in path else []
        return self._note("mail", path, sorted(macros.items()))

    def rcpt(self) -> tuple[Question, ...]:
        self._note("rcpt")
        return (QUESTION,) if "question rcpt" in self.orders else ()

    def headers(self, fields: Sequence[tuple[bytes, bytes]]) -> None:
        for name, value in fields:
            if name == b"X-Do":
                self.orders.append(value.strip().decode())
            self._note("header", name, value)

    def end_of_header(self) -> tuple[Question, ...]:
        self._note("end of header")
        return (QUESTION,) if "question" in self.orders else ()

    def body(self, chunk: bytes) -> Any:
        return self._note("body", len(chunk))

    def abort(self) -> Any:
        return self._note("abort")

    def end_of_message(self, answers: Answers, *, now: float) -> Conclusion:
        if "question" in self.orders:
            self._note("answered", answers.get(QUESTION).detail)
        self._note("end of message")
        notes = {
            "events": self.events,
            "alive": len(ALIVE),
            "threads": threading.active_count(),
            "strangers": len(STRANGERS),
        }
        actions: list[Any] = [InsertHeader(b"X-Events", b" " + json.dumps(notes).encode())]
        last: list[Any] = [Accept()]
        for order in self.orders:
            match order.split(" "):
                case ["none"]:
                    return None  # type: ignore[return-value]  # the fault that is tested
                case ["verdict"]:
                    last = [True]
                case ["nothing"]:
                    last = []
                case ["wait", seconds]:
                    time.sleep(float(seconds))
                case ["reply", code, enhanced, *words]:
                    last = [Reply(code, enhanced, " ".join(words))]
                case ["quarantine", *words]:
                    actions.append(Quarantine(" ".join(words)))
                case ["insert", name, value]:
                    actions.append(InsertHeader(name.encode(), bytes.fromhex(value)))
                case ["delete", name, index]:
                    actions.append(DeleteHeader(name.encode(), int(index)))
        return Conclusion((*actions, *last), {"from": "x@evil.test", "action": "accept"})


class TellingResolver(ZoneResolver):
    """Each answer says how many seconds there were for it."""

    def resolve(self, questions: Iterable[Question], *, deadline: float) -> dict[Question, Answer]:
        left = f"{deadline - time.monotonic()}"
        return {question: Answer(question, Status.NXDOMAIN, detail=left) for question in questions}

    async def resolve_async(self, questions: Iterable[Question], *, deadline: float) -> dict[Question, Answer]:
        return self.resolve(questions, deadline=deadline)


def main(orders: Mapping[str, Any]) -> int:
    for ignored in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(ignored, signal.SIG_IGN)
    if orders["descriptors"]:
        resource.setrlimit(resource.RLIMIT_NOFILE, (orders["descriptors"], orders["descriptors"]))
    listening = socket.socket(fileno=orders["listening"])
    listener = Listener()
    config = Config(
        authserv_id="mx.us.test",
        engine=orders["engine"],
        log=LogConfig(destination="stderr", format="json"),
        dns=DnsConfig(deadline_s=DEADLINE_S),
        listeners=(listener,),
    )
    application = worker.Application(config, lambda _: StandIn(), lambda: TellingResolver({}))
    control = Channel.inherited(orders["control"])
    return worker.serve(application, [(listener, listening)], control, scratch_directory=orders["directory"])


def _orders(arguments: Iterable[str]) -> Mapping[str, Any]:
    (text,) = arguments
    loaded: Mapping[str, Any] = json.loads(text)
    return loaded


if __name__ == "__main__":
    worker.end_process(main(_orders(sys.argv[1:])))
