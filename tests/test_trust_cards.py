"""What the doctor says of whom Postfix believes, and of libmilter's build: tables of hosts, and libraries."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from audit_host import HARDENED, Change, both, main, service, without
from mailguard.cli.doctor_probe import engine_found, is_of_this_host
from mailguard.config import Config
from mailguard.explain.explanation import Explanation
from mailguard.setup_host.doctor_cards import Engine, engine_card
from mailguard.setup_host.libmilter_build import Build, build_of
from mailguard.setup_host.trust_cards import own_clients_card, proxy_card, smuggling_card

OLD = ("smtpd_forbid_bare_newline", "smtpd_forbid_unauth_pipelining")


def said(card: Explanation) -> list[tuple[str, str]]:
    return [(each.title, f"{each.detail} | {each.advice}") for each in card.children]


# -- SMTP smuggling ------------------------------------------------------------------------------------------------

SMUGGLING: list[tuple[str, Change, str, list[str]]] = [
    # id, the host, the mark of the card, what a finding says
    ("hardened", main(), "ok", []),
    ("normalize", main(smtpd_forbid_bare_newline="normalize"), "ok", []),
    ("reject", main(smtpd_forbid_bare_newline="reject"), "ok", []),
    (
        "bare-newline",
        main(smtpd_forbid_bare_newline="no"),
        "problem",
        ["smtpd_forbid_bare_newline = no", "postconf -e 'smtpd_forbid_bare_newline = yes'"],
    ),
    (
        "bare-newline-in-a-service",
        service("smtp/inet", smtpd_forbid_bare_newline="no"),
        "problem",
        ["smtp/inet: ", "postconf -P 'smtp/inet/smtpd_forbid_bare_newline=yes'"],
    ),
    (
        "pipelining",
        main(smtpd_forbid_unauth_pipelining="no"),
        "problem",
        ["commands out of turn", "postconf -e 'smtpd_forbid_unauth_pipelining = yes'"],
    ),
    ("version-without-either", without(*OLD), "problem", ["has no smtpd_forbid_bare_newline", "upgrade to"]),
    ("loopback-alone", main(inet_interfaces="loopback-only", smtpd_forbid_bare_newline="no"), "ok", []),
]


@pytest.mark.attack("X01")
@pytest.mark.parametrize(("change", "mark", "words"), [row[1:] for row in SMUGGLING], ids=[r[0] for r in SMUGGLING])
def test_smuggling(change: Change, mark: str, words: list[str]) -> None:
    card = smuggling_card(change(HARDENED))
    assert card.status == mark
    found = [text for title, text in said(card) if title == mark]
    assert any(all(word in text for word in words) for text in found), found
    assert all(title == "ok" for title, _ in said(card)) == (mark == "ok")
    # Once, however many services a setting of main.cf counts for.
    assert len(set(said(card))) == len(said(card))


# -- who may speak for others --------------------------------------------------------------------------------------

PROXIES: list[tuple[str, Change, str, list[str]]] = [
    ("nobody", main(), "ok", ["no host"]),
    ("loopback", main(smtpd_authorized_xforward_hosts="127.0.0.1 [::1], 127.0.0.0/8"), "ok", ["no host but this"]),
    (
        "users-of-this-host",
        main(smtpd_authorized_xclient_hosts="127.0.0.1 [::1], 127.0.0.0/8"),
        "note",
        [
            "XCLIENT is taken from 127.0.0.1, [::1], 127.0.0.0/8: every user of this host",
            "any login",
            "take it out of",
        ],
    ),
    ("loopback-v6", main(smtpd_authorized_xclient_hosts="[::1]/128"), "note", ["from [::1]/128: every user"]),
    ("taken-away", main(smtpd_authorized_xclient_hosts="127.0.0.1 !10.0.0.0/8"), "note", ["from 127.0.0.1: every"]),
    ("taken-away-alone", main(smtpd_authorized_xclient_hosts="!10.0.0.0/8"), "ok", []),
    (
        "xclient",
        main(smtpd_authorized_xclient_hosts="127.0.0.1, 192.0.2.7"),
        "note",
        ["main.cf: XCLIENT is taken from 192.0.2.7: ", "any login", "smtpd_authorized_xclient_hosts"],
    ),
    ("the-world", main(smtpd_authorized_xclient_hosts="0.0.0.0/0"), "note", ["from 0.0.0.0/0"]),
    ("half-the-loopback", main(smtpd_authorized_xclient_hosts="126.0.0.0/7"), "note", ["from 126.0.0.0/7"]),
    ("by-name", main(smtpd_authorized_xclient_hosts=".example.net"), "note", ["from .example.net"]),
    (
        "by-table",
        main(smtpd_authorized_xforward_hosts="cidr:/etc/postfix/proxies"),
        "note",
        ["XFORWARD is taken from cidr:/etc/postfix/proxies", "in the log", "a table or a file may list more"],
    ),
    (
        "in-a-service",
        service("smtp/inet", smtpd_authorized_xclient_hosts="10.0.0.9"),
        "note",
        ["smtp/inet: XCLIENT is taken from 10.0.0.9"],
    ),
    (
        "haproxy",
        service("smtp/inet", smtpd_upstream_proxy_protocol="haproxy"),
        "note",
        ["smtp/inet: smtpd_upstream_proxy_protocol = haproxy", "a firewall admit the proxy alone"],
    ),
    (
        "haproxy-on-loopback",
        service("127.0.0.1:10026/inet", smtpd_upstream_proxy_protocol="haproxy"),
        "ok",
        [],
    ),
    (
        "haproxy-loopback-interfaces",
        both(main(inet_interfaces="127.0.0.1, ::1"), service("smtp/inet", smtpd_upstream_proxy_protocol="haproxy")),
        "ok",
        [],
    ),
    (
        "haproxy-everywhere",
        main(smtpd_upstream_proxy_protocol="haproxy"),
        "note",
        ["smtp/inet", "submission/inet", "who connects says which address he has"],
    ),
]


@pytest.mark.attack("X15")
@pytest.mark.parametrize(("change", "mark", "words"), [row[1:] for row in PROXIES], ids=[row[0] for row in PROXIES])
def test_who_may_speak_for_others(change: Change, mark: str, words: list[str]) -> None:
    facts = change(HARDENED)
    card = proxy_card(facts)
    assert card.status == mark, said(card)
    assert any(all(word in text for word in words) for _, text in said(card)), said(card)
    # Each that is set is shown, loopback or not.
    values = {value for _, value in card.facts}
    names = ("smtpd_authorized_xclient_hosts", "smtpd_authorized_xforward_hosts", "smtpd_upstream_proxy_protocol")
    places = (None, *facts.postfix.running("smtpd"))
    assert values == {value for name in names for place in places if (value := facts.postfix.value(name, place))}


def test_a_proxy_before_postscreen() -> None:
    change = both(
        service("smtp/inet", "postscreen", postscreen_upstream_proxy_protocol="haproxy"),
        main(postscreen_upstream_proxy_protocol=""),
    )
    (found,) = said(proxy_card(change(HARDENED)))
    assert found[0] == "note"
    assert "smtp/inet: postscreen_upstream_proxy_protocol = haproxy" in found[1]


# -- clients without a login ---------------------------------------------------------------------------------------

LISTED = {"networks": ["192.168.1.0/24", "2001:db8:1::/48"], "domains": ["us.test"]}
CLIENTS: list[tuple[str, Change, str, list[str]]] = [
    ("this-host", main(), "ok", []),
    ("by-default", main("mynetworks", mynetworks="10.0.0.0/8"), "ok", []),
    ("its-own-address", main(mynetworks="127.0.0.0/8 192.0.2.25 [2001:db8::25]/128"), "ok", []),
    ("listed-to-be-signed", main(mynetworks="192.168.1.0/25, [2001:db8:1::]/64"), "ok", []),
    ("listed-as-internal", main(mynetworks="172.16.3.0/24"), "ok", []),
    ("taken-away", main(mynetworks="!10.0.0.0/8"), "ok", []),
    ("as-debian-has-it", main(mynetworks="127.0.0.0/8 [::ffff:127.0.0.0]/104 [::1]/128"), "ok", []),
    ("a-table-that-was-not-read", main(mynetworks="hash:/etc/postfix/networks"), "ok", []),
    (
        "a-network-and-a-printer",
        main(mynetworks="127.0.0.0/8 10.0.0.0/8 192.0.2.26 192.168.1.9"),
        "note",
        ["main.cf: mynetworks lets 10.0.0.0/8, 192.0.2.26/32 send without", "[[sign.networks]]"],
    ),
    ("wider-than-listed", main(mynetworks="192.168.0.0/16"), "note", ["lets 192.168.0.0/16 send"]),
    (
        "in-a-service",
        service("smtp/inet", mynetworks="10.1.0.0/16"),
        "note",
        ["smtp/inet: mynetworks lets 10.1.0.0/16"],
    ),
]


@pytest.mark.parametrize(("change", "mark", "words"), [row[1:] for row in CLIENTS], ids=[row[0] for row in CLIENTS])
def test_clients_without_a_login(change: Change, mark: str, words: list[str]) -> None:
    config = Config.model_validate(
        {"sign": {"networks": [LISTED]}, "policy": {"internal_networks": ["127.0.0.0/8", "172.16.0.0/12"]}}
    )
    own = {"192.0.2.25", "2001:db8::25"}
    card = own_clients_card(change(HARDENED), config, is_of_this_host=own.__contains__)
    ((title, text),) = said(card)
    assert (card.status, title) == (mark, mark)
    assert all(word in text for word in words), text


def test_which_addresses_are_of_this_host() -> None:
    assert is_of_this_host("127.0.0.1")
    assert not is_of_this_host("192.0.2.25")
    assert not is_of_this_host("2001:db8::25")


# -- libmilter -----------------------------------------------------------------------------------------------------


@pytest.mark.attack("P01")
@pytest.mark.parametrize(
    ("functions", "expected"),
    [
        (["mi_listener", "mi_pool_controller_init", "poll"], Build.POOL_POLL),
        (["mi_listener", "mi_pool_controller_init", "select"], Build.POOL_SELECT),
        (["mi_listener", "mi_pool_controller_init"], Build.POOL),
        (["mi_listener", "poll"], Build.THREADS),
        (["smfi_main", "poll"], Build.UNKNOWN),
        (["mi_listener_2", "xmi_pool_controller_init"], Build.UNKNOWN),
        ([], Build.UNKNOWN),
    ],
)
def test_libmilters_build_is_told_by_its_functions(tmp_path: Path, functions: list[str], expected: Build) -> None:
    """In a library that is stripped, as Debian's is."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no compiler")
    source, library = tmp_path / "lib.c", tmp_path / "lib.so"
    source.write_text("".join(f"int {name}(void) {{ return 1; }}\n" for name in functions))
    subprocess.run([compiler, "-shared", "-s", "-o", str(library), str(source)], check=True)
    assert build_of(library.read_bytes()) is expected


@pytest.mark.attack("P01")
def test_the_doctor_reports_the_build() -> None:
    found = engine_found("libmilter")
    if found.fault:
        pytest.skip(f"libmilter cannot be loaded: {found.fault}")
    assert found.build == build_of(Path(found.path).read_bytes()).value
    facts = dict(engine_card(found).facts)
    assert facts["built with"] in {each.value for each in Build}
    if Path("/etc/debian_version").exists():
        assert found.build == Build.POOL_POLL.value
    native = engine_card(Engine("native", installed="1"))
    assert dict(native.facts) == {"libmilter": "is not used"}
