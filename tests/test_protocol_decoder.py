"""What an MTA says, to events: each kind, the order, the bounds, and any way of cutting the octets.

ATTACKS.md rows: X08, X10-X12.
"""

from __future__ import annotations

import struct
import typing
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fuzz_protocol import one_by_one
from mailguard_milter.protocol import (
    Abort,
    Body,
    Connect,
    Data,
    Decoder,
    EndOfHeader,
    EndOfMessage,
    Event,
    Headers,
    Helo,
    Macros,
    Mail,
    Negotiate,
    Quit,
    QuitNewConnection,
    Rcpt,
    Unknown,
    Violation,
)
from milter_packets import (
    CONNECT,
    EVERY_EVENT,
    MESSAGE,
    OFFER,
    QUIT,
    decoded,
    header,
    in_parts,
    macros,
    packet,
    packets,
)

MAIL = packet(b"M", b"<x@evil.test>\0")
EOH = packet(b"N")
# What leads to the state in which a packet is tried.
AFTER_CONNECT = OFFER + CONNECT
IN_ENVELOPE = AFTER_CONNECT + MAIL
IN_HEADER = IN_ENVELOPE + packet(b"L", b"From\0x\0")
IN_BODY = IN_HEADER + EOH
PREFIXES = {
    "start": b"",
    "negotiated": OFFER,
    "connected": AFTER_CONNECT,
    "envelope": IN_ENVELOPE,
    "header": IN_HEADER,
    "body": IN_BODY,
}


def after(prefix: bytes, *more: bytes) -> list[Event]:
    """The events of what follows `prefix`, which must be in order."""
    decoder = Decoder()
    assert not any(isinstance(event, Violation) for event in decoder.feed(prefix))
    return one_by_one(event for part in more for event in decoder.feed(part))


# Every kind of event


def test_a_session_with_every_event() -> None:
    assert decoded(EVERY_EVENT) == [
        Negotiate(6, 0x1FF, 0x1FFFFF),
        Macros(b"C", {b"j": b"mx.us.test", b"{daemon_name}": b"smtpd"}),
        Connect(b"client.test", b"4", 40_000, b"192.0.2.1"),
        Unknown(b"FOO"),
        Macros(b"H", {}),
        Helo(b"client.test"),
        Macros(b"M", {b"{mail_addr}": b"x@evil.test"}),
        Mail(b"<x@evil.test>", (b"SIZE=100", b"BODY=8BITMIME")),
        Rcpt(b"<alice@us.test>", (b"NOTIFY=NEVER",)),
        Rcpt(b"<bob@us.test>", ()),
        Data(),
        Macros(b"L", {b"i": b"4QUEUEID"}),
        header(b"From", b" <x@evil.test>"),
        header(b"Subject", b" one\n\ttwo\xff"),
        Macros(b"N", {b"i": b"4QUEUEID"}),
        EndOfHeader(),
        Macros(b"B", {b"i": b"4QUEUEID"}),
        Body(b"line\r\n\0"),
        Body(b"line\r\n"),
        EndOfMessage(b"rest"),
        Abort(),
        QuitNewConnection(),
        Connect(b"client.test", b"4", 40_000, b"192.0.2.1"),
        Quit(),
    ]


def test_every_kind_of_event_is_in_that_session() -> None:
    kinds = set(typing.get_args(Event))
    assert {type(event) for event in decoded(EVERY_EVENT)} == kinds - {Violation}


CLIENTS = [
    ("inet", b"a.test\x004\x00\x19192.0.2.1\0", Connect(b"a.test", b"4", 25, b"192.0.2.1")),
    ("inet6", b"a.test\x006\xff\xff2001:db8::1\0", Connect(b"a.test", b"6", 65_535, b"2001:db8::1")),
    ("inet6 as Sendmail", b"a.test\x006\x00\x00IPv6:2001:db8::1\0", Connect(b"a.test", b"6", 0, b"2001:db8::1")),
    ("unix", b"localhost\x00L\x00\x00/run/x\0", Connect(b"localhost", b"L", 0, b"/run/x")),
    ("unknown", b"a.test\x00U", Connect(b"a.test", b"U", 0, b"")),
    # XCLIENT ADDR=[UNAVAILABLE]
    ("inet that is none", b"a.test\x004\x00\x00unknown\0", Connect(b"a.test", b"4", 0, b"unknown")),
    ("no host", b"\x004\x00\x19192.0.2.1\0", Connect(b"", b"4", 25, b"192.0.2.1")),
    ("8-bit host", b"\xff\xfe\x004\x00\x19192.0.2.1\0", Connect(b"\xff\xfe", b"4", 25, b"192.0.2.1")),
]


