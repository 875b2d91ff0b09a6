"""AwakeClock: the time in which a process that looks after others could have seen them.

A machine that is paused, or swaps, stops those who watch and those who are watched. When it goes on, the watcher must
not take that time for the others' silence: they get what is left of theirs. For one thread, which looks a few times a
second.
"""

from __future__ import annotations

import time

__all__ = ["AwakeClock"]

# What lies between two looks at most, on a machine that is merely busy.
LONGEST_LOOK_S = 2.0


class AwakeClock:
    """Called, it gives seconds as `time.monotonic()` does, of which at most LONGEST_LOOK_S pass between two calls."""

    def __init__(self) -> None:
        self._looked = self._awake = time.monotonic()

    def __call__(self) -> float:
        now = time.monotonic()
        self._awake += min(now - self._looked, LONGEST_LOOK_S)
        self._looked = now
        return self._awake
