"""The ceilings of SPF (RFC 7208 §4.6.4 and ours), and how few rounds of look-ups it takes to stay below them."""

from __future__ import annotations

import pytest

from mailguard.dns.answers import Answers, Unanswered
from mailguard.dns.question import Answer, Question, RecordType, Status
from mailguard.spf.check import check_host
from mailguard.spf.limits import MAX_QUERIES, MAX_RECORD_OCTETS
from mailguard.spf.record import Record
from mailguard.spf.result import SpfIdentity, SpfReason, SpfResult, SpfStatus
from spf_asking import EVIL_IP, NOW, Asked, Session, Zone, envelope, record, recorded, session

V6 = "2001:db8::66"
REVERSE = "66.100.51.198.in-addr.arpa"


def found(result: SpfResult) -> tuple[str, str]:
    return result.status.value, result.reason.value


TOO_MANY_LOOKUPS = ("permerror", "too-many-lookups")
TOO_MANY_VOIDS = ("permerror", "too-many-voids")
NO_MATCH = ("neutral", "no-match")


def loop(length: int, how: str) -> Zone:
    """`length` records, each with the next, the last with evil.test's."""
    names = ["evil.test", *(f"n{number}.test" for number in range(1, length))]
    return {
        name: {"TXT": [f"v=spf1 {how}{after}"]} for name, after in zip(names, [*names[1:], names[0]], strict=True)
    }


@pytest.mark.attack("S01")
@pytest.mark.parametrize("how", ["include:", "redirect=", "-include:", "include:%{d}.include.invalid redirect="])
@pytest.mark.parametrize("length", [1, 2, 10])
def test_a_loop_ends(length: int, how: str) -> None:
    zone = loop(length, how)
    asked = session(zone)
    assert asked.result.status is SpfStatus.PERMERROR
    if "invalid" not in how:
        assert asked.result.reason is SpfReason.TOO_MANY_LOOKUPS
    assert len(asked.questions) <= 11


@pytest.mark.attack("S01")
def test_a_record_that_includes_itself_is_an_error_only_where_that_is_reached() -> None:
    for text in (f"v=spf1 ip4:{EVIL_IP} include:evil.test -all", f"v=spf1 ip4:{EVIL_IP} include:%{{d}} -all"):
        assert found(record(text)) == ("pass", "match")
        assert found(record(text, "192.0.2.1")) == TOO_MANY_LOOKUPS


@pytest.mark.attack("S01")
def test_the_same_record_may_be_included_twice() -> None:
    more: Zone = {"a.test": {"TXT": ["v=spf1 ip4:192.0.2.1"]}}
    asked = recorded("v=spf1 include:a.test include:a.test -all", more=more)
    assert (asked.result.status, asked.result.lookups) == (SpfStatus.FAIL, 2)
    assert asked.questions == ["evil.test TXT", "a.test TXT"]


TEN = " ".join(["a:a.test"] * 10)
A: Zone = {"a.test": {"A": ["192.0.2.1"], "AAAA": ["2001:db8:1::1"]}}


