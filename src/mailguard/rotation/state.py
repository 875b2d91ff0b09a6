"""Rotation: the generations of a domain's keys and the stage of each, as a file between two steps keeps it.

The daemon reads it for the keys that sign; `mailguard key rotate` writes it. RFC 6376 §3.6.1 (records). Pure; values
are frozen.
"""

from __future__ import annotations

import base64
import binascii
import json
import posixpath
from dataclasses import dataclass
from enum import Enum
from hashlib import sha256
from typing import Any, Self

from mailguard.dkim.signature import key_name, parse_selector
from mailguard.domain import Domain
from mailguard.errors import ConfigError, DomainError, TagListError
from mailguard.rotation.strict_json import Entry, read_json
from mailguard.taglist import TagList

__all__ = ["COMING", "MAX_GENERATIONS", "MAX_USED", "Generation", "RotatedKey", "Rotation", "Stage"]

VERSION = 1
# One signs, one comes, and those that go have a week or two each.
MAX_GENERATIONS = 50
# A pair each half year uses them up in 250 years.
MAX_USED = 1_000
MAX_KEYS = 20


class Stage(Enum):
    """The life of a generation, in order."""

    CREATED = "created"
    """The keys are there, and not every authoritative server has the records."""
    PUBLISHED = "published"
    """Every authoritative server has them, and that nobody had them before is being forgotten."""
    SWITCHING = "switching"
    """The daemon is to sign with them, and has not said yet that it does."""
    SIGNING = "signing"
    RETIRED = "retired"
    """It signs no more; what it signed may still be on its way, so the records stay."""
    REMOVABLE = "removable"
    """Nobody needs the records any more."""


COMING = frozenset({Stage.CREATED, Stage.PUBLISHED, Stage.SWITCHING})


@dataclass(frozen=True, slots=True, kw_only=True)
class RotatedKey:
    """One key of a generation."""

    selector: str
    algorithm: str
    """"rsa" or "ed25519"."""
    bits: int
    file: str
    record: str
    """The TXT record to publish."""
    fingerprint: str
    """SHA-256 of the octets in p=, in hexadecimal digits."""
    is_made: bool
    """Rotation made the file, and may delete it. Keys that the configuration named before are not its own."""

    def name(self, domain: Domain) -> str:
        """Where the record belongs."""
        return key_name(self.selector, domain)


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """Keys that take their turn together. Times are POSIX seconds."""

    keys: tuple[RotatedKey, ...]
    stage: Stage
    since: float
    """When it came to this stage."""
    until: float | None = None
    """It does not leave the stage before; None: somebody has to do something first."""
    lifetime_s: float = 0
    """The longest that a signature of it may be valid."""
    ttl_s: float = 0
    """The longest that a server let its records be kept."""
    other_ttl_s: float = 0
    """The longest that a cache may keep what was there before them: something else, or that nothing is."""
    has_signed: bool = False
    """It signs, did, or may have."""

    @property
    def name(self) -> str:
        """The selectors."""
        return ", ".join(key.selector for key in self.keys)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rotation:
    """All generations of a domain, the oldest first."""

    domain: Domain
    generations: tuple[Generation, ...] = ()
    used: tuple[str, ...] = ()
    """Every selector that there ever was: a name is never used again."""

    def at(self, *stages: Stage) -> tuple[Generation, ...]:
        """Those in one of the stages."""
        return tuple(each for each in self.generations if each.stage in stages)

    @property
    def signing(self) -> tuple[RotatedKey, ...]:
        """The keys that the daemon is to sign with: of the two that change places, the new ones."""
        found = self.at(Stage.SWITCHING) or self.at(Stage.SIGNING)
        return found[0].keys if found else ()

    @classmethod
    def parse(cls, octets: bytes) -> Self:
        """Read what `text` writes. Raises ConfigError."""
        found = read_json(octets)
        if isinstance(found, dict) and found.get("version") != VERSION:
            raise ConfigError(f"its version is {found.get('version')!r}; this mailguard reads {VERSION}")
        entry = Entry(found, "version", "domain", "generations", "used")
        try:
            rotation = cls(
                domain=Domain.parse(entry.text("domain")),
                generations=tuple(_generation(each) for each in entry.list("generations", MAX_GENERATIONS)),
                used=tuple(_selector(each) for each in entry.list("used", MAX_USED)),
            )
        except DomainError as error:
            raise ConfigError(f"domain: {error}") from None
        rotation._check()
        return rotation

    def _check(self) -> None:
        selectors = [key.selector for each in self.generations for key in each.keys]
        if len(self.at(*COMING)) > 1 or len(self.at(Stage.SIGNING)) > 1:
            raise ConfigError("one generation signs at most, and one comes")
        if len(set(selectors)) != len(selectors) or not set(selectors) <= set(self.used):
            raise ConfigError("every selector is there once, and in used")
        for key in (key for each in self.generations for key in each.keys):
            own = f"/{self.domain}/{key.selector}.pem"
            if not key.file.startswith("/") or posixpath.normpath(key.file) != key.file:
                raise ConfigError(f"file: {key.file} is no whole path")
            if key.is_made and not key.file.endswith(own):
                raise ConfigError(f"file: a key that rotation made is at {own}")

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
                    "until": each.until,
                    "lifetime_s": each.lifetime_s,
                    "ttl_s": each.ttl_s,
                    "other_ttl_s": each.other_ttl_s,
                    "has_signed": each.has_signed,
                    "keys": [_key_json(key) for key in each.keys],
                }
                for each in self.generations
            ],
            "used": list(self.used),
        }


