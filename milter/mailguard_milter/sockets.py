"""libmilter's listening socket and what is put in its place: attach, pause, drain, and who is connected.

libmilter binds a socket of its own, in a private directory that is removed again, or on a free loopback port.
The inherited listening socket is put over it with dup2, so nothing that libmilter does at its end concerns the
path that Postfix knows. A socket that nobody can reach, put over that, stops accepting: what is in the backlog
stays there for the other workers. Linux: /proc/self/fd. Left out: everything about the milter protocol but an
option negotiation and a packet that means nothing. For the main thread of a worker, apart from `wake`.
"""

from __future__ import annotations

import fcntl
import itertools
import os
import shutil
import socket
import struct
import sys
import tempfile
import termios
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["LibmilterSocket", "Stalls"]

# libmilter answers within milliseconds; a host that swaps at start may need longer.
PROOF_TIMEOUT_S = 20.0
_OPTION_NEGOTIATION = struct.pack("!IcIII", 13, b"O", 6, 0x1FF, 0x1FFFFF)
# Macros for CONNECT, and none of them: libmilter reads it, calls nobody and answers nothing.
_NO_MACROS = struct.pack("!Icc", 2, b"D", b"C")
# libmilter keeps up to two threads that are idle. Each may have been called already and not know it yet, and so take
# one waking; the next one makes libmilter start a thread.
_OWN_SESSIONS = 4


class Stalls:
    """Notices a session whose input waits unread and unchanged for too long. For one thread."""

    def __init__(self, patience_s: float) -> None:
        self._patience_s = patience_s
        self._waiting: dict[int, tuple[int, float]] = {}

    def found(self, unread: Mapping[int, int], now: float) -> bool:
        """Whether one has waited too long. `unread`: octets by session; `now`: a monotonic clock's seconds."""
        waiting = {}
        for session, octets in unread.items():
            before = self._waiting.get(session)
            if octets:
                waiting[session] = before if before is not None and before[0] == octets else (octets, now)
        self._waiting = waiting
        return any(now - since > self._patience_s for _, since in waiting.values())


