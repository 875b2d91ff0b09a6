"""SigningKey: which files are read as a private key, and which are refused with what reason (K01, K02, K03)."""

from __future__ import annotations

import base64
import math
import os
import socket
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import dsa, ec, rsa, x25519
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from cpu_time import best_cpu_s
from mailguard.dkim.key import KeyRecord
from mailguard.dkim.signing_key import KeyCheck, KeyPermissions, SigningKey, generate_ed25519, generate_rsa
from mailguard.errors import KeyFileError
from zone0 import ed25519_key, pem, rsa_key

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
STRANGER, STRANGERS_GROUP = 54_321, 54_322
SEED = ed25519_key(7).private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())
GIB = 1 << 30


def load(path: Path, permissions: KeyPermissions = KeyPermissions.STRICT) -> SigningKey:
    return SigningKey.load(path, domain="us.test", selector="s1", permissions=permissions)


def from_bytes(octets: bytes, check: KeyCheck = KeyCheck.QUICK) -> SigningKey:
    return SigningKey.from_bytes(octets, domain="us.test", selector="s1", check=check)


@pytest.fixture
def home() -> Iterator[Path]:
    """A directory that everybody may enter, below directories that are in order."""
    with tempfile.TemporaryDirectory(prefix="mailguard-keys-") as name:
        path = Path(name)
        path.chmod(0o755)
        yield path


def write(path: Path, octets: bytes = b"", *, mode: int = 0o600) -> Path:
    path.write_bytes(octets or pem(ed25519_key()))
    path.chmod(mode)
    return path


@contextmanager
def acting_as(uid: int, gid: int) -> Iterator[None]:
    os.setegid(gid)
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)


@pytest.mark.attack("K01")
@pytest.mark.parametrize(
    ("mode", "strict", "group"),
    [
        (0o600, True, True),
        (0o400, True, True),
        (0o700, True, True),
        (0o640, False, True),
        (0o440, False, True),
        (0o660, False, False),
        (0o650, False, False),
        (0o620, False, False),
        (0o644, False, False),
        (0o604, False, False),
        (0o602, False, False),
        (0o601, False, False),
        (0o777, False, False),
    ],
)
def test_mode(home: Path, mode: int, strict: bool, group: bool) -> None:
    path = write(home / "key.pem", mode=mode)
    for permissions, allowed in ((KeyPermissions.STRICT, strict), (KeyPermissions.GROUP, group)):
        if allowed:
            assert load(path, permissions).algorithm == "ed25519-sha256"
        else:
            with pytest.raises(KeyFileError, match=f"mode {mode:04o}"):
                load(path, permissions)


@pytest.mark.attack("K01")
def test_access_control_list(home: Path) -> None:
    """A list that lets one more user read shows in the mode as the group's bits (acl(5), the mask)."""
    path = write(home / "key.pem")
    user, named, group, mask, other, nobody = 1, 2, 4, 16, 32, 0xFFFFFFFF
    entries = [(user, 6, nobody), (named, 4, STRANGER), (group, 0, nobody), (mask, 4, nobody), (other, 0, nobody)]
    try:
        acl = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)
        os.setxattr(path, "system.posix_acl_access", acl)
    except OSError as error:
        pytest.skip(f"no access control lists here: {error.strerror}")
    with pytest.raises(KeyFileError, match="mode 0640"):
        load(path)


@as_root
@pytest.mark.attack("K01")
def test_owner(home: Path) -> None:
    path = write(home / "key.pem")
    os.chown(path, STRANGER, STRANGERS_GROUP)
    with pytest.raises(KeyFileError, match=f"another user \\(uid {STRANGER}\\)"):
        load(path)
    with acting_as(STRANGER, STRANGERS_GROUP):
        assert load(path).domain == "us.test"


@as_root
@pytest.mark.attack("K01")
def test_group_may_read_what_root_owns(home: Path) -> None:
    path = write(home / "key.pem", mode=0o640)
    os.chown(path, 0, STRANGERS_GROUP)
    with acting_as(STRANGER, STRANGERS_GROUP):
        assert load(path, KeyPermissions.GROUP).selector == "s1"
    with acting_as(STRANGER, STRANGERS_GROUP + 1), pytest.raises(KeyFileError, match="Permission denied"):
        load(path, KeyPermissions.GROUP)


