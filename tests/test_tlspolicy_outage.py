"""The socketmap server while parts of it fail, and when much is due at once: nobody is protected less.

RFC 7672 §2.1.2 (what failed is no denial), RFC 8461 §5.1 (a policy counts until its time is over).
ATTACKS.md rows: T02, T16, T17.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from dane_asking import EE, zone
from dns_asking import wait_for
from mailguard.dns.question import RecordType
from mailguard.domain import Domain
from mailguard.mtasts import store as policy_store
from mailguard.mtasts.cache import CacheLimits
from mailguard.mtasts.result import FetchOutcome
from mailguard.mtasts.store import PolicyRow, PolicyStore, StoreUnusable
from mailguard.tlspolicy import policy_source
from mailguard.tlspolicy.destinations import LookupRules
from mailguard.tlspolicy.policy_source import FetchTurns
from mailguard.tlspolicy.reply_cache import CacheBounds
from mailguard.tlspolicy.socketmap import ReplyStatus, encode_request
from mtasts_asking import WEEK_S, found, policy, success
from tlspolicy_site import TlsPolicySite
from tlspolicy_zone import ENFORCED, ZONE, PolicyHosts, destination, hosts, site

__all__ = ["hosts", "site"]


def protected(site: TlsPolicySite) -> None:
    assert site.ask("all.test") == "OK dane-only"
    assert site.ask("enforce.test") == ENFORCED


@pytest.mark.attack("T02")
def test_while_the_dns_fails_mail_waits(site: TlsPolicySite) -> None:
    protected(site)
    site.resolver.fails = lambda question: True
    protected(site)  # at hand
    site.now += 300
    for key in ("all.test", "enforce.test", "some.test", "plain.test", "[mx1.all.test]"):
        assert site.ask(key) == "TEMP", key
    site.resolver.fails = lambda question: False
    protected(site)


@pytest.mark.attack("T02")
@pytest.mark.parametrize(
    ("rdtype", "key", "expected"),
    [
        (RecordType.TLSA, "all.test", "TEMP"),
        (RecordType.TLSA, "both.test", "TEMP"),
        (RecordType.TLSA, "enforce.test", "TEMP"),
        (RecordType.MX, "enforce.test", "TEMP"),
        (RecordType.A, "all.test", "TEMP"),
        (RecordType.TXT, "enforce.test", ENFORCED),
        (RecordType.TXT, "all.test", "OK dane-only"),
    ],
)
def test_when_one_kind_of_record_cannot_be_looked_up(
    site: TlsPolicySite, rdtype: RecordType, key: str, expected: str
) -> None:
    before = site.ask(key)
    assert before.startswith("OK")
    site.now += 300
    site.resolver.fails = lambda question: (
        question.rdtype is rdtype or (rdtype is RecordType.A and question.rdtype is RecordType.AAAA)
    )
    assert site.ask(key) == expected


def test_while_policy_hosts_fail_the_policy_counts(site: TlsPolicySite, hosts: PolicyHosts) -> None:
    """RFC 8461 §5.1: with a new id, and at the refresh, which fails as well; until max_age is over."""
    protected(site)
    hosts.is_down = True
    for _ in range(6):
        site.now += WEEK_S / 7
        protected(site)
    wait_for(lambda: len(hosts.fetched) > 1)
    site.now += WEEK_S
    assert site.ask("enforce.test") == "NOTFOUND", "its time is over"


def test_a_policy_counts_without_its_record(site: TlsPolicySite) -> None:
    protected(site)
    site.now += 3_600
    site.resolver.truth = zone({name: records for name, records in ZONE.items() if "_mta-sts" not in name})
    protected(site)


@pytest.mark.attack("T17")
def test_another_text_counts_with_another_id(hosts: PolicyHosts) -> None:
    with TlsPolicySite(zone(ZONE), fetch=hosts.fetch) as site:
        protected(site)
        hosts.policies["enforce.test"] = policy(mx="new.enforce.test")
        site.now += 3_600
        for _ in range(3):
            assert site.ask("enforce.test") == ENFORCED
            site.now += 200
        assert hosts.fetched == ["enforce.test"]
        site.resolver.truth = zone({**ZONE, "_mta-sts.enforce.test": {"TXT": ["v=STSv1; id=2;"]}})
        site.now += 3_600
        # The one that counts is given at once; the new one is fetched meanwhile.
        assert site.ask("enforce.test") == ENFORCED
        wait_for(lambda: len(hosts.fetched) == 2)
        site.now += 200
        wait_for(lambda: site.ask("enforce.test") == "OK secure match=new.enforce.test servername=hostname")


def test_policies_survive_a_restart_while_policy_hosts_are_down(tmp_path: Path, hosts: PolicyHosts) -> None:
    path = str(tmp_path / "sts.sqlite")
    with TlsPolicySite(zone(ZONE), fetch=hosts.fetch, store=PolicyStore(path)) as site:
        protected(site)
    hosts.is_down = True
    with TlsPolicySite(zone(ZONE), fetch=hosts.fetch, store=PolicyStore(path)) as site:
        protected(site)
        site.resolver.fails = lambda question: question.rdtype is RecordType.TXT
        site.now += 300
        protected(site)


def test_a_new_policy_is_on_the_disk_soon(tmp_path: Path, hosts: PolicyHosts) -> None:
    path = str(tmp_path / "sts.sqlite")
    with TlsPolicySite(zone(ZONE), fetch=hosts.fetch, store=PolicyStore(path)) as site:
        protected(site)
        reader = PolicyStore(path)
        wait_for(lambda: [row.domain for row in reader.read(10)] == ["enforce.test"])
        # And so is the next one.
        assert site.ask("wild.test").startswith("OK secure")
        wait_for(lambda: {row.domain for row in reader.read(10)} == {"enforce.test", "wild.test"})
        reader.close()


class LockedAtFirst(PolicyStore):
    """A store that cannot be read at the start."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.is_locked = True

    def read(self, limit: int) -> list[PolicyRow]:
        if self.is_locked:
            self.is_locked = False
            raise StoreUnusable(f"{self.path} is locked")
        return super().read(limit)


