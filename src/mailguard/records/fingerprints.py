"""What TLSA and SSHFP records say of keys.

RFC 6698 §2.1, RFC 7671 §5.1 (3 1 1: the SHA-256 of a certificate's SubjectPublicKeyInfo), RFC 4255 §3.1, RFC 6594
and RFC 7479 (SSHFP). Pure.
"""

from __future__ import annotations

import base64
import binascii
from hashlib import sha256

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from mailguard.errors import KeyFileError

__all__ = ["certificate_key_digest", "sshfp"]

_SSH_ALGORITHMS = {
    "ssh-rsa": 1,
    "ecdsa-sha2-nistp256": 3,
    "ecdsa-sha2-nistp384": 3,
    "ecdsa-sha2-nistp521": 3,
    "ssh-ed25519": 4,
}
_SSH_SHA256 = 2


def certificate_key_digest(pem: bytes) -> bytes:
    """Of the first certificate in `pem`, which is the server's own in a chain. Raises KeyFileError."""
    try:
        certificate = x509.load_pem_x509_certificate(pem)
        key = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    except Exception:  # noqa: BLE001 - the library raises what it likes for what is no certificate
        raise KeyFileError("there is no certificate in PEM form in it that can be read") from None
    return sha256(key).digest()


def sshfp(line: str) -> str | None:
    """The record data for a line of a public key file of OpenSSH; None for a key that SSHFP has no number for."""
    parts = line.split()
    number = _SSH_ALGORITHMS.get(parts[0]) if len(parts) > 1 else None
    if number is None:
        return None
    try:
        octets = base64.b64decode(parts[1], validate=True)
    except binascii.Error:
        return None
    return f"{number} {_SSH_SHA256} {sha256(octets).hexdigest()}"
