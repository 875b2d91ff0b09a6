"""Destinations of every kind for the tests of the TLS policy server, and the hosts of their MTA-STS policies.

`all.test` and `both.test` have DANE, `some.test` for one host, `unusable.test` records of no use, `broken.test`
records that cannot be looked up; `enforce.test`, `wild.test`, `testing.test` and `none.test` have a policy so named.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from dane_asking import EE, Records, zone
from mailguard.dns.question import Status
from mailguard.domain import Domain
from mailguard.mtasts.policy import StsPolicy
from mailguard.mtasts.result import FetchOutcome
from mailguard.tlspolicy.override import Overrides
from mailguard.tlspolicy.server import ServerLimits
from mtasts_asking import failure, policy, success
from tlspolicy_site import TlsPolicySite

__all__ = ["BROKEN", "ENFORCED", "ZONE", "PolicyHosts", "destination", "hosts", "site"]

UNUSABLE = (0, 0, 1, "ab" * 32)


def destination(name: str, *hosts: object, sts: str = "") -> dict[str, dict[str, list[object]]]:
    """A domain with a host for each list of TLSA records, and the id of its MTA-STS record."""
    records: dict[str, dict[str, list[object]]] = {
        name: {"MX": [(10 * at, f"mx{at}.{name}") for at in range(1, len(hosts) + 1)]}
    }
    for at, tlsa in enumerate(hosts, 1):
        records[f"mx{at}.{name}"] = {"A": ["192.0.2.1"]}
        if isinstance(tlsa, list) and tlsa:
            records[f"_25._tcp.mx{at}.{name}"] = {"TLSA": tlsa}
    if sts:
        records[f"_mta-sts.{name}"] = {"TXT": [f"v=STSv1; id={sts};"]}
    return records


ZONE: Records = {
    **destination("all.test", [EE], [EE]),
    **destination("some.test", [EE], []),
    **destination("unusable.test", [UNUSABLE]),
    **destination("broken.test", [EE], sts="1"),
    **destination("enforce.test", [], sts="1"),
    **destination("wild.test", [], sts="1"),
    **destination("testing.test", [], sts="1"),
    **destination("none.test", [], sts="1"),
    **destination("plain.test", []),
    **destination("both.test", [EE], sts="1"),
    **destination("badpolicy.test", [], sts="1"),
}
BROKEN = {("_25._tcp.mx1.broken.test", "TLSA"): Status.TEMPFAIL}
POLICIES = {
    "broken.test": policy(mx="mx1.broken.test"),
    "enforce.test": policy(mx="mx1.enforce.test"),
    "wild.test": policy(mx="*.wild.test"),
    "testing.test": policy(mode="testing", mx="mx1.testing.test"),
    "none.test": policy(mode="none", mx="mx1.none.test"),
    "both.test": policy(mx="mx1.both.test"),
}
ENFORCED = "OK secure match=mx1.enforce.test servername=hostname"


class PolicyHosts:
    """What is fetched, and how often; a test may make it fail or wait."""

    def __init__(self, policies: dict[str, StsPolicy] | None = None) -> None:
        self.policies = dict(POLICIES if policies is None else policies)
        self.is_down = False
        self.fetched: list[Domain] = []
        self.gate = threading.Event()
        self.gate.set()
        self.at_once = self.most_at_once = 0
        self._lock = threading.Lock()

    def fetch(self, domain: Domain) -> FetchOutcome:
        with self._lock:
            self.fetched.append(domain)
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        self.gate.wait(20)
        with self._lock:
            self.at_once -= 1
        wanted = self.policies.get(domain)
        return failure() if self.is_down or wanted is None else success(wanted)


@pytest.fixture
def hosts() -> PolicyHosts:
    return PolicyHosts()


@pytest.fixture
def site(hosts: PolicyHosts) -> Iterator[TlsPolicySite]:
    overrides = Overrides(
        {".over.test": "encrypt", "plain.over.test": "default", "[192.0.2.9]": "verify match=x.test"}
    )
    limits = ServerLimits(connections=50)
    resolver = zone(ZONE, status=BROKEN)
    with TlsPolicySite(resolver, fetch=hosts.fetch, overrides=overrides, limits=limits) as opened:
        yield opened
