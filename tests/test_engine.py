"""The libmilter engine in a real worker process, spoken to over the wire.

ATTACKS.md rows: X07-X14, P02-P09, P11, P13, P16-P18, P20. A stand-in session (engine_host.py) notes what arrives.
"""

from __future__ import annotations

import ast
import json
import os
import resource
import select
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from mailguard_milter import engine_libmilter, sockets, worker
from mailguard_milter.channel import Channel, Word
from milter_client import ADDHDRS, CHGHDRS, HDR_LEADSPC, POSTFIX_STEPS, Address, MilterClient, MilterGone, Packet

HOST = Path(__file__).with_name("engine_host.py")
CONTINUE: Packet = (b"c", b"")
PATIENCE_S = 20.0


@dataclass
class Host:
    """A worker process."""

    directory: Path
    listening: socket.socket
    process: subprocess.Popen[bytes]
    channel: Channel

    @classmethod
    def start(cls, directory: Path, listening: socket.socket, *, descriptors: int | None = None) -> Host:
        ours, theirs = Channel.pair()
        orders = {
            "control": theirs.fileno(),
            "listening": listening.fileno(),
            "directory": str(directory),
            "descriptors": descriptors,
        }
        with open(directory / "log", "ab") as log:
            process = subprocess.Popen(
                [sys.executable, str(HOST), json.dumps(orders)],
                pass_fds=[theirs.fileno(), listening.fileno()],
                stderr=log,
            )
        theirs.close()
        host = cls(directory, listening, process, ours)
        assert host.hear() is Word.READY
        return host

    def hear(self) -> Word:
        assert select.select([self.channel], [], [], PATIENCE_S)[0], "the worker says nothing"
        packet = self.channel.receive()
        assert packet is not None
        return packet[0]

    @property
    def address(self) -> Address:
        name = self.listening.getsockname()
        return name if isinstance(name, str) else (name[0], name[1])

    def client(self) -> MilterClient:
        return MilterClient(self.address)

    def log(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.directory / "log").read_text().splitlines()]

    def events_logged(self, name: str, **fields: object) -> list[dict[str, Any]]:
        """Those with this name and these fields; waits for the first."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            found = [line for line in self.log() if line.get("event") == name and fields.items() <= line.items()]
            if found or time.monotonic() > deadline:
                return found
            time.sleep(0.02)

    def alive(self) -> int:
        """Sessions in the worker's memory, that of the asking one included."""
        with self.client() as client:
            client.open()
            return int(notes(client.message())["alive"])

    def has_forgotten_all(self) -> bool:
        """Whether only the asking session is left; a session ends a moment after its MTA has gone."""
        deadline = time.monotonic() + PATIENCE_S
        while self.alive() != 1:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.05)
        return True

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        self.channel.close()


@pytest.fixture(scope="module")
def directory() -> Iterator[Path]:
    # Short: a unix socket's path has at most 107 octets.
    made = Path(tempfile.mkdtemp(prefix="mg-"))
    yield made
    shutil.rmtree(made)


def unix_listener(path: Path) -> socket.socket:
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(path))
    listening.setblocking(False)
    listening.listen(1024)
    return listening


@pytest.fixture(scope="module")
def host(directory: Path) -> Iterator[Host]:
    with unix_listener(directory / "m.sock") as listening:
        started = Host.start(directory, listening)
        yield started
        assert started.process.poll() is None, "the worker died on the way"
        started.end()


@pytest.fixture
def own_directory() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="mg-"))
    yield made
    shutil.rmtree(made)


def notes(replies: Sequence[Packet]) -> dict[str, Any]:
    """What the stand-in noted, from the field that it inserts."""
    (field,) = [data for command, data in replies if command == b"i" and data[4:].startswith(b"X-Events\0")]
    loaded: dict[str, Any] = json.loads(field[4:].split(b"\0")[1])
    return loaded


def do(*orders: str) -> list[tuple[bytes, bytes]]:
    return [(b"X-Do", b" " + order.encode()) for order in orders]


# What arrives


