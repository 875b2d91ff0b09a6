"""Signing and judging with warm caches: every scenario, round by round, each daemon in turn.

The daemons of a task run side by side for all its scenarios; those that are not measured are idle. In each round
every contender is measured once, and each round begins with another one.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

from bench_record import Context, Record
from compared_daemon import ComparedDaemon, Task
from measurement import Subject, measure
from name_server import NameServer
from sample_mail import Sample, incoming, outgoing, zone_text
from scenarios import LARGE, MANY_DOMAINS, Contender, Plan, Scenario, contenders

__all__ = ["load_section", "load_takes", "samples_of", "started"]

SECTION = "load"
# A cache that belongs to one process is warm when each of the processes has seen every sender.
WARMING_TURNS = 8
WARMING_S = 15.0
FEW_MESSAGES = 50
# For the estimate: beside the time under load there are the negotiation, /proc, and the replies that are judged.
AROUND_S, AROUND_LARGE_S = 0.6, 3.0
WARM_IN_S, ALL_SENDERS_WARM_IN_S = 0.5, 3.0


def load_section(context: Context, tasks: Sequence[Task]) -> list[Record]:
    """All scenarios of these tasks."""
    records: list[Record] = []
    for task in tasks:
        scenarios = [scenario for scenario in context.plan.scenarios if scenario.task is task]
        if not scenarios:
            continue
        context.progress.heading(f"{task.value}: starting the daemons")
        with ExitStack() as stack:
            stack.enter_context(NameServer(zone_text(range(MANY_DOMAINS), context.keys)))
            wanted = [each for each in contenders(task) if any(_takes_part(context.plan, s, each) for s in scenarios)]
            running = started(context, stack, task, wanted, records)
            warmed: set[tuple[int, tuple[str, ...]]] = set()
            for scenario in scenarios:
                senders = (scenario.domains, scenario.signatures)
                records += _scenario(context, scenario, running, is_warm=senders in warmed)
                warmed.add(senders)
                context.generator.forget()
    return records


def load_takes(plan: Plan, tasks: Sequence[Task]) -> float:
    """Seconds, about."""
    found = 0.0
    for task in tasks:
        known: set[Contender] = set()
        for scenario in (each for each in plan.scenarios if each.task is task):
            once = plan.seconds_for(scenario) + (AROUND_LARGE_S if scenario.size >= LARGE else AROUND_S)
            warm = ALL_SENDERS_WARM_IN_S if task is Task.JUDGE and not known else WARM_IN_S
            mine = [each for each in contenders(task) if _takes_part(plan, scenario, each)]
            found += len(mine) * (warm + plan.rounds * once)
            known.update(mine)
        found += sum(each.starts_in_s for each in known)
    return found


def _takes_part(plan: Plan, scenario: Scenario, contender: Contender) -> bool:
    return scenario.takes_part(contender) and plan.wants(SECTION, scenario.name, contender.name)


def started(
    context: Context, stack: ExitStack, task: Task, wanted: Sequence[Contender], records: list[Record]
) -> dict[Contender, list[ComparedDaemon]]:
    """Those that run; for the others there is a void record."""
    running = {}
    for contender in wanted:
        record = Record(SECTION, task.value, contender.name)
        daemons = context.attempt(record, _start, context, stack, task, contender)
        if daemons is None:
            records.append(record)
        else:
            running[contender] = daemons
    return running


def _start(context: Context, stack: ExitStack, task: Task, contender: Contender) -> list[ComparedDaemon]:
    daemons = [stack.enter_context(factory(task, context.keys)) for factory in contender.daemons]
    for daemon in daemons:
        text = daemon.configuration.replace(str(daemon.directory), "DIRECTORY")
        if text:
            context.configurations.setdefault(f"{daemon.name}, {task.value}", text)
    return daemons


def samples_of(context: Context, scenario: Scenario) -> list[Sample]:
    """The messages of a scenario."""
    if scenario.task is Task.JUDGE:
        return incoming(
            scenario.size,
            scenario.samples,
            domains=range(scenario.domains),
            keys=context.keys,
            algorithms=scenario.signatures,
        )
    return outgoing(scenario.size, scenario.samples, algorithms=scenario.task.algorithms)


def _warming_messages(scenario: Scenario, *, is_warm: bool) -> int:
    if scenario.task is not Task.JUDGE or is_warm:
        return min(FEW_MESSAGES, scenario.samples * WARMING_TURNS)
    return max(scenario.domains, scenario.samples) * WARMING_TURNS


def _scenario(
    context: Context, scenario: Scenario, running: dict[Contender, list[ComparedDaemon]], *, is_warm: bool
) -> list[Record]:
    context.progress.heading(scenario.name)
    samples = samples_of(context, scenario)
    taking_part = [contender for contender in running if _takes_part(context.plan, scenario, contender)]
    records = {contender: Record(SECTION, scenario.name, contender.name) for contender in taking_part}
    subjects = {
        contender: Subject(running[contender], samples, contender.expected(running[contender]), context.keys)
        for contender in taking_part
    }
    for contender in taking_part:
        context.attempt_twice(
            records[contender],
            measure,
            subjects[contender],
            context.generator,
            contender.name,
            concurrency=scenario.concurrency,
            seconds=WARMING_S,
            count=_warming_messages(scenario, is_warm=is_warm),
        )
    for number in range(context.plan.rounds):
        turn = number % len(taking_part)
        for contender in (*taking_part[turn:], *taking_part[:turn]):
            measured = context.attempt_twice(
                records[contender],
                measure,
                subjects[contender],
                context.generator,
                contender.name,
                concurrency=scenario.concurrency,
                seconds=context.plan.seconds_for(scenario),
            )
            if measured is not None:
                records[contender].runs.append(measured)
    for record in records.values():
        if record.runs:
            cpu = record.spread(lambda run: run.cpu_per_message_s * 1e3)
            rate = record.spread(lambda run: run.messages_per_second)
            context.progress.line(f"{record.contender:36} {cpu.median:9.3f} ms CPU {rate.median:8.0f} messages/s")
    return list(records.values())
