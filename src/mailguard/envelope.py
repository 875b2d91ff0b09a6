"""Envelope: what SMTP says about a message, beside its content (RFC 5321)."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

__all__ = ["Envelope"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """The client and the SMTP commands of one transaction. Octets from the wire are kept as they came."""

    client_ip: IPv4Address | IPv6Address | None
    """The client's address; None where there is none (a UNIX socket, an unknown address family).

    An IPv4 address in IPv6 form (RFC 4291 §2.5.5.2) is kept as the IPv4 address that it is.
    """
    helo: bytes
    """The argument of the last HELO or EHLO, empty if there was none."""
    mail_from: bytes
    """The reverse path without angle brackets and parameters; empty for the null sender."""
    rcpt_to: tuple[bytes, ...] = ()
    """The accepted forward paths without angle brackets."""
    mail_from_as_read: bytes | None = None
    """The reverse path as the mail server itself reads it, where that is known and differs from `mail_from`."""
    login: bytes | None = None
    """The SASL login, None for a client that did not authenticate."""

    def __post_init__(self) -> None:
        client = self.client_ip
        # With a zone (RFC 4007 §6) it is an address on one link of this host, whatever it looks like.
        if isinstance(client, IPv6Address) and client.scope_id is None and client.ipv4_mapped is not None:
            object.__setattr__(self, "client_ip", client.ipv4_mapped)
