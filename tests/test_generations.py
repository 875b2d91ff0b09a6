"""What the supervisor does about its generations, on a clock of the test's own and without processes.

ATTACKS.md rows: V04, V06, V16.
"""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from mailguard_milter.channel import Word
from mailguard_milter.supervisor import MAX_DRAINING, PATIENCE_S, START_TIMEOUT_S, Supervisor


class Process:
    """One that runs until it is killed."""

    def __init__(self) -> None:
        self.returncode: int | None = None

    def poll(self) -> int | None:
        return self.returncode

    def kill(self) -> None:
        self.returncode = -9


def generation(number: int, *, is_ready: bool = True) -> Any:
    said: list[Word] = []
    return SimpleNamespace(
        number=number,
        process=Process(),
        said=said,
        channel=SimpleNamespace(send=said.append),
        plan={"listeners": [], "trace": None},
        heard=0.0,
        asked=0.0,
        is_ready=is_ready,
        failure="",
    )


def supervising(*, now: float = 0.0) -> Any:
    made: Any = Supervisor("mailguard.toml")
    made._clock = lambda: now
    made._trace = SimpleNamespace(adopt=lambda wanted: None)
    made._directory = SimpleNamespace(announce_keys=lambda number: None)
    return made


@pytest.mark.attack("V06")
def test_the_oldest_of_too_many_that_drain_is_hurried() -> None:
    """Each keeps the memory of its workers."""
    made = supervising()
    generations = [generation(number) for number in range(MAX_DRAINING + 2)]
    for each in generations:
        made._promote(each)
    oldest, *others, last = generations
    assert oldest.said == [Word.DRAIN, Word.STOP]
    assert all(each.said == [Word.DRAIN] for each in others)
    assert last.said == []


@pytest.mark.attack("V04")
@pytest.mark.parametrize(
    ("is_ready", "patience_s"), [(True, PATIENCE_S), (False, START_TIMEOUT_S)], ids=["serving", "starting"]
)
def test_one_that_does_not_answer_is_killed(is_ready: bool, patience_s: float) -> None:
    for silent_s in (patience_s, patience_s + 1):
        made = supervising(now=silent_s)
        made._current = generation(1, is_ready=is_ready)
        made._ask()
        is_killed = silent_s > patience_s
        assert made._current.process.returncode == (-9 if is_killed else None)
        assert made._current.failure == ("it did not answer" if is_killed else "")
        assert made._current.said == ([Word.PING] if is_ready and not is_killed else [])


@pytest.mark.attack("V16")
@pytest.mark.parametrize(
    ("error", "why"),
    [("OSError(24, 'Too many open files')", "Too many open files; a limit"), ("MemoryError()", "MemoryError")],
    ids=["files", "memory"],
)
def test_what_the_kernel_refuses_a_generation_is_the_supervisors_to_tell(error: str, why: str) -> None:
    program = (
        "import json, os\n"
        "from mailguard_milter import generation\n"
        "from mailguard_milter.channel import Channel\n"
        "ours, theirs = Channel.pair()\n"
        f"def load(path): raise {error}\n"
        "orders = {'config': '', 'control': os.dup(theirs.fileno()), 'listeners': {}, 'trace': None}\n"
        "code = generation.main([json.dumps({**orders, 'directory': '', 'keys': ''})], load=load)\n"
        "print(code, *ours.receive())\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert done.stdout.startswith("70 Word.FAILED {'why': '" + why)
