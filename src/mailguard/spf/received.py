"""The Received-SPF field (RFC 7208 §9.1) for a result.

Every value that a stranger chose is made printable ASCII, cut, and quoted where it has to be; the comment is in our
words. Pure; safe to share between threads.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from mailguard.envelope import Envelope
from mailguard.message import HeaderField
from mailguard.spf.result import SpfIdentity, SpfReason, SpfResult, SpfStatus

__all__ = ["received_spf"]

FIELD_NAME = b"Received-SPF"
MAX_LINE_CHARS = 78  # RFC 5322 §2.1.1
# RFC 5321 §4.5.3.1.3: a path has at most 256 octets, and a name fewer. Quoted, it stays below the 998 of a line.
MAX_VALUE_CHARS = 256
# A sentence of ours with a name in it.
MAX_COMMENT_CHARS = 300

_ATEXT = r"[a-zA-Z0-9!#$%&'*+/=?^_`{|}~-]+"
_DOT_ATOM = re.compile(rf"{_ATEXT}(?:\.{_ATEXT})*")
_NOT_PRINTABLE = re.compile(r"[^ -~]")
_NOT_IN_COMMENTS = re.compile(r"[^ -~]|[()\\]")
# Without its end, nothing is an encoded word (RFC 2047 §2). SpamAssassin decodes those in quoted strings too, and
# reads the lines that come out as fields of ours.
_END_OF_ENCODED_WORD = re.compile(r"(?<=\?)=+")


def received_spf(result: SpfResult, envelope: Envelope, *, receiver: str) -> HeaderField:
    """The field to put on top of the message, folded, with its leading space. `receiver` is the host that checked."""
    about = f"{result.domain}: " if result.domain else ""
    comment = _NOT_IN_COMMENTS.sub("?", f"{receiver}: {about}{result.detail}")[:MAX_COMMENT_CHARS]
    pairs = list(_pairs(result, envelope, receiver))
    words = [result.status.value, *f"({comment})".split(), *[f"{pair};" for pair in pairs[:-1]], pairs[-1]]
    return HeaderField(FIELD_NAME, _folded(words).encode("ascii"))


def _pairs(result: SpfResult, envelope: Envelope, receiver: str) -> Iterator[str]:
    """RFC 7208 §9.1, key-value-list."""
    if envelope.client_ip is not None:
        yield f"client-ip={_value(str(envelope.client_ip))}"
    if result.identity is SpfIdentity.MAIL_FROM:
        path = "<>" if result.is_null_sender else envelope.mail_from.decode("utf-8", "replace")
        yield f"envelope-from={_value(path)}"
    yield f"helo={_value(envelope.helo.decode('utf-8', 'replace'))}"
    yield f"receiver={_value(receiver)}"
    if result.reason in (SpfReason.MATCH, SpfReason.NO_MATCH):
        # RFC 7208 §9.1: "if no mechanisms matched, substitute the word "default"".
        yield f"mechanism={_value(result.mechanism or 'default')}"
    elif result.status in (SpfStatus.PERMERROR, SpfStatus.TEMPERROR):
        yield f"problem={_value(result.reason.value)}"
    yield f"identity={result.identity.value}"


def _value(text: str) -> str:
    """A dot-atom or a quoted-string (RFC 5322 §3.2.3, RFC 5322 §3.2.4)."""
    plain = _END_OF_ENCODED_WORD.sub("?", _NOT_PRINTABLE.sub("?", text)[:MAX_VALUE_CHARS])
    if _DOT_ATOM.fullmatch(plain):
        return plain
    return '"' + plain.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _folded(words: Iterable[str]) -> str:
    """The words, each after a space or at the beginning of a line; a quoted string is one word."""
    text, room = "", MAX_LINE_CHARS - len(FIELD_NAME) - len(":")
    for word in words:
        # A longer word has a line of its own.
        if text and len(word) >= room:
            text, room = f"{text}\r\n", MAX_LINE_CHARS
        text = f"{text} {word}"
        room -= len(word) + 1
    return text
