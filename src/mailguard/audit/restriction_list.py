"""Postfix's lists of restrictions, as in smtpd_recipient_restrictions. Pure.

A list is read until something decides. Left out: what the tables and services say that a restriction asks.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

__all__ = ["BARRIERS", "ENDS", "effective", "expanded", "reaches", "stops_relaying", "words"]

BARRIERS = frozenset({"reject", "defer", "reject_unauth_destination", "defer_unauth_destination"})
"""What keeps a client that no earlier `permit_...` let in from sending mail to elsewhere."""

ENDS = frozenset({"permit", "reject", "defer"})
"""Nothing behind these is asked."""

# Restriction classes may name one another.
MAX_WORDS = 1000
# Names of restrictions are read in any case, those of tables and domains are not restrictions.
_SEPARATORS = frozenset(" \t\r\n,")
_NAME = re.compile(r"[A-Za-z_]+")


def words(text: str) -> tuple[str, ...]:
    """The words of a list. Braces keep together what stands in them: `inline:{a=b, c=d}` is one word."""
    found, begin, depth = [], 0, 0
    for number, character in enumerate(text):
        if character == "{":
            depth += 1
        elif character == "}":
            depth = max(depth - 1, 0)
        elif depth == 0 and character in _SEPARATORS:
            found.append(text[begin:number])
            begin = number + 1
    return tuple(word for word in (*found, text[begin:]) if word)


def expanded(text: str, classes: Mapping[str, str]) -> tuple[str, ...]:
    """The words of a list, each class in smtpd_restriction_classes replaced by what it stands for."""
    found: list[str] = []
    waiting = list(reversed(words(text)))
    while waiting and len(found) < MAX_WORDS:
        word = waiting.pop()
        if word in classes and len(waiting) < MAX_WORDS:
            # A class that names itself would never end.
            inner = {name: value for name, value in classes.items() if name != word}
            found += expanded(classes[word], inner)
        else:
            found.append(word.lower() if _NAME.fullmatch(word) else word)
    return tuple(found[:MAX_WORDS])


def effective(restrictions: Iterable[str], *, permitting: tuple[str, ...] = ("permit",)) -> Iterator[str]:
    """Without what stands behind a word that ends the list, and without what only warns.

    What permits is not a rejection: `warn_if_reject permit` permits. Names that begin with one of `permitting` stay.
    """
    previous = ""
    for word in restrictions:
        if previous != "warn_if_reject" or word.startswith(permitting):
            yield word
            if word in ENDS:
                return
        previous = word


def stops_relaying(restrictions: Iterable[str]) -> bool:
    """Whether a stranger's mail for elsewhere is refused in this list, and not permitted before."""
    return reaches(restrictions, BARRIERS)


def reaches(restrictions: Iterable[str], wanted: Iterable[str], *, before: Iterable[str] = ("permit",)) -> bool:
    """Whether one of the wanted restrictions stands in the list, before any of those that would end it.

    `warn_if_reject` in front of one takes its effect away.
    """
    wanted, ends = frozenset(wanted), frozenset(before)
    for word in effective(restrictions):
        if word in wanted:
            return True
        if word in ends:
            return False
    return False
