"""Record: the repetitions of one contender in one row of the results, and the context in which they are made."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import ParamSpec, TextIO, TypeVar

from bench_keys import BenchKeys
from compared_daemon import DaemonError
from load_generator import LoadError, LoadGenerator
from measurement import Measured
from milter_replies import WrongReply
from sandbox_place import SandboxError
from scenarios import Plan
from spread import Spread

__all__ = ["Context", "Progress", "Record", "by_row"]

P = ParamSpec("P")
T = TypeVar("T")
_BOLD, _RED, _PLAIN = "\033[1m", "\033[31m", "\033[0m"
# What may go wrong with a compared daemon: its row is void then, and the comparison goes on.
FAILURES = (WrongReply, LoadError, DaemonError, SandboxError)


@dataclass(slots=True)
class Record:
    """One contender in one row."""

    section: str
    row: str
    contender: str
    runs: list[Measured] = field(default_factory=list)
    void: str = ""
    """Why there are no figures."""
    repeated: list[str] = field(default_factory=list)
    """Why single runs were void. Each was repeated at once, and came out right then."""
    figures: dict[str, list[float]] = field(default_factory=dict)
    """What else was measured, once for each run; the unit is in the name."""

    def spread(self, read: Callable[[Measured], float]) -> Spread:
        """Of a figure over the runs."""
        return Spread.of([read(run) for run in self.runs])

    def make_void(self, reason: str) -> None:
        """It has no figures, also none of earlier rounds: those of the others would not belong to them."""
        self.void = reason
        self.runs.clear()
        self.figures.clear()


def by_row(records: Iterable[Record]) -> dict[str, list[Record]]:
    """Those of each row, in order."""
    found: dict[str, list[Record]] = {}
    for record in records:
        found.setdefault(record.row, []).append(record)
    return found


class Progress:
    """Says on a stream what is done; in colours where that is a terminal."""

    def __init__(self, stream: TextIO = sys.stderr) -> None:
        self._stream = stream
        self._colours = stream.isatty() and not os.environ.get("NO_COLOR")
        self._started = time.monotonic()

    def _say(self, text: str, style: str = "") -> None:
        if style and self._colours:
            text = f"{style}{text}{_PLAIN}"
        minutes, seconds = divmod(int(time.monotonic() - self._started), 60)
        print(f"{minutes:3}:{seconds:02} {text}", file=self._stream, flush=True)

    def heading(self, text: str) -> None:
        self._say(text, _BOLD)

    def line(self, text: str) -> None:
        self._say(f"  {text}")

    def void(self, text: str) -> None:
        self._say(f"  {text}", _RED)


@dataclass(frozen=True, slots=True)
class Context:
    """What every section needs."""

    plan: Plan
    keys: BenchKeys
    generator: LoadGenerator
    progress: Progress
    configurations: dict[str, str]
    """Of every daemon that ran, by its name and task: printed with the results."""
    directory: Path

    def attempt(self, record: Record, act: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T | None:
        """`act` with its arguments, unless the record is void; a failure makes it void."""
        if record.void:
            return None
        try:
            return act(*arguments, **named)
        except FAILURES as error:
            record.make_void(str(error) or type(error).__name__)
            self.progress.void(f"{record.contender}: VOID: {record.void}")
            return None

    def attempt_twice(self, record: Record, act: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T | None:
        """`attempt` for a run: one that is void is repeated once, and the record says so."""
        if record.void:
            return None
        try:
            return act(*arguments, **named)
        except FAILURES as error:
            record.repeated.append(str(error) or type(error).__name__)
            self.progress.void(f"{record.contender}: void and repeated: {record.repeated[-1]}")
            return self.attempt(record, act, *arguments, **named)
