"""Runs load.c: builds it, writes its scripts, starts it and reads what it kept.

One object is for one thread; only different scripts may run at the same time. The program is built once for each run
with the system's gcc.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from milter_replies import Answered, read_replies
from milter_script import Negotiated, script
from sample_mail import Sample

__all__ = ["Load", "LoadError", "LoadGenerator", "build"]

HERE = Path(__file__).resolve().parent
FLAGS = ("-std=c11", "-O2", "-Wall", "-Wextra", "-Werror")


class LoadError(Exception):
    """The load could not be made: a milter hung up, or answered what nobody can answer."""


@dataclass(frozen=True, slots=True)
class Load:
    """What came of it."""

    seconds: float
    answers: list[Answered]

    @property
    def messages(self) -> int:
        return len(self.answers)


def build(source: str, directory: Path, *libraries: str) -> Path:
    """Compile a program of this directory into `directory`. Raises subprocess.CalledProcessError."""
    target = directory / Path(source).stem
    subprocess.run(["gcc", *FLAGS, str(HERE / source), *libraries, "-lpthread", "-o", str(target)], check=True)
    return target


class LoadGenerator:
    """Sends messages to milters."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._program = build("load.c", directory)
        self._scripts: dict[object, Path] = {}

    def prepare(self, key: object, samples: Sequence[Sample], milters: Sequence[Negotiated]) -> Path:
        """A script for these messages and milters, which is written once for each `key`."""
        if key not in self._scripts:
            path = self._directory / f"script-{len(self._scripts)}"
            with path.open("wb") as file:
                file.writelines(script(samples, milters))
            self._scripts[key] = path
        return self._scripts[key]

    def forget(self) -> None:
        """Remove the scripts."""
        for path in self._scripts.values():
            path.unlink()
        self._scripts.clear()

    def run(self, prepared: Path, *, concurrency: int, seconds: float = 3600.0, count: int = 0) -> Load:
        """Send messages until `seconds` have passed or `count` were sent (0: no bound). Raises LoadError."""
        replies = self._directory / f"replies-{prepared.name}"
        done = subprocess.run(
            [str(self._program), str(prepared), str(replies), str(concurrency), f"{seconds:f}", str(count)],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise LoadError(done.stderr.strip())
        said = json.loads(done.stdout)
        answers = list(read_replies(replies.read_bytes()))
        replies.unlink()
        if len(answers) != said["messages"]:
            raise LoadError(f"{said['messages']} messages were sent and {len(answers)} answers kept")
        return Load(said["seconds"], answers)
