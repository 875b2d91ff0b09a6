"""Statistics of a few repetitions and of many latencies: medians, percentiles and how far the values lie apart.

Pure; nothing is assumed of the distribution.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

__all__ = ["Spread", "digits", "percentile"]


@dataclass(frozen=True, slots=True)
class Spread:
    """Of repetitions."""

    median: float
    low: float
    high: float
    count: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Self:
        """Raises ValueError for no values."""
        if not values:
            raise ValueError("no values")
        return cls(statistics.median(values), min(values), max(values), len(values))

    @classmethod
    def of_ratios(cls, numerators: Sequence[float], denominators: Sequence[float]) -> Self:
        """Of the quotients, round by round: what slows a whole round down cancels out."""
        return cls.of([above / below for above, below in zip(numerators, denominators, strict=True)])


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that so many percent of the values do not exceed (nearest rank).

    Raises ValueError for no values.
    """
    if not values:
        raise ValueError("no values")
    ordered = sorted(values)
    # Rounded up, without floating point's dust.
    rank = -(-round(percent * len(ordered) * 1000) // 100_000)
    return ordered[min(max(rank, 1), len(ordered)) - 1]


def digits(value: float) -> str:
    """Three significant digits, without an exponent."""
    if value >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}" if value >= 1 else f"{value:.3f}"
