"""The goals that mailguard sets itself, and whether the figures of a run reach them. Pure.

A goal is a quotient of two contenders in one row, round by round; its median is what counts. A limit is for the
figures of one contender.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

import cold_section
import waiting_section
from bench_record import Record
from compared_daemon import Task
from measurement import Measured
from scaling_section import name_of
from scenarios import (
    CHAIN,
    KB,
    MAILGUARD,
    MB,
    NATIVE,
    NOOP_LIBMILTER,
    NOOP_NATIVE,
    NOOP_PYMILTER,
    ONE_WORKER,
    OPENDKIM,
    RSPAMD,
    Scenario,
    size_name,
)
from spread import Spread
from through_postfix import row_name

__all__ = [
    "GOALS",
    "Figure",
    "Goal",
    "Judgement",
    "Limit",
    "cpu",
    "goals_for",
    "judge_goals",
    "judge_limits",
    "p50",
    "p99",
    "rate",
]

Figure = Callable[[Measured], float]
NOT_MEASURED = "not measured"


def cpu(run: Measured) -> float:
    """Seconds of CPU a message."""
    return run.cpu_per_message_s


def rate(run: Measured) -> float:
    """Messages a second."""
    return run.messages_per_second


def p50(run: Measured) -> float:
    """The median latency."""
    return run.p50_s


def p99(run: Measured) -> float:
    """The latency that one message in a hundred exceeds."""
    return run.p99_s


@dataclass(frozen=True, slots=True)
class Goal:
    """The figure of `own` divided by the other's, at most or at least `bound`."""

    what: str
    section: str
    row: str
    figure: Figure
    other: str
    bound: float
    at_least: bool = False
    own: str = MAILGUARD

    def reached(self, value: float) -> bool:
        return value >= self.bound if self.at_least else value <= self.bound


@dataclass(frozen=True, slots=True)
class Judgement:
    """A goal and what was measured; None where one of the two has no figures."""

    goal: Goal
    measured: Spread | None

    @property
    def verdict(self) -> str:
        """For the table."""
        if self.measured is None:
            return NOT_MEASURED
        if self.goal.reached(self.measured.median):
            return "reached"
        share = abs(self.measured.median / self.goal.bound - 1)
        return f"missed by {share:.0%}" if share >= 0.01 else "missed by less than 1%"


_ENGINES = (MAILGUARD, NATIVE)


def _load(
    task: Task,
    size: int,
    figure: Figure,
    other: str,
    bound: float,
    *,
    at_least: bool = False,
    own: str = MAILGUARD,
    what: str = "",
) -> Goal:
    return Goal(
        f"{what or task.value}, {size_name(size)}: {'CPU a message' if figure is cpu else 'messages a second'}",
        "load",
        Scenario(task, size, 8).name,
        figure,
        other,
        bound,
        at_least,
        own,
    )


# The part of another's CPU: of mailguard on libmilter, and on the native engine where that must take less.
_SIGNING = (
    (2 * KB, OPENDKIM, {MAILGUARD: 0.38, NATIVE: 0.30}),
    (10 * KB, OPENDKIM, {MAILGUARD: 0.38, NATIVE: 0.30}),
    (100 * KB, OPENDKIM, dict.fromkeys(_ENGINES, 0.50)),
    (100 * KB, RSPAMD, dict.fromkeys(_ENGINES, 0.85)),
    (1 * MB, OPENDKIM, dict.fromkeys(_ENGINES, 0.70)),
    (1 * MB, RSPAMD, dict.fromkeys(_ENGINES, 0.85)),
    (10 * MB, OPENDKIM, dict.fromkeys(_ENGINES, 0.70)),
    (10 * MB, RSPAMD, dict.fromkeys(_ENGINES, 0.85)),
)
_JUDGING = (
    (2 * KB, CHAIN, dict.fromkeys(_ENGINES, 0.17)),
    (10 * KB, CHAIN, dict.fromkeys(_ENGINES, 0.17)),
    (2 * KB, RSPAMD, {MAILGUARD: 1.5, NATIVE: 1.0}),
    (10 * KB, RSPAMD, {MAILGUARD: 0.65, NATIVE: 0.45}),
    (100 * KB, RSPAMD, dict.fromkeys(_ENGINES, 0.95)),
    (1 * MB, RSPAMD, dict.fromkeys(_ENGINES, 0.90)),
)

# The load generator and the resolver need cores of their own.
CORES_FOR_TWO_WORKERS = 4
SCALING_TASKS = (Task.SIGN_RSA, Task.JUDGE)
MAX_WORKER_RSS = 60 * MB
# Pages come and go; what leaks grows with every message.
NO_GROWTH = MB
MAX_ROUNDS = 1.1
# Of these, 200 ms are the DNS.
MAX_P99_AT_ONCE_S = 0.26
MAX_RISE_OF_P99_S = 0.05


def _of_engine(own: str) -> Iterator[Goal]:
    for task, rows in ((Task.SIGN_RSA, _SIGNING), (Task.JUDGE, _JUDGING)):
        for size, other, bounds in rows:
            yield _load(task, size, cpu, other, bounds[own], own=own)
    yield _load(Task.JUDGE, 2 * KB, rate, CHAIN, 8.0, at_least=True, own=own)
    yield Goal(
        "inbound, cold caches, DNS 20 ms: latency p50", "cold", cold_section.row_name(1), p50, CHAIN, 0.4, own=own
    )
    yield Goal(
        "through Postfix, signing 10 KB, 10 sessions: messages a second",
        "postfix",
        row_name(Task.SIGN_RSA, 10),
        rate,
        OPENDKIM,
        1.4,
        at_least=True,
        own=own,
    )


