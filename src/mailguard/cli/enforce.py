"""`mailguard enforce --dry-run`: what would have been refused if mailguard had enforced its policy.

From the traces that the daemon keeps, or from its log. It shows what was decided when each message came, by the
policy of then. It changes nothing: enforcing is switched on in the configuration.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import BinaryIO, cast

import click
from rich.console import Console
from rich.progress import Progress

from mailguard.cli.enforce_report import Report, show
from mailguard.cli.exit_code import ExitCode
from mailguard.cli.host_options import CONFIG_OPTION
from mailguard.cli.log_lines import Lost, Unreadable, read_lines
from mailguard.cli.message_file import STANDARD_INPUT
from mailguard.cli.parameters import FILE, JSON_OPTION, POSIX_SECONDS
from mailguard.config import load
from mailguard.trace_reader import TraceReader

__all__ = ["enforce"]

# Debian has no syslog daemon by itself from 12 on.
JOURNAL = (
    "where journald has the mail log: journalctl -o short-iso -t mailguard-milter --since -7d | mailguard enforce"
    " --dry-run --log -"
)

DAY_S = 86_400
# Python's calendar ends with the year 9999: there are a day after this one and any zone left.
LAST_DAY_S = 253_402_041_600
DEFAULT_DAYS = 7
# Telling it for each row would cost more than reading it.
PROGRESS_EVERY = 1000


@click.command()
@click.option("--dry-run", is_flag=True, help="Show what enforcing would refuse. There is no other way to call this.")
@click.option(
    "--days", type=click.IntRange(1, 366), default=DEFAULT_DAYS, show_default=True, help="How far to look back."
)
@CONFIG_OPTION
@click.option(
    "--log",
    "logs",
    type=FILE,
    metavar="FILE",
    multiple=True,
    help="Read this log (- is standard input) instead of the traces: logfmt or JSON, also inside a syslog file.",
)
@click.option("--now", type=POSIX_SECONDS, metavar="SECONDS", help="Look back from this POSIX time.")
@JSON_OPTION
def enforce(
    dry_run: bool, days: int, config_file: str, logs: Sequence[str], now: int | None, as_json: bool
) -> ExitCode:
    """Show what would have been refused in the last days if mode were "enforce".

    It reads the traces, if [trace] is enabled in the configuration, or the log files that --log names. Each line of
    the table is a source (a network where it has several addresses; the login, for mail of your own users), a domain
    in From, and a rule; the reason is that of the last such message. Your own users come first, with a line of its
    own for each address that a login may not use. Traces are kept of mail from outside alone.

    Ends with 0 if everything could be read, otherwise 1.
    """
    if not dry_run:
        raise click.UsageError(
            f'enforcing is switched on with mode = "enforce" in {config_file} and a reload of the daemon;'
            " this command only shows what it would refuse: mailguard enforce --dry-run"
        )
    report = Report(days)
    judged_at = time.time() if now is None else float(now)
    if logs:
        _read_logs(report, logs, judged_at)
    else:
        _read_traces(report, config_file, judged_at)
    show(report, as_json=as_json)
    return ExitCode.FAIL if report.notes else ExitCode.PASS


def _read_traces(report: Report, config_file: str, now: float) -> None:
    config = load(config_file)
    trace = config.trace
    if not trace.enabled:
        raise click.UsageError(
            f"no traces are kept: name the daemon's log with --log, or set enabled = true in [trace] in {config_file}"
        )
    since = now - report.days * DAY_S
    with TraceReader(trace.path) as reader, _progress(reader.count(since)) as advance:
        for number, row in enumerate(reader.since(since), 1):
            report.add(
                time=row.judged_at,
                client=row.client,
                domain=row.domain,
                action=row.disposition,
                would=row.would,
                rule=row.rule,
                reason=row.reason,
            )
            if number % PROGRESS_EVERY == 0:
                advance(number)
    # Also without [senders], enforcing refuses what is malformed, and what comes without macros.
    if any(listener.role != "verify" for listener in config.listeners):
        report.remarks.append("traces are kept of mail from outside alone; for that of your own users name a --log")


def _read_logs(report: Report, names: Sequence[str], now: float) -> None:
    with _progress(sum(map(_size, names))) as advance:
        done = 0
        for name in names:
            try:
                with _opened(name) as file:
                    _read_log(report, name, cast(BinaryIO, _Watched(file, advance, done)), now)
            except FileNotFoundError as error:
                report.notes.append(f"{name} could not be read to its end: {error.strerror}; {JOURNAL}")
            except (OSError, EOFError) as error:
                why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
                report.notes.append(f"{name} could not be read to its end: {why}")
            done += _size(name)


def _read_log(report: Report, name: str, file: BinaryIO, now: float) -> None:
    since = now - report.days * DAY_S
    unreadable = dict.fromkeys(Unreadable, 0)
    untimed = lost = 0
    for found in read_lines(file, now=datetime.fromtimestamp(min(now, LAST_DAY_S))):
        if isinstance(found, Unreadable):
            unreadable[found] += 1
            continue
        if found.time is not None and found.time < since:
            continue
        if isinstance(found, Lost):
            lost += found.count
            continue
        untimed += found.time is None
        report.add(
            time=found.time,
            client=found.client,
            is_ours=found.is_ours,
            login=found.login,
            domain=found.domain,
            action=found.action,
            would=found.would,
            rule=found.rule,
            reason=found.reason,
        )
    for kind, count in unreadable.items():
        if count:
            report.notes.append(f"{name}: {count} {'line is' if count == 1 else 'lines are'} {kind.value}")
    if lost:
        report.notes.append(
            f"{name}: {lost} lines, of messages perhaps, are missing: the daemon could not write them; see that there"
            " is room for the log"
        )
    if untimed:
        report.notes.append(f"{name}: {untimed} messages have no time and are counted, however old they are")


class _Watched:
    """A file whose reading is shown. read() is all that is needed of it."""

    def __init__(self, file: BinaryIO, advance: Callable[[int], None], before: int) -> None:
        self._file = file
        self._advance = advance
        self._place = before

    def read(self, size: int = -1) -> bytes:
        octets = self._file.read(size)
        self._place += len(octets)
        self._advance(self._place)
        return octets


@contextmanager
def _opened(name: str) -> Iterator[BinaryIO]:
    if name == STANDARD_INPUT:
        if sys.stdin is None:
            raise OSError("standard input is closed")
        yield sys.stdin.buffer
        return
    with open(name, "rb") as file:
        yield file


def _size(name: str) -> int:
    """For the progress alone; 0 where it is not known."""
    try:
        return Path(name).stat().st_size if name != STANDARD_INPUT else 0
    except OSError:
        return 0


@contextmanager
def _progress(total: int) -> Iterator[Callable[[int], None]]:
    """A bar on a terminal, nothing elsewhere. Yields what sets it."""
    console = Console(stderr=True)
    if not console.is_terminal or not total:
        yield lambda done: None
        return
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("reading", total=total)
        yield lambda done: progress.update(task, completed=min(done, total))