@pytest.mark.parametrize(
    ("text", "expected", "lookups"),
    [
        (f"{TEN} -all", ("fail", "match"), 10),
        (f"{TEN} a:a.test -all", TOO_MANY_LOOKUPS, 10),
        (f"{TEN} mx -all", TOO_MANY_LOOKUPS, 10),
        (f"{TEN} ptr -all", TOO_MANY_LOOKUPS, 10),
        (f"{TEN} exists:a.test -all", TOO_MANY_LOOKUPS, 10),
        (f"{TEN} include:b.test -all", TOO_MANY_LOOKUPS, 10),
        (f"{TEN} redirect=b.test", TOO_MANY_LOOKUPS, 10),
        (f"{TEN} exists:%{{p}}.a.test -all", TOO_MANY_LOOKUPS, 10),
        (f"{TEN} -all redirect=b.test", ("fail", "match"), 10),
        (f"{TEN} -all a:a.test", ("fail", "match"), 10),
        (f"{TEN} ip4:{EVIL_IP} redirect=b.test", ("pass", "match"), 10),
        (f"{TEN} ip4:{EVIL_IP} a:a.test exp=a.test -all", ("pass", "match"), 10),
        (f"ip4:{EVIL_IP} {TEN} {TEN}", ("pass", "match"), 0),
        ("ip4:192.0.2.1 ip6:::1 -all", ("fail", "match"), 0),
        ("exists:%{p}.a.test -all", ("fail", "match"), 2),
        ("exists:%{p}.a.test exists:%{p}.b.test -all", ("fail", "match"), 3),
        ("ptr exists:%{p}.a.test -all", ("fail", "match"), 2),
        ("-all exp=%{p}.a.test", ("fail", "match"), 0),
    ],
)
def test_ten_terms_may_look_something_up(text: str, expected: tuple[str, str], lookups: int) -> None:
    more: Zone = {**A, "b.test": {"TXT": ["v=spf1 -all"]}, "evil.test": {"MX": [(1, "a.test")]}}
    more = {**more, REVERSE: {"PTR": ["a.test"]}, "unknown.a.test": {"TXT": ["x"]}, "unknown.b.test": {"TXT": ["x"]}}
    result = record(f"v=spf1 {text}", more=more)
    assert found(result) == expected
    assert result.lookups == lookups


@pytest.mark.attack("S03")
def test_the_count_is_one_for_all_included_records() -> None:
    more: Zone = {
        **{
            f"n{one}.test": {"TXT": [f"v=spf1 include:n{one}a.test include:n{one}b.test a:a.test"]}
            for one in range(4)
        },
        **{f"n{one}{two}.test": {"TXT": ["v=spf1 a:a.test"]} for one in range(4) for two in "ab"},
        **A,
    }
    four = recorded("v=spf1 include:n0.test include:n1.test include:n2.test include:n3.test -all", more=more)
    assert found(four.result) == TOO_MANY_LOOKUPS
    assert len(four.questions) <= MAX_QUERIES
    assert found(record("v=spf1 include:n0.test -all", more=more)) == ("fail", "match")


@pytest.mark.attack("S02")
def test_thirty_queries_are_the_most_for_one_check() -> None:
    hosts = {f"h{one}.m{term}.test": {"A": [f"192.0.2.{one}"]} for term in range(10) for one in range(10)}
    more: Zone = {
        **{f"m{term}.test": {"MX": [(one, f"h{one}.m{term}.test") for one in range(10)]} for term in range(10)},
        **hosts,
    }
    text = "v=spf1 " + " ".join(f"mx:m{term}.test" for term in range(10)) + " -all"
    asked = recorded(text, more=more)
    assert found(asked.result) == TOO_MANY_LOOKUPS
    assert len(asked.questions) == len(set(asked.questions)) <= MAX_QUERIES == 30
    assert len(asked.consumed) == MAX_QUERIES
    # Within the ceiling the same is legal, and a match before it counts.
    two = "v=spf1 " + " ".join(f"mx:m{term}.test" for term in range(2)) + " -all"
    assert found(record(two, more=more)) == ("fail", "match")
    assert found(record(text, "192.0.2.3", more)) == ("pass", "match")


