"""Postfix's smtpd_sender_login_maps as a source: who owns an address is looked up as Postfix's smtpd does it.

The keys are, in this order: the address; the address without its tag; for domains that are local to Postfix
($mydestination and $myorigin) what stands before the "@", with and without the tag; "@" and the domain. The first key
that any table has decides; the tables are asked in their order. A local part that needs quotes is looked up with and
without them. Who is among the owners may use the address, and nobody else may; an address without owners is unknown.

Unlike Postfix, a local part never stands for an address or a domain: one with an "@" of its own is looked up in
quotes and with its domain alone. The Unicode case folding makes no two letters of one (U+00DF is not "ss"), and of
two owners who differ in case alone each is only himself, as far as a table can be listed. Safe to share between
threads.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

from mailguard.domain import Domain
from mailguard.senders.accounts import Accounts
from mailguard.senders.identity import Address, Login, LoginRules, folded_text, without_tag
from mailguard.senders.listing import MAX_ACCOUNTS, MAX_GRANTS, Grant, Listing, ListingStatus, too_many_to_list
from mailguard.senders.permission import Asked, Entry, Permission
from mailguard.senders.source import Source
from mailguard.senders.table import Table, TableDown

__all__ = ["LoginMaps"]

# RFC 5322 §3.2.3: what a local part may have outside of quotes.
_ATEXT = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!#$%&'*+-/=?^_`{|}~.")


class LoginMaps(Source):
    """The tables of one smtpd_sender_login_maps."""

    def __init__(
        self,
        tables: Sequence[Table],
        *,
        rules: LoginRules,
        delimiters: str = "",
        local_domains: Collection[Domain] = (),
        deadline: Callable[[], float] = lambda: math.inf,
    ) -> None:
        """`delimiters` is recipient_delimiter; `local_domains` are those for which a key without domain counts.

        `deadline` tells, by the clock of the tables, until when databases may answer a question that begins now.
        """
        super().__init__("postfix", rules)
        self._tables = tuple(tables)
        self._delimiters = delimiters
        self._local_domains = frozenset(local_domains)
        self._deadline = deadline
        # The owners that tables in memory name, made anew when one of these was read anew.
        self._accounts: tuple[list[Mapping[str, tuple[str, ...]]], Accounts] = ([], Accounts(()))

    def may_use(self, login: Login, address: Address) -> Permission:
        """As smtpd decides for reject_authenticated_sender_login_mismatch."""
        asked: list[Asked] = []
        deadline = self._deadline()
        try:
            for key, entry in self._keys(address):
                for table in self._tables:
                    found = table.find(key, deadline=deadline)
                    if found.asked is not None:
                        asked.append(found.asked)
                    if found.owners is not None:
                        rule = f'{table.name} has "{key}"'
                        return self._decided(login, address, rule, found.owners, asked, entry)
        except TableDown as error:
            return self.unavailable(login, address, str(error), tuple(asked))
        return self.unknown(login, address, "no table has the address", tuple(asked))

    def everyone(self) -> Listing:
        """The entries of all tables the other way round, as far as the tables can be listed."""
        grants: dict[str, dict[str, Grant]] = {}
        seen: set[str] = set()
        count = 0
        left_out = []
        for table in self._tables:
            try:
                entries = table.entries()
            except TableDown as error:
                return Listing(self.name, ListingStatus.UNAVAILABLE, reason=str(error))
            if entries is None:
                left_out.append(f"{table.name} answers for one address at a time and cannot be listed")
                continue
            for key, owners in entries.items():
                if key in seen:
                    continue  # an earlier table has it
                rule = f'{table.name} has "{key}"'
                for owner in self.rules.logins(owners):
                    for what in self._meant(key):
                        grants.setdefault(owner.exact, {}).setdefault(what, Grant(what, rule))
                        count += 1
                if count > MAX_GRANTS or len(grants) > MAX_ACCOUNTS:
                    return Listing(self.name, ListingStatus.UNLISTABLE, reason=too_many_to_list())
            seen.update(entries)
        if left_out and len(left_out) == len(self._tables):
            return Listing(self.name, ListingStatus.UNLISTABLE, reason="; ".join(left_out))
        accounts = {owner: tuple(found.values()) for owner, found in grants.items()}
        return Listing(self.name, ListingStatus.LISTED, accounts, "; ".join(left_out))

    def close(self) -> None:
        """Close the tables."""
        for table in self._tables:
            table.close()

    def _keys(self, address: Address) -> Iterator[tuple[str, Entry]]:
        """In the order in which they are looked up, and whose entry is there."""
        bare = without_tag(address, self._delimiters)
        forms = [(address, Entry.ADDRESS)] + ([] if bare is None else [(bare, Entry.WITHOUT_TAG)])
        for form, entry in forms:
            for local in _quoted_and_plain(form):
                yield from ((key, entry) for key in self._with_domain(local, address.domain))
        if address.domain in self._local_domains:
            for form, entry in forms:
                # As a key, "alice@us.test"@example.com without its domain would be the address in us.test.
                if "@" not in form.local_part:
                    yield from ((key, entry) for key in _quoted_and_plain(form))
        yield from ((key, Entry.OTHER) for key in self._with_domain("", address.domain))

    @staticmethod
    def _with_domain(local: str, domain: Domain) -> Iterator[str]:
        yield f"{local}@{domain}"
        if "xn--" in domain:
            # Postfix converts no domains: a database has what the administrator wrote.
            yield f"{local}@{domain.unicode}"

    def _decided(
        self,
        login: Login,
        address: Address,
        rule: str,
        owners: tuple[str, ...],
        asked: Sequence[Asked],
        entry: Entry,
    ) -> Permission:
        names = list(self.rules.logins(owners))
        listed, answered = self._listed_accounts(), Accounts(names)
        if any(listed.are_one(login, owner) and answered.are_one(login, owner) for owner in names):
            return self.granted(login, address, rule, tuple(asked), entry=entry)
        others = ", ".join(owner.exact for owner in names[:3]) + (", ..." if len(names) > 3 else "")
        reason = f"its owners are others: {others or 'nobody'}"
        return self.denied(login, address, rule, reason, tuple(asked), entry=entry)

    def _listed_accounts(self) -> Accounts:
        """All owners that tables in memory name. Who is in a database is known only where an answer names him."""
        listed: list[Mapping[str, tuple[str, ...]]] = []
        for table in self._tables:
            try:
                entries = table.entries()
            except TableDown:
                continue  # it was not needed for this answer
            if entries is not None:
                listed.append(entries)
        before, accounts = self._accounts
        if len(before) != len(listed) or any(one is not other for one, other in zip(before, listed, strict=True)):
            owners = {owner for entries in listed for each in entries.values() for owner in each}
            accounts = Accounts(self.rules.logins(sorted(owners)))
            self._accounts = (listed, accounts)
        return accounts

    def _meant(self, key: str) -> Iterator[str]:
        """The addresses and domains that a key stands for."""
        if "@" in key:
            yield key
        else:
            for domain in sorted(self._local_domains):
                yield f"{key}@{domain}"


def _quoted_and_plain(address: Address) -> Iterator[str]:
    local = folded_text(address.local_part)
    needs_quotes = local.startswith(".") or local.endswith(".") or ".." in local
    if needs_quotes or any(character.isascii() and character not in _ATEXT for character in local):
        escaped = local.replace("\\", "\\\\").replace('"', '\\"')
        yield f'"{escaped}"'
    # What reads as another address without quotes of its own: to a query, %u of it could be that address.
    if "@" not in local and not local.startswith('"'):
        yield local
