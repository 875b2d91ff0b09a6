"""Packets as an MTA sends them, for the tests of what reads them."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterable, Iterator, Sequence

from fuzz_protocol import one_by_one
from mailguard_milter import protocol

__all__ = [
    "CONNECT",
    "EVERY_EVENT",
    "MESSAGE",
    "OFFER",
    "QUIT",
    "decoded",
    "header",
    "in_parts",
    "macros",
    "packet",
    "packets",
]


def packet(command: bytes, data: bytes = b"") -> bytes:
    return struct.pack("!I", len(data) + 1) + command + data


def macros(command: bytes, *values: bytes) -> bytes:
    return packet(b"D", command + b"".join(value + b"\0" for value in values))


def packets(octets: bytes) -> Iterator[bytes]:
    """The single packets of what one side said, each with its length."""
    at = 0
    while at < len(octets):
        (length,) = struct.unpack_from("!I", octets, at)
        assert at + 4 + length <= len(octets)
        yield octets[at : at + 4 + length]
        at += 4 + length


def decoded(*parts: bytes) -> list[protocol.Event]:
    """The events of these octets, in these parts; each header field by itself."""
    decoder = protocol.Decoder()
    return one_by_one(event for part in parts for event in decoder.feed(part))


def header(name: bytes, value: bytes) -> protocol.Headers:
    """One field."""
    return protocol.Headers(((name, value),))


def in_parts(octets: bytes, cuts: Iterable[int]) -> Sequence[bytes]:
    """`octets`, cut at these places."""
    places = sorted({0, len(octets), *(cut for cut in cuts if 0 < cut < len(octets))})
    return [octets[first:last] for first, last in itertools.pairwise(places)]


OFFER = packet(b"O", struct.pack("!III", 6, 0x1FF, 0x1FFFFF))
CONNECT = packet(b"C", b"client.test\x004\x9c\x40192.0.2.1\0")
QUIT = packet(b"Q")
MESSAGE = b"".join(
    (
        macros(b"M", b"{mail_addr}", b"x@evil.test"),
        packet(b"M", b"<x@evil.test>\0SIZE=100\0BODY=8BITMIME\0"),
        packet(b"R", b"<alice@us.test>\0NOTIFY=NEVER\0"),
        packet(b"R", b"<bob@us.test>\0"),
        packet(b"T"),
        macros(b"L", b"i", b"4QUEUEID"),
        packet(b"L", b"From\0 <x@evil.test>\0"),
        macros(b"L", b"i", b"4QUEUEID"),
        packet(b"L", b"Subject\0 one\n\ttwo\xff\0"),
        macros(b"N", b"i", b"4QUEUEID"),
        packet(b"N"),
        macros(b"B", b"i", b"4QUEUEID"),
        packet(b"B", b"line\r\n\0"),
        macros(b"B", b"i", b"4QUEUEID"),
        packet(b"B", b"line\r\n"),
        packet(b"E", b"rest"),
    )
)
EVERY_EVENT = b"".join(
    (
        OFFER,
        macros(b"C", b"j", b"mx.us.test", b"{daemon_name}", b"smtpd"),
        CONNECT,
        packet(b"U", b"FOO\0"),
        macros(b"H"),
        packet(b"H", b"client.test\0"),
        MESSAGE,
        packet(b"A"),
        packet(b"K"),
        CONNECT,
        QUIT,
    )
)
"""A session with an event of every kind but Violation."""
