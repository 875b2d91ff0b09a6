"""Mail-in-a-Box's users.sqlite as a source. SELECT only.

    users    email (the login, a whole address)
    aliases  source (an address, or "@domain"), destination, permitted_senders: both lists by commas

As its own sender-login-maps.cf has it: for an address, the alias decides if there is one, by its permitted senders,
or by its destinations where permitted_senders is NULL; otherwise the user with this address. Then the same for the
address without its tag, and then for "@domain". Destinations are not followed further. Unlike there, in a list of
permitted senders that is empty nobody is permitted. An address that the database knows is denied to everybody else;
what it does not know is unknown. The database of a host with WAL journal needs read access to its -wal and -shm
files. Thread-safe.
"""

from __future__ import annotations

import re

from mailguard.senders.accounts import Accounts
from mailguard.senders.identity import Address, Login, LoginRules, without_tag
from mailguard.senders.listing import MAX_ACCOUNTS, MAX_GRANTS, Grant, Listing, ListingStatus, too_many_to_list
from mailguard.senders.permission import Entry, Permission
from mailguard.senders.source import Source
from mailguard.senders.sql import Asking, Database, DatabaseDown, TooManyRows
from mailguard.senders.table import key_of

__all__ = ["MailInABox"]

MAX_LIST_CHARS = 1_000_000
LISTING_DEADLINE_S = 60.0
_ALIAS = ("source", "destination", "permitted_senders")
_SEPARATORS = re.compile(r"[,\s]+")


class MailInABox(Source):
    """One users.sqlite."""

    def __init__(self, database: Database, *, rules: LoginRules, delimiters: str) -> None:
        super().__init__("mailinabox", rules)
        self._database = database
        self._delimiters = delimiters

    def may_use(self, login: Login, address: Address) -> Permission:
        """What the database says."""
        try:
            return self._database.ask(lambda asking: self._judge(login, address, asking))
        except DatabaseDown as error:
            return self.unavailable(login, address, str(error))

    def everyone(self) -> Listing:
        """Reads both tables."""
        try:
            users, aliases = self._database.ask(_read_everything, deadline_s=LISTING_DEADLINE_S)
        except TooManyRows:
            return Listing(self.name, ListingStatus.UNLISTABLE, reason=too_many_to_list())
        except DatabaseDown as error:
            return Listing(self.name, ListingStatus.UNAVAILABLE, reason=str(error))
        entries = {
            key_of(str(source)): _permitted(destination, permitted) for source, destination, permitted in aliases
        }
        logins = {login.exact: login for (email,) in users for login in self.rules.logins((str(email),))}
        known = Accounts(logins.values())
        grants: dict[str, dict[str, Grant]] = {name: {} for name in logins}
        for key, (names, rule) in entries.items():
            for sender in self.rules.logins(names):
                account = known.find(sender)
                if account is not None:
                    grants[account].setdefault(key, Grant(key, f"alias {key}{rule}"))
        for name, login in logins.items():
            if login.folded not in entries:
                grants[name].setdefault(name, Grant(name, f"user {name}"))
        return Listing(
            self.name, ListingStatus.LISTED, {name: tuple(found.values()) for name, found in grants.items()}
        )

    def close(self) -> None:
        """Close the connections."""
        self._database.close()

    def _judge(self, login: Login, address: Address, asking: Asking) -> Permission:
        bare = without_tag(address, self._delimiters)
        forms = [address] if bare is None else [address, bare]
        texts = list(dict.fromkeys(text for form in forms for text in form.texts()))
        whole = list(dict.fromkeys(f"@{text.rpartition('@')[2]}" for text in texts))
        aliases = {
            key_of(str(source)): _permitted(destination, permitted)
            for source, destination, permitted in asking.select(
                _ALIAS, "aliases", where="source", among=[*texts, *whole]
            )
        }
        named = (sender for names, _ in aliases.values() for sender in self.rules.logins(names))
        # One that differs from the login in case alone may be an account of its own.
        alike = (text for sender in named if sender.folded == login.folded for text in sender.texts())
        own = list(dict.fromkeys((*texts, *login.texts(), *alike)))
        found = asking.select(("email",), "users", where="email", among=own)
        users = Accounts(self.rules.logins(str(email) for (email,) in found))
        asked = tuple(asking.asked)
        for form, entry in ((address, Entry.ADDRESS), (bare, Entry.WITHOUT_TAG), (None, Entry.OTHER)):
            if form is None and entry is Entry.WITHOUT_TAG:
                continue
            key = form.folded if form is not None else f"@{address.domain}"
            if key in aliases:
                names, rule = aliases[key]
                if any(users.are_one(login, sender) for sender in self.rules.logins(names)):
                    return self.granted(login, address, f"alias {key}{rule}", asked, entry=entry)
                reason = "the login is not among them"
                return self.denied(login, address, f"alias {key}{rule}", reason, asked, entry=entry)
            user = users.find(self.rules.login_of(form)) if form is not None else None
            if user is not None:
                if users.find(login) == user:
                    return self.granted(login, address, f"user {user}", asked, entry=entry)
                reason = "it is the address of another login"
                return self.denied(login, address, f"user {user}", reason, asked, entry=entry)
        return self.unknown(login, address, "it is neither a user nor an alias, and there is no catch-all", asked)


def _read_everything(asking: Asking) -> tuple[list[tuple[object, ...]], list[tuple[object, ...]]]:
    return (
        asking.select(("email",), "users", limit=MAX_ACCOUNTS),
        asking.select(_ALIAS, "aliases", limit=MAX_GRANTS),
    )


def _permitted(destination: object, permitted: object) -> tuple[tuple[str, ...], str]:
    """Who may use an alias, and by which of its columns."""
    chosen, rule = (destination, "") if permitted is None else (permitted, ", permitted_senders")
    return tuple(filter(None, _SEPARATORS.split(str(chosen)[:MAX_LIST_CHARS]))), rule
