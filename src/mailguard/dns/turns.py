"""Turns: how many look-ups ask at a time, in all and for names in one zone.

A zone that answers slowly on purpose has only so many turns, and leaves the others to all other zones. Whoever comes
too late is called when its turn has come, in the order of arrival: first within its zone, then among all. Left out:
for how long one waits (lookups.py). Belongs to one event loop.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

__all__ = ["Turns", "zone_of"]

Begin = Callable[[], None]


@dataclass(slots=True)
class _Zone:
    """Those of one zone that have a turn in it, and those that wait for one."""

    taken: int = 0
    waiting: deque[Begin] = field(default_factory=deque)


class Turns:
    """A number of turns. Each that was taken is given back once."""

    def __init__(self, *, at_once: int, at_once_in_zone: int) -> None:
        self._free = at_once
        self._at_once_in_zone = at_once_in_zone
        self._waiting: deque[Begin] = deque()
        self._zones: dict[str, _Zone] = {}

    def take(self, zone: str, begin: Begin) -> bool:
        """Call `begin` when there is a turn for it: at once, which is told by True, or from the event loop."""
        turns = self._zones.get(zone)
        if turns is None:
            turns = self._zones[zone] = _Zone()
        if turns.taken >= self._at_once_in_zone:
            turns.waiting.append(begin)
            return False
        turns.taken += 1
        if not self._free:
            self._waiting.append(begin)
            return False
        self._free -= 1
        begin()
        return True

    def give_back(self, zone: str) -> None:
        """End a turn that was taken for a name in `zone`."""
        turns = self._zones[zone]
        if turns.waiting:
            # Its turn in the zone passes to the next one there, which comes last of all.
            self._waiting.append(turns.waiting.popleft())
        else:
            turns.taken -= 1
            if not turns.taken:
                del self._zones[zone]
        if self._waiting:
            # From the loop: whoever begins may end at once, and so on through the whole line.
            asyncio.get_running_loop().call_soon(self._waiting.popleft())
        else:
            self._free += 1


def zone_of(name: str) -> str:
    """What stands for the zone that `name` is in: the last two labels, or the network of a reverse name."""
    labels = name.split(".")
    return ".".join(labels[-4:] if labels[-1] == "arpa" else labels[-2:])
