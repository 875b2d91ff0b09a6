"""exp= (RFC 7208 §6.2): only after a fail from a match, whose it is, and what a stranger's text may do."""

from __future__ import annotations

from typing import Any

import pytest

from mailguard.dns.question import Status
from mailguard.spf import engine
from mailguard.spf.macro import expanded
from mailguard.spf.result import SpfReason, SpfStatus
from spf_asking import EVIL_IP, NOW, Zone, record, recorded, session

WHY: Zone = {"why.test": {"TXT": ["Ask postmaster@evil.test"]}, "other.test": {"TXT": ["Not this one"]}}


@pytest.mark.parametrize(
    ("text", "explanation"),
    [
        ("-all exp=why.test", "Ask postmaster@evil.test"),
        ("EXP=why.test -all", "Ask postmaster@evil.test"),
        ("-ip4:198.51.100.66 exp=why.test +all", "Ask postmaster@evil.test"),
        ("-include:pass.test exp=why.test", "Ask postmaster@evil.test"),
        ("-all", None),
        ("~all exp=why.test", None),
        ("?all exp=why.test", None),
        ("+all exp=why.test", None),
        ("exp=why.test", None),
        ("include:failing.test ?all", None),
        ("include:failing.test -all exp=why.test", "Ask postmaster@evil.test"),
        ("include:failing.test -all", None),
        ("include:plain.test -all exp=why.test", "Ask postmaster@evil.test"),
        ("redirect=failing.test", "Not this one"),
        ("redirect=failing.test exp=why.test", "Not this one"),
        ("redirect=plain.test exp=why.test", None),
        ("include:redirecting.test -all exp=why.test", "Ask postmaster@evil.test"),
        ("include:redirecting.test -all", None),
    ],
)
def test_whose_explanation_it_is(text: str, explanation: str | None) -> None:
    more: Zone = {
        **WHY,
        "pass.test": {"TXT": ["v=spf1 +all exp=other.test"]},
        "failing.test": {"TXT": ["v=spf1 -all exp=other.test"]},
        "plain.test": {"TXT": ["v=spf1 -all"]},
        "redirecting.test": {"TXT": ["v=spf1 redirect=failing.test"]},
    }
    asked = recorded(f"v=spf1 {text}", more=more)
    assert asked.result.explanation == explanation
    if explanation is None:
        assert not {"why.test TXT", "other.test TXT"} & set(asked.questions), "fetched only after a fail from a match"


@pytest.mark.parametrize("text", ["a:nosuch.test foo exp=why.test", "redirect=nosuch.test exp=why.test"])
def test_no_explanation_of_an_error(text: str) -> None:
    asked = recorded(f"v=spf1 {text}", more=WHY)
    assert (asked.result.status, asked.result.explanation) == (SpfStatus.PERMERROR, None)
    assert "why.test TXT" not in asked.questions


@pytest.mark.parametrize(
    ("texts", "status"),
    [
        ([], {}),
        (["one", "two"], {}),
        ([""], {}),
        ([b"caf\xc3\xa9"], {}),
        (["%{z}"], {}),
        (["100%"], {}),
        (["%{d0}"], {}),
        (["x" * 8_193], {}),
        (["x"], {("why.test", "TXT"): Status.TEMPFAIL}),
        (["x"], {("why.test", "TXT"): Status.BOGUS}),
        (["x"], {("why.test", "TXT"): Status.NXDOMAIN}),
    ],
    ids=[
        "absent",
        "two",
        "empty",
        "8-bit",
        "bad letter",
        "lone percent",
        "0 parts",
        "8 kB",
        "servfail",
        "bogus",
        "nxdomain",
    ],
)
def test_trouble_with_an_explanation_is_ignored(texts: list[object], status: dict[tuple[str, str], Status]) -> None:
    zone: Zone = {"evil.test": {"TXT": ["v=spf1 -all exp=why.test"]}, "why.test": {"TXT": texts}}
    result = session(zone, status=status).result
    assert (result.status, result.reason, result.explanation) == (SpfStatus.FAIL, SpfReason.MATCH, None)
    assert (result.lookups, result.voids) == (0, 0)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("See http://%{d}/why.html?s=%{S}&i=%{I}", "See http://evil.test/why.html?s=x%40evil.test&i=198.51.100.66"),
        ("%{i} is not one of %{d}'s mail servers.", "198.51.100.66 is not one of evil.test's mail servers."),
        ("%{c} %{r} %{t}", f"198.51.100.66 mx.us.test {int(NOW)}"),
        ("%{h}|%{o}|%{l}|%{v}|%{p}", "evil.test|evil.test|x|in-addr|unknown"),
        ("a%%b%_c%-d", "a%b c%20d"),
        ("100%% sure", "100% sure"),
        (".", "."),
        ("ends with a dot.", "ends with a dot."),
    ],
)
def test_macros_in_explanations(text: str, expected: str) -> None:
    zone: Zone = {"evil.test": {"TXT": ["v=spf1 -all exp=why.%{d}"]}, "why.evil.test": {"TXT": [text]}}
    assert session(zone).result.explanation == expected


