"""Mailboxes of an address-list field (RFC 5322 §3.4), for From and its kin.

A linear scanner of our own: the verdict hangs on which domain a From field names, and parsers that guess
are how forgeries get in. What has one reading is read (comments, quoted strings, encoded words of a display name
as plain text, UTF-8 by RFC 6532). What mail readers read differently is a defect, although RFC 5322 has some of it:
a group, a source route, an address literal, a comment between angle brackets, an encoded word in an address, text
after an angle address, a list member without address, a lone backslash.
Three liberties, each with one possible reading: the local part may have misplaced dots, an address may stand
unquoted as display name before an angle address of the same domain, and a display name may have words in
brackets.

Pure; safe to share between threads.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import Enum
from typing import NamedTuple

from mailguard.domain import Domain
from mailguard.errors import DomainError

__all__ = ["AddressDefect", "AddressFlag", "AddressSyntaxError", "Mailbox", "MailboxList", "parse_mailboxes"]

# Deeper nesting than anything written by people; bounded so that no reader of ours or behind us recurses.
MAX_COMMENT_DEPTH = 50
# RFC 5322 sets no number; a From field with more authors than this is not correspondence.
MAX_MAILBOXES = 100
# Postfix cuts a field at 60,000 octets; 100 mailboxes with long names fit in half of that.
MAX_FIELD_BYTES = 32_768

_WORD = re.compile(r'[^ \t()<>@,;:\\"\[\]\x00-\x1f\x7f]++')
_QUOTED = re.compile(r'"[^"\\\x00\r\n]*+(?:\\[^\x00\r\n][^"\\\x00\r\n]*+)*"')
_LITERAL = re.compile(r"\[[^\[\]\\\x00\r\n]*+\]")
_COMMENT_TEXT = re.compile(r"(?:[^()\\\x00\r\n]++|\\[^\x00\r\n])+")
# What nearly every From field is: one address, alone or in angle brackets behind words or a quoted string.
_NAME = rf"(?:{_WORD.pattern}(?: {_WORD.pattern})*|{_QUOTED.pattern})?"
_ADDRESS = rf"({_WORD.pattern})@({_WORD.pattern})"
_USUAL = re.compile(rf"[ \t]*+(?:({_NAME})[ \t]*+<{_ADDRESS}>|{_ADDRESS})[ \t]*+")
_SPECIALS = frozenset("<>@,;:")
# What words in brackets may not have: to a reader that takes brackets for letters it would be syntax.
_SYNTAX = _SPECIALS | frozenset('"()')
# Characters that reorder or hide what is displayed (UAX 9, and the zero-width ones).
_DECEPTIVE = re.compile("[\u061c\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u206f\ufeff]")


class AddressDefect(Enum):
    """Why a field has no one reading."""

    EMPTY = "empty"
    SYNTAX = "syntax"
    NO_ADDRESS = "member-without-address"
    GROUP = "group"
    ROUTE = "source-route"
    ENCODED_WORD = "encoded-word"
    LITERAL = "address-literal"
    DOMAIN = "domain-name"
    NESTING = "comment-nesting"
    SIZE = "size"


class AddressFlag(Enum):
    """What a well-formed field does that a policy may want to know."""

    DISPLAY_NAME_ADDRESS = "display-name-address"
    DECEPTIVE_CHARACTERS = "deceptive-characters"


class AddressSyntaxError(ValueError):
    """Raised by `parse_mailboxes` alone; `Message` turns it into a result."""

    def __init__(self, defect: AddressDefect, detail: str) -> None:
        super().__init__(detail)
        self.defect = defect


class Mailbox(NamedTuple):
    """One mailbox. `local_part` is as written, quotes included; `display_name` too, without decoding."""

    local_part: str
    domain: Domain
    display_name: str = ""
    also_written: tuple[str, ...] = ()
    """Addresses of the same domain that stand unquoted before the angle brackets: some readers take those for it."""

    def __str__(self) -> str:
        return f"{self.local_part}@{self.domain}"


class MailboxList(NamedTuple):
    """The mailboxes of one field, in order."""

    mailboxes: tuple[Mailbox, ...]
    flags: frozenset[AddressFlag] = frozenset()


class _Kind(Enum):
    WORD = "word"
    QUOTED = "quoted"
    LITERAL = "literal"
    SPECIAL = "special"
    END = "end"


class _Token(NamedTuple):
    kind: _Kind
    text: str

    def is_special(self, characters: str) -> bool:
        return self.kind is _Kind.SPECIAL and self.text in characters

    @property
    def names_a_local_part(self) -> bool:
        return self.kind in (_Kind.WORD, _Kind.QUOTED)


_END = _Token(_Kind.END, "")


def parse_mailboxes(value: bytes) -> MailboxList:
    """The mailboxes in `value`: the octets after the colon of an address-list field, CRLF folds.

    Raises AddressSyntaxError for a field without exactly one reading.
    """
    if len(value) > MAX_FIELD_BYTES:
        raise AddressSyntaxError(AddressDefect.SIZE, f"the field has more than {MAX_FIELD_BYTES} octets")
    # Unfolding (RFC 5322 §2.2.3). A CRLF that is no fold stays, and does not belong into any word.
    unfolded = value.replace(b"\r\n ", b" ").replace(b"\r\n\t", b"\t")
    text = unfolded.decode("utf-8", "surrogateescape")
    mailboxes = _usual(text) or tuple(_Parser(text).members())
    if not mailboxes:
        raise AddressSyntaxError(AddressDefect.EMPTY, "the field names no mailbox")
    flags = set()
    # A display name is part of the text: most fields have one "@", that of the address.
    if text.count("@") > 1 and any("@" in mailbox.display_name for mailbox in mailboxes):
        flags.add(AddressFlag.DISPLAY_NAME_ADDRESS)
    if not text.isascii() and _DECEPTIVE.search(text):
        flags.add(AddressFlag.DECEPTIVE_CHARACTERS)
    return MailboxList(mailboxes, frozenset(flags))


def _usual(text: str) -> tuple[Mailbox, ...]:
    """The mailbox of a field in the usual form, as `_Parser` reads it; none where the form or the address differs."""
    match = _USUAL.fullmatch(text)
    if match is None:
        return ()
    name, local_part, domain, bare_local_part, bare_domain = match.groups(default="")
    if "=?" in local_part or "=?" in bare_local_part:
        return ()
    try:
        return (Mailbox(local_part or bare_local_part, Domain.parse(domain or bare_domain), name),)
    except DomainError:
        return ()


def _tokens(text: str) -> Iterator[_Token]:
    position = 0
    in_angle_brackets = False
    while position < len(text):
        character = text[position]
        if character in " \t":
            position += 1
        elif character == "(":
            if in_angle_brackets:
                raise AddressSyntaxError(AddressDefect.SYNTAX, "a comment stands between angle brackets")
            position = _skip_comment(text, position)
        elif character in _SPECIALS:
            position += 1
            if character in "<>":
                in_angle_brackets = character == "<"
            yield _Token(_Kind.SPECIAL, character)
        else:
            kind, pattern = {'"': (_Kind.QUOTED, _QUOTED), "[": (_Kind.LITERAL, _LITERAL)}.get(
                character, (_Kind.WORD, _WORD)
            )
            match = pattern.match(text, position)
            if match is None:
                raise AddressSyntaxError(AddressDefect.SYNTAX, f"{_name(character)} does not belong here")
            position = match.end()
            yield _Token(kind, match[0])
    yield _END


def _name(character: str) -> str:
    names = {'"': "an unclosed quoted string", "[": "an unclosed bracket", "\\": "a backslash outside quotes"}
    return names.get(character) or f"the character U+{ord(character):04X}"


def _skip_comment(text: str, position: int) -> int:
    """RFC 5322 §3.2.2: the position behind the comment that begins at `position`."""
    depth = 0
    while position < len(text):
        character = text[position]
        if character == "(":
            depth += 1
            if depth > MAX_COMMENT_DEPTH:
                raise AddressSyntaxError(AddressDefect.NESTING, f"comments nest deeper than {MAX_COMMENT_DEPTH}")
            position += 1
        elif character == ")":
            depth -= 1
            position += 1
            if depth == 0:
                return position
        else:
            match = _COMMENT_TEXT.match(text, position)
            if match is None:
                break
            position = match.end()
    raise AddressSyntaxError(AddressDefect.SYNTAX, "a comment is not closed")


class _Parser:
    """One pass over the tokens with one token of look-ahead."""

    def __init__(self, text: str) -> None:
        self._source = _tokens(text)
        self._next = next(self._source)

    def _take(self) -> _Token:
        token = self._next
        self._next = next(self._source, _END)
        return token

    def members(self) -> Iterator[Mailbox]:
        """RFC 5322 §3.4 mailbox-list, with the empty members of RFC 5322 §4.4 obs-mbox-list."""
        number = 0
        while True:
            mailbox = self._member()
            if mailbox is not None:
                number += 1
                if number > MAX_MAILBOXES:
                    raise AddressSyntaxError(AddressDefect.SIZE, f"more than {MAX_MAILBOXES} mailboxes")
                yield mailbox
            if self._take().kind is _Kind.END:
                return

    def _member(self) -> Mailbox | None:
        """One member, up to the comma or the end, which stays the next token."""
        phrase: list[str] = []
        bare: list[Mailbox] = []
        while True:
            token = self._next
            if token.kind is _Kind.END or token.is_special(","):
                if not phrase and not bare:
                    return None
                if phrase or len(bare) != 1:
                    raise AddressSyntaxError(AddressDefect.NO_ADDRESS, "a list member is not an address")
                return bare[0]
            self._take()
            if token.is_special("<"):
                return self._angle_address(phrase, bare)
            if token.names_a_local_part and self._next.is_special("@"):
                bare.append(self._address_after(token))
                continue
            if token.kind is _Kind.SPECIAL:
                if token.text in ":;":
                    raise AddressSyntaxError(AddressDefect.GROUP, "the field has group syntax")
                raise AddressSyntaxError(AddressDefect.SYNTAX, f'"{token.text}" does not belong here')
            if token.kind is _Kind.LITERAL and not _SYNTAX.isdisjoint(token.text):
                raise AddressSyntaxError(AddressDefect.SYNTAX, "a display name has an address in brackets")
            phrase.append(token.text)

    def _angle_address(self, phrase: list[str], bare: list[Mailbox]) -> Mailbox:
        """RFC 5322 §3.4 angle-addr; its "<" is taken."""
        if self._next.is_special("@"):
            raise AddressSyntaxError(AddressDefect.ROUTE, "the address has a source route")  # RFC 5322 §4.4
        first = self._take()
        if not first.names_a_local_part or not self._next.is_special("@"):
            raise AddressSyntaxError(AddressDefect.SYNTAX, "there is no address between the angle brackets")
        found = self._address_after(first)
        if not self._take().is_special(">"):
            raise AddressSyntaxError(AddressDefect.SYNTAX, "text follows the address between the angle brackets")
        if self._next.kind is not _Kind.END and not self._next.is_special(","):
            raise AddressSyntaxError(AddressDefect.SYNTAX, "text follows an angle address")
        for shown in bare:
            if shown.domain != found.domain:
                raise AddressSyntaxError(AddressDefect.SYNTAX, "an unquoted display name is another domain's address")
        written = tuple(map(str, bare))
        return Mailbox(found.local_part, found.domain, " ".join([*written, *phrase]), written)

    def _address_after(self, local_part: _Token) -> Mailbox:
        self._take()  # the "@"
        if "=?" in local_part.text:
            # RFC 2047 §5: no encoded word in an addr-spec. Readers that decode it first see another address.
            raise AddressSyntaxError(AddressDefect.ENCODED_WORD, "an address has an encoded word")
        return Mailbox(local_part.text, self._domain())

    def _domain(self) -> Domain:
        token = self._take()
        if token.kind is _Kind.LITERAL:
            raise AddressSyntaxError(AddressDefect.LITERAL, "an address literal is not a domain")
        if token.kind is not _Kind.WORD:
            raise AddressSyntaxError(AddressDefect.SYNTAX, "there is no domain behind an @")
        try:
            return Domain.parse(token.text)
        except DomainError as error:
            raise AddressSyntaxError(AddressDefect.DOMAIN, f"the domain of an address: {error}") from None
