"""The name by which a host greets others: what is said of it, and of a DNS that does not answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

from mailguard.dns.answers import evaluate
from mailguard.dns.question import Status
from mailguard.dns.zone import ZoneResolver
from mailguard.scorecard.host_name_card import host_name_card

Zone = dict[str, Mapping[str, Sequence[object]]]
REVERSE = "25.2.0.192.in-addr.arpa"
REVERSE6 = "5.2.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa"
GOOD: Zone = {
    "mx.us.test": {"A": ["192.0.2.25"], "AAAA": ["2001:db8::25"], "TXT": [b"v=spf1 a -all"]},
    REVERSE: {"PTR": ["mx.us.test"]},
    REVERSE6: {"PTR": ["mx.us.test"]},
}
CASES: list[tuple[str, str, Zone, list[str]]] = [
    ("good", "mx.us.test", {}, []),
    # A host behind another name is fine, as long as that leads back.
    (
        "another-name",
        "mx.us.test",
        {REVERSE: {"PTR": ["v1.host.test"]}, "v1.host.test": {"A": ["192.0.2.25"]}},
        [],
    ),
    ("no-full-name", "localhost", {}, ["localhost is no full name"]),
    ("no-name", "mx_1.us.test", {}, ["mx_1.us.test is no full name"]),
    ("an-address-literal", "[192.0.2.25]", {}, ["[192.0.2.25] is no full name"]),
    (
        "not-there",
        "gone.us.test",
        {},
        ["gone.us.test has no address", "gone.us.test has no SPF record"],
    ),
    ("no-ptr-for-ipv6", "mx.us.test", {REVERSE6: {}}, ["2001:db8::25: the address has no name"]),
    (
        "ptr-that-leads-elsewhere",
        "mx.us.test",
        {REVERSE: {"PTR": ["x.test"]}},
        ["192.0.2.25: no name of the address"],
    ),
    (
        "no-spf",
        "mx.us.test",
        {"mx.us.test": {"A": ["192.0.2.25"], "TXT": [b"other"]}},
        ["mx.us.test has no SPF record: bounces"],
    ),
]


@pytest.mark.parametrize(("name", "changes", "told"), [row[1:] for row in CASES], ids=[row[0] for row in CASES])
def test_what_is_found(name: str, changes: Zone, told: list[str]) -> None:
    resolver = ZoneResolver({**GOOD, **changes})
    card = evaluate(lambda answers: host_name_card(name, answers), resolver, deadline=0)
    assert card.status == ("note" if told else "ok")
    found = [each for each in card.children if each.title != "ok"]
    assert len(found) == len(told)
    assert all(each.detail.startswith(words) for each, words in zip(found, told, strict=True)), found
    assert all(each.advice for each in found)


@pytest.mark.parametrize("question", [("mx.us.test", "AAAA"), ("mx.us.test", "TXT"), (REVERSE, "PTR")])
def test_a_dns_that_does_not_answer(question: tuple[str, str]) -> None:
    resolver = ZoneResolver(GOOD, status={question: Status.TEMPFAIL})
    card = evaluate(lambda answers: host_name_card("mx.us.test", answers), resolver, deadline=0)
    assert [(card.status, each.title) for each in card.children] == [("unknown", "unknown")]
