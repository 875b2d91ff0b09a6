"""The file that policies survive a restart in, when it is broken, full, locked, or written by several.

ATTACKS.md rows: T14.
"""

from __future__ import annotations

import logging
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from mailguard.database_file import ASIDE_SUFFIX
from mailguard.domain import Domain
from mailguard.mtasts.cache import REFRESH_UNTIL
from mailguard.mtasts.store import SCHEMA_VERSION, PolicyStore
from mtasts_asking import DAY_S, DOMAIN, NOW, WEEK_S, Asking, failure, policy, success
from mtasts_rows import after_restart, domains, filled, row

HERE = Path(__file__).resolve().parent


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "policies.sqlite")


# -- files that are broken ----------------------------------------------------------------------------------------


def truncated(path: str) -> None:
    os.truncate(path, os.path.getsize(path) * 2 // 3)


def cut_in_the_header(path: str) -> None:
    os.truncate(path, 50)


def overwritten(path: str) -> None:
    size = os.path.getsize(path)
    with open(path, "r+b") as file:
        file.seek(4096)
        file.write(b"\xa5" * (size - 4096))


def garbage(path: str) -> None:
    Path(path).write_bytes(b"\xff" * 100_000)


def of_another_version(path: str) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    connection.close()


DAMAGES = [truncated, cut_in_the_header, overwritten, garbage, of_another_version]


@pytest.mark.attack("T14")
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_set_aside_at_the_start(
    path: str, damage: Callable[[str], None], caplog: pytest.LogCaptureFixture
) -> None:
    filled(path)
    damage(path)
    damaged = Path(path).read_bytes()
    asking = after_restart(path)
    assert Path(path + ASIDE_SUFFIX).read_bytes() == damaged
    assert "a new one is begun" in caplog.text
    asking.learn()
    assert asking.cache.save(now=NOW)
    assert after_restart(path).held() is not None


@pytest.mark.attack("T14")
def test_of_two_that_find_it_damaged_one_alone_sets_it_aside(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    garbage(path)
    filled(f"{path}.other", 3)
    store, set_aside = PolicyStore(path), PolicyStore._set_aside

    def second(self: PolicyStore, why: str) -> None:
        os.replace(f"{path}.other", path)
        set_aside(self, why)

    monkeypatch.setattr(PolicyStore, "_set_aside", second)
    assert {one.domain for one in store.read(9)} == set(domains(3))
    assert not os.path.exists(path + ASIDE_SUFFIX)


@pytest.mark.attack("T14")
@pytest.mark.parametrize("damage", [*DAMAGES, os.unlink])
def test_nothing_is_lost_where_the_file_is_damaged_under_way(path: str, damage: Callable[[str], None]) -> None:
    asking = filled(path)
    damage(path)
    asking.learn()
    assert asking.held(domains(1)[0]) is not None
    assert asking.cache.save(now=NOW)
    # The new file has what memory has, not just what was new.
    again = after_restart(path)
    assert all(again.held(domain) is not None for domain in [DOMAIN, *domains(200)])


@pytest.mark.attack("T14")
def test_a_file_that_is_replaced_while_it_is_open_is_written_anew(path: str) -> None:
    store = PolicyStore(path)
    asking = Asking(store)
    asking.cache.load(now=NOW)
    asking.learn()
    assert asking.cache.save(now=NOW)
    for suffix in ("", "-wal", "-shm"):
        os.unlink(path + suffix)
    asking.learn(domain=domains(1)[0])
    assert asking.cache.save(now=NOW)
    assert after_restart(path).held() is not None


@pytest.mark.attack("T14")
def test_the_file_of_another_program_is_left_alone(path: str, caplog: pytest.LogCaptureFixture) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE precious (x)")
    connection.close()
    before = Path(path).read_bytes()
    asking = after_restart(path)
    asking.learn()
    assert not asking.cache.save(now=NOW)
    assert asking.held() is not None
    assert Path(path).read_bytes() == before
    assert "database of another program" in caplog.text


@pytest.mark.attack("T14")
@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo, lambda path: os.symlink("none", path)])
def test_what_is_no_file_does_not_stop_it(path: str, make: Callable[[str], None]) -> None:
    make(path)
    asking = after_restart(path)
    asking.learn()
    assert not asking.cache.save(now=NOW)
    assert asking.held() is not None


