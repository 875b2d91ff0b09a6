"""Certificates made to measure: chains good and bad, for tests of DANE. Keys are made once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any, Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

NOW = 1_800_000_000.0
_DAY = timedelta(days=1)
Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey
Digest = hashes.SHA224 | hashes.SHA256 | hashes.SHA384 | hashes.SHA512


@cache
def key(name: str) -> Key:
    """A private key of that name: an RSA key if the name begins with rsa, an Ed25519 key if with ed, else P-256."""
    if name.startswith("rsa"):
        return rsa.generate_private_key(65537, int(name[3:7]))
    if name.startswith("ed"):
        return ed25519.Ed25519PrivateKey.generate()
    return ec.generate_private_key(ec.SECP256R1())


@dataclass(frozen=True)
class Made:
    """A certificate and the name of its key."""

    subject: str
    key_name: str
    certificate: x509.Certificate

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(Encoding.DER)

    @property
    def spki(self) -> bytes:
        return spki(self.key_name)

    @classmethod
    def of(
        cls,
        subject: str,
        issuer: Made | None = None,
        *,
        names: Sequence[str] = (),
        is_authority: bool = True,
        days: tuple[int, int] = (-30, 30),
        path_length: int | None = None,
        extensions: Sequence[x509.ExtensionType] = (),
        key_name: str | None = None,
        has_basic_constraints: bool = True,
        digest: Digest | None = None,
    ) -> Self:
        """A certificate for the subject, signed by the issuer or by itself; `days` are its validity around NOW."""
        key_name = key_name or subject
        signer = issuer.key_name if issuer else key_name
        now = datetime.fromtimestamp(NOW, UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(_name(subject))
            .issuer_name(_name(issuer.subject if issuer else subject))
            .public_key(key(key_name).public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + _DAY * days[0])
            .not_valid_after(now + _DAY * days[1])
        )
        if has_basic_constraints:
            builder = builder.add_extension(x509.BasicConstraints(is_authority, path_length), critical=True)
        if names:
            builder = builder.add_extension(
                x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False
            )
        for extension in extensions:
            builder = builder.add_extension(extension, critical=True)
        algorithm = None if signer.startswith("ed") else digest or hashes.SHA256()
        return cls(subject, key_name, builder.sign(key(signer), algorithm))


def spki(key_name: str) -> bytes:
    return key(key_name).public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def server(issuer: Made | None, *names: str, subject: str = "server", **more: Any) -> Made:
    """The certificate of a server with these names."""
    return Made.of(subject, issuer, names=names, is_authority=False, **more)


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)] if text else [])
