"""The published key: hostile TXT records give a reason and no exception, and cost nothing (RFC 6376 §3.6.1)."""

from __future__ import annotations

import base64
from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives.asymmetric import dsa, ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from cpu_time import best_cpu_s
from mailguard.dkim.key import MAX_RECORD_BYTES, KeyRecord, KeyRecordError
from mailguard.dkim.result import DkimReason
from zone0 import PrivateKey, ed25519_key, key_record, public_octets, rsa_key

SYNTAX, SIZE, TYPE = DkimReason.KEY_SYNTAX, DkimReason.KEY_SIZE, DkimReason.KEY_TYPE
HASH, SERVICE, REVOKED = DkimReason.KEY_HASH, DkimReason.KEY_SERVICE, DkimReason.KEY_REVOKED


def der(tag: int, content: bytes) -> bytes:
    size = len(content)
    octets = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag]) + (bytes([size]) if size < 128 else bytes([0x80 | len(octets)]) + octets) + content


def integer(number: int) -> bytes:
    return der(2, number.to_bytes(number.bit_length() // 8 + 1, "big", signed=True))


def rsa_public_key(modulus: int, exponent: int) -> bytes:
    """RSAPublicKey of RFC 8017 §A.1.1, without any check."""
    return der(0x30, integer(modulus) + integer(exponent))


def subject_public_key_info(modulus: int, exponent: int) -> bytes:
    algorithm = der(0x30, bytes.fromhex("06092a864886f70d01010105 00".replace(" ", "")))
    return der(0x30, algorithm + der(3, b"\0" + rsa_public_key(modulus, exponent)))


Encoder = Callable[[int, int], bytes]


def odd(bits: int) -> int:
    """An odd number of exactly so many bits; that it is no product of two primes, nobody can tell by looking."""
    return (1 << bits) - 12_345


def record(octets: bytes, tags: str = "v=DKIM1; ") -> bytes:
    return f"{tags}p=".encode() + base64.b64encode(octets)


def reason_of(text: bytes, key_type: str = "rsa") -> DkimReason:
    with pytest.raises(KeyRecordError) as caught:
        KeyRecord.parse(text, key_type=key_type)
    assert str(caught.value).isprintable()
    return caught.value.reason


MODULUS = rsa_key(2048).public_key().public_numbers().n


@pytest.mark.attack("D20")
@pytest.mark.parametrize("encode", [rsa_public_key, subject_public_key_info])
@pytest.mark.parametrize(
    ("modulus", "exponent", "reason"),
    [
        (odd(512), 65537, SIZE),
        (odd(768), 65537, SIZE),
        (odd(1023), 65537, SIZE),
        (odd(8193), 65537, SIZE),
        (odd(16_384), 65537, SIZE),
        (MODULUS, 1, SYNTAX),
        (MODULUS, 0, SYNTAX),
        (MODULUS, 2, SYNTAX),
        (MODULUS, 65536, SYNTAX),
        (MODULUS, -3, SYNTAX),
        (MODULUS, (1 << 64) + 1, SYNTAX),
        (MODULUS, MODULUS - 2, SYNTAX),
        (0, 65537, SYNTAX),
        (-MODULUS, 65537, SYNTAX),
        (1, 65537, SYNTAX),
    ],
    ids=[
        *("512", "768", "1023", "8193", "16384"),
        *("e=1", "e=0", "e=2", "e even", "e<0", "e of 65 bits", "e of 2048 bits"),
        *("n=0", "n<0", "n=1"),
    ],
)
def test_rsa_numbers_refused(encode: Encoder, modulus: int, exponent: int, reason: DkimReason) -> None:
    found = reason_of(record(encode(modulus, exponent)))
    assert found in (reason, SIZE) if modulus < 2 else found is reason


@pytest.mark.attack("D20")
@pytest.mark.parametrize("encode", [rsa_public_key, subject_public_key_info])
@pytest.mark.parametrize(
    ("bits", "exponent"), [(1024, 3), (1024, 65537), (1025, 65537), (4096, 65537), (8192, 65537)]
)
def test_rsa_numbers_accepted(encode: Encoder, bits: int, exponent: int) -> None:
    key = KeyRecord.parse(record(encode(odd(bits), exponent)), key_type="rsa")
    assert key.bits == bits
    assert not key.verifies(b"\0" * (bits // 8), b"anything")


@pytest.mark.attack("D20")
def test_record_of_more_than_4096_octets_is_not_read() -> None:
    assert reason_of(record(subject_public_key_info(odd(32_768), 65537))) is SYNTAX
    text = key_record(rsa_key(1024))
    filled = text + b"; n=" + b"x" * (MAX_RECORD_BYTES - len(text) - 4)
    assert KeyRecord.parse(filled, key_type="rsa").bits == 1024
    assert reason_of(filled + b"x") is SYNTAX


@pytest.mark.attack("D34")
def test_huge_record() -> None:
    assert reason_of(key_record(rsa_key(1024)) + b"; n=" + b"x" * 60_000) is SYNTAX


def test_key_that_lost_its_padding() -> None:
    whole = KeyRecord.parse(key_record(ed25519_key()), key_type="ed25519")
    assert KeyRecord.parse(key_record(ed25519_key()).rstrip(b"="), key_type="ed25519").key == whole.key


@pytest.mark.attack("D23")
@pytest.mark.parametrize(
    "text",
    [
        record(b"x" * 31, "v=DKIM1; k=ed25519; "),
        record(b"x" * 33, "v=DKIM1; k=ed25519; "),
        record(public_octets(rsa_key(1024)), "v=DKIM1; k=ed25519; "),
        key_record(ed25519_key()) + b"v=DKIM1; k=ed25519; p=" + base64.b64encode(b"x" * 32),
        key_record(ed25519_key()) + b"v=DKIM1",
        b"v=DKIM1; k=ed25519; p=====",
    ],
    ids=["31", "33", "RSA", "two records in one", "version behind", "padding alone"],
)
def test_ed25519_refused(text: bytes) -> None:
    assert reason_of(text, "ed25519") is SYNTAX


@pytest.mark.attack("D23", "D25")
@pytest.mark.parametrize("key_type", ["rsa", "ed25519"])
@pytest.mark.parametrize("published", [b"p=", b"p= ", b"p=\r\n ", b"p=;", b"p=; t=s"])
def test_empty_key_is_revoked(key_type: str, published: bytes) -> None:
    assert reason_of(b"v=DKIM1; k=" + key_type.encode() + b"; " + published, key_type) is REVOKED


def certificate_like() -> bytes:
    """The shape of an X.509 certificate (RFC 5280 §4.1)."""
    info = subject_public_key_info(MODULUS, 65537)
    body = der(0x30, der(0xA0, integer(2)) + integer(1) + info)
    return der(0x30, body + der(0x30, b"") + der(3, b"\0" * 257))


EC_KEY = ec.generate_private_key(ec.SECP256R1()).public_key()
DSA_KEY = dsa.DSAPublicNumbers(4, dsa.DSAParameterNumbers(odd(1024), odd(160), 4)).public_key()
GOOD_DER = public_octets(rsa_key(1024))


@pytest.mark.attack("D24")
@pytest.mark.parametrize(
    ("octets", "reason"),
    [
        (certificate_like(), SYNTAX),
        (b"\x30\x80" * 1_000 + b"\0\0" * 500, SYNTAX),
        (b"\x30\x84\xff\xff\xff\xff" + GOOD_DER, SYNTAX),
        (b"\x30\x88\xff\xff\xff\xff\xff\xff\xff\xff" + GOOD_DER, SYNTAX),
        (b"\x30\xff" + b"\xff" * 127, SYNTAX),
        (GOOD_DER[:-1], SYNTAX),
        (GOOD_DER + b"\0", SYNTAX),
        (b"\0", SYNTAX),
        (b"", REVOKED),
        (EC_KEY.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo), TYPE),
        (DSA_KEY.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo), TYPE),
    ],
    ids=["X.509", "indefinite", "4 GB", "2^64", "length of length", "cut", "longer", "NUL", "empty", "EC", "DSA"],
)
def test_der_that_is_no_rsa_key(octets: bytes, reason: DkimReason) -> None:
    text = record(octets)
    assert reason_of(text) is reason
    # The usual time is a hundredth of the 20 ms.
    assert best_cpu_s(lambda: reason_of(text)) < 0.02


RSA_RECORD = key_record(rsa_key(1024))
P = RSA_RECORD.partition(b"p=")[2]


@pytest.mark.attack("D26", "D29")
@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"v=DKIM1; k=ed25519; p=" + P, TYPE),
        (b"v=DKIM1; k=; p=" + P, TYPE),
        (b"v=DKIM1; k=x; p=" + P, TYPE),
        (b"v=DKIM1; h=sha1; p=" + P, HASH),
        (b"v=DKIM1; h=; p=" + P, HASH),
        (b"v=DKIM1; h=sha2566; p=" + P, HASH),
        (b"v=DKIM1; s=tlsrpt; p=" + P, SERVICE),
        (b"v=DKIM1; s=; p=" + P, SERVICE),
        (b"v=DKIM2; p=" + P, SYNTAX),
        (b"v=dkim1; p=" + P, SYNTAX),
        (b"v=DKIM11; p=" + P, SYNTAX),
        (b"v=; p=" + P, SYNTAX),
        (b"k=rsa; v=DKIM1; p=" + P, SYNTAX),
        (b"v=DKIM1; p=" + P + b"; p=" + P, SYNTAX),
        (b"v=DKIM1; k=rsa", SYNTAX),
        (b"v=DKIM1", SYNTAX),
        (b"", SYNTAX),
        (b"v=spf1 -all", SYNTAX),
        (b"google-site-verification=abc", SYNTAX),
        (b"v=DKIM1; p=***", SYNTAX),
        (b"v=DKIM1; p=" + P[:-1], SYNTAX),
        (b"v=DKIM1; p=" + P + b"===", SYNTAX),
        (b"v=DKIM1; p=" + P + b"====", SYNTAX),
        (b"v=DKIM1; p=" + P + b"\0", SYNTAX),
        (b'"v=DKIM1; p=' + P + b'"', SYNTAX),
    ],
)
def test_tags_refused(text: bytes, reason: DkimReason) -> None:
    assert reason_of(text) is reason


