"""What a check is and what comes out of it. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import IntEnum

from mailguard.audit.facts import HostFacts

__all__ = ["Check", "Found", "Result", "Severity", "Unclear"]


class Severity(IntEnum):
    """How bad it is. The number is the exit code of `mailguard audit` if nothing worse was found."""

    NOTICE = 1
    """The host could be harder."""
    WARNING = 2
    """It is weaker than it should be."""
    CRITICAL = 3
    """It can be abused, or mail can be read or lost."""

    @property
    def word(self) -> str:
        """In lower case."""
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class Found:
    """One thing that is not as it should be."""

    place: str
    """`main.cf`, a service of master.cf, or a file."""
    what: str
    """The same as long as nothing changes: a baseline goes by it."""
    commands: tuple[str, ...]
    """What puts it right, for the administrator to run. A line that begins with `#` is advice."""


@dataclass(frozen=True, slots=True)
class Unclear:
    """What could not be told."""

    reason: str


Outcome = Iterator[Found | Unclear]


@dataclass(frozen=True, slots=True)
class Check:
    """One recommendation."""

    id: str
    severity: Severity
    rule: str
    """What must hold, as a sentence without its full stop."""
    why: str
    run: Callable[[HostFacts], Outcome]


@dataclass(frozen=True, slots=True)
class Result:
    """What one check found: nothing is a pass."""

    check: Check
    found: tuple[Found, ...]
    unclear: tuple[Unclear, ...]
