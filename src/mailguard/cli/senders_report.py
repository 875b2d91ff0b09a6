"""What sources list, as lines for people and as values for JSON: what a login may use, and the audit of all
accounts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from mailguard.cli.printable import cell
from mailguard.senders.identity import Login, LoginRules, Unusable
from mailguard.senders.listing import Grant, Listing, ListingStatus

__all__ = ["audit_json", "audit_lines", "listing_json", "listing_lines"]

# A terminal is no place for more; --json has all of them.
MAX_SHOWN_ACCOUNTS = 100
MAX_SHOWN_GRANTS = 10
MAX_CELL_CHARS = 300


def listing_lines(login: Login, listings: Sequence[Listing]) -> Iterator[str]:
    """What `login` may use, by source."""
    for listing in listings:
        if listing.status is not ListingStatus.LISTED:
            yield f"{listing.source}: {_STATUS[listing.status]}: {_plain(listing.reason)}"
            continue
        grants = listing.accounts.get(login.exact, ())
        yield f"{listing.source}: {_plain(login.exact)} may use {_counted(len(grants), 'address', 'addresses')}"
        width = max((len(_plain(grant.what)) for grant in grants), default=0)
        for grant in grants:
            yield f"  {_plain(grant.what):{width}}  {_plain(grant.rule)}"
        if listing.reason:
            yield f"  not listed: {_plain(listing.reason)}"


def listing_json(login: Login, listings: Sequence[Listing]) -> dict[str, Any]:
    """The same, for `json.dumps`."""
    return {
        "login": login.exact,
        "sources": [
            {
                "source": listing.source,
                "status": listing.status.value,
                "reason": listing.reason,
                "grants": [_grant_json(grant) for grant in listing.accounts.get(login.exact, ())],
            }
            for listing in listings
        ],
    }


@dataclass(frozen=True, slots=True)
class _Reach:
    """What an account may use by all sources together."""

    login: str
    grants: tuple[Grant, ...]
    whole_domains: tuple[str, ...]
    other_tenants: tuple[str, ...]
    """Domains of others of which it may use an address."""

    @property
    def breadth(self) -> tuple[int, int, int]:
        """The most first, when sorted in reverse."""
        return len(self.whole_domains), len(self.other_tenants), len(self.grants)

    @property
    def marks(self) -> tuple[str, ...]:
        """Why it is worth a look."""
        return (
            *(f"whole domain {domain}" for domain in self.whole_domains),
            *(f"other tenant {domain}" for domain in self.other_tenants),
        )


def audit_lines(listings: Sequence[Listing], rules: LoginRules) -> Iterator[str]:
    """Each account with its reach, the widest first."""
    reaches = _reaches(listings, rules)
    for reach in reaches[:MAX_SHOWN_ACCOUNTS]:
        marks = f"  {', '.join(map(_plain, reach.marks[:MAX_SHOWN_GRANTS]))}" if reach.marks else ""
        yield f"{_counted(len(reach.grants), 'address', 'addresses'):>14}  {_plain(reach.login)}{marks}"
        for grant in _worth_showing(reach)[:MAX_SHOWN_GRANTS]:
            yield f"{'':16}{_plain(grant.what)}  {_plain(grant.rule)}"
        left = len(_worth_showing(reach)) - MAX_SHOWN_GRANTS
        if left > 0:
            yield f"{'':16}and {left} more, which --json shows"
    if len(reaches) > MAX_SHOWN_ACCOUNTS:
        yield f"and {len(reaches) - MAX_SHOWN_ACCOUNTS} accounts more, which --json shows"
    marked = sum(1 for reach in reaches if reach.marks)
    yield (
        f"{_counted(len(reaches), 'account', 'accounts')}; {marked} of them {'reaches' if marked == 1 else 'reach'}"
        " a whole domain or another tenant"
        if reaches
        else "no account is listed"
    )
    for listing in listings:
        if listing.reason:
            yield f"note: {listing.source}: {_plain(listing.reason)}"


def audit_json(listings: Sequence[Listing], rules: LoginRules) -> dict[str, Any]:
    """The same, for `json.dumps`."""
    return {
        "accounts": [
            {
                "login": reach.login,
                "whole_domains": list(reach.whole_domains),
                "other_tenants": list(reach.other_tenants),
                "grants": [_grant_json(grant) for grant in reach.grants],
            }
            for reach in _reaches(listings, rules)
        ],
        "sources": [
            {"source": listing.source, "status": listing.status.value, "reason": listing.reason}
            for listing in listings
        ],
    }


_STATUS = {ListingStatus.UNLISTABLE: "cannot be listed", ListingStatus.UNAVAILABLE: "could not be asked"}


def _reaches(listings: Sequence[Listing], rules: LoginRules) -> list[_Reach]:
    accounts: dict[str, dict[str, Grant]] = {}
    for listing in listings:
        for name, grants in listing.accounts.items():
            for grant in grants:
                accounts.setdefault(name, {}).setdefault(grant.what, grant)
    reaches = [_reach(name, tuple(found.values()), rules) for name, found in accounts.items()]
    return sorted(reaches, key=lambda reach: (*(-number for number in reach.breadth), reach.login))


def _reach(name: str, grants: tuple[Grant, ...], rules: LoginRules) -> _Reach:
    login = rules.login(name)
    own = None if isinstance(login, Unusable) else login.domain
    wholes = {grant.what.removeprefix("@") for grant in grants if grant.is_domain}
    # A login that is no address belongs to no tenant.
    others = {grant.domain for grant in grants if own is not None and grant.domain != own}
    return _Reach(name, grants, tuple(sorted(wholes)), tuple(sorted(others)))


def _worth_showing(reach: _Reach) -> list[Grant]:
    return [grant for grant in reach.grants if grant.is_domain or grant.domain in reach.other_tenants]


def _grant_json(grant: Grant) -> dict[str, str]:
    return {"what": grant.what, "rule": grant.rule}


def _counted(number: int, one: str, several: str) -> str:
    return f"{number} {one if number == 1 else several}"


def _plain(text: str) -> str:
    return cell(text, max_chars=MAX_CELL_CHARS)
