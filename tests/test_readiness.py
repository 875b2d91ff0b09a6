"""Readiness: who is told of which socket, on either event loop; and what a connection is told of at once."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator

import pytest
import uvloop

from mailguard_milter.readiness import MOST_AT_ONCE, READABLE, WRITABLE, Readiness

TURNS = 5


class Host:
    """An event loop that turns when it is told to."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.readiness = Readiness(loop)
        self.told: list[str] = []
        self.uncaught: list[object] = []
        loop.set_exception_handler(lambda _, context: self.uncaught.append(context))

    def turn(self) -> list[str]:
        """What was told in one turn or a few, without what is told twice."""
        self.told.clear()
        for _ in range(TURNS):
            self.loop.call_soon(self.loop.stop)
            self.loop.run_forever()
        return sorted(set(self.told))

    def watch(self, watched: socket.socket, what: int, name: str) -> None:
        self.readiness.watch(watched.fileno(), what, lambda: self.told.append(name))


@pytest.fixture(params=[asyncio.SelectorEventLoop, uvloop.Loop], ids=["asyncio", "uvloop"])
def host(request: pytest.FixtureRequest) -> Iterator[Host]:
    loop = request.param()
    made = Host(loop)
    yield made
    loop.close()
    assert made.uncaught == []


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def test_who_watches_is_told_as_long_as_there_is_something(
    host: Host, pair: tuple[socket.socket, socket.socket]
) -> None:
    ours, theirs = pair
    host.watch(ours, READABLE, "read")
    assert host.turn() == []
    theirs.send(b"x")
    assert host.turn() == host.turn() == ["read"]
    ours.recv(1)
    assert host.turn() == []


def test_the_later_watch_counts(host: Host, pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    theirs.send(b"x")
    host.watch(ours, READABLE, "read")
    host.watch(ours, WRITABLE, "write")
    assert host.turn() == ["write"]
    host.watch(ours, READABLE, "again")
    assert host.turn() == ["again"]


@pytest.mark.parametrize("what", [READABLE, WRITABLE])
def test_a_peer_that_is_gone_is_told(host: Host, pair: tuple[socket.socket, socket.socket], what: int) -> None:
    ours, theirs = pair
    host.watch(ours, what, "gone")
    theirs.close()
    assert host.turn() == ["gone"]
    host.readiness.unwatch(ours.fileno())
    assert host.turn() == []
    host.watch(ours, what, "again")
    assert host.turn() == ["again"]


def test_who_raises_holds_up_nobody_else(host: Host) -> None:
    """Whichever of the two epoll(7) names first."""
    sockets = [socket.socketpair() for _ in range(2)]

    def fail() -> None:
        raise MemoryError

    for ours, theirs in sockets:
        theirs.send(b"x")
        for each, _ in sockets:
            host.readiness.watch(each.fileno(), READABLE, fail)
        host.watch(ours, READABLE, "told")
        assert host.turn() == ["told"]
    assert host.uncaught
    host.uncaught.clear()
    for ours, theirs in sockets:
        host.readiness.forget(ours.fileno())
        ours.close()
        theirs.close()


def test_what_is_not_watched_may_be_unwatched_and_forgotten(
    host: Host, pair: tuple[socket.socket, socket.socket]
) -> None:
    ours, _ = pair
    for _ in range(2):
        host.readiness.unwatch(ours.fileno())
        host.readiness.forget(ours.fileno())
    host.watch(ours, WRITABLE, "write")
    assert host.turn() == ["write"]


def test_another_socket_with_the_number_of_one_that_was_closed(host: Host) -> None:
    for name in ("first", "second"):
        ours, theirs = socket.socketpair()
        with theirs:
            descriptor = ours.fileno()
            host.watch(ours, READABLE, name)
            theirs.send(b"x")
            assert host.turn() == [name]
            host.readiness.forget(descriptor)
            ours.close()
            assert host.turn() == []


def test_a_watch_that_another_one_ended_in_the_same_turn(host: Host) -> None:
    sockets = [socket.socketpair() for _ in range(2)]
    numbers = [ours.fileno() for ours, _ in sockets]

    def tell() -> None:
        host.told.append("told")
        for number in numbers:
            host.readiness.unwatch(number)

    for ours, theirs in sockets:
        host.readiness.watch(ours.fileno(), READABLE, tell)
        theirs.send(b"x")
    host.turn()
    assert host.told == ["told"]
    for ours, theirs in sockets:
        ours.close()
        theirs.close()


def test_what_becomes_ready_meanwhile_is_told_at_once_and_then_the_loop_has_its_turn(host: Host) -> None:
    first, second = socket.socketpair(), socket.socketpair()

    def wake_the_other() -> None:
        if not host.told:
            host.loop.call_soon(host.told.append, "loop")
            second[1].send(b"x")
        host.told.append("first")

    host.readiness.watch(first[0].fileno(), READABLE, wake_the_other)
    host.watch(second[0], READABLE, "second")
    first[1].send(b"x")
    host.turn()
    before = host.told[: host.told.index("loop")]
    # Neither reads what there is.
    assert set(before) == {"first", "second"}
    assert len(before) == MOST_AT_ONCE
    for each in (*first, *second):
        each.close()
