"""How a worker's memory allocator (glibc's malloc) is told to keep little; and whether there is any more.

Bodies come in parts of 64 KiB, each of which is gone a moment later. glibc would keep room for them in an arena for
each thread, and on top of the heap, for as long as the process lives (mallopt(3), malloc_trim(3)).
"""

from __future__ import annotations

import ctypes
import mmap
import resource

__all__ = ["give_back", "is_full", "share_one_arena"]

# A few parts of a body, or what a session and its thread begin with.
LITTLE_OCTETS = 1 << 20

# From malloc.h.
_M_ARENA_MAX = -8

_libc = ctypes.CDLL(None)


def share_one_arena() -> None:
    """Have all threads allocate from one arena: with the GIL they do so one at a time anyway. Before any thread."""
    if mallopt := getattr(_libc, "mallopt", None):
        mallopt(_M_ARENA_MAX, 1)


def give_back() -> None:
    """Give the system what is free. Takes some ten microseconds, and more only where there is much to give."""
    if malloc_trim := getattr(_libc, "malloc_trim", None):
        malloc_trim(0)


def is_full() -> bool:
    """Whether a limit on this process keeps it from any more memory. Takes some microseconds.

    Where the whole host has none left, another process would get none either.
    """
    limits = map(resource.getrlimit, (resource.RLIMIT_AS, resource.RLIMIT_DATA))
    if all(soft == resource.RLIM_INFINITY for soft, _ in limits):
        return False
    try:
        mmap.mmap(-1, LITTLE_OCTETS, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS).close()
    except (OSError, MemoryError):
        return True
    return False
