"""The daemon with sockets of systemd's, for tests: the test is systemd, and holds them while the daemon is down."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from daemon_process import DAEMON, Daemon
from milter_client import Address
from sandbox_place import free_port

__all__ = ["STARTER", "Activated", "activated", "inet_socket", "unix_socket"]

STARTER = Path(__file__).with_name("systemd_starter.py")
BACKLOG = 1024


def unix_socket(path: Path, *, mode: int = 0o660) -> socket.socket:
    """As `ListenStream=` with a path makes it."""
    made = socket.socket(socket.AF_UNIX)
    made.bind(str(path))
    path.chmod(mode)
    made.listen(BACKLOG)
    return made


def inet_socket(ip: str, port: int) -> socket.socket:
    """As `ListenStream=` with an address makes it."""
    made = socket.socket(socket.AF_INET6 if ":" in ip else socket.AF_INET)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.bind((ip, port))
    made.listen(BACKLOG)
    return made


@dataclass
class Activated:
    """A daemon, and what systemd passes to it."""

    daemon: Daemon
    sockets: list[socket.socket] = field(default_factory=list)
    names: str | None = None
    variables: Mapping[str, str | None] = field(default_factory=dict)
    stack: ExitStack = field(default_factory=ExitStack)
    port: int = 0

    def pass_on(self, made: socket.socket) -> socket.socket:
        self.sockets.append(self.stack.enter_context(made))
        return made

    def start(self) -> subprocess.Popen[bytes]:
        descriptors = [each.fileno() for each in self.sockets]
        orders = {"descriptors": descriptors, "names": self.names, "variables": dict(self.variables)}
        daemon = self.daemon
        with open(daemon.stderr, "ab") as stderr:
            daemon.process = subprocess.Popen(
                [sys.executable, "-E", "-S", str(STARTER), json.dumps(orders), *DAEMON, str(daemon.config)],
                stderr=stderr,
                env={**os.environ, "NOTIFY_SOCKET": str(daemon.directory / "notify")},
                pass_fds=descriptors,
            )
        return daemon.process

    def started(self) -> int:
        pid = self.start().pid
        self.daemon.await_ready()
        return pid

    @property
    def addresses(self) -> list[Address]:
        return [str(self.daemon.socket), ("127.0.0.1", self.port)]

    def listeners(self, *, unix: str = "", inet: str = "") -> str:
        """A table for each, with more keys."""
        return (
            f'[[listeners]]\naddress = "unix:{self.daemon.socket}"\nworkers = 1\n{unix}\n'
            f'[[listeners]]\naddress = "inet:127.0.0.1:{self.port}"\nworkers = 1\n{inet}\n'
        )


@pytest.fixture
def activated(daemon: Daemon) -> Iterator[Activated]:
    """A unix and an inet listener, each with one worker and a socket of systemd's."""
    made = Activated(daemon, port=free_port())
    with made.stack:
        made.pass_on(unix_socket(daemon.socket))
        made.pass_on(inet_socket("127.0.0.1", made.port))
        daemon.configure(listeners=made.listeners())
        yield made
