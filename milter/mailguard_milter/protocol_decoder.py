"""What an MTA says, octets to events: milter protocol versions 2 to 6 as Postfix and Sendmail speak them.

A packet is a length of four octets, a command of one, and its data. `Decoder` checks form, bounds and order, so that
whoever gets the events sees a negotiation first, then CONNECT, and of each message MAIL, recipients, header, end of
header, body and end, in this order. What breaks them is told as a Violation, which is the last event.

As lenient as these MTAs need: HELO may be absent or come again, ABORT may come at any time, macros anywhere, and a
message may have no recipient that the filter hears of. MAIL or HELO inside a message ends that message (Postfix says
HELO before the ABORT that belongs to it). A filter must therefore not ask an MTA to leave out CONNECT, MAIL or the
end of the header.

Left out: version 1. A Decoder is for one thread at a time.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from mailguard_milter.protocol_events import Abort, Body, Event, Header, Macros, Violation
from mailguard_milter.protocol_numbers import (
    SMFIC_ABORT,
    SMFIC_BODY,
    SMFIC_BODYEOB,
    SMFIC_CONNECT,
    SMFIC_DATA,
    SMFIC_EOH,
    SMFIC_HEADER,
    SMFIC_HELO,
    SMFIC_MACRO,
    SMFIC_MAIL,
    SMFIC_OPTNEG,
    SMFIC_QUIT,
    SMFIC_QUIT_NC,
    SMFIC_RCPT,
    SMFIC_UNKNOWN,
)
from mailguard_milter.protocol_packets import READERS, Refused

__all__ = ["DEFAULT_LIMITS", "Decoder", "Limits"]


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on what a peer may say."""

    packet: int = 65_536
    """Octets of any packet: its command and the 65,535 that libmilter takes. Postfix sends a body in parts of 65,535
    octets, and no header field longer than 60,000."""
    command: int = 16_384
    """Octets of a packet that carries an SMTP command or the client: in Postfix such a line has at most 2,048
    (line_length_limit)."""
    name: int = 8_192
    """Octets of the name of a header field. Postfix finds one in the first 2,048 octets of a line."""
    macros: int = 1_024
    """Macros in one packet. Postfix sends up to ten."""


DEFAULT_LIMITS: Final = Limits()

_HEAD: Final = struct.Struct(">IB")

_START, _NEGOTIATED, _CONNECTED, _ENVELOPE, _HEADER, _BODY, _ENDED = range(7)
_IN_MESSAGE = frozenset({_ENVELOPE, _HEADER, _BODY})
# What ends a message that has not ended.
_BEGINNING = frozenset({SMFIC_MAIL, SMFIC_HELO})

_AFTER_CONNECT: Mapping[int, int] = {
    SMFIC_HELO: _CONNECTED,
    SMFIC_MAIL: _ENVELOPE,
    SMFIC_ABORT: _CONNECTED,
    SMFIC_QUIT_NC: _NEGOTIATED,
    SMFIC_QUIT: _ENDED,
}
# What may come in each state, and the state that follows.
_NEXT: Mapping[int, Mapping[int, int]] = {
    _START: {SMFIC_OPTNEG: _NEGOTIATED, SMFIC_QUIT: _ENDED},
    _NEGOTIATED: {
        SMFIC_MACRO: _NEGOTIATED,
        SMFIC_CONNECT: _CONNECTED,
        SMFIC_UNKNOWN: _NEGOTIATED,
        SMFIC_ABORT: _NEGOTIATED,
        SMFIC_QUIT_NC: _NEGOTIATED,
        SMFIC_QUIT: _ENDED,
    },
    _CONNECTED: {**_AFTER_CONNECT, SMFIC_MACRO: _CONNECTED, SMFIC_UNKNOWN: _CONNECTED},
    _ENVELOPE: {
        **_AFTER_CONNECT,
        SMFIC_MACRO: _ENVELOPE,
        SMFIC_UNKNOWN: _ENVELOPE,
        SMFIC_RCPT: _ENVELOPE,
        SMFIC_DATA: _ENVELOPE,
        SMFIC_HEADER: _HEADER,
        SMFIC_EOH: _BODY,
    },
    _HEADER: {**_AFTER_CONNECT, SMFIC_MACRO: _HEADER, SMFIC_HEADER: _HEADER, SMFIC_EOH: _BODY},
    _BODY: {**_AFTER_CONNECT, SMFIC_MACRO: _BODY, SMFIC_BODY: _BODY, SMFIC_BODYEOB: _CONNECTED},
    _ENDED: {},
}
# The same with the reader of each command; None for those that Decoder reads itself.
_STEPS: Mapping[int, Mapping[int, tuple[Callable[[bytes], Event] | None, int]]] = {
    state: {command: (READERS.get(command), after) for command, after in row.items()} for state, row in _NEXT.items()
}
_ABORTED: Final = Abort()


