"""read_reply: what a reply says, told apart; hostile replies."""

from __future__ import annotations

import struct

import dns.exception
import dns.flags
import dns.message
import dns.name
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dns_fault_server import Request
from mailguard.dns.names import escaped_name, why_unaskable
from mailguard.dns.question import MX, TLSA, Answer, Dnssec, Question, RecordType, Status
from mailguard.dns.reply import NEGATIVE_TTL_WITHOUT_SOA_S, ServerFailure, Unfinished, read_reply
from mailguard.dns.wire import TLSA_AS_READ, read_message

AD = dns.flags.Flag.AD | dns.flags.Flag.RA
SOA = "test. 500 IN SOA ns.test. h.test. 1 2 3 4 200"


def request(name: str = "a.test", rdtype: str = "TXT") -> Request:
    return Request(dns.message.make_query(name, rdtype, use_edns=0), "udp", ("127.0.0.1", 1))


def read(wire: bytes, name: str = "a.test", rdtype: str = "TXT", *, trust_ad: bool = True) -> Answer | Unfinished:
    question = Question(name, RecordType(rdtype))
    return read_reply(question, read_message(wire), server="192.0.2.53", trust_ad=trust_ad)


@pytest.mark.parametrize(
    ("rdtype", "answer", "records"),
    [
        ("TXT", ['a.test. 60 IN TXT "v=DKIM1; " "p=AA"'], (b"v=DKIM1; p=AA",)),
        ("TXT", [r'a.test. 60 IN TXT "\255\000"'], (b"\xff\x00",)),
        ("TXT", ['a.test. 60 IN TXT "b"', 'A.TEST. 60 IN TXT "a"'], (b"b", b"a")),
        ("A", ["a.test. 60 IN A 192.0.2.1"], ("192.0.2.1",)),
        ("AAAA", ["a.test. 60 IN AAAA 2001:db8::1"], ("2001:db8::1",)),
        ("MX", ["a.test. 60 IN MX 5 MX.Test.", "a.test. 60 IN MX 1 b.test."], (MX(5, "mx.test"), MX(1, "b.test"))),
        ("MX", ["a.test. 60 IN MX 0 ."], (MX(0, ""),)),
        ("PTR", ["a.test. 60 IN PTR Host.Test."], ("host.test",)),
        ("CNAME", ["a.test. 60 IN CNAME Other.test."], ("other.test",)),
    ],
)
def test_records(rdtype: str, answer: list[str], records: tuple[object, ...]) -> None:
    result = read(request(rdtype=rdtype).reply(*answer), rdtype=rdtype)
    assert isinstance(result, Answer)
    assert (result.status, result.records, result.ttl_s) == (Status.NOERROR, records, 60)
    assert "192.0.2.53" in result.detail


@pytest.mark.attack("N06")
@pytest.mark.parametrize(
    ("label", "escaped"),
    [
        (b"a\x00b", r"a\000b"),
        (b"a b", r"a\032b"),
        (b"x;y", r"x\059y"),
        (b"(", r"\040"),
        (b"\r\n", r"\013\010"),
        (b"%n", r"\037n"),
        (b'"', r"\034"),
        (b"a.b", r"a\046b"),
        (b"\\", r"\092"),
        (b"\xc3\xbc", r"\195\188"),
        (b"*", r"\042"),
        (b"_Ab-9", "_ab-9"),
    ],
)
def test_hostile_names_are_escaped(label: bytes, escaped: str) -> None:
    target = dns.name.Name([label, b"test", b""])
    for rdtype in ("CNAME", "PTR"):
        result = read(request(rdtype=rdtype).reply(f"a.test. 60 IN {rdtype} {target}"), rdtype=rdtype)
        assert isinstance(result, Answer)
        assert result.records == (f"{escaped}.test",)
    result = read(request(rdtype="MX").reply(f"a.test. 60 IN MX 1 {target}"), rdtype="MX")
    assert isinstance(result, Answer)
    assert result.records == (MX(1, f"{escaped}.test"),)
    assert bool(why_unaskable(f"{escaped}.test")) is ("\\" in escaped)


@given(st.lists(st.binary(min_size=1, max_size=63), max_size=4))
def test_an_escaped_name_holds_no_delimiter_and_can_be_told_apart(labels: list[bytes]) -> None:
    text = escaped_name(labels)
    assert set(text) <= set("abcdefghijklmnopqrstuvwxyz0123456789-_.\\")
    back = [dns.name.from_text(part, None).labels[0] for part in text.split(".")] if text else []
    assert back == [label.lower() for label in labels]


