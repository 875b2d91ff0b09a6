"""Look-ups that fail while check_host() runs (RFC 7208 §5): a temperror where they matter, and never a fail."""

from __future__ import annotations

import pytest

from mailguard.dns.question import Status
from mailguard.spf.result import SpfResult, SpfStatus
from spf_asking import EVIL_IP, TARGETS, Zone, recorded, session


def found(result: SpfResult) -> tuple[str, str]:
    return result.status.value, result.reason.value


FAULTS = [Status.TEMPFAIL, Status.BOGUS]


@pytest.mark.attack("S21", "V11")
@pytest.mark.parametrize("fault", FAULTS, ids=["servfail", "bogus"])
@pytest.mark.parametrize(
    ("text", "name", "rdtype"),
    [
        ("include:a.test", "a.test", "TXT"),
        ("redirect=a.test", "a.test", "TXT"),
        ("-a:a.test", "a.test", "A"),
        ("-mx:mx.test", "mx.test", "MX"),
        ("-mx:mx.test", "b.test", "A"),
        ("-exists:a.test", "a.test", "A"),
        ("include:deep1.test", "deep3.test", "TXT"),
        ("include:deep1.test", "host.deep3.test", "A"),
    ],
)
def test_a_failed_look_up_is_a_temperror_at_any_depth(fault: Status, text: str, name: str, rdtype: str) -> None:
    zone: Zone = {
        "evil.test": {"TXT": [f"v=spf1 {text} -all" if "redirect" not in text else f"v=spf1 {text}"]},
        "mx.test": {"MX": [(1, "b.test")]},
        "deep1.test": {"TXT": ["v=spf1 -include:deep2.test -all"]},
        "deep2.test": {"TXT": ["v=spf1 redirect=deep3.test"]},
        "deep3.test": {"TXT": ["v=spf1 a:host.deep3.test -all"]},
    }
    result = session(zone, status={(name, rdtype): fault}).result
    assert found(result) == ("temperror", "dns")
    assert name in result.detail


@pytest.mark.attack("V11")
def test_no_fault_of_the_dns_makes_a_fail_nor_a_pass() -> None:
    """Each look-up of a record that passes, broken in turn: the same result or a temperror."""
    text = "v=spf1 -include:fail.test a:b.test mx:mx2.test exists:nosuch.test ptr:b.test ip4:198.51.100.66 -all"
    whole = recorded(text, more=TARGETS)
    assert found(whole.result) == ("pass", "match")
    assert len(whole.consumed) >= 8
    outcomes = set()
    for question in whole.consumed:
        name, rdtype = question.split(" ")
        zone = {**TARGETS, "evil.test": {"TXT": [text]}}
        for fault in FAULTS:
            outcomes.add(session(zone, status={(name, rdtype): fault}).result.status)
    assert outcomes == {SpfStatus.PASS, SpfStatus.TEMPERROR}


def test_the_name_that_could_not_be_looked_up_is_told_without_odd_characters() -> None:
    text = 'v=spf1 exists:"a;(b)<%_>.%{l}.check.test -all'
    name = '"a;(b)< >.' + "x" * 60 + ".y" * 20 + ".check.test"
    zone: Zone = {"evil.test": {"TXT": [text]}}
    result = session(zone, "x" * 60 + ".y" * 20 + "@evil.test", status={(name, "A"): Status.TEMPFAIL}).result
    assert result.status is SpfStatus.TEMPERROR
    assert result.detail == f"the A records of ?a??b????.{'x' * 60}.y.y.y.y.y could not be looked up"


def test_mail_servers_are_looked_at_in_the_order_of_preference() -> None:
    """RFC 7208 §5.4; what is behind the one that matches is not read."""
    assert recorded("v=spf1 mx:mx.test -all", more=TARGETS).consumed[2:] == ["a.test A"]


@pytest.mark.parametrize("fault", FAULTS, ids=["servfail", "bogus"])
def test_a_failed_look_up_that_changes_nothing_is_no_error(fault: Status) -> None:
    zone: Zone = {**TARGETS, "evil.test": {"TXT": ["v=spf1 mx:mx.test a:nosuch.test -all"]}}
    other_host = session(zone, status={("b.test", "A"): fault})
    assert found(other_host.result) == ("pass", "match")
    later = session(zone, status={("nosuch.test", "A"): fault})
    assert found(later.result) == ("pass", "match")


