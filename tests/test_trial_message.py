"""The message that `mailguard test` sends: its addresses, and a password on its way to the server."""

from __future__ import annotations

import base64
import ssl
from pathlib import Path
from typing import ClassVar

import pytest

from live_certificates import server, write_chain
from mailguard.cli.trial_message import MailAddress, SmtpPlace, TrialMessage, by_smtp
from mailguard.errors import ConfigError, DomainError
from sandbox_place import free_port
from smtp_receiver import Receiver, receiving


def test_addresses_and_places() -> None:
    assert str(MailAddress.parse("A.b+c@Us.Test")) == "A.b+c@us.test"
    for wrong in (
        "",
        "a",
        "@us.test",
        "a@",
        "a@us test",
        '"a b"@us.test',
        "a..b@us.test",
        "é@us.test",
        f"{'a' * 65}@b.c",
    ):
        with pytest.raises(DomainError):
            MailAddress.parse(wrong)
    rows = {
        "mx.test": ("mx.test", 587, "mx.test:587", False),
        "127.0.0.1:25": ("127.0.0.1", 25, "127.0.0.1:25", True),
        "[::1]:465": ("::1", 465, "[::1]:465", True),
        "localhost": ("localhost", 587, "localhost:587", True),
    }
    for text, expected in rows.items():
        place = SmtpPlace.parse(text)
        assert (place.host, place.port, str(place), place.is_this_host) == expected
    for wrong in ("", "a:b", "a:70000", "::1", "a/b", "a:1:2"):
        with pytest.raises(ValueError, match=r"HOST|port"):
            SmtpPlace.parse(wrong)


def test_a_password_is_not_sent_in_the_clear(monkeypatch: pytest.MonkeyPatch) -> None:
    """To a server elsewhere that offers no TLS. Loopback stands for it."""
    address = MailAddress.parse("a@us.test")
    message = TrialMessage.compose(address, address, host="mx", now=0.0, unique="1")
    monkeypatch.setattr(SmtpPlace, "is_this_host", False)
    with receiving() as port, pytest.raises(ConfigError, match="offers no TLS: the password was not sent"):
        by_smtp(message, SmtpPlace("127.0.0.1", port, "alice", "secret"), helo="mx")
    nobody = by_smtp(message, SmtpPlace("127.0.0.1", free_port()), helo="mx")
    assert "Connection refused" in nobody.fault
    assert nobody.is_unanswered


class Guarded(Receiver):
    """One that offers STARTTLS, and logins within it."""

    chain = Path()
    heard: ClassVar[list[tuple[bool, bytes]]] = []
    """What was said, and whether under TLS."""

    def _talk(self) -> None:
        self.wfile.write(b"220 mx.far.test ESMTP\r\n")
        for line in self.rfile:
            self.heard.append((False, line))
            if line[:4].upper() == b"EHLO":
                self.wfile.write(b"250-mx\r\n250 STARTTLS\r\n")
            elif line[:8].upper() == b"STARTTLS":
                self.wfile.write(b"220 go\r\n")
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                context.load_cert_chain(self.chain)
                self.connection = context.wrap_socket(self.connection, server_side=True)
                self.rfile, self.wfile = self.connection.makefile("rb"), self.connection.makefile("wb", buffering=0)
                self.talk_on()
                return

    def talk_on(self) -> None:
        replies = {b"EHLO": b"250-mx\r\n250 AUTH PLAIN", b"AUTH": b"235 2.7.0 ok", b"DATA": b"354 go"}
        in_data = False
        for line in self.rfile:
            self.heard.append((True, line))
            in_data = in_data and line != b".\r\n"
            if not in_data:
                in_data = line[:4].upper() == b"DATA"
                self.wfile.write(replies.get(line[:4].upper(), b"250 2.0.0 Ok: queued as 4jWxfC38sBzLxYH") + b"\r\n")


def test_a_password_is_sent_under_tls_that_is_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Guarded, "chain", write_chain(tmp_path / "chain.pem", server("mx.far.test")))
    monkeypatch.setattr(Guarded, "heard", [])
    address = MailAddress.parse("a@us.test")
    message = TrialMessage.compose(address, address, host="mx", now=0.0, unique="1")
    with receiving(Guarded) as port:
        # Between this host and itself is nobody: whatever its certificate is.
        place = SmtpPlace("127.0.0.1", port, "alice", "secret")
        done = by_smtp(message, place, helo="mx")
        assert (done.fault, done.code, done.queue_id) == ("", 0, "4jWxfC38sBzLxYH")
        login = base64.b64encode(b"\0alice\0secret")
        assert [is_secret for is_secret, line in Guarded.heard if login in line] == [True]
        Guarded.heard.clear()
        monkeypatch.setattr(SmtpPlace, "is_this_host", False)
        done = by_smtp(message, place, helo="mx")
    assert f"TLS with 127.0.0.1:{port} fails: CERTIFICATE_VERIFY_FAILED" in done.fault
    assert not done.is_unanswered
    assert not [line for _, line in Guarded.heard if line[:4].upper() in (b"AUTH", b"MAIL")]
