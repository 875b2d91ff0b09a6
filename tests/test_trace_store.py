"""The database of traces: bounded, for its owner alone, and never in the way when it is broken.

ATTACKS.md rows, for this database: V13, V14.
"""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from judged_messages import judge_message
from mailguard import trace_store
from mailguard.errors import StoreDamaged, TraceError, TraceStoreError
from mailguard.trace import Trace
from mailguard.trace_reader import TraceReader
from mailguard.trace_store import DAY_S, Row, TraceStore, plain, set_aside
from trace_rows import MEGABYTE, numbers, opened, row
from zone0 import NOW, ke, mail, sign_as

IS_ROOT = os.geteuid() == 0


@pytest.fixture(scope="module")
def trace() -> Trace:
    return judge_message(sign_as(ke(), mail("<x@bank.test>"))).trace()


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "trace.sqlite")


# Writing and finding


def test_what_was_written_is_found_with_its_columns(path: str, trace: Trace) -> None:
    store = opened(path)
    store.add([row(trace, 1), row(trace, 2)])
    with TraceReader(path) as reader:
        found = reader.find("00000002")
        assert found is not None
        assert (found.trace, found.others) == (replace(trace, queue_id="00000002"), 0)
        assert [each.queue_id for each in reader.since(NOW)] == ["00000001", "00000002"]
        (first, _) = reader.since(NOW)
        assert first[1:-2] == (NOW, "198.51.100.66", "bank.test", "reject", "reject", "dmarc-reject")
        assert first.reason == trace.decided.reason
        assert (reader.period(), reader.count(NOW), reader.count(NOW + 1)) == ((NOW, NOW), 2, 0)
        assert list(reader.since(NOW + 1)) == []
    store.close()


def test_without_traces_nothing_is_found(path: str) -> None:
    opened(path).close()
    with TraceReader(path) as reader:
        assert reader.find("00000001") is None
        assert reader.period() is None
        assert list(reader.since(0)) == []


def test_of_several_with_one_queue_id_the_newest_is_found(path: str, trace: Trace) -> None:
    """Postfix uses short queue ids again."""
    store = opened(path)
    store.add([row(trace, 1, at=NOW - 60), row(trace, 2), row(trace, 1, at=NOW), row(trace, 1, at=NOW + 60)])
    with TraceReader(path) as reader:
        found = reader.find("00000001")
    assert found is not None
    assert (found.trace.now, found.others) == (NOW + 60, 2)
    store.close()


@pytest.mark.parametrize(
    "queue_id",
    [
        "' OR 1=1 --",
        "1'; DROP TABLE trace; --",
        "%",
        "?",
        "\0",
        "\udcff",
        "\u00e9" * 1000,
        "x" * 100_000,
        "",
    ],
    ids=["or", "drop", "like", "mark", "nul", "surrogate", "accents", "long", "empty"],
)
def test_a_queue_id_is_never_a_part_of_a_statement(path: str, trace: Trace, queue_id: str) -> None:
    store = opened(path)
    store.add([row(trace, 1)])
    with TraceReader(path) as reader:
        assert reader.find(queue_id) is None
        store.add([Row.of(replace(trace, queue_id=queue_id))])
        found = reader.find(queue_id)
        assert found is not None
        assert found.trace.queue_id == queue_id
    assert store.kept == 2
    store.close()


def test_columns_are_printable_ascii_and_bounded(trace: Trace) -> None:
    decided = replace(trace.decided, domain="\x1b[31m\u2028\udcff\n", reason="r" * 10_000, rule="\0")
    made = Row.of(replace(trace, decided=decided, queue_id="a'\"\\b"))
    assert made.domain == r"\x1b[31m\u2028\udcff\n"
    assert made.rule == r"\x00"
    assert made.queue_id == "a'\"\\b"
    assert len(made.reason) == 600
    assert all(isinstance(text, float | bytes) or (text.isascii() and text.isprintable()) for text in made)
    assert len(plain("\u2028" * 1000)) == 600


def test_a_damaged_trace_is_told(path: str, trace: Trace) -> None:
    store = opened(path)
    store.add([row(trace, 1, size=200)])
    store.close()
    with TraceReader(path) as reader, pytest.raises(TraceError):
        reader.find("00000001")


def test_all_of_a_batch_is_kept_or_none(path: str, trace: Trace) -> None:
    store = opened(path)
    bad = row(trace, 2)._replace(reason=None)  # type: ignore[arg-type]  # what the database refuses
    with pytest.raises(TraceStoreError):
        store.add([row(trace, 1), bad])
    assert store.kept == 0
    store.add([row(trace, 3)])
    assert numbers(path) == [3]
    store.close()


# Bounds