def test_a_database_that_could_not_be_read_at_the_start_is_read_later(tmp_path: Path, hosts: PolicyHosts) -> None:
    path = str(tmp_path / "sts.sqlite")
    with TlsPolicySite(zone(ZONE), fetch=hosts.fetch, store=PolicyStore(path)) as site:
        protected(site)
    hosts.is_down = True
    with TlsPolicySite(zone(ZONE), fetch=hosts.fetch, store=LockedAtFirst(path)) as site:
        enforced = Domain.parse("enforce.test")
        wait_for(lambda: site.policies.policy_for(enforced, now=site.now).held is not None)
        protected(site)


def damaged(path: Path) -> None:
    path.write_bytes(b"no database" * 1000)


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:100])


def gone(path: Path) -> None:
    for file in path.parent.glob(f"{path.name}*"):
        file.unlink()


def a_directory(path: Path) -> None:
    gone(path)
    path.mkdir()


class FullAtFirst(PolicyStore):
    """A store that nothing can be written to until there is room."""

    refused = 0
    has_room = False

    def write(self, rows: Sequence[PolicyRow], *, now: float) -> bool:
        if rows and not self.has_room:
            self.refused += 1
            raise StoreUnusable("made up")
        return super().write(rows, now=now)


def test_what_could_not_be_written_is_written_without_a_further_fetch(
    tmp_path: Path, hosts: PolicyHosts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(policy_source, "SAVE_AGAIN_S", 0.05)
    store = FullAtFirst(str(tmp_path / "sts.sqlite"))
    with TlsPolicySite(zone(ZONE), fetch=hosts.fetch, store=store) as site:
        protected(site)
        wait_for(lambda: store.refused)
        store.has_room = True
        wait_for(lambda: [row.domain for row in store.read(10)] == ["enforce.test"])


@pytest.mark.parametrize("harm", [damaged, truncated, gone, a_directory])
def test_without_its_database_it_fetches_again(
    tmp_path: Path, hosts: PolicyHosts, harm: Callable[[Path], None]
) -> None:
    path = tmp_path / "sts.sqlite"
    with TlsPolicySite(zone(ZONE), fetch=hosts.fetch, store=PolicyStore(str(path))) as site:
        protected(site)
        harm(path)
        site.now += 300
        protected(site)
    with TlsPolicySite(zone(ZONE), fetch=hosts.fetch, store=PolicyStore(str(path))) as site:
        protected(site)


def test_a_database_that_another_process_has_locked_holds_up_nobody(
    tmp_path: Path, hosts: PolicyHosts, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Who waits for the database waits for longer than the whole may take.
    monkeypatch.setattr(policy_store, "WAIT_FOR_LOCK_S", 60.0)
    monkeypatch.setattr(policy_source, "RECALL_WAIT_S", 60.0)
    path = tmp_path / "sts.sqlite"
    with TlsPolicySite(zone(ZONE), fetch=hosts.fetch, store=PolicyStore(str(path))) as site:
        protected(site)
        wait_for(path.exists)
        with sqlite3.connect(path) as other:
            other.execute("BEGIN EXCLUSIVE")
            began = time.monotonic()
            assert site.ask("wild.test") == "OK secure match=.wild.test servername=hostname"
            for _ in range(20):
                protected(site)
            assert time.monotonic() - began < 25
            other.execute("ROLLBACK")


def test_an_error_of_ours_keeps_mail_back(site: TlsPolicySite) -> None:
    def fault(question: object) -> bool:
        raise RuntimeError("made up")

    site.resolver.fails = fault
    assert site.ask("all.test") == "TEMP"
    site.resolver.fails = lambda question: False
    assert site.ask("all.test") == "OK dane-only"


def test_a_fault_of_ours_is_not_the_last_fetch_of_a_policy() -> None:
    fetched: list[Domain] = []

    def fetch(domain: Domain) -> FetchOutcome:
        fetched.append(domain)
        if len(fetched) == 1:
            raise RuntimeError("made up")
        return success(policy(mx="mx1.enforce.test"))

    with TlsPolicySite(zone(ZONE), fetch=fetch) as site:
        assert site.ask("enforce.test") == "NOTFOUND"
        site.now += 3_600
        assert site.ask("enforce.test") == ENFORCED


def test_while_a_policy_is_waited_for_in_vain_mail_waits(
    site: TlsPolicySite, hosts: PolicyHosts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(policy_source, "WAIT_S", 0.05)
    hosts.gate.clear()
    for _ in range(3):
        assert site.ask("enforce.test") == "TEMP"
    hosts.gate.set()
    wait_for(lambda: site.ask("enforce.test") == ENFORCED)
    assert hosts.fetched == ["enforce.test"]


def test_a_policy_that_ends_while_it_is_fetched_anew_is_waited_for(site: TlsPolicySite, hosts: PolicyHosts) -> None:
    protected(site)
    hosts.gate.clear()
    site.now += 0.8 * WEEK_S
    wait_for(lambda: hosts.at_once == 1)
    site.now += WEEK_S
    with site.client() as client:
        client.send(encode_request(b"QUERY", b"enforce.test"))
        assert site.ask("all.test") == "OK dane-only"
        hosts.gate.set()
        assert f"OK {client.reply().text}" == ENFORCED


def test_slow_policy_hosts_occupy_a_bounded_number_of_threads(hosts: PolicyHosts) -> None:
    records: dict[str, dict[str, list[object]]] = {}
    for number in range(40):
        records |= destination(f"slow{number}.test", [], sts="1")
    hosts.gate.clear()
    limits = CacheLimits(refreshes=2, fetches=6)
    with TlsPolicySite(zone({**ZONE, **records}), fetch=hosts.fetch, sts_limits=limits) as site:
        clients = [site.client() for _ in range(40)]
        for number, client in enumerate(clients):
            client.send(encode_request(b"QUERY", f"slow{number}.test".encode()))
        wait_for(lambda: hosts.at_once == 4)
        assert site.ask("all.test") == "OK dane-only"
        hosts.gate.set()
        assert [client.reply().status for client in clients] == [ReplyStatus.NOT_FOUND] * 40
        assert hosts.most_at_once == 4
        for client in clients:
            client.socket.close()


@pytest.mark.attack("T16")
def test_the_silent_hosts_of_one_zone_leave_room_for_the_policies_of_others() -> None:
    many = {f"_mta-sts.s{number}.evil.test": {"TXT": ["v=STSv1; id=1;"]} for number in range(32)}
    hosts = PolicyHosts()

    def fetch(domain: Domain) -> FetchOutcome:
        return hosts.fetch(domain) if domain.endswith("evil.test") else success(policy(mx="mx1.enforce.test"))

    hosts.gate.clear()
    limits = CacheLimits(refreshes=8, fetches=40)
    with TlsPolicySite(zone({**ZONE, **many}), fetch=fetch, sts_limits=limits) as site:
        clients = [site.client() for _ in range(32)]
        for number, client in enumerate(clients):
            client.send(encode_request(b"QUERY", f"s{number}.evil.test".encode()))
        wait_for(lambda: hosts.at_once == 8)
        assert site.ask("enforce.test") == ENFORCED
        assert hosts.most_at_once == 8
        hosts.gate.set()
        assert [client.reply().status for client in clients] == [ReplyStatus.NOT_FOUND] * 32
        assert len(hosts.fetched) == 32
        assert hosts.most_at_once == 8
        for client in clients:
            client.socket.close()


@pytest.mark.attack("T16")
def test_who_waits_for_a_turn_may_give_up() -> None:
    """A turn that comes for one who has gone is another's."""

    async def taken() -> None:
        turns = FetchTurns(1)
        async with turns.turn(Domain("a.test")):
            waiting = [asyncio.create_task(_in_turn(turns, name)) for name in ("b.test", "c.test", "d.test")]
            await asyncio.sleep(0)
            waiting[0].cancel()
            await asyncio.sleep(0)
        # The first has gone, the second's turn has come: it ends before it knows.
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        waiting[1].cancel()
        done = await asyncio.wait_for(asyncio.gather(*waiting, return_exceptions=True), 5)
        assert done[2] == "d.test"
        assert await asyncio.wait_for(_in_turn(turns, "e.test"), 5) == "e.test"

    asyncio.run(taken())


def test_slow_zones_hold_others_up_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stranger with as many zones as it takes to have every turn has them all no second time."""
    monkeypatch.setattr(policy_source, "SLOW_AFTER_S", 0.05)
    slow = [f"{host}.slow{number}.test" for number in range(4) for host in "ab"]

    async def attacked() -> list[int]:
        turns, had = FetchTurns(8), []
        for _ in range(2):
            gate, running = asyncio.Event(), set[str]()
            tasks = [asyncio.create_task(_hold(turns, name, gate, running)) for name in slow]
            await asyncio.sleep(0.2)
            async with asyncio.timeout(10):
                # Whose turns have begun is noted later, where the loop stood still in between.
                while len(turns._slow) < 4:
                    await asyncio.sleep(0.01)
            had.append(len(running))
            other = asyncio.create_task(_in_turn(turns, "mta-sts.other.test"))
            await asyncio.sleep(0.02)
            had.append(other.done())
            gate.set()
            await asyncio.wait_for(asyncio.gather(other, *tasks), 5)
        monkeypatch.setattr(policy_source, "MAX_SLOW_ZONES", 2)
        async with turns.turn(Domain("x.more.test")):
            await asyncio.sleep(0.1)
        had.append(len(turns._slow))
        return had

    assert asyncio.run(attacked()) == [8, False, 2, True, 4]


async def _hold(turns: FetchTurns, name: str, gate: asyncio.Event, running: set[str]) -> None:
    async with turns.turn(Domain(name)):
        running.add(name)
        await gate.wait()


async def _in_turn(turns: FetchTurns, name: str) -> str:
    async with turns.turn(Domain(name)):
        return name


class Failing(PolicyStore):
    """A store with an error of ours in it."""

    writes = 0

    def write(self, rows: Sequence[PolicyRow], *, now: float) -> bool:
        self.writes += 1
        raise RuntimeError("an error of ours")


def test_a_database_that_fails_in_a_way_nobody_thought_of_ends_nothing(tmp_path: Path, hosts: PolicyHosts) -> None:
    store = Failing(str(tmp_path / "sts.sqlite"))
    with TlsPolicySite(zone(ZONE), fetch=hosts.fetch, store=store) as site:
        protected(site)
        wait_for(lambda: store.writes)
        time.sleep(0.1)
        assert not any(task.done() for task in site.tasks)
        protected(site)


# -- many at once -------------------------------------------------------------------------------------------------


@pytest.mark.attack("T16")
def test_policies_that_expire_together_are_refreshed_a_few_at_a_time() -> None:
    """10,000 domains, whose policies came at one moment; nobody asks for them meanwhile."""
    count, at_once = 10_000, 8
    names = [Domain.parse(f"d{number}.test") for number in range(count)]
    hosts = PolicyHosts({name: policy(mx=f"mx.{name}", max_age_s=WEEK_S) for name in names})
    limits = CacheLimits(refreshes=at_once, fetches=64)
    with TlsPolicySite(zone(ZONE), fetch=hosts.fetch, sts_limits=limits) as site:

        async def fill() -> None:
            for name in names:
                site.policies.policy_for(name, now=site.now)
                fetch = site.policies.noticed(name, found(), now=site.now)
                assert fetch is not None
                site.policies.fetched(fetch, success(hosts.policies[name]), now=site.now)

        site.in_loop(fill())
        site.now += WEEK_S * 0.8
        wait_for(lambda: len(hosts.fetched) > 500)
        # Clients are answered meanwhile.
        assert site.ask("all.test") == "OK dane-only"
        assert hosts.most_at_once <= at_once


@pytest.mark.attack("T16")
def test_destinations_that_expire_together_are_looked_up_a_few_at_a_time() -> None:
    count, at_once = 300, 4
    records: dict[str, dict[str, list[object]]] = {}
    for number in range(count):
        records |= destination(f"d{number}.test", [EE])
    rules = LookupRules(deadline_s=5.0, refreshes=at_once)
    with TlsPolicySite(zone(records), rules=rules) as site:
        with site.client() as client:
            for number in range(count):
                assert client.ask(f"d{number}.test").text == "dane-only"
        asked = len(site.resolver.asked)
        most = 0
        site.resolver.delay_s = 0.001
        site.now += 110

        async def watch() -> None:
            nonlocal most
            for _ in range(300):
                most = max(most, len(site.destinations._refreshing))
                await asyncio.sleep(0.005)

        site.in_loop(watch())
        wait_for(lambda: len(site.resolver.asked) >= asked + 4 * count)
        assert 0 < most <= at_once
        # What nobody asks for is left alone in the end.
        site.now += 5_000

        def is_quiet() -> bool:
            asked = len(site.resolver.asked)
            time.sleep(1.5)
            return len(site.resolver.asked) == asked

        # What has begun goes on for as long as it takes.
        wait_for(is_quiet)


def test_what_is_remembered_is_bounded() -> None:
    bounds = CacheBounds(entries=100, bytes=10_000_000)
    with TlsPolicySite(zone(ZONE), bounds=bounds) as site:
        with site.client() as client:
            for number in range(500):
                client.ask(f"n{number}.test")
        assert len(site.cache) == 100
    with TlsPolicySite(zone(ZONE), bounds=CacheBounds(entries=1_000, bytes=50_000)) as site:
        with site.client() as client:
            for number in range(500):
                client.ask(f"n{number}.test")
        assert 10 < len(site.cache) < 60
        assert site.cache.estimated_bytes <= 50_000
