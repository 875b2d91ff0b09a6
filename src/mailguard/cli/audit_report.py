"""What `mailguard audit` found, and its printing: a table on a terminal, plain lines elsewhere, or JSON.

What stands in configuration files is escaped: nothing in it can move the cursor or colour a line.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mailguard.audit.baseline import Baseline
from mailguard.audit.finding import Check, Found, Result, Severity
from mailguard.cli.json_report import print_json
from mailguard.cli.printable import cell, printable

__all__ = ["AuditReport", "show"]

# A list of restrictions may be long, and its end is what a reader needs least.
MAX_CELL_CHARS = 400
_COLOURS = {Severity.CRITICAL: "red", Severity.WARNING: "yellow", Severity.NOTICE: "cyan"}


@dataclass(frozen=True, slots=True)
class AuditReport:
    """The results, and which of them are accepted."""

    results: tuple[Result, ...]
    baseline: Baseline
    version: tuple[int, ...]
    """Postfix's."""

    @property
    def open(self) -> list[tuple[Check, Found]]:
        """What is not accepted, the worst first."""
        found = [(each.check, one) for each in self.results for one in each.found]
        left = [pair for pair in found if not self.baseline.accepts(*pair)]
        return sorted(left, key=lambda pair: -pair[0].severity)

    @property
    def accepted(self) -> list[tuple[Check, Found]]:
        """What was found and is accepted."""
        found = [(each.check, one) for each in self.results for one in each.found]
        return [pair for pair in found if self.baseline.accepts(*pair)]

    @property
    def unclear(self) -> list[tuple[Check, str]]:
        """What could not be told."""
        return [(each.check, one.reason) for each in self.results for one in each.unclear]

    @property
    def passed(self) -> list[Check]:
        """The checks with nothing to say."""
        return [each.check for each in self.results if not each.found and not each.unclear]

    @property
    def worst(self) -> Severity | None:
        """Of what is not accepted; what could not be told is a notice. None if there is nothing."""
        severities = [check.severity for check, _ in self.open]
        severities += [Severity.NOTICE] if self.unclear else []
        return max(severities, default=None)

    def to_json(self) -> dict[str, object]:
        """All of it, for `json.dumps`."""
        return {
            "postfix": _dotted(self.version),
            "worst": self.worst.word if self.worst is not None else None,
            "findings": [_finding_json(*pair) for pair in self.open],
            "accepted": [_finding_json(*pair) for pair in self.accepted],
            "unclear": [{"check": check.id, "reason": _plain(reason)} for check, reason in self.unclear],
            "passed": [check.id for check in self.passed],
            "gone": [
                {"check": each.check, "place": each.place, "found": each.found}
                for each in self.baseline.gone(self.results)
            ],
        }


def show(report: AuditReport, *, as_json: bool) -> None:
    """Print it to standard output."""
    if as_json:
        print_json(report.to_json())
        return
    found = report.open
    console = Console(highlight=False)
    if found and console.is_terminal:
        console.print(_table(found))
        console.print()
    for number, (check, one) in enumerate(found, 1):
        _show_details(console, number, check, one)
    for check, reason in report.unclear:
        click.echo(f"not told: {check.id}: {_plain(reason)}")
    for gone in report.baseline.gone(report.results):
        click.echo(f"no longer there, though accepted: {gone.check}: {_plain(gone.place)}: {_plain(gone.found)}")
    click.echo(_summary(report))


def _show_details(console: Console, number: int, check: Check, found: Found) -> None:
    heading = f"{number}. {check.severity.word}: {check.id} ({_plain(found.place)})"
    if console.is_terminal:
        # Text and never markup: rich would take brackets in a configuration for a style.
        console.print(Text(heading, style=f"bold {_COLOURS[check.severity]}"))
    else:
        click.echo(heading)
    click.echo(f"   found: {_plain(found.what)}")
    click.echo(f"   why: {check.why}")
    # Never shortened: it is to be copied.
    for command in found.commands:
        click.echo(f"   fix: {printable(command)}")
    click.echo()


def _table(found: Sequence[tuple[Check, Found]]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("", "severity", "check", "place", "found"):
        table.add_column(name, overflow="fold")
    for number, (check, one) in enumerate(found, 1):
        table.add_row(
            str(number),
            Text(check.severity.word, style=_COLOURS[check.severity]),
            Text(check.id),
            Text(_plain(one.place)),
            Text(_plain(one.what)),
        )
    return table


def _summary(report: AuditReport) -> str:
    counted = Counter(check.severity for check, _ in report.open)
    said = ", ".join(_counted(each, counted[each]) for each in sorted(Severity, reverse=True) if counted[each])
    parts = [f"{len(report.passed)} of {len(report.results)} checks pass", said or "nothing is found"]
    if report.accepted:
        parts.append(f"{len(report.accepted)} accepted")
    if report.unclear:
        parts.append(f"{len(report.unclear)} could not be told")
    return f"Postfix {_dotted(report.version)}: {'; '.join(parts)}."


def _counted(severity: Severity, number: int) -> str:
    plural = "" if number == 1 or severity is Severity.CRITICAL else "s"
    return f"{number} {severity.word}{plural}"


def _finding_json(check: Check, found: Found) -> dict[str, object]:
    return {
        "check": check.id,
        "severity": check.severity.word,
        "place": found.place,
        "found": found.what,
        "why": check.why,
        "fix": list(found.commands),
    }


def _dotted(version: Sequence[int]) -> str:
    return ".".join(map(str, version))


def _plain(text: str) -> str:
    return cell(text, max_chars=MAX_CELL_CHARS)
