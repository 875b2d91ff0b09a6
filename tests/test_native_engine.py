"""What the native engine alone does: waiting without a thread, time-outs, macros by name.

ATTACKS.md rows: P07, P10, P11, P21, P22, X07, X09, X13, X14. Its sockets: test_native_connection.py. What both
engines do is in test_engine.py and test_engine_hostile.py.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from daemon_process import eventually
from engine_host import StandIn
from engine_process import CONTINUE, notes, unix_listener
from mailguard_milter import engine_native, milter_connection
from mailguard_milter.engine import Door
from mailguard_milter.readiness import Readiness
from milter_client import ADDHDRS, CHGHDRS, QUARANTINE, SETSYMLIST, MilterClient, MilterGone
from milter_packets import packet
from native_host import PATIENCE_S, HeldResolver, NativeHost, SlowResolver, native_host

QUESTION = [(b"X-Do", b" question")]
SESSIONS = 60


# Waiting


@pytest.mark.attack("P10")
def test_sixty_messages_that_wait_for_the_dns_wait_at_the_same_time(own_directory: Path) -> None:
    answers: list[object] = []

    def send(host: NativeHost) -> None:
        with host.client() as client:
            answers.append(client.open().message(QUESTION)[-1])

    resolver = HeldResolver()
    with native_host(own_directory, resolver=resolver) as host:
        threads = [threading.Thread(target=send, args=(host,)) for _ in range(SESSIONS)]
        for thread in threads:
            thread.start()
        # None has its answer before all of them wait for it.
        eventually(lambda: len(resolver.asked) == SESSIONS)
        assert answers == []
        resolver.let_go.set()
        for thread in threads:
            thread.join()
    assert answers == [CONTINUE] * SESSIONS


def test_progress_is_told_while_the_dns_is_awaited(own_directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(milter_connection, "PROGRESS_EVERY_S", 0.05)
    monkeypatch.setattr(engine_native, "SWEEP_EVERY_S", 0.02)
    resolver = HeldResolver()
    with native_host(own_directory, resolver=resolver) as host, host.client() as client:
        client.open()
        client.mail()
        client.rcpt()
        for name, value in QUESTION:
            client.header(name, value)
        client.end_of_header()
        began = time.monotonic()
        client.send(b"E")
        replies = [client.receive(), client.receive()]
        assert [command for command, _ in replies] == [b"p", b"p"]
        resolver.let_go.set()
        while replies[-1] != CONTINUE:
            replies.append(client.receive())
        commands = b"".join(command for command, _ in replies)
        assert commands.count(b"p") <= (time.monotonic() - began) / milter_connection.PROGRESS_EVERY_S
        assert commands.replace(b"p", b"") == b"ic"


def test_what_comes_behind_a_message_that_waits_is_taken_when_it_is_answered(own_directory: Path) -> None:
    message = b"".join(
        (
            packet(b"M", b"<x@evil.test>\0"),
            packet(b"R", b"<alice@us.test>\0"),
            packet(b"L", b"X-Do\0 question\0"),
            packet(b"L", b"Subject\0 %b\0"),
            packet(b"N"),
            packet(b"B", b"body\r\n"),
            packet(b"E"),
        )
    )
    with native_host(own_directory, resolver=SlowResolver(0.1)) as host, host.client() as client:
        client.open()
        client.raw(b"".join(message.replace(b"%b", name) for name in (b"01", b"02", b"03")))
        for name in ("01", "02", "03"):
            replies = [client.receive(), client.receive()]
            assert replies[-1] == CONTINUE
            assert ["header", "Subject", f" {name}"] in notes(replies)["events"]
        eventually(lambda: host.engine.messages == 0)


@pytest.mark.attack("P07")
def test_a_resolver_that_raises_is_451(own_directory: Path) -> None:
    resolver = SlowResolver(0.0, broken=True)
    with native_host(own_directory, resolver=resolver) as host, host.client() as client:
        client.open()
        assert client.message(QUESTION)[-1][1].startswith(b"451 4.3.0 ")
        resolver.broken = False
        assert client.message(QUESTION)[-1] == CONTINUE
        assert host.logged("internal error")[0]["error"] == "RuntimeError: the resolver is broken"


@pytest.mark.attack("X14", "X07")
@pytest.mark.parametrize("reset", [False, True])
def test_an_mta_that_leaves_while_the_dns_is_awaited(own_directory: Path, *, reset: bool) -> None:
    resolver = HeldResolver()
    with native_host(own_directory, resolver=resolver) as host:
        with host.client() as client:
            client.open().mail()
            client.rcpt()
            client.header(*QUESTION[0])
            client.end_of_header()
            client.send(b"E")
            eventually(lambda: resolver.asked)
            assert host.engine.messages
            if reset:
                client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        resolver.let_go.set()
        eventually(lambda: not host.engine.sessions())
        assert host.engine.messages == 0
        with host.client() as client:
            assert client.open().message()[-1] == CONTINUE
        assert not [line for line in host.sink.lines if line.get("event") in ("uncaught", "internal error")]


# Time-outs


@pytest.mark.attack("P21", "X13")
@pytest.mark.parametrize(
    ("constant", "until", "why"),
    [
        ("NEGOTIATION_TIMEOUT_S", "connected", "it is silent"),
        ("SESSION_TIMEOUT_S", "helo", "it is silent"),
        ("SESSION_TIMEOUT_S", "mail", "its message does not end"),
    ],
)
def test_who_says_nothing_more_is_let_go(
    own_directory: Path, monkeypatch: pytest.MonkeyPatch, constant: str, until: str, why: str
) -> None:
    monkeypatch.setattr(engine_native, "SWEEP_EVERY_S", 0.05)
    with native_host(own_directory) as host, host.client() as client:
        if until != "connected":
            client.open()
        if until == "mail":
            client.mail()
        # Not before: a test that is late would be let go on the way.
        monkeypatch.setattr(milter_connection, constant, 0.2)
        with pytest.raises(MilterGone):
            client.receive()
        assert [line["why"] for line in host.logged("the session of an MTA was closed")] == [why]
        eventually(lambda: host.engine.sessions() == host.engine.messages == 0)


# Accepting


@pytest.mark.attack("P11")
def test_when_no_descriptor_is_left_it_tries_again_later(
    own_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_native, "SWEEP_EVERY_S", 0.05)

    class Full(socket.socket):
        left = 3

        def _accept(self) -> tuple[int, object]:
            if self.left:
                self.left -= 1
                raise OSError(24, "Too many open files")
            accepted: tuple[int, object] = super()._accept()  # type: ignore[misc]
            return accepted

    made: list[Full] = []

    def full(listener: socket.socket) -> socket.socket:
        made.append(Full(fileno=os.dup(listener.fileno())))
        made[0].setblocking(False)
        return made[0]

    with native_host(own_directory, listens_with=full) as host:
        with host.client() as client:
            assert client.open().message()[-1] == CONTINUE
        assert made[0].left == 0
        assert len(host.logged("cannot accept a connection", 3)) == 3


@pytest.mark.attack("P11")
def test_where_epoll_takes_no_more_it_tries_again_later(own_directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_native, "SWEEP_EVERY_S", 0.05)
    refusals = iter([None, OSError(errno.ENOSPC, "No space left on device"), OSError(errno.ENOMEM, "no memory")])
    real = Readiness.watch

    def scarce(readiness: Readiness, descriptor: int, what: int, tell: Callable[[], None]) -> None:
        # Of connections nobody is told by this name.
        if getattr(tell, "func", None) and (refusal := next(refusals, None)):
            raise refusal
        real(readiness, descriptor, what, tell)

    monkeypatch.setattr(Readiness, "watch", scarce)
    with native_host(own_directory) as host:
        assert host.engine._loop is not None
        host.engine._loop.call_soon_threadsafe(host.engine._accept_no_more)
        assert [line["error"] for line in host.logged("uncaught", 2)] == [
            "OSError: [Errno 28] No space left on device",
            "OSError: [Errno 12] no memory",
        ]
        with host.client() as client:
            assert client.open().message()[-1] == CONTINUE


def test_a_connection_that_there_is_no_memory_for_is_closed(
    own_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_native, "SWEEP_EVERY_S", 0.05)
    real, refused = socket.SocketType, [3]

    def scarce(*arguments: int) -> socket.SocketType:
        if refused[0]:
            refused[0] -= 1
            raise MemoryError
        return real(*arguments)

    with native_host(own_directory) as host:
        monkeypatch.setattr(socket, "SocketType", scarce)
        for _ in range(3):
            with host.client() as client, pytest.raises(MilterGone):
                client.receive()
        with host.client() as client:
            assert client.open().message()[-1] == CONTINUE


def test_one_process_serves_every_listener_by_its_own_role(own_directory: Path) -> None:
    heard: list[str] = []

    class First(StandIn):
        def helo(self, name: bytes) -> None:
            heard.append("first")

    class Second(StandIn):
        def helo(self, name: bytes) -> None:
            heard.append("second")

    path = own_directory / "other.sock"
    with (
        unix_listener(path) as other,
        native_host(own_directory, open_dialogue=First, doors=[Door(other, Second)]) as host,
    ):
        with host.client() as client, MilterClient(str(path), timeout_s=PATIENCE_S) as second:
            assert client.open().message()[-1] == CONTINUE
            assert second.open().message()[-1] == CONTINUE
            assert host.engine.sessions() == 2
        host.engine.detach()
        with pytest.raises(ConnectionRefusedError):
            MilterClient(str(path), timeout_s=PATIENCE_S).open()
    assert heard == ["first", "second"]


# Negotiation


@pytest.mark.attack("P22", "X09")
@pytest.mark.parametrize("offered", [True, False])
def test_the_macros_that_are_read_are_asked_for_where_the_mta_lets_itself_be_asked(
    own_directory: Path, *, offered: bool
) -> None:
    base = ADDHDRS | CHGHDRS | QUARANTINE
    with native_host(own_directory) as host, host.client() as client:
        client.send(b"O", struct.pack("!III", 6, base | (SETSYMLIST if offered else 0), 0x1FFFFF))
        command, data = client.receive()
        assert command == b"O"
        assert struct.unpack("!II", data[:8]) == (6, base | (SETSYMLIST if offered else 0))
        lists = {}
        rest = data[12:]
        while rest:
            names, _, rest_after = rest[4:].partition(b"\0")
            lists[struct.unpack("!I", rest[:4])[0]] = names
            rest = rest_after
        # Postfix takes an empty list for none at all, and sends what is in main.cf.
        wanted = {0: b"{daemon_name}", 2: b"{auth_type} {auth_authen} {mail_addr}"}
        assert lists == ({**dict.fromkeys(range(7), b"i"), **wanted} if offered else {})


@pytest.mark.attack("X09")
def test_each_mta_gets_what_it_can_have_itself(own_directory: Path) -> None:
    """What was agreed with the last one is remembered, and is for who offers the same."""
    lists, no_lists = ADDHDRS | CHGHDRS | QUARANTINE | SETSYMLIST, ADDHDRS | CHGHDRS | QUARANTINE
    offers = [(6, lists, 0x1FFFFF), (6, no_lists, 0x1FFFFF), (2, no_lists, 0), (6, ADDHDRS, 0), (6, lists, 0x1FFFFF)]
    with native_host(own_directory) as host:
        for offer in [each for each in offers for _ in range(2)]:
            version, actions, _ = offer
            with host.client() as client:
                client.send(b"O", struct.pack("!III", *offer))
                if actions == ADDHDRS:
                    with pytest.raises(MilterGone):
                        client.receive()
                    continue
                command, data = client.receive()
                assert (command, *struct.unpack("!II", data[:8])) == (b"O", version, actions)
                assert (len(data) > 12) is (actions == lists)
        assert (
            len(host.logged("refused an MTA that does not let its milters change header fields and quarantine")) == 1
        )


@pytest.mark.parametrize(
    ("family", "address"),
    [
        (b"4", b""),
        (b"4", b"192.0.2"),
        (b"4", b"192.0.2.256"),
        (b"4", b"192.0.2.010"),
        (b"4", b"192.0.2.1 "),
        (b"4", b"192.0.2.\xb2"),
        (b"4", b"2001:db8::1"),
        (b"6", b"192.0.2.1"),
        (b"6", b"fe80::1%eth0"),
        (b"6", b"2001:db8:::1"),
        (b"6", b"2001:db8::12345"),
    ],
)
def test_an_address_that_is_none_ends_the_connection(own_directory: Path, family: bytes, address: bytes) -> None:
    with native_host(own_directory) as host, host.client() as client:
        client.negotiate()
        client.connect(family=family, address=address)
        with pytest.raises(MilterGone):
            client.receive()
        (line,) = host.logged("an MTA broke the milter protocol; its session ends")
        assert line["reason"] == "CONNECT has an address that is none"


@pytest.mark.attack("X09")
def test_an_mta_that_wants_answers_gets_one_for_each_event(own_directory: Path) -> None:
    with native_host(own_directory) as host, host.client() as client:
        client.negotiate(version=6, actions=0x3F, steps=0)
        assert client.connect() == CONTINUE
        assert client.helo() == CONTINUE
        assert client.event(b"U", b"NOOP\0") == CONTINUE
        assert client.mail() == CONTINUE
        assert client.rcpt() == CONTINUE
        assert client.event(b"T") == CONTINUE
        assert client.header(b"Subject", b"x") == CONTINUE
        assert client.end_of_header() == CONTINUE
        assert client.body(b"x") == CONTINUE
        assert client.end_of_message()[-1] == CONTINUE


# What it needs


def test_without_uvloop_asyncio_serves(own_directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert vars(engine_native)["uvloop"] is not None
    monkeypatch.setattr(engine_native, "uvloop", None)
    with native_host(own_directory, resolver=SlowResolver(0.05)) as host, host.client() as client:
        client.open()
        for fields in (QUESTION, QUESTION, []):
            assert client.message(fields)[-1] == CONTINUE


@pytest.mark.parametrize(
    ("engine", "absent", "told"),
    [
        ("native", ("milter",), "served by mailguard_milter.engine_native"),
        ("native", ("milter", "uvloop"), "served by mailguard_milter.engine_native"),
        ("libmilter", ("uvloop",), "served by mailguard_milter.engine_libmilter"),
        ("libmilter", ("milter",), "pip install 'mailguard-milter[milter]'"),
        ("native", ("pydantic",), "pip install 'mailguard-milter[native]'"),
    ],
)
def test_only_what_the_chosen_engine_needs_must_be_there(
    own_directory: Path, engine: str, absent: tuple[str, ...], told: str
) -> None:
    (own_directory / "mg.toml").write_text(f'engine = "{engine}"\nauthserv_id = "mx.us.test"\n')
    program = (
        f"import sys\nfor name in {absent!r}: sys.modules[name] = None\n"
        "from mailguard.errors import MissingExtraError\n"
        "from mailguard_milter import engine_choice\n"
        f"try:\n    config = engine_choice.load({str(own_directory / 'mg.toml')!r})\n"
        "    print('served by', engine_choice.engine_class(config).__module__)\n"
        "    other = {'native': 'milter', 'libmilter': 'uvloop'}[config.engine]\n"
        "    assert sys.modules.get(other) is None, other\n"
        "except MissingExtraError as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert told in done.stdout
