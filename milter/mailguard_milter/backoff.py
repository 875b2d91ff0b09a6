"""Backoff: how long to wait before something that died is started again."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["HEALTHY_AFTER_S", "Backoff"]

FIRST_DELAY_S = 0.5
LONGEST_DELAY_S = 60.0
# What lived this long did not die of its configuration.
HEALTHY_AFTER_S = 10.0
# 2 to this power is far beyond the longest delay already.
MAX_DOUBLINGS = 16


@dataclass(slots=True)
class Backoff:
    """Failures in a row. The first is followed by a start at once, the next ones by growing delays."""

    failures: int = 0

    def failed(self, *, was_healthy: bool = False) -> float:
        """Count a failure; the seconds to wait. After a healthy life it is the first one again."""
        self.failures = 1 if was_healthy else self.failures + 1
        if self.failures == 1:
            return 0.0
        return min(LONGEST_DELAY_S, FIRST_DELAY_S * 2.0 ** min(self.failures - 2, MAX_DOUBLINGS))
