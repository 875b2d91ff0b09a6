"""How little memory a worker keeps: one arena for all its threads, and what is free goes back (allocation.py).

glibc only. Counted in proc(5): an arena of a thread is 64 MiB of addresses, of which the first part can be written.
"""

from __future__ import annotations

import ctypes
import itertools
import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from daemon_process import Daemon
from engine_process import per_engine
from mailguard_milter import engine_native
from mailguard_milter.allocation import give_back
from native_host import native_host

pytestmark = pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="needs glibc")

ARENA = 64 << 20
SESSIONS_AT_ONCE = 20
MEGABYTE = 1 << 20
_MAP = re.compile(r"([0-9a-f]+)-([0-9a-f]+) (\S{4}) \S+ \S+ 0 *$", re.MULTILINE)


def arenas(pid: int | str) -> int:
    """Of a process, beside the main one."""
    maps = [
        (int(start, 16), int(end, 16), mode)
        for start, end, mode in _MAP.findall(Path(f"/proc/{pid}/maps").read_text())
    ]
    return sum(
        start % ARENA == 0 and mode == "rw-p" and rest == "---p" and end == again and last == start + ARENA
        for (start, end, mode), (again, last, rest) in itertools.pairwise(maps)
    )


def in_threads() -> int:
    """How many arenas there are while a few threads hold memory."""
    barrier = threading.Barrier(5)

    def hold() -> None:
        held = [bytes(2_000) for _ in range(100)]
        barrier.wait()
        barrier.wait()
        held.clear()

    threads = [threading.Thread(target=hold) for _ in range(4)]
    for thread in threads:
        thread.start()
    barrier.wait()
    found = arenas("self")
    barrier.wait()
    for thread in threads:
        thread.join()
    return found


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


def after_much(octets: int = 100_000) -> tuple[int, int]:
    """What is left of 100 MB that are free again and have something above them: at first, and when given back."""
    before = resident()
    held = [b"x" * octets for _ in range(1_000)]
    # No room that became free meanwhile is large enough for it.
    above = b"x" * (octets + 20_000)
    held.clear()
    kept = resident() - before
    give_back()
    after = resident() - before
    assert above
    return kept, after


def run_apart(program: str) -> str:
    """In a process of its own: what an allocator was told holds for good."""
    setup = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import test_allocation as its; "
    done = subprocess.run([sys.executable, "-c", setup + program], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_threads_share_an_arena_where_that_was_asked_for() -> None:
    assert int(run_apart("print(its.in_threads())")) > 0
    asked = "from mailguard_milter.allocation import share_one_arena; share_one_arena(); "
    assert run_apart(asked + "print(its.in_threads())") == "0"


def test_what_is_free_goes_back() -> None:
    kept, after = map(int, run_apart("print(*its.after_much())").split())
    assert kept > 80 * MEGABYTE
    assert after < kept / 10


@per_engine
def test_no_thread_of_a_worker_has_an_arena_of_its_own(daemon: Daemon) -> None:
    daemon.configure(listeners=f'[[listeners]]\naddress = "unix:{daemon.socket}"\nworkers = 1\n')
    daemon.started()
    threads = [threading.Thread(target=daemon.verdict) for _ in range(SESSIONS_AT_ONCE)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (worker,) = daemon.workers()
    assert arenas(worker) == 0


def test_the_native_engine_gives_back_once_a_second(own_directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the worker's main thread, which asks for trouble a few times a second."""
    given: list[str] = []
    monkeypatch.setattr(engine_native, "give_back", lambda: given.append(threading.current_thread().name))
    with native_host(own_directory) as host:
        # Not now: the start may have taken a second.
        start = host.engine._gave_back
        counts = []
        for seconds in (0.0, 1.5, 1.6, 2.4, 2.6, 10.0):
            assert host.engine.trouble(start + seconds) is None
            counts.append(len(given))
    assert counts == [0, 1, 1, 1, 2, 3]
    assert set(given) == {threading.current_thread().name}


@pytest.mark.attack("V16")
def test_a_process_knows_when_it_is_at_its_limit() -> None:
    look = (
        "import resource; from mailguard_milter.allocation import is_full\n"
        "size = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "for more in (None, 4 << 20, 0):\n"
        "    if more is not None: resource.setrlimit(resource.RLIMIT_AS, (size + more, -1))\n"
        "    print(is_full())\n"
    )
    done = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False", "True"]
