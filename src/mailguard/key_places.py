"""Which private key files a configuration names, those that its pattern finds and those that rotate included."""

from __future__ import annotations

import glob
import os
import re
import stat
from collections.abc import Iterable

from mailguard.config import Config, DomainRule
from mailguard.domain import Domain
from mailguard.errors import ConfigError, DomainError
from mailguard.rotation.state import Rotation

__all__ = ["WantedKey", "keys_of", "read_rotation", "signing_keys"]

MAX_ROTATION_BYTES = 1 << 20

WantedKey = tuple[Domain, str, str]
"""Domain, selector and key file."""


def keys_of(config: Config) -> list[WantedKey]:
    """Every key that `config` names, and every file that its pattern finds now."""
    wanted = [
        (Domain.parse(domain), selector, file)
        for domain, rule in config.domains.items()
        for selector, file in signing_keys(Domain.parse(domain), rule)
    ]
    pattern = config.sign.key_pattern
    for selector in config.sign.key_selectors if pattern else ():
        for domain, file in _found(str(pattern), selector):
            if domain not in config.domains:
                wanted.append((domain, selector, file))
    return wanted


def signing_keys(domain: Domain, rule: DomainRule) -> list[tuple[str, str]]:
    """Selector and file of each key that signs for `domain`. Raises ConfigError where it cannot be told."""
    if rule.rotation is None:
        return [(selector.name, selector.key_file) for selector in rule.selectors]
    rotation = read_rotation(rule.rotation)
    if rotation is None:
        raise ConfigError(f"{rule.rotation}: not there yet; make it with: mailguard key rotate {domain}")
    if rotation.domain != domain:
        raise ConfigError(f"{rule.rotation}: it is of {rotation.domain}, not of {domain}")
    return [(key.selector, key.file) for key in rotation.signing]


def read_rotation(path: str) -> Rotation | None:
    """The rotation in the file `path`; None if there is no such file. Raises ConfigError."""
    try:
        with open(path, "rb") as file:
            if os.fstat(file.fileno()).st_mode & stat.S_IWOTH:
                raise ConfigError(f"{path}: everybody can write to it, and choose the keys; run: chmod o-w {path}")
            text = file.read(MAX_ROTATION_BYTES).decode("utf-8")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: it is not UTF-8") from None
    try:
        return Rotation.parse(text)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def _found(pattern: str, selector: str) -> Iterable[tuple[Domain, str]]:
    pieces = pattern.replace("{selector}", selector).split("{domain}")
    shape = re.compile("([^/]+)".join([re.escape(pieces[0]), re.escape(pieces[1])]))
    for file in sorted(glob.glob("*".join(map(glob.escape, pieces)))):
        match = shape.match(file)
        if match is None:
            continue
        try:
            domain = Domain.parse(match[1])
        except DomainError:
            continue
        if file == pattern.replace("{selector}", selector).replace("{domain}", domain):
            yield domain, file
