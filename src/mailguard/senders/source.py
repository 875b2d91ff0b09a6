"""Source: one table that says who may use which address.

Asking blocks; each source has a deadline of its own, after which it is UNAVAILABLE. A source raises nothing when it
is asked: whatever keeps it from answering is an UNAVAILABLE permission. Left out: the order of several sources
(combine.py) and keeping answers (cache.py). Sources may be asked by several threads at once.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from mailguard.senders.accounts import Accounts
from mailguard.senders.identity import Address, Login, LoginRules, Unusable
from mailguard.senders.listing import Grant, Listing, ListingStatus
from mailguard.senders.permission import Asked, Entry, Permission, PermissionStatus

__all__ = ["Source"]


class Source(ABC):
    """A table. `name` stands in explanations and in the log."""

    blocks = True
    """Whether an answer may take longer than looking into memory does."""

    def __init__(self, name: str, rules: LoginRules) -> None:
        self.name = name
        self.rules = rules

    @abstractmethod
    def may_use(self, login: Login, address: Address) -> Permission:
        """What this source says. Blocks until its deadline at the longest."""

    @abstractmethod
    def everyone(self) -> Listing:
        """Every account with what it may use, or why that cannot be listed."""

    def addresses(self, login: Login) -> Listing:
        """What `login` may use."""
        listing = self.everyone()
        if listing.status is not ListingStatus.LISTED:
            return listing
        names = {name: self.rules.login(name) for name in listing.accounts}
        known = {name: found for name, found in names.items() if not isinstance(found, Unusable)}
        account = Accounts(known.values()).find(login)
        grants: tuple[Grant, ...] = ()
        for name, found in known.items():
            if found.exact == account:
                grants += listing.accounts[name]
        return Listing(self.name, ListingStatus.LISTED, {login.exact: grants}, listing.reason)

    def close(self) -> None:  # noqa: B027 - most sources hold nothing that has to be closed
        """Let go of connections. The source is not asked again."""

    def granted(
        self,
        login: Login,
        address: Address,
        rule: str,
        asked: tuple[Asked, ...] = (),
        *,
        entry: Entry = Entry.ADDRESS,
    ) -> Permission:
        """The permission that says so."""
        return Permission(PermissionStatus.GRANTED, login.exact, address.exact, self.name, rule, "", asked, entry)

    def denied(
        self,
        login: Login,
        address: Address,
        rule: str,
        reason: str,
        asked: tuple[Asked, ...],
        *,
        entry: Entry,
    ) -> Permission:
        """The permission that says so."""
        return Permission(PermissionStatus.DENIED, login.exact, address.exact, self.name, rule, reason, asked, entry)

    def unknown(self, login: Login, address: Address, reason: str, asked: tuple[Asked, ...] = ()) -> Permission:
        """The permission that says so."""
        return Permission(
            PermissionStatus.UNKNOWN, login.exact, address.exact, self.name, "", reason, asked, Entry.OTHER
        )

    def unavailable(self, login: Login, address: Address, reason: str, asked: tuple[Asked, ...] = ()) -> Permission:
        """The permission that says so."""
        return Permission(
            PermissionStatus.UNAVAILABLE, login.exact, address.exact, self.name, "", reason, asked, Entry.OTHER
        )
