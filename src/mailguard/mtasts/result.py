"""What fetching a policy came to: FetchReason, FetchOutcome (RFC 8461 §3.3).

Frozen; safe to share between threads.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import NoReturn

from mailguard.mtasts.policy import StsPolicy

__all__ = ["FetchOutcome", "FetchReason"]


class FetchReason(Enum):
    """How a fetch ended, in one word for programs."""

    FETCHED = "fetched"
    DNS_UNAVAILABLE = "dns-unavailable"
    """The DNS did not say which addresses the policy host has."""
    NO_ADDRESS = "no-address"
    ADDRESS_REFUSED = "address-refused"
    """It has only addresses that are not of the public Internet."""
    UNREACHABLE = "unreachable"
    """No connection came about."""
    TIMED_OUT = "timed-out"
    CERTIFICATE = "certificate"
    """The certificate is not valid for the policy host."""
    TLS = "tls"
    """TLS failed for another reason than the certificate."""
    HTTP = "http"
    """What came is not a complete reply in HTTP."""
    REDIRECTED = "redirected"
    STATUS = "status"
    """A status other than 200, and no redirect."""
    MEDIA_TYPE = "media-type"
    ENCODED = "encoded"
    """The body is compressed, which was not asked for."""
    TOO_LARGE = "too-large"
    MALFORMED = "malformed"
    """The body is not a policy."""
    FAULT = "fault"
    """An error of our own; the log has more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchOutcome:
    """What a fetch came to. `policy` is there exactly where `reason` is FETCHED."""

    reason: FetchReason
    policy: StsPolicy | None = None
    detail: str = ""
    """For people; printable ASCII."""
    address: str = ""
    """The address that was talked to; empty where none was."""

    def __post_init__(self) -> None:
        if (self.policy is not None) != (self.reason is FetchReason.FETCHED):
            raise ValueError("a policy is there exactly where it was fetched")

    def __bool__(self) -> NoReturn:
        raise TypeError("a FetchOutcome is not true or false: read its policy or its reason")
