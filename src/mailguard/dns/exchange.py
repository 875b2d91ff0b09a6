"""One query to one server: over UDP, over TCP if the reply is truncated.

RFC 1035 §4.2 (transports), RFC 5452 §9 (which reply belongs to a query), RFC 7766 §5 (TCP after truncation). A reply
by UDP that does not belong to the query is dropped and the wait goes on, so that a forged one cannot end it. Each
query has a socket, a port and an ID of its own. The UDP part takes no task: `UdpExchange` calls back, and nearly
always that is all. Left out: what the reply says (plain_reply.py, reply.py), which server to ask (lookups.py). To be
called on the resolver's event loop.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Iterable

import dns.exception
import dns.message

from mailguard.dns.datagrams import Datagrams
from mailguard.dns.query import Query
from mailguard.dns.question import Answer, RecordType
from mailguard.dns.wire import read_message

__all__ = ["NoReply", "PlainReader", "UdpExchange", "UdpOutcome", "concluded", "exchange"]

_LARGEST_DATAGRAM = 65_535

PlainReader = Callable[[Query, bytes], Answer | None]
"""What some octets say if they are a plain reply to the query; None for all others."""

UdpOutcome = Answer | dns.message.Message | Exception | None
"""What came over UDP: a plain reply, another one, nothing, and why; None for a reply that is truncated."""


class NoReply(Exception):
    """The server gave no reply that belongs to the query. The text names the server."""


class UdpExchange:
    """One query over UDP. It is under way when it has been made."""

    __slots__ = ("_datagrams", "_done", "_is_over", "_sock", "_timer", "at", "query", "read_plain", "timeout_s")

    def __init__(
        self,
        labels: Iterable[bytes],
        rdtype: RecordType,
        *,
        datagrams: Datagrams,
        at: tuple[str, int],
        timeout_s: float,
        read_plain: PlainReader,
        done: Callable[[UdpOutcome], None],
    ) -> None:
        """Ask the server `at` (address, port) for the name of these labels.

        `done` is called once, from the event loop, unless this is closed before.
        Raises OSError if the query cannot be sent; `done` is not called then.
        """
        self.query = Query.of(labels, rdtype, identity=secrets.token_bytes(2))
        self.at = at
        self.timeout_s = timeout_s
        self._datagrams = datagrams
        self.read_plain = read_plain
        self._done = done
        self._is_over = False
        self._sock = datagrams.send(self.query.wire, server=at[0], port=at[1], readable=self._receive)
        self._timer = asyncio.get_running_loop().call_later(timeout_s, self._finish, TimeoutError())

    def close(self) -> None:
        """End the wait. Closing twice is harmless."""
        if not self._is_over:
            self._is_over = True
            self._timer.cancel()
            self._datagrams.forget(self._sock)

    def _finish(self, outcome: UdpOutcome) -> None:
        self.close()
        self._done(outcome)

    def _receive(self) -> None:
        """Take one datagram."""
        if self._is_over:
            return
        try:
            wire = self._sock.recv(_LARGEST_DATAGRAM)
        except (BlockingIOError, InterruptedError):
            return
        except (OSError, MemoryError) as error:
            # Left where it is, a reply that there is no memory for would be told again and again.
            self._finish(error)
            return
        # RFC 5452 §9.1: whatever else a forged reply says is not looked at.
        if not wire.startswith(self.query.identity):
            return
        try:
            reply = self.read_plain(self.query, wire) or _read_message(self.query, wire)
        except dns.message.Truncated:
            self._finish(None)
        except Exception as error:  # noqa: BLE001  # the edge: a fault of ours ends the look-up, not the event loop
            self._finish(error)
        else:
            if reply is not None:
                self._finish(reply)


async def exchange(
    labels: Iterable[bytes],
    rdtype: RecordType,
    *,
    datagrams: Datagrams,
    at: tuple[str, int],
    timeout_s: float,
    read_plain: PlainReader,
) -> Answer | dns.message.Message:
    """The reply of the server `at` (address, port) to a query for the name of these labels.

    UDP and, if needed, TCP have `timeout_s` seconds each. Raises NoReply.
    """
    arrived: asyncio.Future[UdpOutcome] = asyncio.get_running_loop().create_future()

    def done(outcome: UdpOutcome) -> None:
        if not arrived.done():
            arrived.set_result(outcome)

    try:
        under_way = UdpExchange(
            labels, rdtype, datagrams=datagrams, at=at, timeout_s=timeout_s, read_plain=read_plain, done=done
        )
    except OSError as error:
        raise _no_reply(at, "UDP", error) from error
    try:
        outcome = await arrived
    finally:
        under_way.close()
    return await concluded(under_way, outcome)


async def concluded(under_way: UdpExchange, outcome: UdpOutcome) -> Answer | dns.message.Message:
    """The reply, when that is what came over UDP: asked for over TCP if it is truncated. Raises NoReply."""
    at, timeout_s = under_way.at, under_way.timeout_s
    transport = "UDP"
    try:
        if isinstance(outcome, Exception):
            raise outcome
        if outcome is not None:
            return outcome
        transport = "TCP"
        async with asyncio.timeout(timeout_s):
            return await _tcp(under_way.query, at, under_way.read_plain)
    except TimeoutError:
        raise NoReply(f"{at[0]}: no reply over {transport} in {timeout_s:g} s") from None
    except (OSError, EOFError, dns.exception.DNSException) as error:
        raise _no_reply(at, transport, error) from error


def _no_reply(at: tuple[str, int], transport: str, error: Exception) -> NoReply:
    why = error.strerror if isinstance(error, OSError) else None
    return NoReply(f"{at[0]}: {transport}: {why or type(error).__name__}")


async def _tcp(query: Query, at: tuple[str, int], read_plain: PlainReader) -> Answer | dns.message.Message:
    reader, writer = await asyncio.open_connection(*at)
    try:
        # RFC 1035 §4.2.2: the length goes before the message.
        writer.write(len(query.wire).to_bytes(2, "big") + query.wire)
        wire = await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))
    finally:
        writer.close()
    reply = read_plain(query, wire) or _read_message(query, wire)
    if reply is None:
        raise dns.exception.FormError
    return reply


def _read_message(query: Query, wire: bytes) -> dns.message.Message | None:
    """The message, if it belongs to the query. Raises dns.message.Truncated if it does and is truncated."""
    try:
        message = read_message(wire)
    except dns.message.Truncated as truncated:
        if _belongs(_message(query), truncated.message()):  # type: ignore[no-untyped-call]  # dnspython has no types there
            raise
        return None
    except Exception:  # noqa: BLE001  # no datagram, however malformed, ends the wait
        return None
    return message if _belongs(_message(query), message) else None


def _message(query: Query) -> dns.message.Message:
    return dns.message.from_wire(query.wire)


def _belongs(query: dns.message.Message, message: dns.message.Message) -> bool:
    """RFC 5452 §9.1: the name of the question comes back octet by octet. dnspython compares without case.

    A refusal may come without a question; dnspython has checked that it is one.
    """
    return query.is_response(message) and (
        not message.question or message.question[0].name.labels == query.question[0].name.labels
    )
