"""The resolver of a run: unbound on 127.0.0.1, port 53, with the records of the samples; slow if that is asked for.

unbound serves one zone of its own, the root, from a file: every name that is not in it does not exist, and no query
leaves the machine. It validates nothing. The slow one is a proxy before the same unbound (slow_dns.c) that holds each
query for a fixed time, many at once, and notes which queries came when. One zone can be slower than all others.

Needs the port: run.sh runs the comparison in a network namespace of its own. One object is for one thread.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from load_generator import build
from sandbox_place import HOST, POLL_S, clean_environment, make_public_directory

__all__ = ["NameServer", "Query", "SlowZone"]

PORT = 53
BEHIND_PROXY_PORT = 5300
START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 10.0
_CONFIGURATION = """\
server:
    interface: {host}
    port: {port}
    access-control: 127.0.0.0/8 allow
    num-threads: 1
    username: ""
    chroot: ""
    directory: "{directory}"
    pidfile: ""
    use-syslog: no
    logfile: ""
    do-daemonize: no
    root-hints: ""
    module-config: "iterator"
    so-rcvbuf: 4m
    outgoing-range: 512
    num-queries-per-thread: 1024
remote-control:
    control-enable: no
auth-zone:
    name: "."
    zonefile: "zone"
    for-downstream: yes
    for-upstream: yes
    fallback-enabled: no
"""
_HEAD = "$ORIGIN .\n$TTL 86400\n. IN SOA ns. h. 1 86400 86400 864000 86400\n. IN NS ns.\n"


@dataclass(frozen=True, slots=True)
class Query:
    """One that the slow resolver has received."""

    at_s: float
    """On the monotonic clock."""
    name: str
    """Lower case, without the final dot."""


@dataclass(frozen=True, slots=True)
class SlowZone:
    """One that takes longer than the others."""

    name: str
    """Lower case, without the final dot."""
    delay_s: float


NO_SLOW_ZONE = SlowZone("", 0.0)


class NameServer:
    """A context manager: entered, it answers."""

    def __init__(self, records: str, *, delay_s: float | None = None, slow: SlowZone = NO_SLOW_ZONE) -> None:
        """`records` as a master file has them; `delay_s`: how long each query is held, but those for `slow`."""
        self._records = records
        self._delay_s = delay_s
        self._slow = slow
        self._processes: list[subprocess.Popen[bytes]] = []
        self.directory = Path()

    def __enter__(self) -> Self:
        self.directory = make_public_directory("benchmark-unbound-")
        try:
            self._start()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    @property
    def configuration(self) -> str:
        """unbound's."""
        port = PORT if self._delay_s is None else BEHIND_PROXY_PORT
        return _CONFIGURATION.format(host=HOST, port=port, directory=self.directory)

    def queries(self) -> list[Query]:
        """What a slow resolver has been asked so far."""
        lines = (self.directory / "queries").read_text(encoding="ascii").splitlines()
        return [Query(float(at), name) for at, _, name in (line.partition(" ") for line in lines)]

    def _start(self) -> None:
        (self.directory / "zone").write_text(_HEAD + self._records, encoding="ascii")
        (self.directory / "unbound.conf").write_text(self.configuration, encoding="ascii")
        program = shutil.which("unbound", path=clean_environment()["PATH"])
        if program is None:
            raise RuntimeError("unbound is not installed")
        self._run([program, "-d", "-c", str(self.directory / "unbound.conf")])
        if self._delay_s is not None:
            log = str(self.directory / "queries")
            proxy = str(build("slow_dns.c", self.directory))
            delays = [str(self._delay_s), self._slow.name, str(self._slow.delay_s)]
            self._run([proxy, str(PORT), str(BEHIND_PROXY_PORT), *delays, log])
        self._await()

    def _run(self, command: list[str]) -> None:
        with open(self.directory / "log", "ab") as log:
            self._processes.append(
                subprocess.Popen(command, cwd=self.directory, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
            )

    def _await(self) -> None:
        # A query for the root's NS, as RFC 1035 §4.1 has it.
        query = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\x01"
        deadline = time.monotonic() + START_TIMEOUT_S
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(0.2)
            while time.monotonic() < deadline:
                if any(process.poll() is not None for process in self._processes):
                    break
                try:
                    client.sendto(query, (HOST, PORT))
                    if client.recv(512)[:2] == query[:2]:
                        return
                except (TimeoutError, ConnectionRefusedError):
                    time.sleep(POLL_S)
        log = (self.directory / "log").read_text(errors="replace")
        raise RuntimeError(f"the resolver does not answer; is port {PORT} free here?\n{log}")

    def _stop(self) -> None:
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            try:
                process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._processes.clear()
        shutil.rmtree(self.directory, ignore_errors=True)
