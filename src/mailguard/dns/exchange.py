"""One query to one server: over UDP, over TCP if the reply is truncated.

RFC 1035 §4.2 (transports), RFC 5452 §9 (which reply belongs to a query), RFC 6891 (EDNS), RFC 6840 §5.7 (asking
for the AD bit), RFC 7766 §5 (TCP after truncation). A reply that does not belong to the query is dropped and the
wait goes on, so that a forged one cannot end it. Each query has a socket, a port and an ID of its own. Left out:
what the reply says (reply.py), which server to ask (lookups.py). To be called on the resolver's event loop.
"""

from __future__ import annotations

import asyncio
import socket

import dns.asyncbackend
import dns.asyncquery
import dns.exception
import dns.flags
import dns.inet
import dns.message
import dns.name
import dns.rdatatype

from mailguard.dns.question import RecordType

__all__ = ["NoReply", "exchange"]

# DNS Flag Day 2020: the largest reply that is not fragmented on the way.
_UDP_PAYLOAD = 1232
_FLAGS = dns.flags.RD | dns.flags.AD


class NoReply(Exception):
    """The server gave no reply that belongs to the query. The text names the server."""


async def exchange(
    name: dns.name.Name, rdtype: RecordType, *, server: str, port: int, timeout_s: float
) -> dns.message.Message:
    """The reply of `server` (an address) to a query for the absolute `name`.

    UDP and, if needed, TCP have `timeout_s` seconds each. Raises NoReply.
    """
    query = dns.message.make_query(
        name, dns.rdatatype.from_text(rdtype.value), use_edns=0, payload=_UDP_PAYLOAD, flags=_FLAGS
    )
    transport = "UDP"
    try:
        async with asyncio.timeout(timeout_s):
            message = await _udp(query, server, port)
        if message is not None:
            return message
        transport = "TCP"
        async with asyncio.timeout(timeout_s):
            return await _tcp(query, server, port)
    except TimeoutError:
        raise NoReply(f"{server}: no reply over {transport} in {timeout_s:g} s") from None
    except (OSError, EOFError, dns.exception.DNSException) as error:
        raise NoReply(f"{server}: {transport}: {type(error).__name__}") from error


async def _udp(query: dns.message.Message, server: str, port: int) -> dns.message.Message | None:
    """The reply; None if it is truncated. Waits for as long as it is let."""
    family = dns.inet.af_for_address(server)
    destination = dns.inet.low_level_address_tuple((server, port), family)
    backend = dns.asyncbackend.get_backend("asyncio")
    # A connected socket: the kernel drops what comes from elsewhere and reports a closed port at once.
    make_socket = backend.make_socket(family, socket.SOCK_DGRAM, 0, None, (server, port))  # type: ignore[no-untyped-call]  # dnspython has no types there
    async with await make_socket as sock:
        await sock.sendto(query.to_wire(), destination, None)
        message: dns.message.Message
        while True:
            try:
                received = await dns.asyncquery.receive_udp(
                    sock,
                    destination,
                    ignore_unexpected=True,
                    raise_on_truncation=True,
                    ignore_errors=True,
                    query=query,
                )
            except dns.message.Truncated as truncated:
                message = truncated.message()  # type: ignore[no-untyped-call]  # dnspython has no types there
                if _has_same_name(query, message):
                    return None
                continue
            message = received[0]
            if _has_same_name(query, message):
                return message


async def _tcp(query: dns.message.Message, server: str, port: int) -> dns.message.Message:
    backend = dns.asyncbackend.get_backend("asyncio")
    message = await dns.asyncquery.tcp(query, server, port=port, backend=backend)
    if not _has_same_name(query, message):
        raise dns.exception.FormError
    return message


def _has_same_name(query: dns.message.Message, message: dns.message.Message) -> bool:
    """RFC 5452 §9.1: the name of the question comes back octet by octet. dnspython compares without case.

    A refusal may come without a question; dnspython has checked that it is one.
    """
    return not message.question or message.question[0].name.labels == query.question[0].name.labels
