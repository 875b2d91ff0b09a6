"""The keys of a run: one RSA-2048 and one Ed25519 key, in each form that a compared daemon reads, and their records.

RFC 6376 §3.6.1 and RFC 8463 (records). Every sender domain publishes the same two keys, each under its own name.
Immutable; safe to share between threads.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from mailguard import SigningKey

__all__ = ["ED25519_SELECTOR", "RSA_SELECTOR", "BenchKeys"]

RSA_SELECTOR = "r1"
ED25519_SELECTOR = "e1"
RSA_BITS = 2048
# A TXT record consists of strings of at most 255 octets (RFC 1035 §3.3.14).
TXT_STRING_OCTETS = 255


@dataclass(frozen=True, slots=True)
class BenchKeys:
    """Both keys."""

    rsa_key: rsa.RSAPrivateKey
    ed25519_key: ed25519.Ed25519PrivateKey

    @classmethod
    def generate(cls) -> Self:
        return cls(
            rsa.generate_private_key(public_exponent=65_537, key_size=RSA_BITS),
            ed25519.Ed25519PrivateKey.generate(),
        )

    @property
    def rsa_pem(self) -> bytes:
        """PKCS #1, which every daemon reads."""
        return self.rsa_key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())

    @property
    def ed25519_pem(self) -> bytes:
        return self.ed25519_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    @property
    def ed25519_seed(self) -> bytes:
        """32 octets."""
        return self.ed25519_key.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())

    @property
    def ed25519_public(self) -> bytes:
        """32 octets."""
        return self.ed25519_key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)

    def records(self) -> dict[str, str]:
        """The TXT record under each selector."""
        der = self.rsa_key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return {
            RSA_SELECTOR: f"v=DKIM1; k=rsa; p={base64.b64encode(der).decode()}",
            ED25519_SELECTOR: f"v=DKIM1; k=ed25519; p={base64.b64encode(self.ed25519_public).decode()}",
        }

    def signing_keys(self, domain: str, *, algorithms: tuple[str, ...]) -> list[SigningKey]:
        """mailguard's own, for `domain`; `algorithms` are "rsa" and "ed25519"."""
        pems = {"rsa": (self.rsa_pem, RSA_SELECTOR), "ed25519": (self.ed25519_pem, ED25519_SELECTOR)}
        return [
            SigningKey.from_bytes(pem, domain=domain, selector=selector)
            for pem, selector in (pems[name] for name in algorithms)
        ]

    def write(self, directory: Path, *, mode: int = 0o600) -> Path:
        """Put the files rsa.pem, ed25519.pem, ed25519.seed (base64) and ed25519.secret (base64, with the public key)
        into `directory`."""
        directory.mkdir(parents=True, exist_ok=True)
        contents = {
            "rsa.pem": self.rsa_pem,
            "ed25519.pem": self.ed25519_pem,
            "ed25519.seed": base64.b64encode(self.ed25519_seed),
            "ed25519.secret": base64.b64encode(self.ed25519_seed + self.ed25519_public),
        }
        for name, content in contents.items():
            path = directory / name
            path.touch(mode=mode)
            path.write_bytes(content)
        return directory


def txt(record: str) -> str:
    """The record as a master file has it (RFC 1035 §5)."""
    parts = [record[at : at + TXT_STRING_OCTETS] for at in range(0, len(record), TXT_STRING_OCTETS)]
    return " ".join(f'"{part}"' for part in parts)