@pytest.mark.attack("T14")
def test_it_is_written_when_the_disk_is_there_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    directory = tmp_path / "later"
    path = str(directory / "policies.sqlite")
    asking = after_restart(path)
    for domain in domains(20):
        asking.learn(domain=domain)
        assert not asking.cache.save(now=NOW)
    directory.mkdir()
    assert asking.cache.save(now=NOW)
    assert asking.cache.save(now=NOW), "there is nothing left to write"
    assert [record.levelno for record in caplog.records] == [logging.ERROR, logging.WARNING], "said once each"
    again = after_restart(path)
    assert all(again.held(domain) is not None for domain in domains(20))


@pytest.mark.attack("T14")
def test_what_could_not_be_read_at_the_start_is_read_later(path: str) -> None:
    filled(path)
    os.rename(path, path + ".away")
    os.mkdir(path)
    asking = after_restart(path)
    new = asking.learn(policy(mx="new.good.test"), domain=domains(1)[0])
    assert not asking.cache.save(now=NOW)
    os.rmdir(path)
    os.rename(path + ".away", path)
    assert asking.cache.save(now=NOW)
    assert all(asking.held(domain) is not None for domain in domains(200))
    assert asking.held(domains(1)[0]) == new, "what is in the file is not newer"


FULL = """
import resource, sys
from mailguard.mtasts.store import PolicyStore
from mtasts_asking import NOW, Asking
from mailguard.domain import Domain
asking = Asking(PolicyStore(sys.argv[1]))
asking.cache.load(now=NOW)
first = Domain.parse("first.test")
asking.learn(domain=first)
assert asking.cache.save(now=NOW)
resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, resource.RLIM_INFINITY))
for index in range(2_000):
    asking.learn(domain=Domain.parse(f"d{index}.test"))
failed = not asking.cache.save(now=NOW)
failed_again = not asking.cache.save(now=NOW)
held = asking.held(first) is not None and asking.held(Domain.parse("d1999.test")) is not None
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
print(failed, failed_again, held, asking.cache.save(now=NOW))
"""


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(HERE)}


@pytest.mark.attack("T14")
def test_a_full_disk_stops_nothing(path: str) -> None:
    """A limit on the size of files, which the system enforces as it does the end of a disk."""
    done = subprocess.run(
        [sys.executable, "-c", FULL, path], capture_output=True, text=True, check=True, timeout=60, env=environment()
    )
    assert done.stdout.split() == ["True"] * 4, done.stderr
    again = after_restart(path)
    assert all(again.held(domain) is not None for domain in [Domain.parse("first.test"), *domains(2000)])


# -- several writers, and the end of one --------------------------------------------------------------------------


@pytest.mark.attack("T14")
def test_of_two_writers_the_newer_fetch_wins(path: str) -> None:
    one, other = PolicyStore(path), PolicyStore(path)
    assert not one.write([row(fetched_at=NOW + 10)], now=NOW), "it is a new file"
    assert other.write([row(fetched_at=NOW)], now=NOW)
    assert other.write([row("d0.test")], now=NOW)
    assert {found.domain: found.fetched_at for found in one.read(9)} == {DOMAIN: NOW + 10, "d0.test": NOW}


AT_ONCE = """
import sys
from mailguard.mtasts import store
from mailguard.mtasts.store import PolicyStore
from mtasts_asking import NOW, Asking
from mailguard.domain import Domain
# One of the others may stand still while it has the lock.
store.WAIT_FOR_LOCK_S = 60.0
print("ready", flush=True)
sys.stdin.readline()
asking = Asking(PolicyStore(sys.argv[1]))
asking.cache.load(now=NOW)
for index in range(20):
    asking.learn(domain=Domain.parse(f"d{index}.{sys.argv[2]}.test"))
    assert asking.cache.save(now=NOW)
"""


