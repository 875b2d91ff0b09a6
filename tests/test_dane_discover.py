"""What DANE demands of delivery: where it looks, in which order, and what comes of each answer."""

from __future__ import annotations

import itertools
import time
from typing import Any

import pytest

from dane_asking import EE, TA, ZONE, Records, found, only_host, zone
from mailguard.dane.destination import Destination
from mailguard.dane.discover import MAX_HOSTS, MAX_RRSET, InsecureMx, discover
from mailguard.dane.record import TlsaRecords, read_records
from mailguard.dane.result import DaneStatus, HostOutcome, HostReason
from mailguard.dns.answers import Answers, Unanswered
from mailguard.dns.question import Answer, Dnssec, Question, RecordType, Status
from mailguard.dns.zone import ZoneResolver
from mailguard.domain import Domain
from mailguard.pipeline import check_dane

A, AAAA, MX, TLSA, CNAME = RecordType.A, RecordType.AAAA, RecordType.MX, RecordType.TLSA, RecordType.CNAME
TLSA_NAME = "_25._tcp.mx.example.com"
UNUSABLE = (1, 1, 1, "ab" * 32)


def with_(**entries: Any) -> Records:
    """ZONE with other entries, whose names have __ for a dot."""
    return {**ZONE, **{name.replace("__", "."): entry for name, entry in entries.items()}}


def without(*names: str) -> Records:
    return {name: entry for name, entry in ZONE.items() if name not in names}


# -- the plain case -----------------------------------------------------------------------------------------------


def test_the_plain_case() -> None:
    policy, asked = found("example.com", zone())
    (host,) = policy.hosts
    assert (policy.status, policy.mx_dnssec, policy.destination) == (DaneStatus.HOSTS, Dnssec.SECURE, "example.com")
    assert (host.outcome, host.reason) == (HostOutcome.AUTHENTICATE, HostReason.USABLE_RECORDS)
    assert (host.name, host.preference, host.base_domain) == ("mx.example.com", 10, "mx.example.com")
    assert host.addresses == ("192.0.2.1", "2001:db8::1")
    assert host.reference_ids == ("mx.example.com", "example.com")
    assert [str(record) for record in host.records.taken] == [f"3 1 1 {'ab' * 32}"]
    assert asked == [
        Question("example.com", MX),
        Question("mx.example.com", A),
        Question("mx.example.com", AAAA),
        Question(TLSA_NAME, TLSA),
    ]


def test_nobody_takes_a_policy_for_a_truth_value() -> None:
    policy, _ = found("example.com", zone())
    for value in (policy, policy.hosts[0]):
        with pytest.raises(TypeError):
            bool(value)


def test_check_dane() -> None:
    policy = check_dane("example.com", resolver=zone())
    assert policy.outcomes == {HostOutcome.AUTHENTICATE}
    assert check_dane("example.com", resolver=zone(), port=26).outcomes == {HostOutcome.OPPORTUNISTIC}
    with pytest.raises(ValueError, match="character"):
        check_dane("not a domain", resolver=zone())


# -- the four outcomes --------------------------------------------------------------------------------------------

