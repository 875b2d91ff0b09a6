"""The DKIM-Signature field (RFC 6376 §3.5), read and checked as far as that needs no key and no body.

Pure; a `Signature` is frozen and safe to share between threads.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from mailguard.dkim.canonical import BodyRequest, Canonicalization
from mailguard.dkim.result import DkimReason
from mailguard.dns.question import TXT, Question
from mailguard.domain import MAX_DOMAIN_CHARS, MAX_LABEL_CHARS, Domain
from mailguard.errors import DomainError, TagListError
from mailguard.message import HeaderField
from mailguard.taglist import TagList, base64_octets

__all__ = ["Signature", "SignatureError", "claimed_domain", "key_name", "own_selector", "parse_selector"]

FIELD_KEY = b"dkim-signature"
ALGORITHMS = {"rsa-sha256": "rsa", "ed25519-sha256": "ed25519"}
"""RFC 8301 §3.1 and RFC 8463 §3: the algorithms that may verify, and the key type that each wants."""

# RSA with the largest key that is accepted (8192 bits) makes 1024 octets.
MAX_SIGNATURE_BYTES = 1024
SHA256_BYTES = 32
# RFC 6376 sets no bound; a header has at most this many fields, and over-signing adds a few.
MAX_SIGNED_NAMES = 1_000
# RFC 6376 §3.5 (t=): values of more than 12 digits may be taken as infinite.
MAX_TIME_DIGITS = 12
INFINITE_TIME = 1_000_000_000_000
MAX_LENGTH_DIGITS = 76  # RFC 6376 §3.5 (l=)
SIGNATURE_PREFIX_CHARS = 8  # RFC 6008 §2

_REQUIRED = dict.fromkeys(("v", "a", "b", "bh", "d", "h", "s"))
_SELECTOR_LABEL = f"[a-z0-9_-]{{1,{MAX_LABEL_CHARS}}}"
_SELECTOR = re.compile(rf"{_SELECTOR_LABEL}(?:\.{_SELECTOR_LABEL})*")
# RFC 6376 §3.5 (c=): one word alone is for the header, the body is then simple.
_CANONICALIZATIONS = {form.value.encode("ascii"): (form, Canonicalization.SIMPLE) for form in Canonicalization} | {
    f"{header.value}/{body.value}".encode("ascii"): (header, body)
    for header in Canonicalization
    for body in Canonicalization
}
_BASE64_OCTETS = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/="
# RFC 5322 §3.6.8 ftext, without the semicolon that ends a tag.
_NAME_OCTETS = bytes(octet for octet in range(0x21, 0x7F) if octet not in b":;")


class SignatureError(ValueError):
    """A field that cannot be verified, whatever the key: RFC 6376 §6.1.1. `detail` is for people."""

    def __init__(self, reason: DkimReason, detail: str, known: Known | None = None) -> None:
        super().__init__(detail)
        self.reason = reason
        self.known = known or Known()


class Known(NamedTuple):
    """What could be read of a signature that is otherwise unusable; for the report."""

    domain: Domain | None = None
    selector: str | None = None
    identity: str | None = None
    algorithm: str | None = None
    signature_prefix: str | None = None


class Signature(NamedTuple):
    """A DKIM-Signature that a key may verify."""

    unsigned_field: HeaderField
    """The field with the value of b= and the white space around it deleted (RFC 6376 §3.7)."""
    known: Known
    """d=, s=, i=, a= and the beginning of b=, for the report."""
    domain: Domain
    identity_domain: Domain
    algorithm: str
    key_question: Question
    """Where the key is published (RFC 6376 §3.6.2.1)."""
    header_canonicalization: Canonicalization
    body: BodyRequest
    signed_names: tuple[bytes, ...]
    """h=, lower case, in order."""
    signature: bytes
    body_hash: bytes
    signed_at: int | None
    """t=, POSIX seconds."""
    expires_at: int | None
    """x=, POSIX seconds."""

    @classmethod
    def parse(cls, field: HeaderField) -> Signature:
        """Read a DKIM-Signature field. Raises SignatureError for what RFC 6376 §6.1.1 tells to ignore."""
        try:
            tags = TagList.parse(field.value)
        except TagListError as error:
            raise SignatureError(DkimReason.SYNTAX, str(error)) from None
        names = _Names(tags)
        try:
            return _parse(field, tags, names)
        except _FieldError as error:
            raise SignatureError(error.reason, str(error), names.known) from None


class _FieldError(ValueError):
    def __init__(self, detail: str, reason: DkimReason = DkimReason.SYNTAX) -> None:
        super().__init__(detail)
        self.reason = reason


def claimed_domain(field: HeaderField) -> str | None:
    """d= of a DKIM-Signature that is not to be read further yet: lower case, A-labels or U-labels as written."""
    try:
        return TagList.parse(field.value).get("d", b"").decode("utf-8").lower()
    except (TagListError, UnicodeDecodeError):
        return None


def key_name(selector: str, domain: str) -> str:
    """RFC 6376 §3.6.2.1: the name at which the key of `selector` and `domain` is published."""
    return f"{selector}._domainkey.{domain}"


def parse_selector(text: str) -> str:
    """s= in lower case, U-labels as A-labels (RFC 8616 §4). Raises DomainError.

    Wider than RFC 6376 §3.1 by the underscore, which published selectors do have.
    """
    selector = text.lower() if text.isascii() else Domain.parse(text)
    if _SELECTOR.fullmatch(selector) is None:
        raise DomainError("a selector's labels have 1 to 63 letters, digits, hyphens or underscores")
    return str(selector)


def own_selector(text: str) -> str:
    """The same for a selector that was typed in, maybe as the name of its record. Raises DomainError."""
    before, separator, _ = text.lower().partition("._domainkey")
    if separator:
        raise DomainError(f'it is what stands before ._domainkey: write "{before}"')
    return parse_selector(text)


def _parse(field: HeaderField, tags: TagList, names: _Names) -> Signature:
    if not tags.keys() >= _REQUIRED.keys():
        missing = next(name for name in _REQUIRED if name not in tags)
        raise _FieldError(f"the tag {missing}= is missing")
    if tags["v"] != b"1":
        raise _FieldError("v= is not 1", DkimReason.VERSION)
    algorithm = names.algorithm
    if algorithm not in ALGORITHMS:
        detail = "a=rsa-sha1 must not be verified" if algorithm == "rsa-sha1" else "a= names an unknown algorithm"
        raise _FieldError(detail, DkimReason.ALGORITHM)  # RFC 8301 §3.1
    domain, identity_domain, key = names.checked()
    header, body = _canonicalizations(tags)
    if "q" in tags and b"dns/txt" not in tags.compact("q").lower().split(b":"):
        raise _FieldError("q= names no known query method", DkimReason.QUERY_METHOD)
    signed_at, expires_at = _time(tags, "t"), _time(tags, "x")
    if signed_at is not None and expires_at is not None and expires_at <= signed_at:
        raise _FieldError("x= is not later than t=")  # RFC 6376 §3.5
    return Signature(
        unsigned_field=HeaderField(field.name, tags.without_value("b"), field.gap),
        known=names.known,
        domain=domain,
        identity_domain=identity_domain,
        algorithm=algorithm,
        key_question=Question(key, TXT),
        header_canonicalization=header,
        body=BodyRequest(body, _length(tags)),
        signed_names=_signed_names(tags["h"]),
        signature=_signature(names.b),
        body_hash=_body_hash(tags),
        signed_at=signed_at,
        expires_at=expires_at,
    )


class _Names:
    """d=, s=, i= and what else a report may name of a signature: read once, the first fault kept."""

    def __init__(self, tags: TagList) -> None:
        self._checked: tuple[Domain, Domain, str] | _FieldError
        domain = selector = identity = None
        try:
            domain = _domain(tags.get("d", b""), "d=")
            selector, key = _selector(tags, domain)
            identity, identity_domain = _identity(tags, domain)
            self._checked = domain, identity_domain, key
        except _FieldError as error:
            self._checked = error
        self.algorithm = algorithm = _text(tags, "a").lower()
        self.b = tags.compact("b") if "b" in tags else b""
        prefix = self.b[:SIGNATURE_PREFIX_CHARS]
        self.known = Known(
            domain,
            selector,
            identity,
            algorithm if algorithm in ALGORITHMS or algorithm == "rsa-sha1" else None,
            prefix.decode("ascii") if prefix and not prefix.translate(None, _BASE64_OCTETS) else None,
        )

    def checked(self) -> tuple[Domain, Domain, str]:
        """d=, the domain of i=, and the name of the key. Raises the fault."""
        if isinstance(self._checked, _FieldError):
            raise self._checked
        return self._checked


def _text(tags: TagList, name: str) -> str:
    return tags.get(name, b"").decode("utf-8", "replace")


def _domain(value: bytes, what: str) -> Domain:
    try:
        return Domain.parse(value)
    except DomainError as error:
        raise _FieldError(f"{what} {error}") from None


def _selector(tags: TagList, domain: Domain) -> tuple[str, str]:
    """s=, and the name at which its key is published."""
    try:
        selector = parse_selector(_text(tags, "s"))
    except DomainError as error:
        raise _FieldError(f"s=: {error}") from None
    name = key_name(selector, domain)
    if len(name) > MAX_DOMAIN_CHARS:
        raise _FieldError("s= and d= make a name that is too long for the DNS")
    return selector, name


def _identity(tags: TagList, domain: Domain) -> tuple[str, Domain]:
    """i= and its domain (RFC 6376 §3.5, RFC 6376 §3.10); "@" and d= by default.

    The local part stays as it is encoded (RFC 6376 §2.11), and may be UTF-8 (RFC 8616 §5).
    """
    if "i" not in tags:
        return f"@{domain}", domain
    local_part, at, name = tags.compact("i").rpartition(b"@")
    if not at:
        raise _FieldError("i= has no @")
    identity_domain = domain if name == tags["d"] else _domain(name, "i=")
    if not identity_domain.is_equal_or_below(domain):
        raise _FieldError("the domain of i= is not that of d= or below it", DkimReason.IDENTITY)
    return f"{local_part.decode('utf-8', 'replace')}@{identity_domain}", identity_domain


def _canonicalizations(tags: TagList) -> tuple[Canonicalization, Canonicalization]:
    found = _CANONICALIZATIONS.get(tags.get("c", b"simple").lower())
    if found is None:
        raise _FieldError("c= names an unknown canonicalization")
    return found


def _digits(tags: TagList, name: str) -> bytes:
    digits = tags[name]
    if not digits.isdigit():
        raise _FieldError(f"{name}= is not a number")
    return digits


def _time(tags: TagList, name: str) -> int | None:
    if name not in tags:
        return None
    digits = _digits(tags, name)
    return int(digits) if len(digits) <= MAX_TIME_DIGITS else INFINITE_TIME


def _length(tags: TagList) -> int | None:
    if "l" not in tags:
        return None
    digits = _digits(tags, "l")
    if len(digits) > MAX_LENGTH_DIGITS:
        raise _FieldError(f"l= has more than {MAX_LENGTH_DIGITS} digits")
    return int(digits)


def _signed_names(listed: bytes) -> tuple[bytes, ...]:
    # bytes.strip() takes no more than the white space of RFC 6376 §2.8: a tag list has no other control characters.
    names = tuple(map(bytes.strip, listed.lower().split(b":", MAX_SIGNED_NAMES + 1)))
    if len(names) > MAX_SIGNED_NAMES:
        raise _FieldError(f"h= lists more than {MAX_SIGNED_NAMES} names")
    if b"" in names or b"".join(names).translate(None, _NAME_OCTETS):
        raise _FieldError("h= has a malformed name")
    if b"from" not in names:
        raise _FieldError("h= does not list From", DkimReason.FROM_UNSIGNED)  # RFC 6376 §5.4
    return names


def _base64(text: bytes, name: str) -> bytes:
    """The octets of a value without white space."""
    try:
        octets = base64_octets(text)
    except ValueError:
        raise _FieldError(f"{name}= is not base64") from None
    if not octets:
        raise _FieldError(f"{name}= is empty")
    return octets


def _signature(text: bytes) -> bytes:
    octets = _base64(text, "b")
    if len(octets) > MAX_SIGNATURE_BYTES:
        raise _FieldError(f"b= has more than {MAX_SIGNATURE_BYTES} octets")
    return octets


def _body_hash(tags: TagList) -> bytes:
    octets = _base64(tags.compact("bh"), "bh")
    if len(octets) != SHA256_BYTES:
        raise _FieldError("bh= is not the length of a SHA-256 digest")
    return octets
