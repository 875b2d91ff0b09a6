"""Reading the database of traces, for the commands: nothing is changed, and the writer is not held up.

Left out: writing (trace_store.py). A `TraceReader` is for one thread.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from mailguard.errors import StoreDamaged, TraceStoreError
from mailguard.trace import Trace, decode
from mailguard.trace_store import SCHEMA_VERSION, Row, checked, plain

__all__ = ["Found", "TraceReader"]

WAIT_FOR_LOCK_S = 1.0
# A statement that reads for long would keep the writer from writing its log back.
READ_ROWS = 1000


@dataclass(frozen=True, slots=True)
class Found:
    """The newest trace of a queue id."""

    trace: Trace
    others: int
    """How many older ones have the same queue id."""


class TraceReader:
    """The database, open for reading."""

    def __init__(self, path: str) -> None:
        """Open the database at `path`. Raises TraceStoreError, which says what to do."""
        self.path = path
        try:
            with open(path, "rb") as file:
                is_there = os.fstat(file.fileno()).st_size > 0
            uri = Path(path).absolute().as_uri()
        except FileNotFoundError:
            is_there = False
        except OSError as error:
            raise TraceStoreError(f"{path} cannot be read: {error.strerror}; run this as root") from None
        if not is_there:
            raise TraceStoreError(
                f"{path} is not there or empty: no message was recorded yet, or traces cannot be written; see enabled"
                " and path in [trace], and the daemon's own messages about traces"
            )
        try:
            self._connection = self._open(f"{uri}?mode=ro")
        except TraceStoreError:
            if os.path.exists(path + "-wal"):
                raise
            # Nobody writes. Who may not write to the directory cannot make the log, and needs none.
            self._connection = self._open(f"{uri}?mode=ro&immutable=1")

    def _open(self, uri: str) -> sqlite3.Connection:
        connection = checked(
            self.path, lambda: sqlite3.connect(uri, uri=True, timeout=WAIT_FOR_LOCK_S, isolation_level=None)
        )
        try:
            version = checked(self.path, lambda: connection.execute("PRAGMA user_version").fetchone())
            if version != (SCHEMA_VERSION,):
                raise StoreDamaged(
                    f"{self.path} was written by another version of mailguard; use that one, or reload the daemon,"
                    " which then begins a new one"
                )
        except BaseException:
            connection.close()
            raise
        return connection

    def find(self, queue_id: str) -> Found | None:
        """The newest trace of the message with this queue id, or None. Raises TraceError for a damaged one."""
        key = plain(queue_id)
        rows = self._rows("SELECT content FROM trace WHERE queue_id = ? ORDER BY id DESC LIMIT 1", key)
        if not rows:
            return None
        ((count,),) = self._rows("SELECT count(*) FROM trace WHERE queue_id = ?", key)
        return Found(decode(rows[0][0]), int(count) - 1)

    def period(self) -> tuple[float, float] | None:
        """When the oldest and the newest were judged, in POSIX seconds; None where there is no trace."""
        ((first, last),) = self._rows("SELECT min(judged_at), max(judged_at) FROM trace")
        return None if first is None else (float(first), float(last))

    def count(self, since: float) -> int:
        """How many were judged since then (POSIX seconds)."""
        ((count,),) = self._rows("SELECT count(*) FROM trace WHERE judged_at >= ?", since)
        return int(count)

    def since(self, since: float) -> Iterator[Row]:
        """Those judged since then (POSIX seconds), in the order of their recording, with an empty `content`."""
        statement = (
            "SELECT id, queue_id, judged_at, client, domain, disposition, would, rule, reason FROM trace"
            " WHERE id > ? AND judged_at >= ? ORDER BY id LIMIT ?"
        )
        last = 0
        while rows := self._rows(statement, last, since, READ_ROWS):
            last = rows[-1][0]
            yield from (Row._make([*row[1:], b""]) for row in rows)

    def _rows(self, statement: str, *parameters: object) -> list[Any]:
        return checked(self.path, lambda: self._connection.execute(statement, parameters).fetchall())

    def close(self) -> None:
        """Close the database."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
