"""How an Explanation is printed: a tree on a terminal, plain lines elsewhere, or JSON.

All text of an Explanation is printable ASCII. Colours are for terminals alone and obey NO_COLOR, and the tree is
drawn in ASCII where the terminal knows nothing else (rich sees to both).
"""

from __future__ import annotations

import click
from rich.console import Console
from rich.text import Text
from rich.tree import Tree

from mailguard.cli.exit_code import ExitCode
from mailguard.cli.json_report import print_json
from mailguard.explain import Explanation
from mailguard.scorecard.card import Mark

__all__ = ["show", "show_scorecard"]

_GOOD = frozenset({"pass", "accept", "ok", "aligned", "usable"})
_BAD = frozenset({"fail", "permerror", "reject", "quarantine", "malformed", "not aligned", "unusable"})
_STATUS_COLOURS = {**dict.fromkeys(_GOOD, "green"), **dict.fromkeys(_BAD, "red")}
_SCORECARD_CODES = {
    Mark.OK: ExitCode.PASS,
    Mark.NOTE: ExitCode.PASS,
    Mark.UNKNOWN: ExitCode.TEMPORARY,
    Mark.PROBLEM: ExitCode.FAIL,
}


def show(explanation: Explanation, *, as_json: bool) -> None:
    """Print it to standard output."""
    if as_json:
        print_json(explanation.to_json())
        return
    console = Console(highlight=False)
    if not console.is_terminal:
        click.echo(explanation.text())
        return
    console.print(_branch(explanation))


def show_scorecard(scorecard: Explanation, *, as_json: bool) -> ExitCode:
    """Print it; how the command ends."""
    show(scorecard, as_json=as_json)
    return _SCORECARD_CODES[Mark(scorecard.status)]


def _branch(explanation: Explanation) -> Tree:
    tree = Tree(_label(explanation))
    for child in explanation.children:
        tree.add(_branch(child))
    return tree


def _label(explanation: Explanation) -> Text:
    # Text and never markup: rich would take a stranger's brackets for a style.
    label = Text.assemble(
        (explanation.title, "bold"),
        (explanation.heading.removeprefix(explanation.title), _colour(explanation.status)),
    )
    for note in explanation.notes():
        label.append(f"\n{note}")
    return label


def _colour(status: str) -> str:
    return _STATUS_COLOURS.get(status, "yellow") if status else ""
