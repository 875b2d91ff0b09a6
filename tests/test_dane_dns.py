"""TLSA records and the DNSSEC status from a DNS server: over UDP and TCP, malformed, trusted and not."""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

import mailguard
from dane_asking import ZONE
from dns_asking import PATIENCE_S, SHORT_S, ask, resolver_of, wait_for
from dns_fault_server import Behaviour, FaultServer, Request, framed, silence
from mailguard.config import load
from mailguard.dane.destination import Destination
from mailguard.dane.discover import discover
from mailguard.dane.result import DanePolicy, DaneStatus, HostOutcome, HostReason
from mailguard.dns.answers import evaluate
from mailguard.dns.cache import AnswerCache
from mailguard.dns.live import LiveResolver, ResolverConfig
from mailguard.dns.question import TLSA, Answer, Dnssec, Question, RecordType, Status
from mailguard.dns.servers import ServerAddress
from mailguard.dns.validation import UNBOUND_LINES, ValidationStatus, check_validation, only_trusted
from mailguard.domain import Domain
from mailguard.errors import ConfigError

NAME = "_25._tcp.mx.example.com"
AD = 0x0020


def reply(
    request: Request, *rdata: bytes, flags: int = AD, is_truncated: bool = False, authority: Sequence[bytes] = ()
) -> bytes:
    """A reply with records of the type asked for, put together octet by octet."""
    query = request.message.to_wire()
    question = query[12 : query.index(b"\0", 12) + 5]
    number = question[-4:-2]
    records = b"".join(b"\xc0\x0c" + number + struct.pack("!HIH", 1, 300, len(one)) + one for one in rdata)
    header = struct.pack("!HHHHH", 0x8180 | flags | (0x0200 if is_truncated else 0), 1, len(rdata), len(authority), 0)
    return query[:2] + header + question + records + b"".join(authority)


def failing(*ede: int) -> Behaviour:
    """SERVFAIL, with these extended errors."""

    def behaviour(request: Request, _server: FaultServer) -> Iterator[bytes]:
        yield request.reply(rcode="SERVFAIL", ede=ede)

    return behaviour


def answering(*rdata: bytes, flags: int = AD, authority: Sequence[bytes] = ()) -> Behaviour:
    """All records, over TCP if there is no room for them in a datagram."""

    def behaviour(request: Request, _server: FaultServer) -> Iterator[bytes]:
        wire = reply(request, *rdata, flags=flags, authority=authority)
        if request.transport == "tcp":
            yield framed(wire)
        else:
            yield wire if len(wire) <= 1232 else reply(request, flags=flags, is_truncated=True)

    return behaviour


RDATA = b"\x03\x01\x01" + b"\xab" * 32
# An NS record: of the root, and its target is the root.
NS = b"\x00\x00\x02\x00\x01\x00\x00\x01\x2c\x00\x01\x00"


@pytest.mark.parametrize(
    "rdata",
    [
        [RDATA],
        [RDATA, b"\x02\x00\x02" + b"\xcd" * 64],
        [b"\xff\xff\xff\x00"],
        # dnspython would refuse these, and the reply with them.
        [b"\x03\x01\x01\xab"],
        [RDATA, b"\x03\x01\x02" + b"\xab" * 32],
    ],
    ids=["one", "two", "of no known kind", "short digest", "one good and one short"],
)
@pytest.mark.parametrize("transport", ["udp", "tcp"])
@pytest.mark.parametrize("authority", [(), (NS,)], ids=["plain", "read by dnspython"])
def test_tlsa_records(rdata: list[bytes], transport: str, authority: Sequence[bytes]) -> None:
    rdata = [*rdata, *(RDATA[:-2] + struct.pack("!H", number) for number in range(100 if transport == "tcp" else 0))]
    behaviour = answering(*rdata, authority=authority)
    with FaultServer(behaviour) as server, resolver_of(server, query_timeout_s=PATIENCE_S) as resolver:
        answer = ask(resolver, NAME, "TLSA")
        assert server.requests[-1].transport == transport
    assert (answer.status, answer.dnssec) == (Status.NOERROR, Dnssec.SECURE)
    assert answer.associations() == tuple(TLSA(one[0], one[1], one[2], one[3:]) for one in rdata)


@pytest.mark.parametrize("rdata", [b"", b"\x03", b"\x03\x01"], ids=["nothing", "usage", "selector"])
def test_what_is_no_tlsa_record(rdata: bytes) -> None:
    with FaultServer(answering(rdata)) as server, resolver_of(server, query_timeout_s=0.1) as resolver:
        assert ask(resolver, NAME, "TLSA").status is Status.TEMPFAIL


def test_what_tlsa_records_weigh_in_the_cache() -> None:
    cache = AnswerCache(clock=time.monotonic)
    question = Question(NAME, RecordType.TLSA)
    cache.put(Answer(question, Status.NOERROR, (TLSA(2, 0, 0, b"x" * 10_000),), 300, canonical_name="y" * 200))
    assert 11_000 < cache.estimated_bytes < 12_000


