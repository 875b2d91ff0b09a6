"""How libmilter was built: with a pool of threads, as Debian's is, or with a thread for each session. Pure.

Told by the names of its functions: they are in the table of names of every shared library, stripped or not, as
libmilter hides none of them. worker.c, which has the pool, is empty unless it was built with _FFR_WORKERS_POOL.
"""

from __future__ import annotations

from enum import Enum

__all__ = ["Build", "build_of"]

POOL = "mi_pool_controller_init"
# It is in every build, and no part of what programs may use: where it is hidden, the other one may be, too.
ALWAYS = "mi_listener"


class Build(Enum):
    """What serves the sessions."""

    POOL_POLL = "a pool of threads, which wait with poll"
    POOL_SELECT = "a pool of threads, which wait with select"
    POOL = "a pool of threads"
    THREADS = "a thread for each session"
    UNKNOWN = "not to be told from its file"


def build_of(library: bytes) -> Build:
    """`library`: the octets of libmilter's file, or of what it was linked into."""
    if not _names(library, ALWAYS):
        return Build.UNKNOWN
    if not _names(library, POOL):
        return Build.THREADS
    if _names(library, "poll"):
        return Build.POOL_POLL
    return Build.POOL_SELECT if _names(library, "select") else Build.POOL


def _names(library: bytes, function: str) -> bool:
    """In a table of names each stands between two NULs."""
    return b"\0%b\0" % function.encode("ascii") in library
