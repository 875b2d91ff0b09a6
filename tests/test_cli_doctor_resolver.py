"""What `mailguard doctor` says of the resolver on this host: the program, its version, and whether that has remedies.

Against the real unbound and the real named where they are installed; and tables of versions, some of them made up.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bind_site import NAMED, Bind
from dns_fault_server import Behaviour, FaultServer, Request
from mailguard.cli import doctor_resolver
from mailguard.cli.doctor import _resolver_card
from mailguard.cli.doctor_resolver import at_least, resolver_program_cards, running_at
from mailguard.dns.live import ResolverConfig
from mailguard.dns.server_version import said_version
from mailguard.dns.servers import ServerAddress
from mailguard.setup_host.resolver_release import (
    Remedy,
    Running,
    remedy_of,
    resolver_program_card,
    said_program,
)
from sandbox_place import HOST, make_public_directory
from unbound_site import UNBOUND, Unbound

pytestmark = pytest.mark.skipif(shutil.which("dpkg") is None, reason="needs dpkg")
AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root sees who has a port")


def at(port: int) -> ServerAddress:
    return ServerAddress(HOST, port, trust_ad=True)


# -- versions ------------------------------------------------------------------------------------------------------

HAS, LACKS, UNKNOWN = Remedy.HAS, Remedy.LACKS, Remedy.UNKNOWN


@pytest.mark.attack("N07")
@pytest.mark.parametrize(
    ("program", "package", "version", "remedy"),
    [
        # Releases.
        ("unbound", "", "1.19.0", LACKS),
        ("unbound", "", "1.17.1", LACKS),
        ("unbound", "", "1.19.1", HAS),
        ("unbound", "", "1.20.0", HAS),
        ("named", "", "9.16.47", LACKS),
        ("named", "", "9.16.48", HAS),
        ("named", "", "9.18.23", LACKS),
        ("named", "", "9.18.24", HAS),
        ("named", "", "9.19.20", LACKS),
        ("named", "", "9.19.21", HAS),
        ("named", "", "9.20.0", HAS),
        ("named", "", "9.11.37", LACKS),
        ("kresd", "", "5.7.0", LACKS),
        ("kresd", "", "5.7.1", HAS),
        ("pdns_recursor", "", "4.8.5", LACKS),
        ("pdns_recursor", "", "4.8.6", HAS),
        ("pdns_recursor", "", "4.9.2", LACKS),
        ("pdns_recursor", "", "4.9.3", HAS),
        ("pdns_recursor", "", "5.0.1", LACKS),
        ("pdns_recursor", "", "5.0.2", HAS),
        ("dnsmasq", "", "2.89", LACKS),
        ("dnsmasq", "", "2.90", HAS),
        # Debian mends old releases.
        ("unbound", "unbound", "1.17.1-2+deb12u1", LACKS),
        ("unbound", "unbound", "1.17.1-2", LACKS),
        ("unbound", "unbound", "1.17.1-2+deb12u2", HAS),
        ("unbound", "unbound", "1.17.1-2+deb12u4", HAS),
        ("unbound", "unbound", "1.13.1-1+deb11u1", LACKS),
        ("unbound", "unbound", "1.13.1-1+deb11u2", HAS),
        ("unbound", "unbound", "1.22.0-2", HAS),
        ("named", "bind9", "1:9.18.19-1~deb12u1", LACKS),
        ("named", "bind9", "1:9.18.24-1", HAS),
        ("named", "bind9", "1:9.18.49-1~deb12u3", HAS),
        ("named", "bind9", "1:9.16.44-1~deb11u1", LACKS),
        ("named", "bind9", "1:9.16.50-1~deb11u1", HAS),
        ("kresd", "knot-resolver", "5.6.0-1", LACKS),
        ("kresd", "knot-resolver", "5.6.0-1+deb12u1", HAS),
        ("pdns_recursor", "pdns-recursor", "4.8.4-1", LACKS),
        ("pdns_recursor", "pdns-recursor", "4.8.8-1+deb12u1", HAS),
        ("dnsmasq", "dnsmasq-base", "2.90-4~deb12u2", HAS),
        # Nothing is known of these.
        ("unbound", "unbound", "1.9.0-2+deb10u4", UNKNOWN),
        ("unbound", "unbound", "1.13.1-1ubuntu5.4", UNKNOWN),
        ("named", "bind9", "1:9.18.18-0ubuntu0.22.04.2", UNKNOWN),
        ("pdns_recursor", "pdns-recursor", "4.4.2-3", UNKNOWN),
        ("dnsmasq", "dnsmasq-base", "2.89-1", UNKNOWN),
        ("systemd-resolved", "systemd-resolved", "252.39-1~deb12u1", UNKNOWN),
        ("unbound", "", "", UNKNOWN),
        ("unbound", "", "a fine one", UNKNOWN),
        ("", "", "", UNKNOWN),
    ],
)
def test_versions(program: str, package: str, version: str, remedy: Remedy) -> None:
    running = Running(HOST, program, version, package)
    assert remedy_of(running, at_least) is remedy
    shown = resolver_program_card(running, at_least)
    assert shown.status == {HAS: "ok", LACKS: "problem", UNKNOWN: "unknown"}[remedy]
    assert all(each.advice for each in shown.children if each.title != "ok")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("unbound 1.17.1", ("unbound", "1.17.1")),
        ("9.18.49-1~deb12u3-Debian", ("named", "9.18.49")),
        ("BIND 9.20.1", ("named", "9.20.1")),
        ("PowerDNS Recursor 4.8.8 (built Aug 1 2024 by root@localhost)", ("pdns_recursor", "4.8.8")),
        ("Knot Resolver 5.7.1", ("kresd", "5.7.1")),
        ("dnsmasq-2.90", ("dnsmasq", "2.90")),
        ("none of your business", ("", "")),
        ("unbound", ("", "")),
        ("Windows DNS 10.0", ("", "")),
        ("", ("", "")),
    ],
)
def test_what_servers_say_of_themselves(text: str, expected: tuple[str, str]) -> None:
    assert said_program(text) == expected


def test_one_that_was_not_restarted() -> None:
    shown = resolver_program_card(Running(HOST, "unbound", "1.22.0-2", "unbound", is_replaced=True), at_least)
    assert shown.status == "problem"
    assert [each.advice for each in shown.children] == ["", "systemctl restart unbound"]


# -- what runs -----------------------------------------------------------------------------------------------------


def installed(package: str) -> str:
    done = subprocess.run(
        ["dpkg-query", "-W", "-f", "${Version}", package], capture_output=True, text=True, check=False
    )
    return done.stdout


@pytest.mark.attack("N07")
@pytest.mark.skipif(UNBOUND is None or not installed("unbound"), reason="the package unbound is not installed")
@pytest.mark.parametrize("hides", [False, True])
def test_the_unbound_of_this_host(hides: bool) -> None:
    with Unbound({}, options=["hide-version: yes"] if hides else []) as unbound:
        said = said_version(at(unbound.port))
        assert said == ("" if hides else f"unbound {installed('unbound').partition('-')[0]}")
        if os.geteuid() == 0:
            assert running_at(at(unbound.port)) == Running(HOST, "unbound", installed("unbound"), "unbound")
        elif not hides:
            assert running_at(at(unbound.port)) == Running(HOST, "unbound", said.partition(" ")[2], is_said=True)
        (card,) = resolver_program_cards(ResolverConfig(nameservers=(HOST,), port=unbound.port))
        assert card.title == f"resolver at {HOST}"
        assert ("program", "unbound" if os.geteuid() == 0 or not hides else "unknown") in card.facts


@pytest.mark.attack("N07")
@AS_ROOT
@pytest.mark.skipif(NAMED is None or not installed("bind9"), reason="the package bind9 is not installed")
def test_the_named_of_this_host() -> None:
    with Bind({"x.test": "@ 60 IN SOA ns h 1 2 3 4 60\n@ 60 IN NS ns\nns 60 IN A 192.0.2.1\n"}) as named:
        assert running_at(at(named.port)) == Running(HOST, "named", installed("bind9"), "bind9")
        assert said_program(said_version(at(named.port)))[0] == "named"


@pytest.fixture
def public() -> Iterator[Path]:
    """A directory where everybody can run what is in it."""
    made = make_public_directory("mailguard-resolver-")
    yield made
    shutil.rmtree(made)


@AS_ROOT
@pytest.mark.skipif(UNBOUND is None, reason="unbound is not installed")
def test_one_that_is_no_package(public: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its file says what it is."""
    monkeypatch.setattr("unbound_site.UNBOUND", copied(public))
    with Unbound({}, options=["hide-version: yes"]) as unbound:
        found = running_at(at(unbound.port))
        assert (found.program, found.package) == ("unbound", "")
        assert found.version == installed("unbound").partition("-")[0]
        # It is replaced while it runs.
        copied(public)
        found = running_at(at(unbound.port))
        assert (found.program, found.version, found.is_replaced) == ("unbound", "", True)


