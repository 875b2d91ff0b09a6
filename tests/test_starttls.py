"""StartTls: the certificates that a mail server shows, and what becomes of servers that misbehave."""

from __future__ import annotations

import errno
import re
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from cryptography.x509.oid import ExtendedKeyUsageOID

from live_certificates import Issued, authority, server, write_chain
from mailguard.errors import ConfigError
from mailguard.starttls.handshake import MAX_HANDSHAKE_BYTES, MAX_REPLY_BYTES, HandshakeLimits, StartTls
from mailguard.starttls.presented import Handshake, HandshakeStatus
from sandbox_place import free_port
from starttls_site import OFFER, READY, StartTlsSite

CLIENT_AUTH = ExtendedKeyUsageOID.CLIENT_AUTH
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
    # Its log would have a lost connection.
    assert site.heard_in_tls == [b"QUIT\r\n"]


@pytest.mark.parametrize(
    ("own_name", "address", "said"),
    [
        ("mx.here.test", HOST, b"mx.here.test"),
        # RFC 5321 §4.1.4: "an address literal [...] SHOULD be used" where there is no name.
        ("mx", HOST, b"[127.0.0.1]"),
        ("localhost.localdomain", HOST, b"[127.0.0.1]"),
        ("m\u00fcnchen.test", HOST, b"[127.0.0.1]"),
        ("mx", "::1", b"[IPv6:::1]"),
    ],
)
def test_who_says_ehlo(monkeypatch: pytest.MonkeyPatch, own_name: str, address: str, said: bytes) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: own_name)
    with ExitStack() as stack:
        try:
            site = stack.enter_context(StartTlsSite(address, free_port(), None, offer=b"250 mx\r\n"))
        except OSError:
            pytest.skip("there is no IPv6 loopback here")
        StartTls().shake(address, site.port, server_name="mx.us.test")
    assert site.heard[0] == b"EHLO " + said + b"\r\n"


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


def test_the_authorities_of_the_system_count_where_none_are_named(
    shown: Shown, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = authority("root")
    leaf = server("mx.us.test", issuer=root)
    assert shown(leaf).authority_fault is not None
    (tmp_path / "ca.pem").write_bytes(root.pem)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    assert shown(leaf).authority_fault is None


ROOT, OTHER = authority("root"), authority("other")
WEAK = authority("weak", ROOT, rsa_bits=1024)


@pytest.mark.parametrize(
    ("leaf", "fault"),
    [
        (server("mx.us.test"), "certificate 0: it is signed by itself, and is not trusted"),
        (server("mx.us.test", issuer=OTHER), "certificate 0: its issuer is not trusted, or is missing in the chain"),
        (
            server("mx.us.test", issuer=Issued(OTHER.certificate, OTHER.key, (ROOT,))),
            "certificate 1: an authority that is not trusted has signed itself",
        ),
        # It has signed what it may not: 79 since OpenSSL 3.0.
        (server("mx.us.test", issuer=server("www.us.test", issuer=ROOT)), "certificate 1: it is no authority"),
        (server("mx.us.test", issuer=ROOT, purposes=[CLIENT_AUTH]), "certificate 0: it is not for servers"),
        (server("mx.us.test", issuer=ROOT, rsa_bits=1024), "certificate 0: its key is too small"),
        (server("mx.us.test", issuer=WEAK), "certificate 1: the key of its issuer is too small"),
    ],
    ids=["itself", "unknown", "other-root", "no-authority", "for-clients", "small-key", "small-key-above"],
)
def test_the_words_of_a_fault(shown: Shown, tmp_path: Path, leaf: Issued, fault: str) -> None:
    (tmp_path / "ca.pem").write_bytes(ROOT.pem)
    assert shown(leaf, ca_file=str(tmp_path / "ca.pem")).authority_fault == fault


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
    # OpenSSL's words, of which there are others in other versions, and nothing of a list of tuples.
    assert re.fullmatch("the handshake failed: [a-z ]+", found.detail)


@pytest.mark.parametrize(
    ("at", "status", "detail"),
    [
        (b"EHLO ", HandshakeStatus.SMTP, "the connection was closed before TLS"),
        (b"STARTTLS", HandshakeStatus.SMTP, "the connection was closed before TLS"),
        (b"\x16", HandshakeStatus.TLS, "the connection was closed during the handshake"),
    ],
    ids=["ehlo", "starttls", "tls"],
)
def test_servers_that_hang_up(shown: Shown, at: bytes, status: HandshakeStatus, detail: str) -> None:
    found = shown(None, hangs_up_at=at)
    assert (found.status, found.detail) == (status, detail)


@pytest.mark.parametrize(
    ("at", "status"), [(b"EHLO ", HandshakeStatus.SMTP), (b"\x16", HandshakeStatus.TLS)], ids=["ehlo", "tls"]
)
def test_servers_that_reset(shown: Shown, at: bytes, status: HandshakeStatus) -> None:
    found = shown(None, hangs_up_at=at, resets=True)
    assert (found.status, found.detail) == (status, "the connection was lost: Connection reset by peer")


def test_a_handshake_without_end(shown: Shown) -> None:
    """A client has to ignore each HelloRequest during the handshake (RFC 5246 §7.4.1.1)."""
    record = b"\x16\x03\x03\x40\x00" + bytes(16_384)
    found = shown(None, rubbish=record * (MAX_HANDSHAKE_BYTES // len(record) + 1))
    assert (found.status, found.detail) == (HandshakeStatus.TLS, "the handshake has more than 262144 octets")


def test_a_drip_ends_with_the_time_for_all(shown: Shown) -> None:
    begun = time.monotonic()
    limits = HandshakeLimits(wait_s=10.0, total_s=0.5)
    found = shown(None, greeting=b"220-x\r\n" * 200, pause_s=0.02, limits=limits)
    assert found.status is HandshakeStatus.TIMED_OUT
    assert time.monotonic() - begun < 10


def test_silence_ends_with_the_time_for_one_wait(shown: Shown) -> None:
    begun = time.monotonic()
    found = shown(None, greeting=b"", limits=HandshakeLimits(wait_s=0.2, total_s=60.0))
    assert (found.status, found.detail) == (HandshakeStatus.TIMED_OUT, "nothing came in time")
    assert time.monotonic() - begun < 30


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


def test_no_connection_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []

    def wait(*_: object, timeout: float) -> None:
        waited.append(timeout)
        raise TimeoutError

    monkeypatch.setattr("socket.create_connection", wait)
    found = StartTls(limits=QUICK).shake("192.0.2.1", 25, server_name="a.test")
    assert (found.status, found.detail) == (HandshakeStatus.TIMED_OUT, "no connection in time")
    assert waited == [QUICK.wait_s]


def test_a_deadline_that_is_over_ends_it_at_once() -> None:
    found = StartTls().shake(HOST, free_port(), server_name="a.test", deadline=time.monotonic() - 1)
    assert (found.status, found.detail) == (HandshakeStatus.TIMED_OUT, "the time for it is over")


def test_authorities_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nothing here"):
        StartTls(ca_file=str(tmp_path / "nothing here"))
