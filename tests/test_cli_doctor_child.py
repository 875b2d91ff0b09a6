"""What doctor finds out as another user: in a child that has given up root, from where that user is."""

from __future__ import annotations

import os
import shutil
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

import pytest

from audit_site import POSTCONF
from mailguard.cli.doctor_child import Person, run_as
from mailguard.cli.doctor_probe import OFFER, probe
from mailguard.config import Listener
from mailguard.setup_host.doctor_cards import Probe, listener_card
from sandbox_place import make_public_directory

pytestmark = [
    pytest.mark.skipif(POSTCONF is None, reason="postconf is not installed"),
    pytest.mark.skipif(os.geteuid() != 0, reason="the daemons of Postfix change their user"),
]


def test_the_child_has_given_up_root() -> None:
    def who() -> dict[str, object]:
        try:
            os.setuid(0)
        except PermissionError:
            return {"ids": [*os.getresuid(), *os.getresgid()], "groups": os.getgroups(), "at": os.getcwd()}
        return {"error": "root again"}

    postfix = Person.named("postfix")
    assert postfix is not None
    found = run_as(postfix, who, timeout_s=60, directory="/usr")
    assert found == {"ids": [postfix.uid] * 3 + [postfix.gid] * 3, "groups": sorted(postfix.groups), "at": "/usr"}
    assert os.geteuid() == 0
    assert Person.named("nobody-such") is None


def test_a_child_that_hangs_or_fails() -> None:
    def fails() -> dict[str, object]:
        raise ValueError("so")

    def hangs() -> dict[str, object]:
        time.sleep(60)
        return {}

    assert run_as(None, fails, timeout_s=60) == {"error": "ValueError: so"}
    assert run_as(None, hangs, timeout_s=0.2) == {"error": "no answer within 0.2 s"}


@contextmanager
def answering(path: Path, reply: bytes | None) -> Iterator[list[bytes]]:
    """A socket whose one connection gets this reply to what it sends; None: it waits for ever."""
    heard: list[bytes] = []
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        path.chmod(0o666)
        listening.listen(1)

        def serve() -> None:
            connection, _ = listening.accept()
            with connection:
                heard.append(connection.recv(100))
                if reply is None:
                    connection.recv(100)
                    return
                # Who hears what he does not understand goes away.
                with suppress(OSError):
                    connection.sendall(reply)
                    connection.shutdown(socket.SHUT_WR)
                    heard.append(connection.recv(100))

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield heard
        thread.join(10)


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (struct.pack(">IBIII", 13, 0x4F, 6, 0x131, 1), Probe(protocol=6, actions=0x131, steps=1)),
        (b"220 mx ESMTP\r\n", Probe(fault="what answers does not speak the milter protocol")),
        (struct.pack(">IB12s", 13, 0x50, b""), Probe(fault="what answers does not speak the milter protocol")),
        (b"", Probe(fault="it closes the connection without an answer")),
        (b"\0\0", Probe(fault="it closes the connection without an answer")),
        (None, Probe(fault="it takes connections, but does not answer within 0.3 s")),
    ],
    ids=["milter", "smtp", "another-command", "nothing", "cut", "silent"],
)
def test_what_answers(monkeypatch: pytest.MonkeyPatch, reply: bytes | None, expected: Probe) -> None:
    """From a chroot, as postfix, by the name that main.cf has."""
    # Only for what does not come: what comes may take its time.
    monkeypatch.setattr("mailguard.cli.doctor_probe.CONNECT_TIMEOUT_S", 0.3 if reply is None else 30.0)
    queue = make_public_directory("mailguard-queue-")
    try:
        with answering(queue / "mg.sock", reply) as heard:
            found = probe("unix", "mg.sock", person=Person.named("postfix"), queue_directory=str(queue), chroot=True)
        assert found == expected
        assert heard[0] == OFFER
        assert expected.fault or heard[1] == b"\0\0\0\1Q"
    finally:
        shutil.rmtree(queue)


@pytest.mark.parametrize(
    ("found", "is_postfix", "mark", "words"),
    [
        (Probe(protocol=6, actions=0x31), True, "ok", "it answers as a milter does"),
        (Probe(protocol=6, actions=0x01), True, "problem", "another milter answers there"),
        (Probe(fault="Permission denied", code="EACCES"), True, "problem", "cannot be reached: Permission denied"),
        (Probe(fault="Permission denied", code="EACCES"), False, "unknown", "whether Postfix may is not known"),
    ],
)
def test_what_is_said_of_a_listener(found: Probe, is_postfix: bool, mark: str, words: str) -> None:
    address = "unix:/run/mailguard/mailguard.sock"
    shown = listener_card(
        Listener(address=address),
        found,
        user="somebody",
        is_postfix=is_postfix,
        is_chrooted=False,
        named=address,
        is_open=False,
    )
    assert (shown.status, shown.children[0].detail.partition(words)[1]) == (mark, words)


@pytest.mark.parametrize(
    ("address", "role", "is_said"),
    [
        ("inet:127.0.0.1:8891", "auto", True),
        ("inet6:[::1]:8891", "sign", True),
        ("inet:127.0.0.1:8891", "verify", False),
        ("unix:/run/mailguard/mailguard.sock", "auto", False),
    ],
)
def test_what_every_user_of_the_host_reaches_is_said(
    address: str, role: Literal["auto", "sign", "verify"], is_said: bool
) -> None:
    listener, found = Listener(address=address, role=role), Probe(protocol=6, actions=0x31)
    shown = listener_card(
        listener, found, user="postfix", is_postfix=True, is_chrooted=False, named=address, is_open=False
    )
    said = [each for each in shown.children if "every user of this host can connect" in each.detail]
    assert (shown.status, bool(said)) == (("note", True) if is_said else ("ok", False))
