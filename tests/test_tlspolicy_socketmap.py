"""The socketmap protocol (socketmap_table(5)): whole, byte by byte, and from clients that do not speak it.

ATTACKS.md rows: T15.
"""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailguard.tlspolicy.socketmap import (
    MAX_REASON_CHARS,
    MAX_REPLY_BYTES,
    MAX_REQUEST_BYTES,
    Decoder,
    Reply,
    ReplyStatus,
    Request,
    Violation,
    encode_request,
    parse_reply,
)


def read(octets: bytes, cuts: tuple[int, ...] = ()) -> list[Request | Violation]:
    """All that `octets` say, fed in parts that end at `cuts`."""
    decoder = Decoder()
    found: list[Request | Violation] = []
    edges = [0, *cuts, len(octets)]
    for begin, end in pairwise(edges):
        decoder.feed(octets[begin:end])
        while (said := decoder.next()) is not None:
            found.append(said)
            if isinstance(said, Violation):
                return found
    return found


REQUESTS = [
    pytest.param(b"17:QUERY example.com,", [Request(b"QUERY", b"example.com")], id="one"),
    pytest.param(b"7:QUERY a,7:QUERY b,", [Request(b"QUERY", b"a"), Request(b"QUERY", b"b")], id="two"),
    pytest.param(b"6:QUERY ,", [Request(b"QUERY", b"")], id="empty-key"),
    pytest.param(b"2: a,", [Request(b"", b"a")], id="empty-map"),
    pytest.param(b"10:QUERY a b,,", [Request(b"QUERY", b"a b,")], id="space-and-comma-in-key"),
    pytest.param(b"10:QUERY \x00\xff\r\n,", [Request(b"QUERY", b"\x00\xff\r\n")], id="octets"),
    pytest.param(b"1024:" + b"m " + b"k" * 1022 + b",", [Request(b"m", b"k" * 1022)], id="longest"),
    pytest.param(b"", [], id="nothing"),
    pytest.param(b"17:QUERY example.com", [], id="no-comma-yet"),
    pytest.param(b"1024", [], id="no-colon-yet"),
]
VIOLATIONS = [
    pytest.param(b"1025:", id="over-the-limit"),
    pytest.param(b"99999", id="five-digits"),
    pytest.param(b"1000000000:QUERY a", id="gigabyte"),
    pytest.param(b"-1:,", id="negative"),
    pytest.param(b"+5:a b c,", id="plus"),
    pytest.param(b" 7:QUERY a,", id="space-in-front"),
    pytest.param(b"07:QUERY a,", id="leading-zero"),
    pytest.param(b":QUERY a,", id="no-length"),
    pytest.param(b"0:,", id="empty"),
    pytest.param(b"5:QUERY,", id="no-space"),
    pytest.param(b"7:QUERY a;", id="wrong-end"),
    pytest.param(b"6:QUERY a,", id="length-too-small"),
    pytest.param(b"GET / HTTP/1.1\r\n", id="http"),
    pytest.param(b"EHLO x\r\n", id="smtp"),
    pytest.param(b"\x16\x03\x01\x02\x00", id="tls"),
    pytest.param("\u0667:QUERY a,".encode(), id="arabic-digit"),
    pytest.param(b"\n", id="line-feed"),
]


@pytest.mark.parametrize(("octets", "expected"), REQUESTS)
def test_requests(octets: bytes, expected: list[Request]) -> None:
    assert read(octets) == expected
    assert read(octets, tuple(range(1, len(octets)))) == expected, "byte by byte"


@pytest.mark.attack("T15")
@pytest.mark.parametrize("octets", VIOLATIONS)
def test_what_is_no_request_ends_it(octets: bytes) -> None:
    (said,) = read(octets)
    assert isinstance(said, Violation)
    assert said.detail.isascii()
    (drip,) = read(octets, tuple(range(1, len(octets))))
    assert isinstance(drip, Violation)


@pytest.mark.attack("T15")
def test_nothing_is_read_after_a_violation() -> None:
    decoder = Decoder()
    decoder.feed(b"7:QUERY a,x7:QUERY b,")
    assert decoder.next() == Request(b"QUERY", b"a")
    said = decoder.next()
    assert isinstance(said, Violation)
    decoder.feed(b"7:QUERY b," * 1000)
    assert decoder.next() is said
    assert not decoder._pending


@pytest.mark.attack("T15")
def test_a_huge_length_is_refused_before_anything_of_it_comes() -> None:
    decoder = Decoder()
    decoder.feed(b"1073741824")
    assert isinstance(decoder.next(), Violation)


def test_requests_in_random_parts() -> None:
    draw = random.Random(8461)
    wanted = [Request(b"QUERY", b"d%d.example" % number) for number in range(200)]
    stream = b"".join(encode_request(one.map_name, one.key) for one in wanted)
    for _ in range(50):
        cuts = tuple(sorted(draw.sample(range(1, len(stream)), draw.randrange(1, 200))))
        assert read(stream, cuts) == wanted


@given(st.binary(max_size=64), st.lists(st.integers(0, 64), max_size=8))
def test_octets_of_any_kind_mean_the_same_in_any_parts(octets: bytes, cuts: list[int]) -> None:
    whole = read(octets)
    parts = read(octets, tuple(sorted(min(cut, len(octets)) for cut in cuts)))
    # In which words a violation is told may depend on how much of it has come.
    assert [type(one) if isinstance(one, Violation) else one for one in parts] == [
        type(one) if isinstance(one, Violation) else one for one in whole
    ]


@given(st.binary(max_size=20).filter(lambda name: b" " not in name), st.binary(max_size=MAX_REQUEST_BYTES - 30))
def test_a_request_is_read_as_it_was_written(map_name: bytes, key: bytes) -> None:
    assert read(encode_request(map_name, key)) == [Request(map_name, key)]


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (Reply(ReplyStatus.OK, "dane-only"), b"12:OK dane-only,"),
        (Reply(ReplyStatus.NOT_FOUND), b"9:NOTFOUND ,"),
        (Reply(ReplyStatus.TEMPORARY, "no DNS"), b"11:TEMP no DNS,"),
        (Reply(ReplyStatus.TIMEOUT), b"8:TIMEOUT ,"),
        (Reply(ReplyStatus.PERMANENT, "no"), b"7:PERM no,"),
        (Reply(ReplyStatus.TEMPORARY, "a\r\nb\x00\u00e9"), b"11:TEMP a??b??,"),
        (Reply(ReplyStatus.TEMPORARY, "x" * 9999), b"205:TEMP " + b"x" * MAX_REASON_CHARS + b","),
    ],
)
def test_replies(reply: Reply, expected: bytes) -> None:
    assert reply.octets() == expected
    assert parse_reply(expected) is not None
    assert all(parse_reply(expected[:end]) is None for end in range(len(expected)))


@pytest.mark.parametrize("text", ["dane\nonly", "d\u00e4ne", "x" * MAX_REPLY_BYTES], ids=["line", "umlaut", "long"])
def test_data_that_postfix_would_not_take_is_an_error_of_ours(text: str) -> None:
    with pytest.raises(ValueError, match="repl"):
        Reply(ReplyStatus.OK, text).octets()


@pytest.mark.parametrize("octets", [b"x", b"12345678", b"2:OK;", b"2:OK,more", b"2:HO,", b":OK,"])
def test_what_is_no_reply(octets: bytes) -> None:
    if octets in (b"x", b"12345678"):
        octets += b":"
    with pytest.raises(ValueError, match=r"repl|valid"):
        parse_reply(octets)
