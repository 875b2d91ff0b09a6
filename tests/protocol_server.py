"""RecordingMilter: a filter that keeps what an MTA says and answers as it is told, on the protocol module alone.

One thread a connection. What it is told may change between two connections, not during one.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from mailguard_milter import protocol

__all__ = ["Recording", "RecordingMilter", "recording_milter"]

PATIENCE_S = 20.0
POLL_S = 0.01
# The events that have a reply, and the flag with which they have none.
ANSWERED: Mapping[type[protocol.Event], int] = {
    protocol.Connect: protocol.SMFIP_NR_CONN,
    protocol.Helo: protocol.SMFIP_NR_HELO,
    protocol.Mail: protocol.SMFIP_NR_MAIL,
    protocol.Rcpt: protocol.SMFIP_NR_RCPT,
    protocol.Data: protocol.SMFIP_NR_DATA,
    protocol.Unknown: protocol.SMFIP_NR_UNKN,
    protocol.Headers: protocol.SMFIP_NR_HDR,
    protocol.EndOfHeader: protocol.SMFIP_NR_EOH,
    protocol.Body: protocol.SMFIP_NR_BODY,
    protocol.EndOfMessage: 0,
}


@dataclass
class Recording:
    """One connection."""

    octets: bytes = b""
    events: list[protocol.Event] = field(default_factory=list)
    is_over: bool = False


@dataclass
class RecordingMilter:
    """It listens on 127.0.0.1."""

    listener: socket.socket
    actions: int = 0
    """SMFIF_*, of which it takes what is offered; as with `steps`."""
    steps: int = 0
    symbols: Mapping[int, bytes] = field(default_factory=dict)
    answers: Mapping[type[protocol.Event], Sequence[bytes]] = field(default_factory=dict)
    """Packets in place of CONTINUE."""
    recordings: list[Recording] = field(default_factory=list)

    @property
    def address(self) -> str:
        """As smtpd_milters has it."""
        return f"inet:127.0.0.1:{self.listener.getsockname()[1]}"

    def take(self, count: int) -> list[Recording]:
        """The recordings since the last call: so many, all of them over."""
        deadline = time.monotonic() + PATIENCE_S
        while len(self.recordings) < count or not all(recording.is_over for recording in self.recordings):
            assert time.monotonic() < deadline, self.recordings
            time.sleep(POLL_S)
        taken = self.recordings[:]
        assert len(taken) == count
        self.recordings.clear()
        return taken

    def serve(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            recording = Recording()
            self.recordings.append(recording)
            threading.Thread(target=self._talk, args=(connection, recording), daemon=True).start()

    def _talk(self, connection: socket.socket, recording: Recording) -> None:
        decoder = protocol.Decoder()
        steps = 0
        with connection:
            while octets := connection.recv(65_536):
                recording.octets += octets
                for event in decoder.feed(octets):
                    recording.events.append(event)
                    if isinstance(event, protocol.Negotiate):
                        steps = self.steps & event.steps
                        version = min(event.version, protocol.MAX_VERSION)
                        answer = protocol.negotiate(version, self.actions & event.actions, steps, self.symbols)
                        connection.sendall(answer)
                    elif type(event) in ANSWERED and not steps & ANSWERED[type(event)]:
                        answer = b"".join(self.answers.get(type(event), (protocol.CONTINUE,)))
                        count = len(event.fields) if isinstance(event, protocol.Headers) else 1
                        connection.sendall(answer * count)
        recording.is_over = True


@contextmanager
def recording_milter(*, steps: int = 0) -> Iterator[RecordingMilter]:
    """It serves until the context is left."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        milter = RecordingMilter(listener, steps=steps)
        server = threading.Thread(target=milter.serve)
        server.start()
        try:
            yield milter
        finally:
            # Ends accept(), which closing does not.
            listener.shutdown(socket.SHUT_RDWR)
            server.join()
