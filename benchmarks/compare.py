"""The comparison: runs all sections and writes the results. Called by run.sh, inside a network of its own.

    compare.py [--quick | --goals] [--out DIRECTORY] [--only SECTION,...] [--rounds N] [--seconds S]

Writes results.json, results.md and the charts after every section: what is broken off leaves what it has found.
Exit code 1 if any row is void, 130 if it was interrupted: by control-C, by SIGTERM, or by a terminal that has gone.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bench_keys import BenchKeys
from bench_record import Context, Progress, Record
from cold_section import cold_section, cold_takes
from compared_daemon import Task
from daemon_dkimpy import DkimpyMilter
from daemon_opendkim import OpenDkim
from daemon_opendmarc import OpenDmarc
from daemon_pyspf import PySpfMilter
from daemon_rspamd import Rspamd
from floor import floor
from goals import goals_for
from goals_plan import goals_plan
from load_generator import LoadGenerator
from load_section import load_section, load_takes
from machine import busy_with, describe
from report import Results
from sandbox_interrupt import interrupt_on_signals
from sandbox_place import make_public_directory
from scaling_section import scaling_section, scaling_takes
from scenarios import Plan
from through_postfix import postfix_takes, through_postfix
from waiting_section import waiting_section, waiting_takes
from worker_memory import memory_takes, worker_memory

__all__ = ["main"]

DEFAULT_OUT = Path(__file__).resolve().parent / "results"
COMPARED = (OpenDkim, OpenDmarc, PySpfMilter, DkimpyMilter, Rspamd)
# run.sh makes the network and names what it has made; without it, the machine's own DNS would be asked.
INSIDE = "MAILGUARD_BENCHMARK_NETWORK"

# CPU time has a resolution of 10 ms, of which there have to be some.
SHORTEST_S, LONGEST_S = 0.1, 3600.0
SIGNING = (Task.SIGN_RSA, Task.SIGN_ED25519, Task.SIGN_BOTH)


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the comparison."""

    run: Callable[[Context], list[Record]]
    takes: Callable[[Plan], float]
    """Seconds, about: on two cores that do nothing else."""


SECTIONS: dict[str, Section] = {
    "sign": Section(lambda context: load_section(context, SIGNING), lambda plan: load_takes(plan, SIGNING)),
    "inbound": Section(
        lambda context: load_section(context, (Task.JUDGE,)), lambda plan: load_takes(plan, (Task.JUDGE,))
    ),
    "cold": Section(cold_section, cold_takes),
    "waiting": Section(waiting_section, waiting_takes),
    "scaling": Section(scaling_section, scaling_takes),
    "postfix": Section(through_postfix, postfix_takes),
    "memory": Section(worker_memory, memory_takes),
}


def main(arguments: Sequence[str] | None = None) -> int:
    options = _options(arguments)
    if os.environ.get(INSIDE) != "1":
        print("start this with: sh benchmarks/run.sh", file=sys.stderr)
        return 2
    try:
        options.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        print(f"--out: {options.out}: {error.strerror}", file=sys.stderr)
        return 2
    plan = _plan(options)
    progress = Progress()
    remarks = [busy_with()] if busy_with() else []
    if options.quick:
        remarks.append("a quick run, to see that everything works: the figures are not to be quoted")
    for remark in remarks:
        progress.void(remark)
    if options.goals:
        remarks.append(f"the rows that the goals need, with measurements of {plan.seconds:g} s")
    if options.rounds or options.seconds:
        remarks.append(f"as it was asked for: {plan.rounds} rounds, and measurements of {plan.seconds:g} s")
    takes = {name: SECTIONS[name].takes(plan) for name in options.only}
    parts = ", ".join(f"{name} {in_minutes(seconds)}" for name, seconds in takes.items())
    progress.heading(f"this takes about {in_minutes(sum(takes.values()))}: {parts}")
    machine = describe(each.package for each in COMPARED)
    interrupt_on_signals()
    directory = make_public_directory("benchmark-load-")
    records: list[Record] = []
    try:
        keys = BenchKeys.generate()
        context = Context(plan, keys, LoadGenerator(directory), progress, {}, directory)
        alone = floor(keys)
        for number, name in enumerate(options.only):
            left = in_minutes(sum(takes[each] for each in options.only[number:]))
            progress.heading(f"part {number + 1} of {len(options.only)}, {name}; about {left} left")
            records += SECTIONS[name].run(context)
            _write(options.out, Results(machine, remarks, records, alone, context.configurations))
    except KeyboardInterrupt:
        progress.void("interrupted; everything was stopped, and what earlier parts found is kept")
        return 130
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    progress.heading(f"results: {options.out}/results.md")
    return 1 if any(record.void for record in records) else 0


def in_minutes(seconds: float) -> str:
    """For people."""
    return f"{max(1, round(seconds / 60))} min"


def _plan(options: argparse.Namespace) -> Plan:
    if options.goals:
        plan = goals_plan(goals_for(os.cpu_count() or 1))
    else:
        plan = Plan.quick() if options.quick else Plan.full()
    return replace(plan, rounds=options.rounds or plan.rounds, seconds=options.seconds or plan.seconds)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks/run.sh", description="Compare mailguard with other milters.")
    extent = parser.add_mutually_exclusive_group()
    extent.add_argument("--quick", action="store_true", help="a few minutes, to see that everything works")
    extent.add_argument("--goals", action="store_true", help="half an hour: only the rows that the goals need")
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT, help="where the results go (%(default)s)")
    parser.add_argument("--only", type=_sections, default=list(SECTIONS), help=f"of {','.join(SECTIONS)}")
    parser.add_argument("--rounds", type=_rounds, default=0, help="repetitions of each measurement")
    parser.add_argument("--seconds", type=_seconds, default=0.0, help="for each measurement")
    return parser.parse_args(arguments)


def _sections(text: str) -> list[str]:
    names = text.split(",")
    for name in names:
        if name not in SECTIONS:
            raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(SECTIONS)}")
    return names


def _rounds(text: str) -> int:
    if int(text) < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return int(text)


def _seconds(text: str) -> float:
    if not SHORTEST_S <= float(text) <= LONGEST_S:
        raise argparse.ArgumentTypeError(f"from {SHORTEST_S:g} to {LONGEST_S:g}")
    return float(text)


def _write(directory: Path, results: Results) -> None:
    charts = results.charts()
    for name, document in charts.items():
        (directory / name).write_text(document, encoding="utf-8")
    (directory / "results.json").write_text(results.to_json(), encoding="utf-8")
    (directory / "results.md").write_text(results.to_markdown(list(charts)), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
