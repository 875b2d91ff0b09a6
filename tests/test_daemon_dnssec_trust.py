"""What the daemon says of its resolvers at the start and at each reload: whether their word on DNSSEC counts."""

from __future__ import annotations

import re

import pytest

from daemon_process import Daemon, daemon, engine_of

__all__ = ["daemon", "engine_of"]


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
