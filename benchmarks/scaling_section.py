"""mailguard with one worker and with two, on each engine: what a second worker adds, and what it costs."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass

from bench_record import Context, Record
from compared_daemon import Task
from daemon_mailguard import Mailguard, MailguardNative
from load_section import samples_of
from measurement import Subject, measure
from name_server import NameServer
from sample_mail import zone_text
from scenarios import USUAL_DOMAINS, Plan, Scenario

__all__ = ["name_of", "scaling_section", "scaling_takes"]

SECTION = "scaling"
SIZE = 2048
CONCURRENCY = 8
SCENARIOS = tuple(Scenario(task, SIZE, CONCURRENCY) for task in (Task.SIGN_RSA, Task.JUDGE))
# For the estimate.
AROUND_S = 0.6


@dataclass(frozen=True, slots=True)
class _Variant:
    daemon: type[Mailguard]
    workers: int

    @property
    def name(self) -> str:
        return name_of(self.daemon.name, self.workers)


def name_of(daemon: str, workers: int) -> str:
    """In the results."""
    return f"{daemon}, {workers} worker{'s' * (workers > 1)}"


def _variants(plan: Plan, scenario: Scenario) -> list[_Variant]:
    every = [_Variant(daemon, workers) for daemon in (Mailguard, MailguardNative) for workers in (1, 2)]
    return [variant for variant in every if plan.wants(SECTION, scenario.name, variant.name)]


def scaling_takes(plan: Plan) -> float:
    """Seconds, about."""
    once = Mailguard.starts_in_s + (plan.rounds + 1) * (plan.seconds + AROUND_S)
    return once * sum(len(_variants(plan, scenario)) for scenario in SCENARIOS)


def scaling_section(context: Context) -> list[Record]:
    """For signing and for judging."""
    records: list[Record] = []
    for scenario in SCENARIOS:
        task = scenario.task
        context.progress.heading(f"scaling: {scenario.name}")
        samples = samples_of(context, scenario)
        variants = _variants(context.plan, scenario)
        mine = {variant: Record(SECTION, scenario.name, variant.name) for variant in variants}
        with ExitStack() as stack:
            stack.enter_context(NameServer(zone_text(range(USUAL_DOMAINS), context.keys)))
            running = {
                variant: context.attempt(
                    mine[variant],
                    stack.enter_context,
                    variant.daemon(task, context.keys, workers=variant.workers),
                )
                for variant in variants
            }
            for number in range(-1, context.plan.rounds):
                for variant in variants if number % 2 else reversed(variants):
                    daemon = running[variant]
                    if daemon is None:
                        continue
                    subject = Subject([daemon], samples, daemon.expected, context.keys)
                    measured = context.attempt_twice(
                        mine[variant],
                        measure,
                        subject,
                        context.generator,
                        variant,
                        concurrency=CONCURRENCY,
                        seconds=context.plan.seconds,
                    )
                    # The first time is for the caches.
                    if measured is not None and number >= 0:
                        mine[variant].runs.append(measured)
        context.generator.forget()
        records += mine.values()
    return records
