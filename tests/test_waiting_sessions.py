"""Sessions that wait: for a DNS that does not answer, for a slow client, for a thread that libmilter cannot start.

The last is reproduced with a limit on the daemon's processes: messages that wait for the DNS take up libmilter's
threads, and the next ones need new threads. The sessions that libmilter then forgets end the worker (P12).
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator

import pytest

from daemon_process import QUICK, Daemon, eventually, limit
from engine_process import only, per_engine
from mailguard_milter.sockets import Stalls
from milter_client import MilterGone

MESSAGES = 16
ATTEMPTS = 5
SESSIONS_AT_ONCE = 60
# libmilter keeps a few threads beyond those that a callback occupies; Python and the resolver have two or three.
FEW_THREADS = 30
SIGNATURE = (
    b" v=1; a=rsa-sha256; c=relaxed/relaxed; d=evil.test; s=s%d; h=from; b=AAAA;"
    b" bh=47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="
)


@pytest.mark.attack("P12")
@pytest.mark.parametrize(
    ("readings", "stalled"),
    [
        ([{1: 5}, {1: 5}, {1: 5}], True),
        ([{1: 5}, {1: 6}, {1: 5}], False),
        ([{1: 5}, {1: 0}, {1: 5}], False),
        ([{1: 5}, {2: 5}, {1: 5}], False),
        ([{1: 0}, {1: 0}, {1: 0}], False),
        ([{1: 5, 2: 0}, {1: 5, 2: 7}, {1: 5, 2: 0}], True),
        ([{}, {}, {}], False),
    ],
    ids=["unchanged", "changed", "read between", "another session", "idle", "one of two", "none"],
)
def test_input_that_waits_unchanged_is_a_stall(readings: list[dict[int, int]], *, stalled: bool) -> None:
    stalls = Stalls(15.0)
    assert [stalls.found(unread, 10.0 * second) for second, unread in enumerate(readings)] == [False, False, stalled]


@pytest.fixture
def silent_dns(daemon: Daemon) -> Iterator[None]:
    """The daemon, with one worker, asks a DNS server that never answers; its deadline is short."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        daemon.configure(listeners=f'[[listeners]]\naddress = "unix:{daemon.socket}"\nworkers = 1\n')
        dns = f'nameservers = ["127.0.0.1"]\nport = {silent.getsockname()[1]}\ndeadline_s = 1'
        daemon.config.write_text(daemon.config.read_text().replace('zone_file = "zone"', dns))
        yield


@pytest.mark.attack("P12")
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as the daemon's user")
@pytest.mark.usefixtures("silent_dns")
@only("libmilter")
@per_engine
def test_a_worker_that_cannot_start_threads_is_replaced(daemon: Daemon) -> None:
    daemon.started(*QUICK)
    (worker,) = daemon.workers()
    limit([worker], "RLIMIT_NPROC", 0)
    # On a busy machine messages come one by one, and one thread serves them all.
    forgotten = any(b"gone" in _messages_at_once(daemon, MESSAGES) for _ in range(ATTEMPTS))
    assert forgotten, "no session was forgotten: the test shows nothing"
    eventually(lambda: "libmilter has stopped reading" in daemon.log())
    eventually(lambda: daemon.workers() not in ([], [worker]))
    with daemon.client() as client:
        client.open()


@pytest.mark.attack("P10")
@pytest.mark.usefixtures("silent_dns")
@per_engine
def test_sixty_messages_at_once_that_wait_for_the_dns_are_all_answered(daemon: Daemon) -> None:
    daemon.started()
    assert _messages_at_once(daemon, SESSIONS_AT_ONCE) == [b"c"] * SESSIONS_AT_ONCE
    # A line is written after the answer.
    eventually(lambda: daemon.log().count('dkim="temperror d=evil.test') == SESSIONS_AT_ONCE)


@pytest.mark.attack("X06")
@per_engine
def test_slow_clients_hold_no_thread(daemon: Daemon) -> None:
    daemon.configure(listeners=f'[[listeners]]\naddress = "unix:{daemon.socket}"\nworkers = 1\n')
    daemon.started()
    (worker,) = daemon.workers()
    slow = [daemon.client() for _ in range(SESSIONS_AT_ONCE)]
    try:
        for client in slow:
            client.open()
            client.mail()
            client.header(b"From", b" x@evil.test")
        with daemon.client() as other:
            assert other.open().message()[-1][0] == b"c"
        # What came all at once had a thread each for a moment.
        eventually(lambda: len(os.listdir(f"/proc/{worker}/task")) < FEW_THREADS)
    finally:
        for client in slow:
            client.socket.close()


def _messages_at_once(daemon: Daemon, count: int) -> list[bytes]:
    """The answers to messages that need a key each: the reply's command octet, or b"gone"."""
    answers: list[bytes] = []
    threads = [threading.Thread(target=_message, args=(daemon, number, answers)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == count
    return answers


def _message(daemon: Daemon, number: int, answers: list[bytes]) -> None:
    with daemon.client() as client:
        client.socket.settimeout(90)
        try:
            client.open()
            client.mail()
            client.header(b"From", b" x@evil.test")
            client.header(b"DKIM-Signature", SIGNATURE % number)
            client.end_of_header()
            answers.append(client.end_of_message()[-1][0])
        except (MilterGone, BrokenPipeError):
            answers.append(b"gone")
