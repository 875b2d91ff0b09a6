"""Authentication-Results (RFC 8601): build our field, recognise fields that claim to be ours.

Building is by authres; every value that came from a stranger is checked here before. Recognising what
strangers sent is a linear scan of our own that never trusts the field to be well-formed: authres' parser
recurses. Pure; safe to share between threads.
"""

from __future__ import annotations

import base64
import binascii
import quopri
import re
from collections.abc import Iterable, Sequence

import authres
import authres.core

from mailguard.dkim.result import DkimResult, DkimStatus
from mailguard.domain import Domain
from mailguard.errors import DomainError
from mailguard.message import HeaderField

__all__ = ["FIELD_KEY", "OwnIds", "build"]

FIELD_NAME = b"Authentication-Results"
FIELD_KEY = FIELD_NAME.lower()
MAX_LINE_CHARS = 78  # RFC 5322 §2.1.1
MAX_LOCAL_PART_CHARS = 64  # RFC 5321 §4.5.3.1.1
# RFC 5322 §3.2.3 atext and the dot: what may stand before the "@" of a pvalue without quotes.
_DOT_ATOM = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!#$%&'*+-/=?^_`{|}~.")
_ENCODED_WORD = re.compile(rb"=\?[^?\s]{1,40}\?([bq])\?([^?\s]{0,400})\?=", re.IGNORECASE)
# RFC 2045 §5.1 tspecials and white space end a token.
_TOKEN = re.compile(rb"[^\x00-\x20\x7f()<>@,;:\\\"/\[\]?=]+")
_QUOTED = re.compile(rb'"([^"\\]*+(?:\\.[^"\\]*+)*+)"', re.DOTALL)
_COMMENT_TEXT = re.compile(rb"(?:[^()\\]|\\.)++", re.DOTALL)
_WSP = b" \t\r\n"
# RFC 8601 §2.2: what may stand without quotes as a value, and an address as a pvalue.
_BARE_VALUE = re.compile(r"[!#$%&'*+\-.0-9A-Z^_`a-z{|}~]+")
_BARE_ADDRESS = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~.\-]*@[A-Za-z0-9.\-]+")
_UNPRINTABLE = re.compile(r"[^ -~]")
# A sentence of ours with two of the longest names, and well below the 998 of RFC 5322 §2.1.1.
MAX_VALUE_CHARS = 600


class _Value(authres.core.QuotableValue):  # type: ignore[misc]  # authres has no types
    """A value that is safe whatever it holds: authres itself leaves every value with an "@" unquoted."""

    address: bool
    """Whether local-part@domain may stand without quotes."""

    def __new__(cls, text: str, *, address: bool = False) -> _Value:
        plain = " ".join(_UNPRINTABLE.sub("?", text).split())
        value: _Value = super().__new__(cls, plain[:MAX_VALUE_CHARS] or "unknown")
        value.address = address
        return value

    def quote_if_needed(self) -> str:
        if _BARE_VALUE.fullmatch(self) or (self.address and _BARE_ADDRESS.fullmatch(self)):
            return str(self)
        return '"' + str(self).replace("\\", "\\\\").replace('"', '\\"') + '"'


def build(
    authserv_id: str, *, dkim: Sequence[DkimResult], ignored_signatures: int = 0, malformed: str = ""
) -> HeaderField:
    """Our Authentication-Results field (RFC 8601 §2.2), folded, with its leading space.

    `malformed` is our own sentence saying why no author domain can be judged; it makes a dmarc=permerror.
    """
    results = [_dkim_clause(result, malformed=malformed) for result in dkim]
    if not results:
        results.append(authres.core.DKIMAuthenticationResult(result="none"))
    if ignored_signatures:
        results[-1].result_comment = _comment(
            f"{results[-1].result_comment or ''} {ignored_signatures} further signatures were not verified"
        )
    if malformed:
        # RFC 8601 §2.7.1 has permerror for what cannot be judged however often it is tried.
        clause = authres.core.AuthenticationResult("dmarc", result="permerror")
        clause.reason = _Value(f"malformed message: {malformed}")
        results.append(clause)
    text = str(authres.AuthenticationResultsHeader(authserv_id=authserv_id, results=results).header_value())
    return HeaderField(FIELD_NAME, b" " + _fold(text).encode("ascii"))


def _dkim_clause(result: DkimResult, *, malformed: str) -> authres.core.AuthenticationResult:
    """RFC 8601 §2.7.1, with header.b (RFC 6008) and header.a and header.s (RFC 8601 §2.7.1)."""
    status, detail = result.status, result.detail
    if malformed and status is DkimStatus.PASS:
        # The signature may not cover what makes the message malformed, such as a second From: nobody
        # is to read a pass for a domain beside it. RFC 8601 §2.7.1: "policy", not acceptable by local policy.
        status, detail = DkimStatus.POLICY, "the signature verifies, but the message is malformed"
    notes = [f"{result.key_bits}-bit key"] if result.key_bits else []
    if result.testing:
        notes.append("testing")
    clause = authres.core.DKIMAuthenticationResult(
        result=status.value,
        result_comment=_comment(", ".join(notes)) or None,
        header_d=result.domain,
        header_i=_identity(result.identity),
        header_a=result.algorithm,
        header_s=result.selector,
    )
    if result.signature_prefix:
        clause.properties.append(authres.core.AuthenticationResultProperty("header", "b", result.signature_prefix))
    if status is not DkimStatus.PASS:
        clause.reason = _Value(detail)
    for one in clause.properties:
        one.value = _Value(one.value, address=True)
    return clause


