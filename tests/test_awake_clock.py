"""The clock of those who look after others."""

from __future__ import annotations

import pytest

from mailguard_milter.awake_clock import LONGEST_LOOK_S, AwakeClock


def test_a_pause_counts_as_one_look(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    clock = AwakeClock()
    assert clock() == 1000.0
    for step, passed in ((0.25, 0.25), (LONGEST_LOOK_S, LONGEST_LOOK_S), (600.0, LONGEST_LOOK_S), (0.25, 0.25)):
        before = clock()
        now += step
        assert clock() - before == passed
        assert clock() - before == passed
