"""What the tests of the policy cache ask with: discoveries and outcomes as values, and a clock that they move."""

from __future__ import annotations

from collections.abc import Callable

from mailguard.domain import Domain
from mailguard.mtasts.cache import CacheLimits, PolicyCache
from mailguard.mtasts.cache_entry import Fetch, HeldPolicy
from mailguard.mtasts.policy import StsPolicy
from mailguard.mtasts.record import Discovery, DiscoveryStatus, StsRecord
from mailguard.mtasts.result import FetchOutcome, FetchReason
from mailguard.mtasts.store import PolicyStore

__all__ = ["DAY_S", "DOMAIN", "NOW", "WEEK_S", "Asking", "failure", "found", "nothing", "policy", "success"]

NOW = 1_800_000_000.0
DAY_S = 86_400.0
DOMAIN = Domain.parse("good.test")
WEEK_S = 604_800


def policy(*, mode: str = "enforce", mx: str = "mail.good.test", max_age_s: int = WEEK_S) -> StsPolicy:
    read = StsPolicy.parse(f"version: STSv1\nmode: {mode}\nmx: {mx}\nmax_age: {max_age_s}\n".encode())
    assert isinstance(read, StsPolicy)
    return read


def success(wanted: StsPolicy | None = None) -> FetchOutcome:
    return FetchOutcome(reason=FetchReason.FETCHED, policy=wanted or policy())


def failure(reason: FetchReason = FetchReason.UNREACHABLE) -> FetchOutcome:
    return FetchOutcome(reason=reason, detail="192.0.2.1: made up")


def found(record_id: str = "one", *, ttl_s: int = 60) -> Discovery:
    return Discovery(status=DiscoveryStatus.FOUND, record=StsRecord(record_id), ttl_s=ttl_s)


def nothing(status: DiscoveryStatus = DiscoveryStatus.ABSENT) -> Discovery:
    return Discovery(status=status, ttl_s=0 if status is DiscoveryStatus.UNAVAILABLE else 60)


class Asking:
    """A cache with a clock."""

    def __init__(
        self,
        store: PolicyStore | None = None,
        *,
        now: float = NOW,
        limits: CacheLimits | None = None,
        draw: Callable[[], float] | None = None,
    ) -> None:
        self.now = now
        self.cache = PolicyCache(store, draw=draw or (lambda: 0.5), limits=limits)

    def held(self, domain: Domain = DOMAIN) -> HeldPolicy | None:
        """What counts now."""
        return self.cache.policy_for(domain, now=self.now).held

    def noticed(self, discovery: Discovery, domain: Domain = DOMAIN) -> Fetch | None:
        return self.cache.noticed(domain, discovery, now=self.now)

    def fetched(self, fetch: Fetch | None, outcome: FetchOutcome) -> None:
        assert fetch is not None, "nothing was to be fetched"
        self.cache.fetched(fetch, outcome, now=self.now)

    def learn(
        self, wanted: StsPolicy | None = None, *, record_id: str = "one", domain: Domain = DOMAIN
    ) -> HeldPolicy:
        """Look up and fetch, as a server does; what counts then."""
        self.fetched(self.noticed(found(record_id), domain), success(wanted))
        held = self.held(domain)
        assert held is not None
        return held
