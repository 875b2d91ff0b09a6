"""Rows and stores of MTA-STS policies, for the tests of the file that keeps them."""

from __future__ import annotations

from mailguard.domain import Domain
from mailguard.mtasts.store import PolicyRow, PolicyStore
from mtasts_asking import DAY_S, DOMAIN, NOW, WEEK_S, Asking, policy

__all__ = ["after_restart", "domains", "filled", "row"]


def row(domain: str = DOMAIN, *, fetched_at: float = NOW, text: bytes | None = None) -> PolicyRow:
    octets = policy().text.encode() if text is None else text
    return PolicyRow(domain, "one", octets, fetched_at, fetched_at + WEEK_S, fetched_at + DAY_S, fetched_at)


def after_restart(path: str, *, now: float = NOW) -> Asking:
    asking = Asking(PolicyStore(path), now=now)
    asking.cache.load(now=now)
    return asking


def domains(number: int) -> list[Domain]:
    return [Domain.parse(f"d{index}.test") for index in range(number)]


def filled(path: str, number: int = 200) -> Asking:
    """A cache with policies, all of them written, its file closed."""
    store = PolicyStore(path)
    asking = Asking(store)
    asking.cache.load(now=NOW)
    for domain in domains(number):
        asking.learn(domain=domain)
    assert asking.cache.save(now=NOW)
    store.close()
    return asking
