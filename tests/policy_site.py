"""A policy host on loopback: real HTTPS, with certificates of an authority of its own, as good or bad as a test asks.

`Authority` issues certificates, good ones and others. `PolicySite` serves one of them and does with each connection
what a test tells it to: a behaviour is a function of the connection that writes octets of HTTP, whole or not.
"""

from __future__ import annotations

import socket
import ssl
import subprocess
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_network
from pathlib import Path
from types import TracebackType
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from mailguard.dns.answers import Resolver
from mailguard.dns.zone import ZoneResolver
from mailguard.domain import Domain
from mailguard.mtasts.fetch import FetchLimits, PolicyFetcher
from mailguard.mtasts.result import FetchOutcome

__all__ = [
    "DOMAIN",
    "HOST",
    "LOOPBACK",
    "POLICY",
    "Authority",
    "Behaviour",
    "Connection",
    "PolicySite",
    "fetched",
    "reply",
]

DOMAIN = Domain.parse("good.test")
HOST = f"mta-sts.{DOMAIN}"
LOOPBACK = (ip_network("127.0.0.0/8"), ip_network("::1/128"))
POLICY = b"version: STSv1\r\nmode: enforce\r\nmx: mail.good.test\r\nmax_age: 604800\r\n"
PATIENCE_S = 30.0


@dataclass
class Connection:
    """What a behaviour has: the TLS connection, the request that came, and whether the test is over."""

    tls: ssl.SSLSocket
    request: bytes
    over: threading.Event

    def send(self, octets: bytes) -> None:
        self.tls.sendall(octets)

    def drip(self, octets: bytes, *, every_s: float = 0.1) -> None:
        """One octet at a time."""
        for octet in octets:
            if self.over.wait(every_s):
                return
            self.send(bytes([octet]))


Behaviour = Callable[[Connection], None]


def reply(
    body: bytes = POLICY, *, status: str = "200 OK", media_type: str | None = "text/plain", fields: str = ""
) -> Behaviour:
    """A whole reply with its length. `fields`: further header fields, each with CRLF."""
    head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{fields}"
    if media_type is not None:
        head += f"Content-Type: {media_type}\r\n"
    return lambda connection: connection.send(f"{head}\r\n".encode("latin-1") + body)


class Authority:
    """A certificate authority in a directory of its own."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._made = 0
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name("authority of a test")
        certificate = (
            _builder(self._name, self._name, self._key, days=(-10, 10))
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self.ca_file = self._write("authority.pem", certificate.public_bytes(serialization.Encoding.PEM))

    def issue(
        self,
        *names: str,
        common_name: str = "somebody",
        days: tuple[int, int] = (-1, 5),
        is_self_signed: bool = False,
    ) -> str:
        """A file with a key and a certificate for the DNS names `names`, valid over `days` from today."""
        key = ec.generate_private_key(ec.SECP256R1())
        issuer = _name(common_name) if is_self_signed else self._name
        builder = _builder(_name(common_name), issuer, key, days=days)
        if names:
            builder = builder.add_extension(
                x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False
            )
        certificate = builder.sign(key if is_self_signed else self._key, hashes.SHA256())
        return self._write_next(_pem(key) + certificate.public_bytes(serialization.Encoding.PEM))

    def issue_with_sha1(self, name: str) -> str:
        """As `issue`, with a digest that cryptography does not sign with any more."""
        key = _pem(ec.generate_private_key(ec.SECP256R1()))
        key_file = self._write("sha1.key", key)
        request, certificate = str(self._directory / "sha1.csr"), str(self._directory / "sha1.pem")
        extensions = self._write("sha1.ext", f"subjectAltName=DNS:{name}\n".encode())
        own_key = self._write("authority.key", _pem(self._key))
        _openssl("req", "-new", "-key", key_file, "-subj", "/CN=somebody", "-out", request)
        _openssl(
            "x509", "-req", "-sha1", "-in", request, "-CA", self.ca_file, "-CAkey", own_key, "-days", "5",
            "-extfile", extensions, "-out", certificate,
        )  # fmt: skip
        return self._write_next(key + Path(certificate).read_bytes())

    def _write_next(self, octets: bytes) -> str:
        self._made += 1
        return self._write(f"{self._made}.pem", octets)

    def _write(self, name: str, octets: bytes) -> str:
        path = self._directory / name
        path.write_bytes(octets)
        return str(path)


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, *, days: tuple[int, int]
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + timedelta(days=days[0]))
        .not_valid_after(now + timedelta(days=days[1]))
    )


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True, timeout=PATIENCE_S)


class PolicySite:
    """Serves on a free port of `address`, a thread for each connection, until it is left."""

    def __init__(self, certificate: str, behaviour: Behaviour, *, address: str = "127.0.0.1") -> None:
        """`certificate`: a file that an `Authority` made."""
        self.behaviour = behaviour
        self.requests: list[bytes] = []
        """The head of each request that came."""
        self.server_names: list[str | None] = []
        """The SNI of each TLS handshake."""
        self.connections = 0
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.set_ciphers("DEFAULT:@SECLEVEL=0")
        self._context.load_cert_chain(certificate)
        self._context.sni_callback = lambda tls, name, context: self.server_names.append(name)
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self._listener = socket.create_server((address, 0), family=family)
        self._listener.settimeout(0.05)
        self.address = address
        self.port: int = self._listener.getsockname()[1]
        self._over = threading.Event()
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(PATIENCE_S)
        self._listener.close()

    def fetcher(
        self, *, ca_file: str | None, resolver: Resolver | None = None, limits: FetchLimits | None = None
    ) -> PolicyFetcher:
        """One that comes here, for every domain."""
        return PolicyFetcher(
            resolver or self.resolver(), ca_file=ca_file, allowed_networks=LOOPBACK, port=self.port, limits=limits
        )

    def resolver(self, *domains: Domain) -> ZoneResolver:
        rdtype = "AAAA" if ":" in self.address else "A"
        return ZoneResolver({f"mta-sts.{domain}": {rdtype: [self.address]} for domain in domains or (DOMAIN,)})

    def _start(self, run: Callable[[], None]) -> None:
        thread = threading.Thread(target=run, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._over.is_set():
            try:
                connection, _ = self._listener.accept()
            except TimeoutError:
                continue
            self.connections += 1
            self._start(lambda connection=connection: self._serve(connection))  # type: ignore[misc]  # bound at once

    def _serve(self, connection: socket.socket) -> None:
        connection.settimeout(PATIENCE_S)
        with connection:
            try:
                self._speak(self._context.wrap_socket(connection, server_side=True))
            except OSError:
                pass  # the client has left, which is what most of the tests are about

    def _speak(self, tls: ssl.SSLSocket) -> None:
        with tls:
            request = b""
            while b"\r\n\r\n" not in request:
                octets = tls.recv(4096)
                if not octets:
                    return
                request += octets
            self.requests.append(request)
            self.behaviour(Connection(tls, request, self._over))


def fetched(
    behaviour: Behaviour,
    authority: Authority,
    *,
    certificate: str | None = None,
    limits: FetchLimits | None = None,
) -> FetchOutcome:
    """What fetching DOMAIN's policy comes to at a site with this behaviour."""
    with PolicySite(certificate or authority.issue(HOST), behaviour) as site:
        return site.fetcher(ca_file=authority.ca_file, limits=limits).fetch(DOMAIN)
