"""Certificates and records of strangers that want to be in the way: rubbish, mazes, thousands."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dane_certificates import NOW, Made, server, spki
from mailguard.dane.certificate import MAX_CERTIFICATE_OCTETS, Certificate
from mailguard.dane.record import CertificateUsage, MatchingType, Selector
from mailguard.dane.result import TlsaReason, TlsaResult, TlsaStatus
from mailguard.dane.verify import MAX_BARE_KEYS, MAX_CERTIFICATES, tlsa_of, verify_tlsa
from mailguard.dns.question import TLSA

# CPU time; ten times what the slowest of these took.
BOUND_S = 2.0
ROOT = Made.of("root")
MIDDLE = Made.of("middle", ROOT)
SERVER = server(MIDDLE, "mx.example.com", "*.example.com")
CHAIN = [SERVER.der, MIDDLE.der, ROOT.der]
EVERY = [
    tlsa_of(made.der, usage=usage, selector=selector, matching_type=matching_type)
    for made in (SERVER, MIDDLE, ROOT)
    for usage in (CertificateUsage.DANE_TA, CertificateUsage.DANE_EE)
    for selector in Selector
    for matching_type in MatchingType
]
ANCHOR = tlsa_of(ROOT.der, usage=CertificateUsage.DANE_TA, selector=Selector.CERT)


def verified(chain: Sequence[bytes], records: Sequence[TLSA]) -> TlsaResult:
    started = time.process_time()
    result = verify_tlsa(chain, records, reference_ids=("mx.example.com",), now=NOW)
    assert time.process_time() - started < BOUND_S
    assert result.detail.isascii()
    assert result.detail.isprintable()
    return result


def damaged(chance: random.Random, octets: bytes) -> bytes:
    at = chance.randrange(len(octets))
    match chance.randrange(4):
        case 0:
            return octets[:at] + bytes([octets[at] ^ (1 << chance.randrange(8))]) + octets[at + 1 :]
        case 1:
            return octets[:at]
        case 2:
            return octets[:at] + chance.randbytes(chance.randrange(1, 9)) + octets[at + chance.randrange(9) :]
    return octets[:at] + octets[at:][:: chance.choice([1, -1])] * 2


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("seed", range(4))
def test_damaged_certificates(seed: int) -> None:
    """Never an exception; and the only certificate that an anchor vouches for is the one that was signed."""
    chance = random.Random(seed)
    for _ in range(500):
        chain = list(CHAIN)
        at = chance.randrange(3)
        chain[at] = damaged(chance, chain[at])
        if chain == CHAIN:
            continue
        result = verified(chain, chance.sample(EVERY, 4))
        if result.status is TlsaStatus.AUTHENTICATED and at == 0:
            assert result.record is not None
            assert result.record.usage == CertificateUsage.DANE_EE
        assert verified(chain, [TLSA(3, 0, 1, bytes(32)), ANCHOR]).reason is not TlsaReason.MATCHED or at


@pytest.mark.filterwarnings("ignore")
@given(st.lists(st.binary(max_size=80), max_size=4), st.lists(st.binary(min_size=1, max_size=40), max_size=4))
def test_rubbish(chain: list[bytes], data: list[bytes]) -> None:
    for usage in (2, 3):
        for selector in (0, 1):
            result = verified(chain, [TLSA(usage, selector, 0, octets) for octets in data])
            assert result.status is TlsaStatus.UNUSABLE


@pytest.mark.attack("T04")
def test_a_thousand_records_of_each_kind() -> None:
    chance = random.Random(1)
    keys = [spki(f"key{number}") for number in range(40)]
    forger = Made.of("root", key_name="forger")
    kinds = [
        [TLSA(3, 1, 1, chance.randbytes(32)) for _ in range(1_000)],
        [TLSA(2, 0, 2, chance.randbytes(64)) for _ in range(1_000)],
        [TLSA(2, 0, 0, damaged(chance, forger.der)) for _ in range(1_000)],
        [TLSA(2, 1, 0, key) for key in keys],
        [TLSA(2, 1, 0, damaged(chance, forger.spki)) for _ in range(1_000)],
        [TLSA(2, 0, 0, Made.of("middle", key_name=f"key{number}").der) for number in range(40)],
    ]
    for records in kinds:
        assert verified(CHAIN, records).status is TlsaStatus.FAILED


def test_a_chain_of_a_thousand() -> None:
    """The server's own certificate counts whatever follows; of the rest only the beginning is looked at."""
    strangers = [Made.of("x", key_name="x").der for _ in range(50)]
    for chain in (CHAIN[:1] + strangers * 20, CHAIN[:1] + [b"rubbish"] * 1_000, CHAIN[:1] * 1_000):
        assert verified(chain, [tlsa_of(SERVER.der)]).status is TlsaStatus.AUTHENTICATED
        assert verified(chain, [ANCHOR]).status is TlsaStatus.FAILED
    before = [*CHAIN[:1], *strangers[: MAX_CERTIFICATES - 3], *CHAIN[1:]]
    assert verified(before, [ANCHOR]).status is TlsaStatus.AUTHENTICATED
    beyond = [*CHAIN[:1], *strangers[: MAX_CERTIFICATES - 2], *CHAIN[1:]]
    assert verified(beyond, [ANCHOR]).reason is TlsaReason.NO_MATCH


def test_a_maze_of_authorities() -> None:
    """All of one name, each signed by all others: there is no end to the paths, and none leads to the anchor."""
    maze = [Made.of("middle", Made.of("middle", key_name=f"key{one}"), key_name=f"key{one + 1}") for one in range(14)]
    leaf = server(Made.of("middle", key_name="nobody"), "mx.example.com")
    result = verified([leaf.der, *(made.der for made in maze)], [ANCHOR, tlsa_of(maze[0].der)])
    assert result.status is TlsaStatus.FAILED
    circle = [Made.of("a", Made.of("b")), Made.of("b", Made.of("a"))]
    result = verified([server(circle[0], "mx.example.com").der, *(made.der for made in circle), ROOT.der], [ANCHOR])
    assert result.reason is TlsaReason.CHAIN


def test_there_is_a_limit_of_bare_keys() -> None:
    """Whatever the order, those that sort first; more of them than anybody publishes cost no more."""
    records = sorted(TLSA(2, 1, 0, spki(f"key{number}")) for number in range(40))
    for number, record in enumerate(records):
        key_name = next(f"key{one}" for one in range(40) if spki(f"key{one}") == record.data)
        leaf = server(Made.of("anchor", key_name=key_name), "mx.example.com")
        is_authenticated = verified([leaf.der], records).status is TlsaStatus.AUTHENTICATED
        assert is_authenticated is (number < MAX_BARE_KEYS)


def test_sizes() -> None:
    big = server(None, *(f"{number:060}.{number:060}.example.com" for number in range(600)), "mx.example.com")
    assert len(big.der) > MAX_CERTIFICATE_OCTETS
    with pytest.raises(ValueError, match="octets"):
        Certificate.parse(big.der)
    assert verified([big.der], [TLSA(3, 0, 0, big.der)]).status is TlsaStatus.AUTHENTICATED
    many = server(ROOT, *(f"{number:04}.example.com" for number in range(3_000)), "mx.example.com")
    assert verified([many.der, ROOT.der], [ANCHOR]).status is TlsaStatus.AUTHENTICATED
    ids = [f"{number}.test" for number in range(100_000)]
    started = time.process_time()
    result = verify_tlsa([many.der, ROOT.der], [ANCHOR], reference_ids=ids, now=NOW)
    assert result.reason is TlsaReason.NAME
    assert time.process_time() - started < BOUND_S
