"""Which private key files a configuration names, those that its pattern finds included."""

from __future__ import annotations

import glob
import re
from collections.abc import Iterable

from mailguard.config import Config
from mailguard.domain import Domain
from mailguard.errors import DomainError

__all__ = ["WantedKey", "keys_of"]

WantedKey = tuple[Domain, str, str]
"""Domain, selector and key file."""


def keys_of(config: Config) -> list[WantedKey]:
    """Every key that `config` names, and every file that its pattern finds now."""
    wanted = [
        (Domain.parse(domain), selector.name, selector.key_file)
        for domain, rule in config.domains.items()
        for selector in rule.selectors
    ]
    pattern = config.sign.key_pattern
    for selector in config.sign.key_selectors if pattern else ():
        for domain, file in _found(str(pattern), selector):
            if domain not in config.domains:
                wanted.append((domain, selector, file))
    return wanted


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