@pytest.mark.attack("P05", "P13")
def test_a_dialogue_in_bytes_event_by_event(host: Host) -> None:
    with host.client() as client:
        client.negotiate()
        assert client.actions == ADDHDRS | CHGHDRS
        assert client.steps & HDR_LEADSPC
        assert client.connect(macros={b"j": b"mx", b"{daemon_name}": b"smtpd"}) == CONTINUE
        assert client.helo() == CONTINUE
        login = {b"{auth_type}": b"PLAIN", b"{auth_authen}": b"bob", b"{mail_addr}": b"b@us.test", b"{x}": b"y"}
        assert client.mail(b"<b\xff@us.test>", login) is None
        assert client.header(b"Subject", b" \xff\n\tfolded") is None
        assert client.header(b"Empty", b"") is None
        assert client.end_of_header() is None
        assert client.body(b"x" * 65_535) is None
        replies = client.end_of_message()
        assert replies[-1] == CONTINUE
        assert notes(replies)["events"] == [
            ["connect", "192.0.2.1", "[('{daemon_name}', b'smtpd')]"],
            ["helo"],
            [
                "mail",
                "<b\xff@us.test>",
                "[('{auth_authen}', b'bob'), ('{auth_type}', b'PLAIN'), ('{mail_addr}', b'b@us.test')]",
            ],
            ["header", "Subject", " \xff\n\tfolded"],
            ["header", "Empty", ""],
            ["end of header"],
            ["body", "65535"],
            ["end of message"],
        ]


@pytest.mark.parametrize(
    ("family", "address", "seen"),
    [
        (b"4", b"198.51.100.66", "198.51.100.66"),
        (b"6", b"2001:db8::1", "2001:db8::1"),
        (b"6", b"::ffff:192.0.2.10", "::ffff:c000:20a"),
        (b"U", b"", "None"),
        (b"L", b"/run/x", "None"),
    ],
    ids=["inet", "inet6", "mapped", "unknown", "unix"],
)
def test_the_address_comes_with_connect(host: Host, family: bytes, address: bytes, seen: str) -> None:
    with host.client() as client:
        client.negotiate()
        assert client.connect(family=family, address=address) == CONTINUE
        assert notes(client.message())["events"][0][1] == seen


def test_two_messages_and_an_abort_in_one_connection(host: Host) -> None:
    with host.client() as client:
        client.open()
        first = notes(client.message([(b"Subject", b" one")]))["events"]
        assert ["header", "Subject", " one"] in first
        client.mail(b"<dropped@evil.test>")
        client.header(b"Subject", b" dropped")
        client.abort()
        second = notes(client.message([(b"Subject", b" two")]))["events"]
        assert ["header", "Subject", " two"] in second
        assert "dropped" not in str(second)
        assert "one" not in str(second)


def test_two_sessions_at_once_do_not_mix(host: Host) -> None:
    with host.client() as one, host.client() as other:
        one.open()
        other.open()
        for client, text in ((one, b" one"), (other, b" other")):
            client.mail(b"<x@evil.test>")
            client.header(b"Subject", text)
        for client, heard in ((other, " other"), (one, " one")):
            client.end_of_header()
            seen = [event for event in notes(client.end_of_message())["events"] if event[0] == "header"]
            assert seen == [["header", "Subject", heard]]


def test_a_question_is_answered_at_the_end(host: Host) -> None:
    with host.client() as client:
        replies = client.open().message(do("question"))
        assert [event[0] for event in notes(replies)["events"]].count("end of message") == 1
        assert replies[-1] == CONTINUE


@pytest.mark.attack("P04")
def test_a_macro_that_is_not_utf8_is_none_and_an_absent_one_is_absent(host: Host) -> None:
    with host.client() as client:
        client.open()
        client.mail(macros={b"{auth_authen}": b"u\xff"})
        client.end_of_header()
        assert notes(client.end_of_message())["events"][2][2] == "[('{auth_authen}', None)]"


# What pymilter cannot decode


@pytest.mark.attack("P02", "E13")
def test_a_helo_that_is_not_utf8_is_answered_451_and_the_session_goes_on(host: Host) -> None:
    with host.client() as client:
        client.negotiate()
        client.connect()
        reply = client.helo(b"\xff\xfe")
        assert reply is not None
        assert reply[0] == b"y"
        assert reply[1].startswith(b"451 4.3.0")
        assert client.helo(b"better.test") == CONTINUE
        assert client.message()[-1] == CONTINUE
    assert host.events_logged("uncaught", place="pymilter")


@pytest.mark.attack("P02")
@pytest.mark.parametrize(("hostname", "family", "address"), [(b"\xff", b"4", b"192.0.2.1"), (b"h", b"L", b"/\xff")])
def test_a_connect_that_cannot_be_decoded_never_ends_in_250(
    host: Host, hostname: bytes, family: bytes, address: bytes
) -> None:
    with host.client() as client:
        client.negotiate()
        reply = client.connect(hostname=hostname, family=family, address=address)
        assert reply is not None
        assert reply[1].startswith(b"451 4.3.0")
        # An MTA that goes on all the same: nothing is known of its client.
        assert client.message()[-1][1].startswith(b"451 4.3.0")
    assert host.has_forgotten_all()


