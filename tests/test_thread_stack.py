"""Where a thread state runs: what is held through it is given back, wherever Python believes that it is."""

from __future__ import annotations

import ctypes
import subprocess
import sys
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from mailguard_milter import thread_stack

pytestmark = pytest.mark.attack("P23")

FAR_ABOVE = 2**60
STACK = 8 * 2**20


class Held:
    """Has an attribute, so that Python puts off its end when the stack seems to be used up."""

    def __init__(self) -> None:
        self.other = [self.__class__]


def believe_another_stack() -> None:
    """As after a session has gone on on another thread. Before Python 3.14 there is nothing to be wrong about."""
    library: Any = ctypes.PyDLL(None)
    try:
        set_bounds, current = library.PyUnstable_ThreadState_SetStackProtection, library.PyThreadState_Get
    except AttributeError:
        return
    current.restype = ctypes.c_void_p
    set_bounds.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t]
    set_bounds(current(), FAR_ABOVE, STACK)


def test_what_a_callback_holds_is_given_back() -> None:
    left: list[weakref.ref[Held]] = []

    def callback(number: int) -> int:
        left.append(weakref.ref(Held()))
        return number

    def session() -> tuple[int, int]:
        believe_another_stack()
        called = thread_stack.stack_follower()(callback)
        return called(1), called(2)

    with ThreadPoolExecutor(1) as thread:
        assert thread.submit(session).result() == (1, 2)
    assert [reference() for reference in left] == [None, None]


def test_each_thread_has_its_own() -> None:
    """The decorated callback is one for all sessions."""
    left: list[weakref.ref[Held]] = []

    def callback() -> int:
        left.append(weakref.ref(Held()))
        return 0

    called = thread_stack.stack_follower()(callback)

    def session() -> None:
        believe_another_stack()
        called()

    for _ in range(3):
        thread = threading.Thread(target=session)
        thread.start()
        thread.join()
    assert [reference() for reference in left] == [None] * 3


def test_where_python_cannot_be_told_the_error_says_what_else_there_is() -> None:
    program = (
        "import ctypes, sys\n"
        "ctypes.pythonapi, sys.version_info = object(), (3, 14, 0)\n"
        "from mailguard.errors import MissingExtraError\n"
        "try:\n    import mailguard_milter.engine_libmilter\n"
        "except MissingExtraError as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert 'or the engine that needs no libmilter: engine = "native"' in done.stdout
