"""Turns: who asks at once, who waits, and in which order the waiting ones come."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import pytest

from mailguard.dns.turns import Turns, zone_of


def begun_after(steps: Sequence[tuple[str, str]], *, at_once: int, at_once_in_zone: int) -> list[list[str]]:
    """Who has begun after each step: ("take", "name.zone") or ("end", "name.zone")."""

    async def main() -> list[list[str]]:
        turns = Turns(at_once=at_once, at_once_in_zone=at_once_in_zone)
        begun: list[str] = []
        after = []
        for step, name in steps:
            zone = name.partition(".")[2]
            if step == "end":
                turns.give_back(zone)
                await asyncio.sleep(0)
            else:
                was_at_once = turns.take(zone, beginning(begun, name))
                assert was_at_once is (name in begun)
            after.append(list(begun))
        return after

    return asyncio.run(main())


def beginning(begun: list[str], name: str) -> Callable[[], None]:
    return lambda: begun.append(name)


@pytest.mark.parametrize(
    ("at_once", "at_once_in_zone", "steps", "order"),
    [
        (9, 9, "+1.a +2.a +3.b", "1.a 2.a 3.b"),
        (2, 9, "+1.a +2.b +3.c +4.d", "1.a 2.b"),
        (2, 9, "+1.a +2.b +3.c +4.d -2.b -1.a", "1.a 2.b 3.c 4.d"),
        (9, 2, "+1.a +2.a +3.a +4.a +5.b", "1.a 2.a 5.b"),
        (9, 2, "+1.a +2.a +3.a +4.a +5.b -1.a", "1.a 2.a 5.b 3.a"),
        (9, 2, "+1.a +2.a +3.a +4.a +5.b -5.b +6.b", "1.a 2.a 5.b 6.b"),
        # Who waits within a zone comes behind those who wait for any turn at all.
        (2, 1, "+1.a +2.a +3.b +4.c -1.a", "1.a 3.b 4.c"),
        (2, 1, "+1.a +2.a +3.b +4.c -1.a -3.b", "1.a 3.b 4.c 2.a"),
        (1, 1, "+1.a +2.a +3.a -1.a -2.a -3.a +4.a", "1.a 2.a 3.a 4.a"),
    ],
)
def test_order(at_once: int, at_once_in_zone: int, steps: str, order: str) -> None:
    taken = [("take" if step[0] == "+" else "end", step[1:]) for step in steps.split()]
    assert begun_after(taken, at_once=at_once, at_once_in_zone=at_once_in_zone)[-1] == order.split()


@pytest.mark.attack("S07")
def test_a_long_line_whose_turns_end_at_once() -> None:
    """As when a server is gone: no recursion, nobody is forgotten, and all turns are free again."""

    async def main() -> tuple[int, bool]:
        turns = Turns(at_once=2, at_once_in_zone=1)
        begun = 0

        def begin() -> None:
            nonlocal begun
            begun += 1
            turns.give_back("a.test")

        turns.take("a.test", lambda: None)
        for _ in range(5_000):
            turns.take("a.test", begin)
        turns.give_back("a.test")
        for _ in range(5_001):
            await asyncio.sleep(0)
        return begun, all(turns.take(zone, lambda: None) for zone in ("a.test", "b.test"))

    assert asyncio.run(main()) == (5_000, True)


@pytest.mark.parametrize(
    ("name", "zone"),
    [
        ("test", "test"),
        ("a.test", "a.test"),
        ("s._domainkey.a.test", "a.test"),
        ("1.2.0.192.in-addr.arpa", "0.192.in-addr.arpa"),
        ("arpa", "arpa"),
    ],
)
def test_zone_of(name: str, zone: str) -> None:
    assert zone_of(name) == zone
