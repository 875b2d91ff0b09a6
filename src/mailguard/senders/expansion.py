"""Postfix's %-expansions in the templates of its SQL tables (mysql_table(5), pgsql_table(5), sqlite_table(5)).

%s is the whole key, %u what stands before its last "@" (or all of it), %d what stands behind, %1 to %9 the labels of
that from the right. A key that lacks what the templates ask for is not looked up. Pure; safe to share between
threads.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from mailguard.errors import ConfigError

__all__ = ["Key", "Needs", "Part", "parts_of"]

_DYNAMIC = frozenset("sudSUD123456789")


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of a template: text as it is, or the letter of an expansion."""

    text: str = ""
    letter: str = ""


def parts_of(template: str) -> tuple[Part, ...]:
    """The pieces of a template, `%%` resolved. Raises ConfigError for a "%" that is no expansion."""
    return tuple(_joined(_pieces(template)))


def _pieces(template: str) -> Iterator[Part]:
    characters = iter(template)
    for character in characters:
        if character != "%":
            yield Part(text=character)
            continue
        letter = next(characters, "")
        if letter == "%":
            yield Part(text="%")
        elif letter in _DYNAMIC:
            yield Part(letter=letter)
        else:
            raise ConfigError(f'"%{letter}" is no expansion; a percent sign by itself is written %%')


def _joined(pieces: Iterable[Part]) -> Iterator[Part]:
    text = ""
    for piece in pieces:
        if piece.letter:
            if text:
                yield Part(text=text)
            text = ""
            yield piece
        else:
            text += piece.text
    if text:
        yield Part(text=text)


@dataclass(frozen=True, slots=True)
class Needs:
    """What a key has to have so that it is looked up at all."""

    domain: bool = False
    user: bool = False
    labels: int = 0

    @classmethod
    def of(cls, query: Iterable[Part], result: Iterable[Part] = ()) -> Needs:
        """Those of a query and of a result format; in the latter, lower-case letters speak of the result."""
        letters = {part.letter for part in query} | {part.letter for part in result if not part.letter.islower()}
        labels = max((int(letter) for letter in letters if letter.isdigit()), default=0)
        return cls(domain=bool(letters & {"d", "D"}), user=bool(letters & {"u", "U"}), labels=labels)


@dataclass(frozen=True, slots=True)
class Key:
    """A key of a table: `user@domain`, `user` or `@domain`."""

    text: str

    @property
    def user(self) -> str:
        """%u: the local part, or all of it."""
        return self.text.rpartition("@")[0] if "@" in self.text else self.text

    @property
    def domain(self) -> str:
        """%d; empty if there is none."""
        return self.text.rpartition("@")[2] if "@" in self.text else ""

    def satisfies(self, needs: Needs) -> bool:
        """Whether templates that need this can be filled with it."""
        if needs.domain and not self.domain:
            return False
        if needs.user and self.text.startswith("@") and self.text.count("@") == 1:
            return False
        labels = self.domain.split(".")[-needs.labels :] if needs.labels else []
        return len(labels) == needs.labels and all(labels)

    def filled(self, parts: Iterable[Part]) -> Iterator[tuple[Part, str]]:
        """Each part with its text for this key."""
        for part in parts:
            yield part, self._value(part.letter) if part.letter else part.text

    def _value(self, letter: str) -> str:
        if letter.isdigit():
            return self.domain.split(".")[-int(letter)]
        return {"s": self.text, "u": self.user, "d": self.domain}[letter.lower()]

    def result(self, parts: Iterable[Part], value: str) -> str:
        """A result format filled: lower-case letters are of `value`, the others of this key. Empty: to be skipped."""
        parts = tuple(parts)
        letters = {part.letter for part in parts}
        found = Key(value)
        if not value or ("d" in letters and not found.domain) or ("u" in letters and not found.user):
            return ""
        return "".join(
            part.text if not part.letter else (found if part.letter.islower() else self)._value(part.letter)
            for part in parts
        )
