"""The file that policies survive a restart in: what it holds, and for how long.

ATTACKS.md rows: T14. What happens when it is broken is in test_mtasts_store_broken.py.
"""

from __future__ import annotations

import os
import sqlite3
import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

import pytest

from mailguard.domain import Domain
from mailguard.mtasts.cache import NOTED_EVERY_S, REFRESH_UNTIL, CacheLimits
from mailguard.mtasts.cache_entry import RECALLED_EVERY_S, HeldPolicy
from mailguard.mtasts.store import (
    LEFT,
    PolicyRow,
    PolicyStore,
    StoreUnusable,
)
from mtasts_asking import DAY_S, DOMAIN, NOW, WEEK_S, Asking, found, policy, success
from mtasts_rows import after_restart, domains, filled, row


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "policies.sqlite")


# -- a restart ----------------------------------------------------------------------------------------------------


def test_a_policy_survives_a_restart_with_its_times(path: str) -> None:
    first = Asking(PolicyStore(path))
    assert first.cache.load(now=NOW) == 0
    held = first.learn(policy(mx="*.good.test\nmx: caf.good.test\nnote: caf\u00e9"))
    assert first.cache.save(now=NOW)
    second = after_restart(path, now=NOW + DAY_S)
    assert second.held() == held
    # It is due when it was due, and not at another moment or at once.
    assert second.cache.next_due_at() == first.cache.next_due_at()
    assert second.noticed(found()) is None
    second.now = NOW + WEEK_S
    assert second.held() == held
    second.now += 1
    assert second.held() is None


def test_an_expired_policy_does_not_come_back(path: str) -> None:
    filled(path, 10)
    asking = Asking(PolicyStore(path), now=NOW + WEEK_S + 1)
    assert asking.cache.load(now=asking.now) == 0
    assert asking.held(domains(1)[0]) is None


def test_the_last_asked_for_are_read_first(path: str) -> None:
    store = PolicyStore(path)
    store.write([row(f"d{index}.test", fetched_at=NOW + index) for index in range(9)], now=NOW)
    assert [one.domain for one in store.read(2)] == ["d8.test", "d7.test"]


def test_the_last_asked_for_are_in_memory_after_a_restart(path: str) -> None:
    PolicyStore(path).write([row(f"d{index}.test", fetched_at=NOW + index) for index in range(9)], now=NOW)
    asking = Asking(PolicyStore(path), now=NOW + DAY_S, limits=CacheLimits(bytes=6_000))
    kept = asking.cache.load(now=asking.now)
    assert 1 < kept < 9
    held = [index for index in range(9) if asking.held(Domain.parse(f"d{index}.test")) is not None]
    assert held == list(range(9 - kept, 9))


# -- what memory has no room for ----------------------------------------------------------------------------------


def recalled(asking: Asking, domain: Domain = DOMAIN) -> HeldPolicy | None:
    """What counts, asked for as a server does."""
    standing = asking.cache.policy_for(domain, now=asking.now)
    if standing.is_to_be_recalled:
        asking.cache.recall(domain, now=asking.now)
        standing = asking.cache.policy_for(domain, now=asking.now)
    return standing.held


def test_what_was_pushed_out_of_memory_is_recalled(path: str) -> None:
    """Policies of a stranger that demand something too, so that they are worth as much: also after a restart."""
    limits = CacheLimits(entries=20)
    first = Asking(PolicyStore(path), limits=limits)
    first.cache.load(now=NOW)
    held = first.learn()
    assert first.cache.save(now=NOW)
    for domain in domains(100):
        first.now += 1
        first.learn(domain=domain)
    assert DOMAIN not in first.cache._with_policy
    assert recalled(first) == held
    assert first.cache.save(now=first.now)
    again = Asking(PolicyStore(path), now=NOW + DAY_S, limits=limits)
    assert again.cache.load(now=again.now) == 20
    for domain in [DOMAIN, *domains(100)]:
        assert recalled(again, domain) is not None, domain
    assert recalled(again) == held
    # It is due when it was due.
    assert again.noticed(found()) is None
    assert len(again.cache.due(now=NOW + REFRESH_UNTIL * WEEK_S)) > 0


