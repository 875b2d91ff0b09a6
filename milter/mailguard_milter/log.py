"""One line for each message: to syslog's mail facility or to stderr, as logfmt or JSON; never in the way of mail.

A line is formatted where it arises and put into a bounded queue. One thread of its own wakes up for what has gathered
there in a tenth of a second, and at once for an error or a warning, and writes it. When nobody reads the log,
lines are dropped and counted, and the count is logged as soon as a line gets through. Nothing
that a stranger wrote reaches a line unescaped: what is not printable (controls, line separators, bidirectional
marks, lone surrogates) becomes a backslash escape, and each value and each line has a bound. RFC 3164 framing,
as syslog(3) writes it to /dev/log; RFC 8259. Left out: log rotation, syslog over a network.
`Log` is safe to use from every thread; it must be started after the last fork.
"""

from __future__ import annotations

import json
import os
import select
import socket
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Mapping
from enum import Enum, IntEnum
from typing import ClassVar

__all__ = ["Format", "Log", "Severity", "Sink", "StderrSink", "SyslogSink", "format_line", "tell"]

# Enough for ten results with their reasons; a longer value is a stranger's, and its beginning is evidence enough.
MAX_VALUE_CHARS = 600
# A write to a pipe is atomic up to PIPE_BUF (4096 on Linux), and rsyslog takes 8 KiB: no line is torn or cut.
MAX_LINE_BYTES = 4000
MAX_LIST_ENTRIES = 40
# At 4000 octets each, a log that nobody reads holds at most 16 MB.
MAX_QUEUED_LINES = 4096
# How long a line may wait for others to be written with it. A process that dies takes those that wait with it.
GATHER_S = 0.1
# How long the writing thread waits for a syslog daemon that does not read before it gives the line up.
SYSLOG_PATIENCE_S = 1.0
# An event that a stranger can cause is logged this often in this time; the rest is counted.
EVENTS_PER_WINDOW = 10
EVENT_WINDOW_S = 60.0

_FACILITY_MAIL = 2 << 3
_TAG = "mailguard-milter"
_CUT_MARK = "[cut]"
_SEQUENCES = (list, tuple, frozenset, set)
# ensure_ascii writes everything that could confuse a terminal as \\uXXXX.
_JSON = json.JSONEncoder(ensure_ascii=True, allow_nan=False)


class Format(Enum):
    """How a line is written."""

    LOGFMT = "logfmt"
    JSON = "json"


class Severity(IntEnum):
    """The severities of RFC 5424 §6.2.1 that are used here."""

    ERROR = 3
    WARNING = 4
    INFO = 6


_SHORT_ESCAPES = {"\n": "\\n", "\r": "\\r", "\t": "\\t", "\\": "\\\\", '"': '\\"'}


def _escape_char(char: str) -> str:
    if char in _SHORT_ESCAPES:
        return _SHORT_ESCAPES[char]
    if char.isprintable():
        return char
    code = ord(char)
    # surrogateescape stands for an octet that was not UTF-8.
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _text(value: object) -> str:
    """`value` as text, cut at the bound and marked where it was cut. May hold anything that a str may hold."""
    if isinstance(value, Enum):
        value = value.value
    if isinstance(value, (bytes, bytearray)):
        value = _decoded(value)
    return _cut(str(value))


def _decoded(octets: bytes | bytearray) -> str:
    return octets[: MAX_VALUE_CHARS + 1].decode("utf-8", "surrogateescape")


def _cut(text: str) -> str:
    """What has been cut stays as it is when it is cut again."""
    return text if len(text) <= MAX_VALUE_CHARS else text[:MAX_VALUE_CHARS] + _CUT_MARK


def _logfmt_text(value: object) -> str:
    if type(value) is bytes:
        return _decoded(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value) if abs(value) < 1 << 64 else "huge"
    if isinstance(value, float):
        return f"{value:.3f}"
    if isinstance(value, _SEQUENCES):
        value = ",".join(map(_text, list(value)[:MAX_LIST_ENTRIES]))
    return _text(value)


def _logfmt_escaped(text: str) -> str:
    """Cut, escaped, and in quotes if it needs them."""
    text = _cut(text)
    plain = _is_plain(text)
    if not plain:
        text = "".join(map(_escape_char, text))
    return text if plain and text and " " not in text and "=" not in text else f'"{text}"'


def _is_plain(text: str) -> bool:
    """Whether nothing needs an escape."""
    return text.isprintable() and "\\" not in text and '"' not in text


