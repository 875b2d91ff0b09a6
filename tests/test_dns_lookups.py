"""Lookups by itself: what no caller of the resolver can bring about in a fixed order."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from functools import partial

import pytest

import mailguard.dns.lookups
from dns_asking import PATIENCE_S, txt, wait_for
from dns_clock import pass_time, run_by_hand
from dns_fault_server import FaultServer, silence
from mailguard.dns.cache import AnswerCache
from mailguard.dns.lookups import Lookups
from mailguard.dns.question import Answer, Question
from mailguard.dns.servers import ServerAddress, Servers

Told = list[tuple[str, str]]
"""Names and details, in the order of delivery."""


def told_by(
    server: FaultServer, course: Callable[[Lookups, Callable[[str], None]], Coroutine[object, object, None]]
) -> Told:
    """What is delivered while `course` runs; it gets the look-ups and a way to start one."""
    told: Told = []

    def deliver(question: Question, answer: Answer) -> None:
        assert answer.question == question
        told.append((question.name, answer.detail))

    async def main() -> None:
        clock = time.monotonic
        address = ServerAddress(server.address, server.port, trust_ad=False)
        lookups = Lookups(Servers([address], clock=clock), AnswerCache(clock=clock), query_timeout_s=PATIENCE_S)
        await course(lookups, lambda name: lookups.start(txt(name), partial(deliver, txt(name))))

    run_by_hand(main())
    return told


@pytest.mark.parametrize("turns", [0, 1, 5])
def test_stopped_they_start_nothing(turns: int) -> None:
    async def course(lookups: Lookups, start: Callable[[str], None]) -> None:
        start("a.test")
        for _ in range(turns):
            await asyncio.sleep(0)
        await lookups.stop()
        start("b.test")
        for _ in range(5):
            await asyncio.sleep(0)

    with FaultServer(silence) as server:
        assert told_by(server, course) == [
            ("a.test", "the resolver was closed"),
            ("b.test", "the resolver was closed"),
        ]


def test_who_waits_for_a_turn_is_told_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """b.a.test comes behind d and e, which began to wait after it, when its zone has a turn for it."""
    monkeypatch.setattr(mailguard.dns.lookups, "MAX_AT_ONCE", 2)
    monkeypatch.setattr(mailguard.dns.lookups, "MAX_AT_ONCE_IN_ZONE", 1)
    monkeypatch.setattr(mailguard.dns.lookups, "LOOKUP_LIMIT_S", 0.5)

    async def course(lookups: Lookups, start: Callable[[str], None]) -> None:
        start("a.a.test")
        start("a.c.test")
        start("b.a.test")
        await pass_time(0.25)
        start("a.d.test")
        start("a.e.test")
        await pass_time(0.25)
        # d and e have their turns.
        wait_for(lambda: len(server.requests) == 4)
        await pass_time(0.25)
        await lookups.stop()

    with FaultServer(silence) as server:
        names = [name for name, detail in told_by(server, course) if detail == "no answer in 0.5 s"]
        assert sorted(names[:3]) == ["a.a.test", "a.c.test", "b.a.test"]
        assert sorted(names[3:]) == ["a.d.test", "a.e.test"]


def test_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mailguard.dns.lookups, "MAX_UNDER_WAY", 2)

    async def course(lookups: Lookups, start: Callable[[str], None]) -> None:
        for name in ("a.test", "b.test", "a.test", "c.test"):
            start(name)
        await lookups.stop()

    with FaultServer(silence) as server:
        told = told_by(server, course)
        assert told[0] == ("c.test", "more than 2 look-ups are under way")
        assert sorted(name for name, detail in told[1:] if "closed" in detail) == ["a.test", "a.test", "b.test"]
