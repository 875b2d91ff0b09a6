"""LiveResolver and its bounds: turns, the time of a look-up, no files, a fault of our own."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

import mailguard.dns.lookups
from dns_asking import PATIENCE_S, SHORT_S, ask, open_files, resolver_of, txt, wait_for
from dns_fault_server import FaultServer, Request, silence, truth
from mailguard.dns.datagrams import Datagrams
from mailguard.dns.lookups import MAX_AT_ONCE, MAX_AT_ONCE_IN_ZONE
from mailguard.dns.question import Status


def test_one_slow_zone_leaves_room_for_the_others() -> None:
    def behaviour(request: Request, server: FaultServer) -> Iterator[bytes]:
        if request.name.endswith("other.test"):
            yield from truth(request, server)

    with FaultServer(behaviour) as server, resolver_of(server, query_timeout_s=PATIENCE_S) as resolver:
        resolver.prefetch([txt(f"{number}.slow.test") for number in range(3 * MAX_AT_ONCE_IN_ZONE)])
        assert ask(resolver, "a.other.test").status is Status.NOERROR
        assert sum(name.endswith("slow.test") for name in server.names()) == MAX_AT_ONCE_IN_ZONE


def test_more_than_can_be_asked_at_once_take_turns() -> None:
    go = threading.Event()

    def behaviour(request: Request, server: FaultServer) -> Iterator[bytes]:
        go.wait(PATIENCE_S)
        yield from truth(request, server)

    with FaultServer(behaviour) as server, resolver_of(server, query_timeout_s=PATIENCE_S) as resolver:
        questions = [txt(f"a.{number}.test") for number in range(MAX_AT_ONCE + 100)]
        resolver.prefetch(questions)
        wait_for(lambda: len(server.requests) == MAX_AT_ONCE)
        time.sleep(SHORT_S)
        assert len(server.requests) == MAX_AT_ONCE
        go.set()
        answers = resolver.resolve(questions, deadline=time.monotonic() + PATIENCE_S)
        assert {answer.status for answer in answers.values()} == {Status.NOERROR}
        assert len(server.requests) == MAX_AT_ONCE + 100


@pytest.mark.attack("V12")
@pytest.mark.parametrize("query_timeout_s", [0.3, 60.0])
def test_a_look_up_ends_by_itself(monkeypatch: pytest.MonkeyPatch, query_timeout_s: float) -> None:
    """Also one that waits for its turn, and whatever the time-out of a query is."""
    monkeypatch.setattr(mailguard.dns.lookups, "LOOKUP_LIMIT_S", 0.4)
    with FaultServer(silence) as server, resolver_of(server, query_timeout_s=query_timeout_s) as resolver:
        files = open_files()
        questions = [txt(f"{number}.a.test") for number in range(2 * MAX_AT_ONCE_IN_ZONE)]
        answers = resolver.resolve(questions, deadline=time.monotonic() + 60.0)
        assert {answer.detail for answer in answers.values()} == {"no answer in 0.4 s"}
        # On a busy machine the server reads them later.
        wait_for(lambda: len(server.requests) >= MAX_AT_ONCE_IN_ZONE)
        # The turns are free again. One question may have no answer in time: the server is late.
        server.behaviour = truth
        monkeypatch.undo()
        wait_for(lambda: ask(resolver, f"{time.monotonic_ns()}.a.test").status is Status.NOERROR)
        wait_for(lambda: open_files() <= files + 8)


def test_no_file_left(monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left(*_: object, **__: object) -> None:
        raise OSError(24, "Too many open files")

    with FaultServer(truth) as server, resolver_of(server) as resolver:
        ask(resolver, "a.test")
        monkeypatch.setattr(Datagrams, "send", none_left)
        answer = ask(resolver, "b.test")
        assert (answer.status, answer.detail) == (Status.TEMPFAIL, "127.0.0.1: UDP: Too many open files")


@pytest.mark.parametrize("fault", ["read_plain_reply", "read_reply"])
def test_a_fault_of_ours_ends_one_look_up(monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ArithmeticError

    def behaviour(request: Request, server: FaultServer) -> Iterator[bytes]:
        yield request.reply(rcode="NOERROR" if request.name == "plain.test" else "NXDOMAIN")

    with FaultServer(behaviour) as server, resolver_of(server) as resolver:
        monkeypatch.setattr(mailguard.dns.lookups, fault, broken)
        answer = ask(resolver, "a.test")
        assert (answer.status, answer.detail) == (Status.TEMPFAIL, "internal error: ArithmeticError")
        monkeypatch.undo()
        assert ask(resolver, "b.test").status is Status.NXDOMAIN
