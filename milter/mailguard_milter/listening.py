"""Listening sockets: made by the supervisor, inherited by every generation, removed at the end.

Non-blocking, because several workers accept on one. Accepted connections inherit TCP_NODELAY, without which each
message waits 44 ms, and keepalive, because a host that is gone says nothing. Unix sockets exist with their final mode
from the first moment, in a directory that only root and the daemon can change; what is at the path already is removed
only if it is a socket of ours that nobody listens on. For the supervisor: no import of mailguard.
"""

from __future__ import annotations

import os
import socket
import stat
import time
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

from mailguard_milter.identity import Identity, group_id
from mailguard_milter.log import Severity, tell
from mailguard_milter.refusal import EX_TEMPFAIL, Refusal, refused_file, why_not_started

__all__ = ["ListeningSocket", "check_directory", "check_reach", "is_at", "prepare_inet"]

BACKLOG = 1024
# Workers whose supervisor was killed let go of its sockets within a second.
STALE_PATIENCE_S = 3.0
PROBE_TIMEOUT_S = 1.0
# An MTA may be silent for long (engine.SESSION_TIMEOUT_S); whether its host is there is asked after 5 minutes, and
# it is given up after 5 more without an answer.
KEEPALIVE = ((socket.TCP_KEEPIDLE, 300), (socket.TCP_KEEPINTVL, 60), (socket.TCP_KEEPCNT, 5))


def check_directory(path: str, identity: Identity) -> None:
    """Refuse a directory in which others than root and the daemon can replace an entry. Raises Refusal."""
    for route in dict.fromkeys([os.path.abspath(path), os.path.realpath(path)]):
        _check_route(route, identity)


def _check_route(route: str, identity: Identity) -> None:
    directory, below = route, None
    while True:
        try:
            status = os.stat(directory)
        except OSError as error:
            raise Refusal(f"{directory}: {error.strerror}; create it for the user {identity.name}") from None
        if not stat.S_ISDIR(status.st_mode):
            raise Refusal(f"{directory} is not a directory")
        if status.st_uid not in (0, identity.uid, os.geteuid()):
            raise Refusal(
                f"{directory} belongs to another user (uid {status.st_uid}), who could replace what is in it;"
                f" run: chown {identity.name} {directory}"
            )
        if status.st_mode & stat.S_IWOTH:
            # In a sticky directory (/tmp) an entry can be replaced by its owner alone: good enough further up.
            held = below is not None and status.st_mode & stat.S_ISVTX and below.st_uid in (0, identity.uid)
            if not held:
                remedy = "" if status.st_mode & stat.S_ISVTX else f", or run: chmod o-w {directory}"
                raise Refusal(f"every user can write to {directory}; choose a directory of its own{remedy}")
        below = os.lstat(directory)
        if directory == "/":
            return
        directory = os.path.dirname(directory)


def is_at(path: str, identity: tuple[int, int]) -> bool:
    """Whether the file with this device and inode is at the path, as far as can be seen."""
    try:
        status = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    return (status.st_dev, status.st_ino) == identity


def check_reach(plan: Mapping[str, Any]) -> None:
    """Warn of an inet listener that other hosts can reach. Raises Refusal where the plan does not allow it."""
    if ip_address(plan["ip"]).is_loopback:
        return
    if not plan["allow_remote"]:
        raise Refusal(f"{plan['address']} can be reached by other hosts; listen on loopback, or set allow_remote")
    tell("other hosts can reach a listener and have mail signed", Severity.WARNING, address=plan["address"])


def prepare_inet(listener: socket.socket) -> None:
    """Set what the connections that are accepted on it inherit. Raises OSError."""
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in KEEPALIVE:
        listener.setsockopt(socket.IPPROTO_TCP, option, value)


