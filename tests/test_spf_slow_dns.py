"""SPF over the live resolver while the DNS is slow, silent, lossy or refuses: the truth or a temperror, in time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import dns.flags
import pytest

from dns_asking import PATIENCE_S, resolver_of, wait_for
from dns_fault_server import Behaviour, FaultServer, Request, after, framed, garbage, says, silence
from mailguard.dns.answers import Resolver
from mailguard.dns.live import LiveResolver, ResolverConfig
from mailguard.pipeline import LOOKUP_TIME_S
from mailguard.spf.result import SpfReason, SpfStatus
from spf_asking import BANK_IP, EVIL_IP, result_of

# Of a check that is to end by it, and how late the machine may be with that.
DEADLINE_S = 1.0
MARGIN_S = 7.0
# S08: each look-up takes so much less than the time of a query that it is not given up, and ten take far too long.
SLOW_S = 2.0
SLOW_DEADLINE_S = 5.0
# Of a query that has no answer: without the deadline the check would take twice that.
VAIN_S = 6.0

RECORDS = {
    ("bank.test", "TXT"): [f'"v=spf1 include:_spf.bank.test mx ip4:{BANK_IP} -all"'],
    ("_spf.bank.test", "TXT"): ['"v=spf1 a:host.bank.test ?all"'],
    ("host.bank.test", "A"): ["192.0.2.99"],
    ("bank.test", "MX"): ["10 mx.bank.test."],
    ("mx.bank.test", "A"): ["192.0.2.98"],
    ("slow.test", "TXT"): ['"v=spf1 include:1.slow.test -all"'],
    **{(f"{n}.slow.test", "TXT"): [f'"v=spf1 include:{n + 1}.slow.test -all"'] for n in range(1, 10)},
    ("10.slow.test", "TXT"): ['"v=spf1 +all"'],
}


def zone(request: Request, server: FaultServer) -> Iterator[bytes]:
    """What an honest server says of RECORDS."""
    found = RECORDS.get((request.name, request.rdtype))
    if found is None:
        yield request.reply(rcode="NOERROR" if any(name == request.name for name, _ in RECORDS) else "NXDOMAIN")
        return
    yield request.reply(*(f"{request.name}. 300 IN {request.rdtype} {data}" for data in found))


def slowly(request: Request, server: FaultServer) -> Iterator[bytes]:
    """slow.test takes its time for each answer; everything else is honest."""
    if request.name.endswith("slow.test"):
        server.wait(SLOW_S)
    yield from zone(request, server)


def timed(work: Callable[[], SpfStatus]) -> tuple[SpfStatus, float]:
    began = time.monotonic()
    return work(), time.monotonic() - began


def status_of(resolver: Resolver, mail_from: str, ip: str = EVIL_IP, *, deadline_s: float = PATIENCE_S) -> SpfStatus:
    return result_of(resolver, mail_from, ip, deadline_s=deadline_s).status


def test_the_server_of_these_tests_tells_the_truth() -> None:
    with FaultServer(zone) as server, resolver_of(server) as resolver:
        assert status_of(resolver, "x@bank.test") is SpfStatus.FAIL
        assert status_of(resolver, "x@bank.test", BANK_IP) is SpfStatus.PASS
        assert status_of(resolver, "x@nosuch.test") is SpfStatus.NONE
        assert status_of(resolver, "x@slow.test") is SpfStatus.PASS
        assert len(set(server.names())) == 6 + 11 - 1


def test_the_deadline_of_a_whole_message_is_eight_seconds() -> None:
    assert LOOKUP_TIME_S <= 8.0


@pytest.mark.attack("S08", "V12")
def test_ten_slow_look_ups_end_at_the_deadline_with_a_temperror() -> None:
    with FaultServer(slowly) as server, resolver_of(server) as resolver:
        began = time.monotonic()
        result = result_of(resolver, "x@slow.test", deadline_s=SLOW_DEADLINE_S)
        assert (result.status, result.reason) == (SpfStatus.TEMPERROR, SpfReason.DNS)
        assert SLOW_DEADLINE_S - 0.1 < time.monotonic() - began < SLOW_DEADLINE_S + MARGIN_S
        # When it is no longer slow the same domain passes: nothing was remembered but answers.
        server.behaviour = zone
        assert status_of(resolver, "x@slow.test") is SpfStatus.PASS


@pytest.mark.attack("S09")
def test_a_hundred_slow_checks_do_not_delay_others() -> None:
    with FaultServer(slowly) as server, resolver_of(server) as resolver:
        slow: list[tuple[SpfStatus, float]] = []

        def check(number: int) -> None:
            slow.append(timed(lambda: status_of(resolver, f"x{number}@slow.test", deadline_s=SLOW_DEADLINE_S)))

        threads = [threading.Thread(target=check, args=(number,)) for number in range(100)]
        for thread in threads:
            thread.start()
        other = status_of(resolver, "x@bank.test", BANK_IP, deadline_s=SLOW_DEADLINE_S + MARGIN_S)
        for thread in threads:
            thread.join()
        assert other is SpfStatus.PASS
        assert {status for status, _ in slow} == {SpfStatus.TEMPERROR}
        assert max(taken for _, taken in slow) < SLOW_DEADLINE_S + 2 * MARGIN_S
        assert len([name for name in server.names() if name == "slow.test"]) == 1, "one look-up serves them all"


@pytest.mark.attack("S24")
def test_only_answers_are_remembered() -> None:
    with FaultServer(zone) as server, resolver_of(server) as resolver:
        asked = []
        for ip, expected in ((BANK_IP, SpfStatus.PASS), (EVIL_IP, SpfStatus.FAIL), ("192.0.2.98", SpfStatus.PASS)):
            assert status_of(resolver, "x@bank.test", ip) is expected
            asked.append(len(server.requests))
        assert asked == [5, 5, 5]


@pytest.mark.attack("S07")
def test_names_that_are_looked_up_once_do_not_drive_out_the_others() -> None:
    def behaviour(request: Request, server: FaultServer) -> Iterator[bytes]:
        if request.name == "evil.test":
            yield request.reply('evil.test. 300 IN TXT "v=spf1 exists:%{l}.evil.test -all"')
        else:
            yield from zone(request, server)

    with FaultServer(behaviour) as server:
        config = ResolverConfig(
            nameservers=("127.0.0.1",), port=server.port, query_timeout_s=PATIENCE_S, cache_entries=50
        )
        with LiveResolver(config) as resolver:
            # Asked for twice, so that it is hot.
            assert [status_of(resolver, "x@bank.test") for _ in range(2)] == [SpfStatus.FAIL] * 2
            for number in range(120):
                assert status_of(resolver, f"r{number}@evil.test") is SpfStatus.FAIL
                if number % 10 == 0:
                    assert status_of(resolver, "x@bank.test") is SpfStatus.FAIL
        names = server.names()
        assert len(set(names)) > 120
        assert names.count("evil.test") == 1
        assert names.count("bank.test") == 2, "its TXT and its MX, each once"


@pytest.mark.attack("V11")
@pytest.mark.parametrize(
    "text", ["include:fast.test include:dead.test -all", "include:fast.test a:dead.test redirect=dead.test"]
)
def test_what_is_asked_ahead_in_vain_is_not_waited_for(text: str) -> None:
    """Neither does a look-up delay the result that it cannot change, nor use up the time of those that can."""

    def behaviour(request: Request, server: FaultServer) -> Iterator[bytes]:
        if request.name == "evil.test":
            yield request.reply(f'evil.test. 300 IN TXT "v=spf1 {text}"')
        elif request.name == "fast.test":
            yield request.reply('fast.test. 300 IN TXT "v=spf1 a:faster.test -all"')
        elif request.name == "faster.test":
            yield request.reply(f"faster.test. 300 IN A {EVIL_IP}")

    with FaultServer(behaviour) as server, resolver_of(server) as resolver:
        status, taken = timed(lambda: status_of(resolver, "x@evil.test"))
        assert status is SpfStatus.PASS
        # A look-up in vain takes 15 s.
        assert taken < MARGIN_S
        wait_for(lambda: "dead.test" in server.names())


def every(count: int, fault: Behaviour, otherwise: Behaviour) -> Behaviour:
    """`fault` for two in `count` queries, but never for the same name twice in a row."""
    numbers = iter(range(1_000))

    def behaviour(request: Request, server: FaultServer) -> Iterator[bytes]:
        yield from (fault if next(numbers) % count < 2 else otherwise)(request, server)

    return behaviour


def only_over_tcp(request: Request, server: FaultServer) -> Iterator[bytes]:
    if request.transport == "udp":
        yield request.reply(flags=dns.flags.Flag.RA | dns.flags.Flag.TC)
        return
    for wire in zone(request, server):
        yield framed(wire)


def only_txt(fault: Behaviour) -> Behaviour:
    def behaviour(request: Request, server: FaultServer) -> Iterator[bytes]:
        yield from (zone if request.rdtype == "TXT" else fault)(request, server)

    return behaviour


def only_first(fault: Behaviour) -> Behaviour:
    def behaviour(request: Request, server: FaultServer) -> Iterator[bytes]:
        yield from (zone if request.name == "bank.test" else fault)(request, server)

    return behaviour


FAULTS: dict[str, tuple[Behaviour, set[SpfStatus]]] = {
    "silent": (silence, {SpfStatus.TEMPERROR}),
    "servfail": (says(rcode="SERVFAIL"), {SpfStatus.TEMPERROR}),
    "refused": (says(rcode="REFUSED"), {SpfStatus.TEMPERROR}),
    "formerr": (says(rcode="FORMERR"), {SpfStatus.TEMPERROR}),
    "garbage": (garbage, {SpfStatus.TEMPERROR}),
    "2 s late": (after(2.0, zone), {SpfStatus.TEMPERROR}),
    "silent but for TXT": (only_txt(silence), {SpfStatus.TEMPERROR}),
    "refused but for TXT": (only_txt(says(rcode="REFUSED")), {SpfStatus.TEMPERROR}),
    "servfail but for the first name": (only_first(says(rcode="SERVFAIL")), {SpfStatus.TEMPERROR}),
    "only over TCP": (only_over_tcp, {SpfStatus.PASS}),
    "40 % lost": (every(5, silence, zone), {SpfStatus.PASS, SpfStatus.TEMPERROR}),
    "40 % servfail": (every(5, says(rcode="SERVFAIL"), zone), {SpfStatus.TEMPERROR}),
}


@pytest.mark.attack("V11")
@pytest.mark.parametrize("fault", FAULTS)
def test_no_fault_makes_a_false_fail_or_none(fault: str) -> None:
    """A sender that may, checked while the DNS is broken; the verdict comes in time."""
    behaviour, expected = FAULTS[fault]
    # What is lost is asked for again within the time.
    timeout_s = 0.3 if SpfStatus.PASS in expected and len(expected) > 1 else VAIN_S
    deadline_s = PATIENCE_S if expected == {SpfStatus.PASS} else DEADLINE_S
    with FaultServer(behaviour) as server, resolver_of(server, query_timeout_s=timeout_s) as resolver:
        status, taken = timed(lambda: status_of(resolver, "x@bank.test", BANK_IP, deadline_s=deadline_s))
        assert status in expected
        assert taken < deadline_s + MARGIN_S


@pytest.mark.attack("V11")
def test_after_the_fault_the_truth_is_told() -> None:
    """Off, on: what was not answered is not remembered for longer than the resolver keeps a failure."""
    now = [1000.0]
    with FaultServer(says(rcode="SERVFAIL")) as server, resolver_of(server, clock=lambda: now[0]) as resolver:
        assert status_of(resolver, "x@bank.test", BANK_IP) is SpfStatus.TEMPERROR
        server.behaviour = zone
        now[0] += 6.0
        assert status_of(resolver, "x@bank.test", BANK_IP) is SpfStatus.PASS
        assert status_of(resolver, "x@bank.test", EVIL_IP) is SpfStatus.FAIL
