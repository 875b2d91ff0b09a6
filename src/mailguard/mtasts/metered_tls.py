"""MeteredContext: TLS to a host that may be hostile, with a bound on the time and on the octets of one reply.

RFC 8461 §3.3: the certificate chains to a trusted root and has the host among its DNS names; its CN does not count.
A wait ends after `wait_s`, everything at the deadline: a host that sends an octet a second does not get around it.
A stream that ends without TLS's own end is an error, so that nobody can cut a policy short. One context is for one
connection at a time, in one thread.
"""

from __future__ import annotations

import ssl
import time
from typing import Any

__all__ = ["Meter", "MeteredContext", "TooLarge"]


class TooLarge(OSError):
    """More octets came than are wanted."""


class Meter:
    """What may still be spent on one reply; `is_late` and `is_too_large` tell why it ended."""

    def __init__(self, *, wait_s: float, deadline: float, max_bytes: int) -> None:
        """`deadline` is a reading of `time.monotonic()`."""
        self.is_late = False
        self.is_too_large = False
        self._wait_s = wait_s
        self._deadline = deadline
        self._bytes_left = max_bytes

    def wait_s(self) -> float:
        """How long to wait for the next octet. Raises TimeoutError after the deadline."""
        left_s = self._deadline - time.monotonic()
        if left_s <= 0:
            self.is_late = True
            raise TimeoutError("the time for the whole fetch is over")
        return min(self._wait_s, left_s)

    def came(self, octets: int) -> None:
        """Raises TooLarge."""
        self._bytes_left -= octets
        if self._bytes_left < 0:
            self.is_too_large = True
            raise TooLarge("the reply is too large")


class _MeteredSocket(ssl.SSLSocket):
    """What http.client reads from. It reads with `recv_into` alone."""

    def do_handshake(self, block: bool = False) -> None:
        # OpenSSL's handshake as a whole is bounded by the timeout, and so are its certificates (100 kB).
        self.settimeout(self._meter.wait_s())
        super().do_handshake(block)

    def recv_into(self, *arguments: Any, **keywords: Any) -> int:
        # Where Python reports such an end as SSLEOFError, this keeps it from being taken for the end of the reply.
        self.suppress_ragged_eofs = False
        self.settimeout(self._meter.wait_s())
        count = super().recv_into(*arguments, **keywords)
        self._meter.came(count)
        return count

    @property
    def _meter(self) -> Meter:
        context = self.context
        if not isinstance(context, MeteredContext):
            raise TypeError("a metered socket belongs to a metered context")
        return context.meter


class MeteredContext(ssl.SSLContext):
    """A context for a client; make one with `of`."""

    meter: Meter
    sslsocket_class = _MeteredSocket

    @classmethod
    def of(cls, meter: Meter, *, authorities: str | None) -> MeteredContext:
        """`authorities` are PEM certificates; None are those of the operating system."""
        context = cls(ssl.PROTOCOL_TLS_CLIENT)
        context.meter = meter
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        # Python asks OpenSSL not to tell an end of the connection from the end of TLS.
        context.options &= ~ssl.OP_IGNORE_UNEXPECTED_EOF
        # RFC 8461 §3.3: "Matching is performed only against the DNS-ID identifiers."
        context.hostname_checks_common_name = False
        if authorities is None:
            context.load_default_certs()
        else:
            context.load_verify_locations(cadata=authorities)
        return context
