"""LiveResolver: batches, deadlines, single flight, threads and processes."""

from __future__ import annotations

import asyncio
import gc
import os
import selectors
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import dns.flags
import pytest

import mailguard.dns.exchange
from dns_asking import LATEST_S, PATIENCE_S, SHORT_S, ask, open_files, resolver_of, txt, wait_for
from dns_fault_server import Behaviour, FaultServer, Request, after, says, silence, truth
from mailguard.dns.live import ResolverConfig, open_resolver
from mailguard.dns.question import Answer, Status
from mailguard.dns.zone import ZoneResolver
from mailguard.errors import ConfigError

# Of what `truth` answers.
TRUTH_TTL_S = 300


def test_a_batch_is_answered_in_parallel_and_cached() -> None:
    with FaultServer(after(0.3, truth)) as server, resolver_of(server) as resolver:
        questions = [txt(f"{number}.test") for number in range(20)]
        answers = resolver.resolve([*questions, *questions], deadline=time.monotonic() + PATIENCE_S)
        assert {question: answer.texts() for question, answer in answers.items()} == {
            question: (question.name.encode(),) for question in questions
        }
        again = resolver.resolve(questions, deadline=0.0)
        assert [again[question] is answers[question] for question in questions] == [True] * 20
        assert sorted(server.names()) == sorted(question.name for question in questions)
        query = server.requests[0].message
        assert query.edns == 0
        assert query.flags & dns.flags.RD
        assert query.flags & dns.flags.AD


@pytest.mark.attack("V12")
@pytest.mark.parametrize("behaviour", [silence, after(60.0, truth)], ids=["silent", "late"])
def test_the_deadline_is_hard(behaviour: Behaviour) -> None:
    with FaultServer(behaviour) as server, resolver_of(server, query_timeout_s=60.0) as resolver:
        began = time.monotonic()
        answers = resolver.resolve([txt("a.test"), txt("b.test")], deadline=began + 0.5)
        assert time.monotonic() - began < LATEST_S
        assert [answer.status for answer in answers.values()] == [Status.TEMPFAIL] * 2
        assert "deadline" in answers[txt("a.test")].detail


@pytest.mark.attack("V12")
def test_what_is_known_at_the_deadline_is_answered() -> None:
    def behaviour(request: Request, server: FaultServer) -> Iterator[bytes]:
        if request.name != "slow.test":
            yield from truth(request, server)

    with FaultServer(behaviour) as server, resolver_of(server) as resolver:
        # Long enough for the answer to come, also when the machine is late.
        answers = resolver.resolve([txt("slow.test"), txt("a.test")], deadline=time.monotonic() + LATEST_S / 2)
        assert answers[txt("a.test")].status is Status.NOERROR
        assert answers[txt("slow.test")].status is Status.TEMPFAIL


def test_after_the_deadline_nothing_is_asked() -> None:
    with FaultServer(truth) as server, resolver_of(server) as resolver:
        assert ask(resolver, "a.test", deadline_s=-1.0).status is Status.TEMPFAIL
        assert ask(resolver, "b.test").status is Status.NOERROR
        assert server.names() == ["b.test"]


@pytest.mark.attack("V12")
def test_a_late_answer_fills_the_cache_and_leaks_nothing() -> None:
    go = threading.Event()

    def behaviour(request: Request, server: FaultServer) -> Iterator[bytes]:
        if request.name != "warm.test":
            go.wait(PATIENCE_S)
        yield from truth(request, server)

    with FaultServer(behaviour) as server, resolver_of(server, query_timeout_s=PATIENCE_S) as resolver:
        ask(resolver, "warm.test")
        files = open_files()
        for _ in range(3):
            assert ask(resolver, "late.test", deadline_s=0.05).status is Status.TEMPFAIL
        go.set()
        wait_for(lambda: ask(resolver, "late.test", deadline_s=-1.0).status is Status.NOERROR)
        assert server.names() == ["warm.test", "late.test"]
        wait_for(lambda: open_files() == files)


@pytest.mark.attack("N12")
def test_a_failure_is_kept_for_five_seconds_and_then_asked_again() -> None:
    now = [1000.0]
    with FaultServer(says(rcode="SERVFAIL")) as server, resolver_of(server, clock=lambda: now[0]) as resolver:
        assert ask(resolver, "a.test").status is Status.TEMPFAIL
        assert ask(resolver, "a.test").status is Status.TEMPFAIL
        assert len(server.requests) == 1
        server.behaviour = truth
        assert ask(resolver, "a.test").status is Status.TEMPFAIL
        now[0] += 5.1
        assert ask(resolver, "a.test").status is Status.NOERROR


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the monotonic clock goes on, or there is no other")
def test_a_ttl_is_over_though_the_host_was_suspended_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    slept, read = [0.0], time.clock_gettime
    # While it is suspended, this clock goes on and time.monotonic does not.
    monkeypatch.setattr(
        time, "clock_gettime", lambda clock: read(clock) + (slept[0] if clock == time.CLOCK_BOOTTIME else 0)
    )
    with FaultServer(truth) as server, resolver_of(server) as resolver:
        for slept[0], queries in ((0.0, 1), (TRUTH_TTL_S / 2, 1), (TRUTH_TTL_S + 1.0, 2)):
            assert ask(resolver, "a.test").status is Status.NOERROR
            assert len(server.requests) == queries


