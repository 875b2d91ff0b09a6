"""Whose domain is checked: reverse paths, HELO names and clients as attackers write them (ATTACKS.md E, S17).

`PASS_ALL` says pass for every name that is asked for, so a none or a permerror here means that nothing was asked.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailguard.spf.identity import Sender, helo_text, read_identity
from mailguard.spf.result import SpfIdentity, SpfReason, SpfStatus
from spf_asking import BANK_IP, EVIL_IP, PASS_ALL, Z0, Zone, envelope, recorded, session

E, S17 = pytest.mark.attack("E"), pytest.mark.attack("S17")

DOMAINS = [
    pytest.param("x@evil.test", "evil.test", id="plain"),
    pytest.param("x@EVIL.Test", "evil.test", id="case"),
    pytest.param("x@evil.test.", "evil.test", id="trailing dot"),
    pytest.param("@evil.test", "evil.test", id="RFC 7208 §4.3 no local part"),
    pytest.param("any@bank.test'@any.evil.test", "any.evil.test", id="E04 quote in the local part", marks=E),
    pytest.param("@bank.test,@any.test:'any@evil.test", "evil.test", id="E05 route", marks=E),
    pytest.param("@bank.test:x@evil.test", "evil.test", id="E05 route of one", marks=E),
    pytest.param('"x@bank.test"@evil.test', "evil.test", id="E06 quoted", marks=E),
    pytest.param('"x\\"@bank.test"@evil.test', "evil.test", id="E06 escaped quote", marks=E),
    pytest.param('"x\\\\"@evil.test', "evil.test", id="E06 escaped backslash", marks=E),
    pytest.param("a%bank.test@evil.test", "evil.test", id="E07 percent", marks=E),
    pytest.param("bank.test!a@evil.test", "evil.test", id="E07 bang", marks=E),
    pytest.param("(any@evil.test", "evil.test", id="E02 paren before", marks=E),
    pytest.param("Macro Error@evil.test", "evil.test", id="space"),
    pytest.param("ö@evil.test", "evil.test", id="E08 8-bit local part", marks=E),
    pytest.param("a@bücher.test", "xn--bcher-kva.test", id="E10 U-label", marks=E),
    pytest.param("a@BÜCHER.test", "xn--bcher-kva.test", id="E10 U-label, case", marks=E),
    pytest.param("a@bücher。test", "xn--bcher-kva.test", id="E10 ideographic full stop", marks=E),
    pytest.param("a@xn--bcher-kva.test", "xn--bcher-kva.test", id="E10 A-label", marks=E),
    # A bounce domain of a sender of newsletters: no name of a host, and one in the DNS.
    pytest.param("x@Bounce_1.evil.test", "bounce_1.evil.test", id="underscore"),
    pytest.param("x@_b.evil.test.", "_b.evil.test", id="underscore first"),
]
NO_DOMAIN = [
    pytest.param("x", id="no domain"),
    pytest.param("root", id="a word"),
    pytest.param("evil.test", id="no local part and no @"),
    pytest.param("x@", id="empty domain"),
    pytest.param("x@test", id="RFC 7208 §4.3 one label"),
    pytest.param("x@test.", id="RFC 7208 §4.3 one label and a dot"),
    pytest.param("x@.", id="only a dot"),
    pytest.param("x@evil..test", id="RFC 7208 §4.3 empty label"),
    pytest.param("x@.evil.test", id="RFC 7208 §4.3 empty first label"),
    pytest.param("x@evil.test..", id="two dots at the end"),
    pytest.param("x@" + "a" * 64 + ".test", id="RFC 7208 §4.3 label of 64"),
    pytest.param("x@" + ".".join(["abcdefg"] * 32), id="name of 255"),
    pytest.param("x@[192.0.2.10]", id="address literal"),
    pytest.param("x@[IPv6:2001:db8::1]", id="IPv6 literal"),
    pytest.param("@[IPv6:2001:db8::1]", id="IPv6 literal, no local part"),
    pytest.param("x@192.0.2.10", id="address"),
    pytest.param("x@-evil.test", id="hyphen first"),
    pytest.param("x@-e_vil.test", id="hyphen first, underscore"),
    pytest.param("x@e_vil..test", id="underscore, empty label"),
    pytest.param("x@" + "_" * 64 + ".test", id="underscore, label of 64"),
    pytest.param("x@xn--a.test", id="no A-label"),
    pytest.param("x@bank.test（a.evil.test", id="S17 full-width parenthesis", marks=S17),
]
NOT_AN_ADDRESS = [
    pytest.param("any@bank.test(a.evil.test", id="E03 paren", marks=[E, S17]),
    pytest.param("any@bank.test\\(a.evil.test", id="S17 escaped paren", marks=S17),
    pytest.param("a@bank.test\0.evil.test", id="S17 NUL in the domain", marks=S17),
    pytest.param("a\0b@evil.test", id="S17 NUL in the local part", marks=S17),
    pytest.param("a@bank.test\n.evil.test", id="S17 LF", marks=S17),
    pytest.param("a@bank.test\r\nX: y", id="S17 CRLF", marks=S17),
    pytest.param("a@bank.test .evil.test", id="S17 space", marks=S17),
    pytest.param("a@bank.test;evil.test", id="S17 semicolon", marks=S17),
    pytest.param("a@bank.test%evil.test", id="S17 percent", marks=S17),
    pytest.param("a@%{l}.evil.test", id="S17 macro", marks=S17),
    pytest.param("a@bank.test\\.evil.test", id="S17 backslash", marks=S17),
    pytest.param("a@bank.test/evil.test", id="S17 slash", marks=S17),
    pytest.param('a@"bank.test', id="S17 quote in the domain", marks=S17),
    pytest.param('a@evil.test"@bank.test"', id="S17 quotes around an @", marks=S17),
    pytest.param('"a@bank.test', id="quote not closed"),
    pytest.param('"a"b"@bank.test', id="three quotes"),
    pytest.param(b"\xff@evil.test", id="E09 no UTF-8", marks=E),
    pytest.param(b"a@ev\xffil.test", id="E09 no UTF-8 in the domain", marks=E),
    pytest.param("a" * 1_100 + "@evil.test", id="over-long"),
]


@pytest.mark.parametrize(("mail_from", "domain"), DOMAINS)
def test_the_domain_of_a_reverse_path(mail_from: str, domain: str) -> None:
    asked = session(PASS_ALL, mail_from)
    assert (asked.result.status, asked.result.domain) == (SpfStatus.PASS, domain)
    assert asked.questions == [f"{domain} TXT"]
    assert not asked.result.is_null_sender


@pytest.mark.parametrize("mail_from", NO_DOMAIN)
def test_without_a_domain_there_is_no_result(mail_from: str) -> None:
    asked = session(PASS_ALL, mail_from)
    assert (asked.result.status, asked.result.reason) == (SpfStatus.NONE, SpfReason.NO_DOMAIN)
    assert asked.result.domain is None
    assert not asked.rounds


@pytest.mark.parametrize("mail_from", NOT_AN_ADDRESS)
def test_what_is_no_address_is_a_permerror(mail_from: str | bytes) -> None:
    asked = session(PASS_ALL, mail_from)
    assert (asked.result.status, asked.result.reason) == (SpfStatus.PERMERROR, SpfReason.SENDER_SYNTAX)
    assert asked.result.domain is None
    assert not asked.rounds
    assert asked.result.detail.isascii()
    assert asked.result.detail.isprintable()


HELO_NAMES = [
    pytest.param("evil.test", "evil.test", id="plain"),
    pytest.param("EVIL.test.", "evil.test", id="case, trailing dot"),
    pytest.param("", None, id="none"),
    pytest.param("localhost", None, id="one label"),
    pytest.param("[198.51.100.66]", None, id="E14 address literal", marks=E),
    pytest.param("[IPv6:2001:db8::66]", None, id="E14 IPv6 literal", marks=E),
    pytest.param("[x]", None, id="E14 brackets", marks=E),
    pytest.param("198.51.100.66", None, id="address"),
    pytest.param("a" * 1_000, None, id="E14 1,000 characters", marks=E),
    pytest.param(".".join(["a"] * 500), None, id="E14 500 labels", marks=E),
    pytest.param("a b.evil.test", None, id="E14 space", marks=E),
    pytest.param("bank.test(a.evil.test", None, id="E14 paren", marks=E),
    pytest.param("bank.test;evil.test", None, id="E14 semicolon", marks=E),
    pytest.param("bank.test\0.evil.test", None, id="NUL"),
    pytest.param("x@evil.test", None, id="an address"),
    pytest.param("MY_PC.evil.test", "my_pc.evil.test", id="underscore"),
    pytest.param("MY_PC", None, id="underscore, one label"),
    pytest.param("bü_cher.test", None, id="underscore in a U-label"),
    pytest.param(b"\xff\xfe", None, id="E13 no UTF-8", marks=E),
    pytest.param("bücher.test", "xn--bcher-kva.test", id="RFC 8616 §4 U-label"),
]


@pytest.mark.parametrize(("helo", "domain"), HELO_NAMES)
def test_helo(helo: str | bytes, domain: str | None) -> None:
    """For its own identity, and for the null reverse path (RFC 7208 §2.3, RFC 7208 §2.4)."""
    own = session(PASS_ALL, "x@other.test", helo=helo, identity=SpfIdentity.HELO)
    null = session(PASS_ALL, "", helo=helo)
    for asked in (own, null):
        if domain:
            assert (asked.result.status, asked.result.domain) == (SpfStatus.PASS, domain)
            assert asked.questions == [f"{domain} TXT"]
        else:
            assert (asked.result.status, asked.result.reason) == (SpfStatus.NONE, SpfReason.NO_DOMAIN)
            assert (asked.result.domain, asked.rounds) == (None, [])
    assert (own.result.identity, own.result.is_null_sender) == (SpfIdentity.HELO, False)
    assert (null.result.identity, null.result.is_null_sender) == (SpfIdentity.MAIL_FROM, True)


@pytest.mark.attack("E14")
def test_a_long_helo_name_is_cut_for_macros() -> None:
    assert helo_text(envelope(helo="a" * 1_000)) == "a" * 512
    assert helo_text(envelope(helo=b"\xff")) == "\ufffd"


@pytest.mark.parametrize(
    ("helo", "text", "asked"),
    [
        ("mx.bücher.test", "mx.xn--bcher-kva.test", ["mx.xn--bcher-kva.test.check.test A"]),
        ("BÜCHER.test.", "xn--bcher-kva.test", ["xn--bcher-kva.test.check.test A"]),
        ("Mx.Bank.Test", "Mx.Bank.Test", ["mx.bank.test.check.test A"]),
        ("bücher..test", "bücher..test", []),
        ("[bücher]", "[bücher]", []),
    ],
)
def test_u_labels_of_helo_are_a_labels_in_macros(helo: str, text: str, asked: list[str]) -> None:
    """RFC 8616 §4; what is no domain name stays as it is."""
    assert helo_text(envelope(helo=helo)) == text
    assert recorded("v=spf1 exists:%{h}.check.test -all", helo=helo).consumed[1:] == asked


@pytest.mark.attack("E11", "E12")
def test_the_helo_name_of_another_is_a_fail_and_no_result_for_the_reverse_path() -> None:
    null = session(Z0, "", EVIL_IP, helo="bank.test").result
    assert (null.status, null.domain, null.is_null_sender) == (SpfStatus.FAIL, "bank.test", True)
    mail_from = session(Z0, "x@evil.test", EVIL_IP, helo="bank.test").result
    assert (mail_from.status, mail_from.domain) == (SpfStatus.PASS, "evil.test")
    helo = session(Z0, "x@evil.test", BANK_IP, helo="bank.test", identity=SpfIdentity.HELO).result
    assert (helo.status, helo.identity) == (SpfStatus.PASS, SpfIdentity.HELO)
    assert session(Z0, "x@evil.test", BANK_IP, helo="bank.test").result.status is SpfStatus.FAIL


@pytest.mark.attack("E01")
def test_a_subdomain_that_does_not_exist_has_no_record() -> None:
    assert session(Z0, "any@nosuch.bank.test").result.status is SpfStatus.NONE


@pytest.mark.parametrize(
    ("mail_from", "as_read", "expected", "domain"),
    [
        pytest.param("(any@bank.test", "", SpfStatus.PASS, "evil.test", id="E02 null to Postfix", marks=E),
        pytest.param("x@bank.test", "", SpfStatus.PASS, "evil.test", id="null to Postfix"),
        pytest.param("any@bank.test(a.evil.test", "any@bank.test", SpfStatus.PERMERROR, None, id="E03", marks=E),
        pytest.param(
            "any@bank.test(a.evil.test", "any@a.evil.test", SpfStatus.PERMERROR, None, id="E03 other", marks=E
        ),
        pytest.param("x@evil.test", "x@bank.test", SpfStatus.PERMERROR, None, id="another domain"),
        pytest.param("x@bank.test", "x@evil.test", SpfStatus.PERMERROR, None, id="another domain, swapped"),
        pytest.param("", "x@evil.test", SpfStatus.PERMERROR, None, id="null to us only"),
        pytest.param("x", "x@us.test", SpfStatus.PERMERROR, None, id="completed by Postfix"),
        pytest.param("x@evil.test", "x", SpfStatus.PERMERROR, None, id="without domain to Postfix"),
        pytest.param("x", "y", SpfStatus.NONE, None, id="without domain to both"),
        pytest.param(
            '"x@bank.test"@evil.test',
            "x@bank.test@evil.test",
            SpfStatus.PASS,
            "evil.test",
            id="E06 unquoted",
            marks=E,
        ),
        pytest.param('"x\\"y"@evil.test', 'x"y@evil.test', SpfStatus.PASS, "evil.test", id="a lone quote"),
        pytest.param("@any.test:x@evil.test", "x@evil.test", SpfStatus.PASS, "evil.test", id="E05 route", marks=E),
        pytest.param("x@EVIL.test", "x@evil.test.", SpfStatus.PASS, "evil.test", id="case and dot"),
        pytest.param("x@bücher.test", "x@xn--bcher-kva.test", SpfStatus.PASS, "xn--bcher-kva.test", id="A-label"),
        pytest.param("x@evil.test", b"\xff@evil.test", SpfStatus.PERMERROR, None, id="no UTF-8"),
    ],
)
def test_what_the_mail_server_reads(
    mail_from: str, as_read: str | bytes, expected: SpfStatus, domain: str | None
) -> None:
    asked = session(PASS_ALL, mail_from, as_read=as_read)
    assert (asked.result.status, asked.result.domain) == (expected, domain)
    if expected is SpfStatus.PERMERROR:
        assert asked.result.reason is SpfReason.SENDER_DISPUTED
    assert asked.questions == ([f"{domain} TXT"] if domain else [])
    assert asked.result.is_null_sender is (as_read == "")


@pytest.mark.parametrize(
    ("path", "local_part"),
    [
        pytest.param("@a.test:x@evil.test", "x", id="a route"),
        pytest.param("@a.test,@b.test,@c.test:x@evil.test", "x", id="a route of three"),
        pytest.param("@a.test,@:x@evil.test", "@a.test,@:x", id="no route: a name is missing"),
        pytest.param("@a.test,:x@evil.test", "@a.test,:x", id="no route: a comma too many"),
        pytest.param("@a.test,@b.test;x@evil.test", "@a.test,@b.test;x", id="no route: no colon"),
        pytest.param("y@a.test:x@evil.test", "y@a.test:x", id="no route: not at the beginning"),
    ],
)
def test_the_route_is_left_out_of_the_local_part(path: str, local_part: str) -> None:
    """RFC 5321 §4.1.2; what is no route belongs to the local part, which macros show."""
    found = read_identity(envelope(path), SpfIdentity.MAIL_FROM)
    assert isinstance(found, Sender)
    assert (found.local_part, found.domain) == (local_part, "evil.test")


CLIENTS: Zone = {
    "evil.test": {
        "TXT": ["v=spf1 ip4:192.0.2.10 -ip6:fe80::/10 -ip6:::ffff:0:0/96 exists:%{ir}.%{v}.check.test ?all"]
    },
    "66.100.51.198.in-addr.check.test": {"A": ["127.0.0.2"]},
}


@pytest.mark.attack("E16")
@pytest.mark.parametrize(
    ("ip", "expected"),
    [
        (None, ("none", "no-address")),
        ("fe80::1%eth0", ("none", "no-address")),
        ("fe80::1%1", ("none", "no-address")),
        ("::ffff:192.0.2.10%eth0", ("none", "no-address")),
        ("::ffff:192.0.2.10", ("pass", "match")),
        ("::ffff:198.51.100.66", ("pass", "match")),
        ("192.0.2.10", ("pass", "match")),
        ("fe80::1", ("fail", "match")),
        ("2001:db8::1", ("neutral", "match")),
    ],
)
def test_clients(ip: str | None, expected: tuple[str, str]) -> None:
    asked = session(CLIENTS, ip=ip)
    assert (asked.result.status.value, asked.result.reason.value) == expected
    if expected[1] == "no-address":
        assert not asked.rounds
        assert asked.result.domain == "evil.test"
        assert session(CLIENTS, "a@bank.test(", ip=ip).result.reason is SpfReason.NO_ADDRESS


@pytest.mark.parametrize(
    ("ip", "term", "matches"),
    [
        ("192.0.2.10", "ip4:192.0.2.10", True),
        ("::192.0.2.10", "ip4:192.0.2.10", False),
        ("::192.0.2.10", "ip4:0.0.0.0/0", False),
        ("::c0", "ip4:192.0.2.10/8", False),
        ("192.0.2.10", "ip6:::192.0.2.10", False),
        ("192.0.2.10", "ip6:::/0", False),
        ("::192.0.2.10", "ip6:::192.0.2.10", True),
        ("::192.0.2.10", "ip6:::/96", True),
    ],
)
def test_a_network_matches_clients_of_its_own_kind(ip: str, term: str, *, matches: bool) -> None:
    """RFC 7208 §5.6, alone and where pyspf is asked for another term."""
    for before in ("", "a "):
        result = session({"evil.test": {"TXT": [f"v=spf1 {before}{term} ?all"]}}, ip=ip).result
        assert result.mechanism == (term if matches else "?all")


@pytest.mark.attack("N06")
def test_names_with_odd_octets_are_no_names_of_a_client() -> None:
    names = [
        "a\\000b.evil.test",
        "a;b.evil.test",
        "a(b.evil.test",
        "a\nb.evil.test",
        "%n.evil.test",
        "a b.evil.test",
        "..",
        "",
    ]
    zone: Zone = {
        "evil.test": {"TXT": ["v=spf1 ptr exists:%{p}.check.test ?all"]},
        "66.100.51.198.in-addr.arpa": {"PTR": [name for name in names if name.strip(".")]},
    }
    asked = session(zone)
    assert asked.result.mechanism == "?all"
    assert asked.consumed == ["evil.test TXT", "66.100.51.198.in-addr.arpa PTR", "unknown.check.test A"]


@pytest.mark.attack("N06")
@pytest.mark.parametrize(
    ("exchange", "asked_for"),
    [
        ("foo:bar/baz.mail.test", "foo:bar/baz.mail.test A"),
        ("a\\000b.mail.test", None),
        ("a\\.b.mail.test", None),
        ("a\\\\b.mail.test", None),
        ("\\255.mail.test", None),
        ("a\\010b.mail.test", None),
    ],
)
def test_mail_servers_with_odd_names_are_looked_up_if_they_can_be(exchange: str, asked_for: str | None) -> None:
    zone: Zone = {"evil.test": {"TXT": ["v=spf1 mx ?all"], "MX": [(1, exchange)]}}
    asked = session(zone)
    assert asked.result.mechanism == "?all"
    assert asked.consumed[2:] == ([asked_for] if asked_for else [])


@given(
    st.one_of(st.binary(max_size=60), st.text(max_size=40).map(lambda text: text.encode("utf-8", "surrogatepass")))
)
def test_no_reverse_path_and_no_helo_name_trips_the_reader(octets: bytes) -> None:
    for mail_from, helo, identity in (
        (octets, b"h.test", SpfIdentity.MAIL_FROM),
        (b"a@" + octets, b"h.test", SpfIdentity.MAIL_FROM),
        (b"", octets, SpfIdentity.MAIL_FROM),
        (b"a@b.test", octets, SpfIdentity.HELO),
    ):
        asked = session({}, mail_from, helo=helo, identity=identity)
        assert asked.result.status in (SpfStatus.NONE, SpfStatus.PERMERROR)
        assert (asked.result.domain is None) == (not asked.rounds)
