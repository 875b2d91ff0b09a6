"""LiveResolver against forged, malformed and truncated replies, and endless aliases."""

from __future__ import annotations

import itertools
import socket
import time
from collections.abc import Iterator

import dns.flags
import pytest

from dns_asking import LATEST_S, PATIENCE_S, SHORT_S, ask, resolver_of
from dns_fault_server import Behaviour, FaultServer, Request, after, framed, garbage, silence, truth
from mailguard.dns.question import Dnssec, Status


def _wrong_id(request: Request, server: FaultServer) -> Iterator[bytes]:
    wire = bytearray(forged(request))
    wire[0] ^= 0xFF
    yield bytes(wire)


def _wrong_port(request: Request, server: FaultServer) -> Iterator[bytes]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        sock.sendto(forged(request), request.peer)
    return iter(())


def _replaced(old: bytes, new: bytes) -> Behaviour:
    def behaviour(request: Request, server: FaultServer) -> Iterator[bytes]:
        wire = forged(request)
        assert old in wire
        yield wire.replace(old, new, 1)

    return behaviour


def _not_a_reply(request: Request, server: FaultServer) -> Iterator[bytes]:
    wire = bytearray(forged(request))
    wire[2] &= 0x7F
    yield bytes(wire)


def _truncated_for_another(request: Request, server: FaultServer) -> Iterator[bytes]:
    wire = bytearray(forged(request).replace(b"\x01a\x04test", b"\x01A\x04test", 1))
    wire[2] |= 0x02
    yield bytes(wire)


def _compression_loop(request: Request, server: FaultServer) -> Iterator[bytes]:
    yield request.reply()[:12] + b"\xc0\x0c\x00\x10\x00\x01"


def _label_type_0x40(request: Request, server: FaultServer) -> Iterator[bytes]:
    yield request.reply()[:12] + b"\x41a\x04test\x00\x00\x10\x00\x01"


def _rdlength_beyond_the_packet(request: Request, server: FaultServer) -> Iterator[bytes]:
    yield forged(request).replace(b"\x00\x07\x06forged", b"\xff\xff\x06forged")


def _string_beyond_the_record(request: Request, server: FaultServer) -> Iterator[bytes]:
    yield forged(request).replace(b"\x00\x07\x06forged", b"\x00\x07\xffforged")


def forged(request: Request) -> bytes:
    return request.reply(f'{request.name}. 300 IN TXT "forged"')


FORGERIES = {
    "wrong id": _wrong_id,
    "wrong port": _wrong_port,
    "wrong name": _replaced(b"\x01a\x04test", b"\x01b\x04test"),
    "other case": _replaced(b"\x01a\x04test", b"\x01A\x04test"),
    "wrong class": _replaced(b"\x04test\x00\x00\x10\x00\x01", b"\x04test\x00\x00\x10\x00\x03"),
    "wrong type": _replaced(b"\x04test\x00\x00\x10\x00\x01", b"\x04test\x00\x00\x01\x00\x01"),
    "not a reply": _not_a_reply,
    "truncated, other case": _truncated_for_another,
}
MALFORMED = {
    "garbage": garbage,
    "compression loop": _compression_loop,
    "label type 0x40": _label_type_0x40,
    "rdlength": _rdlength_beyond_the_packet,
    "string length": _string_beyond_the_record,
}


@pytest.mark.attack("N03")
@pytest.mark.parametrize("forgery", [*FORGERIES, *MALFORMED])
def test_a_forged_reply_does_not_end_the_wait(forgery: str) -> None:
    def behaviour(request: Request, server: FaultServer) -> Iterator[bytes]:
        for _ in range(3):
            yield from (FORGERIES | MALFORMED)[forgery](request, server)
        server.wait(0.1)
        yield from truth(request, server)

    with FaultServer(behaviour) as server, resolver_of(server, query_timeout_s=PATIENCE_S) as resolver:
        assert ask(resolver, "a.test").texts() == (b"a.test",)
        assert [request.transport for request in server.requests] == ["udp"]


@pytest.mark.attack("N05")
@pytest.mark.parametrize("malformed", MALFORMED)
@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_a_malformed_reply_is_no_answer(malformed: str, transport: str) -> None:
    def behaviour(request: Request, server: FaultServer) -> Iterator[bytes]:
        if request.transport != transport:
            yield request.reply(flags=dns.flags.Flag.TC)
            return
        for wire in MALFORMED[malformed](request, server):
            yield wire if transport == "udp" else framed(wire)

    with FaultServer(behaviour) as server, resolver_of(server, query_timeout_s=SHORT_S) as resolver:
        answer = ask(resolver, "a.test")
        assert (answer.status, answer.records) == (Status.TEMPFAIL, ())
        assert "127.0.0.1" in answer.detail


@pytest.mark.attack("N03")
@pytest.mark.parametrize(
    "forgery", ["wrong id", "wrong name", "other case", "wrong class", "wrong type", "not a reply"]
)
def test_a_forged_reply_over_tcp_is_no_answer(forgery: str) -> None:
    def behaviour(request: Request, server: FaultServer) -> Iterator[bytes]:
        if request.transport == "udp":
            yield request.reply(flags=dns.flags.Flag.TC)
        else:
            yield from map(framed, FORGERIES[forgery](request, server))

    with FaultServer(behaviour) as server, resolver_of(server, query_timeout_s=SHORT_S) as resolver:
        answer = ask(resolver, "a.test")
        assert (answer.status, answer.records) == (Status.TEMPFAIL, ())


