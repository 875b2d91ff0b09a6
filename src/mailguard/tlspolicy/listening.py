"""Listening sockets: inet, and unix sockets whose path is theirs from start to end.

A unix socket exists with its final mode and group from the first moment. What is at its path already is removed only
if it is a socket of our own user that nobody listens on. Left out: sockets that systemd passes. For the start and the
end of a process.
"""

from __future__ import annotations

import grp
import os
import socket
import stat
from dataclasses import dataclass

from mailguard.config_values import SocketAddress
from mailguard.errors import ConfigError

__all__ = ["BACKLOG", "CannotListen", "ListeningSocket", "open_socket"]

BACKLOG = 1_024
PROBE_TIMEOUT_S = 1.0


class CannotListen(ConfigError):
    """Not now: the address is in use, or not there yet."""


@dataclass(slots=True)
class ListeningSocket:
    """One, which accepts connections."""

    socket: socket.socket
    path: str = ""
    identity: tuple[int, int] = (0, 0)

    def close(self) -> None:
        """Remove its path if it is still this socket's, and let go of it."""
        try:
            # While the socket is open, its inode is no other's.
            if self.path:
                status = os.lstat(self.path)
                if (status.st_dev, status.st_ino) == self.identity:
                    os.unlink(self.path)
        except OSError:
            return  # gone, or in a directory that was taken from us: the next start deals with it
        finally:
            self.socket.close()


def open_socket(address: str, *, mode: int, group: str | None) -> ListeningSocket:
    """Bind and listen. `mode` and `group` are for a unix socket. Raises CannotListen, and ConfigError for good."""
    parsed = SocketAddress.parse(address)
    try:
        if parsed.family == "unix":
            return _open_unix(parsed.path, mode, group)
        family = socket.AF_INET if parsed.family == "inet" else socket.AF_INET6
        opened = socket.socket(family, socket.SOCK_STREAM)
        try:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            opened.bind((str(parsed.ip), parsed.port))
            _listen(opened)
        except BaseException:
            opened.close()
            raise
        return ListeningSocket(opened)
    except OSError as error:
        raise CannotListen(f"{address}: cannot listen: {error.strerror or error}") from None


def _open_unix(path: str, mode: int, group: str | None) -> ListeningSocket:
    group_id = _group_id(group) if group is not None else -1
    _check_directory(os.path.dirname(path))
    _remove_stale(path)
    opened = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # Nobody but us until it has its group: bind gives it the mode that the umask leaves.
        before = os.umask(0o777)
        try:
            opened.bind(path)
        finally:
            os.umask(before)
        made = ListeningSocket(opened, path, _give(path, mode, group_id, group))
        _listen(opened)
    except BaseException:
        opened.close()
        raise
    return made


def _check_directory(directory: str) -> None:
    """Who can put a socket of his own there tells Postfix that no TLS is demanded."""
    for route in dict.fromkeys([os.path.abspath(directory), os.path.realpath(directory)]):
        place, owner_below = route, None
        while True:
            status = os.stat(place)
            # In a sticky directory (/tmp) an entry can be replaced by its owner alone: good enough further up.
            held = status.st_mode & stat.S_ISVTX and owner_below in (0, os.geteuid())
            if status.st_mode & stat.S_IWOTH and not held:
                raise ConfigError(f"every user can write to {place}; choose a directory of its own for the socket")
            if place == "/":
                break
            place, owner_below = os.path.dirname(place), os.lstat(place).st_uid


def _give(path: str, mode: int, group_id: int, group: str | None) -> tuple[int, int]:
    """Give the socket that was made at the path its group and mode, and nothing else; its identity."""
    held = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        status = os.fstat(held)
        # Where root makes it, another may own the directory, and put something else in its place.
        if not stat.S_ISSOCK(status.st_mode) or status.st_uid != os.geteuid() or status.st_nlink > 1:
            raise ConfigError(f"{path} was replaced while it was made; choose a directory of this user's own")
        # What O_PATH opened can be changed by this name alone.
        name = f"/proc/self/fd/{held}"
        try:
            if group is not None:
                os.chown(name, -1, group_id)
        except OSError as error:
            raise ConfigError(
                f"{path}: its group cannot be set: {error.strerror}; add this user to the group {group}"
            ) from None
        os.chmod(name, mode)
    finally:
        os.close(held)
    return status.st_dev, status.st_ino


def _listen(opened: socket.socket) -> None:
    opened.setblocking(False)
    opened.listen(BACKLOG)


def _group_id(name: str) -> int:
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        raise ConfigError(f"there is no group {name}") from None


def _remove_stale(path: str) -> None:
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(status.st_mode):
        raise ConfigError(f"{path} exists and is not a socket; remove it, or choose another path")
    if status.st_uid not in (0, os.geteuid()):
        raise ConfigError(f"{path} belongs to another user (uid {status.st_uid}); remove it, or choose another path")
    if _is_listened_on(path):
        raise CannotListen(f"{path}: another process listens there; stop it, or choose another path")
    os.unlink(path)


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
