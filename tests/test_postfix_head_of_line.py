"""Messages that wait for a slow DNS do not hold up the others: 60 sessions at once through the real Postfix.

The sessions stand before the last line of their messages and send it at the same moment. Ten of them are of a domain
whose server keeps its answers until all the others have theirs (a server that a test made, behind the real unbound).
Every other session is of a domain of its own too, so that each of them asks the DNS. The worker is stopped for a
moment while they send, so that libmilter finds all their commands at once, which is when it would let one thread
serve them one after the other.
"""

from __future__ import annotations

import os
import signal
import subprocess
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
ROUNDS = 3
# Longer than the daemon waits: who is held up by a slow one is answered after it.
KEPT_S = 60.0
# A look-up ends by itself after 15 s (LOOKUP_LIMIT_S); so long the others have, on a machine that may stand still.
PATIENT = "deadline_s = 25.0\nquery_timeout_s = 20.0"
# For all sessions to send their last line, and for Postfix to hand it on.
STOPPED_S = 1.0
EVIL_SPF = '"v=spf1 ip4:198.51.100.66 -all"'
ZONES: Mapping[str, str] = {"quick.test.": f"@ IN TXT {EVIL_SPF}\n*.spf IN TXT {EVIL_SPF}\n"}
# unbound waits for the slow server, asks it for no intermediate names, and tells late answers to who asked.
OPTIONS = (
    # From 12 s on it would ask the server one question at a time.
    "unknown-server-time-limit: 11000",
    "infra-cache-min-rtt: 11000",
    "qname-minimisation: no",
)
# Known to unbound from 1.20 on, and where a distribution has taken it over; others tell all late answers.
DISCARDS_NOTHING = "discard-timeout: 60000"


@dataclass(frozen=True, slots=True)
class Site:
    """All that runs, and the slow server, which answers while `may_answer` is set."""

    judging: JudgingSite
    server: FaultServer
    may_answer: threading.Event


@pytest.fixture(scope="module")
def site(engine: str) -> Iterator[Site]:
    may_answer = threading.Event()

    def slow(request: Request, server: FaultServer) -> Iterator[bytes]:
        may_answer.wait(KEPT_S)
        # unbound takes no answer of a zone's server that is not authoritative.
        yield request.reply(f"{request.name}. 300 IN TXT {EVIL_SPF}", flags=dns.flags.Flag.AA)

    assert UNBOUND is not None
    name = DISCARDS_NOTHING.partition(":")[0]
    asked = [f"{UNBOUND}-checkconf", "-o", name, os.devnull]
    is_known = subprocess.run(asked, capture_output=True, timeout=10, check=False).returncode == 0
    with (
        FaultServer(slow) as server,
        open_judging_site(
            zones=ZONES,
            signed=(),
            bogus=(),
            failing=(),
            elsewhere={"slow.test.": server.port},
            options=(*OPTIONS, DISCARDS_NOTHING) if is_known else OPTIONS,
            dns=PATIENT,
            workers=1,
            engine=engine,
        ) as made,
    ):
        yield Site(made, server, may_answer)


def round_of(site: Site, name: str) -> None:
    """The sessions, each of a domain that nothing has asked for yet; the slow ones are the first."""
    mail = site.judging.mail
    (worker,) = mail.daemon.workers()
    ready, sending = threading.Barrier(SLOW + QUICK + 1), threading.Barrier(SLOW + QUICK + 1)
    recipient = mail.recipient()
    domains = [f"{name}-{number}.{'slow' if number < SLOW else 'spf.quick'}.test" for number in range(SLOW + QUICK)]

    def session(domain: str) -> int:
        with mail.connect() as client:
            assert client.begin(sender=f"x@{domain}", recipient=recipient).code == 354
            client.send(zone0.mail(f"<x@{domain}>"))
            ready.wait(60)
            sending.wait(60)
            client.send(b".\r\n")
            return client.answer().code

    site.may_answer.clear()
    with ThreadPoolExecutor(SLOW + QUICK) as pool:
        sessions = [pool.submit(session, domain) for domain in domains]
        slow, quick = sessions[:SLOW], sessions[SLOW:]
        try:
            ready.wait(60)
            os.kill(worker, signal.SIGSTOP)
            try:
                sending.wait(60)
                time.sleep(STOPPED_S)
            finally:
                os.kill(worker, signal.SIGCONT)
            assert {each.result() for each in quick} == {250}
            assert not any(each.done() for each in slow), "a slow one was answered before the others"
        finally:
            site.may_answer.set()
        assert {each.result() for each in slow} == {250}
    assert set(domains[:SLOW]) <= set(site.server.names()), "the slow ones did not wait"


@pytest.mark.attack("P10", "S09")
def test_slow_zones_hold_up_no_others(site: Site) -> None:
    for number in range(ROUNDS):
        round_of(site, f"round{number}")
