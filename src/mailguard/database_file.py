"""The file of an SQLite database of ours: which one it is, what an error means, and putting a damaged one aside.

Left out: what is in it (mtasts/store.py, trace_store.py). Functions without state, safe on any thread.
"""

from __future__ import annotations

import os
import sqlite3

__all__ = ["ASIDE_SUFFIX", "DAMAGE", "error_kind", "identity", "move_aside", "number"]

# What a damaged database is renamed to; there is never more than one.
ASIDE_SUFFIX = ".damaged"
# The kinds of error that nothing but a new database helps against.
DAMAGE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def error_kind(error: BaseException) -> int:
    """SQLite's number for the kind of an error; 0 for one that is not SQLite's."""
    # The low octet is the kind, the rest is detail (sqlite.org/rescode.html).
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def identity(path: str) -> tuple[int, int] | None:
    """The device and the inode of a file; None where there is none."""
    try:
        found = os.stat(path, follow_symlinks=False)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def move_aside(path: str) -> str:
    """Rename the file, which nobody may have open; the new name. What had that name is lost. Raises OSError."""
    aside = path + ASIDE_SUFFIX
    # The log first: it would be taken for that of the new database.
    for suffix in ("-wal", "-shm", ""):
        if os.path.lexists(path + suffix):
            os.replace(path + suffix, aside + suffix)
    return aside


def number(connection: sqlite3.Connection, statement: str) -> int:
    """What a statement gives that has one row of one number."""
    (found,) = connection.execute(statement).fetchone()
    return int(found)
