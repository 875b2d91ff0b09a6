"""The whole daemon with traces: from a message to `mailguard explain`, through reloads, and what befalls the writer.

ATTACKS.md rows, for the database of traces: V13, V14. Mail goes on in each of these cases.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from daemon_process import PATIENCE_S, Daemon, eventually, kill
from engine_process import per_engine
from mailguard.cli.recorded import judge_recorded
from mailguard.config import load
from mailguard.errors import TraceStoreError
from mailguard.trace_reader import TraceReader

QUEUE_ID = "4QUEUEID"  # what the client says
FORGED = ((b"From", b" <ceo@bank.test>"), (b"Subject", b" \xff hello"))
ZONE = """$TTL 60
bank.test. IN TXT "v=spf1 -all"
_dmarc.bank.test. IN TXT "v=DMARC1; p=reject"
"""


@pytest.fixture
def tracing(daemon: Daemon) -> Iterator[Daemon]:
    """The daemon; its end does not know the writer, which would end by itself a moment later."""
    yield daemon
    if daemon.process is not None:
        daemon.process.kill()
        daemon.process.wait()
    for pid in writers(daemon):
        kill(pid, signal.SIGKILL)
    eventually(lambda: not writers(daemon))


def keep(daemon: Daemon, name: str = "trace.sqlite", *, more: str = "") -> Path:
    """Configure a daemon that keeps traces, and where."""
    path = daemon.runtime / name
    (daemon.directory / "zone").write_text(ZONE)
    daemon.configure(extra=f'[trace]\nenabled = true\npath = "{path}"\n{more}')
    return path


def send(daemon: Daemon, count: int = 1) -> None:
    """Messages that are accepted, in monitor mode, with our result in their header."""
    for _ in range(count):
        with daemon.client() as client:
            replies = client.open().message(FORGED, path=b"<ceo@bank.test>")
            assert replies[-1] == (b"c", b""), replies
            assert any(b"Authentication-Results" in data for code, data in replies if code == b"i"), replies


def kept(path: Path) -> int:
    try:
        with TraceReader(str(path)) as reader:
            return reader.count(0)
    except TraceStoreError:
        return 0


def writers(daemon: Daemon) -> list[int]:
    """The processes that write traces below this daemon's directory."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            words = Path(f"/proc/{name}/cmdline").read_bytes()
        except OSError:
            continue
        if b"trace_writer" in words and str(daemon.directory).encode() in words:
            found.append(int(name))
    return found


def end(daemon: Daemon) -> None:
    daemon.signal(signal.SIGTERM)
    assert daemon.process is not None
    assert daemon.process.wait(PATIENCE_S) == 0


@per_engine
def test_a_message_is_explained_by_its_queue_id(tracing: Daemon) -> None:
    path = keep(tracing)
    tracing.started()
    send(tracing)
    eventually(lambda: kept(path) == 1)
    assert path.stat().st_mode & 0o777 == 0o600
    recorded = judge_recorded(QUEUE_ID, str(tracing.config))
    assert len(recorded.notes) == 1, recorded.notes
    outcome = recorded.outcome
    assert (outcome.decision.disposition.value, outcome.decision.would.value) == ("accept", "reject")
    # A line waits for others a moment.
    eventually(lambda: f" would=reject rule={outcome.decision.rule.value} " in tracing.log())
    assert f' reason="{outcome.decision.reason}" ' in tracing.log()
    command = [sys.executable, "-m", "mailguard", "explain", QUEUE_ID, "-c", str(tracing.config)]
    explained = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tracing.directory)
    assert (explained.returncode, explained.stderr) == (1, "")
    assert "message: reject (dmarc-reject)" in explained.stdout
    assert explained.stdout.startswith("note: recorded ")


@per_engine
def test_every_message_is_kept_until_the_end(tracing: Daemon) -> None:
    path = keep(tracing)
    tracing.started()
    # The writer reads: the workers wait for it at their end, but not as long as it may take to start.
    send(tracing)
    eventually(lambda: kept(path) == 1)
    send(tracing, 59)
    end(tracing)
    assert kept(path) == 60
    assert writers(tracing) == []
    assert tracing.family() == []


