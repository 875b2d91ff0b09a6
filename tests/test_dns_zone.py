"""ZoneResolver: zones in memory and master files."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from mailguard.dns.question import MX, Answer, Dnssec, Question, RecordType, Status
from mailguard.dns.reply import MAX_ALIASES
from mailguard.dns.zone import ZoneResolver
from mailguard.errors import ZoneError

ZONE: dict[str, dict[str, list[object]]] = {
    "Example.COM.": {
        "TXT": ["v=spf1 -all", b"\xff\x00", (b"v=DKIM1; ", b"p=AA")],
        "MX": [(10, "MX1.example.com."), (0, ".")],
        "AAAA": ["2001:DB8:0::1"],
        "NS": ["ns.example.com"],
    },
    "only.ns.example.com": {"NS": ["ns.example.com"]},
    "a.deep.example.com": {"A": ["192.0.2.1"]},
    "*.example.com": {"TXT": ["wild"], "A": ["192.0.2.9"]},
    "*.alias.test": {"CNAME": ["example.com"]},
    "to-nothing.test": {"CNAME": ["nothing.test"]},
    "to-nodata.test": {"CNAME": ["a.deep.example.com"]},
    "self.test": {"CNAME": ["self.test"]},
    "hostile.test": {"CNAME": ["a b\x00;\n%n.test"], "PTR": ['x".test'], "MX": [(1, "m\\046x.test")]},
    "1.2.0.192.in-addr.arpa": {"PTR": ["Host.Example.COM."]},
    "user+tag=x.test": {"TXT": ["odd"]},
    "ex.test": {"TXT": ["there"], "A": ["192.0.2.2"]},
}


def ask(resolver: ZoneResolver, name: str, rdtype: str) -> Answer:
    question = Question(name, RecordType(rdtype))
    answers = resolver.resolve([question], deadline=0.0)
    assert answers == asyncio.run(resolver.resolve_async([question], deadline=0.0))
    assert answers[question].question == question
    return answers[question]


@pytest.mark.parametrize(
    ("name", "rdtype", "status", "records"),
    [
        ("example.com", "TXT", Status.NOERROR, (b"v=spf1 -all", b"\xff\x00", b"v=DKIM1; p=AA")),
        ("example.com", "MX", Status.NOERROR, (MX(10, "mx1.example.com"), MX(0, ""))),
        ("example.com", "AAAA", Status.NOERROR, ("2001:db8::1",)),
        ("example.com", "A", Status.NODATA, ()),
        ("only.ns.example.com", "TXT", Status.NODATA, ()),
        ("1.2.0.192.in-addr.arpa", "PTR", Status.NOERROR, ("host.example.com",)),
        ("nosuch.test", "TXT", Status.NXDOMAIN, ()),
        # Above an existing name, and no wildcard applies there (RFC 4592 §2.2.2 and §3.3.1).
        ("deep.example.com", "TXT", Status.NXDOMAIN, ()),
        ("b.deep.example.com", "TXT", Status.NXDOMAIN, ()),
        ("x.example.com", "TXT", Status.NOERROR, (b"wild",)),
        ("x.y.example.com", "TXT", Status.NOERROR, (b"wild",)),
        ("x.example.com", "MX", Status.NODATA, ()),
        ("*.example.com", "TXT", Status.NOERROR, (b"wild",)),
        ("x.*.example.com", "TXT", Status.NXDOMAIN, ()),
        ("any.alias.test", "AAAA", Status.NOERROR, ("2001:db8::1",)),
        ("any.alias.test", "CNAME", Status.NOERROR, ("example.com",)),
        ("alias.test", "CNAME", Status.NXDOMAIN, ()),
        ("to-nothing.test", "TXT", Status.NXDOMAIN, ()),
        ("to-nodata.test", "TXT", Status.NODATA, ()),
        ("self.test", "TXT", Status.TEMPFAIL, ()),
        ("hostile.test", "CNAME", Status.NOERROR, (r"a\032b\000\059\010\037n.test",)),
        ("hostile.test", "PTR", Status.NOERROR, (r"x\034.test",)),
        ("hostile.test", "MX", Status.NOERROR, (MX(1, r"m\046x.test"),)),
        ("hostile.test", "TXT", Status.NXDOMAIN, ()),
        ("user+tag=x.test", "TXT", Status.NOERROR, (b"odd",)),
        # Not a Question's name: misuse shows, it is not taken for a name that does not exist.
        ("Example.com", "TXT", Status.TEMPFAIL, ()),
        ("example.com.", "TXT", Status.TEMPFAIL, ()),
        ("a..b", "TXT", Status.TEMPFAIL, ()),
        ("", "TXT", Status.TEMPFAIL, ()),
        ("a" * 64 + ".test", "TXT", Status.TEMPFAIL, ()),
        ("\xfc.test", "TXT", Status.TEMPFAIL, ()),
    ],
)
def test_look_up(name: str, rdtype: str, status: Status, records: tuple[object, ...]) -> None:
    answer = ask(ZoneResolver(ZONE), name, rdtype)
    assert (answer.status, answer.records) == (status, records)
    assert answer.detail


@pytest.mark.attack("D35")
@pytest.mark.parametrize("aliases", range(1, 21))
def test_alias_chain_has_a_bound(aliases: int) -> None:
    zone: dict[str, dict[str, list[object]]] = {f"n{i}.test": {"CNAME": [f"n{i + 1}.test"]} for i in range(aliases)}
    zone[f"n{aliases}.test"] = {"TXT": ["end"]}
    answer = ask(ZoneResolver(zone), "n0.test", "TXT")
    assert answer.status is (Status.NOERROR if aliases <= MAX_ALIASES == 8 else Status.TEMPFAIL)


@pytest.mark.attack("D35")
def test_alias_loop_of_two_ends() -> None:
    answer = ask(ZoneResolver({"a.test": {"CNAME": ["b.test"]}, "b.test": {"CNAME": ["a.test"]}}), "a.test", "A")
    assert answer.status is Status.TEMPFAIL


@pytest.mark.parametrize(
    ("status", "asked", "expected"),
    [
        ({("ex.test", "TXT"): Status.TEMPFAIL}, ("ex.test", "TXT"), Status.TEMPFAIL),
        ({("ex.test", "TXT"): Status.TEMPFAIL}, ("ex.test", "A"), Status.NOERROR),
        ({("EX.test.", "*"): Status.BOGUS}, ("ex.test", "A"), Status.BOGUS),
        ({("ex.test", "*"): Status.BOGUS, ("ex.test", "A"): Status.NXDOMAIN}, ("ex.test", "A"), Status.NXDOMAIN),
        ({("ex.test", "*"): Status.BOGUS, ("ex.test", "A"): Status.NOERROR}, ("ex.test", "A"), Status.NOERROR),
        ({("absent.test", "*"): Status.NODATA}, ("absent.test", "MX"), Status.NODATA),
        ({("a.deep.example.com", "TXT"): Status.TEMPFAIL}, ("to-nodata.test", "TXT"), Status.TEMPFAIL),
    ],
)
def test_status_override(status: dict[tuple[str, str], Status], asked: tuple[str, str], expected: Status) -> None:
    answer = ask(ZoneResolver(ZONE, status=status), *asked)
    assert answer.status is expected
    assert bool(answer.records) is (expected is Status.NOERROR)


@pytest.mark.parametrize(
    ("dnssec", "asked", "expected", "status"),
    [
        ({}, ("ex.test", "TXT"), Dnssec.INSECURE, Status.NOERROR),
        ({("ex.test", "TXT"): Dnssec.SECURE}, ("ex.test", "TXT"), Dnssec.SECURE, Status.NOERROR),
        ({("ex.test", "TXT"): Dnssec.SECURE}, ("ex.test", "A"), Dnssec.INSECURE, Status.NOERROR),
        ({("no.test", "*"): Dnssec.SECURE}, ("no.test", "A"), Dnssec.SECURE, Status.NXDOMAIN),
        ({("ex.test", "*"): Dnssec.BOGUS}, ("ex.test", "A"), Dnssec.BOGUS, Status.BOGUS),
        # A chain is as secure as its weakest part.
        ({("to-nothing.test", "*"): Dnssec.SECURE}, ("to-nothing.test", "A"), Dnssec.INSECURE, Status.NXDOMAIN),
    ],
)
def test_dnssec_override(
    dnssec: dict[tuple[str, str], Dnssec], asked: tuple[str, str], expected: Dnssec, status: Status
) -> None:
    answer = ask(ZoneResolver(ZONE, dnssec=dnssec), *asked)
    assert (answer.dnssec, answer.status) == (expected, status)


@pytest.mark.parametrize(
    "zone",
    [
        {"a.test": {"TXTT": ["x"]}},
        {"a.test": {"TXT": "one string"}},
        {"a.test": {"TXT": [1]}},
        {"a.test": {"MX": ["mx.test"]}},
        {"a.test": {"MX": [(70000, "mx.test")]}},
        {"a.test": {"A": ["192.0.2.300"]}},
        {"a.test": {"AAAA": ["192.0.2.3"]}},
        {"a.test": {"CNAME": ["a..b"]}},
        {"a..test": {"A": ["192.0.2.3"]}},
        {"\\300.test": {"A": ["192.0.2.3"]}},
        "a.test. A 192.0.2.3",
        None,
        [("a.test", {})],
        {"a.test": "v=spf1 -all"},
        {"a.test": {"TXT": None}},
    ],
)
def test_what_is_no_zone_is_refused(zone: Any) -> None:
    with pytest.raises(ZoneError):
        ZoneResolver(zone)


@pytest.mark.parametrize(
    "overrides",
    [
        {"status": {"a.test": Status.TEMPFAIL}},
        {"status": {("a.test", "*"): "tempfail"}},
        {"status": {("a.test", "*"): Dnssec.BOGUS}},
        {"dnssec": {("a.test", "*"): "secure"}},
    ],
)
def test_what_is_no_override_is_refused(overrides: dict[str, Any]) -> None:
    with pytest.raises(ZoneError, match=r"a\.test"):
        ZoneResolver({}, **overrides)


MASTER_FILE = """\
$TTL 1h
$ORIGIN example.org.
@ IN SOA ns hostmaster 1 2 3 4 5
@ IN TXT "v=spf1" " -all"
  IN MX 10 mail
