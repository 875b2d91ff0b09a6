"""SpfResult: what check_host() came to for one identity (RFC 7208 §2.6), and why."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import NoReturn

from mailguard.domain import Domain

__all__ = ["SpfIdentity", "SpfReason", "SpfResult", "SpfStatus"]


class SpfIdentity(Enum):
    """Which name of the SMTP session was checked (RFC 7208 §2.3, RFC 7208 §2.4)."""

    MAIL_FROM = "mailfrom"
    """The reverse path; for the null one, postmaster at the HELO name."""
    HELO = "helo"

    # Enum hashes by the name, in Python, at each look-up; a member is one object and equal to no other.
    __hash__ = object.__hash__


class SpfStatus(Enum):
    """RFC 7208 §2.6."""

    NONE = "none"
    NEUTRAL = "neutral"
    PASS = "pass"
    FAIL = "fail"
    SOFTFAIL = "softfail"
    TEMPERROR = "temperror"
    PERMERROR = "permerror"

    # Enum hashes by the name, in Python, at each look-up; a member is one object and equal to no other.
    __hash__ = object.__hash__


class SpfReason(Enum):
    """Why, in one word for programs."""

    MATCH = "match"
    """A mechanism matched; its qualifier is the result."""
    NO_MATCH = "no-match"
    """Nothing matched and there was no redirect: neutral (RFC 7208 §4.7)."""
    NO_RECORD = "no-record"
    NO_DOMAIN = "no-domain"
    """There is no domain that could be checked: an address literal, one label, no HELO (RFC 7208 §4.3)."""
    NO_ADDRESS = "no-address"
    """The client has no address, or one that means something on one link only."""
    SENDER_SYNTAX = "sender-syntax"
    """The reverse path is not an address, or has octets that no address has."""
    SENDER_DISPUTED = "sender-disputed"
    """The mail server reads another address than SMTP's MAIL command shows."""
    SEVERAL_RECORDS = "several-records"
    RECORD_SYNTAX = "record-syntax"
    RECORD_SIZE = "record-size"
    TOO_MANY_LOOKUPS = "too-many-lookups"
    """More than 10 terms that look something up (RFC 7208 §4.6.4), or more than 30 look-ups in all."""
    TOO_MANY_VOIDS = "too-many-voids"
    NO_INCLUDED_RECORD = "no-included-record"
    """The target of an include or a redirect has no record."""
    DNS = "dns"
    """A look-up failed: a timeout, a server failure, a failed DNSSEC validation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SpfResult:
    """The result for one identity."""

    status: SpfStatus
    reason: SpfReason
    detail: str
    """For people, one sentence of printable ASCII, in our words; bounded."""
    identity: SpfIdentity
    domain: Domain | None = None
    """The domain that was checked (smtp.mailfrom or smtp.helo); None where there is none."""
    is_null_sender: bool = False
    """The reverse path was empty, so that MAIL_FROM means postmaster at the HELO name (RFC 7208 §2.4)."""
    mechanism: str | None = None
    """The term that matched, as published; printable ASCII, bounded."""
    record: str | None = None
    """The domain's record, printable ASCII, bounded."""
    lookups: int = 0
    """Terms that looked something up, of 10 (RFC 7208 §4.6.4)."""
    voids: int = 0
    """Look-ups without an answer, of 2 (RFC 7208 §4.6.4)."""
    explanation: str | None = None
    """After a fail: the domain's own text (exp=, RFC 7208 §6.2), printable ASCII, bounded. A stranger's words."""
    is_uncertain: bool = False
    """The client's name could not be looked up. RFC 7208 §5.5 takes that for no match; it might have been a pass."""
    is_permissive: bool = False
    """The term that passed covers half of all addresses or more: `+all`, `ip4:.../0` or `/1`."""

    def __bool__(self) -> NoReturn:
        raise TypeError("an SpfResult is not true or false: compare its status")
