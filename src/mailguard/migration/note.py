"""What is said about an option or a line: what to decide, what is broken, what differs, what is left out. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any

__all__ = ["Note", "NoteKind", "Place", "Setting", "shown"]

MAX_SHOWN_CHARS = 100


class NoteKind(Enum):
    """How much a note matters."""

    DECIDE = "decide"
    """Something did not come over, or otherwise than it was: the administrator has to look at it."""
    BROKEN = "broken"
    """A line or an option that the program itself cannot have understood."""
    DIFFERS = "differs"
    """It came over, or mailguard does it always; what is different, the text says."""
    LEFT_OUT = "left out"
    """It has no counterpart, and mail is judged and signed the same without it."""

    @property
    def needs_decision(self) -> bool:
        """Whether somebody has to look."""
        return self in (NoteKind.DECIDE, NoteKind.BROKEN)


@dataclass(frozen=True, slots=True)
class Place:
    """A file as it was named, and a line from 1; 0 for the whole file."""

    file: str
    line: int = 0

    def __str__(self) -> str:
        return f"{shown(self.file)}:{self.line}" if self.line else shown(self.file)


@dataclass(frozen=True, slots=True)
class Setting:
    """A name and its value, as a file has them; the value without comment and surrounding blanks."""

    name: str
    value: str
    place: Place

    @property
    def is_on(self) -> bool:
        """A Boolean as these programs read it: by its first letter."""
        return self.value[:1] in "TtYy1" and self.value != ""


@dataclass(frozen=True, slots=True)
class Note:
    """One remark. `option` is empty where it is about a line or a file."""

    kind: NoteKind
    text: str
    place: Place
    option: str = ""

    def __str__(self) -> str:
        return f"{self.place}: {shown(self.option)}: {self.text}" if self.option else f"{self.place}: {self.text}"

    def to_json(self) -> dict[str, Any]:
        """For `json.dumps`."""
        return {
            "kind": self.kind.value,
            "file": shown(self.place.file),
            "line": self.place.line,
            "option": shown(self.option),
            "text": self.text,
        }


def shown(text: str) -> str:
    """`text` on one line, without anything that moves a cursor, and not too long."""
    cut = text if len(text) <= MAX_SHOWN_CHARS else text[:MAX_SHOWN_CHARS] + "..."
    return "".join(character if character.isprintable() else "?" for character in cut)
