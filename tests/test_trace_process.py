"""The supervisor's hold on the process that writes traces: one at a time, through deaths and reloads."""

from __future__ import annotations

import os
import re
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from daemon_process import eventually, writers
from judged_messages import judge_message
from mailguard.trace import MAX_TRACE_BYTES, Trace
from mailguard.trace_reader import TraceReader
from mailguard.trace_store import Row
from mailguard_milter import trace_process
from mailguard_milter.trace_pipe import pack
from mailguard_milter.trace_process import TraceProcess
from trace_rows import queue_ids
from trace_rows import row as row_of
from zone0 import ke, mail, sign_as

PATIENCE_S = 60.0


@pytest.fixture(scope="module")
def trace() -> Trace:
    # Of now: an older one would be deleted at once.
    return judge_message(sign_as(ke(), mail("<x@bank.test>")), now=time.time()).trace()


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "trace.sqlite")


def row(trace: Trace, number: int = 0) -> Row:
    return row_of(trace, number, at=trace.now)


@pytest.fixture
def process() -> Iterator[TraceProcess]:
    made = TraceProcess()
    yield made
    made.end()
    made.kill()


def settings(path: str, **more: object) -> Mapping[str, object]:
    return {"path": path, "max_days": 7, "max_megabytes": 64, **more}


def send(descriptor: int | None, *rows: Row) -> None:
    """As a worker of a generation does that has inherited the descriptor."""
    assert descriptor is not None
    with socket.socket(fileno=os.dup(descriptor)) as pipe:
        for each in rows:
            pipe.send(pack(each))


def pid_of(process: TraceProcess) -> int:
    assert process._process is not None
    return process._process.pid


def tended(process: TraceProcess, what: Callable[[], object]) -> Callable[[], object]:
    """`what`, looked at as often as the supervisor's steps come."""

    def step() -> object:
        process.tend()
        return what()

    return step


def test_what_workers_send_is_written(process: TraceProcess, path: str, trace: Trace) -> None:
    pipe = process.pipe_for(settings(path))
    process.adopt(settings(path))
    send(pipe, *(row(trace, n) for n in range(300)))
    eventually(lambda: queue_ids(path) == [f"{n:08X}" for n in range(300)])
    with TraceReader(path) as reader:
        found = reader.find("00000007")
    assert found is not None
    assert found.trace == replace(trace, queue_id="00000007")


def test_the_largest_trace_goes_through_in_one_piece(process: TraceProcess, path: str, trace: Trace) -> None:
    pipe = process.pipe_for(settings(path))
    process.adopt(settings(path))
    columns = dict.fromkeys(("domain", "rule", "reason", "client", "disposition", "would"), "\\" * 600)
    largest = row(trace, 1)._replace(content=os.urandom(MAX_TRACE_BYTES), **columns)  # type: ignore[arg-type]  # texts
    send(pipe, largest, row(trace, 2))
    eventually(lambda: queue_ids(path) == ["00000001", "00000002"])


def test_a_writer_that_dies_is_replaced_and_nothing_on_the_way_is_lost(
    process: TraceProcess, path: str, trace: Trace, capfd: pytest.CaptureFixture[str]
) -> None:
    pipe = process.pipe_for(settings(path))
    process.adopt(settings(path))
    send(pipe, row(trace, 1))
    eventually(lambda: queue_ids(path) == ["00000001"])
    victim = pid_of(process)
    os.kill(victim, signal.SIGKILL)
    assert process._process is not None
    process._process.wait()
    # Nobody reads now.
    send(pipe, row(trace, 2))
    eventually(tended(process, lambda: queue_ids(path) == ["00000001", "00000002"]))
    assert pid_of(process) != victim
    assert re.search(
        rf'event="the trace writer died" pid={victim} status=-9 again_in_s=0.000', capfd.readouterr().err
    )


def test_one_that_keeps_dying_is_started_less_and_less_often(path: str, capfd: pytest.CaptureFixture[str]) -> None:
    process = TraceProcess(command=(sys.executable, "-c", "raise SystemExit(3)"))
    process.pipe_for(settings(path))
    process.adopt(settings(path))
    err = []

    def delays() -> list[str]:
        process.tend()
        err.append(capfd.readouterr().err)
        return re.findall(r"status=3 again_in_s=([0-9.]+)", "".join(err))

    eventually(lambda: len(delays()) >= 3)
    assert delays()[:3] == ["0.000", "0.500", "1.000"]
    # After a reload it is tried at once.
    process.adopt(settings(path))
    assert process._process is not None
    eventually(lambda: len(delays()) >= 4)
    assert delays()[3] == "0.000"
    process.end()


