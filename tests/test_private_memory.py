"""The memory of the processes that hold private keys: out of reach for others, and for core dumps."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from daemon_process import Daemon, account

CONTRIB = Path(__file__).parents[1] / "contrib"


def as_the_daemons_user(*words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, **account())


def may_be_read(pid: int) -> bool:
    """Whether another process of the account may look into this one. What the kernel dumps, it shows them too."""
    looking = as_the_daemons_user("cat", f"/proc/{pid}/environ")
    said = looking.communicate()[1]
    assert looking.returncode == 0 or "Permission denied" in said, said
    return looking.returncode == 0


@pytest.mark.attack("K06")
def test_nobody_looks_into_a_process_that_holds_keys(daemon: Daemon) -> None:
    supervisor = daemon.started()
    others = set(daemon.family()) - {supervisor}
    assert set(daemon.workers()) < others
    assert not any(map(may_be_read, others))
    with as_the_daemons_user("sleep", "60") as another:
        assert may_be_read(another.pid), "this test cannot fail here"
        another.kill()


@pytest.mark.attack("K06")
@pytest.mark.parametrize("unit", ["mailguard-milter.service", "mailguard-key-rotate.service"])
def test_the_units_keep_keys_off_the_disk(unit: str) -> None:
    assert {"LimitCORE=0", "MemorySwapMax=0"} <= set((CONTRIB / unit).read_text().splitlines())
