"""Mutated sessions of the milter protocol, from a seeded generator: the decoder always ends with events.

    python benchmarks/fuzz_protocol.py [--sessions 1000000] [--seed 1] [--first 0]

Each session is one that an MTA could have, broken in a few places, and fed in parts. It must come out as events in an
order that is allowed, the same whole and in parts; nothing may be raised. The builders of replies get random
arguments: a packet or a ValueError. The memory of the process is looked at as it goes and must not grow. Session
number N is the same in every run with the same seed; --first N begins with it.

Exit code 1 when something is wrong, which is then said. Linux: /proc/self/statm.
"""

from __future__ import annotations

import argparse
import os
import struct
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from mailguard_milter import protocol
from mailguard_milter.protocol import Decoder, Event, Quit, Violation

__all__ = [
    "Broken",
    "Watch",
    "fuzz",
    "mutated_session",
    "one_by_one",
    "resident_kb",
    "run",
    "try_replies",
    "try_session",
]

SESSIONS = 1_000_000
WARM_UP = 0.1
MAX_GROWTH_KB = 2_000
PROGRESS_S = 5.0

_OFFER = b"O" + struct.pack("!III", 6, 0x1FF, 0x1FFFFF)
_COMMANDS = b"ABCDEHKLMNOQRTU"
_TEXTS = (b"", b"x", b"<a@evil.test>", b"SIZE=1", b"{auth_type}", b"i", b"\xff\xfe", b"client.test", b"y" * 300)
_CLIENTS = (b"a.test\x004\0\x19192.0.2.1\0", b"a.test\x006\0\x19IPv6:2001:db8::1\0", b"a\x00U", b"a\x00L\0\0/run/x\0")
# The order once more, apart from the decoder: what stands before what, macros and Unknown left aside.
_BEFORE_CONNECT = (protocol.Negotiate, protocol.QuitNewConnection)
_CONTENT = (protocol.Headers, protocol.EndOfHeader)
_ENVELOPE = (protocol.Mail, protocol.Rcpt, protocol.Data)
_OUTSIDE = (protocol.Connect, protocol.Helo, protocol.EndOfMessage, protocol.Abort)


class Broken(Exception):
    """The decoder or a builder did what it must not do."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What came of one session."""

    events: int
    is_refused: bool


def mutated_session(random: Random) -> bytes:
    """The octets of a session in order, or nearly so."""
    packets = list(_session(random))
    for _ in range(random.choice((0, 1, 1, 2, 3, 6))):
        random.choice(_MUTATIONS)(packets, random)
    octets = bytearray(b"".join(packets))
    for _ in range(random.choice((0, 0, 0, 1, 3))):
        _mutate_octets(octets, random)
    return bytes(octets)


def _packet(content: bytes) -> bytes:
    return struct.pack("!I", len(content)) + content


def _texts(random: Random, most: int = 3) -> bytes:
    return b"".join(random.choice(_TEXTS) + b"\0" for _ in range(random.randint(0, most)))


def _macros(random: Random, command: bytes) -> bytes:
    return _packet(b"D" + command + _texts(random, 1) * 2)


def _session(random: Random) -> Iterator[bytes]:
    yield _packet(_OFFER)
    for _ in range(random.randint(1, 2)):
        yield _macros(random, b"C")
        yield _packet(b"C" + random.choice(_CLIENTS))
        yield _packet(b"H" + random.choice(_TEXTS) + b"\0")
        for _ in range(random.randint(0, 2)):
            yield from _message(random)
        yield _packet(random.choice((b"A", b"K", b"K")))
    yield _packet(b"Q")


def _message(random: Random) -> Iterator[bytes]:
    yield _packet(b"M<x@evil.test>\0" + _texts(random))
    for _ in range(random.randint(0, 3)):
        yield _macros(random, b"R")
        yield _packet(b"R<a@us.test>\0" + _texts(random))
    yield _packet(b"T")
    same = _macros(random, b"L")
    for _ in range(random.randint(0, 6)):
        yield same
        yield _packet(b"L" + random.choice((b"From", b"Subject", b"X-\xff")) + b"\0" + random.choice(_TEXTS) + b"\0")
    yield _packet(b"N")
    for _ in range(random.choice((0, 1, 1, 2))):
        yield _packet(b"B" + random.choice(_TEXTS) * random.choice((1, 1, 1, 200)))
    yield _packet(b"E")