def test_a_policy_that_came_after_the_store_had_none_is_recalled(path: str) -> None:
    """As of each domain that is new: the store is asked for it first."""
    asking = Asking(PolicyStore(path), limits=CacheLimits(entries=1))
    asking.cache.load(now=NOW)
    assert recalled(asking) is None
    held = asking.learn()
    assert asking.cache.save(now=NOW)
    asking.learn(domain=Domain.parse("other.test"))
    assert recalled(asking) == held


def test_what_was_pushed_out_before_it_was_written_is_written(path: str) -> None:
    asking = Asking(PolicyStore(path), limits=CacheLimits(entries=5))
    asking.cache.load(now=NOW)
    held = asking.learn()
    for domain in domains(100):
        asking.learn(domain=domain)
    # Before it is written, and after.
    assert recalled(asking) == held
    assert asking.cache.save(now=NOW)
    assert (len(asking.cache._waiting), asking.cache._waiting_bytes, len(asking.cache._unsaved)) == (0, 0, 0)
    again = after_restart(path)
    assert all(again.held(domain) is not None for domain in [DOMAIN, *domains(100)])
    assert again.held() == held


def test_what_waits_for_the_disk_is_bounded(tmp_path: Path) -> None:
    directory = tmp_path / "later"
    limits = CacheLimits(bytes=100_000)
    asking = Asking(PolicyStore(str(directory / "policies.sqlite")), limits=limits)
    asking.cache.load(now=NOW)
    for domain in domains(500):
        asking.learn(domain=domain)
        asking.cache.save(now=NOW)
    assert 0 < asking.cache._waiting_bytes <= limits.bytes / 8
    assert asking.cache._waiting_bytes == sum(
        entry.held.weight for entry in asking.cache._waiting.values() if entry.held is not None
    )
    directory.mkdir()
    assert asking.cache.save(now=NOW)
    assert (len(asking.cache._waiting), asking.cache._waiting_bytes) == (0, 0)


def unusable(*_: object) -> NoReturn:
    raise StoreUnusable("made up")