@pytest.mark.parametrize("ip", [EVIL_IP, V6])
@pytest.mark.parametrize(
    ("text", "expected", "voids"),
    [
        ("a:n1.test a:n2.test", NO_MATCH, 2),
        ("a:n1.test a:n2.test a:n3.test", TOO_MANY_VOIDS, 3),
        ("a:n1.test a:n1.test a:n1.test", TOO_MANY_VOIDS, 3),
        ("a:n1.test mx:n2.test exists:n3.test", TOO_MANY_VOIDS, 3),
        ("mx:n1.test mx:n2.test mx:n3.test", TOO_MANY_VOIDS, 3),
        ("exists:n1.test exists:n2.test exists:n3.test", TOO_MANY_VOIDS, 3),
        ("a:n1.test a:n2.test include:n3.test", TOO_MANY_VOIDS, 3),
        ("a:n1.test include:n2.test", ("permerror", "no-included-record"), 2),
        ("a:n1.test include:b.test a:n2.test", TOO_MANY_VOIDS, 3),
        ("ptr a:n1.test", NO_MATCH, 2),
        ("ptr a:n1.test ptr", TOO_MANY_VOIDS, 3),
        ("exists:%{p}.n1.test a:n2.test", NO_MATCH, 2),
        ("a:mx.test mx:n2.test exists:mx.test", TOO_MANY_VOIDS, 3),
        ("mx:mx.test mx:mx.test mx:mx.test", NO_MATCH, 0),
        ("ip4:192.0.2.1 a:a..test a:a..test a:a..test", NO_MATCH, 0),
        ("a:n1.test a:n2.test all a:n3.test", ("pass", "match"), 2),
    ],
)
@pytest.mark.attack("S04")
def test_two_terms_may_look_up_what_does_not_exist(text: str, expected: tuple[str, str], voids: int, ip: str) -> None:
    """NXDOMAIN and NODATA alike. The hosts of an MX record are no terms, and count not at all."""
    more: Zone = {
        "b.test": {"TXT": ["v=spf1 a:n4.test"]},
        "mx.test": {"MX": [(number, f"n{number}.test") for number in range(5)]},
    }
    result = record(f"v=spf1 {text}", ip, more)
    assert found(result) == expected
    assert result.voids == voids


@pytest.mark.attack("S04")
def test_a_name_with_addresses_of_the_other_family_only_is_void() -> None:
    """RFC 7208 §4.6.4: "a positive answer (RCODE 0) with an answer count of 0"."""
    more: Zone = {f"v4{one}.test": {"A": ["192.0.2.1"]} for one in "abc"}
    text = "v=spf1 a:v4a.test a:v4b.test a:v4c.test -all"
    assert found(record(text, V6, more)) == TOO_MANY_VOIDS
    assert found(record(text, EVIL_IP, more)) == ("fail", "match")


@pytest.mark.attack("S05")
@pytest.mark.parametrize(
    ("count", "expected"), [(10, ("fail", "match")), (11, TOO_MANY_LOOKUPS), (200, TOO_MANY_LOOKUPS)]
)
def test_ten_mail_servers_may_be_looked_up(count: int, expected: tuple[str, str]) -> None:
    more: Zone = {"mx.test": {"MX": [(number, f"h{number}.test") for number in range(count)]}}
    more = {**more, **{f"h{number}.test": {"A": ["192.0.2.1"]} for number in range(count)}}
    asked = recorded("v=spf1 mx:mx.test -all", more=more)
    assert found(asked.result) == expected
    assert sum(question.startswith("h") for question in asked.consumed) == (count if count <= 10 else 0)
    assert len(asked.questions) <= MAX_QUERIES


@pytest.mark.attack("S06")
def test_of_two_hundred_names_of_the_client_ten_are_looked_up_once() -> None:
    names = [f"h{number}.test" for number in range(200)]
    more: Zone = {REVERSE: {"PTR": names}, **{name: {"A": [EVIL_IP]} for name in names}}
    text = "v=spf1 exists:%{p}.n1.test -exists:%{p}.n2.test ptr:h9.test -all exp=%{p}.n3.test"
    asked = recorded(text, more=more)
    assert (asked.result.status, asked.result.mechanism) == (SpfStatus.PASS, "ptr:h9.test")
    assert asked.consumed.count(f"{REVERSE} PTR") == 1
    assert sum(question.startswith("h") and question.count(".") == 1 for question in asked.questions) == 10
    tenth = recorded("v=spf1 ptr:h10.test -all", more=more)
    assert tenth.result.status is SpfStatus.FAIL


