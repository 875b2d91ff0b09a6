"""Which questions an SPF evaluation will probably ask next, so that one round of look-ups serves many terms.

A walk through the records that are known, in the order of evaluation: what their terms name without macros, the
targets of include and redirect, the hosts of known MX and PTR records. It stays within the ceilings of an evaluation
(RFC 7208 §4.6.4). What is asked ahead is looked up meanwhile and changes no result: the evaluation counts and reads
what it asks itself, and does not wait for the rest. What stands behind an include whose record is not known yet may
turn out not to be needed: there only the terms themselves are looked up, no hosts, which bounds the waste to
MAX_TERMS - 1 questions.
Left out: names with macros, which are asked for when they are reached. Pure; belongs to one evaluation.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address
from itertools import islice

from mailguard.dns.answers import Answers
from mailguard.dns.question import Answer, Question, RecordType
from mailguard.spf.limits import MAX_HOSTS, MAX_QUERIES, MAX_TERMS
from mailguard.spf.macro import DomainSpec
from mailguard.spf.names import address_type, host_name, target_name
from mailguard.spf.record import Published, Record, Term

__all__ = ["ask_ahead"]


def ask_ahead(
    records: Iterable[tuple[str, Record]],
    answers: Answers,
    *,
    client: IPv4Address | IPv6Address,
    asked: Iterable[Question],
) -> None:
    """Tell `answers` what is likely to be asked next.

    `records` are those under evaluation, each with its domain, the outermost first; `asked` is what has been asked
    so far, which counts against MAX_QUERIES.
    """
    walk = _Walk(answers, client, set(asked))
    try:
        for domain, record in records:
            walk.terms_left = MAX_TERMS
            walk.through(domain, record)
    except _Enough:
        pass  # what was found until then is asked
    answers.want(walk.unknown)


class _Enough(Exception):
    """A ceiling is reached."""


class _Walk:
    def __init__(self, answers: Answers, client: IPv4Address | IPv6Address, asked: set[Question]) -> None:
        self._answers = answers
        self._client = client
        self._asked = asked
        self._room = MAX_QUERIES - len(asked)
        self._is_certain = True
        self.unknown: list[Question] = []
        """What to ask, in the order in which the evaluation will."""
        self.terms_left = 0

    def through(self, domain: str, record: Record) -> None:
        """Ask what `record` needs. Goes no deeper than there are terms left."""
        for term in record.terms:
            if term.looks_up:
                self._ask_for(term, domain)
        if record.redirect is not None:
            self._follow(_name(record.redirect))

    def _ask_for(self, term: Term, domain: str) -> None:
        name = domain if term.spec is None else _name(term.spec)
        match term.mechanism:
            case "include":
                self._follow(name)
            case "a":
                self._count_term()
                self._known(name, address_type(self._client))
            case "exists":
                self._count_term()
                self._known(name, RecordType.A)
            case "mx":
                self._count_term()
                mail = self._known(name, RecordType.MX)
                self._ask_hosts(None if mail is None else [host_name(host.exchange) for host in mail.exchanges()])
            case "ptr":
                self._count_term()
                reverse = self._known(self._client.reverse_pointer, RecordType.PTR)
                self._ask_hosts(None if reverse is None else [target_name(host) for host in reverse.names()])

    def _follow(self, name: str) -> None:
        """The record of an included or redirected name."""
        self._count_term()
        answer = self._known(name, RecordType.TXT)
        if answer is None:
            self._is_certain = False
            return
        record = Published.of(answer).record
        if record is not None:
            self.through(name, record)

    def _ask_hosts(self, names: Iterable[str] | None) -> None:
        """The addresses of hosts; where these are not known yet, room is kept for them."""
        if not self._is_certain:
            return
        if names is None:
            self._room -= MAX_HOSTS
            return
        for name in islice(names, MAX_HOSTS):
            self._known(name, address_type(self._client))

    def _count_term(self) -> None:
        self.terms_left -= 1
        if self.terms_left < 0:
            raise _Enough

    def _known(self, name: str, rdtype: RecordType) -> Answer | None:
        """The answer, if it is known already; if not, it is to be asked for."""
        if not name:
            return None
        question = Question(name, rdtype)
        if question not in self._asked:
            if self._room <= 0:
                raise _Enough
            self._room -= 1
            self._asked.add(question)
        answer = self._answers.peek(question)
        if answer is None:
            self.unknown.append(question)
        return answer


def _name(spec: DomainSpec) -> str:
    """What is named, "" where that depends on macros."""
    return target_name(spec.text) if spec.is_literal else ""
