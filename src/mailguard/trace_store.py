"""The database of traces, for the one process that writes it: an SQLite file, bounded in size and in days.

The file is for its owner alone and is made without following a symbolic link. Nothing in it is worth a repair: one
that is damaged, or that another version of mailguard has written, is moved aside (`set_aside`) and a new one is made.
What a stranger wrote is a parameter, never a part of a statement. Left out: reading (trace_reader.py), what a trace
means (trace.py), and the process with its patience (mailguard_milter.trace_writer). A `TraceStore` is for one thread.
"""

from __future__ import annotations

import os
import sqlite3
import stat
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple, Self, TypeVar

from mailguard.database_file import DAMAGE, error_kind, identity, move_aside, number
from mailguard.errors import StoreDamaged, TraceStoreError
from mailguard.trace import Trace, encode

__all__ = ["SCHEMA_VERSION", "Row", "TraceStore", "checked", "plain", "set_aside"]

SCHEMA_VERSION = 1
# "mgtr": tells our database from one that the configuration names by mistake.
APPLICATION_ID = 0x6D677472
DAY_S = 86_400
# Our own sentences are shorter, apart from lists of names.
MAX_COLUMN_CHARS = 600
# Deleting so many takes some 10 ms, in which nothing is written; so many rounds at most follow each other.
PRUNE_ROWS = 500
PRUNE_ROUNDS = 8
# Below the bound, so that not every new trace makes the oldest go by itself.
PRUNE_TO = 0.95
# How many free pages are given back to the file system at once.
VACUUM_PAGES = 2000
# SQLite writes the log beside the database back at 4 MB. It grows beyond that only while a reader holds a snapshot.
LOG_BYTES_KEPT = 4 * 1024 * 1024
MAX_LOG_BYTES = 64 * 1024 * 1024
WAIT_FOR_LOCK_S = 1.0
# SQLite run by root gives the log that it makes to the owner of the database, a moment after it has made it.
OPEN_ATTEMPTS = 4
OPEN_AGAIN_AFTER_S = 0.05

