"""`mailguard tlspolicy`: the server as a process, its configuration, its end, and what it says of what is around it.

With a real unbound where it is installed: a signed zone whose TLSA records count, until unbound is gone.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from cli_process import Command
from dns_asking import wait_for
from mailguard.config import DEFAULT_PATH, Config, load
from mailguard.errors import ConfigError
from mailguard.mtasts.store import PolicyRow, PolicyStore
from mailguard.tlspolicy.resolvers import resolver_config
from policy_site import Authority, PolicySite, reply
from tlspolicy_site import SETTINGS, Client
from unbound_site import UNBOUND, Unbound

PATIENCE_S = 60.0
TLSA = "3 1 1 " + "ab" * 32
ZONES = {
    "signed.test.": f"@ MX 10 mx\nmx A 192.0.2.1\n_25._tcp.mx TLSA {TLSA}\n",
    "plain.test.": f"@ MX 10 mx\nmx A 192.0.2.1\n_25._tcp.mx TLSA {TLSA}\n",
}


def configured(
    directory: Path, *, dns: str = 'nameservers = ["127.0.0.1"]', more: str = "", deadline_s: float = 20.0
) -> Path:
    """A configuration file that serves on a unix socket beside it."""
    file = directory / "mailguard.toml"
    file.write_text(
        f"""
