"""The octets of a query, and read_plain_reply: what dnspython and read_reply make of the same octets, or nothing."""

from __future__ import annotations

import random
from collections.abc import Callable

import dns.flags
import dns.message
import dns.name
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dns_fault_server import Request
from mailguard.dns.names import why_unaskable
from mailguard.dns.plain_reply import read_plain_reply
from mailguard.dns.query import TYPE_NUMBERS, Query, labels_of_question
from mailguard.dns.question import Answer, Question, RecordType, Status
from mailguard.dns.reply import ServerFailure, Unfinished, read_reply
from mailguard.dns.wire import read_message
from reply_octets import made_names, made_reply, mutated

IDENTITY = b"\x5a\xa5"
SOA = "test. 500 IN SOA ns.test. h.test. 1 2 3 4 200"
AD = dns.flags.Flag.AD | dns.flags.Flag.RA


def query_for(question: Question) -> Query:
    return Query.of(labels_of_question(question.name), question.rdtype, identity=IDENTITY)


def request(question: Question) -> Request:
    return Request(dns.message.from_wire(query_for(question).wire), "udp", ("127.0.0.1", 1))


def read(question: Question, wire: bytes, *, trust_ad: bool = True) -> Answer | None:
    return read_plain_reply(question, query_for(question), wire, server="192.0.2.53", trust_ad=trust_ad)


def read_by_dnspython(question: Question, wire: bytes, *, trust_ad: bool = True) -> Answer | Unfinished | None:
    """None where the reply is dropped, or where another server is asked."""
    query = dns.message.from_wire(query_for(question).wire)
    try:
        message = read_message(wire)
    except Exception:  # noqa: BLE001  # as exchange.py has it
        return None
    if not query.is_response(message):
        return None
    if message.question and message.question[0].name.labels != query.question[0].name.labels:
        return None
    try:
        return read_reply(question, message, server="192.0.2.53", trust_ad=trust_ad)
    except ServerFailure:
        return None


# -- the query ----------------------------------------------------------------------------------------------------

ASKABLE = st.text(st.sampled_from([chr(octet) for octet in range(0x20, 0x7F)]), min_size=1, max_size=253).filter(
    lambda name: not why_unaskable(name)
)


@given(
    ASKABLE | st.sampled_from(["a", "a.test", ".".join(["a" * 61] * 4), "bounce+u=x.test", "a b.test", '";(.test'])
)
def test_a_query_is_what_dnspython_would_send(name: str) -> None:
    for rdtype in TYPE_NUMBERS:
        message = dns.message.make_query(name, rdtype.value, use_edns=0, payload=1232)
        message.flags |= dns.flags.AD
        message.id = int.from_bytes(IDENTITY, "big")
        assert query_for(Question(name, rdtype)).wire == message.to_wire()


# -- what is plain ------------------------------------------------------------------------------------------------

Reply = tuple[str, list[str], tuple[str, ...]]
PLAIN: dict[str, tuple[str, Reply]] = {
    "txt": ("TXT", ("NOERROR", ['a.test. 60 IN TXT "v=DKIM1; " "p=AA"'], ())),
    "empty string": ("TXT", ("NOERROR", ['a.test. 60 IN TXT ""'], ())),
    "several": ("TXT", ("NOERROR", ['a.test. 60 IN TXT "b"', 'a.test. 60 IN TXT "a"'], ())),
    "other case": ("TXT", ("NOERROR", ['A.TEST. 60 IN TXT "a"'], ())),
    "a": ("A", ("NOERROR", ["a.test. 60 IN A 192.0.2.1", "a.test. 60 IN A 0.0.0.0"], ())),
    "aaaa": ("AAAA", ("NOERROR", ["a.test. 60 IN AAAA 2001:db8::1", "a.test. 60 IN AAAA ::ffff:192.0.2.1"], ())),
    "mx": ("MX", ("NOERROR", ["a.test. 60 IN MX 5 MX.Test.", "a.test. 60 IN MX 1 b.test."], ())),
    "null mx": ("MX", ("NOERROR", ["a.test. 60 IN MX 0 ."], ())),
    "ptr": ("PTR", ("NOERROR", [r"a.test. 60 IN PTR Ho\000st.Test."], ())),
    "tlsa": ("TLSA", ("NOERROR", [f"a.test. 60 IN TLSA 3 1 1 {'fe' * 32}", "a.test. 60 IN TLSA 255 0 0 aa"], ())),
    "cname": ("CNAME", ("NOERROR", ["a.test. 60 IN CNAME B.test."], ())),
    "alias": ("TXT", ("NOERROR", ["a.test. 9 IN CNAME b.test.", 'b.test. 99 IN TXT "x"'], ())),
    "aliases": (
        "A",
        ("NOERROR", ["c.test. 9 IN A 192.0.2.1", "b.a.test. 8 IN CNAME C.test.", "a.test. 7 IN CNAME b.a.test."], ()),
    ),
    "alias of nothing": ("TXT", ("NXDOMAIN", ["a.test. 20 IN CNAME b.test."], (SOA,))),
    "nxdomain": ("TXT", ("NXDOMAIN", [], (SOA,))),
    "nodata": ("MX", ("NOERROR", [], (SOA,))),
    "nodata, soa of the root": ("TXT", ("NOERROR", [], (". 5 IN SOA ns.test. h.test. 1 2 3 4 200",))),
    "record and soa": ("TXT", ("NOERROR", ['a.test. 60 IN TXT "a"'], (SOA,))),
    "nxdomain with a record": ("TXT", ("NXDOMAIN", ['a.test. 60 IN TXT "a"'], ())),
    "record of another name": ("TXT", ("NOERROR", ['b.test. 60 IN TXT "forged"'], (SOA,))),
    "longest ttl": ("TXT", ("NOERROR", ['a.test. 2147483647 IN TXT "x"'], ())),
}


