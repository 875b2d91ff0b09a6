"""mailguard with one worker and with two: what a second worker adds, and what it costs."""

from __future__ import annotations

from contextlib import ExitStack

from bench_record import Context, Record
from compared_daemon import Task
from daemon_mailguard import Mailguard
from load_section import samples_of
from measurement import Subject, measure
from name_server import NameServer
from sample_mail import zone_text
from scenarios import USUAL_DOMAINS, Scenario

__all__ = ["scaling_section"]

SECTION = "scaling"
WORKERS = (1, 2)
SIZE = 2048
CONCURRENCY = 8


def scaling_section(context: Context) -> list[Record]:
    """For signing and for judging."""
    records: list[Record] = []
    for task in (Task.SIGN_RSA, Task.JUDGE):
        scenario = Scenario(task, SIZE, CONCURRENCY)
        context.progress.heading(f"scaling: {scenario.name}")
        samples = samples_of(context, scenario)
        mine = {
            workers: Record(SECTION, scenario.name, f"mailguard, {workers} worker{'s' * (workers > 1)}")
            for workers in WORKERS
        }
        with ExitStack() as stack:
            stack.enter_context(NameServer(zone_text(range(USUAL_DOMAINS), context.keys)))
            running = {
                workers: context.attempt(
                    mine[workers], stack.enter_context, Mailguard(task, context.keys, workers=workers)
                )
                for workers in WORKERS
            }
            for number in range(-1, context.plan.rounds):
                for workers in WORKERS if number % 2 else reversed(WORKERS):
                    daemon = running[workers]
                    if daemon is None:
                        continue
                    subject = Subject([daemon], samples, daemon.expected, context.keys)
                    measured = context.attempt_twice(
                        mine[workers],
                        measure,
                        subject,
                        context.generator,
                        workers,
                        concurrency=CONCURRENCY,
                        seconds=context.plan.seconds,
                    )
                    # The first time is for the caches.
                    if measured is not None and number >= 0:
                        mine[workers].runs.append(measured)
        context.generator.forget()
        records += mine.values()
    return records
