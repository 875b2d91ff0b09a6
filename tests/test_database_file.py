"""The file of an SQLite database: which one it is, what an error means, and putting a damaged one aside."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import pytest

from mailguard import database_file


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_NOTADB),
        (sqlite3.SQLITE_CORRUPT_INDEX, sqlite3.SQLITE_CORRUPT),
        (sqlite3.SQLITE_IOERR_SHORT_READ, sqlite3.SQLITE_IOERR),
    ],
)
def test_the_kind_of_an_error_is_without_its_detail(code: int, kind: int) -> None:
    error = sqlite3.DatabaseError("x")
    error.sqlite_errorcode = code
    assert database_file.error_kind(error) == kind
    assert database_file.error_kind(OSError(code, "x")) == 0


def test_a_link_is_not_the_file_that_it_leads_to(tmp_path: Path) -> None:
    path, link = tmp_path / "database", tmp_path / "link"
    assert database_file.identity(str(path)) is None
    path.touch()
    link.symlink_to(path)
    assert database_file.identity(str(path)) != database_file.identity(str(link))


@pytest.mark.parametrize("moved", [0, 1, 2])
def test_a_new_database_never_finds_the_log_of_the_damaged_one(
    moved: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the process is killed on the way."""
    for suffix in ("", "-wal", "-shm"):
        (tmp_path / f"database{suffix}").touch()
    left, replace = [None] * moved, os.replace

    def killed(source: str, target: str) -> None:
        if not left:
            raise KeyboardInterrupt
        left.pop()
        replace(source, target)

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        database_file.move_aside(str(tmp_path / "database"))
    assert (tmp_path / "database").exists()
