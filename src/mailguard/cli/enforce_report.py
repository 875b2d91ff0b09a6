"""What `mailguard enforce --dry-run` finds out: who would be refused, by which rule, how often; and its printing.

What strangers wrote is escaped: nothing in it can move the cursor or colour a line. A table on a terminal, plain
lines elsewhere, or JSON.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from ipaddress import ip_address, ip_network

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mailguard.cli.json_report import print_json
from mailguard.cli.printable import cell
from mailguard.submission import ACTION_KEYS

__all__ = ["Report", "show"]

# Disposition.keeps_back, by the words of the log, the worst first.
REFUSALS = ("reject", "quarantine", "tempfail")
"""What keeps a message from its reader."""

# Their reasons name an address that a login may not use: each is another entry in a table, or another refusal.
_OF_AN_ADDRESS = frozenset(rule.value for rule in ACTION_KEYS)

# Clients within one network usually are one sender.
IPV4_PREFIX, IPV6_PREFIX = 24, 56
# Of our own users, and of strangers: who forges much is not to hide who may not write as before. Each takes less than
# a kilobyte. What does not fit in is counted together.
MAX_GROUPS = 10_000
MAX_SHOWN_GROUPS = 100
MAX_CELL_CHARS = 300
_COLOURS = {"reject": "red", "quarantine": "yellow", "tempfail": "yellow"}


@dataclass(slots=True)
class _Group:
    count: int = 0
    source: str | None = ""
    """The login or the client, if it is only one; None for several."""
    reason: str = ""
    """That of the last message."""


_Key = tuple[str, str, str, str, str]


@dataclass(slots=True)
class Report:
    """The count so far."""

    days: int
    messages: int = 0
    refused_already: int = 0
    """Of those in `would`: mailguard enforced then."""
    would: Counter[str] = field(default_factory=Counter)
    first: float | None = None
    last: float | None = None
    """When the oldest and the newest message was judged, POSIX seconds."""
    not_grouped: int = 0
    notes: list[str] = field(default_factory=list)
    """What could not be read."""
    remarks: list[str] = field(default_factory=list)
    """What else is worth knowing."""
    _ours: dict[_Key, _Group] = field(default_factory=dict)
    _strangers: dict[_Key, _Group] = field(default_factory=dict)

    def add(
        self,
        *,
        time: float | None,
        client: str,
        domain: str,
        action: str,
        would: str,
        rule: str,
        reason: str,
        is_ours: bool = False,
        login: str = "",
    ) -> None:
        """Count a message. `would` is empty where it is the same as `action`; `login` is that of one of our users."""
        self.messages += 1
        if time is not None:
            self.first = time if self.first is None else min(self.first, time)
            self.last = time if self.last is None else max(self.last, time)
        effect = would or action
        # Without a rule it is a fault of ours, such as a key that could not be read, whatever the mode.
        if effect not in REFUSALS or not rule:
            return
        self.would[effect] += 1
        self.refused_already += action == effect
        # Our own users are known by their login, wherever they are.
        source = login or client
        key = login or _network(client), domain, effect, rule, reason if rule in _OF_AN_ADDRESS else ""
        groups = self._ours if is_ours else self._strangers
        group = groups.get(key)
        if group is None:
            if len(groups) >= MAX_GROUPS:
                self.not_grouped += 1
                return
            group = groups[key] = _Group(source=source)
        group.count += 1
        group.source = source if group.source == source else None
        group.reason = reason

    @property
    def refused(self) -> int:
        """How many would be refused, held or put off."""
        return self.would.total()

    def rows(self, most: int | None = None) -> list[dict[str, object]]:
        """The groups, of our own users and then of strangers; of each the largest first, and `most` at most."""
        return [row for groups in (self._ours, self._strangers) for row in _rows(groups)[:most]]

    @property
    def groups(self) -> int:
        """How many there are."""
        return len(self._ours) + len(self._strangers)

    def to_json(self) -> dict[str, object]:
        """All of it, for `json.dumps`."""
        return {
            "days": self.days,
            "from": _iso(self.first),
            "to": _iso(self.last),
            "messages": self.messages,
            "would_refuse": self.refused,
            "would": {effect: self.would[effect] for effect in REFUSALS},
            "refused_already": self.refused_already,
            "groups": self.rows(),
            "not_grouped": self.not_grouped,
            "notes": [*self.notes, *self.remarks],
        }


def _rows(groups: Mapping[_Key, _Group]) -> list[dict[str, object]]:
    ordered = sorted(groups.items(), key=lambda item: (-item[1].count, item[0]))
    return [
        {
            "source": _plain(group.source if group.source is not None else network) or "unknown",
            "domain": _plain(domain),
            "would": effect,
            "rule": _plain(rule),
            "reason": _plain(group.reason),
            "count": group.count,
        }
        for (network, domain, effect, rule, _), group in ordered
    ]


def show(report: Report, *, as_json: bool) -> None:
    """Print it to standard output."""
    if as_json:
        print_json(report.to_json())
        return
    rows = report.rows(most=MAX_SHOWN_GROUPS)
    console = Console(highlight=False)
    if rows and console.is_terminal:
        console.print(_table(rows))
    elif rows:
        click.echo("\n".join(_lines(rows)))
    for line in _summary(report, len(rows)):
        click.echo(line)


_COLUMNS = ("count", "would", "source", "domain", "rule", "reason")


def _table(rows: Sequence[dict[str, object]]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in _COLUMNS:
        table.add_column(name, justify="right" if name == "count" else "left", overflow="fold")
    for row in rows:
        # Text and never markup: rich would take a stranger's brackets for a style.
        cells = [Text(str(row[name]), style=_COLOURS.get(str(row[name]), "")) for name in _COLUMNS]
        table.add_row(*cells)
    return table


def _lines(rows: Sequence[dict[str, object]]) -> list[str]:
    cells = [list(_COLUMNS), *([str(row[name]) or "-" for name in _COLUMNS] for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(_COLUMNS) - 1)]
    return ["  ".join([*map(str.ljust, line, widths), line[-1]]) for line in cells]


def _summary(report: Report, shown: int) -> list[str]:
    lines = []
    if report.groups > shown:
        lines.append(f"and {report.groups - shown} lines more, which --json shows")
    if report.not_grouped:
        lines.append(f"and {report.not_grouped} messages of still other sources")
    if lines or shown:
        lines.append("")
    within = f"of the last {report.days} days" if report.days > 1 else "of the last day"
    period = f" ({_iso(report.first)} to {_iso(report.last)})" if report.first is not None else ""
    said = ", ".join(f"{effect} {report.would[effect]}" for effect in REFUSALS if report.would[effect])
    if not report.messages:
        lines.append(f"There is no message {within}.")
    elif not report.refused:
        lines.append(f"Of {report.messages} messages {within}{period}, enforcing would refuse none.")
    else:
        share = 100 * report.refused / report.messages
        lines.append(
            f"Of {report.messages} messages {within}{period}, enforcing would keep back {report.refused}"
            f" ({share:.1f} %): {said}."
        )
    if report.refused_already:
        lines.append(f"{report.refused_already} of them were kept back already, because mailguard enforced then.")
    return [*lines, *(f"note: {note}" for note in (*report.notes, *report.remarks))]


def _network(client: str) -> str:
    try:
        address = ip_address(client)
    except ValueError:
        return client
    prefix = IPV4_PREFIX if address.version == 4 else IPV6_PREFIX
    return str(ip_network((address.packed, prefix), strict=False))


def _plain(text: str) -> str:
    return cell(text, max_chars=MAX_CELL_CHARS)


def _iso(time: float | None) -> str | None:
    return None if time is None else datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
