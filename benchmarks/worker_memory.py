"""The memory of a worker of mailguard's while it serves: after half of the messages, after all, and after large ones.

RSS and PSS from /proc, of the only worker of its daemon. Messages come from a thousand domains and are of
2 KB; the large ones are of 10 MB, eight at a time. Both roles are measured, on a daemon of their own.
"""

from __future__ import annotations

from bench_record import Context, Record
from compared_daemon import Task
from daemon_mailguard import Mailguard
from measurement import Subject, measure
from name_server import NameServer
from process_usage import memory
from sample_mail import Sample, incoming, outgoing, zone_text
from scenarios import MANY_DOMAINS, MB

__all__ = ["worker_memory"]

SECTION = "memory"
CONCURRENCY = 8
SMALL, LARGE = 2048, 10 * MB
LARGE_MESSAGES = 64


def worker_memory(context: Context) -> list[Record]:
    """One record for each role; its figures are in octets."""
    records = []
    for task in (Task.SIGN_RSA, Task.JUDGE):
        record = Record(SECTION, f"one worker, {task.value}", "mailguard")
        context.progress.heading(f"memory of a worker: {task.value}")
        with NameServer(zone_text(range(MANY_DOMAINS), context.keys)):
            context.attempt(record, _grow, context, task, record)
        context.generator.forget()
        records.append(record)
    return records


def _grow(context: Context, task: Task, record: Record) -> None:
    total = context.plan.memory_messages
    with Mailguard(task, context.keys, workers=1) as daemon:
        small = Subject([daemon], _samples(context, task, SMALL, MANY_DOMAINS), daemon.expected, context.keys)
        large = Subject([daemon], _samples(context, task, LARGE, 3), daemon.expected, context.keys)
        _note(context, record, "at the start", daemon)
        for when in (f"after {total // 2} messages", f"after {total} messages"):
            measure(small, context.generator, "small", concurrency=CONCURRENCY, count=total // 2)
            _note(context, record, when, daemon)
        measure(large, context.generator, "large", concurrency=CONCURRENCY, count=LARGE_MESSAGES)
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
