"""A worker that gets no more memory: no message passes without its verdict or signature, and it recovers alone.

The kernel refuses it what it asks for (RLIMIT_AS): in Python, in its libraries, for threads. ATTACKS.md row: V16.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from daemon_process import QUICK, Daemon, eventually, limit, sign_for_us
from engine_process import per_engine
from mailguard.dkim.result import DkimStatus
from mailguard.dns.zone import ZoneResolver
from mailguard.message import Message
from mailguard.pipeline import verify_dkim
from milter_client import MilterClient, MilterGone

Fields = list[tuple[bytes, bytes]]

SESSIONS = 24
LONGEST_WAIT_S = 60.0
# Signed all, so that a signature tells one that was lost.
LARGE = [(b"From", b" <alice@us.test>"), *[(b"Cc", b" <%d@a.test>, %b" % (n, b"x" * 7_000)) for n in range(25)]]
PART = b"y" * 65_533 + b"\r\n"
SMALL = [(b"From", b" <alice@us.test>")]
LOGIN = {b"{auth_authen}": b"alice", b"{auth_type}": b"PLAIN", b"{mail_addr}": b"alice@us.test"}


class Site:
    """A daemon with one worker, which signs for us.test."""

    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon
        signing = sign_for_us(daemon)
        self._zone = ZoneResolver({signing.public_name: {"TXT": [signing.record().decode()]}})
        daemon.started(*QUICK)
        (self.worker,) = daemon.workers()

    def limit_memory(self, more: int) -> None:
        """To what the worker has, and so much more."""
        size = int(Path(f"/proc/{self.worker}/statm").read_text().split()[0]) * os.sysconf("SC_PAGESIZE")
        limit([self.worker], "RLIMIT_AS", size + more)

    def ours(self, fields: Fields, parts: list[bytes], before_end: Callable[[], object] = lambda: None) -> str:
        """What becomes of our own user's message: if it passes, its signature must be good."""
        with self.daemon.client() as client:
            client.open()
            client.mail(b"<alice@us.test>", LOGIN)
            inserted = _rest(client, fields, parts, before_end)
            if inserted is None:
                return "451"
            (signature,) = [value for name, value in inserted if name == b"DKIM-Signature"]
        header = [(b"DKIM-Signature", signature), *fields]
        raw = b"".join(b"%b:%b\r\n" % each for each in header) + b"\r\n" + b"".join(parts)
        (result,) = verify_dkim(Message.parse(raw), resolver=self._zone, now=time.time())
        assert result.status is DkimStatus.PASS, result.detail
        return "250"

    def others(self, fields: Fields, parts: list[bytes], before_end: Callable[[], object] = lambda: None) -> str:
        """What becomes of a stranger's message: if it passes, it has its results."""
        with self.daemon.client() as client:
            client.open()
            client.mail()
            inserted = _rest(client, fields, parts, before_end)
            if inserted is None:
                return "451"
            assert [name for name, _ in inserted] == [b"Authentication-Results"]
            return "250"


def _rest(
    client: MilterClient, fields: Fields, parts: list[bytes], before_end: Callable[[], object]
) -> Fields | None:
    """The fields that are inserted; None for a message that is to come again."""
    client.rcpt()
    for name, value in fields:
        client.header(name, value)
    client.end_of_header()
    for part in parts:
        client.body(part)
    before_end()
    *changes, (reply, text) = client.end_of_message()
    if reply != b"c":
        assert reply == b"t" or (reply == b"y" and text.startswith(b"451 ")), (reply, text)
        return None
    pairs = [data[4:].rstrip(b"\0").split(b"\0") for command, data in changes if command == b"i"]
    return [(name, value) for name, value in pairs]


class Together:
    """Messages of which none ends before all have begun: on a busy machine they would follow each other."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self._barrier = threading.Barrier(SESSIONS, timeout=LONGEST_WAIT_S)

    def send(self, send: Callable[[Fields, list[bytes], Callable[[], object]], str]) -> None:
        try:
            self.told.append(send(LARGE, [PART] * 12, self._await_the_others))
        except (MilterGone, BrokenPipeError, ConnectionResetError):
            # Postfix tells its client to come again.
            self.told.append("gone")
            self._barrier.abort()

    def _await_the_others(self) -> None:
        with suppress(threading.BrokenBarrierError):
            self._barrier.wait()


@pytest.mark.attack("V16")
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as the daemon's user")
@pytest.mark.parametrize("more", [0, 1 << 20, 4 << 20], ids=["nothing", "1 MB", "4 MB"])
@per_engine
def test_no_message_passes_unjudged_for_want_of_memory(daemon: Daemon, more: int) -> None:
    site = Site(daemon)
    assert site.ours(SMALL, []) == "250"
    site.limit_memory(more)
    together = Together()
    threads = [
        threading.Thread(target=together.send, args=(site.ours if number % 2 else site.others,))
        for number in range(SESSIONS)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(together.told) == SESSIONS, "one that passed as it should not have is told above"
    assert more > 1 << 20 or set(together.told) != {"250"}, "memory was not scarce"

    def has_recovered() -> bool:
        try:
            return site.ours(SMALL, []) == "250"
        except (MilterGone, BrokenPipeError, ConnectionResetError):
            return False

    eventually(has_recovered)