@pytest.mark.parametrize(("data", "event"), [row[1:] for row in CLIENTS], ids=[row[0] for row in CLIENTS])
def test_clients(data: bytes, event: Connect) -> None:
    assert after(OFFER, packet(b"C", data)) == [event]


FORMS: list[tuple[str, bytes, bytes, Event]] = [
    ("version 2", b"", packet(b"O", struct.pack("!III", 2, 0x3F, 0x7F)), Negotiate(2, 0x3F, 0x7F)),
    ("a later version", b"", OFFER[:3] + b"\x11" + OFFER[4:] + b"more", Negotiate(6, 0x1FF, 0x1FFFFF)),
    ("no macros", OFFER, packet(b"D", b"C"), Macros(b"C", {})),
    ("empty macro", OFFER, macros(b"C", b"i", b""), Macros(b"C", {b"i": b""})),
    ("macro twice", OFFER, macros(b"C", b"i", b"1", b"i", b"2"), Macros(b"C", {b"i": b"2"})),
    ("8-bit macro", OFFER, macros(b"M", b"{auth_authen}", b"\xff"), Macros(b"M", {b"{auth_authen}": b"\xff"})),
    ("empty HELO", AFTER_CONNECT, packet(b"H", b"\0"), Helo(b"")),
    ("8-bit HELO", AFTER_CONNECT, packet(b"H", b"\xff\xfe\0"), Helo(b"\xff\xfe")),
    ("empty command", AFTER_CONNECT, packet(b"U", b"\0"), Unknown(b"")),
    ("local sender", AFTER_CONNECT, packet(b"M", b"a@us.test\0"), Mail(b"a@us.test", ())),
    ("empty path", AFTER_CONNECT, packet(b"M", b"\0"), Mail(b"", ())),
    ("empty parameter", AFTER_CONNECT, packet(b"M", b"<>\0\0"), Mail(b"<>", (b"",))),
    ("8-bit sender", AFTER_CONNECT, packet(b"M", b"<\xff@x>\0"), Mail(b"<\xff@x>", ())),
    ("empty value", IN_ENVELOPE, packet(b"L", b"Subject\0\0"), header(b"Subject", b"")),
    ("8-bit name", IN_ENVELOPE, packet(b"L", b"X-\xf6\0y\0"), header(b"X-\xf6", b"y")),
    ("empty part", IN_BODY, packet(b"B"), Body(b"")),
    ("largest part", IN_BODY, packet(b"B", bytes(65_535)), Body(bytes(65_535))),
    ("largest field", IN_ENVELOPE, packet(b"L", b"X\0" + b"y" * 65_532 + b"\0"), header(b"X", b"y" * 65_532)),
    ("bare end", IN_BODY, packet(b"E"), EndOfMessage(b"")),
    ("largest end", IN_BODY, packet(b"E", bytes(65_535)), EndOfMessage(bytes(65_535))),
]


@pytest.mark.parametrize(("prefix", "octets", "event"), [row[1:] for row in FORMS], ids=[row[0] for row in FORMS])
def test_forms(prefix: bytes, octets: bytes, event: Event) -> None:
    assert after(prefix, octets) == [event]


@pytest.mark.attack("X11")
def test_many_macros_and_one_that_is_long() -> None:
    many = {b"{m%d}" % number: b"v" for number in range(1_024)}
    assert after(OFFER, macros(b"M", *(text for pair in many.items() for text in pair))) == [Macros(b"M", many)]
    assert after(OFFER, macros(b"M", b"{big}", b"x" * 60_000)) == [Macros(b"M", {b"{big}": b"x" * 60_000})]