# Mutations of a list of packets, and of their octets


def _drop(packets: list[bytes], random: Random) -> None:
    at = _place(packets, random)
    del packets[at : at + random.randint(1, 3)]


def _repeat(packets: list[bytes], random: Random) -> None:
    packets.insert(_place(packets, random), random.choice(packets or [b""]))


def _swap(packets: list[bytes], random: Random) -> None:
    if packets:
        one, other = random.randrange(len(packets)), random.randrange(len(packets))
        packets[one], packets[other] = packets[other], packets[one]


def _invent(packets: list[bytes], random: Random) -> None:
    command = bytes((random.choice(_COMMANDS) if random.random() < 0.9 else random.randrange(256),))
    data = random.choice((_texts(random), random.randbytes(random.randrange(20)), random.choice(_TEXTS)))
    packets.insert(_place(packets, random), _packet(command + data))


def _wrong_length(packets: list[bytes], random: Random) -> None:
    if packets:
        at = random.randrange(len(packets))
        length = random.choice((0, 1, len(packets[at]), random.randrange(1 << 17), random.randrange(1 << 32)))
        packets[at] = struct.pack("!I", length) + packets[at][4:]


def _enlarge(packets: list[bytes], random: Random) -> None:
    """Near the bound of a packet, one time in ten: it costs more than all the rest."""
    size = random.choice((65_534, 65_535, 65_536)) if random.random() < 0.1 else random.randrange(2_000)
    octet = random.choice((b"\0", b"x"))
    packets.insert(_place(packets, random), _packet(bytes((random.choice(_COMMANDS),)) + octet * size))


def _place(packets: list[bytes], random: Random) -> int:
    return random.randint(0, len(packets))


_MUTATIONS: Sequence[Callable[[list[bytes], Random], None]] = (
    _drop,
    _repeat,
    _swap,
    _invent,
    _wrong_length,
    _enlarge,
)


def _mutate_octets(octets: bytearray, random: Random) -> None:
    if not octets:
        return
    at = random.randrange(len(octets))
    match random.randrange(4):
        case 0:
            octets[at] = random.randrange(256)
        case 1:
            del octets[at : at + random.randrange(8)]
        case 2:
            octets[at:at] = random.randbytes(random.randrange(8))
        case _:
            del octets[at:]


# Trying


def try_session(octets: bytes, random: Random) -> Seen:
    """Feed one session in random parts, and whole. Raises Broken, and whatever the decoder raises."""
    decoder = Decoder()
    events: list[Event] = []
    at, size = 0, len(octets)
    step = random.choice((7, 40, 400, 5_000, 70_000))
    while at < size:
        part = random.randint(1, step)
        events += decoder.feed(octets[at : at + part])
        at += part
    if one_by_one(Decoder().feed(octets)) != one_by_one(events):
        raise Broken("whole and in parts are not the same")
    if any(isinstance(event, Violation | Quit) for event in events[:-1]):
        raise Broken("something came after the last event")
    if events and isinstance(events[-1], Violation | Quit) and decoder.feed(octets):
        raise Broken("something comes after the end")
    _check_order(events)
    return Seen(len(events), bool(events) and isinstance(events[-1], Violation))


def one_by_one(events: Iterable[Event]) -> list[Event]:
    """The events with each header field by itself, however they arrived."""
    found: list[Event] = []
    for event in events:
        if isinstance(event, protocol.Headers):
            found += [protocol.Headers((field,)) for field in event.fields]
        else:
            found.append(event)
    return found


def _check_order(events: Sequence[Event]) -> None:
    previous: Event | None = None
    for event in events:
        if isinstance(event, protocol.Macros | protocol.Unknown):
            if previous is None:
                raise Broken(f"{event} comes first")
            continue
        if not _may_follow(previous, event):
            raise Broken(f"{event} comes after {previous}")
        if isinstance(event, protocol.Abort) and isinstance(previous, _BEFORE_CONNECT):
            continue
        previous = event


