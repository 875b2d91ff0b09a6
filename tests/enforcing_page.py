"""docs/enforcing-senders.md as what is to be done: its commands and blocks by section, and its tables."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from source_tree import ROOT

__all__ = ["PAGE", "SENDERS", "Step", "commands_for_docker", "rows", "sections", "steps"]

PAGE = ROOT / "docs" / "enforcing-senders.md"
SENDERS = PAGE.with_name("senders.md")


@dataclass(frozen=True, slots=True)
class Step:
    """A command ("run"), or a block with the language that its fence names."""

    kind: str
    text: str


def sections() -> dict[str, list[Step]]:
    """What is to be done, by the headings."""
    found: dict[str, list[Step]] = {}
    heading = ""
    pattern = r"^#{2,3} (?P<heading>[^\n]*)$|^```(?P<kind>\S+)\n(?P<block>.*?)^```$|^    (?P<run>\S[^\n]*)$"
    for match in re.finditer(pattern, PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL):
        if match["heading"] is not None:
            heading = match["heading"]
        elif match["run"] is not None:
            found.setdefault(heading, []).append(Step("run", match["run"]))
        else:
            found.setdefault(heading, []).append(Step(match["kind"], match["block"]))
    return found


def steps(name: str) -> list[Step]:
    """Those below the heading that begins so."""
    (found,) = [each for heading, each in sections().items() if heading.startswith(name)]
    return found


def rows(text: str) -> Iterator[list[str]]:
    """The cells of a table of two columns, without the marks of code."""
    for line in re.findall(r"^\| (`.*) \|$", text, re.MULTILINE):
        yield [cell.strip().strip("`").replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)]


def commands_for_docker() -> list[tuple[str, str]]:
    """What the page says to write in place of what, the longest first."""
    section = PAGE.read_text("utf-8").partition("### docker-mailserver")[2].partition("\n## ")[0]
    return sorted(((old, new) for old, new in rows(section)), key=lambda pair: -len(pair[0]))
