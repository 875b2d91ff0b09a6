"""iprev (RFC 8601 §2.7.3, RFC 8601 §3): names of an address that lead back to it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest

from mailguard.dns.answers import Answers, Unanswered, evaluate
from mailguard.dns.question import Question, RecordType, Status
from mailguard.dns.zone import ZoneResolver
from mailguard.iprev import IprevResult, IprevStatus, check_iprev
from spf_asking import EVIL_IP, Asked, Zone

REVERSE = "66.100.51.198.in-addr.arpa"
V6 = "2001:db8::66"
REVERSE_V6 = "6.6.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa"
NO_STATUS: Mapping[tuple[str, str], Status] = {}


def check(
    zone: Zone, ip: str = EVIL_IP, status: Mapping[tuple[str, str], Status] = NO_STATUS
) -> tuple[IprevResult, Asked]:
    resolver = Asked(zone, status)
    found = evaluate(lambda answers: check_iprev(ip_address(ip), answers), resolver, deadline=time.monotonic() + 60)
    assert found is not None
    assert found.detail.isascii()
    assert found.detail.isprintable()
    assert (found.name is None) == (found.status is not IprevStatus.PASS)
    return found, resolver


A: Zone = {"a.test": {"A": [EVIL_IP]}}
B: Zone = {"b.test": {"A": [EVIL_IP]}}
ALIAS: Zone = {"alias.test": {"CNAME": ["a.test"]}}
CASES = [
    pytest.param({"PTR": ["a.test"]}, A, "pass", "a.test", id="pass"),
    pytest.param({"PTR": ["A.Test."]}, A, "pass", "a.test", id="case"),
    pytest.param(
        {"PTR": ["a.test"]}, {"a.test": {"A": ["192.0.2.1", EVIL_IP]}}, "pass", "a.test", id="two addresses"
    ),
    pytest.param({"PTR": ["b.test", "a.test"]}, A, "pass", "a.test", id="the second name"),
    pytest.param({"PTR": ["b.test", "a.test"]}, {**A, **B}, "pass", "b.test", id="both"),
    pytest.param({"PTR": ["a.test", "a.test"]}, A, "pass", "a.test", id="twice"),
    pytest.param({"PTR": ["alias.test"]}, {**A, **ALIAS}, "pass", "alias.test", id="alias"),
    pytest.param({"CNAME": ["r.test"]}, {**A, "r.test": {"PTR": ["a.test"]}}, "pass", "a.test", id="RFC 2317"),
    pytest.param({"PTR": ["a.test"]}, {"a.test": {"A": ["192.0.2.1"]}}, "fail", None, id="mismatch"),
    pytest.param({"PTR": ["a.test"]}, {}, "fail", None, id="name does not exist"),
    pytest.param({"PTR": ["a.test"]}, {"a.test": {"TXT": ["x"]}}, "fail", None, id="name without address"),
    pytest.param({"PTR": ["a.test"]}, {"a.test": {"AAAA": [f"::ffff:{EVIL_IP}"]}}, "fail", None, id="other family"),
    pytest.param({"TXT": ["x"]}, {}, "permerror", None, id="no PTR"),
    pytest.param(None, {}, "permerror", None, id="no reverse name"),
]


@pytest.mark.parametrize(("reverse", "more", "expected", "name"), CASES)
def test_results(reverse: dict[str, list[str]] | None, more: Zone, expected: str, name: str | None) -> None:
    found, _ = check({**more, **({} if reverse is None else {REVERSE: reverse})})
    assert (found.status.value, found.name, found.address) == (expected, name, IPv4Address(EVIL_IP))


@pytest.mark.parametrize("fault", [Status.TEMPFAIL, Status.BOGUS])
@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ((REVERSE, "PTR"), "temperror"),
        (("a.test", "A"), "pass"),
        (("b.test", "A"), "temperror"),
        (("c.test", "A"), "pass"),
    ],
    ids=["reverse", "another name", "the name", "a name that is not asked for"],
)
def test_trouble(where: tuple[str, str], expected: str, fault: Status) -> None:
    zone: Zone = {REVERSE: {"PTR": ["a.test", "b.test"]}, "b.test": {"A": [EVIL_IP]}, "a.test": {"A": ["192.0.2.1"]}}
    assert check(zone, status={where: fault})[0].status.value == expected


def test_of_many_names_ten_are_asked_for_in_one_round() -> None:
    names = [f"h{number}.test" for number in range(200)]
    zone: Zone = {REVERSE: {"PTR": names}, "h10.test": {"A": [EVIL_IP]}}
    found, resolver = check(zone)
    assert found.status is IprevStatus.FAIL
    assert [len(batch) for batch in resolver.rounds] == [1, 10]
    found, _ = check({**zone, "h9.test": {"A": [EVIL_IP]}})
    assert (found.status, found.name) == (IprevStatus.PASS, "h9.test")


@pytest.mark.attack("N06")
def test_names_with_odd_octets_are_not_looked_up() -> None:
    odd = [
        "a\\000b.evil.test",
        "a;b.evil.test",
        "a(b.evil.test",
        "a\nb.evil.test",
        "%n.evil.test",
        "a b.test",
        "\\255",
        "_x.test",
        "-a.test",
    ]
    found, resolver = check({REVERSE: {"PTR": odd}})
    assert found.status is IprevStatus.FAIL
    assert [len(batch) for batch in resolver.rounds] == [1]
    assert not any(name.strip("\\") in found.detail for name in odd)


@pytest.mark.attack("E16")
def test_addresses() -> None:
    found, resolver = check(
        {REVERSE_V6: {"PTR": ["a.test"]}, "a.test": {"AAAA": ["2001:0DB8::0066"], "A": [EVIL_IP]}}, V6
    )
    assert (found.status, found.address) == (IprevStatus.PASS, IPv6Address(V6))
    assert [str(question) for question in resolver.questions] == [f"{REVERSE_V6} PTR", "a.test AAAA"]
    found, _ = check({REVERSE: {"PTR": ["a.test"]}, "a.test": {"A": [EVIL_IP]}}, f"::ffff:{EVIL_IP}")
    assert (found.status, found.address) == (IprevStatus.PASS, IPv4Address(EVIL_IP))
    found, resolver = check({}, "fe80::1%eth0")
    assert (found.status, resolver.rounds) == (IprevStatus.PERMERROR, [])
    assert check_iprev(None, Answers()) is None


def test_after_the_deadline() -> None:
    found = check_iprev(ip_address(EVIL_IP), Answers(closed=True))
    assert found is not None
    assert found.status is IprevStatus.TEMPERROR
    with pytest.raises(TypeError):
        bool(found)


def test_nothing_else_is_asked() -> None:
    answers = Answers()
    with pytest.raises(Unanswered):
        check_iprev(ip_address(EVIL_IP), answers)
    assert answers.missing == (Question(REVERSE, RecordType.PTR),)


def test_all_names_that_lead_back_are_told_and_all_that_were_not_answered() -> None:
    """Which name comes first is chance, and a trusted one may come last."""
    zone = {
        "66.100.51.198.in-addr.arpa": {"PTR": ["host.isp.test", "mx.fwd.test", "dead.test", "other.test"]},
        "host.isp.test": {"A": ["198.51.100.66"]},
        "mx.fwd.test": {"A": ["198.51.100.66"]},
        "other.test": {"A": ["192.0.2.1"]},
    }
    resolver = ZoneResolver(zone, status={("dead.test", "A"): Status.TEMPFAIL})
    client = ip_address("198.51.100.66")
    found = evaluate(lambda answers: check_iprev(client, answers), resolver, deadline=0.0)
    assert found is not None
    assert (found.status, found.names, found.unanswered, found.name) == (
        IprevStatus.PASS,
        ("host.isp.test", "mx.fwd.test"),
        ("dead.test",),
        "host.isp.test",
    )
