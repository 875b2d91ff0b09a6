"""What goes wrong while daemons are compared: the row says why it is void, and the comparison goes on."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bench_keys import BenchKeys
from bench_record import Context, Progress, Record
from compared_daemon import ComparedDaemon, Task
from daemon_opendkim import OpenDkim
from scenarios import Plan


@pytest.fixture
def context(tmp_path: Path) -> Context:
    # Neither keys nor a load generator are used.
    return Context(Plan.quick(), None, None, Progress(io.StringIO()), {}, tmp_path)  # type: ignore[arg-type]


# A daemon that dies


class Dead(OpenDkim):
    """What is left of one that was there a moment ago."""

    def __init__(self, directory: Path) -> None:
        super().__init__(Task.JUDGE, BenchKeys.generate())
        self.directory = directory
        (directory / "log").write_text("out of memory\n")

    def processes(self) -> list[int]:
        with subprocess.Popen([sys.executable, "-c", ""]) as ended:
            pass
        return [ended.pid]


@pytest.mark.parametrize("ask", [ComparedDaemon.negotiated, ComparedDaemon.memory], ids=["before", "after"])
def test_a_daemon_that_has_died_makes_its_row_void(
    context: Context, tmp_path: Path, ask: Callable[[ComparedDaemon], object]
) -> None:
    record = Record("load", "row", "opendkim")
    assert context.attempt_twice(record, ask, Dead(tmp_path)) is None
    for said in (*record.repeated, record.void):
        assert "opendkim" in said
        assert "out of memory" in said
