"""The daemon as processes, for tests: its files, its signals, its log, and its workers."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mailguard.dkim.signing_key import SigningKey, generate_ed25519
from milter_client import MilterClient

PATIENCE_S = 60.0
IS_ROOT = os.geteuid() == 0
USER = "nobody" if IS_ROOT else pwd.getpwuid(os.geteuid()).pw_name
DAEMON = (sys.executable, "-m", "mailguard_milter", "-c")
_LIMIT = """
import resource, sys
kind = getattr(resource, sys.argv[1])
for pid in map(int, sys.argv[3:]):
    resource.prlimit(pid, kind, (int(sys.argv[2]), resource.prlimit(pid, kind)[1]))
"""
QUICK = (sys.executable, str(Path(__file__).with_name("quick_daemon.py")))


def eventually(what: Callable[[], Any], *, within_s: float = PATIENCE_S) -> Any:
    """The first true value of `what`."""
    deadline = time.monotonic() + within_s
    while not (value := what()) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert value, f"{what} did not come true"
    return value


def writers(*paths: str) -> list[int]:
    """The processes that write traces to, or below, one of the paths."""
    return [pid for pid in running("trace_writer") if any(path in command(pid) for path in paths)]


class Daemon:
    """A daemon, its files and its processes."""

    def __init__(self, directory: Path, *, engine: str = "libmilter") -> None:
        self.directory = directory
        self.engine = engine
        self.config = directory / "mg.toml"
        self.runtime = directory / "run"
        self.socket = self.runtime / "m.sock"
        self.stderr = directory / "stderr"
        self.environment: dict[str, str] = {}
        """What its processes find there besides."""
        self.process: subprocess.Popen[bytes] | None = None
        self.notified = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.notified.bind(str(directory / "notify"))
        self.notified.settimeout(PATIENCE_S)
        (directory / "notify").chmod(0o666)
        (directory / "zone").write_text("$ORIGIN test.\n$TTL 60\n@ IN SOA ns root 1 1 1 1 1\n")
        (directory / "zone").chmod(0o644)
        self.configure()

    def configure(self, *, authserv_id: str = "mx1.us.test", listeners: str | None = None, extra: str = "") -> None:
        if listeners is None:
            listeners = f'[[listeners]]\naddress = "unix:{self.socket}"\nworkers = 2\n'
        fresh = self.config.with_suffix(".new")
        fresh.write_text(
            f'engine = "{self.engine}"\n'
            f'authserv_id = "{authserv_id}"\nuser = "{USER}"\nruntime_directory = "{self.runtime}"\n{extra}\n'
            f'[log]\ndestination = "stderr"\n[dns]\nzone_file = "zone"\n{listeners}'
        )
        fresh.chmod(0o644)
        fresh.replace(self.config)

    def start(self, *command: str) -> subprocess.Popen[bytes]:
        with open(self.stderr, "ab") as stderr:
            self.process = subprocess.Popen(
                [*(command or DAEMON), str(self.config)],
                stderr=stderr,
                env={**os.environ, "NOTIFY_SOCKET": str(self.directory / "notify"), **self.environment},
            )
        return self.process

    def started(self, *command: str) -> int:
        pid = self.start(*command).pid
        self.await_ready()
        return pid

    def heard(self) -> str:
        return self.notified.recv(4096).decode()

    def await_ready(self) -> None:
        while "READY=1" not in self.heard():
            continue

    def signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def reload(self) -> None:
        self.signal(signal.SIGHUP)
        self.await_ready()

    def log(self) -> str:
        return self.stderr.read_text()

    def client(self) -> MilterClient:
        return MilterClient(str(self.socket), timeout_s=PATIENCE_S)

    def verdict(self) -> str:
        """The authserv-id that a message gets."""
        with self.client() as client:
            return authserv_id(client.open())

    def end(self) -> None:
        if self.process is not None:
            # One may have been about to start another, or at a file that would be in the way of who tidies up.
            eventually(self._kill_all)
            self.process.wait()
        self.notified.close()

    def _kill_all(self) -> bool:
        """Whether there was none left to kill."""
        all_of_it = self.family() + self.writers()
        for pid in all_of_it:
            kill(pid, signal.SIGKILL)
        return not all_of_it

    def family(self) -> list[int]:
        """All processes of this daemon, also of generations whose supervisor is gone; the supervisor first."""
        assert self.process is not None
        return sorted(running(str(self.config)), key=lambda pid: pid != self.process.pid if self.process else False)

    def writers(self) -> list[int]:
        """The processes that write its traces: they know its directory, and nothing else of it."""
        return writers(str(self.directory))

    def workers(self) -> list[int]:
        assert self.process is not None
        family = self.family()
        return [pid for pid in family if parent(pid) in set(family) - {self.process.pid}]


def account() -> dict[str, Any]:
    """For subprocess: the daemon's user, in no other group than its own."""
    if not IS_ROOT:
        return {}
    entry = pwd.getpwnam(USER)
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": [entry.pw_gid]}


def limit(pids: Iterable[int], name: str, most: int) -> None:
    """Set a soft limit (RLIMIT_*) of processes of the daemon, as its user may."""
    subprocess.run([sys.executable, "-c", _LIMIT, name, str(most), *map(str, pids)], check=True, **account())


def sign_for_us(daemon: Daemon, selector: str = "s", *, workers: int = 1) -> SigningKey:
    """Configure it to sign for us.test with a new key, in SELECTOR.pem beside the configuration; returns the key."""
    octets = generate_ed25519()
    file = daemon.directory / f"{selector}.pem"
    file.write_bytes(octets)
    file.chmod(0o600)
    if IS_ROOT:
        shutil.chown(file, USER)
    daemon.configure(
        listeners=f'[domains."us.test"]\nselectors = [{{ name = "{selector}", key_file = "{file}" }}]\n'
        f'[[listeners]]\naddress = "unix:{daemon.socket}"\nworkers = {workers}\n'
    )
    return SigningKey.from_bytes(octets, domain="us.test", selector=selector)


def running(word: str) -> list[int]:
    """The processes, of whatever account, with this in their command line."""
    return [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if word in command(pid)]


def command(pid: int) -> str:
    """Its command line; "" for one that has ended, also where nobody has waited for it yet."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace")
    except OSError:
        return ""


def state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def kill(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def authserv_id(client: MilterClient) -> str:
    replies = client.message()
    assert replies[-1] == (b"c", b""), replies
    (field,) = [data for code, data in replies if code == b"i"]
    return field.split(b"\0")[-2].split(b";")[0].decode().strip()


def engine_of(request: pytest.FixtureRequest) -> str:
    """That of the fixture `engine` for a test that uses it (engine_process.per_engine)."""
    return request.getfixturevalue("engine") if "engine" in request.fixturenames else "libmilter"


@pytest.fixture
def daemon(request: pytest.FixtureRequest) -> Iterator[Daemon]:
    directory = Path(tempfile.mkdtemp(prefix="mg-"))
    # The daemon's user must be able to pass.
    directory.chmod(0o755)
    if IS_ROOT:
        (directory / "run").mkdir(mode=0o755)
        shutil.chown(directory / "run", USER)
    made = Daemon(directory, engine=engine_of(request))
    yield made
    made.end()
    shutil.rmtree(directory)
