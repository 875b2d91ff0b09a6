"""The results in one small table: a line for each thing that was measured, a column for each contender. Pure.

It has what most readers come for: CPU at the usual concurrency, the latency of mail that waits for the DNS, messages
through Postfix, memory. The classic milters are opendkim, and the chain of three where mail is judged. A cell is a
median; the range is in the tables below it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import cold_section
import waiting_section
from bench_record import Record
from compared_daemon import Task
from goals import Figure, cpu, p50, p99, rate
from scenarios import (
    CHAIN,
    MAILGUARD,
    MB,
    NATIVE,
    NOOP_LIBMILTER,
    NOOP_NATIVE,
    NOOP_PYMILTER,
    OPENDKIM,
    RSPAMD,
    SIZES,
    Scenario,
)
from scenarios import USUAL_CONCURRENCY as CONCURRENCY
from spread import digits
from through_postfix import row_name

__all__ = ["overview"]

_COLUMNS: Mapping[str, Sequence[str]] = {
    NOOP_PYMILTER: (NOOP_PYMILTER,),
    NOOP_LIBMILTER: (NOOP_LIBMILTER,),
    NOOP_NATIVE: (NOOP_NATIVE,),
    "opendkim, or the chain": (OPENDKIM, CHAIN),
    RSPAMD: (RSPAMD,),
    MAILGUARD: (MAILGUARD,),
    NATIVE: (NATIVE,),
}
POSTFIX_SESSIONS = 10


def overview(records: Iterable[Record]) -> tuple[Sequence[str], list[Sequence[str]]]:
    """The heads and the rows; empty cells for what was not measured, no row for what nobody was."""
    found: dict[tuple[str, str], dict[str, Record]] = {}
    for record in records:
        found.setdefault((record.section, record.row), {})[record.contender] = record
    rows: list[Sequence[str]] = []
    for what, section, row, read in _rows():
        cells = [_cell(found.get((section, row), {}), names, read) for names in _COLUMNS.values()]
        if any(cells):
            rows.append((what, *cells))
    return ("", *_COLUMNS), rows


def _rows() -> Iterable[tuple[str, str, str, Callable[[Record], float]]]:
    for task in Task:
        for size in SIZES:
            scenario = Scenario(task, size, CONCURRENCY)
            name = scenario.name.rpartition(",")[0]
            yield f"{name}: CPU ms a message", "load", scenario.name, _median(cpu, 1e3)
    yield "inbound, cold, DNS 20 ms: p50 ms", "cold", cold_section.row_name(1), _median(p50, 1e3)
    for row in (waiting_section.AT_ONCE, waiting_section.ALONE, waiting_section.BESIDE_WAITING):
        yield f"{row}: p99 ms", waiting_section.SECTION, row, _median(p99, 1e3)
    for task in (Task.SIGN_RSA, Task.JUDGE):
        row = row_name(task, POSTFIX_SESSIONS)
        yield f"Postfix, {row}: messages/s", "postfix", row, _median(rate)
    for task in (Task.SIGN_RSA, Task.JUDGE):
        row = f"one worker, {task.value}"
        yield f"{row}: RSS MB after all messages", "memory", row, _memory


def _median(figure: Figure, factor: float = 1.0) -> Callable[[Record], float]:
    return lambda record: record.spread(figure).median * factor


def _memory(record: Record) -> float:
    """The last but one: the last is after the large messages."""
    return [values[0] for name, values in record.figures.items() if name.startswith("RSS ")][-2] / MB


def _cell(records: Mapping[str, Record], names: Sequence[str], read: Callable[[Record], float]) -> str:
    for name in names:
        if (record := records.get(name)) and (record.void or record.runs or record.figures):
            return "void" if record.void else digits(read(record))
    return ""
