"""Where a session's thread state runs now: since Python 3.14 the bounds of the C stack are kept with it.

pymilter makes one thread state for a session, and libmilter's worker pool runs the session's callbacks on one thread
after the other. Python 3.14 measures how deep it is by the stack of the thread where the thread state was first used.
On a thread whose stack lies lower it believes that the stack is used up and puts off what it should deallocate; with
the thread state that is forgotten, and what the session held is never given back (python/cpython#157519).
"""

from __future__ import annotations

import ctypes
import sys
import threading
from collections.abc import Callable
from typing import Any

from mailguard.errors import MissingExtraError

__all__ = ["stack_follower"]

_NEEDED = ("PyUnstable_ThreadState_SetStackProtection", "pthread_getattr_np")
_KEEPS_BOUNDS = sys.version_info >= (3, 14)
# No pthread_attr_t is larger.
_ROOM_FOR_ATTRIBUTES = 1024

if _KEEPS_BOUNDS and not all(hasattr(ctypes.pythonapi, name) for name in _NEEDED):
    raise MissingExtraError(
        f"with Python {sys.version.split()[0]} on this system the engine on libmilter would lose memory with each"
        " message, as Python takes the stack of one thread for that of another and cannot be told; use a newer 3.14,"
        ' or 3.13, or the engine that needs no libmilter: engine = "native"'
    )

_Callback = Callable[..., int]


def stack_follower() -> Callable[[_Callback], _Callback]:
    """A decorator for callbacks: where one runs on another thread than the last one of its session, Python is told.

    Before Python 3.14 it gives back what it is given.
    """
    if not _KEEPS_BOUNDS:
        return _as_it_is
    tell = _teller()
    # What is local belongs to the thread state, and with pymilter that is the session.
    last = threading.local()

    def following(callback: _Callback) -> _Callback:
        def called(*arguments: Any) -> int:
            try:
                thread = threading.get_ident()
                if getattr(last, "thread", None) != thread:
                    tell(thread)
                    last.thread = thread
            except (MemoryError, OSError, ValueError):
                pass  # the next callback tries again, and this one must have its reply
            return callback(*arguments)

        return called

    return following


def _as_it_is(callback: _Callback) -> _Callback:
    return callback


def _teller() -> Callable[[int], None]:
    """What sets the bounds of the current thread state to those of the thread that it runs on, which it is given."""
    # Python's functions and the C library's. Not ctypes.pythonapi: argument types are kept with the object.
    library: Any = ctypes.PyDLL(None)
    set_bounds, current = library.PyUnstable_ThreadState_SetStackProtection, library.PyThreadState_Get
    set_bounds.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t]
    current.restype = ctypes.c_void_p
    read_attributes, get_stack = library.pthread_getattr_np, library.pthread_attr_getstack
    read_attributes.argtypes = [ctypes.c_ulong, ctypes.c_char_p]

    def tell(thread: int) -> None:
        attributes = ctypes.create_string_buffer(_ROOM_FOR_ATTRIBUTES)
        start, size = ctypes.c_void_p(), ctypes.c_size_t()
        if error := read_attributes(thread, attributes):
            raise OSError(error, "pthread_getattr_np")
        get_stack(attributes, ctypes.byref(start), ctypes.byref(size))
        library.pthread_attr_destroy(attributes)
        set_bounds(current(), start, size)

    return tell