# Macros that say nothing new

IDENTICAL = macros(b"L", b"i", b"1")
FIELD = packet(b"L", b"From\0x\0")
REPETITIONS: list[tuple[str, bytes, bytes, list[Event]]] = [
    (
        "between fields",
        IN_ENVELOPE,
        (IDENTICAL + FIELD) * 3,
        [Macros(b"L", {b"i": b"1"}), *[header(b"From", b"x")] * 3],
    ),
    (
        "between parts of the body",
        IN_BODY,
        (macros(b"B", b"i", b"1") + packet(b"B", b"x")) * 2,
        [Macros(b"B", {b"i": b"1"}), Body(b"x"), Body(b"x")],
    ),
    (
        "others",
        IN_ENVELOPE,
        IDENTICAL + FIELD + macros(b"L", b"i", b"2") + FIELD,
        [Macros(b"L", {b"i": b"1"}), header(b"From", b"x"), Macros(b"L", {b"i": b"2"}), header(b"From", b"x")],
    ),
    (
        "after a message",
        AFTER_CONNECT,
        (macros(b"M", b"i", b"1") + MAIL + packet(b"A")) * 2,
        [Macros(b"M", {b"i": b"1"}), Mail(b"<x@evil.test>", ()), Abort()] * 2,
    ),
    (
        "between recipients",
        IN_ENVELOPE,
        (macros(b"R", b"i", b"1") + packet(b"R", b"<a>\0")) * 2,
        [Macros(b"R", {b"i": b"1"}), Rcpt(b"<a>", ())] * 2,
    ),
    (
        "the same for several commands",
        IN_ENVELOPE,
        macros(b"T", b"i", b"1") + macros(b"L", b"i", b"1") + macros(b"N", b"i", b"2") + macros(b"B", b"i", b"1"),
        [
            Macros(command, {b"i": value})
            for command, value in ((b"T", b"1"), (b"L", b"1"), (b"N", b"2"), (b"B", b"1"))
        ],
    ),
    (
        "none, and then not even a command",
        IN_ENVELOPE,
        packet(b"D", b"T") + packet(b"D"),
        [Macros(b"T", {}), Violation("macros are not names and values for a command")],
    ),
]


@pytest.mark.parametrize(
    ("prefix", "octets", "events"), [row[1:] for row in REPETITIONS], ids=[row[0] for row in REPETITIONS]
)
def test_repeated_macros_are_told_once(prefix: bytes, octets: bytes, events: list[Event]) -> None:
    assert after(prefix, octets) == events
    assert after(prefix, *in_parts(octets, range(len(octets)))) == events


# What breaks the form

