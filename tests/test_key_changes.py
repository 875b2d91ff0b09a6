"""Keys that change every second while mail is signed: each signature is by the key that its s= names.

    MAILGUARD_SOAK_S=600 python -m pytest tests/test_key_changes.py

changes them for ten minutes with each engine; the test suite does so for a few seconds. ATTACKS.md row: V09.
"""

from __future__ import annotations

import os
import re
import threading
import time

import pytest

from daemon_process import Daemon, sign_for_us
from engine_process import per_engine
from mailguard.dkim.result import DkimStatus
from mailguard.dns.zone import ZoneResolver
from mailguard.message import Message
from mailguard.pipeline import verify_dkim

SOAK_S = float(os.environ.get("MAILGUARD_SOAK_S", "6"))
SENDERS = 2
FIELDS = ((b"From", b" <alice@us.test>"), (b"Subject", b" hello"))
BODY = b"hello\r\n"
LOGIN = {b"{auth_authen}": b"alice", b"{auth_type}": b"PLAIN", b"{mail_addr}": b"alice@us.test"}


class Signer:
    """A daemon that signs for us.test, with one key at a time."""

    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon
        self.ended = threading.Event()
        self.signatures: list[bytes] = []
        self.senders_done = 0
        self._records: dict[str, dict[str, list[str]]] = {}

    def change_key(self, number: int) -> None:
        """A key in a file of its own, and a configuration that names it in place of the one before."""
        signing = sign_for_us(self.daemon, f"s{number}", workers=2)
        self._records[signing.public_name] = {"TXT": [signing.record().decode()]}

    def forget_key(self, number: int) -> None:
        (self.daemon.directory / f"s{number}.pem").unlink()

    def send(self) -> None:
        """One message after another, each on a connection of its own, until the end."""
        while not self.ended.is_set():
            with self.daemon.client() as client:
                client.open()
                client.mail(b"<alice@us.test>", LOGIN)
                client.rcpt()
                for name, value in FIELDS:
                    client.header(name, value)
                client.end_of_header()
                client.body(BODY)
                *changes, reply = client.end_of_message()
            assert reply == (b"c", b"")
            (data,) = [data for command, data in changes if command == b"i"]
            self.signatures.append(data[4:].split(b"\0")[1])
        self.senders_done += 1

    def bad_signatures(self) -> list[bytes]:
        """Those with which the message does not pass."""
        zone = ZoneResolver(self._records)
        return [each for each in self.signatures if not self._passes(each, zone)]

    def _passes(self, signature: bytes, zone: ZoneResolver) -> bool:
        fields = ((b"DKIM-Signature", signature), *FIELDS)
        raw = b"".join(b"%b:%b\r\n" % each for each in fields) + b"\r\n" + BODY
        results = verify_dkim(Message.parse(raw), resolver=zone, now=time.time())
        return [each.status for each in results] == [DkimStatus.PASS]


@pytest.mark.attack("V09")
@per_engine
def test_every_signature_is_by_the_key_that_it_names(daemon: Daemon) -> None:
    signer = Signer(daemon)
    signer.change_key(0)
    daemon.started()
    senders = [threading.Thread(target=signer.send) for _ in range(SENDERS)]
    for sender in senders:
        sender.start()
    end = time.monotonic() + SOAK_S
    number = 0
    try:
        while time.monotonic() < end:
            number += 1
            again = time.monotonic() + 1.0
            signer.change_key(number)
            daemon.reload()
            signer.forget_key(number - 1)
            time.sleep(max(0.0, again - time.monotonic()))
    finally:
        signer.ended.set()
    for sender in senders:
        sender.join()
    assert signer.senders_done == SENDERS, "a message was not signed, or its session was lost"
    assert not signer.bad_signatures()
    used = {match[1] for each in signer.signatures if (match := re.search(rb"s=(s\d+);", each))}
    assert len(used) >= number, f"{len(used)} of {number + 1} keys signed"
