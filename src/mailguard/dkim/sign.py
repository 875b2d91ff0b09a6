"""Signing (RFC 6376 §5): one DKIM-Signature field for each key.

Pure: keys, body digests and `now` are arguments. The fields to sign are oversigned: listed once more than
they occur, so that adding one breaks the signature (RFC 6376 §8.15). What mailing lists rewrite (List-*,
Sender) is signed where present and not oversigned. l= is never made.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mailguard.dkim.canonical import BodyDigests, BodyRequest, Canonicalization, canonical_field
from mailguard.dkim.signing_key import SigningKey
from mailguard.errors import SigningRefused
from mailguard.message import HeaderField, Message

__all__ = ["SigningRules", "check_signable", "sign", "sign_body_requests"]

FIELD_NAME = b"DKIM-Signature"
CRLF = b"\r\n"
MAX_LINE_CHARS = 78  # RFC 5322 §2.1.1
OVERSIGNED = (
    "From",
    "Reply-To",
    "Subject",
    "To",
    "Cc",
    "Date",
    "Message-ID",
    "In-Reply-To",
    "References",
    "MIME-Version",
    "Content-Type",
    "Content-Transfer-Encoding",
)
SIGNED_WHERE_PRESENT = ("Sender",)
"""And every field whose name begins with `LIST_PREFIX`."""
LIST_PREFIX = b"list-"


@dataclass(frozen=True, slots=True, kw_only=True)
class SigningRules:
    """How to sign."""

    header_canonicalization: Canonicalization = Canonicalization.RELAXED
    body_canonicalization: Canonicalization = Canonicalization.RELAXED
    lifetime_s: int = 7 * 86_400
    """x= minus t=."""


def sign_body_requests(rules: SigningRules) -> tuple[BodyRequest, ...]:
    """What BodyDigests must compute for `sign`."""
    return (BodyRequest(rules.body_canonicalization),)


def check_signable(message: Message) -> None:
    """Raise SigningRefused for a message without exactly one author domain, which nobody can answer for."""
    if message.malformed is not None:
        raise SigningRefused(message.malformed.value, f"not signed: {message.malformed_detail}")


def sign(
    message: Message,
    digests: BodyDigests,
    *,
    keys: Sequence[SigningKey],
    now: float,
    rules: SigningRules | None = None,
) -> tuple[HeaderField, ...]:
    """The DKIM-Signature fields to put on top of the header, one for each key, in the order of `keys`.

    `digests` is finished; `now` is in POSIX seconds. Raises SigningRefused. Whether the keys' domain may sign
    for the author is the caller's to decide.
    """
    check_signable(message)
    rules = rules or SigningRules()
    names, signed = _header(message.fields, rules.header_canonicalization)
    body_hash = digests.digest(sign_body_requests(rules)[0])
    if body_hash is None:
        raise ValueError("the whole body has no digest")
    made = (_sign_with(key, names, signed, base64.b64encode(body_hash), int(now), rules) for key in keys)
    return tuple(made)


def _header(fields: Iterable[HeaderField], form: Canonicalization) -> tuple[list[bytes], list[bytes]]:
    """h= and the canonical fields that it stands for, lowest instance first (RFC 6376 §5.4.2)."""
    present: dict[bytes, list[HeaderField]] = {}
    for field in fields:
        present.setdefault(field.key, []).append(field)
    names: list[bytes] = []
    signed: list[bytes] = []
    wanted = [(name.encode("ascii"), 1) for name in OVERSIGNED]
    wanted += [(name.encode("ascii"), 0) for name in SIGNED_WHERE_PRESENT]
    wanted += [(instances[0].name, 0) for key, instances in present.items() if _is_list_field(key)]
    for name, extra in wanted:
        instances = present.get(name.lower(), [])
        names += [name] * (len(instances) + extra)
        signed += [canonical_field(field, form) for field in reversed(instances)]
    return names, signed


def _is_list_field(key: bytes) -> bool:
    # A name with a semicolon is legal and would end h=; one longer than a line could not be folded.
    return key.startswith(LIST_PREFIX) and b";" not in key and len(key) < MAX_LINE_CHARS - 1


def _sign_with(
    key: SigningKey, names: list[bytes], signed: list[bytes], body_hash: bytes, now: int, rules: SigningRules
) -> HeaderField:
    form = f"{rules.header_canonicalization.value}/{rules.body_canonicalization.value}"
    tags = [
        b"v=1;",
        f"a={key.algorithm};".encode(),
        f"c={form};".encode(),
        f"d={key.domain};".encode(),
        f"s={key.selector};".encode(),
        f"t={now};".encode(),
        f"x={now + rules.lifetime_s};".encode(),
    ]
    words = [name + b":" for name in names[:-1]] + [names[-1] + b";"]
    words[0] = b"h=" + words[0]
    lines = _fold(tags, b" ", used=len(FIELD_NAME) + 1)
    lines += _fold(words, b"", used=0)
    lines += [b"bh=" + body_hash + b";", b"b="]
    unsigned = HeaderField(FIELD_NAME, b" " + (CRLF + b"\t").join(lines))
    octets = CRLF.join([*signed, canonical_field(unsigned, rules.header_canonicalization)])
    signature = base64.b64encode(key.sign(octets))
    width = MAX_LINE_CHARS - 1
    first = width - len(b"b=")
    parts = [signature[:first]] + [signature[at : at + width] for at in range(first, len(signature), width)]
    return HeaderField(FIELD_NAME, unsigned.value + (CRLF + b"\t").join(parts))


def _fold(words: Iterable[bytes], space: bytes, *, used: int) -> list[bytes]:
    """The words on lines of at most 78 characters with a leading blank; the first has `used` more in front."""
    lines: list[bytes] = []
    line = b""
    for word in words:
        joined = line + space + word if line else word
        if line and used + 1 + len(joined) > MAX_LINE_CHARS:
            lines.append(line)
            line, used = word, 0
        else:
            line = joined
    return [*lines, line]
