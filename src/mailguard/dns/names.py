"""Domain names as questions and answers write them.

RFC 1035 §2.3.4 (sizes), RFC 1035 §5.1 (the \\DDD escape). In an answer every octet outside letters, digits, hyphen
and underscore is escaped, so that what a stranger published cannot be taken for a host name nor break a header or a
log line. In a question other printable ASCII and the space are allowed as well, because SPF macros put local parts
there (RFC 7208 §7.2); it is sent as it stands. Pure functions, safe to share between threads.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from mailguard.domain import MAX_DOMAIN_CHARS, MAX_LABEL_CHARS

__all__ = ["escaped_name", "why_unaskable"]

_PLAIN = frozenset(b"abcdefghijklmnopqrstuvwxyz0123456789-_")
_TEXT_OF_OCTET = tuple(chr(octet) if octet in _PLAIN else f"\\{octet:03d}" for octet in range(256))
# What nearly every name is, seen at one glance: a label that is too long or empty does not match.
_USUAL = re.compile(rf"[a-z0-9_-]{{1,{MAX_LABEL_CHARS}}}(?:\.[a-z0-9_-]{{1,{MAX_LABEL_CHARS}}})*")
_ASKABLE = frozenset(chr(octet) for octet in range(0x20, 0x7F)) - frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZ\\.")


def escaped_name(labels: Iterable[bytes]) -> str:
    """The text of a name: lower case, no trailing dot, octets outside LDH and "_" as \\DDD. The root is ""."""
    return ".".join(
        [
            label.decode("ascii") if _PLAIN.issuperset(label) else "".join([_TEXT_OF_OCTET[octet] for octet in label])
            for label in (label.lower() for label in labels)
            if label
        ]
    )


def why_unaskable(name: str) -> str:
    """Why `name` cannot be the name of a Question, for people; "" if it can."""
    if len(name) <= MAX_DOMAIN_CHARS and _USUAL.fullmatch(name):
        return ""
    if not name or len(name) > MAX_DOMAIN_CHARS:
        return "the name is empty" if not name else "the name is too long"
    if name == "@":
        return "the name is the root in master files (RFC 1035 §5.1)"
    for label in name.split("."):
        if not label:
            return "a label of the name is empty"
        if len(label) > MAX_LABEL_CHARS:
            return "a label of the name has more than 63 characters"
        if not _ASKABLE.issuperset(label):
            return "the name has a character other than lower-case printable ASCII"
    return ""