@pytest.mark.parametrize("ede", [(), (3,)], ids=["plain", "read by dnspython"])
def test_where_an_alias_led(ede: tuple[int, ...]) -> None:
    """To the name of the records, or to where there are none."""
    alias = "a.test. 60 IN CNAME B.Test.", "b.test. 60 IN CNAME c.test."
    soa = ("test. 60 IN SOA ns.test. h.test. 1 2 3 4 60",)

    def behaviour(request: Request, _server: FaultServer) -> Iterator[bytes]:
        records = {"A": ["c.test. 60 IN A 192.0.2.1"], "AAAA": []}[request.rdtype]
        aliases = alias if request.name == "a.test" else ()
        yield request.reply(*aliases, *records, authority=() if records else soa, ede=ede)

    with FaultServer(behaviour) as server, resolver_of(server, query_timeout_s=PATIENCE_S) as resolver:
        assert ask(resolver, "a.test", "A").canonical_name == "c.test"
        assert ask(resolver, "c.test", "A").canonical_name == ""
        nothing = ask(resolver, "a.test", "AAAA")
        assert (nothing.status, nothing.canonical_name) == (Status.NODATA, "c.test")


# -- whose AD bit counts --------------------------------------------------------------------------------------------


def delivered(resolver: LiveResolver) -> DanePolicy:
    return evaluate(
        lambda answers: discover(Destination(Domain("example.com")), answers),
        resolver,
        deadline=time.monotonic() + PATIENCE_S,
    )


def zone_server(flags: int) -> Behaviour:
    """ZONE, with these flags on every answer."""
    mx, a = b"\x00\x0a" + b"\x02mx\xc0\x0c", bytes([192, 0, 2, 1])
    assert {"MX", "A", "TLSA"} <= {rdtype for entry in ZONE.values() for rdtype in entry}

    def behaviour(request: Request, _server: FaultServer) -> Iterator[bytes]:
        rdata = {"MX": mx, "A": a, "AAAA": bytes(16), "TLSA": RDATA}[request.rdtype]
        yield reply(request, rdata, flags=flags)

    return behaviour


