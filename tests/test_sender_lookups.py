"""The resolver that asks the DNS and the sources of who may use which address, at the same time."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterable

import pytest

from mailguard.dns.question import Answer, Question, RecordType, Status
from mailguard.dns.zone import ZoneResolver
from mailguard.senders.cache import PermissionCache
from mailguard.senders.combine import Senders
from mailguard.senders.identity import Address, Login, LoginRules
from mailguard.senders.inline import InlineSource
from mailguard.senders.permission import Permission, PermissionStatus
from mailguard.senders.question import asked_of, permission_in, sender_question
from mailguard_milter import sender_lookups
from mailguard_milter.sender_lookups import SenderLookups

ZONE = ZoneResolver({"us.test": {"TXT": [b"v=spf1 -all"]}})
NAME = Question("us.test", RecordType.TXT)
# For how long a source says nothing unless it is let go, and by when whoever does not wait for it has ended.
STUCK_S = 60.0
LATEST_S = 20.0
OWN = sender_question(b"alice@us.test", b"alice@us.test")
OTHERS = sender_question(b"alice@us.test", b"bob@us.test")


class Slow(Senders):
    """Grants what is one's own, when it is let go."""

    def __init__(self, *, keeps: bool = False) -> None:
        cache = PermissionCache(clock=time.monotonic) if keeps else None
        super().__init__((), rules=LoginRules(), cache=cache)
        self.go = threading.Event()
        self.asked: list[str] = []
        self.is_broken = False

    def _ask(self, login: Login, address: Address) -> Permission:
        self.asked.append(f"{login} {address}")
        if self.is_broken:
            raise RuntimeError("a driver broke")
        self.go.wait(STUCK_S)
        own = login.folded == address.folded
        status = PermissionStatus.GRANTED if own else PermissionStatus.UNKNOWN
        return Permission(status, login.exact, address.exact, reason="said so")


def soon(seconds: float = STUCK_S) -> float:
    return time.monotonic() + seconds


def wait_for_asked(senders: Slow, count: int) -> None:
    end = time.monotonic() + STUCK_S
    while len(senders.asked) < count:
        assert time.monotonic() < end, senders.asked
        time.sleep(0.001)
    assert len(senders.asked) == count


def statuses(found: dict[Question, Answer]) -> dict[Question, PermissionStatus]:
    return {
        question: permission_in(answer).status
        for question, answer in found.items()
        if question.rdtype is RecordType.SENDER
    }


async def awaited(lookups: SenderLookups, questions: Iterable[Question], deadline: float) -> dict[Question, Answer]:
    return await lookups.resolve_async(questions, deadline=deadline)


@pytest.mark.parametrize("way", ["blocking", "awaited"])
def test_both_are_asked_and_each_question_has_its_answer(way: str) -> None:
    senders = Slow()
    senders.go.set()
    with SenderLookups(ZONE, senders) as lookups:
        asked = [OWN, NAME, OTHERS]
        if way == "blocking":
            found = lookups.resolve(asked, deadline=soon())
        else:
            found = asyncio.run(awaited(lookups, asked, soon()))
    assert found[NAME].texts() == (b"v=spf1 -all",)
    assert statuses(found) == {OWN: PermissionStatus.GRANTED, OTHERS: PermissionStatus.UNKNOWN}
    assert found.keys() == set(asked)


@pytest.mark.parametrize("way", ["blocking", "awaited"])
def test_what_is_not_answered_in_time_is_not_known(way: str) -> None:
    senders = Slow(keeps=True)
    lookups = SenderLookups(ZONE, senders)
    try:
        before = time.monotonic()
        if way == "blocking":
            found = lookups.resolve([OWN, NAME], deadline=soon(0.1))
        else:
            found = asyncio.run(awaited(lookups, [OWN, NAME], soon(0.1)))
        assert time.monotonic() - before < LATEST_S
        assert statuses(found) == {OWN: PermissionStatus.UNAVAILABLE}
        assert permission_in(found[OWN]).reason == "the sources did not answer in time"
        assert found[NAME].status is Status.NOERROR
        # Who asks again joins what is under way, and who gave up has not ended it.
        assert statuses(lookups.resolve([OWN], deadline=soon(0.01))) == {OWN: PermissionStatus.UNAVAILABLE}
        wait_for_asked(senders, 1)
        senders.go.set()
        while lookups.at_hand(OWN) is None:
            time.sleep(0.001)
        assert statuses(lookups.resolve([OWN], deadline=soon())) == {OWN: PermissionStatus.GRANTED}
        assert len(senders.asked) == 1
    finally:
        senders.go.set()
        lookups.close()


def test_what_was_begun_early_is_joined() -> None:
    # Kept: on a machine that is late, the answer may be there before anybody joins.
    senders = Slow(keeps=True)
    with SenderLookups(ZONE, senders) as lookups:
        lookups.prefetch([OWN, NAME])
        threading.Timer(0.05, senders.go.set).start()
        assert statuses(lookups.resolve([OWN], deadline=soon())) == {OWN: PermissionStatus.GRANTED}
        assert senders.asked == ["alice@us.test alice@us.test"]


def test_what_is_kept_is_at_hand_and_the_rest_is_not() -> None:
    senders = Slow(keeps=True)
    senders.go.set()
    with SenderLookups(ZONE, senders) as lookups:
        read = lookups.reader()
        assert lookups.at_hand(OWN) is None
        assert read(OWN) is None
        lookups.resolve([OWN], deadline=soon())
        for answer in (lookups.at_hand(OWN), read(OWN)):
            assert answer is not None
            assert permission_in(answer).is_granted
        assert lookups.at_hand(NAME) == ZONE.at_hand(NAME)
        assert read(NAME) == ZONE.reader()(NAME)
        lookups.resolve([OWN], deadline=soon())
        assert len(senders.asked) == 1