_SCHEMA = f"""
BEGIN IMMEDIATE;
CREATE TABLE trace (
    id INTEGER PRIMARY KEY,
    queue_id TEXT NOT NULL,
    judged_at REAL NOT NULL,
    client TEXT NOT NULL,
    domain TEXT NOT NULL,
    disposition TEXT NOT NULL,
    would TEXT NOT NULL,
    rule TEXT NOT NULL,
    reason TEXT NOT NULL,
    content BLOB NOT NULL
);
CREATE INDEX trace_queue_id ON trace (queue_id);
CREATE INDEX trace_judged_at ON trace (judged_at);
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {SCHEMA_VERSION};
COMMIT;
"""
_INSERT = (
    "INSERT INTO trace (queue_id, judged_at, client, domain, disposition, would, rule, reason, content)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_TOO_OLD = "SELECT id FROM trace WHERE judged_at < ? ORDER BY judged_at LIMIT ?"
# Written while the clock was ahead, and before one that is too old: so it is too old as well. Without the plus signs
# SQLite would look at all traces for it, and not at those that are said to be of the future.
_OF_THE_FUTURE = (
    "SELECT id FROM trace WHERE judged_at > ? AND +id < (SELECT max(+id) FROM trace WHERE judged_at < ?) LIMIT ?"
)

_REMEDY = "see that its disk is well, or move it away"
_REMEDIES = {
    sqlite3.SQLITE_FULL: "make room on its disk; if the traces fill it, delete them and lower max_megabytes",
    sqlite3.SQLITE_BUSY: "another program has locked it; end that",
    sqlite3.SQLITE_READONLY: "it, or its file system, is read-only; make it writable, or correct path in [trace]",
    sqlite3.SQLITE_CANTOPEN: "its directory must be writable too, for the log beside it",
    sqlite3.SQLITE_PERM: "correct its owner and permissions",
}

T = TypeVar("T")


class Row(NamedTuple):
    """One trace, with what is searched for. The texts are printable ASCII."""

    queue_id: str
    judged_at: float
    """POSIX seconds."""
    client: str
    """The client's address; empty where it has none."""
    domain: str
    disposition: str
    would: str
    rule: str
    reason: str
    content: bytes
    """What `trace.encode` made."""

    @classmethod
    def of(cls, trace: Trace) -> Self:
        """The row for `trace`. Raises TraceError for one that is too large."""
        client, decided = trace.envelope.client_ip, trace.decided
        return cls(
            queue_id=plain(trace.queue_id),
            judged_at=float(trace.now),
            client=plain(str(client)) if client is not None else "",
            domain=plain(decided.domain),
            disposition=plain(decided.disposition),
            would=plain(decided.would),
            rule=plain(decided.rule),
            reason=plain(decided.reason),
            content=encode(trace),
        )


def plain(text: str) -> str:
    """`text` as a column has it: printable ASCII, other characters as a backslash escape, bounded."""
    if text.isascii() and text.isprintable():
        return text[:MAX_COLUMN_CHARS]
    escaped = text[:MAX_COLUMN_CHARS].encode("unicode_escape").decode("ascii")
    return escaped[:MAX_COLUMN_CHARS]


class TraceStore:
    """The database, open for writing."""

    def __init__(self, path: str, *, max_days: int, max_bytes: int) -> None:
        """Open the database at `path`, or make it.

        `max_bytes` is for the database without the log beside it. Raises StoreDamaged for a file that is none, and
        TraceStoreError where nothing can be written.
        """
        self.path = path
        self._max_age_s = max_days * DAY_S
        self._max_bytes = max_bytes
        self._identity = _claim(path)
        checked(path, self._open)
        self._log_identity = identity(path + "-wal")
        if not self.is_in_place():
            self._connection.close()
            raise TraceStoreError(f"{path} was replaced while it was opened; see who writes to its directory")

    def _open(self) -> None:
        for attempt in range(1, OPEN_ATTEMPTS + 1):
            # Autocommit: every BEGIN is written out below.
            self._connection = sqlite3.connect(
                self.path, timeout=WAIT_FOR_LOCK_S, isolation_level=None, cached_statements=16
            )
            try:
                self._prepare()
            except BaseException as error:
                self._connection.close()
                if attempt == OPEN_ATTEMPTS or error_kind(error) not in (
                    sqlite3.SQLITE_CANTOPEN,
                    sqlite3.SQLITE_READONLY,
                ):
                    raise
                time.sleep(OPEN_AGAIN_AFTER_S)
            else:
                return

    def _prepare(self) -> None:
        run = self._connection.execute
        if _size(self.path) == 0:
            # Before anything is read: later it would change nothing.
            run("PRAGMA auto_vacuum = INCREMENTAL")
            self._connection.executescript(_SCHEMA)
        if self._number("PRAGMA application_id") != APPLICATION_ID:
            raise TraceStoreError(f"{self.path} is the database of another program; correct path in [trace]")
        if self._number("PRAGMA user_version") != SCHEMA_VERSION:
            raise StoreDamaged(f"{self.path} was written by another version of mailguard")
        run("PRAGMA journal_mode = WAL")
        # Deleted is deleted: traces hold addresses and subjects.
        run("PRAGMA secure_delete = ON")
        # With the log, a crash of the host costs the last traces and not the database.
        run("PRAGMA synchronous = NORMAL")
        run(f"PRAGMA journal_size_limit = {LOG_BYTES_KEPT}")
        self._page_bytes = self._number("PRAGMA page_size")
        # The first transaction makes the log, and this one finds whether it can be written.
        run("BEGIN IMMEDIATE")
        run("ROLLBACK")

    @property
    def kept(self) -> int:
        """How many traces there are."""
        return self._number("SELECT count(*) FROM trace")

    def is_in_place(self) -> bool:
        """Whether the files that are written to still have their names, and something in them."""
        # Without its log a reader would find nothing, or worse; SQLite itself does not look again.
        return (identity(self.path), identity(self.path + "-wal")) == (self._identity, self._log_identity) and (
            _size(self.path) > 0
        )

    def add(self, rows: Sequence[Row]) -> None:
        """Keep these, all or none. Raises StoreDamaged, or TraceStoreError where it is full or locked."""
        if not self.is_in_place():
            raise TraceStoreError(f"{self.path} was deleted or replaced")
        if _size(self.path + "-wal") > MAX_LOG_BYTES:
            raise TraceStoreError(
                f"{self.path}-wal is over {MAX_LOG_BYTES >> 20} MB: a program reads the database for too long; end it"
            )
        checked(self.path, lambda: self._in_transaction(lambda: self._connection.executemany(_INSERT, rows)))

    def prune(self, now: float) -> None:
        """Delete what is too old at `now` (POSIX seconds) and, beyond the bound, the oldest: some of it at a time.

        Raises as `add` does.
        """
        checked(self.path, lambda: self._prune(now))

    def close(self) -> None:
        """Write the log back into the database, as far as readers let it, and close."""
        self._connection.close()

    def _prune(self, now: float) -> None:
        oldest = now - self._max_age_s
        for _ in range(PRUNE_ROUNDS):
            if not self._delete(_OF_THE_FUTURE, now, oldest, PRUNE_ROWS):
                break
        for _ in range(PRUNE_ROUNDS):
            if not self._delete(_TOO_OLD, oldest, PRUNE_ROWS):
                break
        if self._used_bytes() > self._max_bytes:
            for _ in range(PRUNE_ROUNDS):
                # A few large traces can be all that there is: never more at once than is needed, as far as known.
                share = 1 - PRUNE_TO * self._max_bytes / max(self._used_bytes(), 1)
                if share <= 0:
                    break
                wanted = min(PRUNE_ROWS, int(self.kept * share) + 1)
                if not self._delete("SELECT id FROM trace ORDER BY id LIMIT ?", wanted):
                    break
        if self._number("PRAGMA page_count") * self._page_bytes > self._max_bytes:
            # It has a step for each page, of which execute() would take the first.
            self._connection.executescript(f"PRAGMA incremental_vacuum({VACUUM_PAGES})")

    def _delete(self, chosen: str, *parameters: object) -> int:
        """Delete what the constant statement `chosen` names; how many that were."""
        statement = f"DELETE FROM trace WHERE id IN ({chosen})"  # noqa: S608 - both parts are constants of this file
        return self._in_transaction(lambda: self._connection.execute(statement, parameters)).rowcount

    def _in_transaction(self, act: Callable[[], T]) -> T:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            result = act()
            self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise
        return result

    def _used_bytes(self) -> int:
        return (self._number("PRAGMA page_count") - self._number("PRAGMA freelist_count")) * self._page_bytes

    def _number(self, statement: str) -> int:
        return number(self._connection, statement)


def set_aside(path: str) -> str:
    """Rename the file at `path`, so that a new database can be made there; the new name.

    What had that name is lost. Nobody may have the file open. Raises TraceStoreError.
    """
    try:
        return move_aside(path)
    except OSError as error:
        raise TraceStoreError(f"{path} is damaged and cannot be renamed: {error.strerror}; move it away") from None


def _claim(path: str) -> tuple[int, int]:
    """See to it that `path` is a regular file of our own, for nobody else to write; its device and inode.

    The descriptor is closed before SQLite opens the file: closing one drops the locks that it holds.
    """
    directory = os.path.dirname(path) or "."
    try:
        if os.stat(directory).st_mode & stat.S_IWOTH:
            raise TraceStoreError(
                f"every user can write to {directory}, and so replace the traces; run: chmod o-w {directory}"
            )
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        descriptor = os.open(path, flags, 0o600)
        try:
            opened = os.fstat(descriptor)
            if not stat.S_ISREG(opened.st_mode):
                raise TraceStoreError(f"{path} is not a regular file; remove it")
            if opened.st_uid != os.geteuid():
                raise TraceStoreError(f"{path} belongs to another user; remove it, or correct its owner")
            if opened.st_mode & 0o137:
                # Its group may be let read it, nobody else.
                os.fchmod(descriptor, opened.st_mode & 0o640)
        finally:
            os.close(descriptor)
    except OSError as error:
        user = os.geteuid()
        raise TraceStoreError(
            f"{path} cannot be made or opened: {error.strerror}; run as root:"
            f" install -d -o {user} -m 0750 {directory} (under systemd: StateDirectory=), or correct path in [trace]"
        ) from None
    except ValueError:
        raise TraceStoreError(f"{path!r} is not the name of a file; correct path in [trace]") from None
    return opened.st_dev, opened.st_ino


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0


def checked(path: str, act: Callable[[], T]) -> T:
    """What `act` does with the database at `path`; SQLite's errors become StoreDamaged or TraceStoreError."""
    try:
        return act()
    except sqlite3.Error as error:
        code = error_kind(error)
        if code in DAMAGE:
            raise StoreDamaged(f"{path} is damaged, or no database: {error}") from None
        raise TraceStoreError(f"{path} cannot be used: {error}; {_REMEDIES.get(code, _REMEDY)}") from None
