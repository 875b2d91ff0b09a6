"""Senders: several sources as one.

They are asked in their order. The first that grants or denies decides, so what adds to a database's rules stands
before it. A grant by the entry of an address without its tag decides only if no later source has an entry of the
address with it. A source that is unavailable ends the matter as well, unless an earlier one has decided: what it
would have said is not known, neither a later grant nor a later denial can stand for it, and the message has to wait.
If all of them know nothing, nobody has granted the address. Safe to share between threads as far as the sources are.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import takewhile

from mailguard.senders.cache import PermissionCache
from mailguard.senders.identity import MAX_NAME_BYTES, Address, Login, LoginRules, Unusable, parse_address
from mailguard.senders.listing import Listing
from mailguard.senders.permission import Asked, Entry, Permission, PermissionStatus
from mailguard.senders.source import Source

__all__ = ["Senders"]


class Senders:
    """Who may use what on this host. Close it when it is not asked any more."""

    def __init__(self, sources: Sequence[Source], *, rules: LoginRules, cache: PermissionCache | None = None) -> None:
        self.sources = tuple(sources)
        self.rules = rules
        """How this host's logins are read; make each Login with them."""
        self._cache = cache

    def may_use(self, login: Login, address: Address) -> Permission:
        """May `login` use `address`? Blocks for as long as the sources may, each with a deadline of its own."""
        if self._cache is None:
            return self._ask(login, address)
        known = self._cache.get(login, address)
        if known is None:
            known = self._ask(login, address)
            self._cache.put(login, address, known)
        return known

    def ask(self, login: bytes, address: bytes) -> Permission:
        """The same for octets, as from SMTP. Who stands for nobody may use nothing, and nobody what is none."""
        who, what = self.rules.login(login), parse_address(address)
        if isinstance(who, Unusable):
            return _unusable("login", who, login, address)
        if isinstance(what, Unusable):
            return _unusable("address", what, login, address)
        return self.may_use(who, what)

    def known(self, login: Login, address: Address) -> Permission | None:
        """The answer, if it is kept from a short while ago or nobody has to be waited for. Does not block."""
        kept = self._cache.get(login, address) if self._cache is not None else None
        if kept is not None:
            return kept
        # So who is listed in the configuration does not wait behind others' questions to a slow database.
        at_once = tuple(takewhile(lambda source: not source.blocks, self.sources))
        said = _said(login, address, at_once)
        is_open = said.is_provisional and len(at_once) < len(self.sources)
        return None if is_open or said.status is PermissionStatus.UNKNOWN else said

    def listings(self, login: Login) -> tuple[Listing, ...]:
        """What each source lets `login` use, in the order of the sources."""
        return tuple(source.addresses(login) for source in self.sources)

    def everyone(self) -> tuple[Listing, ...]:
        """What each source lets everybody use, in the order of the sources."""
        return tuple(source.everyone() for source in self.sources)

    def close(self) -> None:
        """Close the sources."""
        for source in self.sources:
            source.close()

    def _ask(self, login: Login, address: Address) -> Permission:
        return _said(login, address, self.sources)


def _said(login: Login, address: Address, sources: Iterable[Source]) -> Permission:
    asked: tuple[Asked, ...] = ()
    reasons = []
    granted: Permission | None = None
    for source in sources:
        said = source.may_use(login, address)
        if said.status is PermissionStatus.UNKNOWN:
            reasons.append(f"{source.name}: {said.reason}")
        elif said.is_provisional:
            granted = said if granted is None else granted
        elif granted is None or said.entry is Entry.ADDRESS or said.status is PermissionStatus.UNAVAILABLE:
            return said.after(asked)
        asked = (*asked, *said.asked)
    if granted is not None:
        return replace(granted, asked=asked)
    reason = "; ".join(reasons) or "there is no source"
    return Permission(PermissionStatus.UNKNOWN, login.exact, address.exact, reason=reason, asked=asked)


def _unusable(kind: str, why: Unusable, login: bytes, address: bytes) -> Permission:
    reason = f"the {kind} stands for nobody: {why.detail}"
    return Permission(PermissionStatus.DENIED, _shown(login), _shown(address), rule=f"unusable {kind}", reason=reason)


def _shown(octets: bytes) -> str:
    """Printable ASCII."""
    return octets[:MAX_NAME_BYTES].decode("utf-8", "backslashreplace").encode("unicode_escape").decode("ascii")
