"""`mailguard dns`: what it prints, and what it says of real name servers that agree, lag, differ or are gone."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
from collections.abc import Iterator, Mapping
from hashlib import sha256
from pathlib import Path

import dns.message
import dns.query
import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from cli_process import Command
from dane_certificates import server as made_certificate
from mailguard.cli import mail_hosts
from mailguard.cli.dns_report import comparison_text
from mailguard.cli.live_records import live_records
from mailguard.dkim.signing_key import generate_ed25519
from mailguard.dmarc.report_uri import ReportUri
from mailguard.dns.authoritative import (
    ATTEMPTS,
    MAX_ADDRESSES,
    MAX_SERVERS,
    MAX_SILENCES,
    AuthoritativeDns,
    NameServer,
    Published,
    Unreachable,
)
from mailguard.dns.validation import Validation, ValidationStatus
from mailguard.domain import Domain
from mailguard.records.choices import Choices, MailHost
from mailguard.records.compare import Comparison, State
from mailguard.records.generate import records
from mailguard.records.record import Record
from nsd_site import Nsd

FIRST, SECOND, SILENT = "127.0.0.61", "127.0.0.62", "127.0.0.63"
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


class Kept(Nsd):
    """Begins again only for other zones."""

    def serve(self, zones: Mapping[str, str]) -> None:
        if zones != self._zones:
            super().serve(zones)


@pytest.fixture(scope="module")
def servers() -> Iterator[tuple[Nsd, Nsd]]:
    with Kept(FIRST, zone()) as first, Kept(SECOND, zone()) as second:
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


def test_what_a_server_has_is_shown_on_one_line_and_told_apart() -> None:
    there = [f"v=DMARC1; {char}28" for char in "\n\x1b\x20\u2028\u202e"]
    shown = comparison_text([Comparison(State.DIFFERENT, "us.test", "TXT", "ns1", found=tuple(there))]).splitlines()
    assert [line.strip() for line in shown[1:6]] == [
        f"there is: v=DMARC1; {char}28" for char in (r"\n", r"\x1b", " ", r"\u2028", r"\u202e")
    ]


def test_what_is_missing_and_what_is_too_many(mailguard_command: Command, both: tuple[Nsd, Nsd], config: str) -> None:
    more = '_smtp._tls IN TXT "v=TLSRPTv1; rua=mailto:old@us.test"\n@ IN TXT "v=spf1 -all"\n'
    both[0].serve(zone(RIGHT + more))
    done = mailguard_command("dns", "us.test", "-c", config, "--mx", "mx.us.test", "--diff", "--json")
    assert done.code == 1
    found = states(done.out)
    assert ("missing", "_mta-sts.us.test", "ns1.us.test") in found
    assert ("extra", "_smtp._tls.us.test", "ns1.us.test") in found
    # Two SPF records are an error (RFC 7208 §4.5); the text of somebody else is not our affair.
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
    done = mailguard_command("dns", "nowhere.test", "-c", config, "--mx", "mx.nowhere.test", "--diff")
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
    other = mailguard_command("dns", "other.test", "-c", str(path), "--mx", "mx.us.test")
    assert "_domainkey" not in other.out
    assert "no key of other.test is known" in other.err


# Servers that cannot be asked


def with_second(name: str) -> dict[str, str]:
    """The zone with another second server."""
    return {"us.test": zone()["us.test"].replace("NS ns2.us.test.", f"NS {name}")}


MX = ("--mx", "mx.us.test")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("ns2.other.test.", "its address (A) could not be looked up"),
        ("gone.us.test.", "it has no address"),
        ("mx.us.test.", "it has no address"),
    ],
    ids=["its zone is refused", "no such name", "a name with other records"],
)
def test_a_server_without_address_is_broken(
    mailguard_command: Command, both: tuple[Nsd, Nsd], config: str, name: str, said: str
) -> None:
    zones = with_second(name)
    both[0].serve({"us.test": zones["us.test"] + 'mx IN TXT "x"\n'})
    done = mailguard_command("dns", "us.test", "-c", config, *MX, "--diff", "--json")
    assert done.code == 75, done.out
    assert ("present", "us.test", "ns1.us.test") in states(done.out)
    assert ("broken", "us.test", name.removesuffix(".")) in states(done.out)
    assert said in done.out


def test_what_the_bounds_cut_off_is_broken(both: tuple[Nsd, Nsd]) -> None:
    names = [f"s{n:02}" for n in range(MAX_SERVERS + 2)]
    text = "".join(f"@ IN NS {name}\n{name} IN A {FIRST}\n" for name in names)
    text += "".join(f"s00 IN A 127.0.0.{n}\n" for n in range(100, 100 + MAX_ADDRESSES))
    both[0].serve({"us.test": HEAD.replace("@ IN NS ns1.us.test.\n@ IN NS ns2.us.test.\n", "") + text})
    authoritative = AuthoritativeDns([FIRST])
    found = authoritative.servers("us.test")
    assert {each.name: each.fault for each in found if each.fault} == {
        "s00.us.test": f"it has {MAX_ADDRESSES + 1} addresses, and {MAX_ADDRESSES} are asked",
        **{f"{name}.us.test": "not asked: the zone us.test has 28 servers, and 26 are asked" for name in names[-2:]},
    }
    assert len({each.address for each in found if each.name == "s00.us.test"} - {""}) == MAX_ADDRESSES
    with pytest.raises(Unreachable, match="not asked"):
        authoritative.ask(found[-1], "us.test", "MX")
    assert authoritative.servers("us.test") is found


DUAL = [
    ("one of two", [FIRST, "2001:db8::53"], {"ns1.us.test (127.0.0.61)": True}),
    ("the only one", ["2001:db8::53"], {"ns1.us.test (2001:db8::53)": False}),
    (
        "two",
        ["2001:db8::53", "2001:db8::54"],
        dict.fromkeys(("ns1.us.test (2001:db8::53)", "ns1.us.test (2001:db8::54)"), False),
    ),
]


@pytest.mark.parametrize("error", [errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EADDRNOTAVAIL])
@pytest.mark.parametrize(("addresses", "expected"), [row[1:] for row in DUAL], ids=[row[0] for row in DUAL])
def test_a_host_without_ipv6(
    both: tuple[Nsd, Nsd],
    monkeypatch: pytest.MonkeyPatch,
    error: int,
    addresses: list[str],
    expected: dict[str, bool],
) -> None:
    asks = dns.query.udp_with_fallback

    def ask(query: dns.message.Message, where: str, timeout: float) -> tuple[dns.message.Message, bool]:
        if ":" in where:
            raise OSError(error, os.strerror(error))
        return asks(query, where, timeout=timeout)

    authoritative = AuthoritativeDns([FIRST])
    servers = tuple(NameServer("ns1.us.test", address) for address in addresses)
    monkeypatch.setattr(authoritative, "servers", lambda zone: servers)
    monkeypatch.setattr(authoritative, "widened", lambda zone, names: servers)
    monkeypatch.setattr(dns.query, "udp_with_fallback", ask)
    record = Record(name="us.test", rdtype="MX", value="10 mx.us.test.", why="w")
    found = live_records(authoritative, [record])[("us.test", "MX")]
    assert {server: not there.fault for server, there in found.items()} == expected


def test_a_server_that_is_silent_is_asked_twice_and_no_more() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind((SILENT, 53))
        silent.setblocking(False)
        authoritative = AuthoritativeDns([FIRST], timeout_s=0.1)
        for _ in range(5):
            with pytest.raises(Unreachable, match="no answer"):
                authoritative.ask(NameServer("ns", SILENT), "us.test", "MX")
        heard = 0
        with contextlib.suppress(BlockingIOError):
            while silent.recv(4096):
                heard += 1
    assert heard == 2


def test_a_server_that_was_silent_for_some_zones_is_not_asked_for_thousands() -> None:
    """`mailguard key rotate --all` on a host whose second name server is down."""
    silences: dict[str, int] = {}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind((SILENT, 53))
        silent.setblocking(False)
        for number in range(MAX_SILENCES + 3):
            authoritative = AuthoritativeDns([FIRST], timeout_s=0.05, silences=silences)
            said = (
                "no answer: The DNS" if number < MAX_SILENCES else "no answer: it has not answered for 3 zones before"
            )
            for _ in range(2):
                with pytest.raises(Unreachable, match=said):
                    authoritative.ask(NameServer("ns", SILENT), f"d{number}.test", "MX")
        heard = 0
        with contextlib.suppress(BlockingIOError):
            while silent.recv(4096):
                heard += 1
    assert heard == ATTEMPTS * MAX_SILENCES


def test_a_server_that_answers_again_counts_anew(both: tuple[Nsd, Nsd]) -> None:
    silences = {FIRST: MAX_SILENCES - 1, SECOND: MAX_SILENCES}
    authoritative = AuthoritativeDns([FIRST], silences=silences)
    assert isinstance(authoritative.ask(NameServer("ns", FIRST), "us.test", "MX"), Published)
    assert silences == {SECOND: MAX_SILENCES}


def test_all_questions_together_have_an_end(both: tuple[Nsd, Nsd]) -> None:
    authoritative = AuthoritativeDns([FIRST], total_time_s=0.0)
    record = Record(name="us.test", rdtype="MX", value="10 mx.us.test.", why="w")
    found = live_records(authoritative, [record])
    assert [each.fault for each in found[("us.test", "MX")].values()] == [
        "not asked: the time for all questions is over"
    ]
    with pytest.raises(Unreachable, match="the time for all questions is over"):
        authoritative.ask(NameServer("ns1.us.test", FIRST), "us.test", "MX")


# Aliases

HOSTER = """\
$TTL 300
@ IN SOA ns1.us.test. h.us.test. 1 60 60 60 60
@ IN NS ns1.us.test.
@ IN NS ns2.us.test.
"""
ALIASED = RIGHT.replace("_dmarc IN TXT", "_dmarc IN CNAME d.host.test.\n; _dmarc IN TXT") + STS.format(id=sts_id())
DMARC = 'd IN TXT "v=DMARC1; p=none; rua=mailto:postmaster@us.test"\n'


@pytest.mark.parametrize(("lagging", "code", "state"), [(DMARC, 0, "present"), ("", 1, "missing")])
def test_each_server_of_an_aliases_target_is_asked(
    mailguard_command: Command, both: tuple[Nsd, Nsd], config: str, lagging: str, code: int, state: str
) -> None:
    own = zone(ALIASED)["us.test"]
    both[0].serve({"us.test": own, "host.test": HOSTER + DMARC})
    both[1].serve({"us.test": own, "host.test": HOSTER + lagging})
    done = mailguard_command("dns", "us.test", "-c", config, *MX, "--diff", "--json")
    assert done.code == code, done.out
    found = {(each["server"], each["state"]) for each in json.loads(done.out) if each["name"] == "_dmarc.us.test"}
    assert found == {
        (f"ns1.us.test ({FIRST}) for d.host.test", "present"),
        (f"ns2.us.test ({SECOND}) for d.host.test", state),
    }


@pytest.mark.parametrize(
    ("hoster", "state", "said"),
    [
        ("d IN CNAME e\ne IN CNAME d\n", "broken", ""),
        ("d IN CNAME e0\n" + "".join(f"e{n} IN CNAME e{n + 1}\n" for n in range(9)), "broken", "more than 8 aliases"),
        ("", "missing", ""),
        ("d IN CNAME e\n" + DMARC.replace("d IN", "e IN"), "present", ""),
    ],
    ids=["a circle", "too many", "to nothing", "two steps"],
)
def test_where_an_alias_leads(
    mailguard_command: Command, both: tuple[Nsd, Nsd], config: str, hoster: str, state: str, said: str
) -> None:
    for server in both:
        server.serve({"us.test": zone(ALIASED)["us.test"], "host.test": HOSTER + hoster})
    done = mailguard_command("dns", "us.test", "-c", config, *MX, "--diff", "--json")
    assert {each["state"] for each in json.loads(done.out) if each["name"] == "_dmarc.us.test"} == {state}
    assert said in done.out


# What is published

OWN_SPF = '@ IN TXT "v=spf1 a:old.us.test -all"\n'


def test_a_second_spf_record_is_held_back(mailguard_command: Command, both: tuple[Nsd, Nsd], config: str) -> None:
    asked = ("dns", "us.test", "-c", config, *MX)
    assert 'update add us.test. 3600 TXT "v=spf1 mx ~all"\n' in mailguard_command(*asked, "--format", "nsupdate").out
    both[0].serve(zone(OWN_SPF))
    said = 'not yet: "v=spf1 a:old.us.test -all" is there: write into that what it lacks, or put this in its place\n'
    lines = {
        "zone": f'; {said}; us.test. 3600 IN TXT "v=spf1 mx ~all"\n',
        "web": f"  NOT YET: {said[len('not yet: ') :]}",
        "nsupdate": f"; left out: us.test TXT: {said}",
        "octodns": f"# left out: us.test TXT: {said}",
    }
    for form, line in lines.items():
        done = mailguard_command(*asked, "--format", form)
        assert (done.code, line in done.out) == (0, True), done.out
    compared = mailguard_command(*asked, "--diff", "--json").out
    assert ("different", "us.test", "ns1.us.test") in states(compared)


@pytest.mark.parametrize("there", ["x=y", None])
def test_without_an_spf_record_that_is_known_it_is_to_be_published(
    mailguard_command: Command, both: tuple[Nsd, Nsd], config: str, there: str | None
) -> None:
    both[0].serve(zone(f'@ IN TXT "{there}"\n') if there else {"other.test": OTHER})
    done = mailguard_command("dns", "us.test", "-c", config, *MX)
    assert (done.code, '\nus.test. 3600 IN TXT "v=spf1 mx ~all"\n' in done.out) == (0, True)


def test_what_a_foreign_spf_record_says_is_one_line(
    mailguard_command: Command, both: tuple[Nsd, Nsd], config: str
) -> None:
    both[0].serve(zone('@ IN TXT "v=spf1 \\010update delete us.test.\\027[2J -all"\n'))
    done = mailguard_command("dns", "us.test", "-c", config, *MX, "--format", "nsupdate")
    assert '; left out: us.test TXT: not yet: "v=spf1 ?update delete us.test.?[2J -all" is there' in done.out
    assert "\nupdate delete us.test.?" not in done.out


# Zones

OTHER = """\
$TTL 300
@ IN SOA ns1.us.test. h.us.test. 1 60 60 60 60
@ IN NS ns1.us.test.
mx IN A 192.0.2.1
"""


@pytest.fixture
def zones(both: tuple[Nsd, Nsd]) -> None:
    both[0].serve({**zone(), "other.test": OTHER, "null.test": OTHER + "@ IN MX 0 .\n"})


def test_the_zone_of_an_alias_is_its_own(both: tuple[Nsd, Nsd]) -> None:
    both[0].serve({**zone(), "sub.us.test": OTHER + "x IN CNAME y.us.test.\n"})
    authoritative = AuthoritativeDns([FIRST])
    names = ("us.test", "y.us.test", "a.b.us.test", "sub.us.test", "x.sub.us.test", "y.x.sub.us.test")
    assert [authoritative.zone_of(name) for name in names] == ["us.test"] * 3 + ["sub.us.test"] * 3


def test_there_is_no_such_top_level_domain(mailguard_command: Command, both: tuple[Nsd, Nsd], config: str) -> None:
    """The root speaks for it."""
    both[0].serve({**zone(), ".": OTHER.replace("mx IN", "mx.other.test. IN")})
    with pytest.raises(Unreachable, match="there is no top-level domain con in the DNS"):
        AuthoritativeDns([FIRST]).zone_of("_domainkey.us.con")
    assert AuthoritativeDns([FIRST]).zone_of("con") == ""
    done = mailguard_command("dns", "us.con", "-c", config, *MX)
    assert done.code == 0
    assert "the zone of us.con is not known: there is no top-level domain con in the DNS" in done.err
    assert "with --zone" not in done.err
    done = mailguard_command("dns", "us.con", "-c", config, *MX, "--diff", "--json")
    assert done.code == 75
    assert {each["detail"] for each in json.loads(done.out)} == {"there is no top-level domain con in the DNS"}


@pytest.fixture
def certificate(tmp_path: Path) -> str:
    path = tmp_path / "certificate.pem"
    path.write_bytes(made_certificate(None, "mx.us.test").certificate.public_bytes(Encoding.PEM))
    return str(path)


@pytest.mark.parametrize("named", [(), ("--zone", "us.test")])
def test_a_domain_inside_of_a_zone(
    mailguard_command: Command, zones: None, config: str, named: tuple[str, ...]
) -> None:
    done = mailguard_command("dns", "mail.us.test", "-c", config, *MX, *named, "--format", "web")
    assert done.code == 0
    assert "zone:  mail.us.test" not in done.out
    assert "  zone:  us.test\n  name:  _dmarc.mail\n  type:  TXT\n" in done.out
    assert "  zone:  us.test\n  name:  mail\n  type:  MX\n" in done.out
    assert ("mail.us.test is in the zone us.test" in done.err) is (not named)
    done = mailguard_command("dns", "mail.us.test", "-c", config, *MX, *named, "--format", "octodns")
    assert '"_dmarc.mail":' in done.out
    assert "# us.test.yaml" in done.out


def test_hosts_in_other_zones(mailguard_command: Command, zones: None, config: str, certificate: str) -> None:
    asked = ("dns", "us.test", "-c", config, "--mx", "mx.other.test", "--certificate", certificate)
    found = json.loads(mailguard_command(*asked, "--json").out)["records"]
    assert {each["type"]: each["zone"] for each in found if each["type"] in ("TLSA", "MX")} == {
        "TLSA": "other.test",
        "MX": "us.test",
    }
    for form in ("nsupdate", "octodns", "zone"):
        lines = mailguard_command(*asked, "--format", form).out.splitlines()
        tlsa = [line for line in lines if "_25._tcp" in line]
        assert tlsa, form
        assert all(line.startswith((";", "#")) for line in tlsa), tlsa


@pytest.mark.parametrize("named", [(), ("--zone", "us.test")])
def test_what_is_delegated_below_the_domain(
    mailguard_command: Command, both: tuple[Nsd, Nsd], config: str, named: tuple[str, ...]
) -> None:
    both[0].serve({**zone(), "_domainkey.us.test": OTHER, "_dmarc.us.test": OTHER})
    key = Path(config).with_name("r.pem")
    key.write_bytes(generate_ed25519())
    key.chmod(0o600)
    with open(config, "a", encoding="utf-8") as file:
        file.write(f'[domains."us.test"]\nselectors = [{{ name = "r", key_file = "{key}" }}]\n')
    done = mailguard_command("dns", "us.test", "-c", config, *MX, *named, "--json")
    apart = {each["name"]: each["zone"] for each in json.loads(done.out)["records"] if each["zone"] != "us.test"}
    assert apart == {"r._domainkey.us.test": "_domainkey.us.test", "_dmarc.us.test": "_dmarc.us.test"}
    sent = mailguard_command("dns", "us.test", "-c", config, *MX, *named, "--format", "nsupdate").out
    assert "update add _dmarc.us.test" not in sent


def test_without_dns_the_names_still_say_which_zone(mailguard_command: Command, tmp_path: Path) -> None:
    path = tmp_path / "mailguard.toml"
    path.write_text(f'authserv_id = "mx.us.test"\n[dns]\nnameservers = ["{SILENT}"]\n')
    done = mailguard_command("dns", "us.test", "-c", str(path), *MX, "--report-to", "a@other.test", "--json")
    assert done.code == 0
    assert {each["zone"] for each in json.loads(done.out)["records"]} == {"us.test", "other.test"}
    assert "the zone of us.test, other.test is not known" in done.err


# What the DNS says of mail hosts


def test_a_dns_that_is_down_is_not_a_domain_without_mx(mailguard_command: Command, tmp_path: Path) -> None:
    path = tmp_path / "mailguard.toml"
    path.write_text(f'authserv_id = "mx.us.test"\n[dns]\nnameservers = ["{SILENT}"]\n')
    for more in ((), ("--diff",)):
        done = mailguard_command("dns", "us.test", "-c", str(path), *more)
        assert (done.code, done.out) == (75, "")
        assert "the MX records of us.test could not be looked up" in done.err
        assert "has no MX" not in done.err


def test_a_domain_that_takes_no_mail(mailguard_command: Command, zones: None, config: str) -> None:
    done = mailguard_command("dns", "null.test", "-c", config)
    assert done.code == 0
    assert 'null.test. 3600 IN TXT "v=spf1 -all"' in done.out
    assert "null.test. 3600 IN MX 0 ." in done.out
    assert "rua=" not in done.out
    assert "null.test takes no mail (null MX); where it sends none either, v=spf1 -all" in done.err
    assert "name the hosts" not in done.err
    done = mailguard_command("dns", "null.test", "-c", config, "--spf", "ip4:192.0.2.1", "--report-to", "a@us.test")
    assert '"v=spf1 ip4:192.0.2.1 ~all"' in done.out
    assert "rua=mailto:a@us.test" in done.out


@pytest.mark.parametrize(
    ("validation", "said"),
    [
        (ValidationStatus.VALIDATES, "the zone of mx.us.test has no DNSSEC"),
        (None, "it cannot be told whether the zone of mx.us.test has DNSSEC"),
    ],
)
def test_what_is_not_known_of_dnssec(
    mailguard_command: Command,
    zones: None,
    config: str,
    certificate: str,
    monkeypatch: pytest.MonkeyPatch,
    validation: ValidationStatus | None,
    said: str,
) -> None:
    """nsd does not validate: what it does not say is not known."""
    if validation is not None:
        found = Validation(validation, "")
        monkeypatch.setattr(mail_hosts, "check_validation", lambda config, *, deadline: found)
    done = mailguard_command("dns", "us.test", "-c", config, *MX, "--certificate", certificate)
    assert f"; not yet: {said}" in done.out


def test_the_certificates_in_use_and_next(mailguard_command: Command, config: str, tmp_path: Path) -> None:
    made = [made_certificate(None, "mx.us.test"), made_certificate(None, "mx.us.test", subject="another")]
    for number, each in enumerate(made):
        (tmp_path / f"{number}.pem").write_bytes(each.certificate.public_bytes(Encoding.PEM))
    named = [word for name in ("0.pem", "1.pem", "0.pem") for word in ("--certificate", str(tmp_path / name))]
    found = json.loads(mailguard_command("dns", "us.test", "-c", config, *MX, *named, "--json").out)["records"]
    assert [each["value"] for each in found if each["type"] == "TLSA"] == [
        f"3 1 1 {sha256(each.spki).hexdigest()}" for each in made
    ]


@pytest.mark.parametrize(
    ("address", "uri"),
    [
        ("dmarc+x@Other.Test", "mailto:dmarc+x@other.test"),
        ("a&b?c=d#e%f!g/h@other.test", "mailto:a%26b%3Fc%3Dd%23e%25f%21g%2Fh@other.test"),
        ("u@b\u00fccher.example", "mailto:u@xn--bcher-kva.example"),
    ],
)
def test_addresses_in_records(
    mailguard_command: Command, both: tuple[Nsd, Nsd], config: str, address: str, uri: str
) -> None:
    done = mailguard_command("dns", "us.test", "-c", config, *MX, "--report-to", address, "--json")
    found = {each["name"]: each["value"] for each in json.loads(done.out)["records"]}
    assert found["_dmarc.us.test"] == f"v=DMARC1; p=none; rua={uri}"
    assert found["_smtp._tls.us.test"] == f"v=TLSRPTv1; rua={uri}"
    read = ReportUri.parse(uri.encode())
    assert read is not None
    assert read.address == address.rpartition("@")[0] + "@" + read.host
    assert f"us.test._report._dmarc.{read.host}" in found