def _may_follow(previous: Event | None, event: Event) -> bool:
    match event:
        case Violation() | Quit():
            return True
        case protocol.Negotiate():
            return previous is None
        case protocol.Connect():
            return isinstance(previous, _BEFORE_CONNECT)
        case protocol.Helo() | protocol.Mail():
            return isinstance(previous, _OUTSIDE)
        case protocol.Rcpt() | protocol.Data() | protocol.Headers() | protocol.EndOfHeader():
            content = isinstance(event, _CONTENT)
            return isinstance(previous, _ENVELOPE) or (content and isinstance(previous, protocol.Headers))
        case protocol.Body() | protocol.EndOfMessage():
            return isinstance(previous, protocol.EndOfHeader | protocol.Body)
    return previous is not None


def try_replies(random: Random) -> None:
    """One builder with random arguments. Raises Broken, and whatever it raises but ValueError."""
    one, other = (random.choice((random.choice(_TEXTS), random.randbytes(random.randrange(6)))) for _ in range(2))
    number = random.choice((-1, 0, 1, 2, 6, 1 << 31, 1 << 40))
    makers: Sequence[Callable[[], bytes]] = (
        lambda: protocol.negotiate(6, number, 0x100000, {number: one}),
        lambda: protocol.reply_code(random.choice((b"550", b"451", one)), random.choice((b"5.7.1", b"4.7.1")), other),
        lambda: protocol.add_header(one, other),
        lambda: protocol.insert_header(number, one, other),
        lambda: protocol.change_header(number, one, other),
        lambda: protocol.quarantine(one),
        lambda: protocol.change_from(one, other),
        lambda: protocol.add_recipient(one, other),
        lambda: protocol.delete_recipient(one),
        lambda: protocol.replace_body(one * random.choice((1, 1, 300))),
    )
    try:
        packet = random.choice(makers)()
    except ValueError:
        return
    (length,) = struct.unpack_from("!I", packet)
    if length != len(packet) - 4 or not 1 <= length <= 65_536:
        raise Broken(f"a reply of {length} octets that has {len(packet) - 4}: {packet[:80]!r}")


# Many


def resident_kb() -> int:
    """Of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE") // 1024


class Watch:
    """Looks at the memory as sessions go by, and says how far they are."""

    def __init__(self, sessions: int, say: Callable[[str], None]) -> None:
        self._sessions = sessions
        self._say = say
        self._started = self._said = time.monotonic()
        self._warm_kb = self._peak_kb = 0

    def done(self, done: int, counts: str) -> None:
        """So many are done; `counts` is what came of them, for people. Raises Broken when memory has grown."""
        is_last = done == self._sessions
        if done % 1_000 and not is_last:
            return
        self._peak_kb = max(self._peak_kb, resident_kb())
        if done <= self._sessions * WARM_UP or not self._warm_kb:
            self._warm_kb = self._peak_kb
        grown_kb = self._peak_kb - self._warm_kb
        if grown_kb > MAX_GROWTH_KB:
            raise Broken(f"memory grew from {self._warm_kb} to {self._peak_kb} kB in {done} sessions")
        now = time.monotonic()
        if now - self._said > PROGRESS_S or is_last:
            self._said = now
            self._say(
                f"{done} of {self._sessions} sessions, {counts}, {self._peak_kb} kB"
                f" ({grown_kb} kB more than at {WARM_UP:.0%}), {now - self._started:.0f} s"
            )


def fuzz(sessions: int, *, seed: int, first: int = 0, say: Callable[[str], None] = print) -> int:
    """Try so many sessions; how many of them were refused. Raises Broken, with the number of the session."""
    watch = Watch(sessions, say)
    refused = events = 0
    for number in range(first, first + sessions):
        random = Random(f"{seed}/{number}")
        try:
            seen = try_session(mutated_session(random), random)
            try_replies(random)
        except Exception as error:
            raise Broken(f"session {number} with seed {seed}: {type(error).__name__}: {error}") from error
        refused += seen.is_refused
        events += seen.events
        watch.done(number + 1 - first, f"{refused} refused, {events} events")
    return refused


def run(fuzz: Callable[..., int], description: str) -> int:
    """The command that tries `fuzz` with what sys.argv says; its exit code."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--sessions", type=int, default=SESSIONS)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0)
    options = parser.parse_args()
    try:
        fuzz(options.sessions, seed=options.seed, first=options.first)
    except Broken as broken:
        print(broken, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(run(fuzz, "Mutated sessions of the milter protocol."))
