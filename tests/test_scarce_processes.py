"""No process more for the daemon, or no file: its workers go on, and what died meanwhile comes back afterwards.

The kernel refuses it processes of its own (RLIMIT_NPROC), or files (RLIMIT_NOFILE). ATTACKS.md row: V16.
"""

from __future__ import annotations

import errno
import os
import resource
import signal
import time
from itertools import count
from pathlib import Path

import pytest

from daemon_process import Daemon, authserv_id, eventually, kill, limit
from engine_process import per_engine
from mailguard_milter import __main__ as command
from mailguard_milter.refusal import Refusal, why_not_started
from mailguard_milter.runtime_directory import RuntimeDirectory
from mailguard_milter.supervisor import Supervisor
from mailguard_milter.trace_process import TraceProcess
from mailguard_milter.worker import TICK_S

WHY = (
    "Resource temporarily unavailable;"
    " a limit on processes is reached: raise TasksMax= of the unit, or ulimit -u of the user"
)


def let_start(daemon: Daemon, *, processes: int) -> None:
    """The supervisor and its generation may start others only while their user has fewer than so many."""
    limit(set(daemon.family()) - set(daemon.workers()), "RLIMIT_NPROC", processes)


@pytest.mark.attack("V16")
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as the daemon's user")
@per_engine
def test_a_daemon_that_can_start_no_process_goes_on_with_what_it_has(daemon: Daemon) -> None:
    supervisor = daemon.started()
    one, other = daemon.workers()
    let_start(daemon, processes=0)
    kill(one, signal.SIGKILL)
    eventually(lambda: f'event="a worker cannot be started" why="{WHY}"' in daemon.log())
    daemon.configure(authserv_id="mx2.us.test")
    daemon.reload()
    assert f'why="no process can be started to read {daemon.config}: {WHY}"' in daemon.log()
    assert daemon.workers() == [other]
    assert daemon.verdict() == "mx1.us.test"

    let_start(daemon, processes=resource.prlimit(os.getpid(), resource.RLIMIT_NPROC)[1])
    eventually(lambda: len(daemon.workers()) == 2)
    daemon.reload()
    eventually(lambda: daemon.verdict() == "mx2.us.test")
    assert daemon.family()[0] == supervisor


@pytest.mark.attack("V16")
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as the daemon's user")
@per_engine
def test_a_worker_that_gets_no_file_serves_the_sessions_that_it_has(daemon: Daemon) -> None:
    daemon.configure(listeners=f'[[listeners]]\naddress = "unix:{daemon.socket}"\nworkers = 1\n')
    daemon.started()
    (worker,) = daemon.workers()
    with daemon.client() as client:
        client.open()
        limit(
            [worker],
            "RLIMIT_NOFILE",
            next(each for each in count() if not os.path.lexists(f"/proc/{worker}/fd/{each}")),
        )
        time.sleep(4 * TICK_S)
        assert authserv_id(client) == "mx1.us.test"
        # While it lets go of its sessions, too.
        daemon.signal(signal.SIGHUP)
        eventually(lambda: len(daemon.workers()) == 2)
        time.sleep(4 * TICK_S)
        assert authserv_id(client) == "mx1.us.test"
    limit([worker], "RLIMIT_NOFILE", 1024)
    eventually(lambda: worker not in daemon.workers())
    assert "worker died" not in daemon.log()


@pytest.mark.parametrize(
    ("error", "told"),
    [(OSError(errno.EMFILE, "Too many open files"), "LimitNOFILE="), (MemoryError(), "MemoryError")],
    ids=["files", "memory"],
)
def test_what_the_kernel_refuses_is_told_in_a_line(
    error: BaseException, told: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def refused(_: Supervisor) -> int:
        raise error

    monkeypatch.setattr(Supervisor, "run", refused)
    assert command.main(["-c", "mg.toml"]) == 75
    (line,) = capfd.readouterr().err.splitlines()
    assert " event=ended " in line
    assert told in line


@pytest.mark.attack("V16")
def test_traces_for_which_no_file_is_left_do_not_end_the_daemon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    daemon = Supervisor("mg.toml", _directory=RuntimeDirectory(str(tmp_path)))
    monkeypatch.setattr(TraceProcess, "pipe_for", refused)
    # What a reload that fails says; the old configuration stays.
    with pytest.raises(Refusal, match=r"no process can be started: Too many open files; .*LimitNOFILE="):
        daemon._spawn({"user": "nobody", "listeners": [], "trace": {"path": str(tmp_path / "traces")}})


@pytest.mark.attack("V16")
@pytest.mark.parametrize(
    ("number", "hint"),
    [
        (errno.EAGAIN, "TasksMax="),
        (errno.ENOMEM, "MemoryMax="),
        (errno.EMFILE, "LimitNOFILE="),
        (errno.ENFILE, "fs."),
    ],
)
def test_it_is_said_which_limit_to_raise(number: int, hint: str) -> None:
    why = why_not_started(OSError(number, os.strerror(number)))
    assert why.startswith(f"{os.strerror(number)}; ")
    assert hint in why


def test_what_is_no_limit_is_said_as_the_kernel_says_it() -> None:
    assert why_not_started(OSError(errno.EIO, "Input/output error")) == "Input/output error"
    assert why_not_started(OSError("no number")) == "no number"
    assert why_not_started(RuntimeError("what else")) == "what else"


def test_a_thread_counts_as_a_process() -> None:
    why = why_not_started(RuntimeError("can't start new thread"))
    assert why.startswith("can't start new thread; a limit on processes is reached")
