"""The socketmap server with real clients: what Postfix is told, clients that misbehave, sockets and the end.

ATTACKS.md rows: T02, T15.
"""

from __future__ import annotations

import grp
import os
import socket
import stat
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from dane_asking import zone
from dns_asking import wait_for
from mailguard.dns.question import Question, RecordType
from mailguard.errors import ConfigError
from mailguard.tlspolicy import server
from mailguard.tlspolicy.listening import open_socket
from mailguard.tlspolicy.override import Overrides
from mailguard.tlspolicy.server import ServerLimits
from mailguard.tlspolicy.socketmap import ReplyStatus, encode_request
from mtasts_asking import policy
from tlspolicy_site import PATIENCE_S, POSTMAP, Client, TlsPolicySite
from tlspolicy_zone import ENFORCED, ZONE, PolicyHosts, destination, hosts, site
from vectors import require

__all__ = ["hosts", "site"]

IDLE_S = ServerLimits().idle_s

needs_postmap = pytest.mark.skipif(POSTMAP is None, reason="Postfix is not installed")


# -- what Postfix is told -----------------------------------------------------------------------------------------

ROWS = [
    pytest.param("all.test", "OK dane-only", id="every-mx-usable"),
    pytest.param("some.test", "OK dane", id="some-usable"),
    pytest.param("unusable.test", "OK dane", id="only-unusable"),
    pytest.param("broken.test", "TEMP", id="dane-error-never-mta-sts"),
    pytest.param("enforce.test", ENFORCED, id="enforce"),
    pytest.param("ENFORCE.test", ENFORCED, id="upper-case"),
    pytest.param("wild.test", "OK secure match=.wild.test servername=hostname", id="enforce-wildcard"),
    pytest.param("both.test", "OK dane-only", id="dane-before-mta-sts"),
    pytest.param("testing.test", "NOTFOUND", id="testing"),
    pytest.param("none.test", "NOTFOUND", id="none"),
    pytest.param("plain.test", "NOTFOUND", id="neither"),
    pytest.param("badpolicy.test", "NOTFOUND", id="no-policy-behind-the-record"),
    pytest.param("absent.test", "NOTFOUND", id="no-domain"),
    pytest.param("[mx1.all.test]", "OK dane-only", id="host"),
    pytest.param("[mx1.all.test]:25", "OK dane-only", id="host-and-port"),
    pytest.param("[mx1.all.test]:587", "NOTFOUND", id="host-and-other-port"),
    pytest.param("all.test:25", "OK dane-only", id="domain-and-port"),
    pytest.param("[enforce.test]:587", ENFORCED, id="relay-host-with-mta-sts"),
    pytest.param(".all.test", "NOTFOUND", id="parent"),
    pytest.param(".enforce.test", "NOTFOUND", id="parent-with-mta-sts"),
    pytest.param(".test", "NOTFOUND", id="top"),
    pytest.param("[192.0.2.1]", "NOTFOUND", id="ipv4"),
    pytest.param("[192.0.2.1]:587", "NOTFOUND", id="ipv4-and-port"),
    pytest.param("[IPv6:2001:db8::1]", "NOTFOUND", id="ipv6"),
    pytest.param("[2001:db8::1]:25", "NOTFOUND", id="ipv6-and-port"),
    pytest.param("private/dovecot-lmtp", "NOTFOUND", id="path-of-a-socket"),
    pytest.param("a.over.test", "OK encrypt", id="override-of-the-parent"),
    pytest.param("plain.over.test", "NOTFOUND", id="override-default"),
    pytest.param(".over.test", "NOTFOUND", id="parent-with-an-override"),
    pytest.param("[192.0.2.9]", "OK verify match=x.test", id="override-of-an-address"),
]


@needs_postmap
@pytest.mark.attack("T02")
@pytest.mark.parametrize(("key", "expected"), ROWS)
def test_what_postfix_is_told(site: TlsPolicySite, key: str, expected: str) -> None:
    code, out, said = site.postmap(key)
    if expected == "TEMP":
        assert code == 1
        assert "temporary error" in said
        assert "mx1.broken.test" in said, "why, in Postfix's log"
    elif expected == "NOTFOUND":
        assert (code, out, said) == (1, "", "")
    else:
        assert (code, f"OK {out}", said) == (0, expected, "")


