"""The socket of an MTA on the native engine: a peer that does not read, and what fails while it is served.

ATTACKS.md rows: X06.
"""

from __future__ import annotations

import errno
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

import pytest

from daemon_process import eventually
from engine_host import Conclusion, StandIn
from engine_process import CONTINUE
from mailguard.dns.answers import Answers
from mailguard_milter import conversation, engine_native, milter_connection
from mailguard_milter.actions import Accept, InsertHeader
from mailguard_milter.engine import SESSION_TIMEOUT_S
from mailguard_milter.protocol import PROGRESS, Decoder
from mailguard_milter.readiness import WRITABLE, Readiness
from mailguard_milter.received_macros import ReceivedMacros
from milter_client import MilterGone
from milter_packets import packet
from native_host import PATIENCE_S, HeldResolver, NativeHost, SlowResolver, native_host

QUESTION = [(b"X-Do", b" question")]
FIELDS = 30


class Verbose(StandIn):
    """Its answer is more than the sockets between us hold."""

    def end_of_message(self, answers: Answers, *, now: float) -> Conclusion:
        large = InsertHeader(b"X-Large", b" " + b"x" * 60_000)
        return Conclusion((*[large] * FIELDS, Accept()), {"action": "accept"})


class Full:
    """A socket whose send buffer has no room for a word of progress at first."""

    def __init__(self, real: socket.SocketType) -> None:
        self._real = real
        self.refused = 0

    def send(self, octets: bytes, flags: int) -> int:
        if octets == PROGRESS and not self.refused:
            self.refused += 1
            raise BlockingIOError
        return self._real.send(octets, flags)

    def __getattr__(self, name: str) -> object:
        return getattr(self._real, name)


@pytest.mark.attack("X06")
def test_a_peer_that_does_not_read_is_not_read_either(own_directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_native, "SWEEP_EVERY_S", 0.05)
    message = b"".join(
        (
            packet(b"M", b"<x@evil.test>\0"),
            packet(b"R", b"<alice@us.test>\0"),
            packet(b"N"),
            packet(b"E"),
        )
    )
    with native_host(own_directory, open_dialogue=Verbose) as host, host.client() as greedy:
        greedy.open()
        greedy.raw(message)
        eventually(lambda: host.engine.messages)
        # Not before: a test that is late would find it closed already.
        monkeypatch.setattr(milter_connection, "UNREAD_TIMEOUT_S", 0.3)
        greedy.socket.settimeout(0.2)
        with pytest.raises((TimeoutError, BrokenPipeError, ConnectionResetError)):
            greedy.raw(packet(b"M", b"<x@evil.test>\0") * 100_000)
        with host.client() as other:
            other.open()
        assert host.logged("the session of an MTA was closed")[0]["why"] == "it does not read"
        eventually(lambda: host.engine.messages == 0)


@pytest.mark.attack("P21", "X13")
@pytest.mark.parametrize(
    ("until", "patience_s"),
    [
        ("connected", milter_connection.NEGOTIATION_TIMEOUT_S),
        ("helo", SESSION_TIMEOUT_S),
        ("mail", SESSION_TIMEOUT_S),
        ("unread", milter_connection.UNREAD_TIMEOUT_S),
    ],
)
def test_nobody_is_let_go_before_the_time_is_over(
    own_directory: Path, monkeypatch: pytest.MonkeyPatch, until: str, patience_s: float
) -> None:
    # What the loop itself would look at has another time than the test.
    monkeypatch.setattr(engine_native, "SWEEP_EVERY_S", 3_600.0)
    with native_host(own_directory, open_dialogue=Verbose) as host, host.client() as client:
        if until != "connected":
            client.open()
        if until in ("mail", "unread"):
            client.mail()
        if until == "unread":
            client.end_of_header()
            client.send(b"E")
        eventually(lambda: host.engine._connections)
        (connection,) = host.engine._connections
        eventually(lambda: until != "mail" or connection._conversation.began)
        eventually(lambda: until != "unread" or connection._unsent)
        # For a message it is the time of its MAIL that counts.
        begun = connection._conversation.began if until == "mail" else 1_000.0
        assert begun is not None
        # Short of it by more than a sum of two such numbers may be wrong.
        for now in (begun, begun + patience_s - 0.001):
            looked(host, connection, now)
            assert host.engine.sessions() == 1
        looked(host, connection, begun + patience_s + 1)
        assert host.engine.sessions() == 0


