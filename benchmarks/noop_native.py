"""A milter on mailguard's own engine that does nothing but insert one header field.

    noop_native.py SOCKET

One process with one event loop, no DNS and no log: what the engine itself costs for each message. To be compared with
noop_pymilter.py, which is the same on libmilter.
"""

from __future__ import annotations

import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address

from mailguard import ZoneResolver
from mailguard.dns.answers import Answers
from mailguard.dns.question import Question
from mailguard.trace import Trace
from mailguard_milter.actions import Accept, Action, InsertHeader
from mailguard_milter.engine import Door, Surroundings
from mailguard_milter.engine_native import Engine
from mailguard_milter.log import Format, Log, Severity, StderrSink

__all__ = ["main"]

BACKLOG = 512
MAX_SESSIONS = 4096
DEADLINE_S = 8.0


@dataclass(frozen=True, slots=True)
class OneField:
    """What every message comes to."""

    actions: tuple[Action, ...] = (InsertHeader(0, b"X-Noop", b" yes"), Accept())
    record: Mapping[str, object] = field(default_factory=dict)
    trace: Trace | None = None


CONCLUSION = OneField()


class Nothing:
    """A session that looks at nothing."""

    def connect(self, address: IPv4Address | IPv6Address | None, macros: Mapping[str, bytes | None]) -> None:
        return

    def helo(self, name: bytes) -> None:
        return

    def mail(self, path: bytes, macros: Mapping[str, bytes | None]) -> None:
        return

    def rcpt(self) -> Sequence[Question]:
        return ()

    def headers(self, fields: Sequence[tuple[bytes, bytes]]) -> None:
        return

    def end_of_header(self) -> Sequence[Question]:
        return ()

    def body(self, chunk: bytes) -> None:
        return

    def end_of_message(self, answers: Answers, *, now: float) -> OneField:
        return CONCLUSION

    def abort(self) -> None:
        return


class Silent(Log):
    """Says nothing about single messages: the other milter that does nothing has no log either."""

    def message(self, record: Mapping[str, object], severity: Severity = Severity.INFO) -> None:
        if severity is not Severity.INFO:
            super().message(record, severity)


def main(path: str) -> None:
    log = Silent(StderrSink(), Format.LOGFMT, timestamps=False)
    log.start()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(BACKLOG)
        listener.setblocking(False)
        Engine(
            Surroundings(
                doors=(Door(listener, Nothing),),
                resolver=ZoneResolver({}),
                deadline_s=DEADLINE_S,
                log=log,
                keep_trace=None,
                max_sessions=MAX_SESSIONS,
                scratch_directory=".",
            )
        ).start()
        # The event loop has a thread of its own; SIGTERM ends the process.
        signal.pause()


if __name__ == "__main__":
    main(sys.argv[1])