@dataclass(slots=True)
class ListeningSocket:
    """One, as the plan (plan.py) describes it."""

    address: str
    socket: socket.socket
    path: str = ""
    inode: tuple[int, int] = (0, 0)

    @classmethod
    def open(cls, plan: Mapping[str, Any], identity: Identity) -> ListeningSocket:
        """Bind and listen. Raises Refusal."""
        try:
            if plan["family"] == "unix":
                return cls._open_unix(plan, identity)
            return cls._open_inet(plan)
        except OSError as error:
            raise Refusal(f"{plan['address']}: cannot listen: {why_not_started(error)}", EX_TEMPFAIL) from None

    @classmethod
    def _open_inet(cls, plan: Mapping[str, Any]) -> ListeningSocket:
        check_reach(plan)
        ip = ip_address(plan["ip"])
        opened = socket.socket(socket.AF_INET if ip.version == 4 else socket.AF_INET6, socket.SOCK_STREAM)
        try:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            prepare_inet(opened)
            if ip.version == 6:
                opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            opened.bind((plan["ip"], plan["port"]))
            _listen(opened)
        except BaseException:
            opened.close()
            raise
        return cls(plan["address"], opened)

    @classmethod
    def _open_unix(cls, plan: Mapping[str, Any], identity: Identity) -> ListeningSocket:
        path = plan["path"]
        check_directory(os.path.dirname(path), identity)
        _remove_stale(path, identity)
        opened = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            # Nobody but us until it has its group: bind gives it the mode that the umask leaves.
            before = os.umask(0o777)
            try:
                opened.bind(path)
            finally:
                os.umask(before)
            status = os.lstat(path)
            # Root makes it where the daemon's user may put something else in its place at any time.
            if not stat.S_ISSOCK(status.st_mode) or status.st_uid != os.geteuid() or status.st_nlink > 1:
                raise Refusal(f"{path} was replaced while it was made; choose a directory that only root can change")
            made = cls(plan["address"], opened, path, (status.st_dev, status.st_ino))
            made.adjust(plan, identity)
            _listen(opened)
        except BaseException:
            opened.close()
            raise
        return made

    def adjust(self, plan: Mapping[str, Any], identity: Identity) -> None:
        """Give a unix socket the group and mode that the plan names, and nothing else. Raises Refusal."""
        if not self.path:
            return
        gid = group_id(plan["group"]) if plan["group"] else identity.gid
        owner = identity.uid if os.geteuid() == 0 else -1
        try:
            held = os.open(self.path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                status = os.fstat(held)
                if (status.st_dev, status.st_ino) != self.inode:
                    raise Refusal(f"{self.path} is not this daemon's socket any more; restart the daemon")
                # What O_PATH opened can be changed by this name alone.
                name = f"/proc/self/fd/{held}"
                if (status.st_uid, status.st_gid) != (status.st_uid if owner == -1 else owner, gid):
                    os.chown(name, owner, gid)
                os.chmod(name, plan["mode"])
            finally:
                os.close(held)
        except OSError as error:
            remedy = f"add the user {identity.name} to the group {plan['group']}, or start the daemon as root"
            raise refused_file(f"{self.path}: its group and mode cannot be set", error, remedy) from None

    def is_lost(self) -> bool:
        """Whether its path leads to it no more, so that nobody can connect."""
        return bool(self.path) and not is_at(self.path, self.inode)

    def close(self) -> None:
        """Let go of it, and remove its path if it is still this socket's."""
        self.socket.close()
        if not self.path:
            return
        try:
            status = os.lstat(self.path)
            if (status.st_dev, status.st_ino) == self.inode:
                os.unlink(self.path)
        except OSError:
            return  # gone, or in a directory that only root can change: the next start deals with it


def _listen(opened: socket.socket) -> None:
    opened.setblocking(False)
    opened.listen(BACKLOG)


def _remove_stale(path: str, identity: Identity) -> None:
    give_up = time.monotonic() + STALE_PATIENCE_S
    while True:
        try:
            status = os.lstat(path)
        except FileNotFoundError:
            return
        if not stat.S_ISSOCK(status.st_mode):
            raise Refusal(f"{path} exists and is not a socket; remove it, or choose another path")
        if status.st_uid not in (0, identity.uid, os.geteuid()):
            raise Refusal(f"{path} belongs to another user (uid {status.st_uid}); remove it, or choose another path")
        if not _is_listened_on(path):
            os.unlink(path)
            return
        if time.monotonic() > give_up:
            raise Refusal(f"{path}: another process listens there; stop it, or choose another path", EX_TEMPFAIL)
        time.sleep(0.1)


def _is_listened_on(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(PROBE_TIMEOUT_S)
        try:
            probe.connect(path)
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError:
            return True  # a full backlog has a listener too
    return True
