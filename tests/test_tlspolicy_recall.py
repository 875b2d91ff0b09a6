"""The socketmap server while strangers' policies fill its memory: a policy that was pushed out still protects."""

from __future__ import annotations

from pathlib import Path

import pytest

from dane_asking import zone
from dns_asking import wait_for
from mailguard.domain import Domain
from mailguard.mtasts.cache import CacheLimits
from mailguard.mtasts.store import PolicyRow, PolicyStore, StoreUnusable
from mtasts_asking import DAY_S, policy
from tlspolicy_site import TlsPolicySite
from tlspolicy_zone import ENFORCED, POLICIES, ZONE, PolicyHosts, destination

ENFORCE = Domain.parse("enforce.test")
LIMITS = CacheLimits(entries=10)
STRANGERS = [f"s{number}.evil.test" for number in range(40)]
ZONE_WITH_STRANGERS = dict(ZONE)
for _name in STRANGERS:
    ZONE_WITH_STRANGERS |= destination(_name, [], sts="1")


@pytest.fixture
def hosts() -> PolicyHosts:
    return PolicyHosts({**POLICIES, **{name: policy(mx=f"mx1.{name}") for name in STRANGERS}})


def flooded(site: TlsPolicySite) -> None:
    """What the strangers have is asked for, and as strict as what was there."""
    assert site.ask("enforce.test") == ENFORCED
    for name in STRANGERS:
        assert site.ask(name).startswith("OK secure match=mx1.s")
    assert ENFORCE not in site.policies._with_policy
    wait_for(lambda: not site.policies._waiting and not site.policies._unsaved)
    site.now += 300


def test_it_protects_while_its_policy_host_is_down(tmp_path: Path, hosts: PolicyHosts) -> None:
    path = str(tmp_path / "sts.sqlite")
    zoned = zone(ZONE_WITH_STRANGERS)
    with TlsPolicySite(zoned, fetch=hosts.fetch, store=PolicyStore(path), sts_limits=LIMITS) as site:
        flooded(site)
        hosts.is_down = True
        assert site.ask("enforce.test") == ENFORCED
    with TlsPolicySite(zoned, fetch=hosts.fetch, store=PolicyStore(path), sts_limits=LIMITS) as site:
        site.now += DAY_S
        for name in ["enforce.test", *STRANGERS, "enforce.test"]:
            assert site.ask(name).startswith("OK secure match=mx1."), name
            site.now += 1


class Broken(PolicyStore):
    """A store of which no row can be read."""

    def recall(self, domain: str) -> PolicyRow | None:
        raise StoreUnusable("made up")


def test_a_store_that_cannot_be_read_holds_up_nobody(tmp_path: Path, hosts: PolicyHosts) -> None:
    store = Broken(str(tmp_path / "sts.sqlite"))
    with TlsPolicySite(zone(ZONE_WITH_STRANGERS), fetch=hosts.fetch, store=store, sts_limits=LIMITS) as site:
        assert site.ask("plain.test") == "NOTFOUND"
        flooded(site)
        # It is fetched again.
        assert site.ask("enforce.test") == ENFORCED
        assert hosts.fetched.count(ENFORCE) == 2