def test_what_is_too_old_goes(path: str, trace: Trace) -> None:
    store = opened(path, max_days=7)
    store.add([row(trace, n, at=NOW - n * DAY_S) for n in range(10)])
    store.prune(NOW + 1)
    assert numbers(path) == [0, 1, 2, 3, 4, 5, 6]
    store.close()
    # A shorter time holds for what is there already.
    store = opened(path, max_days=2)
    store.prune(NOW + 1)
    assert numbers(path) == [0, 1]
    store.close()


def test_many_old_ones_go_in_parts(path: str, trace: Trace) -> None:
    store = opened(path)
    count = trace_store.PRUNE_ROWS * trace_store.PRUNE_ROUNDS + 10
    store.add([row(trace, n, at=NOW - 30 * DAY_S) for n in range(count)])
    store.prune(NOW)
    assert store.kept == 10
    store.prune(NOW)
    assert store.kept == 0
    store.close()


def test_a_clock_that_was_wrong_costs_traces_and_nothing_else(path: str, trace: Trace) -> None:
    store = opened(path)
    store.add([row(trace, 1, at=0.0), row(trace, 2, at=NOW), row(trace, 3, at=NOW + 3650 * DAY_S)])
    store.prune(NOW)
    assert numbers(path) == [2, 3]
    store.close()


def test_what_was_written_by_a_clock_ahead_goes_with_what_came_after_it(path: str, trace: Trace) -> None:
    store = opened(path)
    store.add([row(trace, 1, at=NOW), row(trace, 2, at=NOW + 3650 * DAY_S), row(trace, 3, at=NOW + 60)])
    store.prune(NOW + 6 * DAY_S)
    assert numbers(path) == [1, 2, 3]
    store.add([row(trace, 4, at=NOW + 8 * DAY_S), row(trace, 5, at=NOW + 3650 * DAY_S)])
    # By a clock that is behind, all are of the future.
    store.prune(60.0)
    assert numbers(path) == [1, 2, 3, 4, 5]
    store.prune(NOW + 8 * DAY_S)
    assert numbers(path) == [4, 5]
    store.close()


def test_the_size_is_bounded_and_the_oldest_go(path: str, trace: Trace) -> None:
    store = opened(path, max_bytes=2 * MEGABYTE)
    for batch in range(40):
        store.add([row(trace, batch * 20 + n, size=10_000) for n in range(20)])
        store.prune(NOW)
        assert os.path.getsize(path) <= 2.5 * MEGABYTE
    kept = numbers(path)
    assert kept == list(range(800 - len(kept), 800))
    assert 100 < len(kept) < 200
    store.close()


def test_a_few_large_ones_do_not_all_go(path: str, trace: Trace) -> None:
    store = opened(path, max_bytes=MEGABYTE)
    for number in range(20):
        store.add([row(trace, number, size=120_000)])
        store.prune(NOW)
    assert numbers(path) == list(range(20 - len(numbers(path)), 20))
    assert len(numbers(path)) >= 6
    store.close()


def test_a_lower_bound_holds_after_a_restart_and_the_file_shrinks(path: str, trace: Trace) -> None:
    store = opened(path, max_bytes=64 * MEGABYTE)
    store.add([row(trace, n, size=20_000) for n in range(400)])
    store.close()
    assert os.path.getsize(path) > 7 * MEGABYTE
    store = opened(path, max_bytes=1 * MEGABYTE)
    for _ in range(20):
        store.prune(NOW)
    store.close()
    assert os.path.getsize(path) <= 1 * MEGABYTE
    kept = numbers(path)
    assert kept == list(range(400 - len(kept), 400))


def test_deleted_is_deleted(path: str, trace: Trace) -> None:
    store = opened(path)
    secret = b"a subject that nobody is to read again"
    store.add([row(trace, 1, at=NOW - 30 * DAY_S)._replace(content=secret * 50)])
    store.prune(NOW)
    store.close()
    assert secret not in Path(path).read_bytes()


# Files and permissions


def test_the_files_are_for_their_owner_alone(path: str, trace: Trace) -> None:
    before = os.umask(0)
    try:
        store = opened(path)
        store.add([row(trace)])
    finally:
        os.umask(before)
    for name in (path, path + "-wal", path + "-shm"):
        assert stat.S_IMODE(os.stat(name).st_mode) == 0o600, name
    store.close()


@pytest.mark.parametrize(("mode", "becomes"), [(0o640, 0o640), (0o666, 0o640), (0o777, 0o640), (0o600, 0o600)])
def test_a_file_that_is_there_loses_what_is_too_much(path: str, mode: int, becomes: int) -> None:
    opened(path).close()
    os.chmod(path, mode)
    opened(path).close()
    assert stat.S_IMODE(os.stat(path).st_mode) == becomes


