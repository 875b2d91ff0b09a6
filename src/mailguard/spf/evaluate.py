"""check_host() (RFC 7208 §4) for one sender and client.

Most records end at an "ip4", "ip6" or "all" (RFC 7208 §5.6, RFC 7208 §5.1), and many names have none: what that comes
to is kept with the answer. What looks something up is evaluated in plain.py, and by pyspf (engine.py) where that
cannot. Pure; nothing here is shared.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

from mailguard.dns.answers import Answers, Unanswered
from mailguard.dns.question import TXT, Answer, Question
from mailguard.envelope import Envelope
from mailguard.spf.engine import Query
from mailguard.spf.finding import NO_MATCH, NO_RECORD, Finding
from mailguard.spf.identity import Sender, helo_text
from mailguard.spf.lookups import LookUpFailed, Lookups, Refused
from mailguard.spf.plain import NotPlain, plain_finding
from mailguard.spf.record import Published, Term
from mailguard.spf.result import SpfReason, SpfResult, SpfStatus

__all__ = ["evaluate"]

# What is kept of the term that matched; a reply and a log line have room for no more.
MAX_MECHANISM_CHARS = 200


class _LooksUp(Exception):
    """Something has to be looked up, or the record cannot be used."""


def evaluate(
    sender: Sender,
    envelope: Envelope,
    *,
    client: IPv4Address | IPv6Address,
    answers: Answers,
    now: float,
    receiver: str,
) -> SpfResult:
    """The result for `sender`. Raises Unanswered while an answer is missing, and nothing else.

    `now` is in POSIX seconds.
    """
    answer = answers.get(Question(sender.domain, TXT))
    try:
        term = _deciding(answer, client)
    except _LooksUp:
        return _with_look_ups(sender, envelope, client, answers, now, receiver)
    # A term matches clients of one IP version, or is "all", which covers all of both.
    key = (SpfResult, sender.identity, sender.is_null, term.text if term is not None else "")
    return answer.read(key, lambda found: _at_once(sender, Published.of(found), term, client.version))


def _deciding(answer: Answer, client: IPv4Address | IPv6Address) -> Term | None:
    """The term that decides without a look-up; None where there is no record or nothing matches."""
    published = Published.of(answer)
    record = published.record
    if record is None:
        if published.texts or answer.has_failed:
            raise _LooksUp
        return None
    term = next(record.reachable(client), None)
    if term is None:
        if record.redirect is not None:
            raise _LooksUp
    elif term.looks_up or (record.explanation is not None and term.status is SpfStatus.FAIL):
        raise _LooksUp
    return term


def _at_once(sender: Sender, published: Published, term: Term | None, version: int) -> SpfResult:
    if term is not None:
        found = Finding.of_match(term, term.status, is_permissive=term.is_wide(version))
    else:
        found = NO_RECORD if published.record is None else NO_MATCH
    return _result(sender, found, record=published.shown)


def _with_look_ups(
    sender: Sender,
    envelope: Envelope,
    client: IPv4Address | IPv6Address,
    answers: Answers,
    now: float,
    receiver: str,
) -> SpfResult:
    lookups = Lookups(client, answers)
    try:
        record = lookups.record_of(sender.domain)
        if record is None:
            found = NO_RECORD
        else:
            try:
                found = plain_finding(record, sender.domain, client, lookups)
            except NotPlain:
                lookups = Lookups(client, answers)
                lookups.record_of(sender.domain)
                found = Query(sender, client, helo_text(envelope), lookups, now, receiver).evaluated(record)
    except Unanswered:
        raise
    except Refused as error:
        found = Finding(SpfStatus.PERMERROR, error.reason, error.detail)
    except LookUpFailed as error:
        found = Finding(SpfStatus.TEMPERROR, SpfReason.DNS, str(error))
    except Exception as error:  # noqa: BLE001  # the edge: what pyspf trips over is a fault of the record
        detail = f"the record cannot be evaluated: {type(error).__name__}"
        found = Finding(SpfStatus.PERMERROR, SpfReason.RECORD_SYNTAX, detail)
    # A fail does not hang on the client's name: that would have been an error before. Only its explanation may, and
    # "proceed as if no exp modifier was given" (RFC 7208 §6.2).
    certain = (SpfStatus.PASS, SpfStatus.FAIL, SpfStatus.TEMPERROR)
    is_uncertain = bool(lookups.failed_reverse) and found.status not in certain
    return _result(
        sender,
        found,
        record=lookups.first_record,
        lookups=lookups.terms,
        voids=lookups.voids,
        is_uncertain=is_uncertain,
    )


def _result(
    sender: Sender,
    found: Finding,
    *,
    record: str | None,
    lookups: int = 0,
    voids: int = 0,
    is_uncertain: bool = False,
) -> SpfResult:
    return SpfResult(
        status=found.status,
        reason=found.reason,
        detail=found.detail,
        identity=sender.identity,
        domain=sender.domain,
        is_null_sender=sender.is_null,
        mechanism=found.matched.text[:MAX_MECHANISM_CHARS] if found.matched is not None else None,
        record=record,
        lookups=lookups,
        voids=voids,
        explanation=found.explanation,
        is_uncertain=is_uncertain,
        is_permissive=found.status is SpfStatus.PASS and found.is_permissive,
    )
