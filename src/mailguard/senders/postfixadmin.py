"""PostfixAdmin's database as a source: MySQL or MariaDB, PostgreSQL, SQLite. SELECT only.

A login may use the address of its own mailbox, and that of every alias which goes to it, by way of other aliases too.
An address in an alias domain is the same address in the target domain. A tag (`alice+shop@us.test`) is taken off an
address that has no entry of its own. A catch-all (`@us.test`) gives the addresses that have no entry. What is not
active (mailbox, alias, domain) gives nobody anything, and no catch-all stands in for it.

The address of a mailbox is its login's alone: to whom a mailbox forwards may use it only with `forwards`. An address
that the database knows is denied to everybody else; what it does not know is unknown. How far aliases are followed is
bounded, and a circle ends. Thread-safe.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from mailguard.senders.identity import Address, Login, LoginRules, without_tag
from mailguard.senders.listing import Listing, ListingStatus, too_many_to_list
from mailguard.senders.permission import Entry, Permission
from mailguard.senders.postfixadmin_aliases import levels
from mailguard.senders.postfixadmin_listing import accounts_of
from mailguard.senders.postfixadmin_tables import AliasRow, TablesReader
from mailguard.senders.source import Source
from mailguard.senders.sql import Database, DatabaseDown, TooManyRows

__all__ = ["PostfixAdmin"]

# Reading all tables of a large host takes seconds.
LISTING_DEADLINE_S = 60.0


class PostfixAdmin(Source):
    """One database."""

    def __init__(
        self,
        database: Database,
        *,
        rules: LoginRules,
        delimiters: str = "",
        table_prefix: str = "",
        forwards: bool = False,
    ) -> None:
        """`forwards`: to whom a mailbox forwards its mail may use its address."""
        super().__init__("postfixadmin", rules)
        self._database = database
        self._delimiters = delimiters
        self._prefix = table_prefix
        self._forwards = forwards

    def may_use(self, login: Login, address: Address) -> Permission:
        """What the database says."""
        try:
            return self._database.ask(
                lambda asking: self._judge(login, address, TablesReader(asking, self._prefix, self.rules))
            )
        except DatabaseDown as error:
            return self.unavailable(login, address, str(error))

    def everyone(self) -> Listing:
        """Reads all tables."""
        try:
            tables = self._database.ask(
                lambda asking: TablesReader(asking, self._prefix, self.rules).read_everything(),
                deadline_s=LISTING_DEADLINE_S,
            )
        except TooManyRows:
            return Listing(self.name, ListingStatus.UNLISTABLE, reason=too_many_to_list())
        except DatabaseDown as error:
            return Listing(self.name, ListingStatus.UNAVAILABLE, reason=str(error))
        accounts = accounts_of(tables, delimiters=self._delimiters, forwards=self._forwards)
        return Listing(self.name, ListingStatus.LISTED, accounts)

    def close(self) -> None:
        """Close the connections."""
        self._database.close()

    def _judge(self, login: Login, address: Address, reader: TablesReader) -> Permission:
        tables = reader.tables
        bare = without_tag(address, self._delimiters)
        written = (address,) if bare is None else (address, bare)
        reader.read_domains({address.domain} | ({login.domain} if login.domain else set()))
        forms = [form for each in written for form in tables.forms(each)]
        reader.read_mailboxes([login, *forms])
        reader.read_aliases(forms, {form.domain for form in forms})

        def said(make: Callable[..., Permission], *words: str, entry: Entry = Entry.OTHER) -> Permission:
            return make(login, address, *words, tuple(reader.asking.asked), entry=entry)

        mailbox = tables.mailbox_of(login)
        if mailbox is not None and not tables.mailboxes[mailbox]:
            return said(self.denied, f"mailbox {mailbox}", "the mailbox of the login is not active")
        for domain in (login.domain, *(form.domain for form in forms)):
            if tables.is_closed(domain):
                return said(self.denied, f"domain {domain}", "the domain is not active")
        for form in forms:
            through = _through(form, address)
            entry = Entry.ADDRESS if form.local_part == address.local_part else Entry.WITHOUT_TAG
            name, row = tables.mailbox_at(form), tables.alias_at(form)
            if name is not None and not tables.mailboxes[name]:
                return said(self.denied, f"mailbox {name}", "the mailbox is not active", entry=entry)
            if name is not None and name == mailbox:
                return said(self.granted, f"mailbox {name}{through}", entry=entry)
            if row is not None and (name is None or self._forwards):
                return self._by_alias(login, form, row, reader, through, partial(said, entry=entry))
            if name is not None:
                return said(
                    self.denied, f"mailbox {name}{through}", "it is the mailbox of another login", entry=entry
                )
        for form in tables.forms(address):
            row = tables.catch_alls.get(form.domain)
            if row is not None and row.is_active:
                return self._by_alias(login, form, row, reader, _through(form, address), said)
        reason = "it is neither a mailbox nor an alias, and there is no catch-all"
        return self.unknown(login, address, reason, tuple(reader.asking.asked))

    def _by_alias(
        self,
        login: Login,
        form: Address,
        row: AliasRow,
        reader: TablesReader,
        through: str,
        said: Callable[..., Permission],
    ) -> Permission:
        rule = f"alias {row.address}{through}"
        if not row.is_active:
            return said(self.denied, rule, "the alias is not active")

        def fetch(addresses: Sequence[Address]) -> None:
            reader.read_domains({address.domain for address in addresses})
            reader.read_mailboxes(addresses)
            reader.read_aliases(addresses)

        found = levels(row, form, reader.tables, fetch=fetch, delimiters=self._delimiters, forwards=self._forwards)
        for step, level in enumerate(found):
            # One that differs from the login in case alone may be an account of its own.
            reader.read_mailboxes([goto for goto in level if self.rules.login_of(goto).folded == login.folded])
            if any(reader.tables.are_one(login, goto) for goto in level):
                return said(self.granted, f"{rule}, by way of {step} more" if step else rule)
        return said(self.denied, rule, "the alias goes to others")


def _through(form: Address, address: Address) -> str:
    return "" if form.domain == address.domain else f", alias domain {address.domain}"
