"""Traces on their way from the workers into the database, whatever becomes of the writer, the disk or the file.

ATTACKS.md rows, for this database: V13, V14. Mail is never concerned: what cannot be kept is dropped and counted.
"""

from __future__ import annotations

import json
import math
import os
import random
import re
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from daemon_process import eventually
from judged_messages import judge_message
from mailguard.message import HeaderField, Message
from mailguard.trace import MAX_TRACE_BYTES, Trace
from mailguard.trace_store import Row, TraceStore
from mailguard_milter import trace_pipe
from mailguard_milter.log import Format, Log, Severity, Sink
from mailguard_milter.trace_pipe import MAX_PACKET_BYTES, TraceSender, pack, unpack
from mailguard_milter.trace_writer import PRUNE_EVERY_S, RETRY_S, Keeper
from trace_rows import queue_ids
from trace_rows import row as row_of
from zone0 import NOW, ke, mail, sign_as

PATIENCE_S = 20.0


@pytest.fixture(scope="module")
def trace() -> Trace:
    # Of now: an older one would be deleted at once.
    return judge_message(sign_as(ke(), mail("<x@bank.test>")), now=time.time()).trace()


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "trace.sqlite")


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    reading, writing = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    reading.settimeout(PATIENCE_S)
    yield reading, writing
    reading.close()
    writing.close()


