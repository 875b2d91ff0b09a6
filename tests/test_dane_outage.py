"""What Postfix is told while the DNS, the policy host or the database fails: never less than before.

The server is the real one, a process; unbound and the HTTPS server are real as well, and Postfix's postmap asks. Each
case ends with everything at work again.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from dane_site import PolicyServer, wait_for
from live_certificates import authority, server, write_chain
from policy_site import Behaviour, PolicySite, reply
from sandbox_place import SYSTEM_PATH
from starttls_site import loopback
from unbound_site import UNBOUND, Unbound

pytestmark = pytest.mark.skipif(
    UNBOUND is None or shutil.which("postmap", path=SYSTEM_PATH) is None, reason="needs unbound and postfix"
)

NETWORK = 83
POLICY = b"version: STSv1\nmode: enforce\nmx: mx.sts.test\nmax_age: 604800\n"
TLSA = f"TLSA 3 1 1 {'ab' * 32}"
ZONES = {
    "signed.test.": f"@ IN MX 10 mx\nmx IN A 192.0.2.1\n_25._tcp.mx IN {TLSA}\n",
    "sts.test.": f"@ IN MX 10 mx\nmx IN A 192.0.2.1\nmta-sts IN A {loopback(NETWORK, 1)}\n",
    "_mta-sts.sts.test.": '@ IN TXT "v=STSv1; id=1;"\n',
    "plain.test.": "@ IN MX 10 mx\nmx IN A 192.0.2.1\n",
}
DANE, STS = "dane-only", "secure match=mx.sts.test servername=hostname"
BY_DANE, BY_STS, BY_NOTHING = "signed.test", "sts.test", "plain.test"


@dataclass
class Site:
    unbound: Unbound
    https: PolicySite
    server: PolicyServer

    def told(self) -> tuple[str, str]:
        """Of the destination with DANE, and of that with MTA-STS."""
        return self.server.ask(BY_DANE), self.server.ask(BY_STS)

    def saved(self) -> None:
        """Wait until the policy is in the database, and the log after it."""
        wait_for(lambda: b"mx.sts.test" in _octets(self.server.cache_file), self.server.log)


def _octets(path: Path) -> bytes:
    beside = path.with_name(f"{path.name}-wal")
    return b"".join(each.read_bytes() for each in (path, beside) if each.exists())


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    root = authority("Root")
    (tmp_path / "ca.pem").write_bytes(root.pem)
    chain = write_chain(tmp_path / "https.pem", server("mta-sts.sts.test", issuer=root))
    with ExitStack() as stack:
        https = stack.enter_context(PolicySite(str(chain), reply(POLICY), address=loopback(NETWORK, 1)))
        unbound = stack.enter_context(Unbound(ZONES, signed={"signed.test."}))
        settings = f'dnssec_probe = "signed.test"\nca_file = "{tmp_path}/ca.pem"\nhttps_port = {https.port}\n'
        asked = stack.enter_context(
            PolicyServer(dns_port=unbound.port, tlspolicy=f'{settings}allowed_networks = ["127.0.0.0/8"]')
        )
        made = Site(unbound, https, asked)
        assert made.told() == (DANE, STS)
        assert asked.ask(BY_NOTHING) == "not found"
        yield made


@pytest.mark.attack("T02")
@pytest.mark.parametrize("is_silent", [False, True], ids=["refused", "silent"])
def test_the_dns_is_gone(site: Site, is_silent: bool) -> None:
    site.saved()
    (site.unbound.pause if is_silent else site.unbound.kill)()
    try:
        # What is at hand counts for a while, and then nothing may be sent.
        assert site.told() == (DANE, STS)
        site.server.restart()
        assert site.told() == ("error", "error")
    finally:
        (site.unbound.resume if is_silent else site.unbound.start)()
    wait_for(lambda: site.told() == (DANE, STS), site.server.log)


@pytest.mark.attack("T02")
def test_a_zone_is_answered_servfail(site: Site) -> None:
    site.unbound.fail("signed.test.")
    site.server.restart()
    assert site.told() == ("error", STS)
    site.unbound.heal("signed.test.")
    wait_for(lambda: site.told() == (DANE, STS), site.server.log)


@pytest.mark.attack("T06")
def test_the_record_of_the_policy_cannot_be_looked_up(site: Site) -> None:
    site.saved()
    site.unbound.fail("_mta-sts.sts.test.")
    site.server.restart()
    assert site.told() == (DANE, STS)


def _broken(status: str) -> Behaviour:
    return reply(b"gone", status=status)


@pytest.mark.attack("T07")
@pytest.mark.parametrize("what", ["404", "nobody", "rubbish", "none"])
def test_the_policy_host_fails(site: Site, what: str) -> None:
    site.saved()
    if what == "nobody":
        site.https.__exit__(None, None, None)
    site.https.behaviour = {
        "404": _broken("404 Not Found"),
        "nobody": _broken("500 Internal Server Error"),
        "rubbish": reply(b"\x00" * 1000),
        # Another text without another id is not looked at.
        "none": reply(POLICY.replace(b"enforce", b"none")),
    }[what]
    site.server.restart()
    assert site.told() == (DANE, STS)


@pytest.mark.attack("T14")
@pytest.mark.parametrize("what", ["rubbish", "cut off", "a directory", "gone"])
def test_the_database_fails(site: Site, what: str) -> None:
    site.saved()
    path = site.server.cache_file
    octets = path.read_bytes()
    for each in path.parent.glob(f"{path.name}*"):
        each.unlink()
    if what == "rubbish":
        path.write_bytes(os.urandom(8192))
    elif what == "cut off":
        path.write_bytes(octets[: len(octets) // 2])
    elif what == "a directory":
        path.mkdir()
    assert site.told() == (DANE, STS)
    # A start without what was kept: the policy is fetched before anything is said.
    site.server.restart()
    assert site.told() == (DANE, STS)
    assert site.server.ask(BY_NOTHING) == "not found"
