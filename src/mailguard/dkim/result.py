"""DkimResult: what one DKIM-Signature turned out to be (RFC 8601 §2.7.1), and why."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import NoReturn

from mailguard.domain import Domain

__all__ = ["DkimReason", "DkimResult", "DkimStatus"]


class DkimStatus(Enum):
    """RFC 8601 §2.7.1. `none`, no signature at all, is an empty tuple of results."""

    PASS = "pass"
    FAIL = "fail"
    POLICY = "policy"
    NEUTRAL = "neutral"
    TEMPERROR = "temperror"
    PERMERROR = "permerror"


class DkimReason(Enum):
    """Why a signature has its status, in one word for programs."""

    VERIFIED = "verified"
    BODY_HASH = "body-hash"
    SIGNATURE = "signature"
    EXPIRED = "expired"
    SYNTAX = "syntax"
    VERSION = "version"
    ALGORITHM = "algorithm"
    FROM_UNSIGNED = "from-unsigned"
    IDENTITY = "identity"
    QUERY_METHOD = "query-method"
    FUTURE = "future"
    BODY_LENGTH = "body-length"
    BODY_TOO_SHORT = "body-too-short"
    KEY_UNAVAILABLE = "key-unavailable"
    KEY_MISSING = "key-missing"
    KEY_SYNTAX = "key-syntax"
    KEY_REVOKED = "key-revoked"
    KEY_TYPE = "key-type"
    KEY_SIZE = "key-size"
    KEY_HASH = "key-hash"
    KEY_SERVICE = "key-service"
    KEY_STRICT = "key-strict"
    TESTING = "testing"


@dataclass(frozen=True, slots=True, kw_only=True)
class DkimResult:
    """One signature's result (RFC 6376 §3.9, RFC 6376 §3.11). What the signature did not get right is None."""

    status: DkimStatus
    reason: DkimReason
    detail: str
    """For people, one sentence; it may quote nothing but validated names and numbers."""
    domain: Domain | None = None
    """d=, the Signing Domain Identifier."""
    selector: str | None = None
    """s=, as an A-label name."""
    identity: str | None = None
    """i=, the Agent or User Identifier, as written; its local part is the signer's own text: escape it."""
    algorithm: str | None = None
    """a=, such as "rsa-sha256"."""
    key_bits: int | None = None
    """The size of the published key, where one was found and read."""
    signature_prefix: str | None = None
    """The first characters of b=, for header.b (RFC 6008 §2)."""
    testing: bool = False
    """The key has t=y: the signature counts for no more and no less than none (RFC 6376 §3.6.1)."""

    def __bool__(self) -> NoReturn:
        raise TypeError("a DkimResult is not true or false: compare its status")
