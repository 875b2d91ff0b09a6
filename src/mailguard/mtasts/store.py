"""PolicyStore: policies that survive a restart (RFC 8461 §3.2, max_age), in one SQLite file with its log beside it.

Nothing here is worth stopping for: a file that is damaged, or that another version has written, is moved aside and a
new one made; one that is full, locked or gone is tried again at the next call. Every write is atomic and on the disk
when it returns. Of two processes that write, the newer fetch wins. The file is bounded: what was asked for least
recently makes room. Nothing is deleted because of the time alone, which may be wrong for a while. Left out: what a
policy means and how long it counts (cache.py). Thread-safe; calls may block for seconds, and belong into a thread
where something waits.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import stat
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from threading import Lock
from typing import NamedTuple, TypeVar

from mailguard.database_file import DAMAGE, error_kind, identity, move_aside, number
from mailguard.domain import Domain

__all__ = ["PolicyRow", "PolicyStore", "StoreUnusable"]

T = TypeVar("T")

SCHEMA_VERSION = 1
# "mgst": tells our database from one that the configuration names by mistake.
APPLICATION_ID = 0x6D677374
WAIT_FOR_LOCK_S = 5.0
# Mail waits for it; with its log, the file can be read while another process writes.
WAIT_TO_RECALL_S = 1.0
POLL_S = 0.01
# What the file may hold. The octets are those of the policies: usually some 100 in each, 64 kB at most.
MAX_ROWS = 200_000
MAX_BYTES = 256 * 1024 * 1024
# How much of that is left when it was too much, so that it is not too much again at once.
LEFT = 0.9
# What `read` gives at most: the rest is found by `recall`.
MAX_READ_BYTES = 64 * 1024 * 1024
# The clock may be corrected by as much without notice.
CLOCK_SKEW_S = 300

_SCHEMA = f"""
BEGIN IMMEDIATE;
CREATE TABLE policy (
    domain TEXT PRIMARY KEY,
    record_id TEXT NOT NULL,
    text BLOB NOT NULL,
    fetched_at REAL NOT NULL,
    expires_at REAL NOT NULL,
    refresh_at REAL NOT NULL,
    asked_at REAL NOT NULL
) WITHOUT ROWID;
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {SCHEMA_VERSION};
COMMIT;
"""
# Another process may have written a policy that was fetched later; not in the future, though.
_WRITE = (
    "INSERT INTO policy (domain, record_id, text, fetched_at, expires_at, refresh_at, asked_at)"
    " VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (domain) DO UPDATE SET"
    " record_id = excluded.record_id, text = excluded.text, fetched_at = excluded.fetched_at,"
    " expires_at = excluded.expires_at, refresh_at = excluded.refresh_at, asked_at = excluded.asked_at"
    " WHERE excluded.fetched_at >= policy.fetched_at OR policy.fetched_at > ?"
)
_NOTE = "UPDATE policy SET asked_at = ? WHERE domain = ?"
# The names are sorted without the policies, which are then read one by one.
_READ = (
    "SELECT domain, record_id, text, fetched_at, expires_at, refresh_at, asked_at"
    " FROM (SELECT domain AS name FROM policy ORDER BY asked_at DESC LIMIT ?) CROSS JOIN policy ON domain = name"
)
_RECALL = "SELECT domain, record_id, text, fetched_at, expires_at, refresh_at, asked_at FROM policy WHERE domain = ?"
_SIZE = "SELECT count(*), total(length(text)) FROM policy"
# What has expired goes first, then what was asked for least recently.
_TRIM = (
    "DELETE FROM policy WHERE domain IN (SELECT domain FROM (SELECT domain, row_number() OVER first AS number,"
    " sum(length(text)) OVER first AS octets FROM policy"
    " WINDOW first AS (ORDER BY expires_at < :now, asked_at DESC, domain ROWS UNBOUNDED PRECEDING))"
    " WHERE number > :rows OR octets > :octets)"
)
_LOGGER = "mailguard"


class StoreUnusable(Exception):
    """The store cannot be used now. The text names the path and says why."""


class _Damaged(Exception):
    """It is no database of ours, and will not be one."""


class PolicyRow(NamedTuple):
    """One policy. Times are POSIX seconds."""

    domain: str
    record_id: str
    text: bytes
    """As it was fetched."""
    fetched_at: float
    expires_at: float
    refresh_at: float
    asked_at: float
    """When somebody last asked for it."""


class PolicyStore:
    """The file at `path`. Making the object touches nothing."""

    def __init__(self, path: str, *, max_rows: int = MAX_ROWS, max_bytes: int = MAX_BYTES) -> None:
        self.path = path
        self._max_rows = max_rows
        self._max_bytes = max_bytes
        self._lock = Lock()
        self._connection: sqlite3.Connection | None = None
        self._identity: tuple[int, int] | None = None
        self._tried: tuple[int, int] | None = None
        self._is_new = False
        self._asked: dict[Domain, float] = {}

    def read(self, limit: int) -> list[PolicyRow]:
        """The `limit` policies that were asked for last; fewer where they are large. Raises StoreUnusable."""
        with self._lock:
            return self._in_a_new_one_if_damaged(lambda connection: _rows(connection, limit))

    def recall(self, domain: str) -> PolicyRow | None:
        """The policy of one domain. Waits for no other call. Raises StoreUnusable."""
        try:
            if not stat.S_ISREG(os.stat(self.path, follow_symlinks=False).st_mode):
                raise StoreUnusable(f"{self.path} is not a regular file")
            # A connection of its own: the other one may be waiting for another process.
            uri = f"{Path(self.path).absolute().as_uri()}?mode=ro"
            with contextlib.closing(sqlite3.connect(uri, uri=True, timeout=WAIT_TO_RECALL_S)) as connection:
                found = connection.execute(_RECALL, (domain,)).fetchone()
        except FileNotFoundError:
            return None
        except (OSError, sqlite3.Error) as error:
            raise StoreUnusable(f"{self.path} cannot be read: {error}") from None
        return PolicyRow(*found) if found is not None else None

    def note_asked(self, asked: Mapping[Domain, float]) -> None:
        """When these domains were asked for last, in POSIX seconds: for the next `write`. Touches nothing."""
        with self._lock:
            self._asked = dict(asked)

    def write(self, rows: Sequence[PolicyRow], *, now: float) -> bool:
        """Keep these, all or none, and what was noted; then make room, if there is too much.

        False where the database is a new one, which lacks everything that was written before. Raises StoreUnusable.
        """
        with self._lock:
            before, self._is_new = self._identity, False

            def act(connection: sqlite3.Connection) -> None:
                connection.execute("BEGIN IMMEDIATE")
                connection.executemany(_WRITE, [(*row, now + CLOCK_SKEW_S) for row in rows])
                connection.executemany(_NOTE, [(at, domain) for domain, at in self._asked.items()])
                count, octets = connection.execute(_SIZE).fetchone()
                if count > self._max_rows or octets > self._max_bytes:
                    left = {"rows": int(LEFT * self._max_rows), "octets": LEFT * self._max_bytes, "now": now}
                    connection.execute(_TRIM, left)
                connection.execute("COMMIT")

            self._in_a_new_one_if_damaged(act)
            self._asked = {}
            return not self._is_new and before in (None, self._identity)

    def close(self) -> None:
        """Write the log back and close. A later call opens the file again."""
        with self._lock:
            self._close()

    def _in_a_new_one_if_damaged(self, act: Callable[[sqlite3.Connection], T]) -> T:
        try:
            try:
                return self._with_connection(act)
            except _Damaged as error:
                self._set_aside(str(error))
                return self._with_connection(act)
        except (_Damaged, OSError) as error:
            self._close()
            raise StoreUnusable(f"{self.path} cannot be used: {error}") from None

    def _with_connection(self, act: Callable[[sqlite3.Connection], T]) -> T:
        try:
            connection = self._opened()
            try:
                return act(connection)
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
        except sqlite3.Error as error:
            # After a fault of the disk, a connection may hold what is no longer there; opening is cheap.
            self._close()
            if error_kind(error) in DAMAGE:
                raise _Damaged(str(error)) from None
            raise OSError(str(error)) from None

    def _opened(self) -> sqlite3.Connection:
        """The connection; a new one where the file was deleted or replaced, to which SQLite would go on writing."""
        if self._connection is not None and self._identity == identity(self.path):
            return self._connection
        self._close()
        _claim(self.path)
        self._tried = identity(self.path)
        # Autocommit: every BEGIN is written out.
        connection = sqlite3.connect(
            self.path, timeout=WAIT_FOR_LOCK_S, isolation_level=None, check_same_thread=False
        )
        try:
            self._is_new |= _prepared(connection, self.path)
        except BaseException:
            connection.close()
            raise
        self._connection, self._identity = connection, identity(self.path)
        return connection

    def _close(self) -> None:
        if self._connection is not None:
            with contextlib.closing(self._connection):
                self._connection = None

    def _set_aside(self, why: str) -> None:
        self._close()
        if identity(self.path) != self._tried:
            # Another process has done it, and what is there now is its new one.
            return
        aside = move_aside(self.path)
        logging.getLogger(_LOGGER).warning(
            "%s is damaged (%s); it is kept as %s, and a new one is begun", self.path, why, aside
        )


def _rows(connection: sqlite3.Connection, limit: int) -> list[PolicyRow]:
    rows, octets = [], 0
    with contextlib.closing(connection.execute(_READ, (limit,))) as cursor:
        for found in cursor:
            row = PolicyRow(*found)
            # What another program has put there need not be octets.
            octets += len(row.text) if isinstance(row.text, bytes) else 0
            if octets > MAX_READ_BYTES:
                break
            rows.append(row)
    return rows


def _claim(path: str) -> None:
    """See to it that `path` is a regular file that nobody else can write to.

    One that is there is not opened for it: closing it would drop the locks that this process holds on it.
    """
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    found = os.stat(path, follow_symlinks=False)
    if not stat.S_ISREG(found.st_mode):
        raise OSError("it is not a regular file")
    if found.st_mode & 0o022:
        os.chmod(path, stat.S_IMODE(found.st_mode) & 0o755)


def _prepared(connection: sqlite3.Connection, path: str) -> bool:
    """`_prepare`, again while it is locked: SQLite does not wait where two connections change to its log at once."""
    until = time.monotonic() + WAIT_FOR_LOCK_S
    while True:
        try:
            return _prepare(connection, path)
        except sqlite3.OperationalError as error:
            if error_kind(error) != sqlite3.SQLITE_BUSY or time.monotonic() >= until:
                raise
        time.sleep(POLL_S)


def _prepare(connection: sqlite3.Connection, path: str) -> bool:
    """Whether it was empty, and is a database now."""
    is_new = os.stat(path).st_size == 0
    if is_new:
        try:
            connection.executescript(_SCHEMA)
        except sqlite3.OperationalError:
            # Another process was first.
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            if number(connection, "PRAGMA application_id") != APPLICATION_ID:
                raise
    if number(connection, "PRAGMA application_id") != APPLICATION_ID:
        # SQLite takes a file that ends within the header for an empty database.
        if number(connection, "SELECT count(*) FROM sqlite_master") == 0:
            raise _Damaged("it is empty")
        raise OSError("it is the database of another program")
    if number(connection, "PRAGMA user_version") != SCHEMA_VERSION:
        raise _Damaged("another version of mailguard has written it")
    connection.execute("PRAGMA journal_mode = WAL")
    # With the log, a policy that was written is there after a crash of the host too.
    connection.execute("PRAGMA synchronous = FULL")
    return is_new