@pytest.mark.attack("N11")
@pytest.mark.parametrize(
    ("rcode", "answer", "authority", "status", "ttl_s"),
    [
        ("NXDOMAIN", [], [SOA], Status.NXDOMAIN, 200),
        ("NXDOMAIN", [], ["test. 50 IN SOA ns.test. h.test. 1 2 3 4 200"], Status.NXDOMAIN, 50),
        ("NXDOMAIN", [], [], Status.NXDOMAIN, NEGATIVE_TTL_WITHOUT_SOA_S),
        ("NOERROR", [], [SOA], Status.NODATA, 200),
        ("NOERROR", [], [], Status.NODATA, NEGATIVE_TTL_WITHOUT_SOA_S),
        ("NOERROR", [], ["other. 5 IN SOA ns.test. h.test. 1 2 3 4 5"], Status.NODATA, NEGATIVE_TTL_WITHOUT_SOA_S),
        ("NXDOMAIN", ["a.test. 20 IN CNAME b.test."], [SOA], Status.NXDOMAIN, 20),
        ("NOERROR", ["a.test. 300 IN CNAME b.test."], [SOA], Status.NODATA, 200),
        ("NOERROR", ["a.test. 9 IN CNAME b.test.", 'b.test. 99 IN TXT "x"'], [], Status.NOERROR, 9),
        ("NOERROR", ["a.test. 99 IN CNAME b.test.", 'b.test. 9 IN TXT "x"'], [], Status.NOERROR, 9),
        ("NOERROR", ['a.test. 4294967295 IN TXT "x"'], [], Status.NOERROR, 0),
        ("NOERROR", ['a.test. 2147483647 IN TXT "x"'], [], Status.NOERROR, 2**31 - 1),
    ],
)
def test_status_and_ttl(rcode: str, answer: list[str], authority: list[str], status: Status, ttl_s: int) -> None:
    result = read(request().reply(*answer, rcode=rcode, authority=tuple(authority)))
    assert isinstance(result, Answer)
    assert (result.status, result.ttl_s) == (status, ttl_s)


@pytest.mark.attack("N03")
@pytest.mark.parametrize(
    "answer",
    [
        ['other.test. 60 IN TXT "forged"'],
        ["a.test. 60 IN A 192.0.2.6"],
        ['a.test. 60 CH TXT "forged"'],
        ['b.test. 60 IN TXT "forged"', "c.test. 60 IN CNAME a.test."],
    ],
)
def test_records_that_the_question_does_not_lead_to_are_ignored(answer: list[str]) -> None:
    result = read(request().reply(*answer, authority=(SOA, 'a.test. 60 IN TXT "forged"')))
    assert isinstance(result, Answer)
    assert (result.status, result.records) == (Status.NODATA, ())


@pytest.mark.attack("D35")
@pytest.mark.parametrize("aliases", range(1, 21))
def test_alias_chain_inside_one_reply(aliases: int) -> None:
    chain = [f"n{i}.test. 60 IN CNAME n{i + 1}.test." for i in range(aliases)]
    wire = request("n0.test").reply(*reversed(chain), f'n{aliases}.test. 60 IN TXT "end"')
    result = read(wire, "n0.test")
    assert isinstance(result, Answer)
    expected = (Status.NOERROR, (b"end",)) if aliases <= 8 else (Status.TEMPFAIL, ())
    assert (result.status, result.records) == expected


@pytest.mark.attack("D35")
@pytest.mark.parametrize("target", ["a.test.", "b.test."])
def test_alias_loop_inside_one_reply(target: str) -> None:
    result = read(request().reply("a.test. 60 IN CNAME " + target, "b.test. 60 IN CNAME a.test."))
    assert isinstance(result, Answer)
    assert result.status is Status.TEMPFAIL


def test_an_alias_without_its_target_is_unfinished() -> None:
    result = read(request().reply("a.test. 60 IN CNAME b.test.", "b.test. 30 IN CNAME c.test.", flags=AD))
    assert result == Unfinished(dns.name.from_text("c.test."), 2, 30, Dnssec.SECURE)


@pytest.mark.parametrize("rcode", ["SERVFAIL", "REFUSED", "FORMERR", "NOTIMP", "NOTAUTH", "YXDOMAIN"])
def test_a_failure_is_no_answer(rcode: str) -> None:
    with pytest.raises(ServerFailure, match=rcode):
        read(request().reply(rcode=rcode))


def test_a_referral_is_no_denial() -> None:
    with pytest.raises(ServerFailure, match="referral"):
        read(request().reply(authority=("test. 60 IN NS ns.test.",), flags=dns.flags.Flag(0)))


