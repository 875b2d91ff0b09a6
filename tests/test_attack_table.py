"""The reviewed table of attacks is complete, and what it calls tested is."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from attack_table import TABLE, Kind, Row, rows_of

HERE = Path(__file__).resolve().parent


def _attacks_file() -> Path:
    vectors = os.environ.get("MAILGUARD_VECTORS")
    shared = Path(vectors).parent if vectors else HERE.parents[1] / "shared"
    return shared / "ATTACKS.md"


@pytest.fixture(scope="module")
def rows() -> frozenset[str]:
    """The ids in ATTACKS.md: the first cell of its tables, and the list of section C."""
    path = _attacks_file()
    if not path.is_file():
        pytest.skip(f"{path} is not here (set MAILGUARD_VECTORS to the folder of vectors beside it)")
    text = path.read_text("utf-8")
    complexity = text[text.index("## 16. C") :]
    return frozenset(
        re.findall(r"^\| ([A-Z][0-9]{2}) \|", text, re.MULTILINE) + re.findall(r"\bC[0-9]{2}\b", complexity)
    )


@pytest.fixture(scope="module")
def carried() -> dict[str, list[str]]:
    """The rows that tests carry, as a pytest of its own collects them."""
    done = subprocess.run(
        [sys.executable, str(HERE / "attack_table.py")], capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    found: dict[str, list[str]] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_no_row_is_missing(rows: frozenset[str]) -> None:
    assert len(rows) > 300, "ATTACKS.md was not read as it is written"
    assert not sorted(rows - TABLE.keys())


def test_no_row_is_invented(rows: frozenset[str]) -> None:
    assert not sorted(TABLE.keys() - rows)


def test_every_row_that_is_called_tested_has_a_test(carried: dict[str, list[str]]) -> None:
    claimed = {name for name, row in TABLE.items() if row.kind in (Kind.TESTED, Kind.PARTLY)}
    missing = sorted(claimed - carried.keys())
    assert not missing, " ".join(missing)


def test_every_row_that_a_test_carries_is_in_the_table_as_tested(carried: dict[str, list[str]]) -> None:
    wrong = {
        name: tests[:3]
        for name, tests in carried.items()
        if name not in TABLE or TABLE[name].kind in (Kind.WAITS, Kind.NOT_APPLICABLE)
    }
    assert not wrong, wrong


def test_every_state_gives_its_reason() -> None:
    assert not [name for name, row in TABLE.items() if row.kind is not Kind.TESTED and len(row.why) < 3]
    assert len(TABLE) == 333 + 20


def test_a_row_that_does_not_exist_cannot_be_given_a_state() -> None:
    with pytest.raises(ValueError, match="F03"):
        rows_of("F", 2, {"F03": Row(Kind.TESTED)}, default=Row(Kind.TESTED))
