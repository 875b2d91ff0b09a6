"""Which private key files a configuration names, those that its pattern finds and those of rotations included."""

from __future__ import annotations

import glob
import re
from collections.abc import Container, Iterable
from dataclasses import dataclass

from mailguard.config import Config, DomainRule
from mailguard.domain import Domain
from mailguard.errors import ConfigError, DomainError
from mailguard.guarded_file import read_guarded
from mailguard.rotation.state import Rotation

__all__ = [
    "NamedKey",
    "WantedKey",
    "keys_of",
    "pattern_keys",
    "read_rotation",
    "rotation_of",
    "rule_for",
    "signer_of",
    "signing_keys",
]

# Of the greatest state that there may be, about a tenth.
MAX_ROTATION_OCTETS = 4 << 20

WantedKey = tuple[Domain, str, str]
"""Domain, selector and key file."""


@dataclass(frozen=True, slots=True)
class NamedKey:
    """A key that signs for a domain of [domains]."""

    selector: str
    file: str
    fingerprint: str = ""
    """What the key must be, where a rotation noted it."""


def keys_of(config: Config, domain: Domain | None = None) -> list[WantedKey]:
    """Every key that signs by `config`, for `domain` alone if given, and every file that its pattern finds now.

    Raises ConfigError where a rotation cannot be read.
    """
    wanted = [
        (owner, key.selector, key.file)
        for owner, rule in ((Domain.parse(name), rule) for name, rule in config.domains.items())
        if domain in (None, owner)
        for key in signing_keys(owner, rule)
    ]
    return wanted + [each for each in pattern_keys(config) if domain in (None, each[0])]


def pattern_keys(config: Config) -> list[WantedKey]:
    """Every file that `sign.key_pattern` finds now, of domains that have no rule."""
    pattern = config.sign.key_pattern
    return [
        (owner, selector, file)
        for selector in (config.sign.key_selectors if pattern else ())
        for owner, file in _found(str(pattern), selector)
        if owner not in config.domains
    ]


def rule_for(domain: Domain, *, named: Container[str], with_subdomains: Container[str]) -> Domain | None:
    """Whose rule signs mail of `domain`: its own, or that of the nearest above it which covers subdomains.

    None: keys of the pattern sign, if there are any.
    """
    if domain in named:
        return domain
    _, _, parent = domain.partition(".")
    while parent:
        if parent in with_subdomains:
            return Domain(parent)
        _, _, parent = parent.partition(".")
    return None


def signer_of(config: Config, domain: Domain) -> Domain | None:
    """`rule_for` by `config`."""
    covering = frozenset(name for name, rule in config.domains.items() if rule.subdomains)
    return rule_for(domain, named=config.domains, with_subdomains=covering)


def signing_keys(domain: Domain, rule: DomainRule) -> list[NamedKey]:
    """The keys that sign for `domain`. Raises ConfigError where that cannot be told."""
    rotation = rotation_of(domain, rule)
    if rotation is None:
        return [NamedKey(selector.name, selector.key_file) for selector in rule.selectors]
    return [NamedKey(key.selector, key.file, key.fingerprint) for key in rotation.signing]


def rotation_of(domain: Domain, rule: DomainRule) -> Rotation | None:
    """The state of the domain's keys; None where it has no rotation. Raises ConfigError, also if the file is gone."""
    if rule.rotation is None:
        return None
    rotation = read_rotation(rule.rotation, domain)
    if rotation is None:
        raise ConfigError(
            f"{rule.rotation}: it is not there, so that nobody knows which keys of {domain} sign. Put it back from a"
            f" backup; or name the keys in selectors, and take them over with: mailguard key rotate {domain} --adopt"
        )
    return rotation


def read_rotation(path: str, domain: Domain) -> Rotation | None:
    """The state in the file `path`; None if there is no such file. Raises ConfigError."""
    octets = read_guarded(path, max_octets=MAX_ROTATION_OCTETS)
    if octets is None:
        return None
    try:
        rotation = Rotation.parse(octets)
    except ConfigError as error:
        raise ConfigError(
            f"{path}: it is not what mailguard key rotate wrote: {error}. Put it back from a backup; a daemon that"
            " runs keeps its keys until then"
        ) from None
    if rotation.domain != domain:
        raise ConfigError(f"{path}: it is of {rotation.domain}, not of {domain}")
    return rotation


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