def looked(host: NativeHost, connection: milter_connection.Connection, now: float) -> None:
    """Have the loop look at the connection, and wait for that."""
    over = threading.Event()
    loop = host.engine._loop
    assert loop is not None
    # One after the other, in this order.
    loop.call_soon_threadsafe(connection.look, now)
    loop.call_soon_threadsafe(over.set)
    assert over.wait(PATIENCE_S)


def test_a_peer_that_reads_late_gets_everything(own_directory: Path) -> None:
    with native_host(own_directory, open_dialogue=Verbose) as host, host.client() as client:
        client.open()
        for _ in range(2):
            client.mail()
            client.rcpt()
            client.end_of_header()
            client.send(b"E")
            eventually(lambda: host.engine.messages)
            replies = [client.receive()]
            while replies[-1] != CONTINUE:
                replies.append(client.receive())
            assert len([data for command, data in replies if command == b"i" and b"X-Large" in data]) == FIELDS
            eventually(lambda: host.engine.messages == 0)


def test_what_became_of_a_message_is_logged_though_its_peer_is_gone(own_directory: Path) -> None:
    with native_host(own_directory, open_dialogue=Verbose) as host:
        with host.client() as client:
            client.open()
            client.mail()
            client.rcpt()
            client.end_of_header()
            (connection,) = host.engine._connections
            client.send(b"E")
            eventually(lambda: connection._unsent)
        eventually(lambda: [line for line in host.sink.lines if line.get("action") == "accept"])
        eventually(lambda: host.engine.messages == 0)


def test_a_message_whose_session_ends_for_another_is_not_waited_for(own_directory: Path) -> None:
    with native_host(own_directory) as host, host.client() as client:
        client.open()
        client.mail()
        eventually(lambda: host.engine.messages == 1)
        client.quit_and_reuse()
        eventually(lambda: host.engine.messages == 0)


def test_helo_counts_after_a_message_that_failed(own_directory: Path) -> None:
    with native_host(own_directory) as host, host.client() as client:
        client.open()
        client.mail(b"<do+raise+mail>")
        client.abort()
        client.helo(b"other.test")
        assert any(b"other.test" in data for command, data in client.message() if command == b"i")


