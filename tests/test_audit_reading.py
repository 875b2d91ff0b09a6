"""What `mailguard audit` reads out of Postfix's lists, times and versions, and out of postconf's output."""

from __future__ import annotations

import pytest

from mailguard.audit.postfix import aliases, parameters, quoted, service_overrides, services, unused, version_of
from mailguard.audit.restriction_list import effective, expanded, reaches, stops_relaying, words
from mailguard.audit.times import seconds
from mailguard.audit.tls_protocols import lowest_version
from mailguard.errors import ConfigError


@pytest.mark.parametrize(
    ("value", "lowest"),
    [
        ("", "SSLv2"),
        (">=TLSv1.2", "TLSv1.2"),
        (">=tlsv1.2, <=TLSv1.3", "TLSv1.2"),
        (">=0303", "TLSv1.2"),
        (">=0x0301", "TLSv1"),
        (">=301", "TLSv1"),
        (">=0305", "SSLv2"),
        ("!SSLv2, !SSLv3", "TLSv1"),
        ("!SSLv2:!SSLv3:!TLSv1:!TLSv1.1", "TLSv1.2"),
        ("!SSLv2 !SSLv3 !TLSv1.1", "TLSv1"),
        ("TLSv1.2 TLSv1.3", "TLSv1.2"),
        ("TLSv1.3", "TLSv1.3"),
        (">=TLSv1, !TLSv1, !TLSv1.1", "TLSv1.2"),
        ("!SSLv2 !SSLv3 !TLSv1 !TLSv1.1 !TLSv1.2 !TLSv1.3", "TLSv1.3"),
        ("nonsense", "TLSv1.3"),
    ],
)
def test_the_lowest_version_of_tls(value: str, lowest: str) -> None:
    """An unknown word includes nothing, so Postfix refuses every version; what is beyond 1.3 raises no floor here."""
    assert lowest_version(value) == lowest


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("3600s", 3600),
        ("3600", 3600),
        ("2h", 7200),
        ("1d", 86400),
        ("1W", 604800),
        ("-1", None),
        ("", None),
        ("x", None),
    ],
)
def test_times(value: str, found: int | None) -> None:
    assert seconds(value) == found


def test_words() -> None:
    text = "permit_mynetworks,\n  check_policy_service { inet:127.0.0.1:10023, timeout=10s }, reject"
    assert words(text) == (
        "permit_mynetworks",
        "check_policy_service",
        "{ inet:127.0.0.1:10023, timeout=10s }",
        "reject",
    )
    assert words("") == words(" , ") == ()


def test_classes_are_replaced() -> None:
    classes = {"a": "b, permit", "b": "reject_x a"}
    assert expanded("first a last", classes) == ("first", "reject_x", "a", "permit", "last")


@pytest.mark.parametrize(
    ("text", "stops"),
    [
        ("", False),
        ("permit_mynetworks, reject_unauth_destination", True),
        ("permit_mynetworks, defer_unauth_destination", True),
        ("permit_sasl_authenticated, reject", True),
        ("permit, reject_unauth_destination", False),
        ("warn_if_reject reject_unauth_destination, permit", False),
        ("warn_if_reject reject_rbl_client x.test, reject_unauth_destination", True),
        ("warn_if_reject permit, reject", True),
    ],
)
def test_what_stops_relaying(text: str, stops: bool) -> None:
    assert stops_relaying(words(text)) is stops


def test_what_has_an_effect() -> None:
    assert tuple(effective(words("a, warn_if_reject b, c, reject, d"))) == ("a", "warn_if_reject", "c", "reject")
    assert not reaches(("permit_sasl_authenticated", "x"), ("x",), before=("permit_sasl_authenticated",))
    assert reaches(("x", "permit_sasl_authenticated"), ("x",), before=("permit_sasl_authenticated",))


def test_what_postconf_prints() -> None:
    assert parameters("a = b = c\nempty =\nno equals sign\n") == {"a": "b = c", "empty": ""}
    assert aliases("a = $b\nc = ${d}\ne = $(f)\ng = $h x\ni = ${j?k}\n") == {"a": "b", "c": "d", "e": "f"}
    overrides = service_overrides("submission/inet/x = 1\n127.0.0.1:10025/inet/y = a/b\n[::1]:26/inet/z =\n")
    assert overrides == {
        "submission/inet": {"x": "1"},
        "127.0.0.1:10025/inet": {"y": "a/b"},
        "[::1]:26/inet": {"z": ""},
    }
    found = services(
        "submission inet n - y - - smtpd -o x=1 -v\nscache unix - - y - 1 scache\n\nshort line\n", overrides
    )
    assert [(each.place, each.command, dict(each.overrides)) for each in found] == [
        ("submission/inet", "smtpd", {"x": "1"}),
        ("scache/unix", "scache", {}),
    ]
    assert unused(["postconf: warning: /x/main.cf: unused parameter: y=1,  2", "postconf: warning: other"]) == (
        ("main.cf", "y=1, 2"),
    )


def test_versions() -> None:
    texts = ("3.7.11", "3.5.25", "3.10-20240101", "3.11-RC1")
    assert [version_of(text) for text in texts] == [(3, 7, 11), (3, 5, 25), (3, 10), (3, 11)]
    with pytest.raises(ConfigError, match="no version of Postfix"):
        version_of("hello")


def test_quoting() -> None:
    assert quoted("it's $x") == "'it'\\''s $x'"
