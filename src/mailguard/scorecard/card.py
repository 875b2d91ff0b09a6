"""The parts of a scorecard: how each is marked, and the tree of all. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import Enum

from mailguard.explain.explanation import Explanation

__all__ = ["Mark", "card", "finding", "in_few", "mark_of", "scorecard", "worst"]

# Of one kind in one card. Who has more of them to put right does it with a program.
MAX_SHOWN = 20


class Mark(Enum):
    """How a part came out, the best first."""

    OK = "ok"
    NOTE = "note"
    """Nothing is broken, and something could be better."""
    UNKNOWN = "unknown"
    """The DNS did not answer."""
    PROBLEM = "problem"


_ORDER = tuple(Mark)


def worst(marks: Iterable[Mark]) -> Mark:
    """Of none, OK."""
    return max(marks, key=_ORDER.index, default=Mark.OK)


def finding(mark: Mark, detail: str, advice: str = "") -> Explanation:
    """One thing to know, and what to do about it."""
    return Explanation(title=mark.value, detail=detail, advice=advice)


def mark_of(found: Iterable[Explanation]) -> Mark:
    """The worst of what was found."""
    return worst(Mark(each.title) for each in found if each.title in {mark.value for mark in Mark})


def in_few(found: Sequence[Explanation], what: str, advice: str) -> list[Explanation]:
    """At most MAX_SHOWN of each mark, worst first, and how many more there are. Many that are ok are only counted.

    `what` they are, in the plural; `advice` is for the rest.
    """
    if len(found) <= MAX_SHOWN:
        return list(found)
    shown: list[Explanation] = []
    for mark in reversed(_ORDER):
        alike = [each for each in found if each.title == mark.value]
        head = alike[: 0 if mark is Mark.OK else MAX_SHOWN]
        shown += head
        if rest := len(alike) - len(head):
            detail = f"{rest} more {what}" if head else f"{rest} of {len(found)} {what}"
            shown.append(finding(mark, detail, advice if head else ""))
    return shown


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


def scorecard(title: str, cards: Sequence[Explanation]) -> Explanation:
    """All parts, marked as the worst of them."""
    mark = worst(Mark(each.status) for each in cards)
    return Explanation(title=title, status=mark.value, children=tuple(cards))