class Lines(Sink):
    """A log that remembers."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def write(self, line: bytes, severity: Severity) -> None:
        self.lines.append(line.decode())

    def dropped(self) -> int:
        told = [re.search(r'event="traces dropped" count=(\d+)', line) for line in self.lines]
        return sum(int(match[1]) for match in told if match)


@pytest.fixture
def lines() -> Lines:
    return Lines()


@pytest.fixture
def log(lines: Lines) -> Iterator[Log]:
    made = Log(lines, Format.LOGFMT, timestamps=False)
    made.start()
    yield made
    made.close(timeout_s=PATIENCE_S)


def row(trace: Trace, number: int = 0) -> Row:
    return row_of(trace, number, at=trace.now)


# Packets


@pytest.mark.parametrize("content", [b"", b"\n\n", bytes(range(256)), b"x" * MAX_TRACE_BYTES])
def test_a_packet_comes_back_as_it_was(trace: Trace, content: bytes) -> None:
    made = row(trace)._replace(content=content, queue_id="a'\"\\b", reason="\\x1b" * 150)
    packet = pack(made)
    assert unpack(packet) == made
    assert len(packet) <= MAX_PACKET_BYTES


@pytest.mark.parametrize(
    "columns",
    [
        None,
        5,
        [],
        ["Q", 1.0, "c", "d", "a", "w", "r"],
        ["Q", 1.0, "c", "d", "a", "w", "r", "s", "t"],
        ["Q", "1.0", "c", "d", "a", "w", "r", "s"],
        ["Q", float("nan"), "c", "d", "a", "w", "r", "s"],
        ["Q", 1.0, None, "d", "a", "w", "r", "s"],
        ["Q", 1.0, "c", "d", "a", "w", "r", "\udcff"],
    ],
    ids=["null", "number", "empty", "short", "long", "time", "nan", "none", "surrogate"],
)
def test_what_is_no_packet_is_refused(columns: object) -> None:
    with pytest.raises(ValueError, match=r"not|none"):
        unpack(json.dumps(columns).encode() + b"\ncontent")


@pytest.mark.parametrize(
    "packet", [b"", b"\n", b"no json\n", b'["Q", 1.0, "c", "d", "a", "w", "r", "s"]', b"\xff\xfe\n"]
)
def test_noise_is_no_packet(packet: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        unpack(packet)


# The worker's end


def test_what_is_put_arrives(trace: Trace, pair: tuple[socket.socket, socket.socket], log: Log) -> None:
    sender = TraceSender(pair[1], log)
    sender.start()
    sender.put(trace, b"4bZk1x2Qp3z")
    sender.put(trace, None)
    sender.put(trace, b"\xff\n")
    arrived = [unpack(pair[0].recv(MAX_PACKET_BYTES)) for _ in range(3)]
    assert [each.queue_id for each in arrived] == ["4bZk1x2Qp3z", "", "\\\\xff\\n"]
    assert arrived[0] == Row.of(replace(trace, queue_id="4bZk1x2Qp3z"))
    sender.close(timeout_s=PATIENCE_S)
    assert pair[0].recv(10) == b""


def test_what_is_queued_at_the_end_is_sent(trace: Trace, pair: tuple[socket.socket, socket.socket], log: Log) -> None:
    sender = TraceSender(pair[1], log)
    sender.start()
    for number in range(20):
        sender.put(trace, b"%08X" % number)
    sender.close(timeout_s=PATIENCE_S)
    assert [unpack(pair[0].recv(MAX_PACKET_BYTES)).queue_id for _ in range(20)] == [f"{n:08X}" for n in range(20)]


@pytest.mark.attack("V13")
def test_while_nobody_reads_mail_goes_on_and_the_loss_is_told(
    trace: Trace,
    pair: tuple[socket.socket, socket.socket],
    log: Log,
    lines: Lines,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(trace_pipe, "WRITER_PATIENCE_S", 0.01)
    monkeypatch.setattr(trace_pipe, "MAX_QUEUED_TRACES", 50)
    sender = TraceSender(pair[1], log)
    sender.start()
    put = 5000
    for _ in range(put):
        sender.put(trace, b"Q")
    # The thread is given time to try what is left in the queue.
    eventually(lambda: sender._queue.qsize() == 0)
    sender.close(timeout_s=PATIENCE_S)
    arrived = 0
    while pair[0].recv(MAX_PACKET_BYTES):
        arrived += 1
    log.close(timeout_s=PATIENCE_S)
    assert 0 < arrived < put
    assert lines.dropped() == put - arrived


@pytest.mark.attack("V13")
def test_large_headers_do_not_fill_the_memory(
    pair: tuple[socket.socket, socket.socket], trace: Trace, log: Log
) -> None:
    """Of those with the largest headers few are queued: here none is taken out."""
    large = replace(trace, message=Message((HeaderField(b"X", b"x" * 250_000),)))
    sender = TraceSender(pair[1], log)
    blocked = threading.Event()
    sender._thread = threading.Thread(target=blocked.wait, daemon=True)
    sender.start()
    for _ in range(1000):
        sender.put(large, b"Q")
    assert sender._queue.qsize() == trace_pipe.MAX_QUEUED_HEADER_BYTES // 250_001
    assert sender._dropped == 1000 - sender._queue.qsize()
    blocked.set()


def test_what_was_sent_makes_room_for_the_next(
    trace: Trace, pair: tuple[socket.socket, socket.socket], log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trace_pipe, "MAX_QUEUED_HEADER_BYTES", trace.octets)
    sender = TraceSender(pair[1], log)
    sender.start()
    for number in range(5):
        sender.put(trace, b"%08X" % number)
        assert unpack(pair[0].recv(MAX_PACKET_BYTES)).queue_id == f"{number:08X}"
        eventually(lambda: sender._queued_bytes == 0)
    sender.close(timeout_s=PATIENCE_S)


@pytest.mark.parametrize("what", ["reader-gone", "too-large"])
def test_one_that_cannot_be_sent_is_counted_and_the_next_is_tried(
    trace: Trace, pair: tuple[socket.socket, socket.socket], log: Log, lines: Lines, what: str
) -> None:
    sender = TraceSender(pair[1], log)
    sender.start()
    if what == "reader-gone":
        pair[0].close()
        sender.put(trace, b"Q")
    else:
        noise = random.Random(1).randbytes(250_000)
        sender.put(replace(trace, message=Message((HeaderField(b"X", noise),))), b"Q")
        sender.put(trace, b"R")
        assert unpack(pair[0].recv(MAX_PACKET_BYTES)).queue_id == "R"
    sender.close(timeout_s=PATIENCE_S)
    log.close(timeout_s=PATIENCE_S)
    assert lines.dropped() == len(lines.lines) == 1


def test_a_full_pipe_is_waited_for(
    trace: Trace, pair: tuple[socket.socket, socket.socket], log: Log, lines: Lines
) -> None:
    pair[1].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)  # the kernel's least
    sender = TraceSender(pair[1], log)
    sender.start()
    for number in range(200):
        sender.put(trace, b"%08X" % number)
    # More than the pipe takes: the thread waits with one of them in its hand.
    time.sleep(0.1)
    assert sender._queue.qsize() > 0
    assert [unpack(pair[0].recv(MAX_PACKET_BYTES)).queue_id for _ in range(200)] == [f"{n:08X}" for n in range(200)]
    sender.close(timeout_s=PATIENCE_S)
    log.close(timeout_s=PATIENCE_S)
    assert lines.dropped() == 0


@pytest.mark.parametrize(
    ("tell_every_s", "told", "together"),
    [(600.0, -math.inf, False), (600.0, math.inf, True), (0.01, math.inf, False)],
    ids=["while-others-come", "not-each-for-itself", "when-none-comes"],
)
def test_when_a_loss_is_told(
    trace: Trace,
    pair: tuple[socket.socket, socket.socket],
    log: Log,
    lines: Lines,
    monkeypatch: pytest.MonkeyPatch,
    tell_every_s: float,
    told: float,
    together: bool,
) -> None:
    monkeypatch.setattr(trace_pipe, "TELL_EVERY_S", tell_every_s)
    large = replace(trace, message=Message((HeaderField(b"X", random.Random(1).randbytes(250_000)),)))
    sender = TraceSender(pair[1], log)
    sender._told = told
    sender.start()
    for _ in range(2):
        sender.put(large, b"Q")
        sender.put(trace, b"R")
        assert unpack(pair[0].recv(MAX_PACKET_BYTES)).queue_id == "R"
        if not together:
            eventually(lambda: lines.dropped() > 0)
    sender.close(timeout_s=PATIENCE_S)
    log.close(timeout_s=PATIENCE_S)
    assert lines.dropped() == 2
    assert not together or len(lines.lines) == 1


def test_a_fault_of_ours_costs_one_trace(
    trace: Trace, pair: tuple[socket.socket, socket.socket], log: Log, lines: Lines
) -> None:
    sender = TraceSender(pair[1], log)
    sender.start()
    sender.put(replace(trace, version=object()), b"Q")  # type: ignore[arg-type]  # what cannot be encoded
    sender.put(trace, b"R")
    assert unpack(pair[0].recv(MAX_PACKET_BYTES)).queue_id == "R"
    sender.close(timeout_s=PATIENCE_S)
    log.close(timeout_s=PATIENCE_S)
    assert lines.dropped() == 1
    assert any('event="trace not written"' in line and "TypeError" in line for line in lines.lines)


def test_before_it_is_started_nothing_is_queued(
    trace: Trace, pair: tuple[socket.socket, socket.socket], log: Log
) -> None:
    sender = TraceSender(pair[1], log)
    sender.put(trace, b"Q")
    assert (sender._queue.qsize(), sender._dropped) == (0, 1)


# The database, whatever becomes of it


class Clock:
    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


def keeper_of(path: str, clock: Clock) -> Keeper:
    return Keeper(lambda: TraceStore(path, max_days=7, max_bytes=1 << 26), path, clock=clock)


def told(capfd: pytest.CaptureFixture[str]) -> list[str]:
    return [re.search(r'event="?([^"]*?)"?( [a-z_]+=|$)', line)[1] for line in capfd.readouterr().err.splitlines()]  # type: ignore[index]  # every line has an event


def damage(path: str) -> None:
    Path(path).write_bytes(os.urandom(8192))


@pytest.mark.attack("V14")
@pytest.mark.parametrize("when", ["at-the-start", "in-use"])
def test_a_damaged_database_is_renamed_and_a_new_one_made(
    path: str, trace: Trace, clock: Clock, capfd: pytest.CaptureFixture[str], when: str
) -> None:
    keeper = keeper_of(path, clock)
    if when == "in-use":
        keeper.add([row(trace, n) for n in range(100)])
        keeper.close()
        keeper = keeper_of(path, clock)
        keeper.tend(NOW, soon=False)
        # Behind its back, where the next row goes.
        content = Path(path).read_bytes()
        with open(path, "r+b") as file:
            file.seek(4096)
            file.write(os.urandom(len(content) - 4096))
    else:
        damage(path)
    keeper.add([row(trace, 7)])
    assert queue_ids(path) == ["00000007"]
    assert os.path.exists(path + ".damaged")
    assert told(capfd) == ["trace database renamed"]
    keeper.close()


@pytest.mark.attack("V14")
def test_a_deleted_database_is_made_anew_without_a_word(
    path: str, trace: Trace, clock: Clock, capfd: pytest.CaptureFixture[str]
) -> None:
    keeper = keeper_of(path, clock)
    keeper.add([row(trace, 1)])
    os.unlink(path)
    keeper.add([row(trace, 2)])
    assert queue_ids(path) == ["00000002"]
    assert told(capfd) == []
    keeper.close()


def test_what_is_too_old_goes_within_a_minute_without_any_mail(tmp_path: Path, trace: Trace, clock: Clock) -> None:
    """And after each batch."""
    path = str(tmp_path / "traces.sqlite")
    keeper = keeper_of(path, clock)
    week_s = 7 * 86_400
    for number, elapsed_s, soon in ((1, PRUNE_EVERY_S, False), (2, 0.0, True)):
        keeper.tend(NOW, soon=True)
        keeper.add([row_of(trace, number)])
        keeper.tend(NOW + week_s + 1, soon=False)
        assert len(queue_ids(path)) == 1, "not looked at again so soon"
        clock.seconds += elapsed_s
        keeper.tend(NOW + week_s + 1, soon=soon)
        assert queue_ids(path) == []
    keeper.close()


@pytest.mark.attack("V14")
def test_while_nothing_can_be_written_it_is_said_once_and_tried_now_and_then(
    path: str, trace: Trace, clock: Clock, capfd: pytest.CaptureFixture[str]
) -> None:
    directory = os.path.dirname(path)
    os.rename(directory, directory + "-away")
    attempts = []

    def open_store() -> TraceStore:
        attempts.append(clock.seconds)
        return TraceStore(path, max_days=7, max_bytes=1 << 26)

    keeper = Keeper(open_store, path, clock=clock)
    for _ in range(10):
        keeper.add([row(trace, 1), row(trace, 2)])
        keeper.tend(NOW, soon=True)
    assert attempts == [0.0]
    clock.seconds += RETRY_S
    keeper.add([row(trace, 3)])
    assert attempts == [0.0, RETRY_S]
    assert told(capfd) == ["traces are not written; mail is not concerned"]
    os.rename(directory + "-away", directory)
    clock.seconds += RETRY_S
    keeper.add([row(trace, 4)])
    line = capfd.readouterr().err
    assert 'event="traces are written again"' in line
    assert "lost=21" in line
    assert queue_ids(path) == ["00000004"]
    keeper.close()


@pytest.mark.attack("V14")
def test_a_lock_costs_what_comes_meanwhile(
    path: str, trace: Trace, clock: Clock, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mailguard.trace_store.WAIT_FOR_LOCK_S", 0.05)
    keeper = keeper_of(path, clock)
    keeper.add([row(trace, 1)])
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    keeper.add([row(trace, 2)])
    assert "another program has locked it" in capfd.readouterr().err
    holder.close()
    clock.seconds += RETRY_S
    keeper.add([row(trace, 3)])
    assert queue_ids(path) == ["00000001", "00000003"]
    keeper.close()


READ_ONLY = """
import os, subprocess, sys, time
from mailguard.trace_store import Row, TraceStore
from mailguard_milter.trace_writer import RETRY_S, Keeper
def mount(how):
    subprocess.run(["mount", "-o", f"remount,{how}", "/mnt"], check=True)
os.mkdir("/mnt/d", 0o755)
now = [0.0]
keeper = Keeper(lambda: TraceStore("/mnt/d/t", max_days=7, max_bytes=1 << 26), "/mnt/d/t", clock=lambda: now[0])
def add(name):
    keeper.add([Row(name, time.time(), "", "", "accept", "accept", "r", "", b"x")])
    keeper.tend(time.time(), soon=True)
add("before")
keeper._let_go()
mount("ro")
add("during")
add("during")
mount("rw")
now[0] += RETRY_S
add("after")
print(keeper._store.kept)
"""


@pytest.mark.attack("V14")
def test_a_read_only_file_system_costs_what_comes_meanwhile() -> None:
    command = ["unshare", "-m", "sh", "-c", 'mount -t tmpfs -o size=4m tmpfs /mnt && exec "$@"', "sh"]
    try:
        possible = subprocess.run([*command, "true"], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        possible = False
    if not possible:
        pytest.skip("a file system can be mounted by root alone")
    done = subprocess.run([*command, sys.executable, "-c", READ_ONLY], capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("2\n", 0), done.stderr
    first, second = done.stderr.splitlines()
    assert "Read-only file system" in first
    assert "lost=2" in second
