"""The tables of PostfixAdmin, as far as they say who may use what.

    mailbox       username (the login, a whole address), active
    alias         address (or "@domain" for all that has no entry), goto (addresses, by commas), active
    alias_domain  alias_domain, target_domain, active: an address in the one is the same address in the other
    domain        domain, active

`active` is a boolean in PostgreSQL and a number in MySQL and SQLite; it is read and judged here, not in the
statement. The names of the tables may have a prefix. What a database with a lax collation gives beside what was asked
for is left out. Pure values, and the two ways to get them: by question, and all at once.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from mailguard.domain import Domain
from mailguard.errors import DomainError
from mailguard.senders.accounts import Accounts
from mailguard.senders.identity import Address, Login, LoginRules, Unusable, parse_address
from mailguard.senders.listing import MAX_ACCOUNTS, MAX_GRANTS
from mailguard.senders.sql import Asking

__all__ = ["AliasRow", "Tables", "TablesReader"]

# PostfixAdmin's column is TEXT (65,535 octets in MySQL); what is longer is not looked at.
MAX_GOTO_CHARS = 1_000_000
_SEPARATORS = re.compile(r"[,\s]+")


@dataclass(frozen=True, slots=True)
class AliasRow:
    """An alias: its address as the table has it (`@domain` for a catch-all), and where it goes to."""

    address: str
    goto: tuple[str, ...]
    is_active: bool


@dataclass(slots=True)
class Tables:
    """Rows, by the exact form of their name. A login or an address finds one as in Accounts: an exact name wins."""

    rules: LoginRules
    mailboxes: dict[str, bool] = field(default_factory=dict)
    """Whether it is active."""
    aliases: dict[str, AliasRow] = field(default_factory=dict)
    catch_alls: dict[Domain, AliasRow] = field(default_factory=dict)
    targets: dict[Domain, tuple[Domain, bool]] = field(default_factory=dict)
    """The target domain of an alias domain, and whether that is active."""
    domains: dict[Domain, bool] = field(default_factory=dict)
    _mailbox_names: Accounts = field(default_factory=lambda: Accounts(()))
    _alias_names: Accounts = field(default_factory=lambda: Accounts(()))

    def add_mailboxes(self, rows: Iterable[tuple[object, ...]]) -> None:
        """Rows of (username, active)."""
        for username, active in rows:
            login = self.rules.login(str(username))
            if not isinstance(login, Unusable):
                self.mailboxes[login.exact] = _is_true(active)
        self._mailbox_names = Accounts(self.rules.logins(self.mailboxes))

    def add_aliases(self, rows: Iterable[tuple[object, ...]]) -> None:
        """Rows of (address, goto, active)."""
        for written, goto, active in rows:
            address, gone = str(written), tuple(filter(None, _SEPARATORS.split(str(goto)[:MAX_GOTO_CHARS])))
            row = AliasRow(address, gone, _is_true(active))
            if address.startswith("@"):
                for domain in _domains((address[1:],)):
                    self.catch_alls[domain] = row
                continue
            parsed = parse_address(address)
            if not isinstance(parsed, Unusable):
                self.aliases[parsed.exact] = row
        self._alias_names = Accounts(self.rules.logins(self.aliases))

    def add_targets(self, rows: Iterable[tuple[object, ...]]) -> None:
        """Rows of (alias_domain, target_domain, active)."""
        for alias, target, active in rows:
            for one, other in zip(_domains((alias,)), _domains((target,)), strict=False):
                self.targets[one] = (other, _is_true(active))

    def add_domains(self, rows: Iterable[tuple[object, ...]]) -> None:
        """Rows of (domain, active)."""
        for name, active in rows:
            for domain in _domains((name,)):
                self.domains[domain] = _is_true(active)

    def mailbox_of(self, login: Login) -> str | None:
        """The name of the mailbox that this login is."""
        return self._mailbox_names.find(login)

    def mailbox_at(self, address: Address) -> str | None:
        """The name of the mailbox with this address."""
        return self._mailbox_names.find(self.rules.login_of(address))

    def alias_at(self, address: Address) -> AliasRow | None:
        """The alias with this address."""
        name = self._alias_names.find(self.rules.login_of(address))
        return self.aliases[name] if name is not None else None

    def are_one(self, login: Login, address: Address) -> bool:
        """Whether the address is that of the login."""
        return self._mailbox_names.are_one(login, self.rules.login_of(address))

    def forms(self, address: Address) -> tuple[Address, ...]:
        """The address, and what it is in the target domain if it is in an alias domain."""
        target, is_active = self.targets.get(address.domain, (address.domain, False))
        return (address, Address(address.local_part, target)) if is_active else (address,)

    def is_closed(self, domain: Domain | None) -> bool:
        """Whether the domain is one of PostfixAdmin's that is not active."""
        return domain is not None and self.domains.get(domain) is False