BROKEN: list[tuple[str, bytes, bytes]] = [
    ("http", b"", b"GET / HTTP/1.1\r\nHost: mx.us.test\r\n\r\n"),
    ("tls", b"", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
    ("smtp", b"", b"EHLO client.test\r\n"),
    ("length 0", b"", bytes(5)),
    ("length 0 later", AFTER_CONNECT, bytes(5)),
    ("length 0 and a command", AFTER_CONNECT, bytes(4) + b"A"),
    ("length of 4 GB", b"", b"\xff\xff\xff\xffO"),
    ("one octet too long", IN_BODY, struct.pack("!I", 65_537) + b"B"),
    ("short negotiation", b"", packet(b"O", b"\0\0\0\6" * 2)),
    ("version 1", b"", packet(b"O", struct.pack("!III", 1, 0x0F, 0x3F))),
    ("version 0", b"", packet(b"O", bytes(12))),
    ("macros for nothing", OFFER, packet(b"D")),
    ("macro without value", OFFER, macros(b"C", b"i")),
    ("macros, odd number", OFFER, macros(b"C", b"i", b"1", b"j")),
    ("macros without NUL", OFFER, packet(b"D", b"Ci\0" + b"1")),
    ("macros and more", OFFER, packet(b"D", b"Ci\0" + b"1\0j")),
    ("1025 macros", OFFER, macros(b"C", *[b"i", b"1"] * 1_025)),
    ("32,767 macros", OFFER, macros(b"C", *[b""] * 65_534)),
    ("connect: nothing", OFFER, packet(b"C")),
    ("connect: host only", OFFER, packet(b"C", b"host\0")),
    ("connect: no NUL", OFFER, packet(b"C", b"host")),
    ("connect: unknown family", OFFER, packet(b"C", b"host\x00Z\0\0x\0")),
    ("connect: no port", OFFER, packet(b"C", b"host\x004")),
    ("connect: half a port", OFFER, packet(b"C", b"host\x004\0")),
    ("connect: no address", OFFER, packet(b"C", b"host\x004\0\x19")),
    ("connect: address without NUL", OFFER, packet(b"C", b"host\x004\0\x19192.0.2.1")),
    ("connect: more than an address", OFFER, packet(b"C", b"host\x004\0\x19192.0.2.1\0\0")),
    ("connect: address of an unknown family", OFFER, packet(b"C", b"host\x00U\0\0x\0")),
    ("connect: 16 kB", OFFER, packet(b"C", b"h" * 16_384 + b"\x00U")),
    ("helo: nothing", AFTER_CONNECT, packet(b"H")),
    ("helo: no NUL", AFTER_CONNECT, packet(b"H", b"x")),
    ("helo: two names", AFTER_CONNECT, packet(b"H", b"x\0y\0")),
    ("helo: 16 kB", AFTER_CONNECT, packet(b"H", b"x" * 16_383 + b"\0")),
    ("mail: nothing", AFTER_CONNECT, packet(b"M")),
    ("mail: no NUL", AFTER_CONNECT, packet(b"M", b"<x@y>")),
    ("mail: parameter without NUL", AFTER_CONNECT, packet(b"M", b"<x@y>\0SIZE=1")),
    ("mail: 16 kB", AFTER_CONNECT, packet(b"M", b"<x@y>" + b"\0" * 16_380)),
    ("rcpt: nothing", IN_ENVELOPE, packet(b"R")),
    ("rcpt: no NUL", IN_ENVELOPE, packet(b"R", b"<x@y>")),
    ("data: data", IN_ENVELOPE, packet(b"T", b"x")),
    ("header: nothing", IN_ENVELOPE, packet(b"L")),
    ("header: no NUL", IN_ENVELOPE, packet(b"L", b"Subject")),
    ("header: one text", IN_ENVELOPE, packet(b"L", b"Subject\0")),
    ("header: value without NUL", IN_ENVELOPE, packet(b"L", b"Subject\0x")),
    ("header: NUL in the value", IN_ENVELOPE, packet(b"L", b"Subject\0x\0y\0")),
    ("header: more than a value", IN_ENVELOPE, packet(b"L", b"Subject\0x\0y")),
    ("header: no name", IN_ENVELOPE, packet(b"L", b"\0x\0")),
    ("header: name of 8 kB", IN_ENVELOPE, packet(b"L", b"n" * 8_193 + b"\0x\0")),
    ("end of header: data", IN_ENVELOPE, packet(b"N", b"x")),
    ("abort: data", IN_ENVELOPE, packet(b"A", b"x")),
    ("quit: data", IN_ENVELOPE, packet(b"Q", b"x")),
    ("new connection: data", IN_ENVELOPE, packet(b"K", b"x")),
    ("unknown: nothing", AFTER_CONNECT, packet(b"U")),
    ("unknown: no NUL", AFTER_CONNECT, packet(b"U", b"FOO")),
]


@pytest.mark.attack("X08", "X11", "X12")
@pytest.mark.parametrize(("prefix", "octets"), [row[1:] for row in BROKEN], ids=[row[0] for row in BROKEN])
def test_what_breaks_the_form_ends_the_session(prefix: bytes, octets: bytes) -> None:
    (violation,) = after(prefix, octets)
    assert isinstance(violation, Violation)
    assert violation.reason
    assert after(prefix, *in_parts(octets, range(len(octets)))) == [violation]
    assert after(prefix, octets, OFFER, CONNECT, QUIT) == [violation]


def test_fields_before_one_that_is_refused_are_told() -> None:
    """Also when they arrive in one part with it."""
    events = Decoder().feed(IN_ENVELOPE + FIELD * 2 + packet(b"L", b"Subject\0") + FIELD)
    assert events[-2] == Headers(((b"From", b"x"),) * 2)
    assert isinstance(events[-1], Violation)


def test_events_before_a_violation_are_told() -> None:
    *before, last = decoded(AFTER_CONNECT + MAIL + packet(b"?") + MAIL)
    assert before == decoded(AFTER_CONNECT + MAIL)
    assert last == Violation("there is no command 0x3f")


def test_a_reason_has_nothing_that_the_peer_wrote() -> None:
    """It goes into the log."""
    for _, prefix, octets in BROKEN:
        (violation,) = after(prefix, octets)
        assert isinstance(violation, Violation)
        assert violation.reason.isascii()
        assert violation.reason.isprintable()
        assert len(violation.reason) < 120


BOUNDS: list[tuple[str, bytes, Callable[[int], bytes], int]] = [
    ("packet", IN_BODY, lambda size: packet(b"B", bytes(size - 1)), 65_536),
    ("later field", IN_HEADER, lambda size: FIELD + packet(b"L", b"S\0" + b"x" * (size - 4) + b"\0"), 65_536),
    ("command", AFTER_CONNECT, lambda size: packet(b"H", b"x" * (size - 2) + b"\0"), 16_384),
    ("name", IN_ENVELOPE, lambda size: packet(b"L", b"n" * size + b"\0\0"), 8_192),
    ("name of a later field", IN_HEADER, lambda size: FIELD + packet(b"L", b"n" * size + b"\0\0"), 8_192),
    ("macros", OFFER, lambda size: macros(b"C", *[b"i", b"1"] * size), 1_024),
]


@pytest.mark.parametrize(("prefix", "made", "most"), [row[1:] for row in BOUNDS], ids=[row[0] for row in BOUNDS])
def test_bounds(prefix: bytes, made: Callable[[int], bytes], most: int) -> None:
    assert not any(isinstance(event, Violation) for event in decoded(prefix, made(most)))
    assert isinstance(decoded(prefix, made(most + 1))[-1], Violation)


# The order

COMMANDS = {
    "O": OFFER,
    "D": macros(b"C"),
    "C": CONNECT,
    "H": packet(b"H", b"x\0"),
    "M": MAIL,
    "R": packet(b"R", b"<a>\0"),
    "T": packet(b"T"),
    "L": FIELD,
    "N": EOH,
    "B": packet(b"B", b"x"),
    "E": packet(b"E"),
    "A": packet(b"A"),
    "K": packet(b"K"),
    "Q": QUIT,
    "U": packet(b"U", b"FOO\0"),
}
ORDER = {
    "start": "OQ",
    "negotiated": "DCUAKQ",
    "connected": "DHMUAKQ",
    "envelope": "DHMRTLNUAKQ",
    "header": "DHMLNAKQ",
    "body": "DHMBEAKQ",
}


@pytest.mark.attack("X08")
@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("state", ORDER)
def test_what_may_come_when(state: str, command: str) -> None:
    events = after(PREFIXES[state], COMMANDS[command])
    if command in ORDER[state]:
        assert not any(isinstance(event, Violation) for event in events)
    else:
        assert events == [Violation(f"the command {command} is out of order")]


@pytest.mark.parametrize("state", ["envelope", "header", "body"])
def test_mail_or_helo_in_a_message_ends_it(state: str) -> None:
    begin = macros(b"M", b"i", b"2") + MAIL
    told = Macros(b"M", {b"i": b"2"})
    assert after(PREFIXES[state], begin) == [told, Abort(), told, Mail(b"<x@evil.test>", ())]
    assert after(PREFIXES[state], MAIL) == [Abort(), Mail(b"<x@evil.test>", ())]
    assert after(PREFIXES[state], MAIL + EOH) == [Abort(), Mail(b"<x@evil.test>", ()), EndOfHeader()]
    assert after(PREFIXES[state], packet(b"H", b"x\0"), MAIL) == [Abort(), Helo(b"x"), Mail(b"<x@evil.test>", ())]


def test_several_messages_in_a_session() -> None:
    once = after(AFTER_CONNECT, MESSAGE)
    assert after(AFTER_CONNECT, MESSAGE * 3) == once * 3


@pytest.mark.attack("X10")
@pytest.mark.parametrize("state", ["negotiated", "connected", "envelope", "header", "body"])
def test_a_new_connection_begins_at_connect(state: str) -> None:
    fresh = after(OFFER, CONNECT, MESSAGE)
    assert after(PREFIXES[state], packet(b"K"), CONNECT, MESSAGE) == [QuitNewConnection(), *fresh]
    assert isinstance(after(PREFIXES[state], packet(b"K"), MAIL)[-1], Violation)


def test_after_quit_there_is_nothing() -> None:
    decoder = Decoder()
    assert decoder.feed(AFTER_CONNECT + QUIT + MAIL)[-1] == Quit()
    assert decoder.feed(OFFER) == []


# Any way of cutting


def test_fields_that_arrive_together_are_told_together() -> None:
    decoder = Decoder()
    decoder.feed(IN_ENVELOPE)
    assert decoder.feed(FIELD * 3 + EOH[:3]) == [Headers(((b"From", b"x"),) * 3)]
    assert decoder.feed(EOH[3:]) == [EndOfHeader()]


def test_octet_by_octet() -> None:
    assert decoded(*in_parts(EVERY_EVENT, range(len(EVERY_EVENT)))) == decoded(EVERY_EVENT)


def test_packet_by_packet() -> None:
    assert decoded(*packets(EVERY_EVENT)) == decoded(EVERY_EVENT)


def test_a_part_may_be_empty() -> None:
    assert decoded(b"", EVERY_EVENT[:7], b"", EVERY_EVENT[7:], b"") == decoded(EVERY_EVENT)


@settings(deadline=None)
@given(cuts=st.sets(st.integers(1, len(EVERY_EVENT) - 1), max_size=20))
def test_any_parts(cuts: set[int]) -> None:
    assert decoded(*in_parts(EVERY_EVENT, cuts)) == decoded(EVERY_EVENT)


commands = st.sampled_from([*COMMANDS.values(), MESSAGE, IDENTICAL, CONNECT + MESSAGE])
noise = st.binary(max_size=12)


@settings(max_examples=300)
@given(
    octets=st.lists(st.one_of(commands, commands, commands, noise), max_size=12).map(b"".join),
    cuts=st.sets(st.integers(1, 400), max_size=12),
    skipped=st.booleans(),
)
def test_any_octets_in_any_parts(octets: bytes, cuts: set[int], skipped: bool) -> None:
    octets = octets if skipped else AFTER_CONNECT + octets
    events = decoded(octets)
    assert decoded(*in_parts(octets, cuts)) == events
    assert decoded(*in_parts(octets, range(len(octets)))) == events
    assert not any(isinstance(event, Violation | Quit) for event in events[:-1])


def test_the_largest_packet_in_single_octets() -> None:
    decoder = Decoder()
    decoder.feed(IN_BODY)
    whole = packet(b"B", bytes(65_535))
    for at in range(len(whole) - 1):
        assert decoder.feed(whole[at : at + 1]) == []
    assert decoder.feed(whole[-1:]) == [Body(bytes(65_535))]


# Events as values


def test_events_are_equal_only_to_their_kind() -> None:
    same: list[Event] = [Helo(b"x"), Helo(b"x")]
    others: list[object] = [Unknown(b"x"), Body(b"x"), EndOfMessage(b"x"), (b"x",), Helo(b"y"), Data(), EndOfHeader()]
    assert same[0] == same[1]
    assert not (same[0] != same[1])  # noqa: SIM202 - both operators are ours
    assert all(same[0] != other for other in others)
    assert not any(other in same for other in others)
    assert others[-1] != others[-2]
    assert len({*same, *others}) == 8


def test_events_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        Helo(b"x").name = b"y"  # type: ignore[misc]
    # A slotted frozen dataclass of Python 3.11 raises TypeError for what is no field of it.
    with pytest.raises((AttributeError, TypeError)):
        Data().more = b"y"  # type: ignore[attr-defined]
