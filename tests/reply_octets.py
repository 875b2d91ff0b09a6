"""Replies made octet by octet, by chance: mostly right, sometimes odd, and damaged on purpose.

No library writes them, so that pointers, counts, lengths and types come out as no library would write them.
"""

from __future__ import annotations

import random
import struct

from mailguard.dns.query import Query

__all__ = ["made_names", "made_reply", "mutated"]

_CNAME, _SOA = 5, 6
_OTHER_TYPES = (1, 2, 5, 6, 12, 15, 16, 28, 46, 52, 99)
_LABELS = (b"a", b"A", b"b", b"test", b"TEST", b"x\x00y", b"x" * 63, b"\xc3\xbc", b"_dmarc")
_OCTETS = (0, 1, 2, 3, 4, 5, 12, 16, 28, 41, 63, 64, 191, 192, 255)


class _Maker:
    """Makes one reply. Of `odd` = 20 decisions one is odd; 0 is never."""

    def __init__(self, chance: random.Random, query: Query) -> None:
        self._chance = chance
        self._query = query
        self._odd = chance.choice([0, 0, 5, 20, 60])
        self._wire = b""

    def _is_odd(self) -> bool:
        return self._odd > 0 and not self._chance.randrange(self._odd)

    def reply(self) -> bytes:
        """The whole message."""
        chance = self._chance
        asked = int.from_bytes(self._query.question[-4:-2], "big")
        count = chance.choice([0, 1, 1, 2, 3, 4])
        types = [
            chance.choice(_OTHER_TYPES) if self._is_odd() else chance.choice([asked, _CNAME]) for _ in range(count)
        ]
        denials = [chance.choice([2, _SOA])] * 2 if self._is_odd() else [_SOA] * chance.randrange(2)
        flags = 0x8180 | chance.choice([0, 0x20, 0x400]) | chance.choice([0, 0, 3])
        if self._is_odd():
            flags = chance.randrange(65_536)
        counts = (1, count, len(denials), chance.randrange(2))
        self._wire = self._query.identity + struct.pack("!5H", flags, *counts) + self._query.question
        for rdtype in types:
            self._wire += self._record(rdtype)
        for rdtype in denials:
            self._wire += self._record(rdtype)
        return self._wire + self._opt() * counts[-1]

    def _opt(self) -> bytes:
        ttl = self._chance.choice([b"\x00\x01\x80\x00", b"\x01\x00\x00\x00"]) if self._is_odd() else bytes(4)
        options = b"\x00\x04\x00\x0f\x00\x00" if self._is_odd() else bytes(2)
        return b"\x00\x00\x29" + self._chance.randbytes(2) + ttl + options

    def _record(self, rdtype: int) -> bytes:
        ttl_s = self._chance.choice([2**31, 2**32 - 1] if self._is_odd() else [0, 1, 60, 3600, 2**31 - 1])
        rdclass = 3 if self._is_odd() else 1
        head = self._name(self._wire) + struct.pack("!HHI", rdtype, rdclass, ttl_s)
        rdata = self._rdata(rdtype, self._wire + head + b"\x00\x00")
        length = max(0, len(rdata) + self._chance.choice([-1, 1, 300])) if self._is_odd() else len(rdata)
        return head + struct.pack("!H", length) + rdata

    def _rdata(self, rdtype: int, before: bytes) -> bytes:
        """Data of a record that stands at the end of `before`."""
        chance = self._chance
        match rdtype:
            case 1:
                return chance.randbytes(3 if self._is_odd() else 4)
            case 28:
                return chance.choice([chance.randbytes(16), bytes(16), bytes(10) + b"\xff\xff\x01\x02\x03\x04"])
            case 16:
                lengths = chance.choices([0, 1, 5, 255], k=0 if self._is_odd() else chance.choice([1, 1, 2, 3]))
                return b"".join(bytes([length]) + chance.choice([b"x", b"y"]) * length for length in lengths)
            case 15:
                return bytes([0, chance.randrange(3)]) + self._name(before + b"\x00\x00")
            case 52:
                matching_type = chance.randrange(4)
                octets = 5 if self._is_odd() else {1: 32, 2: 64}.get(matching_type, 3)
                return bytes([3, 1, matching_type]) + chance.choice([b"x", b"y"]) * octets
            case 6:
                first = self._name(before)
                return first + self._name(before + first) + chance.randbytes(16) + bytes([chance.randrange(256)] * 4)
        return self._name(before)

    def _name(self, before: bytes) -> bytes:
        """A name at the end of `before`: the question's, its parent, another one, or nonsense."""
        chance = self._chance
        own = b"".join(bytes([len(label)]) + label for label in chance.choices(_LABELS, k=chance.randrange(3)))
        if self._is_odd():
            pointer = (0xC000 | chance.randrange(len(before) + 20)).to_bytes(2, "big")
            return own + chance.choice([pointer, pointer, b"\xc0\x00", b"\x40a\x00", b"\x80", b"\x3fa\x00"])
        parent = b"\xc0" + bytes([13 + before[12]])
        return chance.choice(
            [b"\xc0\x0c", b"\xc0\x0c", b"\xc0\x0c", parent, own + parent, b"\x01b" + parent, own + b"\x00"]
        )