@pytest.mark.attack("N11")
def test_ttl_0_is_for_the_present_question_only() -> None:
    def behaviour(request: Request, server: FaultServer) -> Iterator[bytes]:
        yield request.reply(f'{request.name}. 0 IN TXT "x"')

    with FaultServer(behaviour) as server, resolver_of(server) as resolver:
        assert ask(resolver, "a.test").texts() == (b"x",)
        assert ask(resolver, "a.test").texts() == (b"x",)
        assert len(server.requests) == 2


@pytest.mark.attack("N17")
def test_fifty_at_once_make_one_query() -> None:
    with FaultServer(after(0.3, truth)) as server, resolver_of(server) as resolver:
        answers: list[Answer] = []
        resolver.prefetch([txt("a.test")])
        threads = [threading.Thread(target=lambda: answers.append(ask(resolver, "a.test"))) for _ in range(50)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [answer.texts() for answer in answers] == [(b"a.test",)] * 50
        assert server.names() == ["a.test"]


def test_prefetch_returns_at_once_and_fills_the_cache() -> None:
    go = threading.Event()

    def behaviour(request: Request, server: FaultServer) -> Iterator[bytes]:
        go.wait(PATIENCE_S)
        yield from truth(request, server)

    with FaultServer(behaviour) as server, resolver_of(server) as resolver:
        resolver.prefetch([txt("a.test"), txt("UPPER.test")])
        resolver.prefetch([])
        assert ask(resolver, "a.test", deadline_s=-1.0).status is Status.TEMPFAIL, "it waited"
        go.set()
        wait_for(lambda: ask(resolver, "a.test", deadline_s=-1.0).status is Status.NOERROR)
        assert server.names() == ["a.test"]


@pytest.mark.attack("N19")
@pytest.mark.parametrize("name", ["single", "two.labels"])
def test_names_are_absolute(tmp_path: Path, name: str) -> None:
    (tmp_path / "resolv.conf").write_text(
        "domain evil.test\nsearch evil.test bank.test\nnameserver 127.0.0.1\noptions ndots:5\n"
    )
    with FaultServer(says(rcode="NXDOMAIN")) as server:
        config = ResolverConfig(
            port=server.port, resolv_conf=str(tmp_path / "resolv.conf"), query_timeout_s=PATIENCE_S
        )
        with open_resolver(config) as resolver:
            assert ask(resolver, name).status is Status.NXDOMAIN
        assert server.names() == [name]


@pytest.mark.parametrize(
    "name", ["", ".", "a.test.", "A.test", "a..test", "@", "a\x00.test", r"a\000.test", "ü.test"]
)
def test_a_name_that_is_no_questions_is_not_asked(name: str) -> None:
    with FaultServer(truth) as server, resolver_of(server) as resolver:
        answer = ask(resolver, name)
        assert answer.status is Status.TEMPFAIL
        assert answer.detail.startswith("not asked: ")
        assert ask(resolver, "a" * 64 + ".test").status is Status.TEMPFAIL
        assert ask(resolver, ".".join(["abcdefg"] * 32)).status is Status.TEMPFAIL
        assert server.requests == []


@pytest.mark.attack("S07")
def test_a_local_part_may_be_asked_for() -> None:
    """RFC 7208 §7.2: %{l} in an exists: term."""
    with FaultServer(says(rcode="NXDOMAIN")) as server, resolver_of(server) as resolver:
        assert ask(resolver, "bounce+user=a.test", "A").status is Status.NXDOMAIN
        assert server.names() == ["bounce+user=a.test"]


def test_closing_answers_who_waits_and_gives_everything_back() -> None:
    files, threads = open_files(), threading.active_count()
    with FaultServer(silence) as server:
        resolver = resolver_of(server, query_timeout_s=60.0)
        answers: list[Answer] = []
        waiting = threading.Thread(target=lambda: answers.append(ask(resolver, "a.test", deadline_s=60.0)))
        waiting.start()
        wait_for(server.names)
        resolver.close()
        waiting.join(PATIENCE_S)
        assert [answer.status for answer in answers] == [Status.TEMPFAIL]
        assert "closed" in answers[0].detail
        resolver.close()
        assert ask(resolver, "b.test").status is Status.TEMPFAIL
        assert server.names() == ["a.test"]
    assert (open_files(), threading.active_count()) == (files, threads)


def test_a_resolver_that_is_dropped_gives_everything_back_and_says_so() -> None:
    files, threads = open_files(), threading.active_count()
    with FaultServer(silence) as server:
        resolver = resolver_of(server, query_timeout_s=60.0)
        resolver.prefetch([txt("a.test")])
        wait_for(server.names)
        held = [resolver]
        del resolver
        with pytest.warns(ResourceWarning, match="not closed"):
            held.clear()
        wait_for(lambda: "mailguard-dns" not in {thread.name for thread in threading.enumerate()})
    assert (open_files(), threading.active_count()) == (files, threads)


@pytest.mark.parametrize("looks_up", [True, False])
@pytest.mark.filterwarnings("error::ResourceWarning", "error::pytest.PytestUnraisableExceptionWarning")
def test_nothing_is_said_of_a_resolver_with_nothing_to_close(looks_up: bool) -> None:
    with FaultServer(truth) as server:
        resolver = resolver_of(server)
        if looks_up:
            ask(resolver, "a.test")
            resolver.close()
        del resolver
        with pytest.raises(ConfigError):
            open_resolver(ResolverConfig(port=0))
        gc.collect()


def test_opening_and_closing_starts_nothing() -> None:
    files, threads = open_files(), threading.active_count()
    with resolver_of():
        assert (open_files(), threading.active_count()) == (files, threads)


@pytest.mark.attack("N18")
def test_a_child_process_starts_afresh() -> None:
    with FaultServer(truth) as server, resolver_of(server) as resolver:
        ask(resolver, "parent.test")
        reading, writing = os.pipe()
        children = []
        for number in range(2):
            child = os.fork()
            if child == 0:
                status = ask(resolver, f"child{number}.test").status
                again = ask(resolver, "parent.test").status
                resolver.close()
                os.write(writing, f"{status.value} {again.value}\n".encode())
                os._exit(0)
            children.append(child)
        for child in children:
            assert os.waitpid(child, 0)[1] == 0
        os.close(writing)
        with open(reading, encoding="ascii") as stream:
            assert stream.read().split("\n") == ["noerror noerror", "noerror noerror", ""]
        assert ask(resolver, "after.test").status is Status.NOERROR, "the parent's loop was disturbed"
        assert sorted(server.names()) == [
            "after.test", "child0.test", "child1.test", "parent.test", "parent.test", "parent.test"
        ]  # fmt: skip
        assert len({(request.peer[1], request.message.id) for request in server.requests}) == 6


def test_a_reply_that_there_is_no_memory_for_ends_its_look_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """It stays unread, and would be told for as long as it is waited for."""
    with FaultServer(truth) as server, resolver_of(server) as resolver:
        with monkeypatch.context() as patch:
            patch.setattr(mailguard.dns.exchange, "_LARGEST_DATAGRAM", 1 << 60)
            started = time.monotonic()
            answer = ask(resolver, "a.test")
        assert (answer.status, answer.detail) == (Status.TEMPFAIL, "internal error: MemoryError")
        assert time.monotonic() - started < LATEST_S
        assert ask(resolver, "b.test").status is Status.NOERROR


def test_where_no_loop_can_be_made_it_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    def refused() -> None:
        raise OSError(24, "Too many open files")

    with FaultServer(truth) as server, resolver_of(server) as resolver:
        with monkeypatch.context() as patch:
            patch.setattr(asyncio.events, "new_event_loop", refused)
            answer = ask(resolver, "a.test")
        assert (answer.status, answer.detail) == (
            Status.TEMPFAIL,
            "the resolver does not run: [Errno 24] Too many open files",
        )
        assert ask(resolver, "b.test").status is Status.NOERROR
    gc.collect()
    assert recwarn.list == []


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_loop_that_ended_for_want_of_memory_is_begun_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    with FaultServer(truth) as server, resolver_of(server) as resolver:
        assert ask(resolver, "a.test").status is Status.NOERROR
        select = selectors.EpollSelector.select
        (ended,) = [thread for thread in threading.enumerate() if thread.name == "mailguard-dns"]

        def starved(selector: selectors.EpollSelector, timeout: float | None = None) -> object:
            if threading.current_thread().name == "mailguard-dns" and timeout != 0:
                raise MemoryError
            return select(selector, timeout)

        with monkeypatch.context() as patch:
            patch.setattr(selectors.EpollSelector, "select", starved)
            assert ask(resolver, "b.test", deadline_s=SHORT_S).status is Status.TEMPFAIL
            ended.join(PATIENCE_S)
        assert ask(resolver, "c.test").status is Status.NOERROR


def test_a_zone_file_is_a_resolver_too(tmp_path: Path) -> None:
    (tmp_path / "zone").write_text('a.test. TXT "from the file"\n')
    with open_resolver(ResolverConfig(zone_file=str(tmp_path / "zone"))) as resolver:
        assert isinstance(resolver, ZoneResolver)
        assert ask(resolver, "a.test").texts() == (b"from the file",)


@pytest.mark.parametrize(
    "config",
    [
        ResolverConfig(nameservers=("localhost",)),
        ResolverConfig(nameservers=("127.0.0.1:53",)),
        ResolverConfig(trust_ad=("10.0.0.0/8",)),
        ResolverConfig(port=0),
        ResolverConfig(query_timeout_s=0.0),
        ResolverConfig(cache_entries=0),
    ],
)
def test_a_configuration_that_cannot_work_is_refused(config: ResolverConfig) -> None:
    with pytest.raises(ConfigError, match="dns"):
        open_resolver(config)
