"""What a source can list: every account with what it may use, for people and for the audit. Values only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import NoReturn

from mailguard.domain import Domain

__all__ = ["MAX_ACCOUNTS", "MAX_GRANTS", "Grant", "Listing", "ListingStatus", "too_many_to_list"]

# Beyond what one host serves; a listing is held in memory: 600 MB for 200,000 accounts with 500,000 grants.
MAX_ACCOUNTS = 500_000
MAX_GRANTS = 1_500_000


def too_many_to_list() -> str:
    """What is said then: nothing is wrong, and who asks for one address is answered."""
    return (
        f"there are more than {MAX_ACCOUNTS:,} accounts or {MAX_GRANTS:,} entries, too many to list;"
        " mailguard senders test asks for one"
    )


class ListingStatus(Enum):
    """Whether a source could be listed."""

    LISTED = "listed"
    UNLISTABLE = "unlistable"
    """It answers for one address at a time and cannot be listed."""
    UNAVAILABLE = "unavailable"


@dataclass(frozen=True, slots=True)
class Grant:
    """An address, or a whole domain as `@domain`, that an account may use."""

    what: str
    rule: str
    home: Domain | None = None
    """The domain that it belongs to, where that is another one (of which it is an alias domain)."""

    @property
    def is_domain(self) -> bool:
        """Whether it is a whole domain: every address in it that has no entry of its own."""
        return self.what.startswith("@")

    @property
    def domain(self) -> str:
        """The domain of the tenant whose address it is."""
        return self.home or self.what.rpartition("@")[2]


@dataclass(frozen=True, slots=True)
class Listing:
    """What one source grants, by the exact name of the login."""

    source: str
    status: ListingStatus
    accounts: Mapping[str, tuple[Grant, ...]] = field(default_factory=dict)
    reason: str = ""
    """Why there is no listing, or what is missing in it."""

    def __bool__(self) -> NoReturn:
        raise TypeError("a Listing is neither true nor false: look at its status")
