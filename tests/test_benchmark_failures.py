"""What goes wrong while daemons are compared, and before: a row is void and says why, and the comparison goes on."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest

import cold_section
import compare
import compared_daemon
from bench_keys import BenchKeys
from bench_record import Context, Progress, Record
from compared_daemon import ComparedDaemon, DaemonError, Task
from daemon_opendkim import OpenDkim
from load_generator import LoadGenerator
from measurement import Measured
from process_usage import Memory, is_running
from report import Results
from scenarios import CHAIN, MAILGUARD, Contender, Plan

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"
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


class Stubborn(OpenDkim):
    """Neither it nor its child ends when it is asked to."""

    def __init__(self, directory: Path) -> None:
        super().__init__(Task.JUDGE, BenchKeys.generate())
        self.directory = directory
        command = "trap '' TERM; sleep 60 & echo; wait"
        self._process = subprocess.Popen(["sh", "-c", command], stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        self._process.stdout.readline()
        self._process.stdout.close()


def test_processes_that_do_not_end_are_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compared_daemon, "STOP_TIMEOUT_S", 0.5)
    daemon = Stubborn(tmp_path / "of its own")
    processes = daemon.processes()
    assert len(processes) == 2
    daemon.stop()
    assert not any(map(is_running, processes))


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


# A run that is interrupted

INTERRUPTED = """
import os, signal, sys, time
from pathlib import Path
import compare
import compared_daemon
from bench_record import Context, Record

def run(context: Context) -> list[Record]:
    subdirectory = context.directory / "there"
    subdirectory.mkdir()
    print(subdirectory)
    try:
        os.kill(os.getpid(), int(sys.argv[2]))
        time.sleep(0.1)
        print("not interrupted")
    finally:
        print("ended")
    return []

compare.SECTIONS["sign"] = compare.Section(run, lambda plan: 0.0)
sys.exit(compare.main(["--only", "sign", "--out", sys.argv[1]]))
"""

needs_gcc = pytest.mark.skipif(shutil.which("gcc") is None, reason="no gcc")


def interrupted(tmp_path: Path, number: signal.Signals, *before: str) -> subprocess.CompletedProcess[str]:
    paths = (BENCHMARKS, *(BENCHMARKS.parent / each for each in ("contrib", "src", "milter")))
    program = (sys.executable, "-c", INTERRUPTED)
    return subprocess.run(
        # A shell has what it starts in the background ignore SIGINT, and so do the children of that.
        ["env", "--default-signal", *before, *program, tmp_path / "results", str(int(number))],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths)), "MAILGUARD_BENCHMARK_NETWORK": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


@needs_gcc
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_interrupted_run_ends_what_it_has_started(tmp_path: Path, number: signal.Signals) -> None:
    done = interrupted(tmp_path, number)
    directory, *said = done.stdout.splitlines()
    assert (done.returncode, said) == (130, ["ended"])
    assert not Path(directory).parent.exists()
    assert "interrupted" in done.stderr
    assert "Traceback" not in done.stderr


@needs_gcc
def test_run_goes_on_without_its_terminal_if_nohup_says_so(tmp_path: Path) -> None:
    done = interrupted(tmp_path, signal.SIGHUP, "nohup")
    assert (done.returncode, done.stdout.splitlines()[1:]) == (0, ["not interrupted", "ended"])
    assert (tmp_path / "results" / "results.json").exists()


# What it is called with


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--help"], 0, "--rounds N"),
        (["--quick", "--help"], 0, "--rounds N"),
        (["--quik"], 1, "there is no option --quik"),
        (["sign"], 1, "there is no option sign"),
        (["--quick", "--out"], 1, "--out needs a value"),
        (["--quick", "--replace-mta"], 1, "--replace-mta comes first"),
    ],
    ids=["help", "help later", "misspelt", "no option", "no value", "order"],
)
def test_options_are_looked_at_before_anything_is_installed(
    tmp_path: Path, arguments: list[str], code: int, said: str
) -> None:
    """Of a copy: there is nothing beside it that could install."""
    (tmp_path / "benchmarks").mkdir()
    script = shutil.copy(BENCHMARKS / "run.sh", tmp_path / "benchmarks")
    done = subprocess.run(["sh", script, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == code
    assert said in (done.stderr if code else done.stdout)


@pytest.mark.parametrize(
    "arguments", [["--rounds", "0"], ["--rounds", "-1"], ["--seconds", "0"], ["--seconds", "nan"]]
)
def test_figures_that_measure_nothing_are_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        compare.main(arguments)
    assert f"argument {arguments[0]}: " in capsys.readouterr().err


def test_place_of_the_results_is_tried_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("MAILGUARD_BENCHMARK_NETWORK", "1")
    monkeypatch.setattr(compare, "SECTIONS", {"sign": None})
    assert compare.main(["--out", str(tmp_path / "file" / "results")]) == 2
    assert capsys.readouterr().err == f"--out: {tmp_path / 'file' / 'results'}: Not a directory\n"


@pytest.mark.parametrize(
    ("arguments", "remark"),
    [([], ""), (["--rounds", "2", "--seconds", "0.5"], "as it was asked for: 2 rounds, and measurements of 0.5 s")],
    ids=["usual", "otherwise"],
)
@needs_gcc
def test_results_say_that_less_was_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], remark: str
) -> None:
    monkeypatch.setenv("MAILGUARD_BENCHMARK_NETWORK", "1")
    monkeypatch.setattr(compare, "SECTIONS", {"sign": compare.Section(lambda context: [], lambda plan: 0.0)})
    monkeypatch.setattr(compare, "interrupt_on_signals", lambda: None)
    monkeypatch.setattr(compare, "busy_with", lambda: "")
    assert compare.main(["--only", "sign", "--out", str(tmp_path), *arguments]) == 0
    assert json.loads((tmp_path / "results.json").read_text())["remarks"] == [remark] * bool(remark)