# (id, RFC section, zone, outcome, reason)
OUTCOMES: list[tuple[str, str, ZoneResolver, HostOutcome, HostReason]] = [
    ("usable", "7672 2.2", zone(), HostOutcome.AUTHENTICATE, HostReason.USABLE_RECORDS),
    (
        "one of several usable",
        "7672 2.2",
        zone(with_(_25___tcp__mx__example__com={"TLSA": [UNUSABLE, EE]})),
        HostOutcome.AUTHENTICATE,
        HostReason.USABLE_RECORDS,
    ),
    (
        "none usable",
        "7672 2.2",
        zone(with_(_25___tcp__mx__example__com={"TLSA": [UNUSABLE, (3, 1, 1, "ab"), (3, 1, 9, "ab" * 32)]})),
        HostOutcome.ENCRYPT,
        HostReason.UNUSABLE_RECORDS,
    ),
    ("absent", "7672 2.2", zone(without(TLSA_NAME)), HostOutcome.OPPORTUNISTIC, HostReason.NO_RECORDS),
    (
        "nodata",
        "7672 2.2",
        zone(with_(_25___tcp__mx__example__com={})),
        HostOutcome.OPPORTUNISTIC,
        HostReason.NO_RECORDS,
    ),
    (
        "insecure absence",
        "7672 2.1.1",
        zone(without(TLSA_NAME), unsigned=["_tcp.mx.example.com"]),
        HostOutcome.OPPORTUNISTIC,
        HostReason.NO_RECORDS,
    ),
    (
        "insecure records",
        "7672 2.2",
        zone(unsigned=["_tcp.mx.example.com"]),
        HostOutcome.OPPORTUNISTIC,
        HostReason.INSECURE_RECORDS,
    ),
    (
        "insecure addresses",
        "7672 2.2.2",
        zone(unsigned=["mx.example.com"]),
        HostOutcome.OPPORTUNISTIC,
        HostReason.INSECURE_ADDRESS,
    ),
    ("no address", "7672 2.2.2", zone(without("mx.example.com")), HostOutcome.SKIP, HostReason.NO_ADDRESS),
    (
        "no address of an unsigned name",
        "7672 2.2.2",
        zone(without("mx.example.com"), unsigned=["mx.example.com"]),
        HostOutcome.SKIP,
        HostReason.NO_ADDRESS,
    ),
    (
        "address in place of a name",
        "7672 2.2",
        zone(with_(example__com={"MX": [(10, "192.0.2.1")]})),
        HostOutcome.OPPORTUNISTIC,
        HostReason.ADDRESS_AS_NAME,
    ),
    (
        "odd name",
        "7672 2.1.2",
        zone(with_(example__com={"MX": [(10, "a\\032b.example.com")]})),
        HostOutcome.SKIP,
        HostReason.LOOKUP_FAILED,
    ),
    (
        "one family",
        "7672 2.2.2",
        zone(with_(mx__example__com={"AAAA": ["2001:db8::1"]})),
        HostOutcome.AUTHENTICATE,
        HostReason.USABLE_RECORDS,
    ),
]


@pytest.mark.parametrize(
    ("name", "section", "resolver", "outcome", "reason"), OUTCOMES, ids=[row[0] for row in OUTCOMES]
)
def test_outcomes(name: str, section: str, resolver: ZoneResolver, outcome: HostOutcome, reason: HostReason) -> None:
    host = only_host("example.com", resolver)
    assert (host.outcome, host.reason) == (outcome, reason)
    assert bool(host.base_domain) == (outcome in (HostOutcome.AUTHENTICATE, HostOutcome.ENCRYPT))
    assert host.detail.isascii()


@pytest.mark.attack("T04")
def test_unusable_records_still_mean_tls() -> None:
    """Usage 0 or 1, a bad length, an unknown matching type, many of them."""
    many = [(number % 2, 1, 1, f"{number:064x}") for number in range(MAX_RRSET)]
    for records in ([UNUSABLE], [(3, 1, 1, "ab")], [(3, 1, 9, "ab" * 32)], many):
        host = only_host("example.com", zone(with_(_25___tcp__mx__example__com={"TLSA": records})))
        assert host.outcome is HostOutcome.ENCRYPT
        assert len(host.records.unusable) == len(records)
    usable = [(3, 1, 1, f"{number:064x}") for number in range(MAX_RRSET)]
    host = only_host("example.com", zone(with_(_25___tcp__mx__example__com={"TLSA": usable})))
    assert host.outcome is HostOutcome.AUTHENTICATE
    assert len(host.records.taken) + host.records.left_out == MAX_RRSET


@pytest.mark.attack("T04")
@pytest.mark.parametrize("usage", [0, 3])
def test_more_records_than_anybody_publishes_are_a_failure(usage: int) -> None:
    """They are not sorted, and they are not none either: the host is skipped."""
    records = [(usage, 1, 1, f"{number:064x}") for number in range(MAX_RRSET + 1)]
    host = only_host("example.com", zone(with_(_25___tcp__mx__example__com={"TLSA": records})))
    assert (host.outcome, host.reason) == (HostOutcome.SKIP, HostReason.LOOKUP_FAILED)
    assert str(MAX_RRSET) in host.detail


def test_records_are_sorted_once_for_each_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """However often the evaluation begins anew."""
    resolver = zone()
    _, asked = found("example.com", resolver)
    known = resolver.resolve(asked, deadline=time.monotonic() + 5)
    sorted_out: list[object] = []

    def counting(records: Any) -> TlsaRecords:
        sorted_out.append(records)
        return read_records(records)

    monkeypatch.setattr("mailguard.dane.discover.read_records", counting)
    for _ in range(3):
        (host,) = discover(Destination.parse("example.com"), Answers(known)).hosts
        assert host.outcome is HostOutcome.AUTHENTICATE
    assert len(sorted_out) <= 1


