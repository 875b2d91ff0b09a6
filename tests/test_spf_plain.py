"""What is evaluated without pyspf comes to the same as with it, to the letter, and asks the same."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailguard.dns.question import Status
from mailguard.spf import evaluate as evaluate_module
from mailguard.spf.plain import NotPlain
from mailguard.spf.result import SpfStatus
from spf_asking import EVIL_IP, TARGETS, V6, Session, Zone, session

QUALIFIERS = st.sampled_from(["", "", "", "-", "~", "?"])
TERMS = st.sampled_from(
    [
        "include:pass.test",
        "include:fail.test",
        "include:soft.test",
        "include:neutral.test",
        "include:deep.test",
        "include:broken.test",
        "include:twice.test",
        "include:absent.test",
        "include:evil.test",
        "include:one.test",
        "include:two.test",
        "INCLUDE:TWO.test.",
        "include:" + "long." * 60 + "pass.test",
        "include:a..test",
        "include:one.%{d}",
        "a",
        "a/24",
        "a:a.test",
        "a:b.test//64",
        "a:far.test/27//16",
        "a:absent.test",
        "A:a.test",
        "a:%{d}",
        "mx",
        "mx:mx.test",
        "mx:mx2.test/24",
        "mx:null.test",
        "mx:absent.test",
        "exists:a.test",
        "ptr",
        "ip4:198.51.100.0/24",
        "ip4:128.0.0.0/1",
        "ip6:2001:db8::/32",
        "all",
    ]
)
ENDS = st.sampled_from(
    [
        "",
        "",
        "-all",
        "redirect=one.test",
        "redirect=evil.test",
        "redirect=absent.test",
        "redirect=%{d}",
        "exp=why.test",
    ]
)
directives = st.builds(lambda qualifier, term: f"{qualifier}{term}", QUALIFIERS, TERMS)
records = st.builds(lambda terms, end: " ".join(["v=spf1", *terms, end]), st.lists(directives, max_size=4), ENDS)
failures = st.lists(
    st.sampled_from(["one.test", "two.test", "pass.test", "fail.test", "a.test", "b.test", "mx.test", "only.a.test"]),
    max_size=2,
)


def both(zone: Zone, ip: str, failing: list[str], status: Status) -> tuple[Session, Session]:
    """Without pyspf where that can be, and with it only."""
    broken = {(name, "*"): status for name in failing}
    plain = session(zone, ip=ip, status=broken)

    def refuse(*_: object) -> None:
        raise NotPlain

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluate_module, "plain_finding", refuse)
        return plain, session(zone, ip=ip, status=broken)


@given(
    records,
    records,
    records,
    st.sampled_from([EVIL_IP, V6]),
    failures,
    st.sampled_from([Status.TEMPFAIL, Status.BOGUS]),
)
@settings(max_examples=600, deadline=None)
def test_it_comes_to_the_same(text: str, one: str, two: str, ip: str, failing: list[str], status: Status) -> None:
    more = {"evil.test": text, "one.test": one, "two.test": two, "why.test": "because"}
    plain, ours = both({**TARGETS, **{name: {"TXT": [each]} for name, each in more.items()}}, ip, failing, status)
    assert plain.result == ours.result
    assert plain.rounds == ours.rounds
    assert plain.consumed == ours.consumed


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("v=spf1 include:pass.test -all", SpfStatus.PASS),
        ("v=spf1 include:fail.test a mx:b.test -all", SpfStatus.FAIL),
        ("v=spf1 redirect=deep.test", SpfStatus.PASS),
        ("v=spf1 include:absent.test", SpfStatus.PERMERROR),
        ("v=spf1 include:evil.test", SpfStatus.PERMERROR),
        ("v=spf1 a:a.test exists:%{l}.test", SpfStatus.PASS),
    ],
)
def test_what_names_no_macro_needs_no_pyspf(monkeypatch: pytest.MonkeyPatch, text: str, status: SpfStatus) -> None:
    def made(*_: object) -> None:
        raise AssertionError("pyspf is used")

    monkeypatch.setattr(evaluate_module, "Query", made)
    assert session({**TARGETS, "evil.test": {"TXT": [text]}}).result.status is status
