"""Reading the lines that the daemon logs for messages, out of a file that others may have written to as well.

logfmt and JSON as milter/mailguard_milter/log.py writes them, bare or behind what syslog and journald put before
them (RFC 3164, RFC 5424, RFC 3339 times, `journalctl`); compressed by gzip or not, and refused where by something
else. A line counts as ours if it is one record from its beginning to its end: what strangers have written into the
lines of other programs is never taken for one. A record behind a beginning that is not known is told, and not read.
Linear; a line has a bound. Left out: lines about the daemon itself.
"""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from typing import BinaryIO, Literal, cast

__all__ = [
    "LOST",
    "MAX_LINE_BYTES",
    "BoundedLines",
    "LogRecord",
    "Lost",
    "Unreadable",
    "read_lines",
    "record_of",
    "split_line",
]

# Ours have at most 4000 octets, and what syslog puts before them some hundred.
MAX_LINE_BYTES = 16 * 1024
# Where what syslog puts before a line ends, at the latest.
MAX_PREFIX_CHARS = 300
GZIP_MAGIC = b"\x1f\x8b"
# What else logs are compressed by when they are rotated, and what undoes it.
OTHER_MAGIC = {b"\xfd7zXZ\0": "xzcat", b"(\xb5/\xfd": "zstdcat", b"BZh": "bzcat"}
MAGIC_OCTETS = 6

# What syslog and journald begin with: "Jun  5 10:00:00 host name[12]: ", or with 2026-06-05T10:00:00.1+02:00.
_PREFIX = re.compile(
    r"(?P<time>[A-Z][a-z]{2} [ 0-9][0-9] [0-9:]{8}|[0-9]{4}-[0-9T:.Z+-]{15,30}) \S+ (?P<program>[^ \[]+)\[[0-9]+\]: "
)
# RFC 5424 §6, without structured data: "<22>1 2026-06-05T10:00:00.1+02:00 host name 12 - - "; a file may lack the
# first part, and rsyslog writes the blank that RFC 3164 has before a message as well.
_PREFIX_5424 = re.compile(
    r"(?:<[0-9]{1,3}>)?1 (?P<time>[0-9]{4}-[0-9T:.Z+-]{15,30}) \S+ (?P<program>\S+) [0-9]+ \S+ -  ?"
)
_PAIR = re.compile(r'(?P<key>[a-z0-9_]+)=(?:"(?P<quoted>(?:[^"\\]|\\.)*)"|(?P<bare>[^ "]*))(?: |$)')
_QUOTED = re.compile(r'\\(["\\])')
# A record, wherever it stands, and also as text in JSON: these two always stand together.
_RECORD = re.compile(r'role(?:=|\\?": \\?")(?:sign|verify|none)(?: |\\?", \\?")client')
# What Log, in milter/mailguard_milter/log.py, says of lines that it could not write.
LOST = b"log lines dropped"
_LOSS = re.compile(
    r'(?:time=(?P<time>[^ "]+) )?event="log lines dropped" count=(?P<count>[0-9]{1,9})'
    r'|\{(?:"time": "(?P<json_time>[^"]+)", )?"event": "log lines dropped", "count": (?P<json_count>[0-9]{1,9})\}'
)
# 29 February comes after eight years at the latest: 2096 and 2104 have one, and 2100 has not.
YEARS_WITH_A_LEAP_DAY = 9
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


class Unreadable(Enum):
    """What else a line may be."""

    DAMAGED = "damaged"
    """It looks like one of ours and is not whole."""
    TOO_LONG = "too long"
    UNKNOWN_BEGINNING = "behind what is not known to stand before a line (journalctl needs -o short-iso)"
    """One of ours, it seems."""


@dataclass(frozen=True, slots=True)
class LogRecord:
    """What the log says of one message. Absent values are empty; any text may hold any character."""

    time: float | None
    """POSIX seconds; None where the line does not say."""
    client: str
    domain: str
    """In From."""
    action: str
    would: str
    """What enforcing does, where that is something else than `action`."""
    rule: str
    reason: str
    is_ours: bool = False
    """Of one of our own users, or of a listener for them alone."""
    login: str = ""
    """Theirs, where they logged in."""


@dataclass(frozen=True, slots=True)
class Lost:
    """What the daemon says of lines that it could not write, for a disk that was full, or too many at once."""

    time: float | None
    """POSIX seconds; None where the line does not say."""
    count: int


def read_lines(file: BinaryIO, *, now: datetime) -> Iterator[LogRecord | Lost | Unreadable]:
    """The messages in a log, and what cannot be read of it or is not in it; lines of others are passed over.

    `now` is local time without a zone: a time without a year is the last such before it. Raises OSError and EOFError
    for a file that cannot be read to its end.
    """
    start = file.read(MAGIC_OCTETS)
    for magic, program in OTHER_MAGIC.items():
        if start.startswith(magic):
            raise OSError(f"it is compressed, and not by gzip: {program} FILE | mailguard enforce --dry-run --log -")
    rest = cast(BinaryIO, _Rewound(start, file))
    try:
        # gzip reads on in what is rewound; it needs nothing but read().
        source = cast(BinaryIO, gzip.GzipFile(fileobj=rest)) if start.startswith(GZIP_MAGIC) else rest
        for line in _bounded_lines(source):
            found = Unreadable.TOO_LONG if line is None else _read_line(line, now)
            if found is not None:
                yield found
    except zlib.error as error:
        raise EOFError(f"the compressed file is damaged: {error}") from None


