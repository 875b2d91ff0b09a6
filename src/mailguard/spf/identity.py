"""Who is checked: the HELO name (RFC 7208 §2.3) or the reverse path (RFC 7208 §2.4) as <sender> and <domain>.

What is no host name never becomes a question. Quotes and source routes are read as RFC 5321 §4.1.2 has them; an
address has the domain after its last "@" outside quotes, which is how Postfix reads it. Linear in the input. Pure;
values are frozen and safe to share between threads.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from mailguard.domain import Domain
from mailguard.envelope import Envelope
from mailguard.errors import DomainError
from mailguard.spf.result import SpfIdentity, SpfReason

__all__ = ["Sender", "Unchecked", "helo_text", "read_identity"]

# RFC 5321 §4.5.3.1.3 allows a path of 256 octets; internationalized ones are longer in some forms.
MAX_PATH_OCTETS = 1_024
# RFC 5321 §4.5.3.1.4: a command line has at most 512 octets. What is behind them is left out of %{h}.
MAX_HELO_OCTETS = 512

# RFC 7208 §4.3: "If the <sender> has no local-part, substitute the string "postmaster"".
POSTMASTER = "postmaster"

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
# RFC 5321 §4.1.2, A-d-l: "@a,@b:", which is to be ignored (RFC 5321 §4.1.1.3). Not "*+": before Python 3.11.5 a
# possessive group keeps what a repetition has taken that fails after it.
_ROUTE = re.compile(r"@[^@,:\"\\\[\]()<> ]++(?:,@[^@,:\"\\\[\]()<> ]++)*:")
_WORD_OR_MARK = re.compile(r'[^"@]++|"(?:[^"\\]|\\.)*"|@|"', re.DOTALL)
# ASCII that is in no name; what is beyond ASCII may be an internationalized one.
_NOT_IN_NAMES = re.compile(r"[\x00-,/:-@\[-^`{-\x7f]")


class Sender(NamedTuple):
    """An identity that can be checked."""

    identity: SpfIdentity
    local_part: str
    domain: Domain
    is_null: bool = False
    """The reverse path was empty; the domain is that of HELO (RFC 7208 §2.4)."""


class Unchecked(NamedTuple):
    """Why there is nothing to look up. NO_DOMAIN makes a none, everything else a permerror."""

    identity: SpfIdentity
    reason: SpfReason
    detail: str
    is_null: bool = False


class _NoDomain(Exception):
    def __init__(self, reason: SpfReason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


def read_identity(envelope: Envelope, identity: SpfIdentity) -> Sender | Unchecked:
    """What `identity` of the envelope names."""
    if identity is SpfIdentity.HELO:
        return _helo(envelope, identity)
    as_read = envelope.mail_from_as_read
    # RFC 7208 §2.4: with a null reverse path, MAIL FROM means postmaster at the HELO name. What the mail server
    # delivers with a null path is such a message, whatever its client wrote.
    if as_read == b"" or (as_read is None and not envelope.mail_from):
        return _helo(envelope, identity, is_null=True)
    found = _mail_from(envelope.mail_from)
    if as_read is not None and not _is_domain_of(as_read, found):
        return Unchecked(
            identity, SpfReason.SENDER_DISPUTED, "the mail server reads another domain in the reverse path than we do"
        )
    return found


def helo_text(envelope: Envelope) -> str:
    """The HELO name for the macro %{h}, whatever it holds; bounded. A domain name has A-labels."""
    text = envelope.helo[:MAX_HELO_OCTETS].decode("utf-8", "replace")
    if text.isascii():
        return text
    try:
        # RFC 8616 §4: "All U-labels MUST be converted to A-labels before being used for an SPF validation."
        return Domain.parse_any(text.removesuffix("."))
    except DomainError:
        return text


def _helo(envelope: Envelope, identity: SpfIdentity, *, is_null: bool = False) -> Sender | Unchecked:
    try:
        domain = _domain(envelope.helo.decode("utf-8"), "the HELO name")
    except UnicodeDecodeError:
        return Unchecked(identity, SpfReason.NO_DOMAIN, "the HELO name is not UTF-8", is_null)
    except _NoDomain as error:
        # RFC 7208 §2.3: HELO may hold anything, such as an address literal; then there is nothing to check.
        return Unchecked(identity, SpfReason.NO_DOMAIN, error.detail, is_null)
    return Sender(identity, POSTMASTER, domain, is_null)


def _mail_from(path: bytes) -> Sender | Unchecked:
    identity = SpfIdentity.MAIL_FROM
    try:
        text = _path_text(path)
        at = _last_at(text)
        if at < 0:
            raise _NoDomain(SpfReason.NO_DOMAIN, "the reverse path has no domain")
        domain = _domain(text[at + 1 :], "the domain of the reverse path")
    except _NoDomain as error:
        return Unchecked(identity, error.reason, error.detail)
    return Sender(identity, text[:at] or POSTMASTER, domain)


def _path_text(path: bytes) -> str:
    if len(path) > MAX_PATH_OCTETS:
        raise _NoDomain(SpfReason.SENDER_SYNTAX, "the reverse path is too long")
    try:
        # RFC 6531 §3.3: beyond ASCII an address is UTF-8.
        text = path.decode("utf-8")
    except UnicodeDecodeError:
        raise _NoDomain(SpfReason.SENDER_SYNTAX, "the reverse path is not UTF-8") from None
    if _CONTROL.search(text):
        raise _NoDomain(SpfReason.SENDER_SYNTAX, "the reverse path has a control character")
    route = _ROUTE.match(text) if text.startswith("@") else None
    return text[route.end() :] if route else text


def _last_at(text: str) -> int:
    """Where the last "@" outside quotes is; -1 for none."""
    if '"' not in text:
        return text.rfind("@")
    at = -1
    for found in _WORD_OR_MARK.finditer(text):
        if found[0] == '"':
            raise _NoDomain(SpfReason.SENDER_SYNTAX, "the reverse path has a quote that is not closed")
        if found[0] == "@":
            at = found.start()
    return at


def _domain(text: str, what: str) -> Domain:
    try:
        # RFC 7208 §4.3 calls a zero-length label malformed only where it is "not at the end". It speaks of names in
        # the DNS: hosts and bounce domains with "_" do send mail, and publish records.
        domain = Domain.parse_any(text.removesuffix("."))
    except DomainError as error:
        raise _no_domain(text, what, error) from None
    _, dot, last = domain.rpartition(".")
    if not dot or last.isdigit():
        # RFC 7208 §4.3: "not a multi-label domain name". Numbers with dots are an address, not a name.
        raise _NoDomain(SpfReason.NO_DOMAIN, f"{what} is no fully qualified domain name")
    return domain


def _no_domain(text: str, what: str, error: DomainError) -> _NoDomain:
    """Why `text` is none."""
    if text.startswith("["):
        return _NoDomain(SpfReason.NO_DOMAIN, f"{what} is an address literal")
    if _NOT_IN_NAMES.search(text):
        return _NoDomain(SpfReason.SENDER_SYNTAX, f"{what} has a character that no domain has")
    return _NoDomain(SpfReason.NO_DOMAIN, f"{what} is malformed: {error}")


def _is_domain_of(as_read: bytes, found: Sender | Unchecked) -> bool:
    """Whether the mail server, whose form of an address has no quotes, reads the domain that was found."""
    try:
        domain = _domain(_path_text(as_read).rpartition("@")[2], "the domain of the reverse path")
    except _NoDomain:
        # Where neither of us finds a domain, nothing is disputed.
        return isinstance(found, Unchecked)
    return isinstance(found, Sender) and found.domain == domain
