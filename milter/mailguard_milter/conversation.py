"""One connection of an MTA without its socket: events of the milter protocol in, a session driven, packets out.

What is raised in a session is remembered and told at the end of the message with 451; the connection goes on. What
was agreed with the MTA (negotiation.py) says what is answered before that.

For one thread. Whoever calls `take` looks at `state` afterwards, and calls it no more before what it says is done.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from ipaddress import IPv4Address, IPv6Address
from socket import AF_INET, AF_INET6
from typing import Any, NamedTuple

from mailguard.dns.answers import Answers, Done, Resolver, attempt
from mailguard.dns.question import Answer, Question
from mailguard.trace import Trace
from mailguard_milter.action_packets import action_packets, reply_packet
from mailguard_milter.engine import INTERNAL_ERROR, Concluded, Dialogue, client_address, tell_failure
from mailguard_milter.log import Log, Severity
from mailguard_milter.negotiation import Agreed, agree
from mailguard_milter.protocol import (
    CONTINUE,
    Abort,
    Body,
    Connect,
    Data,
    EndOfHeader,
    EndOfMessage,
    Event,
    Headers,
    Helo,
    Macros,
    Mail,
    Negotiate,
    Quit,
    QuitNewConnection,
    Rcpt,
    Unknown,
    Violation,
)
from mailguard_milter.received_macros import ReceivedMacros

__all__ = ["Conversation", "Shared", "State"]

# What Postfix calls the address of a client of whom XCLIENT says that it is not known.
_NO_ADDRESS = b"unknown"


@dataclass(slots=True)
class Shared:
    """What the conversations of a worker have in common. For one thread; others may read `messages`."""

    open_dialogue: Callable[[], Dialogue]
    resolver: Resolver
    deadline_s: float
    log: Log
    keep_trace: Callable[[Trace, bytes | None], None] | None
    """Takes a trace and the queue id, and does not wait."""
    messages: int = 0
    """Messages between MAIL and their end."""
    told: set[str] = field(default_factory=set)
    offer: Negotiate | None = None
    agreed: Agreed | None = None
    """What was agreed upon `offer`, the last one: an MTA says the same whenever it connects."""

    def agree(self, offer: Negotiate) -> Agreed | None:
        """See negotiation.agree."""
        if offer != self.offer:
            self.offer, self.agreed = offer, agree(offer)
        return self.agreed

    def tell_once(self, what: str, severity: Severity, **more: object) -> None:
        """Log what would be the same for every connection."""
        if what not in self.told:
            self.told.add(what)
            self.log.event(what, severity, **more)


class State(Enum):
    """What a conversation waits for."""

    LISTENING = "listening"
    """The next event."""
    ASKING = "asking"
    """The answers to `missing`, with `answered` or `give_up`."""
    CONCLUDED = "concluded"
    """That `out` is sent: then `settle`."""
    OVER = "over"
    """That `out` is sent and the connection closed."""


_LISTENING = State.LISTENING


class _Ending(NamedTuple):
    """What is left to do when a message has been answered."""

    record: Mapping[str, object]
    severity: Severity
    queue_id: bytes | None = None
    trace: Trace | None = None


@dataclass(slots=True)
class _Evaluation:
    """The end of a message, while it is judged."""

    dialogue: Dialogue
    now: float
    started: float
    known: dict[Question, Answer] = field(default_factory=dict)
    round_number: int = 0

    def __call__(self, answers: Answers) -> Concluded:
        return self.dialogue.end_of_message(answers, now=self.now)


class Conversation:
    """What is known of one connection."""

    __slots__ = (
        "_adds_space",
        "_current",
        "_dialogue",
        "_ending",
        "_evaluation",
        "_macros",
        "_replied_to",
        "_shared",
        "began",
        "deadline",
        "has_negotiated",
        "missing",
        "out",
        "state",
    )

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._adds_space = False
        self._replied_to: frozenset[type] = frozenset()
        # That of the session, None once it failed; and that of the message, None once either failed: 451 at the end.
        self._dialogue: Dialogue | None = None
        self._current: Dialogue | None = None
        self._macros = ReceivedMacros()
        self._evaluation: _Evaluation | None = None
        self._ending: _Ending | None = None
        self.state = State.LISTENING
        self.out: list[bytes] = []
        """Packets to be sent."""
        self.missing: tuple[Question, ...] = ()
        self.deadline = 0.0
        """For the answers to `missing`, of `time.monotonic()`."""
        self.began: float | None = None
        """When the message that is under way began, of `time.monotonic()`; None between messages."""
        self.has_negotiated = False

    # For whoever holds the socket

    def take(self, events: Iterator[Event]) -> None:
        """Take what comes next, up to the event after which `state` is another one. Raises nothing."""
        for event in events:
            kind = type(event)
            try:
                if isinstance(event, Macros):
                    # As many as all others together, and never answered.
                    self._macros.take(event)
                    continue
                _ACTS[kind](self, event)
            except BaseException as error:  # noqa: BLE001 - SystemExit would end the process, and all its sessions
                self._failed(kind, error)
            if kind in self._replied_to:
                # One for each field.
                self.out += [CONTINUE] * (len(event.fields) if isinstance(event, Headers) else 1)
            if self.state is not _LISTENING:
                return

    def answered(self, found: Mapping[Question, Answer]) -> None:
        """Go on with answers to all of `missing`. Raises nothing."""
        try:
            evaluation = self._evaluation
            if evaluation is None:
                raise ValueError("nothing was asked")
            evaluation.known.update(found)
            evaluation.round_number += 1
            self._evaluate(evaluation)
        except BaseException as error:  # noqa: BLE001 - as in take
            self._failed(EndOfMessage, error)

    def give_up(self, error: BaseException) -> None:
        """There will be no answers to what is missing. Raises nothing."""
        self._failed(EndOfMessage, error)

    def settle(self) -> None:
        """The message was answered: say so in the log. Raises nothing."""
        ending, self._ending = self._ending, None
        self.state = State.LISTENING
        self._end_message()
        if ending is None:
            return
        try:
            self._shared.log.message(ending.record, ending.severity)
            if ending.trace is not None and self._shared.keep_trace is not None:
                self._shared.keep_trace(ending.trace, ending.queue_id)
        except BaseException as error:  # noqa: BLE001 - as in take
            tell_failure(self._shared.log, _STAGES[EndOfMessage], error)

    def close(self) -> None:
        """The connection is gone."""
        self._end_message()
        if self._ending is not None:
            self.settle()
        self._dialogue = self._current = self._evaluation = None
        self.state = State.OVER

    # Failures

    def _failed(self, kind: type, error: BaseException) -> None:
        """Note it. Never TEMPFAIL before the end: at CONNECT or HELO it would poison the whole SMTP session."""
        self._current = None
        if kind is Negotiate:
            self.state = State.OVER
        elif kind in _OF_SESSION:
            self._dialogue = None
        try:
            tell_failure(self._shared.log, _STAGES.get(kind, "other"), error)
            if kind is EndOfMessage:
                self._refuse()
        except BaseException:  # noqa: BLE001 - out of memory: whatever is said now may be one word too many
            self.out.clear()
            self.state = State.OVER

    def _refuse(self) -> None:
        """The message gets 451, for a fault of ours."""
        self._evaluation = None
        record = {"queue_id": self._macros.queue_id(), "action": "tempfail", "reason": "internal error"}
        self._ending = _Ending(record, Severity.ERROR)
        self.out.append(reply_packet(INTERNAL_ERROR))
        self.state = State.CONCLUDED

    # The connection

    def _negotiate(self, event: Negotiate) -> None:
        agreed = self._shared.agree(event)
        if agreed is None:
            self._shared.tell_once(
                "refused an MTA that does not let its milters change header fields and quarantine",
                Severity.ERROR,
                actions=hex(event.actions),
            )
            self.state = State.OVER
            return
        if agreed.adds_space:
            self._shared.tell_once(
                "the MTA does not tell the space after the colon; simple header canonicalization is a guess",
                Severity.WARNING,
            )
        self.has_negotiated = True
        self._adds_space = agreed.adds_space
        self._replied_to = agreed.replied_to
        self.out.append(agreed.reply)

    def _connect(self, event: Connect) -> None:
        address: IPv4Address | IPv6Address | None = None
        if event.family in b"46" and event.address != _NO_ADDRESS:
            try:
                address = client_address(event.address.decode("ascii"), AF_INET if event.family == b"4" else AF_INET6)
            except ValueError:
                self._break_off("CONNECT has an address that is none")
                return
        dialogue = self._shared.open_dialogue()
        dialogue.connect(address, self._macros.at_connect())
        self._dialogue = self._current = dialogue

    def _helo(self, event: Helo) -> None:
        if dialogue := self._current:
            dialogue.helo(event.name)

    def _quit(self, event: Quit) -> None:
        self.state = State.OVER

    def _quit_new_connection(self, event: QuitNewConnection) -> None:
        self._end_message()
        self._dialogue = self._current = None
        self._macros.forget()

    def _violation(self, event: Violation) -> None:
        self._break_off(event.reason)

    def _break_off(self, reason: str) -> None:
        self._shared.log.event("an MTA broke the milter protocol; its session ends", Severity.WARNING, reason=reason)
        self.state = State.OVER

    # The message

    def _mail(self, event: Mail) -> None:
        if self.began is None:
            self._shared.messages += 1
        self.began = time.monotonic()
        macros = self._macros.at_mail()
        self._current = self._dialogue
        if dialogue := self._current:
            dialogue.mail(event.path, macros)

    def _rcpt(self, event: Rcpt) -> None:
        if (dialogue := self._current) and (questions := dialogue.rcpt()):
            self._shared.resolver.prefetch(questions)

    def _headers(self, event: Headers) -> None:
        if dialogue := self._current:
            fields = event.fields
            dialogue.headers([(name, b" " + value) for name, value in fields] if self._adds_space else fields)

    def _end_of_header(self, event: EndOfHeader) -> None:
        if (dialogue := self._current) and (questions := dialogue.end_of_header()):
            self._shared.resolver.prefetch(questions)

    def _body(self, event: Body) -> None:
        if dialogue := self._current:
            dialogue.body(event.chunk)

    def _nothing(self, event: Data | Unknown) -> None:
        """What a session does not look at."""

    def _abort(self, event: Abort) -> None:
        self._end_message()
        if dialogue := self._current:
            dialogue.abort()
        self._current = self._dialogue

    def _end_of_message(self, event: EndOfMessage) -> None:
        dialogue = self._current
        if dialogue is None:
            self._refuse()
            return
        if event.chunk:
            dialogue.body(event.chunk)
        started = time.monotonic()
        self.deadline = started + self._shared.deadline_s
        self._evaluate(_Evaluation(dialogue, time.time(), started))

    def _evaluate(self, evaluation: _Evaluation) -> None:
        outcome = attempt(evaluation, evaluation.known, self._shared.resolver, round_number=evaluation.round_number)
        if not isinstance(outcome, Done):
            self._evaluation = evaluation
            self.missing = outcome
            self.state = State.ASKING
            return
        conclusion = outcome.result
        packets = action_packets(conclusion.actions, adds_space=self._adds_space)
        queue_id = self._macros.queue_id()
        seconds = time.monotonic() - evaluation.started
        record = {"queue_id": queue_id, **conclusion.record, "seconds": seconds}
        self._ending = _Ending(record, Severity.INFO, queue_id, conclusion.trace)
        self._evaluation = None
        self.out += packets
        self.state = State.CONCLUDED

    def _end_message(self) -> None:
        if self.began is not None:
            self.began = None
            self._shared.messages -= 1


_ACTS: Mapping[type, Callable[[Conversation, Any], None]] = {
    Negotiate: Conversation._negotiate,
    Connect: Conversation._connect,
    Helo: Conversation._helo,
    Mail: Conversation._mail,
    Rcpt: Conversation._rcpt,
    Data: Conversation._nothing,
    Headers: Conversation._headers,
    EndOfHeader: Conversation._end_of_header,
    Body: Conversation._body,
    EndOfMessage: Conversation._end_of_message,
    Abort: Conversation._abort,
    Quit: Conversation._quit,
    QuitNewConnection: Conversation._quit_new_connection,
    Unknown: Conversation._nothing,
    Violation: Conversation._violation,
}
# A failure here concerns every message of the session, elsewhere the message.
_OF_SESSION = frozenset({Connect, Helo, Macros})
_STAGES: Mapping[type, str] = {
    Negotiate: "negotiation",
    Connect: "connect",
    Helo: "helo",
    Mail: "mail",
    Rcpt: "rcpt",
    Headers: "header",
    EndOfHeader: "end of header",
    Body: "body",
    EndOfMessage: "end of message",
    Abort: "abort",
}
