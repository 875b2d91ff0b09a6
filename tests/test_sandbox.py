"""The sandbox itself (contrib/sandbox*.py): the tests behind Postfix and the demo are worth what it is worth."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import smtplib
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import sandbox
import sandbox_daemon
import sandbox_place
from daemon_process import eventually
from sandbox import PostfixSandbox
from sandbox_daemon import Daemon
from sandbox_place import HOST, SandboxError, free_port, make_public_directory, port_of, processes_in, reserve_port
from sandbox_smtp import login_with_xclient, transmit

IS_ROOT = os.geteuid() == 0
ALICE = "alice@example.org"
BOB = "bob@example.net"
PASSWORD = "correct horse"

pytestmark = [pytest.mark.postfix, pytest.mark.skipif(not IS_ROOT, reason="Postfix needs root")]

FIELDS = b"From: alice@example.org\r\nDate: Sat, 21 Nov 2026 10:00:00 +0000\r\nMessage-ID: <1@example.org>\r\n"
MESSAGE = FIELDS + b"\r\nbody\r\n"

OCTETS = [
    ("plain", MESSAGE),
    ("white space in the header", FIELDS + b"Subject:  two  \r\n\t folds \r\nX-None:x\r\nX-Tab:\tx\r\n\r\nbody\r\n"),
    ("dots", FIELDS + b"\r\n.\r\n..\r\n.dot\r\n"),
    ("8-bit", FIELDS + b"Subject: \xe4\r\n\r\n\xff\xc3\xa4 \t\r\n"),
    ("empty lines", FIELDS + b"\r\n\r\n\r\nbody\r\n\r\n\r\n"),
    ("empty body", FIELDS + b"\r\n"),
]


@pytest.fixture(scope="module")
def postfix() -> Iterator[PostfixSandbox]:
    with PostfixSandbox(users={ALICE: PASSWORD}) as running:
        yield running


@pytest.mark.parametrize("message", [pytest.param(message, id=name) for name, message in OCTETS])
def test_every_octet_is_delivered_through_both_services(postfix: PostfixSandbox, message: bytes) -> None:
    before = postfix.delivered_count()
    queue_id = postfix.submit(message, sender=ALICE, recipients=[BOB], login=ALICE, password=PASSWORD)
    (*_, delivery) = postfix.wait_delivered(before + 1)
    assert (delivery.sender, delivery.recipient) == (ALICE, BOB)
    received, whole = delivery.message.split(b"From: ", 1)
    assert b"From: " + whole == message.replace(b"\r\n", b"\n")
    assert received.count(b"Received: ") == 2
    assert f"with ESMTPA id {queue_id}\n".encode() in received


def test_several_recipients_and_messages_in_one_connection(postfix: PostfixSandbox) -> None:
    before = postfix.delivered_count()
    with postfix.session("inbound") as client:
        first = transmit(client, MESSAGE, sender="", recipients=[BOB, "carol@example.com"])
        second = transmit(client, MESSAGE, sender="x@example.com", recipients=[BOB])
    assert first != second
    found = postfix.wait_delivered(before + 3)[before:]
    assert sorted((each.sender, each.recipient) for each in found) == [
        ("", BOB),
        ("", "carol@example.com"),
        ("x@example.com", BOB),
    ]
    postfix.wait_empty()


@pytest.mark.parametrize(
    ("login", "password", "code"),
    [(None, None, 554), (ALICE, "wrong", 535), ("mallory@example.org", PASSWORD, 535)],
)
def test_submission_wants_a_login(
    postfix: PostfixSandbox, login: str | None, password: str | None, code: int
) -> None:
    with pytest.raises(smtplib.SMTPResponseException) as refused:
        postfix.submit(MESSAGE, sender=ALICE, recipients=[BOB], login=login, password=password)
    assert refused.value.smtp_code == code


@pytest.mark.parametrize("login", [ALICE, "with+plus=and space@example.org"])
def test_xclient_stands_for_a_login(postfix: PostfixSandbox, login: str) -> None:
    before = postfix.delivered_count()
    with postfix.session("submission") as client:
        login_with_xclient(client, login)
        queue_id = transmit(client, MESSAGE, sender=ALICE, recipients=[BOB])
    # The next test counts what is delivered.
    postfix.wait_delivered(before + 1)
    # postlogd(8) may write it later than smtpd(8) answers.
    lines = eventually(lambda: [line for line in postfix.log().splitlines() if f" {queue_id}: client=" in line])
    assert [line.partition("sasl_username=")[2] for line in lines] == [login]


def test_two_run_side_by_side_and_leave_nothing(postfix: PostfixSandbox) -> None:
    with PostfixSandbox(hostname="other.sandbox.test", inbound={"smtpd_banner": "$myhostname ESMTP 2"}) as other:
        assert set(other.ports.values()).isdisjoint(postfix.ports.values())
        before = postfix.delivered_count()
        other.submit(MESSAGE, sender=ALICE, recipients=[BOB], service="inbound")
        (delivery,) = other.wait_delivered(1)
        assert b"by other.sandbox.test" in delivery.message
        assert postfix.delivered_count() == before
        with smtplib.SMTP("127.0.0.1", other.ports["inbound"]) as client:
            assert client.noop()[0] == 250
        assert processes_in(other.directory / "queue")
    assert not processes_in(other.directory / "queue")
    assert not other.directory.exists()
    with pytest.raises(ConnectionRefusedError):
        other.session("inbound")
    assert processes_in(postfix.directory / "queue")


def test_stop_finds_processes_whose_master_was_killed() -> None:
    with PostfixSandbox() as postfix:
        queue = postfix.directory / "queue"
        master = int((queue / "pid" / "master.pid").read_text())
        assert master in processes_in(queue)
        with postfix.session("inbound"):
            os.kill(master, signal.SIGKILL)
            assert set(processes_in(queue)) - {master}
    assert processes_in(queue) == []


def test_what_is_not_delivered_is_told_with_queue_and_log() -> None:
    with PostfixSandbox(inbound={"smtpd_recipient_restrictions": "defer"}, users={ALICE: PASSWORD}) as postfix:
        queue_id = postfix.submit(MESSAGE, sender=ALICE, recipients=[BOB], login=ALICE)
        # postlogd(8) may write it later than the message is found missing.
        eventually(lambda: "postfix/qmgr" in postfix.log())
        with pytest.raises(SandboxError, match=f"0 of 1 messages.*{queue_id}") as told:
            postfix.wait_delivered(1, timeout_s=0.5)
        assert "postfix/qmgr" in str(told.value)
        assert [message["queue_id"] for message in postfix.queue()] == [queue_id]


def test_a_postfix_that_does_not_start_says_why_and_leaves_nothing() -> None:
    postfix = PostfixSandbox(main={"daemon_directory": "/nonexistent"})
    with pytest.raises(SandboxError, match="/nonexistent"):
        postfix.start()
    assert not postfix.directory.exists()


def test_a_port_is_for_one_sandbox(monkeypatch: pytest.MonkeyPatch, postfix: PostfixSandbox) -> None:
    """Postfix would listen on the port of another Postfix, and get some of its connections."""
    with reserve_port() as held:
        mine = port_of(held)
        for taken in (*postfix.ports.values(), mine):
            monkeypatch.setattr(sandbox_place, "PORTS", [taken] * 100)
            with pytest.raises(SandboxError, match="no free port"):
                reserve_port()
    assert free_port() == mine


def test_a_held_port_lets_in_a_server_that_binds_with_reuse() -> None:
    """A database holds its port while it is set up, and while it is down."""
    with reserve_port() as held, socket.socket() as server:
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((HOST, port_of(held)))
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind((HOST, port_of(held)))
        server.listen()
        socket.create_connection((HOST, port_of(held))).close()


def test_without_root_it_says_so() -> None:
    directory = make_public_directory("mailguard-test-")
    try:
        for source in Path(sandbox.__file__).parent.glob("sandbox*.py"):
            shutil.copyfile(source, directory / source.name)
            (directory / source.name).chmod(0o644)
        done = subprocess.run(
            [os.path.realpath(sys.executable), "-c", "import sandbox; sandbox.PostfixSandbox().start()"],
            cwd=directory,
            user="nobody",
            extra_groups=[],
            capture_output=True,
            text=True,
            check=False,
        )
    finally:
        shutil.rmtree(directory)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].endswith("which needs root; run this as root")


# The daemon

ZONE = "$ORIGIN test.\n$TTL 60\n@ IN SOA ns root 1 1 1 1 1\n"


@pytest.mark.parametrize("is_copied", [False, True])
def test_the_daemon_serves_and_leaves_nothing(monkeypatch: pytest.MonkeyPatch, is_copied: bool) -> None:
    """`is_copied`: as from a checkout that the daemon's user cannot read."""
    if is_copied:
        monkeypatch.setattr(sandbox_daemon, "_can_run_checkout", lambda user: False)
    toml = 'authserv_id = "{}"\n[dns]\nzone_file = "zone"\n'
    with Daemon() as daemon:
        (daemon.directory / "zone").write_text(ZONE)
        (daemon.directory / "zone").chmod(0o644)
        daemon.start(toml.format("one.test"))
        workers = daemon.workers()
        assert len(workers) == 2
        for worker in workers:
            assert Path(f"/proc/{worker}").stat().st_uid == pwd.getpwnam("nobody").pw_uid
            is_from_copy = str(daemon.directory / "code").encode() in Path(f"/proc/{worker}/environ").read_bytes()
            assert is_from_copy == (is_copied or not sandbox_daemon._can_run_checkout(daemon.user))
        with PostfixSandbox(main={"smtpd_milters": daemon.milter, "milter_default_action": "tempfail"}) as postfix:
            postfix.submit(MESSAGE, sender=ALICE, recipients=[BOB], service="inbound")
            assert "old configuration" not in daemon.reload(toml.format("two.test"))
            assert "old configuration" in daemon.reload("no_such_key = 1\n")
            postfix.submit(MESSAGE, sender=ALICE, recipients=[BOB], service="inbound")
            found = postfix.wait_delivered(2)
        ids = sorted(each.message.splitlines()[0] for each in found)
        assert ids == [b"Authentication-Results: one.test;", b"Authentication-Results: two.test;"]
        assert daemon.stop() == 0
        daemon.start(toml.format("three.test"))
        assert len(daemon.workers()) == 2
    assert processes_in(daemon.directory) == []
    assert not daemon.directory.exists()


def test_a_daemon_that_does_not_start_says_why() -> None:
    with Daemon() as daemon, pytest.raises(SandboxError, match="no_such_key"):
        daemon.start("no_such_key = 1\n")
    assert not daemon.directory.exists()
