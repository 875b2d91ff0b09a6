"""Judging with cold caches and a DNS that takes 20 ms for every answer: latency, and how often mail waits for it.

Each message comes from a domain that nobody has seen. The daemons are started anew for each round; a few messages of
other domains wake them up first. `rounds` is how many times in a row a message waited for the DNS: queries that come
within half the delay of each other count as one. Then the same messages come a second time: what is still asked for
is `warm queries`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from itertools import pairwise

from bench_record import Context, Record
from compared_daemon import ComparedDaemon, Task
from load_section import started
from measurement import Subject, measure
from name_server import NameServer, Query
from sample_mail import incoming, zone_text
from scenarios import FLOOR, WITH_ONE_WORKER, Contender, Plan, contenders

__all__ = ["cold_section", "cold_takes", "row_name", "waits"]

SECTION = "cold"
SIZE = 2048
DELAY_S = 0.02
CONCURRENCIES = (1, 8)
WAKING_MESSAGES = 10
# For the estimate: of one message at both concurrencies and both times, for each daemon that it passes.
MESSAGE_S = 0.06


def row_name(concurrency: int) -> str:
    """In the results."""
    return f"inbound, cold, DNS {DELAY_S * 1000:.0f} ms, 2 KB, concurrency {concurrency}"


def cold_section(context: Context) -> list[Record]:
    """All rounds, at each concurrency."""
    taking_part = _taking_part(context.plan)
    records = {
        (contender, concurrency): Record(SECTION, row_name(concurrency), contender.name)
        for contender in taking_part
        for concurrency in CONCURRENCIES
    }
    count = context.plan.cold_messages
    total = WAKING_MESSAGES + count * len(CONCURRENCIES)
    with NameServer(zone_text(range(total), context.keys), delay_s=DELAY_S) as server:
        for number in range(context.plan.rounds):
            context.progress.heading(f"cold caches, DNS {DELAY_S * 1000:.0f} ms: round {number + 1}")
            turn = number % len(taking_part)
            for contender in (*taking_part[turn:], *taking_part[:turn]):
                mine = [records[contender, concurrency] for concurrency in CONCURRENCIES]
                if all(record.void for record in mine):
                    continue
                failed: list[Record] = []
                with ExitStack() as stack:
                    running = started(context, stack, Task.JUDGE, [contender], failed)
                    if contender in running:
                        subject = _subjects(context, contender, running[contender])
                        _round(context, server, contender, subject, records)
                for record in mine:
                    if failed:
                        record.make_void(failed[0].void)
                context.generator.forget()
    return list(records.values())


def cold_takes(plan: Plan) -> float:
    """Seconds, about."""
    found = 0.0
    for contender in _taking_part(plan):
        found += contender.starts_in_s + plan.cold_messages * MESSAGE_S * len(contender.daemons)
    return found * plan.rounds


def _taking_part(plan: Plan) -> list[Contender]:
    """Everybody who does the whole work; no row is without any of them."""
    return [
        each
        for each in (*contenders(Task.JUDGE), *WITH_ONE_WORKER)
        if each.whole and each.name not in FLOOR and plan.wants(SECTION, row_name(1), each.name)
    ]


def _subjects(
    context: Context, contender: Contender, daemons: Sequence[ComparedDaemon]
) -> Callable[[int, int], Subject]:
    def subject(first: int, number: int) -> Subject:
        samples = incoming(SIZE, number, domains=range(first, first + number), keys=context.keys, algorithms=("rsa",))
        return Subject(daemons, samples, contender.expected(daemons), context.keys)

    return subject


def _round(
    context: Context,
    server: NameServer,
    contender: Contender,
    subject: Callable[[int, int], Subject],
    records: dict[tuple[Contender, int], Record],
) -> None:
    count = context.plan.cold_messages
    waking = subject(0, WAKING_MESSAGES)
    for at, concurrency in enumerate(CONCURRENCIES):
        record = records[contender, concurrency]
        context.attempt_twice(
            record,
            measure,
            waking,
            context.generator,
            f"waking {at}",
            concurrency=WAKING_MESSAGES,
            count=WAKING_MESSAGES,
        )
        mine = subject(WAKING_MESSAGES + at * count, count)
        load = partial(measure, mine, context.generator, concurrency, concurrency=concurrency, count=count)
        known = len(server.queries())
        # Not repeated if it is void: it would not be cold any more.
        measured = context.attempt(record, load)
        if measured is None:
            continue
        cold = server.queries()
        record.runs.append(measured)
        record.figures.setdefault("queries a message", []).append((len(cold) - known) / count)
        rounds = waits(cold[known:], [sample.domain for sample in mine.samples])
        record.figures.setdefault("rounds a message", []).append(sum(rounds) / len(rounds))
        if context.attempt_twice(record, load) is not None:
            warm = len(server.queries()) - len(cold)
            record.figures.setdefault("warm queries a message", []).append(warm / count)
            context.progress.line(
                f"{contender.name:36} concurrency {concurrency}: p50 {measured.p50_s * 1e3:7.1f} ms,"
                f" {record.figures['queries a message'][-1]:.1f} queries in"
                f" {record.figures['rounds a message'][-1]:.1f} rounds"
            )


def waits(queries: Sequence[Query], domains: Sequence[str], *, delay_s: float = DELAY_S) -> list[int]:
    """For each domain, how many times in a row its names were asked for, where an answer takes `delay_s`."""
    found = []
    for domain in domains:
        times = sorted(query.at_s for query in queries if f".{query.name}".endswith(f".{domain}"))
        later = [after for before, after in pairwise(times) if after - before > delay_s / 2]
        found.append(1 + len(later) if times else 0)
    return found