def _comment(text: str) -> str:
    return text.strip().translate({ord(character): None for character in "()\\"})


def _identity(identity: str | None) -> str | None:
    """i= as a pvalue (RFC 8601 §2.2). Its local part is a stranger's text: only a plain one is repeated."""
    if identity is None:
        return None
    local_part, _, domain = identity.rpartition("@")
    plain = len(local_part) <= MAX_LOCAL_PART_CHARS and _DOT_ATOM.issuperset(local_part)
    return f"{local_part}@{domain}" if plain else f"@{domain}"


def _fold(text: str) -> str:
    """Break before words so that lines have at most 78 characters, and after each clause."""
    lines = [""]
    for word in _words(text):
        if lines[-1] and (lines[-1].endswith(";") or len(lines[-1]) + 1 + len(word) >= MAX_LINE_CHARS):
            lines.append(word)
        else:
            lines[-1] = f"{lines[-1]} {word}" if lines[-1] else word
    return "\r\n\t".join(lines)


def _words(text: str) -> Iterable[str]:
    """The text cut at white space outside quoted strings."""
    word = ""
    quoted = False
    for piece in text.split():
        word = f"{word} {piece}" if word else piece
        quoted ^= piece.replace("\\\\", "").replace('\\"', "").count('"') % 2 == 1
        if not quoted:
            yield word
            word = ""
    if word:
        yield word


class OwnIds:
    """The authserv-ids that are ours, and the question whether a field claims one of them (RFC 8601 §5)."""

    def __init__(self, ids: Iterable[str]) -> None:
        self._ids = frozenset(_normal(name.encode("utf-8")) for name in ids)
        # What no parser of ours can make sense of is compared by containment, in U-labels and in A-labels.
        self._octets = tuple(sorted({form for name in ids for form in _forms(name)}))

    def claimed_by(self, value: bytes) -> bool:
        """Whether `value`, the octets after the colon of an Authentication-Results field, claims an id of ours.

        RFC 8601 §5: such a field is removed.
        A field whose id can be read is compared by that id: case, a trailing dot, comments, quotes, a version
        and U-labels make no difference. One that cannot be read is ours if any of our ids occurs in what stands
        before its first semicolon, encoded words decoded: a reader less strict than we might believe it.
        """
        outside, closed = _without_comments(value)
        found = _read_id(outside) if closed else None
        if found is not None and (found.isascii() or _is_domain(found)):
            return _normal(found) in self._ids
        return any(self._occurs_in(text.partition(b";")[0]) for text in ([outside, value] if closed else [value]))

    def _occurs_in(self, text: bytes) -> bool:
        if not b"".join(text.split()):
            return False
        plain = _ENCODED_WORD.sub(lambda word: _decoded(word[1], word[2]), text)
        squeezed = plain.translate(None, _WSP + b'"\\').lower()
        return any(name in squeezed for name in self._octets)


def _normal(name: bytes) -> str:
    """An authserv-id in one comparable form; EAI: U-labels and A-labels are the same (RFC 8601 §2.5)."""
    name = name.removesuffix(b".")
    try:
        return Domain.parse(name)
    except DomainError:
        return name.decode("utf-8", "surrogateescape").lower()


def _is_domain(name: bytes) -> bool:
    try:
        Domain.parse(name.removesuffix(b"."))
    except DomainError:
        return False
    return True


def _forms(name: str) -> set[bytes]:
    normal = _normal(name.encode("utf-8"))
    forms = {name.lower(), normal}
    if isinstance(normal, Domain):
        forms.add(normal.unicode)
    return {form.encode("utf-8", "surrogateescape") for form in forms}


def _without_comments(value: bytes) -> tuple[bytes, bool]:
    """`value` up to its first semicolon outside comments and quotes, comments left out; whether all are closed."""
    kept: list[bytes] = []
    position, depth = 0, 0
    while position < len(value):
        octet = value[position : position + 1]
        if octet == b"(":
            depth, position = depth + 1, position + 1
        elif depth and octet == b")":
            depth, position = depth - 1, position + 1
        elif depth:
            match = _COMMENT_TEXT.match(value, position)
            position = match.end() if match else position + 1
        elif octet == b";":
            break
        else:
            match = (_QUOTED if octet == b'"' else _TOKEN).match(value, position)
            if match is None and octet == b'"':
                return b"", False  # nothing closes this quote: trying the next one would be quadratic
            end = match.end() if match else position + 1
            kept.append(value[position:end])
            position = end
    return b"".join(kept), depth == 0


def _read_id(text: bytes) -> bytes | None:
    """The authserv-id in `text`, which must hold nothing else but a version number (RFC 8601 §2.2), else None."""
    text = text.strip(_WSP)
    quoted = _QUOTED.match(text)
    match = quoted or _TOKEN.match(text)
    if match is None:
        return None
    rest = text[match.end() :]
    if rest and (rest[:1] not in (b" ", b"\t", b"\r") or not rest.strip(_WSP).isdigit()):
        return None
    return re.sub(rb"\\(.)", rb"\1", quoted[1], flags=re.DOTALL) if quoted else match[0]


def _decoded(encoding: bytes, text: bytes) -> bytes:
    """One encoded word (RFC 2047 §4); undecodable base64 is nothing."""
    if encoding.lower() == b"q":
        return quopri.decodestring(text.replace(b"_", b" "))
    try:
        return base64.b64decode(text + b"=" * (-len(text) % 4))
    except (binascii.Error, ValueError):
        return b""
