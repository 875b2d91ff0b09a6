"""A manual page as man(7) writes it: text is escaped here, and nowhere else."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator

__all__ = ["Page", "bold", "from_markdown", "italic", "plain"]

# groff_char(7): what would otherwise become another character, or none.
_ESCAPES = str.maketrans(
    {"\\": r"\(rs", "-": r"\-", "'": r"\(aq", "`": r"\(ga", "^": r"\(ha", "~": r"\(ti", '"': r"\(dq"}
)
# Longer lines are for machines; mandoc says so.
LINE_CHARS = 78
_MARK_UP = re.compile(r"`(?P<code>[^`]+)`|\[(?P<link>[^\]]+)\]\((?P<place>[^)]+)\)|\*\*(?P<strong>[^*]+)\*\*")


def plain(text: str) -> str:
    """`text` as it stands."""
    return "".join(c if c.isascii() else rf"\[u{ord(c):04X}]" for c in text.translate(_ESCAPES))


def bold(text: str) -> str:
    return rf"\fB{plain(text)}\fP"


def italic(text: str) -> str:
    return rf"\fI{plain(text)}\fP"


def from_markdown(text: str) -> str:
    """A paragraph of our documents: `code` and **strong** in bold; of a link its text and, elsewhere, its place."""
    parts = []
    end = 0
    for match in _MARK_UP.finditer(text):
        parts.append(plain(text[end : match.start()]))
        if match["link"] is not None:
            place = match["place"]
            parts.append(plain(match["link"] if place.endswith(".md") else f"{match['link']} <{place}>"))
        else:
            parts.append(bold(match["code"] or match["strong"]))
        end = match.end()
    return "".join([*parts, plain(text[end:])])


class Page:
    """A page that grows. What is given as text is escaped already."""

    def __init__(self, name: str, section: int, what: str, *, version: str, date: str) -> None:
        """`name` as it is called, `what` in one sentence, `date` as 2026-11-21."""
        self.file = f"man{section}/{name}.{section}"
        self._lines = [f'.TH "{plain(name.upper())}" {section} {date} "mailguard {plain(version)}"']
        self.heading("NAME")
        self._lines.append(rf"{plain(name)} \- {plain(what.rstrip('.'))}")

    def heading(self, text: str) -> None:
        self._lines.append(f'.SH "{plain(text)}"')

    def paragraph(self, text: str) -> None:
        # After a heading mandoc takes it for one too many.
        if not self._lines[-1].startswith(".SH"):
            self._lines.append(".PP")
        self._lines += _filled(text)

    def lines(self, texts: list[str]) -> None:
        """Lines that stay as they are."""
        self._lines += [".PP", ".nf", *(_harmless(text) for text in texts), ".fi"]

    def item(self, term: str, text: str) -> None:
        """A term, and what it means below it."""
        self._lines += [".TP", _harmless(term), *_filled(text)]

    def text(self) -> str:
        return "\n".join([*self._lines, ""])


def _filled(text: str) -> Iterator[str]:
    lines = textwrap.wrap(text, LINE_CHARS, break_long_words=False, break_on_hyphens=False)
    return (_harmless(line) for line in lines)


def _harmless(line: str) -> str:
    """Not a request, whatever it begins with."""
    return rf"\&{line}" if line.startswith((".", "'")) else line
