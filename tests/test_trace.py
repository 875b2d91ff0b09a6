"""The octets of a trace: everything comes back as it was, and nothing else is read."""

from __future__ import annotations

import json
import random
import tracemalloc
import zlib
from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from judged_messages import judge_message
from mailguard.dkim.canonical import BodyRequest, Canonicalization
from mailguard.dns.question import MX, TLSA, Answer, Dnssec, Question, RecordType, Status
from mailguard.envelope import Envelope
from mailguard.errors import TraceError
from mailguard.message import HeaderField, MalformedReason, Message
from mailguard.trace import (
    FORMAT,
    MAX_PLAIN_BYTES,
    MAX_TRACE_BYTES,
    Decided,
    Trace,
    decode,
    differences,
    encode,
    replay,
)
from zone0 import ke, mail, sign_as

DECIDED = Decided(disposition="accept", would="reject", rule="dmarc-reject", domain="bank.test", reason="why")


def trace_of(raw: bytes | None = None) -> Trace:
    return judge_message(raw if raw is not None else sign_as(ke(), mail())).trace()


octets = st.binary(max_size=40)
texts = st.text(max_size=20)
names = st.text(st.characters(max_codepoint=126, min_codepoint=33), max_size=20)
messages = st.builds(
    Message,
    st.lists(st.builds(HeaderField, octets, octets, octets), max_size=6).map(tuple),
    header_defect=st.none() | st.sampled_from(MalformedReason),
    header_detail=st.just(""),
)
envelopes = st.builds(
    Envelope,
    client_ip=st.none() | st.ip_addresses() | st.just(ip_address("fe80::1%eth0")),
    helo=octets,
    mail_from=octets,
    rcpt_to=st.lists(octets, max_size=3).map(tuple),
    mail_from_as_read=st.none() | octets,
    login=st.none() | octets,
)
digests = st.lists(
    st.tuples(
        st.builds(BodyRequest, st.sampled_from(Canonicalization), st.none() | st.integers(0, 10**80)),
        st.none() | st.binary(min_size=32, max_size=32),
    ),
    max_size=3,
)
RECORDS: dict[RecordType, st.SearchStrategy[Any]] = {
    **dict.fromkeys(RecordType, names),
    RecordType.TXT: octets,
    RecordType.MX: st.builds(MX, st.integers(0, 65535), names),
    RecordType.TLSA: st.builds(TLSA, st.integers(0, 255), st.integers(0, 255), st.integers(0, 255), octets),
}
answers = st.tuples(st.sampled_from(RecordType), st.sampled_from(Status)).flatmap(
    lambda kind: st.builds(
        Answer,
        st.builds(Question, names, st.just(kind[0])),
        st.just(kind[1]),
        st.lists(
            RECORDS[kind[0]], max_size=3 if kind[1] is Status.NOERROR and kind[0] is not RecordType.SENDER else 0
        ).map(tuple),
        ttl_s=st.integers(0, 2**31),
        dnssec=st.sampled_from(Dnssec),
        detail=texts,
        canonical_name=names,
    )
)
traces = st.builds(
    Trace,
    queue_id=texts,
    message=messages,
    envelope=envelopes,
    now=st.floats(allow_nan=False, allow_infinity=False),
    signatures=st.integers(0, 50),
    digests=digests.map(tuple),
    totals=st.lists(st.tuples(st.sampled_from(Canonicalization), st.integers(0, 10**9)), max_size=2).map(tuple),
    answers=st.lists(answers, max_size=4).map(tuple),
    decided=st.builds(Decided, disposition=texts, would=texts, rule=texts, domain=texts, reason=texts),
    version=texts,
)


@given(traces)
@settings(max_examples=300, deadline=None)
def test_a_trace_comes_back_as_it_was(trace: Trace) -> None:
    packed = encode(trace)
    assert decode(packed) == trace
    assert encode(decode(packed)) == packed


def test_every_octet_and_lone_surrogates_come_back() -> None:
    every = bytes(range(256))
    answer = Answer(Question("a.test", RecordType.TXT), Status.NOERROR, (every, b""), detail="\udcff\u2028\0")
    message = Message((HeaderField(b"X\xff", every, b" \t"), HeaderField(b"", b"")))
    trace = replace(trace_of(), message=message, answers=(answer,))
    assert decode(encode(trace)) == trace


