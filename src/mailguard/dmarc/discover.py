"""Which record holds for an author domain, and which Organizational Domain a name has (RFC 9989 §4.10).

By tree walk, or, where a list of public suffixes is given, as RFC 7489 §3.2 and RFC 7489 §6.6.3 have it. Either way
the record itself is read as RFC 9989 defines it. Pure: what it asks comes from `Answers`. An answer that did not come
is never "no record": what it could change is left unknown. Left out: comparing identifiers (align.py). Values are
frozen and safe to share between threads.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from types import MappingProxyType
from typing import NamedTuple

from mailguard.dmarc.record import AuthorStanding, DmarcPolicy, DmarcRecord, PublicSuffixFlag, RequestedPolicy
from mailguard.dmarc.result import DiscoveryMethod, DmarcVerdict
from mailguard.dmarc.suffixes import PublicSuffixes
from mailguard.dns.answers import Answers, Memo
from mailguard.dns.question import TXT, Answer, Question, RecordType, Status
from mailguard.domain import MAX_DOMAIN_CHARS, Domain

__all__ = [
    "Discovery",
    "Found",
    "Visit",
    "Walk",
    "discover",
    "discovery_questions",
    "policy_questions",
    "tree_walk",
    "walk_questions",
]

# RFC 9989 §4.10: not more than 8 queries a walk; below the start, the walk goes on with 7 labels.
MAX_WALK_QUERIES = 8
# A discovery is kept where it took no more. The names in real mail have two to four labels.
MAX_KEPT_VISITS = 4

_NOTHING_ASSUMED: Mapping[Domain, PublicSuffixFlag | None] = MappingProxyType({})


class Found(Enum):
    """What there is at one name."""

    RECORD = "record"
    NO_RECORD = "no record"
    SEVERAL = "several records"
    """They are all discarded (RFC 9989 §4.10)."""
    NO_ANSWER = "no answer"
    NOT_ASKED = "no record: the name would be too long"


class Visit(NamedTuple):
    """One name of a walk."""

    domain: Domain
    """Without "_dmarc."."""
    found: Found
    record: DmarcRecord | None = None
    records: int = 0
    """How many there are."""

    def __str__(self) -> str:
        what = self.found.value
        if self.found is Found.SEVERAL:
            what = "two records" if self.records == 2 else f"{self.records} records"
        return f"_dmarc.{self.domain}: {what}"


@dataclass(frozen=True, slots=True)
class Walk:
    """The names asked for one start, longest first, up to the one that ended the walk."""

    start: Domain
    visits: tuple[Visit, ...]

    @property
    def unanswered(self) -> tuple[Domain, ...]:
        """The names for which no answer came."""
        return tuple([visit.domain for visit in self.visits if visit.found is Found.NO_ANSWER])

    @property
    def organizational_domain(self) -> Domain | None:
        """RFC 9989 §4.10.2; None where it hangs on an answer that did not come."""
        return None if self.unanswered else self.organizational_domain_if(_NOTHING_ASSUMED)

    @property
    def highest_organizational_domain(self) -> Domain:
        """Whatever the answers that did not come would have been: the Organizational Domain is this or below it."""
        return self.organizational_domain_if(dict.fromkeys(self.unanswered, PublicSuffixFlag.UNKNOWN))

    def organizational_domain_if(self, assumed: Mapping[Domain, PublicSuffixFlag | None]) -> Domain:
        """RFC 9989 §4.10.2, if there were at each name in `assumed` a record with this psd, or (None) no record."""
        chosen = self.start
        for visit in self.visits:
            psd = visit.record.psd if visit.record is not None else assumed.get(visit.domain)
            if psd is PublicSuffixFlag.NO:
                return visit.domain
            if psd is PublicSuffixFlag.YES:
                # Rule 2: one label more of the start, even if that name was not asked for; itself where it has none.
                return _last_labels(self.start, _count(visit.domain) + 1)
            if psd is PublicSuffixFlag.UNKNOWN:
                chosen = visit.domain  # rule 3: the one with the fewest labels stays
        return chosen


@dataclass(frozen=True, slots=True, kw_only=True)
class Discovery:
    """The record that holds for an author domain."""

    author_domain: Domain
    method: DiscoveryMethod
    visits: tuple[Visit, ...]
    is_known: bool
    """False: which record holds, if any, hangs on an answer that did not come."""
    record: DmarcRecord | None = None
    record_domain: Domain | None = None
    organizational_domain: Domain | None = None
    """Of the author domain; None where it is not known."""
    walk: Walk | None = None
    """The author domain's own; None with a list of public suffixes."""
    verdicts: Memo[DmarcVerdict] | None = field(default=None, repr=False, compare=False)
    """What has been judged by it; None where there is little to judge."""

    def requested(self, answers: Answers) -> tuple[RequestedPolicy | None, bool]:
        """What the record asks for, and whether that is known. None, known: DMARC is not to be applied.

        Whether the author domain exists is asked only where the record makes a difference of it.
        """
        if self.record is None:
            return None, self.is_known
        if self.record_domain == self.author_domain:
            return self.record.requested(AuthorStanding.ITSELF), True
        existing = self.record.requested(AuthorStanding.SUBDOMAIN)
        if not self.depends_on_existence:
            return existing, True
        nonexistent = self.record.requested(AuthorStanding.NONEXISTENT_SUBDOMAIN)
        answer = answers.get(_existence(self.author_domain))
        match answer.status:
            # RFC 8020 §2: behind an alias, it is the alias's target that is denied (RFC 6604).
            case Status.NXDOMAIN if not answer.canonical_name:
                return nonexistent, True
            case Status.TEMPFAIL | Status.BOGUS if _policy(existing) is not _policy(nonexistent):
                return None, False
        return existing, True

    @property
    def depends_on_existence(self) -> bool:
        """Whether the record asks for something else where the author domain does not exist."""
        if self.record is None or self.record_domain == self.author_domain:
            return False
        return self.record.requested(AuthorStanding.SUBDOMAIN) != self.record.requested(
            AuthorStanding.NONEXISTENT_SUBDOMAIN
        )