class TablesReader:
    """Questions to the database, whose rows end in `tables`. For one call."""

    def __init__(self, asking: Asking, prefix: str, rules: LoginRules) -> None:
        self.asking = asking
        self.tables = Tables(rules)
        self._prefix = prefix
        self._asked: dict[str, set[str]] = {"mailbox": set(), "alias": set(), "alias_domain": set(), "domain": set()}

    def read_domains(self, domains: Iterable[Domain]) -> None:
        """Whether they are alias domains, and whether they and their targets are active."""
        wanted = list(domains)
        texts = [text for domain in wanted for text in _texts(domain)]
        self.tables.add_targets(self._rows("alias_domain", ("target_domain", "active"), texts))
        targets = [text for domain in wanted if domain in self.tables.targets for text in self._target_texts(domain)]
        self.tables.add_domains(self._rows("domain", ("active",), [*texts, *targets]))

    def read_mailboxes(self, names: Iterable[Login | Address]) -> None:
        """Those with these names."""
        self.tables.add_mailboxes(self._rows("mailbox", ("active",), _all_texts(names)))

    def read_aliases(self, addresses: Iterable[Address], catch_alls: Iterable[Domain] = ()) -> None:
        """Those with these addresses, and what is said of whole domains."""
        whole = [f"@{text}" for domain in catch_alls for text in _texts(domain)]
        self.tables.add_aliases(self._rows("alias", ("goto", "active"), [*_all_texts(addresses), *whole]))

    def read_everything(self) -> Tables:
        """All rows of all tables."""
        for table, columns, add in (
            ("domain", ("domain", "active"), self.tables.add_domains),
            ("alias_domain", ("alias_domain", "target_domain", "active"), self.tables.add_targets),
            ("mailbox", ("username", "active"), self.tables.add_mailboxes),
            ("alias", ("address", "goto", "active"), self.tables.add_aliases),
        ):
            limit = MAX_ACCOUNTS if table == "mailbox" else MAX_GRANTS
            add(self.asking.select(columns, self._prefix + table, limit=limit))
        return self.tables

    def _rows(self, table: str, columns: tuple[str, ...], names: Iterable[str]) -> list[tuple[object, ...]]:
        key = {"mailbox": "username", "alias": "address"}.get(table, table)
        new = [name for name in dict.fromkeys(names) if name not in self._asked[table]]
        if not new:
            return []
        self._asked[table].update(new)
        return self.asking.select((key, *columns), self._prefix + table, where=key, among=new)

    def _target_texts(self, domain: Domain) -> tuple[str, ...]:
        return _texts(self.tables.targets[domain][0])


def _all_texts(names: Iterable[Login | Address]) -> list[str]:
    return [text for name in names for text in name.texts()]


def _texts(domain: Domain) -> tuple[str, ...]:
    return (domain,) if domain == domain.unicode else (domain, domain.unicode)


def _domains(names: Iterable[object]) -> Iterator[Domain]:
    for name in names:
        try:
            yield Domain.parse(str(name))
        except DomainError:
            continue  # PostfixAdmin has a row "ALL"


def _is_true(value: object) -> bool:
    # BIT(1) of MySQL is an octet.
    return value in (True, 1) or str(value).lower() in ("1", "t", "true", "y", "yes", "\x01")
