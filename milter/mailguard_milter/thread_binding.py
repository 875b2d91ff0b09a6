"""Which thread remembers a session's thread state: none, as Python 3.12 and newer write into it when it is gone.

pymilter makes one thread state for a session, on the thread of its first callback, and deletes it on that of its
last, with libmilter's worker pool another one. Python notes for each thread which thread state it met last
(PyGILState_GetThisThreadState), and takes the note away on the thread that deletes. Where the note stays behind, it
is of memory that was given back; when that thread meets the next new session, Python clears a bit there
(bind_gilstate_tstate in CPython's pystate.c), which may be one of another message by then. Left out: what would come
to its thread state by that note (PyGILState_Ensure); nothing that runs in a callback does.

Up to Python 3.14 the note is under a key of the C library's, from 3.15 on in a thread-local variable of Python's own,
which has no name outside of it. Either is found once, by what is in it.
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


class _Segment(ctypes.Structure):
    """A program header (ElfW(Phdr)) on a system with 64 bits."""

    _fields_ = (
        ("kind", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("place", ctypes.c_uint64 * 3),
        ("size_in_file", ctypes.c_uint64),
        ("size", ctypes.c_uint64),
        ("alignment", ctypes.c_uint64),
    )


# <elf.h> and <dlfcn.h>: of the object with Python's functions, its segments and this thread's copy of its variables.
_THREAD_LOCAL = 7
_OBJECT_OF_ADDRESS = 2
_VARIABLES_HERE, _SEGMENTS = 10, 11
_WORD = ctypes.sizeof(ctypes.c_void_p)


def _find_key() -> Callable[[], object] | None:
    """Of what the C library keeps for each thread, that by whose loss the note is gone."""
    own = _noted()
    for key in range(os.sysconf("SC_THREAD_KEYS_MAX")):
        if own is not None and _read(key) == own:
            _write(key, None)
            is_gone = _noted() is None
            _write(key, own)
            if is_gone:
                return partial(_write, key, None)
    return None


def _find_variable() -> Callable[[], object] | None:
    """Of Python's thread-local variables, that by whose loss the note is gone."""
    if _WORD != 8 or not all(hasattr(_library, name) for name in ("dladdr1", "dlinfo")):
        return None
    own, python = _noted(), ctypes.c_void_p()
    unused = ctypes.create_string_buffer(4 * _WORD)
    _library.dladdr1(ctypes.cast(_noted, ctypes.c_void_p), unused, ctypes.byref(python), _OBJECT_OF_ADDRESS)
    segments = ctypes.POINTER(_Segment)()
    if own is None or not python or (count := _library.dlinfo(python, _SEGMENTS, ctypes.byref(segments))) <= 0:
        return None

    def variables() -> int:
        found = ctypes.c_void_p()
        _library.dlinfo(python, _VARIABLES_HERE, ctypes.byref(found))
        return found.value or 0

    def forget(offset: int) -> None:
        if here := variables():  # a thread that Python has not been on has none, and no note
            ctypes.c_void_p.from_address(here + offset).value = None

    if not (start := variables()):
        return None
    seen = (ctypes.c_void_p * (sum(each.size for each in segments[:count] if each.kind == _THREAD_LOCAL) // _WORD))()
    # Without the GIL: else the thread state that runs is the same one, and Python must not lose that.
    ctypes.CDLL(None).memcpy(seen, ctypes.c_void_p(start), ctypes.c_size_t(ctypes.sizeof(seen)))
    for place in (index * _WORD for index, word in enumerate(seen) if word == own):
        forget(place)
        is_gone = _noted() is None
        ctypes.c_void_p.from_address(start + place).value = own
        if is_gone:
            return partial(forget, place)
    return None


def _find() -> Callable[[], object]:
    if sys.version_info < (3, 12):
        return _nothing
    if found := _find_key() if sys.version_info < (3, 15) else _find_variable():
        return found
    raise MissingExtraError(
        f"with Python {sys.version.split()[0]} on this system the engine on libmilter could damage messages, as"
        " Python writes into memory of sessions that are over and cannot be told not to; use a Python from 3.11 to"
        ' 3.14, or the engine that needs no libmilter: engine = "native"'
    )


def _nothing() -> None:
    """Nothing is written by that note."""


_FORGET = _find()


def thread_forgetter() -> Callable[[], object]:
    """What makes the thread that it is called on forget the session's thread state; for a session's first callback.

    The thread state takes itself for noted from then on, so that no other thread notes it. Before Python 3.12 it does
    nothing.
    """
    return _FORGET
