"""What a filter says to an MTA, as packets.

Each function refuses, with ValueError, what an MTA would not take or would read otherwise than it was meant: a NUL in
a text, a line end that begins another field or command, a packet that is too long. Postfix (milter8.c, 3.7) ends the
session of a filter over such a packet, and answers the client as milter_default_action says.

What was not negotiated may not be said; that is for the caller to see to. Pure functions; no state.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from typing import Final

from mailguard_milter.protocol_numbers import (
    MAX_VERSION,
    MIN_VERSION,
    SMFIC_OPTNEG,
    SMFIF_SETSYMLIST,
    SMFIM_CONNECT,
    SMFIM_EOH,
    SMFIR_ADDHEADER,
    SMFIR_ADDRCPT,
    SMFIR_ADDRCPT_PAR,
    SMFIR_CHGFROM,
    SMFIR_CHGHEADER,
    SMFIR_DELRCPT,
    SMFIR_INSHEADER,
    SMFIR_QUARANTINE,
    SMFIR_REPLBODY,
    SMFIR_REPLYCODE,
)

__all__ = [
    "ACCEPT",
    "CONTINUE",
    "DISCARD",
    "MAX_DATA",
    "PROGRESS",
    "REJECT",
    "SKIP",
    "TEMPFAIL",
    "add_header",
    "add_recipient",
    "change_from",
    "change_header",
    "delete_recipient",
    "insert_header",
    "negotiate",
    "quarantine",
    "replace_body",
    "reply_code",
]

# Octets behind the command: Sendmail takes no more (MILTER_MAX_DATA_SIZE); Postfix would (XXX_MAX_DATA).
MAX_DATA: Final = 65_535
# RFC 5321 §4.5.3.1.5: a reply line has at most 512 octets, code and CRLF included.
MAX_REPLY_LINE: Final = 510
# What libmilter takes of its filters (MAXREPLIES).
MAX_REPLY_LINES: Final = 32
# Postfix and Sendmail count header fields in a signed number.
MAX_INDEX: Final = 0x7FFF_FFFF

ACCEPT: Final = b"\0\0\0\1a"
CONTINUE: Final = b"\0\0\0\1c"
DISCARD: Final = b"\0\0\0\1d"
PROGRESS: Final = b"\0\0\0\1p"
"""Still at work: the MTA begins its timeout anew. Postfix takes it wherever it waits for a reply."""
REJECT: Final = b"\0\0\0\1r"
SKIP: Final = b"\0\0\0\1s"
"""No more events of this kind (of this message); only where SMFIP_SKIP was negotiated."""
TEMPFAIL: Final = b"\0\0\0\1t"

_NO_SYMBOLS: Mapping[int, bytes] = {}
_HEAD: Final = struct.Struct(">IB")
_INDEXED: Final = struct.Struct(">IBI")
_OPTIONS: Final = struct.Struct(">III")
_STAGE: Final = struct.Struct(">I")

_NUL, _LF, _CR = b"\0\n\r"
# A line end is a bare LF, which the MTA writes as its own. Without a blank behind it, the next field begins.
_next_field = re.compile(rb"\n(?![ \t])").search
# RFC 5322 §2.2
_OF_A_NAME: Final = bytes(octet for octet in range(0x21, 0x7F) if octet != 0x3A)
# RFC 5321 §4.2 (textstring)
_is_reply_text = re.compile(rb"[\t -~]*").fullmatch
_is_code = re.compile(rb"[45][0-9]{2}").fullmatch
# RFC 3463 §2
_is_enhanced = re.compile(rb"[45](?:\.[0-9]{1,3}){2}").fullmatch
# The names of macros, with a blank or comma between them.
_is_symbols = re.compile(rb"[!-~ ]*").fullmatch


def negotiate(version: int, actions: int, steps: int, symbols: Mapping[int, bytes] = _NO_SYMBOLS) -> bytes:
    """The answer to Negotiate: `version` and `actions` that were offered, and the steps that are wanted.

    `symbols` are the names of the macros wanted, by the stage (SMFIM_*), with a blank between them. They need
    SMFIF_SETSYMLIST among the actions. A stage that is not named keeps the MTA's own list; in Postfix also one
    without any name.
    """
    if not MIN_VERSION <= version <= MAX_VERSION:
        raise ValueError(f"there is no version {version} of the protocol")
    if not 0 <= actions <= 0xFFFF_FFFF or not 0 <= steps <= 0xFFFF_FFFF:
        raise ValueError("flags are 32 bits")
    if symbols and not actions & SMFIF_SETSYMLIST:
        raise ValueError("macros are chosen, and SMFIF_SETSYMLIST is not")
    parts = [_OPTIONS.pack(version, actions, steps)]
    for stage, names in symbols.items():
        if not SMFIM_CONNECT <= stage <= SMFIM_EOH or not _is_symbols(names):
            raise ValueError("names of macros for a stage that is none, or names that are none")
        parts += _STAGE.pack(stage), names, b"\0"
    return _packet(SMFIC_OPTNEG, b"".join(parts))


def reply_code(code: bytes, enhanced: bytes, text: bytes) -> bytes:
    """An SMTP reply: b"550", b"5.7.1", and a text of printable ASCII without them, its lines separated by CRLF."""
    if not _is_code(code) or not _is_enhanced(enhanced) or code[:1] != enhanced[:1]:
        raise ValueError("a reply is 4xx or 5xx, and its enhanced code agrees")
    lines = text.split(b"\r\n")
    if len(lines) > MAX_REPLY_LINES:
        raise ValueError("a reply has too many lines")
    for line in lines:
        if not _is_reply_text(line) or len(code) + len(enhanced) + len(line) + 2 > MAX_REPLY_LINE:
            raise ValueError("a line of a reply is not printable ASCII, or too long")
    *first, last = lines
    whole = b"".join([b"%b-%b %b\r\n" % (code, enhanced, line) for line in first])
    whole += b"%b %b %b\0" % (code, enhanced, last)
    # Sendmail takes the text as the format of a printf, and Postfix undoes that.
    return _packet(SMFIR_REPLYCODE, whole.replace(b"%", b"%%"))


def add_header(name: bytes, value: bytes) -> bytes:
    """A field at the end of the header. Postfix keeps 60,000 octets of it.

    Here as in the next two, a fold of `value` is a bare LF with a blank behind it, and where SMFIP_HDR_LEADSPC is
    negotiated the value begins with its space.
    """
    return _packet(SMFIR_ADDHEADER, _field(name, value))


def insert_header(index: int, name: bytes, value: bytes) -> bytes:
    """A field at this position; 0 is above the MTA's own Received."""
    if not 0 <= index <= MAX_INDEX:
        raise ValueError("a position is not negative")
    return _indexed(SMFIR_INSHEADER, index, _field(name, value))


