"""Choices: what an administrator says about a domain, and nobody can look up. Frozen values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum

from mailguard.domain import Domain, is_equal_or_below

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
    note: str = ""
    """What more is to be said of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MailHost:
    """A host that takes the domain's mail."""

    name: Domain
    preference: int = 10
    key_digests: Sequence[bytes] = ()
    """SHA-256 of the SubjectPublicKeyInfo of its certificates, the one in use and the next, for TLSA."""
    is_signed: bool | None = False
    """Whether its name is in a zone with DNSSEC; None where that cannot be told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choices:
    """All that the records are made from."""

    domain: Domain
    stage: Stage = Stage.NONE
    keys: Sequence[PublicKey] = ()
    hosts: Sequence[MailHost] = ()
    senders: Sequence[str] = ("mx",)
    """SPF's terms before all: "mx", "ip4:192.0.2.1", "include:hoster.example"."""
    published_spf: str = ""
    """The SPF record that the domain has now, printable; empty: none, or that does not matter."""
    reports: str = ""
    """A mail address for reports; empty: postmaster of the domain."""
    takes_mail: bool = True
    """False: the null MX of RFC 7505."""
    zone: str = ""
    """The zone that the domain is in; empty: the domain is one."""
    zones: Mapping[str, str] = field(default_factory=dict)
    """The zone that another name is in, as far as it is known."""
    host_keys: Sequence[tuple[Domain, str]] = ()
    """SSHFP: the host and the record data (RFC 4255 §3.1)."""

    @property
    def report_address(self) -> str:
        """Empty where a domain without mail names no address elsewhere."""
        return self.reports or (f"postmaster@{self.domain}" if self.takes_mail else "")

    @property
    def delegable(self) -> tuple[str, str]:
        """Below the domain, what is often delegated or given to a provider: the keys, and the policy of DMARC."""
        return f"_domainkey.{self.domain}", f"_dmarc.{self.domain}"

    def zone_of(self, name: str, owner: str) -> str:
        """The zone for a record at `name` of the host or domain `owner`; empty for the domain's own."""
        own = self.zone or self.domain
        if (known := self.zones.get(owner)) is not None:
            return "" if known == own else known
        # Unasked, what is below the domain is taken to be in its zone, and all else in a zone of its own.
        return "" if is_equal_or_below(name, own) else owner
