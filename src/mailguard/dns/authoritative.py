"""Each authoritative server of a zone, asked for itself: what the world will see, and where they differ.

RFC 1034 §4.2 (zones and their servers), RFC 2181 §5.4.1 (only what a server says with authority counts). With
dnspython's resolver and queries, for the commands: nothing of it is on the way of mail. Blocks; safe to share between
threads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import dns.exception
import dns.flags
import dns.message
import dns.query
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.resolver

__all__ = ["AuthoritativeDns", "NameServer", "Unreachable", "normal_rdata"]

# A zone has a handful of servers; more than this is an attack on our patience.
MAX_SERVERS = 26
MAX_ADDRESSES = 4


class Unreachable(Exception):
    """A zone or its servers could not be found; the text says which and why."""


@dataclass(frozen=True, slots=True)
class NameServer:
    """One address of one server of a zone."""

    name: str
    address: str

    def __str__(self) -> str:
        return f"{self.name} ({self.address})"


class AuthoritativeDns:
    """Finds the servers of a zone with a recursive resolver, and asks them."""

    def __init__(self, nameservers: Sequence[str] = (), *, port: int = 53, timeout_s: float = 3.0) -> None:
        """`nameservers` recurse, at `port`; none: those of /etc/resolv.conf. Raises Unreachable if it has none."""
        try:
            self._resolver = dns.resolver.Resolver(configure=not nameservers)
        except dns.exception.DNSException as error:
            raise Unreachable(f"/etc/resolv.conf: {error}") from None
        if nameservers:
            self._resolver.nameservers = list(nameservers)
            self._resolver.port = port
        self._resolver.lifetime = 3 * timeout_s
        self._timeout_s = timeout_s

    def servers(self, name: str) -> tuple[NameServer, ...]:
        """Those of the zone that `name` is in, each with its addresses. Raises Unreachable."""
        try:
            zone = dns.resolver.zone_for_name(f"{name}.", resolver=self._resolver)
            names = sorted(str(record.target) for record in self._resolver.resolve(zone, "NS"))
        except dns.exception.DNSException as error:
            raise Unreachable(f"the servers of the zone of {name} could not be found: {error}") from None
        found = [
            NameServer(each.rstrip("."), address) for each in names[:MAX_SERVERS] for address in self._addresses(each)
        ]
        if not found:
            raise Unreachable(f"no server of the zone of {name} has an address: {', '.join(names)}")
        return tuple(found)

    def ask(self, server: NameServer, name: str, rdtype: str) -> tuple[str, ...]:
        """What `server` publishes there, each record as `normal_rdata` writes it; texts whole. Raises Unreachable."""
        query = dns.message.make_query(f"{name}.", rdtype, use_edns=0)
        query.flags &= ~dns.flags.RD
        try:
            reply, _ = dns.query.udp_with_fallback(query, server.address, timeout=self._timeout_s)
        except (dns.exception.DNSException, OSError, EOFError) as error:
            raise Unreachable(f"no answer: {error or type(error).__name__}") from None
        if reply.rcode() not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
            raise Unreachable(f"it answers {dns.rcode.to_text(reply.rcode())}")
        if not reply.flags & dns.flags.AA:
            raise Unreachable("it does not speak for the zone (no authoritative answer)")
        number = dns.rdatatype.from_text(rdtype)
        for rrset in reply.answer:
            if rrset.rdtype == number and rrset.name == query.question[0].name:
                return tuple(_text(record) for record in rrset)
        if any(rrset.rdtype == dns.rdatatype.CNAME for rrset in reply.answer):
            return self._followed(name, rdtype)
        return ()

    def _followed(self, name: str, rdtype: str) -> tuple[str, ...]:
        """What an alias leads to, which other servers publish."""
        try:
            return tuple(_text(record) for record in self._resolver.resolve(f"{name}.", rdtype))
        except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer):
            return ()
        except dns.exception.DNSException as error:
            raise Unreachable(f"where its alias leads could not be looked up: {error}") from None

    def _addresses(self, name: str) -> list[str]:
        found: list[str] = []
        for rdtype in ("A", "AAAA"):
            try:
                found += [str(record) for record in self._resolver.resolve(name, rdtype)]
            except dns.exception.DNSException:
                continue  # most servers have one kind only; without either, `servers` says so
        return found[:MAX_ADDRESSES]


def normal_rdata(rdtype: str, value: str) -> str:
    """Record data of any type but TXT, as it is compared: names in lower case, numbers and digests in one form."""
    try:
        return _text(dns.rdata.from_text(dns.rdataclass.IN, rdtype, value))
    except dns.exception.DNSException:
        return value


def _text(record: dns.rdata.Rdata) -> str:
    strings = getattr(record, "strings", None)
    if strings is not None:
        return b"".join(strings).decode("utf-8", "backslashreplace")
    return record.to_text().lower()
