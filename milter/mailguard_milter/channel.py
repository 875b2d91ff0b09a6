"""Control channel: small JSON objects between supervisor, generation parent and worker, one a packet.

A pair of SOCK_SEQPACKET sockets keeps the packets apart, and its end of file tells that the other process is
gone, however it died. Neither side ever waits to send: who does not read is hung, and is found out by its
missing answers. A channel belongs to one thread.
"""

from __future__ import annotations

import json
import socket
from enum import Enum

__all__ = ["Channel", "Closed", "Word"]

MAX_PACKET_BYTES = 64 * 1024
# Of a text; the rest is left out. In JSON a character has up to twelve octets.
MAX_TEXT_CHARS = 4 * 1024


class Word(Enum):
    """What is said; the key "word" of each packet."""

    READY = "ready"
    """Upwards: everything below serves mail."""
    FAILED = "failed"
    """Upwards: this generation cannot serve; "why" says what to do."""
    DETACHED = "detached"
    """Upwards: nothing below accepts sessions any more; those that are open go on."""
    PING = "ping"
    PONG = "pong"
    DRAIN = "drain"
    """Downwards: accept no more sessions, let those that are open end, exit."""
    STOP = "stop"
    """Downwards: accept no more sessions, finish the messages that are under way, exit."""


class Closed(Exception):
    """The other end is gone."""


class Channel:
    """One end."""

    def __init__(self, end: socket.socket) -> None:
        end.setblocking(False)
        self._end = end

    @classmethod
    def pair(cls) -> tuple[Channel, Channel]:
        """Two connected ends; both are closed on exec unless passed on."""
        one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        return cls(one), cls(other)

    @classmethod
    def inherited(cls, descriptor: int) -> Channel:
        """The end that the parent process left open under this number."""
        return cls(socket.socket(fileno=descriptor))

    def fileno(self) -> int:
        """For poll and pass_fds."""
        return self._end.fileno()

    def send(self, word: Word, **more: str | int | float) -> None:
        """Send one packet. What a full buffer or a dead peer does not take is lost; reading tells that it is dead."""
        short = {name: value[:MAX_TEXT_CHARS] if isinstance(value, str) else value for name, value in more.items()}
        try:
            self._end.send(json.dumps({"word": word.value, **short}).encode())
        except OSError:
            return

    def receive(self) -> tuple[Word, dict[str, object]] | None:
        """The next packet, None if there is none yet. Raises Closed when the other end is gone.

        After an upgrade the other end may be of another version: words that are not known here are skipped.
        """
        while True:
            try:
                packet = self._end.recv(MAX_PACKET_BYTES)
            except BlockingIOError:
                return None
            except OSError:
                raise Closed from None
            if not packet:
                raise Closed
            try:
                content = json.loads(packet)
                return Word(content.pop("word")), content
            except (ValueError, KeyError):
                continue

    def close(self) -> None:
        """Closing is a message too: the other end sees the end of file."""
        self._end.close()