@pytest.mark.attack("K01")
@pytest.mark.parametrize("component", [".", "a", "a/b"])
def test_directory_that_everybody_may_write(home: Path, component: str) -> None:
    (home / "a/b").mkdir(parents=True)
    path = write(home / "a/b/key.pem")
    load(path)
    (home / component).chmod(0o777)
    with pytest.raises(KeyFileError) as caught:
        load(path)
    assert f"{home / component} is writable by everybody" in str(caught.value)
    (home / component).chmod(0o1777)
    load(path)


@pytest.mark.attack("K01")
def test_directory_that_everybody_may_write_behind_a_link(home: Path) -> None:
    (home / "open").mkdir(mode=0o700)
    (home / "open").chmod(0o777)
    (home / "keys").symlink_to(home / "open")
    write(home / "open/key.pem")
    with pytest.raises(KeyFileError, match="keys is writable by everybody"):
        load(home / "keys/key.pem")


@pytest.mark.attack("K01")
def test_relative_path_is_examined_to_the_root(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "keys").mkdir()
    write(home / "keys/key.pem")
    home.chmod(0o777)
    monkeypatch.chdir(home / "keys")
    with pytest.raises(KeyFileError, match="writable by everybody"):
        load(Path("key.pem"))


@as_root
@pytest.mark.attack("K01")
def test_directory_of_another_user(home: Path) -> None:
    (home / "a").mkdir()
    path = write(home / "a/key.pem")
    os.chown(home / "a", STRANGER, 0)
    with pytest.raises(KeyFileError, match=f"{home}/a belongs to another user"):
        load(path)


@as_root
@pytest.mark.attack("K01")
def test_another_owner_may_be_named(home: Path) -> None:
    (home / "a").mkdir()
    path = write(home / "a" / "k.pem")
    os.chown(path, STRANGER, STRANGERS_GROUP)
    os.chown(home / "a", STRANGER, STRANGERS_GROUP)
    with pytest.raises(KeyFileError, match="belongs to another user"):
        SigningKey.load(path, domain="us.test", selector="s1", owner=STRANGER + 1)
    assert SigningKey.load(path, domain="us.test", selector="s1", owner=STRANGER).domain == "us.test"


@pytest.mark.attack("K02")
def test_link(home: Path) -> None:
    write(home / "key.pem")
    (home / "link.pem").symlink_to(home / "key.pem")
    (home / "dangling.pem").symlink_to(home / "nothing")
    (home / "loop.pem").symlink_to(home / "loop.pem")
    for name in ("link.pem", "dangling.pem", "loop.pem"):
        with pytest.raises(KeyFileError, match="symbolic link"):
            load(home / name)


@pytest.mark.attack("K02")
def test_what_is_no_regular_file(home: Path) -> None:
    os.mkfifo(home / "fifo", 0o600)
    (home / "directory").mkdir(mode=0o700)
    for path in (home / "fifo", home / "directory", Path("/dev/null"), Path("/dev/zero")):
        with pytest.raises(KeyFileError, match="not a regular file"):
            load(path)


@pytest.mark.attack("K02")
def test_what_cannot_be_opened(home: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(home / "socket"))
        for path in (home / "socket", home / "missing", home / "missing/key.pem", home / ("n" * 300), home / "a\0b"):
            with pytest.raises(KeyFileError):
                load(path)


@pytest.mark.attack("K02")
def test_sparse_gigabyte_is_not_read(home: Path) -> None:
    path = write(home / "key.pem")
    os.truncate(path, GIB)
    with pytest.raises(KeyFileError, match=f"{GIB} octets"):
        load(path)


def openssl_rsa(bits: int) -> bytes:
    """What our own generator does not make."""
    command = ["openssl", "genrsa", "-traditional", str(bits)]
    return subprocess.run(command, capture_output=True, check=True).stdout


AnyPrivateKey = rsa.RSAPrivateKey | dsa.DSAPrivateKey | ec.EllipticCurvePrivateKey | x25519.X25519PrivateKey


def private_pem(key: AnyPrivateKey, form: PrivateFormat = PrivateFormat.PKCS8, password: bytes = b"") -> bytes:
    assert isinstance(
        key, rsa.RSAPrivateKey | dsa.DSAPrivateKey | ec.EllipticCurvePrivateKey | x25519.X25519PrivateKey
    )
    return key.private_bytes(Encoding.PEM, form, BestAvailableEncryption(password) if password else NoEncryption())


