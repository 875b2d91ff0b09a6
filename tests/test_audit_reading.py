"""What `mailguard audit` reads out of Postfix's lists, times and versions, and out of postconf's output."""

from __future__ import annotations

import pytest

from mailguard.audit.access_table import inline_permits, source_file, text_permits
from mailguard.audit.postfix import aliases, parameters, quoted, service_overrides, services, unused, version_of
from mailguard.audit.restriction_list import effective, expanded, reaches, stops_relaying, words
from mailguard.audit.times import seconds
from mailguard.audit.tls_protocols import lowest_version, unknown_word
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
    ("value", "version", "word"),
    [
        ("", (3, 7), ""),
        (">=TLSv1.2, <=TLSv1.3, !SSLv3", (3, 7), ""),
        (">=TLSv1.2", (3, 5, 25), ">=TLSv1.2"),
        ("!SSLv2:!tlsv1.1", (3, 5, 25), ""),
        (">=0x0305", (3, 7), ""),
        ("!SSLv2, !TLSv12", (3, 7), "!TLSv12"),
        (">=TLSv1.2;!SSLv3", (3, 7), ">=TLSv1.2;!SSLv3"),
    ],
)
def test_what_postfix_cannot_read_of_tls(value: str, version: tuple[int, ...], word: str) -> None:
    assert unknown_word(value, version) == word


@pytest.mark.parametrize(
    ("kind", "text", "permits"),
    [
        ("hash", "a@us.test OK\n", True),
        ("hash", "a@us.test reject_unverified_sender\n", False),
        ("hash", "# a OK\n\na@us.test\tREJECT this is not OK\n", False),
        ("hash", "a@us.test\n  permit_auth_destination, reject\n", True),
        ("hash", "a 250\nb DUNNO\n", True),
        ("hash", "a 550 OK\nb 450 4.1.1 ok\nc\n", False),
        ("cidr", "192.0.2.0/24 ok\n", True),
        ("pcre", "/^OK permit$/i REJECT no\n/x/ DUNNO\n", False),
        ("pcre", "/@them\\/us$/ OK\n", True),
        ("regexp", "if /x/\n!/a b/ prepend X: OK\nendif\n", False),
    ],
)
def test_whether_a_table_permits(kind: str, text: str, permits: bool) -> None:
    assert text_permits(kind, text) is permits


def test_tables_in_place() -> None:
    found = {table: inline_permits(table) for table in ("static:OK", "static:{REJECT OK}", "hash:/x", "inline:x")}
    assert found == {"static:OK": True, "static:{REJECT OK}": False, "hash:/x": None, "inline:x": None}
    assert inline_permits("inline:{ {a = REJECT OK}, b=dunno }") is False
    assert inline_permits("inline:{ {a = permit_mynetworks, reject}, b=dunno }") is True
    assert inline_permits("inline:{a=OK}") is True
    assert inline_permits("inline:{ {a = OK} }") is True
    assert source_file("pcre:/etc/x") == ("pcre", "/etc/x")
    assert source_file("mysql:/etc/x") is None


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
    nested = "check_client_access inline:{ {a = permit}, b=c }, permit"
    assert words(nested) == ("check_client_access", "inline:{ {a = permit}, b=c }", "permit")
    assert words("a} { b, c") == ("a}", "{ b, c")


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
        ("warn_if_reject permit, reject", False),
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
    assert parameters("a = b\x85c = d\u2028e = f\n") == {"a": "b\x85c = d\u2028e = f"}
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
    table = "mysql:/x/y.cf"
    assert unused([f"postconf: warning: {table}: unused parameter: port=1"]) == ((table, "port=1"),)


def test_versions() -> None:
    texts = ("3.7.11", "3.5.25", "3.10-20240101", "3.11-RC1")
    assert [version_of(text) for text in texts] == [(3, 7, 11), (3, 5, 25), (3, 10), (3, 11)]
    with pytest.raises(ConfigError, match="no version of Postfix"):
        version_of("hello")


def test_quoting() -> None:
    assert quoted("it's $x") == "'it'\\''s $x'"