authserv_id = "mx.us.test"
[dns]
deadline_s = {deadline_s}
query_timeout_s = 5.0
{dns}
[tlspolicy]
listen = ["unix:{directory}/s"]
cache_file = "sts.sqlite"
postconf = "{directory}/postconf"
{more}
"""
    )
    return file


class Serving:
    """The process, and what it has written so far."""

    def __init__(self, process: subprocess.Popen[bytes], path: str, log: Path) -> None:
        self.process, self.path, self._log = process, path, log

    @property
    def log(self) -> str:
        return self._log.read_text("utf-8")

    def ask(self, key: str) -> str:
        with Client(self.path) as client:
            reply = client.ask(key)
        return f"OK {reply.text}" if reply.status.value == "OK" else reply.status.value

    def end(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(PATIENCE_S)


@contextmanager
def serving(file: Path, environment: Mapping[str, str] | None = None) -> Iterator[Serving]:
    with starting(file, environment) as server:
        wait_for(lambda: server.process.poll() is not None or "event=started" in server.log)
        assert server.process.poll() is None, server.log
        yield server


@contextmanager
def starting(file: Path, environment: Mapping[str, str] | None = None) -> Iterator[Serving]:
    path = str(file.parent / "s")
    log = file.parent / "log"
    with open(log, "wb") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-m", "mailguard", "tlspolicy", "serve", "-c", str(file)],
            stderr=stderr,
            env={**os.environ, **(environment or {})},
        )
        try:
            yield Serving(process, path, log)
        finally:
            process.kill()
            process.wait()


def test_it_serves_and_ends(tmp_path: Path) -> None:
    zone = tmp_path / "zone"
    zone.write_text("plain.test. MX 10 mx.plain.test.\nmx.plain.test. A 192.0.2.1\n")
    more = 'mta_sts = false\nmode = "0600"\n[tlspolicy.overrides]\n"over.test" = "encrypt"\n'
    notified = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    notified.bind(str(tmp_path / "notify"))
    notified.settimeout(PATIENCE_S)
    file = configured(tmp_path, dns=f'zone_file = "{zone}"', more=more)
    with serving(file, {"NOTIFY_SOCKET": str(tmp_path / "notify")}) as server:
        assert notified.recv(100) == b"READY=1"
        assert stat.S_IMODE(os.stat(server.path).st_mode) == 0o600
        assert (server.ask("plain.test"), server.ask("over.test")) == ("NOTFOUND", "OK encrypt")
        with Client(server.path) as idle:
            assert server.end() == 0
            assert idle.is_closed()
        assert notified.recv(100) == b"STOPPING=1"
        assert not os.path.exists(server.path)
        assert "event=stopped" in server.log
        assert "Traceback" not in server.log
    notified.close()


def test_sigint_ends_it_too(tmp_path: Path) -> None:
    with serving(configured(tmp_path, more="mta_sts = false")) as server:
        assert server.end(signal.SIGINT) == 0


def test_it_ends_at_once_while_a_policy_host_hangs(tmp_path: Path) -> None:
    """The thread that fetches is not waited for."""
    with socket.create_server(("", 0)) as silent:
        zone = tmp_path / "zone"
        zone.write_text(
            "slow.test. MX 10 mx.slow.test.\nmx.slow.test. A 192.0.2.1\n"
            '_mta-sts.slow.test. TXT "v=STSv1; id=1;"\n'
            + "".join(f"mta-sts.slow.test. A 127.0.0.{number}\n" for number in range(1, 5))
        )
        more = f'https_port = {silent.getsockname()[1]}\nallowed_networks = ["127.0.0.0/8"]'
        file = configured(tmp_path, dns=f'zone_file = "{zone}"', more=more)
        with serving(file) as server, Client(server.path) as client:
            client.send(b"15:QUERY slow.test,")
            silent.settimeout(PATIENCE_S)
            connection, _ = silent.accept()
            began = time.monotonic()
            assert server.end() == 0
            # 5 s for who waits; the fetch would give up after 10 with each of four addresses.
            assert time.monotonic() - began < 25
            connection.close()


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ('[tlspolicy.overrides]\n"example.com" = "dain-only"', 'tlspolicy.overrides: example.com: "dain-only"'),
        ('listn = ["unix:/x"]', "listn"),
        ('group = "no-such-group"', "no-such-group"),
        ('ca_file = "/absent.pem"', "/absent.pem"),
    ],
)
def test_what_cannot_be_served(tmp_path: Path, more: str, said: str) -> None:
    file = configured(tmp_path, more=more)
    done = subprocess.run(
        [sys.executable, "-m", "mailguard", "tlspolicy", "serve", "-c", str(file)],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 78
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize(
    ("host", "said"), [("127.0.0.1", "Address already in use"), ("192.0.2.1", "Cannot assign requested address")]
)
def test_an_address_that_is_in_use_or_not_there_yet_is_tried_again(
    tmp_path: Path, mailguard_command: Command, host: str, said: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        text = configured(tmp_path, more="allow_remote = true").read_text()
        address = f"inet:{host}:{other.getsockname()[1]}"
        file = tmp_path / "other.toml"
        file.write_text(text.replace(f"unix:{tmp_path}/s", address))
        done = mailguard_command("tlspolicy", "serve", "-c", file)
    assert (done.code, done.err) == (75, f"mailguard: {address}: cannot listen: {said}\n")
    assert is_started_again(done.code)


def test_a_second_server_is_tried_again_and_takes_nothing(tmp_path: Path, mailguard_command: Command) -> None:
    file = configured(tmp_path)
    with serving(file) as server:
        done = mailguard_command("tlspolicy", "serve", "-c", file)
        assert (done.code, "another process listens there" in done.err) == (75, True)
        assert server.ask("[192.0.2.1]") == "NOTFOUND"


def test_a_server_that_cannot_go_on_is_started_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, mailguard_command: Command
) -> None:
    def exhausted(*_: object, **__: object) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr("mailguard.tlspolicy.service.open_socket", exhausted)
    done = mailguard_command("tlspolicy", "serve", "-c", configured(tmp_path))
    assert (done.code, done.err) == (75, "mailguard: Too many open files\n")
    assert is_started_again(done.code)


def is_started_again(code: int) -> bool:
    """By systemd."""
    prevented = re.search(r"^RestartPreventExitStatus=(.*)$", UNIT.read_text(), re.MULTILINE)
    assert prevented is not None
    return str(code) not in prevented[1].split()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('listen = ["inet:0.0.0.0:8461"]', "can be reached by other hosts"),
        ('listen = ["inet:localhost:8461"]', "host names are not looked up"),
        ("listen = []", "listen"),
        ('listen = ["unix:/x", "unix:/x"]', "twice"),
        ('mode = "0666"', "every user"),
        ('insecure_mx = "encrypt"', "insecure_mx"),
        ("connections = 0", "connections"),
    ],
)
def test_configurations_that_are_refused(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "mailguard.toml"
    file.write_text(f'authserv_id = "x.test"\n[tlspolicy]\n{text}\n')
    with pytest.raises(ConfigError, match=said):
        load(file)
    assert load_text(tmp_path, 'listen = ["inet:0.0.0.0:8461"]\nallow_remote = true').tlspolicy.allow_remote


def load_text(directory: Path, text: str) -> Config:
    file = directory / "other.toml"
    file.write_text(f'authserv_id = "x.test"\n[tlspolicy]\n{text}\n')
    return load(file)


def test_a_server_whose_word_does_not_count_is_not_asked_in_place_of_one_whose_does() -> None:
    """Else a failure of the trusted one would make what DANE protects look unsigned."""

    def asked(**dns: object) -> tuple[str, ...]:
        return resolver_config(Config.model_validate({"authserv_id": "x.test", "dns": dns})).nameservers

    assert asked(nameservers=["127.0.0.1", "192.0.2.53"]) == ("127.0.0.1",)
    assert asked(nameservers=["192.0.2.53", "192.0.2.54"], trust_ad=["192.0.2.54"]) == ("192.0.2.54",)
    assert asked(nameservers=["192.0.2.53"]) == ("192.0.2.53",), "MTA-STS works without DNSSEC"


UNIT = Path(__file__).parents[1] / "contrib" / "mailguard-tlspolicy.service"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_the_unit_is_as_little_exposed_as_it_says() -> None:
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", str(UNIT)], capture_output=True, text=True, check=False
    )
    measured = re.search(r"Overall exposure level for mailguard-tlspolicy.service: ([\d.]+)", done.stdout)
    claimed = re.search(r"^# Exposure by .*: ([\d.]+) \(systemd 252\)$", UNIT.read_text(), re.MULTILINE)
    assert measured is not None, done.stderr
    assert claimed is not None
    assert float(measured[1]) <= float(claimed[1])
    assert f"tlspolicy serve -c {DEFAULT_PATH}" in UNIT.read_text()


def test_a_policy_over_https(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    text = b"version: STSv1\nmode: enforce\nmx: mx.good.test\nmax_age: 86400\n"
    with PolicySite(authority.issue("mta-sts.good.test"), reply(text)) as policies:
        zone = tmp_path / "zone"
        zone.write_text(
            "good.test. MX 10 mx.good.test.\nmx.good.test. A 192.0.2.1\n"
            '_mta-sts.good.test. TXT "v=STSv1; id=1;"\nmta-sts.good.test. A 127.0.0.1\n'
        )
        more = f'https_port = {policies.port}\nallowed_networks = ["127.0.0.0/8"]\nca_file = "{authority.ca_file}"'
        file = configured(tmp_path, dns=f'zone_file = "{zone}"', more=more)
        wanted = "OK secure match=mx.good.test servername=hostname"
        with serving(file) as server:
            assert server.ask("good.test") == wanted
            assert server.end() == 0
    # It is gone, and the policy counts.
    with serving(file) as server:
        assert server.ask("good.test") == wanted


# -- with a real resolver -----------------------------------------------------------------------------------------


@pytest.mark.skipif(UNBOUND is None, reason="unbound is not installed")
@pytest.mark.attack("T01", "T02")
def test_with_unbound_and_without(tmp_path: Path) -> None:
    with Unbound(ZONES, signed=["signed.test."]) as unbound:
        more = 'dnssec_probe = "mx.signed.test"\nmta_sts = false'
        file = configured(tmp_path, dns=f'nameservers = ["127.0.0.1"]\nport = {unbound.port}', more=more)
        with serving(file) as server:
            assert server.ask("signed.test") == "OK dane-only"
            assert server.ask("[mx.signed.test]") == "OK dane-only"
            assert server.ask("plain.test") == "NOTFOUND"
            assert "DANE is off" not in server.log
            unbound.kill()
            # Nothing is kept of this one.
            assert server.ask("[mx.signed.test]:26") == "TEMP"
            assert server.ask("other.test") == "TEMP"
            assert server.end() == 0


@pytest.mark.skipif(UNBOUND is None, reason="unbound is not installed")
def test_a_policy_over_https_with_unbound(tmp_path: Path) -> None:
    """The thread that fetches looks names up on the loop of the server."""
    authority = Authority(tmp_path)
    text = b"version: STSv1\nmode: enforce\nmx: *.good.test\nmax_age: 86400\n"
    zones = {"good.test.": '@ MX 10 mx\nmx A 192.0.2.1\n_mta-sts TXT "v=STSv1; id=1;"\nmta-sts A 127.0.0.1\n'}
    with PolicySite(authority.issue("mta-sts.good.test"), reply(text)) as policies, Unbound(zones) as unbound:
        more = f'https_port = {policies.port}\nallowed_networks = ["127.0.0.0/8"]\nca_file = "{authority.ca_file}"'
        dns = f'nameservers = ["127.0.0.1"]\nport = {unbound.port}'
        with serving(configured(tmp_path, dns=dns, more=more)) as server:
            assert server.ask("good.test") == "OK secure match=.good.test servername=hostname"
            assert server.ask("[good.test]:587") == "OK secure match=.good.test servername=hostname"
            assert policies.connections == 1


@pytest.mark.skipif(UNBOUND is None, reason="unbound is not installed")
def test_a_resolver_that_does_not_validate_is_told(tmp_path: Path, mailguard_command: Command) -> None:
    with Unbound(ZONES) as unbound:
        more = 'dnssec_probe = "mx.signed.test"\nmta_sts = false'
        dns = f'nameservers = ["127.0.0.1"]\nport = {unbound.port}'
        file = configured(tmp_path, dns=dns, more=more)
        with serving(file) as server:
            wait_for(lambda: "DANE is off" in server.log)
            assert "status=does-not-validate" in server.log
            assert server.ask("signed.test") == "NOTFOUND"
        checked = mailguard_command("tlspolicy", "check", "-c", file)
        assert checked.code == 1
        assert "auto-trust-anchor-file" in checked.out


# -- commands -----------------------------------------------------------------------------------------------------


@pytest.fixture
def zone_site(tmp_path: Path) -> Path:
    zone = tmp_path / "zone"
    zone.write_text("plain.test. MX 10 mx.plain.test.\nmx.plain.test. A 192.0.2.1\n")
    return configured(tmp_path, dns=f'zone_file = "{zone}"', more='[tlspolicy.overrides]\n".over.test" = "encrypt"\n')


def test_query(zone_site: Path, mailguard_command: Command) -> None:
    for key, code, out in [
        ("plain.test", 1, "plain.test: NOTFOUND\n  no-policy: "),
        ("a.over.test", 0, "a.over.test: OK encrypt\n  override: "),
        (".plain.test", 1, ".plain.test: NOTFOUND\n  parent: "),
        (".over.test", 1, ".over.test: NOTFOUND\n  parent: "),
        ("[192.0.2.1]", 1, "[192.0.2.1]: NOTFOUND\n  address: "),
        ("private/lmtp", 1, "private/lmtp: NOTFOUND\n  it is no destination"),
    ]:
        done = mailguard_command("tlspolicy", "query", key, "-c", zone_site)
        assert (done.code, done.out[: len(out)]) == (code, out)
    done = mailguard_command("tlspolicy", "query", "a.over.test", "--json", "-c", zone_site)
    assert json.loads(done.out) == {
        "key": "a.over.test",
        "status": "OK",
        "text": "encrypt",
        "reason": "override",
        "detail": "the configuration says so",
    }


def test_query_of_what_cannot_be_looked_up(tmp_path: Path, mailguard_command: Command) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as nobody:
        nobody.bind(("127.0.0.1", 0))
        dns = f'nameservers = ["127.0.0.1"]\nport = {nobody.getsockname()[1]}'
        file = configured(tmp_path, dns=dns, deadline_s=1.0)
        done = mailguard_command("tlspolicy", "query", "plain.test", "-c", file)
    assert done.code == 75
    assert done.out.startswith("plain.test: TEMP DANE cannot be looked up")


def test_query_of_the_server(zone_site: Path, mailguard_command: Command) -> None:
    done = mailguard_command("tlspolicy", "query", "--server", "a.over.test", "-c", zone_site)
    assert done.code == 78
    assert "does the server run?" in done.err
    with serving(zone_site):
        done = mailguard_command("tlspolicy", "query", "--server", "a.over.test", "-c", zone_site)
        assert (done.code, done.out.splitlines()[0]) == (0, "a.over.test: OK encrypt")


def test_who_took_the_port_of_the_server_cannot_steer_the_terminal(
    tmp_path: Path, mailguard_command: Command
) -> None:
    text = b"OK \x1b]0;own\x07\nforged: line"
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        config = tmp_path / "mailguard.toml"
        config.write_text(f'[tlspolicy]\nlisten = ["inet:127.0.0.1:{stranger.getsockname()[1]}"]\n')

        def answer() -> None:
            with stranger.accept()[0] as client:
                client.recv(1000)
                client.sendall(b"%d:%s," % (len(text), text))

        answering = threading.Thread(target=answer)
        answering.start()
        done = mailguard_command("tlspolicy", "query", "--server", "a.test", "-c", config)
        answering.join()
    assert done.out.splitlines()[0] == "a.test: OK \\x1b]0;own\\x07\\nforged: line"


def postconf(directory: Path, settings: Mapping[str, str]) -> None:
    """A program in place of postconf that prints these settings."""
    lines = "\n".join(f"{name} = {value}" for name, value in settings.items())
    program = directory / "postconf"
    program.write_text(f"#!/bin/sh\ncat <<'END'\n{lines}\nEND\n")
    program.chmod(0o755)


def test_check_and_the_start_say_what_postfix_lacks(zone_site: Path, mailguard_command: Command) -> None:
    postconf(zone_site.parent, {**SETTINGS, "smtp_dns_support_level": "enabled"})
    done = mailguard_command("tlspolicy", "check", "-c", zone_site)
    assert done.code == 1
    assert "postconf -e smtp_dns_support_level=dnssec" in done.out
    found = json.loads(mailguard_command("tlspolicy", "check", "--json", "-c", zone_site).out)
    assert found["resolver"] == "no-trusted-server"
    with serving(zone_site) as server:
        wait_for(lambda: "smtp_dns_support_level=dnssec" in server.log)
        assert server.log.count("smtp_dns_support_level=dnssec") == 1
        wait_for(lambda: "DANE is off" in server.log)


def test_a_policy_of_the_last_run_counts_at_once(tmp_path: Path) -> None:
    """What SQLite has is read before the first client is answered."""
    text = b"version: STSv1\nmode: enforce\nmx: mx.kept.test\nmax_age: 604800\n"
    now = time.time()
    row = PolicyRow("kept.test", "1", text, now - 60, now + 600_000, now + 300_000, now)
    store = PolicyStore(str(tmp_path / "sts.sqlite"))
    store.write([row], now=now)
    store.close()
    zone = tmp_path / "zone"
    zone.write_text("kept.test. MX 10 mx.kept.test.\nmx.kept.test. A 192.0.2.1\n")
    with serving(configured(tmp_path, dns=f'zone_file = "{zone}"')) as server:
        assert server.ask("kept.test") == "OK secure match=mx.kept.test servername=hostname"
        assert "policies=1" in server.log
