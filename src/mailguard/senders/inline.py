"""Who may use what, from the configuration itself: for a login, its addresses and whole domains.

A whole domain is written `@us.test` or `*@us.test`. A login may use its own address unless that is switched off. An
address with a tag (`alice+shop@us.test`) is the address without it, unless it is listed itself or is another login,
here or in a later source (combine.py).
This source grants and never denies, so that it can stand before the database to whose rules it adds. Immutable; safe
to share between threads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mailguard.domain import Domain
from mailguard.errors import ConfigError, DomainError
from mailguard.senders.accounts import Accounts
from mailguard.senders.identity import Address, Login, LoginRules, Unusable, parse_address, without_tag
from mailguard.senders.listing import Grant, Listing, ListingStatus
from mailguard.senders.permission import Entry, Permission
from mailguard.senders.source import Source

__all__ = ["InlineSource"]


class InlineSource(Source):
    """The lists of a configuration."""

    blocks = False

    def __init__(
        self,
        logins: Mapping[str, Sequence[str]],
        *,
        rules: LoginRules,
        own_address: bool = True,
        delimiters: str = "",
        name: str = "inline",
    ) -> None:
        """Raises ConfigError for what is no login or no address, and for a login that is there twice."""
        super().__init__(name, rules)
        self._own_address = own_address
        self._delimiters = delimiters
        read = {written: self._login(written) for written in logins}
        self._accounts = Accounts(read.values())
        # By account: its entries, addresses and whole domains, by their exact form.
        self._lists: dict[str, dict[str, str]] = {}
        for written, login in read.items():
            if login.exact in self._lists:
                raise ConfigError(f'the login "{written}" is given twice')
            self._lists[login.exact] = {self._key(entry): entry for entry in logins[written]}
        listed = (key for entries in self._lists.values() for key in entries if not key.startswith("@"))
        self._addresses = Accounts(self._login(key) for key in listed)

    def may_use(self, login: Login, address: Address) -> Permission:
        """What the configuration says. Does not block."""
        account = self._accounts.find(login)
        entries = self._lists.get(account, {}) if account is not None else {}
        domain = f"@{address.domain}"
        if rule := self._rule(login, account, entries, address):
            return self.granted(login, address, rule)
        if domain in entries:
            return self.granted(login, address, f'"{account}" has "{entries[domain]}"', entry=Entry.OTHER)
        bare = without_tag(address, self._delimiters)
        if bare is not None:
            if self._is_known(address):
                return self.unknown(login, address, f"{address} is of another login")
            if rule := self._rule(login, account, entries, bare):
                return self.granted(login, address, rule, entry=Entry.WITHOUT_TAG)
        return self.unknown(login, address, "the configuration does not list it for this login")

    def _rule(self, login: Login, account: str | None, entries: Mapping[str, str], address: Address) -> str:
        own = self.rules.login_of(address)
        found = self._addresses.find(own)
        if found is not None and found in entries and self._accounts.are_one(own, self._login(found)):
            return f'"{account}" has "{entries[found]}"'
        return "own address" if self._own_address and self._accounts.are_one(login, own) else ""

    def _is_known(self, address: Address) -> bool:
        own = self.rules.login_of(address)
        return self._addresses.find(own) is not None or self._accounts.find(own) is not None

    def everyone(self) -> Listing:
        """Each login that the configuration names."""
        return Listing(
            self.name,
            ListingStatus.LISTED,
            {account: self._grants(account) for account in self._lists},
            self._limits(),
        )

    def addresses(self, login: Login) -> Listing:
        """Also for a login that has no list."""
        account = self._accounts.find(login)
        grants = self._grants(account) if account is not None else self._own(login)
        return Listing(self.name, ListingStatus.LISTED, {login.exact: grants})

    def _limits(self) -> str:
        return "every other login has its own address" if self._own_address else ""

    def _grants(self, account: str) -> tuple[Grant, ...]:
        login = self._login(account)
        listed = tuple(Grant(key, f'"{account}" has "{entry}"') for key, entry in self._lists[account].items())
        return (*self._own(login), *listed)

    def _own(self, login: Login) -> tuple[Grant, ...]:
        return (Grant(login.exact, "own address"),) if self._own_address and login.domain is not None else ()

    def _login(self, written: str) -> Login:
        login = self.rules.login(written)
        if isinstance(login, Unusable):
            raise ConfigError(f'"{login.shown}" is not a login: {login.detail}')
        return login

    def _key(self, entry: str) -> str:
        """The exact form of an address, or "@" and a domain."""
        if entry.startswith(("@", "*@")):
            try:
                return f"@{Domain.parse(entry.partition('@')[2])}"
            except DomainError as error:
                raise ConfigError(f'"{entry}" is not a whole domain such as "@example.com": {error}') from None
        address = parse_address(entry)
        if isinstance(address, Unusable):
            raise ConfigError(f'"{address.shown}" is neither an address nor "@" and a domain: {address.detail}')
        if address.local_part == "*":
            raise ConfigError(f'"{entry}": a whole domain is written "@{address.domain}"')
        return address.exact