@pytest.mark.attack("V13", "V14")
@per_engine
def test_mail_goes_on_whatever_befalls_the_writer(tracing: Daemon) -> None:
    path = keep(tracing)
    tracing.started()
    send(tracing)
    eventually(lambda: kept(path) == 1)
    # It dies: another one reads on.
    (victim,) = writers(tracing)
    kill(victim, signal.SIGKILL)
    send(tracing, 3)
    eventually(lambda: kept(path) == 4)
    assert f'event="the trace writer died" pid={victim}' in tracing.log()
    # It hangs: what it will read waits.
    (victim,) = eventually(lambda: writers(tracing))
    kill(victim, signal.SIGSTOP)
    send(tracing, 20)
    assert kept(path) == 4
    kill(victim, signal.SIGCONT)
    eventually(lambda: kept(path) == 24)
    # The database is deleted, and then damaged while nobody has it open.
    path.unlink()
    send(tracing)
    eventually(lambda: kept(path) == 1)
    for name in (path, Path(f"{path}-wal")):
        name.write_bytes(os.urandom(64 * 1024))
    kill(victim, signal.SIGKILL)
    send(tracing)
    eventually(lambda: path.with_name("trace.sqlite.damaged").exists())
    send(tracing)
    eventually(lambda: kept(path) >= 1)


@pytest.mark.attack("V14")
def test_where_nothing_can_be_written_mail_goes_on_and_the_log_says_what_to_do(tracing: Daemon) -> None:
    keep(tracing, "none/trace.sqlite")
    tracing.started()
    send(tracing, 10)
    eventually(lambda: "traces are not written; mail is not concerned" in tracing.log())
    assert tracing.log().count("traces are not written") == 1
    assert "install -d" in tracing.log()
    end(tracing)
    assert 'event="traces were not written"' in tracing.log()


@per_engine
def test_reloads_move_the_traces_and_end_them_and_begin_again(tracing: Daemon) -> None:
    tracing.started()
    assert writers(tracing) == []
    first = keep(tracing)
    tracing.reload()
    send(tracing, 2)
    eventually(lambda: kept(first) == 2)
    (before,) = writers(tracing)
    # A reload that changes nothing about traces leaves the writer alone.
    tracing.reload()
    send(tracing)
    eventually(lambda: kept(first) == 3)
    assert writers(tracing) == [before]
    # Another place; messages of the old generation, still open, go there too, once the old writer has ended.
    with tracing.client() as old:
        old.open()
        second = keep(tracing, "second.sqlite")
        tracing.reload()
        eventually(lambda: writers(tracing) not in ([], [before]))
        assert old.message(FORGED)[-1] == (b"c", b"")
        send(tracing, 2)
    eventually(lambda: kept(second) == 3)
    assert kept(first) == 3
    assert len(writers(tracing)) == 1
    # None at all.
    tracing.configure()
    tracing.reload()
    eventually(lambda: writers(tracing) == [])
    send(tracing)
    keep(tracing, "second.sqlite")
    tracing.reload()
    send(tracing)
    eventually(lambda: kept(second) == 4)


def test_a_supervisor_that_was_killed_leaves_no_writer_behind(tracing: Daemon) -> None:
    path = keep(tracing)
    pid = tracing.started()
    with tracing.client() as client:
        client.open()
        kill(pid, signal.SIGKILL)
        assert tracing.process is not None
        tracing.process.wait()
        eventually(lambda: "the supervisor is gone" in tracing.log())
        # The session goes on, and its message is kept.
        assert client.message(FORGED)[-1] == (b"c", b"")
        eventually(lambda: kept(path) == 1)
    eventually(lambda: tracing.family() == [])
    eventually(lambda: writers(tracing) == [])


def test_the_default_keeps_nothing(tracing: Daemon) -> None:
    assert not load(tracing.config).trace.enabled
    tracing.started()
    send(tracing)
    assert writers(tracing) == []
    assert not list(tracing.directory.rglob("*.sqlite*"))