def _json_value(value: object) -> object:
    if isinstance(value, float):
        return round(value, 6)
    if isinstance(value, int):
        return value if abs(value) < 1 << 64 else "huge"
    if value is None:
        return None
    if isinstance(value, _SEQUENCES):
        return [_json_value(entry) for entry in list(value)[:MAX_LIST_ENTRIES]]
    if isinstance(value, Mapping):
        return {_text(key): _json_value(entry) for key, entry in list(value.items())[:MAX_LIST_ENTRIES]}
    text = _text(value)
    if text.isascii():
        return text
    # A lone surrogate has no place in JSON text (RFC 8259 §8.2).
    return "".join(_escape_char(char) if 0xD800 <= ord(char) <= 0xDFFF else char for char in text)


def format_line(record: Mapping[str, object], format: Format) -> bytes:
    """`record` as one line without its line end: printable, valid UTF-8, at most MAX_LINE_BYTES octets.

    Keys are ours and are not escaped. A field whose value is None is left out. When the line would become too
    long, the longest fields are left out and `cut=true` says so.
    """
    if format is Format.JSON:
        return b"{%b}" % _joined(_json_members(record), separator=", ", cut_mark='"cut": true')
    return _joined(_logfmt_fields(record), separator=" ", cut_mark="cut=true")


def _json_members(record: Mapping[str, object]) -> list[str]:
    return [
        f"{_JSON.encode(key)}: {_JSON.encode(_json_value(value))}"
        for key, value in record.items()
        if value is not None
    ]


def _logfmt_fields(record: Mapping[str, object]) -> list[str]:
    texts = {
        key: value if type(value) is str else _logfmt_text(value)
        for key, value in record.items()
        if value is not None
    }
    all_of_it = "".join(texts.values())
    is_long = len(all_of_it) > MAX_VALUE_CHARS and max(map(len, texts.values())) > MAX_VALUE_CHARS
    if is_long or not _is_plain(all_of_it):
        return [f"{key}={_logfmt_escaped(text)}" for key, text in texts.items()]
    # Nearly every line: `_logfmt_escaped` would find nothing to cut or to escape, only what needs quotes.
    if " " not in all_of_it and "=" not in all_of_it and "" not in texts.values():
        return [*map("=".join, texts.items())]
    return [
        f'{key}="{text}"' if " " in text or "=" in text or not text else f"{key}={text}"
        for key, text in texts.items()
    ]


def _joined(parts: list[str], *, separator: str, cut_mark: str) -> bytes:
    line = separator.join(parts).encode()
    room = MAX_LINE_BYTES - len(', "cut": true}')
    if len(line) + 2 * len(parts) <= room:
        return line  # nearly every one
    # The shortest first: what became of the message is said in short words, and the long ones are strangers'.
    sizes = [len(part.encode()) + 2 for part in parts]
    fitting = set()
    for place in sorted(range(len(parts)), key=sizes.__getitem__):
        if sizes[place] > room:
            break
        room -= sizes[place]
        fitting.add(place)
    kept = [part for place, part in enumerate(parts) if place in fitting]
    if len(kept) < len(parts):
        kept.append(cut_mark)
    return separator.join(kept).encode()


class Sink(ABC):
    """Where lines go. `write` is called by one thread and may wait a little."""

    takes_several: ClassVar[bool] = False
    """Whether one write may have several lines, with a line feed between two, in at most PIPE_BUF octets."""

    @abstractmethod
    def write(self, line: bytes, severity: Severity) -> None:
        """Write one line, given without its line end. Raises OSError when it could not be written."""


def _write_stderr(line: bytes) -> None:
    """One write, so that lines of several processes do not mix."""
    octets = line + b"\n"
    if os.write(2, octets) < len(octets):
        raise OSError("a part of it was not written")  # a disk that is full, say


class _Stamp:
    """The time as text, made once a second. For every thread."""

    def __init__(self, text_of: Callable[[int], str]) -> None:
        self._text_of = text_of
        self._made = (0, "")

    def text(self) -> str:
        second = int(time.time())
        made = self._made
        if made[0] != second:
            made = self._made = (second, self._text_of(second))
        return made[1]


def _utc(second: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(second))


def tell(event: str, severity: Severity = Severity.INFO, **fields: object) -> None:
    """A line on stderr from a process without a `Log`: the supervisor, a generation parent. Never blocks."""
    record = {"time": _utc(int(time.time())), "level": severity.name.lower(), "event": event, **fields}
    line = format_line(record, Format.LOGFMT)
    try:
        if select.select([], [2], [], 0)[1]:
            _write_stderr(line)
    except OSError:
        return  # nobody listens any more


class StderrSink(Sink):
    """stderr, for systemd and containers."""

    takes_several = True

    def write(self, line: bytes, severity: Severity) -> None:
        """Waits for a reader as long as a blocking stderr does."""
        try:
            _write_stderr(line)
        except BlockingIOError:
            select.select([], [2], [], SYSLOG_PATIENCE_S)
            _write_stderr(line)