@pytest.mark.attack("N01")
@pytest.mark.parametrize(
    ("trust_ad", "flags", "reason"),
    [(True, AD, HostReason.USABLE_RECORDS), (True, 0, HostReason.INSECURE_MX), (False, AD, HostReason.INSECURE_MX)],
    ids=["trusted", "trusted, no AD", "not trusted"],
)
def test_ad_counts_from_trusted_servers_alone(
    trust_ad: bool, flags: int, reason: HostReason, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FaultServer(zone_server(flags)) as server, resolver_of(server, query_timeout_s=PATIENCE_S) as resolver:
        # The server is on loopback; it is only called untrusted.
        addresses = (ServerAddress(server.address, server.port, trust_ad=trust_ad),)
        monkeypatch.setattr(resolver, "_addresses", addresses)
        policy = delivered(resolver)
    (host,) = policy.hosts
    assert host.reason is reason
    assert policy.outcomes == {HostOutcome.AUTHENTICATE if trust_ad and flags else HostOutcome.OPPORTUNISTIC}


@pytest.mark.parametrize("ede", [(), (6,), (9,), (12,), (3,), (22,)])
def test_servfail_defers(ede: tuple[int, ...]) -> None:
    """RFC 8914: 6 to 12 say that validation failed, the others that something else did. Either way no delivery."""
    with FaultServer(failing(*ede)) as server, resolver_of(server, query_timeout_s=PATIENCE_S) as resolver:
        answer = ask(resolver, "example.com", "MX")
        assert (answer.status is Status.BOGUS) is (ede in ((6,), (9,), (12,)))
        assert delivered(resolver).status is DaneStatus.DEFER


@pytest.mark.attack("T02")
def test_silence_defers() -> None:
    with FaultServer(silence) as server, resolver_of(server, query_timeout_s=0.05) as resolver:
        assert delivered(resolver).status is DaneStatus.DEFER


@pytest.mark.attack("N02")
def test_trust_is_that_of_the_servers_that_are_asked(tmp_path: Path) -> None:
    """A running resolver keeps asking those it began with; one that is opened anew, as at a reload, reads again."""
    resolv_conf = tmp_path / "resolv.conf"
    resolv_conf.write_text("nameserver 127.0.0.1\n")
    config = ResolverConfig(resolv_conf=str(resolv_conf))
    with LiveResolver(config) as before:
        resolv_conf.write_text("nameserver 192.0.2.53\n")
        assert [(server.address, server.trust_ad) for server in before.servers] == [("127.0.0.1", True)]
        with LiveResolver(config) as after:
            assert [(server.address, server.trust_ad) for server in after.servers] == [("192.0.2.53", False)]
    found = check_validation(config, deadline=time.monotonic() + 1)
    assert found.status is ValidationStatus.NO_TRUSTED_SERVER


def test_trust_ad_in_the_configuration(tmp_path: Path) -> None:
    path = tmp_path / "mailguard.toml"
    path.write_text('[dns]\nnameservers = ["192.0.2.53"]\ntrust_ad = ["192.0.2.53"]\n')
    path.chmod(0o600)
    assert load(path).dns.trust_ad == ("192.0.2.53",)
    path.write_text('[dns]\ntrust_ad = ["192.0.2.0/24"]\n')
    with pytest.raises(ConfigError, match="not an IP address"):
        load(path)


# -- is there a validating resolver? ------------------------------------------------------------------------------

PROBE = Question("signed.test", RecordType.A)


def checked(
    *servers: str, port: int = 53, trust_ad: Sequence[str] = (), query_timeout_s: float = PATIENCE_S
) -> tuple[ValidationStatus, str]:
    config = ResolverConfig(
        nameservers=tuple(servers),
        port=port,
        trust_ad=tuple(trust_ad),
        query_timeout_s=query_timeout_s,
        cache_entries=10,
    )
    found = check_validation(config, deadline=time.monotonic() + PATIENCE_S, probe=PROBE)
    with pytest.raises(TypeError):
        bool(found)
    return found.status, found.message


@pytest.mark.parametrize(
    ("behaviour", "status", "says_what"),
    [
        (answering(bytes(4)), ValidationStatus.VALIDATES, "127.0.0.1 validates DNSSEC"),
        (answering(bytes(4), flags=0), ValidationStatus.DOES_NOT_VALIDATE, UNBOUND_LINES),
        (failing(6), ValidationStatus.NO_ANSWER, "bogus"),
        (failing(), ValidationStatus.NO_ANSWER, "SERVFAIL"),
        (silence, ValidationStatus.NO_ANSWER, "no reply"),
    ],
    ids=["validates", "does not", "bogus", "servfail", "silent"],
)
def test_a_resolver_on_loopback(behaviour: Behaviour, status: ValidationStatus, says_what: str) -> None:
    with FaultServer(behaviour) as server:
        query_timeout_s = SHORT_S if behaviour is silence else PATIENCE_S
        found, message = checked(server.address, port=server.port, query_timeout_s=query_timeout_s)
        # It was asked, also where it was given up before it noted that.
        wait_for(lambda: server.requests)
        assert {request.name for request in server.requests} == {"signed.test"}
    assert found is status
    assert says_what in message
    assert message.isascii()


def test_resolvers_that_do_not_count() -> None:
    """Nobody is asked who does not count; one that does not beside one that does is as bad as none."""
    status, message = checked("192.0.2.53")
    assert status is ValidationStatus.NO_TRUSTED_SERVER
    assert 'trust_ad = ["192.0.2.53"]' in message
    assert UNBOUND_LINES in message
    with FaultServer(answering(bytes(4))) as server:
        status, message = checked(server.address, "192.0.2.53", port=server.port)
        assert status is ValidationStatus.SOME_UNTRUSTED
        assert "192.0.2.53" in message
        status, _ = checked(server.address, port=server.port, trust_ad=["192.0.2.53"])
        assert status is ValidationStatus.VALIDATES


def test_a_file_validates_nothing(tmp_path: Path) -> None:
    found = check_validation(ResolverConfig(zone_file=str(tmp_path / "zone")), deadline=time.monotonic())
    assert found.status is ValidationStatus.NO_TRUSTED_SERVER


def test_only_trusted_servers() -> None:
    """So that look-ups for DANE do not fall to a server whose word does not count."""
    config = ResolverConfig(nameservers=("192.0.2.53", "127.0.0.1", "192.0.2.54"), trust_ad=("192.0.2.54",))
    assert only_trusted(config).nameservers == ("127.0.0.1", "192.0.2.54")
    with pytest.raises(ConfigError, match="unbound"):
        only_trusted(ResolverConfig(nameservers=("192.0.2.53",)))


@pytest.mark.attack("T02")
def test_a_server_that_is_not_trusted_undoes_dane_where_the_trusted_one_fails(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Why check_dane is for resolvers that have trusted servers alone."""
    with FaultServer(failing()) as trusted, FaultServer(zone_server(0)) as stranger:
        addresses = (
            ServerAddress(trusted.address, trusted.port, trust_ad=True),
            ServerAddress(stranger.address, stranger.port, trust_ad=False),
        )
        for asked, status in ((addresses, DaneStatus.HOSTS), (addresses[:1], DaneStatus.DEFER)):
            with resolver_of(trusted) as resolver:
                monkeypatch.setattr(resolver, "_addresses", asked)
                policy = mailguard.check_dane("example.com", resolver=resolver)
            assert policy.status is status
            assert policy.outcomes <= {HostOutcome.OPPORTUNISTIC}
    assert mailguard.only_trusted is only_trusted
