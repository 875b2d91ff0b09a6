"""Daemon: a mailguard-milter of its own, for the demo and the tests, beside a PostfixSandbox.

Everything is in one directory: configuration, keys, zone, socket, log. As root it becomes another user, as in
service. Where that user cannot read the checkout (one below /root, say), a copy of the code and of the packages that
it needs is run. It tells by sd_notify(3) when it serves. Left out: syslog. One object is for one thread.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import time
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Self

from sandbox_place import (
    SandboxError,
    end_processes_in,
    make_directory,
    make_public_directory,
    processes_in,
    write_file,
)

__all__ = ["Daemon"]

START_TIMEOUT_S = 60.0
# The daemon itself gives its workers 25 s.
STOP_TIMEOUT_S = 40.0
LOG_TAIL_CHARACTERS = 6_000
# An account that owns nothing else and is on every Debian.
USER = "nobody"
POSTFIX_GROUP = "postfix"
CHECKOUT = Path(__file__).resolve().parent.parent
# The larger part of the development environment, which the daemon does not need.
NOT_COPIED = ("mypy*", "ruff*", "pip", "*pytest*", "hypothesis*", "hatchling*", "setuptools*", "*.pth", "__pycache__")


class Daemon:
    """A context manager. Entered, its directory is there; `start` runs it; left, processes and files are gone."""

    def __init__(self, *, keep: bool = False) -> None:
        """`keep` leaves the files."""
        self.directory = Path()
        self._keep = keep
        self._process: subprocess.Popen[bytes] | None = None
        self._notified: socket.socket | None = None

    def __enter__(self) -> Self:
        self.directory = make_public_directory("mailguard-daemon-")
        make_directory(self.directory / "run")
        self._give(self.directory / "run")
        self._notified = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._notified.bind(str(self.directory / "notify"))
        (self.directory / "notify").chmod(0o666)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.stop()
        finally:
            if self._notified is not None:
                self._notified.close()
            if not self._keep:
                shutil.rmtree(self.directory, ignore_errors=True)

    # Its files

    @property
    def user(self) -> str:
        """The user that the daemon runs as."""
        return USER if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name

    @property
    def config_file(self) -> Path:
        """The configuration; relative names in it begin at `directory`."""
        return self.directory / "mailguard.toml"

    @property
    def milter(self) -> str:
        """The value of smtpd_milters for the listener that `configure` adds."""
        return f"unix:{self.directory}/run/milter.sock"

    def configure(self, toml: str) -> None:
        """Write the configuration: `toml`, which may begin with keys outside any table, and what it leaves open.

        That is the user, the runtime directory, the log (stderr), and one listener for Postfix with two workers.
        """
        head = f'user = "{self.user}"\nruntime_directory = "run"\n'
        tail = "" if "[log]" in toml else '\n[log]\ndestination = "stderr"\n'
        if "[[listeners]]" not in toml:
            tail += f'\n[[listeners]]\naddress = "{self.milter}"\nworkers = 2\n'
            tail += f'group = "{POSTFIX_GROUP}"\n' if os.geteuid() == 0 else ""
        write_file(self.config_file, head + toml + tail)

    def write_key(self, name: str, content: bytes) -> Path:
        """A file that the daemon's user alone can read."""
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
        path.write_bytes(content)
        self._give(path)
        return path

    def _give(self, path: Path) -> None:
        if os.geteuid() == 0:
            owner = pwd.getpwnam(self.user)
            os.chown(path, owner.pw_uid, owner.pw_gid)

    # Its processes

    def start(self, toml: str | None = None) -> None:
        """Run it, with this configuration if one is given; it serves afterwards. Raises SandboxError."""
        if toml is not None:
            self.configure(toml)
        environment = {**os.environ, "NOTIFY_SOCKET": str(self.directory / "notify")}
        command = [sys.executable]
        if not _can_run_checkout(self.user):
            command = [os.path.realpath(sys.executable)]
            environment["PYTHONPATH"] = str(_copy_code(self.directory / "code"))
        self._forget_notices()
        with open(self.directory / "log", "ab") as log:
            self._process = subprocess.Popen(
                [*command, "-P", "-m", "mailguard_milter", "-c", str(self.config_file)],
                # All its processes are known by it.
                cwd=self.directory,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self._await_ready()

    def reload(self, toml: str | None = None) -> str:
        """SIGHUP, with a new configuration if one is given. What the daemon then says of its state."""
        if toml is not None:
            self.configure(toml)
        self._forget_notices()
        os.kill(self.pid, signal.SIGHUP)
        return self._await_ready()

    def stop(self) -> int | None:
        """SIGTERM and wait; the exit code, None if it was not running. Raises SandboxError if a process stays."""
        process, self._process = self._process, None
        if process is None:
            return None
        process.terminate()
        try:
            code: int | None = process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            code = process.wait()
        if left := end_processes_in(self.directory):
            raise SandboxError(f"processes of the daemon are still there: {left}\n{self.log_tail()}")
        return code

    @property
    def pid(self) -> int:
        """The supervisor's process id."""
        if self._process is None:
            raise SandboxError("the daemon is not running")
        return self._process.pid

    def workers(self) -> list[int]:
        """The process ids of the workers of all generations."""
        members = set(processes_in(self.directory))
        return sorted(each for each in members if _parent(each) in members - {self.pid})

    def log(self) -> str:
        """What the daemon has logged so far."""
        path = self.directory / "log"
        return path.read_text(errors="replace") if path.exists() else ""

    def log_tail(self) -> str:
        """The end of the log, for messages about failures."""
        return self.log()[-LOG_TAIL_CHARACTERS:]

    def _await_ready(self) -> str:
        assert self._notified is not None, "start and reload need the context"  # noqa: S101 - misuse
        self._notified.settimeout(0.2)
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline:
            try:
                notice = self._notified.recv(4096).decode()
            except TimeoutError:
                if self._process is None or self._process.poll() is not None:
                    raise SandboxError(f"mailguard-milter has ended:\n{self.log_tail()}") from None
                continue
            fields = dict(line.split("=", 1) for line in notice.splitlines())
            if fields.get("READY") == "1":
                return fields.get("STATUS", "")
        raise SandboxError(f"mailguard-milter was not ready after {START_TIMEOUT_S:g} s:\n{self.log_tail()}")

    def _forget_notices(self) -> None:
        assert self._notified is not None, "start and reload need the context"  # noqa: S101 - misuse
        self._notified.setblocking(False)
        while True:
            try:
                self._notified.recv(4096)
            except BlockingIOError:
                return


@cache
def _can_run_checkout(user: str) -> bool:
    if os.geteuid() != 0:
        return True
    entry = pwd.getpwnam(user)
    try:
        trial = subprocess.run(
            [sys.executable, "-P", "-c", "import mailguard_milter.worker, mailguard_milter.engine_libmilter"],
            user=entry.pw_uid,
            group=entry.pw_gid,
            extra_groups=[],
            cwd="/",
            capture_output=True,
            check=False,
        )
    except PermissionError:
        return False
    return trial.returncode == 0


def _copy_code(target: Path) -> Path:
    """A directory for PYTHONPATH that everybody can read."""
    if target.exists():
        return target
    shutil.copytree(sysconfig.get_paths()["platlib"], target, ignore=shutil.ignore_patterns(*NOT_COPIED))
    for package in (CHECKOUT / "src" / "mailguard", CHECKOUT / "milter" / "mailguard_milter"):
        shutil.copytree(package, target / package.name, ignore=shutil.ignore_patterns("__pycache__"))
    for path in (target, *target.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return target


def _parent(process: int) -> int:
    try:
        status = Path(f"/proc/{process}/stat").read_text(errors="replace")
    except OSError:
        return 0
    # proc(5): the command's name may hold anything but ends with the last parenthesis; then come state and ppid.
    return int(status.rpartition(")")[2].split()[1])
