"""Which worker serves an SMTP session: from the client's socket over Postfix's smtpd to the milter's, with proc(5).

For a milter on TCP: of UNIX sockets /proc does not tell the peer. IPv4 on loopback, Linux, root.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from postfix_site import Client, PostfixSite
from sandbox_place import processes_in

__all__ = ["worker_of"]

PATIENCE_S = 60.0
POLL_S = 0.01
_ESTABLISHED = "01"


def worker_of(site: PostfixSite, client: Client) -> int:
    """The process id of the worker that serves this session of the service for our own users."""
    deadline = time.monotonic() + PATIENCE_S
    while not (found := _look(site, client)):
        # Postfix is connected before a worker accepts.
        assert time.monotonic() < deadline, f"no worker serves the session\n{site.daemon.log_tail()}"
        time.sleep(POLL_S)
    return found


def _look(site: PostfixSite, client: Client) -> int:
    assert client.sock is not None
    smtp_port = site.postfix.ports["submission"]
    milter_port = int(site.milter.rpartition(":")[2])
    connections = _connections()
    smtpd = _holder(connections.get((smtp_port, client.sock.getsockname()[1])), _postfix_processes(site))
    its_sockets = _sockets_of(smtpd)
    for (local, remote), inode in connections.items():
        if remote == milter_port and inode in its_sockets:
            return _holder(connections.get((milter_port, local)), site.daemon.workers())
    return 0


def _postfix_processes(site: PostfixSite) -> list[int]:
    return processes_in(site.postfix.directory / "queue")


def _holder(inode: int | None, processes: list[int]) -> int:
    """The one of the processes that has the socket, or 0."""
    return next((pid for pid in processes if inode in _sockets_of(pid)), 0)


def _connections() -> dict[tuple[int, int], int]:
    """Local and remote port of each established connection, and the inode of its socket once it is accepted."""
    found = {}
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, remote, state, _, _, _, _, _, inode, *_ = line.split()
        if state == _ESTABLISHED and inode != "0":
            found[int(local.rpartition(":")[2], 16), int(remote.rpartition(":")[2], 16)] = int(inode)
    return found


def _sockets_of(pid: int) -> set[int]:
    """The inodes of its sockets; none if it has ended."""
    found = set()
    try:
        for name in os.listdir(f"/proc/{pid}/fd"):
            target = _target(f"/proc/{pid}/fd/{name}")
            if target.startswith("socket:["):
                found.add(int(target[len("socket:[") : -1]))
    except OSError:
        return set()
    return found


def _target(link: str) -> str:
    try:
        return os.readlink(link)
    except OSError:
        return ""  # closed meanwhile
