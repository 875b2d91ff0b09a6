"""A DNS server on loopback that does what a test tells it to: lie, drip, stay silent, cut off.

It stands only for what must be broken on purpose; `test_dns_unbound.py` asks a real one. A behaviour is a
generator function of a request and the server: what it yields is sent as it is, over TCP without a length
prefix of our making (see `framed`). It may wait with `server.wait`.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, Self

import dns.edns
import dns.flags
import dns.message
import dns.rcode
import dns.rrset

__all__ = ["Behaviour", "FaultServer", "Request", "after", "framed", "garbage", "says", "silence", "truth"]

# For a thread to end, and for a client to say what it wants.
PATIENCE_S = 30.0


@dataclass(frozen=True)
class Request:
    """A query that came in."""

    message: dns.message.Message
    transport: Literal["udp", "tcp"]
    peer: tuple[str, int]

    @property
    def name(self) -> str:
        return self.message.question[0].name.to_text(omit_final_dot=True)

    @property
    def rdtype(self) -> str:
        return self.message.question[0].rdtype.name

    def reply(
        self,
        *answer: str,
        rcode: str = "NOERROR",
        authority: tuple[str, ...] = (),
        ede: tuple[int, ...] = (),
        flags: dns.flags.Flag = dns.flags.Flag.RA,
    ) -> bytes:
        """A reply on the wire. Records are master file lines: `name ttl IN type rdata`."""
        message = dns.message.make_response(self.message, recursion_available=False)
        message.flags |= flags
        message.set_rcode(dns.rcode.from_text(rcode))
        message.answer = [_rrset(line) for line in answer]
        message.authority = [_rrset(line) for line in authority]
        if ede:
            message.use_edns(
                0, options=[dns.edns.EDEOption(dns.edns.EDECode(code), "text of a stranger") for code in ede]
            )
        return message.to_wire(max_size=65535)


Behaviour = Callable[[Request, "FaultServer"], Iterator[bytes]]


def framed(wire: bytes) -> bytes:
    """RFC 1035 §4.2.2: a message over TCP."""
    return len(wire).to_bytes(2, "big") + wire


def _rrset(line: str) -> dns.rrset.RRset:
    name, ttl, rdclass, rdtype, rdata = line.split(" ", 4)
    return dns.rrset.from_text(name, int(ttl), rdclass, rdtype, rdata)


class FaultServer:
    """Listens on UDP and, unless `tcp` is false, on TCP at one port of `address`. A context manager."""

    def __init__(self, behaviour: Behaviour, *, address: str = "127.0.0.1", port: int = 0, tcp: bool = True) -> None:
        self.behaviour = behaviour
        self.address = address
        self.requests: list[Request] = []
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []
        self._udp, self._tcp = _bind(address, port, tcp=tcp)
        self.port: int = self._udp.getsockname()[1]

    def __enter__(self) -> Self:
        self._begin(self._serve_udp)
        if self._tcp is not None:
            self._begin(self._serve_tcp, self._tcp)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        for thread in list(self._threads):
            thread.join(PATIENCE_S)
        self._udp.close()
        if self._tcp is not None:
            self._tcp.close()

    def wait(self, seconds: float) -> None:
        """Sleep, but not past the end of the server."""
        self._stopping.wait(seconds)

    def names(self) -> list[str]:
        """The names asked for so far, in order."""
        return [request.name for request in list(self.requests)]

    def _begin(self, target: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _note(self, wire: bytes, transport: Literal["udp", "tcp"], peer: tuple[str, int]) -> Request:
        request = Request(dns.message.from_wire(wire), transport, peer)
        self.requests.append(request)
        return request

    def _serve_udp(self) -> None:
        while not self._stopping.is_set():
            try:
                wire, peer = self._udp.recvfrom(65535)
            except TimeoutError:
                continue
            self._begin(self._reply_udp, self._note(wire, "udp", peer))

    def _reply_udp(self, request: Request) -> None:
        for datagram in self.behaviour(request, self):
            if not self._stopping.is_set():
                self._udp.sendto(datagram, request.peer)

    def _serve_tcp(self, listener: socket.socket) -> None:
        while not self._stopping.is_set():
            try:
                connection, peer = listener.accept()
            except TimeoutError:
                continue
            self._begin(self._reply_tcp, connection, peer)

    def _reply_tcp(self, connection: socket.socket, peer: tuple[str, int]) -> None:
        with connection, connection.makefile("rb") as stream:
            connection.settimeout(PATIENCE_S)
            length = int.from_bytes(stream.read(2), "big")
            request = self._note(stream.read(length), "tcp", peer)
            try:
                for octets in self.behaviour(request, self):
                    if self._stopping.is_set():
                        return
                    connection.sendall(octets)
            except (BrokenPipeError, ConnectionResetError):
                return


def _bind(address: str, port: int, *, tcp: bool) -> tuple[socket.socket, socket.socket | None]:
    """One port for both; tried again where the one that UDP got is taken on TCP."""
    for _ in range(50):
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        udp.settimeout(0.05)
        udp.bind((address, port))
        if not tcp:
            return udp, None
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.settimeout(0.05)
        try:
            listener.bind((address, udp.getsockname()[1]))
            listener.listen(64)
        except OSError:
            udp.close()
            listener.close()
            continue
        return udp, listener
    raise OSError("no port is free on both UDP and TCP")


def truth(request: Request, server: FaultServer) -> Iterator[bytes]:
    """What an honest server says: a TXT record that repeats the name."""
    yield request.reply(f'{request.name}. 300 IN TXT "{request.name}"')


def silence(request: Request, server: FaultServer) -> Iterator[bytes]:
    """A server that receives and never replies."""
    return iter(())


def says(*, rcode: str) -> Behaviour:
    """Always that response code, and no record."""

    def behaviour(request: Request, server: FaultServer) -> Iterator[bytes]:
        yield request.reply(rcode=rcode)

    return behaviour


def after(seconds: float, then: Behaviour) -> Behaviour:
    """`then`, but late."""

    def behaviour(request: Request, server: FaultServer) -> Iterator[bytes]:
        server.wait(seconds)
        yield from then(request, server)

    return behaviour


def garbage(request: Request, server: FaultServer) -> Iterator[bytes]:
    """Datagrams that are no DNS messages, the last with the ID of the query."""
    yield b""
    yield b"\x00"
    yield request.message.id.to_bytes(2, "big") + b"\xff" * 40