@pytest.mark.attack("P02", "P03", "F10")
def test_a_field_name_that_is_not_utf8_gets_no_250_and_the_next_message_is_served(host: Host) -> None:
    with host.client() as client:
        client.open()
        client.mail()
        client.header(b"X-\xf6", b" y")
        client.end_of_header()
        client.send(b"E")
        client.socket.settimeout(0.5)
        with pytest.raises(TimeoutError):
            client.receive()
        client.socket.settimeout(PATIENCE_S)
        client.abort()
        assert client.message()[-1] == CONTINUE


# What goes wrong in a session

STAGES = ["mail", "header", "end of header", "body", "end of message"]


@pytest.mark.attack("P07", "P09")
@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("fault", ["raise", "exit", "interrupt", "generator", "memory"])
def test_whatever_is_raised_the_message_gets_451_and_the_next_one_is_served(
    host: Host, stage: str, fault: str
) -> None:
    with host.client() as client:
        client.open()
        path = f"<do+{fault}+mail>".encode() if stage == "mail" else b"<x@evil.test>"
        replies = client.message(do(f"{fault} {stage}"), path=path)
        assert [reply[0] for reply in replies] == [b"y"]
        assert replies[0][1] == b"451 4.3.0 mailguard: internal error, please try again later\0"
        assert client.message()[-1] == CONTINUE
    assert host.process.poll() is None


@pytest.mark.attack("P07", "P20")
def test_a_failure_at_connect_is_told_at_the_end_of_each_message(host: Host) -> None:
    with host.client() as client:
        client.negotiate()
        assert client.connect(macros={b"{daemon_name}": b"do raise connect"}) == CONTINUE
        assert client.helo() == CONTINUE
        for _ in range(2):
            assert client.message()[-1][1].startswith(b"451 4.3.0")


@pytest.mark.attack("P07")
def test_a_failure_is_logged_with_its_stage_and_place(own_directory: Path) -> None:
    with unix_listener(own_directory / "m.sock") as listening:
        host = Host.start(own_directory, listening)
        for stage in ("body", "end of message"):
            with host.client() as client:
                client.open().message(do(f"raise {stage}"))
            (line,) = host.events_logged("internal error", stage=stage, error=f"RuntimeError: as told, at {stage}")
            assert "engine_host.py:" in line["place"]
        lines = [(line["queue_id"], line["action"], line["reason"]) for line in host.log() if "action" in line]
        assert lines == [("4QUEUEID", "tempfail", "internal error")] * 2
        host.end()


@pytest.mark.attack("P08")
@pytest.mark.parametrize("stage", ["header", "body"])
def test_true_from_a_session_does_not_reject(host: Host, stage: str) -> None:
    with host.client() as client:
        assert client.open().message(do(f"true {stage}"))[-1] == CONTINUE


@pytest.mark.attack("P08")
@pytest.mark.parametrize("order", ["none", "verdict", "nothing"])
def test_a_conclusion_of_the_wrong_type_is_451(host: Host, order: str) -> None:
    with host.client() as client:
        assert client.open().message(do(order))[-1][1].startswith(b"451 4.3.0")


# What is done


def test_actions_in_their_order(host: Host) -> None:
    with host.client() as client:
        value = b" one\n\ttwo\xc3\xa9"
        replies = client.open().message(do("delete X-Gone 2", f"insert X-New {value.hex()}"))
        assert replies[1] == (b"m", struct.pack("!I", 2) + b"X-Gone\0\0")
        assert replies[2] == (b"i", struct.pack("!I", 0) + b"X-New\0" + value + b"\0")
        assert replies[-1] == CONTINUE


@pytest.mark.attack("P06")
def test_a_value_that_libmilter_cannot_take_is_451(host: Host) -> None:
    with host.client() as client:
        assert client.open().message(do(f"insert X-New {b' ff'.hex()}ff"))[-1][1].startswith(b"451 4.3.0")


@pytest.mark.attack("P16")
@pytest.mark.parametrize(
    ("order", "line"),
    [
        ("reply 550 5.7.1 100% sure %s %n %%", b"550 5.7.1 100%% sure %%s %%n %%%%\0"),
        ("reply 451 4.7.0 later", b"451 4.7.0 later\0"),
        ("reply 550 5.6.0 " + "x" * 480, b"550 5.6.0 " + b"x" * 480 + b"\0"),
    ],
    ids=["percent", "temporary", "long"],
)
def test_replies(host: Host, order: str, line: bytes) -> None:
    with host.client() as client:
        assert client.open().message(do(order))[-1] == (b"y", line)
        assert client.message()[-1] == CONTINUE


def test_one_log_line_a_message(host: Host) -> None:
    with host.client() as client:
        client.open().message()
    line = next(line for line in reversed(host.log()) if "action" in line)
    assert line.items() >= {"queue_id": "4QUEUEID", "from": "x@evil.test", "action": "accept"}.items()
    assert 0 <= line["seconds"] < 60