@pytest.mark.attack("S06")
@pytest.mark.parametrize(
    ("entry", "status"),
    [
        ({}, {}),
        ({"PTR": ["h.test"]}, {}),
        ({"PTR": ["other.test"]}, {}),
        ({"PTR": ["host.evil.test"]}, {(REVERSE, "PTR"): Status.TEMPFAIL}),
        ({"PTR": ["host.evil.test"]}, {(REVERSE, "PTR"): Status.BOGUS}),
        ({"PTR": ["host.evil.test"]}, {("host.evil.test", "A"): Status.TEMPFAIL}),
        ({"PTR": ["localhost", "\\000.evil.test", "a;b.evil.test", "a b.evil.test"]}, {}),
    ],
    ids=["no name", "name without address", "another address", "servfail", "bogus", "servfail below", "odd names"],
)
def test_p_is_unknown_after_any_trouble(entry: dict[str, list[str]], status: dict[tuple[str, str], Status]) -> None:
    zone: Zone = {
        "evil.test": {"TXT": ["v=spf1 exists:%{p}.check.test -all"]},
        REVERSE: entry,
        "host.evil.test": {"A": [EVIL_IP]},
        "other.test": {"A": ["192.0.2.77"]},
        "unknown.check.test": {"A": ["127.0.0.2"]},
    }
    assert session(zone, status=status).result.status is SpfStatus.PASS


@pytest.mark.attack("S06")
@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["z.other.test", "a.evil.test", "evil.test"], "evil.test"),
        (["z.other.test", "b.evil.test", "a.evil.test"], "b.evil.test"),
        (["z.other.test", "notevil.test"], "z.other.test"),
        (["Z.Other.Test"], "z.other.test"),
    ],
)
def test_which_name_p_is(names: list[str], expected: str) -> None:
    """RFC 7208 §7.3: <domain>, or else a subdomain of it, or else any."""
    more: Zone = {REVERSE: {"PTR": names}, **{name: {"A": [EVIL_IP]} for name in names}}
    more = {**more, f"{expected}.check.test": {"A": ["127.0.0.2"]}}
    assert (
        record("v=spf1 exists:%{p}.check.test -all", more={**more, "evil.test": more.get("evil.test", {})}).status
        is SpfStatus.PASS
    )


def test_p_depends_on_the_domain_of_each_record() -> None:
    """pyspf keeps what it was in the first."""
    more: Zone = {
        REVERSE: {"PTR": ["mail.evil.test", "mail.a.test"]},
        "mail.evil.test": {"A": [EVIL_IP]},
        "mail.a.test": {"A": [EVIL_IP]},
        "a.test": {"TXT": ["v=spf1 exists:%{p}.check.test -all"]},
        "mail.a.test.check.test": {"A": ["127.0.0.2"]},
    }
    assert record("v=spf1 exists:%{p}.check.test include:a.test -all", more=more).status is SpfStatus.PASS


def test_p_is_not_looked_up_for_a_term_that_is_not_reached() -> None:
    text = f"v=spf1 a:a.test ip4:{EVIL_IP} exists:%{{p}}.check.test include:%{{p}}.x.test exp=%{{p}}.check.test -all"
    asked = recorded(text, more=A)
    assert asked.result.status is SpfStatus.PASS
    assert asked.questions == ["evil.test TXT", "a.test A"]


@pytest.mark.attack("S10")
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("v=spf1" + " ip4:192.0.2.1" * 10_000 + " +all", ("permerror", "record-size")),
        ("v=spf1" + " " * (MAX_RECORD_OCTETS - 10) + "+all", ("pass", "match")),
        ("v=spf1" + " " * (MAX_RECORD_OCTETS - 9) + "+all", ("permerror", "record-size")),
    ],
    ids=["10,000 terms", "the most", "one more"],
)
def test_the_size_of_a_record(text: str, expected: tuple[str, str]) -> None:
    assert found(record(text)) == expected
    assert found(record("v=spf1 include:big.test", more={"big.test": {"TXT": [text]}})) == expected
    assert len(record(text).record or "") <= MAX_RECORD_OCTETS