class Decoder:
    """What one MTA says on one connection."""

    __slots__ = ("_limits", "_macros", "_pending", "_state", "_text", "_values", "_wanted")

    def __init__(self, limits: Limits = DEFAULT_LIMITS) -> None:
        self._limits = limits
        self._state = _START
        # The part of a packet that has come, and how many octets must be there to look at it again.
        self._pending = bytearray()
        self._wanted = 0
        # The last packet of macros, while nothing but header fields or parts of the body have followed it.
        self._macros = b""
        # Names and values of the last macros, as they came and as they were read.
        self._text = b""
        self._values: Mapping[bytes, bytes] = {}

    def feed(self, data: bytes) -> list[Event]:
        """The events that are complete now, in linear time in whatever parts the octets come.

        After Quit or Violation there is nothing more. Postfix sends the same macros before every header field: those
        that repeat the ones before the previous field, or part of the body, are not told again.
        """
        if self._state == _ENDED:
            return []
        pending = self._pending
        if pending:
            pending += data
            if len(pending) < self._wanted:
                return []
            data = bytes(pending)
            pending.clear()
        events: list[Event] = []
        try:
            at = self._read(data, events)
        except Refused as refusal:
            self._state = _ENDED
            events.append(Violation(str(refusal)))
        else:
            if at < len(data):
                pending += data[at:]
        return events

    def _read(self, data: bytes, events: list[Event]) -> int:
        """Append what is complete to `events`; returns how far that went. Raises Refused."""
        # This runs for every packet of every message, so what it uses often has a local name.
        limits, state, macros = self._limits, self._state, self._macros
        max_packet, max_name = limits.packet, limits.name
        append, unpack, new = events.append, _HEAD.unpack_from, tuple.__new__
        row, repeated = _STEPS[state], len(macros)
        at, size, wanted = 0, len(data), _HEAD.size
        last = size - wanted
        while at <= last:
            length, command = unpack(data, at)
            if not 0 < length <= max_packet:
                raise Refused(f"a packet of {length} octets")
            end = at + 4 + length
            if end > size:
                wanted = 4 + length
                break
            try:
                read, after = row[command]
            except KeyError:
                raise Refused(_unexpected(command)) from None
            if read is not None:
                if state in _IN_MESSAGE and command in _BEGINNING:
                    append(_ABORTED)
                    # What was told before belongs to the new command, not to the message that has ended.
                    if macros[5:6] == bytes((command,)):
                        append(self._read_macros(macros))
                macros, repeated = b"", 0
                if length > limits.command and command != SMFIC_BODYEOB:
                    raise Refused(f"an SMTP command of {length} octets")
                append(read(data[at + 5 : end]))
            elif command == SMFIC_HEADER:
                try:
                    name, value, rest = data[at + 5 : end].split(b"\0")
                except ValueError:
                    raise Refused("a header field is not a name and a value") from None
                if rest or not name or (length > max_name and len(name) > max_name):
                    raise Refused("a header field is not a name and a value, or its name is too long")
                append(new(Header, (name, value)))
                if data[end : end + repeated] == macros:
                    end += repeated
            elif command == SMFIC_MACRO:
                if data[at:end] != macros:
                    macros, repeated = data[at:end], end - at
                    append(self._read_macros(macros))
            else:
                append(new(Body, (data[at + 5 : end],)))
            at = end
            if after != state:
                state, row = after, _STEPS[after]
                if state == _ENDED:
                    at = size
        self._state, self._macros, self._wanted = state, macros, wanted
        return at

    def _read_macros(self, packet: bytes) -> Macros:
        """Raises Refused. Postfix says the same before most commands: what was read last is not read again."""
        command, text = packet[5:6], packet[6:]
        if text != self._text or not command:
            texts = text.split(b"\0")
            if texts.pop() or len(texts) & 1 or not command:
                raise Refused("macros are not names and values for a command")
            if len(texts) > 2 * self._limits.macros:
                raise Refused(f"more than {self._limits.macros} macros")
            values: dict[bytes, bytes] = {}
            each = iter(texts)
            for name in each:
                values[name] = next(each)
            self._text, self._values = text, values
        return tuple.__new__(Macros, (command, self._values))


def _unexpected(command: int) -> str:
    if any(command in row for row in _NEXT.values()):
        return f"the command {chr(command)} is out of order"
    return f"there is no command 0x{command:02x}"