GOALS: tuple[Goal, ...] = (
    *(goal for own in _ENGINES for goal in _of_engine(own)),
    *(
        _load(Task.SIGN_RSA, 2 * KB, cpu, other, 0.35, own=NOOP_NATIVE, what="no-op")
        for other in (NOOP_PYMILTER, NOOP_LIBMILTER)
    ),
    *(
        Goal(
            f"through Postfix, {task.value}, 10 KB, 10 sessions: messages a second",
            "postfix",
            row_name(task, 10),
            rate,
            MAILGUARD,
            1.1,
            at_least=True,
            own=NATIVE,
        )
        for task in (Task.SIGN_RSA, Task.JUDGE)
    ),
)


def goals_for(cores: int) -> tuple[Goal, ...]:
    """All goals. On few cores a second worker can add nothing: then it must not cost much."""
    return (*GOALS, *(_scaling(task, has_room=cores >= CORES_FOR_TWO_WORKERS) for task in SCALING_TASKS))


def _scaling(task: Task, *, has_room: bool) -> Goal:
    return Goal(
        f"{task.value}, 2 KB: two workers, {'messages a second' if has_room else 'CPU a message'}",
        "scaling",
        Scenario(task, 2 * KB, 8).name,
        rate if has_room else cpu,
        name_of(MAILGUARD, 1),
        1.7 if has_room else 1.15,
        at_least=has_room,
        own=name_of(MAILGUARD, 2),
    )


def judge_goals(records: Iterable[Record], goals: Iterable[Goal]) -> list[Judgement]:
    """Every goal, in order."""
    found: Mapping[tuple[str, str, str], Record] = {
        (record.section, record.row, record.contender): record for record in records
    }
    return [Judgement(goal, _measured(goal, found)) for goal in goals]


@dataclass(frozen=True, slots=True)
class Limit:
    """A goal that is no quotient."""

    own: str
    """Whose."""
    what: str
    bound: str
    measured: str
    verdict: str


def judge_limits(records: Sequence[Record]) -> list[Limit]:
    """Of memory, of how often a message waits for the DNS, and of what waiting costs.

    Not measured where the row is void; none of sections that were left out.
    """
    found: list[Limit] = []
    for record in records:
        if record.section == "cold" and record.contender in ONE_WORKER:
            rounds, warm = (
                median(record.figures[name]) if record.runs else None
                for name in ("rounds a message", "warm queries a message")
            )
            found += [
                _limit(record, "waits for the DNS in a row", MAX_ROUNDS, rounds),
                _limit(record, "look-ups of a message that comes again", 0, warm),
            ]
        elif record.section == "memory":
            rss = [values[0] / MB for name, values in record.figures.items() if name.startswith("RSS ")]
            _, half, whole, large = rss or (None, None, None, None)
            found += [
                _limit(record, "RSS after all messages, MB", MAX_WORKER_RSS / MB, whole),
                _limit(record, "growth in the second half, MB", NO_GROWTH / MB, _difference(whole, half)),
                _limit(record, "what messages of 10 MB add, MB", NO_GROWTH / MB, _difference(large, whole)),
            ]
    return found + _limits_of_waiting(records)


def _difference(after: float | None, before: float | None) -> float | None:
    return None if after is None or before is None else after - before


def _limits_of_waiting(records: Iterable[Record]) -> list[Limit]:
    native = {
        record.row: record
        for record in records
        if record.section == waiting_section.SECTION and record.contender == NATIVE
    }
    found = []
    if at_once := native.get(waiting_section.AT_ONCE):
        p99_ms = at_once.spread(p99).median * 1e3 if at_once.runs else None
        found.append(_limit(at_once, "p99, ms", MAX_P99_AT_ONCE_S * 1e3, p99_ms))
    alone, beside = native.get(waiting_section.ALONE), native.get(waiting_section.BESIDE_WAITING)
    if alone and beside:
        rise_ms = None
        if alone.runs and beside.runs:
            # Neither is repeated, so that a run of the one belongs to a run of the other.
            rises = [after.p99_s - before.p99_s for before, after in zip(alone.runs, beside.runs, strict=True)]
            rise_ms = median(rises) * 1e3
        found.append(_limit(beside, "what p99 rises by, ms", MAX_RISE_OF_P99_S * 1e3, rise_ms))
    return found


def _limit(record: Record, what: str, bound: float, measured: float | None) -> Limit:
    value, verdict = "", NOT_MEASURED
    if measured is not None:
        value, verdict = f"{measured:.2f}", "reached" if measured <= bound else "missed"
    return Limit(record.contender, f"{record.row}: {what}", f"at most {bound:g}", value, verdict)


def _measured(goal: Goal, found: Mapping[tuple[str, str, str], Record]) -> Spread | None:
    own = found.get((goal.section, goal.row, goal.own))
    other = found.get((goal.section, goal.row, goal.other))
    if own is None or other is None or not own.runs or not other.runs:
        return None
    return Spread.of_ratios([goal.figure(run) for run in own.runs], [goal.figure(run) for run in other.runs])
