"""LoadedKeys: what the daemon says that it signs with, as the file keys.json of its runtime directory has it. Pure.

The daemon's user writes it, so that root believes nothing of it but which keys sign.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from mailguard.errors import ConfigError
from mailguard.rotation.strict_json import Entry, read_json

__all__ = ["KEYS_NAME", "MAX_LOADED_OCTETS", "LoadedDomain", "LoadedKeys"]

KEYS_NAME = "keys.json"
# 50,000 domains with two keys each have 11 MB.
MAX_LOADED_OCTETS = 16 << 20
MAX_DOMAINS = 100_000
MAX_KEYS = 100
VERSION = 1


@dataclass(frozen=True, slots=True)
class LoadedDomain:
    """The keys of one domain of [domains]."""

    keys: Mapping[str, str]
    """Selector to fingerprint."""
    rotation: str | None = None
    """The file of the rotation that they were taken from."""


@dataclass(frozen=True, slots=True)
class LoadedKeys:
    """All keys that the workers have loaded."""

    domains: Mapping[str, LoadedDomain]
    lifetime_s: float
    """How long a signature is valid."""

    def text(self) -> str:
        """For the file."""
        domains = {
            domain: {"rotation": each.rotation, "keys": dict(each.keys)} for domain, each in self.domains.items()
        }
        return json.dumps({"version": VERSION, "lifetime_s": self.lifetime_s, "domains": domains}) + "\n"

    @classmethod
    def parse(cls, octets: bytes) -> Self:
        """Read what `text` writes. Raises ConfigError."""
        if len(octets) > MAX_LOADED_OCTETS:
            raise ConfigError(f"it has more than {MAX_LOADED_OCTETS} octets")
        entry = Entry(read_json(octets), "version", "lifetime_s", "domains")
        if entry.number("version") != VERSION:
            raise ConfigError(f"its version is not {VERSION}")
        domains = {domain: _domain(each) for domain, each in entry.table("domains", MAX_DOMAINS).items()}
        return cls(domains, entry.number("lifetime_s"))


def _domain(found: object) -> LoadedDomain:
    entry = Entry(found, "rotation", "keys")
    keys = entry.table("keys", MAX_KEYS)
    inner = Entry(keys, *keys)
    return LoadedDomain({selector: inner.text(selector) for selector in keys}, entry.path_or_none("rotation"))