@pytest.mark.parametrize("code", range(30))
def test_bogus_is_what_the_extended_error_says(code: int) -> None:
    wire = request().reply(rcode="SERVFAIL", ede=(22, code))
    if code not in range(6, 13):
        with pytest.raises(ServerFailure) as caught:
            read(wire)
        detail = str(caught.value)
    else:
        result = read(wire)
        assert isinstance(result, Answer)
        assert (result.status, result.dnssec) == (Status.BOGUS, Dnssec.BOGUS)
        detail = result.detail
    assert str(code) in detail
    assert "stranger" not in detail


@pytest.mark.parametrize("rcode", ["REFUSED", "FORMERR"])
def test_an_extended_error_makes_nothing_but_servfail_bogus(rcode: str) -> None:
    with pytest.raises(ServerFailure):
        read(request().reply(rcode=rcode, ede=(6,)))


@pytest.mark.attack("N01")
@pytest.mark.parametrize(
    ("trust_ad", "flags", "dnssec"),
    [
        (True, AD, Dnssec.SECURE),
        (True, dns.flags.Flag.RA, Dnssec.INSECURE),
        (False, AD, Dnssec.INSECURE),
        (False, dns.flags.Flag.RA, Dnssec.INSECURE),
    ],
)
@pytest.mark.parametrize("rcode", ["NOERROR", "NXDOMAIN"])
def test_the_ad_bit_counts_from_a_trusted_server(
    trust_ad: bool, flags: dns.flags.Flag, dnssec: Dnssec, rcode: str
) -> None:
    result = read(request().reply(rcode=rcode, flags=flags), trust_ad=trust_ad)
    assert result.dnssec is dnssec


_WIRE = request().reply(
    "a.test. 60 IN CNAME b.test.", 'b.test. 60 IN TXT "v=spf1 -all" "x"', authority=(SOA,), ede=(6,)
)


@pytest.mark.attack("N05")
@settings(max_examples=400, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, len(_WIRE) - 1), st.integers(0, 255)), max_size=6), st.integers(0, len(_WIRE))
)
def test_a_damaged_reply_is_a_form_error_or_an_outcome(changes: list[tuple[int, int]], length: int) -> None:
    wire = bytearray(_WIRE)
    for position, octet in changes:
        wire[position] = octet
    for damaged in (bytes(wire), bytes(wire[:length])):
        try:
            message = read_message(damaged)
        except dns.exception.DNSException:
            continue
        try:
            result = read_reply(Question("a.test", RecordType.TXT), message, server="s", trust_ad=True)
        except ServerFailure:
            continue
        assert isinstance(result, Answer | Unfinished)


def test_tlsa_records_are_read_whatever_they_hold() -> None:
    """dnspython alone refuses the reply for one digest of the wrong length (RFC 6698 §4.1)."""
    good, short = b"\x03\x01\x01" + b"\xab" * 32, b"\x03\x01\x01\xab"
    number = struct.pack("!H", 52)

    def wire(*records: tuple[bytes, bytes]) -> bytes:
        written = [b"\xc0\x0c" + kind + struct.pack("!HIH", 1, 60, len(data)) + data for kind, data in records]
        asked = request("_25._tcp.a.test", "TLSA").reply()[:12]
        question = b"\x03_25\x04_tcp\x01a\x04test\x00" + number + b"\x00\x01"
        return asked[:4] + struct.pack("!4H", 1, len(written), 0, 0) + question + b"".join(written)

    def tlsa(*records: tuple[bytes, bytes]) -> tuple[TLSA, ...]:
        answer = read(wire(*records), "_25._tcp.a.test", "TLSA")
        assert isinstance(answer, Answer)
        return answer.associations()

    with pytest.raises(dns.exception.FormError):
        dns.message.from_wire(wire((number, good), (number, short)))
    of_good, of_short = TLSA(3, 1, 1, good[3:]), TLSA(3, 1, 1, short[3:])
    assert tlsa((number, good), (number, short)) == (of_good, of_short)
    assert tlsa((number, short)) == (of_short,)
    assert tlsa((number, b"\x03\x01\x01")) == (TLSA(3, 1, 1, b""),)
    # The number that stands for the type in between is nobody's.
    for private in (TLSA_AS_READ, TLSA_AS_READ + 1):
        assert tlsa((number, good), (struct.pack("!H", private), short)) == (of_good,)
    with pytest.raises(dns.exception.FormError):
        read(wire((number, good), (number, b"\x03\x01")), "_25._tcp.a.test", "TLSA")
