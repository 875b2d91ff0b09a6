"""The plan of a run that measures what the goals need, and little else: in about half an hour on two cores. Pure.

Every section runs, with the rows that a goal names, with both engines where mailguard is named, and with both ways of
rspamd. Beside them are the milters that do nothing, and Postfix without a milter: nobody can be below these.
"""

from __future__ import annotations

from collections.abc import Iterable

import cold_section
from compared_daemon import Task
from goals import Goal
from scenarios import (
    FLOOR,
    KB,
    MAILGUARD,
    MB,
    NATIVE,
    ONE_WORKER,
    RSPAMD,
    RSPAMD_WITHOUT_LANGUAGES,
    USUAL_CONCURRENCY,
    Plan,
    Scenario,
)

__all__ = ["goals_plan"]

ROUNDS = 5
SECONDS = 1.0
_SIZES = {
    Task.SIGN_RSA: (2 * KB, 10 * KB, 100 * KB, 1 * MB, 10 * MB),
    Task.JUDGE: (2 * KB, 10 * KB, 100 * KB, 1 * MB),
}


def goals_plan(goals: Iterable[Goal]) -> Plan:
    """For these goals, and for all limits."""
    named: dict[tuple[str, str], set[str]] = {}
    for goal in goals:
        named.setdefault((goal.section, goal.row), set()).update((goal.own, goal.other))
    for (section, _), contenders in named.items():
        if MAILGUARD in contenders:
            contenders.add(NATIVE)
        if section == "load":
            contenders.update(FLOOR)
        if RSPAMD in contenders:
            contenders.add(RSPAMD_WITHOUT_LANGUAGES)
    # Limits are for cold caches, and for both concurrencies, which are measured in one go.
    cold = named.setdefault(("cold", cold_section.row_name(1)), set())
    cold.update(ONE_WORKER)
    full = Plan.full()
    return Plan(
        rounds=ROUNDS,
        seconds=SECONDS,
        scenarios=tuple(Scenario(task, size, USUAL_CONCURRENCY) for task, sizes in _SIZES.items() for size in sizes),
        cold_messages=full.cold_messages,
        memory_messages=full.memory_messages,
        postfix_messages=full.postfix_messages,
        postfix_sessions=(10,),
        only={row: frozenset(contenders) for row, contenders in named.items()},
    )