@pytest.mark.parametrize("case", PLAIN)
@pytest.mark.parametrize("flags", [AD, dns.flags.Flag.RA], ids=["ad", "no ad"])
@pytest.mark.parametrize("edns", [True, False], ids=["edns", "no edns"])
def test_a_plain_reply_is_read_as_by_dnspython(case: str, flags: dns.flags.Flag, edns: bool) -> None:
    rdtype, (rcode, records, authority) = PLAIN[case]
    question = Question("a.test", RecordType(rdtype))
    asked = request(question)
    if not edns:
        asked.message.use_edns(False)
    wire = asked.reply(*records, rcode=rcode, authority=authority, flags=flags)
    for trust_ad in (True, False):
        answer = read(question, wire, trust_ad=trust_ad)
        assert answer is not None
        assert answer == read_by_dnspython(question, wire, trust_ad=trust_ad)


NS = "test. 60 IN NS ns.test."
NOT_PLAIN: dict[str, tuple[str, list[str], tuple[str, ...]]] = {
    "servfail": ("SERVFAIL", [], ()),
    "refused": ("REFUSED", [], ()),
    "extended rcode": ("BADVERS", [], (SOA,)),
    "nodata without soa": ("NOERROR", [], ()),
    "nxdomain without soa": ("NXDOMAIN", [], ()),
    "soa of another zone": ("NXDOMAIN", [], ("other. 5 IN SOA ns.test. h.test. 1 2 3 4 5",)),
    "soa beside": ("NXDOMAIN", [], ("est. 5 IN SOA ns.test. h.test. 1 2 3 4 5",)),
    "soa below": ("NXDOMAIN", [], ("b.a.test. 5 IN SOA ns.test. h.test. 1 2 3 4 5",)),
    "two soa": ("NXDOMAIN", [], (SOA, "a.test. 5 IN SOA ns.test. h.test. 1 2 3 4 5")),
    "referral": ("NOERROR", [], (NS,)),
    "record and ns": ("NOERROR", ['a.test. 60 IN TXT "a"'], (NS,)),
    "other type": ("NOERROR", ['a.test. 60 IN TXT "a"', "a.test. 60 IN A 192.0.2.1"], ()),
    "other class": ("NOERROR", ['a.test. 60 CH TXT "a"'], ()),
    "two aliases": ("NOERROR", ["a.test. 60 IN CNAME b.test.", "A.test. 60 IN CNAME c.test."], ()),
    "unfinished alias": ("NOERROR", ["a.test. 60 IN CNAME b.test."], ()),
    "alias loop": ("NOERROR", ["a.test. 60 IN CNAME b.test.", "b.test. 60 IN CNAME a.test."], ()),
    "nine aliases": (
        "NOERROR",
        [
            "a.test. 60 IN CNAME n0.test.",
            *(f"n{i}.test. 60 IN CNAME n{i + 1}.test." for i in range(8)),
            "n8.test. 60 IN TXT x",
        ],
        (),
    ),
    "ttl beyond the largest": ("NOERROR", ['a.test. 2147483648 IN TXT "x"'], ()),
}  # fmt: skip


@pytest.mark.attack("N03", "N05", "D35")
@pytest.mark.parametrize("case", NOT_PLAIN)
def test_what_is_not_plain_is_left_to_dnspython(case: str) -> None:
    question = Question("a.test", RecordType.TXT)
    rcode, records, authority = NOT_PLAIN[case]
    assert read(question, request(question).reply(*records, rcode=rcode, authority=authority)) is None


def test_the_zone_of_a_denial_begins_at_a_label() -> None:
    """The octets of a label may look like a length and a label."""
    question = Question("x!" + "b" * 33 + ".test", RecordType.TXT)
    soa = "b" * 33 + ".test. 5 IN SOA ns.test. h.test. 1 2 3 4 5"
    assert read(question, request(question).reply(rcode="NXDOMAIN", authority=(soa,))) is None
    assert read(question, request(question).reply(rcode="NXDOMAIN", authority=(SOA,))) is not None


