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
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple

from mailguard_milter.protocol_events import Abort, Body, Event, Headers, Macros, Violation
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

__all__ = ["Decoder"]

# Octets of any packet: its command and the 65,535 that libmilter takes. Postfix sends a body in parts of 65,535
# octets, and no header field longer than 60,000.
MAX_PACKET: Final = 65_536
# Octets of a packet that carries an SMTP command or the client: in Postfix such a line has at most 2,048
# (line_length_limit).
MAX_COMMAND: Final = 16_384
# Octets of the name of a header field. Postfix finds one in the first 2,048 octets of a line.
MAX_NAME: Final = 8_192
# Macros in one packet. Postfix sends up to ten.
MAX_MACROS: Final = 1_024

_HEAD: Final = struct.Struct(">IB")


class _Step(NamedTuple):
    """What may come in a state."""

    bound: int
    """Octets."""
    read: Callable[[bytes], Event] | None
    """The reader of its data; None for those that Decoder reads itself."""
    after: _State
    """The state that follows."""


_State = dict[int, _Step]
"""By the command."""

# At the start; with a negotiation, a client, the envelope, a header field, the end of the header; and at the end.
_START: Final[_State] = {}
_NEGOTIATED: Final[_State] = {}
_CONNECTED: Final[_State] = {}
_ENVELOPE: Final[_State] = {}
_HEADER: Final[_State] = {}
_BODY: Final[_State] = {}
_ENDED: Final[_State] = {}


def _may_come(state: _State, after: Mapping[int, _State], *, itself: Sequence[int] = ()) -> None:
    for command, following in {**after, **dict.fromkeys(itself, state)}.items():
        is_long = command in (SMFIC_MACRO, SMFIC_HEADER, SMFIC_BODY, SMFIC_BODYEOB)
        state[command] = _Step(MAX_PACKET if is_long else MAX_COMMAND, READERS.get(command), following)


_AFTER_CONNECT: Final = {
    SMFIC_HELO: _CONNECTED,
    SMFIC_MAIL: _ENVELOPE,
    SMFIC_ABORT: _CONNECTED,
    SMFIC_QUIT_NC: _NEGOTIATED,
    SMFIC_QUIT: _ENDED,
}
_may_come(_START, {SMFIC_OPTNEG: _NEGOTIATED, SMFIC_QUIT: _ENDED})
_may_come(
    _NEGOTIATED,
    {SMFIC_CONNECT: _CONNECTED, SMFIC_QUIT: _ENDED},
    itself=(SMFIC_MACRO, SMFIC_UNKNOWN, SMFIC_ABORT, SMFIC_QUIT_NC),
)
_may_come(_CONNECTED, _AFTER_CONNECT, itself=(SMFIC_MACRO, SMFIC_UNKNOWN))
_may_come(
    _ENVELOPE,
    {**_AFTER_CONNECT, SMFIC_HEADER: _HEADER, SMFIC_EOH: _BODY},
    itself=(SMFIC_MACRO, SMFIC_UNKNOWN, SMFIC_RCPT, SMFIC_DATA),
)
_may_come(_HEADER, {**_AFTER_CONNECT, SMFIC_EOH: _BODY}, itself=(SMFIC_MACRO, SMFIC_HEADER))
_may_come(_BODY, {**_AFTER_CONNECT, SMFIC_BODYEOB: _CONNECTED}, itself=(SMFIC_MACRO, SMFIC_BODY))
for _in_message in (_ENVELOPE, _HEADER, _BODY):
    # What begins anew ends a message that has not ended; there is more to tell then than the command.
    for _beginning in (SMFIC_MAIL, SMFIC_HELO):
        _in_message[_beginning] = _in_message[_beginning]._replace(read=None)

_COMMANDS: Final = frozenset({*READERS, SMFIC_MACRO, SMFIC_HEADER, SMFIC_BODY})
_ABORTED: Final = Abort()


