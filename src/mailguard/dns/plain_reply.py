"""The plain reply, read straight from its octets: what nearly every reply is, in a fraction of the time.

RFC 1035 §4.1 (the message), RFC 1034 §3.6.2 (aliases), RFC 2308 §5 (denials), RFC 6891 §6.1 (EDNS). A reply is plain
if it repeats the question octet by octet, is not truncated, says NOERROR or NXDOMAIN, has in its answer section only
aliases and what was asked for, no record twice, in its authority section at most one SOA record, and in the
additional section at most an OPT record without options. Of a plain reply comes the Answer that `read_reply` makes of
it; anything else, malformed or only unusual, is left to dnspython and `read_reply`, which decide about it. So this
one has to be at least as strict as dnspython in all that it accepts. Pure, safe to share between threads.
"""

from __future__ import annotations

import struct
from collections.abc import Hashable

import dns.ipv6

from mailguard.dns.names import escaped_name
from mailguard.dns.query import HEADER_OCTETS, TYPE_NUMBERS, Query
from mailguard.dns.question import MX, TLSA, Answer, Dnssec, Question, RecordType, Status
from mailguard.dns.reply import MAX_ALIASES

__all__ = ["read_plain_reply"]

_COUNTS_AND_FLAGS = struct.Struct("!HHHHH")
_RECORD = struct.Struct("!HHIH")
_RECORD_OCTETS = _RECORD.size
# QR, the opcode, TC.
_FLAGS_THAT_MATTER, _FLAGS_OF_A_REPLY = 0xFA00, 0x8000
_AD = 0x0020
_RCODE = 0x000F
_RCODES = {0: "NOERROR", 3: "NXDOMAIN"}
_IN = 1
_CNAME, _SOA = TYPE_NUMBERS[RecordType.CNAME], 6
_OPT_OCTETS = 11
# RFC 2181 §8: more is none.
_MAX_TTL_S = 2**31 - 1
# RFC 1035 §2.3.4.
_MAX_NAME_OCTETS = 255
# A writer that compresses needs one for each suffix that it repeats; dnspython stops at 16.
_MAX_POINTERS = 16
# Where the name of the question begins, as a pointer.
_POINTER_TO_QUESTION = b"\xc0\x0c"

Record = bytes | str | MX | TLSA


class _NotPlain(Exception):
    """Left to dnspython."""


def read_plain_reply(question: Question, query: Query, wire: bytes, *, server: str, trust_ad: bool) -> Answer | None:
    """The answer to `question` in the datagram `wire`, a reply to `query` for it; None if it is not plain.

    `server` is named in the detail.
    """
    at = HEADER_OCTETS + len(query.question)
    try:
        flags, questions, answers, authorities, additional = _COUNTS_AND_FLAGS.unpack_from(wire, 2)
        rcode = _RCODES.get(flags & _RCODE)
        if (
            not wire.startswith(query.identity)
            or flags & _FLAGS_THAT_MATTER != _FLAGS_OF_A_REPLY
            or rcode is None
            or questions != 1
            or not wire.startswith(query.question, HEADER_OCTETS)
        ):
            return None
        # The name of a Question is lower case, and its last four octets are type and class.
        name = query.question[:-4]
        sets: dict[tuple[bytes, int], _RecordSet] = {}
        for _ in range(answers):
            at = _read_answer(wire, at, name, question.rdtype, sets)
        soa: tuple[bytes, int] | None = None
        if authorities:
            if authorities > 1:
                return None
            at, soa = _read_soa(wire, at)
        _check_end(wire, at, additional)
    except (_NotPlain, IndexError, struct.error):
        return None
    dnssec = Dnssec.SECURE if trust_ad and flags & _AD else Dnssec.INSECURE
    return _answer(question, name, sets, soa, rcode, dnssec, server)


class _RecordSet:
    """The records of one name and type."""

    __slots__ = ("identities", "next_name", "records", "ttl_s")

    def __init__(self, ttl_s: int) -> None:
        self.ttl_s = ttl_s
        self.records: list[Record] = []
        self.identities: set[Hashable] = set()
        self.next_name = b""
        """Of an alias: its target."""


def _read_answer(
    wire: bytes, at: int, name: bytes, wanted: RecordType, sets: dict[tuple[bytes, int], _RecordSet]
) -> int:
    """Read the record at `at` into `sets`; the offset after it."""
    if wire.startswith(_POINTER_TO_QUESTION, at):
        owner, at = name, at + 2
    else:
        owner, at = _read_name(wire, at, len(wire))
    rdtype, rdclass, ttl_s, length = _RECORD.unpack_from(wire, at)
    at += _RECORD_OCTETS
    end: int = at + length
    if rdclass != _IN or ttl_s > _MAX_TTL_S or end > len(wire):
        raise _NotPlain
    found = sets.get((owner, rdtype))
    if found is None:
        found = sets[owner, rdtype] = _RecordSet(ttl_s)
    elif rdtype == _CNAME:
        raise _NotPlain
    elif ttl_s < found.ttl_s:
        found.ttl_s = ttl_s
    identity: Hashable
    if rdtype == _CNAME:
        identity = found.next_name = _whole_name(wire, at, end)
        found.records.append(_text(found.next_name))
    elif rdtype != TYPE_NUMBERS[wanted]:
        raise _NotPlain
    else:
        identity, record = _record(wire, at, end, wanted)
        found.records.append(record)
    if identity in found.identities:
        raise _NotPlain
    found.identities.add(identity)
    return end


