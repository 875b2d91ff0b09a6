"""A piece of work done as another user, in a child process that gives up root for good.

What the child returns comes back as JSON through a pipe. It needs no file of ours: all that it uses is loaded before
it becomes that user. Must be called while the process has one thread.
"""

from __future__ import annotations

import json
import os
import pwd
import select
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["Person", "fault_as", "run_as"]

# The child has an alarm of its own; this is for one that does not even get so far.
GRACE_S = 2.0
CHUNK = 65_536


@dataclass(frozen=True, slots=True)
class Person:
    """A user and all the groups it is in."""

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]

    @classmethod
    def named(cls, name: str) -> Person | None:
        """None if there is no such user."""
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            return None
        return cls(name, entry.pw_uid, entry.pw_gid, tuple(os.getgrouplist(name, entry.pw_gid)))

    def become(self) -> None:
        """For good. Raises OSError."""
        os.setgroups(self.groups)
        os.setresgid(self.gid, self.gid, self.gid)
        os.setresuid(self.uid, self.uid, self.uid)


def run_as(
    person: Person | None,
    work: Callable[[], dict[str, object]],
    *,
    timeout_s: float,
    directory: str = "/",
    chroot: str = "",
) -> dict[str, object]:
    """What `work` returns, in `directory` and as `person`, or as who we are. `{"error": ...}` if it came to nothing.

    `chroot` and another user need root.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(reading)
            _child(writing, person, work, timeout_s=timeout_s, directory=directory, chroot=chroot)
        finally:
            # Never back into the caller's code, nor into what it does at the end.
            os._exit(0)
    os.close(writing)
    try:
        octets = _read_all(reading, time.monotonic() + timeout_s + GRACE_S)
    finally:
        os.close(reading)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    try:
        found = json.loads(octets)
    except ValueError:
        return {"error": f"no answer within {timeout_s:g} s"}
    return found if isinstance(found, dict) else {"error": "no answer"}


def fault_as(person: Person | None, work: Callable[[], str], *, timeout_s: float) -> str:
    """`run_as` for work that returns what is wrong, or nothing."""
    found = run_as(person, lambda: {"error": work()}, timeout_s=timeout_s)
    return str(found["error"])


def _child(
    writing: int,
    person: Person | None,
    work: Callable[[], dict[str, object]],
    *,
    timeout_s: float,
    directory: str,
    chroot: str,
) -> None:
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, timeout_s)
    try:
        if chroot:
            os.chroot(chroot)
            os.chdir("/")
        else:
            os.chdir(directory)
        if person is not None:
            person.become()
        found = work()
    except Exception as error:  # noqa: BLE001 - it is told to the parent
        found = {"error": f"{type(error).__name__}: {error}"}
    os.write(writing, json.dumps(found).encode())


def _read_all(reading: int, deadline: float) -> bytes:
    octets = b""
    while (left := deadline - time.monotonic()) > 0 and select.select([reading], [], [], left)[0]:
        chunk = os.read(reading, CHUNK)
        if not chunk:
            break
        octets += chunk
    return octets