@pytest.mark.parametrize("kind", ["to-nothing", "to-a-file"])
def test_a_symbolic_link_is_not_followed(tmp_path: Path, path: str, kind: str) -> None:
    target = tmp_path / "target"
    if kind == "to-a-file":
        target.write_bytes(b"")
    os.symlink(target, path)
    with pytest.raises(TraceStoreError, match="cannot be made or opened"):
        opened(path)
    assert not target.exists() or target.read_bytes() == b""


def test_what_is_not_a_file_is_refused(path: str) -> None:
    os.mkfifo(path)
    with pytest.raises(TraceStoreError, match="not a regular file"):
        opened(path)


def test_a_directory_that_everybody_can_write_to_is_refused(tmp_path: Path, path: str) -> None:
    tmp_path.chmod(0o777)
    with pytest.raises(TraceStoreError, match=r"chmod o-w"):
        opened(path)


@pytest.mark.skipif(not IS_ROOT, reason="needs another user's file")
def test_the_file_of_another_user_is_refused(path: str) -> None:
    opened(path).close()
    os.chown(path, 65534, 65534)
    with pytest.raises(TraceStoreError, match="another user"):
        opened(path)


def cannot_be_opened(log: str) -> None:
    Path(log).symlink_to("nothing")


def can_only_be_read(log: str) -> None:
    Path(log).mkdir()


NOT_OURS = pytest.mark.parametrize(
    ("put_in_the_way", "why"),
    [(cannot_be_opened, "unable to open database file"), (can_only_be_read, "attempt to write a readonly database")],
)


@NOT_OURS
def test_a_log_that_is_not_ours_yet_is_waited_for(
    path: str, trace: Trace, monkeypatch: pytest.MonkeyPatch, put_in_the_way: Callable[[str], None], why: str
) -> None:
    """As where root reads the database at the moment of its making."""
    waits: list[float] = []
    put_in_the_way(f"{path}-shm")

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 2:
            os.rename(f"{path}-shm", f"{path}-gone")

    monkeypatch.setattr("time.sleep", sleep)
    store = opened(path)
    store.add([row(trace)])
    assert (store.kept, len(waits)) == (1, 2)
    store.close()


@NOT_OURS
def test_a_log_that_stays_another_s_is_not_waited_for_long(
    path: str, monkeypatch: pytest.MonkeyPatch, put_in_the_way: Callable[[str], None], why: str
) -> None:
    waits: list[float] = []
    monkeypatch.setattr("time.sleep", waits.append)
    put_in_the_way(f"{path}-shm")
    with pytest.raises(TraceStoreError, match=why):
        opened(path)
    assert 0 < sum(waits) < 1


