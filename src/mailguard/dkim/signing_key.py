"""SigningKey: a private key with the domain and selector that it signs for, read from a file with care.

RFC 6376 §3.3 and RFC 8463 §3 (algorithms), RFC 6376 §3.6.1 (the record to publish). A key is immutable after
loading and may be used by several threads. `repr` shows no key material.
"""

from __future__ import annotations

import base64
import binascii
import errno
import hashlib
import os
import re
import stat
from enum import Enum
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from mailguard.argument import check_type
from mailguard.dkim.key import MAX_RSA_BITS, MIN_RSA_BITS
from mailguard.dkim.signature import key_name, parse_selector
from mailguard.domain import Domain
from mailguard.errors import DomainError, KeyFileError

__all__ = ["MAX_KEY_FILE_BYTES", "KeyCheck", "KeyPermissions", "SigningKey", "generate_ed25519", "generate_rsa"]

# The PEM of an 8192-bit RSA key has 6.5 kB.
MAX_KEY_FILE_BYTES = 32_768
NEW_RSA_BITS = 2048  # RFC 8301 §3.2: signers should use at least this
_PADDING = PKCS1v15()
_DIGEST_IS_MADE = Prehashed(SHA256())
_PEM_BEGIN = b"-----BEGIN "
_PEM_END = b"-----END "
_ONE_PEM_BLOCK = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----\r?\n(?:(?!-----)[\s\S])+-----END \1-----")


class KeyPermissions(Enum):
    """Who may be able to read a private key file, besides its owner."""

    STRICT = "strict"
    """Nobody."""
    GROUP = "group"
    """The file's group."""


class KeyCheck(Enum):
    """How far the numbers of an RSA key are checked against each other."""

    QUICK = "quick"
    """Not at all: for service."""
    FULL = "full"
    """All of them, and with a signature: for `key test` and --check-config. It takes about as long as to sign."""


class SigningKey:
    """A private key that signs for `domain` under `selector`. Make one with `load` or `from_bytes`."""

    __slots__ = ("_key", "algorithm", "bits", "domain", "selector")

    def __init__(self, key: rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey, *, domain: Domain, selector: str) -> None:
        self._key = key
        self.domain = domain
        self.selector = selector
        self.algorithm = "rsa-sha256" if isinstance(key, rsa.RSAPrivateKey) else "ed25519-sha256"
        self.bits = key.key_size if isinstance(key, rsa.RSAPrivateKey) else 256

    def __repr__(self) -> str:
        return f"SigningKey({self.public_name}, {self.algorithm}, {self.bits} bits)"

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        *,
        domain: str,
        selector: str,
        permissions: KeyPermissions = KeyPermissions.STRICT,
        check: KeyCheck = KeyCheck.QUICK,
        owner: int | None = None,
    ) -> SigningKey:
        """Read a private key file: PEM (PKCS#1 or PKCS#8, RSA or Ed25519), or Ed25519 as 32 octets or their base64.

        Raises KeyFileError where the file or a directory above it could be changed or read by others, is not a
        regular file, or is not one usable key. The checks are made on the open file. Files and directories may
        belong to root, to this process's user, and to the user with the number `owner`.
        """
        owners = frozenset({0, os.geteuid()} if owner is None else {0, os.geteuid(), owner})
        octets = _read_private_file(Path(path), permissions, owners)
        try:
            return cls.from_bytes(octets, domain=domain, selector=selector, check=check)
        except KeyFileError as error:
            raise KeyFileError(f"{path}: {error}") from None

    @classmethod
    def from_bytes(cls, octets: bytes, *, domain: str, selector: str, check: KeyCheck = KeyCheck.QUICK) -> SigningKey:
        """`load` for octets in memory. Raises KeyFileError, and TypeError for arguments of another type."""
        check_type("octets", octets, bytes)
        check_type("domain", domain, str)
        check_type("selector", selector, str)
        check_type("check", check, KeyCheck)
        try:
            return cls(_private_key(octets, check), domain=Domain.parse(domain), selector=parse_selector(selector))
        except DomainError as error:
            raise KeyFileError(f"not a usable domain or selector ({domain!r}, {selector!r}): {error}") from None

    def sign(self, octets: bytes) -> bytes:
        """The signature over `octets` (RFC 6376 §3.7; RFC 8463 §3: Ed25519 signs the SHA-256 digest)."""
        digest = hashlib.sha256(octets).digest()
        if isinstance(self._key, rsa.RSAPrivateKey):
            return self._key.sign(digest, _PADDING, _DIGEST_IS_MADE)
        return self._key.sign(digest)

    @property
    def public_name(self) -> str:
        """The name at which the public key belongs (RFC 6376 §3.6.2.1), without trailing dot."""
        return key_name(self.selector, self.domain)

    def record(self) -> bytes:
        """The TXT record to publish (RFC 6376 §3.6.1, RFC 8463 §4), as one string."""
        kind = b"rsa" if isinstance(self._key, rsa.RSAPrivateKey) else b"ed25519"
        return b"v=DKIM1; k=" + kind + b"; p=" + base64.b64encode(self._public_octets())

    @property
    def fingerprint(self) -> str:
        """The SHA-256 of the public key as p= has it, in hexadecimal digits."""
        return hashlib.sha256(self._public_octets()).hexdigest()

    def _public_octets(self) -> bytes:
        public = self._key.public_key()
        if isinstance(public, rsa.RSAPublicKey):
            return public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return public.public_bytes(Encoding.Raw, PublicFormat.Raw)