def test_how_many_hosts_is_told_in_words() -> None:
    assert found("example.com", zone())[0].detail == "1 host, MX records secure"
    two = zone(with_(example__com={"MX": [(10, "mx.example.com"), (20, "b.example.com")]}))
    assert found("example.com", two)[0].detail == "2 hosts, MX records secure"


# -- MX -----------------------------------------------------------------------------------------------------------


@pytest.mark.attack("T01")
def test_tlsa_records_behind_an_insecure_mx_are_not_dane() -> None:
    """Nor is anything asked about such a host; asked to do as Postfix does, its name alone counts."""
    resolver = zone(dnssec={("example.com", "MX"): Dnssec.INSECURE})
    policy, asked = found("example.com", resolver)
    (host,) = policy.hosts
    assert (policy.mx_dnssec, host.outcome, host.reason) == (
        Dnssec.INSECURE,
        HostOutcome.OPPORTUNISTIC,
        HostReason.INSECURE_MX,
    )
    assert asked == [Question("example.com", MX)]
    host = only_host("example.com", resolver, insecure_mx=InsecureMx.DANE)
    assert (host.outcome, host.reference_ids) == (HostOutcome.AUTHENTICATE, ("mx.example.com",))


@pytest.mark.attack("T03")
@pytest.mark.parametrize("dnssec", [Dnssec.SECURE, Dnssec.INSECURE])
def test_a_denial_is_no_failure(dnssec: Dnssec) -> None:
    """Signed or not, NXDOMAIN is an answer; which of the two it was is told."""
    policy, asked = found("nowhere.test", zone(dnssec={("nowhere.test", "MX"): dnssec}))
    assert (policy.status, policy.mx_dnssec, policy.hosts) == (DaneStatus.NO_DOMAIN, dnssec, ())
    assert asked == [Question("nowhere.test", MX)]


def test_null_mx() -> None:
    policy, _ = found("example.com", zone(with_(example__com={"MX": [(0, ".")]})))
    assert (policy.status, policy.hosts) == (DaneStatus.NO_MAIL, ())
    policy, _ = found("example.com", zone(with_(example__com={"MX": [(0, "."), (10, "mx.example.com")]})))
    assert [host.name for host in policy.hosts] == ["mx.example.com"]


@pytest.mark.parametrize("dnssec", [Dnssec.SECURE, Dnssec.INSECURE])
def test_a_domain_without_mx_is_its_own_host(dnssec: Dnssec) -> None:
    """RFC 5321 §5.1. Nothing leads to another name, so that the DNSSEC status of the denial does not matter."""
    records: Records = {"example.com": {"A": ["192.0.2.1"]}, "_25._tcp.example.com": {"TLSA": [TA]}}
    policy, _ = found("example.com", zone(records, dnssec={("example.com", "MX"): dnssec}))
    (host,) = policy.hosts
    assert (host.name, host.preference, host.outcome) == ("example.com", None, HostOutcome.AUTHENTICATE)
    assert host.reference_ids == ("example.com",)


def test_hosts_are_in_the_order_of_preference() -> None:
    """RFC 7672 §2.2.1: none that is safer comes first for that. Each name once, with its best preference."""
    records: Records = {
        "example.com": {"MX": [(20, "b.test"), (10, "plain.test"), (20, "a.test"), (30, "plain.test")]},
        **{name: {"A": ["192.0.2.1"]} for name in ("a.test", "b.test", "plain.test")},
        "_25._tcp.a.test": {"TLSA": [EE]},
        "_25._tcp.b.test": {"TLSA": [UNUSABLE]},
    }
    policy, _ = found("example.com", zone(records))
    assert [(host.preference, host.name, host.outcome) for host in policy.hosts] == [
        (10, "plain.test", HostOutcome.OPPORTUNISTIC),
        (20, "a.test", HostOutcome.AUTHENTICATE),
        (20, "b.test", HostOutcome.ENCRYPT),
    ]
    assert policy.outcomes == {HostOutcome.OPPORTUNISTIC, HostOutcome.AUTHENTICATE, HostOutcome.ENCRYPT}


