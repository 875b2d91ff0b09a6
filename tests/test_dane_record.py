"""TLSA records: which are usable, which of these are taken, and how they are written."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dane_certificates import Made, spki
from mailguard.dane.record import MAX_RECORDS, Unusable, parse_tlsa, read_records, why_unusable
from mailguard.dns.question import TLSA

D32, D64 = b"\xab" * 32, b"\xab" * 64
KEY, CERTIFICATE = spki("p256"), Made.of("root").der


# (id, RFC section, record, why it is unusable)
USABILITY: list[tuple[str, str, TLSA, Unusable | None]] = [
    ("dane-ee spki sha2-256", "7672 3.1.1", TLSA(3, 1, 1, D32), None),
    ("dane-ee cert sha2-512", "7672 3.1.1", TLSA(3, 0, 2, D64), None),
    ("dane-ta cert sha2-256", "7672 3.1.2", TLSA(2, 0, 1, D32), None),
    ("dane-ta bare key", "7671 5.2.3", TLSA(2, 1, 0, KEY), None),
    ("key in full", "6698 2.1.3", TLSA(3, 1, 0, KEY), None),
    ("rsa key in full", "6698 2.1.3", TLSA(3, 1, 0, spki("rsa2048")), None),
    ("ed25519 key in full", "6698 2.1.3", TLSA(3, 1, 0, spki("ed")), None),
    ("certificate in full", "6698 2.1.3", TLSA(3, 0, 0, CERTIFICATE), None),
    ("pkix-ta", "7672 3.1.3", TLSA(0, 0, 1, D32), Unusable.PKIX_USAGE),
    ("pkix-ee", "7672 3.1.3", TLSA(1, 1, 1, D32), Unusable.PKIX_USAGE),
    ("next usage", "6698 2.1.1", TLSA(4, 1, 1, D32), Unusable.USAGE),
    ("private usage", "6698 7.2", TLSA(255, 1, 1, D32), Unusable.USAGE),
    ("unknown selector", "6698 2.1.2", TLSA(3, 2, 1, D32), Unusable.SELECTOR),
    ("private selector", "6698 7.3", TLSA(2, 255, 0, D32), Unusable.SELECTOR),
    ("unknown matching type", "6698 2.1.3", TLSA(3, 1, 3, D32), Unusable.MATCHING_TYPE),
    ("private matching type", "6698 7.4", TLSA(3, 1, 255, D32), Unusable.MATCHING_TYPE),
    ("sha2-256 short", "7671 9", TLSA(3, 1, 1, D32[:-1]), Unusable.LENGTH),
    ("sha2-256 long", "7671 9", TLSA(3, 1, 1, D64), Unusable.LENGTH),
    ("sha2-512 short", "7671 9", TLSA(3, 1, 2, D32), Unusable.LENGTH),
    ("empty digest", "7671 9", TLSA(3, 1, 1, b""), Unusable.LENGTH),
    ("no certificate", "6698 4.1", TLSA(3, 0, 0, b""), Unusable.MALFORMED),
    ("no key", "6698 4.1", TLSA(3, 1, 0, b""), Unusable.MALFORMED),
    ("rubbish as certificate", "6698 4.1", TLSA(2, 0, 0, b"\xde\xad\xbe\xef"), Unusable.MALFORMED),
    ("rubbish as key", "6698 4.1", TLSA(3, 1, 0, b"\xde\xad\xbe\xef"), Unusable.MALFORMED),
    ("half a certificate", "6698 4.1", TLSA(3, 0, 0, CERTIFICATE[:-1]), Unusable.MALFORMED),
    ("half a key", "6698 4.1", TLSA(3, 1, 0, KEY[:-1]), Unusable.MALFORMED),
    ("more than a certificate", "6698 4.1", TLSA(3, 0, 0, CERTIFICATE + b"\0"), Unusable.MALFORMED),
    ("more than a key", "6698 4.1", TLSA(3, 1, 0, KEY + b"\0"), Unusable.MALFORMED),
    ("key as certificate", "6698 2.1.2", TLSA(3, 0, 0, KEY), Unusable.MALFORMED),
    ("certificate as key", "6698 2.1.2", TLSA(3, 1, 0, CERTIFICATE), Unusable.MALFORMED),
    ("digest as key", "6698 2.1.3", TLSA(3, 1, 0, D32), Unusable.MALFORMED),
    # PKCS #1: SEQUENCE { INTEGER, INTEGER }.
    ("key of another form", "6698 2.1.2", TLSA(3, 1, 0, b"\x30\x06\x02\x01\x03\x02\x01\x03"), Unusable.MALFORMED),
    # Two octets of another kind of string, of an algorithm that is no identifier, and of which a bit counts for none.
    (
        "key as another string",
        "6698 4.1",
        TLSA(3, 1, 0, b"\x30\x09\x30\x03\x06\x01\x00\x04\x02\x00\x01"),
        Unusable.MALFORMED,
    ),
    (
        "key of a number",
        "6698 4.1",
        TLSA(3, 1, 0, b"\x30\x09\x30\x03\x02\x01\x00\x03\x02\x00\x01"),
        Unusable.MALFORMED,
    ),
    (
        "key of odd bits",
        "6698 4.1",
        TLSA(3, 1, 0, b"\x30\x09\x30\x03\x06\x01\x00\x03\x02\x01\x00"),
        Unusable.MALFORMED,
    ),
    ("key of one octet", "6698 4.1", TLSA(3, 1, 0, b"\x30\x09\x30\x03\x06\x01\x00\x03\x02\x00\x01"), None),
    (
        "key without octets",
        "6698 4.1",
        TLSA(3, 1, 0, b"\x30\x08\x30\x03\x06\x01\x00\x03\x01\x00"),
        Unusable.MALFORMED,
    ),
]


@pytest.mark.attack("T04")
@pytest.mark.parametrize(("name", "section", "record", "why"), USABILITY, ids=[row[0] for row in USABILITY])
def test_what_is_usable(name: str, section: str, record: TLSA, why: Unusable | None) -> None:
    assert why_unusable(record) is why
    sorted_out = read_records([record])
    assert sorted_out.taken == (() if why else (record,))
    assert sorted_out.unusable == (((record, why),) if why else ())


def digests(usage: int, selector: int, *matching_types: int) -> list[TLSA]:
    data = {0: KEY, 1: D32, 2: D64}
    return [TLSA(usage, selector, number, data[number]) for number in matching_types]


# (id, records, taken)
AGILITY: list[tuple[str, list[TLSA], list[TLSA]]] = [
    ("none", [], []),
    ("the strongest", digests(3, 1, 1, 2), digests(3, 1, 2)),
    ("in full beside it", digests(3, 1, 1, 2, 0), digests(3, 1, 0, 2)),
    ("in full alone with the weaker", digests(3, 1, 1, 0), digests(3, 1, 0, 1)),
    ("each selector", [*digests(3, 1, 2), *digests(3, 0, 1)], [*digests(3, 0, 1), *digests(3, 1, 2)]),
    ("each usage", [*digests(2, 1, 2), *digests(3, 1, 1)], [*digests(3, 1, 1), *digests(2, 1, 2)]),
    ("after discarding", [TLSA(3, 1, 2, b"short"), *digests(3, 1, 1)], digests(3, 1, 1)),
    ("usage 1 counts for nothing", [TLSA(1, 1, 2, D64), *digests(3, 1, 1)], digests(3, 1, 1)),
    ("twice", digests(3, 1, 1, 1), digests(3, 1, 1)),
]


@pytest.mark.parametrize(("name", "records", "taken"), AGILITY, ids=[row[0] for row in AGILITY])
def test_digest_agility(name: str, records: list[TLSA], taken: list[TLSA]) -> None:
    """RFC 7671 §9."""
    for order in (records, records[::-1]):
        assert list(read_records(order).taken) == taken
    assert {*read_records(records).taken, *read_records(records).weaker} == {
        record for record in records if why_unusable(record) is None
    }


@pytest.mark.attack("T04")
def test_a_thousand_records() -> None:
    """Of any order the same are taken, and they are few."""
    chance = random.Random(4)
    records = [TLSA(2 + number % 2, 1, 1, chance.randbytes(32)) for number in range(1_000)]
    first = read_records(records)
    assert len(first.taken) == MAX_RECORDS
    assert first.left_out == 1_000 - MAX_RECORDS
    chance.shuffle(records)
    assert read_records(records) == first
    unusable = read_records([TLSA(number % 2, 1, 1, chance.randbytes(32)) for number in range(1_000)])
    assert (unusable.taken, len(unusable.unusable), unusable.left_out) == ((), 1_000, 0)


@given(st.builds(TLSA, st.integers(0, 255), st.integers(0, 255), st.integers(0, 255), st.binary(min_size=1)))
def test_what_is_written_is_read(record: TLSA) -> None:
    assert parse_tlsa(str(record)) == record


@pytest.mark.parametrize("text", ["3 1 1 ABab", "3 1 1 AB ab", " 3\t1  1 ab\nAB "])
def test_spaces_and_case(text: str) -> None:
    assert parse_tlsa(text) == TLSA(3, 1, 1, b"\xab\xab")


NO_RECORDS = ["", "3 1 1", "3 1", "256 1 1 ab", "-1 1 1 ab", "3 1 1 abc", "3 1 1 xy", "3 1 1 \u0660a"]
NO_RECORDS += ["\u0663 1 1 ab", "3 1 1 " + "ab" * 70_000, "3 " * 100_000]


@pytest.mark.parametrize("text", NO_RECORDS, ids=range(len(NO_RECORDS)))
def test_what_is_no_record(text: str) -> None:
    with pytest.raises(ValueError, match=r"TLSA record|range|hexadecimal"):
        parse_tlsa(text)