def discovery_questions(author_domain: Domain, suffixes: PublicSuffixes | None) -> tuple[Question, ...]:
    """All that `discover` may ask."""
    return _questions(_walk_names(author_domain) if suffixes is None else _names_7489(author_domain, suffixes))


def policy_questions(discovery: Discovery) -> tuple[Question, ...]:
    """All that `Discovery.requested` may ask."""
    return (_existence(discovery.author_domain),) if discovery.depends_on_existence else ()


def walk_questions(start: Domain) -> tuple[Question, ...]:
    """All that `tree_walk` may ask."""
    return _questions(_walk_names(start))


def discover(author_domain: Domain, answers: Answers, suffixes: PublicSuffixes | None = None) -> Discovery:
    """RFC 9989 §4.10.1: the record at the author domain, else at its Organizational Domain, else its PSD's.

    Raises Unanswered while an answer is missing; all that it may ask is noted at once.
    """
    if suffixes is not None:
        return _discover_7489(author_domain, answers, suffixes)
    keeper = _keeper(author_domain, answers)
    if keeper is None:
        return _discover(author_domain, answers)
    memo: Memo[Discovery] = keeper.read(Discovery, lambda _: Memo())
    kept = memo.find(author_domain, answers)
    if kept is not None:
        return kept
    found, read = answers.observe(lambda: _discover(author_domain, answers))
    # It keeps the records alive that it saw: that may be the keeper's own, and no other.
    if len(read) <= MAX_KEPT_VISITS and sum(visit.record is not None for visit in found.visits) <= 1:
        memo.keep(author_domain, found, read)
    return found


def _keeper(author_domain: Domain, answers: Answers) -> Answer | None:
    """With which answer a discovery is kept: the one that has the record; where none has, the author domain's."""
    own: Answer | None = None
    for name in _walk_names(author_domain):
        question = _question(name)
        answer = answers.peek(question) if question is not None else None
        if answer is not None and answer.read(DmarcRecord, _read)[1] is not None:
            return answer
        if name is author_domain:
            own = answer
    return own


def _discover(author_domain: Domain, answers: Answers) -> Discovery:
    walk = tree_walk(author_domain, answers)
    organizational_domain = walk.organizational_domain
    visits = walk.visits
    chosen: Visit | None = None
    is_known = True
    if visits[0].record is not None:
        # A record that cannot be used is one all the same: discovery does not climb past it.
        chosen = visits[0]
    elif walk.unanswered:
        is_known = False
    else:
        # Records between the author domain and its Organizational Domain are no policy of anybody's here.
        candidates = [visit for visit in visits if visit.record is not None]
        chosen = next((visit for visit in candidates if visit.domain == organizational_domain), None)
        chosen = chosen or next((visit for visit in candidates if _is_psd(visit)), None)
    return Discovery(
        author_domain=author_domain,
        method=DiscoveryMethod.TREE_WALK,
        visits=visits,
        is_known=is_known,
        record=chosen.record if chosen else None,
        record_domain=chosen.domain if chosen else None,
        organizational_domain=organizational_domain,
        walk=walk,
        verdicts=Memo() if chosen else None,
    )


