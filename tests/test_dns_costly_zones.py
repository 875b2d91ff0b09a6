"""Zones that cost the resolver much: it answers late, insecure or SERVFAIL, and the message has a verdict in time.

A real unbound that validates, and the zones (costly_zones.py) on a real nsd.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TypeVar

import pytest

from costly_zones import CostlyZone, iterated, keytrap
from dns_asking import ask, txt
from mailguard.dane.result import DanePolicy, DaneStatus, HostOutcome
from mailguard.dmarc.result import DmarcStatus
from mailguard.dns.live import LiveResolver, ResolverConfig
from mailguard.dns.question import Dnssec, Status
from mailguard.outcome import Outcome
from mailguard.pipeline import authenticate, check_dane
from mailguard.policy import Policy
from mailguard.rule import Disposition, Mode
from mailguard.spf.result import SpfStatus
from nsd_site import NSD, Nsd
from sandbox_place import HOST, free_port
from unbound_site import UNBOUND, Unbound

pytestmark = pytest.mark.skipif(UNBOUND is None or NSD is None, reason="needs unbound and nsd")

DEADLINE_S = 1.0
# Of what is answered, by a machine that may stand still for seconds.
ANSWERED_S = 8.0
# For a busy machine; unbound without the remedy is busy with one of these zones for minutes.
LATEST_S = 10 * DEADLINE_S
PATIENT_S = 2 * LATEST_S
CLIENT = "192.0.2.1"
TLSA = f"TLSA 3 1 1 {'ab' * 32}"
RECORDS = f"""\
@ TXT "v=spf1 mx -all"
@ MX 10 mx
mx A {CLIENT}
_tcp.mx TXT "x"
_25._tcp.mx {TLSA}
bare A {CLIENT}
barely MX 10 bare
covered A {CLIENT}
*._tcp.covered {TLSA}
_tcp.covered TXT "x"
wildly MX 10 covered
"""
T = TypeVar("T")
POLICY = '_dmarc TXT "v=DMARC1; p=reject"\n'


@dataclass
class Site:
    unbound: Unbound

    def resolver(self) -> LiveResolver:
        # It gives up at the deadline alone.
        config = ResolverConfig(nameservers=(HOST,), port=self.unbound.port, query_timeout_s=PATIENT_S)
        return LiveResolver(config)


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    zones: dict[str, CostlyZone] = {
        "cheap.test": iterated("cheap.test.", RECORDS, iterations=0),
        "iterated.test": iterated("iterated.test.", RECORDS, iterations=2_500),
        "trap.test": keytrap("trap.test.", RECORDS + POLICY, keys=400, signatures=400),
    }
    port = free_port()
    with ExitStack() as stack:
        stack.enter_context(Nsd(HOST, {origin: zone.text for origin, zone in zones.items()}, port=port))
        unbound = Unbound(
            {"plain.test.": f"{RECORDS}{POLICY}"},
            elsewhere={f"{origin}.": port for origin in zones},
            options=["val-log-level: 2", *(f'trust-anchor: "{zone.anchor}"' for zone in zones.values())],
        )
        yield Site(stack.enter_context(unbound))


@pytest.fixture(autouse=True)
def deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mailguard.pipeline.LOOKUP_TIME_S", DEADLINE_S)


@pytest.fixture
def is_answered(deadline: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mailguard.pipeline.LOOKUP_TIME_S", ANSWERED_S)


def judged(site: Site, domain: str) -> Outcome:
    message = f"From: x@{domain}\r\nTo: y@us.test\r\nDate: Sat, 21 Nov 2026 12:00:00 +0000\r\n\r\nx\r\n".encode()
    policy = Policy(mode=Mode.ENFORCE)
    with site.resolver() as resolver:
        return in_time(
            lambda: authenticate(
                message, ip=CLIENT, helo="mx.us.test", mail_from=f"x@{domain}", resolver=resolver, policy=policy
            )
        )


def dane(site: Site, domain: str) -> DanePolicy:
    with site.resolver() as resolver:
        return in_time(lambda: check_dane(domain, resolver=resolver))


def in_time(act: Callable[[], T]) -> T:
    began = time.monotonic()
    done = act()
    assert time.monotonic() - began < LATEST_S
    return done


# -- many iterations of NSEC3 -------------------------------------------------------------------------------------


@pytest.mark.attack("N08")
@pytest.mark.parametrize(
    ("name", "rdtype", "status", "rests_on_nsec3"),
    [
        ("", "TXT", Status.NOERROR, False),
        ("_25._tcp.mx.", "TLSA", Status.NOERROR, False),
        ("_dmarc.", "TXT", Status.NXDOMAIN, True),
        ("mx.", "TXT", Status.NODATA, True),
        ("_25._tcp.bare.", "TLSA", Status.NXDOMAIN, True),
        # A wildcard's answer is secure only if the name itself is denied.
        ("_25._tcp.covered.", "TLSA", Status.NOERROR, True),
    ],
)
def test_what_rests_on_many_iterations_is_not_secure(
    site: Site, name: str, rdtype: str, status: Status, rests_on_nsec3: bool
) -> None:
    with site.resolver() as resolver:
        answer = in_time(lambda: ask(resolver, f"{name}cheap.test", rdtype, deadline_s=ANSWERED_S))
        assert (answer.status, answer.dnssec) == (status, Dnssec.SECURE)
        answer = in_time(lambda: ask(resolver, f"{name}iterated.test", rdtype, deadline_s=ANSWERED_S))
    if not rests_on_nsec3:
        assert (answer.status, answer.dnssec) == (status, Dnssec.SECURE)
    elif answer.status is Status.TEMPFAIL:
        assert answer.dnssec is Dnssec.INDETERMINATE
    else:
        assert (answer.status, answer.dnssec) == (status, Dnssec.INSECURE)


@pytest.mark.attack("N08")
@pytest.mark.usefixtures("is_answered")
def test_a_message_from_a_zone_of_many_iterations(site: Site) -> None:
    outcome = judged(site, "iterated.test")
    assert outcome.spf is not None
    assert outcome.dmarc is not None
    assert outcome.spf.status is SpfStatus.PASS
    assert outcome.dmarc.status in (DmarcStatus.NONE, DmarcStatus.TEMPERROR)
    assert outcome.decision.disposition is not Disposition.REJECT


@pytest.mark.attack("N08")
@pytest.mark.usefixtures("is_answered")
@pytest.mark.parametrize("domain", ["barely", "wildly"])
def test_dane_where_tlsa_records_rest_on_many_iterations(site: Site, domain: str) -> None:
    cheap = dane(site, f"{domain}.cheap.test")
    assert cheap.outcomes == {HostOutcome.AUTHENTICATE if domain == "wildly" else HostOutcome.OPPORTUNISTIC}
    assert dane(site, f"{domain}.iterated.test").outcomes <= {HostOutcome.OPPORTUNISTIC, HostOutcome.SKIP}


# -- many keys and many signatures --------------------------------------------------------------------------------


@pytest.mark.attack("N07")
def test_the_trap_is_one(site: Site) -> None:
    """unbound with the remedy says when it has had enough; without it, it says nothing for as long as it takes."""
    with site.resolver() as resolver:
        answer = in_time(lambda: ask(resolver, "trap.test", deadline_s=ANSWERED_S))
    if answer.status is Status.BOGUS:
        assert "too many RRSIG validations" in (site.unbound.directory / "log").read_text()
    else:
        assert answer.status is Status.TEMPFAIL


@pytest.mark.attack("N07")
@pytest.mark.parametrize("stalls", [False, True], ids=["as it is", "busy with it"])
def test_a_message_from_a_trap(site: Site, stalls: bool) -> None:
    """Stopped, unbound is as one without the remedy: it says nothing to anybody."""
    if stalls:
        site.unbound.pause()
    try:
        outcome = judged(site, "trap.test")
        assert outcome.spf is not None
        assert outcome.dmarc is not None
        assert (outcome.spf.status, outcome.dmarc.status) == (SpfStatus.TEMPERROR, DmarcStatus.TEMPERROR)
        assert outcome.decision.disposition in (Disposition.ACCEPT, Disposition.TEMPFAIL)
        assert dane(site, "trap.test").status is DaneStatus.DEFER
    finally:
        if stalls:
            site.unbound.resume()


@pytest.mark.attack("N07")
@pytest.mark.usefixtures("is_answered")
def test_other_zones_are_answered_beside_a_trap(site: Site) -> None:
    questions = [txt(f"n{number}.trap.test") for number in range(50)]
    with site.resolver() as resolver:
        resolver.prefetch(questions)
        assert in_time(lambda: ask(resolver, "plain.test", deadline_s=ANSWERED_S)).status is Status.NOERROR
        found = in_time(lambda: resolver.resolve(questions, deadline=time.monotonic() + DEADLINE_S))
    assert {answer.status for answer in found.values()} <= {Status.BOGUS, Status.TEMPFAIL}
    outcome = judged(site, "plain.test")
    assert outcome.spf is not None
    assert outcome.dmarc is not None
    assert (outcome.spf.status, outcome.dmarc.status) == (SpfStatus.PASS, DmarcStatus.PASS)
