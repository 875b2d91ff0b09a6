"""Which authenticated identifiers belong to the author domain (RFC 9989 §4.4, RFC 9989 §4.10.2).

An identifier is what SPF checked as MAIL FROM, or d= of a signature. Each has a tree walk of its own, unless it is
the author domain itself or cannot be aligned whatever the walk shows. Pure: what it asks comes from `Answers`.
Values are frozen and safe to share between threads.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from typing import NamedTuple

from mailguard.dkim.result import DkimResult, DkimStatus
from mailguard.dmarc.discover import Discovery, Walk, tree_walk, walk_questions
from mailguard.dmarc.record import AlignmentMode, PublicSuffixFlag
from mailguard.dmarc.result import Aligned, Alignment
from mailguard.dmarc.suffixes import PublicSuffixes
from mailguard.dns.answers import Answers
from mailguard.dns.question import Question
from mailguard.domain import Domain
from mailguard.spf.result import SpfIdentity, SpfResult, SpfStatus

__all__ = [
    "Identifier",
    "align",
    "candidate_questions",
    "identifiers",
    "same_organization",
    "walked_domains",
    "walks_questions",
]

# A walk costs up to eight look-ups. Real mail has one to three identifiers, most of them the author domain itself.
MAX_IDENTIFIER_WALKS = 10
# Up to so many missing answers, all that they could have been is tried out: each makes four times the work.
MAX_TRIED_OUT = 2

_POSSIBLE: tuple[PublicSuffixFlag | None, ...] = (None, *PublicSuffixFlag)


class Identifier(NamedTuple):
    """A domain that SPF or DKIM says something about."""

    method: str
    domain: Domain
    result: str
    selector: str | None
    counts: bool
    """It passed, and nothing keeps the pass from counting."""
    may_count: bool
    """Whether it passed could not be found out."""


def identifiers(
    spf: SpfResult | None, dkim: Iterable[DkimResult], *, counts_permissive: bool
) -> tuple[Identifier, ...]:
    """SPF's, then those of the signatures in their order; those without a domain are left out."""
    found: list[Identifier] = []
    # RFC 9989 §4.4.2: of SPF's identities MAIL FROM only; of a null sender, that is postmaster at the HELO name.
    if spf is not None and spf.identity is SpfIdentity.MAIL_FROM and spf.domain is not None:
        found.append(
            Identifier(
                method="spf",
                domain=spf.domain,
                result=spf.status.value,
                selector=None,
                counts=spf.status is SpfStatus.PASS and (counts_permissive or not spf.is_permissive),
                may_count=spf.status is SpfStatus.TEMPERROR or spf.is_uncertain,
            )
        )
    found += [
        Identifier(
            method="dkim",
            domain=result.domain,
            result=result.status.value,
            selector=result.selector,
            # RFC 6376 §3.6.1: with a key in testing, the message counts as unsigned.
            counts=result.status is DkimStatus.PASS and not result.testing,
            may_count=result.status is DkimStatus.TEMPERROR and not result.testing,
        )
        for result in dkim
        if result.domain is not None
    ]
    return tuple(found)


def candidate_questions(discovery: Discovery, candidates: Iterable[Domain]) -> tuple[Question, ...]:
    """What `align` may ask for identifiers of these domains, while it is not known which of them passed."""
    record, walk, author_domain = discovery.record, discovery.walk, discovery.author_domain
    others = [domain for domain in candidates if domain != author_domain]
    if not others or walk is None or record is None or AlignmentMode.RELAXED not in (record.adkim, record.aspf):
        return ()
    return walks_questions(_first(domain for domain in others if _is_open(domain, discovery, walk)))


def walked_domains(discovery: Discovery, found: Sequence[Identifier]) -> tuple[Domain, ...]:
    """The domains that need a walk, as many as are allowed. Those that passed come first, not to be crowded out."""
    walk = discovery.walk
    if walk is None or discovery.record is None:
        return ()
    others = [one for one in found if one.domain != discovery.author_domain]
    others.sort(key=lambda one: (not one.counts, not one.may_count))
    domains = (
        one.domain
        for one in others
        if _mode(one, discovery) is AlignmentMode.RELAXED and _is_open(one.domain, discovery, walk)
    )
    return _first(domains)


