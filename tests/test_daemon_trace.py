"""Traces of the running daemon: written by one process, kept through reloads and deaths, shown by the command."""

from __future__ import annotations

import os
import signal
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner

from daemon_process import Daemon, daemon, eventually, kill, parent
from mailguard.cli.group import mailguard
from milter_client import MilterClient

__all__ = ["daemon"]

STRANGER = b"198.51.100.66"


@pytest.fixture
def tracing(daemon: Daemon) -> Daemon:
    """A daemon that has started and keeps traces, beside its lock."""
    with (daemon.directory / "zone").open("a") as zone:
        zone.write('bank IN TXT "v=spf1 -all"\n_dmarc.bank IN TXT "v=DMARC1; p=reject"\n')
    configure(daemon, "traces.sqlite")
    daemon.started()
    return daemon


def configure(daemon: Daemon, name: str | None) -> None:
    trace = f'[trace]\nenabled = true\npath = "{daemon.runtime / name}"\n' if name else ""
    daemon.configure(extra=trace)


def forged(client: MilterClient) -> bytes:
    """Send what the bank did not; the last reply."""
    return client.message([(b"From", b" <ceo@bank.test>")], path=b"<x@bank.test>")[-1][0]


def kept(daemon: Daemon, name: str = "traces.sqlite") -> int:
    path = daemon.runtime / name
    if not path.exists():
        return 0
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as opened:
        (table,) = opened.execute(
            "SELECT name FROM sqlite_master WHERE type = 'table' AND name LIKE 'trace%'"
        ).fetchone()
        return int(opened.execute(f'SELECT count(*) FROM "{table}"').fetchone()[0])  # noqa: S608 - our own name


def writers(daemon: Daemon) -> list[int]:
    """The processes that write traces for this daemon."""
    assert daemon.process is not None
    found = []
    for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            continue
        if b"mailguard_milter.trace_writer" in words and parent(pid) == daemon.process.pid:
            found.append(pid)
    return found


def explained(daemon: Daemon, *words: str) -> str:
    done = CliRunner().invoke(mailguard, ["explain", "4QUEUEID", "--config", str(daemon.config), *words])
    return done.output


def test_a_message_is_shown_by_its_queue_id_as_it_was_judged(tracing: Daemon) -> None:
    with tracing.client() as client:
        client.negotiate()
        client.connect(address=STRANGER)
        client.helo(b"evil.test")
        forged(client)
    eventually(lambda: kept(tracing) == 1)
    # The answers of then, not of now.
    (tracing.directory / "zone").write_text("$ORIGIN test.\n$TTL 60\n@ IN SOA ns root 1 1 1 1 1\n")
    said = explained(tracing)
    for part in ("dmarc-reject", "v=DMARC1; p=reject", "v=spf1 -all", "198.51.100.66", "ceo@bank.test"):
        assert part in said, said
    mode = (tracing.runtime / "traces.sqlite").stat().st_mode & 0o777
    assert not mode & 0o027, oct(mode)


def test_one_process_writes_through_reloads_and_deaths(tracing: Daemon) -> None:
    with tracing.client() as client:
        client.open()
        forged(client)
        (writer,) = eventually(lambda: writers(tracing))
        tracing.reload()
        assert writers(tracing) == [writer], "the old sessions and the new ones have one writer"
        forged(client)
        eventually(lambda: kept(tracing) == 2)
        kill(writer, signal.SIGKILL)
        # What comes while nobody reads waits in the pipe.
        forged(client)
        eventually(lambda: writers(tracing) not in ([], [writer]))
        eventually(lambda: kept(tracing) == 3)


def test_a_reload_moves_the_database_and_ends_tracing(tracing: Daemon) -> None:
    (first,) = eventually(lambda: writers(tracing))
    configure(tracing, "other.sqlite")
    tracing.reload()
    eventually(lambda: writers(tracing) not in ([], [first]))
    with tracing.client() as client:
        client.open()
        forged(client)
    eventually(lambda: kept(tracing, "other.sqlite") == 1)
    configure(tracing, None)
    tracing.reload()
    eventually(lambda: not writers(tracing))
    with tracing.client() as client:
        client.open()
        assert forged(client) == b"c"
    assert kept(tracing, "other.sqlite") == 1


@pytest.mark.attack("V13")
def test_mail_goes_on_where_traces_cannot_be_written(tracing: Daemon) -> None:
    configure(tracing, "no/such/directory/traces.sqlite")
    tracing.reload()
    with tracing.client() as client:
        client.open()
        assert [forged(client) for _ in range(5)] == [b"c"] * 5
    eventually(lambda: "trace" in tracing.log() and "no/such/directory" in tracing.log())


def test_what_was_judged_is_written_before_the_daemon_ends(tracing: Daemon) -> None:
    with tracing.client() as client:
        client.open()
        for _ in range(20):
            forged(client)
    tracing.signal(signal.SIGTERM)
    assert tracing.process is not None
    assert tracing.process.wait(30) == 0
    assert kept(tracing) == 20
