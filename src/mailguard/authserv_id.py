"""OwnIds: the authserv-ids that are ours, and which Authentication-Results fields claim one (RFC 8601 §5).

A linear scan that never trusts a field to be well-formed. Left out: reading the results of others, which nothing here
believes; and writing ours (authresults.py). Pure; safe to share between threads.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from contextlib import suppress

from mailguard.argument import check_each
from mailguard.domain import Domain
from mailguard.errors import DomainError

__all__ = ["OwnIds"]

# RFC 2045 §5.1 tspecials and white space end a token.
_TOKEN = re.compile(rb"[^\x00-\x20\x7f()<>@,;:\\\"/\[\]?=]+")
_QUOTED = re.compile(rb'"([^"\\]*+(?:\\.[^"\\]*+)*)"', re.DOTALL)
_COMMENT_TEXT = re.compile(rb"(?:[^()\\]++|\\.)+", re.DOTALL)
_WSP = b" \t\r\n"
# What every reader takes for one and the same id: comments without a comment, a quote or a backslash in them, and
# quoted strings without any of that, a semicolon or a blank. Of all else one reader or another does not know the end.
_PLAIN = re.compile(rb'(?:[^()"\\;]++|\([^()"\\]*+\)|"[^()"\\;\s]*+")*+(?:;|\Z)')
_INNER_COMMENT = re.compile(rb"\([^()]*+\)")
# What some reader leaves out: white space, control characters, quotes, backslashes, parentheses of no comment.
_LEFT_OUT = bytes([*range(33), 127]) + b'"\\()'
_NOT_ASCII = bytes(range(128, 256))
# No id has an encoded word: a token cannot hold these octets, and RFC 2047 §5 forbids it in a quoted string.
_ENCODED_WORD = b"=?"


class OwnIds:
    """The authserv-ids that are ours, and the question whether a field claims one of them (RFC 8601 §5)."""

    def __init__(self, ids: Iterable[str]) -> None:
        """Raises TypeError for one id in place of several, which would be as many ids as it has characters."""
        ids = ids if isinstance(ids, str) else tuple(ids)
        check_each("ids", ids, str)
        self._ids = frozenset(_normal(name.encode("utf-8")) for name in ids)
        # What no parser of ours can make sense of is compared by containment, in U-labels and in A-labels.
        self._texts = tuple(sorted({form for name in ids for form in _forms(name)}))

    def claimed_by(self, value: bytes) -> bool:
        """Whether `value`, the octets after the colon of an Authentication-Results field, claims an id of ours.

        RFC 8601 §5: such a field is removed.
        A field whose id can be read is compared by that id: case, a trailing dot, comments, quotes, blanks in them,
        a version and U-labels make no difference. One that cannot be read is ours if any of our ids occurs in what
        stands before its first semicolon, or an encoded word does, which in one of a hundred charsets may spell our
        id: a reader less strict than we might believe it. So is one in which readers may not agree where a comment
        or a quoted string ends, and then our id counts behind the semicolon too, unless it is a property's value.
        A field of another version than 1 counts as ours, whoever wrote it: it is to be removed as well.
        """
        outside, closed = _without_comments(value)
        found, version = (_read_id(outside) if closed else None) or (None, b"")
        if version and version.lstrip(b"0") != b"1":
            return True
        is_plain = _PLAIN.match(value) is not None
        if found is not None and _ENCODED_WORD not in found:
            # Some readers drop the white space at the end of a quoted string (RFC 5322 §3.2.4).
            name = _normal(b"".join(found.split()))
            if name in self._ids:
                return True
            if is_plain and (found.isascii() or isinstance(name, Domain)):
                # And some drop what is not ASCII.
                return not found.isascii() and _normal(found.translate(None, _NOT_ASCII)) in self._ids
        texts = {outside, value, _INNER_COMMENT.sub(b"", value)}
        if any(self._occurs_in(text.partition(b";")[0]) for text in texts):
            return True
        return not is_plain and any(self._stands_in(text) for text in texts)

    def _occurs_in(self, text: bytes) -> bool:
        squeezed = text.translate(None, _LEFT_OUT)
        return _ENCODED_WORD in squeezed or any(name in each for each in _readings(squeezed) for name in self._texts)

    def _stands_in(self, text: bytes) -> bool:
        """Whether one of our ids is there otherwise than as a value, behind "="."""
        readings = _readings(text.translate(None, _LEFT_OUT))
        return any(each.count(name) > each.count(f"={name}") for each in readings for name in self._texts)


def _readings(text: bytes) -> list[str]:
    """`text` as it is compared, and without what is not ASCII."""
    written = text.decode("utf-8", "surrogateescape")
    if written.isascii():
        return [written.lower()]
    return [_comparable(written), text.translate(None, _NOT_ASCII).decode("ascii").lower()]


def _comparable(text: str) -> str:
    """In lower case, with the ASCII characters that full-width ones, "ſ" and others stand for."""
    return unicodedata.normalize("NFKC", text).casefold().replace("。", ".")


def _normal(name: bytes) -> str:
    """An authserv-id in one comparable form; EAI: U-labels and A-labels are the same (RFC 8601 §2.5)."""
    name = name.rstrip(b".")
    if name.isascii():
        return name.decode("ascii").lower()  # as Domain has it too, which takes its time for an A-label
    try:
        return Domain.parse(name)
    except DomainError:
        return name.decode("utf-8", "surrogateescape").lower()


def _forms(name: str) -> set[str]:
    forms = {name, _normal(name.encode("utf-8"))}
    with suppress(DomainError):
        forms.add(Domain.parse(name.removesuffix(".")).unicode)
    return {_comparable(form) for form in forms}


def _without_comments(value: bytes) -> tuple[bytes, bool]:
    """`value` up to its first semicolon outside comments and quotes, comments as a blank; whether all are closed."""
    kept: list[bytes] = []
    position, depth = 0, 0
    while position < len(value):
        octet = value[position : position + 1]
        if octet == b"(":
            depth, position = depth + 1, position + 1
        elif depth and octet == b")":
            depth, position = depth - 1, position + 1
            kept.append(b" ")  # RFC 8601 §2.2: a comment may be all that parts the id from the version
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


def _read_id(text: bytes) -> tuple[bytes, bytes] | None:
    """The authserv-id in `text` and its version, empty where none is; None if there is more (RFC 8601 §2.2)."""
    text = text.strip(_WSP)
    quoted = _QUOTED.match(text)
    match = quoted or _TOKEN.match(text)
    if match is None:
        return None
    rest = text[match.end() :]
    version = rest.strip(_WSP)
    if rest and (rest[0] not in _WSP or not version.isdigit()):
        return None
    return re.sub(rb"\\(.)", rb"\1", quoted[1], flags=re.DOTALL) if quoted else match[0], version
