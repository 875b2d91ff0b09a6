"""Lines that Postfix breaks when it sends them on, behind every milter (RFC 5322 §2.1.1).

smtp(8) and lmtp(8) put CRLF and a space into a line of more than `smtp_line_length_limit` octets, 998 by default. A
signature that covers the line is then not valid any more, and only the program that wrote it can help. Linear in the
input; a `BodyLines` belongs to one message.
"""

from __future__ import annotations

from collections.abc import Iterable

from mailguard.message import HeaderField

__all__ = ["BodyLines", "has_long_line"]

# RFC 5322 §2.1.1: without the CRLF.
MAX_LINE_OCTETS = 998

CRLF = b"\r\n"
_LF = b"\n"
# With its CR, which is how far behind the start of a line its LF may stand.
_ROOM = MAX_LINE_OCTETS + 1


def has_long_line(fields: Iterable[HeaderField]) -> bool:
    """Whether one of these header fields has a line that is broken."""
    long = [field.raw for field in fields if len(field.name) + len(field.value) >= MAX_LINE_OCTETS]
    return any(len(line) > MAX_LINE_OCTETS for raw in long for line in raw.split(CRLF))


class BodyLines:
    """The lines of a body, as it arrives: CRLF line ends, cut anywhere."""

    __slots__ = ("_begun", "is_long")

    def __init__(self) -> None:
        self._begun = 0
        """How many octets have come of the line that has not ended."""
        self.is_long = False
        """Whether one of them is broken."""

    def update(self, chunk: bytes) -> None:
        """The next octets. From one line end to the last within reach of it, so that few steps are taken."""
        start, room = 0, _ROOM - self._begun
        while len(chunk) - start > room and not self.is_long:
            end = chunk.rfind(_LF, start, start + room + 1)
            self.is_long = end < 0
            start, room = end + 1, _ROOM
        end = chunk.rfind(_LF, start)
        if end >= 0:
            start = end + 1
        self._begun = len(chunk) - start + (self._begun if start == 0 else 0)
