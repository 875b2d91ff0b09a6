"""The engine and what an MTA never sends: garbage, silence, leaving, many at once; and the life of a worker.

ATTACKS.md rows: X07, X08, X10-X14, P11, P18, P21, P24.
"""

from __future__ import annotations

import ast
import os
import resource
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from unittest.mock import Mock

import pytest

from engine_process import CONTINUE, Host, do, notes, unix_listener
from mailguard_milter import engine, engine_libmilter, sockets, worker
from mailguard_milter.channel import Word
from mailguard_milter.identity import Identity
from mailguard_milter.listening import ListeningSocket
from milter_client import POSTFIX_STEPS, MilterGone

PATIENCE_S = 60.0


# What an MTA never sends

GARBAGE = [
    ("http", b"GET / HTTP/1.1\r\nHost: mx.us.test\r\n\r\n"),
    ("tls", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
    ("zero length", struct.pack("!I", 0)),
    ("length of 4 GB", b"\xff\xff\xff\xff" + b"O"),
    ("packet of 64 kB and one", struct.pack("!I", 65_537) + b"O" + b"x" * 65_536),
    ("unknown command", struct.pack("!I", 1) + b"?"),
    ("event before negotiation", struct.pack("!I", 6) + b"Mx@y\0"),
    ("short negotiation", struct.pack("!I", 5) + b"O\0\0\0\x06"),
    ("half a packet", struct.pack("!I", 100) + b"O"),
]


@pytest.mark.attack("X08", "X12")
@pytest.mark.parametrize("octets", [row[1] for row in GARBAGE], ids=[row[0] for row in GARBAGE])
def test_garbage_ends_that_session_and_no_other(host: Host, octets: bytes) -> None:
    with host.client() as good:
        good.open()
        good.mail()
        with host.client() as bad:
            with suppress(ConnectionError):  # it may be gone before all is sent
                bad.raw(octets)
                bad.socket.shutdown(socket.SHUT_WR)
            with pytest.raises(MilterGone):
                bad.receive()
        good.end_of_header()
        assert good.end_of_message()[-1] == CONTINUE


NEGOTIATED_GARBAGE = [
    ("header without NUL", b"L", b"Subject"),
    ("header of one string", b"L", b"Subject\0"),
    ("mail without NUL", b"M", b"<x@y>"),
    ("connect without family", b"C", b"host\0"),
    ("unknown family", b"C", b"host\0Z\0\0x\0"),
    ("bad inet address", b"C", b"host\0" + b"4\0\x19999.1.1.1\0"),
    ("body of no octets", b"B", b""),
    ("unknown command", b"?", b""),
    ("negotiation again", b"O", b""),
]


@pytest.mark.attack("X08")
@pytest.mark.parametrize(
    ("command", "data"), [row[1:] for row in NEGOTIATED_GARBAGE], ids=[row[0] for row in NEGOTIATED_GARBAGE]
)
def test_broken_events_end_that_session_and_no_other(host: Host, command: bytes, data: bytes) -> None:
    with host.client() as good, host.client() as bad:
        good.open()
        bad.open()
        bad.mail()
        bad.send(command, data)
        bad.socket.shutdown(socket.SHUT_WR)
        with pytest.raises(MilterGone):
            bad.receive_until_gone()
        assert good.message()[-1] == CONTINUE


@pytest.mark.attack("X11")
@pytest.mark.parametrize(
    "data",
    [
        b"M" + b"".join(b"{m%d}\0v\0" % number for number in range(1000)) + b"{auth_authen}\0bob\0",
        b"M{big}\0" + b"x" * 60_000 + b"\0{auth_authen}\0bob\0",
    ],
    ids=["1000 pairs", "60 kB value"],
)
def test_many_and_long_macros(host: Host, data: bytes) -> None:
    with host.client() as client:
        client.open()
        client.send(b"D", data)
        client.event(b"M", b"<x@evil.test>\0")
        client.end_of_header()
        assert "('{auth_authen}', b'bob')" in notes(client.end_of_message())["events"][2][2]


@pytest.mark.attack("X07")
@pytest.mark.parametrize("last", range(8))
def test_an_mta_that_leaves_after_any_command_leaves_nothing_behind(host: Host, last: int) -> None:
    for _ in range(20):
        with host.client() as client:
            steps: list[Callable[[], object]] = [
                client.negotiate,
                client.connect,
                client.helo,
                client.mail,
                partial(client.header, b"Subject", b" x"),
                client.end_of_header,
                partial(client.body, b"x"),
                partial(client.send, b"E"),
            ]
            for step in steps[: last + 1]:
                step()
    assert host.has_forgotten_all()


@pytest.mark.attack("X07")
def test_leaving_mtas_do_not_fill_the_log(own_directory: Path, engine: str) -> None:
    """With a worker of its own: a line comes late, and may be one of another test."""
    with unix_listener(own_directory / "m.sock") as listening:
        host = Host.start(own_directory, listening, engine=engine)

        def lines() -> int:
            """Lines are written in their order: with that of the message, all before are there."""
            messages = len(host.messages_logged(0))
            host.alive()
            host.messages_logged(messages + 1)
            return len([line for line in host.log() if "action" not in line])

        before = lines()
        for _ in range(50):
            with host.client() as client:
                client.open().mail()
        assert host.has_forgotten_all()
        assert lines() == before
        host.end()


@pytest.mark.attack("X14")
def test_an_mta_that_is_gone_when_the_reply_comes(host: Host) -> None:
    for reset in (False, True):
        with host.client() as client:
            client.open()
            client.mail()
            for name, value in do("wait 0.2", f"insert X-New {b' v'.hex()}"):
                client.header(name, value)
            client.end_of_header()
            client.send(b"E")
            if reset:
                client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    with host.client() as client:
        assert client.open().message(do("wait 0.5"))[-1] == CONTINUE
    assert not [line for line in host.log() if line.get("event") == "uncaught" and line.get("place") != "pymilter"]


# Many at once


@pytest.mark.attack("X13")
def test_a_thousand_silent_connections_do_not_stop_the_others(host: Host) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (4096, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    silent = [host.client() for _ in range(1000)]
    try:
        with host.client() as client:
            assert client.open().message()[-1] == CONTINUE
        assert memory_kb(host.process.pid) < 200_000
    finally:
        for each in silent:
            each.socket.close()


@pytest.mark.attack("P23")
def test_sessions_that_many_threads_serve_are_forgotten(host: Host) -> None:
    """With libmilter, an event of a session goes to whichever thread is free."""

    def meet(number: int) -> None:
        for turn in range(30):
            with host.client() as client:
                steps: list[Callable[[], object]] = [client.negotiate, client.connect, client.helo, client.quit]
                for place, step in enumerate(steps):
                    step()
                    time.sleep((number + turn + place) % 7 / 1000)

    with ThreadPoolExecutor(12) as threads:
        list(threads.map(meet, range(12)))
    assert host.has_forgotten_all()
    with host.client() as client:
        strangers = notes(client.open().message())["strangers"]
    # Before Python 3.12 nothing is written into what a thread remembers (thread_binding.py).
    assert not strangers or sys.version_info < (3, 12)


def memory_kb(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise AssertionError("no VmRSS")


@pytest.mark.attack("P11")
def test_sessions_stay_below_the_descriptor_limit(own_directory: Path, engine: str) -> None:
    limit = 80
    with unix_listener(own_directory / "m.sock") as listening:
        host = Host.start(own_directory, listening, engine=engine, descriptors=limit)
        clients = [host.client() for _ in range(int(limit * worker.SESSIONS_PER_DESCRIPTOR) + 1)]
        assert host.events_logged("too many sessions: accepting none until some end")
        # These wait in the backlog, where another worker would find them.
        waiting = [host.client() for _ in range(limit)]
        assert len(os.listdir(f"/proc/{host.process.pid}/fd")) < limit
        assert clients[0].open().message()[-1] == CONTINUE
        waiting[0].socket.settimeout(0.5)
        with pytest.raises(TimeoutError):
            waiting[0].negotiate()
        for each in clients:
            each.socket.close()
        waiting[0].socket.settimeout(PATIENCE_S)
        command, _ = waiting[0].receive()
        assert command == b"O"
        for each in waiting:
            each.socket.close()
        host.end()


# Life


@pytest.mark.attack("P18", "P17")
@pytest.mark.parametrize("word", [Word.DRAIN, Word.STOP])
def test_a_draining_worker_finishes_and_the_next_one_takes_what_waits(
    own_directory: Path, engine: str, word: Word
) -> None:
    path = own_directory / "m.sock"
    with unix_listener(path) as listening:
        old = Host.start(own_directory, listening, engine=engine)
        with old.client() as under_way:
            under_way.open()
            under_way.mail()
            old.channel.send(word)
            assert old.hear() is Word.DETACHED
            late = old.client()
            late.send(b"O", struct.pack("!III", 6, 0x1FF, POSTFIX_STEPS))
            under_way.end_of_header()
            assert under_way.end_of_message()[-1] == CONTINUE
            if word is Word.DRAIN:
                # The session goes on until the MTA ends it.
                assert under_way.message()[-1] == CONTINUE
                assert old.process.poll() is None
                under_way.quit()
            assert old.process.wait(PATIENCE_S) == 0
        new = Host.start(own_directory, listening, engine=engine)
        with late:
            assert late.receive()[0] == b"O"
        assert path.is_socket()
        assert [entry.name for entry in own_directory.iterdir() if entry.name.startswith("worker-")] == []
        new.end()


@pytest.mark.attack("V03", "P15")
def test_a_worker_without_parent_drains_and_signals_do_not_end_one(own_directory: Path, engine: str) -> None:
    with unix_listener(own_directory / "m.sock") as listening:
        host = Host.start(own_directory, listening, engine=engine)
        with host.client() as client:
            client.open()
            client.mail()
            for number in (1, 2, 15):
                os.kill(host.process.pid, number)
            client.end_of_header()
            assert client.end_of_message()[-1] == CONTINUE
            host.channel.close()
            assert client.message()[-1] == CONTINUE
            client.quit()
        assert host.process.wait(PATIENCE_S) == 0


def test_an_inet_listener(own_directory: Path, engine: str) -> None:
    with socket.socket(socket.AF_INET) as listening:
        listening.bind(("127.0.0.1", 0))
        listening.setblocking(False)
        listening.listen(16)
        host = Host.start(own_directory, listening, engine=engine)
        with host.client() as client:
            assert client.open().message()[-1] == CONTINUE
            host.channel.send(Word.DRAIN)
            assert client.message()[-1] == CONTINUE
            assert host.process.poll() is None
            client.quit()
        assert host.process.wait(PATIENCE_S) == 0


# What must not be in the code


@pytest.mark.attack("P13", "P09")
def test_nothing_in_the_engine_belongs_to_a_thread_or_ends_the_process() -> None:
    for module in (engine_libmilter, sockets):
        assert module.__file__ is not None
        tree = ast.parse(Path(module.__file__).read_text())
        names = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        names |= {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        names |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
        assert not names & {"local", "contextvars", "sqlite3", "asyncio", "exit", "_exit", "current_thread"}


def test_a_header_without_an_end_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """The session bounds what it keeps; libmilter's engine must not keep more before it."""
    told, context = Mock(), Mock()
    monkeypatch.setattr(engine_libmilter, "milter", told)
    monkeypatch.setattr(engine_libmilter, "LibmilterSocket", Mock())
    engine_libmilter.Engine(Mock(doors=(Mock(),)))
    (header,) = told.set_header_callback.call_args.args
    conversation = context.getpriv.return_value
    conversation.adds_space, conversation.fields = False, []
    most = 0
    for number in range(1_000):
        header(context, f"X-{number}", b"y" * (60_000 if number % 10 == 0 else 4_000))
        most = max(most, sum(len(value) for _, value in conversation.fields))
    heard = [name for call in conversation.dialogue.headers.call_args_list for name, _ in call.args[0]]
    assert most <= 256 * 1024
    assert [*heard, *(name for name, _ in conversation.fields)] == [b"X-%d" % number for number in range(1_000)]


@pytest.mark.attack("P21")
def test_a_session_is_given_up_later_than_the_mta_gives_up_its_client(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else what the client sends afterwards passes by the milter, where milter_default_action is accept.

    Postfix lets a client say NOOP as often as smtpd_junk_command_limit, and err as often as smtpd_hard_error_limit;
    each time smtpd_timeout begins anew, and the milter hears nothing of it.
    """
    assert engine.SESSION_TIMEOUT_S > (100 + 20) * 300
    told = Mock()
    monkeypatch.setattr(engine_libmilter, "milter", told)
    monkeypatch.setattr(engine_libmilter, "LibmilterSocket", Mock())
    engine_libmilter.Engine(Mock(doors=(Mock(),)))
    told.settimeout.assert_called_once_with(engine.SESSION_TIMEOUT_S)


@pytest.mark.attack("P21")
def test_a_dead_mta_on_another_host_is_found_out() -> None:
    plan = {"family": "inet", "address": "inet:127.0.0.1:0", "ip": "127.0.0.1", "port": 0, "allow_remote": False}
    opened = ListeningSocket.open(plan, Identity("x", 0, 0, ())).socket
    with opened, socket.create_connection(opened.getsockname()):
        accepted, _ = opened.accept()
        with accepted:
            assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            idle_s, every_s, count = (
                accepted.getsockopt(socket.IPPROTO_TCP, option)
                for option in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
            )
            assert idle_s + count * every_s <= 900


def test_without_pymilter_the_error_says_what_to_install() -> None:
    program = (
        "import sys; sys.modules['milter'] = None\n"
        "from mailguard.errors import MissingExtraError\n"
        "try:\n    import mailguard_milter.engine_libmilter\n"
        "except MissingExtraError as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    for word in ("pip install 'mailguard-milter[milter]'", "libmilter-dev", "sendmail-milter-devel", "python3-devel"):
        assert word in done.stdout
