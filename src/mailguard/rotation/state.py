"""Rotation: the generations of a domain's keys and the stage of each, as a file between two steps keeps it.

The daemon reads it for the keys that sign; `mailguard key rotate` writes it. Pure; values are frozen.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import Enum
from typing import Any, Self

from mailguard.domain import Domain
from mailguard.errors import ConfigError, DomainError

__all__ = ["Generation", "RotatedKey", "Rotation", "Stage"]

VERSION = 1
# One signs, one comes, and those that go have a week or two each.
MAX_GENERATIONS = 50


class Stage(Enum):
    """The life of a generation, in order."""

    CREATED = "created"
    """The keys are there, and not every authoritative server has the records."""
    PUBLISHED = "published"
    """Every authoritative server has them."""
    SIGNING = "signing"
    RETIRED = "retired"
    """It signs no more; what it signed may still be on its way, so the records stay."""
    REMOVABLE = "removable"
    """Nobody needs the records any more."""


@dataclass(frozen=True, slots=True)
class RotatedKey:
    """One key of a generation."""

    selector: str
    file: str
    algorithm: str


@dataclass(frozen=True, slots=True)
class Generation:
    """Keys that take their turn together."""

    keys: tuple[RotatedKey, ...]
    stage: Stage
    since: float
    """POSIX seconds: when it came to this stage."""

    @property
    def name(self) -> str:
        """The selectors."""
        return ", ".join(key.selector for key in self.keys)


@dataclass(frozen=True, slots=True)
class Rotation:
    """All generations of a domain, the oldest first."""

    domain: Domain
    generations: tuple[Generation, ...] = ()

    @property
    def signing(self) -> tuple[RotatedKey, ...]:
        """The keys that sign now."""
        return tuple(key for each in self.generations if each.stage is Stage.SIGNING for key in each.keys)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what `text` writes. Raises ConfigError."""
        try:
            found = json.loads(text)
            if found["version"] != VERSION:
                raise ConfigError(f"its version is {found['version']!r}; this mailguard reads {VERSION}")
            generations = tuple(map(_generation, found["generations"]))
            domain = Domain.parse(found["domain"])
        except (ValueError, TypeError, KeyError, RecursionError, DomainError) as error:
            raise ConfigError(f"it is not a file of mailguard key rotate: {type(error).__name__}: {error}") from None
        if len(generations) > MAX_GENERATIONS:
            raise ConfigError(f"it has more than {MAX_GENERATIONS} generations")
        if sum(each.stage is Stage.SIGNING for each in generations) > 1:
            raise ConfigError("two generations sign in it; one does at most")
        return cls(domain, generations)

    def text(self) -> str:
        """For the file."""
        return json.dumps(self.to_json(), indent=2) + "\n"

    def to_json(self) -> dict[str, Any]:
        """For `json.dumps`."""
        return {
            "version": VERSION,
            "domain": self.domain,
            "generations": [
                {
                    "stage": each.stage.value,
                    "since": each.since,
                    "keys": [
                        {"selector": key.selector, "file": key.file, "algorithm": key.algorithm} for key in each.keys
                    ],
                }
                for each in self.generations
            ],
        }


def _generation(found: Any) -> Generation:
    keys = tuple(
        RotatedKey(*(_text(each[name]) for name in ("selector", "file", "algorithm"))) for each in found["keys"]
    )
    if not keys:
        raise ConfigError("a generation in it has no key")
    return Generation(keys, Stage(found["stage"]), float(found["since"]))


def _text(found: Any) -> str:
    if not isinstance(found, str):
        raise TypeError("a text is expected")
    return found