# -- rounds of look-ups ---------------------------------------------------------------------------------------------

TREE: Zone = {
    "i1.test": {"TXT": ["v=spf1 include:i11.test a:h1.test -all"]},
    "i11.test": {"TXT": ["v=spf1 ip4:192.0.2.0/24 mx:m1.test -all"]},
    "i2.test": {"TXT": ["v=spf1 a:h2.test redirect=i21.test"]},
    "i21.test": {"TXT": ["v=spf1 exists:x.test ?all"]},
    "i3.test": {"TXT": ["v=spf1 ip4:192.0.2.99 -all"]},
    "m1.test": {"MX": [(1, "h4.test"), (2, "h5.test")]},
    "evil.test": {"MX": [(1, "h6.test")]},
    **{f"h{number}.test": {"A": ["192.0.2.99"]} for number in range(1, 7)},
    "x.x.test": {},
}
TREE_TEXT = "v=spf1 mx include:i1.test include:i2.test -include:i3.test ~all"


def test_what_does_not_depend_on_macros_is_asked_for_together() -> None:
    asked = recorded(TREE_TEXT, more=TREE)
    assert (asked.result.status, asked.result.lookups) == (SpfStatus.SOFTFAIL, 10)
    assert len(asked.consumed) == 14
    # As many as the longest chain has links: evil, i1, i11, the MX of m1, its hosts.
    assert len(asked.rounds) == 5
    assert set(asked.questions) == set(asked.consumed), "nothing else was asked"


def one_at_a_time(text: str, more: Zone, ip: str = EVIL_IP) -> Session:
    """Answers only what the evaluation itself asked, never what it asked ahead."""
    zone: Zone = {**more, "evil.test": {**more.get("evil.test", {}), "TXT": [text]}}
    resolver = Asked(zone)
    known: dict[Question, Answer] = {}
    while True:
        answers = Answers(known)
        try:
            result = check_host(envelope(ip=ip), answers, identity=SpfIdentity.MAIL_FROM, now=NOW)
        except Unanswered:
            known.update(resolver.resolve(answers.missing[:1], deadline=0.0))
            continue
        return Session(result, resolver.rounds, [str(answer.question) for answer in answers.consumed])


@pytest.mark.parametrize("ip", [EVIL_IP, "192.0.2.99", "192.0.2.1", V6])
@pytest.mark.parametrize(
    "text",
    [
        TREE_TEXT,
        "v=spf1 include:i2.test redirect=i1.test",
        "v=spf1 a:n1.test a:n2.test a:n3.test include:i1.test",
        "v=spf1 ptr mx:m1.test exists:%{i}.x.test include:%{d1}.%{d1} -all",
        "v=spf1 include:%{v}.evil.test include:i1.test -all",
        "v=spf1 include:i1.test foo",
    ],
)
def test_asking_ahead_changes_no_result(text: str, ip: str) -> None:
    """Neither the result nor what it was made from, in order."""
    alone, ahead = one_at_a_time(text, TREE, ip), recorded(text, ip, TREE)
    assert alone.result == ahead.result
    assert alone.consumed == ahead.consumed
    assert len(ahead.rounds) <= len(alone.rounds)


def test_below_an_include_with_macros_too() -> None:
    more: Zone = {
        "in-addr.i.test": {"TXT": ["v=spf1 a:h1.test a:h2.test a:h3.test a:h4.test -all"]},
        **{f"h{number}.test": {"A": ["192.0.2.99"]} for number in range(1, 5)},
    }
    asked = recorded("v=spf1 include:%{v}.i.test ~all", more=more)
    assert asked.result.status is SpfStatus.SOFTFAIL
    assert len(asked.rounds) == 3


