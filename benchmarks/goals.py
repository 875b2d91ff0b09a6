"""The goals that mailguard sets itself, and whether the figures of a run reach them. Pure.

A goal is a quotient of two contenders in one row, round by round; its median is what counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from statistics import median

from bench_record import Record
from compared_daemon import Task
from measurement import Measured
from scenarios import CHAIN, KB, MAILGUARD, MB, ONE_WORKER, OPENDKIM, RSPAMD, Scenario, size_name
from spread import Spread

__all__ = ["GOALS", "Goal", "Judgement", "Limit", "goals_for", "judge_goals", "judge_limits"]

Figure = Callable[[Measured], float]


def cpu(run: Measured) -> float:
    """Seconds of CPU a message."""
    return run.cpu_per_message_s


def rate(run: Measured) -> float:
    """Messages a second."""
    return run.messages_per_second


def p50(run: Measured) -> float:
    """The median latency."""
    return run.p50_s


@dataclass(frozen=True, slots=True)
class Goal:
    """mailguard's figure divided by the other's, at most or at least `bound`."""

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
            return "not measured"
        if self.goal.reached(self.measured.median):
            return "reached"
        return f"missed by {abs(self.measured.median / self.goal.bound - 1):.0%}"


def _load(task: Task, size: int, figure: Figure, other: str, bound: float, *, at_least: bool = False) -> Goal:
    return Goal(
        f"{task.value}, {size_name(size)}: {'CPU a message' if figure is cpu else 'messages a second'}",
        "load",
        Scenario(task, size, 8).name,
        figure,
        other,
        bound,
        at_least,
    )


_SIGNING = (
    (2 * KB, OPENDKIM, 0.38),
    (10 * KB, OPENDKIM, 0.38),
    (100 * KB, OPENDKIM, 0.50),
    (100 * KB, RSPAMD, 0.85),
    (1 * MB, OPENDKIM, 0.70),
    (1 * MB, RSPAMD, 0.85),
    (10 * MB, OPENDKIM, 0.70),
    (10 * MB, RSPAMD, 0.85),
)
_JUDGING = (
    (2 * KB, CHAIN, 0.17),
    (10 * KB, CHAIN, 0.17),
    (2 * KB, RSPAMD, 1.5),
    (10 * KB, RSPAMD, 0.65),
    (100 * KB, RSPAMD, 0.95),
    (1 * MB, RSPAMD, 0.90),
)

# The load generator and the resolver need cores of their own.
CORES_FOR_TWO_WORKERS = 4
SCALING_TASKS = (Task.SIGN_RSA, Task.JUDGE)
MAX_WORKER_RSS = 60 * MB
# Pages come and go; what leaks grows with every message.
NO_GROWTH = MB
MAX_ROUNDS = 1.1

GOALS: tuple[Goal, ...] = (
    *(_load(Task.SIGN_RSA, size, cpu, other, bound) for size, other, bound in _SIGNING),
    *(_load(Task.JUDGE, size, cpu, other, bound) for size, other, bound in _JUDGING),
    _load(Task.JUDGE, 2 * KB, rate, CHAIN, 8.0, at_least=True),
    Goal(
        "inbound, cold caches, DNS 20 ms: latency p50",
        "cold",
        "inbound, cold, DNS 20 ms, 2 KB, concurrency 1",
        p50,
        CHAIN,
        0.4,
    ),
    Goal(
        "through Postfix, signing 10 KB, 10 sessions: messages a second",
        "postfix",
        f"{Task.SIGN_RSA.value}, 10 KB, 10 sessions",
        rate,
        OPENDKIM,
        1.4,
        at_least=True,
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
        "mailguard, 1 worker",
        1.7 if has_room else 1.15,
        at_least=has_room,
        own="mailguard, 2 workers",
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

    what: str
    bound: str
    measured: str
    verdict: str


def judge_limits(records: Iterable[Record]) -> list[Limit]:
    """Of the memory of a worker, and of how often a message waits for the DNS; for those that were measured."""
    found: list[Limit] = []
    for record in records:
        if record.section == "memory" and record.figures:
            _, half, whole, large = (values[0] for name, values in record.figures.items() if name.startswith("RSS "))
            found += [
                _limit(f"{record.row}: RSS after all messages, MB", MAX_WORKER_RSS / MB, whole / MB),
                _limit(f"{record.row}: growth in the second half, MB", NO_GROWTH / MB, (whole - half) / MB),
                _limit(f"{record.row}: what messages of 10 MB add, MB", NO_GROWTH / MB, (large - whole) / MB),
            ]
        elif record.section == "cold" and record.contender == ONE_WORKER and record.runs:
            rounds, warm = (median(record.figures[name]) for name in ("rounds a message", "warm queries a message"))
            found += [
                _limit(f"{record.row}: waits for the DNS in a row, one worker", MAX_ROUNDS, rounds),
                _limit(f"{record.row}: look-ups of a message that comes again, one worker", 0, warm),
            ]
    return found


def _limit(what: str, bound: float, measured: float) -> Limit:
    return Limit(what, f"at most {bound:g}", f"{measured:.2f}", "reached" if measured <= bound else "missed")


def _measured(goal: Goal, found: Mapping[tuple[str, str, str], Record]) -> Spread | None:
    own = found.get((goal.section, goal.row, goal.own))
    other = found.get((goal.section, goal.row, goal.other))
    if own is None or other is None or not own.runs or not other.runs:
        return None
    return Spread.of_ratios([goal.figure(run) for run in own.runs], [goal.figure(run) for run in other.runs])
