"""Nsd: the real nsd as an authoritative server on a loopback address and port 53, where everybody looks for it.

Needs root for that port; another can be named. It can be given other zones while it runs, be gone and come back. A
context manager; its process and its files are gone afterwards. One object is for one thread.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import dns.exception
import dns.message
import dns.query

from sandbox_place import SYSTEM_PATH

__all__ = ["NSD", "Nsd"]

NSD = shutil.which("nsd", path=SYSTEM_PATH)
PATIENCE_S = 30.0
POLL_S = 0.05

_SERVER = """\
server:
    ip-address: {address}
    port: {port}
    username: ""
    chroot: ""
    zonesdir: "{directory}"
    pidfile: ""
    xfrdfile: ""
    zonelistfile: "{directory}/zone.list"
    xfrdir: "{directory}"
    logfile: "{directory}/log"
    server-count: 1
    database: ""
remote-control:
    control-enable: no
"""
_ZONE = 'zone:\n    name: "{origin}"\n    zonefile: "{file}"\n'


class Nsd:
    """A server of `zones`: origin without final dot to the records of a master file, SOA and NS included."""

    def __init__(self, address: str, zones: Mapping[str, str], *, port: int = 53) -> None:
        self.address = address
        self.port = port
        self._zones = dict(zones)
        self._process: subprocess.Popen[bytes] | None = None
        self._directory = Path()

    def __enter__(self) -> Self:
        assert NSD is not None, "nsd is not installed"
        self._directory = Path(tempfile.mkdtemp(prefix="mailguard-nsd-"))
        try:
            self.start()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def serve(self, zones: Mapping[str, str]) -> None:
        """These zones from now on."""
        self.stop()
        self._zones = dict(zones)
        self.start()

    def start(self) -> None:
        """Begin, or come back."""
        assert NSD is not None
        configuration = _SERVER.format(directory=self._directory, address=self.address, port=self.port)
        for number, (origin, text) in enumerate(self._zones.items()):
            file = self._directory / f"zone{number}"
            file.write_text(text)
            configuration += _ZONE.format(origin=origin, file=file)
        path = self._directory / "nsd.conf"
        path.write_text(configuration)
        self._process = subprocess.Popen(
            [NSD, "-d", "-c", str(path)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + PATIENCE_S
        while not self._answers():
            assert self._process.poll() is None, self._log()
            assert time.monotonic() < deadline, self._log()
            time.sleep(POLL_S)

    def stop(self) -> None:
        """Be gone."""
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(PATIENCE_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None

    def _answers(self) -> bool:
        query = dns.message.make_query(f"{next(iter(self._zones), 'test')}.", "SOA")
        try:
            dns.query.udp(query, self.address, port=self.port, timeout=0.1)
        except (OSError, dns.exception.Timeout):
            return False
        return True

    def _log(self) -> str:
        log = self._directory / "log"
        return log.read_text() if log.exists() else "nsd wrote no log"

    def _end(self) -> None:
        self.stop()
        shutil.rmtree(self._directory, ignore_errors=True)
