"""A milter on one of mailguard's engines that does nothing but insert one header field.

    noop_engine.py libmilter|native SOCKET

One process, placed as a worker is, no DNS and no log: what the engine itself costs for each message. noop_pymilter.py
is what pymilter alone costs.
"""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

from mailguard import ZoneResolver
from mailguard.config import Config
from mailguard.dns.answers import Answers
from mailguard.dns.question import Question
from mailguard.trace import Trace
from mailguard_milter.actions import Accept, Action, InsertHeader
from mailguard_milter.engine import Door, Surroundings
from mailguard_milter.engine_choice import engine_class
from mailguard_milter.log import Format, Log, Severity, StderrSink
from mailguard_milter.placement import Placement, keep_to

__all__ = ["main"]

BACKLOG = 512
MAX_SESSIONS = 4096
DEADLINE_S = 8.0
# As often as a worker looks after its engine.
TICK_S = 0.25


@dataclass(frozen=True, slots=True)
class OneField:
    """What every message comes to."""

    actions: tuple[Action, ...] = (InsertHeader(b"X-Noop", b" yes"), Accept())
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


def main(engine_name: str, path: str) -> None:
    keep_to(Placement(engine_name).cores(1)[0])
    log = Silent(StderrSink(), Format.LOGFMT, timestamps=False)
    log.start()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(BACKLOG)
        listener.setblocking(False)
        engine = engine_class(Config.model_validate({"engine": engine_name}))(
            Surroundings(
                doors=(Door(listener, Nothing),),
                resolver=ZoneResolver({}),
                deadline_s=DEADLINE_S,
                log=log,
                keep_trace=None,
                max_sessions=MAX_SESSIONS,
                scratch_directory=str(Path(path).parent),
            )
        )
        engine.start()
        # SIGTERM ends the process, or libmilter, whose thread may take it.
        while engine.is_serving:
            engine.trouble(time.monotonic())
            time.sleep(TICK_S)


if __name__ == "__main__":
    main(*sys.argv[1:])
