"""What the processes of a daemon have used: CPU time and memory, from /proc (proc(5)).

A daemon is a process and all that descend from it. CPU time is user and system time of all of them, of their threads
and of children that have ended and were waited for; its resolution is a clock tick, 10 ms. No state.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Memory", "cpu_seconds", "descendants", "is_running", "memory"]

TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")
# Positions after the parenthesis that ends the name: state is 0, ppid 1; utime, stime, cutime and cstime follow.
PARENT = 1
TIMES = slice(11, 15)
_KILOBYTES = re.compile(r"^(Rss|Pss):\s+(\d+) kB$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Memory:
    """In octets. What several processes share counts in `pss` once, in `rss` for each."""

    rss: int
    pss: int


def _status(process: int) -> list[str] | None:
    try:
        text = Path(f"/proc/{process}/stat").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    return text.rpartition(")")[2].split()


def is_running(process: int) -> bool:
    """Not if it has ended, also where nobody has waited for it yet."""
    status = _status(process)
    return status is not None and status[0] != "Z"


def descendants(root: int) -> list[int]:
    """The process and all below it; empty if it has ended."""
    children: dict[int, list[int]] = {}
    known = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and (status := _status(int(entry.name))) is not None:
            known.add(int(entry.name))
            children.setdefault(int(status[PARENT]), []).append(int(entry.name))
    if root not in known:
        return []
    found = [root]
    for each in found:
        found += children.get(each, [])
    return found


def cpu_seconds(processes: Iterable[int]) -> float:
    """User and system time so far."""
    ticks = 0
    for process in processes:
        if (status := _status(process)) is not None:
            ticks += sum(map(int, status[TIMES]))
    return ticks / TICKS_A_SECOND


def memory(process: int) -> Memory:
    """Of one process. Raises OSError if it has ended."""
    text = Path(f"/proc/{process}/smaps_rollup").read_text(encoding="ascii")
    found = {name: int(number) * 1024 for name, number in _KILOBYTES.findall(text)}
    return Memory(rss=found["Rss"], pss=found["Pss"])
