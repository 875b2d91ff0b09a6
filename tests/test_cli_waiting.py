"""What a command says of work that takes long: on a terminal alone, and gone afterwards."""

from __future__ import annotations

import os
import pty
import subprocess
import sys

import pytest

from mailguard.cli.waiting import counted_without_thread

COUNTING = """\
import os, sys, threading
from mailguard.cli.waiting import counted_without_thread
for each in counted_without_thread("asking", list("abc")):
    assert threading.active_count() == 1
    if each == sys.argv[1]:
        break
os.write(2, b"over")
"""


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
    assert shown.endswith(b"\r" + b" " * len("asking: 2 of 3") + b"\rover")


def test_nobody_counts_where_there_is_no_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    assert list(counted_without_thread("asking", [1, 2, 3])) == [1, 2, 3]
    assert capfd.readouterr() == ("", "")
