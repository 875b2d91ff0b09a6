"""The results as JSON, as tables in Markdown and as bar charts. Pure: where they go is the caller's business.

Every figure is the median of the rounds, with the lowest and the highest beside it where there is room. A void row
has no figures and says why.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass

from bench_record import Record, by_row
from goals import Figure, Judgement, cpu, goals_for, judge_goals, judge_limits, p50, p99, rate
from overview import overview
from result_charts import result_charts
from spread import Spread, digits

__all__ = ["Results"]

MB = 1024 * 1024
MAX_REASON_CHARS = 160
_HEADS: Mapping[str, str] = {
    "load": "Warm caches",
    "cold": "Cold caches and a slow DNS",
    "waiting": "Mail that waits for the DNS",
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
        heads, rows_at_a_glance = overview(self.records)
        parts += ["## At a glance", "", *_table(heads, rows_at_a_glance)]
        parts += ["", "## Goals", "", *self._goals(), "", "## The machine", ""]
        parts += _table(("machine", ""), [(name, value) for name, value in self.machine.items()])
        if self.floor:
            parts += ["", "## The operations alone (CPU)", "", *self._floor()]
        parts += ["", *(f"![{name}]({name})" for name in charts)]
        for section, head in _HEADS.items():
            rows = by_row(record for record in self.records if record.section == section)
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
            rows.append((goal.what, goal.own, goal.other, bound, value, judgement.verdict))
        rows += [
            (limit.what, limit.own, "", limit.bound, limit.measured, limit.verdict)
            for limit in judge_limits(self.records)
        ]
        return _table(("what", "whose", "divided by", "goal", "measured", ""), rows)

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
        return result_charts(self.records, self.machine, self.remarks)


_CPU: Mapping[str, Figure] = {"CPU ms a message": lambda run: cpu(run) * 1e3, "messages/s": rate}
_LATENCY: Mapping[str, Figure] = {
    "p50 ms": lambda run: p50(run) * 1e3,
    "p95 ms": lambda run: run.p95_s * 1e3,
    "p99 ms": lambda run: p99(run) * 1e3,
}
_MEMORY: Mapping[str, Figure] = {"RSS MB": lambda run: run.memory.rss / MB, "PSS MB": lambda run: run.memory.pss / MB}
_COLUMNS: Mapping[str, Mapping[str, Figure]] = {
    "load": {**_CPU, **_LATENCY, **_MEMORY},
    "cold": {**_CPU, **_LATENCY},
    "waiting": _LATENCY,
    "scaling": {**_CPU, **_LATENCY, **_MEMORY},
    "postfix": {**_CPU, **_MEMORY},
}
_WITH_RANGE = frozenset(_CPU)


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
            cells.append(digits(spread.median) + f" ({digits(spread.low)} to {digits(spread.high)})" * shows_range)
        cells[0] += _parts(record)
        cells += [digits(Spread.of(record.figures[each]).median) if each in record.figures else "" for each in extra]
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
    return ": " + ", ".join(f"{name} {digits(spread.median)}" for name, spread in parts)


def _memory(records: Sequence[Record]) -> list[str]:
    rows = []
    for record in records:
        if record.void:
            reason = " ".join(record.void.split())[:MAX_REASON_CHARS]
            rows.append((f"{record.contender}, {record.row}", f"void: {reason}", ""))
        for name, values in record.figures.items():
            if name.startswith("RSS "):
                when = name.removeprefix("RSS ")
                pss = record.figures[f"PSS {when}"][0]
                rows.append((f"{record.contender}, {record.row}, {when}", f"{values[0] / MB:.1f}", f"{pss / MB:.1f}"))
    return _table(("", "RSS MB", "PSS MB"), rows)


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = [heads, ["---"] * len(heads), *rows]
    return ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines]


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
