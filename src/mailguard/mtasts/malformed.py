"""Malformed: why octets are neither a record nor a policy. Frozen; safe to share between threads."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Malformed", "shown"]

# How much of what a stranger wrote a detail repeats.
MAX_SHOWN_CHARS = 60


@dataclass(frozen=True, slots=True)
class Malformed:
    """`detail` is for people; printable ASCII."""

    detail: str


def shown(octets: bytes) -> str:
    """The beginning of `octets` as printable ASCII, in quotes."""
    text = octets[:MAX_SHOWN_CHARS].decode("latin-1").encode("unicode_escape").decode("ascii")
    return f'"{text}..."' if len(octets) > MAX_SHOWN_CHARS else f'"{text}"'
