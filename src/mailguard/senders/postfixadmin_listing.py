"""Everything that PostfixAdmin's tables grant, by account. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from mailguard.domain import Domain
from mailguard.senders.identity import Address, Unusable, parse_address
from mailguard.senders.listing import Grant
from mailguard.senders.postfixadmin_aliases import levels
from mailguard.senders.postfixadmin_tables import AliasRow, Tables

__all__ = ["accounts_of"]


def accounts_of(tables: Tables, *, delimiters: str, forwards: bool) -> Mapping[str, tuple[Grant, ...]]:
    """The grants of each active mailbox, from tables that have been read as a whole."""
    found: dict[str, dict[str, Grant]] = {}
    aliased: dict[Domain, list[Domain]] = {}
    for alias, (target, is_active) in tables.targets.items():
        if is_active and not tables.is_closed(alias):
            aliased.setdefault(target, []).append(alias)
    for name, is_active in tables.mailboxes.items():
        address = _address(name)
        if is_active and address is not None and not tables.is_closed(address.domain):
            found[name] = {name: Grant(name, f"mailbox {name}")}
    for name in tuple(found):
        _add(found, name, f"mailbox {name}", _aliases_of(_address(name), aliased, tables))
    for row in tables.aliases.values():
        address = _address(row.address)
        if address is None or not row.is_active or tables.is_closed(address.domain):
            continue
        mailbox = tables.mailbox_at(address)
        if mailbox is not None and not (forwards and tables.mailboxes[mailbox]):
            continue
        for account in _accounts(row, address, tables, delimiters, forwards):
            grant = Grant(address.exact, f"alias {row.address}", _home(address.domain, tables))
            found.get(account, {}).setdefault(grant.what, grant)
            _add(found, account, f"alias {row.address}", _aliases_of(address, aliased, tables))
    for domain, row in tables.catch_alls.items():
        if row.is_active and not tables.is_closed(domain):
            for account in _accounts(row, None, tables, delimiters, forwards):
                for whole in (domain, *(each for each in aliased.get(domain, ()) if each not in tables.catch_alls)):
                    grant = Grant(f"@{whole}", f"alias {row.address}", _home(whole, tables))
                    found.get(account, {}).setdefault(grant.what, grant)
            _add_whole_domains(found, domain, row, tables)
    return {name: tuple(grants.values()) for name, grants in found.items()}


def _accounts(row: AliasRow, meant: Address | None, tables: Tables, delimiters: str, forwards: bool) -> Iterator[str]:
    """The mailboxes that an alias reaches."""
    for level in levels(row, meant, tables, fetch=_is_there, delimiters=delimiters, forwards=forwards):
        for goto in level:
            name = tables.mailbox_at(goto)
            if name is not None:
                yield name


def _is_there(addresses: Sequence[Address]) -> None:
    """Everything has been read."""


def _add(
    found: dict[str, dict[str, Grant]], account: str, rule: str, addresses: Iterator[tuple[Address, Domain]]
) -> None:
    for address, home in addresses:
        grant = Grant(address.exact, f"{rule}, alias domain {address.domain}", home)
        found.get(account, {}).setdefault(grant.what, grant)


def _aliases_of(
    address: Address | None, aliased: Mapping[Domain, list[Domain]], tables: Tables
) -> Iterator[tuple[Address, Domain]]:
    """The address in the alias domains of its domain, where it has no entry of its own."""
    if address is None:
        return
    for domain in aliased.get(address.domain, ()):
        other = Address(address.local_part, domain)
        if tables.mailbox_at(other) is None and tables.alias_at(other) is None:
            yield other, address.domain


def _add_whole_domains(found: dict[str, dict[str, Grant]], domain: Domain, row: AliasRow, tables: Tables) -> None:
    """A catch-all that goes to a whole domain: each mailbox there has its name here."""
    goes_to = {text[1:].lower() for text in row.goto if text.startswith("@")}
    for name in tuple(found) if goes_to else ():
        address = _address(name)
        if address is None or address.domain not in goes_to:
            continue
        other = Address(address.local_part, domain)
        if tables.mailbox_at(other) is None and tables.alias_at(other) is None:
            found[name].setdefault(other.exact, Grant(other.exact, f"alias {row.address}", address.domain))


def _home(domain: Domain, tables: Tables) -> Domain | None:
    """The domain of which this one is an alias domain."""
    target, is_active = tables.targets.get(domain, (domain, False))
    return target if is_active else None


def _address(name: str) -> Address | None:
    address = parse_address(name)
    return None if isinstance(address, Unusable) else address
