"""How many workers there are by default, and which cores they keep to."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

import pytest

from daemon_process import Daemon
from engine_process import per_engine
from mailguard_milter.placement import Placement, keep_to

T = TypeVar("T")


@pytest.fixture
def cores(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Those of a container, say."""
    given = [2, 3, 6, 7]
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(given))
    monkeypatch.setattr(os, "sched_setaffinity", lambda process, wanted: None)
    return given


def forbidden(*arguments: object) -> None:
    raise PermissionError(errno.EPERM, "Operation not permitted")


@pytest.mark.parametrize(
    ("workers", "placed"),
    [
        (1, [2]),
        (2, [2, 6]),
        (3, [2, 3, 6]),
        (4, [2, 3, 6, 7]),
        (6, [2, 2, 3, 6, 6, 7]),
        (8, [2, 2, 3, 3, 6, 6, 7, 7]),
    ],
)
def test_workers_on_libmilter_are_spread_over_the_cores(cores: list[int], workers: int, placed: list[int]) -> None:
    assert Placement("libmilter").usual_workers == len(cores)
    assert Placement("libmilter").cores(workers) == placed


def test_workers_of_the_native_engine_go_where_they_like(cores: list[int]) -> None:
    placement = Placement("native")
    assert placement.usual_workers == len(cores)
    assert placement.cores(3) == [None] * 3


def test_where_it_is_forbidden_there_are_more_workers(cores: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_setaffinity", forbidden)
    placement = Placement("libmilter")
    assert placement.usual_workers == 2 * len(cores)
    assert placement.cores(3) == [None] * 3


def test_a_core_that_is_gone_does_no_harm(monkeypatch: pytest.MonkeyPatch) -> None:
    taken_turns: list[object] = []
    monkeypatch.setattr(os, "sched_setaffinity", forbidden)
    monkeypatch.setattr(os, "sched_setscheduler", lambda *arguments: taken_turns.append(arguments))
    keep_to(0)
    keep_to(None)
    assert not taken_turns


def test_turns_that_are_forbidden_do_no_harm(monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[object] = []
    monkeypatch.setattr(os, "sched_setaffinity", lambda process, cores: kept.append(cores))
    monkeypatch.setattr(os, "sched_setscheduler", forbidden)
    keep_to(3)
    assert kept == [{3}]


@per_engine
def test_the_workers_of_a_daemon(daemon: Daemon, engine: str) -> None:
    """It has two, as configured. Their threads stay together; the processes above them may run anywhere."""
    every = os.sched_getaffinity(0)
    daemon.started()
    workers = daemon.workers()
    threads = [of_threads(pid, lambda thread: frozenset(os.sched_getaffinity(thread))) for pid in workers]
    expected = [
        {frozenset({core})} if engine == "libmilter" else {frozenset(every)} for core in spread(sorted(every))
    ]
    assert sorted(threads, key=str) == sorted(expected, key=str)
    assert all(os.sched_getaffinity(pid) == every for pid in set(daemon.family()) - set(workers))
    turns = [of_threads(pid, os.sched_getscheduler) for pid in workers]
    assert turns == [{os.SCHED_BATCH if engine == "libmilter" else os.SCHED_OTHER}] * len(workers)
    assert all(os.sched_getscheduler(pid) == os.SCHED_OTHER for pid in set(daemon.family()) - set(workers))


def of_threads(pid: int, ask: Callable[[int], T]) -> set[T]:
    found = set()
    for name in os.listdir(f"/proc/{pid}/task"):
        with suppress(ProcessLookupError):  # ended meanwhile
            found.add(ask(int(name)))
    return found


def spread(every: list[int]) -> tuple[int, int]:
    return every[0], every[len(every) // 2]
