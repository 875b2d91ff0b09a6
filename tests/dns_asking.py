"""What the tests of the live resolver ask with."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from dns_fault_server import FaultServer
from mailguard.dns.answers import Resolver
from mailguard.dns.live import LiveResolver, ResolverConfig
from mailguard.dns.question import Answer, Question, RecordType
from sandbox_place import free_port

# For what must happen, on a machine that may stand still for seconds; a test that waits this long has failed.
PATIENCE_S = 30.0
# What ends by a deadline has ended by then; without one it ends with its look-up, after 15 s.
LATEST_S = 10.0
# For what must not happen within it.
SHORT_S = 0.2


def txt(name: str) -> Question:
    return Question(name, RecordType.TXT)


def resolver_of(
    *servers: FaultServer, query_timeout_s: float = PATIENCE_S, clock: Callable[[], float] | None = None
) -> LiveResolver:
    return LiveResolver(
        ResolverConfig(
            nameservers=tuple(server.address for server in servers) or ("127.0.0.1",),
            port=servers[0].port if servers else free_port(),
            query_timeout_s=query_timeout_s,
        ),
        clock=clock,
    )


def ask(resolver: Resolver, name: str, rdtype: str = "TXT", *, deadline_s: float = PATIENCE_S) -> Answer:
    question = Question(name, RecordType(rdtype))
    answers = resolver.resolve([question], deadline=time.monotonic() + deadline_s)
    assert list(answers) == [question]
    assert answers[question].question == question
    return answers[question]


def wait_for(condition: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.01)


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))
