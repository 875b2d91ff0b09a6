"""Logins and addresses in the one form in which they are compared.

What counts as the same name, from the octets on:
- UTF-8, in Unicode's normal form C: canonically equivalent spellings are one name. Nothing else is mapped: full-width
  letters and ligatures stay other names, unlike in SASLprep (RFC 4013 §2.2) and PRECIS (RFC 8265 §3.3), since the
  mail server's tables hold them as other accounts.
- The domain is an A-label (domain.py), so that `US.TEST` is `us.test` and a U-label is its A-label.
- Case: each name has an `exact` and a `folded` form (lower case, RFC 8265 §3.3). `folded` finds an account only where
  no two accounts share it; with two, the exact one has to match (accounts.py). Two names in lower case never share a
  folded form, and outside the ASCII letters only U+212A (whose normal form is K) comes to be one of them.
- A login is never shortened: `alice+tag` is an account of its own. An address may be, by `without_tag`.

A login or an address with control, format (but for the joiners of a U-label), private or unassigned characters, that
is empty, not UTF-8 or longer than any account is *unusable*: it has authenticated, but stands for nobody. Pure; safe
to share between threads.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import Enum

from mailguard.domain import Domain
from mailguard.errors import DomainError

__all__ = [
    "Address",
    "Login",
    "LoginCase",
    "LoginRules",
    "Unusable",
    "UnusableReason",
    "folded_text",
    "parse_address",
    "without_tag",
]

# RFC 5321 §4.5.3.1: 64 octets, "@" and 255 octets; the rest is for logins that are no addresses.
MAX_NAME_BYTES = 512
# What an error text shows of a name that is unusable.
MAX_SHOWN_CHARS = 64

# Controls, format characters (zero width, direction), surrogates, private use, unassigned, spaces, line ends.
_UNUSABLE_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp", "Zs"})
# Format characters that a U-label may have (RFC 5892, CONTEXTJ); Persian names do.
_JOINERS = frozenset("\u200c\u200d")
# RFC 5322 §3.2.3 specials: outside quotes they would be syntax.
_SPECIALS = frozenset('()<>[]:;@\\,"')
# As Postfix: the addresses of the mail system have no tag, whatever the delimiter.
_NEVER_SPLIT = frozenset({"postmaster", "mailer-daemon", "double-bounce"})


class LoginCase(Enum):
    """Whether logins that differ in case alone can be one account."""

    IGNORED = "ignored"
    SIGNIFICANT = "significant"


class UnusableReason(Enum):
    """Why a login or an address stands for nobody."""

    EMPTY = "empty"
    TOO_LONG = "too-long"
    NOT_UTF8 = "not-utf-8"
    CHARACTER = "character"
    SYNTAX = "syntax"


@dataclass(frozen=True, slots=True)
class Unusable:
    """A login or an address that no table can hold. `shown` is its beginning in printable ASCII."""

    reason: UnusableReason
    detail: str
    shown: str


@dataclass(frozen=True, slots=True)
class Login:
    """The name of an account. Compare `exact`; `folded` where accounts.py or a single answer allows it."""

    exact: str
    folded: str
    domain: Domain | None = field(default=None, compare=False)
    """What follows the last "@", where that is a domain name."""

    def __str__(self) -> str:
        return self.exact

    def texts(self) -> tuple[str, ...]:
        """The ways in which a database may have it written, the likeliest first: case, U-label or A-label."""
        found = {self.exact: None, self.folded: None}
        if self.domain is not None and self.domain != self.domain.unicode:
            for text in tuple(found):
                found[f"{text.rpartition('@')[0]}@{self.domain.unicode}"] = None
        return tuple(found)


@dataclass(frozen=True, slots=True)
class Address:
    """A mailbox without display name; `local_part` without quotes, in normal form C and as it was written."""

    local_part: str
    domain: Domain

    @property
    def exact(self) -> str:
        """`local_part@domain`."""
        return f"{self.local_part}@{self.domain}"

    @property
    def folded(self) -> str:
        """The same in lower case."""
        return f"{folded_text(self.local_part)}@{self.domain}"

    def __str__(self) -> str:
        return self.exact

    def texts(self) -> tuple[str, ...]:
        """As `Login.texts`."""
        return Login(self.exact, self.folded, self.domain).texts()


@dataclass(frozen=True, slots=True)
class LoginRules:
    """How the logins of this host are read."""

    default_domain: Domain | None = None
    """What a login without "@" belongs to; None: to nothing."""
    case: LoginCase = LoginCase.IGNORED

    def login(self, written: bytes | str) -> Login | Unusable:
        """The login that a mail server or a table has written so."""
        text = _text(written)
        if isinstance(text, Unusable):
            return text
        local, at, right = text.rpartition("@")
        domain = None
        if at and not local:
            return _unusable(UnusableReason.SYNTAX, "nothing stands before the @", written)
        if at:
            try:
                domain = Domain.parse(right)
            except DomainError:
                pass  # an account whose name has an "@" and is no address
        elif self.default_domain is not None:
            local, domain = text, self.default_domain
        return self._made(text if domain is None else f"{local}@{domain}", domain)

    def logins(self, written: Iterable[str]) -> Iterator[Login]:
        """Those of a table; what is no login is left out."""
        for each in written:
            login = self.login(each)
            if not isinstance(login, Unusable):
                yield login

    def login_of(self, address: Address) -> Login:
        """The login that is this address."""
        return self._made(address.exact, address.domain)

    def _made(self, exact: str, domain: Domain | None) -> Login:
        return Login(exact, exact if self.case is LoginCase.SIGNIFICANT else folded_text(exact), domain)


def parse_address(written: bytes | str) -> Address | Unusable:
    """An address as in MAIL FROM, without angle brackets and source route; its local part may be quoted."""
    text = _text(written)
    if isinstance(text, Unusable):
        return text
    local, at, right = text.rpartition("@")
    if not at:
        return _unusable(UnusableReason.SYNTAX, "there is no @", text)
    try:
        domain = Domain.parse(right)
    except DomainError as error:
        return _unusable(UnusableReason.SYNTAX, f"behind the @: {error}", text)
    if local.startswith('"'):
        unquoted = _unquoted(local)
        if unquoted is None:
            return _unusable(UnusableReason.SYNTAX, "its quotes are not closed", text)
        local = unquoted
    elif " " in local or not _SPECIALS.isdisjoint(local):
        return _unusable(UnusableReason.SYNTAX, "what stands before the @ needs quotes", text)
    if not local:
        # In a table, "@domain" is the whole domain.
        return _unusable(UnusableReason.SYNTAX, "nothing stands before the @", text)
    return Address(local, domain)


def without_tag(address: Address, delimiters: str) -> Address | None:
    """The address up to the first of `delimiters`, as Postfix's recipient_delimiter has it; None if it has no tag."""
    local = address.local_part
    cut = next((place for place, character in enumerate(local) if character in delimiters), 0)
    if cut == 0 or folded_text(local) in _NEVER_SPLIT:
        return None
    if "-" in delimiters and (folded_text(local).startswith("owner-") or folded_text(local).endswith("-request")):
        return None
    return Address(local[:cut], address.domain)