def tree_walk(start: Domain, answers: Answers) -> Walk:
    """RFC 9989 §4.10. A name without an answer does not end the walk, a record with psd=y or psd=n does.

    Raises Unanswered while an answer is missing; all names of the walk are noted at once, and read in order.
    """
    names = list(_walk_names(start))
    answers.need(_questions(names))
    visits: list[Visit] = []
    for name in names:
        visit = _visit(name, answers)
        visits.append(visit)
        if visit.record is not None and visit.record.psd is not PublicSuffixFlag.UNKNOWN:
            break
    return Walk(start, tuple(visits))


def _walk_names(start: Domain) -> Iterator[Domain]:
    yield start
    labels = start.split(".")
    # Steps 3 and 4: one label less, or the last 7. What lies between is never seen.
    for count in range(min(len(labels), MAX_WALK_QUERIES) - 1, 0, -1):
        yield Domain(".".join(labels[-count:]))


def _question(domain: Domain) -> Question | None:
    """None where the name is too long to be asked for."""
    name = f"_dmarc.{domain}"
    return Question(name, TXT) if len(name) <= MAX_DOMAIN_CHARS else None


def _questions(names: Iterable[Domain]) -> tuple[Question, ...]:
    return tuple([question for question in map(_question, names) if question is not None])


def _visit(domain: Domain, answers: Answers) -> Visit:
    question = _question(domain)
    if question is None:
        # No name of that length can be registered in the DNS, so that nothing can be there: not an error.
        return Visit(domain, Found.NOT_ASKED)
    answer = answers.get(question)
    if answer.has_failed:
        return Visit(domain, Found.NO_ANSWER)
    found, record, count = answer.read(DmarcRecord, _read)
    return Visit(domain, found, record, count)


def _read(answer: Answer) -> tuple[Found, DmarcRecord | None, int]:
    """What the TXT records at one name are, taken together."""
    # Of several, none is read: an answer has room for thousands.
    records = [text for text in answer.texts() if DmarcRecord.is_one(text)]
    if len(records) == 1:
        return Found.RECORD, DmarcRecord.parse(records[0]), 1
    return Found.SEVERAL if records else Found.NO_RECORD, None, len(records)


def _discover_7489(author_domain: Domain, answers: Answers, suffixes: PublicSuffixes) -> Discovery:
    """RFC 7489 §6.6.3: the author domain, then its Organizational Domain; several records at a name end it."""
    names = _names_7489(author_domain, suffixes)
    answers.need(_questions(names))
    visits: list[Visit] = []
    for name in names:
        visits.append(_visit(name, answers))
        if visits[-1].found not in (Found.NO_RECORD, Found.NOT_ASKED):
            break
    last = visits[-1]
    return Discovery(
        author_domain=author_domain,
        method=DiscoveryMethod.PUBLIC_SUFFIX_LIST,
        visits=tuple(visits),
        is_known=last.found is not Found.NO_ANSWER,
        record=last.record,
        record_domain=last.domain if last.record is not None else None,
        organizational_domain=names[-1],
    )


def _names_7489(author_domain: Domain, suffixes: PublicSuffixes) -> list[Domain]:
    """The author domain and its Organizational Domain, which is the last."""
    return list(dict.fromkeys((author_domain, suffixes.organizational_domain(author_domain))))


def _policy(requested: RequestedPolicy | None) -> DmarcPolicy | None:
    return None if requested is None else requested.policy


def _is_psd(visit: Visit) -> bool:
    return visit.record is not None and visit.record.psd is PublicSuffixFlag.YES


def _existence(domain: Domain) -> Question:
    # RFC 9989 §3.2.13: NXDOMAIN, to whatever is asked of the name itself. That `_dmarc.` below it is NXDOMAIN says
    # nothing. A: there are servers that answer NXDOMAIN for a type they do not know; this one they all know.
    return Question(domain, RecordType.A)


def _count(domain: str) -> int:
    return domain.count(".") + 1


def _last_labels(domain: str, count: int) -> Domain:
    return Domain(".".join(domain.split(".")[-count:]))
