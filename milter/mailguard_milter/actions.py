"""Actions: what the milter does to a message, as values, in the order in which it does them.

The engine carries them out and decides nothing. Values are checked when they are made: nothing that would
break out of a header field or of an SMTP reply can reach libmilter, which passes CR and LF through.
Frozen; safe to share between threads.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

__all__ = ["MAX_REPLY_CHARS", "Accept", "Action", "DeleteHeader", "InsertHeader", "Quarantine", "Reply"]

# RFC 5321 §4.5.3.1.5: a reply line has at most 512 octets, code and CRLF included.
MAX_REPLY_CHARS = 480
# RFC 5322 §3.6.8.
_is_field_name = re.compile(rb"[!-9;-~]+").fullmatch
# RFC 5322 §2.2.3: what follows the line end of a fold is white space, and more than that.
_has_line_end_that_is_no_fold = re.compile(rb"\n(?![ \t]++[^ \t\n])").search
_NUL, _CR = b"\0\r"


@dataclass(frozen=True, slots=True)
class DeleteHeader:
    """Remove the `index`-th field (from 1) called `name`, counted as the message stands at that moment."""

    name: bytes
    index: int


@dataclass(frozen=True, slots=True)
class InsertHeader:
    """Insert a field above all others, the MTA's own Received included.

    `value` has its leading space and folds of a bare LF, as libmilter wants them when SMFIP_HDR_LEADSPC holds.
    """

    name: bytes
    value: bytes

    def __post_init__(self) -> None:
        if not _is_field_name(self.name):
            raise ValueError("a header field name has an octet that it may not have")
        if _CR in self.value or _NUL in self.value:
            raise ValueError("a header field value has a CR or a NUL")
        if _has_line_end_that_is_no_fold(self.value):
            raise ValueError("a header field value has a line end that is not a fold")


@dataclass(frozen=True, slots=True)
class Reply:
    """End the message with an SMTP reply: `code` "550", `enhanced` "5.6.0" (RFC 3463), one line of text."""

    code: str
    enhanced: str
    text: str

    def __post_init__(self) -> None:
        if self.code[:1] not in ("4", "5") or self.code[0] != self.enhanced[:1]:
            raise ValueError("a reply is 4xx or 5xx, and its enhanced code agrees")
        if len(self.text) > MAX_REPLY_CHARS or not self.text.isascii() or not self.text.isprintable():
            raise ValueError("a reply text is one line of printable ASCII")


@dataclass(frozen=True, slots=True)
class Quarantine:
    """Let the message through, into the MTA's hold queue. `reason` is one line of printable ASCII."""

    reason: str

    def __post_init__(self) -> None:
        if len(self.reason) > MAX_REPLY_CHARS or not self.reason.isascii() or not self.reason.isprintable():
            raise ValueError("a quarantine reason is one line of printable ASCII")


@dataclass(frozen=True, slots=True)
class Accept:
    """Let the message through."""


Action = DeleteHeader | InsertHeader | Quarantine | Reply | Accept
