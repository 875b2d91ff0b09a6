"""check_host() (RFC 7208 §4) where all terms that are reached name something, and no macros: most mail needs no more.

Evaluates addresses, "include", "a", "mx" and redirect, with the look-ups, limits and words of every evaluation
(lookups.py). Left out, and evaluated by pyspf (engine.py): "exists" and "ptr", macros, and the explanation of a fail.
Pure; nothing here is shared.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address

from mailguard.spf.finding import NO_MATCH, Finding
from mailguard.spf.lookups import Lookups, Refused
from mailguard.spf.macro import DomainSpec
from mailguard.spf.names import address_type, target_name
from mailguard.spf.record import Record, Term, shares_prefix
from mailguard.spf.result import SpfReason, SpfStatus

__all__ = ["NotPlain", "plain_finding"]


class NotPlain(Exception):
    """A term is reached that pyspf has to evaluate."""


def plain_finding(record: Record, domain: str, client: IPv4Address | IPv6Address, lookups: Lookups) -> Finding:
    """What `record`, that of `domain`, comes to. Raises NotPlain, Refused, LookUpFailed and Unanswered.

    After NotPlain, `lookups` is of no use: the evaluation begins again.
    """
    check = _Check(client, lookups)
    term = check.deciding(record, domain, is_included=False)
    if term is None:
        return NO_MATCH
    if term.status is SpfStatus.FAIL and check.explains:
        raise NotPlain
    return Finding.of_match(term, term.status, is_permissive=check.is_permissive)


class _Check:
    """One evaluation: what is found on the way to the term that decides."""

    def __init__(self, client: IPv4Address | IPv6Address, lookups: Lookups) -> None:
        self._client = client
        self._lookups = lookups
        self.explains = False
        """Whether a fail has an explanation (RFC 7208 §6.2)."""
        self.is_permissive = False
        """Whether the last term that passed, however deep, covers half of all addresses."""

    def deciding(self, record: Record, domain: str, *, is_included: bool) -> Term | None:
        """The term that decides; that of the target, after a redirect. None where nothing matches."""
        if not is_included:
            # RFC 7208 §6.2: the exp= of a redirect's target takes the place of the first; an included one does not.
            self.explains = record.explanation is not None
        self._lookups.records.append((domain, record))
        matching = (term for term in record.reachable(self._client) if self._matches(term, domain))
        found = next(matching, None) or self._redirected(record.redirect, is_included=is_included)
        self._lookups.records.pop()
        return found

    def _matches(self, term: Term, domain: str) -> bool:
        match term.mechanism:
            case "include":
                return self._includes(_named(term.spec, domain), domain)
            case "a":
                name = _named(term.spec, domain)
                self._lookups.count_term()
                answer = self._lookups.usable(name, address_type(self._client))
                matches = answer is not None and self._has_client(answer.names(), term)
            case "mx":
                name = _named(term.spec, domain)
                self._lookups.count_term()
                matches = self._has_client(self._lookups.mail_host_addresses(name), term)
            case "ip4" | "ip6" | "all":
                matches = True  # or it would not be reachable
            case _:
                raise NotPlain
        if matches and term.status is SpfStatus.PASS:
            self.is_permissive = term.is_wide(self._client.version)
        return matches

    def _has_client(self, addresses: Iterable[str], term: Term) -> bool:
        return shares_prefix(self._client, addresses, term.prefix(self._client.version))

    def _includes(self, name: str, domain: str) -> bool:
        """RFC 7208 §5.2: whether the included record comes to a pass."""
        if name == domain:
            raise Refused(SpfReason.TOO_MANY_LOOKUPS, "a record includes itself")
        self._lookups.count_term()
        record = self._lookups.target_record(name, "an include")
        term = self.deciding(record, name, is_included=True)
        return term is not None and term.status is SpfStatus.PASS

    def _redirected(self, spec: DomainSpec | None, *, is_included: bool) -> Term | None:
        """RFC 7208 §6.1; without a redirect, as if "?all" were the last directive (RFC 7208 §4.7)."""
        if spec is None:
            return None
        name = _named(spec, "")
        self._lookups.count_term()
        record = self._lookups.target_record(name, "a redirect")
        return self.deciding(record, name, is_included=is_included)


def _named(spec: DomainSpec | None, domain: str) -> str:
    """The <target-name> (RFC 7208 §4.8), "" for one that cannot be looked up; <domain> where it is left out."""
    if spec is None:
        return domain
    if not spec.is_literal:
        raise NotPlain
    return target_name(spec.text)
