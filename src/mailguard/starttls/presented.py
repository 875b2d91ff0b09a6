"""Handshake: what a mail server did when it was asked for TLS, and the certificates that it showed.

RFC 3207 §4 (STARTTLS). Immutable values, safe to share between threads.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import NoReturn

__all__ = ["Handshake", "HandshakeStatus"]


class HandshakeStatus(Enum):
    """How far it came."""

    DONE = "done"
    UNREACHABLE = "unreachable"
    """No connection came about."""
    NO_ROUTE = "no-route"
    """This machine cannot get there: as a rule it has no IPv6."""
    TIMED_OUT = "timed-out"
    REFUSED = "refused"
    """It does not want to talk to us: its greeting, or its reply to EHLO, is not 2xx."""
    NO_STARTTLS = "no-starttls"
    """It does not offer TLS, or refuses it when asked."""
    SMTP = "smtp"
    """What it says is not SMTP, or too much, or the connection is lost before TLS begins."""
    TLS = "tls"
    """The handshake failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Handshake:
    """`chain` is empty unless `status` is DONE."""

    address: str
    port: int
    status: HandshakeStatus
    detail: str
    """For people, one sentence. It may quote the server: not to be shown unescaped."""
    chain: tuple[bytes, ...] = ()
    """DER, the server's own certificate first, as it was presented: unverified."""
    protocol: str = ""
    """`TLSv1.3`."""
    cipher: str = ""
    authority_fault: str | None = None
    """What is wrong with the chain by the rules of the web (RFC 5280 §6), the name left aside; None if nothing is."""

    def __bool__(self) -> NoReturn:
        raise TypeError("a Handshake is not true or false: compare its status")
