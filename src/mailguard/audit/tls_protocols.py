"""Postfix's lists of TLS versions and its grades of ciphers. Pure."""

from __future__ import annotations

import re

__all__ = ["WEAK_GRADES", "is_old", "lowest_version", "modern_versions", "unknown_word"]

VERSIONS = ("SSLv2", "SSLv3", "TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3")
LOWEST_GOOD = "TLSv1.2"
"""RFC 9325 §3.1.1: TLS 1.0 and 1.1 are not negotiated."""
OLD_FORM_BEFORE = (3, 6)
"""The version of Postfix that brought `>=TLSv1.2`."""
WEAK_GRADES = frozenset({"export", "low", "null"})

_HEX = {0x0300: "SSLv3", 0x0301: "TLSv1", 0x0302: "TLSv1.1", 0x0303: "TLSv1.2", 0x0304: "TLSv1.3"}


def lowest_version(value: str) -> str:
    """The lowest version that a list admits, as postconf(5) reads it; TLSv1.3 stands for that and anything later."""
    floor, excluded, included = VERSIONS[0], set(), set()
    for word in re.split(r"[\s,:]+", value.strip()):
        if word.startswith(">="):
            floor = _named(word[2:]) or floor
        elif word.startswith("!"):
            excluded.add(_named(word[1:]))
        elif word and not word.startswith("<="):
            included.add(_named(word))
    for version in VERSIONS[VERSIONS.index(floor) :]:
        if version not in excluded and (not included or version in included):
            return version
    return VERSIONS[-1]


def unknown_word(value: str, version: tuple[int, ...]) -> str:
    """The first word that this version of Postfix cannot read, so that it does without TLS. Empty if none."""
    for word in re.split(r"[\s,:]+", value.strip()):
        name = word.removeprefix("!").removeprefix(">=").removeprefix("<=")
        is_bound = word.startswith((">=", "<="))
        if (is_bound and version < OLD_FORM_BEFORE) or (name and _named(name) is None and not _is_number(name)):
            return word
    return ""


def is_old(value: str) -> bool:
    """Whether a list admits a version that is not to be used any more."""
    return VERSIONS.index(lowest_version(value)) < VERSIONS.index(LOWEST_GOOD)


def modern_versions(version: tuple[int, ...]) -> str:
    """The list that admits TLS 1.2 and later, as this version of Postfix writes it."""
    return "!SSLv2, !SSLv3, !TLSv1, !TLSv1.1" if version < OLD_FORM_BEFORE else ">=TLSv1.2"


def _is_number(word: str) -> bool:
    """A bound may be a version that no library has yet."""
    return re.fullmatch(r"(?:0x)?[0-9A-Fa-f]{1,4}", word) is not None


def _named(word: str) -> str | None:
    for version in VERSIONS:
        if word.lower() == version.lower():
            return version
    try:
        return _HEX.get(int(word, 16))
    except ValueError:
        return None
