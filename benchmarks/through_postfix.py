"""The same through the real Postfix: smtp-source in, smtp-sink out, one message a connection.

Messages a second are counted from the first connection to the last message that has arrived at the sink; CPU is that
of all of Postfix's processes and of the milters. Signing: without a milter, opendkim, mailguard on each engine.
Inbound: without a milter, the chain of three, mailguard on each engine. Before the clock runs, each variant delivers
a few messages into a file, and the fields that its milters must have added are looked for.
"""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from bench_postfix import BenchPostfix, Sink
from bench_record import Context, Record
from compared_daemon import ComparedDaemon, Task
from load_section import started
from measurement import Measured
from milter_replies import WrongReply
from name_server import NameServer
from process_usage import Memory
from sample_mail import CLIENT, ORIGINATING, Sample, incoming, outgoing, zone_text
from sandbox_place import POLL_S, SandboxError, clean_environment
from scenarios import CHAIN, KB, MAILGUARD, NATIVE, OPENDKIM, Contender, Plan, contenders

__all__ = ["NOBODY", "postfix_takes", "row_name", "through_postfix"]

SECTION = "postfix"
SIZE = 10 * KB
NOBODY = "without a milter"
TRIAL_MESSAGES = 5
WAKING_MESSAGES_A_SESSION = 10
PATIENCE_S = 300.0
# For the estimate: with one session a message takes as long as its way, with more all share the machine.
ALONE_S, SHARED_S = 0.01, 0.0045
_WANTED: Mapping[Task, Sequence[bytes]] = {
    Task.SIGN_RSA: (rb"^DKIM-Signature:",),
    Task.JUDGE: (
        rb"^Authentication-Results:[^:]*?\bdkim=pass",
        rb"^Authentication-Results:[^:]*?\bspf=pass",
        rb"^Authentication-Results:[^:]*?\bdmarc=pass",
    ),
}
_TAKING_PART: Mapping[Task, Sequence[str]] = {
    Task.SIGN_RSA: (OPENDKIM, MAILGUARD, NATIVE),
    Task.JUDGE: (CHAIN, MAILGUARD, NATIVE),
}


@dataclass(frozen=True, slots=True)
class _Site:
    postfix: BenchPostfix
    milters: Mapping[str, Sequence[ComparedDaemon]]
    sample: Sample
    file: Path
    task: Task
    sink: Sink


def row_name(task: Task, sessions: int) -> str:
    """In the results."""
    return f"{task.value}, 10 KB, {sessions} session{'s' * (sessions > 1)}"


def through_postfix(context: Context) -> list[Record]:
    """Both tasks, at each number of sessions."""
    records: list[Record] = []
    for task in _TAKING_PART:
        context.progress.heading(f"through Postfix: {task.value}")
        wanted = _wanted(context.plan, task)
        with ExitStack() as stack:
            stack.enter_context(NameServer(zone_text([0], context.keys)))
            running = started(context, stack, task, wanted, records)
            records += _task(context, stack, task, running)
    return records


def postfix_takes(plan: Plan) -> float:
    """Seconds, about."""
    each = sum(
        WAKING_MESSAGES_A_SESSION * sessions * SHARED_S
        + plan.rounds * plan.postfix_messages * (ALONE_S if sessions == 1 else SHARED_S)
        for sessions in plan.postfix_sessions
    )
    wanted = [_wanted(plan, task) for task in _TAKING_PART]
    return sum(each + sum(each + contender.starts_in_s for contender in mine) for mine in wanted)


def _wanted(plan: Plan, task: Task) -> list[Contender]:
    rows = [row_name(task, sessions) for sessions in plan.postfix_sessions]
    return [
        contender
        for contender in contenders(task)
        if contender.name in _TAKING_PART[task] and any(plan.wants(SECTION, row, contender.name) for row in rows)
    ]


def _task(
    context: Context, stack: ExitStack, task: Task, running: Mapping[Contender, Sequence[ComparedDaemon]]
) -> list[Record]:
    milters: dict[str, Sequence[ComparedDaemon]] = {NOBODY: ()}
    milters.update({contender.name: daemons for contender, daemons in running.items()})
    if task is Task.JUDGE:
        (sample,) = incoming(SIZE, 1, domains=[0], keys=context.keys, algorithms=("rsa",))
    else:
        (sample,) = outgoing(SIZE, 1, algorithms=("rsa",))
    file = context.directory / "message"
    file.write_bytes(sample.raw.replace(b"\r\n", b"\n"))
    postfix = stack.enter_context(
        BenchPostfix(
            {name: ", ".join(f"unix:{each.path}" for each in daemons) for name, daemons in milters.items()},
            daemon_name=ORIGINATING if task is not Task.JUDGE else sample.receiver.decode(),
        )
    )
    context.configurations.setdefault(
        "Postfix (main.cf)", postfix.configuration.replace(str(postfix.directory), "DIRECTORY")
    )
    trials = {name: Record(SECTION, task.value, name) for name in milters}
    kept = context.directory / "kept"
    kept.mkdir(exist_ok=True)
    kept.chmod(0o777)
    with Sink(context.directory, keep=kept / task.name) as sink:
        for name, trial in trials.items():
            context.attempt(trial, _trial, _Site(postfix, milters, sample, file, task, sink), name, kept / task.name)
    with Sink(context.directory) as sink:
        return _rounds(context, _Site(postfix, milters, sample, file, task, sink), trials)