def test_hosts_are_asked_for_together() -> None:
    """Also where only the evaluation itself can know them."""
    hosts = [f"h{number}.test" for number in range(5)]
    more: Zone = {
        "evil.mail.test": {"MX": [(number, name) for number, name in enumerate(hosts)]},
        REVERSE: {"PTR": hosts},
        **{name: {"A": ["192.0.2.99"]} for name in hosts},
    }
    assert [len(batch) for batch in recorded("v=spf1 mx:%{d1r}.mail.test ~all", more=more).rounds] == [1, 1, 5]
    assert [len(batch) for batch in recorded("v=spf1 exists:%{p}.x.test ~all", more=more).rounds] == [1, 1, 5, 1]


def test_behind_all_nothing_is_asked_ahead() -> None:
    asked = recorded("v=spf1 a:a.test -all a:b.test include:c.test redirect=d.test", more=A)
    assert asked.questions == ["evil.test TXT", "a.test A"]


@pytest.mark.attack("S02")
def test_what_is_asked_ahead_stays_below_the_same_ceilings() -> None:
    """The evaluation ends at the second term; asking ahead does not run away meanwhile."""
    more: Zone = {
        **{f"m{term}.test": {"MX": [(one, f"h{one}.m{term}.test") for one in range(10)]} for term in range(10)},
        "slow.test": {"TXT": ["v=spf1 include:slow2.test"]},
        "slow2.test": {"TXT": ["v=spf1 include:slow3.test"]},
        "slow3.test": {"TXT": ["v=spf1 +all"]},
    }
    text = "v=spf1 include:slow.test " + " ".join(f"mx:m{term}.test" for term in range(12)) + " -all"
    asked = recorded(text, more=more)
    assert found(asked.result) == ("pass", "match")
    assert asked.questions[2:11] == [f"m{term}.test MX" for term in range(9)], "ten terms, and no hosts"
    assert len(asked.questions) == 4 + 9


def test_in_a_round_each_record_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the evaluation or to ask ahead; records may have 8 kB, and there may be eleven."""
    read: list[bytes] = []
    parse = Record.parse

    def counted(text: bytes) -> Record:
        read.append(text)
        return parse(text)

    texts = {
        "evil.test": "v=spf1 include:n1.test include:s1.test",
        "n1.test": "v=spf1 include:n2.test include:s2.test include:s3.test",
        "n2.test": "v=spf1 include:s4.test a:unknown.test include:s5.test",
        **{f"s{number}.test": f"v=spf1 ip4:192.0.2.{number}" for number in range(1, 6)},
    }
    known = {
        Question(name, RecordType.TXT): Answer(Question(name, RecordType.TXT), Status.NOERROR, (text.encode(),))
        for name, text in texts.items()
    }
    monkeypatch.setattr(Record, "parse", counted)
    with pytest.raises(Unanswered):
        check_host(envelope(), Answers(known), identity=SpfIdentity.MAIL_FROM, now=NOW)
    assert sorted(read) == sorted(text.encode() for text in texts.values())


def test_nothing_is_asked_twice() -> None:
    asked = recorded(TREE_TEXT, more=TREE)
    assert len(asked.questions) == len(set(asked.questions))


def test_after_the_deadline_what_is_unknown_is_a_temperror() -> None:
    answers = Answers({}, closed=True)
    result = check_host(envelope(), answers, identity=SpfIdentity.MAIL_FROM, now=NOW)
    assert found(result) == ("temperror", "dns")
    txt = Question("evil.test", RecordType.TXT)
    known = {txt: Answer(txt, Status.NOERROR, (b"v=spf1 include:a.test mx ptr a -all",))}
    result = check_host(envelope(), Answers(known, closed=True), identity=SpfIdentity.MAIL_FROM, now=NOW)
    assert found(result) == ("temperror", "dns")
    assert "a.test" in result.detail
