"""The query of a Postfix SQL table, turned into one statement with bound values.

Postfix pastes the escaped key between the quotes that the administrator has written. Here each quoted text in which
an expansion stands becomes one bound value, so that nothing of a login or an address is ever part of the statement,
and the answer is that of the pasted query. What cannot be turned so is refused, with the reason: an expansion outside
quotes or in an identifier, a comment or a regular expression, and what is no single SELECT. In a LIKE pattern, what
the key brings along of `%` and `_` stands for itself, unlike in Postfix: an address does not choose which addresses
it matches. Of a key with letters beyond ASCII there is a second statement, which holds it against the columns letter
for letter: to most collations `ü` is `u`, and `müller.test` another tenant's `muller.test`. Pure; safe to share
between threads.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from mailguard.errors import ConfigError
from mailguard.senders.dialect import Dialect
from mailguard.senders.expansion import Key, Needs, Part, parts_of

__all__ = ["Query", "parse_query"]

# Postfix reads a line of main.cf of any length; a query of a mail server has some hundred characters.
MAX_QUERY_CHARS = 16_384
# It has no meaning of its own in any of the three systems' patterns.
_ESCAPE = "!"
_PATTERN_OPERATORS = frozenset({"like", "ilike"})
_EXPRESSION_OPERATORS = frozenset({"glob", "regexp", "rlike", "match", "similar", "~"})
# What they make of a text is a number, and no expression.
_COUNTING_CALLS = frozenset({"position", "strpos", "instr", "locate", "length", "char_length"})
_ENDS_OPERAND = frozenset({"and", "or", "union", "where", "order", "group", "having", "limit", "then", "else", ","})
# PostgreSQL cannot tell the type of a bound value that is an argument of these.
_UNTYPED_ARGUMENTS = frozenset({"concat", "concat_ws", "format"})
# The administrator has said himself how the columns are compared.
_COMPARING = frozenset({"collate", "binary"})
# What a clause begins with; in some of them, values are compared with columns, and in the others they are results.
_CLAUSES = frozenset({"select", "from", "where", "on", "group", "having", "order", "limit", "union"})
_COMPARING_CLAUSES = frozenset({"where", "on", "having"})
# E'...', N'...', B'...', X'...' and the end of U&'...'.
_TEXT_PREFIXES = frozenset({"e", "n", "b", "x", "&"})
_FREE_LETTERS = frozenset("suSU")

_TOKEN = re.compile(
    r"(?P<space>\s+)|(?P<comment>--[^\n]*|/\*.*?\*/|\#[^\n]*)|(?P<word>\w+)|(?P<percent>%.?)|(?P<dollar>\$\w*\$)"
    r"|(?P<quote>['\"`])|(?P<other>.)",
    re.DOTALL,
)


class _Token(NamedTuple):
    kind: str
    text: str


@dataclass(frozen=True, slots=True)
class _Value:
    """A bound value: the quoted text, of which `escaped` says that it is a LIKE pattern."""

    parts: tuple[Part, ...]
    escaped: bool

    def of(self, key: Key) -> str:
        texts = key.filled(self.parts)
        if not self.escaped:
            return "".join(text for _, text in texts)
        return "".join(
            re.sub(r"[!%_]", r"!\g<0>", text) if part.letter else text.replace(_ESCAPE, _ESCAPE * 2)
            for part, text in texts
        )


@dataclass(frozen=True, slots=True)
class Query:
    """A statement as the driver takes it, and its values in order."""

    statement: str
    exact_statement: str
    """The same with its values compared letter for letter, as far as that can be asked for."""
    needs: Needs
    _values: tuple[_Value, ...] = ()

    def values(self, key: Key) -> tuple[str, ...]:
        """The values for a key that satisfies `needs`."""
        return tuple(value.of(key) for value in self._values)


def parse_query(template: str, dialect: Dialect, *, result_format: str = "%s") -> Query:
    """Raises ConfigError for a template that cannot be turned into a statement with bound values."""
    if len(template) > MAX_QUERY_CHARS:
        raise ConfigError(f"the query has more than {MAX_QUERY_CHARS} characters")
    return _Parser(template, dialect).query(parts_of(result_format))


class _Parser:
    """One pass over the tokens of a template."""

    def __init__(self, template: str, dialect: Dialect) -> None:
        self._dialect = dialect
        self._tokens = list(_tokens(template, dialect))
        self._statement = ""
        self._exact_statement = ""
        self._values: list[_Value] = []
        # The word before each open parenthesis.
        self._calls: list[str] = []
        # In which clause the text stands, at each depth.
        self._clauses = [""]
        self._word = ""
        # The depth at which the operand of a pattern operator stands, and whether that operator is LIKE.
        self._operand_depth: int | None = None
        self._is_like = False

    def query(self, result: tuple[Part, ...]) -> Query:
        self._check_kind()
        for place, token in enumerate(self._tokens):
            if token.kind == "quoted":
                self._quoted(token.text, place)
            else:
                self._follow(token)
                self._add(self._static(token))
        parts = [part for value in self._values for part in value.parts]
        if not any(part.letter for part in parts):
            raise ConfigError("the query has none of %s, %u and %d: every address would have the same owners")
        statement = self._statement.strip()
        is_compared = any(token.kind == "word" and token.text.lower() in _COMPARING for token in self._tokens)
        exact = statement if is_compared else self._exact_statement.strip()
        return Query(statement, exact, Needs.of(parts, result), tuple(self._values))

    def _add(self, text: str, exact: str = "") -> None:
        self._statement += text
        self._exact_statement += exact or text

    def _check_kind(self) -> None:
        words = [token.text for token in self._tokens if token.kind not in ("space", "comment")]
        while words and words[-1] == ";":
            words.pop()
        if ";" in words:
            raise ConfigError("the query is more than one statement")
        first = next((word.lower() for word in words if word != "("), "")
        if first == "call":
            raise ConfigError("stored procedures are not called; write the SELECT that it contains")
        if first not in ("select", "with"):
            raise ConfigError("the query is no SELECT")

    def _follow(self, token: _Token) -> None:
        """Keep track of what a quoted text that follows would be."""
        word = token.text.lower()
        if token.kind in ("space", "comment"):
            return
        if word == "(":
            self._calls.append(self._word)
            self._clauses.append(self._clauses[-1])
        elif word == ")" and self._calls:
            self._calls.pop()
            self._clauses.pop()
        elif word in _CLAUSES and (word != "on" or self._clauses[-1] == "from"):
            self._clauses[-1] = word
        depth = len(self._calls)
        at = self._operand_depth
        if at is not None and (depth < at or (depth == at and word in _ENDS_OPERAND)):
            self._operand_depth = None
        if word in _PATTERN_OPERATORS or word in _EXPRESSION_OPERATORS:
            self._operand_depth = depth
            self._is_like = word in _PATTERN_OPERATORS
        elif self._operand_depth is None and self._calls and _is_before_expression(self._calls[-1], word):
            self._operand_depth, self._is_like = depth, False
        self._word = word

    def _static(self, token: _Token) -> str:
        if token.text == ";":
            return ""
        parts = parts_of(token.text)
        if any(part.letter for part in parts):
            raise ConfigError(f"\"{token.text}\": an expansion stands outside of quotes; write it as '%s'")
        if token.kind == "comment":
            if token.text.startswith("/*!"):
                raise ConfigError(f"{token.text}: a comment that MySQL executes is not read")
            return " "
        return self._dialect.written("".join(part.text for part in parts), is_quoted=token.kind == "quoted")

    def _quoted(self, text: str, place: int) -> None:
        inside = parts_of(text[1:-1])
        if not any(part.letter for part in inside):
            self._add(self._static(_Token("quoted", text)))
            self._word = text
            return
        quote = text[0]
        if quote == "`" or (quote == '"' and self._dialect is Dialect.POSTGRESQL):
            raise ConfigError(f"{text}: an expansion stands in the name of a column; a text has single quotes")
        if "\\" in text:
            raise ConfigError(f"{text}: a backslash stands beside an expansion")
        if self._word in _TEXT_PREFIXES:
            raise ConfigError(f"{text}: an expansion stands in a text with a prefix; write it without the prefix")
        parts = tuple(Part(part.text.replace(quote * 2, quote), part.letter) for part in inside)
        escaped = False
        if self._operand_depth is not None and not (self._calls and self._calls[-1] in _COUNTING_CALLS):
            escaped = self._is_pattern(text, place, parts)
        self._values.append(_Value(parts, escaped))
        value = self._dialect.placeholder
        if self._dialect is Dialect.POSTGRESQL and self._calls and self._calls[-1] in _UNTYPED_ARGUMENTS:
            value += "::text"
        self._add(value, self._dialect.exactly(value) if self._clauses[-1] in _COMPARING_CLAUSES else value)
        if escaped:
            self._add(f" ESCAPE '{_ESCAPE}'")
        self._word = text

    def _is_pattern(self, text: str, place: int, parts: tuple[Part, ...]) -> bool:
        """Whether the text is a LIKE pattern as a whole. Refuses other patterns with what a sender chooses freely."""
        if self._is_like and self._word in _PATTERN_OPERATORS:
            following = (token for token in self._tokens[place + 1 :] if token.kind not in ("space", "comment"))
            if next(following, _Token("", "")).text.lower() == "escape":
                raise ConfigError(f"{text}: the pattern has an ESCAPE of its own; write it without")
            return True
        # A domain has no character that means something in a LIKE pattern.
        if not self._is_like or any(part.letter in _FREE_LETTERS for part in parts if part.letter):
            raise ConfigError(f"{text}: what a sender writes would be part of a pattern; compare with = or LIKE '%s'")
        return False


def _is_before_expression(function: str, word: str) -> bool:
    """Whether a regular expression follows `word`: behind its subject. PostgreSQL's substring() takes one as well."""
    return word == "," if function.startswith("regexp_") else function == "substring" and word in (",", "from")


