"""The prepared milter sessions that load.c speaks: octet for octet what Postfix 3.7 would send to these milters.

What Postfix sends depends on what a milter negotiates (which events it wants, which it answers, which macros it asks
for, whether it wants the blank after the colon). So each milter is asked once beforehand, and the packets are built
for its answer. `Operation` says what a script consists of. Recorded from Postfix 3.7.11:

- the macros of HELO, MAIL, RCPT and DATA are sent also where the milter does not want the event itself;
- {i} goes before each header field and each chunk of the body, once the queue file is open;
- a chunk has 65,535 octets; lines end with CR LF in the body and with LF inside header fields;
- with several milters an event goes to all before the next event, but each gets the whole content in turn.

No state; nothing is sent here but the negotiation.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum, IntFlag

from sample_mail import Sample

__all__ = ["Negotiated", "Operation", "Stage", "Step", "negotiate", "operations", "packet", "script"]

# What Postfix 3.7 offers, as recorded.
VERSION = 6
ACTIONS = 0x1FF
STEPS = 0x1FFFFF
CHUNK_OCTETS = 65_535
NEGOTIATION_TIMEOUT_S = 10.0
MAGIC = b"MGS1"
POSTFIX_VERSION = b"Postfix 3.7.11"


class Step(IntFlag):
    """The bits of the negotiation that change what Postfix sends (mfdef.h: SMFIP_...)."""

    NO_CONNECT = 0x1
    NO_HELO = 0x2
    NO_MAIL = 0x4
    NO_RCPT = 0x8
    NO_BODY = 0x10
    NO_HEADERS = 0x20
    NO_END_OF_HEADER = 0x40
    NO_REPLY_HEADER = 0x80
    NO_DATA = 0x200
    NO_REPLY_CONNECT = 0x1000
    NO_REPLY_HELO = 0x2000
    NO_REPLY_MAIL = 0x4000
    NO_REPLY_RCPT = 0x8000
    NO_REPLY_DATA = 0x10000
    NO_REPLY_END_OF_HEADER = 0x40000
    NO_REPLY_BODY = 0x80000
    LEADING_BLANK = 0x100000


class Operation(bytes):
    """One octet: what load.c does next with one milter."""


CONNECT = Operation(b"C")  # the path of its socket
NEGOTIATE = Operation(b"O")  # length of the offer, the offer, the answer that must come
WRITE = Operation(b"W")
FLUSH = Operation(b"F")
REPLY = Operation(b"R")  # read a reply, which must be "continue" or "skip"
CHUNK = Operation(b"B")  # written unless the milter has answered "skip"
CHUNK_AND_REPLY = Operation(b"b")
INSERTED = Operation(b"I")  # the fields that earlier milters inserted, each after these macros
INSERTED_AND_REPLIES = Operation(b"i")
END = Operation(b"E")  # read what the milter wants changed, up to its verdict
LEAVE = Operation(b"X")  # for all milters, after the clock was stopped


class Stage(IntEnum):
    """Of macros that a milter asks for (mfapi.h: SMFIM_...)."""

    CONNECT = 0
    HELO = 1
    MAIL = 2
    RCPT = 3
    DATA = 4
    END_OF_MESSAGE = 5
    END_OF_HEADER = 6


# Postfix's own choice, from the manual page of milter_connect_macros and its kin, in this order.
DEFAULT_MACROS: Mapping[Stage, tuple[bytes, ...]] = {
    Stage.CONNECT: (b"j", b"{daemon_name}", b"{daemon_addr}", b"v", b"_"),
    Stage.HELO: (b"{tls_version}", b"{cipher}", b"{cipher_bits}", b"{cert_subject}", b"{cert_issuer}"),
    Stage.MAIL: (
        *(b"i", b"{auth_type}", b"{auth_authen}", b"{auth_author}"),
        *(b"{mail_addr}", b"{mail_host}", b"{mail_mailer}"),
    ),
    Stage.RCPT: (b"i", b"{rcpt_addr}", b"{rcpt_host}", b"{rcpt_mailer}"),
    Stage.DATA: (b"i",),
    Stage.END_OF_HEADER: (b"i",),
    Stage.END_OF_MESSAGE: (b"i",),
}


@dataclass(frozen=True, slots=True)
class Negotiated:
    """A milter's answer to Postfix's offer."""

    path: str
    """Of its UNIX socket."""
    answer: bytes
    """The packet without its length."""
    steps: Step
    macros: Mapping[Stage, tuple[bytes, ...]]
    """What it asked for, where it asked."""

    @classmethod
    def read(cls, path: str, answer: bytes) -> Negotiated:
        """From the packet. Raises ValueError."""
        if answer[:1] != b"O" or len(answer) < 13:
            raise ValueError(f"{path} does not negotiate: {answer!r}")
        (steps,) = struct.unpack_from("!I", answer, 9)
        macros = {}
        at = 13
        while at < len(answer):
            (stage,) = struct.unpack_from("!I", answer, at)
            end = answer.index(b"\0", at + 4)
            if names := tuple(answer[at + 4 : end].split()):
                macros[Stage(stage)] = names
            at = end + 1
        return cls(path, answer, Step(steps), macros)


def packet(command: bytes, octets: bytes = b"") -> bytes:
    """A packet of the milter protocol."""
    return struct.pack("!I", len(octets) + 1) + command + octets


_OFFER = packet(b"O", struct.pack("!III", VERSION, ACTIONS, STEPS))


def negotiate(path: str) -> Negotiated:
    """Ask the milter behind this UNIX socket. Raises OSError, ValueError."""
    with socket.socket(socket.AF_UNIX) as connection, connection.makefile("rb") as stream:
        connection.settimeout(NEGOTIATION_TIMEOUT_S)
        connection.connect(path)
        connection.sendall(_OFFER)
        head = stream.read(4)
        if len(head) < 4:
            raise ValueError(f"{path} hangs up when a milter session begins")
        answer = stream.read(*struct.unpack("!I", head))
        connection.sendall(packet(b"Q"))
    return Negotiated.read(path, answer)


def script(samples: Iterable[Sample], milters: Sequence[Negotiated]) -> Iterator[bytes]:
    """The octets of a file for load.c, in parts: each sample as one connection to these milters."""
    messages = [b"".join(_encoded(operations(sample, milters))) for sample in samples]
    yield struct.pack("=4sI", MAGIC, len(messages))
    at = 8 + 16 * len(messages)
    for message in messages:
        yield struct.pack("=QQ", at, len(message))
        at += len(message)
    yield from messages


def _encoded(steps: Iterable[tuple[Operation, int, bytes]]) -> Iterator[bytes]:
    for operation, number, octets in steps:
        yield struct.pack("!cBI", operation, number, len(octets))
        yield octets


def operations(sample: Sample, milters: Sequence[Negotiated]) -> Iterator[tuple[Operation, int, bytes]]:
    """One connection: (operation, number of the milter, octets)."""
    sides = [_Side(number, milter, sample) for number, milter in enumerate(milters)]
    for side in sides:
        yield from side.connect()
    for command in (_Side.helo, _Side.mail, _Side.rcpt, _Side.data):
        for side in sides:
            yield from command(side)
    for side in sides:
        yield from side.content()
    yield LEAVE, 0, packet(b"A") + packet(b"A") + packet(b"Q")


class _Side:
    """One milter's side of one connection."""

    def __init__(self, number: int, milter: Negotiated, sample: Sample) -> None:
        self._number = number
        self._milter = milter
        self._sample = sample
        self._values: dict[bytes, bytes] = {
            b"j": sample.receiver,
            b"{daemon_name}": sample.daemon_name,
            b"{daemon_addr}": b"192.0.2.25",
            b"v": POSTFIX_VERSION,
            b"_": b"%b [%b]" % (sample.client_name, sample.client_address),
            b"{mail_addr}": sample.mail_from,
            b"{mail_host}": sample.mail_from.rpartition(b"@")[2],
            b"{mail_mailer}": b"smtp",
            b"{rcpt_addr}": sample.rcpt_to,
            b"{rcpt_host}": sample.rcpt_to.rpartition(b"@")[2],
            b"{rcpt_mailer}": b"local",
        }
        if sample.login:
            self._values |= {b"{auth_type}": b"PLAIN", b"{auth_authen}": sample.login}

    def _do(self, operation: Operation, octets: bytes = b"") -> tuple[Operation, int, bytes]:
        return operation, self._number, octets

    def _macros(self, command: bytes, stage: Stage) -> bytes:
        names = self._milter.macros.get(stage, DEFAULT_MACROS[stage])
        values = self._values
        return packet(b"D", command + b"".join(n + b"\0" + values[n] + b"\0" for n in names if n in values))

    def _event(
        self, command: bytes, octets: bytes, stage: Stage, *, unwanted: Step, unanswered: Step
    ) -> Iterator[tuple[Operation, int, bytes]]:
        yield self._do(WRITE, self._macros(command, stage))
        if unwanted in self._milter.steps:
            return
        yield self._do(WRITE, packet(command, octets))
        if unanswered not in self._milter.steps:
            yield self._do(REPLY)

    def connect(self) -> Iterator[tuple[Operation, int, bytes]]:
        sample, milter = self._sample, self._milter
        yield self._do(CONNECT, milter.path.encode())
        yield self._do(NEGOTIATE, struct.pack("!I", len(_OFFER)) + _OFFER + milter.answer)
        client = sample.client_name + b"\x004" + struct.pack("!H", 40_000) + sample.client_address + b"\0"
        yield from self._event(
            b"C", client, Stage.CONNECT, unwanted=Step.NO_CONNECT, unanswered=Step.NO_REPLY_CONNECT
        )

    def helo(self) -> Iterator[tuple[Operation, int, bytes]]:
        name = self._sample.helo + b"\0"
        yield from self._event(b"H", name, Stage.HELO, unwanted=Step.NO_HELO, unanswered=Step.NO_REPLY_HELO)

    def mail(self) -> Iterator[tuple[Operation, int, bytes]]:
        path = b"<%b>\0" % self._sample.mail_from
        yield from self._event(b"M", path, Stage.MAIL, unwanted=Step.NO_MAIL, unanswered=Step.NO_REPLY_MAIL)

    def rcpt(self) -> Iterator[tuple[Operation, int, bytes]]:
        path = b"<%b>\0" % self._sample.rcpt_to
        yield from self._event(b"R", path, Stage.RCPT, unwanted=Step.NO_RCPT, unanswered=Step.NO_REPLY_RCPT)
        # The queue file is opened now.
        self._values[b"i"] = self._sample.queue_id

    def data(self) -> Iterator[tuple[Operation, int, bytes]]:
        yield from self._event(b"T", b"", Stage.DATA, unwanted=Step.NO_DATA, unanswered=Step.NO_REPLY_DATA)
        # smtpd(8) hands the connection over to cleanup(8).
        yield self._do(FLUSH)

    def content(self) -> Iterator[tuple[Operation, int, bytes]]:
        yield from self._header()
        body = self._sample.body
        chunks = [body[at : at + CHUNK_OCTETS] for at in range(0, len(body), CHUNK_OCTETS)]
        if Step.NO_BODY not in self._milter.steps:
            answered = Step.NO_REPLY_BODY not in self._milter.steps
            for chunk in chunks:
                octets = self._macros(b"B", Stage.END_OF_MESSAGE) + packet(b"B", chunk)
                yield self._do(CHUNK_AND_REPLY if answered else CHUNK, octets)
        yield self._do(WRITE, self._macros(b"E", Stage.END_OF_MESSAGE) + packet(b"E"))
        yield self._do(END)

    def _header(self) -> Iterator[tuple[Operation, int, bytes]]:
        steps = self._milter.steps
        if Step.NO_HEADERS not in steps:
            macros = self._macros(b"L", Stage.END_OF_HEADER)
            answered = Step.NO_REPLY_HEADER not in steps
            if self._number > 0:
                yield self._do(INSERTED_AND_REPLIES if answered else INSERTED, macros)
            for name, value in self._sample.fields:
                sent = value if Step.LEADING_BLANK in steps else value.lstrip(b" \t")
                yield self._do(WRITE, macros + packet(b"L", name + b"\0" + sent + b"\0"))
                if answered:
                    yield self._do(REPLY)
        if Step.NO_END_OF_HEADER not in steps:
            yield self._do(WRITE, self._macros(b"N", Stage.END_OF_HEADER) + packet(b"N"))
            if Step.NO_REPLY_END_OF_HEADER not in steps:
                yield self._do(REPLY)
