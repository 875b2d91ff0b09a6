"""The bar charts of a run: for each section, and for each figure that is worth a chart. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bar_chart import FLOOR_COLOUR, NATIVE_COLOUR, OTHER_COLOUR, OWN_COLOUR, Bar, Panel, chart
from bench_record import Record, by_row
from goals import Figure, cpu, p50, p99, rate
from scenarios import FLOOR, MAILGUARD, NATIVE
from spread import digits

__all__ = ["result_charts"]

_TITLES = {
    "cpu": "CPU a message (user and system, all processes)",
    "rate": "messages a second",
    "latency": "latency, p50",
    "tail": "latency, p99",
}
_FIGURES: Mapping[str, Mapping[str, tuple[Figure, str, float]]] = {
    "load": {"cpu": (cpu, "ms", 1e3), "rate": (rate, "/s", 1.0)},
    "postfix": {"cpu": (cpu, "ms", 1e3), "rate": (rate, "/s", 1.0)},
    "cold": {"latency": (p50, "ms", 1e3)},
    "waiting": {"tail": (p99, "ms", 1e3)},
}
_KINDS = (
    ("load", "signing", "sign"),
    ("load", "inbound", "inbound"),
    ("postfix", "postfix", ""),
    ("cold", "cold", ""),
    ("waiting", "waiting", ""),
)


def result_charts(records: Sequence[Record], machine: Mapping[str, str], remarks: Sequence[str]) -> dict[str, str]:
    """SVG documents by the name of their file."""
    notes = [*remarks, *_about(machine)]
    found = {}
    for section, kind, start in _KINDS:
        rows = by_row(each for each in records if each.section == section and each.row.startswith(start))
        if not any(record.runs for mine in rows.values() for record in mine):
            continue
        for name, (figure, unit, factor) in _FIGURES[section].items():
            panels = [
                Panel(row, [_bar(record, figure, unit, factor) for record in mine])
                for row, mine in rows.items()
                if any(record.runs for record in mine)
            ]
            found[f"{kind}-{name}.svg"] = chart(f"{kind}: {_TITLES[name]}", panels, notes)
    return found


def _about(machine: Mapping[str, str]) -> list[str]:
    names = ("processor", "cores", "system", "date")
    about = "; ".join(f"{name}: {machine[name]}" for name in names if name in machine)
    versions = "; ".join(f"{name} {value}" for name, value in machine.items() if name.endswith("(Debian)"))
    return [
        *_wrapped(about),
        *_wrapped(versions),
        "Bars: medians of the rounds. Lines: from the lowest to the highest.",
    ]


def _colour(contender: str) -> str:
    if contender in FLOOR:
        return FLOOR_COLOUR
    if contender.startswith(NATIVE):
        return NATIVE_COLOUR
    return OWN_COLOUR if contender.startswith(MAILGUARD) else OTHER_COLOUR


def _bar(record: Record, figure: Figure, unit: str, factor: float) -> Bar:
    colour = _colour(record.contender)
    if not record.runs:
        return Bar(record.contender, None, f"void: {record.void[:60]}", colour)
    spread = record.spread(lambda run: figure(run) * factor)
    return Bar(record.contender, spread, f"{digits(spread.median)} {unit}", colour)


def _wrapped(text: str, width: int = 118) -> list[str]:
    lines = [""]
    for word in text.split(" "):
        if len(lines[-1]) + len(word) >= width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return lines