RSA_1024 = rsa_key(1024)
DSA_1024 = dsa.generate_private_key(1024)  # noqa: S505  a larger one takes a second to make, and none is accepted
ED25519_PEM = pem(ed25519_key())
CERTIFICATE = b"-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"
TRADITIONAL = PrivateFormat.TraditionalOpenSSL

REFUSED = [
    ("passphrase, PKCS#8", private_pem(RSA_1024, password=b"x"), "passphrase"),
    ("passphrase, PKCS#1", private_pem(RSA_1024, TRADITIONAL, b"x"), "passphrase"),
    ("DSA", private_pem(DSA_1024), "neither RSA nor Ed25519"),
    ("EC", private_pem(ec.generate_private_key(ec.SECP256R1())), "neither RSA nor Ed25519"),
    ("X25519", private_pem(x25519.X25519PrivateKey.generate()), "neither RSA nor Ed25519"),
    ("RSA of 512 bits", openssl_rsa(512), "1024 to 8192 bits, not 512"),
    ("RSA of 1,023 bits", openssl_rsa(1023), "1024 to 8192 bits, not 1023"),
    ("two PEM blocks", ED25519_PEM + ED25519_PEM, "one PEM block"),
    ("certificate behind", ED25519_PEM + CERTIFICATE, "one PEM block"),
    ("certificate before", CERTIFICATE + ED25519_PEM, "one PEM block"),
    ("junk behind", ED25519_PEM + b"junk\n", "one PEM block"),
    ("junk behind that ends like PEM", ED25519_PEM + b"junk-----\n", "one PEM block"),
    ("junk before", b"junk\n" + ED25519_PEM, "one PEM block"),
    ("no end", ED25519_PEM.partition(b"-----END")[0], "incomplete"),
    ("half an end", ED25519_PEM.removesuffix(b"-----\n"), "one PEM block"),
    ("body cut", ED25519_PEM.replace(b"\n-----END", b"")[:60] + b"\n-----END PRIVATE KEY-----\n", "private key"),
    ("certificate", CERTIFICATE, "not a private key"),
    (
        "public key",
        RSA_1024.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        "not a private",
    ),
    ("DER", RSA_1024.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()), "neither PEM nor"),
    ("empty", b"", "neither PEM nor"),
    ("31 octets", SEED[:31], "neither PEM nor"),
    ("33 octets", SEED + b"\n", "neither PEM nor"),
    ("base64 of 31 octets", base64.b64encode(SEED[:31]), "neither PEM nor"),
    ("base64 of 64 octets", base64.b64encode(SEED + SEED), "neither PEM nor"),
    ("base64 with junk", base64.b64encode(SEED) + b"\nx", "neither PEM nor"),
    ("text of 32 characters", b"this is not a key but 32 chars!!", "neither PEM nor"),
    ("TXT record", b"v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=", "neither PEM nor"),
]