@pytest.mark.parametrize("name", ["none/trace.sqlite", "file/trace.sqlite", "x" * 300, "a\0b"])
def test_a_place_where_nothing_can_be_made_names_the_remedy(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(TraceStoreError, match=r"\[trace\]"):
        opened(f"{tmp_path}/{name}")


# Damage


def broken(path: str, how: str, trace: Trace) -> None:
    store = opened(path)
    store.add([row(trace, n, size=5000) for n in range(100)])
    store.close()
    content = bytearray(Path(path).read_bytes())
    match how:
        case "noise":
            content[:] = os.urandom(len(content))
        case "text":
            content[:] = b"this is not a database\n" * 1000
        case "cut":
            del content[len(content) // 2 :]
        case "first-page":
            content[100:4096] = bytes(3996)
        case "newer":
            with sqlite3.connect(path) as connection:
                connection.execute("PRAGMA user_version = 9")
            connection.close()
            return
    Path(path).write_bytes(content)


@pytest.mark.attack("V14")
@pytest.mark.parametrize("how", ["noise", "text", "cut", "first-page", "newer"])
def test_damage_is_found_and_a_new_one_can_be_made(path: str, trace: Trace, how: str) -> None:
    broken(path, how, trace)
    with pytest.raises(StoreDamaged):
        use(path, trace)
    assert set_aside(path) == path + ".damaged"
    assert os.path.exists(path + ".damaged")
    use(path, trace)
    assert numbers(path)[-1] == 7


def use(path: str, trace: Trace) -> None:
    """All that is done with a database that is in use."""
    store = opened(path, max_bytes=MEGABYTE // 4)
    try:
        store.add([row(trace, n, size=5000) for n in range(8)])
        for _ in range(10):
            store.prune(NOW)
    finally:
        store.close()


def test_what_is_renamed_takes_its_log_along(path: str) -> None:
    for suffix in ("", "-wal", "-shm"):
        Path(path + suffix).write_text(f"new{suffix}")
        Path(f"{path}.damaged{suffix}").write_text("of last time")
    set_aside(path)
    for suffix in ("", "-wal", "-shm"):
        assert not os.path.exists(path + suffix)
        assert Path(f"{path}.damaged{suffix}").read_text() == f"new{suffix}"


@pytest.mark.attack("V14")
def test_the_database_of_another_program_is_left_alone(path: str) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE precious (a)")
        connection.execute("INSERT INTO precious VALUES (1)")
    connection.close()
    before = Path(path).read_bytes()
    with pytest.raises(TraceStoreError, match="another program") as raised:
        opened(path)
    assert not isinstance(raised.value, StoreDamaged)
    assert Path(path).read_bytes() == before


@pytest.mark.attack("V14")
@pytest.mark.parametrize("how", ["deleted", "replaced", "emptied", "log-deleted", "log-replaced"])
def test_a_database_that_went_away_is_noticed_and_made_anew(path: str, trace: Trace, how: str) -> None:
    store = opened(path)
    store.add([row(trace, 1)])
    name = path + "-wal" if how.startswith("log") else path
    if how == "emptied":
        os.truncate(path, 0)
    else:
        os.unlink(name)
    if how.endswith("replaced"):
        Path(name).write_bytes(b"")
    assert not store.is_in_place()
    with pytest.raises(TraceStoreError, match="deleted or replaced"):
        store.add([row(trace, 2)])
    store.close()
    try:
        store = opened(path)
    except StoreDamaged:
        # What was in the log has been written back into what is no database any more.
        set_aside(path)
        store = opened(path)
    store.add([row(trace, 3)])
    assert numbers(path)[-1] == 3
    assert store.is_in_place()
    store.close()


@pytest.mark.attack("V14")
def test_a_lock_is_waited_for_a_moment_and_then_told(
    path: str, trace: Trace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trace_store, "WAIT_FOR_LOCK_S", 0.05)
    store = opened(path)
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    with pytest.raises(TraceStoreError, match="another program has locked it"):
        store.add([row(trace)])
    holder.execute("ROLLBACK")
    store.add([row(trace)])
    assert store.kept == 1
    holder.close()
    store.close()


def test_a_reader_that_never_ends_does_not_fill_the_disk(
    path: str, trace: Trace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trace_store, "MAX_LOG_BYTES", MEGABYTE)
    store = opened(path)
    store.add([row(trace, 1)])
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN")
    holder.execute("SELECT * FROM trace").fetchall()
    with pytest.raises(TraceStoreError, match="reads the database for too long"):
        write_without_end(store, trace)
    assert os.path.getsize(path + "-wal") < 1.5 * MEGABYTE
    holder.close()
    store.close()
    # The log went with the last one who had it open.
    store = opened(path)
    store.add([row(trace, 3)])
    store.close()


def write_without_end(store: TraceStore, trace: Trace) -> None:
    for _ in range(100):
        store.add([row(trace, 2, size=100_000)])


FULL_DISK = """
import os, sys
from mailguard.errors import TraceStoreError
from mailguard.trace_store import Row, TraceStore
os.chmod("/mnt", 0o755)
with open("/mnt/something-else", "wb") as other:
    other.write(bytes(400_000))
def row(name):
    return Row(name, 1.0, "", "", "accept", "accept", "r", "", os.urandom(20_000))
store = TraceStore("/mnt/t.sqlite", max_days=7, max_bytes=1 << 30)
written = 0
try:
    while True:
        store.add([row("A")])
        written += 1
except TraceStoreError as error:
    print(error)
print(written, store.kept)
store.close()
os.unlink("/mnt/something-else")
store = TraceStore("/mnt/t.sqlite", max_days=7, max_bytes=1 << 30)
store.add([row("B")])
print(store.kept)
store.close()
"""


@pytest.fixture
def small_disk() -> list[str]:
    """The beginning of a command that has a file system of 1 MB of its own on /mnt."""
    command = ["unshare", "-m", "sh", "-c", 'mount -t tmpfs -o size=1m tmpfs /mnt && exec "$@"', "sh"]
    try:
        possible = subprocess.run([*command, "true"], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        possible = False
    if not possible:
        pytest.skip("a file system of 1 MB can be mounted by root alone")
    return command


@pytest.mark.attack("V13")
def test_on_a_full_disk_all_that_was_written_is_kept(small_disk: list[str]) -> None:
    done = subprocess.run([*small_disk, sys.executable, "-c", FULL_DISK], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    told, counts, afterwards = done.stdout.splitlines()
    assert "make room on its disk" in told
    written, kept = map(int, counts.split())
    assert (kept, int(afterwards)) == (written, written + 1)
    assert written > 3
