"""CPU time of a piece of work, for tests that bound it.

A single measurement may have in it what the process does besides, such as a collection of garbage: where thousands of
tests had run, work of 10 to 30 ms was once seen to take 0.9 s.
"""

from __future__ import annotations

import time
from collections.abc import Callable

__all__ = ["Work", "best_cpu_s", "cpu_s"]

ROUNDS = 5

Work = Callable[[], object]


def cpu_s(work: Work, repeat: int = 1) -> float:
    """One measurement."""
    start = time.process_time()
    for _ in range(repeat):
        work()
    return time.process_time() - start


def best_cpu_s(work: Work) -> float:
    """The shortest of ROUNDS."""
    return min(cpu_s(work) for _ in range(ROUNDS))