@pytest.mark.parametrize("change", ["path", "max_days"])
def test_a_reload_replaces_the_writer_and_there_is_never_more_than_one(
    process: TraceProcess, tmp_path: Path, path: str, trace: Trace, change: str
) -> None:
    other = str(tmp_path / "other.sqlite") if change == "path" else path
    fresh = settings(other, **({"max_days": 30} if change == "max_days" else {}))
    pipe = process.pipe_for(settings(path))
    process.adopt(settings(path))
    send(pipe, row(trace, 1))
    eventually(lambda: queue_ids(path) == ["00000001"])
    first, old_process = pid_of(process), process._process
    # The new generation gets the same pipe as the old one, which drains.
    assert process.pipe_for(fresh) == pipe
    process.adopt(fresh)

    def written() -> bool:
        assert len(writers(path, other)) <= 1
        send(pipe, row(trace, 2))
        return process._process is not None and pid_of(process) != first and "00000002" in queue_ids(other)

    eventually(tended(process, written))
    # It was asked, and closed its database.
    assert old_process is not None
    assert old_process.returncode == 0


def test_a_reload_without_a_change_leaves_it_alone(process: TraceProcess, path: str) -> None:
    process.pipe_for(settings(path))
    process.adopt(settings(path))
    first = pid_of(process)
    process.pipe_for(settings(path))
    process.adopt(settings(path))
    process.tend()
    assert pid_of(process) == first


def test_switched_off_by_a_reload_it_ends_and_old_workers_know(
    process: TraceProcess, path: str, trace: Trace
) -> None:
    pipe = process.pipe_for(settings(path))
    process.adopt(settings(path))
    assert pipe is not None
    old_worker = socket.socket(fileno=os.dup(pipe))
    send(pipe, row(trace, 1))
    eventually(lambda: queue_ids(path) == ["00000001"])
    process.adopt(None)
    eventually(tended(process, lambda: process._process is None))
    with pytest.raises(OSError, match="Broken pipe"):
        old_worker.send(b"x")
    old_worker.close()
    # And on again.
    pipe = process.pipe_for(settings(path))
    # Steps of the supervisor, until the new generation is ready.
    process.tend()
    process.adopt(settings(path))
    send(pipe, row(trace, 2))
    eventually(tended(process, lambda: queue_ids(path) == ["00000001", "00000002"]))


def test_where_nothing_is_to_be_kept_there_is_neither_pipe_nor_writer(process: TraceProcess) -> None:
    assert process.pipe_for(None) is None
    process.adopt(None)
    process.tend()
    assert process._process is None
    process.end()


def test_at_the_end_all_that_was_sent_is_written(path: str, trace: Trace, monkeypatch: pytest.MonkeyPatch) -> None:
    # It has only begun to start, which takes long on a machine under load.
    monkeypatch.setattr(trace_process, "END_TIMEOUT_S", PATIENCE_S)
    process = TraceProcess()
    pipe = process.pipe_for(settings(path))
    process.adopt(settings(path))
    send(pipe, *(row(trace, n) for n in range(50)))
    process.end()
    assert process._process is not None
    assert process._process.returncode == 0
    assert not os.path.exists(path + "-wal")
    assert len(queue_ids(path)) == 50


def test_when_the_supervisor_is_gone_it_serves_the_workers_that_are_left_and_ends_with_them(
    path: str, trace: Trace
) -> None:
    process = TraceProcess()
    pipe = process.pipe_for(settings(path))
    assert pipe is not None
    worker = socket.socket(fileno=os.dup(pipe))
    process.adopt(settings(path))
    assert process._process is not None
    process._close_pipe()
    worker.send(pack(row(trace, 1)))
    eventually(lambda: queue_ids(path) == ["00000001"])
    assert process._process.poll() is None
    worker.close()
    assert process._process.wait(PATIENCE_S) == 0


def test_one_that_does_not_end_is_killed(
    path: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(trace_process, "END_TIMEOUT_S", 0.2)
    deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
    process = TraceProcess(command=(sys.executable, "-c", deaf))
    process.pipe_for(settings(path))
    process.adopt(settings(path))
    deaf_process = process._process
    assert deaf_process is not None
    process.end()
    assert deaf_process.wait(PATIENCE_S) == -signal.SIGKILL
    assert "the trace writer does not end and is killed" in capfd.readouterr().err


def test_a_database_that_cannot_be_made_is_said_once_with_the_remedy(
    process: TraceProcess, tmp_path: Path, trace: Trace, capfd: pytest.CaptureFixture[str]
) -> None:
    nowhere = str(tmp_path / "none" / "trace.sqlite")
    pipe = process.pipe_for(settings(nowhere))
    process.adopt(settings(nowhere))
    said: list[str] = []

    def lines() -> list[str]:
        said.extend(capfd.readouterr().err.splitlines())
        return said

    eventually(lines)
    send(pipe, *(row(trace, n) for n in range(10)))
    process.end()
    first, last = lines()
    assert 'event="traces are not written; mail is not concerned"' in first
    assert "install -d" in first
    assert 'event="traces were not written"' in last
    assert "count=10" in last
