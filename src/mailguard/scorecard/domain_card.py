"""The whole scorecard of a domain. Pure: what it asks comes from `Answers`, all of it in few rounds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from mailguard.dns.answers import Answers, Unanswered
from mailguard.dns.validation import ValidationStatus
from mailguard.domain import Domain
from mailguard.explain.dmarc_check import Usability, check_domain
from mailguard.explain.dmarc_problem import DmarcProblem
from mailguard.explain.explanation import Explanation
from mailguard.mtasts.result import FetchOutcome
from mailguard.scorecard.card import Mark, mark_of, scorecard, worst
from mailguard.scorecard.dkim_card import dkim_card
from mailguard.scorecard.spf_card import spf_card
from mailguard.scorecard.transport_card import dane_card, mta_sts_card, mx_card, tls_report_card

__all__ = ["domain_card"]

_DMARC_MARKS = {
    Usability.USABLE: Mark.OK,
    Usability.UNUSABLE: Mark.PROBLEM,
    Usability.UNKNOWN: Mark.UNKNOWN,
}


def domain_card(
    domain: Domain,
    selectors: Sequence[str],
    answers: Answers,
    *,
    policy_file: FetchOutcome | None,
    resolver: ValidationStatus,
) -> Explanation:
    """What `domain` publishes, `resolver` being what is known of the one that the answers come from.

    Raises Unanswered while an answer is missing; each part names what it lacks.
    """
    cards: list[Explanation] = []
    is_missing = False
    parts: tuple[Callable[[], Explanation], ...] = (
        lambda: mx_card(domain, answers),
        lambda: spf_card(domain, answers),
        lambda: dkim_card(domain, selectors, answers),
        lambda: _dmarc_card(domain, answers),
        lambda: mta_sts_card(domain, answers, policy_file),
        lambda: tls_report_card(domain, answers),
        lambda: dane_card(domain, answers, resolver),
    )
    for part in parts:
        try:
            cards.append(part())
        except Unanswered:
            is_missing = True  # the other parts may ask in the same round
    if is_missing:
        raise Unanswered("the scorecard")
    return scorecard(f"mail of {domain}", cards)


def _dmarc_card(domain: Domain, answers: Answers) -> Explanation:
    checked = check_domain(domain, answers)
    children = tuple(map(_marked, checked.explanation.children))
    status = worst((_DMARC_MARKS[checked.usability], mark_of(children))).value
    return replace(checked.explanation, title="DMARC", status=status, reason="", children=children)


def _marked(problem: Explanation) -> Explanation:
    """That the DNS did not answer says nothing of the domain."""
    return replace(problem, title=Mark.UNKNOWN.value) if problem.status == DmarcProblem.NO_ANSWER.value else problem