def _record(wire: bytes, at: int, end: int, rdtype: RecordType) -> tuple[Hashable, Record]:
    """What two equal records have in common, and the value of the record as Answer describes it."""
    rdata = wire[at:end]
    match rdtype:
        case RecordType.TXT:
            return rdata, _joined(rdata)
        case RecordType.A if len(rdata) == 4:
            return rdata, ".".join(map(str, rdata))
        case RecordType.AAAA if len(rdata) == 16:
            return rdata, dns.ipv6.inet_ntoa(rdata)
        case RecordType.MX:
            exchange = _whole_name(wire, at + 2, end)
            return (rdata[:2], exchange), MX(int.from_bytes(rdata[:2], "big"), _text(exchange))
        case RecordType.PTR:
            target = _whole_name(wire, at, end)
            return target, _text(target)
        case RecordType.TLSA if len(rdata) > 3:
            return rdata, TLSA(rdata[0], rdata[1], rdata[2], rdata[3:])
    raise _NotPlain


def _joined(rdata: bytes) -> bytes:
    """The character-strings of a TXT record, of which there is at least one."""
    length = rdata[0]
    if length + 1 == len(rdata):
        return rdata[1:]
    strings = []
    at = 0
    while at < len(rdata):
        end = at + 1 + rdata[at]
        strings.append(rdata[at + 1 : end])
        at = end
    if at != len(rdata):
        raise _NotPlain
    return b"".join(strings)


def _read_soa(wire: bytes, at: int) -> tuple[int, tuple[bytes, int]]:
    """The offset after the SOA record at `at`, its owner, and how long a denial holds (RFC 2308 §5)."""
    owner, at = _read_name(wire, at, len(wire))
    rdtype, rdclass, ttl_s, length = _RECORD.unpack_from(wire, at)
    at += _RECORD_OCTETS
    end = at + length
    if rdtype != _SOA or rdclass != _IN or ttl_s > _MAX_TTL_S or end > len(wire):
        raise _NotPlain
    _, at = _read_name(wire, at, end)
    _, at = _read_name(wire, at, end)
    # Serial, refresh, retry, expire, minimum.
    if end - at != 20:
        raise _NotPlain
    return end, (owner, min(ttl_s, int.from_bytes(wire[end - 4 : end], "big")))


def _check_end(wire: bytes, at: int, additional: int) -> None:
    """Nothing is left but an OPT record without extended response code and without options."""
    if additional:
        rest = wire[at:]
        if (
            additional > 1
            or len(rest) != _OPT_OCTETS
            or not rest.startswith(b"\x00\x00\x29")
            or rest[5]
            or rest[9]
            or rest[10]
        ):
            raise _NotPlain
    elif at != len(wire):
        raise _NotPlain


def _whole_name(wire: bytes, at: int, end: int) -> bytes:
    """The name that fills the rest of the data of a record."""
    name, at = _read_name(wire, at, end)
    if at != end:
        raise _NotPlain
    return name


def _read_name(wire: bytes, at: int, end: int) -> tuple[bytes, int]:
    """The name at `at` in lower case and without pointers (RFC 1035 §4.1.4), and the offset after it.

    It ends before `end`. A pointer leads back to before where it was found, and no part reaches into the next.
    """
    labels = []
    start = at
    after = octets = pointers = 0
    while True:
        if at >= end:
            raise _NotPlain
        length = wire[at]
        if length == 0:
            break
        if length < 64:
            next_label = at + 1 + length
            labels.append(wire[at:next_label])
            octets += length + 1
            at = next_label
            continue
        pointers += 1
        if length < 192 or at + 1 >= end or pointers > _MAX_POINTERS:
            raise _NotPlain
        target = (length & 0x3F) << 8 | wire[at + 1]
        if target >= start:
            raise _NotPlain
        after = after or at + 2
        end = start
        start = at = target
    if octets >= _MAX_NAME_OCTETS:
        raise _NotPlain
    # The octet of a length, at most 63, is no letter.
    return b"".join(labels).lower() + b"\x00", after or at + 1


def _labels(name: bytes) -> list[bytes]:
    labels = []
    at = 0
    while length := name[at]:
        labels.append(name[at + 1 : at + 1 + length])
        at += 1 + length
    return labels


def _text(name: bytes) -> str:
    return escaped_name(_labels(name))


def _is_at_or_below(name: bytes, above: bytes) -> bool:
    at = 0
    while len(name) - at > len(above):
        at += 1 + name[at]
    return name[at:] == above


def _answer(
    question: Question,
    name: bytes,
    sets: dict[tuple[bytes, int], _RecordSet],
    soa: tuple[bytes, int] | None,
    rcode: str,
    dnssec: Dnssec,
    server: str,
) -> Answer | None:
    """Follow the aliases from `name`. None where they lead out of the reply or too far, or the denial has no SOA."""
    ttl_s = _MAX_TTL_S
    wanted = TYPE_NUMBERS[question.rdtype]
    canonical_name = ""
    aliases = 0
    while (found := sets.get((name, wanted))) is None:
        alias = sets.get((name, _CNAME))
        if alias is None:
            break
        aliases += 1
        if aliases > MAX_ALIASES:
            return None
        ttl_s = min(ttl_s, alias.ttl_s)
        name = alias.next_name
        canonical_name = str(alias.records[0])
    detail = f"{server}: {rcode}"
    if found is not None:
        records = tuple(found.records)
        return Answer(question, Status.NOERROR, records, min(ttl_s, found.ttl_s), dnssec, detail, canonical_name)
    if soa is None or not _is_at_or_below(name, soa[0]):
        return None
    status = Status.NXDOMAIN if rcode == "NXDOMAIN" else Status.NODATA
    return Answer(question, status, (), min(ttl_s, soa[1]), dnssec, detail, canonical_name)
