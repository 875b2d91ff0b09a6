"""The verdict for one author domain (RFC 9989 §5.3).

Pure: what it asks comes from `Answers`; SPF and DKIM have been judged before. Left out: taking the author domain
from the header (message.py), what is done about the verdict (policy.py), reports. Values are frozen and safe to
share between threads.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from mailguard.dkim.result import DkimResult
from mailguard.dmarc.align import Identifier, align, candidate_questions, identifiers, walked_domains, walks_questions
from mailguard.dmarc.discover import Discovery, Found, discover, policy_questions
from mailguard.dmarc.record import DmarcPolicy, RequestedPolicy
from mailguard.dmarc.result import Aligned, Alignment, DmarcReason, DmarcStatus, DmarcVerdict
from mailguard.dmarc.suffixes import PublicSuffixes
from mailguard.dns.answers import Answers
from mailguard.domain import Domain
from mailguard.spf.result import SpfResult

__all__ = ["judge", "needs", "strictest"]

# A verdict is kept for so many identifiers, with names of so many characters together, the author's included, and
# where the walks for these domains asked so many questions more. Real mail has two or three, of one domain.
MAX_KEPT_IDENTIFIERS = 3
MAX_KEPT_CHARS = 256
MAX_KEPT_ANSWERS = 3


def judge(
    author_domain: Domain,
    *,
    spf: SpfResult | None,
    dkim: Sequence[DkimResult],
    answers: Answers,
    suffixes: PublicSuffixes | None = None,
    discovery: Discovery | None = None,
    counts_permissive: bool = True,
) -> DmarcVerdict:
    """The verdict on mail from `author_domain`.

    `spf` is the result for MAIL FROM, None if there is none; a result for HELO counts for nothing. With `suffixes`,
    Organizational Domains and policy discovery are those of RFC 7489, otherwise those of RFC 9989. `discovery` is
    what `needs` returned for the same answers. `counts_permissive` says whether a pass of SPF that half of all
    addresses would get is one here. Raises Unanswered while an answer is missing. A missing answer never
    makes a fail, nor a pass.
    """
    discovery = discovery or discover(author_domain, answers, suffixes)
    found = identifiers(spf, dkim, counts_permissive=counts_permissive)
    memo = discovery.verdicts
    if memo is None or suffixes is not None:
        return _judge(discovery, found, answers, suffixes)
    kept = memo.find(found, answers)
    if kept is not None:
        return kept
    verdict, read = answers.observe(lambda: _judge(discovery, found, answers, suffixes))
    chars = len(author_domain) + sum(len(one.domain) + len(one.selector or "") for one in found)
    if len(found) <= MAX_KEPT_IDENTIFIERS and chars <= MAX_KEPT_CHARS and len(read) <= MAX_KEPT_ANSWERS:
        memo.keep(found, verdict, read)
    return verdict


def _judge(
    discovery: Discovery, found: tuple[Identifier, ...], answers: Answers, suffixes: PublicSuffixes | None
) -> DmarcVerdict:
    walked = walked_domains(discovery, found)
    answers.need((*policy_questions(discovery), *walks_questions(walked)))
    requested, is_known = discovery.requested(answers)
    if requested is None and is_known:
        # RFC 9989 §4.10.1: the DMARC mechanism is not applied.
        return _unapplied(discovery)
    alignments = align(discovery, found, walked, answers, suffixes)
    status, reason = _status(discovery, requested, alignments)
    return DmarcVerdict(
        status=status,
        reason=reason,
        detail=_detail(reason, discovery, requested, alignments),
        author_domain=discovery.author_domain,
        policy=requested.policy if requested else None,
        policy_tag=requested.tag if requested else None,
        is_testing=requested is not None and requested.is_testing,
        record=discovery.record,
        record_domain=discovery.record_domain,
        organizational_domain=discovery.organizational_domain,
        alignments=alignments,
        method=discovery.method,
        walk=_walk(discovery),
    )


def needs(
    author_domain: Domain, *, candidates: Iterable[Domain], answers: Answers, suffixes: PublicSuffixes | None = None
) -> Discovery:
    """Ask for what `judge` will ask, before it is known which of `candidates` (SPF's domain, every d=) passed.

    Raises Unanswered, first for the author domain's walk and then for those of the candidates, until all is known.
    """
    discovery = discover(author_domain, answers, suffixes)
    questions = (*policy_questions(discovery), *candidate_questions(discovery, candidates))
    if questions:
        answers.need(questions)
    return discovery


def strictest(verdicts: Sequence[DmarcVerdict]) -> DmarcVerdict:
    """The verdict that stands where From names several domains (RFC 9989 §11.5); never a pass.

    A domain that passes vouches for itself only, and readers are shown the others too. Raises ValueError for no
    verdicts.
    """
    return max((_without_pass(verdict) for verdict in verdicts), key=_strictness)


def _without_pass(verdict: DmarcVerdict) -> DmarcVerdict:
    if verdict.status is not DmarcStatus.PASS:
        return verdict
    return replace(
        verdict,
        status=DmarcStatus.PERMERROR,
        reason=DmarcReason.SEVERAL_DOMAINS,
        detail="From names several domains, so that the pass of one is none for the message",
    )


def _strictness(verdict: DmarcVerdict) -> int:
    match verdict.status, verdict.policy:
        case DmarcStatus.FAIL, DmarcPolicy.REJECT:
            return 6
        # What is missing might be as much as the policy asks for; unless something aligned has passed anyhow.
        case DmarcStatus.TEMPERROR, _ if verdict.has_aligned_pass:
            return 1
        case DmarcStatus.TEMPERROR, DmarcPolicy.REJECT | None:
            return 5
        case DmarcStatus.TEMPERROR, DmarcPolicy.QUARANTINE:
            return 4
        case DmarcStatus.FAIL, DmarcPolicy.QUARANTINE:
            return 3
        case ((DmarcStatus.TEMPERROR | DmarcStatus.FAIL), _):
            return 2
        case DmarcStatus.PERMERROR, _:
            return 1
    return 0


def _status(
    discovery: Discovery, requested: RequestedPolicy | None, alignments: Sequence[Alignment]
) -> tuple[DmarcStatus, DmarcReason]:
    if discovery.record is None:
        return DmarcStatus.TEMPERROR, DmarcReason.POLICY_UNAVAILABLE
    if any(one.counts and one.aligned is Aligned.YES for one in alignments):
        # RFC 9989 §4.4.1: any one suffices. What the policy for the others would be does not matter then.
        return DmarcStatus.PASS, DmarcReason.ALIGNED
    if requested is None:
        return DmarcStatus.TEMPERROR, DmarcReason.POLICY_UNAVAILABLE
    if any(_might_pass(one) for one in alignments):
        # RFC 9989 §5.3.6: with a DNS error in what it hangs on, the message neither passes nor fails.
        return DmarcStatus.TEMPERROR, DmarcReason.AUTHENTICATION_UNAVAILABLE
    passed = any(one.counts for one in alignments)
    return DmarcStatus.FAIL, DmarcReason.NOT_ALIGNED if passed else DmarcReason.NOTHING_PASSED


def _might_pass(one: Alignment) -> bool:
    """Whether the DNS kept it from being an aligned pass. What could never be aligned is not waited for."""
    if one.counts:
        return one.aligned is Aligned.UNKNOWN
    return one.may_count and one.aligned is not Aligned.NO


def _unapplied(discovery: Discovery) -> DmarcVerdict:
    reason = DmarcReason.NO_RECORD if discovery.record is None else DmarcReason.RECORD_UNUSABLE
    return DmarcVerdict(
        status=DmarcStatus.NONE,
        reason=reason,
        detail=_detail(reason, discovery, None, ()),
        author_domain=discovery.author_domain,
        record=discovery.record,
        record_domain=discovery.record_domain,
        organizational_domain=discovery.organizational_domain,
        method=discovery.method,
        walk=_walk(discovery),
    )


def _walk(discovery: Discovery) -> tuple[str, ...]:
    return tuple(map(str, discovery.visits))


def _detail(
    reason: DmarcReason, discovery: Discovery, requested: RequestedPolicy | None, alignments: Sequence[Alignment]
) -> str:
    author = discovery.author_domain
    match reason:
        case DmarcReason.NO_RECORD:
            several = next((visit.domain for visit in discovery.visits if visit.found is Found.SEVERAL), None)
            # RFC 9989 §4.10: several at one name are none; their owner will not have meant that.
            why = f": there are several at {several}, which count as none" if several is not None else ""
            return f"there is no DMARC record for {author}{why}"
        case DmarcReason.RECORD_UNUSABLE:
            at = f"the DMARC record at _dmarc.{discovery.record_domain}"
            return f"{at} has no usable policy ({_fault(discovery)}) and asks for no reports"
        case DmarcReason.POLICY_UNAVAILABLE if discovery.record is None:
            return f"the DNS does not say which DMARC policy {author} has"
        case DmarcReason.POLICY_UNAVAILABLE:
            return f"the DNS does not say whether {author} exists, on which its DMARC policy depends"
        case DmarcReason.ALIGNED:
            by = next(one for one in alignments if one.counts and one.aligned is Aligned.YES)
            return f"{by.method.upper()} passes for {by.domain}, which is aligned with {author}"
    policy = f"the policy of {author} is {_policy_text(discovery, requested)}"
    match reason:
        case DmarcReason.AUTHENTICATION_UNAVAILABLE:
            return f"the DNS did not answer what could have made it pass; {policy}"
        case DmarcReason.NOT_ALIGNED:
            return f"nothing that passes is aligned with {author}; {policy}"
    if any(one.result == "pass" for one in alignments):
        # A key in testing, or a term of SPF's that covers too many addresses.
        return f"no pass of SPF or DKIM is one that counts; {policy}"
    return f"neither SPF nor DKIM passes; {policy}"


def _policy_text(discovery: Discovery, requested: RequestedPolicy | None) -> str:
    if requested is None:
        return "not known"
    if requested.tag is None:
        return f"{requested.policy.value} (at {discovery.record_domain} {_fault(discovery)})"
    weaker = ", one step weaker for t=y" if requested.is_testing else ""
    return f"{requested.policy.value} ({requested.tag}= at {discovery.record_domain}{weaker})"


def _fault(discovery: Discovery) -> str:
    return discovery.record.policy_fault if discovery.record is not None else ""
