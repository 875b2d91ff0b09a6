"""What `mailguard dns --diff` prints: a line for each record at each server, those that agree taken together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from mailguard.cli.exit_code import ExitCode
from mailguard.cli.printable import printable
from mailguard.records.compare import Comparison, State

__all__ = ["comparison_json", "comparison_text", "exit_code"]


def exit_code(compared: Sequence[Comparison]) -> ExitCode:
    """What is wrong weighs more than what is not known."""
    states = {each.state for each in compared}
    if states & {State.MISSING, State.DIFFERENT, State.EXTRA}:
        return ExitCode.FAIL
    return ExitCode.TEMPORARY if State.BROKEN in states else ExitCode.PASS


def comparison_json(compared: Sequence[Comparison]) -> list[dict[str, object]]:
    """Everything, for programs."""
    return [
        {
            "state": each.state.value,
            "name": each.name,
            "type": each.rdtype,
            "server": each.server,
            "wanted": each.wanted or None,
            "found": list(each.found),
            "detail": each.detail or None,
        }
        for each in compared
    ]


def comparison_text(compared: Sequence[Comparison]) -> str:
    """For people: servers that say the same share a line."""
    groups: dict[Comparison, list[str]] = {}
    for each in compared:
        groups.setdefault(replace(each, server=""), []).append(each.server)
    lines = [line for same, servers in groups.items() for line in _lines(same, servers)]
    counts = {state: sum(each.state is state for each in compared) for state in State}
    total = ", ".join(f"{count} {state.value}" for state, count in counts.items() if count)
    return "\n".join([*lines, f"{total or 'nothing to compare'}"])


def _lines(same: Comparison, servers: Sequence[str]) -> Iterator[str]:
    yield f"{same.state.value:9} {same.name} {same.rdtype}: {', '.join(servers)}"
    if same.state is State.PRESENT:
        return
    if same.wanted:
        yield f"          publish: {same.wanted}"
    for value in same.found:
        yield f"          there is: {printable(value)}"
    if same.detail:
        yield f"          {same.detail}"
