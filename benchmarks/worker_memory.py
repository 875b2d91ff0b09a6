"""The memory of a worker of mailguard's while it serves: after half of the messages, after all, and after large ones.

RSS and PSS from /proc, of the only worker of its daemon. Messages come from a thousand domains and are of
2 KB; the large ones are of 10 MB, eight at a time. Both roles are measured on each engine, on a daemon of their own.
"""

from __future__ import annotations

import time

from bench_record import Context, Record
from compared_daemon import Task
from daemon_mailguard import Mailguard, MailguardNative
from measurement import Subject, measure
from name_server import NameServer
from process_usage import memory
from sample_mail import Sample, incoming, outgoing, zone_text
from scenarios import MANY_DOMAINS, MB, Plan

__all__ = ["memory_takes", "worker_memory"]

SECTION = "memory"
CONCURRENCY = 8
SMALL, LARGE = 2048, 10 * MB
LARGE_MESSAGES = 64
# A worker gives back once a second what large messages took.
SETTLE_S = 2.0
TASKS = (Task.SIGN_RSA, Task.JUDGE)
ENGINES = (Mailguard, MailguardNative)
# For the estimate.
MESSAGE_S, LARGE_MESSAGE_S = 0.0012, 0.15


def worker_memory(context: Context) -> list[Record]:
    """One record for each role and engine; its figures are in octets."""
    records = []
    for task in TASKS:
        for variant in ENGINES:
            record = Record(SECTION, f"one worker, {task.value}", variant.name)
            context.progress.heading(f"memory of a worker: {variant.name}, {task.value}")
            with NameServer(zone_text(range(MANY_DOMAINS), context.keys)):
                context.attempt(record, _grow, context, task, variant, record)
            context.generator.forget()
            records.append(record)
    return records


def memory_takes(plan: Plan) -> float:
    """Seconds, about."""
    once = Mailguard.starts_in_s + plan.memory_messages * MESSAGE_S + LARGE_MESSAGES * LARGE_MESSAGE_S + SETTLE_S
    return once * len(TASKS) * len(ENGINES)


def _grow(context: Context, task: Task, variant: type[Mailguard], record: Record) -> None:
    total = context.plan.memory_messages
    with variant(task, context.keys, workers=1) as daemon:
        small = Subject([daemon], _samples(context, task, SMALL, MANY_DOMAINS), daemon.expected, context.keys)
        large = Subject([daemon], _samples(context, task, LARGE, 3), daemon.expected, context.keys)
        _note(context, record, "at the start", daemon)
        for when in (f"after {total // 2} messages", f"after {total} messages"):
            measure(small, context.generator, "small", concurrency=CONCURRENCY, count=total // 2)
            _note(context, record, when, daemon)
        measure(large, context.generator, "large", concurrency=CONCURRENCY, count=LARGE_MESSAGES)
        time.sleep(SETTLE_S)
        _note(context, record, f"after {LARGE_MESSAGES} of 10 MB", daemon)


def _samples(context: Context, task: Task, size: int, count: int) -> list[Sample]:
    if task is Task.JUDGE:
        return incoming(size, count, domains=range(count), keys=context.keys, algorithms=("rsa",))
    return outgoing(size, count, algorithms=task.algorithms)


def _note(context: Context, record: Record, when: str, daemon: Mailguard) -> None:
    (worker,) = daemon.workers()
    used = memory(worker)
    record.figures[f"RSS {when}"] = [float(used.rss)]
    record.figures[f"PSS {when}"] = [float(used.pss)]
    context.progress.line(f"{when:28} RSS {used.rss / MB:6.1f} MB, PSS {used.pss / MB:6.1f} MB")
