"""Message: header fields kept octet for octet, the body, and whom the From field names (RFC 5322).

Left out: MIME. No verdict depends on it. Values are frozen and safe to share between threads.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from itertools import chain
from typing import NamedTuple

from mailguard.address import AddressFlag, AddressSyntaxError, Mailbox, parse_mailboxes
from mailguard.argument import check_type
from mailguard.domain import Domain

__all__ = ["MAX_FIELDS", "MAX_HEADER_BYTES", "Author", "HeaderField", "MalformedReason", "Message"]

# Well above what long mailing-list and spam-filter chains add; OpenDKIM's MaximumHeaders bounds the same.
MAX_FIELDS = 1_000
MAX_HEADER_BYTES = 262_144
# What a header beyond these bounds has is read to be told, up to ten times as much: each field takes 0.3 kB.
MAX_READ_FIELDS = 10 * MAX_FIELDS
MAX_READ_BYTES = 10 * MAX_HEADER_BYTES

CRLF = b"\r\n"
# The line in front of each message in an mbox file. Postfix's local(8) puts one in front of what a command gets, too.
_MBOX_MARK = b"From "
# RFC 5322 §2.2: a field name is printable US-ASCII except the colon.
_NOT_IN_NAMES = bytes(octet for octet in range(256) if not 0x21 <= octet <= 0x7E)


class MalformedReason(Enum):
    """Why no author domain can be judged or lent to a message."""

    NO_FROM = "no-from"
    SEVERAL_FROM = "several-from"
    FROM_SYNTAX = "from-syntax"
    SEVERAL_DOMAINS = "several-from-domains"
    HEADER_SYNTAX = "header-syntax"
    HEADER_SIZE = "header-size"


class HeaderField(NamedTuple):
    """One header field.

    `value` is all that stands after the colon: leading white space kept, folds as CRLF, no final CRLF.
    `gap` is white space between name and colon (RFC 5322 §4.5.3, obsolete), which Postfix removes.
    """

    name: bytes
    value: bytes
    gap: bytes = b""

    @property
    def raw(self) -> bytes:
        """The field's octets without its final CRLF."""
        return self.name + self.gap + b":" + self.value


class Author(NamedTuple):
    """What the From fields say. `domains` are distinct, in order; both are empty where From is unusable."""

    mailboxes: tuple[Mailbox, ...] = ()
    domains: tuple[Domain, ...] = ()
    flags: frozenset[AddressFlag] = frozenset()


_From = tuple[Author, MalformedReason | None, str]


@dataclass(frozen=True, slots=True)
class Message:
    """A message, whole or only its header. Make one with `Message.parse` or `Message.from_fields`."""

    fields: tuple[HeaderField, ...]
    body: bytes | None = field(default=None, repr=False)
    """CRLF line ends; None where only the header is known (the body went into BodyDigests)."""
    header_defect: MalformedReason | None = None
    header_detail: str = ""
    by_key: Mapping[bytes, list[HeaderField]] = field(init=False, repr=False, compare=False)
    """The fields under their names in lower case (RFC 5322 §1.2.2), those of one name from the top."""
    _from: _From = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        by_key = _by_key(self.fields)
        object.__setattr__(self, "by_key", by_key)
        object.__setattr__(self, "_from", _read_from(by_key.get(b"from", ())))

    @classmethod
    def parse(cls, raw: bytes) -> Message:
        """Read a message with CRLF or bare LF line ends, or both; a bare CR is data, not a line end.

        Never raises for what a message contains, and TypeError for anything but bytes. A line that is neither a
        field, nor a fold, nor empty ends the header, as it does in Postfix, and makes the message malformed; so does
        the "From " line of an mbox file. Of a header far beyond the bounds, not all fields are read.
        """
        check_type("raw", raw, bytes)
        lines = raw.replace(CRLF, b"\n")
        header, separator, body = _partition_header(lines)
        end = header.find(b"\n", MAX_READ_BYTES)
        header, unread = (header, b"") if end < 0 else (header[:end], header[end:])
        fields, rest, detail = _split_fields(header)
        if rest:
            body = rest + unread + separator + body
        defect = MalformedReason.HEADER_SYNTAX if detail else None
        return cls._checked(fields, body.replace(b"\n", CRLF), defect, detail)

    @classmethod
    def from_fields(cls, fields: Iterable[HeaderField], body: bytes | None = None) -> Message:
        """A message from fields that somebody else has split, such as a milter. The body has CRLF line ends."""
        return cls._checked(tuple(fields), body, None, "")

    @classmethod
    def _checked(
        cls, fields: tuple[HeaderField, ...], body: bytes | None, defect: MalformedReason | None, detail: str
    ) -> Message:
        octets = b"".join(chain.from_iterable(fields))
        if len(fields) > MAX_FIELDS or len(octets) > MAX_HEADER_BYTES:
            defect = MalformedReason.HEADER_SIZE
            detail = f"the header has more than {MAX_FIELDS} fields or {MAX_HEADER_BYTES} octets"
        elif defect is None and octets.find(b"\0") >= 0:
            defect, detail = MalformedReason.HEADER_SYNTAX, "the header has a NUL"
        return cls(fields, body, defect, detail)

    def named(self, key: bytes) -> tuple[HeaderField, ...]:
        """The fields whose lower-case name is `key`, from the top."""
        return tuple(self.by_key.get(key, ()))

    @property
    def author(self) -> Author:
        """The author mailboxes and their domains (RFC 5322 §3.6.2)."""
        return self._from[0]

    @property
    def malformed(self) -> MalformedReason | None:
        """Why the message has no one author domain, or None."""
        return self.header_defect or self._from[1]

    @property
    def malformed_detail(self) -> str:
        """`malformed` for people; empty where it is None."""
        return self.header_detail or self._from[2]


