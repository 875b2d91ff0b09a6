"""SPF macros (RFC 7208 §7): `%{l}`, `%{ir}`, `%{d2}`, and the domain-spec, which may have them.

Reading and expanding are linear in the input. Left out: what a letter stands for; the caller says so. Pure; values
are frozen and safe to share between threads.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

__all__ = ["DomainSpec", "Macro", "MacroError", "expanded", "parse_macros"]

# RFC 7208 §7.3: 127 must be supported, and no name has more labels. No longer number is ever converted.
MAX_NUMBER_DIGITS = 3

# RFC 7208 §7.3: a longer name is cut from the left to 253 characters; 255 matter, with a dot before and one behind.
MAX_USED_CHARS = 255

_ONLY_IN_EXPLANATIONS = frozenset("crt")
_UNRESERVED = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~")
_LDH = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-")
_PLAIN = {"%%": "%", "%_": " ", "%-": "%20"}
# RFC 7208 §7.1. The last alternative is a "%" that begins nothing.
_PART = re.compile(r"[^%]++|%[%_-]|%\{([slodiphcrtv])([0-9]*+)(r?)([-.+,/_=]*+)\}|%", re.IGNORECASE | re.ASCII)


class MacroError(ValueError):
    """A macro-string or domain-spec that breaks the grammar. The text is ours and says what is wrong."""


@dataclass(frozen=True, slots=True)
class Macro:
    """One `%{...}`."""

    letter: str
    """In lower case."""
    keep: int = 0
    """How many right-hand parts are used; 0 for all."""
    is_reversed: bool = False
    delimiters: str = ""
    """What the value is split at; where it is empty, and neither parts are counted nor reversed, it is not split."""
    is_escaped: bool = False
    """The letter was in upper case: what comes out is URL-escaped."""

    def of(self, value: str) -> str:
        """What stands for the macro where its letter means `value` (RFC 7208 §7.3)."""
        if self.keep or self.is_reversed or self.delimiters:
            delimiters = self.delimiters or "."
            for delimiter in delimiters[1:]:
                value = value.replace(delimiter, delimiters[0])
            parts = value.split(delimiters[0])
            if self.is_reversed:
                parts.reverse()
            # RFC 7208 §7.3: "the parts are rejoined using "." and not the original splitting characters".
            value = ".".join(parts[-self.keep :])
        return _escaped(value) if self.is_escaped else value


def parse_macros(text: str) -> tuple[str | Macro, ...]:
    """The literals and macros of a macro-string. Raises MacroError."""
    return (text,) if "%" not in text else tuple(map(_part, _PART.finditer(text)))


def _part(found: re.Match[str]) -> str | Macro:
    text = found[0]
    letter, digits, reverse, delimiters = found.groups()
    if letter is None:
        if text == "%":
            # RFC 7208 §7.3: "A '%' character not followed by a '{', '%', '-', or '_' character is a syntax error."
            raise MacroError("a percent sign begins no macro")
        return _PLAIN.get(text, text)
    number = digits.lstrip("0")
    if digits and not number:
        # RFC 7208 §7.3: "If a DIGIT is specified, the value MUST be nonzero."
        raise MacroError("a macro asks for 0 parts")
    # RFC 7208 §7.3: "if the value specifies more parts than are available, all the available parts are used".
    keep = int(number) if 0 < len(number) <= MAX_NUMBER_DIGITS else 0
    return Macro(letter.lower(), keep, bool(reverse), "".join(dict.fromkeys(delimiters)), letter.isupper())


def expanded(parts: tuple[str | Macro, ...], value: Callable[[str], str]) -> str:
    """The parts put together; `value(letter)` is what a lower-case letter stands for."""
    return "".join([part if isinstance(part, str) else part.of(value(part.letter)) for part in parts])


@dataclass(frozen=True, slots=True)
class DomainSpec:
    """A domain-spec (RFC 7208 §7.1): the text of a name, perhaps with macros."""

    text: str
    letters: frozenset[str]
    """The macro letters in it, in lower case."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read visible ASCII. Raises MacroError for what is no domain-spec."""
        if "%" not in text:
            _check_end(text)
            return cls(text, frozenset())
        found = list(_PART.finditer(text))
        letters = frozenset(part.letter for part in map(_part, found) if isinstance(part, Macro))
        if letters & _ONLY_IN_EXPLANATIONS:
            # RFC 7208 §7.2: "allowed only in "exp" text".
            raise MacroError("a macro is used that only explanations may have")
        if not found[-1][0].startswith("%"):
            _check_end(found[-1][0])
        return cls(text, letters)

    @property
    def parts(self) -> tuple[str | Macro, ...]:
        """The literals and macros. Not kept: thousands of records are, and in parts they take 30 times the room."""
        return parse_macros(self.text)

    def expanded(self, value: Callable[[str], str]) -> str:
        """The parts put together, or the right-hand part of that which is long enough for every name."""
        pieces: list[str] = []
        length = 0
        for part in reversed(self.parts):
            pieces.append(expanded((part,), value))
            length += len(pieces[-1])
            if length >= MAX_USED_CHARS:
                break
        return "".join(reversed(pieces))

    @property
    def is_literal(self) -> bool:
        """Whether it names the same whatever is checked. `%%` and its kin are taken for macros."""
        return "%" not in self.text


def _check_end(literal: str) -> None:
    """RFC 7208 §7.1, domain-end: a dot and a toplabel."""
    if not literal:
        raise MacroError("a name is missing")
    _, dot, label = literal.removesuffix(".").rpartition(".")
    if "/" in label:
        raise MacroError("a prefix is wrong or too much")
    if not dot or not label or not _LDH.issuperset(label) or label.isdigit() or "-" in (label[0], label[-1]):
        raise MacroError("a name does not end in a top-level domain")


def _escaped(value: str) -> str:
    """RFC 7208 §7.3: URL-escaped but for the unreserved characters (RFC 3986 §2.3)."""
    return "".join([chr(octet) if octet in _UNRESERVED else f"%{octet:02X}" for octet in value.encode("utf-8")])
