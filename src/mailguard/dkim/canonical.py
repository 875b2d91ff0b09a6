"""Canonicalization (RFC 6376 §3.4): header fields, and the body as it arrives.

The body is hashed in chunks of any size and not kept. Each chunk is transformed whole by find and replace;
between chunks a tail of at most two octets and a count of blank lines are held back. No regular
expression, no loop over octets: linear in the body. A `BodyDigests` belongs to one message; its methods may
be called from any thread, one at a time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from enum import Enum
from typing import NamedTuple

from mailguard.dkim.octet_search import occurs
from mailguard.message import HeaderField

__all__ = ["BodyDigests", "BodyRequest", "Canonicalization", "canonical_fields"]

CRLF = b"\r\n"
_WSP = b" \t"
# Blank lines held back are hashed in blocks of this many, so that a count of millions needs no memory.
_BLANK_LINES = 4096
_BLANK_BLOCK = CRLF * _BLANK_LINES
# Larger chunks are cut: the transformation of one holds a few copies of it.
MAX_CHUNK_BYTES = 1 << 20


class Canonicalization(Enum):
    """RFC 6376 §3.4: one of these for the header, one for the body."""

    SIMPLE = "simple"
    RELAXED = "relaxed"

    # Enum hashes by the name, in Python, at each look-up; a member is one object and equal to no other.
    __hash__ = object.__hash__


class BodyRequest(NamedTuple):
    """A body hash that a signature asks for: `length` is its l= in canonical octets, None for the whole body."""

    canonicalization: Canonicalization
    length: int | None = None


def canonical_fields(fields: Iterable[HeaderField], canonicalization: Canonicalization) -> bytes:
    """Header fields in this order, canonicalized, each but the last with its CRLF (RFC 6376 §3.7)."""
    if canonicalization is Canonicalization.SIMPLE:
        return CRLF.join([field.raw for field in fields])  # RFC 6376 §3.4.1: unchanged
    # RFC 6376 §3.4.2: names in lower case; values unfolded, without white space around them; in it, single spaces.
    unfolded = [name.lower() + b":" + value.replace(CRLF, b"").strip(_WSP) for name, value, _ in fields]
    return _single_spaces(CRLF.join(unfolded))


def _single_spaces(octets: bytes) -> bytes:
    """Each run of white space as one space."""
    octets = octets.replace(b"\t", b" ")
    while occurs(b"  ", octets):  # each pass halves every run
        octets = octets.replace(b"  ", b" ")
    return octets


class _Stream:
    """One canonical form of the body: octets in, a SHA-256 and its forks at the l= octets out."""

    def __init__(self, transform: Callable[[bytes], tuple[bytes, bytes]], lengths: Iterable[int]) -> None:
        self._transform = transform
        self._tail = b""
        self._blank_lines = 0
        self._hash = hashlib.sha256()
        self.total = 0
        self._forks = sorted(set(lengths), reverse=True)
        self.digests: dict[int | None, bytes] = {}
        if self._forks and self._forks[-1] == 0:
            self.digests[self._forks.pop()] = self._hash.digest()

    def update(self, chunk: bytes) -> None:
        lines, self._tail = self._transform(self._tail + chunk)
        self._put_lines(lines)

    def finish(self, *, empty_body: bytes) -> None:
        """The end of the body: the rest of RFC 6376 §3.4.3 and RFC 6376 §3.4.4.

        Empty lines at the end were held back and are dropped; a body with content ends in one CRLF. `empty_body` is
        what one without content becomes.
        """
        # What was held back is the beginning of a line end that did not come: a bare CR is content, white space
        # before the end of the body is at the end of a line (dropped where the transformation drops it).
        if self._tail:
            self._put_lines(self._transform(self._tail + CRLF)[0])
        self._blank_lines = 0
        self._hash_octets(CRLF if self.total else empty_body)
        self.digests[None] = self._hash.digest()

    def _put_lines(self, lines: bytes) -> None:
        """Take octets that do not end within a line end; hold blank lines back."""
        content, blank = _split_blank_lines(lines)
        if content:
            while self._blank_lines:
                count = min(self._blank_lines, _BLANK_LINES)
                self._hash_octets(_BLANK_BLOCK[: 2 * count])
                self._blank_lines -= count
            self._hash_octets(content)
        self._blank_lines += blank

    def _hash_octets(self, octets: bytes) -> None:
        start = 0
        while self._forks and self._forks[-1] <= self.total + len(octets) - start:
            length = self._forks.pop()
            cut = start + length - self.total
            self._hash.update(octets[start:cut])
            self.digests[length] = self._hash.digest()
            self.total, start = length, cut
        self._hash.update(octets[start:] if start else octets)
        self.total += len(octets) - start


def _split_blank_lines(octets: bytes) -> tuple[bytes, int]:
    """The octets up to their last line's content, and how many CRLF follow it."""
    content = octets.rstrip(CRLF)
    ends = octets[len(content) :]
    if len(ends) % 2 == 0 and ends == CRLF * (len(ends) // 2):
        return content, len(ends) // 2
    # A bare CR or LF stands among the line ends: it is content.
    count = 0
    while ends.endswith(CRLF, 0, len(ends) - 2 * count):
        count += 1
    return octets[: len(octets) - 2 * count], count


def _simple_lines(octets: bytes) -> tuple[bytes, bytes]:
    """RFC 6376 §3.4.3, apart from the end of the body (`_Stream.finish`): nothing changes.

    A CR may be half of a line end: it is held back.
    """
    return (octets[:-1], b"\r") if octets.endswith(b"\r") else (octets, b"")


def _relaxed_lines(octets: bytes) -> tuple[bytes, bytes]:
    """RFC 6376 §3.4.4, apart from the end of the body (`_Stream.finish`); and what is held back for later."""
    octets = _single_spaces(octets)
    if occurs(b" \r\n", octets):
        octets = octets.replace(b" \r\n", CRLF)  # ignore white space at the end of lines
    if octets.endswith((b"\r", b" ")):
        held = b" \r" if octets.endswith(b" \r") else octets[-1:]
        return octets[: -len(held)], held
    return octets, b""


# RFC 6376 §3.4.3: an empty simple body is one CRLF. RFC 6376 §3.4.4: an empty relaxed body is nothing.
_FORMS: dict[Canonicalization, tuple[Callable[[bytes], tuple[bytes, bytes]], bytes]] = {
    Canonicalization.SIMPLE: (_simple_lines, CRLF),
    Canonicalization.RELAXED: (_relaxed_lines, b""),
}


class BodyDigests:
    """SHA-256 digests of a body that arrives in chunks (CRLF line ends, split anywhere)."""

    def __init__(self, requests: Iterable[BodyRequest]) -> None:
        """Prepare for `requests`; a body in which nobody is interested costs nothing."""
        lengths: dict[Canonicalization, list[int]] = {}
        for request in requests:
            forks = lengths.setdefault(request.canonicalization, [])
            if request.length is not None:
                forks.append(request.length)
        self._streams = {form: _Stream(_FORMS[form][0], forks) for form, forks in lengths.items()}
        self._finished = False

    def update(self, chunk: bytes) -> None:
        """Take the next octets of the body."""
        if self._finished:
            raise ValueError("the body has ended")
        for start in range(0, len(chunk), MAX_CHUNK_BYTES):
            part = chunk if len(chunk) <= MAX_CHUNK_BYTES else chunk[start : start + MAX_CHUNK_BYTES]
            for stream in self._streams.values():
                stream.update(part)

    def finish(self) -> None:
        """The body has ended. Calling it again changes nothing."""
        if not self._finished:
            self._finished = True
            for form, stream in self._streams.items():
                stream.finish(empty_body=_FORMS[form][1])

    def total(self, canonicalization: Canonicalization) -> int:
        """The length of the finished canonical body in octets."""
        return self._streams[canonicalization].total

    def digest(self, request: BodyRequest) -> bytes | None:
        """The 32-octet digest of the finished body; None where l= is more than the body has (RFC 6376 §3.5)."""
        if not self._finished:
            raise ValueError("the body has not ended")
        return self._streams[request.canonicalization].digests.get(request.length)