def walks_questions(domains: Iterable[Domain]) -> tuple[Question, ...]:
    """All that the walks of these domains ask."""
    return tuple([question for domain in domains for question in walk_questions(domain)])


def align(
    discovery: Discovery,
    found: Sequence[Identifier],
    walked: Iterable[Domain],
    answers: Answers,
    suffixes: PublicSuffixes | None,
) -> tuple[Alignment, ...]:
    """Compare each identifier with the author domain, in the order given.

    `walked` are the domains that `walked_domains` names. Raises Unanswered while an answer is missing.
    """
    walks = {domain: tree_walk(domain, answers) for domain in walked}
    return tuple([_alignment(one, discovery, walks, suffixes) for one in found])


def _is_open(domain: Domain, discovery: Discovery, walk: Walk) -> bool:
    """Whether, in relaxed mode, only a walk can tell."""
    # An Organizational Domain is the name itself or above it: who is not below the author's cannot have the same.
    return domain != discovery.author_domain and domain.is_equal_or_below(walk.highest_organizational_domain)


def _mode(one: Identifier, discovery: Discovery) -> AlignmentMode:
    if discovery.record is None:
        return AlignmentMode.RELAXED
    return discovery.record.aspf if one.method == "spf" else discovery.record.adkim


def _first(domains: Iterable[Domain]) -> tuple[Domain, ...]:
    return tuple(dict.fromkeys(domains))[:MAX_IDENTIFIER_WALKS]


def _alignment(
    one: Identifier, discovery: Discovery, walks: Mapping[Domain, Walk], suffixes: PublicSuffixes | None
) -> Alignment:
    organizational_domain: Domain | None = None
    if one.domain == discovery.author_domain:
        # RFC 9989 §4.10.2: the same domain is aligned in either mode, and needs no walk.
        aligned, organizational_domain = Aligned.YES, discovery.organizational_domain
    elif suffixes is not None:
        organizational_domain = suffixes.organizational_domain(one.domain)
        aligned = _by_mode(one, discovery, is_same=organizational_domain == discovery.organizational_domain)
    elif discovery.walk is None or not _is_open(one.domain, discovery, discovery.walk):
        aligned = Aligned.NO
    elif discovery.record is None or _mode(one, discovery) is AlignmentMode.STRICT:
        aligned = _by_mode(one, discovery, is_same=True)
    elif one.domain in walks:
        organizational_domain = walks[one.domain].organizational_domain
        aligned = same_organization(discovery.walk, walks[one.domain])
    else:
        # Beyond the bound. A pass is not looked at: that will not change, and a temporary error would ask the sender
        # to try again for ever. What may not have passed anyhow stays open, so that no missing answer makes a fail.
        aligned = Aligned.UNKNOWN if one.may_count else Aligned.NO
    return Alignment(
        method=one.method,
        domain=one.domain,
        result=one.result,
        selector=one.selector,
        mode=_mode(one, discovery),
        aligned=aligned,
        organizational_domain=organizational_domain,
        counts=one.counts,
        may_count=one.may_count,
    )


def _by_mode(one: Identifier, discovery: Discovery, *, is_same: bool) -> Aligned:
    """For another name than the author domain: whether `is_same`, its Organizational Domain, suffices."""
    if not is_same:
        return Aligned.NO
    if discovery.record is None:
        return Aligned.UNKNOWN  # the record that did not come may ask for strict alignment
    return Aligned.NO if _mode(one, discovery) is AlignmentMode.STRICT else Aligned.YES


def same_organization(author: Walk, identifier: Walk) -> Aligned:
    """Whether both have one Organizational Domain, whatever the missing answers would have been.

    So a top-level domain whose servers do not answer for `_dmarc` does not keep the mail of all domains below it.
    """
    missing = tuple(dict.fromkeys((*author.unanswered, *identifier.unanswered)))
    if len(missing) > MAX_TRIED_OUT:
        return Aligned.UNKNOWN
    outcomes = {
        author.organizational_domain_if(assumed) == identifier.organizational_domain_if(assumed)
        for values in product(_POSSIBLE, repeat=len(missing))
        for assumed in (dict(zip(missing, values, strict=True)),)
    }
    if len(outcomes) == 2:
        return Aligned.UNKNOWN
    return Aligned.YES if True in outcomes else Aligned.NO
