"""Refusal: why the daemon, or a process of it, does not start or does not reload, and the exit code that says so.

The supervisor's own, because it does not import mailguard. Exit codes as in sysexits.h.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping

__all__ = ["EX_CONFIG", "EX_SOFTWARE", "EX_TEMPFAIL", "EX_USAGE", "Refusal", "refused_file", "why_not_started"]

EX_USAGE = 64
EX_SOFTWARE = 70
EX_TEMPFAIL = 75
EX_CONFIG = 78

# fork(2), pipe(2), open(2), bind(2): what the kernel says at a limit, and which limit that may be.
_LIMITS: Mapping[int, str] = {
    errno.EAGAIN: "a limit on processes is reached: raise TasksMax= of the unit, or ulimit -u of the user",
    errno.ENOMEM: "no memory is left, or a limit on it is reached: see free -m, MemoryMax= and LimitAS= of the unit",
    errno.EMFILE: "a limit on open files is reached: raise LimitNOFILE= of the unit, or ulimit -n",
    errno.ENOSPC: "no room or no inode is left there: see df and df -i",
    errno.EROFS: "mounted so, or closed by the unit: name the directory in ReadWritePaths= of the unit",
    errno.ENFILE: "the machine's limit on open files is reached: raise fs.file-max (sysctl)",
}

# What Python says in place of it where the kernel starts no thread.
_NO_THREAD = "can't start new thread"


class Refusal(Exception):
    """The text says what is wrong and what to do."""

    def __init__(self, text: str, code: int = EX_CONFIG) -> None:
        super().__init__(text)
        self.code = code


def refused_file(what: str, error: OSError, remedy: str) -> Refusal:
    """For a file that cannot be made or opened. At a limit it is tried again; after EX_CONFIG systemd does not."""
    if error.errno in _LIMITS:
        return Refusal(f"{what}: {why_not_started(error)}", EX_TEMPFAIL)
    return Refusal(f"{what}: {error.strerror}; {remedy}")


def why_not_started(error: BaseException) -> str:
    """Why a process or a thread could not be started, and what to do where that is known."""
    why, number = str(error), 0
    if isinstance(error, OSError):
        why, number = error.strerror or why, error.errno or 0
    elif why == _NO_THREAD:
        number = errno.EAGAIN
    limit = _LIMITS.get(number)
    return f"{why}; {limit}" if limit else why
