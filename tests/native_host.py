"""The native engine in the test's own process, with a session and a resolver that do as they are told."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from daemon_process import eventually
from engine_host import StandIn
from engine_process import unix_listener
from mailguard.dns.question import Answer, Question, Status
from mailguard.dns.zone import ZoneResolver
from mailguard_milter.engine import Dialogue, Door, Surroundings
from mailguard_milter.engine_native import Engine
from mailguard_milter.log import Format, Log, Severity, Sink
from milter_client import MilterClient

__all__ = ["PATIENCE_S", "HeldResolver", "NativeHost", "SlowResolver", "native_host"]

PATIENCE_S = 20.0


class Lines(Sink):
    def __init__(self) -> None:
        self.lines: list[dict[str, Any]] = []

    def write(self, line: bytes, severity: Severity) -> None:
        self.lines.append(json.loads(line))


class SlowResolver(ZoneResolver):
    """Every name exists not, after `seconds`; or the look-up breaks."""

    def __init__(self, seconds: float, *, broken: bool = False) -> None:
        super().__init__({})
        self.seconds = seconds
        self.broken = broken
        self.prefetched: list[Question] = []
        self.asked: list[tuple[Question, ...]] = []

    async def resolve_async(self, questions: Iterable[Question], *, deadline: float) -> dict[Question, Answer]:
        self.asked.append(tuple(questions))
        await asyncio.sleep(self.seconds)
        if self.broken:
            raise RuntimeError("the resolver is broken")
        return {question: Answer(question, Status.NXDOMAIN) for question in questions}

    def prefetch(self, questions: Iterable[Question]) -> None:
        self.prefetched += questions


class HeldResolver(SlowResolver):
    """Every name exists not, once it is let go: what is to happen before does not race the answer."""

    def __init__(self) -> None:
        super().__init__(0.001)
        self.let_go = threading.Event()

    async def resolve_async(self, questions: Iterable[Question], *, deadline: float) -> dict[Question, Answer]:
        asked = tuple(questions)
        self.asked.append(asked)
        while not self.let_go.is_set():
            await asyncio.sleep(self.seconds)
        return {question: Answer(question, Status.NXDOMAIN) for question in asked}


@dataclass
class NativeHost:
    engine: Engine
    path: Path
    sink: Lines
    listener: socket.socket

    def client(self) -> MilterClient:
        return MilterClient(str(self.path), timeout_s=PATIENCE_S)

    def logged(self, name: str, count: int = 1) -> list[dict[str, Any]]:
        """The events with this name; waits for so many."""

        def found() -> list[dict[str, Any]]:
            return [line for line in self.sink.lines if line.get("event") == name]

        eventually(lambda: len(found()) >= count)
        return found()


@contextmanager
def native_host(
    directory: Path,
    *,
    resolver: ZoneResolver | None = None,
    open_dialogue: Callable[[], Dialogue] = StandIn,
    max_sessions: int = 1000,
    listens_with: Callable[[socket.socket], socket.socket] = lambda listener: listener,
    doors: Sequence[Door] = (),
) -> Iterator[NativeHost]:
    """A running engine; it is stopped at the end."""
    sink = Lines()
    log = Log(sink, Format.JSON, timestamps=False)
    log.start()
    path = directory / "native.sock"
    with unix_listener(path) as listener:
        engine = Engine(
            Surroundings(
                doors=(Door(listens_with(listener), open_dialogue), *doors),
                resolver=resolver or ZoneResolver({}),
                deadline_s=5.0,
                log=log,
                keep_trace=None,
                max_sessions=max_sessions,
                scratch_directory=str(directory),
            )
        )
        engine.start()
        try:
            yield NativeHost(engine, path, sink, listener)
        finally:
            engine.detach()
            path.unlink()
            log.close(timeout_s=PATIENCE_S)