class LibmilterSocket:
    """The place in the table of descriptors where libmilter accepts."""

    def __init__(
        self,
        listener: socket.socket,
        *,
        setconn: Callable[[str], None],
        opensocket: Callable[[bool], None],
        interrupt: Callable[[], None],
        scratch_directory: str,
    ) -> None:
        """`listener` listens and does not block; `interrupt` makes a system call of libmilter's listening thread
        end with EINTR. Raises OSError, or what libmilter's functions raise."""
        self._own_sessions: list[socket.socket] = []
        self._seen: frozenset[int] = frozenset()
        self._turns = itertools.count()
        self._listener = listener
        self._interrupt = interrupt
        self._family = listener.family
        self._name: Any = listener.getsockname()
        self._directory = tempfile.mkdtemp(prefix="worker-", dir=scratch_directory)
        path = os.path.join(self._directory, "s")
        try:
            match listener.family:
                case socket.AF_UNIX:
                    setconn(f"unix:{path}")
                case socket.AF_INET:
                    setconn("inet:0@[127.0.0.1]")
                case _:
                    setconn("inet6:0@[::1]")
            before = _socket_descriptors()
            opensocket(False)
            (self._place,) = _socket_descriptors() - before
            self._own_address = _address_of(self._place)
            # A new directory entry for each: both sockets outlive their names, and nobody can connect to them.
            self._dead = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self._dead.setblocking(False)
            self._dead.bind(os.path.join(self._directory, "d"))
            self._dead.listen(1)
        except BaseException:
            shutil.rmtree(self._directory, ignore_errors=True)
            raise

    def prove_and_attach(self) -> None:
        """Talk to libmilter on its own socket; when it answers, let it accept on the listener. Raises OSError."""
        try:
            for _ in range(_OWN_SESSIONS):
                probe = self._connect()
                self._own_sessions.append(probe)
                probe.sendall(_OPTION_NEGOTIATION)
                if len(probe.recv(17, socket.MSG_WAITALL)) < 17:
                    raise OSError("libmilter did not answer an option negotiation")
                probe.setblocking(False)
            self.resume()
        finally:
            shutil.rmtree(self._directory, ignore_errors=True)

    @property
    def own_sessions(self) -> int:
        """How many sessions with libmilter are our own; they stay open as long as the process."""
        return len(self._own_sessions)

    def wake(self) -> None:
        """Make libmilter notice that all its threads are occupied, and start one. Thread-safe; never waits.

        Its pool gives commands that arrive together to a thread that is idle, however many they are; while that one
        waits for the DNS, they wait too. A further command makes it count anew. Called before each wait, and now and
        then, for a session that says nothing is closed. A libmilter with a thread for each session does nothing.
        """
        try:
            self._own_sessions[next(self._turns) % _OWN_SESSIONS].send(_NO_MACROS)
        except OSError:
            # It does not read, and whoever watches `unread` will see it; or it has ended.
            return

    def _connect(self) -> socket.socket:
        probe = socket.socket(self._listener.family, socket.SOCK_STREAM)
        probe.settimeout(PROOF_TIMEOUT_S)
        try:
            probe.connect(self._own_address)
        except OSError:
            probe.close()
            raise
        return probe

    def pause(self) -> None:
        """Accept nothing; the open sessions go on."""
        self._put(self._dead)

    def resume(self) -> None:
        """Accept on the listener."""
        self._put(self._listener)

    def _put(self, replacement: socket.socket) -> None:
        os.dup2(replacement.fileno(), self._place, inheritable=False)
        # libmilter still sleeps, for up to five seconds, in a poll(2) on what was there: a connection would not
        # wake it, and what was there stays open for connections that nobody takes.
        self._interrupt()

    def detach(self) -> None:
        """Accept nothing for good, and let go of the listener."""
        self.pause()
        self._listener.close()

    def sessions(self) -> int:
        """Connections of MTAs that are open, those that have not said anything included."""
        return len(self.unread())

    def unread(self) -> dict[int, int]:
        """For each open connection of an MTA, by its inode, how many octets wait to be read by libmilter.

        Where no file is left to look with, those of the last look, of which then none is known to wait.
        """
        try:
            descriptors = _socket_descriptors()
        except OSError:
            return dict.fromkeys(self._seen, 0)
        found = {}
        for descriptor in descriptors:
            try:
                if _is_session(descriptor, self._family, self._name):
                    waiting = fcntl.ioctl(descriptor, termios.FIONREAD, bytes(4))
                    found[os.fstat(descriptor).st_ino] = int.from_bytes(waiting, sys.byteorder)
            except OSError:
                continue  # closed meanwhile
        self._seen = frozenset(found)
        return found


def _socket_descriptors() -> set[int]:
    found = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            if os.readlink(f"/proc/self/fd/{name}").startswith("socket:"):
                found.add(int(name))
        except OSError:
            continue  # the descriptor of the listing itself, or one closed meanwhile
    return found


class _Borrowed:
    """A socket object for a descriptor that belongs to someone else, who may close it at any time."""

    def __init__(self, descriptor: int) -> None:
        self._socket = socket.socket(fileno=descriptor)

    def __enter__(self) -> socket.socket:
        return self._socket

    def __exit__(self, *_: object) -> None:
        self._socket.detach()


def _address_of(descriptor: int) -> Any:
    with _Borrowed(descriptor) as borrowed:
        return borrowed.getsockname()


def _is_session(descriptor: int, family: int, own_name: Any) -> bool:
    """Whether it is a connection that was accepted on the listener with this name."""
    with _Borrowed(descriptor) as borrowed:
        if borrowed.family != family or borrowed.type != socket.SOCK_STREAM:
            return False
        if borrowed.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            return False
        name = borrowed.getsockname()
        # On inet the address may be a wildcard's; the port is the listener's alone.
        return bool(name == own_name if family == socket.AF_UNIX else name[1] == own_name[1])