@needs_postmap
def test_several_questions_over_one_connection_and_over_inet(site: TlsPolicySite) -> None:
    done = subprocess.run(
        [str(POSTMAP), "-c", str(site.directory), "-q", "-", f"socketmap:inet:127.0.0.1:{site.port}:QUERY"],
        input="all.test\nenforce.test\nplain.test\nall.test\n",
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.stdout.splitlines() == ["all.test\tdane-only", f"enforce.test\t{ENFORCED[3:]}", "all.test\tdane-only"]


@needs_postmap
def test_the_map_with_tls_reports(site: TlsPolicySite) -> None:
    _, out, _ = site.postmap("enforce.test", map_name="QUERYwithTLSRPT")
    assert out.startswith(
        f"{ENFORCED[3:]} policy_type=sts policy_domain=enforce.test {{ policy_string = version: STSv1 }}"
    )
    # From the cache too, and in the other map none of it.
    assert site.postmap("enforce.test", map_name="QUERYwithTLSRPT")[1] == out
    assert site.postmap("enforce.test")[1] == ENFORCED[3:]
    assert site.postmap("all.test", map_name="QUERYwithTLSRPT")[1] == "dane-only"
    assert site.postmap("plain.test", map_name="QUERYwithTLSRPT")[:2] == (1, "")


def test_the_table_of_another_server() -> None:
    """mtasts-snawoot: requests and replies of a socketmap server for MTA-STS, octet for octet."""
    lines = (require("mtasts-snawoot") / "refdata.tsv").read_text("ascii").splitlines()
    records = {
        name: entry
        for domain in ("good.loc", "valid-none.loc", "testing.loc", *(f"bad-policy{at}.loc" for at in (1, 2, 3)))
        for name, entry in destination(domain, [], sts="1").items()
    }
    modes = {"good.loc": "enforce", "valid-none.loc": "none", "testing.loc": "testing"}
    hosts = PolicyHosts({domain: policy(mode=mode, mx="mail.loc") for domain, mode in modes.items()})
    with TlsPolicySite(zone(records), fetch=hosts.fetch) as site, site.client() as client:
        for line in lines:
            request, _, expected = line.partition("\t")
            map_name, _, key = request.partition(" ")
            reply = client.ask(key, map_name=map_name.encode())
            assert f"{reply.status.value} {reply.text}" == expected, request
    assert len(lines) == 21


def test_what_is_asked_together_is_looked_up_once(site: TlsPolicySite, hosts: PolicyHosts) -> None:
    hosts.gate.clear()
    clients = [site.client() for _ in range(20)]
    for client in clients:
        client.send(encode_request(b"QUERY", b"enforce.test"))
    wait_for(lambda: hosts.fetched)
    # Who asks for something else does not wait for it.
    assert site.ask("all.test") == "OK dane-only"
    hosts.gate.set()
    assert {client.reply().text for client in clients} == {ENFORCED[3:]}
    assert hosts.fetched == ["enforce.test"]
    assert site.resolver.asked.count(Question("enforce.test", RecordType.MX)) == 1
    for client in clients:
        client.socket.close()


def test_replies_come_in_the_order_of_the_requests(site: TlsPolicySite) -> None:
    site.resolver.delay_s = 0.05
    keys = ["plain.test", "[192.0.2.9]", "all.test", ".test", "enforce.test", "a.over.test"]
    with site.client() as client:
        client.send(b"".join(encode_request(b"QUERY", key.encode()) for key in keys))
        statuses = [client.reply() for _ in keys]
    assert [reply.text for reply in statuses] == ["", "verify match=x.test", "dane-only", "", ENFORCED[3:], "encrypt"]


def test_who_has_said_all_still_gets_the_reply(site: TlsPolicySite) -> None:
    site.resolver.delay_s = 0.05
    with site.client() as client:
        client.send(encode_request(b"QUERY", b"all.test"))
        client.socket.shutdown(1)
        assert client.reply().text == "dane-only"
        assert client.is_closed()


# -- clients that misbehave ---------------------------------------------------------------------------------------


@pytest.mark.attack("T15")
@pytest.mark.parametrize(
    "octets",
    [b"1073741824:QUERY a", b"1025:" + b"x" * 1025, b"GET / HTTP/1.0\r\n\r\n", b"\x00" * 100_000, b"5:QUERY,"],
    ids=["gigabyte", "over-the-limit", "http", "zeros", "no-key"],
)
def test_garbage_closes_its_own_connection_alone(site: TlsPolicySite, octets: bytes) -> None:
    with site.client() as good, site.client() as bad:
        assert good.ask("all.test").text == "dane-only"
        try:
            bad.send(octets)
        except ConnectionError:
            pass
        else:
            assert bad.is_closed()
        assert good.ask("all.test").text == "dane-only"


@pytest.mark.attack("T15")
def test_who_drips_is_closed_for_being_idle(site: TlsPolicySite) -> None:
    """A request has to be complete within the idle time, however often an octet of it comes."""
    request = encode_request(b"QUERY", b"all.test")
    with site.client() as client:
        wait_for(lambda: site.server.connections == 1)
        with suppress(ConnectionError):
            for octet in request[:-1]:
                site.pass_time(IDLE_S / 10)
                client.send(bytes([octet]))
                time.sleep(0.05)
        assert client.is_closed()


@pytest.mark.attack("T15")
def test_the_silent_are_closed_and_the_busy_are_not(site: TlsPolicySite) -> None:
    with site.client() as silent, site.client() as busy:
        wait_for(lambda: site.server.connections == 2)
        for _ in range(4):
            assert busy.ask("all.test").text == "dane-only"
            site.pass_time(IDLE_S / 3)
        assert silent.is_closed()
        assert busy.ask("all.test").text == "dane-only"


@pytest.mark.attack("T15")
def test_who_waits_for_a_look_up_is_not_idle(site: TlsPolicySite) -> None:
    site.resolver.delay_s = 1.2
    with site.client() as client:
        client.send(encode_request(b"QUERY", b"plain.test"))
        wait_for(lambda: site.destinations._under_way)
        site.pass_time(2 * IDLE_S)
        # MX, then addresses, then TLSA records: longer than it takes until somebody looks who is idle.
        assert client.reply().status is ReplyStatus.NOT_FOUND


@pytest.mark.attack("T15")
def test_who_never_reads_costs_little_and_others_are_answered(hosts: PolicyHosts) -> None:
    names = ":".join(f"mx{number}.enforce.test" for number in range(3_000))
    overrides = Overrides({"long.test": f"secure match={names[:8_000]}"})
    limits = ServerLimits(connections=50)
    with TlsPolicySite(zone(ZONE), fetch=hosts.fetch, overrides=overrides, limits=limits) as site:
        assert site.ask("all.test") == "OK dane-only"
        deaf = [site.client() for _ in range(10)]
        flood = encode_request(b"QUERY", b"long.test") * 20_000  # 160 MB of replies, each
        before = resident_bytes()
        for client in deaf:
            client.socket.setblocking(False)
            try:
                client.socket.send(flood)
            except BlockingIOError:
                pass
        with site.client() as good:
            for _ in range(200):
                assert good.ask("all.test").text == "dane-only"
        for client in deaf:
            client.socket.setblocking(False)
            try:
                client.socket.send(flood)
            except BlockingIOError:
                pass
        assert resident_bytes() - before < 8 * 1024 * 1024
        # All have been waited for since before: who reads now, or is only seen to send now, is not idle any more.
        site.pass_time(2 * IDLE_S)
        wait_for(lambda: site.server.connections == 0)
        for client in deaf:
            assert client.is_closed()


def resident_bytes() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.attack("T15")
def test_what_is_sent_during_a_look_up_is_not_taken_in(site: TlsPolicySite, hosts: PolicyHosts) -> None:
    """More than what the kernel holds for both ends; all that there is room for is answered later."""
    hosts.gate.clear()
    with site.client() as client:
        client.send(encode_request(b"QUERY", b"enforce.test"))
        wait_for(lambda: hosts.at_once == 1)
        client.socket.settimeout(1.0)
        with pytest.raises(TimeoutError):
            client.socket.sendall(encode_request(b"QUERY", b"192.0.2.1") * 1_000_000)
        client.socket.settimeout(PATIENCE_S)
        hosts.gate.set()
        assert f"OK {client.reply().text}" == ENFORCED
        assert [client.reply().status for _ in range(100)] == [ReplyStatus.NOT_FOUND] * 100


def test_nobody_keeps_postfix_out_by_holding_all_connections(site: TlsPolicySite) -> None:
    held = [site.client() for _ in range(70)]
    for _ in range(3):
        assert site.ask("all.test") == "OK dane-only"
    assert site.server.connections <= 50
    for client in held:
        client.socket.close()


def test_who_waits_for_a_look_up_is_not_closed_for_those_who_come(site: TlsPolicySite, hosts: PolicyHosts) -> None:
    hosts.gate.clear()
    with site.client() as waits:
        waits.send(encode_request(b"QUERY", b"enforce.test"))
        wait_for(lambda: hosts.at_once == 1)
        held = [site.client() for _ in range(60)]
        assert site.ask("all.test") == "OK dane-only"
        hosts.gate.set()
        assert f"OK {waits.reply().text}" == ENFORCED
        for client in held:
            client.socket.close()


# -- sockets, start and end ---------------------------------------------------------------------------------------


def test_a_unix_socket_has_its_mode_from_the_start(tmp_path: Path) -> None:
    path = tmp_path / "s"
    opened = open_socket(f"unix:{path}", mode=0o660, group=None)
    assert stat.S_IMODE(path.lstat().st_mode) == 0o660
    with pytest.raises(ConfigError, match="another process listens"):
        open_socket(f"unix:{path}", mode=0o660, group=None)
    opened.close()
    assert not path.exists()


def test_nobody_may_use_a_unix_socket_before_it_has_its_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "s"
    before: list[int] = []
    chown = os.chown

    def giving(name: str, user: int, group: int) -> None:
        before.append(stat.S_IMODE(path.lstat().st_mode))
        chown(name, user, group)

    monkeypatch.setattr(os, "chown", giving)
    umask = os.umask(0)
    try:
        opened = open_socket(f"unix:{path}", mode=0o666, group=grp.getgrgid(os.getegid()).gr_name)
        assert os.umask(0) == 0, "it is as it was"
    finally:
        os.umask(umask)
    assert before == [0]
    assert stat.S_IMODE(path.lstat().st_mode) == 0o666
    opened.close()


def test_what_is_at_the_path_already(tmp_path: Path) -> None:
    path = tmp_path / "s"
    opened = open_socket(f"unix:{path}", mode=0o600, group=None)
    opened.socket.close()  # as if it had been killed
    again = open_socket(f"unix:{path}", mode=0o600, group=None)
    path.unlink()
    third = open_socket(f"unix:{path}", mode=0o600, group=None)
    again.close()
    assert path.exists(), "that is not its own any more"
    third.close()
    assert not path.exists()
    path.write_text("precious")
    with pytest.raises(ConfigError, match="not a socket"):
        open_socket(f"unix:{path}", mode=0o600, group=None)
    assert path.read_text() == "precious"
    with pytest.raises(ConfigError, match="no group"):
        open_socket(f"unix:{tmp_path}/t", mode=0o600, group="no-such-group")
    with pytest.raises(ConfigError, match="cannot listen"):
        open_socket(f"unix:{tmp_path}/absent/s", mode=0o600, group=None)
    with pytest.raises(ConfigError, match="cannot listen"):
        open_socket("inet:192.0.2.1:8461", mode=0o600, group=None)


@pytest.mark.attack("K08")
def test_where_every_user_can_put_a_socket_there_is_none(tmp_path: Path) -> None:
    place, link = tmp_path / "open" / "place", tmp_path / "link"
    place.mkdir(parents=True)
    link.symlink_to(place)
    for mode, directory in ((0o777, place), (0o1777, place), (0o777, place.parent)):
        directory.chmod(mode)
        for way in (place, link):
            with pytest.raises(ConfigError, match=r"every user can write to .*; choose"):
                open_socket(f"unix:{way}/s", mode=0o600, group=None)
        assert list(place.iterdir()) == []
        directory.chmod(0o755)
    place.parent.chmod(0o1777)
    open_socket(f"unix:{place}/s", mode=0o600, group=None).close()
    if os.geteuid() == 0:
        os.chown(place, 65534, -1)
        with pytest.raises(ConfigError, match=f"every user can write to {place.parent}; choose"):
            open_socket(f"unix:{place}/s", mode=0o600, group=None)


@pytest.mark.parametrize(
    ("kind", "replace"), [(stat.S_IFREG, os.symlink), (stat.S_IFREG, os.link), (stat.S_IFSOCK, os.link)]
)
def test_what_is_put_in_the_place_of_a_socket_keeps_its_mode(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: int, replace: Callable[[str, str], None]
) -> None:
    precious = tmp_path / "precious"
    os.mknod(precious, kind | 0o600)

    class Replaced(socket.socket):
        def bind(self, address: Any) -> None:
            super().bind(address)
            os.unlink(address)
            replace(str(precious), address)

    monkeypatch.setattr(socket, "socket", Replaced)
    with pytest.raises(ConfigError, match="replaced while it was made"):
        open_socket(f"unix:{tmp_path}/s", mode=0o666, group=None)
    assert stat.S_IMODE(precious.stat().st_mode) == 0o600


def test_the_end_waits_for_replies_that_are_under_way(hosts: PolicyHosts, monkeypatch: pytest.MonkeyPatch) -> None:
    # Whoever waited for it to be over would not be back before the site loses its patience.
    monkeypatch.setattr(server, "GRACE_S", 600.0)
    site = TlsPolicySite(zone(ZONE), fetch=hosts.fetch)
    with site:
        site.resolver.delay_s = 0.2
        waiting, idle = site.client(), Client(site.port)
        waiting.send(encode_request(b"QUERY", b"all.test"))
        wait_for(lambda: site.destinations._under_way and site.server.connections == 2)
    assert waiting.reply().text == "dane-only"
    assert idle.is_closed()
    for client in (waiting, idle):
        client.socket.close()
