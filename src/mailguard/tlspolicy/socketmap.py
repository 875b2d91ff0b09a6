"""Postfix's socketmap protocol, octets to requests and replies to octets (socketmap_table(5)). No I/O.

A request is a netstring with the name of the map, a space and the key; a reply is a netstring with a word and text.
Left out: what a key means. A Decoder is for one thread at a time; everything else is frozen.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

__all__ = [
    "MAX_REPLY_BYTES",
    "MAX_REQUEST_BYTES",
    "Decoder",
    "Reply",
    "ReplyStatus",
    "Request",
    "Violation",
    "encode_request",
    "parse_reply",
]

# A domain has 253 characters at most, as UTF-8 some more; a next hop has a port and brackets beside it.
MAX_REQUEST_BYTES = 1_024
# socketmap_table(5): what Postfix takes, without the netstring around it.
MAX_REPLY_BYTES = 100_000
# A reason is for Postfix's log.
MAX_REASON_CHARS = 200

_MAX_DIGITS = len(str(MAX_REQUEST_BYTES))


@dataclass(frozen=True, slots=True)
class Request:
    """One look-up. Octets as they came; either may be empty."""

    map_name: bytes
    key: bytes


@dataclass(frozen=True, slots=True)
class Violation:
    """What came is not the protocol, and nothing behind it can be read. `detail` is for people."""

    detail: str


class ReplyStatus(Enum):
    """The words that a reply begins with."""

    OK = "OK"
    NOT_FOUND = "NOTFOUND"
    TEMPORARY = "TEMP"
    TIMEOUT = "TIMEOUT"
    PERMANENT = "PERM"


@dataclass(frozen=True, slots=True)
class Reply:
    """`text` is the data of OK, and of the others a reason, which Postfix writes to its log."""

    status: ReplyStatus
    text: str = ""

    def octets(self) -> bytes:
        """The reply on the wire. Raises ValueError for data that Postfix would not take."""
        text = self.text
        if self.status is ReplyStatus.OK:
            if not text.isascii() or not text.isprintable():
                raise ValueError("the data of a reply is printable ASCII")
        else:
            text = "".join(char if " " <= char <= "~" else "?" for char in text[:MAX_REASON_CHARS])
        payload = f"{self.status.value} {text}".encode("ascii")
        if len(payload) > MAX_REPLY_BYTES:
            raise ValueError(f"a reply has more than {MAX_REPLY_BYTES} octets")
        return b"%d:%b," % (len(payload), payload)


class Decoder:
    """What one client says on one connection."""

    __slots__ = ("_pending", "_violation")

    def __init__(self) -> None:
        self._pending = bytearray()
        self._violation: Violation | None = None

    def feed(self, octets: bytes | bytearray | memoryview) -> None:
        """Take in what came, which is kept until it is asked for: its size is for the caller to bound."""
        if self._violation is None:
            self._pending += octets

    def next(self) -> Request | Violation | None:
        """The next request, None while it is not complete. After a Violation there is nothing else."""
        if self._violation is not None:
            return self._violation
        pending = self._pending
        colon = pending.find(b":", 0, _MAX_DIGITS + 1)
        digits = pending[: _MAX_DIGITS + 1] if colon < 0 else pending[:colon]
        # bytes.isdigit knows no other digits than those of ASCII.
        if digits and not digits.isdigit():
            return self._broken("a request does not begin with its length")
        if colon < 0:
            return self._broken("the length of a request has too many digits") if len(digits) > _MAX_DIGITS else None
        if not digits or (digits[0] == ord("0") and len(digits) > 1):
            return self._broken("the length of a request is not a number")
        length = int(digits)
        if length > MAX_REQUEST_BYTES:
            return self._broken(f"a request of {length} octets; {MAX_REQUEST_BYTES} are allowed")
        end = colon + 1 + length
        if len(pending) <= end:
            return None
        if pending[end] != ord(","):
            return self._broken("a request does not end with a comma")
        map_name, space, key = bytes(pending[colon + 1 : end]).partition(b" ")
        if not space:
            return self._broken("a request has no space between the map and the key")
        del pending[: end + 1]
        return Request(map_name, key)

    def _broken(self, detail: str) -> Violation:
        self._violation = Violation(detail)
        self._pending.clear()
        return self._violation


def encode_request(map_name: bytes, key: bytes) -> bytes:
    """A request on the wire, for clients. `map_name` has no space."""
    payload = map_name + b" " + key
    return b"%d:%b," % (len(payload), payload)


def parse_reply(octets: bytes) -> Reply | None:
    """The reply that `octets` are, for clients; None while it is not complete. Raises ValueError."""
    digits, colon, rest = octets.partition(b":")
    if len(digits) > len(str(MAX_REPLY_BYTES)) or (colon and not digits.isdigit()):
        raise ValueError("a reply does not begin with its length")
    if not colon or len(rest) <= int(digits):
        return None
    word, _, text = rest[: int(digits)].decode("ascii", "replace").partition(" ")
    if rest[int(digits) :] != b",":
        raise ValueError("a reply does not end with a comma")
    return Reply(ReplyStatus(word), text)
