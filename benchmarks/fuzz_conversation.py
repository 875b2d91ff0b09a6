"""Mutated sessions of the milter protocol (fuzz_protocol.py) through the native engine and the real session.

    python benchmarks/fuzz_conversation.py [--sessions 1000000] [--seed 1] [--first 0]

What comes of the octets goes through decoder, conversation and session, with a resolver that knows little, fails, or
breaks. Each event must get the answers that were agreed, whole packets and no more; nothing may be raised, in the
session either; and nothing may be left when the connection is gone. The memory of the process is looked at as it goes
and must not grow. Session number N is the same in every run with the same seed; --first N begins with it.

Exit code 1 when something is wrong, which is then said. Linux: /proc/self/statm.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from random import Random

from fuzz_protocol import Broken, Watch, mutated_session, run
from mailguard.config import Config, Listener
from mailguard.dns.question import Answer, Question, Status
from mailguard.dns.zone import ZoneResolver
from mailguard.rule import Mode
from mailguard_milter import protocol
from mailguard_milter.conversation import Conversation, Shared, State
from mailguard_milter.log import Format, Log, Severity, StderrSink, format_line
from mailguard_milter.protocol import Decoder, Event
from mailguard_milter.service import Service
from mailguard_milter.session import Session

__all__ = ["Trial", "fuzz"]

ROUNDS = 20
BROKEN_RESOLVER = 0.02
EDITS = b"imq"
VERDICTS = b"cyrtad"
_STATUSES = (Status.NXDOMAIN, Status.NODATA, Status.TEMPFAIL, Status.BOGUS)


@dataclass(frozen=True, slots=True)
class Told:
    """A line of the log that is not about a message."""

    name: str
    fields: Mapping[str, object]


class Heard(Log):
    """What is logged, as values; that it can be written is tried."""

    def __init__(self) -> None:
        super().__init__(StderrSink(), Format.JSON, timestamps=False)
        self.told: list[Told] = []
        self.messages: list[Mapping[str, object]] = []

    def message(self, record: Mapping[str, object], severity: Severity = Severity.INFO) -> None:
        self.messages.append(record)
        for each in Format:
            format_line(record, each)

    def event(self, name: str, severity: Severity = Severity.INFO, **fields: object) -> None:
        self.told.append(Told(name, fields))


class Trial:
    """One worker's worth of sessions, one after the other."""

    def __init__(self) -> None:
        service = Service.open(Config(authserv_id="mx.us.test", mode=Mode.ENFORCE))
        self.log = Heard()
        self.messages = 0
        self._shared = Shared(
            open_dialogue=lambda: Session(service, Listener()),
            resolver=ZoneResolver({}),
            deadline_s=5.0,
            log=self.log,
            keep_trace=None,
        )

    def session(self, octets: bytes, random: Random) -> None:
        """Raises Broken, and whatever is raised."""
        self.log.told.clear()
        self.log.messages.clear()
        conversation, decoder = Conversation(self._shared), Decoder()
        breaks = self._run(conversation, decoder, octets, random)
        conversation.close()
        if self._shared.messages:
            raise Broken(f"{self._shared.messages} messages are left when the connection is gone")
        faults = [each for each in self.log.told if each.name == "internal error"]
        if len(faults) != breaks:
            raise Broken(f"{breaks} failures of the resolver, and internal errors: {faults}")
        self.messages += len(self.log.messages)

    def _run(self, conversation: Conversation, decoder: Decoder, octets: bytes, random: Random) -> int:
        at, breaks = 0, 0
        step = random.choice((7, 40, 400, 5_000, 70_000))
        steps = 0
        while at < len(octets):
            part = random.randint(1, step)
            for event in decoder.feed(octets[at : at + part]):
                conversation.take(iter((event,)))
                breaks += self._answer(conversation, random)
                packets = [*_packets(b"".join(conversation.out))]
                conversation.out.clear()
                if isinstance(event, protocol.Negotiate) and packets:
                    _, _, steps = struct.unpack_from("!III", packets[0], 1)
                _check(event, packets, conversation.state, steps)
                if conversation.state is State.CONCLUDED:
                    conversation.settle()
                elif conversation.state is State.OVER:
                    return breaks
            at += part
        return breaks

    def _answer(self, conversation: Conversation, random: Random) -> int:
        """Answer its questions; how often the resolver broke."""
        for _ in range(ROUNDS):
            if conversation.state is not State.ASKING:
                return 0
            if random.random() < BROKEN_RESOLVER:
                conversation.give_up(RuntimeError("the resolver is broken"))
                return 1
            conversation.answered({each: _answer_to(each, random) for each in conversation.missing})
        raise Broken(f"it asks without end: {conversation.missing}")


def _answer_to(question: Question, random: Random) -> Answer:
    return Answer(question, random.choice(_STATUSES))


def _packets(octets: bytes) -> Iterator[bytes]:
    """The content of each packet: a command and its data."""
    at = 0
    while at < len(octets):
        (length,) = struct.unpack_from("!I", octets, at)
        packet = octets[at + 4 : at + 4 + length]
        if not 0 < length == len(packet):
            raise Broken(f"no whole packet: {octets[at : at + 80]!r}")
        yield packet
        at += 4 + length


# The events that have an answer, and the flag with which they have none.
_FLAGS: Mapping[type[Event], int] = {
    protocol.Connect: protocol.SMFIP_NR_CONN,
    protocol.Helo: protocol.SMFIP_NR_HELO,
    protocol.Mail: protocol.SMFIP_NR_MAIL,
    protocol.Rcpt: protocol.SMFIP_NR_RCPT,
    protocol.Data: protocol.SMFIP_NR_DATA,
    protocol.Unknown: protocol.SMFIP_NR_UNKN,
    protocol.Headers: protocol.SMFIP_NR_HDR,
    protocol.EndOfHeader: protocol.SMFIP_NR_EOH,
    protocol.Body: protocol.SMFIP_NR_BODY,
}


def _check(event: Event, packets: list[bytes], state: State, steps: int) -> None:
    commands = b"".join(packet[:1] for packet in packets)
    if isinstance(event, protocol.EndOfMessage):
        is_right = bool(commands) and commands[-1] in VERDICTS and not commands[:-1].strip(EDITS)
        is_right = is_right and state is State.CONCLUDED
    elif isinstance(event, protocol.Negotiate):
        is_right = commands == (b"" if state is State.OVER else b"O")
    elif type(event) in _FLAGS and not steps & _FLAGS[type(event)]:
        count = len(event.fields) if isinstance(event, protocol.Headers) else 1
        is_right = commands == b"c" * count or (state is State.OVER and not commands)
    else:
        is_right = not commands
    if not is_right:
        raise Broken(f"{event} was answered with {commands!r}, and the conversation is {state.value}")


def fuzz(sessions: int, *, seed: int, first: int = 0, say: Callable[[str], None] = print) -> int:
    """Try so many; how many messages were judged. Raises Broken, with the number of the session."""
    trial, watch = Trial(), Watch(sessions, say)
    for number in range(first, first + sessions):
        random = Random(f"{seed}/{number}")
        try:
            trial.session(mutated_session(random), random)
        except Exception as error:
            raise Broken(f"session {number} with seed {seed}: {type(error).__name__}: {error}") from error
        watch.done(number + 1 - first, f"{trial.messages} messages judged")
    return trial.messages


if __name__ == "__main__":
    sys.exit(run(fuzz, "Mutated sessions through the native engine and the session."))
