"""The resolver of a run: unbound on 127.0.0.1, port 53, with the records of the samples; slow if that is asked for.

unbound serves one zone of its own, the root, from a file: every name that is not in it does not exist, and no query
leaves the machine. It validates nothing. The slow one is a proxy before the same unbound that holds each query for a
fixed time, many at once, and notes which queries came when.

Needs the port: run.sh runs the comparison in a network namespace of its own. One object is for one thread.
"""

from __future__ import annotations

import asyncio
import shutil
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self, cast

from sandbox_place import HOST, POLL_S, clean_environment, make_public_directory

__all__ = ["NameServer", "Query"]

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


class NameServer:
    """A context manager: entered, it answers."""

    def __init__(self, records: str, *, delay_s: float | None = None) -> None:
        """`records` as a master file has them; `delay_s`: how long each query is held."""
        self._records = records
        self._delay_s = delay_s
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
            self._run([sys.executable, "-P", __file__, str(self._delay_s), str(BEHIND_PROXY_PORT), log])
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


def question_name(query: bytes) -> str:
    """The first question's name, lower case (RFC 1035 §4.1.2)."""
    labels = []
    at = 12
    while length := query[at]:
        labels.append(query[at + 1 : at + 1 + length].decode("ascii", "replace").lower())
        at += 1 + length
    return ".".join(labels)


class _Proxy(asyncio.DatagramProtocol):
    """Holds each query, hands it on under a number of its own, and gives the answer back."""

    def __init__(self, delay_s: float, log: Path) -> None:
        self._delay_s = delay_s
        self._log = log.open("w", encoding="ascii", buffering=1)
        self._waiting: dict[int, tuple[bytes, tuple[str, int]]] = {}
        self._next = 0
        self.upstream: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # asyncio's own transports for datagrams do not derive from DatagramTransport.
        self._clients = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self._log.write(f"{time.monotonic():.6f} {question_name(data)}\n")
        asyncio.get_running_loop().call_later(self._delay_s, self._forward, data, addr)

    def _forward(self, data: bytes, address: tuple[str, int]) -> None:
        assert self.upstream is not None
        self._next = (self._next + 1) % 65_536
        self._waiting[self._next] = (data[:2], address)
        self.upstream.sendto(self._next.to_bytes(2, "big") + data[2:])

    def answer(self, data: bytes) -> None:
        identity, address = self._waiting.pop(int.from_bytes(data[:2], "big"))
        self._clients.sendto(identity + data[2:], address)


class _Upstream(asyncio.DatagramProtocol):
    def __init__(self, proxy: _Proxy) -> None:
        self._proxy = proxy

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self._proxy.answer(data)


async def _serve(delay_s: float, port: int, log: Path) -> None:
    loop = asyncio.get_running_loop()
    proxy = _Proxy(delay_s, log)
    upstream, _ = await loop.create_datagram_endpoint(lambda: _Upstream(proxy), remote_addr=(HOST, port))
    proxy.upstream = upstream
    await loop.create_datagram_endpoint(lambda: proxy, local_addr=(HOST, PORT))
    await loop.create_future()


if __name__ == "__main__":
    asyncio.run(_serve(float(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])))
