"""What others have written, as a terminal is shown it: printable, on one line, everything else a backslash escape."""

from __future__ import annotations

__all__ = ["cell", "file_line", "printable"]


def printable(text: str) -> str:
    """All of it."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def file_line(text: str) -> str:
    """A line of a file, or a command: tabs stay."""
    return "\t".join(map(printable, text.split("\t")))


def cell(text: str, *, max_chars: int) -> str:
    """Cut where it is longer."""
    return printable(text if len(text) <= max_chars else f"{text[:max_chars]}...")
