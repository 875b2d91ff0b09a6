"""Certificates that are valid by the clock of this machine, for servers that are really talked to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.x509.oid import NameOID

__all__ = ["Issued", "authority", "server", "write_chain"]


@dataclass(frozen=True)
class Issued:
    """A certificate with its key, and what is above it, nearest first."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
    above: tuple[Issued, ...] = ()

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(Encoding.DER)

    def tlsa(self, usage: int = 3) -> str:
        """Its record with selector 1 and matching type 1, not by the code that is tested."""
        spki = self.key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return f"{usage} 1 1 {sha256(spki).hexdigest()}"


def authority(name: str, issuer: Issued | None = None, *, rsa_bits: int = 0) -> Issued:
    """A root, or an intermediate of `issuer`."""
    return _issued(name, (), issuer, is_authority=True, days=(-10, 30), rsa_bits=rsa_bits)


def server(
    *names: str,
    issuer: Issued | None = None,
    days: tuple[int, int] = (-5, 20),
    purposes: Sequence[x509.ObjectIdentifier] = (),
    rsa_bits: int = 0,
) -> Issued:
    """The certificate of a server with these DNS names, valid over `days` from today, for `purposes` if there are."""
    name = names[0] if names else "nameless"
    return _issued(name, names, issuer, is_authority=False, days=days, purposes=purposes, rsa_bits=rsa_bits)


def write_chain(path: Path, leaf: Issued, *, with_key: bool = True) -> Path:
    """The key, the certificate and the intermediates above it, as Postfix wants them; a root is left out."""
    key = leaf.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()) if with_key else b""
    chain = [leaf, *(each for each in leaf.above if each.above)]
    path.write_bytes(key + b"".join(each.pem for each in chain))
    return path


def _issued(
    common_name: str,
    names: tuple[str, ...],
    issuer: Issued | None,
    *,
    is_authority: bool,
    days: tuple[int, int],
    purposes: Sequence[x509.ObjectIdentifier] = (),
    rsa_bits: int = 0,
) -> Issued:
    key = rsa.generate_private_key(65537, rsa_bits) if rsa_bits else ec.generate_private_key(ec.SECP256R1())
    now = datetime.now(UTC)
    subject = _name(common_name)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + timedelta(days=days[0]))
        .not_valid_after(now + timedelta(days=days[1]))
        .add_extension(x509.BasicConstraints(is_authority, None), critical=True)
    )
    if names:
        builder = builder.add_extension(
            x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False
        )
    if purposes:
        builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
    signed = builder.sign(issuer.key if issuer else key, hashes.SHA256())
    return Issued(signed, key, (issuer, *issuer.above) if issuer else ())


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])