def test_there_is_a_limit_of_hosts() -> None:
    names = [f"mx{number:03}.test" for number in range(1_000)]
    records: Records = {
        "example.com": {"MX": [(number, name) for number, name in enumerate(names)]},
        **{name: {"A": ["192.0.2.1"]} for name in names},
    }
    policy, asked = found("example.com", zone(records))
    assert [host.name for host in policy.hosts] == names[:MAX_HOSTS]
    assert policy.hosts_left_out == 1_000 - MAX_HOSTS
    assert len(asked) == 1 + 3 * MAX_HOSTS


# -- rounds of look-ups -------------------------------------------------------------------------------------------


def test_all_hosts_are_looked_up_at_the_same_time() -> None:
    names = [f"mx{number}.test" for number in range(5)]
    records: Records = {
        "example.com": {"MX": [(10, name) for name in names]},
        **{name: {"A": ["192.0.2.1"]} for name in names},
        **{f"_25._tcp.{name}": {"TLSA": [EE]} for name in names},
    }
    resolver, rounds = zone(records), []
    known: dict[Question, Answer] = {}
    while True:
        answers = Answers(known)
        try:
            discover(Destination(Domain("example.com")), answers)
        except Unanswered:
            rounds.append(len(answers.missing))
            known.update(resolver.resolve(answers.missing, deadline=0))
        else:
            break
    assert rounds == [1, 10, 5]


# -- aliases ------------------------------------------------------------------------------------------------------

ALIASES: Records = {
    "example.com": {"MX": [(10, "mx.example.com")]},
    "mx.example.com": {"CNAME": ["middle.test"]},
    "middle.test": {"CNAME": ["real.example.net"]},
    "real.example.net": {"A": ["192.0.2.1"], "AAAA": ["2001:db8::1"]},
}
AT_REAL = {"_25._tcp.real.example.net": {"TLSA": [TA]}}
AT_MIDDLE = {"_25._tcp.middle.test": {"TLSA": [TA]}}
AT_MX = {TLSA_NAME: {"TLSA": [TA]}}
REAL, ORIGINAL = "_25._tcp.real.example.net", TLSA_NAME

# (id, RFC section, zone, names asked for TLSA, base domain)
BASE_DOMAINS: list[tuple[str, str, ZoneResolver, list[str], str | None]] = [
    ("at the end", "7671 7", zone({**ALIASES, **AT_REAL}), [REAL], "real.example.net"),
    ("at both ends", "7671 7", zone({**ALIASES, **AT_REAL, **AT_MX}), [REAL], "real.example.net"),
    ("at the start", "7671 7", zone({**ALIASES, **AT_MX}), [REAL, ORIGINAL], "mx.example.com"),
    ("in the middle is nowhere", "7672 2.2.3", zone({**ALIASES, **AT_MIDDLE}), [REAL, ORIGINAL], None),
    (
        "insecure at the end, secure at the start",
        "7672 2.2.3",
        zone({**ALIASES, **AT_REAL, **AT_MX}, dnssec={(REAL, "TLSA"): Dnssec.INSECURE}),
        [REAL, ORIGINAL],
        "mx.example.com",
    ),
    (
        "unusable at the end",
        "7672 2.2.3",
        zone({**ALIASES, REAL: {"TLSA": [UNUSABLE]}, **AT_MX}),
        [REAL],
        "real.example.net",
    ),
    (
        "the end is unsigned",
        "7672 2.2.2",
        zone({**ALIASES, **AT_REAL, **AT_MX}, unsigned=["real.example.net"]),
        [ORIGINAL],
        "mx.example.com",
    ),
    (
        "the middle is unsigned",
        "7672 2.1.3",
        zone({**ALIASES, **AT_REAL, **AT_MX}, unsigned=["middle.test"]),
        [ORIGINAL],
        "mx.example.com",
    ),
    (
        "the start is unsigned",
        "7672 2.2.2",
        zone({**ALIASES, **AT_REAL, **AT_MX}, unsigned=["mx.example.com"]),
        [],
        None,
    ),
    (
        "TLSA by an alias does not move the base domain",
        "7672 2.2.3",
        zone({**ZONE, TLSA_NAME: {"CNAME": ["tlsa.test"]}, "tlsa.test": {"TLSA": [TA]}}),
        [ORIGINAL],
        "mx.example.com",
    ),
    (
        "TLSA by an alias into an unsigned zone",
        "7672 2.2.3",
        zone({**ZONE, TLSA_NAME: {"CNAME": ["tlsa.test"]}, "tlsa.test": {"TLSA": [TA]}}, unsigned=["tlsa.test"]),
        [ORIGINAL],
        None,
    ),
]