def _by_key(fields: Iterable[HeaderField]) -> dict[bytes, list[HeaderField]]:
    found: dict[bytes, list[HeaderField]] = {}
    for header_field in fields:
        key = header_field[0].lower()  # by its name, it takes twice as long
        if key in found:
            found[key].append(header_field)
        else:
            found[key] = [header_field]
    return found


def _read_from(found: Sequence[HeaderField]) -> _From:
    if not found:
        return Author(), MalformedReason.NO_FROM, "there is no From field"
    if len(found) > 1:
        # RFC 5322 §3.6: exactly one From field.
        return Author(), MalformedReason.SEVERAL_FROM, f"there are {len(found)} From fields"
    try:
        mailboxes, flags = parse_mailboxes(found[0].value)
    except AddressSyntaxError as error:
        return Author(), MalformedReason.FROM_SYNTAX, f"From: {error}"
    domains = tuple(dict.fromkeys([mailbox.domain for mailbox in mailboxes]))
    author = Author(mailboxes, domains, flags)
    if len(domains) > 1:
        return author, MalformedReason.SEVERAL_DOMAINS, "From names several domains"
    return author, None, ""


def _partition_header(lines: bytes) -> tuple[bytes, bytes, bytes]:
    """The header without its last line end, what ends it, and the body."""
    if lines.startswith(b"\n"):
        return b"", b"\n", lines[1:]
    header, separator, body = lines.partition(b"\n\n")
    if separator:
        return header, separator, body
    content = lines.removesuffix(b"\n")
    return content, lines[len(content) :], b""


def _split_fields(header: bytes) -> tuple[tuple[HeaderField, ...], bytes, str]:
    """The fields of a header with LF line ends, what is left from the first line that is none, and why."""
    fields: list[HeaderField] = []
    if not header:
        return (), b"", ""
    lines = header.split(b"\n")
    number = 0
    while number < len(lines) and len(fields) < MAX_READ_FIELDS:
        name, colon, value = lines[number].partition(b":")
        stripped = name.rstrip(b" \t")
        problem = _name_problem(stripped, colon)
        if problem:
            detail = f"line {number + 1} of the header is not a field: {problem}"
            return tuple(fields), b"\n".join(lines[number:]), detail
        end = number + 1
        while end < len(lines) and lines[end][:1] in (b" ", b"\t"):
            end += 1
        if end > number + 1:
            value = CRLF.join([value, *lines[number + 1 : end]])
        fields.append(HeaderField(stripped, value, name[len(stripped) :]))
        number = end
    return tuple(fields), b"", ""


def _name_problem(name: bytes, colon: bytes) -> str:
    if name.startswith(_MBOX_MARK):
        return "it is the line in front of a message in an mbox file: leave it out"
    if not colon:
        return "it has no colon"
    if not name:
        return "it has no name"
    if name.translate(None, _NOT_IN_NAMES) != name:
        return "its name has a space, a control character or an 8-bit character"
    return ""
