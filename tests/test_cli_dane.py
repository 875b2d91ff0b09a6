"""`mailguard dane` and `mailguard mta-sts check`, with a validating resolver and servers that they talk to."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cli_process import Command
from live_certificates import Issued, authority, server, write_chain
from mailguard.cli.dane_report import Mark, dane_tree
from mailguard.dane.record import parse_tlsa, read_records
from mailguard.dane.result import DanePolicy, DaneStatus, HostOutcome, HostPolicy, HostReason
from mailguard.dns.question import Dnssec
from mailguard.starttls.presented import Handshake, HandshakeStatus
from policy_site import PolicySite, reply
from sandbox_place import SYSTEM_PATH, free_port
from source_tree import ROOT
from starttls_site import StartTlsSite, loopback
from unbound_site import UNBOUND, Unbound

pytestmark = pytest.mark.skipif(UNBOUND is None or os.geteuid() != 0, reason="needs unbound, and root for port 25")

NETWORK = 81
HOOK = ROOT / "contrib" / "mailguard-rollover.sh"
POLICY = b"version: STSv1\nmode: enforce\nmx: mx.plain.test\nmx: *.good.plain.test\nmax_age: 604800\n"


@dataclass
class Place:
    """The servers that all tests talk to. Nothing of it changes."""

    port: int
    config: Path
    ca_file: Path
    leaf: Issued
    directory: Path


def _hosts(port: int, leaf: Issued, root: Issued) -> str:
    """Hosts of the signed zone: the address says what is there, the name which TLSA records it has."""
    tlsa = f"_{port}._tcp"
    lines = [
        ("good", 1, leaf.tlsa()),
        ("anchored", 2, leaf.above[0].tlsa(2)),
        ("otheranchor", 2, root.tlsa(2)),
        ("wrong", 1, f"3 1 1 {'ab' * 32}"),
        ("unusable", 1, f"1 1 1 {'ab' * 32}"),
        ("bare", 1, None),
        ("notls", 3, leaf.tlsa()),
        ("gone", 9, leaf.tlsa()),
    ]
    text = ""
    for name, number, record in lines:
        text += f"mx.{name} IN A {loopback(NETWORK, number)}\n{name} IN MX 10 mx.{name}\n"
        text += f"{tlsa}.mx.{name} IN TLSA {record}\n" if record else ""
    text += "both IN MX 10 mx.good\nboth IN MX 20 mx.bare\nnull IN MX 0 .\nalone IN MX 10 nowhere\n"
    text += f"broken IN MX 10 mx.failing.test.\n{tlsa}.mx.wrong IN TLSA 3 1 2 {'cd' * 64}\n"
    return text


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    directory = tmp_path_factory.mktemp("dane")
    root = authority("Root of a Test")
    middle = authority("Middle of a Test", root)
    leaf = server("mx.good.signed.test", "mx.anchored.signed.test", "mx.plain.test", issuer=middle)
    (directory / "ca.pem").write_bytes(root.pem)
    chain = write_chain(directory / "chain.pem", leaf)
    sts = server(*(f"mta-sts.{name}.test" for name in ("plain", "missing.plain", "testing.plain")), issuer=root)
    port = free_port()
    with ExitStack() as stack:
        for number in (1, 2):
            stack.enter_context(StartTlsSite(loopback(NETWORK, number), port, chain))
            stack.enter_context(StartTlsSite(loopback(NETWORK, number), 25, chain))
        stack.enter_context(StartTlsSite(loopback(NETWORK, 3), port, None, offer=b"250 mx\r\n"))
        https = stack.enter_context(
            PolicySite(str(write_chain(directory / "https.pem", sts)), _policies, address=loopback(NETWORK, 4))
        )
        here = loopback(NETWORK, 1)
        plain = f'_mta-sts IN TXT "v=STSv1; id=1;"\nmta-sts IN A {https.address}\n@ IN MX 10 mx\nmx IN A {here}\n'
        plain += f"signed IN MX 10 mx.good.signed.test.\nnosts IN MX 10 mx\nother IN MX 10 mx\nother.mx IN A {here}\n"
        for name in ("missing", "testing"):
            plain += f'_mta-sts.{name} IN TXT "v=STSv1; id=2;"\nmta-sts.{name} IN A {https.address}\n'
            plain += f"{name} IN MX 10 {name}.mx\n{name}.mx IN A {here}\n"
        zones = {"signed.test.": _hosts(port, leaf, root), "plain.test.": plain}
        unbound = stack.enter_context(Unbound(zones, signed={"signed.test."}, failing={"failing.test."}))
        config = directory / "mailguard.toml"
        config.write_text(
            f'authserv_id = "us.test"\n[dns]\nnameservers = ["127.0.0.1"]\nport = {unbound.port}\n'
            f'[tlspolicy]\ndnssec_probe = "signed.test"\nhttps_port = {https.port}\n'
            f'ca_file = "{directory}/ca.pem"\nallowed_networks = ["127.0.0.0/8"]\n'
            '[[listeners]]\naddress = "inet:127.0.0.1:1"\n'
        )
        yield Place(port, config, directory / "ca.pem", leaf, directory)


def _policies(connection: Any) -> None:
    if b"Host: mta-sts.missing" in connection.request:
        reply(b"", status="404 Not Found")(connection)
    elif b"Host: mta-sts.testing" in connection.request:
        reply(POLICY.replace(b"enforce", b"testing").replace(b"*.good", b"*"))(connection)
    else:
        reply(POLICY)(connection)


def children(tree: dict[str, Any], title: str) -> dict[str, Any]:
    return next(each for each in tree["children"] if each["title"].startswith(title))


# -- dane check


@pytest.mark.parametrize(
    ("domain", "code", "host", "connection"),
    [
        ("good", 0, ("dane-authenticated", "usable-records"), ("pass", "matched")),
        ("anchored", 0, ("dane-authenticated", "usable-records"), ("pass", "matched")),
        # The root is not in the chain, and its record has a digest alone (RFC 7671 §5.2.2).
        ("otheranchor", 1, ("dane-authenticated", "usable-records"), ("fail", "no-match")),
        ("wrong", 1, ("dane-authenticated", "usable-records"), ("fail", "no-match")),
        ("unusable", 1, ("encrypt-unauthenticated", "unusable-records"), ("", "")),
        ("bare", 1, ("opportunistic", "no-records"), ("", "")),
        ("notls", 1, ("dane-authenticated", "usable-records"), ("fail", "no-starttls")),
        ("gone", 75, ("dane-authenticated", "usable-records"), ("unknown", "unreachable")),
    ],
)
def test_check_of_one_host(
    mailguard_command: Command,
    place: Place,
    domain: str,
    code: int,
    host: tuple[str, str],
    connection: tuple[str, str],
) -> None:
    done = mailguard_command(
        "dane", "check", f"{domain}.signed.test", "--port", str(place.port), "-c", place.config, "--json"
    )
    tree = json.loads(done.out)
    assert done.code == code, done.out
    mx = children(tree, f"MX 10 mx.{domain}.signed.test")
    assert (mx["status"], mx["reason"]) == host
    (address,) = mx["children"]
    assert (address["status"], address["reason"]) == connection


@pytest.mark.parametrize(
    ("destination", "options", "code", "text"),
    [
        ("both.signed.test", (), 1, "DANE of both.signed.test"),
        ("null.signed.test", (), 0, "no-mail"),
        ("nothing.signed.test", (), 1, "no-domain"),
        ("alone.signed.test", (), 1, "no-address"),
        ("broken.signed.test", (), 75, "lookup-failed"),
        ("failing.test", (), 75, "defer"),
        ("good.signed.test", ("--no-connect",), 0, "not connected to"),
        ("wrong.signed.test", ("--no-connect",), 0, "passed over for a stronger digest: 3 1 1 abab"),
        ("[mx.good.signed.test]", (), 0, "host mx.good.signed.test: dane-authenticated"),
        ("signed.plain.test", (), 1, "sign the zone of the domain with DNSSEC"),
    ],
)
def test_check_of_destinations(
    mailguard_command: Command, place: Place, destination: str, options: tuple[str, ...], code: int, text: str
) -> None:
    done = mailguard_command("dane", "check", destination, "--port", str(place.port), "-c", place.config, *options)
    assert (done.code, done.err) == (code, "")
    assert text in done.out


def test_the_tree_goes_down_to_each_certificate(mailguard_command: Command, place: Place) -> None:
    done = mailguard_command("dane", "check", "anchored.signed.test", "--port", str(place.port), "-c", place.config)
    lines = [line.strip() for line in done.out.splitlines()]
    assert "names: mx.good.signed.test, mx.anchored.signed.test, mx.plain.test" in lines
    assert "common name: middle of a test" in lines
    # Which record matched, and at which certificate.
    record = place.leaf.above[0].tlsa(2)
    assert lines.index(f"matches: {record}") > lines.index("certificate 1") > lines.index("certificate 0")
    assert f"matched record: {record}" in lines
    assert "matched name: mx.anchored.signed.test" in lines
    assert any(line.startswith("valid: ") and line.endswith(" days more") for line in lines)


def test_hosts_that_an_unsigned_domain_names_are_looked_at_all_the_same(
    mailguard_command: Command, place: Place
) -> None:
    done = mailguard_command("dane", "check", "signed.plain.test", "--port", str(place.port), "-c", place.config)
    assert "names: mx.good.signed.test" in done.out


@pytest.mark.parametrize(
    ("statuses", "mark"),
    [
        ([HandshakeStatus.DONE], Mark.PASS),
        # A machine without IPv6 can say as much as one with it.
        ([HandshakeStatus.DONE, HandshakeStatus.NO_ROUTE], Mark.PASS),
        ([HandshakeStatus.DONE, HandshakeStatus.TIMED_OUT], Mark.UNKNOWN),
        ([HandshakeStatus.NO_ROUTE], Mark.UNKNOWN),
        ([HandshakeStatus.NO_ROUTE, HandshakeStatus.TLS], Mark.FAIL),
        ([], Mark.UNKNOWN),
    ],
)
def test_addresses_of_one_host(statuses: list[HandshakeStatus], mark: Mark) -> None:
    leaf = server("mx.us.test")
    records = read_records([parse_tlsa(leaf.tlsa())])
    host = HostPolicy(
        "mx.us.test",
        10,
        HostOutcome.AUTHENTICATE,
        HostReason.USABLE_RECORDS,
        "",
        base_domain="mx.us.test",
        records=records,
    )
    policy = DanePolicy("us.test", 25, DaneStatus.HOSTS, "", Dnssec.SECURE, (host,))
    shown = [
        Handshake(
            address="192.0.2.1", port=25, status=each, detail="", chain=(leaf.der,) if each.value == "done" else ()
        )
        for each in statuses
    ]
    tree, found = dane_tree(policy, {"mx.us.test": shown}, now=time.time())
    assert (found, tree.status) == (mark, mark.value)
    assert dane_tree(policy, None, now=time.time())[1] is Mark.PASS
    is_blocked = HandshakeStatus.TIMED_OUT in statuses
    assert ("run this on a mail server" in tree.text()) == is_blocked


@pytest.mark.parametrize(
    ("dns", "code", "text"),
    [
        ('zone_file = "zone"', 78, 'module-config: "validator iterator"'),
        ('nameservers = ["192.0.2.1"]', 78, 'auto-trust-anchor-file: "/var/lib/unbound/root.key"'),
        ('nameservers = ["127.0.0.1"]\nport = 1', 75, "gives for in-addr.arpa A tempfail"),
    ],
)
@pytest.mark.parametrize("verb", ["check", "rollover"])
def test_without_a_resolver_that_validates(
    mailguard_command: Command, place: Place, tmp_path: Path, dns: str, code: int, text: str, verb: str
) -> None:
    (tmp_path / "zone").write_text("$TTL 60\na.test. IN A 192.0.2.1\n")
    config = tmp_path / "mailguard.toml"
    config.write_text(f'authserv_id = "us.test"\n[dns]\n{dns}\n[[listeners]]\naddress = "inet:127.0.0.1:1"\n')
    what = ["a.test"] if verb == "check" else [place.directory / "chain.pem", "--host", "a.test"]
    done = mailguard_command("dane", verb, *what, "-c", config)
    assert (done.code, done.out) == (code, "")
    assert text in done.err


# -- dane tlsa


def test_the_record_of_a_file(mailguard_command: Command, place: Place) -> None:
    done = mailguard_command("dane", "tlsa", place.directory / "chain.pem")
    lines = done.out.splitlines()
    assert (done.code, done.err) == (0, "")
    assert f"_25._tcp.mx.good.signed.test. 3600 IN TLSA {place.leaf.tlsa()}" in lines
    assert lines[-6:] == [
        "name: _25._tcp.mx.good.signed.test",
        "type: TLSA",
        "usage: 3 (DANE-EE)",
        "selector: 1 (SPKI)",
        "matching type: 1 (SHA2-256)",
        f"certificate data: {place.leaf.tlsa().split()[3]}",
    ]


def test_the_record_of_a_server(mailguard_command: Command, place: Place) -> None:
    done = mailguard_command(
        "dane", "tlsa", "mx.good.signed.test", "--port", str(place.port), "-c", place.config, "--json"
    )
    assert json.loads(done.out) == {
        "name": f"_{place.port}._tcp.mx.good.signed.test",
        "type": "TLSA",
        "ttl": 3600,
        "value": place.leaf.tlsa(),
    }
    assert "this is what" in done.err


@pytest.mark.parametrize("kind", [(3, 0, 0), (3, 0, 1), (3, 1, 2), (2, 1, 1), (2, 0, 2), (1, 1, 1), (0, 1, 1)])
def test_every_kind_of_record(mailguard_command: Command, place: Place, kind: tuple[int, int, int]) -> None:
    usage, selector, matching_type = kind
    options = ("--usage", str(usage), "--selector", str(selector), "--matching-type", str(matching_type))
    done = mailguard_command("dane", "tlsa", place.directory / "chain.pem", *options, "--json")
    value = json.loads(done.out)["value"]
    assert value.startswith(f"{usage} {selector} {matching_type} ")
    digits = value.split()[3]
    if kind == (3, 0, 0):
        assert digits == place.leaf.der.hex()
    elif kind == (2, 1, 1):
        assert value == place.leaf.above[0].tlsa(2)
    else:
        assert len(digits) == {1: 64, 2: 128}[matching_type]
    assert ("ignore usages 0 and 1" in done.err) == (usage < 2)


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (("not a name",), 64, "neither a file nor the name of a host"),
        (("rubbish",), 78, "no certificate in PEM or DER form can be read"),
        (("mx.gone.signed.test",), 75, "no connection"),
        (("nowhere.signed.test",), 75, "it has no address that is known, and is no file"),
    ],
)
def test_tlsa_of_what_is_none(
    mailguard_command: Command, place: Place, tmp_path: Path, arguments: tuple[str, ...], code: int, text: str
) -> None:
    (tmp_path / "rubbish").write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    done = mailguard_command("dane", "tlsa", *arguments, "-c", place.config)
    assert (done.code, done.out) == (code, "")
    assert text in done.err


def test_a_certificate_without_a_name_needs_one(mailguard_command: Command, tmp_path: Path) -> None:
    write_chain(tmp_path / "made.pem", server("*.example.com"))
    assert mailguard_command("dane", "tlsa", "made.pem").code == 64
    assert "_25._tcp.mx.example.com." in mailguard_command("dane", "tlsa", "made.pem", "--host", "mx.example.com").out


def test_what_a_certificate_says_is_shown_harmless(mailguard_command: Command, tmp_path: Path) -> None:
    write_chain(tmp_path / "made.pem", server("evil\x1b[31m.test\n", "mx.example.com"))
    done = mailguard_command("dane", "tlsa", "made.pem")
    assert "; names: evil\\x1b[31m.test\\n, mx.example.com" in done.out.splitlines()
    assert "_25._tcp.mx.example.com." in done.out


def test_what_a_library_thinks_of_a_certificate_is_not_shown(tmp_path: Path) -> None:
    """Its country has more than two letters: cryptography warns of that."""
    common_name, country = bytes.fromhex("0603550403"), bytes.fromhex("0603550406")
    (tmp_path / "made.der").write_bytes(server("mx.example.com").der.replace(common_name, country))
    done = subprocess.run(
        [sys.executable, "-m", "mailguard", "dane", "tlsa", tmp_path / "made.der"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_what_is_missing_without_the_extra(
    mailguard_command: Command, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "OpenSSL", None)
    monkeypatch.delitem(sys.modules, "mailguard.starttls.handshake", raising=False)
    monkeypatch.delattr("mailguard.starttls.handshake", raising=False)
    done = mailguard_command("dane", "check", "good.signed.test", "-c", place.config)
    assert (done.code, done.out) == (78, "")
    assert "pip install 'mailguard-milter[dane]'" in done.err
    options = ("--port", str(place.port), "-c", place.config, "--no-connect")
    assert mailguard_command("dane", "check", "good.signed.test", *options).code == 0


# -- dane rollover


def rollover(command: Command, place: Place, file: Path, host: str, *options: str) -> Any:
    return command("dane", "rollover", file, "--host", host, "--port", str(place.port), "-c", place.config, *options)


def test_the_same_key_can_be_deployed(mailguard_command: Command, place: Place) -> None:
    done = rollover(mailguard_command, place, place.directory / "chain.pem", "mx.good.signed.test")
    assert done.code == 0
    assert f"it can be deployed: the server's certificate matches {place.leaf.tlsa()}" in done.out
    assert "to publish" not in done.out


def test_another_key_would_lock_senders_out(mailguard_command: Command, place: Place, tmp_path: Path) -> None:
    new = server("mx.good.signed.test")
    file = write_chain(tmp_path / "new.pem", new)
    done = rollover(mailguard_command, place, file, "mx.good.signed.test")
    assert done.code == 1
    owner = f"_{place.port}._tcp.mx.good.signed.test."
    lines = [line.strip() for line in done.out.splitlines()]
    at = lines.index("to publish together, before it is deployed")
    assert lines[at + 1 : at + 3] == [f"{owner} 3600 IN TLSA {one.tlsa()}" for one in (place.leaf, new)]
    # It cannot be seen whether a certificate that is deployed beside this one needs it.
    at = lines.index("to remove, once it is deployed and works")
    unless = "unless another certificate of this server has it: of a second key type, or the next one"
    assert lines[at + 1 : at + 3] == [unless, f"{owner} IN TLSA {place.leaf.tlsa()}"]
    assert "senders that know DANE would keep their mail" in done.out
    tree = json.loads(rollover(mailguard_command, place, file, "mx.good.signed.test", "--json").out)
    assert (tree["status"], tree["reason"]) == ("fail", "no-match")
    assert unless in [child["detail"] for child in tree["children"]]


def test_the_new_record_has_a_digest_that_senders_look_at(
    mailguard_command: Command, place: Place, tmp_path: Path
) -> None:
    """RFC 7671 §9: beside a 3 1 2, a 3 1 1 is passed over."""
    done = rollover(
        mailguard_command, place, write_chain(tmp_path / "new.pem", server("a.test")), "mx.wrong.signed.test"
    )
    published = done.out.partition("to publish together")[2].partition("to remove")[0]
    assert published.count("IN TLSA 3 1 2") == 2
    assert "3 1 1" not in published


def test_another_key_below_the_same_anchor(mailguard_command: Command, place: Place, tmp_path: Path) -> None:
    middle = place.leaf.above[0]
    good = write_chain(tmp_path / "good.pem", server("mx.anchored.signed.test", issuer=middle))
    assert rollover(mailguard_command, place, good, "mx.anchored.signed.test").code == 0
    other = write_chain(tmp_path / "other.pem", server("mx.other.test", issuer=middle))
    done = rollover(mailguard_command, place, other, "mx.anchored.signed.test")
    assert done.code == 1
    assert "none of the names" in done.out
    alone = write_chain(tmp_path / "alone.pem", server("mx.anchored.signed.test", issuer=authority("another root")))
    assert rollover(mailguard_command, place, alone, "mx.anchored.signed.test").code == 1


@pytest.mark.parametrize(
    ("host", "code", "text"),
    [
        ("mx.bare.signed.test", 0, "any certificate will do"),
        ("mx.unusable.signed.test", 0, "any certificate will do"),
        ("mx.plain.test", 0, "any certificate will do"),
        ("mx.failing.test", 75, "deploy nothing until then"),
        ("mistyped.signed.test", 1, "name the server as its MX record does"),
    ],
)
def test_rollover_of_other_hosts(mailguard_command: Command, place: Place, host: str, code: int, text: str) -> None:
    done = rollover(mailguard_command, place, place.directory / "chain.pem", host)
    assert done.code == code
    assert text in done.out


# -- contrib/mailguard-rollover.sh


def hook(
    place: Place, tmp_path: Path, leaf: Issued, *, names: str, host: str = "mx.good.signed.test"
) -> tuple[int, str, bytes]:
    """Its exit code, what it said, and what Postfix has for a certificate afterwards."""
    lineage = tmp_path / "lineage"
    lineage.mkdir(exist_ok=True)
    octets = write_chain(tmp_path / "made.pem", leaf).read_bytes()
    key, mark, certificates = octets.partition(b"-----BEGIN CERTIFICATE")
    (lineage / "privkey.pem").write_bytes(key)
    (lineage / "fullchain.pem").write_bytes(mark + certificates)
    command = tmp_path / "mailguard"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m mailguard "$@" --port {place.port} -c {place.config}\n')
    command.chmod(0o755)
    chain = tmp_path / "tls" / "chain.pem"
    if not chain.exists():
        chain.parent.mkdir()
        chain.write_bytes(b"before")
    environment = {
        "PATH": f"{tmp_path}/bin:{SYSTEM_PATH}",
        "MAILGUARD": str(command),
        "MAILGUARD_HOST": host,
        "MAILGUARD_CHAIN": str(chain),
        "MAILGUARD_RELOAD": f"touch {tmp_path}/reloaded",
        "RENEWED_LINEAGE": str(lineage),
        "RENEWED_DOMAINS": names,
    }
    done = subprocess.run(["sh", HOOK], env=environment, capture_output=True, text=True, check=False)
    return done.returncode, done.stderr, chain.read_bytes()


def test_the_hook_deploys_what_senders_accept(place: Place, tmp_path: Path) -> None:
    code, said, chain = hook(place, tmp_path, place.leaf, names="www.test mx.good.signed.test")
    assert (code, chain) == (0, (tmp_path / "made.pem").read_bytes()), said
    assert (tmp_path / "reloaded").exists()
    assert [each.name for each in (tmp_path / "tls").iterdir()] == ["chain.pem"]
    assert (tmp_path / "tls" / "chain.pem").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("names", "is_ours"),
    [
        ("*.good.signed.test", True),
        ("good.signed.test *.good.signed.test", True),
        ("*.signed.test", False),
        ("*.mx.good.signed.test", False),
        ("wmx.good.signed.test", False),
    ],
)
def test_the_hook_knows_a_certificate_for_all_names(place: Place, tmp_path: Path, names: str, is_ours: bool) -> None:
    code, said, chain = hook(place, tmp_path, place.leaf, names=names)
    assert (code, chain != b"before") == (0, is_ours), said


def test_the_hook_asks_postfix_for_the_name(place: Place, tmp_path: Path) -> None:
    """As Postfix understands it: main.cf may have $mydomain there."""
    (tmp_path / "master.cf").touch()
    (tmp_path / "main.cf").write_text("mydomain = good.signed.test\nmyhostname = mx.$mydomain\n")
    postconf = tmp_path / "bin" / "postconf"
    postconf.parent.mkdir()
    postconf.write_text(f'#!/bin/sh\nexec {shutil.which("postconf", path=SYSTEM_PATH)} -c {tmp_path} "$@"\n')
    postconf.chmod(0o755)
    code, said, chain = hook(place, tmp_path, place.leaf, names="mx.good.signed.test", host="")
    assert (code, chain) == (0, (tmp_path / "made.pem").read_bytes()), said


def test_the_hook_keeps_what_senders_would_not_accept(place: Place, tmp_path: Path) -> None:
    new = server("mx.good.signed.test")
    code, said, chain = hook(place, tmp_path, new, names="mx.good.signed.test")
    assert (code, chain) == (1, b"before")
    assert f"IN TLSA {new.tlsa()}" in said
    assert "keeps its certificate; afterwards run:" in said
    assert not (tmp_path / "reloaded").exists()


def test_the_hook_leaves_other_certificates_alone(place: Place, tmp_path: Path) -> None:
    assert hook(place, tmp_path, server("a.test"), names="www.test") == (0, "", b"before")


# -- mta-sts check


@pytest.mark.parametrize(
    ("domain", "code", "texts"),
    [
        ("plain.test", 0, ["mode: enforce", "id: 1", "the certificate is valid for the host", "604800 s, 7 days"]),
        ("nosts.plain.test", 1, ["record: fail (absent)", "policy: not fetched"]),
        ("missing.plain.test", 1, ["policy: fail (status)", "serve it at https://mta-sts.missing.plain.test/"]),
        # The certificate that is shown is that of another host.
        ("testing.plain.test", 1, ["mode: testing", "the certificate has no alternative name that is testing.mx.p"]),
        ("failing.test", 75, ["record: unknown (unavailable)", "the MX records are not known"]),
        ("nothing.plain.test", 1, ["the domain does not exist"]),
    ],
)
def test_mta_sts_check(mailguard_command: Command, place: Place, domain: str, code: int, texts: list[str]) -> None:
    done = mailguard_command("mta-sts", "check", domain, "-c", place.config)
    assert done.code == code, done.out
    assert done.err == ""
    for text in texts:
        assert text in done.out


def test_a_host_that_the_policy_does_not_name(mailguard_command: Command, place: Place) -> None:
    done = mailguard_command("mta-sts", "check", "testing.plain.test", "-c", place.config, "--json", "--no-connect")
    tree = json.loads(done.out)
    host = children(tree, "MX 10 testing.mx.plain.test")
    assert (done.code, host["status"]) == (1, "fail")
    assert "does not name it" in host["detail"]
    assert host["children"] == []


def test_authorities_that_are_not_trusted(mailguard_command: Command, place: Place, tmp_path: Path) -> None:
    (tmp_path / "other.pem").write_bytes(authority("other").pem)
    done = mailguard_command("mta-sts", "check", "plain.test", "-c", place.config, "--ca-file", "other.pem")
    assert done.code == 1
    assert "policy: fail (certificate)" in done.out
    assert "not trusted" in done.out
