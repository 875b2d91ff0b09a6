"""The text of a policy (RFC 8461 §3.2) and its patterns (RFC 8461 §4.1).

ATTACKS.md rows: T10.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailguard.mtasts.malformed import Malformed
from mailguard.mtasts.policy import MAX_AGE_S, MAX_PATTERNS, MAX_POLICY_BYTES, StsMode, StsPolicy, matches

T09 = pytest.mark.attack("T09")
T10 = pytest.mark.attack("T10")


def text(
    *, mode: str = "enforce", mx: str = "mx: a.test\n", max_age: str = "max_age: 86400\n", more: str = ""
) -> bytes:
    return f"version: STSv1\nmode: {mode}\n{mx}{max_age}{more}".encode()


def read(octets: bytes) -> StsPolicy:
    policy = StsPolicy.parse(octets)
    assert isinstance(policy, StsPolicy), policy
    return policy


@pytest.mark.parametrize(
    ("octets", "mode", "mx", "max_age_s"),
    [
        pytest.param(text(), "enforce", ("a.test",), 86400, id="lf", marks=T10),
        pytest.param(text().replace(b"\n", b"\r\n"), "enforce", ("a.test",), 86400, id="crlf"),
        pytest.param(text().rstrip(), "enforce", ("a.test",), 86400, id="no-last-end"),
        pytest.param(text(mode="none", mx=""), "none", (), 86400, id="none-without-mx"),
        pytest.param(
            text(mx="mx: A.Test\nmx: *.B.test\nmx: a.test\n"), "enforce", ("a.test", "*.b.test"), 86400, id="case"
        ),
        pytest.param(
            text(more="mode: none\nversion: x\nmax_age: z\n"),
            "enforce",
            ("a.test",),
            86400,
            id="first-counts",
            marks=T10,
        ),
        pytest.param(text(max_age="max_age: 0\n"), "enforce", ("a.test",), 0, id="max_age-0", marks=T10),
        pytest.param(text(max_age="max_age: 31557600\n"), "enforce", ("a.test",), MAX_AGE_S, id="a-year"),
        pytest.param(text(max_age="max_age: 31557601\n"), "enforce", ("a.test",), MAX_AGE_S, id="more", marks=T10),
        pytest.param(
            text(max_age="max_age: 9999999999\n"), "enforce", ("a.test",), MAX_AGE_S, id="much-more", marks=T10
        ),
        pytest.param(text(more="note: caf\u00e9 \u2603\n"), "enforce", ("a.test",), 86400, id="utf-8"),
    ],
)
def test_policies(octets: bytes, mode: str, mx: tuple[str, ...], max_age_s: int) -> None:
    assert read(octets) == StsPolicy(StsMode(mode), mx, max_age_s)


@pytest.mark.parametrize(
    ("octets", "why"),
    [
        pytest.param(b"", "no version", id="empty"),
        pytest.param(b"\xef\xbb\xbf" + text(), "line 1", id="bom", marks=T10),
        pytest.param(text(mx="mx: *\n"), "not a pattern", id="star", marks=T10),
        pytest.param(text(mx="mx: *.*\n"), "not a pattern", id="star-star", marks=T10),
        pytest.param(text(mx="mx: a.*.test\n"), "not a pattern", id="star-inside"),
        pytest.param(text(mx="mx: a*.test\n"), "not a pattern", id="part-of-a-label"),
        pytest.param(text(mx="mx: .a.test\n"), "not a pattern", id="dot-in-front"),
        pytest.param(text(mx="mx: a.test.\n"), "not a pattern", id="dot-behind"),
        pytest.param(text(mx="mx: a_b.test\n"), "not a pattern", id="underscore"),
        pytest.param(text(mx="mx: [192.0.2.1]\n"), "not a pattern", id="address-literal"),
        pytest.param(text(mx="mx: 2001:db8::1\n"), "not a pattern", id="ipv6"),
        pytest.param(text(mx="mx: a.test b.test\n"), "not a pattern", id="two-in-a-line"),
        pytest.param(text(mx="mx: a:b\n"), "not a pattern", id="smtp_tls_policy-words"),
        pytest.param(text(mx=f"mx: {'a' * 64}.test\n"), "not a pattern", id="long-label"),
        pytest.param(text(mx=f"mx: {'a.' * 127}test\n"), "not a pattern", id="long-name"),
        pytest.param(text(mx=""), "no mx", id="no-mx"),
        pytest.param(text(max_age=""), "no max_age", id="no-max_age", marks=T10),
        pytest.param(text(max_age="max_age: 1000000000000\n"), "1 to 10 digits", id="13-digits", marks=T10),
        pytest.param(text(max_age="max_age: -1\n"), "1 to 10 digits", id="negative"),
        pytest.param(text(max_age="max_age: \u0661\n"), "1 to 10 digits", id="other-digits"),
        pytest.param(text(mode="Enforce"), "its mode", id="case-of-mode"),
        pytest.param(text().replace(b"version", b"Version"), "no version", id="case-of-key"),
        pytest.param(text(more="\n"), "line 5", id="blank-line"),
        pytest.param(text(more="a: b\rc: d\n"), "line 5", id="cr-alone"),
        pytest.param(text(more="a: b\0\n"), "line 5", id="nul"),
        pytest.param(text(more="a: b\u0085c\n"), "line 5", id="c1-control"),
        pytest.param(text(more=" a: b\n"), "line 5", id="space-in-front"),
        pytest.param(text(more="a : b\n"), "line 5", id="space-before-colon"),
        pytest.param(text(more="a\n"), "line 5", id="no-colon"),
        pytest.param(text(more="a: \n"), "line 5", id="no-value"),
        pytest.param(text() + b"a: \xff\n", "not UTF-8", id="not-utf-8"),
        pytest.param(
            text(more="a: " + "x" * MAX_POLICY_BYTES), "more than", id="too-long", marks=pytest.mark.attack("T09")
        ),
    ],
)
def test_malformed_policies(octets: bytes, why: str) -> None:
    policy = StsPolicy.parse(octets)
    assert isinstance(policy, Malformed)
    assert why in policy.detail
    assert policy.detail.isascii()
    assert policy.detail.isprintable()


@given(st.lists(st.sampled_from(["a.test", "*.b.test", "xn--aca-6ma.test"]), min_size=1), st.integers(0, MAX_AGE_S))
def test_what_is_written_is_read(mx: list[str], max_age_s: int) -> None:
    octets = text(mx="".join(f"mx: {name}\n" for name in mx), max_age=f"max_age: {max_age_s}\n")
    policy = read(octets)
    assert (policy.mx, policy.max_age_s) == (tuple(dict.fromkeys(mx)), max_age_s)
    # And what it is kept as.
    assert read(policy.text.encode()) == policy


@T09
def test_patterns_are_bounded() -> None:
    """As many as fit into the octets would take a megabyte of memory in each policy."""
    most = "".join(f"mx: m{number}.test\n" for number in range(MAX_PATTERNS))
    policy = read(text(mx=most + most))
    assert len(policy.mx) == MAX_PATTERNS
    for mode in ("enforce", "none"):
        refused = StsPolicy.parse(text(mode=mode, mx=most + "mx: one-more.test\n"))
        assert isinstance(refused, Malformed)
        assert refused.detail == f"line {3 + MAX_PATTERNS}: it names more than {MAX_PATTERNS} different mx"


@T09
def test_nothing_else_is_kept() -> None:
    policy = read(text(more="note: " + "x" * 60_000 + "\n"))
    assert policy.text == "version: STSv1\nmode: enforce\nmx: a.test\nmax_age: 86400\n"
    assert not hasattr(policy, "__dict__")


@given(st.binary() | st.text(alphabet="versionSTSv1mode:enforce\r\n \tmx.*max_age0\x00é").map(str.encode))
def test_no_octets_raise(octets: bytes) -> None:
    assert isinstance(StsPolicy.parse(octets), StsPolicy | Malformed)


@pytest.mark.parametrize(
    ("pattern", "host", "expected"),
    [
        ("*.good.test", "mx_1.good.test", True),
        ("*.good.test", ".good.test", False),
        ("*.good.test", "*.good.test", True),
        ("mail.good.test", "MAIL.good.test.", True),
        ("mail.good.test", "", False),
        ("mail.good.test", "mail.good.test..", False),
        ("*", "mail", False),
        ("*.", "mail.", False),
        ("", "", False),
        ("mail.good.test", "mail\\.good.test", False),
        ("xn--aca-6ma.test", "\u00f1ac\u0430.test", False),
        ("mail.good.test", "\u2603\ud800.test", False),
    ],
)
def test_hosts_and_patterns(pattern: str, host: str, expected: bool) -> None:
    assert matches(pattern, host) is expected


def test_one_pattern_is_enough() -> None:
    policy = read(text(mx="mx: a.test\nmx: *.b.test\n"))
    assert policy.allows("a.test")
    assert policy.allows("mail.b.test")
    assert not policy.allows("evil.test")
    assert not policy.allows("b.test")
