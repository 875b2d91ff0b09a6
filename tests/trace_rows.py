"""Rows and databases of traces, for their tests."""

from __future__ import annotations

import os
from dataclasses import replace

from mailguard.errors import TraceStoreError
from mailguard.trace import Trace
from mailguard.trace_reader import TraceReader
from mailguard.trace_store import Row, TraceStore
from zone0 import NOW

__all__ = ["MEGABYTE", "numbers", "opened", "queue_ids", "row"]

MEGABYTE = 1 << 20


def opened(path: str, *, max_days: int = 7, max_bytes: int = 64 * MEGABYTE) -> TraceStore:
    return TraceStore(path, max_days=max_days, max_bytes=max_bytes)


def row(trace: Trace, number: int = 0, *, at: float = NOW, size: int = 0) -> Row:
    """A row with a queue id and a time of its own; `size` octets of content where the content is of no concern."""
    made = Row.of(replace(trace, queue_id=f"{number:08X}", now=at))
    return made._replace(content=os.urandom(size)) if size else made


def queue_ids(path: str) -> list[str]:
    """In the order of recording; none where there is no database that can be read."""
    try:
        with TraceReader(path) as reader:
            return [each.queue_id for each in reader.since(0)]
    except TraceStoreError:
        return []


def numbers(path: str) -> list[int]:
    """The numbers that `row` was given."""
    return [int(each, 16) for each in queue_ids(path)]
