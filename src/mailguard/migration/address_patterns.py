"""Whose mail an entry of a signing table means (opendkim.conf(5), SigningTable). Pure.

As OpenDKIM 2.11 does it: in a refile: table the first pattern in the file that fits counts; in any other the most
precise key. With MultipleSignatures all that fit count, of equal keys the first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from mailguard.domain import Domain
from mailguard.errors import DomainError
from mailguard.migration.dataset import DataSet, Entry

__all__ = ["AddressPatterns", "Reach", "Reached"]


class Reach(Enum):
    """Whom a key of the table means."""

    DOMAIN = "the domain"
    BELOW = "its subdomains"
    ENDING = "the domain, its subdomains, and every other domain with that end"
    EVERYBODY = "everybody"
    USER = "single users"
    NOBODY = "nobody"
    OTHER = "what has no counterpart"


@dataclass(frozen=True, slots=True)
class Reached:
    """An entry, understood. `domain` is None for everybody, nobody and what has no counterpart."""

    reach: Reach
    domain: Domain | None
    entry: Entry


class AddressPatterns:
    """A signing table, ready to be asked which entries are for a domain."""

    def __init__(self, table: DataSet, *, several: bool) -> None:
        """`several`: MultipleSignatures."""
        self._in_order = table.is_pattern_file
        self._several = several
        self.reached: list[Reached] = []
        self._by_domain: dict[tuple[Reach, Domain | None], int] = {}
        for entry in table.entries:
            key = entry.key.lower()
            reach, domain = _in_pattern_file(key) if table.is_pattern_file else _in_other_table(key)
            # Of equal keys the first counts, also with MultipleSignatures.
            self._by_domain.setdefault((reach, domain), len(self.reached))
            self.reached.append(Reached(reach, domain, entry))

    def for_domain(self, domain: Domain) -> Sequence[Entry]:
        """The entries that count for whoever has no entry of his own in `domain`."""
        wanted: list[tuple[Reach, Domain | None]] = [(Reach.DOMAIN, domain), (Reach.ENDING, domain)]
        return self._found([*wanted, *_above(domain)])

    def for_subdomains(self, domain: Domain) -> Sequence[Entry]:
        """The entries that count in a subdomain of `domain` which the table does not name."""
        wanted: list[tuple[Reach, Domain | None]] = [(Reach.BELOW, domain), (Reach.ENDING, domain)]
        return self._found([*wanted, *_above(domain)])

    def _found(self, wanted: Sequence[tuple[Reach, Domain | None]]) -> Sequence[Entry]:
        numbers = [self._by_domain[key] for key in wanted if key in self._by_domain]
        if self._in_order:
            numbers = sorted(set(numbers))
        return [self.reached[number].entry for number in (numbers if self._several else numbers[:1])]


def _above(domain: Domain) -> list[tuple[Reach, Domain | None]]:
    keys: list[tuple[Reach, Domain | None]] = []
    _, _, parent = domain.partition(".")
    while parent:
        keys += [(Reach.BELOW, Domain(parent)), (Reach.ENDING, Domain(parent))]
        _, _, parent = parent.partition(".")
    return [*keys, (Reach.EVERYBODY, None)]


def _in_pattern_file(pattern: str) -> tuple[Reach, Domain | None]:
    if pattern in ("*", "*@*"):
        return Reach.EVERYBODY, None
    user, at, host = pattern.rpartition("@")
    if not at and "*" not in host:
        return Reach.NOBODY, None  # an address always has an @
    reach = Reach.DOMAIN
    if host.startswith("*."):
        reach, host = Reach.BELOW, host[2:]
    elif host.startswith("*"):
        reach, host = Reach.ENDING, host[1:]
    domain = _domain(host)
    if at and user != "*":
        return Reach.USER, domain
    if not at and reach is Reach.DOMAIN:
        return Reach.OTHER, None  # * stands for the @ too, as in bob*
    return (Reach.OTHER, None) if domain is None else (reach, domain)


def _in_other_table(key: str) -> tuple[Reach, Domain | None]:
    if key == "*":
        return Reach.EVERYBODY, None
    user, at, host = key.rpartition("@")
    if "*" in user or "*" in host.removeprefix("*"):
        return Reach.NOBODY, None
    if at:
        return Reach.USER, _domain(host.removeprefix("."))
    if "*" in host:
        return Reach.NOBODY, None
    domain = _domain(host.removeprefix("."))
    if domain is None:
        return Reach.NOBODY, None
    return Reach.BELOW if host.startswith(".") else Reach.DOMAIN, domain


def _domain(text: str) -> Domain | None:
    try:
        return Domain.parse(text)
    except DomainError:
        return None