@pytest.mark.attack("T14")
def test_those_that_begin_at_once_share_one_file(path: str) -> None:
    commands = [[sys.executable, "-c", AT_ONCE, path, f"p{number}"] for number in range(4)]
    pipe = subprocess.PIPE
    processes = [
        subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, env=environment())
        for command in commands
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    assert [(process.communicate(timeout=120)[1], process.returncode) for process in processes] == [("", 0)] * 4
    assert len(PolicyStore(path).read(1000)) == 80


def test_a_locked_file_is_written_later(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mailguard.mtasts.store.WAIT_FOR_LOCK_S", 0.05)
    filled(path, 1)
    asking = after_restart(path)
    asking.learn()
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    assert not asking.cache.save(now=NOW)
    other.execute("ROLLBACK")
    other.close()
    assert asking.cache.save(now=NOW)
    assert not os.path.exists(path + ASIDE_SUFFIX)


WRITES = """
import sys
from mailguard.mtasts.store import PolicyStore
from mtasts_asking import NOW, Asking
from mailguard.domain import Domain
asking = Asking(PolicyStore(sys.argv[1]))
asking.cache.load(now=NOW)
for index in range(100_000):
    asking.learn(domain=Domain.parse(f"d{index}.test"))
    assert asking.cache.save(now=NOW)
    print(index, flush=True)
"""


@pytest.mark.attack("T14")
def test_what_was_saved_is_there_after_a_kill(path: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", WRITES, path], stdout=subprocess.PIPE, text=True, env=environment()
    ) as writer:
        assert writer.stdout is not None
        for _ in range(50):
            last = int(writer.stdout.readline())
        writer.send_signal(signal.SIGKILL)
        writer.wait(10)
    asking = after_restart(path)
    assert not os.path.exists(path + ASIDE_SUFFIX)
    assert all(asking.held(domain) is not None for domain in domains(last + 1))


def test_saving_goes_on_beside_asking(path: str) -> None:
    """Many threads, one cache: what a server does with its pool."""
    asking = Asking(PolicyStore(path))
    asking.cache.load(now=NOW)
    saved: list[bool] = []
    threads = [threading.Thread(target=lambda: saved.append(asking.cache.save(now=NOW))) for _ in range(20)]
    for number, domain in enumerate(domains(200)):
        asking.learn(domain=domain)
        if number % 10 == 0:
            threads[number // 10].start()
    for thread in threads:
        thread.join(60)
    assert saved == [True] * 20
    assert asking.cache.save(now=NOW)
    again = after_restart(path)
    assert all(again.held(domain) is not None for domain in domains(200))


def test_without_a_store_memory_is_all() -> None:
    asking = Asking(None)
    assert asking.cache.load(now=NOW) == 0
    asking.learn()
    assert asking.cache.save(now=NOW)
    asking.now = NOW + REFRESH_UNTIL * WEEK_S
    (fetch,) = asking.cache.due(now=asking.now)
    asking.fetched(fetch, failure())
    asking.now += DAY_S
    (fetch,) = asking.cache.due(now=asking.now)
    asking.fetched(fetch, success())
    assert asking.held() is not None


def test_what_an_error_of_ours_kept_from_being_written_is_written_later(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asking = Asking(PolicyStore(path))
    asking.cache.load(now=NOW)
    held = asking.learn()

    def fail(*_: object, **__: object) -> bool:
        raise RuntimeError("an error of ours")

    with monkeypatch.context() as broken:
        broken.setattr(PolicyStore, "write", fail)
        with pytest.raises(RuntimeError):
            asking.cache.save(now=NOW)
    assert asking.cache.save(now=NOW)
    assert after_restart(path).held() == held
