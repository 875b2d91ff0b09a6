"""What a domain publishes for DMARC, and what is wrong with it, for `mailguard dmarc check` (RFC 9989 §4.7).

Pure: what it asks comes from `Answers`. Left out: the records of subdomains, which are checked by their own names.
Values are frozen and safe to share between threads.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from mailguard.dmarc.compare import Comparison, Reading, compare_7489
from mailguard.dmarc.discover import Found, Visit, discover
from mailguard.dmarc.evaluate import judge
from mailguard.dmarc.record import POLICY_TAGS, DmarcPolicy, DmarcRecord, PublicSuffixFlag
from mailguard.dmarc.report_destination import Authorization, report_destinations
from mailguard.dmarc.report_uri import MAX_LIST_ITEMS, ReportUri
from mailguard.dmarc.result import DmarcReason, DmarcVerdict
from mailguard.dmarc.suffixes import PublicSuffixes
from mailguard.dns.answers import Answers
from mailguard.dns.question import Question, RecordType
from mailguard.domain import MAX_DOMAIN_CHARS, Domain
from mailguard.explain.advice import Names
from mailguard.explain.dmarc_node import policy_facts, policy_text
from mailguard.explain.dmarc_problem import PROBLEMS, DmarcProblem
from mailguard.explain.explanation import Explanation, octets_text

__all__ = ["DomainCheck", "Usability", "check_domain"]

MAX_SHOWN_TEXTS = 4
MAX_TEXT_CHARS = 200

# Neither stands in the way of the policy: the administrator may want them so.
_NOTES = frozenset({DmarcProblem.TESTING, DmarcProblem.ASKS_FOR_NOTHING, DmarcProblem.PUBLIC_SUFFIX})
_NOT_SENT = {
    Authorization.REFUSED: "has no record that wants them",
    Authorization.OTHER_HOST: "has a record that names yet another host",
    Authorization.NAME_TOO_LONG: "is longer than a name may be",
}

_Problem = tuple[DmarcProblem, Domain, str]


class Usability(Enum):
    """Whether a policy holds for mail from the domain."""

    USABLE = "usable"
    """A record holds, and its policy can be read."""
    UNUSABLE = "unusable"
    UNKNOWN = "unknown"
    """The DNS did not answer."""


@dataclass(frozen=True, slots=True)
class DomainCheck:
    """What was found, as a tree."""

    usability: Usability
    explanation: Explanation


def check_domain(domain: Domain, answers: Answers, suffixes: PublicSuffixes | None = None) -> DomainCheck:
    """The record that holds for mail from `domain` by RFC 9989; with `suffixes`, compared with RFC 7489.

    Raises Unanswered while an answer is missing.
    """
    # Without anything that passed, the verdict is what the domain asks for.
    verdict = judge(domain, spf=None, dkim=(), answers=answers)
    problems = tuple(_problems(verdict, discover(domain, answers).visits, answers))
    children = [_problem_node(*problem) for problem in problems]
    if suffixes is not None:
        children.append(_comparison_node(compare_7489(domain, answers, suffixes), suffixes))
    usability = _usability(verdict, problems)
    return DomainCheck(
        usability,
        Explanation(
            title=f"DMARC for mail from {domain}",
            status=usability.value,
            reason=_reason(verdict, usability),
            detail=_detail(verdict, domain),
            facts=(*policy_facts(verdict), *_tag_facts(verdict.record)),
            children=tuple(children),
        ),
    )


def _usability(verdict: DmarcVerdict, problems: tuple[_Problem, ...]) -> Usability:
    if verdict.reason is DmarcReason.POLICY_UNAVAILABLE:
        return Usability.UNKNOWN
    if verdict.policy is None or any(problem is DmarcProblem.NO_POLICY for problem, _, _ in problems):
        return Usability.UNUSABLE
    return Usability.USABLE


def _reason(verdict: DmarcVerdict, usability: Usability) -> str:
    """The policy, or why there is none."""
    if verdict.policy is None:
        return verdict.reason.value
    return verdict.policy.value if usability is Usability.USABLE else DmarcProblem.NO_POLICY.value


def _detail(verdict: DmarcVerdict, domain: Domain) -> str:
    if verdict.policy is None:
        return verdict.detail
    inherited = "" if verdict.record_domain == domain else f", which {domain} inherits"
    return f"the record at _dmarc.{verdict.record_domain} holds{inherited}"


def _tag_facts(record: DmarcRecord | None) -> Iterator[tuple[str, str]]:
    if record is None:
        return
    for name, policy in (("p", record.p), ("sp", record.sp), ("np", record.np)):
        if policy is not None:
            yield name, policy.value
    yield "adkim", record.adkim.value
    yield "aspf", record.aspf.value
    for name, uris in (("rua", record.rua), ("ruf", record.ruf)):
        yield from ((name, uri.text) for uri in uris)


def _problem_node(problem: DmarcProblem, domain: Domain, detail: str) -> Explanation:
    return Explanation(
        title="note" if problem in _NOTES else "problem",
        status=problem.value,
        detail=detail,
        advice=PROBLEMS[problem].text(Names(author=domain, domain=domain)),
    )


def _problems(verdict: DmarcVerdict, visits: tuple[Visit, ...], answers: Answers) -> Iterator[_Problem]:
    for visit in visits:
        yield from _visit_problems(visit, answers)
    record, place = verdict.record, verdict.record_domain
    if verdict.reason is DmarcReason.NO_RECORD:
        start = visits[0].domain
        yield from _misplaced(start, answers)
        yield DmarcProblem.NO_RECORD, start, f"there is no DMARC record that holds for {start}"
    if record is None or place is None:
        return
    yield from _tag_problems(record, place)
    for destination in report_destinations(place, record.rua, answers):
        why = _NOT_SENT.get(destination.authorization)
        if why is not None:
            name = f"{place}._report._dmarc.{destination.uri.host}"
            yield DmarcProblem.REPORTS_REFUSED, place, f"{destination.uri.text}: {name} {why}"


def _visit_problems(visit: Visit, answers: Answers) -> Iterator[_Problem]:
    name = f"_dmarc.{visit.domain}"
    match visit.found:
        case Found.NO_ANSWER:
            yield DmarcProblem.NO_ANSWER, visit.domain, f"the DNS did not answer for {name}"
        case Found.SEVERAL:
            yield DmarcProblem.SEVERAL_RECORDS, visit.domain, f"{name} has several DMARC records"
        case Found.NO_RECORD:
            texts = answers.get(Question(name, RecordType.TXT)).texts()
            meant = [octets_text(text)[:MAX_TEXT_CHARS] for text in texts if b"dmarc" in text.lower()]
            for text in meant[:MAX_SHOWN_TEXTS]:
                yield DmarcProblem.NOT_A_RECORD, visit.domain, f"{name} has: {text}"


def _misplaced(domain: Domain, answers: Answers) -> Iterator[_Problem]:
    """Records where people leave them: without "_dmarc." or its underscore, and where a relative name has the domain
    twice.
    """
    names = (str(domain), f"dmarc.{domain}", f"_dmarc.{domain}.{domain}")
    places = [name for name in names if len(name) <= MAX_DOMAIN_CHARS]
    questions = [Question(name, RecordType.TXT) for name in places]
    answers.need(questions)
    for question in questions:
        for text in [text for text in answers.get(question).texts() if DmarcRecord.is_one(text)][:MAX_SHOWN_TEXTS]:
            yield DmarcProblem.NOT_A_RECORD, domain, f"{question.name} has: {octets_text(text)[:MAX_TEXT_CHARS]}"


def _tag_problems(record: DmarcRecord, place: Domain) -> Iterator[_Problem]:
    if record.policy_fault:
        yield DmarcProblem.NO_POLICY, place, record.policy_fault
    others = [tag for tag in record.invalid if tag not in POLICY_TAGS]
    if others:
        yield DmarcProblem.INVALID_TAG, place, f"{_tags(others)} cannot be read, or stands there twice"
    if record.obsolete:
        yield DmarcProblem.OBSOLETE_TAG, place, f"{_tags(record.obsolete)} means nothing to RFC 9989"
    if stray := [piece for piece in map(str.strip, record.text.split(";")) if piece and "=" not in piece]:
        yield DmarcProblem.STRAY_TEXT, place, f"it has: {', '.join(stray)[:MAX_TEXT_CHARS]}"
    if not record.rua:
        yield DmarcProblem.NO_REPORTS, place, "there is no rua= with an address that can be used"
    for name, uris in (("rua", record.rua), ("ruf", record.ruf)):
        if uris and (ignored := _ignored_items(record, name)):
            yield DmarcProblem.IGNORED_DESTINATION, place, f"{name}= has: {', '.join(ignored)[:MAX_TEXT_CHARS]}"
    if record.is_testing:
        yield DmarcProblem.TESTING, place, "t=y is set"
    if record.p is DmarcPolicy.NONE:
        yield DmarcProblem.ASKS_FOR_NOTHING, place, "p=none is set"
    if record.psd is PublicSuffixFlag.YES:
        yield DmarcProblem.PUBLIC_SUFFIX, place, "psd=y is set"


def _ignored_items(record: DmarcRecord, name: str) -> list[str]:
    """What stands in rua or ruf beside what can be used. What is escaped in the text is part of no URI."""
    tags = (tag.partition("=") for tag in record.text.split(";"))
    # The text of a long record ends early.
    value = next((value for tag, _, value in tags if tag.strip(" \t") == name), "")
    items = [item.strip(" \t") for item in value.split(",", MAX_LIST_ITEMS)[:MAX_LIST_ITEMS]]
    return [item for item in items if item and ReportUri.parse(item.encode("ascii")) is None]


def _tags(names: list[str] | tuple[str, ...]) -> str:
    return ", ".join(f"{name}=" for name in names)


def _comparison_node(comparison: Comparison, suffixes: PublicSuffixes) -> Explanation:
    readings = (("RFC 9989", comparison.tree_walk), ("RFC 7489", comparison.public_suffixes))
    return Explanation(
        title="RFC 9989 beside RFC 7489",
        status="different" if comparison.differences else "the same",
        detail=f"by tree walk, and by the list of public suffixes {suffixes.source}",
        facts=tuple(("difference", text) for text in comparison.differences),
        children=tuple(Explanation(title=name, facts=tuple(_reading_facts(each))) for name, each in readings),
    )


def _reading_facts(reading: Reading) -> Iterator[tuple[str, str]]:
    yield "organizational domain", reading.organizational_domain or "unknown"
    if not reading.is_known:
        yield "record", "the DNS did not answer"
    else:
        yield "record", f"_dmarc.{reading.record_domain}" if reading.record_domain is not None else "none"
    if reading.policy is not None:
        yield "policy", policy_text(reading.policy, reading.policy_tag, reading.record)
    elif reading.is_known:
        yield "policy", "none applies"
