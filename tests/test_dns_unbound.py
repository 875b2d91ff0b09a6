"""LiveResolver against a real unbound: its own configuration, its own port, on loopback."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

import mailguard.dns.lookups
from dns_asking import PATIENCE_S, SHORT_S, ask, txt
from mailguard.dns.live import LiveResolver, ResolverConfig
from mailguard.dns.question import MX, Dnssec, Question, RecordType, Status
from unbound_site import UNBOUND, Unbound

pytestmark = pytest.mark.skipif(UNBOUND is None, reason="unbound is not installed")

BIG = " ".join([f'"{"x" * 250}"'] * 20)
SIGNED = """\
@ IN TXT "v=spf1 -all"
a IN CNAME @
out IN CNAME c.alias.test.
"""
ZONES = {
    "plain.test.": f"""\
@ IN TXT "v=spf1 mx -all"
@ IN MX 10 mx
mx IN A 192.0.2.1
mx IN AAAA 2001:db8::1
big IN TXT {BIG}
""",
    "2.0.192.in-addr.arpa.": "1 IN PTR mx.plain.test.\n",
    "alias.test.": """\
a IN CNAME b
c IN TXT "end"
nowhere IN CNAME nothing
loop IN CNAME loop
*.wild IN TXT "wild"
b 200 IN CNAME c
""",
    "signed.test.": SIGNED,
    "expired.test.": SIGNED,
}


@pytest.fixture(scope="module")
def unbound() -> Iterator[Unbound]:
    with Unbound(
        ZONES,
        signed={"signed.test."},
        bogus={"expired.test."},
        failing={"failing.test."},
        options=['local-zone: "refused.test." refuse'],
    ) as made:
        yield made


@pytest.fixture
def resolver(unbound: Unbound) -> Iterator[LiveResolver]:
    with resolver_of(unbound) as resolver:
        yield resolver


def resolver_of(unbound: Unbound) -> LiveResolver:
    config = ResolverConfig(nameservers=("127.0.0.1",), port=unbound.port, query_timeout_s=PATIENCE_S)
    return LiveResolver(config)


@pytest.mark.parametrize(
    ("name", "rdtype", "status", "records", "ttl_s"),
    [
        ("plain.test", "TXT", Status.NOERROR, (b"v=spf1 mx -all",), 300),
        ("plain.test", "MX", Status.NOERROR, (MX(10, "mx.plain.test"),), 300),
        ("mx.plain.test", "A", Status.NOERROR, ("192.0.2.1",), 300),
        ("mx.plain.test", "AAAA", Status.NOERROR, ("2001:db8::1",), 300),
        ("1.2.0.192.in-addr.arpa", "PTR", Status.NOERROR, ("mx.plain.test",), 300),
        # Larger than a datagram: over TCP.
        ("big.plain.test", "TXT", Status.NOERROR, (b"x" * 5000,), 300),
        ("plain.test", "A", Status.NODATA, (), 60),
        ("nosuch.plain.test", "TXT", Status.NXDOMAIN, (), 60),
        ("a.alias.test", "TXT", Status.NOERROR, (b"end",), 200),
        ("a.alias.test", "CNAME", Status.NOERROR, ("b.alias.test",), 300),
        ("nowhere.alias.test", "TXT", Status.NXDOMAIN, (), 60),
        ("x.wild.alias.test", "TXT", Status.NOERROR, (b"wild",), 300),
        ("refused.test", "TXT", Status.TEMPFAIL, (), 0),
        ("x.failing.test", "TXT", Status.TEMPFAIL, (), 0),
        ("_dmarc.test", "TXT", Status.NXDOMAIN, (), 60),
        ("loop.alias.test", "TXT", Status.TEMPFAIL, (), 0),
    ],
)
def test_what_unbound_says(
    resolver: LiveResolver, name: str, rdtype: str, status: Status, records: tuple[object, ...], ttl_s: int
) -> None:
    answer = ask(resolver, name, rdtype)
    assert (answer.status, answer.records) == (status, records), answer.detail
    # unbound may have learnt it for an earlier question, and counts.
    assert ttl_s - 40 <= answer.ttl_s <= ttl_s
    assert answer.dnssec is not Dnssec.SECURE


@pytest.mark.parametrize(
    ("name", "status"),
    [("signed.test", Status.NOERROR), ("a.signed.test", Status.NOERROR), ("no.signed.test", Status.NXDOMAIN)],
)
def test_secure(resolver: LiveResolver, name: str, status: Status) -> None:
    answer = ask(resolver, name)
    assert (answer.status, answer.dnssec) == (status, Dnssec.SECURE), answer.detail


def test_an_alias_out_of_a_signed_zone_is_insecure(resolver: LiveResolver) -> None:
    answer = ask(resolver, "out.signed.test")
    assert (answer.status, answer.dnssec) == (Status.NOERROR, Dnssec.INSECURE), answer.detail


@pytest.mark.attack("N09")
@pytest.mark.parametrize("name", ["expired.test", "a.expired.test", "no.expired.test"])
def test_bogus(resolver: LiveResolver, name: str) -> None:
    for _ in range(2):
        answer = ask(resolver, name)
        assert (answer.status, answer.dnssec, answer.records) == (Status.BOGUS, Dnssec.BOGUS, ()), answer.detail


@pytest.mark.parametrize(
    ("name", "rdtype"),
    [
        ("plain.test", "TXT"),
        ("plain.test", "MX"),
        ("mx.plain.test", "A"),
        ("mx.plain.test", "AAAA"),
        ("1.2.0.192.in-addr.arpa", "PTR"),
        ("plain.test", "A"),
        ("nosuch.plain.test", "TXT"),
        ("a.alias.test", "TXT"),
        ("nowhere.alias.test", "TXT"),
        ("signed.test", "TXT"),
        ("no.signed.test", "TXT"),
        ("_dmarc.test", "TXT"),
    ],
)
def test_its_usual_replies_are_plain(
    resolver: LiveResolver, monkeypatch: pytest.MonkeyPatch, name: str, rdtype: str
) -> None:
    """Or else nobody would notice that the short way to an answer is not taken any more."""
    monkeypatch.delattr(mailguard.dns.lookups, "read_reply")
    answer = ask(resolver, name, rdtype)
    assert answer.status in (Status.NOERROR, Status.NODATA, Status.NXDOMAIN), answer.detail


def test_a_batch(resolver: LiveResolver) -> None:
    questions = [
        *(txt(f"{number}.wild.alias.test") for number in range(100)),
        Question("plain.test", RecordType.MX),
        txt("expired.test"),
    ]
    answers = resolver.resolve(questions, deadline=time.monotonic() + PATIENCE_S)
    assert [answers[question].status for question in questions] == [Status.NOERROR] * 101 + [Status.BOGUS]


def test_unbound_can_fail_and_come_back() -> None:
    with Unbound({"a.test.": '@ IN TXT "a"\n', "b.test.": '@ IN TXT "b"\n'}, signed={"a.test."}) as unbound:

        def asked(name: str, *, deadline_s: float = PATIENCE_S) -> tuple[Status, Dnssec]:
            with resolver_of(unbound) as fresh:
                answer = ask(fresh, name, deadline_s=deadline_s)
                return answer.status, answer.dnssec

        secure, insecure = (Status.NOERROR, Dnssec.SECURE), (Status.NOERROR, Dnssec.INSECURE)
        assert (asked("a.test"), asked("b.test")) == (secure, insecure)
        unbound.fail("a.test.")
        assert (asked("a.test")[0], asked("b.test")) == (Status.TEMPFAIL, insecure)
        unbound.heal("a.test.")
        assert (asked("a.test"), asked("b.test")) == (secure, insecure)
        unbound.kill()
        assert asked("b.test")[0] is Status.TEMPFAIL
        unbound.start()
        assert asked("b.test") == insecure
        unbound.pause()
        assert asked("b.test", deadline_s=SHORT_S)[0] is Status.TEMPFAIL
        unbound.resume()
        assert asked("b.test") == insecure
        assert ("a.test", "TXT") in unbound.asked()
