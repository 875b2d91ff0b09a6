"""Reading the database of traces: beside the writer, without it, by whom, and what is said where it cannot be."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from judged_messages import judge_message
from mailguard.errors import MailguardError, StoreDamaged, TraceStoreError
from mailguard.trace import Trace
from mailguard.trace_reader import TraceReader
from trace_rows import numbers, opened, row
from zone0 import ke, mail, sign_as

IS_ROOT = os.geteuid() == 0


@pytest.fixture(scope="module")
def trace() -> Trace:
    return judge_message(sign_as(ke(), mail("<x@bank.test>"))).trace()


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "trace.sqlite")


def test_a_reader_sees_what_is_written_while_it_reads(path: str, trace: Trace) -> None:
    store = opened(path)
    store.add([row(trace, n) for n in range(3)])
    with TraceReader(path) as reader:
        rows = reader.since(0)
        assert next(rows).queue_id == "00000000"
        store.add([row(trace, 3)])
        assert len(list(rows)) == 3
        assert len(list(reader.since(0))) == 4
    store.close()


def test_a_reader_changes_nothing(path: str, trace: Trace) -> None:
    store = opened(path)
    store.add([row(trace)])
    store.close()
    before = Path(path).read_bytes()
    with TraceReader(path) as reader:
        reader.find("00000000")
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            reader._connection.execute("DELETE FROM trace")
    assert Path(path).read_bytes() == before


def held_open(path: str) -> list[str]:
    """What this process has open of the database."""
    return [each for each in map(os.path.realpath, Path("/proc/self/fd").iterdir()) if each.startswith(path)]


def test_a_reader_lets_go_of_the_file(path: str, trace: Trace) -> None:
    opened(path).close()
    with TraceReader(path) as reader:
        reader.find("00000000")
        assert held_open(path)
    assert held_open(path) == []
    with sqlite3.connect(path) as other:
        other.execute("PRAGMA user_version = 99")
    other.close()
    with pytest.raises(StoreDamaged, match="another version") as caught:
        TraceReader(path)
    # What is raised would keep alive what was opened, and not close it.
    assert held_open(path) == []
    assert caught.value.__traceback__ is not None


READ_AS_ANOTHER = """
import os, sys
os.setgid(65534); os.setuid(65534)
from mailguard.trace_reader import TraceReader
with TraceReader(sys.argv[1]) as reader:
    print(reader.count(0))
"""


@pytest.mark.skipif(not IS_ROOT, reason="needs to become another user")
@pytest.mark.parametrize("writing", ["written-to", "at-rest"])
def test_the_group_may_read_if_it_was_let(trace: Trace, writing: str) -> None:
    """Who cannot write to the directory, as SQLite wants it, reads all the same."""
    directory = Path(tempfile.mkdtemp(prefix="mg-"))
    directory.chmod(0o755)
    path = str(directory / "trace.sqlite")
    store = opened(path)
    try:
        os.chown(path, 0, 65534)
        os.chmod(path, 0o640)
        store.close()
        store = opened(path)
        store.add([row(trace)])
        if writing == "at-rest":
            store.close()
        done = subprocess.run(
            [sys.executable, "-c", READ_AS_ANOTHER, path], capture_output=True, text=True, check=False
        )
        assert (done.stdout, done.returncode) == ("1\n", 0), done.stderr
    finally:
        store.close()
        shutil.rmtree(directory)


def test_what_cannot_be_read_names_the_remedy(tmp_path: Path, path: str, trace: Trace) -> None:
    with pytest.raises(TraceStoreError, match="enabled and path"):
        TraceReader(path)
    with pytest.raises(TraceStoreError, match="cannot be read: Is a directory"):
        TraceReader(str(tmp_path))
    # As after a disk that was full, or at the moment of its making.
    Path(path).touch()
    with pytest.raises(TraceStoreError, match=r"not there or empty: .*enabled and path"):
        TraceReader(path)
    opened(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 9")
    connection.close()
    with pytest.raises(StoreDamaged, match="another version"):
        TraceReader(path)
    Path(path).write_bytes(b"this is not a database\n" * 1000)
    with pytest.raises(StoreDamaged, match="no database"):
        TraceReader(path)
    with pytest.raises(MailguardError):
        TraceReader(path)


def test_odd_names_of_files_are_names(tmp_path: Path, trace: Trace) -> None:
    path = str(tmp_path / "a?mode=memory&x=#%41 \u00e9.sqlite")
    store = opened(path)
    store.add([row(trace, 5)])
    store.close()
    assert numbers(path) == [5]
    assert os.path.exists(path)
