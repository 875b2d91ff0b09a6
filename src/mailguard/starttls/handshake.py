"""StartTls: shake hands with a mail server and take down its certificates. The only importer of pyOpenSSL.

RFC 3207 §4 (STARTTLS), RFC 7672 §8.1 (the name in SNI). Python's own ssl gives out the chain as it was verified, or
nothing where it was not; what DANE compares is the chain as it was presented. Nothing is refused here: the caller
judges. Every wait, reply and handshake has a bound. Left out: TLS from the start (port 465), certificates of our own.
A StartTls is safe to share between threads; `shake` blocks.
"""

from __future__ import annotations

import errno
import re
import socket
import ssl
import time
from dataclasses import dataclass, replace

from mailguard.errors import ConfigError, MissingExtraError, install_command
from mailguard.starttls.presented import Handshake, HandshakeStatus

try:
    from OpenSSL import SSL, crypto
except ModuleNotFoundError as error:
    raise MissingExtraError(
        f"looking at the certificates of mail servers needs pyOpenSSL; install it with: {install_command('dane')}"
    ) from error

__all__ = ["HandshakeLimits", "StartTls"]

# RFC 5321 §4.5.3.1.5 gives a line 512 octets; the replies to EHLO have about twenty lines.
MAX_REPLY_BYTES = 16_384
# OpenSSL takes 100 kB for a chain; a handshake with a post-quantum key has a few kB beside it.
MAX_HANDSHAKE_BYTES = 262_144
# What a chain can have that OpenSSL has taken in is some hundred empty certificates.
MAX_CERTIFICATES = 32
MAX_QUOTED_CHARS = 200
_CHUNK = 16_384
_NO_ROUTE = frozenset({errno.ENETUNREACH, errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT})
_LAST_LINE = re.compile(rb"[2-5][0-9]{2}(?: [^\r\n]*)?\r?\n")
_STARTTLS = re.compile(rb"^250[- ]STARTTLS[ \t]*\r?$", re.IGNORECASE | re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class HandshakeLimits:
    """In seconds. Mail servers that greet late to keep spam off take up to about ten."""

    wait_s: float = 15.0
    """For a connection, and for each further piece of a reply."""
    total_s: float = 30.0


class _Ended(Exception):
    """It goes no further."""

    def __init__(self, status: HandshakeStatus, detail: str) -> None:
        super().__init__(detail)
        self.status = status


class StartTls:
    """Shakes hands with servers, one in each call."""

    def __init__(self, *, ca_file: str | None = None, limits: HandshakeLimits | None = None) -> None:
        """`ca_file`: PEM certificates to trust in place of the system's. Raises ConfigError."""
        self._limits = limits or HandshakeLimits()
        self._context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        places = ssl.get_default_verify_paths()
        try:
            if ca_file is not None:
                self._context.load_verify_locations(ca_file)
            elif places.cafile or places.capath:
                self._context.load_verify_locations(places.cafile, places.capath)
        except SSL.Error as error:
            raise ConfigError(f"{ca_file or places.cafile}: the certificates to trust cannot be read") from error
        self._context.set_verify(SSL.VERIFY_PEER, _take_down)

    def shake(self, address: str, port: int, *, server_name: str, deadline: float | None = None) -> Handshake:
        """What the server at `address` does and shows; `server_name` goes into SNI.

        `deadline` is a reading of `time.monotonic()`, beside the limits.
        """
        made = Handshake(address=address, port=port, status=HandshakeStatus.DONE, detail="")
        end = time.monotonic() + self._limits.total_s
        talk = _Talk(min(end, deadline) if deadline is not None else end, self._limits.wait_s)
        try:
            with talk.connect(address, port):
                talk.begin_tls(_own_name())
                return self._presented(talk, made, server_name)
        except _Ended as ended:
            return replace(made, status=ended.status, detail=str(ended))

    def _presented(self, talk: _Talk, made: Handshake, server_name: str) -> Handshake:
        connection = SSL.Connection(self._context, None)
        faults: list[str] = []
        connection.set_app_data(faults)
        connection.set_tlsext_host_name(server_name.encode("ascii"))
        connection.set_connect_state()
        talk.shake(connection)
        presented = (connection.get_peer_cert_chain() or [])[:MAX_CERTIFICATES]
        chain = tuple(crypto.dump_certificate(crypto.FILETYPE_ASN1, each) for each in presented)
        protocol, cipher = connection.get_protocol_version_name(), connection.get_cipher_name() or ""
        talk.leave(connection)
        return replace(
            made,
            detail=f"{protocol}, {cipher}",
            chain=chain,
            protocol=protocol,
            cipher=cipher,
            authority_fault=faults[0] if faults else None,
        )


def _take_down(connection: SSL.Connection, _certificate: crypto.X509, fault: int, depth: int, is_valid: int) -> bool:
    """What OpenSSL finds wrong, the first first; and go on."""
    if not is_valid:
        words = _WORDS.get(fault, f"OpenSSL's error {fault}")
        connection.get_app_data().append(f"certificate {depth}: {words}")
    return True


# X509_V_ERR_* of OpenSSL (x509_vfy.h), those that are met; pyOpenSSL does not tell the words of a number.
_WORDS = {
    9: "it is not valid yet",
    10: "it has expired",
    18: "it is signed by itself, and is not trusted",
    19: "an authority that is not trusted has signed itself",
    20: "its issuer is not trusted, or is missing in the chain",
    21: "its issuer is missing in the chain",
    26: "it is not for servers",
    66: "its key is too small",
    67: "the key of its issuer is too small",
    68: "its signature is by a weak digest",
    79: "it is no authority",
}


class _Talk:
    """A connection with its deadline."""

    def __init__(self, deadline: float, wait_s: float) -> None:
        self._deadline, self._wait_s = deadline, wait_s
        # What it is to lose the connection.
        self._loss = HandshakeStatus.SMTP
        self._socket: socket.socket

    def connect(self, address: str, port: int) -> socket.socket:
        try:
            self._socket = socket.create_connection((address, port), timeout=self._patience())
        except TimeoutError:
            raise _Ended(HandshakeStatus.TIMED_OUT, "no connection in time") from None
        except OSError as error:
            status = HandshakeStatus.NO_ROUTE if error.errno in _NO_ROUTE else HandshakeStatus.UNREACHABLE
            raise _Ended(status, f"no connection: {error.strerror or error}") from None
        return self._socket

    def begin_tls(self, own_name: str) -> None:
        """All that is said in the clear."""
        greeting = self._reply()
        if not greeting.startswith(b"2"):
            raise _Ended(HandshakeStatus.REFUSED, f"it greets with {_quoted(greeting)}")
        offered = self._ask(f"EHLO {own_name or self._literal()}")
        if not offered.startswith(b"2"):
            raise _Ended(HandshakeStatus.REFUSED, f"it says to EHLO: {_quoted(offered)}")
        if _STARTTLS.search(offered) is None:
            raise _Ended(HandshakeStatus.NO_STARTTLS, "it does not offer STARTTLS")
        answer = self._ask("STARTTLS")
        if not answer.startswith(b"220"):
            raise _Ended(HandshakeStatus.NO_STARTTLS, f"it says to STARTTLS: {_quoted(answer)}")

    def shake(self, connection: SSL.Connection) -> None:
        self._loss = HandshakeStatus.TLS
        received = 0
        while True:
            try:
                connection.do_handshake()
            except SSL.WantReadError:
                self._flush(connection)
            except SSL.Error as error:
                self._flush(connection, is_last=True)
                raise _Ended(HandshakeStatus.TLS, f"the handshake failed: {_reason(error)}") from None
            else:
                break
            octets = self._receive()
            received += len(octets)
            if not octets:
                raise _Ended(HandshakeStatus.TLS, "the connection was closed during the handshake")
            if received > MAX_HANDSHAKE_BYTES:
                raise _Ended(HandshakeStatus.TLS, f"the handshake has more than {MAX_HANDSHAKE_BYTES} octets")
            connection.bio_write(octets)
        self._flush(connection)

    def leave(self, connection: SSL.Connection) -> None:
        """Say goodbye, so that the server's log has no lost connection; nobody waits for the answer."""
        try:
            connection.send(b"QUIT\r\n")
        except SSL.Error:
            return
        self._flush(connection, is_last=True)

    def _ask(self, line: str) -> bytes:
        self._send(line.encode("ascii") + b"\r\n")
        return self._reply()

    def _reply(self) -> bytes:
        """One reply, all its lines."""
        text = b""
        while not _is_whole(text):
            octets = self._receive()
            text += octets
            if not octets:
                raise _Ended(HandshakeStatus.SMTP, "the connection was closed before TLS")
            if len(text) > MAX_REPLY_BYTES:
                raise _Ended(HandshakeStatus.SMTP, f"a reply has more than {MAX_REPLY_BYTES} octets")
        # What stands behind a reply in the clear would be taken for something said under TLS (CVE-2011-0411).
        if any(line[3:4] != b"-" for line in text.splitlines()[:-1]):
            raise _Ended(HandshakeStatus.SMTP, f"it says more than it was asked for: {_quoted(text)}")
        return text

    def _receive(self) -> bytes:
        self._socket.settimeout(self._patience())
        try:
            return self._socket.recv(_CHUNK)
        except TimeoutError:
            raise _Ended(HandshakeStatus.TIMED_OUT, "nothing came in time") from None
        except OSError as error:
            raise _Ended(self._loss, f"the connection was lost: {error.strerror or error}") from None

    def _send(self, octets: bytes) -> None:
        self._socket.settimeout(self._patience())
        try:
            self._socket.sendall(octets)
        except TimeoutError:
            raise _Ended(HandshakeStatus.TIMED_OUT, "it reads nothing") from None
        except OSError as error:
            raise _Ended(self._loss, f"the connection was lost: {error.strerror or error}") from None

    def _flush(self, connection: SSL.Connection, *, is_last: bool = False) -> None:
        """Send what OpenSSL has to say. What is last may get lost."""
        try:
            while True:
                self._send(connection.bio_read(_CHUNK))
        except SSL.WantReadError:
            return
        except _Ended:
            if not is_last:
                raise

    def _patience(self) -> float:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise _Ended(HandshakeStatus.TIMED_OUT, "the time for it is over")
        return min(left, self._wait_s)

    def _literal(self) -> str:
        """RFC 5321 §4.1.4: a client without a name gives its address."""
        address: str = self._socket.getsockname()[0]
        return f"[IPv6:{address}]" if ":" in address else f"[{address}]"


def _is_whole(text: bytes) -> bool:
    return text.endswith(b"\n") and _LAST_LINE.fullmatch(text, text.rfind(b"\n", 0, -1) + 1) is not None


def _own_name() -> str:
    name = socket.gethostname()
    return name if name.isascii() and "." in name and not name.startswith("localhost") else ""


def _quoted(reply: bytes) -> str:
    return reply.strip().decode("ascii", "backslashreplace")[:MAX_QUOTED_CHARS]


def _reason(error: SSL.Error) -> str:
    found = error.args[0] if error.args else None
    if isinstance(found, list) and found:
        return str(found[-1][-1])
    return "the connection was closed" if isinstance(error, SSL.SysCallError | SSL.ZeroReturnError) else str(error)