def _tokens(template: str, dialect: Dialect) -> Iterator[_Token]:
    place, before = 0, ""
    while place < len(template):
        match = _TOKEN.match(template, place)
        # Its last alternative takes any character.
        token = _Token(str(match.lastgroup), match[0]) if match else _Token("other", template[place])
        if token.kind == "quote":
            token = _Token("quoted", _quoted_text(template, place, dialect, before))
        elif token.kind == "comment" and token.text.startswith("#") and dialect is not Dialect.MYSQL:
            token = _Token("other", "#")
        elif token.kind == "dollar" and dialect is Dialect.POSTGRESQL:
            raise ConfigError(f"{token.text}: texts between dollar signs are not read; write them in single quotes")
        yield token
        place += len(token.text)
        before = token.text


def _quoted_text(template: str, start: int, dialect: Dialect, before: str) -> str:
    """The quoted text that begins at `start`, with its quotes."""
    quote, place = template[start], start + 1
    # PostgreSQL has backslashes in E'...' alone.
    has_backslashes = quote != "`" and (
        dialect is Dialect.MYSQL or (dialect is Dialect.POSTGRESQL and before.lower() == "e")
    )
    while place < len(template):
        if template[place] == "\\" and has_backslashes:
            place += 2
        elif template[place] != quote:
            place += 1
        elif template[place + 1 : place + 2] == quote:
            place += 2
        else:
            return template[start : place + 1]
    raise ConfigError(f"{template[start:][:40]}: the quotes are not closed")
