"""Canonicalization (RFC 6376 §3.4): the streaming digests against a reference that sees the whole body.

The reference is the text of the RFC, sentence by sentence, on the lines of the whole body. Every way of cutting a
body, and a signed message, gives one result. Left out: speed.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import re
import tracemalloc
from collections.abc import Iterable

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mailguard.dkim.canonical import (
    MAX_CHUNK_BYTES,
    BodyDigests,
    BodyRequest,
    Canonicalization,
    canonical_fields,
)
from mailguard.dkim.result import DkimResult
from mailguard.dkim.sign import SigningRules
from mailguard.dkim.signing_key import SigningKey
from mailguard.dkim.verify import plan_verification, verify
from mailguard.dns.answers import evaluate
from mailguard.dns.zone import ZoneResolver
from mailguard.message import HeaderField, Message
from mailguard.pipeline import sign_dkim
from test_dkim_rfc_examples import ED25519_KEY, RSA_KEY

SIMPLE, RELAXED = Canonicalization.SIMPLE, Canonicalization.RELAXED
WHOLE = (BodyRequest(SIMPLE), BodyRequest(RELAXED))
NOW = 1_700_000_000


def canonical_body(body: bytes, form: Canonicalization) -> bytes:
    """RFC 6376 §3.4.3 and §3.4.4, sentence by sentence."""
    lines = body.split(b"\r\n")
    if form is RELAXED:
        lines = [line.rstrip(b" \t") for line in lines]  # a: ignore all whitespace at the end of lines
        lines = [re.sub(rb"[ \t]+", b" ", line) for line in lines]  # a: reduce all sequences of WSP to a single SP
    while lines and not lines[-1]:  # b: ignore all empty lines at the end of the message body
        lines.pop()
    octets = b"".join(line + b"\r\n" for line in lines)  # a CRLF is added where the last line has none
    return octets or (b"" if form is RELAXED else b"\r\n")


def sha256(octets: bytes) -> bytes:
    return hashlib.sha256(octets).digest()


def digests_of(chunks: Iterable[bytes], requests: Iterable[BodyRequest] = WHOLE) -> BodyDigests:
    digests = BodyDigests(requests)
    for chunk in chunks:
        digests.update(chunk)
    digests.finish()
    return digests


def octets_of(body: bytes) -> list[bytes]:
    return [body[at : at + 1] for at in range(len(body))]


def cut(octets: bytes, places: Iterable[int]) -> list[bytes]:
    """`octets` cut at `places`; a place that occurs twice makes an empty chunk."""
    ends = [0, *sorted(min(place, len(octets)) for place in places), len(octets)]
    return [octets[start:end] for start, end in itertools.pairwise(ends)]


# Octets in which every rule and every pair of neighbours occurs often.
PIECES = (
    b"\r\n",
    b"\r",
    b"\n",
    b" ",
    b"\t",
    b"  ",
    b" \t ",
    b"a",
    b"b c",
    b"\0",
    b"\xe4",
    b"\r\n\r\n",
    b" \r\n",
    b"\r\r\n",
)
bodies = st.lists(st.sampled_from(PIECES), max_size=24).map(b"".join)
places = st.lists(st.integers(0, 60), max_size=12)

# (id, body, simple, relaxed): RFC 6376 §3.4.3 and §3.4.4
BODIES = [
    ("absent", b"", b"\r\n", b""),
    ("one empty line", b"\r\n", b"\r\n", b""),
    ("many empty lines", b"\r\n" * 9, b"\r\n", b""),
    ("one blank", b" ", b" \r\n", b""),
    ("blank lines", b" \t\r\n \r\n", b" \t\r\n \r\n", b""),
    ("no final CRLF", b"a", b"a\r\n", b"a\r\n"),
    ("no final CRLF after white space", b"a \t", b"a \t\r\n", b"a\r\n"),
    ("blank last line without CRLF", b"a\r\n ", b"a\r\n \r\n", b"a\r\n"),
    ("empty lines at the end", b"a\r\n\r\n\r\n", b"a\r\n", b"a\r\n"),
    ("empty lines at the beginning", b"\r\n\r\na\r\n", b"\r\n\r\na\r\n", b"\r\n\r\na\r\n"),
    ("empty lines within", b"a\r\n\r\n\r\nb\r\n", b"a\r\n\r\n\r\nb\r\n", b"a\r\n\r\n\r\nb\r\n"),
    ("blank lines within", b"a\r\n \r\n\t\r\nb\r\n", b"a\r\n \r\n\t\r\nb\r\n", b"a\r\n\r\n\r\nb\r\n"),
    ("white space", b"\t a \t b\t\r\n", b"\t a \t b\t\r\n", b" a b\r\n"),
    ("bare CR", b"a \r b\r\r\n", b"a \r b\r\r\n", b"a \r b\r\r\n"),
    ("bare CR at the end", b"a\r", b"a\r\r\n", b"a\r\r\n"),
    ("blank and bare CR at the end", b"a \r", b"a \r\r\n", b"a \r\r\n"),
    ("bare LF", b"a \n b\n", b"a \n b\n\r\n", b"a \n b\n\r\n"),
    ("LF CR", b"a\n\r", b"a\n\r\r\n", b"a\n\r\r\n"),
    ("only a bare CR", b"\r", b"\r\r\n", b"\r\r\n"),
    ("only a bare LF", b"\n", b"\n\r\n", b"\n\r\n"),
    ("bare LF among line ends", b"a\r\n\n\r\n\r\n", b"a\r\n\n\r\n", b"a\r\n\n\r\n"),
    ("NUL and 8-bit", b"\0 \0\xff\x85\xa0 \r\n", b"\0 \0\xff\x85\xa0 \r\n", b"\0 \0\xff\x85\xa0\r\n"),
    ("VT and FF are no white space", b"a\x0b\x0c \r\n", b"a\x0b\x0c \r\n", b"a\x0b\x0c\r\n"),
    # RFC 6376 §3.4.5, examples 1 and 2
    (
        "the example of the RFC",
        b" C \r\nD \t E\r\n\r\n\r\n",
        b" C \r\nD \t E\r\n",
        b" C\r\nD E\r\n",
    ),
]


@pytest.mark.attack("D40")
@pytest.mark.parametrize(("body", "simple", "relaxed"), [row[1:] for row in BODIES], ids=[row[0] for row in BODIES])
def test_bodies(body: bytes, simple: bytes, relaxed: bytes) -> None:
    for form, expected in ((SIMPLE, simple), (RELAXED, relaxed)):
        assert canonical_body(body, form) == expected  # the reference itself
        for chunks in ([body], octets_of(body), [b"", body, b""]):
            found = digests_of(chunks)
            assert found.digest(BodyRequest(form)) == sha256(expected)
            assert found.total(form) == len(expected)


@pytest.mark.parametrize(
    ("form", "published"),
    [
        (SIMPLE, "frcCV1k9oG9oKj3dpUqdJg1PxRT2RSN/XKdLCPjaYaY="),
        (RELAXED, "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="),
    ],
)
def test_published_digests_of_the_empty_body(form: Canonicalization, published: str) -> None:
    assert digests_of([]).digest(BodyRequest(form)) == base64.b64decode(published)


@pytest.mark.attack("D39")
@settings(deadline=None)
@given(bodies, places)
@example(b"a \r\n\r\n \r\nb", [1, 2, 3, 4, 5])
@example(b" \r", [1])
def test_any_chunks_give_the_digest_of_the_whole(body: bytes, at: list[int]) -> None:
    for chunks in ([body], cut(body, at), octets_of(body)):
        found = digests_of(chunks)
        for form in Canonicalization:
            expected = canonical_body(body, form)
            assert found.digest(BodyRequest(form)) == sha256(expected)
            assert found.total(form) == len(expected)


@settings(deadline=None)
@given(bodies, places)
def test_every_length_forks(body: bytes, at: list[int]) -> None:
    """l= (RFC 6376 §3.5) counts canonical octets; one that is more than the body has, has no digest."""
    longest = len(body) + 4
    requests = [BodyRequest(form, length) for form in Canonicalization for length in (*range(longest), 10**75)]
    for chunks in (cut(body, at), octets_of(body)):
        found = digests_of(chunks, [*requests[::-1], *requests, *WHOLE])
        for form, length in requests:
            octets = canonical_body(body, form)
            assert length is not None
            expected = sha256(octets[:length]) if length <= len(octets) else None
            assert found.digest(BodyRequest(form, length)) == expected
        assert [found.digest(whole) for whole in WHOLE] == [sha256(canonical_body(body, f)) for f in Canonicalization]


# Bodies in which what is held back, or what is hashed at once, passes a bound of the implementation.
LARGE_BODIES = [
    ("blank lines, then text", b"a\r\n" + b"\r\n" * 10_000 + b"b\r\n"),
    ("blank lines at the end", b"a\r\n" + b"\r\n" * 10_000),
    ("lines of white space, then text", b"a" + b" \t \r\n" * 5_000 + b"b"),
    ("a run of white space", b"a" + b" \t" * 40_000 + b"b\r\n"),
    ("a run of white space at the end", b"a\r\n" + b" " * 70_000),
    ("bare CR", b"\r" * 50_000 + b"\n"),
    ("bare LF", b"\n" * 50_000),
    ("more than one chunk's bound", b"line of text \r\n" * (MAX_CHUNK_BYTES // 10)),
]


@pytest.mark.attack("D40")
@pytest.mark.parametrize("body", [row[1] for row in LARGE_BODIES], ids=[row[0] for row in LARGE_BODIES])
def test_large_bodies(body: bytes) -> None:
    size = len(body)
    lengths = (1, 8191, 8192, 8193, size // 2)
    requests = [BodyRequest(form, length) for form in Canonicalization for length in lengths]
    for step in (size, 65_535, 4_096, 997):
        found = digests_of((body[at : at + step] for at in range(0, size, step)), [*requests, *WHOLE])
        for form in Canonicalization:
            octets = canonical_body(body, form)
            assert found.digest(BodyRequest(form)) == sha256(octets)
            for length in lengths:
                expected = sha256(octets[:length]) if length <= len(octets) else None
                assert found.digest(BodyRequest(form, length)) == expected


@pytest.mark.parametrize(
    "chunk", [b"x" * 999 + b" ", b"x" * 999 + b"\r", b" " * 1_000, b"\r\n" * 500, b" \r\n" * 333]
)
def test_nothing_of_the_body_is_kept(chunk: bytes) -> None:
    digests = BodyDigests(WHOLE)
    tracemalloc.start()
    try:
        for _ in range(500):
            digests.update(bytes(bytearray(chunk)))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 50_000


def test_only_what_was_asked_for_is_computed() -> None:
    found = digests_of([b"a"], [BodyRequest(RELAXED, 2)])
    assert found.digest(BodyRequest(RELAXED, 2)) == sha256(b"a\r")
    with pytest.raises(KeyError):
        found.digest(BodyRequest(SIMPLE))


def test_order_of_calls() -> None:
    digests = BodyDigests(WHOLE)
    digests.update(b"a")
    with pytest.raises(ValueError, match="not ended"):
        digests.digest(WHOLE[0])
    digests.finish()
    digests.finish()
    with pytest.raises(ValueError, match="has ended"):
        digests.update(b"b")
    assert digests.digest(WHOLE[0]) == sha256(b"a\r\n")


# (id, field, relaxed): RFC 6376 §3.4.2
FIELDS = [
    ("example 1 of §3.4.5, A", HeaderField(b"A", b" X"), b"a:X"),
    ("example 1 of §3.4.5, B", HeaderField(b"B", b" Y\t\r\n\tZ  ", gap=b" "), b"b:Y Z"),
    ("the example of §3.4.2", HeaderField(b"SUBJect", b" AbC"), b"subject:AbC"),
    ("empty", HeaderField(b"Subject", b""), b"subject:"),
    ("blank", HeaderField(b"Subject", b" \t "), b"subject:"),
    ("blank folds", HeaderField(b"Subject", b"\r\n \r\n\ta\r\n "), b"subject:a"),
    ("8-bit and controls", HeaderField(b"X", b" \xa0\x85 \x0b\x0c "), b"x:\xa0\x85 \x0b\x0c"),
    ("colon in the value", HeaderField(b"X", b" : a : b"), b"x:: a : b"),
]


@pytest.mark.parametrize(("field", "relaxed"), [row[1:] for row in FIELDS], ids=[row[0] for row in FIELDS])
def test_header_fields(field: HeaderField, relaxed: bytes) -> None:
    assert canonical_fields([field], RELAXED) == relaxed
    assert canonical_fields([field], SIMPLE) == field.name + field.gap + b":" + field.value


value_pieces = st.lists(
    st.sampled_from([b" ", b"\t", b"\r\n ", b"\r\n\t", b"a", b"Bc", b"\x0b", b"\r", b"\n", b"\xff", b":"]),
    max_size=16,
)


@settings(deadline=None)
@given(st.lists(value_pieces.map(b"".join), max_size=4))
@example([])
@example([b" a \r", b" \n b ", b" \r\r\n\n", b"\t", b""])
def test_header_fields_against_the_text(values: list[bytes]) -> None:
    """One by one by regular expressions; together, a CRLF stands between two and none is at the end."""
    fields = [HeaderField(b"To", value, b"\t") for value in values]
    unfolded = [value.replace(b"\r\n", b"") for value in values]
    expected = [b"to:" + re.sub(rb"[ \t]+", b" ", value).strip(b" ") for value in unfolded]
    assert canonical_fields(fields, RELAXED) == b"\r\n".join(expected)
    assert canonical_fields(fields, SIMPLE) == b"\r\n".join(field.raw for field in fields)


def test_the_example_message_of_the_rfc() -> None:
    """RFC 6376 §3.4.5, example 3: the message as a whole, read by Message.parse."""
    message = Message.parse(b"A: X\r\nB : Y\t\r\n\tZ  \r\n\r\n C \r\nD \t E\r\n\r\n\r\n")
    assert canonical_fields(message.fields, RELAXED) == b"a:X\r\nb:Y Z"
    assert canonical_fields(message.fields, SIMPLE) == b"A: X\r\nB : Y\t\r\n\tZ  "
    assert message.body is not None
    assert digests_of([message.body]).digest(WHOLE[0]) == sha256(b" C \r\nD \t E\r\n")


# --- A signed message, through the plan, the digests and the verdict ------------------------------------------

TEXT = b"From: a@example.com\r\nSubject: chunks\r\n\r\n"
SIGNED_BODY = b"One  line \r\n\r\n \t\r\nanother\tline\r\n\r\n\r\n"
SIGNING_KEYS = [
    SigningKey.from_bytes(RSA_KEY, domain="example.com", selector="rsa"),
    SigningKey.from_bytes(ED25519_KEY, domain="example.com", selector="ed25519"),
]
RESOLVER = ZoneResolver({key.public_name: {"TXT": [key.record()]} for key in SIGNING_KEYS})


def signed_message() -> Message:
    """A message with a signature by each key in each pair of canonicalizations."""
    message = Message.parse(TEXT + SIGNED_BODY)
    signatures: list[HeaderField] = []
    for header, body in itertools.product(Canonicalization, Canonicalization):
        rules = SigningRules(header_canonicalization=header, body_canonicalization=body)
        signatures += sign_dkim(message, keys=SIGNING_KEYS, now=NOW, rules=rules)
    return Message.from_fields((*signatures, *message.fields))


SIGNED = signed_message()


def verify_chunks(chunks: Iterable[bytes]) -> tuple[DkimResult, ...]:
    plan = plan_verification(SIGNED)
    digests = digests_of(chunks, plan.body_requests)
    return evaluate(lambda answers: verify(plan, digests, answers, now=NOW), RESOLVER, deadline=0)


def test_the_signed_message_verifies() -> None:
    assert [result.reason.value for result in verify_chunks([SIGNED_BODY])] == ["verified"] * 8
    changed = SIGNED_BODY.replace(b"One  ", b"One ")
    assert [result.reason.value for result in verify_chunks([changed])] == [
        *(["body-hash"] * 2 + ["verified"] * 2),
        *(["body-hash"] * 2 + ["verified"] * 2),
    ]


@pytest.mark.attack("D39")
def test_every_single_and_double_cut_gives_one_result() -> None:
    expected = verify_chunks([SIGNED_BODY])
    for first, second in itertools.combinations_with_replacement(range(len(SIGNED_BODY) + 1), 2):
        assert digests_of(cut(SIGNED_BODY, [first, second])).digest(WHOLE[0]) == sha256(
            canonical_body(SIGNED_BODY, SIMPLE)
        )
        if first == second:
            assert verify_chunks(cut(SIGNED_BODY, [first])) == expected
    assert verify_chunks(octets_of(SIGNED_BODY)) == expected


@pytest.mark.attack("D39")
@settings(deadline=None)
@given(bodies, places)
def test_every_byte_chunking_of_a_message_gives_one_result(extra: bytes, at: list[int]) -> None:
    """Chunks of the signed body, and of bodies that are not the signed one."""
    for body in (SIGNED_BODY, SIGNED_BODY + extra):
        assert verify_chunks(cut(body, at)) == verify_chunks([body])
