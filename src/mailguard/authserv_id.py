"""OwnIds: the authserv-ids that are ours, and which Authentication-Results fields claim one (RFC 8601 §5).

A linear scan that never trusts a field to be well-formed. Left out: reading the results of others, which nothing here
believes; and writing ours (authresults.py). Pure; safe to share between threads.
"""

from __future__ import annotations

import re
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
        id: a reader less strict than we might believe it.
        """
        outside, closed = _without_comments(value)
        found = _read_id(outside) if closed else None
        if found is not None and _ENCODED_WORD not in found:
            # Some readers drop the white space at the end of a quoted string (RFC 5322 §3.2.4).
            name = _normal(b"".join(found.split()))
            if found.isascii() or isinstance(name, Domain):
                return name in self._ids
        return any(self._occurs_in(text.partition(b";")[0]) for text in (outside, value))

    def _occurs_in(self, text: bytes) -> bool:
        if not b"".join(text.split()):
            return False
        squeezed = text.translate(None, _WSP + b'"\\')
        written = squeezed.decode("utf-8", "surrogateescape").lower()
        return _ENCODED_WORD in squeezed or any(name in written for name in self._texts)


def _normal(name: bytes) -> str:
    """An authserv-id in one comparable form; EAI: U-labels and A-labels are the same (RFC 8601 §2.5)."""
    name = name.removesuffix(b".")
    if name.isascii():
        return name.decode("ascii").lower()  # as Domain has it too, which takes its time for an A-label
    try:
        return Domain.parse(name)
    except DomainError:
        return name.decode("utf-8", "surrogateescape").lower()


def _forms(name: str) -> set[str]:
    forms = {name.lower(), _normal(name.encode("utf-8"))}
    with suppress(DomainError):
        forms.add(Domain.parse(name.removesuffix(".")).unicode)
    return forms


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


def _read_id(text: bytes) -> bytes | None:
    """The authserv-id in `text`, which must hold nothing else but a version number (RFC 8601 §2.2), else None."""
    text = text.strip(_WSP)
    quoted = _QUOTED.match(text)
    match = quoted or _TOKEN.match(text)
    if match is None:
        return None
    rest = text[match.end() :]
    if rest and (rest[0] not in _WSP or not rest.strip(_WSP).isdigit()):
        return None
    return re.sub(rb"\\(.)", rb"\1", quoted[1], flags=re.DOTALL) if quoted else match[0]
