"""What one SPF evaluation looks up, and how much of it there may be (RFC 7208 §4.6.4, RFC 7208 §5).

Everything comes from `Answers`; on the first unknown answer, what is likely to follow is asked for as well
(lookahead.py). Left out: macros, and what matches. Pure; belongs to one evaluation.

Two liberties. The addresses of an "mx" are yielded although another of its hosts cannot be looked up: where one of
them matches, no answer for the others would change that. And of a term's queries only the one for its own
<target-name> can be a void look-up: RFC 7208 §4.6.4 counts terms, and the hosts of MX and PTR records have limits
of their own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address, IPv6Address

from mailguard.dns.answers import Answers, Unanswered
from mailguard.dns.question import Answer, Question, RecordType, Status
from mailguard.domain import is_equal_or_below
from mailguard.spf.limits import MAX_HOSTS, MAX_QUERIES, MAX_RECORD_OCTETS, MAX_TERMS, MAX_VOIDS
from mailguard.spf.lookahead import ask_ahead
from mailguard.spf.names import address_type, host_name, target_name
from mailguard.spf.record import Published, Record
from mailguard.spf.result import SpfReason

__all__ = ["LookUpFailed", "Lookups", "Refused"]

# How much of a name that a stranger chose a sentence of ours repeats.
MAX_SHOWN_CHARS = 80

_NOT_SHOWN = re.compile(r"[^a-zA-Z0-9._-]")


class Refused(Exception):
    """The evaluation ends with a permerror."""

    def __init__(self, reason: SpfReason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


class LookUpFailed(Exception):
    """The evaluation ends with a temperror. The text says what could not be looked up."""


class Lookups:
    """The look-ups of one evaluation."""

    def __init__(self, client: IPv4Address | IPv6Address, answers: Answers) -> None:
        self._client = client
        self._answers = answers
        self._asked: dict[Question, None] = {}
        self._host_names: tuple[str, ...] | None = None
        # By the host name whose addresses could not be looked up; "" stands for all names.
        self._reverse_faults: dict[str, str] = {}
        self.terms = 0
        """Terms that looked something up."""
        self.voids = 0
        """Terms that looked up what does not exist."""
        self.failed_reverse = ""
        """Says which look-up of the client's name failed, if one did that could have changed what matches."""
        self.first_record: str | None = None
        """The record that was found first, printable ASCII."""
        self.records: list[tuple[str, Record]] = []
        """The records under evaluation, the outermost first, each with its domain. Kept by the evaluation."""

    def count_term(self) -> None:
        """One more term that looks something up."""
        if self.terms >= MAX_TERMS:
            raise Refused(SpfReason.TOO_MANY_LOOKUPS, f"more than {MAX_TERMS} terms look something up")
        self.terms += 1

    def usable(self, name: str, rdtype: RecordType) -> Answer | None:
        """The answer to the query for a term's <target-name>; None for a name that cannot be looked up."""
        answer = self.answer(name, rdtype)
        if answer is None:
            return None
        if answer.has_failed:
            # RFC 7208 §5: "the mechanism stops and the topmost check_host() returns "temperror"".
            raise LookUpFailed(_failure(name, rdtype))
        if self.records:
            # RFC 7208 §4.6.4 counts terms, and the first record is asked for by none.
            self._note_void(answer)
        return answer

    def answer(self, name: str, rdtype: RecordType) -> Answer | None:
        """The answer whatever its status; None for a name that cannot be looked up."""
        if not name:
            return None
        question = Question(name, rdtype)
        if question not in self._asked:
            if len(self._asked) >= MAX_QUERIES:
                raise Refused(SpfReason.TOO_MANY_LOOKUPS, f"more than {MAX_QUERIES} look-ups are needed")
            self._asked[question] = None
        try:
            return self._answers.get(question)
        except Unanswered:
            self._ask_ahead(())
            raise

    def record_of(self, domain: str) -> Record | None:
        """The SPF record of a <target-name>; None where there is none (RFC 7208 §4.5)."""
        answer = self.usable(domain, RecordType.TXT)
        published = Published.of(answer) if answer else Published()
        if not published.texts:
            return None
        if not self.records:
            self.first_record = published.shown
        if len(published.texts) > 1:
            raise Refused(SpfReason.SEVERAL_RECORDS, f"{_shown(domain)} has several SPF records")
        if published.fault:
            raise Refused(SpfReason.RECORD_SYNTAX, f"the record of {_shown(domain)} is not valid: {published.fault}")
        if published.record is None:
            detail = f"the record of {_shown(domain)} has more than {MAX_RECORD_OCTETS} octets"
            raise Refused(SpfReason.RECORD_SIZE, detail)
        return published.record

    def target_record(self, domain: str, term: str) -> Record:
        """The SPF record that a `term`, an "include" or a redirect, names. There has to be one."""
        record = self.record_of(domain)
        if record is None:
            # RFC 7208 §5.2: "none" makes a permerror; RFC 7208 §6.1: "if no SPF record is found, or if the
            # <target-name> is malformed".
            what = f"{_shown(domain)} has no SPF record" if domain else "it names what cannot be looked up"
            raise Refused(SpfReason.NO_INCLUDED_RECORD, f"{term} cannot be followed: {what}")
        return record

    def mail_host_addresses(self, domain: str) -> Iterator[str]:
        """The addresses of a name's mail servers, asked for together, in the order of preference (RFC 7208 §5.4)."""
        answer = self.usable(domain, RecordType.MX)
        exchanges = sorted(answer.exchanges()) if answer else []
        if len(exchanges) > MAX_HOSTS:
            # RFC 7208 §4.6.4: "If this limit is exceeded, the "mx" mechanism MUST produce a "permerror" result."
            raise Refused(SpfReason.TOO_MANY_LOOKUPS, f"{_shown(domain)} has more than {MAX_HOSTS} MX records")
        hosts = [host_name(exchange.exchange) for exchange in exchanges]
        self._need(hosts)
        failed = ""
        for host in hosts:
            addresses = self.answer(host, address_type(self._client))
            if addresses is None:
                continue
            if addresses.has_failed:
                failed = host
            yield from addresses.names()
        if failed:
            raise LookUpFailed(_failure(failed, address_type(self._client)))

    def reverse_names(self, domain: str) -> tuple[str, ...]:
        """The validated names of the client, for a "ptr" term with that <target-name> (RFC 7208 §5.5)."""
        names = self.validated_names()
        answer = self.answer(self._client.reverse_pointer, RecordType.PTR)
        if answer is not None:
            self._note_void(answer)
        if not any(is_equal_or_below(name, domain) for name in names):
            self.note_reverse_faults(domain)
        return names

    def note_reverse_faults(self, domain: str = "") -> None:
        """What matches hangs on whether the client has a name at or below `domain`, or on all its names."""
        for name, fault in self._reverse_faults.items():
            if not name or not domain or is_equal_or_below(name, domain):
                self.failed_reverse = fault

    @property
    def has_validated_names(self) -> bool:
        """Whether the client's name has been looked up."""
        return self._host_names is not None

    def validated_names(self) -> tuple[str, ...]:
        """The names of the client that have its address (RFC 7208 §5.5); looked up once. Failures make none."""
        if self._host_names is None:
            answer = self._reverse("", self._client.reverse_pointer, RecordType.PTR)
            # RFC 7208 §4.6.4: "all records other than the first 10 MUST be ignored". Names with odd octets, which
            # an answer has escaped, are no host names.
            hosts = list(map(target_name, answer.names()[:MAX_HOSTS] if answer else ()))
            self._need(hosts)
            self._host_names = tuple(host for host in hosts if self._is_client(host))
        return self._host_names

    def _is_client(self, host: str) -> bool:
        answer = self._reverse(host, host, address_type(self._client))
        return answer is not None and any(type(self._client)(text) == self._client for text in answer.names())

    def _reverse(self, host: str, name: str, rdtype: RecordType) -> Answer | None:
        answer = self.answer(name, rdtype)
        if answer is not None and answer.has_failed:
            self._reverse_faults[host] = _failure(name, rdtype)
        return answer

    def _need(self, hosts: Iterable[str]) -> None:
        """Ask for the addresses of hosts together, as far as they may be asked for."""
        questions = dict.fromkeys(Question(host, address_type(self._client)) for host in hosts if host)
        new = [question for question in questions if question not in self._asked]
        within = new[: MAX_QUERIES - len(self._asked)]
        try:
            self._answers.need(within)
        except Unanswered:
            self._ask_ahead(within)
            raise

    def _ask_ahead(self, also: Iterable[Question]) -> None:
        ask_ahead(self.records, self._answers, client=self._client, asked=(*self._asked, *also))

    def _note_void(self, answer: Answer) -> None:
        if answer.status in (Status.NODATA, Status.NXDOMAIN):
            self.voids += 1
            if self.voids > MAX_VOIDS:
                raise Refused(SpfReason.TOO_MANY_VOIDS, f"more than {MAX_VOIDS} terms look up what does not exist")


def _failure(name: str, rdtype: RecordType) -> str:
    return f"the {rdtype.value} records of {_shown(name)} could not be looked up"


def _shown(name: str) -> str:
    return _NOT_SHOWN.sub("?", name[:MAX_SHOWN_CHARS])
