"""What Postfix 3.7 said (postfix_capture.py), replayed: it is what was sent, however the octets are cut."""

from __future__ import annotations

from operator import attrgetter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailguard_milter.protocol import (
    Abort,
    Body,
    Connect,
    Data,
    EndOfHeader,
    EndOfMessage,
    Event,
    Headers,
    Helo,
    Macros,
    Mail,
    Negotiate,
    Quit,
    Rcpt,
    Unknown,
)
from milter_packets import decoded, header, in_parts, packets
from postfix_capture import LOCAL, OLD, SESSIONS, TWO_MESSAGES, without_chance

LONGEST = max(map(len, SESSIONS.values()))


def of(name: str) -> list[Event]:
    return without_chance(decoded(SESSIONS[name]))


def without_macros(events: list[Event]) -> list[Event]:
    return [event for event in events if not isinstance(event, Macros)]


def fields_of(message: bytes) -> list[Headers]:
    """As Postfix hands them over with SMFIP_HDR_LEADSPC."""
    lines = message.partition(b"\r\n\r\n")[0].replace(b"\r\n\t", b"\n\t").split(b"\r\n")
    parts = [line.partition(b":") for line in lines]
    return [header(name.rstrip(b" "), value) for name, _, value in parts]


def test_two_messages() -> None:
    events = without_macros(of("two messages"))
    first, second = TWO_MESSAGES
    body = first.partition(b"\r\n\r\n")[2]
    assert events == [
        Negotiate(6, 0x1FF, 0x1FFFFF),
        Connect(b"[127.0.0.1]", b"4", 0, b"127.0.0.1"),
        Helo(b"client.test"),
        Mail(b"<x@evil.test>", ()),
        Rcpt(b"<box@us.test>", ()),
        Data(),
        *fields_of(first),
        EndOfHeader(),
        Body(body),
        EndOfMessage(b""),
        Abort(),
        Mail(b"<x@evil.test>", ()),
        Rcpt(b"<box@us.test>", ()),
        Data(),
        *fields_of(second),
        EndOfHeader(),
        EndOfMessage(b""),
        Abort(),
        Abort(),
        Quit(),
    ]


def test_macros_of_a_message() -> None:
    macros = [event for event in of("two messages") if isinstance(event, Macros)]
    assert macros[:9] == [
        Macros(
            b"C",
            {
                b"j": b"mail.sandbox.test",
                b"{daemon_name}": b"mail.sandbox.test",
                b"{daemon_addr}": b"127.0.0.1",
                b"v": b"Postfix",
                b"_": b"unknown [127.0.0.1]",
            },
        ),
        Macros(b"H", {}),
        Macros(b"M", {b"{mail_addr}": b"x@evil.test", b"{mail_host}": b"evil.test", b"{mail_mailer}": b"virtual"}),
        Macros(b"R", {b"{rcpt_addr}": b"box@us.test", b"{rcpt_host}": b"us.test", b"{rcpt_mailer}": b"virtual"}),
        *[Macros(command, {b"i": b"QUEUEID"}) for command in (b"T", b"L", b"N", b"B", b"E")],
    ]


def test_macros_before_each_field_are_told_once() -> None:
    octets = SESSIONS["two messages"]
    assert sum(packet[4:6] == b"DL" for packet in packets(octets)) == 15
    assert sum(isinstance(event, Macros) and event.command == b"L" for event in decoded(octets)) == 2


def test_commands() -> None:
    """HELO within a transaction comes before its ABORT, and so does one of ours."""
    assert without_macros(of("commands")) == [
        Negotiate(6, 0x1FF, 0x1FFFFF),
        Connect(b"[127.0.0.1]", b"4", 0, b"127.0.0.1"),
        Unknown(b"FOO"),
        Helo(b"one.test"),
        Mail(b"<a@evil.test>", (b"SIZE=100", b"BODY=8BITMIME")),
        Abort(),
        Helo(b"two.test"),
        Abort(),
        Abort(),
        Mail(b"<a@evil.test>", ()),
        Rcpt(b"<one@us.test>", (b"NOTIFY=NEVER",)),
        Rcpt(b"<two@us.test>", ()),
        Abort(),
        Helo(b"three.test"),
        Abort(),
        Mail(b"<>", ()),
        Unknown(b"BAR"),
        Rcpt(b"<one@us.test>", ()),
        Data(),
        EndOfHeader(),
        Body(b"no header\r\n"),
        EndOfMessage(b""),
        Abort(),
        Abort(),
        Quit(),
    ]


def test_local_mail() -> None:
    """Paths without angle brackets, and no ABORT."""
    assert without_macros(of("local mail"))[1:] == [
        Connect(b"localhost", b"4", 0, b"127.0.0.1"),
        Helo(b"localhost"),
        Mail(b"x@evil.test", ()),
        Rcpt(b"box@us.test", ()),
        Data(),
        *fields_of(LOCAL.replace(b"\n", b"\r\n")),
        EndOfHeader(),
        Body(b"local\r\n"),
        EndOfMessage(b""),
        Quit(),
    ]


def test_version_2() -> None:
    """No DATA, and values without their first space."""
    fields = [
        header(name, value.removeprefix(b" ")) for ((name, value),) in map(attrgetter("fields"), fields_of(OLD))
    ]
    assert without_macros(of("version 2")) == [
        Negotiate(2, 0x1FF, 0x7F),
        Connect(b"[127.0.0.1]", b"4", 0, b"127.0.0.1"),
        Helo(b"client.test"),
        Mail(b"<x@evil.test>", ()),
        Rcpt(b"<box@us.test>", ()),
        *fields,
        EndOfHeader(),
        Body(b"local\r\n"),
        EndOfMessage(b""),
        Abort(),
        Abort(),
        Quit(),
    ]


@pytest.mark.parametrize("name", SESSIONS)
@settings(deadline=None)
@given(cuts=st.sets(st.integers(1, LONGEST), max_size=20))
def test_any_parts(name: str, cuts: set[int]) -> None:
    octets = SESSIONS[name]
    events = decoded(octets)
    assert decoded(*in_parts(octets, cuts)) == events


@pytest.mark.parametrize("name", SESSIONS)
def test_octet_by_octet(name: str) -> None:
    octets = SESSIONS[name]
    assert decoded(*in_parts(octets, range(len(octets)))) == decoded(octets)


@pytest.mark.parametrize("name", SESSIONS)
def test_every_beginning_of_a_session_is_in_order(name: str) -> None:
    """An MTA may leave after any octet; what it had said until then is told."""
    octets = SESSIONS[name]
    events = decoded(octets)
    for end in range(0, len(octets), 7):
        some = decoded(octets[:end])
        assert some == events[: len(some)]
