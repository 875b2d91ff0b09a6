"""A raw milter client: speaks the protocol as Postfix 3.7 does (milter8.c), and can send what Postfix never would.

Protocol version 6: packets of a four-octet length, a command octet and data; macros go before the event that they
belong to. Nothing here decodes text. Not thread-safe: one client, one session.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Mapping, Sequence
from typing import Self

# What Postfix 3.7 offers: all actions, and all protocol bits that it knows.
POSTFIX_ACTIONS = 0x1FF
POSTFIX_STEPS = 0x1FFFFF

ADDHDRS = 0x01
CHGHDRS = 0x10
QUARANTINE = 0x20
SETSYMLIST = 0x100
HDR_LEADSPC = 0x100000
NORCPT = 0x08
NO_REPLY_BIT = {b"C": 0x1000, b"H": 0x2000, b"M": 0x4000, b"R": 0x8000, b"L": 0x80, b"N": 0x40000, b"B": 0x80000}

Address = str | tuple[str, int]
Packet = tuple[bytes, bytes]


class MilterGone(Exception):
    """The milter closed the connection."""


class MilterClient:
    """One connection to a milter."""

    def __init__(self, address: Address, *, timeout_s: float = 10.0) -> None:
        """`address` is a path or (host, port)."""
        self.socket = socket.socket(socket.AF_UNIX if isinstance(address, str) else socket.AF_INET)
        self.socket.settimeout(timeout_s)
        self.socket.connect(address)
        if self.socket.family == socket.AF_INET:
            # Postfix writes an event with its macros at once; several small writes here would wait for each other.
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.steps = 0
        self.actions = 0
        self._lacks_recipient = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    # Packets

    def raw(self, octets: bytes) -> None:
        self.socket.sendall(octets)

    def send(self, command: bytes, data: bytes = b"") -> None:
        self.raw(struct.pack("!I", len(data) + 1) + command + data)

    def receive(self) -> Packet:
        (length,) = struct.unpack("!I", self._exactly(4))
        packet = self._exactly(length)
        return packet[:1], packet[1:]

    def receive_until_gone(self) -> None:
        while True:
            self.receive()

    def _exactly(self, count: int) -> bytes:
        octets = b""
        while len(octets) < count:
            try:
                more = self.socket.recv(count - len(octets))
            except ConnectionResetError:
                more = b""
            if not more:
                raise MilterGone
            octets += more
        return octets

    # Events. Each returns the reply, or None where none was negotiated.

    def negotiate(self, *, version: int = 6, actions: int = POSTFIX_ACTIONS, steps: int = POSTFIX_STEPS) -> Self:
        self.send(b"O", struct.pack("!III", version, actions, steps))
        command, data = self.receive()
        assert command == b"O", command
        _, self.actions, self.steps = struct.unpack("!III", data[:12])
        return self

    def macros(self, stage: bytes, values: Mapping[bytes, bytes]) -> None:
        self.send(b"D", stage + b"".join(name + b"\0" + value + b"\0" for name, value in values.items()))

    def event(self, command: bytes, data: bytes = b"") -> Packet | None:
        if command in b"LN" and self._lacks_recipient:
            # No MTA sends content without a recipient, and libmilter answers nothing to it.
            self.rcpt()
        self._lacks_recipient = command == b"M" or (self._lacks_recipient and command != b"R")
        self.send(command, data)
        return None if self.steps & NO_REPLY_BIT.get(command, 0) else self.receive()

    def connect(
        self,
        *,
        hostname: bytes = b"client.test",
        address: bytes = b"192.0.2.1",
        family: bytes = b"4",
        macros: Mapping[bytes, bytes] | None = None,
    ) -> Packet | None:
        self.macros(b"C", {b"j": b"mx.us.test", b"{daemon_name}": b"smtpd"} if macros is None else macros)
        port = b"" if family == b"U" else struct.pack("!H", 4321) + address + b"\0"
        return self.event(b"C", hostname + b"\0" + family + port)

    def helo(self, name: bytes = b"client.test") -> Packet | None:
        self.macros(b"H", {})
        return self.event(b"H", name + b"\0")

    def mail(self, path: bytes = b"<x@evil.test>", macros: Mapping[bytes, bytes] | None = None) -> Packet | None:
        self.macros(b"M", {b"{mail_addr}": path.strip(b"<>")} if macros is None else macros)
        return self.event(b"M", path + b"\0")

    def rcpt(self, path: bytes = b"<alice@us.test>") -> Packet | None:
        if self.steps & NORCPT:
            return None
        self.macros(b"R", {})
        return self.event(b"R", path + b"\0")

    def header(self, name: bytes, value: bytes) -> Packet | None:
        return self.event(b"L", name + b"\0" + value + b"\0")

    def body(self, chunk: bytes) -> Packet | None:
        return self.event(b"B", chunk)

    def end_of_header(self) -> Packet | None:
        self.macros(b"N", {b"i": b"4QUEUEID"})
        return self.event(b"N")

    def end_of_message(self) -> list[Packet]:
        """Modifications, and the reply that ends them."""
        self.macros(b"E", {b"i": b"4QUEUEID"})
        self.send(b"E")
        return self.conclusion()

    def conclusion(self) -> list[Packet]:
        """What comes upon the end of a message."""
        replies = [self.receive()]
        while replies[-1][0] in b"hmipq":
            replies.append(self.receive())
        return replies

    def abort(self) -> None:
        self.send(b"A")

    def quit(self) -> None:
        self.send(b"Q")
        self.socket.close()

    def quit_and_reuse(self) -> None:
        self.send(b"K")

    # Several at once

    def open(self) -> Self:
        """From option negotiation to HELO."""
        self.negotiate()
        assert self.connect() in (None, (b"c", b""))
        assert self.helo() in (None, (b"c", b""))
        return self

    def message(
        self,
        fields: Sequence[tuple[bytes, bytes]] = ((b"From", b" <x@evil.test>"), (b"Subject", b" hello")),
        body: bytes = b"hello\r\n",
        *,
        path: bytes = b"<x@evil.test>",
    ) -> list[Packet]:
        """A message from MAIL to its end; the replies to its end."""
        self.mail(path)
        self.rcpt()
        for name, value in fields:
            self.header(name, value)
        self.end_of_header()
        self.body(body)
        return self.end_of_message()