class SyslogSink(Sink):
    """The local syslog daemon, with the facility mail."""

    def __init__(self, path: str = "/dev/log") -> None:
        self._path = path
        self._stamp = _Stamp(lambda second: time.strftime("%b %e %H:%M:%S", time.localtime(second)))
        self._socket: socket.socket | None = None

    def write(self, line: bytes, severity: Severity) -> None:
        """Waits at most SYSLOG_PATIENCE_S for the daemon to read."""
        header = f"<{_FACILITY_MAIL | severity}>{self._stamp.text()} {_TAG}[{os.getpid()}]: "
        try:
            if self._socket is None:
                fresh = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
                fresh.settimeout(SYSLOG_PATIENCE_S)
                self._socket = fresh
                fresh.connect(self._path)
            self._socket.send(header.encode() + line)
        except TimeoutError:
            raise
        except OSError:
            # The daemon was restarted, or is not there yet: connect anew for the next line.
            if self._socket is not None:
                self._socket.close()
                self._socket = None
            raise


class Log:
    """The log of one process."""

    def __init__(self, sink: Sink, format: Format, *, timestamps: bool) -> None:
        """`timestamps` adds the time (UTC) to each line; syslog and journald write their own."""
        self._sink = sink
        self._format = format
        self._stamp = _Stamp(_utc) if timestamps else None
        self._lines: deque[tuple[bytes, Severity]] = deque()
        self._waiting = threading.Event()
        """There are lines."""
        self._urgent = threading.Event()
        """And they are not to wait for others."""
        self._is_closed = False
        self._lock = threading.Lock()
        self._dropped = 0
        self._windows: dict[str, tuple[float, int]] = {}
        self._thread = threading.Thread(target=self._write_lines, name="log", daemon=True)

    def start(self) -> None:
        """Start the writing thread."""
        self._thread.start()

    def message(self, record: Mapping[str, object], severity: Severity = Severity.INFO) -> None:
        """Log what became of a message. Never blocks, never raises."""
        try:
            if self._stamp is not None:
                record = {"time": self._stamp.text(), **record}
            line = format_line(record, self._format)
        except Exception as error:  # noqa: BLE001 - a value whose str() fails must not fail the message
            line = format_line({"event": "unprintable log record", "error": type(error).__name__}, self._format)
        self._put(line, severity)

    def event(self, name: str, severity: Severity = Severity.INFO, **fields: object) -> None:
        """Log something about the daemon; `name` is a constant of the code. Each is bounded in rate."""
        now = time.monotonic()
        with self._lock:
            start, count = self._windows.get(name, (now, 0))
            if now - start > EVENT_WINDOW_S:
                suppressed = max(0, count - EVENTS_PER_WINDOW)
                start, count = now, 0
                if suppressed:
                    fields["not_logged"] = suppressed
            self._windows[name] = (start, count + 1)
        if count < EVENTS_PER_WINDOW:
            self.message({"event": name, **fields}, severity)

    def close(self, *, timeout_s: float) -> None:
        """Write what is queued, for at most `timeout_s`."""
        self._is_closed = True
        self._urgent.set()
        self._waiting.set()
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    def _put(self, line: bytes, severity: Severity) -> None:
        if len(self._lines) >= MAX_QUEUED_LINES:
            with self._lock:
                self._dropped += 1
            return
        self._lines.append((line, severity))
        if severity is not Severity.INFO:
            self._urgent.set()
        if not self._waiting.is_set():
            self._waiting.set()

    def _write_lines(self) -> None:
        is_last = False
        while not is_last:
            self._waiting.wait()
            self._urgent.wait(GATHER_S)
            # Cleared before the lines are taken: what comes while they are written wakes this thread again.
            self._waiting.clear()
            self._urgent.clear()
            is_last = self._is_closed
            while self._lines:
                self._write(*self._take())

    def _take(self) -> tuple[list[bytes], Severity]:
        """The first line, with those behind it that go into the same write."""
        line, severity = self._lines.popleft()
        taken = [line]
        room = select.PIPE_BUF - len(line) - 1  # the line feed
        while self._sink.takes_several and self._lines and len(self._lines[0][0]) < room:
            line, _ = self._lines.popleft()
            taken.append(line)
            room -= len(line) + 1
        return taken, severity

    def _write(self, lines: list[bytes], severity: Severity) -> None:
        try:
            self._sink.write(b"\n".join(lines), severity)
        except Exception:  # noqa: BLE001 - whatever it was, the lines that follow are to be written
            with self._lock:
                self._dropped += len(lines)
        else:
            self._report_dropped()

    def _report_dropped(self) -> None:
        with self._lock:
            dropped, self._dropped = self._dropped, 0
        if not dropped:
            return
        record: dict[str, object] = {"event": "log lines dropped", "count": dropped}
        if self._stamp is not None:
            record = {"time": self._stamp.text(), **record}
        try:
            self._sink.write(format_line(record, self._format), Severity.WARNING)
        except OSError:
            with self._lock:
                self._dropped += dropped
