"""Keys that change every second while mail is signed: each signature is by the key that its s= names.

    MAILGUARD_SOAK_S=600 python -m pytest tests/test_key_changes.py

changes them for ten minutes with each engine; the test suite does so for a few seconds. ATTACKS.md row: V09.
"""

from __future__ import annotations

import os
import re
import shutil
import threading
import time

import pytest

from daemon_process import USER, Daemon
from engine_process import per_engine
from mailguard.dkim.result import DkimStatus
from mailguard.dkim.signing_key import SigningKey, generate_ed25519
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
        self._records: dict[str, dict[str, list[str]]] = {}

    def change_key(self, number: int) -> None:
        """A file and a configuration that take the place of the ones before; then nothing is left of those."""
        octets = generate_ed25519()
        signing = SigningKey.from_bytes(octets, domain="us.test", selector=f"s{number}")
        self._records[signing.public_name] = {"TXT": [signing.record().decode()]}
        key = self.daemon.directory / f"s{number}.pem"
        key.write_bytes(octets)
        key.chmod(0o600)
        if os.geteuid() == 0:
            shutil.chown(key, USER)
        self.daemon.configure(
            listeners=f'[domains."us.test"]\nselectors = [{{ name = "s{number}", key_file = "{key}" }}]\n'
            f'[[listeners]]\naddress = "unix:{self.daemon.socket}"\nworkers = 2\n'
        )

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
            if reply != (b"c", b""):
                self.signatures.append(reply[1])
                return
            (data,) = [data for command, data in changes if command == b"i"]
            self.signatures.append(data[4:].split(b"\0")[1])

    def bad_signatures(self) -> list[bytes]:
        """Those with which the message does not pass, and replies that refused it."""
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
    while time.monotonic() < end:
        number += 1
        again = time.monotonic() + 1.0
        signer.change_key(number)
        daemon.reload()
        signer.forget_key(number - 1)
        time.sleep(max(0.0, again - time.monotonic()))
    signer.ended.set()
    for sender in senders:
        sender.join()
    assert not signer.bad_signatures()
    used = {match[1] for each in signer.signatures if (match := re.search(rb"s=(s\d+);", each))}
    assert len(used) >= number, f"{len(used)} of {number + 1} keys signed"
