"""Where mail is to go: a next hop as Postfix writes it.

transport(5) and smtp(8) of Postfix (the forms), RFC 7672 §2.2.1 (those with MX records), RFC 7672 §2.2.2 (those
without). Left out: ports by name. Immutable, safe to share between threads.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from ipaddress import ip_address
from typing import Self

from mailguard.domain import MAX_DOMAIN_CHARS, Domain
from mailguard.errors import DomainError

__all__ = ["SMTP_PORT", "Destination", "DestinationKind", "is_address", "name_of"]

SMTP_PORT = 25
_MAX_PORT = 65_535

_LABEL = r"(?!-)[a-z0-9_-]{1,63}(?<!-)"
_NAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_FORM = re.compile(r"(?:\[(?P<bracketed>[^\[\]]+)\]|(?P<plain>[^\[\]:]+))(?::(?P<port>[0-9]{1,5}))?")


class DestinationKind(Enum):
    """How the hosts of a destination are found."""

    DOMAIN = "domain"
    """By its MX records."""
    HOST = "host"
    """It is the host: a name in brackets."""
    ADDRESS = "address"
    """It is an address, for which there are no TLSA records (RFC 7672 §2.2)."""


@dataclass(frozen=True, slots=True)
class Destination:
    """A next hop."""

    name: str
    """A name as `name_of` makes it, or an address without brackets."""
    kind: DestinationKind = DestinationKind.DOMAIN
    port: int = SMTP_PORT

    def __post_init__(self) -> None:
        if not 0 < self.port <= _MAX_PORT:
            raise ValueError(f"{self.port} is no port")

    @classmethod
    def parse(cls, text: str) -> Self:
        """`example.com`, `example.com:587`, `[mx.example.com]:2525`, `[192.0.2.1]`, `[IPv6:2001:db8::1]`.

        Raises ValueError for other forms and ports, and its kin DomainError for what is no name.
        """
        found = _FORM.fullmatch(text)
        if found is None:
            raise ValueError("a destination is a domain, or a host or an address in brackets, with or without :port")
        bracketed, plain, port = found.group("bracketed", "plain", "port")
        number = int(port) if port is not None else SMTP_PORT
        name = bracketed or plain
        if bracketed and name[:5].lower() == "ipv6:":
            name = name[5:]
        if is_address(name):
            return cls(str(ip_address(name)), DestinationKind.ADDRESS, number)
        kind = DestinationKind.HOST if bracketed else DestinationKind.DOMAIN
        return cls(name_of(name), kind, number)

    def __str__(self) -> str:
        name = self.name if self.kind is DestinationKind.DOMAIN else f"[{self.name}]"
        return name if self.port == SMTP_PORT else f"{name}:{self.port}"


def name_of(text: str) -> str:
    """The name that `text` is in the DNS: lower case, A-labels, no trailing dot. Raises DomainError.

    Beside those of Domain, what Postfix delivers to as well: names with `_`, and labels with `xn--` that stand for
    nothing. They are as they stand, and are no names for people.
    """
    try:
        return Domain.parse(text)
    except DomainError:
        name = text.lower() if text.isascii() and len(text) <= MAX_DOMAIN_CHARS else ""
        if _NAME.fullmatch(name) is None:
            raise
        return name


def is_address(text: str) -> bool:
    """Whether `text` is an IPv4 or IPv6 address."""
    try:
        ip_address(text)
    except ValueError:
        return False
    return True
