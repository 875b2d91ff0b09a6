"""ComparedDaemon: a milter that is measured, with a configuration of its own in a directory of its own.

It runs in the foreground as an account that owns nothing else, listens on a UNIX socket and looks names up at the
resolver that /etc/resolv.conf names (run.sh lays a private one over it). The others log nothing about single
messages; mailguard, which always does, writes its line. Processes are ended by their ids. One object is for one
thread.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from enum import Enum
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

from bench_keys import BenchKeys
from milter_replies import Expected
from milter_script import Negotiated, negotiate
from process_usage import Memory, cpu_seconds, descendants, is_running, memory
from sandbox_place import POLL_S, clean_environment, make_public_directory

__all__ = ["ComparedDaemon", "DaemonError", "Task"]

USER = "nobody"
# rspamd needs ten seconds on an idle machine.
START_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 20.0
LOG_TAIL_CHARACTERS = 3_000


class DaemonError(Exception):
    """A daemon did not start, did not end, or died; the text has the end of its log."""


class Task(Enum):
    """What the daemons are configured for."""

    SIGN_RSA = "sign, RSA-2048"
    SIGN_ED25519 = "sign, Ed25519"
    SIGN_BOTH = "sign, RSA-2048 and Ed25519"
    JUDGE = "inbound"

    @property
    def algorithms(self) -> tuple[str, ...]:
        """Of the signatures that are made."""
        return _ALGORITHMS[self]


_ALGORITHMS = {
    Task.SIGN_RSA: ("rsa",),
    Task.SIGN_ED25519: ("ed25519",),
    Task.SIGN_BOTH: ("rsa", "ed25519"),
    Task.JUDGE: (),
}


class ComparedDaemon:
    """A context manager: entered, it serves; left, its processes and files are gone."""

    name: ClassVar[str]
    package: ClassVar[str] = ""
    """Debian's name of what is measured."""
    tasks: ClassVar[frozenset[Task]] = frozenset(Task)
    """What it can do."""
    judges: ClassVar[Expected] = Expected.JUDGED
    """What of Task.JUDGE it does."""
    starts_in_s: ClassVar[float] = 1.5
    """About; for an estimate."""

    def __init__(self, task: Task, keys: BenchKeys) -> None:
        self.task = task
        self.directory = Path()
        self._keys = keys
        self._process: subprocess.Popen[bytes] | None = None

    # What a subclass says

    def command(self) -> Sequence[str]:
        """How it is started, in the foreground. Not of one that has a `start` of its own."""
        raise NotImplementedError

    def environment(self) -> Mapping[str, str]:
        """What it runs in."""
        return clean_environment()

    def files(self) -> Mapping[str, str]:
        """Its configuration: names in its directory and their content."""
        return {}

    # Its life

    @property
    def expected(self) -> Expected:
        """What it has to do with each message."""
        return self.judges if self.task is Task.JUDGE else Expected.SIGNED

    @property
    def path(self) -> str:
        """Of its socket."""
        return str(self.directory / "run" / "milter.sock")

    @property
    def configuration(self) -> str:
        """To be printed with the results."""
        return "\n".join(f"# {name}\n{text}" for name, text in self.files().items())

    def __enter__(self) -> Self:
        self.directory = make_public_directory(f"benchmark-{self.name.replace(' ', '-')}-")
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Write its files and run it; it serves afterwards. Raises DaemonError."""
        for name in ("run", "state"):
            (self.directory / name).mkdir()
        self._keys.write(self.directory / "keys")
        for name, text in self.files().items():
            path = self.directory / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        (self.directory / "log").touch()
        self._give(self.directory)
        owner = pwd.getpwnam(USER)
        with open(self.directory / "log", "ab") as log:
            self._process = subprocess.Popen(
                self.command(),
                cwd=self.directory,
                env=self.environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                user=owner.pw_uid,
                group=owner.pw_gid,
                extra_groups=[],
                umask=0,
            )
        self._await_service()

    def stop(self) -> None:
        """End it and remove its files. Raises DaemonError if a process stays."""
        process, self._process = self._process, None
        left: list[int] = []
        if process is not None:
            members = descendants(process.pid)
            process.terminate()
            try:
                process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            left = _not_ended(members[1:])
            for each in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(each, signal.SIGKILL)
            left = _not_ended(left)
        shutil.rmtree(self.directory, ignore_errors=True)
        if left:
            raise DaemonError(f"processes of {self.name} are still there: {left}")

    def _give(self, directory: Path) -> None:
        owner = pwd.getpwnam(USER)
        for path in (directory, *directory.rglob("*")):
            os.chown(path, owner.pw_uid, owner.pw_gid)

    def _await_service(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            assert self._process is not None
            if self._process.poll() is not None:
                raise DaemonError(f"{self.name} has ended:\n{self.log_tail()}")
            try:
                negotiate(self.path)
            except (OSError, ValueError) as error:
                if time.monotonic() > deadline:
                    raise DaemonError(
                        f"{self.name} does not serve after {START_TIMEOUT_S:g} s ({error}):\n{self.log_tail()}"
                    ) from None
                time.sleep(POLL_S)
                continue
            return

    def log_tail(self) -> str:
        """The end of its log, for messages about failures."""
        path = self.directory / "log"
        return path.read_text(errors="replace")[-LOG_TAIL_CHARACTERS:] if path.exists() else ""

    # What is asked of it

    def negotiated(self) -> Negotiated:
        """What it negotiates with Postfix. Raises DaemonError if it does not, such as one that has died."""
        try:
            return negotiate(self.path)
        except (OSError, ValueError) as error:
            raise DaemonError(f"{self.name} does not serve any more ({error}):\n{self.log_tail()}") from None

    @property
    def root_process(self) -> int:
        """The process from which all its others descend."""
        assert self._process is not None, "it does not run"
        return self._process.pid

    def processes(self) -> list[int]:
        """All of them."""
        return descendants(self.root_process)

    def cpu_seconds(self) -> float:
        """User and system time of all its processes so far."""
        return cpu_seconds(self.processes())

    def memory(self) -> Memory:
        """Of all its processes together. Raises DaemonError if one of them ends meanwhile."""
        try:
            parts = [memory(process) for process in self.processes()]
        except OSError as error:
            raise DaemonError(f"a process of {self.name} has ended ({error}):\n{self.log_tail()}") from None
        return Memory(rss=sum(part.rss for part in parts), pss=sum(part.pss for part in parts))


def _not_ended(processes: Sequence[int]) -> list[int]:
    """Those that do not end within the time that is given to them."""
    deadline = time.monotonic() + STOP_TIMEOUT_S
    while (left := [each for each in processes if is_running(each)]) and time.monotonic() < deadline:
        time.sleep(POLL_S)
    return left
