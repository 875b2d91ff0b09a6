"""KeyUse: for which domains of a configuration a key file is needed besides the rotation that made it.

Several domains may sign with one key, and keys that rotation made may be named in `selectors` again.
"""

from __future__ import annotations

import os

from mailguard.config import Config
from mailguard.domain import Domain
from mailguard.errors import ConfigError
from mailguard.key_places import keys_of, rotation_of

__all__ = ["KeyUse"]


class KeyUse:
    """Of one configuration; read when it is first asked."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._found: dict[str, dict[Domain, str]] | None = None
        self._fault = ""

    def elsewhere(self, domain: Domain, file: str) -> str:
        """Who needs the file besides the rotation of `domain`, or why nobody knows; empty if nobody does."""
        if self._found is None:
            self._found = {}
            self._read(self._found)
        users = self._found.get(os.path.realpath(file), {})
        needed = [f"{user} needs it ({how})" for user, how in users.items() if user != domain or how != "rotation"]
        return next(iter(needed), self._fault)

    def _read(self, found: dict[str, dict[Domain, str]]) -> None:
        by_hand = {name: rule for name, rule in self._config.domains.items() if rule.rotation is None}
        for owner, _, file in keys_of(self._config.model_copy(update={"domains": by_hand})):
            # A pattern may find files of a domain that has a rule.
            if owner in by_hand or owner not in self._config.domains:
                found.setdefault(os.path.realpath(file), {})[owner] = "by hand"
        for owner, rule in ((Domain.parse(name), rule) for name, rule in self._config.domains.items()):
            try:
                rotation = rotation_of(owner, rule)
            except ConfigError as error:
                self._fault = f"whether {owner} needs it is not known: {error}"
                continue
            for generation in rotation.generations if rotation is not None else ():
                for key in generation.keys:
                    found.setdefault(os.path.realpath(key.file), {})[owner] = "rotation"