def test_the_body_is_not_kept() -> None:
    raw = sign_as(ke(), mail(body=b"a secret\r\n"))
    case = judge_message(raw)
    whole = replace(case.outcome, message=Message.parse(raw))
    trace = Trace.of(whole, plan=case.plan, digests=case.digests, version="1")
    assert trace.message.body is None
    assert trace.message.fields == Message.parse(raw).fields
    assert b"secret" not in zlib.decompress(encode(trace)[1:])


def test_a_line_that_is_no_field_is_remembered() -> None:
    """`Message.from_fields` could not find it out again."""
    case = judge_message(b"From: <x@evil.test>\r\nno field\r\n\r\nbody\r\n")
    trace = decode(encode(case.trace()))
    assert trace.message.malformed is MalformedReason.HEADER_SYNTAX
    assert replay(trace, rules=case.rules, policy=case.policy) == case.outcome


def test_what_was_decided_stands_in_it_in_words() -> None:
    decided = trace_of(mail("<x@bank.test>")).decided
    assert (decided.disposition, decided.would, decided.rule, decided.domain) == (
        "reject",
        "reject",
        "dmarc-reject",
        "bank.test",
    )
    assert decided.reason


def test_unknown_words_of_another_version_are_kept_and_compared() -> None:
    case = judge_message(mail())
    trace = replace(case.trace(), decided=replace(DECIDED, rule="new\x1b-rule"))
    (note,) = differences(trace, replay(trace, rules=case.rules, policy=case.policy))
    assert note.isprintable()
    assert "new?-rule" in note


# Sizes


@pytest.mark.parametrize(
    "value",
    [b"x" * 250_000, b"\0" * 250_000, b"\xff" * 250_000, bytes(range(256)) * 1000],
    ids=["ascii", "nul", "eight-bit", "every-octet"],
)
def test_a_header_of_256_kb_that_repeats_fits(value: bytes) -> None:
    trace = trace_of(mail(more=b"X-Large: " + value.replace(b"\n", b".").replace(b"\r", b".") + b"\r\n"))
    packed = encode(trace)
    assert len(packed) < MAX_TRACE_BYTES
    assert decode(packed) == trace


def test_one_that_does_not_is_refused() -> None:
    noise = random.Random(1).randbytes(250_000)
    trace = replace(trace_of(), message=Message((HeaderField(b"X", noise),)))
    with pytest.raises(TraceError, match="too large"):
        encode(trace)


