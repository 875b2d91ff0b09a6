"""Messages for comparison with other implementations: the same ones in every run, from a class and a number.

RFC 5322 messages with CRLF line ends and exactly one author domain, so that every signer accepts them. Left
out: malformed messages, bare LF and bare CR in the header, which no MTA hands to a signer. Pure functions.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from enum import Enum

__all__ = ["MessageClass", "generate"]

AUTHOR_DOMAIN = "example.com"
LARGE_BODY_BYTES = 60_000
_WORDS = ("alpha", "beta", "gamma", "delta", "iota", "kappa", "lambda", "omega", "mail", "server", "header", "octet")
_BLANKS = (b" ", b"  ", b"\t", b" \t", b"\t ", b"   \t  ", b" " * 40)
# Octets that only a binary-minded sender puts into a body; RFC 6376 §3.4 treats them as any other.
_CONTROLS = (b"\0", b"\x01", b"\x0b", b"\x0c", b"\x1b", b"\x7f")

Fields = list[bytes]


class MessageClass(Enum):
    """What is special about a message."""

    TINY = "tiny"
    PAGE = "page"
    LARGE = "large"
    FOLDED = "folded header"
    EIGHT_BIT = "8-bit header and body"
    EMPTY_BODY = "empty body"
    WHITE_SPACE = "white space in the body"
    HEADER_SPACE = "white space in the header"
    NO_FINAL_CRLF = "no final CRLF"
    BLANK_LINES = "blank lines at the end"
    BLANK_AT_THE_END = "white space at the end"
    EMPTY_SUBJECT = "empty fields"
    LONG_TO = "very long To"
    REPEATED = "repeated fields"
    GAP = "white space before a colon"
    HEADER_CONTROLS = "controls in the header"
    CONTROLS = "controls in the body"
    BARE_CR = "bare CR in the body"


def generate(kind: MessageClass, number: int) -> bytes:
    """Message `number` of the class, whole."""
    source = random.Random(f"{kind.value}/{number}")
    fields = _header(source)
    body = _CLASSES[kind](source, fields, number)
    return b"".join(field + b"\r\n" for field in fields) + b"\r\n" + body


def _text(source: random.Random, count: int) -> bytes:
    return " ".join(source.choices(_WORDS, k=count)).encode("ascii")


def _lines(source: random.Random, octets: int) -> bytes:
    lines: list[bytes] = []
    size = 0
    while size < octets:
        lines.append(_text(source, source.randint(0, 12)) + b"\r\n")
        size += len(lines[-1])
    return b"".join(lines)[: octets - 3].removesuffix(b"\r") + b"z\r\n"


def _header(source: random.Random) -> Fields:
    fields = [
        b"Received: from a.test by b.test; Mon, 3 Jun 2024 10:00:00 +0000",
        f"From: {source.choice(_WORDS)} <{source.choice(_WORDS)}@{AUTHOR_DOMAIN}>".encode(),
        f"To: {source.choice(_WORDS)}@b.test".encode(),
        b"Subject: " + _text(source, source.randint(1, 6)),
        b"Date: Mon, 3 Jun 2024 10:00:%02d +0000" % source.randrange(60),
        f"Message-ID: <{source.getrandbits(64):x}@{AUTHOR_DOMAIN}>".encode(),
    ]
    if source.random() < 0.5:
        fields += [b"MIME-Version: 1.0", b"Content-Type: text/plain; charset=utf-8"]
    if source.random() < 0.3:
        source.shuffle(fields)
    return fields


def _replace(fields: Fields, name: bytes, *new: bytes) -> None:
    at = next(index for index, field in enumerate(fields) if field.startswith(name + b":"))
    fields[at : at + 1] = new


def _tiny(source: random.Random, fields: Fields, number: int) -> bytes:
    return source.choice((b".", b"a", b"0\r\n", b"x y\r\n"))


def _page(source: random.Random, fields: Fields, number: int) -> bytes:
    return _lines(source, source.randint(500, 4_000))


def _large(source: random.Random, fields: Fields, number: int) -> bytes:
    return _lines(source, LARGE_BODY_BYTES)


def _folded(source: random.Random, fields: Fields, number: int) -> bytes:
    folds = (b"\r\n ", b"\r\n\t", b"  \r\n   ", b"\t\r\n \t", b" \r\n  ")
    for name, words in ((b"Subject", 12), (b"X-Folded", 20)):
        parts = [source.choice(_WORDS).encode() for _ in range(words)]
        field = name + b":" + b"".join(source.choice((*folds, b" ")) + part for part in parts)
        if name == b"Subject":
            _replace(fields, name, field)
        else:
            fields.append(field)
    _replace(fields, b"To", b"To: a@b.test,\r\n\tb@b.test,\r\n  c@b.test")
    return _lines(source, 200)


def _eight_bit(source: random.Random, fields: Fields, number: int) -> bytes:
    charset = source.choice(("utf-8", "latin-1", "cp1251"))
    text = "Grüße aus Ä" if charset != "cp1251" else "Привет"
    _replace(fields, b"Subject", b"Subject: " + text.encode(charset))
    octets = bytes(source.choices([*range(0x20, 0x7F), *range(0x80, 0x100)], k=300))
    return text.encode(charset) + b"\r\n" + octets + b"\r\n"


def _empty(source: random.Random, fields: Fields, number: int) -> bytes:
    return (b"", b"\r\n", b"\r\n\r\n", b"\r\n" * source.randint(3, 50))[number % 4]


def _white_space(source: random.Random, fields: Fields, number: int) -> bytes:
    lines = []
    for _ in range(source.randint(5, 40)):
        words = [source.choice(_BLANKS) + source.choice(_WORDS).encode() for _ in range(source.randint(0, 6))]
        lines.append(b"".join(words) + source.choice((*_BLANKS, b"")))
    return b"\r\n".join(lines) + b"\r\nend" + source.choice(_BLANKS) + b"\r\n"


def _header_space(source: random.Random, fields: Fields, number: int) -> bytes:
    words = [source.choice(_BLANKS) + source.choice(_WORDS).encode() for _ in range(6)]
    _replace(fields, b"Subject", b"Subject:" + b"".join(words) + source.choice(_BLANKS))
    _replace(fields, b"To", source.choice((b"To:", b"TO:", b"tO: \t")) + b"x@b.test" + source.choice(_BLANKS))
    return _lines(source, 100)


def _no_final_crlf(source: random.Random, fields: Fields, number: int) -> bytes:
    return _lines(source, source.randint(50, 400)) + b"the last line"


def _blank_lines(source: random.Random, fields: Fields, number: int) -> bytes:
    return _lines(source, 100) + b"\r\n" * source.randint(1, 600)


def _blank_at_the_end(source: random.Random, fields: Fields, number: int) -> bytes:
    """Blank lines of white space; half of them without the final CRLF, some with no line that is not blank."""
    start = _lines(source, 60) if number % 4 else b""
    lines = b"".join(source.choice(_BLANKS) + b"\r\n" for _ in range(source.randint(0, 4)))
    return start + lines + source.choice(_BLANKS) + (b"\r\n" if number % 2 else b"")


def _empty_subject(source: random.Random, fields: Fields, number: int) -> bytes:
    _replace(fields, b"Subject", source.choice((b"Subject:", b"Subject: ", b"Subject:\t", b"Subject:\r\n ")))
    fields.append(b"Cc:")
    return _lines(source, 100)


def _long_to(source: random.Random, fields: Fields, number: int) -> bytes:
    addresses = [b"%s%d@b.test" % (source.choice(_WORDS).encode(), n) for n in range(800)]
    separator = b",\r\n " if number % 2 else b", "
    _replace(fields, b"To", b"To: " + separator.join(addresses))
    return _lines(source, 100)


def _repeated(source: random.Random, fields: Fields, number: int) -> bytes:
    fields[0:0] = [b"Received: from %d.test by b.test" % n for n in range(source.randint(2, 9))]
    fields += [b"Cc: one@b.test", b"Comments: " + _text(source, 3), b"CC: two@b.test", b"cc: three@b.test"]
    fields += [b"List-Id: <a.b.test>", b"Reply-To: r@b.test", b"Subject: again"]
    return _lines(source, 100)


def _gap(source: random.Random, fields: Fields, number: int) -> bytes:
    """RFC 5322 §4.5.3, and the second field of RFC 6376 §3.4.5."""
    _replace(fields, b"Subject", b"Subject" + source.choice((b" ", b"\t", b" \t ")) + b": " + _text(source, 3))
    return _lines(source, 100)


def _header_controls(source: random.Random, fields: Fields, number: int) -> bytes:
    _replace(fields, b"Subject", b"Subject: a\x0b " + _text(source, 2) + source.choice((b"\x0b", b" \x0c", b"\x7f")))
    return _lines(source, 100)


def _controls(source: random.Random, fields: Fields, number: int) -> bytes:
    words = [source.choice((*_CONTROLS, b" ", b"\r\n")) + source.choice(_WORDS).encode() for _ in range(60)]
    return b"".join(words) + b" \x0c\r\n"


def _bare_cr(source: random.Random, fields: Fields, number: int) -> bytes:
    pieces = (b"\r", b" \r", b"\r ", b"\r\r\n", b" \r\n", b"\r\n", b" ")
    return b"".join(source.choice(_WORDS).encode() + source.choice(pieces) for _ in range(60)) + b"end\r\n"


_CLASSES: dict[MessageClass, Callable[[random.Random, Fields, int], bytes]] = {
    MessageClass.TINY: _tiny,
    MessageClass.PAGE: _page,
    MessageClass.LARGE: _large,
    MessageClass.FOLDED: _folded,
    MessageClass.EIGHT_BIT: _eight_bit,
    MessageClass.EMPTY_BODY: _empty,
    MessageClass.WHITE_SPACE: _white_space,
    MessageClass.HEADER_SPACE: _header_space,
    MessageClass.NO_FINAL_CRLF: _no_final_crlf,
    MessageClass.BLANK_LINES: _blank_lines,
    MessageClass.BLANK_AT_THE_END: _blank_at_the_end,
    MessageClass.EMPTY_SUBJECT: _empty_subject,
    MessageClass.LONG_TO: _long_to,
    MessageClass.REPEATED: _repeated,
    MessageClass.GAP: _gap,
    MessageClass.HEADER_CONTROLS: _header_controls,
    MessageClass.CONTROLS: _controls,
    MessageClass.BARE_CR: _bare_cr,
}