def copied(directory: Path) -> str:
    file = directory / "unbound"
    file.unlink(missing_ok=True)
    shutil.copy(str(UNBOUND), file)
    return str(file)


@AS_ROOT
def test_a_file_is_not_run_as_root(public: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever put it there."""
    file = public / "unbound"
    file.write_text('#!/bin/sh\necho "Version 1.$(id -u)"\n')
    file.chmod(0o755)
    monkeypatch.setattr(doctor_resolver, "_file_at", lambda server: str(file))
    monkeypatch.setattr(doctor_resolver, "said_version", lambda server: "")
    assert running_at(at(1)).version == "1.65534"


@AS_ROOT
def test_a_file_of_somebody_else_is_not_run_at_all(public: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = public / "unbound"
    file.write_text("#!/bin/sh\necho Version 1.99.0\n")
    monkeypatch.setattr(doctor_resolver, "_file_at", lambda server: str(file))
    monkeypatch.setattr(doctor_resolver, "said_version", lambda server: "")
    for owner, mode, version in ((0, 0o755, "1.99.0"), (65534, 0o755, ""), (0, 0o775, ""), (0, 0o757, "")):
        os.chown(file, owner, 0)
        file.chmod(mode)
        assert running_at(at(1)).version == version, (owner, oct(mode))


@AS_ROOT
def test_what_is_run_does_not_have_our_terminal(public: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With it, it could type commands for root's shell (TIOCSTI)."""
    file = public / "unbound"
    file.write_text(f"#!{sys.executable} -ISs\nimport os\nprint(f'Version 1.{{os.getsid(0) == {os.getsid(0)}:d}}')\n")
    file.chmod(0o755)
    monkeypatch.setattr(doctor_resolver, "_file_at", lambda server: str(file))
    monkeypatch.setattr(doctor_resolver, "said_version", lambda server: "")
    assert running_at(at(1)).version == "1.0"


@AS_ROOT
@pytest.mark.skipif(UNBOUND is None, reason="unbound is not installed")
def test_the_file_of_another_file_system(monkeypatch: pytest.MonkeyPatch) -> None:
    """That of a container has the same path as ours, and its version is not that of our package."""
    monkeypatch.setattr("os.path.samefile", lambda one, other: False)
    with Unbound({}) as unbound:
        found = running_at(at(unbound.port))
    assert (found.program, found.package, found.is_said) == ("unbound", "", True)


def test_a_number_that_is_only_said_may_be_that_of_a_mended_package() -> None:
    for version, remedy in (("1.17.1", UNKNOWN), ("1.19.1", HAS)):
        assert remedy_of(Running(HOST, "unbound", version, is_said=True), at_least) is remedy
    shown = resolver_program_card(Running(HOST, "unbound", "1.17.1", is_said=True), at_least)
    assert "as root" in shown.children[0].advice


def saying(text: str | None) -> Behaviour:
    def behave(request: Request, server: FaultServer) -> Iterator[bytes]:
        assert request.message.question[0].to_text() == "version.bind. CH TXT"
        yield request.reply(*([] if text is None else [f'version.bind. 0 CH TXT "{text}"']))

    return behave


def test_names_of_a_server_that_is_not_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_resolver, "_file_at", lambda server: "")
    for text, expected in [
        ("unbound 1.18.0", Running(HOST, "unbound", "1.18.0", is_said=True)),
        (f"unbound 1.{'9' * 100}", Running(HOST, "unbound", f"1.{'9' * 9}", is_said=True)),
        ("I \\027[2J do not tell", Running(HOST)),
        (None, Running(HOST)),
    ]:
        with FaultServer(saying(text)) as server:
            assert running_at(at(server.port)) == expected
            assert all(" " <= char <= "~" for char in said_version(at(server.port)))
            assert bool(said_version(at(server.port))) is (text is not None)


