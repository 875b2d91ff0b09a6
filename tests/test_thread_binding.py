"""Which thread state a thread remembers: after a session's first callback none."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from mailguard_milter.thread_binding import thread_forgetter

pytestmark = pytest.mark.attack("P23")


def remembered() -> int | None:
    library: Any = ctypes.PyDLL(None)
    library.PyGILState_GetThisThreadState.restype = ctypes.c_void_p
    found: int | None = library.PyGILState_GetThisThreadState()
    return found


def test_only_the_thread_that_asks_forgets() -> None:
    """Python 3.11 writes into nothing that is gone, and is left alone."""
    before = remembered()
    forget = thread_forgetter()
    assert remembered() == before is not None

    def session() -> tuple[int | None, int | None]:
        first = remembered()
        forget()
        return first, remembered()

    with ThreadPoolExecutor(1) as thread:
        first, second = thread.submit(session).result()
    assert first is not None
    assert second == (None if sys.version_info >= (3, 12) else first)
    assert remembered() == before


@pytest.mark.parametrize(
    "nothing_to_find",
    [
        "sys.version_info, os.sysconf = (3, 12, 0), lambda name: 0",
        "sys.version_info, ctypes.cast = (3, 15, 0), lambda address, kind: None",
    ],
)
def test_where_python_cannot_be_told_the_error_says_what_else_there_is(nothing_to_find: str) -> None:
    program = (
        "import ctypes, os, sys\n"
        f"{nothing_to_find}\n"
        "from mailguard.errors import MissingExtraError\n"
        "try:\n    import mailguard_milter.engine_libmilter\n"
        "except MissingExtraError as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert 'or the engine that needs no libmilter: engine = "native"' in done.stdout