@pytest.mark.attack("K03")
@pytest.mark.parametrize(("octets", "text"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
@pytest.mark.parametrize("check", KeyCheck)
def test_refused(octets: bytes, text: str, check: KeyCheck) -> None:
    with pytest.raises(KeyFileError, match=text):
        from_bytes(octets, check)


@pytest.mark.attack("K03")
def test_a_refusal_names_the_file_and_shows_none_of_it(home: Path) -> None:
    path = write(home / "key.pem", ED25519_PEM + ED25519_PEM)
    with pytest.raises(KeyFileError) as caught:
        load(path)
    assert str(path) in str(caught.value)
    assert ED25519_PEM.splitlines()[1].decode() not in str(caught.value)


ACCEPTED = [
    ("Ed25519, PKCS#8", ED25519_PEM, "ed25519-sha256", 256),
    ("Ed25519, raw", SEED, "ed25519-sha256", 256),
    ("Ed25519, base64", base64.b64encode(SEED), "ed25519-sha256", 256),
    ("Ed25519, base64 and line end", base64.b64encode(SEED) + b"\r\n", "ed25519-sha256", 256),
    ("RSA, PKCS#8", private_pem(RSA_1024), "rsa-sha256", 1024),
    ("RSA, PKCS#1", private_pem(RSA_1024, TRADITIONAL), "rsa-sha256", 1024),
    ("RSA, CRLF", private_pem(RSA_1024).replace(b"\n", b"\r\n"), "rsa-sha256", 1024),
    ("RSA, no final line end", private_pem(RSA_1024).rstrip(), "rsa-sha256", 1024),
    ("ours, RSA", generate_rsa(), "rsa-sha256", 2048),
    ("ours, Ed25519", generate_ed25519(), "ed25519-sha256", 256),
]


@pytest.mark.parametrize(("octets", "algorithm", "bits"), [r[1:] for r in ACCEPTED], ids=[r[0] for r in ACCEPTED])
@pytest.mark.parametrize("check", KeyCheck)
def test_key_signs_what_its_record_verifies(octets: bytes, algorithm: str, bits: int, check: KeyCheck) -> None:
    key = from_bytes(octets, check)
    assert (key.algorithm, key.bits, key.public_name) == (algorithm, bits, "s1._domainkey.us.test")
    record = KeyRecord.parse(key.record(), key_type=algorithm.partition("-")[0])
    signature = key.sign(b"what is signed")
    assert record.verifies(signature, b"what is signed")
    assert not record.verifies(signature, b"what is Signed")


@pytest.mark.parametrize("name", ["p", "q", "d", "dmp1", "dmq1", "iqmp", "e", "n"])
@pytest.mark.parametrize("more", [2, 1 << 300])
def test_full_check_finds_an_rsa_key_whose_numbers_do_not_belong_together(name: str, more: int) -> None:
    private = rsa_key(1024).private_numbers()
    names = ("p", "q", "d", "dmp1", "dmq1", "iqmp")
    p, q, d, dmp1, dmq1, iqmp = (getattr(private, each) + (more if each == name else 0) for each in names)
    e, n = (getattr(private.public_numbers, each) + (more if each == name else 0) for each in ("e", "n"))
    octets = _der_key(n, e, d, p, q, dmp1, dmq1, iqmp)
    from_bytes(octets, KeyCheck.QUICK)
    with pytest.raises(KeyFileError, match="do not belong together"):
        from_bytes(octets, KeyCheck.FULL)


def _der_key(*numbers: int) -> bytes:
    """RSAPrivateKey (RFC 8017 A.1.2) as PEM: cryptography makes no key of such numbers."""
    parts = b"".join(map(_integer, (0, *numbers)))
    body = base64.encodebytes(b"\x30\x82" + len(parts).to_bytes(2, "big") + parts)
    return b"-----BEGIN RSA PRIVATE KEY-----\n" + body + b"-----END RSA PRIVATE KEY-----\n"


def _integer(value: int) -> bytes:
    octets = value.to_bytes(value.bit_length() // 8 + 1, "big")
    length = len(octets)
    return b"\x02" + (bytes([length]) if length < 128 else b"\x81" + bytes([length])) + octets


def test_full_check_finds_numbers_that_belong_together_and_sign_nothing() -> None:
    """Composites in place of the primes, with the exponent that primes would have."""
    p, q, e = 3 * ((1 << 510) + 9), (1 << 513) + 75, 65_537
    d = pow(e, -1, math.lcm(p - 1, q - 1))
    octets = _der_key(p * q, e, d, p, q, d % (p - 1), d % (q - 1), pow(q, -1, p))
    with pytest.raises(KeyFileError, match="does not verify"):
        from_bytes(octets, KeyCheck.FULL)


def test_full_check_costs_little_more_than_a_signature() -> None:
    """A host may have thousands of keys, and --check-config looks at all before each reload."""
    octets = pem(rsa_key(2048))
    # 0.8 ms each, where a search for primes takes 33.
    assert best_cpu_s(lambda: [from_bytes(octets, KeyCheck.FULL) for _ in range(20)]) < 0.16


def test_repr_shows_nothing_of_the_key() -> None:
    assert repr(from_bytes(SEED)) == "SigningKey(s1._domainkey.us.test, ed25519-sha256, 256 bits)"


@pytest.mark.parametrize(
    ("domain", "selector"), [("", "s1"), ("us..test", "s1"), ("us.test", ""), ("us.test", "../x"), ("us.test", "*")]
)
def test_names_are_checked(domain: str, selector: str) -> None:
    with pytest.raises(KeyFileError, match="not a usable domain or selector"):
        SigningKey.from_bytes(SEED, domain=domain, selector=selector)


def test_domain_and_selector_are_the_published_ones() -> None:
    key = SigningKey.from_bytes(SEED, domain="BÜCHER.test", selector="S1.Mail")
    assert key.public_name == "s1.mail._domainkey.xn--bcher-kva.test"
