"""How many workers there are, the core that each keeps to, and how its threads take turns there.

libmilter gives a worker several threads, of which one at a time may run Python. On one core they take turns; on
several they wake each other up only to wait, which costs a sixth of the CPU time of a message. So such a worker keeps
to one core, and there is one for each; and a thread that is woken waits until the one that runs has nothing to do
(SCHED_BATCH, sched(7)), for which it would only have to wait again: this saves another tenth. Where that is
forbidden (by a filter of system calls), two workers for each core do better. A worker of the native engine has one
thread that matters, and the scheduler knows best where.

The cores are those that this process may use, such as of a container or of CPUAffinity= in systemd.
"""

from __future__ import annotations

import os
from contextlib import suppress

__all__ = ["Placement", "keep_to"]

LIBMILTER = "libmilter"


class Placement:
    """For the workers of one engine."""

    def __init__(self, engine: str) -> None:
        self._cores = sorted(os.sched_getaffinity(0))
        self._pins = engine == LIBMILTER and _may_be_changed()
        self.usual_workers = (2 if engine == LIBMILTER and not self._pins else 1) * len(self._cores)
        """Where nobody asks for another number."""

    def cores(self, workers: int) -> list[int | None]:
        """The core of each of so many workers, spread evenly; None: any."""
        if not self._pins:
            return [None] * workers
        return [self._cores[number * len(self._cores) // workers] for number in range(workers)]


def _may_be_changed() -> bool:
    try:
        os.sched_setaffinity(0, os.sched_getaffinity(0))
    except OSError:
        return False
    return True


def keep_to(core: int | None) -> None:
    """For a worker, before it has threads. A core that is gone since then leaves all as it is."""
    if core is not None:
        with suppress(OSError):
            os.sched_setaffinity(0, {core})
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