@pytest.mark.parametrize("fault", FAULTS, ids=["servfail", "bogus"])
@pytest.mark.parametrize("name", ["66.100.51.198.in-addr.arpa", "host.a.test"])
@pytest.mark.parametrize(
    ("text", "expected", "mechanism"),
    [
        ("ptr:a.test ?all", "neutral", "?all"),
        ("ptr:a.test ~all", "softfail", "~all"),
        ("ptr:a.test +all", "pass", "+all"),
        ("exists:%{p}.b.test ~all", "softfail", "~all"),
        # Here RFC 7208 §5.5 alone would make a fail of a fault of the DNS.
        ("ptr:a.test -all", "temperror", None),
        ("exists:%{p}.b.test -all", "temperror", None),
        ("include:reverse.test -all exp=why.test", "temperror", None),
    ],
)
def test_a_failed_look_up_of_the_clients_name_makes_ptr_not_match(
    text: str, expected: str, mechanism: str | None, name: str, fault: Status
) -> None:
    more: Zone = {"reverse.test": {"TXT": ["v=spf1 ptr:a.test -all"]}, "why.test": {"TXT": ["why"]}}
    zone: Zone = {**TARGETS, **more, "evil.test": {"TXT": [f"v=spf1 {text}"]}}
    result = session(zone, status={(name, "*"): fault}).result
    assert (result.status.value, result.mechanism, result.explanation) == (expected, mechanism, None)
    # What is neither a pass nor an error by itself might have been a pass: DMARC does not fail by it.
    assert result.is_uncertain is (expected in ("neutral", "softfail"))


@pytest.mark.parametrize("fault", FAULTS, ids=["servfail", "bogus"])
@pytest.mark.parametrize(
    ("text", "expected", "mechanism"),
    [
        ("ptr:bank.test -all", "temperror", None),
        ("ptr:forged.bank.test ptr:evil.test -all", "temperror", None),
        ("exists:%{p}.b.test -all", "temperror", None),
        ("ptr:bank.test ?all", "neutral, uncertain", "?all"),
        # The name that could not be looked up is not below these.
        ("ptr -all", "fail", "-all"),
        ("ptr:a.forged.bank.test ptr:k.test ~all", "softfail", "~all"),
        # Another name matches.
        ("-ptr:a.test ?all", "fail", "-ptr:a.test"),
        ("~ptr:a.test +all", "softfail", "~ptr:a.test"),
        ("exists:%{p}.a.test ~all", "softfail, uncertain", "~all"),
    ],
)
def test_of_the_clients_names_only_those_matter_that_could_match(
    text: str, expected: str, mechanism: str | None, fault: Status
) -> None:
    """host.a.test is the client's, and whether forged.bank.test is cannot be looked up (RFC 7208 §5.5)."""
    zone: Zone = {**TARGETS, "evil.test": {"TXT": [f"v=spf1 {text}"]}}
    result = session(zone, status={("forged.bank.test", "A"): fault}).result
    assert f"{result.status.value}{', uncertain' if result.is_uncertain else ''}" == expected
    assert result.mechanism == mechanism


@pytest.mark.parametrize("text", ["-ptr ?all", "exists:%{p}.b.test -all"])
def test_where_one_name_of_the_client_decides_no_other_matters(text: str) -> None:
    zone: Zone = {
        "evil.test": {"TXT": [f"v=spf1 {text}"], "A": [EVIL_IP]},
        "66.100.51.198.in-addr.arpa": {"PTR": ["broken.evil.test", "evil.test"]},
    }
    asked = session(zone, status={("broken.evil.test", "A"): Status.TEMPFAIL})
    assert found(asked.result) == ("fail", "match")
    assert "broken.evil.test A" in asked.questions


@pytest.mark.parametrize("fault", FAULTS, ids=["servfail", "bogus"])
def test_a_failed_look_up_of_the_clients_name_for_an_explanation_leaves_the_fail(fault: Status) -> None:
    zone: Zone = {
        **TARGETS,
        "evil.test": {"TXT": ["v=spf1 -all exp=why.test"]},
        "why.test": {"TXT": ["you are %{p}"]},
    }
    result = session(zone, status={("66.100.51.198.in-addr.arpa", "PTR"): fault}).result
    assert (result.status, result.explanation) == (SpfStatus.FAIL, "you are unknown")
    assert not result.is_uncertain
