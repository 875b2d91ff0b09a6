"""KeyRing: which keys sign for a domain.

Keys named in [domains] are loaded when the ring is made; those of `sign.key_pattern` at the first message
that needs them, and kept. A ring may be used by several threads: at worst two load the same key.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

from mailguard.config import Config
from mailguard.dkim.signing_key import KeyCheck, KeyPermissions, SigningKey
from mailguard.domain import Domain
from mailguard.errors import KeyFileError
from mailguard.key_places import NamedKey, rule_for, signing_keys

__all__ = ["KeyRing"]

# At about 2 kB a key. A host with more signing domains than this reads some of them again.
MAX_PATTERN_DOMAINS = 10_000


class KeyRing:
    """The signing keys of one configuration."""

    def __init__(self, config: Config, *, check: KeyCheck = KeyCheck.QUICK) -> None:
        """Load the keys of [domains]. Raises ConfigError or KeyFileError naming the file."""
        self._config = config.sign
        self._permissions = KeyPermissions(config.sign.key_permissions)
        self._check = check
        self._subdomains = {Domain.parse(name) for name, rule in config.domains.items() if rule.subdomains}
        self._named = {
            domain: tuple(self._load_named(key, domain) for key in signing_keys(domain, rule))
            for domain, rule in ((Domain.parse(name), rule) for name, rule in config.domains.items())
        }
        self._found: dict[Domain, tuple[SigningKey, ...]] = {}

    def keys_for(self, author_domain: Domain) -> tuple[SigningKey, ...]:
        """The keys that sign for `author_domain`; none where no rule covers it.

        A rule of its own comes first, then the nearest parent's that covers subdomains, then the pattern.
        Raises KeyFileError for a key that is there and cannot be used.
        """
        owner = rule_for(author_domain, named=self._named, with_subdomains=self._subdomains)
        return self._by_pattern(author_domain) if owner is None else self._named[owner]

    def domains(self) -> tuple[Domain, ...]:
        """The domains that have a rule of their own."""
        return tuple(self._named)

    def _by_pattern(self, domain: Domain) -> tuple[SigningKey, ...]:
        keys = self._found.get(domain)
        if keys is None:
            keys = self._load_pattern(domain, self._config.key_selectors, self._config.key_pattern)
            if keys:  # a domain without keys is looked at again: its keys may come any time
                if len(self._found) >= MAX_PATTERN_DOMAINS:
                    self._found.pop(next(iter(self._found)), None)
                self._found[domain] = keys
        return keys

    def _load_pattern(
        self, domain: Domain, selectors: tuple[str, ...], pattern: str | None
    ) -> tuple[SigningKey, ...]:
        if pattern is None:
            return ()
        # A Domain has nothing but letters, digits, hyphens and dots between them: it cannot leave the directory.
        paths = [(name, Path(pattern.format(domain=domain, selector=name))) for name in selectors]
        return tuple(self._load(path, domain, name) for name, path in paths if _exists(path))

    def _load_named(self, named: NamedKey, domain: Domain) -> SigningKey:
        key = self._load(Path(named.file), domain, named.selector)
        if named.fingerprint and key.fingerprint != named.fingerprint:
            # What the DNS has for this selector is the half of another key.
            raise KeyFileError(f"{named.file}: it is not the key that mailguard key rotate made; put that back")
        return key

    def _load(self, path: Path, domain: Domain, selector: str) -> SigningKey:
        return SigningKey.load(
            path, domain=domain, selector=selector, permissions=self._permissions, check=self._check
        )


def _exists(path: Path) -> bool:
    """Whether there is something at `path`. Raises KeyFileError where that cannot be seen: it may be a key."""
    try:
        os.stat(path)
    except OSError as error:
        # A sender chooses the domain: one whose name is too long for a file has no key.
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG):
            return False
        raise KeyFileError(f"{path} cannot be examined: {error.strerror}") from None
    return True
