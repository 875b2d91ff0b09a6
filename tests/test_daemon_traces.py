"""The whole daemon with traces: from a message to `mailguard explain`, through reloads, and what befalls the writer.

ATTACKS.md rows, for the database of traces: V13, V14. Mail goes on in each of these cases.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
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


def end(daemon: Daemon) -> None:
    daemon.signal(signal.SIGTERM)
    assert daemon.process is not None
    assert daemon.process.wait(PATIENCE_S) == 0


@per_engine
def test_a_message_is_explained_by_its_queue_id(daemon: Daemon) -> None:
    path = keep(daemon)
    daemon.started()
    send(daemon)
    eventually(lambda: kept(path) == 1)
    assert path.stat().st_mode & 0o777 == 0o600
    recorded = judge_recorded(QUEUE_ID, str(daemon.config))
    assert len(recorded.notes) == 1, recorded.notes
    outcome = recorded.outcome
    assert (outcome.decision.disposition.value, outcome.decision.would.value) == ("accept", "reject")
    # A line waits for others a moment.
    eventually(lambda: f" would=reject rule={outcome.decision.rule.value} " in daemon.log())
    assert f' reason="{outcome.decision.reason}" ' in daemon.log()
    command = [sys.executable, "-m", "mailguard", "explain", QUEUE_ID, "-c", str(daemon.config)]
    explained = subprocess.run(command, capture_output=True, text=True, check=False, cwd=daemon.directory)
    assert (explained.returncode, explained.stderr) == (1, "")
    assert "message: reject (dmarc-reject)" in explained.stdout
    assert explained.stdout.startswith("note: recorded ")


@per_engine
def test_every_message_is_kept_until_the_end(daemon: Daemon) -> None:
    path = keep(daemon)
    daemon.started()
    # The writer reads: the workers wait for it at their end, but not as long as it may take to start.
    send(daemon)
    eventually(lambda: kept(path) == 1)
    send(daemon, 59)
    end(daemon)
    assert kept(path) == 60
    assert daemon.writers() == []
    assert daemon.family() == []


@pytest.mark.attack("V13", "V14")
@per_engine
def test_mail_goes_on_whatever_befalls_the_writer(daemon: Daemon) -> None:
    path = keep(daemon)
    daemon.started()
    send(daemon)
    eventually(lambda: kept(path) == 1)
    # It dies: another one reads on.
    (victim,) = daemon.writers()
    kill(victim, signal.SIGKILL)
    send(daemon, 3)
    eventually(lambda: kept(path) == 4)
    assert f'event="the trace writer died" pid={victim}' in daemon.log()
    # It hangs: what it will read waits.
    (victim,) = eventually(lambda: daemon.writers())
    kill(victim, signal.SIGSTOP)
    send(daemon, 20)
    assert kept(path) == 4
    kill(victim, signal.SIGCONT)
    eventually(lambda: kept(path) == 24)
    # The database is deleted, and then damaged while nobody has it open.
    path.unlink()
    send(daemon)
    eventually(lambda: kept(path) == 1)
    for name in (path, Path(f"{path}-wal")):
        name.write_bytes(os.urandom(64 * 1024))
    kill(victim, signal.SIGKILL)
    send(daemon)
    eventually(lambda: path.with_name("trace.sqlite.damaged").exists())
    send(daemon)
    eventually(lambda: kept(path) >= 1)


@pytest.mark.attack("V14")
def test_where_nothing_can_be_written_mail_goes_on_and_the_log_says_what_to_do(daemon: Daemon) -> None:
    keep(daemon, "none/trace.sqlite")
    daemon.started()
    send(daemon, 10)
    eventually(lambda: "traces are not written; mail is not concerned" in daemon.log())
    assert daemon.log().count("traces are not written") == 1
    assert "install -d" in daemon.log()
    end(daemon)
    assert 'event="traces were not written"' in daemon.log()


@per_engine
def test_reloads_move_the_traces_and_end_them_and_begin_again(daemon: Daemon) -> None:
    daemon.started()
    assert daemon.writers() == []
    first = keep(daemon)
    daemon.reload()
    send(daemon, 2)
    eventually(lambda: kept(first) == 2)
    (before,) = daemon.writers()
    # A reload that changes nothing about traces leaves the writer alone.
    daemon.reload()
    send(daemon)
    eventually(lambda: kept(first) == 3)
    assert daemon.writers() == [before]
    # Another place; messages of the old generation, still open, go there too, once the old writer has ended.
    with daemon.client() as old:
        old.open()
        second = keep(daemon, "second.sqlite")
        daemon.reload()
        eventually(lambda: daemon.writers() not in ([], [before]))
        assert old.message(FORGED)[-1] == (b"c", b"")
        send(daemon, 2)
    eventually(lambda: kept(second) == 3)
    assert kept(first) == 3
    assert len(daemon.writers()) == 1
    # None at all.
    daemon.configure()
    daemon.reload()
    eventually(lambda: daemon.writers() == [])
    send(daemon)
    keep(daemon, "second.sqlite")
    daemon.reload()
    send(daemon)
    eventually(lambda: kept(second) == 4)


def test_a_supervisor_that_was_killed_leaves_no_writer_behind(daemon: Daemon) -> None:
    path = keep(daemon)
    pid = daemon.started()
    with daemon.client() as client:
        client.open()
        kill(pid, signal.SIGKILL)
        assert daemon.process is not None
        daemon.process.wait()
        eventually(lambda: "the supervisor is gone" in daemon.log())
        # The session goes on, and its message is kept.
        assert client.message(FORGED)[-1] == (b"c", b"")
        eventually(lambda: kept(path) == 1)
    eventually(lambda: daemon.family() == [])
    eventually(lambda: daemon.writers() == [])


def test_the_default_keeps_nothing(daemon: Daemon) -> None:
    assert not load(daemon.config).trace.enabled
    daemon.started()
    send(daemon)
    assert daemon.writers() == []
    assert not list(daemon.directory.rglob("*.sqlite*"))