mail IN A 192.0.2.1
$ORIGIN example.net.   ; a second zone
@ IN SOA ns hostmaster 1 2 3 4 5
s1._domainkey IN TXT ( "v=DKIM1; "
    "p=AA" )
* IN CNAME full.example.edu.
full.example.edu. 300 IN TXT "full \\226\\130\\172"
full.example.edu. 300 IN TXT "second"
b._domainkey.example.edu. IN TYPE16 \\# 2 0161
"""


@pytest.mark.parametrize(
    ("name", "rdtype", "records"),
    [
        ("example.org", "TXT", (b"v=spf1 -all",)),
        ("example.org", "MX", (MX(10, "mail.example.org"),)),
        ("mail.example.org", "A", ("192.0.2.1",)),
        ("s1._domainkey.example.net", "TXT", (b"v=DKIM1; p=AA",)),
        ("any.example.net", "TXT", ("full \u20ac".encode(), b"second")),
        ("b._domainkey.example.edu", "TXT", (b"a",)),
        ("example.net", "TXT", ()),
    ],
)
def test_master_file(tmp_path: Path, name: str, rdtype: str, records: tuple[object, ...]) -> None:
    path = tmp_path / "zones"
    path.write_text(MASTER_FILE)
    answer = ask(ZoneResolver.from_file(path), name, rdtype)
    assert answer.records == records
    assert answer.status is (Status.NOERROR if records else Status.NODATA)


def test_master_file_with_an_origin_and_without_ttl(tmp_path: Path) -> None:
    path = tmp_path / "zone"
    path.write_text('@ TXT "x"\nwww A 192.0.2.1\n')
    resolver = ZoneResolver.from_file(str(path), origin="example.test.")
    assert ask(resolver, "www.example.test", "A").records == ("192.0.2.1",)
    assert ask(resolver, "example.test", "TXT").records == (b"x",)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a. IN\n", 1),
        ("$ORIGIN x.\n\nfoo IN A 1.2.3\nbar IN A 192.0.2.1\n", 3),
        ("a. A 192.0.2.1\nb. BAR x\n", 2),
        ("a. A 192.0.2.1\n$INCLUDE /etc/passwd\n", 2),
        ("a..b. A 192.0.2.1\n", 1),
        ("$TTL zz\n", 1),
        ("x" * 70 + ". A 192.0.2.1\n", 1),
        ('a. TXT "never closed\n', 1),
        ("a. CH A 192.0.2.1\n", 1),
        ("\\300. A 192.0.2.1\n", 1),
        ("a. TXT (\n x\n y\n", 3),
    ],
)
def test_bad_master_file_names_file_and_line(tmp_path: Path, text: str, line: int) -> None:
    path = tmp_path / "bad.zone"
    path.write_text(text)
    with pytest.raises(ZoneError) as caught:
        ZoneResolver.from_file(path)
    assert str(caught.value).startswith(f"{path}:{line}: ")


def test_unreadable_master_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "latin").write_bytes(b'a. TXT "\xff"\n')
    for path in (tmp_path / "absent", tmp_path / "latin", tmp_path):
        with pytest.raises(ZoneError, match=str(path)):
            ZoneResolver.from_file(path)