def generate_rsa(bits: int = NEW_RSA_BITS) -> bytes:
    """A new RSA private key as PKCS#8 PEM."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=bits)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def generate_ed25519() -> bytes:
    """A new Ed25519 private key as PKCS#8 PEM."""
    key = ed25519.Ed25519PrivateKey.generate()
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _private_key(octets: bytes, check: KeyCheck) -> rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey:
    if _PEM_BEGIN not in octets:
        return _raw_ed25519(octets)
    text = octets.strip()
    if text.count(_PEM_END) == 0:
        raise KeyFileError("the PEM block has no end: the file is incomplete")
    if _ONE_PEM_BLOCK.fullmatch(text) is None:
        raise KeyFileError("the file must hold one PEM block and nothing else")
    try:
        key = load_pem_private_key(text, password=None, unsafe_skip_rsa_key_validation=True)
    except TypeError:
        raise KeyFileError("the key is protected by a passphrase; store it without one") from None
    except (ValueError, UnsupportedAlgorithm):
        raise KeyFileError("the PEM block is not a private key that can be read") from None
    if isinstance(key, rsa.RSAPrivateKey):
        # RFC 8301 §3.2: no signature with a smaller key is valid.
        if not MIN_RSA_BITS <= key.key_size <= MAX_RSA_BITS:
            raise KeyFileError(f"an RSA key must have {MIN_RSA_BITS} to {MAX_RSA_BITS} bits, not {key.key_size}")
        if check is KeyCheck.FULL:
            # Not before the size is known: to sign with a key that fills the file takes minutes.
            _check_numbers(key)
        return key
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return key
    raise KeyFileError("the key is neither RSA nor Ed25519, the only types that DKIM signs with")


def _check_numbers(key: rsa.RSAPrivateKey) -> None:
    """RFC 8017 §3.2, and that a signature verifies. OpenSSL's own check looks for primes, which takes 33 ms a key.

    Of numbers that belong together and sign, only who made the key could have made others than primes.
    """
    private = key.private_numbers()
    e, n = private.public_numbers.e, private.public_numbers.n
    p, q, d = private.p, private.q, private.d
    if (
        min(e, p, q) < 3
        or not e & p & q & 1
        or p * q != n
        or any(e * d % (prime - 1) != 1 for prime in (p, q))
        or (private.dmp1, private.dmq1) != (d % (p - 1), d % (q - 1))
        or private.iqmp * q % p != 1
    ):
        raise KeyFileError("the numbers of the RSA key do not belong together: the file is damaged")
    digest = bytes(SHA256.digest_size)
    try:
        key.public_key().verify(key.sign(digest, _PADDING, _DIGEST_IS_MADE), digest, _PADDING, _DIGEST_IS_MADE)
    except InvalidSignature:
        raise KeyFileError("what the RSA key signs does not verify with it: the file is damaged") from None


