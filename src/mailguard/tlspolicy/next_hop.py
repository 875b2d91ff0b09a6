"""What Postfix asks smtp_tls_policy_maps for: a next hop, or the parent of a domain.

postconf(5), smtp_tls_policy_maps: "the full next-hop destination", with brackets and port as they were written; for a
domain without either that is not found, each parent with a dot in front. Names in U-labels (SMTPUTF8) are taken as
well. Pure; values are frozen and safe to share between threads.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from mailguard.dane.destination import SMTP_PORT, Destination, DestinationKind, name_of
from mailguard.domain import Domain
from mailguard.errors import DomainError

__all__ = ["NextHop", "Parent", "parents_of", "parse_key"]

# The services that a relay host is written with. Other names of /etc/services are for this host to define.
_SERVICES = {"smtp": 25, "submission": 587, "submissions": 465, "smtps": 465, "ssmtp": 465}
_SERVICE = re.compile(r":([A-Za-z][A-Za-z0-9-]{0,62})$")


@dataclass(frozen=True, slots=True)
class NextHop:
    """Where mail goes."""

    destination: Destination

    @property
    def policy_domain(self) -> Domain | None:
        """Whose MTA-STS policy counts: a relay host is a domain of its own (RFC 8461 §3.4).

        None for an address, and for a name that is not one of a host: it has no policy host.
        """
        if self.is_address:
            return None
        try:
            return Domain.parse(self.destination.name)
        except DomainError:
            return None

    @property
    def is_address(self) -> bool:
        """Whether nothing can be published for it."""
        return self.destination.kind is DestinationKind.ADDRESS

    def parents(self) -> Iterator[Parent]:
        """What Postfix would ask for next, the nearest first."""
        destination = self.destination
        if destination.kind is DestinationKind.DOMAIN and destination.port == SMTP_PORT:
            _, _, above = destination.name.partition(".")
            while above:
                yield Parent(above)
                _, _, above = above.partition(".")

    def __str__(self) -> str:
        return str(self.destination)


@dataclass(frozen=True, slots=True)
class Parent:
    """All subdomains of a domain.

    Nothing is ever found for it: what counts for a subdomain, overrides of parents included, is said when that is
    asked for by its own name, and Postfix asks for the parent when that was to be nothing.
    """

    domain: str

    def __str__(self) -> str:
        return f".{self.domain}"


def parse_key(key: bytes) -> NextHop | Parent | None:
    """None for what is no next hop of SMTP over the Internet: the path of a socket, a name that is none."""
    try:
        text = key.decode("utf-8")
        if text.startswith("."):
            return Parent(name_of(text[1:]))
        service = _SERVICE.search(text)
        if service is not None and service[1].lower() in _SERVICES:
            text = f"{text[: service.start()]}:{_SERVICES[service[1].lower()]}"
        # A name may be written as absolute; Postfix asks for it as it stands.
        return NextHop(Destination.parse(_TRAILING_DOT.sub(r"\1", text)))
    except (UnicodeDecodeError, DomainError, ValueError):
        return None


def parents_of(key: bytes) -> Iterator[Parent]:
    """The parents, the nearest first, of a name that only Postfix takes: U-labels unknown to IDNA 2008 (emoji)."""
    above = b"" if key.isascii() else key
    while above := above.partition(b".")[2]:
        parent = parse_key(b"." + above)
        if isinstance(parent, Parent):
            yield parent


_TRAILING_DOT = re.compile(r"(?<=[^.\[:])\.(\]?(?::[0-9]{1,5})?)$")
