"""A message from its octets, by dnspython, with all TLSA records that it has.

dnspython refuses a whole message for a digest of the wrong length in one TLSA record, where RFC 6698 §4.1 has that
one record be of no use. So it is given the message with these records under a number for private use (RFC 6895 §3.1),
of which it reads the octets and nothing else. Left out: what the message says (reply.py). Pure, safe to share between
threads.
"""

from __future__ import annotations

import struct
from contextlib import suppress

import dns.message
import dns.rdatatype

from mailguard.dns.query import HEADER_OCTETS, TYPE_NUMBERS
from mailguard.dns.question import RecordType

__all__ = ["TLSA_AS_READ", "TLSA_HEADER_OCTETS", "read_message"]

TLSA_AS_READ = dns.rdatatype.RdataType.make(0xFF34)
"""What stands for the type TLSA in a message that `read_message` has read."""
TLSA_HEADER_OCTETS = 3
"""RFC 6698 §2.1: usage, selector, matching type; the data of a TLSA record are not shorter."""

_TLSA = TYPE_NUMBERS[RecordType.TLSA]
# Nobody's record of that number becomes one of TLSA.
_NUMBERS = {_TLSA: int(TLSA_AS_READ), int(TLSA_AS_READ): 0xFF35}
_COUNTS = struct.Struct("!4H")
_RECORD = struct.Struct("!HHIH")
_NUMBER = struct.Struct("!H")
_OCTETS_AFTER_QUESTION = 4
_FIRST_POINTER = 0xC0


def read_message(wire: bytes) -> dns.message.Message:
    """The message in the datagram `wire`. Raises what dns.message.from_wire raises, with raise_on_truncation."""
    return dns.message.from_wire(_renumbered(wire), raise_on_truncation=True)


def _renumbered(wire: bytes) -> bytes:
    """`wire` with other numbers for some types, as far as there are records in it."""
    renumbered = bytearray(wire)
    # Cut off or malformed: dnspython says which, and refuses it.
    with suppress(IndexError, struct.error):
        questions, *records = _COUNTS.unpack_from(wire, 4)
        at = HEADER_OCTETS
        for _ in range(questions):
            at = _after_name(wire, at) + _OCTETS_AFTER_QUESTION
        for _ in range(sum(records)):
            at = _after_name(wire, at)
            number, _, _, octets = _RECORD.unpack_from(wire, at)
            if number in _NUMBERS and (number != _TLSA or octets >= TLSA_HEADER_OCTETS):
                _NUMBER.pack_into(renumbered, at, _NUMBERS[number])
            at += _RECORD.size + octets
    return bytes(renumbered)


def _after_name(wire: bytes, at: int) -> int:
    """The offset after the name at `at`."""
    while 0 < (length := wire[at]) < _FIRST_POINTER:
        at += 1 + length
    return at + (2 if length else 1)
