"""Sockets that systemd has bound, listens on, and passes to the daemon (sd_listen_fds(3), systemd.socket(5)).

They outlive the daemon: whoever connects while it restarts waits in their backlog and is not refused. Each belongs
to the listener of the configuration that has its address, and every listener must have one; a FileDescriptorName=
that is the path of a listener names that one instead. What systemd has made stays systemd's: neither the path of a
socket nor its mode is touched, and both are only checked. For the supervisor: no import of mailguard.
"""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any

from mailguard_milter.identity import Identity, group_id
from mailguard_milter.listening import check_directory, check_reach, prepare_inet
from mailguard_milter.log import Severity, tell
from mailguard_milter.refusal import Refusal

__all__ = ["PassedSocket", "SystemdSocket", "assign", "take_passed"]

# SD_LISTEN_FDS_START: what comes before is stdin, stdout and stderr.
FIRST_DESCRIPTOR = 3
UNNAMED = "unknown"
# More than a process can have open.
MAX_DIGITS = 4
_FAMILIES: Mapping[int, str] = {socket.AF_UNIX: "unix", socket.AF_INET: "inet", socket.AF_INET6: "inet6"}


@dataclass(frozen=True, slots=True)
class PassedSocket:
    """A listening stream socket as it was passed."""

    socket: socket.socket
    name: str
    """FileDescriptorName=, which is the name of the unit by default."""

    @property
    def unit(self) -> str:
        """Where it can be changed, for people."""
        return self.name if self.name.endswith(".socket") else "its .socket unit"

    @property
    def path(self) -> str:
        """Of a unix socket; "" where it has none."""
        name = self.socket.getsockname() if self.socket.family == socket.AF_UNIX else ""
        return name if isinstance(name, str) else ""

    @property
    def address(self) -> str:
        """As the configuration writes it. Of an abstract unix socket as systemd writes it, with an @."""
        name = self.socket.getsockname()
        if self.socket.family == socket.AF_UNIX:
            return f"unix:{name if isinstance(name, str) else '@' + name[1:].decode('utf-8', 'replace')}"
        ip = f"[{name[0]}]" if self.socket.family == socket.AF_INET6 else name[0]
        return f"{_FAMILIES[self.socket.family]}:{ip}:{name[1]}"


def take_passed(environment: MutableMapping[str, str]) -> tuple[PassedSocket, ...]:
    """What systemd passed to this process, none as a rule; the variables are taken out: they are not for children.

    Raises Refusal for what is not a listening stream socket.
    """
    pid, count, names = (environment.pop(f"LISTEN_{each}", "") for each in ("PID", "FDS", "FDNAMES"))
    if not pid or count in ("", "0"):
        return ()
    if pid != str(os.getpid()):
        tell(
            "sockets were passed to another process and are not used",
            Severity.WARNING,
            LISTEN_PID=pid,
            remedy="start the daemon itself in ExecStart= of its .service unit, or by exec",
        )
        return ()
    if not (count.isascii() and count.isdigit() and len(count) <= MAX_DIGITS):
        raise Refusal(f'LISTEN_FDS is "{count}" and not a number of sockets; it is for systemd to set')
    descriptors = range(FIRST_DESCRIPTOR, FIRST_DESCRIPTOR + int(count))
    named = names.split(":") if names else [UNNAMED] * len(descriptors)
    if len(named) != len(descriptors):
        raise Refusal(f"LISTEN_FDNAMES names {len(named)} sockets and LISTEN_FDS says {count}; they must agree")
    return tuple(_take(descriptor, name) for descriptor, name in zip(descriptors, named, strict=True))


def _take(descriptor: int, name: str) -> PassedSocket:
    what = f'descriptor {descriptor} ("{name}"), which systemd passed,'
    try:
        mode = os.fstat(descriptor).st_mode
    except OSError:
        raise Refusal(
            f"{what} is not open; start the daemon itself in ExecStart= of its .service unit, not something that"
            " closes descriptors before"
        ) from None
    if not stat.S_ISSOCK(mode):
        raise Refusal(
            f"{what} is not a socket; put ListenStream= into its .socket unit, and nothing else to listen on"
        )
    taken = PassedSocket(socket.socket(fileno=descriptor), name)
    taken.socket.set_inheritable(False)
    if taken.socket.family not in _FAMILIES:
        raise Refusal(f"{what} is no unix, IPv4 or IPv6 socket; correct ListenStream= in {taken.unit}")
    if taken.socket.type != socket.SOCK_STREAM:
        raise Refusal(
            f"{what} is no stream socket ({taken.address}); write ListenStream= in place of ListenDatagram= or"
            f" ListenSequentialPacket= in {taken.unit}"
        )
    if not taken.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        raise Refusal(f"{what} does not listen ({taken.address}); set Accept=no in {taken.unit}")
    return taken