def test_a_plain_text_beyond_the_bound_is_refused_whatever_it_packs_to() -> None:
    trace = replace(trace_of(), message=Message((HeaderField(b"X", b"\0" * (MAX_PLAIN_BYTES // 6 + 1)),)))
    with pytest.raises(TraceError, match="too large"):
        encode(trace)


# What is not a trace


def packed(plain: bytes) -> bytes:
    return bytes([FORMAT]) + zlib.compress(plain)


def test_a_bomb_is_refused_before_it_is_unpacked() -> None:
    stream = zlib.compressobj(9)
    bomb = bytes([FORMAT]) + b"".join(stream.compress(b" " * (1 << 20)) for _ in range(100)) + stream.flush()
    assert len(bomb) < MAX_TRACE_BYTES
    tracemalloc.start()
    with pytest.raises(TraceError, match="damaged"):
        decode(bomb)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5 * MAX_PLAIN_BYTES


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "another version of mailguard .nothing"),
        (bytes([FORMAT + 1]) + zlib.compress(b"{}"), f"another version of mailguard .format {FORMAT + 1}"),
        (bytes([FORMAT]), "damaged"),
        (bytes([FORMAT]) + b"no zlib", "damaged"),
        (bytes([FORMAT]) + zlib.compress(b"{}")[:-1], "damaged"),
        (encode(trace_of()) + b"more", "damaged"),
        (packed(b"{}"), "damaged"),
        (packed(b"[]"), "damaged"),
        (packed(b"null"), "damaged"),
        (packed(b"\xff"), "damaged"),
        (packed(b"[" * 100_000), "damaged"),
        (packed(b'{"now":' + b"9" * 100_000 + b"}"), "damaged"),
        (bytes([FORMAT]) + b"\0" * MAX_TRACE_BYTES, "too large"),
    ],
    ids=[
        *(
            "absent",
            "newer",
            "header-alone",
            "not-zlib",
            "cut",
            "something-behind",
            "empty",
            "list",
            "null",
            "not-text",
        ),
        *("nested", "huge-number", "too-large"),
    ],
)
def test_what_is_not_a_trace_is_refused_with_a_remedy(content: bytes, says: str) -> None:
    with pytest.raises(TraceError, match=says):
        decode(content)


def spoilt(change: Callable[[dict[str, Any]], object]) -> bytes:
    content = json.loads(zlib.decompress(encode(trace_of())[1:]))
    change(content)
    return packed(json.dumps(content).encode())


KEYS = (
    *("answers", "decided", "defect", "digests", "envelope", "header", "now", "queue_id", "signatures", "totals"),
    "version",
)
WRONG = {"number": 5, "text": "\u0100", "list": [None], "object": {"a": 1}, "true": True}
RIGHT = {"now-number", "signatures-number", "queue_id-text", "version-text"}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        pytest.param(key, value, id=f"{key}-{kind}")
        for key in KEYS
        for kind, value in WRONG.items()
        if f"{key}-{kind}" not in RIGHT
    ],
)
def test_a_value_of_the_wrong_type_is_refused(key: str, value: object) -> None:
    with pytest.raises(TraceError, match="damaged"):
        decode(spoilt(lambda content: content.update({key: value})))


def test_no_key_was_forgotten() -> None:
    spoilt(lambda content: tuple(sorted(content)) == KEYS or pytest.fail(f"{sorted(content)}"))


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content.pop("answers"),
        lambda content: content["answers"][0].pop(),
        lambda content: content["answers"][0].__setitem__(1, "NS"),
        lambda content: content["answers"][0].__setitem__(4, 1.5),
        lambda content: content["answers"][0].__setitem__(6, ["\u0100"]),
        lambda content: content["answers"][0].__setitem__(6, [5]),
        lambda content: content["digests"][0].__setitem__(2, "zz"),
        lambda content: content["digests"][0].__setitem__(1, "all"),
        lambda content: content["header"].append(["one"]),
        lambda content: content["header"].append(["a", "b", "c", "d"]),
        lambda content: content["envelope"].__setitem__("client", "here"),
        lambda content: content["envelope"].__setitem__("helo", None),
        lambda content: content.__setitem__("defect", ["unknown", ""]),
        lambda content: content.__setitem__("now", float("inf")),
        lambda content: content.__setitem__("now", float("nan")),
        lambda content: content.__setitem__("now", 10**400),
        lambda content: content.__setitem__("decided", ["accept"]),
    ],
    ids=[
        *("no-answers", "short-answer", "type", "ttl", "wide-text", "number-as-text", "hex", "length", "short-field"),
        *("long-field", "address", "helo", "defect", "infinite", "not-a-number", "huge", "decided"),
    ],
)
def test_a_value_that_cannot_be_is_refused(change: Callable[[dict[str, Any]], object]) -> None:
    with pytest.raises(TraceError, match="damaged"):
        decode(spoilt(change))


@given(st.binary(max_size=300))
@settings(max_examples=200, deadline=None)
def test_noise_is_refused(noise: bytes) -> None:
    for content in (noise, bytes([FORMAT]) + noise, packed(noise)):
        with pytest.raises(TraceError):
            decode(content)


def test_a_damaged_octet_is_refused_or_changes_nothing_unseen() -> None:
    """zlib's checksum finds what has changed on the disk."""
    original = encode(trace_of())
    for place in range(1, len(original), 7):
        damaged = bytearray(original)
        damaged[place] ^= 1 << (place % 8)
        try:
            assert decode(bytes(damaged)) == decode(original)
        except TraceError:
            continue
