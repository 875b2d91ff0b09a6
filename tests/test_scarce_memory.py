"""A worker that gets no more memory: no message passes without its verdict or signature, and it recovers alone.

The kernel refuses it what it asks for (RLIMIT_AS): in Python, in its libraries, for threads. ATTACKS.md row: V16.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from daemon_process import QUICK, Daemon, eventually, limit, sign_for_us
from engine_process import per_engine
from mailguard.dkim.result import DkimStatus
from mailguard.dns.zone import ZoneResolver
from mailguard.message import Message
from mailguard.pipeline import verify_dkim
from milter_client import MilterClient, MilterGone

SESSIONS = 24
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

    def ours(self, fields: list[tuple[bytes, bytes]], parts: list[bytes]) -> str:
        """What becomes of our own user's message: if it passes, its signature must be good."""
        with self.daemon.client() as client:
            client.open()
            client.mail(b"<alice@us.test>", LOGIN)
            inserted = _rest(client, fields, parts)
            if inserted is None:
                return "451"
            (signature,) = [value for name, value in inserted if name == b"DKIM-Signature"]
        header = [(b"DKIM-Signature", signature), *fields]
        raw = b"".join(b"%b:%b\r\n" % each for each in header) + b"\r\n" + b"".join(parts)
        (result,) = verify_dkim(Message.parse(raw), resolver=self._zone, now=time.time())
        assert result.status is DkimStatus.PASS, result.detail
        return "250"

    def others(self, fields: list[tuple[bytes, bytes]], parts: list[bytes]) -> str:
        """What becomes of a stranger's message: if it passes, it has its results."""
        with self.daemon.client() as client:
            client.open()
            client.mail()
            inserted = _rest(client, fields, parts)
            if inserted is None:
                return "451"
            assert [name for name, _ in inserted] == [b"Authentication-Results"]
            return "250"


def _rest(
    client: MilterClient, fields: list[tuple[bytes, bytes]], parts: list[bytes]
) -> list[tuple[bytes, bytes]] | None:
    """The fields that are inserted; None for a message that is to come again."""
    client.rcpt()
    for name, value in fields:
        client.header(name, value)
    client.end_of_header()
    for part in parts:
        client.body(part)
    *changes, (reply, text) = client.end_of_message()
    if reply != b"c":
        assert reply == b"t" or (reply == b"y" and text.startswith(b"451 ")), (reply, text)
        return None
    pairs = [data[4:].rstrip(b"\0").split(b"\0") for command, data in changes if command == b"i"]
    return [(name, value) for name, value in pairs]


def _outcome(send: Callable[[list[tuple[bytes, bytes]], list[bytes]], str], told: list[str]) -> None:
    try:
        told.append(send(LARGE, [PART] * 12))
    except (MilterGone, BrokenPipeError, ConnectionResetError):
        # Postfix tells its client to come again.
        told.append("gone")


@pytest.mark.attack("V16")
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as the daemon's user")
@pytest.mark.parametrize("more", [0, 1 << 20, 4 << 20], ids=["nothing", "1 MB", "4 MB"])
@per_engine
def test_no_message_passes_unjudged_for_want_of_memory(daemon: Daemon, more: int) -> None:
    site = Site(daemon)
    assert site.ours(SMALL, []) == "250"
    site.limit_memory(more)
    told: list[str] = []
    threads = [
        threading.Thread(target=_outcome, args=(site.ours if number % 2 else site.others, told))
        for number in range(SESSIONS)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(told) == SESSIONS, "one that passed as it should not have is told above"
    assert more > 1 << 20 or set(told) != {"250"}, "memory was not scarce"
    again: list[str] = []

    def has_recovered() -> bool:
        _outcome(lambda *_: site.ours(SMALL, []), again)
        return again[-1] == "250"

    eventually(has_recovered)