@pytest.mark.attack("T05")
@pytest.mark.parametrize(
    ("name", "section", "resolver", "names", "base_domain"), BASE_DOMAINS, ids=[row[0] for row in BASE_DOMAINS]
)
def test_base_domains(
    name: str, section: str, resolver: ZoneResolver, names: list[str], base_domain: str | None
) -> None:
    policy, asked = found("example.com", resolver)
    (host,) = policy.hosts
    assert [question.name for question in asked if question.rdtype is TLSA] == names
    assert host.base_domain == base_domain
    if base_domain:
        assert host.reference_ids == (base_domain, "example.com")
    else:
        assert host.outcome is HostOutcome.OPPORTUNISTIC


def test_the_alias_itself_is_asked_for_only_where_it_matters() -> None:
    """RFC 7672 §2.1.3: an additional CNAME query, if insecure addresses come by an alias."""
    for unsigned, is_asked in (([], False), (["real.example.net"], True)):
        _, asked = found("example.com", zone({**ALIASES, **AT_MX}, unsigned=unsigned))
        assert (Question("mx.example.com", CNAME) in asked) is is_asked
    _, asked = found("example.com", zone(unsigned=["mx.example.com"]))
    assert Question("mx.example.com", CNAME) not in asked


@pytest.mark.attack("T05")
def test_aliases_in_a_circle_end() -> None:
    circle: Records = {
        "example.com": {"MX": [(10, "mx.example.com")]},
        "mx.example.com": {"CNAME": ["b.test"]},
        "b.test": {"CNAME": ["mx.example.com"]},
    }
    assert only_host("example.com", zone(circle)).reason is HostReason.LOOKUP_FAILED
    at_tlsa: Records = {**ZONE, TLSA_NAME: {"CNAME": ["c.test"]}, "c.test": {"CNAME": [TLSA_NAME]}}
    assert only_host("example.com", zone(at_tlsa)).outcome is HostOutcome.SKIP
    at_domain: Records = {"example.com": {"CNAME": ["b.test"]}, "b.test": {"CNAME": ["example.com"]}}
    policy, _ = found("example.com", zone(at_domain))
    assert policy.status is DaneStatus.DEFER


def test_a_name_too_long_to_have_records_has_none() -> None:
    name = ".".join(["a" * 61] * 4)
    assert len(name) < 253 < len(f"_25._tcp.{name}")
    records: Records = {"example.com": {"MX": [(10, name)]}, name: {"A": ["192.0.2.1"]}}
    assert only_host("example.com", zone(records)).reason is HostReason.NO_RECORDS
    # Where an alias leads there, the name before it counts; and the longest name that there can be has its records.
    alias: Records = {**records, "mx.example.com": {"CNAME": [name]}, TLSA_NAME: {"TLSA": [TA]}}
    host = only_host("[mx.example.com]", zone(alias))
    assert (host.outcome, host.base_domain) == (HostOutcome.AUTHENTICATE, "mx.example.com")
    longest = name[:-3]
    assert len(f"_25._tcp.{longest}") == 253
    records = {longest: {"A": ["192.0.2.1"]}, f"_25._tcp.{longest}": {"TLSA": [TA]}}
    assert only_host(f"[{longest}]", zone(records)).outcome is HostOutcome.AUTHENTICATE


# -- other destinations -------------------------------------------------------------------------------------------


def test_a_host_in_brackets_has_no_mx() -> None:
    """Its name, and where an alias led, are the names of its certificate (RFC 7672 §3.2.2)."""
    policy, asked = found("[mx.example.com]:26", zone({**ALIASES, "_26._tcp.real.example.net": {"TLSA": [TA]}}))
    (host,) = policy.hosts
    assert (policy.destination, policy.port, policy.mx_dnssec) == ("[mx.example.com]:26", 26, None)
    assert host.reference_ids == ("real.example.net", "mx.example.com")
    assert MX not in {question.rdtype for question in asked}


