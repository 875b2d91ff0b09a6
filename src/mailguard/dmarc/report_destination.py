"""Who may be sent DMARC reports: external destinations have to agree (RFC 9990 §4; RFC 9991 refers to it for ruf).

Pure: what it asks comes from `Answers`. Left out: the reports and sending them. Values are frozen and safe to share
between threads.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import NoReturn

from mailguard.dmarc.discover import tree_walk, walk_questions
from mailguard.dmarc.record import DmarcRecord
from mailguard.dmarc.report_uri import MAX_REPORT_URIS, ReportUri
from mailguard.dmarc.suffixes import PublicSuffixes
from mailguard.dns.answers import Answers
from mailguard.dns.question import Question, RecordType
from mailguard.domain import MAX_DOMAIN_CHARS, Domain

__all__ = ["Authorization", "ReportDestination", "report_destinations"]


class Authorization(Enum):
    """Whether reports may be sent, in one word for programs."""

    OWN = "own"
    """The destination has the Organizational Domain of the policy record."""
    AUTHORIZED = "authorized"
    REDIRECTED = "redirected"
    """Authorized, with other URIs at the same host in place of the one in the policy record."""
    REFUSED = "refused"
    """There is no record that authorizes it."""
    OTHER_HOST = "other-host"
    """The record that authorizes it names a URI at another host: neither is sent anything."""
    NAME_TOO_LONG = "name-too-long"
    UNAVAILABLE = "unavailable"
    """The DNS did not answer: nothing is sent now, and another time may tell."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportDestination:
    """One URI of rua or ruf, and where its reports go."""

    uri: ReportUri
    authorization: Authorization
    send_to: tuple[ReportUri, ...] = ()

    def __bool__(self) -> NoReturn:
        raise TypeError("a ReportDestination is not true or false: read its send_to")


def report_destinations(
    record_domain: Domain, uris: Sequence[ReportUri], answers: Answers, suffixes: PublicSuffixes | None = None
) -> tuple[ReportDestination, ...]:
    """Where reports for the policy record at `record_domain` go, for each of its `uris`.

    Of more than `MAX_REPORT_URIS` the first are taken. With `suffixes`, Organizational Domains are those of RFC 7489.
    Raises Unanswered while an answer is missing; all that it may ask is noted at once.
    """
    uris = tuple(uris)[:MAX_REPORT_URIS]
    hosts = [host for host in dict.fromkeys(uri.host for uri in uris) if host != record_domain]
    questions = [_question(record_domain, host) for host in hosts]
    needed = [question for question in questions if question is not None]
    if suffixes is None and hosts:
        needed += [question for domain in (record_domain, *hosts) for question in walk_questions(domain)]
    answers.need(needed)
    return tuple(_destination(record_domain, uri, answers, suffixes) for uri in uris)


def _destination(
    record_domain: Domain, uri: ReportUri, answers: Answers, suffixes: PublicSuffixes | None
) -> ReportDestination:
    is_own = _is_own(record_domain, uri.host, answers, suffixes)
    if is_own:
        return ReportDestination(uri=uri, authorization=Authorization.OWN, send_to=(uri,))
    authorization, send_to = _authorization(record_domain, uri, answers)
    if is_own is None and not send_to:
        # It may be a destination of the domain's own, which nobody has to authorize.
        authorization = Authorization.UNAVAILABLE
    return ReportDestination(uri=uri, authorization=authorization, send_to=send_to)


def _is_own(record_domain: Domain, host: Domain, answers: Answers, suffixes: PublicSuffixes | None) -> bool | None:
    """Whether both have one Organizational Domain; None where the DNS did not say."""
    if host == record_domain:
        return True
    if suffixes is not None:
        return suffixes.organizational_domain(record_domain) == suffixes.organizational_domain(host)
    ours = tree_walk(record_domain, answers).organizational_domain
    theirs = tree_walk(host, answers).organizational_domain
    return None if ours is None or theirs is None else ours == theirs


def _authorization(
    record_domain: Domain, uri: ReportUri, answers: Answers
) -> tuple[Authorization, tuple[ReportUri, ...]]:
    question = _question(record_domain, uri.host)
    if question is None:
        return Authorization.NAME_TOO_LONG, ()
    answer = answers.get(question)
    if answer.has_failed:
        return Authorization.UNAVAILABLE, ()
    # RFC 9990 §4, steps 6 to 8: any record that begins with v=DMARC1; of these, several are no fault.
    records = [record for record in map(DmarcRecord.parse, answer.texts()) if record is not None]
    if not records:
        return Authorization.REFUSED, ()
    instead = _distinct(other for record in records for other in record.rua)
    if not instead:
        return Authorization.AUTHORIZED, (uri,)
    if any(other.host != uri.host for other in instead):
        return Authorization.OTHER_HOST, ()
    return Authorization.REDIRECTED, instead[:MAX_REPORT_URIS]


def _distinct(uris: Iterable[ReportUri]) -> tuple[ReportUri, ...]:
    return tuple(dict.fromkeys(uris))


def _question(record_domain: Domain, host: Domain) -> Question | None:
    """None where the name would be longer than the DNS allows (RFC 9990 §4, step 4)."""
    name = f"{record_domain}._report._dmarc.{host}"
    return Question(name, RecordType.TXT) if len(name) <= MAX_DOMAIN_CHARS else None
