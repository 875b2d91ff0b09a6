"""Where a sandbox lives: a directory that every user can reach, a port, and an end to what runs in there.

A process belongs to a sandbox if its working directory is in it, which holds for each of Postfix's daemons and for
each process of mailguard's; so also those are found whose parent was killed. Nothing here keeps state.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import stat
import tempfile
import time
from pathlib import Path

__all__ = [
    "HOST",
    "POLL_S",
    "SYSTEM_PATH",
    "SandboxError",
    "clean_environment",
    "end_processes_in",
    "free_port",
    "is_public",
    "make_directory",
    "make_public_directory",
    "port_of",
    "processes_in",
    "reserve_port",
    "write_file",
]

HOST = "127.0.0.1"
# Below the range from which the kernel takes ports for outgoing connections.
PORTS = range(10_000, 32_000)
STOP_TIMEOUT_S = 15.0
POLL_S = 0.02
PUBLIC_DIRECTORY_MODE = 0o755
SYSTEM_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"


class SandboxError(Exception):
    """The sandbox could not do what was asked of it; the text has the end of the log."""


def is_public(path: Path) -> bool:
    """Whether every user can reach what is in a directory."""
    resolved = path.resolve()
    return all(each.stat().st_mode & stat.S_IXOTH for each in (resolved, *resolved.parents))


def make_public_directory(prefix: str) -> Path:
    """A new directory that every user can reach: Postfix and the daemon run as users of their own."""
    for parent in (tempfile.gettempdir(), "/tmp", "/var/tmp"):  # noqa: S108 - mkdtemp makes a directory in it
        if is_public(Path(parent)):
            directory = Path(tempfile.mkdtemp(prefix=prefix, dir=parent)).resolve()
            directory.chmod(PUBLIC_DIRECTORY_MODE)
            return directory
    raise SandboxError("no directory for temporary files can be reached by all users")


def make_directory(path: Path) -> None:
    """A directory that every user can read, whatever the umask is."""
    path.mkdir()
    path.chmod(PUBLIC_DIRECTORY_MODE)


def write_file(path: Path, text: str) -> None:
    """A file that every user can read, whatever the umask is; replaced in one go."""
    fresh = path.with_name(f"{path.name}.new")
    fresh.write_text(text)
    fresh.chmod(0o644)
    fresh.replace(path)


def reserve_port() -> socket.socket:
    """A socket that holds a port of 127.0.0.1 for Postfix or another server, until it is closed.

    Postfix binds with SO_REUSEPORT, so that two instances would share a port and each get half of the other's mail.
    Set after the bind, it lets Postfix in, as SO_REUSEADDR does a server that binds with it, under whatever user; a
    bind without them, as another reservation's, is refused.
    """
    for port in random.sample(PORTS, 100):
        held = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            held.bind((HOST, port))
        except OSError:
            held.close()
            continue
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        return held
    raise SandboxError("no free port was found on 127.0.0.1")


def free_port() -> int:
    """A TCP port of 127.0.0.1 on which nothing listens now."""
    with reserve_port() as held:
        return port_of(held)


def port_of(held: socket.socket) -> int:
    """The port of an IPv4 socket."""
    port = held.getsockname()[1]
    assert isinstance(port, int)  # noqa: S101 - for the type checker
    return port


def clean_environment() -> dict[str, str]:
    """The environment of Postfix's commands."""
    # Not the caller's: MAIL_CONFIG, LANG and others change what Postfix does.
    return {"PATH": SYSTEM_PATH, "LC_ALL": "C"}


def processes_in(directory: Path) -> list[int]:
    """The processes whose working directory this is."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                where = os.readlink(entry / "cwd")
            except OSError:
                continue  # it has ended
            if where == str(directory):
                found.append(int(entry.name))
    return found


def end_processes_in(directory: Path) -> list[int]:
    """Ask the processes there to end, then kill them; those that are there all the same."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        deadline = time.monotonic() + STOP_TIMEOUT_S
        asked: set[int] = set()
        while left := processes_in(directory):
            if time.monotonic() > deadline:
                break
            for process in set(left) - asked:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, number)
                asked.add(process)
            time.sleep(POLL_S)
        if not left:
            break
    return left
