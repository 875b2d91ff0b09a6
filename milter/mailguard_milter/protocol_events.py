"""What an MTA says to a filter, as values. All octets are as they were sent, unless said otherwise.

An event with fields is a named tuple, because that is what Python makes fastest, and a message has some 20 of them.
Unlike tuples, two events are equal only when they are of the same kind. Immutable; safe to share between threads.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

__all__ = [
    "Abort",
    "Body",
    "Connect",
    "Data",
    "EndOfHeader",
    "EndOfMessage",
    "Event",
    "Headers",
    "Helo",
    "Macros",
    "Mail",
    "Negotiate",
    "Quit",
    "QuitNewConnection",
    "Rcpt",
    "Unknown",
    "Violation",
]

_Kind = TypeVar("_Kind")


def _is_equal(self: tuple[object, ...], other: object) -> bool:
    return self.__class__ is other.__class__ and tuple.__eq__(self, other)


def _is_unequal(self: tuple[object, ...], other: object) -> bool:
    return not _is_equal(self, other)


def _of_its_kind(kind: type[_Kind]) -> type[_Kind]:
    kind.__eq__ = _is_equal  # type: ignore[assignment, method-assign]
    kind.__ne__ = _is_unequal  # type: ignore[assignment, method-assign]
    return kind


@_of_its_kind
class Negotiate(NamedTuple):
    """What the MTA offers: SMFIF_* and SMFIP_*."""

    version: int
    actions: int
    steps: int


@_of_its_kind
class Macros(NamedTuple):
    """Values of macros for the event that `command` (one octet) announces; names as sent: b"i", b"{auth_type}".

    They hold until the next ones for the same command, or the end of what that command belongs to.
    """

    command: bytes
    values: Mapping[bytes, bytes]


@_of_its_kind
class Connect(NamedTuple):
    """A client: b"4" and b"6" with port and address, b"L" with the path of a UNIX socket, b"U" with neither.

    `address` is without the "IPv6:" that an MTA may put before it.
    """

    host: bytes
    family: bytes
    port: int
    address: bytes


@_of_its_kind
class Helo(NamedTuple):
    """HELO or EHLO."""

    name: bytes


@_of_its_kind
class Mail(NamedTuple):
    """MAIL FROM: the path with its angle brackets, and the ESMTP parameters."""

    path: bytes
    parameters: tuple[bytes, ...]


@_of_its_kind
class Rcpt(NamedTuple):
    """RCPT TO: the path with its angle brackets, and the ESMTP parameters."""

    path: bytes
    parameters: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Data:
    """DATA."""


@_of_its_kind
class Headers(NamedTuple):
    """Header fields that arrived together, as many as did: how they are grouped says nothing.

    Each is a name and a value; folds are a bare LF. With SMFIP_HDR_LEADSPC a value has the space after the colon.
    """

    fields: tuple[tuple[bytes, bytes], ...]


@dataclass(frozen=True, slots=True)
class EndOfHeader:
    """The header is complete."""


@_of_its_kind
class Body(NamedTuple):
    """A part of the body, line ends CRLF."""

    chunk: bytes


@_of_its_kind
class EndOfMessage(NamedTuple):
    """The end of the message, with what is left of the body (Postfix and Sendmail leave nothing)."""

    chunk: bytes


@dataclass(frozen=True, slots=True)
class Abort:
    """The message, if there is one, will not be completed."""


@dataclass(frozen=True, slots=True)
class Quit:
    """The connection ends."""


@dataclass(frozen=True, slots=True)
class QuitNewConnection:
    """The SMTP session ends; another one follows on this connection, without a new negotiation."""


@_of_its_kind
class Unknown(NamedTuple):
    """An SMTP command that the MTA does not know."""

    line: bytes


@_of_its_kind
class Violation(NamedTuple):
    """The peer broke the protocol or a bound: the last event. `reason` has nothing that the peer wrote."""

    reason: str


Event = (
    Negotiate
    | Macros
    | Connect
    | Helo
    | Mail
    | Rcpt
    | Data
    | Headers
    | EndOfHeader
    | Body
    | EndOfMessage
    | Abort
    | Quit
    | QuitNewConnection
    | Unknown
    | Violation
)
