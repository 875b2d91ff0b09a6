"""What DANE says: of a destination, of each of its hosts, and of the certificates that a host shows.

RFC 7672 §2.2 (the four outcomes of a look-up). Immutable values, safe to share between threads.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import NoReturn

from mailguard.dane.record import TlsaRecords
from mailguard.dns.question import TLSA, Dnssec

__all__ = [
    "DanePolicy",
    "DaneStatus",
    "HostOutcome",
    "HostPolicy",
    "HostReason",
    "TlsaReason",
    "TlsaResult",
    "TlsaStatus",
]


class HostOutcome(Enum):
    """RFC 7672 §2.2: what is demanded of a connection to one host."""

    AUTHENTICATE = "dane-authenticated"
    """TLS, with a certificate that the records vouch for. Else the next host, or later."""
    ENCRYPT = "encrypt-unauthenticated"
    """TLS, with whatever certificate: the host has promised TLS, by records that say nothing usable."""
    OPPORTUNISTIC = "opportunistic"
    """DANE asks for nothing: TLS if it can be had."""
    SKIP = "skip"
    """No connection to this host now: what is demanded of it could not be found out, or it has no address."""


class HostReason(Enum):
    """Why a host has its outcome."""

    USABLE_RECORDS = "usable-records"
    UNUSABLE_RECORDS = "unusable-records"
    NO_RECORDS = "no-records"
    """There are none, and the DNS says so."""
    INSECURE_RECORDS = "insecure-records"
    """There are some, without DNSSEC, so that they count for nothing."""
    INSECURE_ADDRESS = "insecure-address"
    """The addresses come without DNSSEC. Nobody asks for TLSA records then (RFC 7672 §2.2.2)."""
    INSECURE_MX = "insecure-mx"
    """The MX records come without DNSSEC: anyone could have put this host there."""
    ADDRESS_AS_NAME = "address-as-name"
    """The MX record has an address in place of a name (RFC 7672 §2.2)."""
    NO_ADDRESS = "no-address"
    """The name has no address, and the DNS says so."""
    LOOKUP_FAILED = "lookup-failed"
    """A look-up failed, or DNSSEC validation did (RFC 7672 §2.1.2)."""


@dataclass(frozen=True, slots=True)
class HostPolicy:
    """What DANE demands of a connection to one host."""

    name: str
    """As the MX record has it; lower case, no trailing dot, odd octets as \\DDD."""
    preference: int | None
    """None if no MX record names it."""
    outcome: HostOutcome
    reason: HostReason
    detail: str
    """For people, one sentence."""
    addresses: tuple[str, ...] = ()
    """IPv4 before IPv6. Empty where nobody asked for them."""
    base_domain: str | None = None
    """RFC 7672 §2.2.3, where the TLSA records are: the name to send as SNI (RFC 7672 §8.1)."""
    records: TlsaRecords = field(default_factory=TlsaRecords)
    reference_ids: tuple[str, ...] = ()
    """The names one of which a certificate of a DANE-TA(2) record has to have (RFC 7672 §3.2.2)."""

    def __bool__(self) -> NoReturn:
        raise TypeError("a HostPolicy is not true or false: compare its outcome")


class DaneStatus(Enum):
    """What there is to say of a destination."""

    HOSTS = "hosts"
    """It has hosts, each with an outcome of its own."""
    DEFER = "defer"
    """Its MX records could not be looked up (RFC 7672 §2.1.2): nothing is delivered now."""
    NO_DOMAIN = "no-domain"
    """The domain does not exist."""
    NO_MAIL = "no-mail"
    """It takes no mail (RFC 7505 §3)."""
    NOT_APPLICABLE = "not-applicable"
    """The destination is an address (RFC 7672 §2.2)."""


@dataclass(frozen=True, slots=True)
class DanePolicy:
    """What DANE demands of delivery to one destination."""

    destination: str
    """As Postfix writes a next hop: `example.com`, `[mx.example.com]:2525`."""
    port: int
    status: DaneStatus
    detail: str
    """For people, one sentence."""
    mx_dnssec: Dnssec | None = None
    """What the resolver says of the MX records, or of there being none; None where they are not asked for.

    With hosts from insecure MX records, success is not to be told as secure delivery (RFC 7672 §2.2.1).
    """
    hosts: tuple[HostPolicy, ...] = ()
    """The best preference first. Empty unless the status is HOSTS."""
    hosts_left_out: int = 0
    """How many more hosts there are than are looked at."""

    @property
    def outcomes(self) -> frozenset[HostOutcome]:
        """All outcomes of the hosts."""
        return frozenset(host.outcome for host in self.hosts)

    def __bool__(self) -> NoReturn:
        raise TypeError("a DanePolicy is not true or false: compare its status, and the outcome of each host")


class TlsaStatus(Enum):
    """How a certificate chain compares with TLSA records."""

    AUTHENTICATED = "authenticated"
    FAILED = "failed"
    UNUSABLE = "unusable"
    """No record is usable: there is nothing to compare with."""


class TlsaReason(Enum):
    """Why."""

    MATCHED = "matched"
    NO_MATCH = "no-match"
    """No record matches, neither the server's certificate nor one above it."""
    CHAIN = "chain"
    """A DANE-TA(2) record matches, and no valid path leads from the server's certificate to what it matches."""
    NAME = "name"
    """A DANE-TA(2) record matches by a valid path, and the certificate has none of the names."""
    NO_CERTIFICATE = "no-certificate"
    MALFORMED = "malformed"
    """The server's certificate cannot be read."""
    NO_USABLE_RECORD = "no-usable-record"


@dataclass(frozen=True, slots=True)
class TlsaResult:
    """What TLSA records say of a certificate chain."""

    status: TlsaStatus
    reason: TlsaReason
    detail: str
    """For people, one sentence of printable ASCII."""
    record: TLSA | None = None
    """The record that matched, also where that was not enough."""
    depth: int | None = None
    """How far above the server's certificate, which is 0, what it matched stands in the path.

    For a bare key that signed a certificate without standing in the chain itself: where that certificate stands.
    """
    matched_name: str | None = None
    """The first reference identifier that the server's certificate has, also where names do not matter (DANE-EE)."""

    def __bool__(self) -> NoReturn:
        raise TypeError("a TlsaResult is not true or false: compare its status")
