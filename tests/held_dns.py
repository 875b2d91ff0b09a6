"""A name server that waits until a test lets it go on."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from dns_fault_server import FaultServer, Request

__all__ = ["HeldDns", "held_dns"]

PATIENCE_S = 60.0


@dataclass
class HeldDns:
    """Answers nothing until it is let go; then says that evil.test sends no mail."""

    let_go: threading.Event = field(default_factory=threading.Event)

    def __call__(self, request: Request, server: FaultServer) -> Iterator[bytes]:
        self.let_go.wait(PATIENCE_S)
        if (request.name, request.rdtype) == ("evil.test", "TXT"):
            yield request.reply('evil.test. 60 IN TXT "v=spf1 -all"')
        else:
            yield request.reply(rcode="NXDOMAIN")


@pytest.fixture
def held_dns() -> Iterator[tuple[HeldDns, FaultServer]]:
    held = HeldDns()
    with FaultServer(held) as server:
        yield held, server
        held.let_go.set()
