"""Bind: the real named as a server of zones of its own on a port of 127.0.0.1, which takes dynamic updates.

A context manager; its process and its files are gone afterwards. One object is for one thread.
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

import dns.message
import dns.query
import dns.rcode

from sandbox_place import HOST, SYSTEM_PATH, free_port

__all__ = ["NAMED", "NSUPDATE", "Bind"]

NAMED = shutil.which("named", path=SYSTEM_PATH)
NSUPDATE = shutil.which("nsupdate", path=SYSTEM_PATH)
PATIENCE_S = 30.0
POLL_S = 0.05

_OPTIONS = """\
options {{
    directory "{directory}";
    listen-on port {port} {{ 127.0.0.1; }};
    listen-on-v6 {{ none; }};
    pid-file none;
    session-keyfile none;
    recursion no;
    dnssec-validation no;
    notify no;
    allow-update {{ 127.0.0.0/8; }};
    empty-zones-enable no;
}};
controls {{ }};
"""
_ZONE = 'zone "{origin}" {{ type primary; file "{file}"; }};\n'


class Bind:
    """A server of `zones`: origin without final dot to the records of a master file, SOA and NS included."""

    def __init__(self, zones: Mapping[str, str]) -> None:
        self.port = 0
        self._zones = dict(zones)
        self._process: subprocess.Popen[bytes] | None = None
        self._directory = Path()

    def __enter__(self) -> Self:
        assert NAMED is not None, "named is not installed"
        self._directory = Path(tempfile.mkdtemp(prefix="mailguard-bind-"))
        self.port = free_port()
        try:
            self._start()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def update(self, text: str) -> None:
        """Send what nsupdate(1) reads."""
        assert NSUPDATE is not None, "nsupdate is not installed"
        done = subprocess.run(
            [NSUPDATE],
            input=f"server {HOST} {self.port}\n{text}",
            text=True,
            capture_output=True,
            timeout=30,
            check=False,
        )
        assert done.returncode == 0, f"{done.stderr}\n{text}"

    def _start(self) -> None:
        assert NAMED is not None
        configuration = _OPTIONS.format(directory=self._directory, port=self.port)
        for number, (origin, text) in enumerate(self._zones.items()):
            file = self._directory / f"zone{number}"
            file.write_text(text)
            configuration += _ZONE.format(origin=origin, file=file)
        path = self._directory / "named.conf"
        path.write_text(configuration)
        log = self._directory / "log"
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                [NAMED, "-g", "-c", str(path), "-n", "1"],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=self._directory,
            )
        deadline = time.monotonic() + PATIENCE_S
        while not self._answers():
            assert self._process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(POLL_S)

    def _answers(self) -> bool:
        query = dns.message.make_query(f"{next(iter(self._zones))}.", "SOA")
        try:
            return dns.query.udp(query, HOST, port=self.port, timeout=0.1).rcode() == dns.rcode.NOERROR
        except OSError:
            return False
        except dns.exception.Timeout:
            return False

    def _end(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(PATIENCE_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None
        shutil.rmtree(self._directory, ignore_errors=True)