def _rounds(context: Context, site: _Site, trials: Mapping[str, Record]) -> list[Record]:
    task, milters = site.task, site.milters
    records: list[Record] = []
    for sessions in context.plan.postfix_sessions:
        row = row_name(task, sessions)
        mine = {name: Record(SECTION, row, name, void=trials[name].void) for name in milters}
        for name in milters:
            # Postfix starts its processes.
            context.attempt_twice(mine[name], _run, site, name, sessions, WAKING_MESSAGES_A_SESSION * sessions)
        for number in range(context.plan.rounds):
            names = list(milters)
            for name in (*names[number % len(names) :], *names[: number % len(names)]):
                measured = context.attempt_twice(
                    mine[name], _run, site, name, sessions, context.plan.postfix_messages
                )
                if measured is not None:
                    mine[name].runs.append(measured[0])
                    mine[name].figures.setdefault("accepted/s", []).append(measured[1])
        for record in mine.values():
            if record.runs:
                rate = record.spread(lambda run: run.messages_per_second).median
                context.progress.line(f"{row}: {record.contender:36} {rate:7.0f} messages/s")
        records += mine.values()
    return records


def _source(site: _Site, name: str, *, sessions: int, count: int) -> None:
    sample = site.sample
    done = subprocess.run(
        [
            *("smtp-source", "-s", str(sessions), "-m", str(count), "-M", sample.helo.decode()),
            *("-f", sample.mail_from.decode(), "-t", sample.rcpt_to.decode(), "-F", str(site.file)),
            f"{CLIENT}:{site.postfix.ports[name]}",
        ],
        env=clean_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode or done.stderr:
        raise SandboxError(f"smtp-source: {done.stderr.strip()}\n{site.postfix.log_tail()}")


def _await(site: _Site, count: int) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while site.sink.count() < count:
        if time.monotonic() > deadline:
            raise SandboxError(f"{site.sink.count()} of {count} messages have arrived\n{site.postfix.log_tail()}")
        time.sleep(POLL_S)


def _trial(site: _Site, name: str, kept: Path) -> None:
    known = kept.stat().st_size if kept.exists() else 0
    arrived = site.sink.count()
    _source(site, name, sessions=1, count=TRIAL_MESSAGES)
    _await(site, arrived + TRIAL_MESSAGES)
    delivered = kept.read_bytes()[known:].replace(b"\r\n", b"\n")
    if name == NOBODY:
        return
    unfolded = re.sub(rb"\n[ \t]+", b" ", delivered)
    for pattern in _WANTED[site.task]:
        found = len(re.findall(pattern, unfolded, re.MULTILINE))
        if found != TRIAL_MESSAGES:
            raise WrongReply(f"{pattern.decode()} is in {found} of {TRIAL_MESSAGES} messages: {delivered[:1500]!r}")


def _run(site: _Site, name: str, sessions: int, count: int) -> tuple[Measured, float]:
    """What was measured, and the messages a second that Postfix has accepted."""
    milters = site.milters[name]
    arrived = site.sink.count()
    before = {"Postfix": site.postfix.cpu_seconds(), **{each.name: each.cpu_seconds() for each in milters}}
    started_at = time.monotonic()
    _source(site, name, sessions=sessions, count=count)
    accepted_s = time.monotonic() - started_at
    _await(site, arrived + count)
    seconds = time.monotonic() - started_at
    after = {"Postfix": site.postfix.cpu_seconds(), **{each.name: each.cpu_seconds() for each in milters}}
    usage = [each.memory() for each in milters]
    measured = Measured(
        messages=count,
        seconds=seconds,
        cpu_s={each: after[each] - before[each] for each in after},
        # smtp-source tells no latencies.
        p50_s=0.0,
        p95_s=0.0,
        p99_s=0.0,
        memory=Memory(rss=sum(each.rss for each in usage), pss=sum(each.pss for each in usage)),
    )
    return measured, count / accepted_s
