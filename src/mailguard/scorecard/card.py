"""The parts of a scorecard: how each is marked, and the whole domain's tree. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import Enum

from mailguard.domain import Domain
from mailguard.explain.explanation import Explanation

__all__ = ["Mark", "card", "finding", "mark_of", "scorecard"]


class Mark(Enum):
    """How a part came out, the best first."""

    OK = "ok"
    NOTE = "note"
    """Nothing is broken, and something could be better."""
    UNKNOWN = "unknown"
    """The DNS did not answer."""
    PROBLEM = "problem"


_ORDER = tuple(Mark)


def finding(mark: Mark, detail: str, advice: str = "") -> Explanation:
    """One thing to know, and what to do about it."""
    return Explanation(title=mark.value, detail=detail, advice=advice)


def mark_of(found: Iterable[Explanation]) -> Mark:
    """The worst of what was found."""
    marks = [Mark(each.title) for each in found if each.title in {mark.value for mark in Mark}]
    return max(marks, key=_ORDER.index, default=Mark.OK)


def card(
    title: str,
    found: Sequence[Explanation],
    *,
    detail: str = "",
    facts: Iterable[tuple[str, str]] = (),
    others: Iterable[Explanation] = (),
) -> Explanation:
    """A part with its findings; `others` are shown below them and do not count."""
    return Explanation(
        title=title, status=mark_of(found).value, detail=detail, facts=tuple(facts), children=(*found, *others)
    )


def scorecard(domain: Domain, cards: Sequence[Explanation]) -> Explanation:
    """All parts, marked as the worst of them."""
    worst = max((Mark(each.status) for each in cards), key=_ORDER.index)
    return Explanation(title=f"mail of {domain}", status=worst.value, children=tuple(cards))
