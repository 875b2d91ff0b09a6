"""Explanation: a node of the tree that says why a message was judged as it was.

All text of a node is printable ASCII of bounded length: whatever it is made with, what is not becomes a backslash
escape when it is made. So nothing that a stranger wrote can move a cursor, break a line or reorder what is shown.
Frozen; safe to share between threads. Left out: colours and drawn lines, which are the command's.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

__all__ = ["Explanation", "octets_text"]

# The longest text that is worth showing whole: a DMARC record is kept up to so many characters.
MAX_TEXT_CHARS = 4_096
_CUT = "..."


@dataclass(frozen=True, slots=True)
class Explanation:
    """A node: what it is about, how that came out, and why."""

    title: str
    """What the node is about, such as "SPF"."""
    status: str = ""
    """How it came out, such as "pass"; empty for a node that only groups."""
    reason: str = ""
    """One word for programs; docs/reasons.md explains it."""
    detail: str = ""
    """One sentence for people."""
    advice: str = ""
    """What to do about it, and which side must; empty where there is nothing to do."""
    facts: tuple[tuple[str, str], ...] = ()
    """Names and values, in order; a name may occur more than once."""
    children: tuple[Explanation, ...] = ()

    def __post_init__(self) -> None:
        # The one place through which every text goes, whoever makes a node; frozen, hence object's own setter.
        for name in ("title", "status", "reason", "detail", "advice"):
            object.__setattr__(self, name, _shown(getattr(self, name)))
        object.__setattr__(self, "facts", tuple((_shown(name), _shown(value)) for name, value in self.facts))

    @property
    def heading(self) -> str:
        """The node in short: "SPF: fail (match)"."""
        text = f"{self.title}: {self.status}" if self.status else self.title
        return f"{text} ({self.reason})" if self.reason and self.reason != self.status else text

    def notes(self) -> Iterator[str]:
        """What stands below the heading and above the children, line by line."""
        if self.detail:
            yield self.detail
        for name, value in self.facts:
            yield f"{name}: {value}" if value else name
        if self.advice:
            yield f"what to do: {self.advice}"

    def lines(self, depth: int = 0) -> Iterator[str]:
        """The tree as plain lines, two spaces a level."""
        indent = "  " * depth
        yield f"{indent}{self.heading}"
        for note in self.notes():
            yield f"{indent}  {note}"
        for child in self.children:
            yield from child.lines(depth + 1)

    def text(self) -> str:
        """`lines`, joined."""
        return "\n".join(self.lines())

    def to_json(self) -> dict[str, object]:
        """The tree as a value for `json.dumps`.

        Every node has these keys: "title", "status", "reason", "detail", "what_to_do" (strings, empty where there is
        nothing to say), "facts" (a list of objects with the strings "name" and "value") and "children" (a list of
        nodes). "status" and "reason" are the words of docs/reasons.md and of the RFCs.
        """
        return {
            "title": self.title,
            "status": self.status,
            "reason": self.reason,
            "detail": self.detail,
            "what_to_do": self.advice,
            "facts": [{"name": name, "value": value} for name, value in self.facts],
            "children": [child.to_json() for child in self.children],
        }


def octets_text(octets: bytes) -> str:
    """Octets that a stranger sent, as text: what is not UTF-8 as \\xNN."""
    return octets[:MAX_TEXT_CHARS].decode("utf-8", "backslashreplace")


def _shown(text: str) -> str:
    kept = text[:MAX_TEXT_CHARS]
    if not (kept.isascii() and kept.isprintable()):
        kept = "".join(c if " " <= c <= "~" else c.encode("unicode_escape").decode("ascii") for c in kept)
    return kept if len(kept) <= MAX_TEXT_CHARS and len(text) <= MAX_TEXT_CHARS else kept[: MAX_TEXT_CHARS - 3] + _CUT
