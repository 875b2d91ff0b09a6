"""What goes wrong while daemons are compared: the row says why it is void, and the comparison goes on."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest

import cold_section
from bench_keys import BenchKeys
from bench_record import Context, Progress, Record
from compared_daemon import ComparedDaemon, DaemonError, Task
from daemon_opendkim import OpenDkim
from load_generator import LoadGenerator
from measurement import Measured
from process_usage import Memory
from report import Results
from scenarios import CHAIN, MAILGUARD, Contender, Plan

RUN = Measured(100, 2.0, {"a": 0.1}, 0.001, 0.002, 0.003, Memory(rss=2 << 20, pss=1 << 20))
Records = dict[tuple[Contender, int], Record]


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


# A daemon that does not start


class StartsOnce(OpenDkim):
    starts = 0

    def start(self) -> None:
        StartsOnce.starts += 1
        if StartsOnce.starts > 1:
            raise DaemonError("opendkim has ended: no memory")

    def stop(self) -> None:
        self.directory.rmdir()


class Starts(StartsOnce):
    def start(self) -> None:
        pass


def test_cold_rows_are_void_if_the_daemon_does_not_start_in_each_round(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    def one_round(context: Context, server: object, contender: Contender, subject: object, records: Records) -> None:
        for concurrency in cold_section.CONCURRENCIES:
            records[contender, concurrency].runs.append(RUN)
            records[contender, concurrency].figures.setdefault("rounds a message", []).append(1.0)

    contenders = (Contender(CHAIN, (StartsOnce,)), Contender(MAILGUARD, (Starts,)))
    monkeypatch.setattr(cold_section, "contenders", lambda task: contenders)
    monkeypatch.setattr(cold_section, "WITH_ONE_WORKER", ())
    monkeypatch.setattr(cold_section, "NameServer", lambda zone, *, delay_s: nullcontext())
    monkeypatch.setattr(cold_section, "zone_text", lambda domains, keys: "")
    monkeypatch.setattr(cold_section, "_round", one_round)
    monkeypatch.setattr(LoadGenerator, "forget", lambda generator: None)
    generator = LoadGenerator.__new__(LoadGenerator)
    context = replace(context, plan=replace(context.plan, rounds=3), generator=generator)
    records = cold_section.cold_section(context)
    assert [(each.contender, len(each.runs), len(each.figures)) for each in records] == [
        *((CHAIN, 0, 0) for _ in cold_section.CONCURRENCIES),
        *((MAILGUARD, 3, 1) for _ in cold_section.CONCURRENCIES),
    ]
    assert {each.void for each in records} == {"", "opendkim has ended: no memory"}
    assert {each.section for each in records} == {"cold"}
    # The goals that name it are not measured.
    Results({"cores": "2"}, [], records, {}, {}).to_json()
    # It is not tried again.
    assert StartsOnce.starts == 2
