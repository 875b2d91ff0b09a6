"""at_once: threads for what waits for the network. Nobody waits for them when the command is broken off."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

__all__ = ["at_once"]


@contextmanager
def at_once(count: int) -> Iterator[ThreadPoolExecutor]:
    """So many threads. What the body has submitted is done at its end, unless that is an exception."""
    threads = ThreadPoolExecutor(count)
    try:
        yield threads
    except BaseException:
        threads.shutdown(wait=False, cancel_futures=True)
        raise
    threads.shutdown()
