"""Which key signs for which domain, as these programs' files have it and mailguard can have it too. Pure values."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from mailguard.domain import Domain
from mailguard.migration.note import Note, NoteKind, Place

__all__ = ["PatternKey", "PlannedKey", "SigningPlan", "SigningRule", "merged"]


@dataclass(frozen=True, slots=True)
class PlannedKey:
    """A key, named by selector and file, or given in the table itself."""

    selector: str
    file: str
    place: Place
    inline: str = ""
    """The key itself, base64 or PEM, where `file` is empty."""


@dataclass(frozen=True, slots=True)
class SigningRule:
    """The keys of one domain."""

    domain: Domain
    keys: tuple[PlannedKey, ...]
    subdomains: bool = False


@dataclass(frozen=True, slots=True)
class PatternKey:
    """A key for each domain that has one: its file has % where the domain belongs."""

    selector: str
    file: str
    place: Place
    within: Domain | None = None
    """Where the table has it for subdomains of one domain alone: that one."""
    includes_itself: bool = False
    """And for the domain itself."""

    def is_for(self, domain: Domain) -> bool:
        """Whether the table has the key for `domain`."""
        if self.within is None or not domain.is_equal_or_below(self.within):
            return self.within is None
        return domain != self.within or self.includes_itself


@dataclass(frozen=True, slots=True)
class SigningPlan:
    """All that is signed."""

    rules: tuple[SigningRule, ...] = ()
    patterns: tuple[PatternKey, ...] = ()
    notes: tuple[Note, ...] = ()
    named: frozenset[Domain] = frozenset()
    """The domains that the tables name, and what signs for them is in `rules`; no pattern adds to that."""


def merged(rules: Iterable[SigningRule], notes: list[Note]) -> tuple[SigningRule, ...]:
    """One rule for each domain, with each selector once; what is lost thereby goes into `notes`."""
    by_domain: dict[Domain, SigningRule] = {}
    for rule in rules:
        earlier = by_domain.get(rule.domain, replace(rule, keys=()))
        keys = {key.selector: key for key in earlier.keys}
        for key in rule.keys:
            present = keys.setdefault(key.selector, key)
            if (present.file, present.inline) != (key.file, key.inline):
                what = f"{rule.domain} has the selector {key.selector} at {present.place} too, with another key; that"
                notes.append(Note(NoteKind.BROKEN, f"{what} counts", key.place))
        by_domain[rule.domain] = SigningRule(
            rule.domain, tuple(keys.values()), rule.subdomains or (earlier.subdomains and bool(earlier.keys))
        )
    return tuple(by_domain.values())