def test_what_the_configuration_grants_does_not_wait_behind_a_slow_source() -> None:
    class Stuck(InlineSource):
        blocks = True
        go = threading.Event()

        def may_use(self, login: Login, address: Address) -> Permission:
            self.go.wait(STUCK_S)
            return self.unknown(login, address, "slow")

    rules = LoginRules()
    sources = [InlineSource({"alice@us.test": []}, rules=rules), Stuck({}, rules=rules, name="slow")]
    lookups = SenderLookups(ZONE, Senders(sources, rules=rules))
    try:
        lookups.prefetch([sender_question(b"alice@us.test", b"x%d@us.test" % number) for number in range(50)])
        answer = lookups.at_hand(OWN)
        assert answer is not None
        assert permission_in(answer).is_granted
        assert lookups.at_hand(OTHERS) is None
    finally:
        Stuck.go.set()
        lookups.close()


def test_warming_up_asks_on_every_thread_and_has_an_end() -> None:
    senders = Slow()
    lookups = SenderLookups(ZONE, senders)
    try:
        before = time.monotonic()
        lookups.warm_up(within_s=0.2)
        assert time.monotonic() - before < LATEST_S
        # The threads begin when the machine lets them.
        wait_for_asked(senders, sender_lookups.THREADS)
    finally:
        senders.go.set()
        lookups.close()


@pytest.mark.parametrize(("login", "address"), [(b"", b"a@us.test"), (b"a\xff", b"a@us.test"), (b"a", b"\xff")])
def test_who_stands_for_nobody_is_known_without_asking(login: bytes, address: bytes) -> None:
    senders = Slow()
    with SenderLookups(ZONE, senders) as lookups:
        answer = lookups.at_hand(sender_question(login, address))
    assert answer is not None
    assert permission_in(answer).status is PermissionStatus.DENIED
    assert senders.asked == []


@pytest.mark.attack("L10")
def test_a_fault_in_a_source_is_an_answer() -> None:
    senders = Slow()
    senders.is_broken = True
    with SenderLookups(ZONE, senders) as lookups:
        found = lookups.resolve([OWN], deadline=soon())
    assert statuses(found) == {OWN: PermissionStatus.UNAVAILABLE}
    assert permission_in(found[OWN]).reason == "RuntimeError: a driver broke"


def test_what_waits_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sender_lookups, "MAX_UNDER_WAY", 2)
    senders = Slow()
    lookups = SenderLookups(ZONE, senders)
    try:
        lookups.prefetch([OWN, OTHERS])
        third = sender_question(b"alice@us.test", b"carol@us.test")
        found = lookups.resolve([third], deadline=soon())
        assert permission_in(found[third]).reason == "too many questions wait for the sources"
        senders.go.set()
        lookups.resolve([OWN, OTHERS], deadline=soon())
        assert statuses(lookups.resolve([third], deadline=soon())) == {third: PermissionStatus.UNKNOWN}
    finally:
        senders.go.set()
        lookups.close()


@pytest.mark.attack("L08", "L09")
@pytest.mark.parametrize("login", [b"alice@us.test", b"u\xff\xfe", b"%s'|*/..", b"\r\n", b""])
@pytest.mark.parametrize("address", [b"bob@us.test", "\u00fc@us.test".encode(), b"\xff@us.test", b""])
def test_a_question_carries_its_octets(login: bytes, address: bytes) -> None:
    assert asked_of(sender_question(login, address)) == (login, address)


@pytest.mark.attack("L08")
def test_a_nul_grants_nothing_wherever_the_question_is_cut() -> None:
    senders = Slow()
    senders.go.set()
    with SenderLookups(ZONE, senders) as lookups:
        for login, address in (
            (b"bob@us.test\0bob@us.test", b""),
            (b"bob@us.test", b"bob@us.test\0x"),
            (b"\0", b"\0"),
        ):
            answer = lookups.resolve([sender_question(login, address)], deadline=soon()).popitem()[1]
            assert permission_in(answer).status is PermissionStatus.DENIED


class Told(ZoneResolver):
    """Notes what it is told."""

    def __init__(self) -> None:
        super().__init__({})
        self.said: list[object] = []

    def prefetch(self, questions: Iterable[Question]) -> None:
        self.said.append(list(questions))

    def use_this_loop(self) -> None:
        self.said.append("loop")

    def warm_up(self, *, within_s: float) -> None:
        self.said.append(within_s)

    def close(self) -> None:
        self.said.append("close")


def test_the_dns_is_told_what_is_for_it() -> None:
    dns, senders = Told(), Slow()
    senders.go.set()
    closed: list[str] = []
    senders.close = lambda: closed.append("senders")  # type: ignore[method-assign]  # to see it
    lookups = SenderLookups(dns, senders)
    lookups.prefetch([OWN, NAME])
    lookups.prefetch([OTHERS])
    lookups.use_this_loop()
    lookups.warm_up(within_s=STUCK_S)
    assert len(senders.asked) == 2 + sender_lookups.THREADS
    lookups.close()
    assert dns.said == [[NAME], "loop", STUCK_S, "close"]
    assert closed == ["senders"]
