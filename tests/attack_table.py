"""Every row of the attack table with its state, reviewed by hand; test_attack_table.py keeps it true.

The rows themselves (what comes in, what must come out) are in ATTACKS.md beside the test vectors. A test shows a
row by carrying `@pytest.mark.attack("F01")`, on the function, on a `pytest.param`, or, as `@pytest.mark.attack("F")`
on a function whose parameter ids begin with rows of that group. Run as a program, prints the rows that the tests
carry, as JSON.
"""

from __future__ import annotations

import json
import re
import sys
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import pytest

__all__ = ["TABLE", "Kind", "Row", "rows_of"]

ROW_ID = re.compile(r"[A-Z][0-9]{2}")


class Kind(Enum):
    """Where a row stands."""

    TESTED = "tested"
    PARTLY = "tested as far as it is built"
    WAITS = "waits"
    NOT_APPLICABLE = "not applicable"


@dataclass(frozen=True, slots=True)
class Row:
    """The state of one row. `why`: what it waits for, why it does not apply, or what replaces its wording."""

    kind: Kind
    why: str = ""


def shown(*, superseded_by: str = "") -> Row:
    """Tests carry the row, whole; `superseded_by` is the requirement that holds in place of the table's."""
    return Row(Kind.TESTED, superseded_by)


def partly(*, waits_for: str) -> Row:
    """Tests carry what exists of the row; the rest waits."""
    return Row(Kind.PARTLY, waits_for)


def waits_for(feature: str) -> Row:
    return Row(Kind.WAITS, feature)


def not_applicable(because: str) -> Row:
    return Row(Kind.NOT_APPLICABLE, because)


def rows_of(group: str, last: int, exceptions: dict[str, Row], *, default: Row) -> dict[str, Row]:
    """The rows 1 to `last` of a group: `default` but for the exceptions."""
    names = [f"{group}{number:02}" for number in range(1, last + 1)]
    unknown = exceptions.keys() - set(names)
    if unknown:
        raise ValueError(f"no such rows: {', '.join(sorted(unknown))}")
    return {name: exceptions.get(name, default) for name in names}


METRICS = "metrics"
REPORTS = "reports"
NO_SIGNER = "a process that holds the private keys apart from the workers is not built; docs/architecture.md says so"

TABLE: dict[str, Row] = {
    **rows_of("F", 48, {}, default=shown()),
    **rows_of("E", 20, {}, default=shown()),
    **rows_of(
        "D",
        52,
        {
            "D08": shown(superseded_by="List-* and Sender are signed when present and never oversigned"),
            "D15": partly(waits_for=METRICS),
            "D16": waits_for("a counter of signatures that are used again"),
            "D19": shown(
                superseded_by="with a list of public suffixes it never aligns; by tree walk the DNS decides"
            ),
            "D33": shown(superseded_by="of several TXT records each is tried as a key, whatever their order"),
            "D49": partly(waits_for=METRICS),
        },
        default=shown(),
    ),
    **rows_of("S", 24, {}, default=shown()),
    **rows_of(
        "M",
        13,
        {
            "M09": partly(waits_for=REPORTS),
            "M11": partly(waits_for="ARC; lists are trusted by a signature, SPF, or their host's name"),
        },
        default=shown(),
    ),
    **rows_of("A", 14, {}, default=waits_for("ARC")),
    **rows_of("R", 14, {}, default=shown()),
    **rows_of(
        "L",
        18,
        {
            "L14": shown(superseded_by="Postfix is asked for the macros, and sends them whatever main.cf says"),
        },
        default=shown(),
    ),
    **rows_of(
        "N",
        20,
        {
            "N02": shown(
                superseded_by="there is no gauge: the log has it at the start and at each reload, doctor has it; the"
                " TLS policy server does not take resolvers over by which trust would be lost"
            ),
            "N13": not_applicable("an answer that has expired is never used"),
        },
        default=shown(),
    ),
    **rows_of(
        "T",
        18,
        {
            **{f"T{number:02}": shown() for number in (1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 15, 16, 17)},
            "T10": shown(
                superseded_by="a max_age of 11 digits or more is malformed, as the grammar has it; of 10 it is cut"
            ),
            "T14": shown(superseded_by="the file is SQLite's, whose transactions take the place of replacing it"),
        },
        default=shown(
            superseded_by="no reports are sent; nothing that the daemon runs could ask a web server or send mail"
        ),
    ),
    **rows_of(
        "X",
        15,
        {
            "X02": shown(superseded_by="the same with 3.7 and 3.10; contrib/test-release.sh tests with others"),
            "X04": shown(superseded_by="the memory of a warm worker rises by at most 5 MB with 25 and 50 MB"),
        },
        default=shown(),
    ),
    **rows_of(
        "P",
        28,
        {
            "P14": not_applicable("Postfix cuts a field at 60,000 octets, and no other mail server is served"),
            "P23": shown(
                superseded_by="the same with 3.11, 3.13 and 3.14; contrib/test-release.sh tests with others"
            ),
        },
        default=shown(),
    ),
    **rows_of(
        "V",
        27,
        {
            "V10": partly(waits_for=METRICS),
            "V13": partly(waits_for=f"{REPORTS}; shown for traces"),
            "V14": partly(waits_for=f"{REPORTS}; shown for traces"),
            "V19": waits_for(METRICS),
            "V20": not_applicable("no SHA-1 is computed: rsa-sha1 is refused by its name"),
            "V23": waits_for(METRICS),
            "V27": waits_for("a test over days"),
        },
        default=shown(),
    ),
    **rows_of(
        "K",
        14,
        {
            "K04": not_applicable(NO_SIGNER),
            "K05": not_applicable(NO_SIGNER),
            "K13": partly(waits_for="an audit of the dependencies for each release"),
        },
        default=shown(),
    ),
    **rows_of(
        "G",
        8,
        {
            "G01": shown(),
            "G02": shown(),
            "G03": waits_for(METRICS),
            "G08": waits_for("local parts left out of the log"),
        },
        default=waits_for(REPORTS),
    ),
    **rows_of(
        "C",
        20,
        {"C20": waits_for(REPORTS)},
        default=shown(),
    ),
}


class _Collector:
    """A pytest plugin that notes which test carries which rows."""

    def __init__(self) -> None:
        self.found: dict[str, list[str]] = {}

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        for item in items:
            callspec = getattr(item, "callspec", None)
            parameters = callspec.id if callspec is not None else ""
            for mark in item.iter_markers("attack"):
                for row in mark.args:
                    if ROW_ID.fullmatch(row):
                        self.found.setdefault(row, []).append(item.nodeid)
                        continue
                    # A whole group: the row is what the parameters begin with.
                    match = ROW_ID.match(parameters)
                    own = match[0] if match and match[0].startswith(row) else f"{row}?"
                    self.found.setdefault(own, []).append(item.nodeid)


def main() -> int:
    collector = _Collector()
    arguments = ["--collect-only", "--quiet", "--quiet", "-p", "no:cacheprovider"]
    code = pytest.main([*arguments, str(Path(__file__).parent)], plugins=[collector])
    sys.stdout.write("\n" + json.dumps(collector.found))
    return int(code)


if __name__ == "__main__":
    sys.exit(main())