class _Rewound:
    """A file of which the first octets have been read already; standard input cannot seek."""

    def __init__(self, start: bytes, file: BinaryIO) -> None:
        self._start = start
        self._file = file

    def read(self, size: int = -1) -> bytes:
        if not self._start:
            return self._file.read(size)
        end = len(self._start) if size < 0 else size
        start, self._start = self._start[:end], self._start[end:]
        return start + self._file.read() if size < 0 else start


class BoundedLines:
    """Octets in any pieces to lines without their ends; None for one that is too long."""

    def __init__(self) -> None:
        self._held = b""
        self._skipping = False

    def add(self, octets: bytes) -> Iterator[bytes | None]:
        """The lines that are whole with these."""
        *lines, self._held = (self._held + octets).split(b"\n")
        for line in lines:
            yield None if self._skipping or len(line) > MAX_LINE_BYTES else line
            self._skipping = False
        if len(self._held) > MAX_LINE_BYTES:
            self._held, self._skipping = b"", True

    def rest(self) -> Iterator[bytes | None]:
        """What has no end, if anything is left."""
        if self._held or self._skipping:
            yield None if self._skipping else self._held


def _bounded_lines(source: BinaryIO) -> Iterator[bytes | None]:
    lines = BoundedLines()
    while chunk := source.read(1 << 16):
        yield from lines.add(chunk)
    yield from lines.rest()


def _read_line(line: bytes, now: datetime) -> LogRecord | Lost | Unreadable | None:
    # Most lines of a mail log are Postfix's.
    if LOST in line and (lost := _read_loss(line, now)) is not None:
        return lost
    if b"action" not in line or b"role" not in line:
        return None
    time, program, content = split_line(line)
    record = record_of(content)
    if record is Unreadable.DAMAGED:
        return record
    if record is None or "role" not in record or "action" not in record:
        # Whose text it is, a beginning that is known would tell, or the name of an event.
        if program or "event" in (record or ()) or _RECORD.search(content) is None:
            return None
        return Unreadable.UNKNOWN_BEGINNING
    is_ours = record["role"] != "verify"
    return LogRecord(
        time=_time(record.get("time") or time, now),
        client=record.get("client", ""),
        # Only what is judged from outside has it by itself.
        domain=record.get("domain", "") or (record.get("from", "").rpartition("@")[2] if is_ours else ""),
        action=record["action"],
        would=record.get("would", ""),
        rule=record.get("rule", ""),
        reason=record.get("reason", ""),
        is_ours=is_ours,
        login=record.get("login", "") if is_ours else "",
    )


def _read_loss(line: bytes, now: datetime) -> Lost | None:
    time, _, content = split_line(line)
    said = _LOSS.fullmatch(content)
    if said is None:
        return None
    return Lost(_time(said["time"] or said["json_time"] or time, now), int(said["count"] or said["json_count"]))


def split_line(line: bytes) -> tuple[str, str, str]:
    """The time and the program that syslog or journald put before a line, both empty without, and the rest."""
    text = line.decode("utf-8", "replace").rstrip("\r")
    beginning = text[:MAX_PREFIX_CHARS]
    prefix = _PREFIX.match(beginning) or _PREFIX_5424.match(beginning)
    return (prefix["time"], prefix["program"], text[prefix.end() :]) if prefix else ("", "", text)


def record_of(content: str) -> Mapping[str, str] | Literal[Unreadable.DAMAGED] | None:
    """The texts in a line of the daemon's, by their keys; None for a line that does not look like one."""
    if content.startswith("{"):
        record = _from_json(content)
    elif _PAIR.match(content):
        record = _from_logfmt(content)
    else:
        return None
    return Unreadable.DAMAGED if record is None else record


def _from_logfmt(text: str) -> Mapping[str, str] | None:
    """The pairs; escapes of what is not printable stay as they are."""
    record = {}
    position = 0
    while position < len(text):
        pair = _PAIR.match(text, position)
        if pair is None:
            return None
        quoted = pair["quoted"]
        record[pair["key"]] = pair["bare"] if quoted is None else _QUOTED.sub(r"\1", quoted)
        position = pair.end()
    return record


def _from_json(text: str) -> Mapping[str, str] | None:
    try:
        record = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(record, dict):
        return None
    return {key: value for key, value in record.items() if isinstance(value, str)}


def _time(text: str, now: datetime) -> float | None:
    try:
        if text[:1].isdigit():
            return datetime.fromisoformat(text).timestamp()
        month, day, clock = text.split()
        hour, minute, second = map(int, clock.split(":"))
        # A line from December may be read in January.
        for year in range(now.year, now.year - YEARS_WITH_A_LEAP_DAY, -1):
            with suppress(ValueError):  # not every year has 29 February
                then = datetime(year, _MONTHS.index(month) + 1, int(day), hour, minute, second)
                if then <= now + timedelta(days=1):
                    return then.timestamp()
    except (ValueError, OverflowError, OSError):
        return None
    return None
