"""check_host() (RFC 7208 §4) by pyspf, made pure and safe: our answers, our limits, our reading of the records.

pyspf steps through the terms that look something up and decides what matches; this file is its only importer. What it
must not do itself is overridden: look-ups, the clock, macros, counting. What it gets wrong is kept from it: record.py
reads each record before, and the record is handed over in pieces, so that nothing is expanded or looked up for a term
that is not reached. Its lax and harsh modes (strict=False, strict=2), its best guess and its header fields are not
used. Pure; nothing here is shared.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address, IPv6Address

import spf

from mailguard.dns.question import RecordType
from mailguard.spf.finding import NO_MATCH, Finding
from mailguard.spf.identity import Sender
from mailguard.spf.lookups import LookUpFailed, Lookups, Refused
from mailguard.spf.macro import DomainSpec, MacroError, expanded, parse_macros
from mailguard.spf.names import target_name
from mailguard.spf.record import Record, Term, shares_prefix
from mailguard.spf.result import SpfReason, SpfStatus

__all__ = ["Query"]

# RFC 7208 §6.2: "Implementations MAY limit the length of the resulting explanation string". It goes into a reply.
MAX_EXPLANATION_CHARS = 200
# As published, before macros; a longer one is not read.
MAX_EXPLANATION_OCTETS = 8_192

# Stands for a name that cannot be looked up, where pyspf would take "" for a missing one. target_name() makes it "".
_NO_NAME = "."
_LOCAL_PART_MACROS = frozenset("sl")
_NOT_PRINTABLE = re.compile(r"[^ -~]")
_PRINTABLE = frozenset(range(0x20, 0x7F))
# What pyspf itself refuses: the beginning of its text, which goes on with the words of strangers.
_REFUSED_BY_PYSPF = (("include has trivial recursion", SpfReason.TOO_MANY_LOOKUPS, "a record includes itself"),)

# pyspf's result, SMTP code and text.
_Outcome = tuple[str, int, str]


class Query(spf.query):  # type: ignore[misc]  # pyspf has no types
    """pyspf's query. What it calls by itself is overridden here under its own names."""

    def __init__(
        self,
        sender: Sender,
        client: IPv4Address | IPv6Address,
        helo: str,
        lookups: Lookups,
        now: float,
        receiver: str,
    ) -> None:
        super().__init__(i=str(client), s=f"{sender.local_part}@{sender.domain}", h=helo, receiver=receiver)
        # pyspf takes the domain to begin after the first "@", and the time from the clock.
        self.l, self.o, self.d = sender.local_part, str(sender.domain), str(sender.domain)
        self.t = str(int(now))
        self.matched: Term | None = None
        """The term that decided; that of the target, after a redirect."""
        self.is_permissive = False
        """Whether the last term that passed, however deep, covers half of all addresses."""
        self._client = client
        self._lookups = lookups
        self._terms: dict[str, Term] = {}
        self._ptr_name = ""
        self._exp: tuple[str, DomainSpec | None] = ("", None)
        self._is_explaining = False
        # RFC 8616 §4: "If the local part contains non-ASCII characters, terms that include %{s} or %{l} do not
        # match anything".
        self._unmatched = frozenset() if sender.local_part.isascii() else _LOCAL_PART_MACROS

    def evaluated(self, record: Record) -> Finding:
        """What `record`, that of the sender's domain, comes to. May raise anything."""
        status = SpfStatus(self.check(record)[0])
        if status is SpfStatus.PERMERROR:
            return Finding(status, *_why_refused(self.perm_error))
        explanation = None
        if status is SpfStatus.FAIL:
            if self._lookups.failed_reverse:
                # A deviation: RFC 7208 §5.5 makes "ptr" not match after a DNS error, and `ptr -all` then fails. A
                # fault of the DNS is never the sender's fail; the client may be the one that was meant.
                raise LookUpFailed(self._lookups.failed_reverse)
            explanation = self.explanation()
        if self.matched is None:
            return NO_MATCH
        return Finding.of_match(self.matched, status, is_permissive=self.is_permissive, explanation=explanation)

    # -- the steps of an evaluation ---------------------------------------------------------------------------------

    def check0(self, record: Record, recursion: int) -> _Outcome:
        """Evaluate what dns_spf() returned; `recursion` is 0 outside of included records."""
        if not recursion:
            # RFC 7208 §6.2: the exp= of a redirect's target takes the place of the first; an included one does not.
            self._exp = (self.d, record.explanation)
        self._lookups.records.append((self.d, record))
        outcome = self._first_match(record) or self._redirected(record.redirect, recursion)
        self._lookups.records.pop()
        return outcome

    def _first_match(self, record: Record) -> _Outcome | None:
        for step in self._steps(record):
            if not step[0].looks_up:
                return self._match(step[0], step[0].status.value)
            terms = self._terms = {term.text: term for term in step}
            # To pyspf each piece is a record of its own, with nothing left in it but mechanisms.
            outcome: _Outcome = super().check0("v=spf1 " + " ".join([term.text for term in step]), 0)
            if self.mechanism is not None:
                return self._match(terms[self.mechanism], outcome[0])
        self.matched = None
        return None

    def _match(self, term: Term, result: str) -> _Outcome:
        self.matched = term
        if result == "pass" and term.mechanism != "include":
            self.is_permissive = term.is_wide(self._client.version)
        return (result, 250, "")

    def _steps(self, record: Record) -> Iterator[list[Term]]:
        """The terms in pieces: those for pyspf, and the one that needs no look-up by itself, the last.

        pyspf expands a piece as a whole, so a term that must wait begins a new one.
        """
        step: list[Term] = []
        for term in record.reachable(self._client):
            if term.uses(self._unmatched):
                continue
            if step and (not term.looks_up or self._must_wait(term)):
                yield step
                step = []
            step.append(term)
        if step:
            yield step

    def _must_wait(self, term: Term) -> bool:
        """What reading does early in pyspf: %{p} makes look-ups, a record that includes itself is refused, and which
        name a "ptr" asks for is told then only.
        """
        if term.mechanism == "ptr":
            return True
        spec = term.spec
        if spec is None:
            return False
        may_be_itself = term.mechanism == "include" and (not spec.is_literal or target_name(spec.text) == self.d)
        return may_be_itself or "p" in spec.letters

    def _redirected(self, spec: DomainSpec | None, recursion: int) -> _Outcome:
        """RFC 7208 §6.1, counted where it is followed; pyspf counts it where it is written."""
        if spec is None or not self._unmatched.isdisjoint(spec.letters):
            # RFC 7208 §4.7: as if "?all" were the last directive.
            return ("neutral", 250, "")
        self._lookups.count_term()
        name = target_name(spec.expanded(self._value))
        record = self._lookups.target_record(name, "a redirect")
        outcome: _Outcome = self.check1(record, name, recursion)
        return outcome

    def explanation(self) -> str | None:
        """The text of exp= (RFC 7208 §6.2), after a fail. Whatever goes wrong, there is none."""
        self.d, spec = self._exp
        if spec is None or not self._unmatched.isdisjoint(spec.letters):
            return None
        self._is_explaining = True
        try:
            answer = self._lookups.answer(target_name(spec.expanded(self._value)), RecordType.TXT)
            texts = answer.texts() if answer else ()
            # RFC 7208 §6.2: "if more than one record is returned, or if there are syntax errors".
            if len(texts) != 1 or len(texts[0]) > MAX_EXPLANATION_OCTETS or not _PRINTABLE.issuperset(texts[0]):
                return None
            text = ""
            for part in parse_macros(texts[0].decode("ascii")):
                text += _NOT_PRINTABLE.sub("", expanded((part,), self._value))
                if len(text) > MAX_EXPLANATION_CHARS:
                    break
        except (MacroError, Refused):
            return None
        return text[:MAX_EXPLANATION_CHARS] or None

    # -- what pyspf calls -------------------------------------------------------------------------------------------

    def validate_mechanism(self, mech: str) -> tuple[str, str, str, int, str]:
        self._term = self._terms[mech]
        validated: tuple[str, str, str, int, str] = super().validate_mechanism(mech)
        return validated

    def expand_domain(self, arg: str) -> str:
        """The <target-name> of the term that is being read. Without a domain-spec it is <domain>, never expanded."""
        spec = self._term.spec
        name = self.d if spec is None else target_name(spec.expanded(self._value)) or _NO_NAME
        if self._term.mechanism == "ptr":
            self._ptr_name = name
        return name

    def _value(self, letter: str) -> str:
        value: str = self.getp() if letter == "p" else getattr(self, letter)
        return value

    def getp(self) -> str:
        """%{p} (RFC 7208 §7.3), which depends on the <domain> of each record. pyspf keeps the first."""
        if not self._lookups.has_validated_names and not self._is_explaining:
            # RFC 7208 §4.6.4: "When evaluating the "ptr" mechanism or the %{p} macro, the number of "PTR" resource
            # records queried is included in the overall limit".
            self._lookups.count_term()
        names = self._lookups.validated_names()
        if self.d in names:
            return self.d
        self._lookups.note_reverse_faults()
        return next((name for name in names if name.endswith("." + self.d)), names[0] if names else "unknown")

    def check_lookups(self) -> None:
        self._lookups.count_term()

    def dns_spf(self, domain: str) -> Record:
        """For the "include" mechanism."""
        return self._lookups.target_record(target_name(domain), "an include")

    def dns_mx(self, domainname: str) -> Iterator[str]:
        return self._lookups.mail_host_addresses(target_name(domainname))

    def validated_ptrs(self) -> tuple[str, ...]:
        return self._lookups.reverse_names(self._ptr_name)

    def dns(self, name: str, qtype: str, cnames: object = None, ignore_void: bool = False) -> tuple[object, ...]:
        """For the "a" and "exists" mechanisms. CNAMEs have been followed by the resolver."""
        answer = self._lookups.usable(target_name(name), RecordType(qtype))
        return answer.records if answer else ()

    def cidrmatch(self, ipaddrs: Iterable[str], n: int) -> bool:
        """Whether one of the addresses has its first `n` bits in common with the client's."""
        return shares_prefix(self._client, ipaddrs, n)


def _why_refused(error: spf.PermError) -> tuple[SpfReason, str]:
    for beginning, reason, detail in _REFUSED_BY_PYSPF:
        if error.msg.startswith(beginning):
            return reason, detail
    return SpfReason.RECORD_SYNTAX, "a record is not valid"
