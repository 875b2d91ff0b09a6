"""The results as JSON, as tables in Markdown and as bar charts. Pure: where they go is the caller's business.

Every figure is the median of the rounds, with the lowest and the highest beside it where there is room. A void row
has no figures and says why.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass

from bar_chart import FLOOR_COLOUR, OTHER_COLOUR, OWN_COLOUR, Bar, Panel, chart
from bench_record import Record
from goals import Judgement, goals_for, judge_goals, judge_limits
from measurement import Measured
from scenarios import MAILGUARD
from spread import Spread

__all__ = ["Results"]

MB = 1024 * 1024
MAX_REASON_CHARS = 160
Figure = Callable[[Measured], float]
_HEADS: Mapping[str, str] = {
    "load": "Warm caches",
    "cold": "Cold caches and a slow DNS",
    "scaling": "One worker and two",
    "postfix": "Through Postfix",
}


@dataclass(frozen=True, slots=True)
class Results:
    """All that a run has found."""

    machine: Mapping[str, str]
    remarks: Sequence[str]
    """What a reader has to know before any figure: a busy machine, a quick run."""
    records: Sequence[Record]
    floor: Mapping[str, Spread]
    """Seconds of CPU for one operation."""
    configurations: Mapping[str, str]

    # JSON

    def to_json(self) -> str:
        """Everything, with each single round."""
        document = {
            "machine": dict(self.machine),
            "remarks": list(self.remarks),
            "goals": [_goal(judgement) for judgement in self._judgements()],
            "limits": [asdict(limit) for limit in judge_limits(self.records)],
            "floor_cpu_s": {name: _spread(spread) for name, spread in self.floor.items()},
            "records": [_record(record) for record in self.records],
            "configurations": dict(self.configurations),
        }
        return json.dumps(document, indent=1) + "\n"

    # Markdown

    def to_markdown(self, charts: Sequence[str] = ()) -> str:
        """The tables; `charts` are names of files beside it."""
        parts = ["# Results", "", *(f"**{remark}**\n" for remark in self.remarks)]
        parts += _table(("machine", ""), [(name, value) for name, value in self.machine.items()])
        parts += ["", "## Goals", "", *self._goals()]
        if self.floor:
            parts += ["", "## The operations alone (CPU)", "", *self._floor()]
        parts += ["", *(f"![{name}]({name})" for name in charts)]
        for section, head in _HEADS.items():
            rows = _rows(record for record in self.records if record.section == section)
            if rows:
                parts += ["", f"## {head}"]
            for row, records in rows.items():
                parts += ["", f"### {row}", "", *_row(records), *_repeated(records)]
        memory = [record for record in self.records if record.section == "memory"]
        if memory:
            parts += ["", "## Memory of a worker", "", *_memory(memory)]
        parts += ["", "## Configurations", ""]
        for name, text in self.configurations.items():
            parts += [f"### {name}", "", "```", text.rstrip(), "```", ""]
        return "\n".join(parts).rstrip() + "\n"

    def _goals(self) -> list[str]:
        rows = []
        for judgement in self._judgements():
            goal, measured = judgement.goal, judgement.measured
            bound = f"{'at least' if goal.at_least else 'at most'} {goal.bound:g}"
            value = "" if measured is None else f"{measured.median:.2f} ({measured.low:.2f} to {measured.high:.2f})"
            rows.append((goal.what, goal.other, bound, value, judgement.verdict))
        rows += [(limit.what, "", limit.bound, limit.measured, limit.verdict) for limit in judge_limits(self.records)]
        return _table(("what", "divided by", "goal", "measured", ""), rows)

    def _judgements(self) -> list[Judgement]:
        return judge_goals(self.records, goals_for(int(self.machine["cores"])))

    def _floor(self) -> list[str]:
        return _table(
            ("operation", "microseconds"),
            [(name, f"{spread.median * 1e6:.0f}") for name, spread in self.floor.items()],
        )

    # Charts

    def charts(self) -> dict[str, str]:
        """SVG documents by the name of their file."""
        found = {}
        for section, kind, start in (
            ("load", "signing", "sign"),
            ("load", "inbound", "inbound"),
            ("postfix", "postfix", ""),
            ("cold", "cold", ""),
        ):
            rows = _rows(r for r in self.records if r.section == section and r.row.startswith(start))
            if not any(record.runs for records in rows.values() for record in records):
                continue
            for name, (figure, unit, factor) in _FIGURES[section].items():
                panels = [
                    Panel(row, [_bar(record, figure, unit, factor) for record in records])
                    for row, records in rows.items()
                    if any(record.runs for record in records)
                ]
                found[f"{kind}-{name}.svg"] = chart(f"{kind}: {_TITLES[name]}", panels, self._notes())
        return found

    def _notes(self) -> list[str]:
        machine = self.machine
        names = ("processor", "cores", "system", "date")
        about = "; ".join(f"{name}: {machine[name]}" for name in names if name in machine)
        versions = "; ".join(f"{name} {value}" for name, value in machine.items() if name.endswith("(Debian)"))
        lines = [
            *_wrapped(about),
            *_wrapped(versions),
            "Bars: medians of the rounds. Lines: from the lowest to the highest.",
        ]
        return [*self.remarks, *lines]


def _cpu(run: Measured) -> float:
    return run.cpu_per_message_s


def _rate(run: Measured) -> float:
    return run.messages_per_second


def _p50(run: Measured) -> float:
    return run.p50_s


_TITLES = {
    "cpu": "CPU a message (user and system, all processes)",
    "rate": "messages a second",
    "latency": "latency, p50",
}
_FIGURES: Mapping[str, Mapping[str, tuple[Figure, str, float]]] = {
    "load": {"cpu": (_cpu, "ms", 1e3), "rate": (_rate, "/s", 1.0)},
    "postfix": {"cpu": (_cpu, "ms", 1e3), "rate": (_rate, "/s", 1.0)},
    "cold": {"latency": (_p50, "ms", 1e3)},
}


_CPU: Mapping[str, Figure] = {"CPU ms a message": lambda run: run.cpu_per_message_s * 1e3, "messages/s": _rate}
_LATENCY: Mapping[str, Figure] = {
    "p50 ms": lambda run: run.p50_s * 1e3,
    "p95 ms": lambda run: run.p95_s * 1e3,
    "p99 ms": lambda run: run.p99_s * 1e3,
}
_MEMORY: Mapping[str, Figure] = {"RSS MB": lambda run: run.memory.rss / MB, "PSS MB": lambda run: run.memory.pss / MB}
_COLUMNS: Mapping[str, Mapping[str, Figure]] = {
    "load": {**_CPU, **_LATENCY, **_MEMORY},
    "cold": {**_CPU, **_LATENCY},
    "scaling": {**_CPU, **_LATENCY, **_MEMORY},
    "postfix": {**_CPU, **_MEMORY},
}
_WITH_RANGE = frozenset(_CPU)


def _bar(record: Record, figure: Figure, unit: str, factor: float) -> Bar:
    colour = OWN_COLOUR if record.contender.startswith(MAILGUARD) else OTHER_COLOUR
    if record.contender.startswith("no-op"):
        colour = FLOOR_COLOUR
    if not record.runs:
        return Bar(record.contender, None, f"void: {record.void[:60]}", colour)
    spread = record.spread(lambda run: figure(run) * factor)
    return Bar(record.contender, spread, f"{_digits(spread.median)} {unit}", colour)


def _rows(records: Iterable[Record]) -> dict[str, list[Record]]:
    found: dict[str, list[Record]] = {}
    for record in records:
        found.setdefault(record.row, []).append(record)
    return found


def _row(records: Sequence[Record]) -> list[str]:
    columns = _COLUMNS[records[0].section]
    extra = list(dict.fromkeys(name for record in records for name in record.figures))
    rows = []
    for record in records:
        if not record.runs:
            reason = " ".join(record.void.split())[:MAX_REASON_CHARS] or "no figures"
            rows.append((record.contender, f"void: {reason}", *[""] * (len(columns) + len(extra) - 1)))
            continue
        cells = []
        for name, read in columns.items():
            spread = record.spread(read)
            shows_range = name in _WITH_RANGE
            cells.append(_digits(spread.median) + f" ({_digits(spread.low)} to {_digits(spread.high)})" * shows_range)
        cells[0] += _parts(record)
        cells += [_digits(Spread.of(record.figures[each]).median) if each in record.figures else "" for each in extra]
        rows.append((record.contender, *cells))
    return _table(("", *columns, *extra), rows)


def _repeated(records: Iterable[Record]) -> list[str]:
    """What was void and done again, below its table."""
    lines = []
    for record in records:
        for reason in record.repeated:
            said = " ".join(reason.split())[:MAX_REASON_CHARS]
            lines += ["", f"A run of {record.contender} was void and was repeated: {said}"]
    return lines


def _parts(record: Record) -> str:
    """What each of several daemons used."""
    names = list(record.runs[0].cpu_s)
    if len(names) < 2:
        return ""
    parts = [(name, Spread.of([run.cpu_s[name] / run.messages * 1e3 for run in record.runs])) for name in names]
    return ": " + ", ".join(f"{name} {_digits(spread.median)}" for name, spread in parts)


def _memory(records: Sequence[Record]) -> list[str]:
    rows = []
    for record in records:
        if record.void:
            rows.append((record.row, f"void: {' '.join(record.void.split())[:MAX_REASON_CHARS]}", ""))
        for name, values in record.figures.items():
            if name.startswith("RSS "):
                when = name.removeprefix("RSS ")
                pss = record.figures[f"PSS {when}"][0]
                rows.append((f"{record.row}, {when}", f"{values[0] / MB:.1f}", f"{pss / MB:.1f}"))
    return _table(("", "RSS MB", "PSS MB"), rows)


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = [heads, ["---"] * len(heads), *rows]
    return ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines]


def _digits(value: float) -> str:
    """Three significant digits, without an exponent."""
    if value >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}" if value >= 1 else f"{value:.3f}"


def _wrapped(text: str, width: int = 118) -> list[str]:
    lines = [""]
    for word in text.split(" "):
        if len(lines[-1]) + len(word) >= width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return lines


def _spread(spread: Spread) -> dict[str, float]:
    return {"median": spread.median, "low": spread.low, "high": spread.high, "count": spread.count}


def _goal(judgement: Judgement) -> dict[str, object]:
    goal = judgement.goal
    return {
        "what": goal.what,
        "own": goal.own,
        "divided_by": goal.other,
        "bound": goal.bound,
        "at_least": goal.at_least,
        "measured": None if judgement.measured is None else _spread(judgement.measured),
        "verdict": judgement.verdict,
    }


def _record(record: Record) -> dict[str, object]:
    return {
        "section": record.section,
        "row": record.row,
        "contender": record.contender,
        "void": record.void,
        "repeated": record.repeated,
        "figures": record.figures,
        "runs": [
            {
                "messages": run.messages,
                "seconds": run.seconds,
                "messages_per_second": run.messages_per_second,
                "cpu_s": run.cpu_s,
                "cpu_per_message_s": run.cpu_per_message_s,
                "p50_s": run.p50_s,
                "p95_s": run.p95_s,
                "p99_s": run.p99_s,
                "rss": run.memory.rss,
                "pss": run.memory.pss,
            }
            for run in record.runs
        ],
    }
