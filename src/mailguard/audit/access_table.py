"""Tables that a restriction looks clients and senders up in (access(5)): whether an entry of one permits. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator

from mailguard.audit.restriction_list import words

__all__ = ["inline_permits", "source_file", "text_permits"]

# Of the first kinds a file of text beside the table has the entries.
_FILES = re.compile(r"(hash|btree|dbm|lmdb|cdb|texthash|cidr|pcre|regexp):(/[^\s,{}]+)")
_PATTERNS = ("pcre", "regexp")
_PATTERN = re.compile(r"!?([^\w\s]).*?(?<!\\)\1\w*\s+(.*)")
_CONTINUED = re.compile(r"\n[ \t]+")
# What follows one of these is its argument.
_NO_PERMIT = re.compile(
    r"(?:[45]\d\d|reject|defer|defer_if_reject|defer_if_permit|bcc|discard|dunno|filter|hold|info|prepend|redirect"
    r"|warn)$",
    re.IGNORECASE,
)
# access(5): OK, a number, or a list of restrictions; RELAY is its older name.
_PERMIT = re.compile(r"(?:ok|relay|\d+|permit\w*)$", re.IGNORECASE)


def source_file(table: str) -> tuple[str, str] | None:
    """The kind of a table and its file of text, if there is one: `hash:/etc/postfix/senders`."""
    found = _FILES.fullmatch(table)
    return (found[1], found[2]) if found else None


def text_permits(kind: str, text: str) -> bool:
    """Whether an entry of the file says OK, or permits in other words."""
    return any(_permits(result) for result in _results(kind, text))


def inline_permits(table: str) -> bool | None:
    """The same of `static:` and `inline:`; None for other tables."""
    kind, _, rest = table.partition(":")
    if kind == "static":
        return _permits(rest.strip("{} "))
    if kind == "inline" and rest.startswith("{"):
        entries = (each.strip("{}") for each in words(re.sub(r"\s*=\s*", "=", rest[1:-1])))
        return any(_permits(each.partition("=")[2].strip()) for each in entries)
    return None


def _results(kind: str, text: str) -> Iterator[str]:
    for line in _CONTINUED.sub(" ", text).split("\n"):
        entry = line.strip()
        if not entry or entry.startswith("#"):
            continue
        if kind in _PATTERNS:
            pattern = _PATTERN.match(entry)
            yield pattern[2] if pattern else ""
        else:
            _, *result = entry.split(None, 1)
            yield "".join(result)


def _permits(result: str) -> bool:
    found = words(result)
    return bool(found) and not _NO_PERMIT.match(found[0]) and any(_PERMIT.match(word) for word in found)
