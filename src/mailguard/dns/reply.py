"""What one DNS reply says to one question: records as values, aliases followed, failures told apart.

RFC 1034 §3.6.2 (aliases), RFC 2308 §5 (how long a denial holds), RFC 8914 §4 (extended errors), RFC 6840 §5.8
(the AD bit). Only records that the chain of aliases from the question leads to are read; whatever else a reply
carries is ignored. Left out: whether the reply belongs to the query (exchange.py). Pure, safe to share between
threads.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import dns.edns
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.rdtypes.ANY.CNAME
import dns.rdtypes.ANY.MX
import dns.rdtypes.ANY.PTR
import dns.rdtypes.ANY.SOA
import dns.rdtypes.ANY.TLSA
import dns.rdtypes.ANY.TXT
import dns.rdtypes.IN.A
import dns.rdtypes.IN.AAAA

from mailguard.dns.names import escaped_name
from mailguard.dns.question import MX, TLSA, Answer, Dnssec, Question, RecordType, Status
from mailguard.dns.wire import TLSA_AS_READ, TLSA_HEADER_OCTETS

__all__ = ["MAX_ALIASES", "ServerFailure", "Unfinished", "read_reply", "record_of", "weakest"]

# Longer chains exist only by mistake or on purpose; resolvers stop at 8 to 16.
MAX_ALIASES = 8
# RFC 2308 §5 would not keep a denial without SOA at all; asking again for every message is worse.
NEGATIVE_TTL_WITHOUT_SOA_S = 30

_IN = dns.rdataclass.IN
_STRENGTH = (Dnssec.BOGUS, Dnssec.INDETERMINATE, Dnssec.INSECURE, Dnssec.SECURE)
# RFC 8914 §4.7 to RFC 8914 §4.13: DNSSEC Bogus ... NSEC Missing.
_BOGUS_CODES = range(6, 13)


class ServerFailure(Exception):
    """A reply that is no answer; another server may know better."""


@dataclass(frozen=True, slots=True)
class Unfinished:
    """An alias whose target the server did not look up: `target` is to be asked for next."""

    target: dns.name.Name
    aliases: int
    """How many were followed so far."""
    ttl_s: int
    dnssec: Dnssec


def read_reply(
    question: Question, message: dns.message.Message, *, server: str, trust_ad: bool, after: Unfinished | None = None
) -> Answer | Unfinished:
    """The answer to `question` in `message`, which replies to a query for it or, if given, for `after.target`.

    `message` is from `read_message` (wire.py). `server` is named in the detail. Raises ServerFailure for SERVFAIL,
    REFUSED and the like.
    """
    rcode = message.rcode()
    if rcode not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
        return _bogus_or_failure(question, message, server)
    name = after.target if after else dns.name.from_text(question.name)
    aliases = after.aliases if after else 0
    dnssec = Dnssec.SECURE if trust_ad and message.flags & dns.flags.AD else Dnssec.INSECURE
    ttls_s = []
    if after:
        dnssec = weakest(dnssec, after.dnssec)
        ttls_s.append(after.ttl_s)
    is_tlsa = question.rdtype is RecordType.TLSA
    wanted = TLSA_AS_READ if is_tlsa else dns.rdatatype.from_text(question.rdtype.value)
    detail = f"{server}: {rcode.name}"
    start = aliases
    while (found := message.get_rrset(message.answer, name, _IN, wanted)) is None:
        alias = message.get_rrset(message.answer, name, _IN, dns.rdatatype.CNAME)
        if alias is None:
            break
        aliases += 1
        if aliases > MAX_ALIASES:
            return Answer(question, Status.TEMPFAIL, detail=f"{server}: more than {MAX_ALIASES} aliases")
        ttls_s.append(alias.ttl)
        name = cast(dns.rdtypes.ANY.CNAME.CNAME, alias[0]).target
    canonical_name = escaped_name(name.labels) if aliases else ""
    if found is not None:
        ttls_s.append(found.ttl)
        records = tuple(record for rdata in found if (record := record_of(rdata)) is not None)
        return Answer(question, Status.NOERROR, records, min(ttls_s), dnssec, detail, canonical_name)
    negative_ttl_s = _negative_ttl_s(message, name)
    if rcode == dns.rcode.NOERROR and negative_ttl_s is None:
        if aliases > start:
            return Unfinished(name, aliases, min(ttls_s), dnssec)
        if not message.flags & (dns.flags.RA | dns.flags.AA):
            raise ServerFailure(f"{server}: gave a referral, it is no recursive resolver")
    ttls_s.append(NEGATIVE_TTL_WITHOUT_SOA_S if negative_ttl_s is None else negative_ttl_s)
    status = Status.NXDOMAIN if rcode == dns.rcode.NXDOMAIN else Status.NODATA
    return Answer(question, status, (), min(ttls_s), dnssec, detail, canonical_name)


def record_of(rdata: dns.rdata.Rdata) -> bytes | str | MX | TLSA | None:
    """The value of a record as Answer describes it; None for a type that is not asked for."""
    match rdata:
        case dns.rdtypes.ANY.TXT.TXT():
            return b"".join(rdata.strings)
        case dns.rdtypes.IN.A.A() | dns.rdtypes.IN.AAAA.AAAA():
            return str(rdata.address)
        case dns.rdtypes.ANY.MX.MX():
            return MX(rdata.preference, escaped_name(rdata.exchange.labels))
        case dns.rdtypes.ANY.CNAME.CNAME() | dns.rdtypes.ANY.PTR.PTR():
            return escaped_name(rdata.target.labels)
        case dns.rdtypes.ANY.TLSA.TLSA():
            return TLSA(rdata.usage, rdata.selector, rdata.mtype, rdata.cert)
        case dns.rdata.GenericRdata() if rdata.rdtype == TLSA_AS_READ and len(rdata.data) >= TLSA_HEADER_OCTETS:
            usage, selector, matching_type = rdata.data[:TLSA_HEADER_OCTETS]
            return TLSA(usage, selector, matching_type, rdata.data[TLSA_HEADER_OCTETS:])
    return None


def weakest(one: Dnssec, other: Dnssec) -> Dnssec:
    """What holds for an answer that needed both: the chain of aliases is as secure as its weakest part."""
    return min(one, other, key=_STRENGTH.index)


def _bogus_or_failure(question: Question, message: dns.message.Message, server: str) -> Answer:
    # RFC 8914 §2: the text of an extended error is a stranger's; only its number is read.
    codes = [int(option.code) for option in message.options if isinstance(option, dns.edns.EDEOption)]
    rcode = dns.rcode.to_text(message.rcode())
    extended = f" (extended error {', '.join(map(str, codes[:3]))})" if codes else ""
    detail = f"{server}: {rcode}{extended}"
    if message.rcode() == dns.rcode.SERVFAIL and any(code in _BOGUS_CODES for code in codes):
        return Answer(question, Status.BOGUS, dnssec=Dnssec.BOGUS, detail=detail)
    raise ServerFailure(detail)


def _negative_ttl_s(message: dns.message.Message, name: dns.name.Name) -> int | None:
    """RFC 2308 §5: the lesser of the SOA's TTL and its MINIMUM; None without an SOA for `name`."""
    for rrset in message.authority:
        if rrset.rdtype == dns.rdatatype.SOA and rrset.rdclass == _IN and name.is_subdomain(rrset.name):
            for rdata in rrset:
                if isinstance(rdata, dns.rdtypes.ANY.SOA.SOA):
                    return min(rrset.ttl, rdata.minimum)
    return None