def assign(
    passed: Sequence[PassedSocket], listeners: Sequence[Mapping[str, Any]], *, config_path: str
) -> dict[str, PassedSocket]:
    """The socket of each listener (as plan.py describes it) by its address; none where none was passed.

    Raises Refusal unless each has exactly one.
    """
    found: dict[str, PassedSocket] = {}
    if not passed:
        return found
    for one in passed:
        listener = _listener_of(one, listeners)
        if listener is None:
            raise Refusal(
                f"{one.address}, which systemd passed, is not the address of a listener in {config_path};"
                f' give a listener address = "{one.address}" there, or correct ListenStream= in {one.unit}.'
                f" Listeners there: {', '.join(each['address'] for each in listeners)}"
            )
        if listener["address"] in found:
            raise Refusal(
                f"systemd passed two sockets for the listener {listener['address']}; remove one ListenStream= from"
                f" {one.unit}, or give one another FileDescriptorName="
            )
        found[listener["address"]] = one
    for listener in listeners:
        if listener["address"] not in found:
            raise Refusal(
                f"systemd passed sockets, and none for the listener {listener['address']} in {config_path};"
                f" add ListenStream={listener['address'].partition(':')[2]} to {passed[0].unit} and restart both"
                " units, or remove that listener"
            )
    return found


def _listener_of(one: PassedSocket, listeners: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    if one.path:
        for listener in listeners:
            if listener["path"] and listener["path"] == one.name:
                return listener
    return next((each for each in listeners if _is_at(one, each)), None)


def _is_at(one: PassedSocket, listener: Mapping[str, Any]) -> bool:
    if _FAMILIES[one.socket.family] != listener["family"]:
        return False
    if listener["family"] == "unix":
        # /var/run is /run, and Symlinks= of a .socket unit makes other names.
        return bool(one.path) and os.path.realpath(one.path) == os.path.realpath(listener["path"])
    return bool(one.socket.getsockname()[:2] == (listener["ip"], listener["port"]))


@dataclass(slots=True)
class SystemdSocket:
    """What a ListeningSocket is, for a socket that systemd has made."""

    address: str
    passed: PassedSocket

    @classmethod
    def open(cls, passed: PassedSocket, plan: Mapping[str, Any], identity: Identity) -> SystemdSocket:
        """Make it what the workers need. Raises Refusal where it can be reached by more than the plan allows."""
        opened = cls(plan["address"], passed)
        passed.socket.setblocking(False)
        if plan["family"] != "unix":
            check_reach(plan)
            try:
                prepare_inet(passed.socket)
            except OSError as error:
                raise Refusal(
                    f"{passed.address}, which systemd passed, is no TCP socket ({error.strerror}); take"
                    f" SocketProtocol= from {passed.unit}"
                ) from None
        opened.adjust(plan, identity)
        return opened

    @property
    def socket(self) -> socket.socket:
        """Listens and does not block."""
        return self.passed.socket

    def adjust(self, plan: Mapping[str, Any], identity: Identity) -> None:
        """Check that a unix socket has not more than the group and mode that the plan names. Raises Refusal."""
        path = self.passed.path
        if not path:
            return
        check_directory(os.path.dirname(path), identity)
        try:
            status = os.lstat(path)
        except OSError:
            tell(
                "nobody can connect: the path of a socket of systemd's is gone",
                Severity.WARNING,
                path=path,
                remedy=f"stop the daemon, restart {self.passed.unit}, and set RuntimeDirectoryPreserve=yes in the"
                " .service unit",
            )
            return
        mode = stat.S_IMODE(status.st_mode)
        # To connect is to write (unix(7)).
        if mode & 0o222 & ~plan["mode"]:
            raise Refusal(
                f"{path} has mode {mode:04o}, and its listener {plan['mode']:04o}: whoever can connect can have mail"
                f" signed; set SocketMode={plan['mode']:04o} in {self.passed.unit} and restart both units"
            )
        if plan["group"] and status.st_gid != group_id(plan["group"]):
            raise Refusal(
                f"{path} has group {status.st_gid}, and its listener {plan['group']}; set SocketGroup={plan['group']}"
                f" in {self.passed.unit} and restart both units, or take group from the listener"
            )

    def is_lost(self) -> bool:
        """Another start would find it as it is: its path is for systemd to make."""
        return False

    def close(self) -> None:
        """It stays open as long as this process, for a reload that wants it again, and systemd's path stays."""
