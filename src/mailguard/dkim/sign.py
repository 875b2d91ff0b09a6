"""Signing (RFC 6376 §5): one DKIM-Signature field for each key.

Pure, but for what `SigningRules` keeps: keys, body digests and `now` are arguments. The fields to sign are
oversigned: listed once more than they occur, so that adding one breaks the signature (RFC 6376 §8.15). What
mailing lists rewrite (List-*, Sender) is signed where present and not oversigned. l= is never made.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from mailguard.argument import check_type
from mailguard.dkim.canonical import BodyDigests, BodyRequest, Canonicalization, canonical_fields
from mailguard.dkim.signing_key import SigningKey
from mailguard.errors import SigningRefused
from mailguard.message import HeaderField, Message

__all__ = ["SigningRules", "check_signable", "sign", "sign_body_requests"]

FIELD_NAME = b"DKIM-Signature"
CRLF = b"\r\n"
FOLD = b"\r\n\t"
MAX_LINE_CHARS = 78  # RFC 5322 §2.1.1
# RFC 6376 §5.4.1
OVERSIGNED = (
    b"From",
    b"Reply-To",
    b"Subject",
    b"To",
    b"Cc",
    b"Date",
    b"Message-ID",
    b"In-Reply-To",
    b"References",
    b"MIME-Version",
    b"Content-Type",
    b"Content-Transfer-Encoding",
)
SIGNED_WHERE_PRESENT = (b"Sender",)
"""And every field whose name begins with `LIST_PREFIX`."""
LIST_PREFIX = b"list-"
# With more, none is: h= would become longer than what Postfix lets into a header field.
MAX_LIST_FIELDS = 50
_WANTED = [
    *[(name.lower(), name + b":", 1) for name in OVERSIGNED],
    *[(name.lower(), name + b":", 0) for name in SIGNED_WHERE_PRESENT],
]
"""Key, name as h= has it, and how often it is named beyond the fields that there are."""
# A program that writes mail puts the same fields in the same order again and again, and few write most of it.
MAX_KEPT_CHOICES = 256
# What is longer is rare, and may be somebody's who wants the memory: 256 headers of this size take 1 MB.
MAX_KEPT_FIELDS = 50
MAX_KEPT_OCTETS = 1_000


class Choice(NamedTuple):
    """What is signed of a header."""

    listed: bytes
    """h=, folded."""
    places: tuple[int, ...]
    """Those of the fields that it names, in its order."""


class Choices:
    """What is signed of a header, by the names of its fields; kept, since it is the same for many messages."""

    __slots__ = ("_kept",)

    def __init__(self) -> None:
        self._kept: dict[tuple[bytes, ...], Choice] = {}

    def of(self, fields: Sequence[HeaderField]) -> Choice:
        """The choice for a header with these fields."""
        names = tuple([each.name for each in fields])
        choice = self._kept.get(names)
        if choice is None:
            choice = _chosen(names)
            if len(names) <= MAX_KEPT_FIELDS and sum(map(len, names)) <= MAX_KEPT_OCTETS:
                if len(self._kept) >= MAX_KEPT_CHOICES:
                    self._kept.clear()
                self._kept[names] = choice
        return choice


@dataclass(frozen=True, slots=True, kw_only=True)
class SigningRules:
    """How to sign.

    Raises ValueError for a lifetime with which no signature would be valid, and TypeError for values of another type.
    """

    header_canonicalization: Canonicalization = Canonicalization.RELAXED
    body_canonicalization: Canonicalization = Canonicalization.RELAXED
    lifetime_s: int = 7 * 86_400
    """x= minus t=, 1 or more (RFC 6376 §3.5)."""
    choices: Choices = field(default_factory=Choices, init=False, repr=False, compare=False)
    """Belongs to one process; may be used by several threads."""

    def __post_init__(self) -> None:
        check_type("header_canonicalization", self.header_canonicalization, Canonicalization)
        check_type("body_canonicalization", self.body_canonicalization, Canonicalization)
        # What timedelta.total_seconds() gives would be written with its point, which no verifier reads.
        if type(self.lifetime_s) is not int or self.lifetime_s < 1:
            raise ValueError(f"lifetime_s is a whole number of seconds, 1 or more, not {self.lifetime_s!r}")


def sign_body_requests(rules: SigningRules) -> tuple[BodyRequest, ...]:
    """What BodyDigests must compute for `sign`: the whole body, never a part (RFC 6376 §5.3.1)."""
    return (BodyRequest(rules.body_canonicalization),)


def check_signable(message: Message) -> None:
    """Raise SigningRefused for a message without exactly one author domain, which nobody can answer for.

    RFC 6376 §3.8: what is signed is to be valid.
    """
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
    """The DKIM-Signature fields to put on top of the header (RFC 6376 §5.6), one for each key, in their order.

    `digests` is finished; `now` is in POSIX seconds. Raises SigningRefused. Whether the keys' domain may sign
    for the author is the caller's to decide.
    """
    check_signable(message)
    rules = rules or SigningRules()
    listed, places = rules.choices.of(message.fields)
    signed = canonical_fields([message.fields[place] for place in places], rules.header_canonicalization)
    body_hash = digests.digest(sign_body_requests(rules)[0])
    if body_hash is None:
        raise ValueError("the whole body has no digest")
    tail = FOLD.join([listed, b"bh=" + base64.b64encode(body_hash) + b";", b"b="])
    return tuple([_sign_with(key, tail, signed, int(now), rules) for key in keys])


def _chosen(names: Sequence[bytes]) -> Choice:
    """What h= names of a header, and the fields that it stands for, lowest instance first (RFC 6376 §5.4.2)."""
    found: dict[bytes, list[int]] = {}
    for place, name in enumerate(names):
        found.setdefault(name.lower(), []).append(place)
    lists = [key for key in found if key.startswith(LIST_PREFIX) and _fits(key)]
    if sum(len(found[key]) for key in lists) > MAX_LIST_FIELDS:
        lists = []
    listed = b""
    places: list[int] = []
    for key, name, extra in _WANTED + [(key, names[found[key][0]] + b":", 0) for key in lists]:
        instances = found.get(key, [])
        listed += name * (len(instances) + extra)
        places += reversed(instances)
    return Choice(FOLD.join(_fold(b"h=" + listed[:-1] + b";", b":")), tuple(places))


def _fits(key: bytes) -> bool:
    """Whether h= can name it: a semicolon, which is legal in a name, would end it; a longer line has no place."""
    return b";" not in key and len(key) < MAX_LINE_CHARS - 1


def _sign_with(key: SigningKey, tail: bytes, signed: bytes, now: int, rules: SigningRules) -> HeaderField:
    """RFC 6376 §5.5: the field with `key`'s signature over `signed` and itself. `tail` is its lines from h= to b=."""
    form = f"{rules.header_canonicalization.value}/{rules.body_canonicalization.value}"
    tags = f"v=1; a={key.algorithm}; c={form}; d={key.domain}; s={key.selector}; t={now}; x={now + rules.lifetime_s};"
    lines = _fold(tags.encode("ascii"), b"; ", used=len(FIELD_NAME) + 1)
    unsigned = HeaderField(FIELD_NAME, b" " + FOLD.join([*lines, tail]))
    own = canonical_fields([unsigned], rules.header_canonicalization)
    signature = base64.b64encode(key.sign(signed + CRLF + own))
    width = MAX_LINE_CHARS - 1
    first = width - len(b"b=")
    parts = [signature[:first]] + [signature[at : at + width] for at in range(first, len(signature), width)]
    return HeaderField(FIELD_NAME, unsigned.value + FOLD.join(parts))


def _fold(text: bytes, between: bytes, *, used: int = 0) -> list[bytes]:
    """`text` as lines of at most 78 characters with a leading blank; the first has `used` more in front.

    A line ends with the first octet of a `between`; the rest of that is left out. What has none may be longer.
    """
    lines: list[bytes] = []
    start = 0
    room = MAX_LINE_CHARS - 1 - used
    while len(text) - start > room:
        end = text.rfind(between, start, start + room + len(between) - 1)
        if end < 0:
            end = text.find(between, start)
        if end < 0:
            break
        lines.append(text[start : end + 1])
        start = end + len(between)
        room = MAX_LINE_CHARS - 1
    return [*lines, text[start:]]