def replaced(old: bytes, new: bytes) -> Callable[[bytes], bytes]:
    def change(wire: bytes) -> bytes:
        assert old in wire
        return wire.replace(old, new, 1)

    return change


RECORD = b"\xc0\x0c\x00\x10\x00\x01\x00\x00\x00\x3c\x00\x02\x01x"
CHANGES: dict[str, Callable[[bytes], bytes]] = {
    "other id": lambda wire: b"\x5a\xa4" + wire[2:],
    "no reply": lambda wire: wire[:2] + bytes([wire[2] & 0x7F]) + wire[3:],
    "other opcode": lambda wire: wire[:2] + bytes([wire[2] | 0x20]) + wire[3:],
    "truncated": lambda wire: wire[:2] + bytes([wire[2] | 0x02]) + wire[3:],
    "no question": lambda wire: wire[:4] + b"\x00\x00" + wire[6:],
    "case of the question": replaced(b"\x01a\x04test", b"\x01A\x04test"),
    "name of the question": replaced(b"\x01a\x04test", b"\x01b\x04test"),
    "type of the question": replaced(b"test\x00\x00\x10", b"test\x00\x00\x01"),
    "class of the question": replaced(b"test\x00\x00\x10\x00\x01", b"test\x00\x00\x10\x00\x03"),
    "junk behind": lambda wire: wire + b"\x00",
    "cut": lambda wire: wire[:-1],
    "empty": lambda wire: b"",
    "only the id": lambda wire: wire[:2],
    "same record twice": lambda wire: wire[:6] + b"\x00\x02" + wire[8:].replace(RECORD, RECORD * 2),
    "one record too few": lambda wire: wire[:6] + b"\x00\x00" + wire[8:],
    "one record too many": lambda wire: wire[:6] + b"\x00\x02" + wire[8:],
    "no string": replaced(b"\x00\x02\x01x", b"\x00\x00"),
    "string beyond the record": replaced(b"\x01x", b"\x02x"),
    "string short of the end": replaced(b"\x01x", b"\x00x"),
    "option in opt": lambda wire: wire[:-2] + b"\x00\x04\x00\x0a\x00\x00",
    "extended rcode": lambda wire: wire[:-6] + b"\x01" + wire[-5:],
    "opt with a name": lambda wire: wire[:-11] + b"\xc0\x0c" + wire[-10:],
    "owner points forward": replaced(b"\xc0\x0c", b"\xc0\x20"),
    "owner points to itself": replaced(b"\xc0\x0c", b"\xc0\x18"),
}


@pytest.mark.attack("N03", "N05")
@pytest.mark.parametrize("change", CHANGES)
def test_an_altered_reply_is_left_to_dnspython(change: str) -> None:
    question = Question("a.test", RecordType.TXT)
    wire = request(question).reply('a.test. 60 IN TXT "x"')
    assert RECORD in wire
    assert read(question, wire) is not None
    assert read(question, CHANGES[change](wire)) is None


# -- the same, or nothing -----------------------------------------------------------------------------------------


@pytest.mark.attack("N05")
@pytest.mark.parametrize("seed", range(8))
def test_what_is_read_is_what_dnspython_reads(seed: int) -> None:
    """Made and damaged replies: an answer is that of dnspython, and there are many."""
    chance = random.Random(seed)
    read_replies = denials = 0
    for _ in range(2_000):
        rdtype = chance.choice(list(TYPE_NUMBERS))
        question = Question(chance.choice(["a.test", "x.a.test", "_dmarc.a.test"]), rdtype)
        wire = made_reply(chance, query_for(question))
        for octets in (wire, mutated(chance, wire), mutated(chance, mutated(chance, wire))):
            answer = read(question, octets)
            if answer is not None:
                expected = read_by_dnspython(question, octets)
                assert answer == expected, octets.hex()
                read_replies += 1
                denials += answer.status is not Status.NOERROR
    assert read_replies > 400
    assert denials > 100


@pytest.mark.attack("N05")
@pytest.mark.parametrize("seed", range(4))
def test_names_are_those_that_dnspython_reads(seed: int) -> None:
    """Pointers to pointers, into the middle of labels, to where they stand; 255 octets and more."""
    chance = random.Random(seed)
    question = Question("a.test", RecordType.PTR)
    refused = read_replies = 0
    for _ in range(1_000):
        octets = made_names(chance, query_for(question))
        answer = read(question, octets)
        if answer is None:
            refused += 1
        else:
            assert answer == read_by_dnspython(question, octets), octets.hex()
            read_replies += 1
    assert refused > 100
    assert read_replies > 100
