"""BenchPostfix: one Postfix with an SMTP service for each set of milters, which hands everything on to smtp-sink.

As Debian configures it, but for what has nothing to do with milters: it looks no names up, and all mail goes to one
address on this machine. Everything is in one directory of its own. Clients reach it at the address from which the
samples say they come, so that SPF passes; run.sh gives this address to the loopback interface of its own network.

Needs root. One object is for one thread.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from process_usage import cpu_seconds, descendants
from sample_mail import AUTHSERV_ID, CLIENT
from sandbox_place import (
    POLL_S,
    SandboxError,
    clean_environment,
    end_processes_in,
    make_directory,
    make_public_directory,
    write_file,
)

__all__ = ["BenchPostfix", "Sink"]

FIRST_PORT = 2525
SINK_PORT = 2600
START_TIMEOUT_S = 20.0
BACKLOG = 1024
LOG_TAIL_CHARACTERS = 3_000

_MAIN = f"""\
compatibility_level = 3.7
queue_directory = {{directory}}/queue
data_directory = {{directory}}/data
maillog_file = {{directory}}/mail.log
maillog_file_prefixes = {{directory}}
myhostname = {AUTHSERV_ID}
mydestination =
mynetworks = {CLIENT}/32
alias_maps =
alias_database =
local_recipient_maps =
inet_protocols = ipv4
relayhost = [127.0.0.1]:{SINK_PORT}
smtpd_peername_lookup = no
smtp_dns_support_level = disabled
smtp_host_lookup = native
smtp_tls_security_level = none
smtpd_tls_security_level = none
smtpd_client_connection_count_limit = 0
smtpd_relay_restrictions = permit_mynetworks, reject
milter_default_action = tempfail
"""
_MASTER = """\
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
smtp unix - - n - - smtp
relay unix - - n - - smtp
showq unix n - n - - showq
error unix - - n - - error
retry unix - - n - - error
anvil unix - - n - 1 anvil
tlsmgr unix - - n 1000? 1 tlsmgr
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
"""
_SERVICE = """\
{address}:{port} inet n - n - - smtpd
  -o {{ smtpd_milters = {milters} }}
  -o {{ milter_macro_daemon_name = {daemon_name} }}
"""


class BenchPostfix:
    """A context manager: entered, it runs; left, all its processes and files are gone."""

    def __init__(self, milters: Mapping[str, str], *, daemon_name: str) -> None:
        """`milters` maps a name of one's own to the value of smtpd_milters; `daemon_name` is told to all of them."""
        self.ports = {name: FIRST_PORT + number for number, name in enumerate(milters)}
        self._milters = dict(milters)
        self._daemon_name = daemon_name
        self.directory = Path()

    def __enter__(self) -> Self:
        self.directory = make_public_directory("benchmark-postfix-")
        try:
            self._write()
            self._command("start")
        except BaseException:
            self._leave()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave()

    @property
    def configuration(self) -> str:
        """main.cf."""
        return _MAIN.format(directory=self.directory)

    def cpu_seconds(self) -> float:
        """User and system time of all its processes so far."""
        return cpu_seconds(descendants(self._master()))

    def log_tail(self) -> str:
        """The end of the log, for messages about failures."""
        path = self.directory / "mail.log"
        return path.read_text(errors="replace")[-LOG_TAIL_CHARACTERS:] if path.exists() else ""

    def _master(self) -> int:
        return int((self.directory / "queue" / "pid" / "master.pid").read_text())

    def _write(self) -> None:
        for name in ("config", "queue"):
            make_directory(self.directory / name)
        (self.directory / "data").mkdir(mode=0o700)
        shutil.chown(self.directory / "data", "postfix")
        services = [
            _SERVICE.format(address=CLIENT, port=self.ports[name], milters=milters, daemon_name=self._daemon_name)
            for name, milters in self._milters.items()
        ]
        for name, text in (("main.cf", self.configuration), ("master.cf", "".join(services) + _MASTER)):
            path = self.directory / "config" / name
            write_file(path, text)
            # Postfix waits 2 s before it reads a file that has just changed.
            os.utime(path, (0, 0))

    def _command(self, verb: str) -> None:
        done = subprocess.run(
            ["postfix", "-c", str(self.directory / "config"), verb],
            env=clean_environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=START_TIMEOUT_S,
            check=False,
            start_new_session=True,
        )
        if done.returncode:
            raise SandboxError(f"postfix {verb} failed:\n{self.log_tail()}")

    def _leave(self) -> None:
        left = end_processes_in(self.directory / "queue")
        shutil.rmtree(self.directory, ignore_errors=True)
        if left:
            raise SandboxError(f"processes of Postfix are still there: {left}")


class Sink:
    """smtp-sink(1), as a context manager: it takes every message and counts them, or keeps them in a file."""

    def __init__(self, directory: Path, *, keep: Path | None = None) -> None:
        self._counts = directory / "sink"
        self._keep = keep

    def __enter__(self) -> Self:
        options = ["-c"] if self._keep is None else ["-c", "-D", str(self._keep)]
        with self._counts.open("wb") as counts:
            self._process = subprocess.Popen(
                ["smtp-sink", "-u", "nobody", *options, f"127.0.0.1:{SINK_PORT}", str(BACKLOG)],
                stdout=counts,
                stderr=subprocess.DEVNULL,
                env=clean_environment(),
            )
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._listens():
            if time.monotonic() > deadline or self._process.poll() is not None:
                raise SandboxError("smtp-sink does not listen")
            time.sleep(POLL_S)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(START_TIMEOUT_S)

    def count(self) -> int:
        """The messages that have come so far."""
        with self._counts.open("rb") as file:
            file.seek(max(0, self._counts.stat().st_size - 200))
            found = file.read().rpartition(b"mesg=")[2].split(b"\r")[0]
        return int(found or 0)

    def _listens(self) -> bool:
        # Of /proc/net/tcp: local address, state 0A is LISTEN. A trial connection would be counted.
        wanted = f":{SINK_PORT:04X} 00000000:0000 0A"
        return wanted in Path("/proc/net/tcp").read_text()
