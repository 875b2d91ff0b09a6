"""Messages that wait for a slow DNS do not hold up the others: 60 sessions at once through the real Postfix.

The sessions stand before the last line of their messages and send it at the same moment. Ten of them are of a domain
whose server takes 2 s for each answer (a server that a test made, behind the real unbound). Every other session is of
a domain of its own too, so that each of them asks the DNS. The worker is stopped for a moment while they send, so
that libmilter finds all their commands at once, which is when it would let one thread serve them one after the other.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import dns.flags
import pytest

import zone0
from dns_fault_server import FaultServer, Request
from judging_site import JudgingSite, open_judging_site
from unbound_site import UNBOUND

pytestmark = [pytest.mark.postfix, pytest.mark.skipif(UNBOUND is None, reason="unbound is not installed")]

SLOW, QUICK = 10, 50
SLOW_S = 2.0
ROUNDS = 3
# For all sessions to send their last line, and for Postfix to hand it on.
STOPPED_S = 1.0
EVIL_SPF = '"v=spf1 ip4:198.51.100.66 -all"'
ZONES: Mapping[str, str] = {"quick.test.": f"@ IN TXT {EVIL_SPF}\n*.spf IN TXT {EVIL_SPF}\n"}
# unbound waits for the slow server, asks it for no intermediate names, and tells late answers to who asked.
OPTIONS = (
    "unknown-server-time-limit: 5000",
    "infra-cache-min-rtt: 5000",
    "qname-minimisation: no",
    "discard-timeout: 10000",
)


def slow(request: Request, server: FaultServer) -> Iterator[bytes]:
    server.wait(SLOW_S)
    # unbound takes no answer of a zone's server that is not authoritative.
    yield request.reply(f"{request.name}. 300 IN TXT {EVIL_SPF}", flags=dns.flags.Flag.AA)


@pytest.fixture(scope="module")
def site(engine: str) -> Iterator[JudgingSite]:
    with (
        FaultServer(slow) as server,
        open_judging_site(
            zones=ZONES,
            signed=(),
            bogus=(),
            failing=(),
            elsewhere={"slow.test.": server.port},
            options=OPTIONS,
            workers=1,
            engine=engine,
        ) as made,
    ):
        yield made


@dataclass(frozen=True, slots=True)
class Timed:
    """How a session ended, and how long after the worker went on."""

    is_slow: bool
    code: int
    seconds: float


def round_of(site: JudgingSite, name: str) -> list[Timed]:
    """The sessions, each of a domain that nothing has asked for yet; the slow ones are the first."""
    (worker,) = site.mail.daemon.workers()
    ready, sending = threading.Barrier(SLOW + QUICK + 1), threading.Barrier(SLOW + QUICK + 1)
    recipient = site.mail.recipient()

    def session(number: int) -> tuple[bool, int, float]:
        is_slow = number < SLOW
        domain = f"{name}-{number}.{'slow' if is_slow else 'spf.quick'}.test"
        with site.mail.connect() as client:
            assert client.begin(sender=f"x@{domain}", recipient=recipient).code == 354
            client.send(zone0.mail(f"<x@{domain}>"))
            ready.wait(60)
            sending.wait(60)
            client.send(b".\r\n")
            return is_slow, client.answer().code, time.monotonic()

    with ThreadPoolExecutor(SLOW + QUICK) as pool:
        sessions = [pool.submit(session, number) for number in range(SLOW + QUICK)]
        ready.wait(60)
        os.kill(worker, signal.SIGSTOP)
        try:
            sending.wait(60)
            time.sleep(STOPPED_S)
        finally:
            os.kill(worker, signal.SIGCONT)
        went_on = time.monotonic()
        ended = [each.result() for each in sessions]
    return [Timed(is_slow, code, at - went_on) for is_slow, code, at in ended]


@pytest.mark.attack("P10", "S09")
def test_slow_zones_hold_up_no_others(site: JudgingSite) -> None:
    for number in range(ROUNDS):
        times = round_of(site, f"round{number}")
        assert {each.code for each in times} == {250}
        slow = [each.seconds for each in times if each.is_slow]
        quick = [each.seconds for each in times if not each.is_slow]
        assert min(slow) > SLOW_S / 2, "the slow ones did not wait"
        # In milliseconds, where nothing holds them up.
        assert max(quick) < min(slow), (number, sorted(quick))
