"""LiveResolver from event loops: one that waits for it, and one that it looks things up on."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from typing import TypeVar

import dns.flags
import pytest

from dns_asking import PATIENCE_S, SHORT_S, ask, open_files, resolver_of, txt, wait_for
from dns_fault_server import FaultServer, Request, framed, truth
from mailguard.dns.answers import Resolver
from mailguard.dns.question import Answer, Status

T = TypeVar("T")


def test_from_an_event_loop() -> None:
    async def main(resolver: Resolver) -> list[Answer]:
        async with resolver:
            batches = await asyncio.gather(
                *(resolver.resolve_async([txt("a.test"), txt("b.test")], deadline=time.monotonic() + PATIENCE_S),) * 3
            )
            late = await resolver.resolve_async([txt("never.test")], deadline=time.monotonic() + SHORT_S)
            return [answer for batch in (*batches, late) for answer in batch.values()]

    def behaviour(request: Request, server: FaultServer) -> Iterator[bytes]:
        if request.name != "never.test":
            yield from truth(request, server)

    with FaultServer(behaviour) as server:
        answers = asyncio.run(main(resolver_of(server)))
        assert [answer.status for answer in answers] == [Status.NOERROR] * 6 + [Status.TEMPFAIL]
        # That it was asked for is certain, not that the server has read it.
        wait_for(lambda: sorted(set(server.names())) == ["a.test", "b.test", "never.test"])
        assert server.names().count("a.test") == 1


@pytest.mark.attack("V12")
def test_a_late_answer_for_a_loop_that_has_ended() -> None:
    """Others who wait for the same are served all the same."""
    go = threading.Event()

    def behaviour(request: Request, server: FaultServer) -> Iterator[bytes]:
        go.wait(PATIENCE_S)
        yield from truth(request, server)

    with FaultServer(behaviour) as server, resolver_of(server, query_timeout_s=PATIENCE_S) as resolver:
        late = asyncio.run(resolver.resolve_async([txt("a.test")], deadline=time.monotonic() + 0.05))
        assert late[txt("a.test")].status is Status.TEMPFAIL
        answers: list[Answer] = []
        waiting = threading.Thread(target=lambda: answers.append(ask(resolver, "a.test")))
        waiting.start()
        time.sleep(0.05)
        go.set()
        waiting.join(PATIENCE_S)
        assert [answer.texts() for answer in answers] == [(b"a.test",)]
        assert server.names() == ["a.test"]


def new_uvloop() -> asyncio.AbstractEventLoop:
    loop: asyncio.AbstractEventLoop = pytest.importorskip("uvloop").new_event_loop()
    return loop


LOOPS = pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, new_uvloop], ids=["asyncio", "uvloop"])


def run_on(new_loop: Callable[[], asyncio.AbstractEventLoop], main: Coroutine[object, object, T]) -> T:
    with asyncio.Runner(loop_factory=new_loop) as runner:
        return runner.run(main)


@LOOPS
def test_a_loop_that_is_lent(new_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """No thread; the same answers; others may ask too; `resolve` would never end, and says so."""

    async def main(resolver: Resolver) -> list[Answer]:
        threads = threading.active_count()
        resolver.use_this_loop()
        questions = [txt("a.test"), txt("b.test"), txt("big.test"), txt("UPPER.test")]
        resolver.prefetch(questions[:1])
        batches = await asyncio.gather(
            *(resolver.resolve_async(questions, deadline=time.monotonic() + PATIENCE_S) for _ in range(3))
        )
        late = await resolver.resolve_async([txt("never.test")], deadline=time.monotonic() + SHORT_S)
        # The server has a thread for each request, which ends when it has replied.
        wait_for(lambda: threading.active_count() <= threads)
        assert "mailguard-dns" not in {thread.name for thread in threading.enumerate()}
        with pytest.raises(RuntimeError, match="resolve_async"):
            resolver.resolve([txt("c.test")], deadline=time.monotonic() + PATIENCE_S)
        elsewhere = await asyncio.to_thread(ask, resolver, "d.test")
        with pytest.raises(RuntimeError, match="looked something up"):
            resolver.use_this_loop()
        open_one = asyncio.ensure_future(
            resolver.resolve_async([txt("never2.test")], deadline=time.monotonic() + PATIENCE_S)
        )
        await asyncio.sleep(0.05)
        resolver.close()
        closed = await open_one
        after_all = await resolver.resolve_async([txt("e.test")], deadline=time.monotonic() + PATIENCE_S)
        return [*batches[0].values(), *late.values(), elsewhere, *closed.values(), *after_all.values()]

    def behaviour(request: Request, server: FaultServer) -> Iterator[bytes]:
        if request.name == "big.test" and request.transport == "udp":
            yield request.reply(flags=dns.flags.Flag.TC)
        elif request.transport == "tcp":
            yield from map(framed, truth(request, server))
        elif not request.name.startswith("never"):
            yield from truth(request, server)

    run_on(new_loop, asyncio.sleep(0))
    files = open_files()
    with FaultServer(behaviour) as server:
        answers = run_on(new_loop, main(resolver_of(server, query_timeout_s=60.0)))
        assert [answer.texts() for answer in answers[:3]] == [(b"a.test",), (b"b.test",), (b"big.test",)]
        assert [answer.detail.partition(":")[0] for answer in answers[3:]] == [
            "not asked",
            "no answer by the deadline",
            "127.0.0.1",
            "the resolver was closed",
            "the resolver does not run",
        ]
        assert server.names().count("a.test") == 1
    assert open_files() == files


def test_a_lent_loop_that_has_ended() -> None:
    async def main(resolver: Resolver) -> None:
        resolver.use_this_loop()

    with FaultServer(truth) as server:
        resolver = resolver_of(server)
        asyncio.run(main(resolver))
        answer = ask(resolver, "a.test")
        assert (answer.status, answer.detail) == (Status.TEMPFAIL, "the resolver does not run: Event loop is closed")
        resolver.close()