def made_reply(chance: random.Random, query: Query) -> bytes:
    """A reply to `query`, or nearly one."""
    return _Maker(chance, query).reply()


def made_names(chance: random.Random, query: Query) -> bytes:
    """A reply to `query`, for PTR, whose names are made of pieces of those before, rightly or wrongly."""
    count = chance.choice([2, 3, 6, 18, 19])
    kinds = [chance.randrange(5)] * count if chance.randrange(2) else chance.choices(range(5), k=count)
    wire = query.identity + struct.pack("!5H", 0x8180, 1, count, 0, 0) + query.question
    places = [12]
    is_orderly = chance.randrange(2)
    for number, kind in enumerate(kinds):
        is_last = number == count - 1
        owner = b"\xc0\x0c" if is_last else b"\x02n" + bytes([number]) + b"\xc0\x0c"
        head = owner + struct.pack("!HHI", 12 if is_last else _CNAME, 1, 60)
        at = len(wire) + len(head) + 2
        earlier = (
            0xC000 | (places[-1] if is_orderly or chance.randrange(4) else chance.randrange(12, at + 2))
        ).to_bytes(2, "big")
        match kind:
            case 0:
                rdata = earlier
            case 1:
                rdata = b"\x3f" + b"x" * 63 + earlier
            case 2:
                rdata = bytes([chance.choice([55, 56, 57, 58, 59, 60])]) + b"y" * 60 + earlier
                rdata = rdata[: 1 + rdata[0]] + earlier
            case 3:
                # One label that holds what names are made of.
                inside = b"".join(
                    chance.choice([b"\x00", b"\x01z", b"\x02zz", b"\xc0" + bytes([at + chance.randrange(40) & 0xFF])])
                    for _ in range(12)
                )[:40]
                rdata = bytes([len(inside)]) + inside + chance.choice([b"\x00", earlier])
            case _:
                rdata = b"\x01" + bytes([chance.randrange(256)]) + chance.choice([b"\x00", earlier])
        wire += head + struct.pack("!H", len(rdata)) + rdata
        places.append(at + chance.choice([0, 0, 0, 1, 2, 5]) if kind == 3 else at)
    return wire


def mutated(chance: random.Random, wire: bytes) -> bytes:
    """`wire` with one thing wrong: an octet, a pointer, something put in, left out or doubled."""
    octets = bytearray(wire)
    at = chance.randrange(len(octets)) if octets else 0
    end = at + chance.choice([1, 1, 2, 4, 11])
    match chance.randrange(9):
        case 0 | 1:
            octets[at : at + 1] = chance.randbytes(1)
        case 2 | 3:
            octets[at : at + 1] = bytes([chance.choice(_OCTETS)])
        case 4:
            octets[at : at + 2] = (0xC000 | chance.randrange(max(1, at))).to_bytes(2, "big")
        case 5:
            octets[at:at] = chance.randbytes(chance.choice([1, 2, 11]))
        case 6:
            del octets[at:end]
        case 7:
            octets[at:at] = octets[at:end]
        case 8 if octets[at : at + 1].isalpha():
            octets[at] ^= 0x20
    return bytes(octets)
