"""The mail log as it grows: files that are written to, and journald through journalctl(1).

Lines from before it was opened are not seen; a file that is rotated is followed, and one that is gone or may not be
read any more is waited for. Lines have a bound, and longer ones are left out. Nothing is decoded here; only regular
files are read. A `MailLog` is for one thread.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import BinaryIO, Self

from mailguard.cli.log_lines import BoundedLines
from mailguard.errors import ConfigError

__all__ = ["MailLog", "Places", "default_places", "distinct"]

# Of a busy server's log, more than it writes between two looks.
READ_BYTES = 1 << 20
SYSLOG_FILES = ("/var/log/mail.log", "/var/log/maillog")
JOURNAL = "journalctl"
END_TIMEOUT_S = 5.0
# journalctl's matches: the facility mail, in which Postfix and the daemon log; the daemon's stderr.
OF_SYSLOG = "SYSLOG_FACILITY=2"
OF_THE_DAEMON = "_SYSTEMD_UNIT=mailguard-milter.service"


@dataclass(frozen=True, slots=True)
class Places:
    """What is to be read."""

    files: tuple[str, ...] = ()
    journal: tuple[str, ...] = ()
    """Matches of journalctl, any of which a line must have; none: journald is not asked."""

    @property
    def shown(self) -> str:
        """For people."""
        return ", ".join((*self.files, *(f"{JOURNAL} {each}" for each in self.journal)))


def distinct(files: Sequence[str]) -> tuple[str, ...]:
    """Each file once, by the first of its names: what is read twice looks as if it had happened twice."""
    found: dict[str, str] = {}
    for each in files:
        found.setdefault(os.path.realpath(each), each)
    return tuple(found.values())


def default_places(*, postfix_file: str, daemon_logs_to_stderr: bool) -> Places:
    """Where Postfix and the daemon log on this host. `postfix_file`: maillog_file. Raises ConfigError if nowhere."""
    files = [postfix_file] if postfix_file.startswith("/") and not postfix_file.startswith("/dev/") else []
    # With a file of its own for Postfix, the daemon's lines are still syslog's.
    if not (files and daemon_logs_to_stderr):
        files += [each for each in SYSLOG_FILES if os.path.exists(each)][:1]
    has_journal = shutil.which(JOURNAL) is not None
    journal = [OF_SYSLOG] if not files and has_journal else []
    if daemon_logs_to_stderr and has_journal:
        journal.append(OF_THE_DAEMON)
    if not files and not journal:
        raise ConfigError(f"no mail log is found, neither {' nor '.join(SYSLOG_FILES)}: name it with --log")
    return Places(distinct(files), tuple(journal))


class MailLog:
    """A context manager; entered, it stands at the end of every log. Raises ConfigError for one it may not read."""

    def __init__(self, places: Places) -> None:
        self._places = places
        self._files: list[_File] = []
        self._journal: _Journal | None = None

    def __enter__(self) -> Self:
        try:
            for path in self._places.files:
                self._files.append(_File(path))
            if self._places.journal:
                self._journal = _Journal(self._places.journal)
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def lines(self) -> Iterator[bytes]:
        """The whole lines that have come since the last call. Waits for none."""
        for each in self._sources():
            yield from (line for line in each.lines() if line is not None)

    def _close(self) -> None:
        for each in self._sources():
            each.close()

    def _sources(self) -> Iterator[_File | _Journal]:
        yield from self._files
        if self._journal is not None:
            yield self._journal


class _File:
    def __init__(self, path: str) -> None:
        self._path = path
        self._file = self._open()
        self._file.seek(0, os.SEEK_END)
        self._lines = BoundedLines()
        # Of before it was rotated: syslog writes there until it is told.
        self._before: tuple[BinaryIO, BoundedLines] | None = None

    def _open(self) -> BinaryIO:
        try:
            return _opened(self._path)
        except OSError as error:
            advice = "run this as root" if isinstance(error, PermissionError) else "name it with --log"
            raise ConfigError(
                f"{self._path}: the log cannot be read: {error.strerror}; {advice}. Nothing was sent"
            ) from None

    def lines(self) -> Iterator[bytes | None]:
        if self._before is not None:
            file, held = self._before
            yield from held.add(file.read(READ_BYTES))
        octets = self._file.read(READ_BYTES)
        if not octets:
            # The message is on its way by now: what cannot be read is no reason to end.
            with suppress(OSError):
                if self._is_replaced():
                    fresh = _opened(self._path)
                    if self._before is not None:
                        self._before[0].close()
                    self._before = self._file, self._lines
                    self._file, self._lines = fresh, BoundedLines()
                    octets = self._file.read(READ_BYTES)
        yield from self._lines.add(octets)

    def _is_replaced(self) -> bool:
        """Rotated: another file has its name, or it has been cut."""
        opened, named = os.fstat(self._file.fileno()), os.stat(self._path)
        if (named.st_dev, named.st_ino) != (opened.st_dev, opened.st_ino):
            return True
        if opened.st_size < self._file.tell():
            self._file.seek(0)
            self._lines = BoundedLines()
        return False

    def close(self) -> None:
        self._file.close()
        if self._before is not None:
            self._before[0].close()


def _opened(path: str) -> BinaryIO:
    """A regular file. Raises OSError; a pipe, whose other end would be waited for, is none."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        return open(descriptor, "rb", buffering=0)
    os.close(descriptor)
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    raise OSError(errno.EINVAL, "it is not a regular file")


class _Journal:
    def __init__(self, matches: Sequence[str]) -> None:
        wanted = [part for match in matches for part in ("+", match)][1:]
        # A little before now: journalctl needs a moment to start, and nobody's message has our id yet.
        since = f"@{int(time.time())}"
        try:
            self._process = subprocess.Popen(
                [
                    *(JOURNAL, "--follow", "--no-tail", "--no-pager", "--quiet", "--output=short-iso"),
                    *(f"--since={since}", *wanted),
                ],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
        except OSError as error:
            raise ConfigError(
                f"{JOURNAL} cannot be run: {error.strerror}; name the log with --log. Nothing was sent"
            ) from None
        if self._process.stdout is None:
            raise AssertionError("a pipe was asked for")
        self._pipe = self._process.stdout.fileno()
        os.set_blocking(self._pipe, False)
        self._lines = BoundedLines()

    def lines(self) -> Iterator[bytes | None]:
        try:
            octets = os.read(self._pipe, READ_BYTES)
        except BlockingIOError:
            return
        yield from self._lines.add(octets)

    def close(self) -> None:
        self._process.terminate()
        try:
            self._process.communicate(timeout=END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()
