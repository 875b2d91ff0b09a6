"""The published key (RFC 6376 §3.6.1, RFC 8301 §3.2, RFC 8463 §4): a TXT record read into a public key.

Pure; a `KeyRecord` is frozen and safe to share between threads.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_der_public_key

from mailguard.dkim.result import DkimReason
from mailguard.errors import TagListError
from mailguard.taglist import TagList, base64_octets

__all__ = ["MAX_EXPONENT_BITS", "MAX_RSA_BITS", "MIN_RSA_BITS", "KeyRecord", "KeyRecordError"]

MIN_RSA_BITS = 1024  # RFC 8301 §3.2
# RFC 8301 §3.2 asks for 4096; twice that is room, and bounds the work that a published key may cause.
MAX_RSA_BITS = 8192
# 65537 is what everybody uses. The work of a verification grows with the exponent: 6 ms with one of 3,000 bits.
MAX_EXPONENT_BITS = 64
ED25519_KEY_BYTES = 32
ED25519_BITS = 256
# An 8192-bit key in base64 has 1,420 characters.
MAX_RECORD_BYTES = 4096

_PADDING = PKCS1v15()
_DIGEST_IS_MADE = Prehashed(SHA256())


class KeyRecordError(ValueError):
    """A record with which no signature verifies."""

    def __init__(self, reason: DkimReason, detail: str, *, bits: int | None = None, testing: bool = False) -> None:
        super().__init__(detail)
        self.reason = reason
        self.bits = bits
        self.testing = testing


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """A usable public key with its restrictions."""

    key: RSAPublicKey | Ed25519PublicKey
    bits: int
    testing: bool
    """t=y (RFC 6376 §3.6.1)."""
    strict: bool
    """t=s: the domain of i= must be that of d= itself."""

    @classmethod
    def parse(cls, record: bytes, *, key_type: str) -> KeyRecord:
        """Read a TXT record, its strings joined, for a signature that wants a key of `key_type`.

        Raises KeyRecordError (RFC 6376 §6.1.2).
        """
        if len(record) > MAX_RECORD_BYTES:
            raise KeyRecordError(DkimReason.KEY_SYNTAX, f"the key record has more than {MAX_RECORD_BYTES} octets")
        try:
            tags = TagList.parse(record)
        except TagListError as error:
            raise KeyRecordError(DkimReason.KEY_SYNTAX, f"the key record is malformed: {error}") from None
        if "v" in tags and tags["v"] != b"DKIM1":
            raise KeyRecordError(DkimReason.KEY_SYNTAX, "the record is not of version DKIM1")
        if "v" in tags and next(iter(tags)) != "v":
            raise KeyRecordError(DkimReason.KEY_SYNTAX, "v= is not the first tag of the record")
        if "p" not in tags:
            raise KeyRecordError(DkimReason.KEY_SYNTAX, "the record has no p=")
        flags = _words(tags, "t", b"")
        testing = b"y" in flags
        try:
            key, bits = _public_key(tags, key_type)
        except _Unusable as error:
            raise KeyRecordError(error.reason, str(error), bits=error.bits, testing=testing) from None
        return cls(key, bits, testing, b"s" in flags)

    def verifies(self, signature: bytes, signed: bytes) -> bool:
        """Whether `signature` is this key's over `signed`, the octets of RFC 6376 §3.7."""
        digest = hashlib.sha256(signed).digest()
        try:
            if isinstance(self.key, RSAPublicKey):
                self.key.verify(signature, digest, _PADDING, _DIGEST_IS_MADE)
            else:
                self.key.verify(signature, digest)  # RFC 8463 §3: PureEdDSA over the SHA-256 digest
        except (InvalidSignature, ValueError, UnsupportedAlgorithm):
            return False
        return True


def _words(tags: TagList, name: str, default: bytes) -> set[bytes]:
    return {word.strip(b" \t\r\n").lower() for word in tags.get(name, default).split(b":")}


class _Unusable(ValueError):
    def __init__(self, reason: DkimReason, detail: str, bits: int | None = None) -> None:
        super().__init__(detail)
        self.reason = reason
        self.bits = bits


def _public_key(tags: TagList, key_type: str) -> tuple[RSAPublicKey | Ed25519PublicKey, int]:
    """p= and its size, if the record's other tags allow its use here (RFC 6376 §6.1.2)."""
    published = tags.compact("p")
    if not published:
        raise _Unusable(DkimReason.KEY_REVOKED, "the key is revoked (p= is empty)")
    if not {b"*", b"email"} & _words(tags, "s", b"*"):
        raise _Unusable(DkimReason.KEY_SERVICE, "the key is not for mail (s=)")
    if b"sha256" not in _words(tags, "h", b"sha256"):
        raise _Unusable(DkimReason.KEY_HASH, "the key does not allow SHA-256 (h=)")
    if tags.get("k", b"rsa").lower() != key_type.encode("ascii"):
        raise _Unusable(DkimReason.KEY_TYPE, f"the key is not of type {key_type} (k=)")
    try:
        octets = base64_octets(published)
    except ValueError:
        raise _Unusable(DkimReason.KEY_SYNTAX, "p= is not base64") from None
    return _ed25519(octets) if key_type == "ed25519" else _rsa(octets)


def _ed25519(octets: bytes) -> tuple[Ed25519PublicKey, int]:
    if len(octets) != ED25519_KEY_BYTES:
        raise _Unusable(DkimReason.KEY_SYNTAX, f"an Ed25519 key has {ED25519_KEY_BYTES} octets")
    try:
        return Ed25519PublicKey.from_public_bytes(octets), ED25519_BITS
    except (ValueError, UnsupportedAlgorithm) as error:
        raise _Unusable(DkimReason.KEY_SYNTAX, f"p= is not an Ed25519 key: {error}") from None


def _rsa(octets: bytes) -> tuple[RSAPublicKey, int]:
    """A SubjectPublicKeyInfo, or the bare RSAPublicKey of RFC 6376 §3.6.1; both occur."""
    try:
        key = load_der_public_key(octets)
    except (ValueError, UnsupportedAlgorithm):
        raise _Unusable(DkimReason.KEY_SYNTAX, "p= is not an RSA key") from None
    if not isinstance(key, RSAPublicKey):
        raise _Unusable(DkimReason.KEY_TYPE, "p= holds a key that is not RSA")
    if key.public_numbers().e.bit_length() > MAX_EXPONENT_BITS:
        raise _Unusable(DkimReason.KEY_SYNTAX, f"the key's exponent has more than {MAX_EXPONENT_BITS} bits")
    bits = key.key_size
    # RFC 8301 §3.2: no signature with a smaller key is valid.
    if not MIN_RSA_BITS <= bits <= MAX_RSA_BITS:
        detail = f"the key has {bits} bits; {MIN_RSA_BITS} to {MAX_RSA_BITS} are accepted"
        raise _Unusable(DkimReason.KEY_SIZE, detail, bits)
    return key, bits
