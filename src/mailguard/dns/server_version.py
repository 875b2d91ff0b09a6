"""What a DNS server says of its own version: `version.bind`, TXT, of the class CHAOS (RFC 4892 describes the custom).

Most servers can be told to keep it to themselves, and it is nothing to rely on: for a host's own resolver, where
nothing better is known. Blocks; safe to share between threads.
"""

from __future__ import annotations

import dns.exception
import dns.message
import dns.query
import dns.rdataclass
import dns.rdatatype
from dns.rdtypes.txtbase import TXTBase

from mailguard.dns.servers import ServerAddress

__all__ = ["said_version"]

TIMEOUT_S = 2.0
# "PowerDNS Recursor 4.8.8 (jenkins@...)" is the longest that is usual.
MAX_CHARS = 120


def said_version(server: ServerAddress) -> str:
    """Printable ASCII; empty where it does not say."""
    query = dns.message.make_query("version.bind.", dns.rdatatype.TXT, dns.rdataclass.CH)
    try:
        reply = dns.query.udp(query, server.address, port=server.port, timeout=TIMEOUT_S, raise_on_truncation=True)
    except (OSError, dns.exception.DNSException):
        return ""
    texts = [
        b"".join(record.strings)
        for rrset in reply.answer
        if rrset.rdclass == dns.rdataclass.CH
        for record in rrset
        if isinstance(record, TXTBase)
    ]
    text = texts[0].decode("ascii", "replace")[:MAX_CHARS] if texts else ""
    return "".join(char if " " <= char <= "~" else "?" for char in text)
