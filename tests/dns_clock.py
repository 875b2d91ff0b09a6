"""An event loop whose clock the test moves: no reply is late, and what is not answered takes no time.

Its timers run when the test lets so much time pass, and not before; everything else happens as on any loop.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import TypeVar

from dns_asking import PATIENCE_S, txt
from mailguard.dns.answers import Resolver
from mailguard.dns.question import Answer

__all__ = ["HandLoop", "ask_here", "lent_to", "pass_time", "run_by_hand", "until", "until_count"]

T = TypeVar("T")


# What is done within a few turns of the loop: what is due, and what follows from it.
TURNS = 10


class HandLoop(asyncio.SelectorEventLoop):
    now_s = 0.0

    def time(self) -> float:
        return self.now_s


def run_by_hand(main: Coroutine[object, object, T]) -> T:
    with asyncio.Runner(loop_factory=HandLoop) as runner:
        return runner.run(main)


@asynccontextmanager
async def lent_to(resolver: Resolver) -> AsyncIterator[None]:
    """It looks things up on this loop, and has given back all files afterwards."""
    async with resolver:
        resolver.use_this_loop()
        yield
    await _turns()


async def _turns() -> None:
    for _ in range(TURNS):
        await asyncio.sleep(0)


async def until(condition: Callable[[], object]) -> None:
    """Wait for what threads and the kernel do, while the clock of the loop stands still."""
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, "it did not come about"
        await asyncio.sleep(0)
        time.sleep(0.001)


async def until_count(count: Callable[[], int], due: int) -> None:
    await until(lambda: count() == due)


async def pass_time(seconds: float) -> None:
    """Let the clock go on, and what was due by then be done."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, HandLoop)
    loop.now_s += seconds
    await _turns()


async def ask_here(
    resolver: Resolver, name: str, *, lost: Callable[[], int] = lambda: 0, times: int = 0, timeout_s: float = 0.0
) -> Answer:
    """The answer. Of the queries, as many as `times` have no reply; `lost` counts those, and others, on arrival."""
    due = lost()
    deadline = time.monotonic() + PATIENCE_S
    asking = asyncio.ensure_future(resolver.resolve_async([txt(name)], deadline=deadline))
    for _ in range(times):
        due += 1
        await until_count(lost, due)
        await pass_time(timeout_s)
    await until(asking.done)
    return (await asking)[txt(name)]
