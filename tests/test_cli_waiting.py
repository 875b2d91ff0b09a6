"""What a command says of work that takes long: on a terminal alone, and gone afterwards."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from mailguard.cli.waiting import counted_without_thread

COUNTING = """\
import os, sys, threading
from mailguard.cli.waiting import counted_without_thread
for each in counted_without_thread("asking", "abc", 3):
    assert threading.active_count() == 1
    if each == sys.argv[1]:
        break
os.write(2, b"over")
"""


FORKING = """\
import os, runpy, threading
fork = os.fork
def told():
    os.write(1, b"threads: %d\\n" % threading.active_count())
    return fork()
os.fork = told
runpy.run_module("mailguard", run_name="__main__")
"""
PATIENCE_S = 60.0


@pytest.mark.parametrize("last", ["b", "c"])
def test_a_count_on_a_terminal_is_gone_at_the_end(last: str) -> None:
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm"}
    with subprocess.Popen([sys.executable, "-c", COUNTING, last], stderr=theirs, env=environment) as process:
        os.close(theirs)
        shown = b""
        while not shown.endswith(b"over"):
            shown += os.read(ours, 4096)
    os.close(ours)
    assert process.returncode == 0
    assert shown.startswith(b"asking: 0 of 3\rasking: 1 of 3\r")
    assert shown.endswith(b"\r" + b" " * len("asking: 3 of 3") + b"\rover")


def test_nobody_counts_where_there_is_no_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    assert list(counted_without_thread("asking", [1, 2, 3], 3)) == [1, 2, 3]
    assert capfd.readouterr() == ("", "")


def test_doctor_forks_with_one_thread(tmp_path: Path) -> None:
    """On a terminal too. What another thread held, the child would wait for without end (doctor_child.py)."""
    configuration = tmp_path / "mailguard.toml"
    configuration.write_text(
        'authserv_id = "mx.us.test"\nuser = "nobody"\n[dns]\nnameservers = ["127.0.0.1"]\nport = 1\n'
        f'[domains."us.test"]\nselectors = [{{ name = "s", key_file = "{tmp_path}/none.pem" }}]\n'
    )
    ours, theirs = pty.openpty()
    words = ["doctor", "-c", str(configuration)]
    with subprocess.Popen([sys.executable, "-c", FORKING, *words], stdout=subprocess.PIPE, stderr=theirs) as process:
        os.close(theirs)
        said, _ = process.communicate(timeout=PATIENCE_S)
    os.close(ours)
    threads = [line.removeprefix(b"threads: ") for line in said.splitlines() if line.startswith(b"threads: ")]
    assert threads
    assert set(threads) == {b"1"}
