"""Which thread remembers a session's thread state: none, as Python 3.12 and newer write into it when it is gone.

pymilter makes one thread state for a session, on the thread of its first callback, and deletes it on that of its
last, with libmilter's worker pool another one. Python notes for each thread which thread state it met last
(PyGILState_GetThisThreadState), and takes the note away on the thread that deletes. Where the note stays behind, it
is of memory that was given back; when that thread meets the next new session, Python clears a bit there
(bind_gilstate_tstate in CPython's pystate.c), which may be one of another message by then. Left out: what would come
to its thread state by that note (PyGILState_Ensure); nothing that runs in a callback does.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

from mailguard.errors import MissingExtraError

__all__ = ["thread_forgetter"]

# Python's functions and the C library's. Not ctypes.pythonapi: argument types are kept with the object.
_library: Any = ctypes.PyDLL(None)
_noted, _read, _write = (
    _library.PyGILState_GetThisThreadState,
    _library.pthread_getspecific,
    _library.pthread_setspecific,
)
_noted.restype = _read.restype = ctypes.c_void_p
_read.argtypes = [ctypes.c_uint]
_write.argtypes = [ctypes.c_uint, ctypes.c_void_p]


def _find_key() -> int:
    """Of what the C library keeps for each thread, that by whose loss the note is gone."""
    own = _noted()
    for key in range(os.sysconf("SC_THREAD_KEYS_MAX")):
        if own is not None and _read(key) == own:
            _write(key, None)
            is_gone = _noted() is None
            _write(key, own)
            if is_gone:
                return key
    raise MissingExtraError(
        f"with Python {sys.version.split()[0]} on this system the engine on libmilter could damage messages, as"
        " Python writes into memory of sessions that are over and cannot be told not to; use a Python from 3.11 to"
        ' 3.14, or the engine that needs no libmilter: engine = "native"'
    )


_KEY = _find_key() if sys.version_info >= (3, 12) else None


def thread_forgetter() -> Callable[[], object]:
    """What makes the thread that it is called on forget the session's thread state; for a session's first callback.

    The thread state takes itself for noted from then on, so that no other thread notes it. Before Python 3.12 it does
    nothing.
    """
    return _nothing if _KEY is None else partial(_write, _KEY, None)


def _nothing() -> None:
    """Nothing is written by that note."""