def test_a_word_of_progress_that_has_to_wait_adds_no_answer(
    own_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One more would be taken for that of the next message."""
    monkeypatch.setattr(milter_connection, "PROGRESS_EVERY_S", 0.05)
    monkeypatch.setattr(engine_native, "SWEEP_EVERY_S", 0.02)
    resolver = HeldResolver()
    with native_host(own_directory, resolver=resolver) as host, host.client() as client:
        client.open()
        (connection,) = host.engine._connections
        full = Full(connection._socket)
        monkeypatch.setattr(connection, "_socket", full)
        for _ in range(3):
            resolver.let_go.clear()
            client.mail()
            client.rcpt()
            client.header(*QUESTION[0])
            client.end_of_header()
            client.send(b"E")
            replies = [client.receive()]
            assert replies == [(b"p", b"")]
            resolver.let_go.set()
            while replies[-1] != CONTINUE:
                replies.append(client.receive())
            assert b"".join(command for command, _ in replies).replace(b"p", b"") == b"ic"
        assert full.refused == 1
        assert len(resolver.asked) == 3


class Uncut(bytes):
    """No memory is left for its rest."""

    def __getitem__(self, part: object) -> NoReturn:
        raise MemoryError


def test_what_was_sent_is_not_sent_again(own_directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with native_host(own_directory, resolver=SlowResolver(0.0)) as host, host.client() as client:
        client.open()
        (connection,) = host.engine._connections
        told = threading.Event()

        def fill() -> None:
            connection._unsent = Uncut(packet(b"c"))
            connection._watch()
            told.set()

        loop = host.engine._loop
        assert loop is not None
        loop.call_soon_threadsafe(fill)
        assert told.wait(PATIENCE_S)
        assert client.receive() == CONTINUE
        with pytest.raises(MilterGone):
            client.receive()
        assert host.logged("internal error")


# What fails in us


def test_what_cannot_be_told_closes_the_connection(own_directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is said then: it could be one word more than the MTA waits for."""

    def fail(*arguments: object) -> None:
        raise MemoryError

    monkeypatch.setattr(conversation, "tell_failure", fail)
    with native_host(own_directory) as host, host.client() as client:
        client.open()
        client.mail()
        client.header(b"X-Do", b" raise header")
        with pytest.raises(MilterGone):
            client.receive()
        eventually(lambda: host.engine.sessions() == 0)


def test_octets_that_are_lost_end_the_connection(own_directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A message without one of its fields must not be judged."""

    def fail(*arguments: object) -> None:
        raise MemoryError

    with native_host(own_directory) as host, host.client() as client:
        client.open()
        client.mail()
        eventually(lambda: host.engine.messages == 1)
        monkeypatch.setattr(Decoder, "feed", fail)
        monkeypatch.setattr(milter_connection, "tell_failure", fail)
        with suppress(BrokenPipeError):  # the macros of the field are lost already
            client.header(b"From", b" x@evil.test")
        with pytest.raises(MilterGone):
            client.receive()
        eventually(lambda: host.engine.sessions() == 0)


def test_macros_that_cannot_be_taken_fail_the_session(own_directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They may have held a login."""

    def fail(*arguments: object) -> None:
        raise MemoryError

    with native_host(own_directory) as host, host.client() as client:
        client.open()
        with monkeypatch.context() as patch:
            patch.setattr(ReceivedMacros, "take", fail)
            client.send(b"D", b"M{auth_authen}\0alice\0")
            host.logged("internal error")
        assert client.message([])[-1][1].startswith(b"451 4.3.0 ")


def test_what_is_raised_while_time_outs_are_seen_to_ends_that_session_alone(
    own_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would hang otherwise, and those behind it would have no time-outs."""
    monkeypatch.setattr(milter_connection, "PROGRESS_EVERY_S", 0.05)
    monkeypatch.setattr(engine_native, "SWEEP_EVERY_S", 0.02)
    watch = Readiness.watch

    def no_room(readiness: Readiness, descriptor: int, what: int, tell: Callable[[], None]) -> None:
        if what == WRITABLE:
            raise OSError(errno.ENOSPC, "no watch is left")
        watch(readiness, descriptor, what, tell)

    # Never let go: the answer would be one more to send.
    with native_host(own_directory, resolver=HeldResolver()) as host, host.client() as client:
        client.open()
        (connection,) = host.engine._connections
        monkeypatch.setattr(connection, "_socket", Full(connection._socket))
        monkeypatch.setattr(Readiness, "watch", no_room)
        client.mail()
        client.header(*QUESTION[0])
        client.end_of_header()
        client.send(b"E")
        with pytest.raises(MilterGone):
            client.receive()
        eventually(lambda: host.engine.sessions() == host.engine.messages == 0)
        assert host.logged("internal error")
        assert not [line for line in host.sink.lines if line.get("event") == "uncaught"]


def test_what_arrives_together_is_answered_in_order(own_directory: Path) -> None:
    """What stands behind the end of a message in the same octets is the next message."""
    parts = (packet(b"M", b"<x@evil.test>\0"), packet(b"R", b"<alice@us.test>\0"), packet(b"N"), packet(b"E"))
    with native_host(own_directory) as host, host.client() as client:
        client.open()
        client.raw(b"".join(parts) * 3 + packet(b"Q"))
        replies = []
        with suppress(MilterGone):
            while True:
                replies.append(client.receive())
    assert [command for command, _ in replies] == [b"i", b"c"] * 3