@pytest.mark.parametrize(
    ("text", "detail"),
    [
        (b"v=DKIM2; p=" + P, "the record is not of version DKIM1"),
        (b"p=" + P + b"; v=DKIM2", "the record is not of version DKIM1"),
        (b"k=rsa; v=DKIM1; p=" + P, "v= is not the first tag of the record"),
    ],
)
def test_what_is_wrong_with_v(text: bytes, detail: str) -> None:
    with pytest.raises(KeyRecordError) as caught:
        KeyRecord.parse(text, key_type="rsa")
    assert str(caught.value) == detail


@pytest.mark.parametrize(
    ("text", "testing", "strict"),
    [
        (b"p=" + P, False, False),
        (b"v=DKIM1;p=" + P + b";", False, False),
        (b" v = DKIM1 ; p = " + P[:20] + b" " + P[20:] + b" ; ", False, False),
        (b"v=DKIM1; g=ceo; n=a note; x=1; p=" + P, False, False),
        (b"v=DKIM1; h=sha1:sha256; p=" + P, False, False),
        (b"v=DKIM1; h= sha1 : SHA256 ; p=" + P, False, False),
        (b"v=DKIM1; s=*; p=" + P, False, False),
        (b"v=DKIM1; s=tlsrpt:email; k=RSA; p=" + P, False, False),
        (b"v=DKIM1; t=y; p=" + P, True, False),
        (b"v=DKIM1; t=s; p=" + P, False, True),
        (b"v=DKIM1; t= y : x : s ; p=" + P, True, True),
        (b"v=DKIM1; t=; p=" + P, False, False),
        (b"v=DKIM1; t=yes; p=" + P, False, False),
    ],
)
def test_tags_accepted(text: bytes, testing: bool, strict: bool) -> None:
    key = KeyRecord.parse(text, key_type="rsa")
    assert (key.bits, key.testing, key.strict) == (1024, testing, strict)