def _raw_ed25519(octets: bytes) -> ed25519.Ed25519PrivateKey:
    seed = octets
    if len(octets) != 32 or octets.isascii():  # 32 random octets that are all ASCII: once in four thousand million
        try:
            seed = base64.b64decode(octets.strip(), validate=True)
        except (binascii.Error, ValueError):
            seed = b""
    if len(seed) != 32:
        raise KeyFileError("the file is neither PEM nor a raw or base64 Ed25519 key of 32 octets")
    return ed25519.Ed25519PrivateKey.from_private_bytes(seed)


def _read_private_file(path: Path, permissions: KeyPermissions, owners: frozenset[int]) -> bytes:
    """The content of a file that only its owner (and root) can have written or read."""
    if "\0" in str(path):
        raise KeyFileError(f"{str(path)!r} is not a file name")
    try:
        # O_NONBLOCK: opening a FIFO without writer would wait for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno == errno.ELOOP:  # what O_NOFOLLOW gives
            raise KeyFileError(f"{path} is a symbolic link; name the file itself") from None
        raise KeyFileError(f"{path} cannot be opened: {error.strerror}{_closed_to_us(path)}") from None
    try:
        _check_directories(path, owners)
        _check_file(path, os.fstat(descriptor), permissions, owners)
        return os.read(descriptor, MAX_KEY_FILE_BYTES + 1)
    except OSError as error:
        raise KeyFileError(f"{path} cannot be read: {error.strerror}") from None
    finally:
        os.close(descriptor)


def _closed_to_us(path: Path) -> str:
    """The first directory above a file that this user may not pass, if there is one."""
    for directory in reversed(Path(os.path.abspath(path)).parents):
        if directory.is_dir() and not os.access(directory, os.X_OK, effective_ids=True):
            return f"; uid {os.geteuid()} may not pass {directory}"
    return ""


def _check_file(path: Path, found: os.stat_result, permissions: KeyPermissions, owners: frozenset[int]) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise KeyFileError(f"{path} is not a regular file")
    if found.st_uid not in owners:
        raise KeyFileError(f"{path} belongs to another user (uid {found.st_uid}): chown it to root or this user")
    forbidden, mode = (0o077, "600") if permissions is KeyPermissions.STRICT else (0o037, "640")
    if found.st_mode & forbidden:
        raise KeyFileError(
            f"{path} has mode {stat.S_IMODE(found.st_mode):04o}, so that others can use it: chmod {mode} it"
        )
    if found.st_size > MAX_KEY_FILE_BYTES:
        raise KeyFileError(f"{path} has {found.st_size} octets, which is no private key")


def _check_directories(path: Path, owners: frozenset[int]) -> None:
    """No directory above may let everybody replace the file: writable by all is allowed only with the sticky bit.

    Directories that a group may write are not refused: what is in them is checked as a file.
    """
    for directory in Path(os.path.abspath(path)).parents:
        try:
            found = os.stat(directory)
        except OSError as error:
            raise KeyFileError(f"{path}: {directory} cannot be examined: {error.strerror}") from None
        if found.st_mode & stat.S_IWOTH and not found.st_mode & stat.S_ISVTX:
            raise KeyFileError(f"{path}: {directory} is writable by everybody: chmod o-w it")
        if found.st_uid not in owners:
            raise KeyFileError(f"{path}: {directory} belongs to another user (uid {found.st_uid})")
