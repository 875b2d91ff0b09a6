"""Bar charts as SVG, written directly: a panel for each row, a bar for each contender, a line for its spread. Pure.

SVG 1.1. The text is black or grey on white, and colours tell nothing that the labels do not. Each panel has its own
scale, from zero; there are no logarithms.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

from spread import Spread

__all__ = ["Bar", "Panel", "chart"]

WIDTH = 860
LABEL_WIDTH = 270
VALUE_WIDTH = 150
BAR_HEIGHT = 16
BAR_STEP = 22
PANEL_GAP = 26
TITLE_HEIGHT = 30
NOTE_HEIGHT = 15
OWN_COLOUR, NATIVE_COLOUR, OTHER_COLOUR, FLOOR_COLOUR = "#1f6feb", "#8250df", "#9aa4b2", "#d5dae1"


@dataclass(frozen=True, slots=True)
class Bar:
    """One contender. Without a value it says why."""

    label: str
    value: Spread | None
    text: str
    """Beside the bar: the value with its unit, or why there is none."""
    colour: str = OTHER_COLOUR


@dataclass(frozen=True, slots=True)
class Panel:
    """One row of the results."""

    title: str
    bars: Sequence[Bar]


def chart(title: str, panels: Sequence[Panel], notes: Iterable[str]) -> str:
    """The document. `notes` go below, one to a line: the machine, the versions, what the lines mean."""
    body: list[str] = [_text(16, 26, title, size=17, weight="bold")]
    y = 26 + TITLE_HEIGHT
    for panel in panels:
        body.append(_text(16, y, panel.title, size=13, weight="bold"))
        y += 10
        highest = max((bar.value.high for bar in panel.bars if bar.value is not None), default=0.0)
        for bar in panel.bars:
            body += _bar(bar, y, highest)
            y += BAR_STEP
        y += PANEL_GAP
    for note in notes:
        body.append(_text(16, y, note, size=11, colour="#57606a"))
        y += NOTE_HEIGHT
    height = y + 6
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}"'
        f' font-family="sans-serif" role="img" aria-label="{escape(title)}">\n'
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>\n' + "\n".join(body) + "\n</svg>\n"
    )


def _bar(bar: Bar, y: int, highest: float) -> list[str]:
    middle = y + BAR_HEIGHT - 4
    found = [_text(LABEL_WIDTH - 8, middle, bar.label, size=12, anchor="end")]
    if bar.value is None or highest <= 0:
        return [*found, _text(LABEL_WIDTH, middle, bar.text, size=11, colour="#57606a")]
    scale = (WIDTH - LABEL_WIDTH - VALUE_WIDTH) / highest
    length = max(bar.value.median * scale, 1.0)
    low, high = LABEL_WIDTH + bar.value.low * scale, LABEL_WIDTH + bar.value.high * scale
    line = y + BAR_HEIGHT / 2
    return [
        *found,
        f'<rect x="{LABEL_WIDTH}" y="{y}" width="{length:.1f}" height="{BAR_HEIGHT}" fill="{bar.colour}"/>',
        f'<path d="M{low:.1f} {line:.1f}H{high:.1f}M{low:.1f} {y + 4}V{y + BAR_HEIGHT - 4}'
        f'M{high:.1f} {y + 4}V{y + BAR_HEIGHT - 4}" stroke="#24292f" stroke-width="1" fill="none"/>',
        _text(max(LABEL_WIDTH + length, high) + 8, middle, bar.text, size=12),
    ]


def _text(
    x: float,
    y: float,
    text: str,
    *,
    size: int,
    weight: str = "normal",
    anchor: str = "start",
    colour: str = "#24292f",
) -> str:
    return (
        f'<text x="{x:.0f}" y="{y:.0f}" font-size="{size}" font-weight="{weight}" text-anchor="{anchor}"'
        f' fill="{colour}">{escape(text)}</text>'
    )
