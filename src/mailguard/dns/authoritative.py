"""Each authoritative server of a zone, asked for itself: what the world will see, and where they differ.

RFC 1034 §4.2 (zones and their servers), RFC 2181 §5.4.1 (only what a server says with authority counts). With
dnspython's resolver and queries, for the commands: nothing of it is on the way of mail. Blocks; safe to share between
threads.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.query
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.resolver

__all__ = [
    "TOTAL_TIME_S",
    "Alias",
    "AuthoritativeDns",
    "NameServer",
    "NotFromHere",
    "Published",
    "Unreachable",
    "normal_rdata",
]

# A zone has a handful of servers; more than this is an attack on our patience.
MAX_SERVERS = 26
# The servers of a great provider have three of each kind.
MAX_ADDRESSES = 16
# Of those above a zone, which say all the same, one is enough; each that is silent takes a good part of the time.
MAX_PARENTS = 2
# UDP loses a packet now and then; who says nothing twice is not asked again.
ATTEMPTS = 2
# Silent for so many zones one after the other: thousands of others need not wait for it, six seconds each.
MAX_SILENCES = 3
# All questions of one command together.
TOTAL_TIME_S = 30.0

# This host has no IPv6, or no IPv4; what cannot be sent says nothing of the server.
_NO_ROUTE = frozenset({errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT})


class Unreachable(Exception):
    """A zone, a server or an answer could not be had; the text says which and why."""


class NotFromHere(Unreachable):
    """This host has no way to addresses of this kind."""


@dataclass(frozen=True, slots=True)
class NameServer:
    """One address of one server of a zone."""

    name: str
    address: str
    fault: str = ""
    """Why it cannot be asked, where its address is not known or there are too many."""

    def __str__(self) -> str:
        return f"{self.name} ({self.address})" if self.address else self.name


@dataclass(frozen=True, slots=True)
class Alias:
    """What a server has at a name instead of records: the name to ask for (RFC 1034 §3.6.2)."""

    target: str


@dataclass(frozen=True, slots=True)
class Published:
    """The records that a server has at a name."""

    values: tuple[str, ...] = ()
    """Each as `normal_rdata` writes it; texts whole."""
    ttl_s: int = 0


class AuthoritativeDns:
    """Finds the servers of a zone with a recursive resolver, and asks them. What it found of zones it keeps."""

    def __init__(
        self,
        nameservers: Sequence[str] = (),
        *,
        port: int = 53,
        timeout_s: float = 3.0,
        total_time_s: float = TOTAL_TIME_S,
        silences: dict[str, int] | None = None,
    ) -> None:
        """`nameservers` recurse, at `port`; none: those of /etc/resolv.conf. Raises Unreachable if it has none.

        The total time begins now; what is asked after it is Unreachable. `silences` goes from one object to the next:
        which addresses were silent, and how often since they last said anything.
        """
        try:
            self._resolver = dns.resolver.Resolver(configure=not nameservers)
        except dns.exception.DNSException as error:
            raise Unreachable(f"/etc/resolv.conf: {error}") from None
        if nameservers:
            self._resolver.nameservers = list(nameservers)
            self._resolver.port = port
        self._timeout_s = timeout_s
        self._deadline = time.monotonic() + total_time_s
        # Two threads may find the same at the same time, which does no harm.
        self._servers: dict[str, tuple[NameServer, ...]] = {}
        self._silent: dict[str, str] = {}
        self._silences = {} if silences is None else silences

    def zone_of(self, name: str) -> str:
        """The zone that `name` is in: the nearest name upwards that has a SOA record; empty for the root.

        Raises Unreachable, also where there is no top-level domain as `name` has it.
        """
        try:
            at = dns.name.from_text(f"{name}.")
            while at != dns.name.root and (zone := self._zone_above(at)) is None:
                at = at.parent()
        except dns.exception.DNSException as error:
            raise Unreachable(f"the zone of {name} could not be found: {_reason(error)}") from None
        if at == dns.name.root or zone is None:
            return ""
        if zone != dns.name.root:
            return zone.to_text(omit_final_dot=True).lower()
        above, _, top = name.rpartition(".")
        # The root answers for a name of two labels only where nobody is below it.
        if above:
            raise Unreachable(f"there is no top-level domain {top} in the DNS")
        return ""

    def _zone_above(self, name: dns.name.Name) -> dns.name.Name | None:
        """The zone as the reply for the SOA of `name` has it; None where only a name further up can tell."""
        response: dns.message.Message
        try:
            response = self._resolver.resolve(
                name, "SOA", raise_on_no_answer=False, lifetime=self._patience()
            ).response
        except dns.resolver.NXDOMAIN as error:
            response = error.response(name)  # type: ignore[no-untyped-call]  # dnspython has no type for it
        if any(rrset.rdtype == dns.rdatatype.SOA and rrset.name == name for rrset in response.answer):
            return name
        # RFC 2308 §3: the SOA beside a negative answer is that of the zone; after an alias, that of another name's.
        soas = [rrset.name for rrset in response.authority if rrset.rdtype == dns.rdatatype.SOA]
        return next((soa for soa in soas if name.is_subdomain(soa)), None) if not response.answer else None

    def servers(self, zone: str) -> tuple[NameServer, ...]:
        """Those of `zone`, each with its addresses, or with the fault that there is none. Raises Unreachable."""
        found = self._servers.get(zone)
        if found is None:
            try:
                answer = self._resolver.resolve(f"{zone}.", "NS", lifetime=self._patience())
            except dns.exception.DNSException as error:
                text = f"the servers of the zone {zone or '.'} could not be found: {_reason(error)}"
                raise Unreachable(text) from None
            names = sorted(record.target.to_text(omit_final_dot=True).lower() for record in answer)
            found = self._servers[zone] = self._listed(zone, names)
        return found

    def _listed(self, zone: str, names: Sequence[str]) -> tuple[NameServer, ...]:
        listed = [server for name in names[:MAX_SERVERS] for server in self._addresses(name)]
        fault = f"not asked: the zone {zone} has {len(names)} servers, and {MAX_SERVERS} are asked"
        return (*listed, *(NameServer(name, "", fault) for name in names[MAX_SERVERS:]))

    def widened(self, zone: str, names: Collection[str]) -> tuple[NameServer, ...]:
        """The servers of `zone`, also those of `names` that its resolver did not know of. Raises Unreachable."""
        known = self.servers(zone)
        new = sorted(set(names) - {server.name for server in known})
        found = self._servers[zone] = (*known, *self._listed(zone, new))
        return found

    def delegated(self, zone: str) -> frozenset[str]:
        """The names of the servers that the zone above `zone` has for it: where the world begins to ask.

        A resolver may remember servers of before for as long as these liked. Raises Unreachable.
        """
        above = self.zone_of(zone.partition(".")[2])
        query = dns.message.make_query(f"{zone}.", "NS", use_edns=0)
        query.flags &= ~dns.flags.RD
        fault = Unreachable(f"no server of {above or '.'} could be asked for those of {zone}")
        for server in self._some_of(above):
            try:
                reply = self._reply(query, server.address)
            except Unreachable as error:
                fault = error
                continue
            found = [each for each in (*reply.answer, *reply.authority) if each.name == query.question[0].name]
            return frozenset(
                record.target.to_text(omit_final_dot=True).lower()
                for rrset in found
                if rrset.rdtype == dns.rdatatype.NS
                for record in rrset
            )
        raise fault

    def _some_of(self, zone: str) -> list[NameServer]:
        try:
            answer = self._resolver.resolve(f"{zone}.", "NS", lifetime=self._patience())
        except dns.exception.DNSException as error:
            raise Unreachable(f"the servers of {zone or '.'} could not be found: {_reason(error)}") from None
        names = [record.target.to_text(omit_final_dot=True) for record in answer][:MAX_PARENTS]
        return [server for name in names for server in self._addresses(name) if server.address][:MAX_PARENTS]

    def resolved(self, name: str, rdtype: str) -> Published:
        """What the recursive resolver finds there, as verifiers do. Raises Unreachable."""
        try:
            answer = self._resolver.resolve(f"{name}.", rdtype, lifetime=self._patience())
        except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer):
            return Published()
        except dns.exception.DNSException as error:
            raise Unreachable(f"{name} could not be looked up: {_reason(error)}") from None
        return Published(tuple(_text(record) for record in answer))

    def negative_ttl_s(self, zone: str) -> int:
        """So long a cache may keep that a name of `zone` is not there (RFC 2308 §5). Raises Unreachable."""
        try:
            answer = self._resolver.resolve(f"{zone}.", "SOA", lifetime=self._patience())
        except dns.exception.DNSException as error:
            raise Unreachable(f"the SOA record of {zone or '.'} could not be looked up: {_reason(error)}") from None
        return max(int(record.minimum) for record in answer)

    def ask(self, server: NameServer, name: str, rdtype: str) -> Published | Alias:
        """What `server` publishes there. Raises Unreachable."""
        if server.fault:
            raise Unreachable(server.fault)
        query = dns.message.make_query(f"{name}.", rdtype, use_edns=0)
        query.flags &= ~dns.flags.RD
        reply = self._reply(query, server.address)
        if reply.rcode() not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
            raise Unreachable(f"it answers {dns.rcode.to_text(reply.rcode())}")
        if not reply.flags & dns.flags.AA:
            raise Unreachable("it does not speak for the zone (no authoritative answer)")
        number = dns.rdatatype.from_text(rdtype)
        own = [rrset for rrset in reply.answer if rrset.name == query.question[0].name]
        for rrset in own:
            if rrset.rdtype == number:
                return Published(tuple(_text(record) for record in rrset), rrset.ttl)
        # RFC 1034 §4.3.2: what else is in the reply is not what this server speaks for.
        for rrset in own:
            if rrset.rdtype == dns.rdatatype.CNAME:
                return Alias(rrset[0].target.to_text(omit_final_dot=True).lower())
        if any(rrset.rdtype == dns.rdatatype.CNAME for rrset in reply.answer):
            raise Unreachable("its answer has an alias of another name")
        return Published()

    def _reply(self, query: dns.message.Message, address: str) -> dns.message.Message:
        if (times := self._silences.get(address, 0)) >= MAX_SILENCES:
            self._silent.setdefault(address, f"it has not answered for {times} zones before, and is not asked again")
        for _ in range(ATTEMPTS):
            if address in self._silent:
                break
            try:
                patience_s = min(self._timeout_s, self._patience())
                reply = dns.query.udp_with_fallback(query, address, timeout=patience_s)[0]
                self._silences.pop(address, None)
                return reply
            except dns.exception.Timeout as error:
                reason = str(error)
            except (dns.exception.DNSException, OSError, EOFError) as error:
                if isinstance(error, OSError) and error.errno in _NO_ROUTE:
                    raise NotFromHere(f"not asked from here: {error.strerror}") from None
                raise Unreachable(f"no answer: {error or type(error).__name__}") from None
        else:
            if address not in self._silent:
                self._silences[address] = self._silences.get(address, 0) + 1
            self._silent[address] = reason
        raise Unreachable(f"no answer: {self._silent[address]}")

    def _addresses(self, name: str) -> list[NameServer]:
        found: list[str] = []
        faults: list[str] = []
        for rdtype in ("A", "AAAA"):
            try:
                found += [
                    str(record) for record in self._resolver.resolve(f"{name}.", rdtype, lifetime=self._patience())
                ]
            except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer):
                continue  # most servers have one kind only
            except dns.exception.DNSException as error:
                faults.append(f"its address ({rdtype}) could not be looked up: {_reason(error)}")
        if len(found) > MAX_ADDRESSES:
            faults.append(f"it has {len(found)} addresses, and {MAX_ADDRESSES} are asked")
        if not found and not faults:
            faults.append("it has no address")
        servers = [NameServer(name, address) for address in found[:MAX_ADDRESSES]]
        return [*servers, NameServer(name, "", "; ".join(faults))] if faults else servers

    def _patience(self) -> float:
        """How long the next question may take. Raises Unreachable where the time is over."""
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise Unreachable("not asked: the time for all questions is over")
        return min(3 * self._timeout_s, left)


def normal_rdata(rdtype: str, value: str) -> str:
    """Record data of any type but TXT, as it is compared: names in lower case, numbers and digests in one form."""
    try:
        return _text(dns.rdata.from_text(dns.rdataclass.IN, rdtype, value))
    except dns.exception.DNSException:
        return value


def _reason(error: dns.exception.DNSException) -> str:
    return str(error) or type(error).__name__


def _text(record: dns.rdata.Rdata) -> str:
    strings = getattr(record, "strings", None)
    if strings is not None:
        return b"".join(strings).decode("utf-8", "backslashreplace")
    return record.to_text().lower()
