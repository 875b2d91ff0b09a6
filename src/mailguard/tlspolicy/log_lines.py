"""LineHandler: log records as lines on stderr, as the daemons of mailguard write them: logfmt or JSON.

A record's text is the event, and `extra={"fields": {...}}` what belongs to it. Nothing that a stranger wrote reaches
a line unescaped, each value and line has a bound, and one event is written ten times a minute at most, with a count
of the rest. A reader that does not read holds up nothing: its lines are dropped and counted. Thread-safe.
"""

from __future__ import annotations

import json
import logging
import os
import select
import time
from collections.abc import Callable, Mapping

__all__ = ["LineHandler"]

MAX_VALUE_CHARS = 600
# A write to a pipe is atomic up to PIPE_BUF (4096 on Linux).
MAX_LINE_BYTES = 4_000
EVENTS_PER_WINDOW = 10
EVENT_WINDOW_S = 60.0
# The events are constants of the code; more of them than this cannot be.
_MAX_EVENTS = 1_000
_NEEDS_QUOTES = frozenset(" =")
_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t", "\\": "\\\\", '"': '\\"'}


class LineHandler(logging.Handler):
    """Writes to a descriptor."""

    def __init__(
        self,
        *,
        as_json: bool,
        timestamps: bool,
        descriptor: int = 2,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        """`timestamps` adds the time (UTC); journald has its own."""
        super().__init__(logging.INFO)
        self._as_json = as_json
        self._timestamps = timestamps
        self._descriptor = descriptor
        self._clock = clock
        self._now = now
        self._windows: dict[str, tuple[float, int]] = {}
        self._dropped = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Never raises, never waits. logging holds the lock."""
        try:
            self._emit(record)
        except Exception:  # noqa: BLE001  # a value whose str() fails must not fail what logs it
            self._dropped += 1

    def _emit(self, record: logging.LogRecord) -> None:
        fields: dict[str, object] = {}
        if self._timestamps:
            fields["time"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self._now()))
        fields |= {"level": record.levelname.lower(), "event": record.getMessage()}
        given = getattr(record, "fields", None)
        if isinstance(given, Mapping):
            fields |= {str(name): value for name, value in given.items()}
        if record.exc_info and record.exc_info[1] is not None:
            fields["error"] = f"{type(record.exc_info[1]).__name__}: {record.exc_info[1]}"
        # The text before its arguments are put in.
        if not self._is_wanted(str(record.msg), fields):
            return
        if self._dropped:
            fields["lines_dropped"] = self._dropped
        line = _line(fields, as_json=self._as_json)
        if not select.select([], [self._descriptor], [], 0)[1] or os.write(self._descriptor, line) < len(line):
            self._dropped += 1
        else:
            self._dropped = 0

    def _is_wanted(self, event: str, fields: dict[str, object]) -> bool:
        now = self._clock()
        start, count = self._windows.get(event, (now, 0))
        if now - start > EVENT_WINDOW_S:
            suppressed = max(0, count - EVENTS_PER_WINDOW)
            start, count = now, 0
            if suppressed:
                fields["not_logged"] = suppressed
        if event not in self._windows and len(self._windows) >= _MAX_EVENTS:
            self._windows.clear()
        self._windows[event] = (start, count + 1)
        return count < EVENTS_PER_WINDOW


def _line(fields: Mapping[str, object], *, as_json: bool) -> bytes:
    parts, room = [], MAX_LINE_BYTES - len("{}\n")
    for name, value in fields.items():
        text = str(value)
        if len(text) > MAX_VALUE_CHARS:
            text = text[:MAX_VALUE_CHARS] + "[cut]"
        if as_json:
            # All that is not ASCII is written as \\uXXXX.
            part = f"{json.dumps(name)}: {json.dumps(value if isinstance(value, int) else text)}"
        else:
            escaped = "".join(map(_escaped, text))
            part = (
                f"{name}={escaped}"
                if text == escaped and text and not _NEEDS_QUOTES & set(text)
                else (f'{name}="{escaped}"')
            )
        if len(part) + 2 <= room:
            room -= len(part) + 2
            parts.append(part)
    return (("{" + ", ".join(parts) + "}" if as_json else " ".join(parts)) + "\n").encode("ascii")


def _escaped(char: str) -> str:
    if char in _SHORT:
        return _SHORT[char]
    return char if " " <= char <= "~" else char.encode("unicode_escape", "surrogatepass").decode("ascii")