def test_nothing_is_said_of_other_hosts_and_of_files() -> None:
    assert list(resolver_program_cards(ResolverConfig(nameservers=("192.0.2.53",)))) == []
    assert list(resolver_program_cards(ResolverConfig(zone_file="/nowhere"))) == []


def test_where_nobody_answers() -> None:
    (card,) = resolver_program_cards(ResolverConfig(nameservers=(HOST,), port=9))
    assert card.status == "unknown"


@pytest.mark.attack("N02")
@pytest.mark.parametrize(
    ("nameservers", "trust_ad", "word"),
    [
        ((HOST,), (), "trusted"),
        ((HOST, "192.0.2.53"), (), "untrusted"),
        ((HOST, "192.0.2.53"), ("192.0.2.53",), "trusted"),
        (("192.0.2.53",), (), "untrusted"),
    ],
)
def test_whether_their_word_counts_is_shown(
    nameservers: tuple[str, ...], trust_ad: tuple[str, ...], word: str
) -> None:
    # Nobody answers at this port.
    config = ResolverConfig(nameservers=nameservers, trust_ad=trust_ad, port=9, query_timeout_s=0.1)
    shown = _resolver_card(config)
    assert shown.facts == (("asked", ", ".join(nameservers)), ("dnssec", word))
    assert shown.status == "problem"