# No key pair has this modulus, but its size is 9,216 bits.
TOO_LARGE = (
    rsa.RSAPublicNumbers(65537, (1 << 9215) | 1)
    .public_key()
    .public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
)


@pytest.mark.attack("D25", "D46")
@pytest.mark.parametrize("flags", [b"y", b"s"])
@pytest.mark.parametrize(
    ("rest", "key_type"),
    [
        (b"p=", "rsa"),
        (b"p=*", "rsa"),
        (b"p=AAAA", "rsa"),
        (b"p=AAAA; k=ed25519", "ed25519"),
        (b"p=" + P + b"; s=tlsrpt", "rsa"),
        (b"p=" + P + b"; h=sha1", "rsa"),
        (b"p=" + P, "ed25519"),
        (b"p=" + base64.b64encode(TOO_LARGE), "rsa"),
    ],
    ids=["revoked", "not base64", "not a key", "length", "service", "hash", "type", "size"],
)
def test_a_fault_of_a_testing_key_says_so(rest: bytes, key_type: str, flags: bytes) -> None:
    with pytest.raises(KeyRecordError) as caught:
        KeyRecord.parse(b"v=DKIM1; t=" + flags + b"; " + rest, key_type=key_type)
    assert caught.value.testing is (flags == b"y")


@pytest.mark.parametrize(
    ("private", "key_type"), [(rsa_key(1024), "rsa"), (ed25519_key(), "ed25519")], ids=["rsa", "ed25519"]
)
@pytest.mark.parametrize("signature", [b"", b"\0", b"\0" * 64, b"\xff" * 128, b"\xff" * 2000], ids=len)
def test_signatures_of_no_key(private: PrivateKey, key_type: str, signature: bytes) -> None:
    assert not KeyRecord.parse(key_record(private), key_type=key_type).verifies(signature, b"text")