def _key_json(key: RotatedKey) -> dict[str, object]:
    return {
        "selector": key.selector,
        "algorithm": key.algorithm,
        "bits": key.bits,
        "file": key.file,
        "record": key.record,
        "fingerprint": key.fingerprint,
        "is_made": key.is_made,
    }


def _generation(found: object) -> Generation:
    entry = Entry(found, "stage", "since", "until", "lifetime_s", "ttl_s", "other_ttl_s", "has_signed", "keys")
    try:
        stage = Stage(entry.text("stage"))
    except ValueError:
        raise ConfigError(f"stage: {entry.text('stage')!r} is none") from None
    keys = tuple(_key(each) for each in entry.list("keys", MAX_KEYS))
    if not keys:
        raise ConfigError("keys: a generation has at least one")
    return Generation(
        keys=keys,
        stage=stage,
        since=entry.number("since"),
        until=entry.number_or_none("until"),
        lifetime_s=entry.number("lifetime_s"),
        ttl_s=entry.number("ttl_s"),
        other_ttl_s=entry.number("other_ttl_s"),
        has_signed=entry.flag("has_signed"),
    )


def _key(found: object) -> RotatedKey:
    entry = Entry(found, "selector", "algorithm", "bits", "file", "record", "fingerprint", "is_made")
    key = RotatedKey(
        selector=_selector(entry.text("selector")),
        algorithm=entry.text("algorithm"),
        bits=int(entry.number("bits")),
        file=entry.path("file"),
        record=entry.text("record"),
        fingerprint=entry.text("fingerprint"),
        is_made=entry.flag("is_made"),
    )
    if key.algorithm not in ("rsa", "ed25519"):
        raise ConfigError(f"algorithm: {key.algorithm!r} is none")
    try:
        published = base64.b64decode(TagList.parse(key.record.encode("ascii")).get("p", b""), validate=True)
    except (TagListError, binascii.Error) as error:
        raise ConfigError(f"record: {error}") from None
    if sha256(published).hexdigest() != key.fingerprint:
        raise ConfigError(f"fingerprint: it is not that of the record of {key.selector}")
    return key


def _selector(found: object) -> str:
    try:
        if not isinstance(found, str) or parse_selector(found) != found:
            raise ConfigError(f"selector: {found!r} is none")
    except DomainError as error:
        raise ConfigError(f"selector: {error}") from None
    return found
