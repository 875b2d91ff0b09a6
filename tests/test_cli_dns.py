"""`mailguard dns`: what it prints, and what it says of real name servers that agree, lag, differ or are gone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli_process import Command, mailguard_command
from mailguard.dns.authoritative import normal_rdata
from mailguard.domain import Domain
from mailguard.records.choices import Choices, MailHost
from mailguard.records.compare import Comparison, Found, State, compare
from mailguard.records.generate import records
from mailguard.records.record import Record
from nsd_site import Nsd

__all__ = ["mailguard_command"]

FIRST, SECOND = "127.0.0.61", "127.0.0.62"
HEAD = f"""\
$TTL 300
@ IN SOA ns1.us.test. h.us.test. 1 60 60 60 60
@ IN NS ns1.us.test.
@ IN NS ns2.us.test.
ns1 IN A {FIRST}
ns2 IN A {SECOND}
"""
RIGHT = """\
@ IN MX 10 mx.us.test.
@ IN TXT "v=spf1 mx ~all"
@ IN TXT "site-verification=1"
_dmarc IN TXT "v=DMARC1;p=none;  rua=mailto:postmaster@us.test;"
_smtp._tls IN TXT "v=TLSRPTv1; rua=mailto:postmaster@us.test"
"""
STS = '_mta-sts IN TXT "v=STSv1; id={id}"\n'


def sts_id() -> str:
    choices = Choices(domain=Domain.parse("us.test"), hosts=[MailHost(name=Domain.parse("mx.us.test"))])
    return next(each.value for each in records(choices) if each.name.startswith("_mta-sts"))[len("v=STSv1; id=") :]


def zone(text: str = "") -> dict[str, str]:
    return {"us.test": HEAD + (text or RIGHT + STS.format(id=sts_id()))}


@pytest.fixture(scope="module")
def servers() -> Iterator[tuple[Nsd, Nsd]]:
    with Nsd(FIRST, zone()) as first, Nsd(SECOND, zone()) as second:
        yield first, second


@pytest.fixture
def both(servers: tuple[Nsd, Nsd]) -> tuple[Nsd, Nsd]:
    for server in servers:
        server.serve(zone())
    return servers


@pytest.fixture
def config(tmp_path: Path) -> str:
    path = tmp_path / "mailguard.toml"
    path.write_text(f'authserv_id = "mx.us.test"\n[dns]\nnameservers = ["{FIRST}"]\n')
    return str(path)


def states(text: str) -> set[tuple[str, str, str]]:
    return {(each["state"], each["name"], each["server"].split()[0]) for each in json.loads(text)}


def test_servers_that_have_everything(mailguard_command: Command, both: tuple[Nsd, Nsd], config: str) -> None:
    done = mailguard_command("dns", "us.test", "-c", config, "--diff")
    assert done.code == 0, done.out
    lines = done.out.splitlines()
    assert lines[-1] == "10 present"
    assert f"present   us.test MX: ns1.us.test ({FIRST}), ns2.us.test ({SECOND})" in lines


def test_a_server_that_lags(mailguard_command: Command, both: tuple[Nsd, Nsd], config: str) -> None:
    both[1].serve(zone(RIGHT.replace("p=none", "p=reject") + STS.format(id="old")))
    done = mailguard_command("dns", "us.test", "-c", config, "--diff", "--json")
    assert done.code == 1
    found = states(done.out)
    assert ("different", "_dmarc.us.test", "ns2.us.test") in found
    assert ("different", "_mta-sts.us.test", "ns2.us.test") in found
    assert ("present", "_dmarc.us.test", "ns1.us.test") in found
    done = mailguard_command("dns", "us.test", "-c", config, "--diff")
    assert "publish: v=DMARC1; p=none; rua=mailto:postmaster@us.test" in done.out
    assert "there is: v=DMARC1;p=reject;" in done.out


def test_what_is_missing_and_what_is_too_many(mailguard_command: Command, both: tuple[Nsd, Nsd], config: str) -> None:
    more = '_smtp._tls IN TXT "v=TLSRPTv1; rua=mailto:old@us.test"\n@ IN TXT "v=spf1 -all"\n'
    both[0].serve(zone(RIGHT + more))
    done = mailguard_command("dns", "us.test", "-c", config, "--mx", "mx.us.test", "--diff", "--json")
    assert done.code == 1
    found = states(done.out)
    assert ("missing", "_mta-sts.us.test", "ns1.us.test") in found
    assert ("extra", "_smtp._tls.us.test", "ns1.us.test") in found
    # Two SPF records are none at all (RFC 7208 §4.5); the text of somebody else is not our affair.
    assert [
        each["found"] for each in json.loads(done.out) if each["state"] == "extra" and each["name"] == "us.test"
    ] == [["v=spf1 -all"]]


def test_a_server_that_is_gone(mailguard_command: Command, both: tuple[Nsd, Nsd], config: str) -> None:
    both[1].stop()
    done = mailguard_command("dns", "us.test", "-c", config, "--mx", "mx.us.test", "--diff", "--json")
    assert done.code == 75
    assert {each[0] for each in states(done.out)} == {"present", "broken"}
    both[1].start()


def test_a_server_that_does_not_know_the_zone(mailguard_command: Command, both: tuple[Nsd, Nsd], config: str) -> None:
    both[1].serve({"elsewhere.test": HEAD.replace("us.test", "elsewhere.test")})
    done = mailguard_command("dns", "us.test", "-c", config, "--mx", "mx.us.test", "--diff")
    assert done.code == 75
    assert "it answers REFUSED" in done.out


def test_a_domain_that_is_not_there(mailguard_command: Command, both: tuple[Nsd, Nsd], config: str) -> None:
    done = mailguard_command("dns", "nowhere.test", "-c", config, "--diff")
    assert done.code == 75
    assert "could not be found" in done.out
    assert "Traceback" not in done.err


def test_the_keys_of_the_configuration(mailguard_command: Command, tmp_path: Path, both: tuple[Nsd, Nsd]) -> None:
    made = mailguard_command("key", "new", "us.test", "--directory", str(tmp_path / "keys"), "--json")
    keys = json.loads(made.out)["keys"]
    selectors = ", ".join(f'{{ name = "{each["selector"]}", key_file = "{each["file"]}" }}' for each in keys)
    path = tmp_path / "mailguard.toml"
    text = f'authserv_id = "mx.us.test"\n[dns]\nnameservers = ["{FIRST}"]\n'
    path.write_text(f'{text}[domains."us.test"]\nselectors = [{selectors}]\n')
    done = mailguard_command("dns", "us.test", "-c", str(path))
    assert done.code == 0
    assert done.err == ""
    for each in keys:
        assert each["zone_line"] in done.out
    assert "us.test. 3600 IN MX 10 mx.us.test." in done.out
    other = mailguard_command("dns", "other.test", "-c", str(path))
    assert "_domainkey" not in other.out
    assert "no key of other.test is known" in other.err


MISTAKES = [
    ("no domain", ["us test"], "is not a domain name"),
    ("no config", ["us.test", "-c", "/no/such/file"], "/no/such/file"),
    ("all is ours", ["us.test", "--spf", "-all"], "the record ends with ~all"),
    ("no term", ["us.test", "--spf", "ip4:1.2.3"], "--spf: in its term 1"),
    ("no address", ["us.test", "--report-to", "postmaster"], "is not an address"),
    ("an address that ends a tag", ["us.test", "--report-to", '"a;b"@us.test'], "is not an address"),
    ("no host", ["us.test", "--mx", "a b"], "is not the name of a host"),
    ("no certificate", ["us.test", "--mx", "mx.us.test", "--certificate", "/no/such"], "/no/such: cannot be read"),
    ("a directory", ["us.test", "--mx", "mx.us.test", "--certificate", "/etc"], "/etc: cannot be read"),
    ("another file", ["us.test", "--mx", "mx.us.test", "--certificate", "/etc/passwd"], "no certificate"),
    ("no such form", ["us.test", "--format", "xml"], "'xml' is not one of"),
]


@pytest.mark.parametrize(("arguments", "said"), [row[1:] for row in MISTAKES], ids=[row[0] for row in MISTAKES])
def test_mistakes(mailguard_command: Command, config: str, arguments: list[str], said: str) -> None:
    named = [] if "-c" in arguments else ["-c", config]
    done = mailguard_command("dns", *arguments, *named)
    assert done.code in (64, 78)
    assert said in done.err
    assert "Traceback" not in done.err
    assert done.out == ""


# The comparison by itself

WANTED = Record(name="a.us.test", rdtype="TXT", value="v=DKIM1; k=rsa; p=AAAA", why="w")
SPF = Record(name="us.test", rdtype="TXT", value="v=spf1 mx ~all", why="w", replaces=False)
TLSA = Record(name="t.us.test", rdtype="TLSA", value="3 1 1 " + "ab" * 32, why="w")
CASES = [
    ("same", WANTED, ["v=DKIM1; k=rsa; p=AAAA"], [State.PRESENT]),
    ("white space", WANTED, ["v=DKIM1;k=rsa ; p= AAAA ;"], [State.PRESENT]),
    ("case counts", WANTED, ["v=DKIM1; k=rsa; p=aaaa"], [State.DIFFERENT]),
    ("nothing", WANTED, [], [State.MISSING]),
    ("one more", WANTED, ["v=DKIM1; k=rsa; p=AAAA", "other"], [State.PRESENT, State.EXTRA]),
    ("twice", WANTED, ["v=DKIM1; k=rsa; p=AAAA", "v=DKIM1;k=rsa;p=AAAA"], [State.PRESENT, State.EXTRA]),
    ("other texts at the domain", SPF, ["v=spf1 mx ~all", "site=1"], [State.PRESENT]),
    ("only other texts", SPF, ["site=1"], [State.MISSING]),
    ("another SPF", SPF, ["v=spf1 -all"], [State.DIFFERENT]),
    ("two SPF", SPF, ["v=spf1 mx ~all", "V=SPF1 -all"], [State.PRESENT, State.EXTRA]),
    ("TLSA in other letters", TLSA, ["3 1 1 " + "AB" * 32], [State.PRESENT]),
    ("another TLSA beside it", TLSA, ["3 1 1 " + "ab" * 32, "3 1 1 " + "cd" * 32], [State.PRESENT, State.EXTRA]),
]


@pytest.mark.parametrize(("record", "there", "expected"), [row[1:] for row in CASES], ids=[row[0] for row in CASES])
def test_the_comparison(record: Record, there: list[str], expected: list[State]) -> None:
    live = {(record.name, record.rdtype): {"ns": Found(tuple(there))}}
    assert [each.state for each in compare([record], live, normal=normal_rdata)] == expected


def test_a_fault_is_neither_missing_nor_present() -> None:
    live = {(WANTED.name, "TXT"): {"ns": Found(fault="no answer: timeout")}}
    assert compare([WANTED], live, normal=normal_rdata) == [
        Comparison(State.BROKEN, WANTED.name, "TXT", "ns", WANTED.value, detail="no answer: timeout")
    ]


def test_what_is_held_back_is_not_compared() -> None:
    held = Record(name="t.us.test", rdtype="TLSA", value="3 1 1 " + "ab" * 32, why="w", held_back="no DNSSEC")
    assert compare([held], {("t.us.test", "TLSA"): {"ns": Found()}}, normal=normal_rdata) == []