@pytest.mark.attack("N03")
def test_nobody_can_foresee_port_and_id() -> None:
    """RFC 5452 §9.2. Of 100 numbers out of some 28,000 and 65,536, one or two may come twice."""
    with FaultServer(truth) as server, resolver_of(server) as resolver:
        for number in range(100):
            ask(resolver, f"{number}.test")
        ports = [request.peer[1] for request in server.requests]
        identities = [request.message.id for request in server.requests]
        assert min(len(set(ports)), len(set(identities))) > 90
        for numbers in (ports, identities):
            steps = {abs(one - other) for one, other in itertools.pairwise(numbers)}
            assert len(steps) > 80, "no counter"


def big_reply(request: Request) -> bytes:
    strings = " ".join([f'"{"x" * 255}"'] * 255)
    return request.reply(f"{request.name}. 300 IN TXT {strings}")


@pytest.mark.attack("N04", "N05")
def test_a_truncated_reply_is_asked_for_again_over_tcp() -> None:
    def behaviour(request: Request, server: FaultServer) -> Iterator[bytes]:
        if request.transport == "udp":
            # Cut in the middle of a record, as careless servers do.
            wire = bytearray(big_reply(request)[:500])
            wire[2] |= 0x02
            yield bytes(wire)
        else:
            wire = bytearray(framed(big_reply(request)))
            yield bytes(wire[:1])
            yield bytes(wire[1:1000])
            yield bytes(wire[1000:])

    with FaultServer(behaviour) as server, resolver_of(server) as resolver:
        assert ask(resolver, "a.test").texts() == (b"x" * 255 * 255,)
        assert [request.transport for request in server.requests] == ["udp", "tcp"]


def _drip(request: Request, server: FaultServer) -> Iterator[bytes]:
    for octet in framed(forged(request)):
        yield bytes([octet])
        server.wait(1.0)


@pytest.mark.attack("N04")
@pytest.mark.parametrize(
    ("over_tcp", "tcp"),
    [(silence, False), (silence, True), (_drip, True), (after(60.0, silence), True)],
    ids=["refused", "closed", "drip", "silent"],
)
def test_tcp_that_does_not_work_ends_by_the_deadline(over_tcp: Behaviour, tcp: bool) -> None:
    def behaviour(request: Request, server: FaultServer) -> Iterator[bytes]:
        if request.transport == "udp":
            yield request.reply(flags=dns.flags.Flag.TC)
        else:
            yield from over_tcp(request, server)

    with FaultServer(behaviour, tcp=tcp) as server, resolver_of(server) as resolver:
        began = time.monotonic()
        assert ask(resolver, "a.test", deadline_s=0.5).status is Status.TEMPFAIL
        assert time.monotonic() - began < LATEST_S


@pytest.mark.attack("D35")
@pytest.mark.parametrize("aliases", [1, 7, 8, 9, 20])
def test_aliases_that_the_server_does_not_follow_are_followed(aliases: int) -> None:
    def behaviour(request: Request, server: FaultServer) -> Iterator[bytes]:
        number = int(request.name.removesuffix(".test"))
        record = f'TXT "end {number}"' if number == aliases else f"CNAME {number + 1}.test."
        yield request.reply(f"{request.name}. 300 IN {record}", flags=dns.flags.Flag.RA | dns.flags.Flag.AD)

    with FaultServer(behaviour) as server, resolver_of(server) as resolver:
        answer = ask(resolver, "0.test")
        if aliases <= 8:
            assert (answer.status, answer.texts()) == (Status.NOERROR, (b"end %d" % aliases,))
            assert answer.dnssec is Dnssec.SECURE
        else:
            assert answer.status is Status.TEMPFAIL
        assert server.names() == [f"{number}.test" for number in range(min(aliases, 8) + 1)]


@pytest.mark.attack("N11")
def test_an_answer_is_as_good_as_the_weakest_of_its_aliases() -> None:
    def behaviour(request: Request, server: FaultServer) -> Iterator[bytes]:
        ttl_s, record = {
            "a.test": (7, "CNAME b.test."),
            "b.test": (300, "CNAME c.test."),
            "c.test": (300, 'TXT "end"'),
        }[request.name]
        ad = dns.flags.Flag(0) if request.name == "b.test" else dns.flags.Flag.AD
        yield request.reply(f"{request.name}. {ttl_s} IN {record}", flags=dns.flags.Flag.RA | ad)

    with FaultServer(behaviour) as server, resolver_of(server) as resolver:
        answer = ask(resolver, "a.test")
        assert (answer.texts(), answer.ttl_s, answer.dnssec) == ((b"end",), 7, Dnssec.INSECURE)
        assert ask(resolver, "c.test").dnssec is Dnssec.SECURE


@pytest.mark.attack("D35")
def test_an_alias_loop_ends() -> None:
    def behaviour(request: Request, server: FaultServer) -> Iterator[bytes]:
        yield request.reply(f"{request.name}. 300 IN CNAME {'b' if request.name == 'a.test' else 'a'}.test.")

    with FaultServer(behaviour) as server, resolver_of(server) as resolver:
        assert ask(resolver, "a.test").status is Status.TEMPFAIL
        assert len(server.requests) == 9


@pytest.mark.attack("N06")
def test_an_alias_to_a_hostile_name_is_not_asked_for() -> None:
    def behaviour(request: Request, server: FaultServer) -> Iterator[bytes]:
        yield request.reply(r"a.test. 300 IN CNAME x\000\;y.test.")

    with FaultServer(behaviour) as server, resolver_of(server) as resolver:
        assert ask(resolver, "a.test").status is Status.TEMPFAIL
        assert server.names() == ["a.test"]
        assert ask(resolver, "a.test", "CNAME").names() == (r"x\000\059y.test",)
