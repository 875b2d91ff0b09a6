"""DANE with a real validating resolver: zones signed, unsigned, expired and out of reach."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from dns_asking import PATIENCE_S, ask
from mailguard.dane.discover import InsecureMx
from mailguard.dane.result import DanePolicy, DaneStatus, HostOutcome, HostReason
from mailguard.dns.live import LiveResolver, ResolverConfig
from mailguard.dns.question import Dnssec, Question, RecordType, Status
from mailguard.dns.validation import ValidationStatus, check_validation
from mailguard.pipeline import check_dane
from unbound_site import UNBOUND, Unbound

pytestmark = pytest.mark.skipif(UNBOUND is None, reason="unbound is not installed")

TLSA = f"TLSA 3 1 1 {'ab' * 32}"
HOST = f"""\
@ IN MX 10 mx
mx IN A 192.0.2.1
_25._tcp.mx IN {TLSA}
"""
ZONES = {
    "signed.test.": f"""\
{HOST}
alias IN CNAME mx.plain.test.
_25._tcp.alias IN {TLSA}
bare IN A 192.0.2.1
gone IN CNAME mx
half IN MX 10 mx
half IN MX 20 bare
half IN MX 30 mx.plain.test.
half IN MX 40 mx.expired.test.
half IN MX 50 mx.failing.test.
half IN MX 60 alias
half IN MX 70 nowhere
half IN MX 80 gone
outside IN MX 10 mx.plain.test.
""",
    "plain.test.": f"""\
{HOST}
provider IN MX 10 mx.signed.test.
_25._tcp.short IN {TLSA}
_25._tcp.short IN TYPE52 \\# 5 030101abcd
_tcp.renamed IN DNAME _tcp.short
""",
    "expired.test.": HOST,
}


@pytest.fixture(scope="module")
def unbound() -> Iterator[Unbound]:
    with Unbound(ZONES, signed={"signed.test."}, bogus={"expired.test."}, failing={"failing.test."}) as made:
        yield made


@pytest.fixture
def resolver(unbound: Unbound) -> Iterator[LiveResolver]:
    with LiveResolver(ResolverConfig(nameservers=("127.0.0.1",), port=unbound.port)) as made:
        yield made


def outcomes(policy: DanePolicy) -> dict[str, tuple[HostOutcome, HostReason]]:
    return {host.name: (host.outcome, host.reason) for host in policy.hosts}


@pytest.mark.attack("N09")
@pytest.mark.parametrize(
    ("name", "rdtype", "status", "dnssec"),
    [
        ("_25._tcp.mx.signed.test", "TLSA", Status.NOERROR, Dnssec.SECURE),
        # One record has a digest that is too short; the DNAME record makes that no plain reply.
        ("_25._tcp.short.plain.test", "TLSA", Status.NOERROR, Dnssec.INSECURE),
        ("_25._tcp.renamed.plain.test", "TLSA", Status.NOERROR, Dnssec.INSECURE),
        ("_25._tcp.bare.signed.test", "TLSA", Status.NXDOMAIN, Dnssec.SECURE),
        ("mx.signed.test", "TLSA", Status.NODATA, Dnssec.SECURE),
        ("alias.signed.test", "A", Status.NOERROR, Dnssec.INSECURE),
        ("alias.signed.test", "CNAME", Status.NOERROR, Dnssec.SECURE),
        ("_25._tcp.mx.plain.test", "TLSA", Status.NOERROR, Dnssec.INSECURE),
        ("_25._tcp.mx.expired.test", "TLSA", Status.BOGUS, Dnssec.BOGUS),
        ("_25._tcp.mx.failing.test", "TLSA", Status.TEMPFAIL, Dnssec.INDETERMINATE),
    ],
)
def test_the_status_of_answers(
    resolver: LiveResolver, name: str, rdtype: str, status: Status, dnssec: Dnssec
) -> None:
    answer = ask(resolver, name, rdtype)
    assert (answer.status, answer.dnssec) == (status, dnssec)


def test_every_outcome_in_one_domain(resolver: LiveResolver) -> None:
    policy = check_dane("half.signed.test", resolver=resolver)
    assert policy.mx_dnssec is Dnssec.SECURE
    assert outcomes(policy) == {
        "mx.signed.test": (HostOutcome.AUTHENTICATE, HostReason.USABLE_RECORDS),
        "bare.signed.test": (HostOutcome.OPPORTUNISTIC, HostReason.NO_RECORDS),
        "mx.plain.test": (HostOutcome.OPPORTUNISTIC, HostReason.INSECURE_ADDRESS),
        "mx.expired.test": (HostOutcome.SKIP, HostReason.LOOKUP_FAILED),
        "mx.failing.test": (HostOutcome.SKIP, HostReason.LOOKUP_FAILED),
        "alias.signed.test": (HostOutcome.AUTHENTICATE, HostReason.USABLE_RECORDS),
        "nowhere.signed.test": (HostOutcome.SKIP, HostReason.NO_ADDRESS),
        "gone.signed.test": (HostOutcome.AUTHENTICATE, HostReason.USABLE_RECORDS),
    }
    by_name = {host.name: host for host in policy.hosts}
    assert by_name["gone.signed.test"].base_domain == "mx.signed.test"
    assert by_name["alias.signed.test"].base_domain == "alias.signed.test"


@pytest.mark.attack("T01")
def test_tlsa_records_of_a_host_that_an_unsigned_domain_names(resolver: LiveResolver) -> None:
    policy = check_dane("provider.plain.test", resolver=resolver)
    assert outcomes(policy) == {"mx.signed.test": (HostOutcome.OPPORTUNISTIC, HostReason.INSECURE_MX)}
    policy = check_dane("provider.plain.test", resolver=resolver, insecure_mx=InsecureMx.DANE)
    assert outcomes(policy) == {"mx.signed.test": (HostOutcome.AUTHENTICATE, HostReason.USABLE_RECORDS)}
    assert policy.hosts[0].reference_ids == ("mx.signed.test",)


@pytest.mark.attack("T03")
@pytest.mark.parametrize(
    ("name", "dnssec"), [("nowhere.signed.test", Dnssec.SECURE), ("nowhere.plain.test", Dnssec.INSECURE)]
)
def test_domains_that_do_not_exist(resolver: LiveResolver, name: str, dnssec: Dnssec) -> None:
    policy = check_dane(name, resolver=resolver)
    assert (policy.status, policy.mx_dnssec) == (DaneStatus.NO_DOMAIN, dnssec)


@pytest.mark.attack("T02")
@pytest.mark.parametrize("name", ["expired.test", "failing.test"])
def test_domains_whose_mx_is_not_known(resolver: LiveResolver, name: str) -> None:
    assert check_dane(name, resolver=resolver).status is DaneStatus.DEFER


def test_nothing_is_asked_for_in_an_unsigned_zone(resolver: LiveResolver, unbound: Unbound) -> None:
    """RFC 7672 §2.2.2: no TLSA query where the addresses come without DNSSEC."""
    before = len(unbound.asked())
    policy = check_dane("outside.signed.test", resolver=resolver)
    assert policy.outcomes == {HostOutcome.OPPORTUNISTIC}
    asked = unbound.asked()[before:]
    assert ("mx.plain.test", "A") in asked
    assert "TLSA" not in {rdtype for _, rdtype in asked}


def test_it_validates(unbound: Unbound) -> None:
    config = ResolverConfig(nameservers=("127.0.0.1",), port=unbound.port)

    def status(name: str) -> ValidationStatus:
        probe = Question(name, RecordType.A)
        return check_validation(config, deadline=time.monotonic() + PATIENCE_S, probe=probe).status

    assert status("mx.signed.test") is ValidationStatus.VALIDATES
    assert status("mx.plain.test") is ValidationStatus.DOES_NOT_VALIDATE
    assert status("mx.expired.test") is ValidationStatus.NO_ANSWER
