"""The clock for what may be kept for a time, which goes on while the host is suspended. No state."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from functools import partial

__all__ = ["clock_that_never_sleeps"]


def clock_that_never_sleeps() -> Callable[[], float]:
    """A clock, in seconds, that never goes back, and goes on while the host is suspended.

    Linux's `time.monotonic` stands still then; but what a DNS answer may be kept for goes by (RFC 1035 §3.2.1).
    """
    if sys.platform == "linux":
        return partial(time.clock_gettime, time.CLOCK_BOOTTIME)
    return time.monotonic
