"""Backoff: at once after the first failure, then with growing delays (V05)."""

from __future__ import annotations

import pytest

from mailguard_milter.backoff import LONGEST_DELAY_S, Backoff


@pytest.mark.attack("V05")
def test_delays_grow_to_a_bound() -> None:
    backoff = Backoff()
    delays = [backoff.failed() for _ in range(40)]
    assert delays[:5] == [0.0, 0.5, 1.0, 2.0, 4.0]
    assert delays[20:] == [LONGEST_DELAY_S] * 20
    assert backoff.failures == 40


def test_a_healthy_life_begins_anew() -> None:
    backoff = Backoff()
    assert [backoff.failed(was_healthy=healthy) for healthy in (False, False, True, False)] == [0.0, 0.5, 0.0, 0.5]