PIECES = st.sampled_from(
    [b"v=DKIM1", b"k=rsa", b"k=ed25519", b"p=" + P, b"p=" + P[:40], b"t=y", b"h=", b"h=sha256", b"s=*", b"\xff", b" "]
)
GOOD_RECORDS = st.sampled_from([(RSA_RECORD, "rsa"), (key_record(ed25519_key()), "ed25519")])
# In base64, most are another key.
ONE_CHANGED = st.tuples(
    GOOD_RECORDS, st.integers(0, 300), st.sampled_from([b"A", b"z", b"/", b" ", b"", b"\xff"])
).map(lambda it: (it[0][0][: it[1]] + it[2] + it[0][0][it[1] + 1 :], it[0][1]))
KEY_TYPES = st.sampled_from(["rsa", "ed25519"])


@given(st.tuples(st.binary() | st.lists(PIECES, max_size=5).map(b"; ".join), KEY_TYPES) | ONE_CHANGED)
def test_octets_become_a_key_or_key_record_error(record: tuple[bytes, str]) -> None:
    text, key_type = record
    try:
        key = KeyRecord.parse(text, key_type=key_type)
    except KeyRecordError:
        return
    assert key.bits == 256 if key_type == "ed25519" else 1024 <= key.bits <= 8192


@given(
    st.binary(max_size=300)
    | st.tuples(st.integers(0, len(GOOD_DER) - 1), st.integers(0, 255)).map(
        lambda change: GOOD_DER[: change[0]] + bytes([change[1]]) + GOOD_DER[change[0] + 1 :]
    )
)
def test_any_der_becomes_a_key_or_key_record_error(octets: bytes) -> None:
    try:
        key = KeyRecord.parse(record(octets), key_type="rsa")
    except KeyRecordError:
        return
    key.verifies(b"\x01" * 128, b"text")