class Interrupted(PolicyStore):
    """Something happens while it writes, once."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.meanwhile: Callable[[], object] | None = None

    def write(self, rows: Sequence[PolicyRow], *, now: float) -> bool:
        is_whole = super().write(rows, now=now)
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile is not None:
            meanwhile()
        return is_whole


@pytest.mark.parametrize(
    "becomes", ["replaced", "pushed out", "replaced and pushed out", "back and replaced", "back and pushed out"]
)
def test_what_changes_while_it_is_written_is_written_by_the_next(path: str, becomes: str) -> None:
    store, other = Interrupted(path), Domain.parse("other.test")
    asking = Asking(store, limits=CacheLimits(entries=1))
    asking.cache.load(now=NOW)
    asking.learn()
    if becomes.startswith("back"):
        asking.learn(domain=other)

    def meanwhile() -> None:
        asking.now += 60
        if becomes.startswith("back"):
            assert recalled(asking) is not None
        if becomes != "pushed out":
            asking.learn(policy(mx="new.good.test"), record_id="two")
        if becomes.endswith("pushed out"):
            asking.learn(policy(mx="other.test"), record_id="two", domain=other)

    store.meanwhile = meanwhile
    assert asking.cache.save(now=asking.now)
    expected = recalled(asking)
    assert expected is not None
    assert (expected.record_id == "two") is (becomes != "pushed out")
    assert asking.cache.save(now=asking.now)
    assert after_restart(path, now=asking.now).held() == expected


def test_what_the_start_could_not_read_is_older_than_what_waits(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(path, 1)
    (domain,) = domains(1)
    asking = Asking(PolicyStore(path), now=NOW + DAY_S, limits=CacheLimits(entries=1))
    with monkeypatch.context() as broken:
        broken.setattr(PolicyStore, "read", unusable)
        assert asking.cache.load(now=asking.now) == 0
    new = asking.learn(policy(mx="new.good.test"), record_id="two", domain=domain)
    asking.learn()
    assert asking.cache.save(now=asking.now)
    assert recalled(asking, domain) == new
    assert after_restart(path, now=asking.now).held(domain) == new


def test_what_comes_while_the_store_is_read_is_newer(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(path, 1)
    (domain,) = domains(1)
    asking = Asking(PolicyStore(path), now=NOW + DAY_S, limits=CacheLimits(entries=1))
    read = PolicyStore.recall

    def meanwhile(store: PolicyStore, wanted: str) -> PolicyRow | None:
        found = read(store, wanted)
        asking.learn(policy(mx="new.good.test"), record_id="two", domain=domain)
        asking.learn()
        return found

    monkeypatch.setattr(PolicyStore, "recall", meanwhile)
    held = recalled(asking, domain)
    assert held is not None
    assert held.record_id == "two"


def test_a_newer_policy_is_not_replaced_by_the_one_that_waits(path: str) -> None:
    asking = Asking(PolicyStore(path), limits=CacheLimits(entries=1))
    asking.cache.load(now=NOW)
    asking.learn()
    asking.learn(domain=domains(1)[0])
    assert DOMAIN in asking.cache._waiting
    asking.now += DAY_S
    new = asking.learn(policy(mx="new.good.test"), record_id="two")
    assert DOMAIN not in asking.cache._waiting
    assert asking.cache.save(now=asking.now)
    assert after_restart(path, now=asking.now).held() == new


def test_the_store_is_not_asked_at_every_message(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asking = after_restart(path)
    asked: list[str] = []
    found_there = PolicyStore.recall

    def recall(store: PolicyStore, domain: str) -> PolicyRow | None:
        asked.append(domain)
        return found_there(store, domain)

    monkeypatch.setattr(PolicyStore, "recall", recall)
    for _ in range(100):
        assert recalled(asking) is None
    assert asked == [DOMAIN]
    # Another process may have written it meanwhile; and without a store, nobody is asked.
    PolicyStore(path).write([row()], now=NOW)
    asking.now += RECALLED_EVERY_S
    assert recalled(asking) is not None
    assert not Asking(None).cache.policy_for(DOMAIN, now=NOW).is_to_be_recalled


@pytest.mark.attack("T14")
@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo, lambda path: Path(path).write_bytes(b"x" * 9999), None])
def test_a_store_that_cannot_be_read_is_asked_again(path: str, make: Callable[[str], None] | None) -> None:
    filled(path, 2)
    asking = Asking(PolicyStore(path))
    os.rename(path, path + ".away")
    if make is not None:
        make(path)
        with pytest.raises(StoreUnusable):
            PolicyStore(path).recall(domains(1)[0])
    assert recalled(asking, domains(1)[0]) is None
    if os.path.isdir(path):
        os.rmdir(path)
    os.rename(path + ".away", path)
    asking.now += 0 if make is not None else RECALLED_EVERY_S
    assert recalled(asking, domains(1)[0]) is not None


def test_recalling_does_not_wait_for_who_writes(path: str) -> None:
    filled(path, 2)
    store = PolicyStore(path)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    with store._lock:
        assert store.recall("d0.test") is not None
    other.execute("ROLLBACK")
    other.close()


def test_the_file_is_bounded(path: str) -> None:
    """In rows and in octets; what was asked for least recently goes, what has expired before it."""
    store = PolicyStore(path, max_rows=100, max_bytes=1_000_000)
    rows = [row(f"d{index}.test", fetched_at=NOW + index) for index in range(100)]
    store.write(rows, now=NOW + 100)
    assert len(store.read(1000)) == 100, "there is room for as many"
    store.write([row("more.test", fetched_at=NOW + 100)], now=NOW + 100)
    left = [one.domain for one in store.read(1000)]
    assert left == ["more.test", *(f"d{index}.test" for index in range(99, 99 - int(LEFT * 100) + 1, -1))]
    # d99 is asked for last, and over; d20, which is asked for, counts.
    over = row("d99.test", fetched_at=NOW + 100)._replace(expires_at=NOW + 101, asked_at=NOW + 200)
    store.write([over, row("d20.test", fetched_at=NOW + 150)], now=NOW + 150)
    store.write([row(f"e{index}.test", fetched_at=NOW + 160) for index in range(11)], now=NOW + 160)
    left = [one.domain for one in store.read(1000)]
    assert len(left) == int(LEFT * 100)
    assert "d20.test" in left
    assert "d99.test" not in left
    heavy = b"x" * 50_000
    store.write([row(f"h{index}.test", fetched_at=NOW + 170, text=heavy) for index in range(60)], now=NOW + 170)
    octets = sum(len(one.text) for one in store.read(1000))
    assert 800_000 < octets <= LEFT * 1_000_000


def test_the_file_knows_what_is_asked_for(path: str) -> None:
    """What was fetched long ago and is asked for each day outlives what a stranger had us fetch yesterday."""
    store = PolicyStore(path, max_rows=50)
    asking = Asking(store)
    asking.cache.load(now=NOW)
    held = asking.learn(policy(max_age_s=31_557_600))
    assert asking.cache.save(now=NOW)
    for number in range(20):
        asking.now += NOTED_EVERY_S
        assert asking.held() == held
        for index in range(20):
            asking.learn(domain=Domain.parse(f"s{number}x{index}.evil.test"))
        assert asking.cache.save(now=asking.now)
    assert after_restart(path, now=asking.now).held() == held


def test_what_is_read_at_the_start_is_bounded(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mailguard.mtasts.store.MAX_READ_BYTES", 1_000_000)
    store = PolicyStore(path)
    text = policy().text.encode() + b"note: " + b"x" * 60_000 + b"\n"
    store.write([row(f"d{index}.test", fetched_at=NOW + index, text=text) for index in range(50)], now=NOW)
    rows = store.read(1000)
    assert [one.domain for one in rows] == [f"d{index}.test" for index in range(49, 49 - len(rows), -1)]
    assert 900_000 < sum(len(one.text) for one in rows) <= 1_000_000
    # What is said to be held is held.
    asking = Asking(PolicyStore(path), now=NOW + 60, limits=CacheLimits(bytes=10_000))
    number = asking.cache.load(now=asking.now)
    assert 0 < number < len(rows)
    assert number == sum(asking.held(domain) is not None for domain in domains(50))


# -- clocks that are wrong ----------------------------------------------------------------------------------------


def test_what_was_fetched_by_a_clock_ahead_does_not_count_for_ever(path: str) -> None:
    ahead = NOW + 3650 * DAY_S
    filled_ahead = Asking(PolicyStore(path), now=ahead)
    filled_ahead.cache.load(now=ahead)
    filled_ahead.learn()
    assert filled_ahead.cache.save(now=ahead)
    asking = after_restart(path)
    held = asking.held()
    assert held is not None
    assert (held.fetched_at, held.expires_at) == (NOW, NOW + WEEK_S)
    # When it was fetched is not known, so that it is fetched anew; and that is written, though it seems older.
    (fetch,) = asking.cache.due(now=NOW)
    asking.fetched(fetch, success(policy(mx="new.good.test")))
    assert asking.cache.save(now=NOW)
    (kept,) = PolicyStore(path).read(9)
    assert kept.fetched_at == NOW
    assert after_restart(path).held() == asking.held()


def test_a_clock_that_jumps_ahead_deletes_nothing(path: str) -> None:
    filled(path, 10)
    ahead = Asking(PolicyStore(path), now=NOW + 3650 * DAY_S)
    assert ahead.cache.load(now=ahead.now) == 0
    assert recalled(ahead, domains(1)[0]) is None
    ahead.learn()
    assert ahead.cache.save(now=ahead.now)
    # It is set right, with and without a restart.
    ahead.now = NOW + DAY_S
    assert all(recalled(ahead, domain) is not None for domain in [DOMAIN, *domains(10)])
    asking = after_restart(path, now=NOW + DAY_S)
    assert all(asking.held(domain) is not None for domain in [DOMAIN, *domains(10)])


def test_a_clock_that_is_behind_at_the_start_costs_nothing(path: str) -> None:
    """As of a host that has no clock of its own: it is set right a while later."""
    filled(path, 10)
    asking = after_restart(path, now=1_000_000.0)
    assert all(asking.held(domain) is not None for domain in domains(10))
    assert asking.cache.save(now=asking.now)
    asking.now = NOW + WEEK_S - 1
    assert all(recalled(asking, domain) is not None for domain in domains(10))
    asking.now = NOW + WEEK_S + 1
    assert all(recalled(asking, domain) is None for domain in domains(10))


# -- rows, and their file -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param(row(text=b"not a policy"), id="text"),
        pytest.param(row("not a name"), id="name"),
        pytest.param(row()._replace(text=None), id="null"),  # type: ignore[arg-type]  # what a broken file may have
        pytest.param(row()._replace(expires_at="soon"), id="time"),  # type: ignore[arg-type]  # as above
    ],
)
def test_a_row_that_makes_no_sense_is_passed_over(path: str, wrong: PolicyRow) -> None:
    store = PolicyStore(path)
    store.write([row("right.test")], now=NOW)
    store.close()
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA ignore_check_constraints = ON")
        connection.execute("DROP TABLE policy")
        connection.execute(
            "CREATE TABLE policy (domain PRIMARY KEY, record_id, text, fetched_at, expires_at, refresh_at, asked_at)"
        )
        connection.executemany("INSERT INTO policy VALUES (?, ?, ?, ?, ?, ?, ?)", [row("right.test"), wrong])
    connection.close()
    asking = after_restart(path)
    assert asking.held(Domain.parse("right.test")) is not None
    assert asking.held() is None


def test_a_row_cannot_last_longer_than_its_policy_says(path: str) -> None:
    PolicyStore(path).write([row()._replace(expires_at=NOW + 99 * WEEK_S, refresh_at=NOW + 99 * WEEK_S)], now=NOW)
    asking = after_restart(path)
    held = asking.held()
    assert held is not None
    assert held.expires_at == NOW + WEEK_S
    assert len(asking.cache.due(now=NOW + WEEK_S)) == 1


def test_the_file_is_for_its_owner_alone(path: str) -> None:
    filled(path)
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600


@pytest.mark.parametrize(("mode", "left"), [(0o666, 0o644), (0o620, 0o600), (0o640, 0o640)])
def test_nobody_else_may_write_to_the_file(path: str, mode: int, left: int) -> None:
    filled(path)
    os.chmod(path, mode)
    assert after_restart(path).held(domains(1)[0]) is not None
    assert stat.S_IMODE(os.stat(path).st_mode) == left


def test_no_link_is_followed(path: str) -> None:
    """Neither to a store, nor to an empty file that would become one."""
    target = f"{path}.other"
    os.symlink(target, path)
    filled(target, 1)
    before = Path(target).read_bytes()
    for octets in (before, b""):
        Path(target).write_bytes(octets)
        with pytest.raises(StoreUnusable, match="not a regular file"):
            PolicyStore(path).read(1)
        with pytest.raises(StoreUnusable, match="not a regular file"):
            PolicyStore(path).write([row()], now=NOW)
        with pytest.raises(StoreUnusable, match="not a regular file"):
            PolicyStore(path).recall("d0.test")
        assert Path(target).read_bytes() == octets


def test_who_finds_the_file_of_another_in_its_place_writes_all_of_it_again(path: str) -> None:
    store = PolicyStore(path)
    asking = Asking(store)
    asking.cache.load(now=NOW)
    held = asking.learn()
    assert asking.cache.save(now=NOW)
    filled(f"{path}.other", 3)
    store.close()
    os.replace(f"{path}.other", path)
    asking.learn(domain=Domain.parse("other.test"))
    assert asking.cache.save(now=NOW)
    again = after_restart(path)
    assert again.held() == held
    assert all(again.held(domain) is not None for domain in domains(3))