def _text(written: bytes | str) -> str | Unusable:
    try:
        octets = written.encode("utf-8") if isinstance(written, str) else written
        text = octets.decode("utf-8") if len(octets) <= MAX_NAME_BYTES else ""
    except UnicodeError:
        return _unusable(UnusableReason.NOT_UTF8, "it is not UTF-8", written)
    if not octets:
        return _unusable(UnusableReason.EMPTY, "it is empty", written)
    if not text:
        return _unusable(UnusableReason.TOO_LONG, f"it has more than {MAX_NAME_BYTES} octets", written)
    if text.isascii() and text.isprintable():
        return text
    if not _JOINERS.isdisjoint(text):
        text = _with_a_labels(text)
    for character in text:
        if unicodedata.category(character) in _UNUSABLE_CATEGORIES and character != " ":
            return _unusable(UnusableReason.CHARACTER, f"it has the character U+{ord(character):04X}", written)
    return unicodedata.normalize("NFC", text)


def _with_a_labels(text: str) -> str:
    local, at, right = text.rpartition("@")
    try:
        return f"{local}@{Domain.parse(right)}" if at else text
    except DomainError:
        return text


def folded_text(text: str) -> str:
    """Text in normal form C in the form that does not tell case apart."""
    return text.lower() if text.isascii() else unicodedata.normalize("NFC", text.lower())


def _unquoted(local: str) -> str | None:
    """RFC 5321 §4.1.2: what a quoted string means, None if it is not one."""
    inside = local[1:-1] if len(local) > 1 and local.endswith('"') else None
    if inside is None:
        return None
    plain, characters = "", iter(inside)
    for character in characters:
        if character == '"':
            return None
        if character == "\\":
            quoted = next(characters, None)
            if quoted is None:
                return None
            character = quoted
        plain += character
    return plain


def _unusable(reason: UnusableReason, detail: str, written: bytes | str) -> Unusable:
    octets = written if isinstance(written, bytes) else written.encode("utf-8", "backslashreplace")
    start = octets[: MAX_SHOWN_CHARS + 1].decode("utf-8", "backslashreplace")
    shown = start.encode("unicode_escape").decode("ascii")
    return Unusable(reason, detail, shown if len(shown) <= MAX_SHOWN_CHARS else shown[:MAX_SHOWN_CHARS] + "...")
