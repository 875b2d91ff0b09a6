"""The data of single packets to events, without their order: what is behind the command octet, and its form.

A text ends with a NUL. Postfix and Sendmail send no other NUL in one, for theirs are C strings; so a packet with more
NULs than texts is refused, and what is read is what was written. Pure functions of octets.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from typing import Final

from mailguard_milter.protocol_events import (
    Abort,
    Connect,
    Data,
    EndOfHeader,
    EndOfMessage,
    Event,
    Helo,
    Mail,
    Negotiate,
    Quit,
    QuitNewConnection,
    Rcpt,
    Unknown,
)
from mailguard_milter.protocol_numbers import (
    MIN_VERSION,
    SMFIA_INET,
    SMFIA_INET6,
    SMFIA_UNIX,
    SMFIA_UNKNOWN,
    SMFIC_ABORT,
    SMFIC_BODYEOB,
    SMFIC_CONNECT,
    SMFIC_DATA,
    SMFIC_EOH,
    SMFIC_HELO,
    SMFIC_MAIL,
    SMFIC_OPTNEG,
    SMFIC_QUIT,
    SMFIC_QUIT_NC,
    SMFIC_RCPT,
    SMFIC_UNKNOWN,
)

__all__ = ["READERS", "Refused"]

_OPTIONS: Final = struct.Struct(">III")
_WITH_ADDRESS = (SMFIA_INET, SMFIA_INET6, SMFIA_UNIX)


class Refused(Exception):
    """A packet breaks the protocol. The text is the reason, and has nothing that the peer wrote."""


# Events are made by tuple.__new__, which takes a third of the time that a named tuple's own constructor takes.


def _read_options(octets: bytes) -> Event:
    # Behind the three numbers there is room for what later versions may say.
    if len(octets) < _OPTIONS.size:
        raise Refused("a negotiation of fewer than three numbers")
    version, actions, steps = _OPTIONS.unpack_from(octets)
    if version < MIN_VERSION:
        raise Refused(f"version {version} of the protocol")
    return tuple.__new__(Negotiate, (version, actions, steps))


def _read_connect(octets: bytes) -> Event:
    host, _, rest = octets.partition(b"\0")
    family = rest[:1]
    if family == SMFIA_UNKNOWN and len(rest) == 1:
        return Connect(host, family, 0, b"")
    if family not in _WITH_ADDRESS or rest.find(b"\0", 3) != len(rest) - 1:
        raise Refused("a client without its address, or of no known address family")
    address = rest[3:-1]
    if family == SMFIA_INET6 and address[:5].lower() == b"ipv6:":
        address = address[5:]
    return tuple.__new__(Connect, (host, family, rest[1] << 8 | rest[2], address))


def _read_mail(octets: bytes) -> Event:
    path, *parameters = _texts(octets)
    return tuple.__new__(Mail, (path, tuple(parameters)))


def _read_rcpt(octets: bytes) -> Event:
    path, *parameters = _texts(octets)
    return tuple.__new__(Rcpt, (path, tuple(parameters)))


def _read_helo(octets: bytes) -> Event:
    return tuple.__new__(Helo, (_text(octets),))


def _read_unknown(octets: bytes) -> Event:
    return tuple.__new__(Unknown, (_text(octets),))


def _read_end(octets: bytes) -> Event:
    return tuple.__new__(EndOfMessage, (octets,))


def _texts(octets: bytes) -> list[bytes]:
    """At least one."""
    texts = octets.split(b"\0")
    if texts.pop() or not texts:
        raise Refused("a text without its NUL")
    return texts


def _text(octets: bytes) -> bytes:
    if octets.find(b"\0") != len(octets) - 1 or not octets:
        raise Refused("a text without its NUL, or with more than that")
    return octets[:-1]


def _bare(event: Event) -> Callable[[bytes], Event]:
    """For a command that has no data."""

    def read(octets: bytes) -> Event:
        if octets:
            raise Refused("data where a command has none")
        return event

    return read


READERS: Mapping[int, Callable[[bytes], Event]] = {
    SMFIC_ABORT: _bare(Abort()),
    SMFIC_BODYEOB: _read_end,
    SMFIC_CONNECT: _read_connect,
    SMFIC_DATA: _bare(Data()),
    SMFIC_EOH: _bare(EndOfHeader()),
    SMFIC_HELO: _read_helo,
    SMFIC_MAIL: _read_mail,
    SMFIC_OPTNEG: _read_options,
    SMFIC_QUIT: _bare(Quit()),
    SMFIC_QUIT_NC: _bare(QuitNewConnection()),
    SMFIC_RCPT: _read_rcpt,
    SMFIC_UNKNOWN: _read_unknown,
}
"""By the command. Header fields, parts of the body and macros are read where the order is checked."""
