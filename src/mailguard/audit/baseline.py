"""Findings that the administrator knows of and accepts: a file of them, read and written. Pure.

A finding that has changed, such as one network more in mynetworks, is not the one that was accepted.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass

from mailguard.audit.finding import Check, Found, Result
from mailguard.errors import ConfigError

__all__ = ["MAX_OCTETS", "Accepted", "Baseline"]

MAX_OCTETS = 4 * 1024 * 1024
"""A host with every finding in every service takes a hundredth of it."""
_VERSION = 1
_KEYS = ("check", "place", "found")


@dataclass(frozen=True, slots=True)
class Accepted:
    """One finding."""

    check: str
    place: str
    found: str


@dataclass(frozen=True, slots=True)
class Baseline:
    """All that is accepted."""

    accepted: frozenset[Accepted]

    @classmethod
    def parse(cls, text: str, *, name: str) -> Baseline:
        """From the text of a file; `name` is for the error. Raises ConfigError."""
        try:
            content = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"{name}: not a baseline: {error}; make it with --write-baseline") from None
        if not isinstance(content, dict) or content.get("baseline") != _VERSION:
            raise ConfigError(
                f'{name}: not a baseline: "baseline": {_VERSION} is missing; make it with --write-baseline'
            )
        entries = content.get("accepted")
        if not isinstance(entries, list):
            raise ConfigError(f'{name}: not a baseline: "accepted" is not a list')
        return cls(frozenset(_entry(each, number, name) for number, each in enumerate(entries, 1)))

    @classmethod
    def of(cls, results: Iterable[Result]) -> Baseline:
        """That accepts all that was found."""
        return cls(frozenset(_accepted(each.check, found) for each in results for found in each.found))

    def text(self) -> str:
        """For a file, sorted: what changes between two of them can be seen."""
        ordered = sorted((each.check, each.place, each.found) for each in self.accepted)
        accepted = [dict(zip(_KEYS, each, strict=True)) for each in ordered]
        return json.dumps({"baseline": _VERSION, "accepted": accepted}, indent=2) + "\n"

    def accepts(self, check: Check, found: Found) -> bool:
        """Whether this very finding is accepted."""
        return _accepted(check, found) in self.accepted

    def gone(self, results: Iterable[Result]) -> tuple[Accepted, ...]:
        """What is accepted and was not found any more."""
        left = self.accepted - Baseline.of(results).accepted
        return tuple(sorted(left, key=lambda each: (each.check, each.place, each.found)))


def _accepted(check: Check, found: Found) -> Accepted:
    return Accepted(check.id, found.place, found.what)


def _entry(entry: object, number: int, name: str) -> Accepted:
    values = [entry.get(key) for key in _KEYS] if isinstance(entry, dict) else []
    texts = [value for value in values if isinstance(value, str)]
    if len(texts) != len(_KEYS):
        raise ConfigError(f"{name}: entry {number} of accepted is not {', '.join(_KEYS)}, each a text")
    return Accepted(*texts)