def test_the_client_in_explanations_of_ipv6() -> None:
    zone: Zone = {"evil.test": {"TXT": ["v=spf1 -all exp=why.test"]}, "why.test": {"TXT": ["%{c} %{i4r}"]}}
    assert session(zone, ip="2001:0DB8::cb01").result.explanation == "2001:db8::cb01 1.0.0.2"


@pytest.mark.attack("S16")
@pytest.mark.parametrize(
    "text",
    [
        b"line1\r\nX-Evil: 1",
        b"line1\nX-Evil: 1",
        b"line1\rX-Evil: 1",
        b"caf\xe9 caf\xc3\xa9",
        b"a\0b",
        b"\x1b[31mred",
        b"a" * 4_096,
        b"%{l} " * 800,
        b"%{h}",
        b'550 5.7.1 "quoted" (comment) <tag> ; \\ ',
    ],
    ids=["CRLF", "LF", "CR", "8-bit", "NUL", "escape", "4 kB", "4 kB of macros", "HELO", "specials"],
)
def test_a_strangers_text_is_short_printable_ascii(text: bytes) -> None:
    zone: Zone = {"evil.test": {"TXT": ["v=spf1 -all exp=why.test"]}, "why.test": {"TXT": [text]}}
    for mail_from in ("x@evil.test", "ö" * 300 + "@evil.test", "y" * 900 + "@evil.test"):
        result = session(zone, mail_from, helo=b"a\r\nX: \xff\0 b").result
        explanation = result.explanation or ""
        assert result.status is SpfStatus.FAIL
        assert len(explanation) <= 200
        assert explanation.isascii()
        assert not explanation or explanation.isprintable()
        if b"\r" in text or b"\n" in text:
            # RFC 7208 §6.2: an explain-string has no line ends, so there is none.
            assert result.explanation is None


@pytest.mark.attack("S16")
def test_what_a_sender_wrote_loses_what_a_reply_cannot_have() -> None:
    zone: Zone = {"evil.test": {"TXT": ["v=spf1 -all exp=why.test"]}, "why.test": {"TXT": ["<%{h}> %{l} %{L}"]}}
    result = session(zone, "ö@evil.test", helo=b"a\r\nX: \xff").result
    assert result.explanation == "<aX: >  %C3%B6"


def test_the_explanation_ends_where_it_is_long_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not after the megabytes that its macros would make."""
    made = 0

    def counted(*args: Any) -> str:
        nonlocal made
        text = expanded(*args)
        made += len(text)
        return text

    monkeypatch.setattr(engine, "expanded", counted)
    zone: Zone = {"evil.test": {"TXT": ["v=spf1 -all exp=why.test"]}, "why.test": {"TXT": ["%{S}" * 2_000]}}
    result = session(zone, "y" * 1_000 + "@evil.test").result
    assert result.explanation == "y" * 200
    assert 200 < made < 2_000


def test_p_in_an_explanation_counts_no_term() -> None:
    more: Zone = {
        "66.100.51.198.in-addr.arpa": {"PTR": ["host.evil.test"]},
        "host.evil.test": {"A": [EVIL_IP], "TXT": ["You are %{p}"]},
    }
    asked = recorded("v=spf1 " + "a:a.test " * 10 + "-all exp=%{p}", more={**more, "a.test": {"A": ["192.0.2.1"]}})
    assert (asked.result.explanation, asked.result.lookups) == ("You are host.evil.test", 10)
    assert record("v=spf1 -all exp=%{p}", more={}).explanation is None


def test_an_explanation_for_which_too_much_would_be_asked_is_left_out() -> None:
    more: Zone = {
        **{f"m{term}.test": {"MX": [(one, f"h{one}.m{term}.test") for one in range(10)]} for term in range(2)},
        "66.100.51.198.in-addr.arpa": {"PTR": [f"p{one}.test" for one in range(10)]},
        "unknown.why.test": {"TXT": ["why"]},
    }
    result = record("v=spf1 mx:m0.test mx:m1.test -all exp=%{p}.why.test", more=more)
    assert (result.status, result.explanation) == (SpfStatus.FAIL, None)
