"""JudgingSite: the real Postfix, the real daemon and a real validating resolver, and what became of a message.

Zones are those of judging_zones, served by unbound; the daemon asks nobody else. One object is for one thread.
"""

from __future__ import annotations

import re
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import judging_zones
from postfix_site import (
    DEFAULT_ENGINE,
    DELIVERY_TIMEOUT_S,
    POLL_S,
    STRANGER,
    Answer,
    PostfixSite,
    fields_named,
    open_site,
)
from unbound_site import Unbound

__all__ = ["Fate", "JudgingSite", "Sending", "open_judging_site", "open_mail", "unfolded"]

# Up to a semicolon outside quotes.
_CLAUSE = re.compile(r'(?:[^;"]|"(?:[^"\\]|\\.)*")+')

# A resolver that is held up for some seconds is no fault of the DNS.
PATIENT = "deadline_s = 25.0\nquery_timeout_s = 10.0"

Place = Literal["delivered", "held", "refused", "deferred"]


@dataclass(frozen=True, slots=True)
class Sending:
    """A message and how it is sent."""

    content: bytes
    sender: str | bytes = "x@evil.test"
    client: str | None = STRANGER
    """Whom Postfix takes the client for; None: 127.0.0.1, as it is."""
    helo: str = "client.test"


@dataclass(frozen=True, slots=True)
class Fate:
    """What became of one message."""

    answer: Answer
    place: Place
    """Where it is: in the mailbox, in the hold queue, or, refused for good or for now, still with the client."""
    message: bytes
    """As it was delivered or is held, CRLF line ends; empty where it was refused."""
    record: Mapping[str, object]
    """What the daemon has logged of it."""

    @property
    def results(self) -> str:
        """Our Authentication-Results, which is the topmost, on one line; empty where the message was refused."""
        found = fields_named(self.message, "Authentication-Results")
        return unfolded(found[0]) if found else ""

    def clause(self, method: str) -> str:
        """What our Authentication-Results says of a method, such as "dmarc"; empty where it says nothing."""
        clauses = [each.strip() for each in _CLAUSE.findall(self.results)]
        return next((each for each in clauses if each.startswith(f"{method}=")), "")

    def __str__(self) -> str:
        return f"{self.answer.code} {self.answer.text!r} {self.place}\n{self.results}\n{dict(self.record)}"


@dataclass(slots=True)
class JudgingSite:
    """All three, running."""

    mail: PostfixSite
    unbound: Unbound

    def fate(self, sending: Sending) -> Fate:
        """Send a message in a session of its own, and say what became of it."""
        known = len(self.mail.records())
        recipient = self.mail.recipient()
        answer = self._send(sending, recipient)
        (record,) = self.records_after(known, 1)
        return self._fate(recipient, answer, record)

    def fates(self, sendings: Sequence[Sending]) -> list[Fate]:
        """Send them all at once, in a session each. No two may have the same sender."""
        assert len({_octets(each.sender) for each in sendings}) == len(sendings)
        known = len(self.mail.records())
        recipients = [self.mail.recipient() for _ in sendings]
        with ThreadPoolExecutor(len(sendings)) as pool:
            answers = list(pool.map(self._send, sendings, recipients))
        by_sender = {record["mail_from"]: record for record in self.records_after(known, len(sendings))}
        return [
            self._fate(recipient, answer, by_sender[_octets(sending.sender).decode()])
            for sending, recipient, answer in zip(sendings, recipients, answers, strict=True)
        ]

    def _send(self, sending: Sending, recipient: str) -> Answer:
        with self.mail.connect(client=sending.client, helo=sending.helo) as connection:
            return connection.transmit(sending.content, sender=sending.sender, recipient=recipient)

    def _fate(self, recipient: str, answer: Answer, record: Mapping[str, object]) -> Fate:
        if answer.code != 250:
            return Fate(answer, "deferred" if answer.code < 500 else "refused", b"", record)
        assert record["queue_id"] == answer.queue_id
        if answer.queue_id in self.mail.postfix.held():
            assert self.mail.is_empty(recipient)
            message = self.mail.postfix.queued(answer.queue_id).replace(b"\n", b"\r\n")
            return Fate(answer, "held", message, record)
        return Fate(answer, "delivered", self.mail.delivered_to(recipient), record)

    def records_after(self, known: int, count: int) -> Sequence[Mapping[str, object]]:
        """What was logged after the first `known` records: `count` more, each of them after the answer."""
        deadline = time.monotonic() + DELIVERY_TIMEOUT_S
        while len(records := self.mail.records()) < known + count:
            assert time.monotonic() < deadline, self.mail.daemon.log_tail()
            time.sleep(POLL_S)
        assert len(records) == known + count
        return records[known:]


@contextmanager
def open_judging_site(
    *,
    mode: str = "enforce",
    policy: str = "",
    dns: str = PATIENT,
    zones: Mapping[str, str] = judging_zones.ZONES,
    signed: Collection[str] = judging_zones.SIGNED,
    bogus: Collection[str] = judging_zones.BOGUS,
    failing: Collection[str] = judging_zones.FAILING,
    elsewhere: Mapping[str, int] | None = None,
    options: Collection[str] = (),
    workers: int = 2,
    main: Mapping[str, str] | None = None,
    engine: str = DEFAULT_ENGINE,
) -> Iterator[JudgingSite]:
    """Start all three. `policy` are tables of the configuration, `dns` further keys of [dns]."""
    with (
        Unbound(
            zones, signed=signed, bogus=bogus, failing=failing, elsewhere=elsewhere, options=tuple(options)
        ) as unbound,
        open_mail(unbound, mode=mode, policy=policy, dns=dns, workers=workers, main=main, engine=engine) as made,
    ):
        yield made


@contextmanager
def open_mail(
    unbound: Unbound,
    *,
    mode: str,
    policy: str = "",
    dns: str = PATIENT,
    workers: int = 2,
    main: Mapping[str, str] | None = None,
    engine: str = DEFAULT_ENGINE,
) -> Iterator[JudgingSite]:
    """Start Postfix and the daemon beside a resolver that runs."""
    servers = f'nameservers = ["127.0.0.1"]\nport = {unbound.port}\n{dns}'
    with open_site(mode=mode, dns=servers, more=policy, workers=workers, main=main, engine=engine) as mail:
        yield JudgingSite(mail, unbound)


def unfolded(value: bytes) -> str:
    """A field's value on one line, without the blanks around it."""
    return re.sub(rb"\r\n[ \t]+", b" ", value).strip().decode("ascii", "backslashreplace")


def _octets(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode()