def test_an_address_has_no_records() -> None:
    policy, asked = found("[192.0.2.1]", zone())
    assert (policy.status, asked) == (DaneStatus.NOT_APPLICABLE, [])


# -- outages: no failure leads to less -----------------------------------------------------------------------------

FAILURES: dict[str, tuple[dict[Any, Status], dict[Any, Dnssec]]] = {
    "tempfail": ({"at": Status.TEMPFAIL}, {}),
    "bogus": ({"at": Status.BOGUS}, {}),
    "bogus, no status": ({}, {"at": Dnssec.BOGUS}),
    "indeterminate": ({}, {"at": Dnssec.INDETERMINATE}),
}
STEPS = [
    Question("example.com", MX),
    Question("mx.example.com", A),
    Question("mx.example.com", AAAA),
    Question(REAL, TLSA),
    Question(ORIGINAL, TLSA),
    Question("mx.example.com", CNAME),
]
PROTECTED = {
    "plain": zone,
    "both ends": lambda **faults: zone({**ALIASES, **AT_REAL, **AT_MX}, **faults),
    "start": lambda **faults: zone({**ALIASES, **AT_MX}, **faults),
    "end unsigned": lambda **faults: zone({**ALIASES, **AT_MX}, unsigned=["real.example.net"], **faults),
    "unusable": lambda **faults: zone({**ZONE, TLSA_NAME: {"TLSA": [UNUSABLE]}}, **faults),
}


@pytest.mark.attack("T02")
@pytest.mark.parametrize("kind", FAILURES)
@pytest.mark.parametrize("case", PROTECTED)
@pytest.mark.parametrize("count", [1, 2])
def test_no_failure_leads_to_less(kind: str, case: str, count: int) -> None:
    """Each kind at each step, and at each two: what it was, or no delivery; never opportunistic, never less."""
    make: Any = PROTECTED[case]
    (before,) = found("example.com", make())[0].hosts
    assert before.outcome in (HostOutcome.AUTHENTICATE, HostOutcome.ENCRYPT)
    statuses, dnssecs = FAILURES[kind]
    skipped = 0
    for steps in itertools.combinations(STEPS, count):
        at = [(question.name, question.rdtype.value) for question in steps]
        policy, _ = found(
            "example.com",
            make(
                status={key: status for key in at for status in statuses.values()},
                dnssec={key: dnssec for key in at for dnssec in dnssecs.values()},
            ),
        )
        if policy.status is DaneStatus.DEFER:
            skipped += 1
            continue
        (host,) = policy.hosts
        assert host.outcome in (before.outcome, HostOutcome.SKIP), (steps, host)
        skipped += host.outcome is HostOutcome.SKIP
    assert skipped >= 2


@pytest.mark.attack("T02")
def test_a_failing_host_does_not_spoil_the_others() -> None:
    """RFC 7672 §2.1.2: delivery may proceed by the others."""
    records: Records = {
        "example.com": {"MX": [(10, "a.test"), (20, "b.test")]},
        "a.test": {"A": ["192.0.2.1"]},
        "b.test": {"A": ["192.0.2.1"]},
        "_25._tcp.b.test": {"TLSA": [EE]},
    }
    policy, _ = found("example.com", zone(records, status={("_25._tcp.a.test", "TLSA"): Status.TEMPFAIL}))
    assert [host.outcome for host in policy.hosts] == [HostOutcome.SKIP, HostOutcome.AUTHENTICATE]


def test_silence_about_one_family_in_an_unsigned_zone_is_no_failure() -> None:
    """Servers of large providers answer for A and not for AAAA; in a signed zone the other answer tells."""
    at = ("mx.example.com", "AAAA")
    unsigned = zone(unsigned=["mx.example.com"], status={at: Status.TEMPFAIL})
    assert only_host("example.com", unsigned).reason is HostReason.INSECURE_ADDRESS
    bogus = zone(unsigned=["mx.example.com"], status={at: Status.BOGUS})
    assert only_host("example.com", bogus).reason is HostReason.LOOKUP_FAILED
    for failure in (Status.TEMPFAIL, Status.BOGUS):
        assert only_host("example.com", zone(status={at: failure})).outcome is HostOutcome.AUTHENTICATE


def test_after_the_deadline_nothing_is_delivered() -> None:
    policy = discover(Destination(Domain("example.com")), Answers(closed=True))
    assert policy.status is DaneStatus.DEFER