def change_header(index: int, name: bytes, value: bytes) -> bytes:
    """Another value for the `index`-th field of this name, counted from 1 as the message stands; b"" deletes it."""
    if not 1 <= index <= MAX_INDEX:
        raise ValueError("fields are counted from 1")
    return _indexed(SMFIR_CHGHEADER, index, _field(name, value))


def quarantine(reason: bytes) -> bytes:
    """Into the MTA's hold queue, unless the final reply refuses the message."""
    return _packet(SMFIR_QUARANTINE, _line(reason))


def change_from(path: bytes, parameters: bytes = b"") -> bytes:
    """Another reverse path, with its angle brackets, and ESMTP parameters if any."""
    return _packet(SMFIR_CHGFROM, _path(path, parameters))


def add_recipient(path: bytes, parameters: bytes = b"") -> bytes:
    """One more recipient. Parameters need SMFIF_ADDRCPT_PAR, none SMFIF_ADDRCPT."""
    return _packet(SMFIR_ADDRCPT_PAR if parameters else SMFIR_ADDRCPT, _path(path, parameters))


def delete_recipient(path: bytes) -> bytes:
    """One recipient less: the path as Rcpt had it."""
    return _packet(SMFIR_DELRCPT, _path(path, b""))


def replace_body(chunk: bytes) -> bytes:
    """The body anew, line ends CRLF: the first packet takes the place of the old body, others are appended to it.

    For Postfix no other change may come between them.
    """
    return _packet(SMFIR_REPLBODY, chunk)


def _packet(command: int, octets: bytes) -> bytes:
    if len(octets) > MAX_DATA:
        raise ValueError("a reply is longer than an MTA takes")
    return _HEAD.pack(len(octets) + 1, command) + octets


def _indexed(command: int, index: int, octets: bytes) -> bytes:
    if len(octets) + 4 > MAX_DATA:
        raise ValueError("a reply is longer than an MTA takes")
    return _INDEXED.pack(len(octets) + 5, command, index) + octets


def _field(name: bytes, value: bytes) -> bytes:
    if not name or name.translate(None, _OF_A_NAME):
        raise ValueError("a header field name has an octet that it may not have")
    if _NUL in value or _CR in value or _next_field(value):
        raise ValueError("a header field value has a CR, a NUL, or a line end that is not a fold")
    return b"%b\0%b\0" % (name, value)


def _line(octets: bytes) -> bytes:
    if _NUL in octets or _CR in octets or _LF in octets:
        raise ValueError("a text of one line has a CR, LF or NUL")
    return octets + b"\0"


def _path(path: bytes, parameters: bytes) -> bytes:
    if not path:
        raise ValueError("a path is at least <>")
    return _line(path) + (_line(parameters) if parameters else b"")
