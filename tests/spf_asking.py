"""What the tests of SPF ask with: zone Z0 of the attack table, a check against a zone, and what the check asked."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address

from mailguard.dns.answers import Answers, Resolver, evaluate
from mailguard.dns.question import Answer, Question, Status
from mailguard.dns.zone import ZoneResolver
from mailguard.envelope import Envelope
from mailguard.spf.check import check_host
from mailguard.spf.result import SpfIdentity, SpfResult

Zone = Mapping[str, Mapping[str, Sequence[object]]]

NOW = 1_750_000_000.0
BANK_IP, EVIL_IP = "192.0.2.10", "198.51.100.66"
V6 = "2001:db8::66"
Z0: Zone = {
    "bank.test": {"TXT": [f"v=spf1 ip4:{BANK_IP} -all"]},
    "evil.test": {"TXT": [f"v=spf1 ip4:{EVIL_IP} -all"]},
    "*.evil.test": {"TXT": [f"v=spf1 ip4:{EVIL_IP} -all"]},
}
# Whoever's record this is, everybody may send.
PASS_ALL: Zone = {"*": {"TXT": ["v=spf1 +all"]}}
# What terms may name; the client is EVIL_IP or V6.
TARGETS: Zone = {
    "a.test": {"A": ["198.51.100.65", EVIL_IP], "AAAA": [V6]},
    "b.test": {"A": ["203.0.113.1"], "AAAA": ["2001:db8:1::1"]},
    "far.test": {"A": ["198.51.100.99"], "AAAA": ["2001:db8::ffff"]},
    "mx.test": {"MX": [(20, "b.test"), (10, "a.test")]},
    "mx2.test": {"MX": [(20, "b.test"), (10, "only.a.test")]},
    "null.test": {"MX": [(0, ".")]},
    "66.100.51.198.in-addr.arpa": {"PTR": ["host.a.test", "forged.bank.test"]},
    "host.a.test": {"A": [EVIL_IP]},
    "forged.bank.test": {"A": ["203.0.113.9"]},
    "pass.test": {"TXT": ["v=spf1 +all"]},
    "fail.test": {"TXT": ["v=spf1 -all"]},
    "soft.test": {"TXT": ["v=spf1 ~all"]},
    "neutral.test": {"TXT": ["v=spf1 ?all"]},
    "broken.test": {"TXT": ["v=spf1 foo"]},
    "twice.test": {"TXT": ["v=spf1 -all", "v=spf1 -all"]},
    "deep.test": {"TXT": ["v=spf1 include:fail.test redirect=pass.test"]},
    "only.a.test": {"A": ["192.0.2.99"]},
}


class Asked(ZoneResolver):
    """A zone that remembers the rounds of questions. What was asked ahead in a round is at hand after it."""

    def __init__(self, zone: Zone, status: Mapping[tuple[str, str], Status] | None = None) -> None:
        super().__init__(zone, status=status or {})
        self.rounds: list[tuple[Question, ...]] = []
        self._ahead: tuple[Question, ...] = ()
        self._at_hand: dict[Question, Answer] = {}

    def prefetch(self, questions: Iterable[Question]) -> None:
        self._ahead = tuple(questions)

    def resolve(self, questions: Iterable[Question], *, deadline: float) -> dict[Question, Answer]:
        batch = tuple(questions)
        self.rounds.append((*batch, *self._ahead))
        self._at_hand.update(super().resolve(self._ahead, deadline=deadline))
        self._ahead = ()
        return super().resolve(batch, deadline=deadline)

    def at_hand(self, question: Question) -> Answer | None:
        return self._at_hand.get(question)

    @property
    def questions(self) -> list[Question]:
        """All that was asked, in order."""
        return [question for batch in self.rounds for question in batch]


@dataclass
class Session:
    """A check and what it asked."""

    result: SpfResult
    rounds: list[tuple[Question, ...]]
    consumed: list[str] = field(default_factory=list)
    """What the last, complete evaluation read."""

    @property
    def questions(self) -> list[str]:
        return [str(question) for batch in self.rounds for question in batch]


def envelope(
    mail_from: str | bytes = "x@evil.test",
    ip: str | None = EVIL_IP,
    helo: str | bytes = "evil.test",
    as_read: str | bytes | None = None,
) -> Envelope:
    return Envelope(
        client_ip=ip_address(ip) if ip else None,
        helo=octets(helo),
        mail_from=octets(mail_from),
        mail_from_as_read=None if as_read is None else octets(as_read),
    )


def octets(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode("utf-8")


def session(
    zone: Zone,
    mail_from: str | bytes = "x@evil.test",
    ip: str | None = EVIL_IP,
    *,
    helo: str | bytes = "evil.test",
    as_read: str | bytes | None = None,
    identity: SpfIdentity = SpfIdentity.MAIL_FROM,
    status: Mapping[tuple[str, str], Status] | None = None,
    receiver: str = "mx.us.test",
) -> Session:
    """Check and say what was asked."""
    resolver = Asked(zone, status)
    consumed: list[str] = []

    def evaluation(answers: Answers) -> SpfResult:
        asked = envelope(mail_from, ip, helo, as_read)
        result = check_host(asked, answers, identity=identity, now=NOW, receiver=receiver)
        consumed[:] = [str(answer.question) for answer in answers.consumed]
        return result

    result = evaluate(evaluation, resolver, deadline=time.monotonic() + 60)
    return Session(result, resolver.rounds, consumed)


def record(text: str | bytes, ip: str = EVIL_IP, more: Zone | None = None, **options: str | bytes) -> SpfResult:
    """Check x@evil.test, whose record is `text`."""
    return recorded(text, ip, more, **options).result


def recorded(text: str | bytes, ip: str = EVIL_IP, more: Zone | None = None, **options: str | bytes) -> Session:
    """`record`, and what was asked. `options` are those of an envelope."""
    zone: dict[str, dict[str, Sequence[object]]] = {"evil.test": {"TXT": [text]}}
    for name, entry in (more or {}).items():
        zone[name] = {**zone.get(name, {}), **entry}
    return session(zone, options.get("mail_from", "x@evil.test"), ip, helo=options.get("helo", "evil.test"))


def result_of(
    resolver: Resolver, mail_from: str | bytes = "x@evil.test", ip: str | None = EVIL_IP, *, deadline_s: float = 60.0
) -> SpfResult:
    """Check against any resolver; look-ups end after `deadline_s`."""
    asked = envelope(mail_from, ip)
    deadline = time.monotonic() + deadline_s

    def evaluation(answers: Answers) -> SpfResult:
        return check_host(asked, answers, identity=SpfIdentity.MAIL_FROM, now=NOW)

    return evaluate(evaluation, resolver, deadline=deadline)
