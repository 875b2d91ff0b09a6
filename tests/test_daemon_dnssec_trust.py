"""What the daemon says of its resolvers at the start and at each reload: whether their word on DNSSEC counts."""

from __future__ import annotations

import re
import shutil
import time
from types import SimpleNamespace
from typing import Any

import pytest

from daemon_process import IS_ROOT, QUICK, Daemon, eventually
from mailguard_milter.supervisor import Supervisor


def asks(daemon: Daemon, dns: str) -> None:
    daemon.configure()
    daemon.config.write_text(daemon.config.read_text().replace('zone_file = "zone"', dns))


def said(daemon: Daemon) -> list[str]:
    """The lines on DNSSEC so far: what was warned of, and what each `serving` has."""
    found = re.findall(r'event="(DNSSEC .*?)" before=(\S+) now=(\S+)|event=serving .*? (dnssec=.*)', daemon.log())
    return [" ".join(filter(None, groups)) for groups in found]


@pytest.mark.attack("N02")
def test_trust_is_judged_anew_at_each_reload(daemon: Daemon) -> None:
    asks(daemon, 'nameservers = ["127.0.0.1"]')
    daemon.started()
    for dns in (
        'nameservers = ["127.0.0.1", "192.0.2.53"]',
        'nameservers = ["192.0.2.53"]',
        'nameservers = ["192.0.2.53"]\ntrust_ad = ["192.0.2.53"]',
        'zone_file = "zone"',
    ):
        asks(daemon, dns)
        daemon.reload()
    assert said(daemon) == [
        "dnssec=trusted resolvers=127.0.0.1",
        "DNSSEC is not trusted any more 127.0.0.1 127.0.0.1,192.0.2.53",
        "dnssec=untrusted resolvers=127.0.0.1,192.0.2.53",
        "dnssec=untrusted resolvers=192.0.2.53",
        "dnssec=trusted resolvers=192.0.2.53",
        'DNSSEC is not trusted any more 192.0.2.53 ""',
        'dnssec=untrusted resolvers=""',
    ]


@pytest.mark.skipif(not IS_ROOT or shutil.which("unshare") is None, reason="needs root, to mount a file")
def test_other_resolvers_in_resolv_conf_are_told_once_and_asked_after_a_reload(daemon: Daemon) -> None:
    file = daemon.directory / "resolv.conf"
    file.write_text("# the network is not there yet\n")
    asks(daemon, "")
    mount = f'mount --bind {file} /etc/resolv.conf && exec "$@"'
    daemon.started("unshare", "-m", "--propagation", "private", "sh", "-c", mount, "sh", *QUICK)
    file.write_text("nameserver 192.0.2.53\n")
    eventually(lambda: "the resolvers have changed" in daemon.log())
    daemon.reload()
    # More than one look later.
    time.sleep(1.5)
    told = re.findall(r'event="the resolvers have changed" (.*)|event=serving .*(resolvers=.*)', daemon.log())
    assert ["".join(each) for each in told] == [
        "resolvers=127.0.0.1",
        'asked=127.0.0.1 named=192.0.2.53 remedy="reload the daemon"',
        "resolvers=192.0.2.53",
    ]


def test_a_plan_of_older_code_ends_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    """After the package was put back to an older one, and reloaded."""
    supervisor = Supervisor("mailguard.toml")
    supervisor._directory = _anything()
    for number, more in ((1, {"dnssec": "trusted", "resolvers": ["127.0.0.1"]}), (2, {})):
        supervisor._announce(_anything(number=number, plan={"listeners": [], **more}))
    first, second = capfd.readouterr().err.splitlines()
    assert ("dnssec=trusted" in first, "event=serving generation=2" in second) == (True, True)


def _anything(**what: object) -> Any:
    return SimpleNamespace(announce_keys=lambda number: None, **what)
