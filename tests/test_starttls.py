"""StartTls: the certificates that a mail server shows, and what becomes of servers that misbehave."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from live_certificates import Issued, authority, server, write_chain
from mailguard.errors import ConfigError
from mailguard.starttls.handshake import MAX_REPLY_BYTES, HandshakeLimits, StartTls
from mailguard.starttls.presented import Handshake, HandshakeStatus
from sandbox_place import free_port
from starttls_site import OFFER, READY, StartTlsSite

HOST = "127.0.0.1"
QUICK = HandshakeLimits(wait_s=0.6, total_s=2.0)
Shown = Callable[..., Handshake]


@pytest.fixture
def shown(tmp_path: Path) -> Shown:
    """What a server with this certificate and this behaviour is seen to do."""

    def look(
        leaf: Issued | None = None,
        *,
        ca_file: str | None = None,
        limits: HandshakeLimits | None = None,
        **behaviour: Any,
    ) -> Handshake:
        chain = write_chain(tmp_path / "chain.pem", leaf) if leaf is not None else None
        with StartTlsSite(HOST, free_port(), chain, **behaviour) as site:
            return StartTls(ca_file=ca_file, limits=limits).shake(HOST, site.port, server_name="mx.us.test")

    return look


def test_the_chain_is_that_which_was_presented(shown: Shown) -> None:
    root = authority("root")
    leaf = server("mx.us.test", issuer=authority("middle", root))
    found = shown(leaf)
    assert (found.status, found.chain) == (HandshakeStatus.DONE, (leaf.der, leaf.above[0].der))
    assert found.protocol.startswith("TLSv1.")
    assert found.cipher


def test_the_name_is_told_and_nothing_else_than_tls_is_asked_for(tmp_path: Path) -> None:
    chain = write_chain(tmp_path / "chain.pem", server("mx.us.test"))
    with StartTlsSite(HOST, free_port(), chain) as site:
        StartTls().shake(HOST, site.port, server_name="mx.us.test")
    assert site.server_names == ["mx.us.test"]
    assert [said.split()[0] for said in site.heard] == [b"EHLO", b"STARTTLS"]


@pytest.mark.parametrize(
    ("days", "is_trusted", "fault"),
    [
        ((-5, 20), True, None),
        ((-5, 20), False, "not trusted"),
        ((-20, -5), True, "expired"),
        ((5, 20), True, "not valid yet"),
    ],
)
def test_what_the_authorities_say(
    shown: Shown, tmp_path: Path, days: tuple[int, int], is_trusted: bool, fault: str | None
) -> None:
    root = authority("root")
    other = authority("other")
    (tmp_path / "ca.pem").write_bytes((root if is_trusted else other).pem)
    found = shown(server("mx.us.test", issuer=root, days=days), ca_file=str(tmp_path / "ca.pem"))
    assert found.status is HandshakeStatus.DONE
    assert (found.authority_fault is None) if fault is None else (fault in str(found.authority_fault))


@pytest.mark.parametrize(
    ("behaviour", "status", "detail"),
    [
        ({"greeting": b"554 no\r\n"}, HandshakeStatus.REFUSED, "it greets with 554 no"),
        ({"greeting": b"hello\r\n"}, HandshakeStatus.TIMED_OUT, "nothing came in time"),
        ({"greeting": b""}, HandshakeStatus.TIMED_OUT, "nothing came in time"),
        ({"greeting": b"220-x\r\n" * MAX_REPLY_BYTES}, HandshakeStatus.SMTP, "more than 16384 octets"),
        ({"offer": b"502 what\r\n"}, HandshakeStatus.REFUSED, "502 what"),
        ({"offer": b"250 mx\r\n"}, HandshakeStatus.NO_STARTTLS, "does not offer STARTTLS"),
        ({"offer": b"250 STARTTLSX\r\n"}, HandshakeStatus.NO_STARTTLS, "does not offer STARTTLS"),
        ({"offer": OFFER + b"250 more\r\n"}, HandshakeStatus.SMTP, "more than it was asked for"),
        ({"ready": b"454 later\r\n"}, HandshakeStatus.NO_STARTTLS, "454 later"),
        ({"ready": READY + b"250 in the clear\r\n"}, HandshakeStatus.SMTP, "more than it was asked for"),
        ({"ready": READY}, HandshakeStatus.TIMED_OUT, "nothing came in time"),
        ({"ready": b"220-go\r\n220 ahead\r\n"}, HandshakeStatus.TIMED_OUT, "nothing came in time"),
    ],
)
def test_servers_that_misbehave(
    shown: Shown, behaviour: dict[str, bytes], status: HandshakeStatus, detail: str
) -> None:
    # Only for what does not come: what comes may take its time.
    limits = QUICK if status is HandshakeStatus.TIMED_OUT else None
    found = shown(None, limits=limits, **behaviour)
    assert (found.status, found.chain) == (status, ())
    assert detail in found.detail


def test_rubbish_in_place_of_tls(shown: Shown) -> None:
    found = shown(None, rubbish=b"HTTP/1.1 400 Bad Request\r\n\r\n")
    assert found.status is HandshakeStatus.TLS
    assert found.detail.startswith("the handshake failed: ")


def test_nobody_listens() -> None:
    assert StartTls(limits=QUICK).shake(HOST, free_port(), server_name="a.test").status is HandshakeStatus.UNREACHABLE


@pytest.mark.parametrize(
    ("number", "status"),
    [(errno.ENETUNREACH, HandshakeStatus.NO_ROUTE), (errno.EHOSTUNREACH, HandshakeStatus.UNREACHABLE)],
)
def test_no_way_there(monkeypatch: pytest.MonkeyPatch, number: int, status: HandshakeStatus) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, "no way")

    monkeypatch.setattr("socket.create_connection", refuse)
    found = StartTls(limits=QUICK).shake("2001:db8::1", 25, server_name="a.test")
    assert (found.status, found.detail) == (status, "no connection: no way")


def test_a_deadline_that_is_over_ends_it_at_once() -> None:
    found = StartTls().shake(HOST, free_port(), server_name="a.test", deadline=time.monotonic() - 1)
    assert found.status is HandshakeStatus.TIMED_OUT


def test_authorities_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nothing here"):
        StartTls(ca_file=str(tmp_path / "nothing here"))