class Decoder:
    """What one MTA says on one connection."""

    __slots__ = ("_macros", "_pending", "_state", "_text", "_values", "_wanted")

    def __init__(self) -> None:
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
        if self._state is _ENDED:
            return []
        pending = self._pending
        if pending:
            if len(pending) + len(data) < self._wanted:
                pending += data
                return []
            data = b"".join((pending, data))
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
        state, macros, append, unpack = self._state, self._macros, events.append, _HEAD.unpack_from
        at, size, wanted = 0, len(data), _HEAD.size
        last = size - wanted
        while at <= last:
            length, command = unpack(data, at)
            try:
                bound, read, after = state[command]
            except KeyError:
                if state is _ENDED:
                    break  # nobody listens any more
                raise Refused(_unexpected(command, length)) from None
            if not 0 < length <= bound:
                raise Refused(_too_long(length))
            end = at + 4 + length
            if end > size:
                wanted = 4 + length
                break
            if read is not None:
                macros = b""
                append(read(data[at + 5 : end]))
            elif command == SMFIC_MACRO:
                if data[at:end] != macros:
                    macros = data[at:end]
                    append(self._read_macros(macros))
            elif command == SMFIC_HEADER:
                end = self._read_fields(data, at, end, macros, events)
            elif command == SMFIC_BODY:
                append(tuple.__new__(Body, (data[at + 5 : end],)))
            else:
                append(_ABORTED)
                # What was told before belongs to the new command, not to the message that has ended.
                if macros[5:6] == bytes((command,)):
                    append(self._read_macros(macros))
                macros = b""
                append(READERS[command](data[at + 5 : end]))
            at, state = end, after
        self._state, self._macros, self._wanted = state, macros, wanted
        return at

    def _read_fields(self, data: bytes, at: int, end: int, macros: bytes, events: list[Event]) -> int:
        """Append the header fields that follow each other from the one on that is `data[at:end]`. Raises Refused.

        Returns where they end. What lies between two of them and repeats `macros` is passed over.
        """
        # This runs for every field of every message: a loop of its own, without what other packets need.
        unpack, size, repeated = _HEAD.unpack_from, len(data), len(macros)
        last = size - _HEAD.size
        fields: list[tuple[bytes, bytes]] = []
        try:
            while True:
                name, value, rest = data[at + 5 : end].split(b"\0")
                if rest or not name or len(name) > MAX_NAME:
                    raise ValueError
                fields.append((name, value))
                at = end + repeated if data.startswith(macros, end) else end
                if at > last:
                    break
                length, command = unpack(data, at)
                end = at + 4 + length
                if command != SMFIC_HEADER or end > size or not 0 < length <= MAX_PACKET:
                    break
        except ValueError:
            raise Refused("a header field is not a name and a value, or its name is too long") from None
        finally:
            # Also those before one that is refused.
            if fields:
                events.append(tuple.__new__(Headers, (tuple(fields),)))
        return at

    def _read_macros(self, packet: bytes) -> Macros:
        """Raises Refused. Postfix says the same before most commands: what was read last is not read again."""
        command, text = packet[5:6], packet[6:]
        if text != self._text or not command:
            texts = text.split(b"\0")
            if texts.pop() or len(texts) & 1 or not command:
                raise Refused("macros are not names and values for a command")
            if len(texts) > 2 * MAX_MACROS:
                raise Refused(f"more than {MAX_MACROS} macros")
            values: dict[bytes, bytes] = {}
            each = iter(texts)
            for name in each:
                values[name] = next(each)
            self._text, self._values = text, values
        return tuple.__new__(Macros, (command, self._values))


def _unexpected(command: int, length: int) -> str:
    if not 0 < length <= MAX_PACKET:
        return _too_long(length)
    if command in _COMMANDS:
        return f"the command {chr(command)} is out of order"
    return f"there is no command 0x{command:02x}"


def _too_long(length: int) -> str:
    """Or too short."""
    return f"{'an SMTP command' if 0 < length <= MAX_PACKET else 'a packet'} of {length} octets"
