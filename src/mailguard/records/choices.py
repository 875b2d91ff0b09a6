"""Choices: what an administrator says about a domain, and nobody can look up. Frozen values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from mailguard.domain import Domain

__all__ = ["Choices", "MailHost", "PublicKey", "Stage"]


class Stage(Enum):
    """How far the domain has come: what receivers are asked to do with mail that fails."""

    NONE = "none"
    QUARANTINE = "quarantine"
    REJECT = "reject"


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A DKIM key: where its record belongs, and the record."""

    selector: str
    name: str
    record: bytes
    algorithm: str
    bits: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MailHost:
    """A host that takes the domain's mail."""

    name: Domain
    preference: int = 10
    key_digest: bytes | None = None
    """SHA-256 of its certificate's SubjectPublicKeyInfo, for TLSA; None where no certificate was named."""
    is_signed: bool = False
    """Whether its name is in a zone with DNSSEC."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choices:
    """All that the records are made from."""

    domain: Domain
    stage: Stage = Stage.NONE
    keys: Sequence[PublicKey] = ()
    hosts: Sequence[MailHost] = ()
    senders: Sequence[str] = ("mx",)
    """SPF's terms before all: "mx", "ip4:192.0.2.1", "include:hoster.example"."""
    reports: str = ""
    """A mail address for reports; empty: postmaster of the domain."""
    host_keys: Sequence[tuple[Domain, str]] = ()
    """SSHFP: the host and the record data (RFC 4255 §3.1)."""

    @property
    def report_address(self) -> str:
        return self.reports or f"postmaster@{self.domain}"