# Negotiation


@pytest.mark.attack("X09")
@pytest.mark.parametrize("version", [2, 4, 6])
def test_old_protocol_versions_are_served(host: Host, version: int) -> None:
    with host.client() as client:
        client.negotiate(version=version, actions=0x3F, steps=0x7F if version < 6 else POSTFIX_STEPS)
        client.connect()
        client.helo()
        assert client.message()[-1] == CONTINUE


@pytest.mark.attack("X09")
@pytest.mark.parametrize("actions", [ADDHDRS, CHGHDRS, 0x02])
def test_an_mta_without_header_changes_is_refused_at_once(host: Host, actions: int) -> None:
    with host.client() as client, pytest.raises(MilterGone):
        client.negotiate(actions=actions)


@pytest.mark.attack("X09")
def test_that_refusal_is_logged_once(own_directory: Path) -> None:
    with unix_listener(own_directory / "m.sock") as listening:
        host = Host.start(own_directory, listening)
        for _ in range(3):
            with host.client() as client, pytest.raises(MilterGone):
                client.negotiate(actions=ADDHDRS)
        name = "refused an MTA that does not let its milters add and change header fields"
        assert len(host.events_logged(name)) == 1
        host.end()


def test_without_leading_space_values_get_one_and_lose_it_again(own_directory: Path) -> None:
    with unix_listener(own_directory / "m.sock") as listening:
        host = Host.start(own_directory, listening)
        for _ in range(2):
            with host.client() as client:
                client.negotiate(steps=POSTFIX_STEPS & ~HDR_LEADSPC)
                client.connect()
                replies = client.message([(b"Subject", b"x"), *[(b"X-Do", f"insert X-New {b' v'.hex()}".encode())]])
                assert ["header", "Subject", " x"] in notes(replies)["events"]
                assert replies[1] == (b"i", struct.pack("!I", 0) + b"X-New\0v\0")
        name = "the MTA does not tell the space after the colon; simple header canonicalization is a guess"
        assert len(host.events_logged(name)) == 1
        host.end()


@pytest.mark.attack("X10")
def test_a_connection_reused_after_quit_nc_starts_anew(own_directory: Path) -> None:
    with unix_listener(own_directory / "m.sock") as listening:
        host = Host.start(own_directory, listening)
        with host.client() as client:
            client.open().message([(b"Subject", b" old")])
            client.quit_and_reuse()
            assert client.connect(address=b"192.0.2.77") == CONTINUE
            assert client.helo() == CONTINUE
            seen = notes(client.message())
            assert seen["events"][0][1] == "192.0.2.77"
            assert "old" not in str(seen)
            assert seen["alive"] == 1
        host.end()


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
def test_leaving_mtas_do_not_fill_the_log(host: Host) -> None:
    before = len(host.log())
    for _ in range(50):
        with host.client() as client:
            client.open().mail()
    assert host.has_forgotten_all()
    assert len(host.log()) - before <= 2


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


def memory_kb(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise AssertionError("no VmRSS")


@pytest.mark.attack("P11")
def test_sessions_stay_below_the_descriptor_limit(own_directory: Path) -> None:
    limit = 80
    with unix_listener(own_directory / "m.sock") as listening:
        host = Host.start(own_directory, listening, descriptors=limit)
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
def test_a_draining_worker_finishes_and_the_next_one_takes_what_waits(own_directory: Path, word: Word) -> None:
    path = own_directory / "m.sock"
    with unix_listener(path) as listening:
        old = Host.start(own_directory, listening)
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
        new = Host.start(own_directory, listening)
        with late:
            assert late.receive()[0] == b"O"
        assert path.is_socket()
        assert [entry.name for entry in own_directory.iterdir() if entry.name.startswith("worker-")] == []
        new.end()


@pytest.mark.attack("V03", "P15")
def test_a_worker_without_parent_drains_and_signals_do_not_end_one(own_directory: Path) -> None:
    with unix_listener(own_directory / "m.sock") as listening:
        host = Host.start(own_directory, listening)
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


def test_an_inet_listener(own_directory: Path) -> None:
    with socket.socket(socket.AF_INET) as listening:
        listening.bind(("127.0.0.1", 0))
        listening.setblocking(False)
        listening.listen(16)
        host = Host.start(own_directory, listening)
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


@pytest.mark.attack("P21")
def test_a_session_is_given_up_later_than_postfix_gives_up_the_milter() -> None:
    # milter_content_timeout is 300 s; libmilter's own default of two hours keeps dead peers.
    assert 300 < engine_libmilter.SESSION_TIMEOUT_S <= 900


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
