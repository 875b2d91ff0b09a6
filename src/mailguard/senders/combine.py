"""Senders: several sources as one.

They are asked in their order. The first that grants or denies decides, so what adds to a database's rules stands
before it. A source that is unavailable ends the matter as well, unless an earlier one has decided: what it would have
said is not known, neither a later grant nor a later denial can stand for it, and the message has to wait. If all of
them know nothing, nobody has granted the address. Safe to share between threads as far as the sources are.
"""

from __future__ import annotations

from collections.abc import Sequence

from mailguard.senders.cache import PermissionCache
from mailguard.senders.identity import MAX_NAME_BYTES, Address, Login, LoginRules, Unusable, parse_address
from mailguard.senders.listing import Listing
from mailguard.senders.permission import Asked, Permission, PermissionStatus
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
        for source in self.sources:
            if source.blocks:
                break
            said = source.may_use(login, address)
            if said.status is not PermissionStatus.UNKNOWN:
                return said
        return None

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
        asked: tuple[Asked, ...] = ()
        reasons = []
        for source in self.sources:
            said = source.may_use(login, address)
            if said.status is not PermissionStatus.UNKNOWN:
                return said.after(asked)
            asked = (*asked, *said.asked)
            reasons.append(f"{source.name}: {said.reason}")
        reason = "; ".join(reasons) or "there is no source"
        return Permission(PermissionStatus.UNKNOWN, login.exact, address.exact, reason=reason, asked=asked)


def _unusable(kind: str, why: Unusable, login: bytes, address: bytes) -> Permission:
    reason = f"the {kind} stands for nobody: {why.detail}"
    return Permission(PermissionStatus.DENIED, _shown(login), _shown(address), rule=f"unusable {kind}", reason=reason)


def _shown(octets: bytes) -> str:
    """Printable ASCII."""
    return octets[:MAX_NAME_BYTES].decode("utf-8", "backslashreplace").encode("unicode_escape").decode("ascii")
