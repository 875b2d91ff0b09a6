"""The accounts that a table holds: an exact name wins, and two accounts are never taken for one.

A login finds the account of its exact name. If there is none, it finds the one whose folded form is its own, unless
several have it: then nobody is found, and who means one of them has to write it exactly. Immutable; safe to share
between threads.
"""

from __future__ import annotations

from collections.abc import Iterable

from mailguard.senders.identity import Login

__all__ = ["Accounts"]


class Accounts:
    """Logins as a table has them."""

    def __init__(self, logins: Iterable[Login]) -> None:
        self._exact: set[str] = set()
        # The only account with this folded form; None: there are several.
        self._folded: dict[str, str | None] = {}
        for login in logins:
            if login.exact in self._exact:
                continue
            self._exact.add(login.exact)
            self._folded[login.folded] = None if login.folded in self._folded else login.exact

    def find(self, login: Login) -> str | None:
        """The exact name of the account that this login is; None if it is none of the table's, or may be several."""
        return login.exact if login.exact in self._exact else self._folded.get(login.folded)

    def are_one(self, login: Login, other: Login) -> bool:
        """Whether both are the same account, also one that the table does not hold."""
        if login.exact == other.exact:
            return True
        # Where the table has two that differ in case alone, each is only its exact name.
        return login.folded == other.folded and self._folded.get(login.folded, "") is not None
