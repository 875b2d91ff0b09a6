"""LiveResolver against a real unbound: its own configuration, its own port, on loopback."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dns.dnssec
import dns.dnssectypes
import dns.zone
import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519

from dns_asking import PATIENCE_S, ask, txt, unused_port
from mailguard.dns.live import LiveResolver, ResolverConfig
from mailguard.dns.question import MX, Dnssec, Question, RecordType, Status

UNBOUND = shutil.which("unbound", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")

pytestmark = pytest.mark.skipif(UNBOUND is None, reason="unbound is not installed")

CONFIGURATION = """\
server:
    interface: 127.0.0.1
    port: {port}
    access-control: 127.0.0.0/8 allow
    username: ""
    chroot: ""
    directory: "{directory}"
    pidfile: ""
    use-syslog: no
    do-daemonize: no
    do-not-query-localhost: no
    root-hints: ""
    module-config: "validator iterator"
    ede: yes
    trust-anchor: "{signed_anchor}"
    trust-anchor: "{expired_anchor}"
    local-zone: "test." nodefault
    local-zone: "plain.test." static
    local-data: "plain.test. 300 IN SOA ns.plain.test. h.plain.test. 1 2 3 4 60"
    local-data: 'plain.test. 300 IN TXT "v=spf1 mx -all"'
    local-data: "plain.test. 300 IN MX 10 mx.plain.test."
    local-data: "mx.plain.test. 300 IN A 192.0.2.1"
    local-data: "mx.plain.test. 300 IN AAAA 2001:db8::1"
    local-data: "1.2.0.192.in-addr.arpa. 300 IN PTR mx.plain.test."
    local-data: 'big.plain.test. 300 IN TXT {big}'
    local-zone: "refused.test." refuse
remote-control:
    control-enable: no
auth-zone:
    name: "alias.test."
    zonefile: "alias.zone"
    for-downstream: no
    for-upstream: yes
    fallback-enabled: no
auth-zone:
    name: "signed.test."
    zonefile: "signed.zone"
    for-downstream: no
    for-upstream: yes
    fallback-enabled: no
auth-zone:
    name: "expired.test."
    zonefile: "expired.zone"
    for-downstream: no
    for-upstream: yes
    fallback-enabled: no
"""
ZONE_TO_SIGN = """\
@ 300 IN SOA ns h 1 2 3 4 60
@ 300 IN NS ns
@ 300 IN TXT "v=spf1 -all"
a 300 IN CNAME @
out 300 IN CNAME c.alias.test.
"""
ALIAS_ZONE = """\
alias.test. 300 IN SOA ns.alias.test. h.alias.test. 1 2 3 4 60
alias.test. 300 IN NS ns.alias.test.
a.alias.test. 300 IN CNAME b.alias.test.
b.alias.test. 200 IN CNAME c.alias.test.
c.alias.test. 300 IN TXT "end"
nowhere.alias.test. 300 IN CNAME nothing.alias.test.
loop.alias.test. 300 IN CNAME loop.alias.test.
*.wild.alias.test. 300 IN TXT "wild"
"""


def _signed_zone(origin: str, *, signed_at: datetime) -> tuple[str, str]:
    """A zone signed for a week from `signed_at`, as a master file, and the trust anchor for it."""
    private_key = ed25519.Ed25519PrivateKey.generate()
    dnskey = dns.dnssec.make_dnskey(private_key.public_key(), dns.dnssectypes.Algorithm.ED25519, flags=257)
    zone = dns.zone.from_text(ZONE_TO_SIGN, origin, relativize=False)
    dns.dnssec.sign_zone(
        zone,
        keys=[(private_key, dnskey)],
        dnskey_ttl=300,
        inception=signed_at - timedelta(days=1),
        expiration=signed_at + timedelta(days=7),
    )
    anchor = dns.dnssec.make_ds(origin, dnskey, dns.dnssectypes.DSDigest.SHA256)
    return zone.to_text(), f"{origin} IN DS {anchor.to_text()}"


@pytest.fixture(scope="module")
def unbound_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    directory = tmp_path_factory.mktemp("unbound")
    port = unused_port()
    big = " ".join([f'"{"x" * 250}"'] * 20)
    now = datetime.now(UTC)
    signed, signed_anchor = _signed_zone("signed.test.", signed_at=now)
    expired, expired_anchor = _signed_zone("expired.test.", signed_at=now - timedelta(days=30))
    (directory / "signed.zone").write_text(signed)
    (directory / "expired.zone").write_text(expired)
    (directory / "alias.zone").write_text(ALIAS_ZONE)
    configuration = directory / "unbound.conf"
    configuration.write_text(
        CONFIGURATION.format(
            port=port, directory=directory, big=big, signed_anchor=signed_anchor, expired_anchor=expired_anchor
        )
    )
    assert UNBOUND is not None
    log = directory / "log"
    with log.open("wb") as stream:
        process = subprocess.Popen([UNBOUND, "-d", "-c", str(configuration)], stdout=stream, stderr=stream)
    try:
        _wait_until_it_listens(port, process, log)
        yield port
    finally:
        process.terminate()
        process.wait(PATIENCE_S)


def _wait_until_it_listens(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + 2 * PATIENCE_S
    while True:
        assert process.poll() is None, log.read_text()
        with socket.socket() as sock:
            if sock.connect_ex(("127.0.0.1", port)) == 0:
                return
        assert time.monotonic() < end, log.read_text()
        time.sleep(0.05)


@pytest.fixture
def resolver(unbound_port: int) -> Iterator[LiveResolver]:
    with LiveResolver(ResolverConfig(nameservers=("127.0.0.1",), port=unbound_port)) as resolver:
        yield resolver


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
        ("loop.alias.test", "TXT", Status.TEMPFAIL, (), 0),
    ],
)
def test_what_unbound_says(
    resolver: LiveResolver, name: str, rdtype: str, status: Status, records: tuple[object, ...], ttl_s: int
) -> None:
    answer = ask(resolver, name, rdtype)
    assert (answer.status, answer.records) == (status, records), answer.detail
    assert ttl_s - 10 <= answer.ttl_s <= ttl_s
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


def test_a_batch(resolver: LiveResolver) -> None:
    questions = [
        *(txt(f"{number}.wild.alias.test") for number in range(100)),
        Question("plain.test", RecordType.MX),
        txt("expired.test"),
    ]
    answers = resolver.resolve(questions, deadline=time.monotonic() + PATIENCE_S)
    assert [answers[question].status for question in questions] == [Status.NOERROR] * 101 + [Status.BOGUS]
