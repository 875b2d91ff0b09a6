"""A process that runs commands in children which it forks, so that each has an own process and imports nothing.

As a module: `CommandHost` starts it and asks it. As a program (by `CommandHost`, as root): it takes a request a line
on standard input and writes what became of it to the file that the request names. It has a network and a view of the
files of its own: loopback alone, and /etc/resolv.conf names a resolver there that takes every question and never
answers.
"""

from __future__ import annotations

import atexit
import ctypes
import gc
import importlib
import json
import os
import pty
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType

__all__ = ["Case", "CommandHost", "Outcome", "Stream"]

PATIENCE_S = 60.0
CLONE_NEWNS = 0x0002_0000
CLONE_NEWNET = 0x4000_0000
MS_REC, MS_PRIVATE, MS_BIND = 0x4000, 0x4_0000, 0x1000
# How the colour of what rich turns round ends, before the words behind it.
TOLD = b"\x1b[0m "
SILENT_RESOLVER = "127.0.0.53"


class Stream:
    """What a standard stream is."""

    FILE = "file"
    """stdin: what the case says; stdout and stderr: what is written is in the outcome."""
    TERMINAL = "terminal"
    CLOSED = "closed"
    BROKEN = "broken"
    """A pipe whose reader is gone."""
    FULL = "full"
    """A disk that is full."""
    SILENT = "silent"
    """stdin: a pipe through which nothing comes."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """A command and where it runs."""

    arguments: Sequence[str]
    directory: str
    program: str = "mailguard"
    text: str = ""
    stdin: str = Stream.FILE
    stdout: str = Stream.FILE
    stderr: str = Stream.FILE
    user: int = 0
    has_network: bool = True
    """Loopback with a resolver that is silent; without it there is nothing at all, and no answer is waited for."""
    environment: Mapping[str, str] = field(default_factory=dict)
    interrupt_after_s: float | None = None
    interrupt_when_told: bool = False
    """Or as soon as something is on standard error."""


@dataclass(frozen=True)
class Outcome:
    """What a command did."""

    code: int
    """Negative: the signal that ended it."""
    out: str
    err: str
    seconds: float
    """After it was interrupted, if it was."""
    was_interrupted: bool


class CommandHost:
    """A context manager; `run` may be called from several threads."""

    def __init__(self) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="mailguard-commands-")
        self._count = 0
        self._lock = threading.Lock()

    def __enter__(self) -> CommandHost:
        # As users run it: what is written last fails when the command is over.
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, env={**environment, "PYTHONUTF8": "1"}
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.communicate()
        self._directory.cleanup()

    def run(self, case: Case) -> Outcome:
        """Wait for it."""
        return self.result(self.start(case))

    def start(self, case: Case) -> Path:
        with self._lock:
            self._count += 1
            file = Path(self._directory.name, f"{self._count}.json")
            assert self._process.stdin is not None
            self._process.stdin.write(json.dumps([str(file), asdict(case)]).encode() + b"\n")
            self._process.stdin.flush()
        return file

    def result(self, file: Path) -> Outcome:
        deadline = time.monotonic() + PATIENCE_S
        while not file.exists():
            assert time.monotonic() < deadline, "the command did not end"
            assert self._process.poll() is None, "the host of the commands has ended"
            time.sleep(0.01)
        return Outcome(**json.loads(file.read_text("utf-8")))


# -- the program


def _serve() -> None:
    """Returns in a child that is to run a command; ends at the end of standard input."""
    nowhere = _separate()
    resolver = _silent_resolver()
    _load()
    # What is here before the fork is shared, and stays so only if no child looks whether it is garbage.
    gc.freeze()
    requests = os.fdopen(os.dup(0), "rb")
    running: set[int] = set()
    for line in requests:
        running = {pid for pid in running if os.waitpid(pid, os.WNOHANG)[0] == 0}
        running.add(child := os.fork())
        if child == 0:
            requests.close()
            name, wanted = json.loads(line)
            case = Case(**wanted)
            if (outcome := _watched(case)) is None:
                resolver.close()
                return _command(case, nowhere)
            Path(f"{name}.part").write_text(json.dumps(asdict(outcome)), "utf-8")
            os.rename(f"{name}.part", name)
            os._exit(0)
    for pid in running:
        os.waitpid(pid, 0)
    os._exit(0)


def _separate() -> int:
    """The file of a network in which there is nothing at all; this process is in another one from then on."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "unshare")
    nowhere = os.open("/proc/self/ns/net", os.O_RDONLY)
    if libc.unshare(CLONE_NEWNET | CLONE_NEWNS) != 0:
        raise OSError(ctypes.get_errno(), "unshare")
    with tempfile.NamedTemporaryFile("w", prefix="resolv.conf.") as file:
        file.write(f"nameserver {SILENT_RESOLVER}\noptions timeout:2 attempts:1\n")
        file.flush()
        os.chmod(file.name, 0o644)
        for source, target, flags in (
            (b"none", b"/", MS_REC | MS_PRIVATE),
            (os.fsencode(file.name), os.path.realpath(b"/etc/resolv.conf"), MS_BIND),
        ):
            if libc.mount(source, target, None, flags, None) != 0:
                raise OSError(ctypes.get_errno(), f"mount {target!r}")
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    return nowhere


def _silent_resolver() -> socket.socket:
    taken = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    taken.bind((SILENT_RESOLVER, 53))
    return taken


def _load() -> None:
    from command_tree import commands

    for name in ("mailguard.mtasts.fetch", "mailguard.starttls.handshake", "mailguard_milter.__main__"):
        importlib.import_module(name)

    assert len(list(commands())) > 20


def _watched(case: Case) -> Outcome | None:
    """None in the command's own process."""
    captured = {name: os.memfd_create(name) for name in ("stdout", "stderr")}
    terminals = {name: pty.openpty() for name in captured if getattr(case, name) == Stream.TERMINAL}
    silent = os.pipe()
    begun = time.monotonic()
    child = os.fork()
    if child == 0:
        for number, name in ((1, "stdout"), (2, "stderr")):
            ours = terminals[name][1] if name in terminals else captured[name]
            _become(number, getattr(case, name), ours)
        if case.stdin == Stream.FILE:
            silent = os.memfd_create("stdin"), silent[1]
            os.pwrite(silent[0], os.fsencode(case.text), 0)
        _become(0, case.stdin, silent[0])
        os.close(silent[1])
        return None
    for _, slave in terminals.values():
        os.close(slave)
    shown = dict.fromkeys(terminals, b"")
    status, was_interrupted, interrupted_at = None, False, 0.0
    while status is None:
        now = time.monotonic() - begun
        is_time = case.interrupt_after_s is not None and now > case.interrupt_after_s
        was_told = case.interrupt_when_told and TOLD in shown.get("stderr", b"")
        if (is_time or was_told) and not was_interrupted:
            os.kill(child, signal.SIGINT)
            was_interrupted, interrupted_at = True, now
        if now > PATIENCE_S - 5:
            os.kill(child, signal.SIGKILL)
        _drain(terminals, shown)
        done, status = os.waitpid(child, os.WNOHANG)
        if done == 0:
            status = None
            time.sleep(0.01)
    seconds = time.monotonic() - begun - interrupted_at
    _drain(terminals, shown)
    for name, file in captured.items():
        if name not in terminals:
            shown[name] = os.pread(file, os.fstat(file).st_size, 0)
    out, err = (shown[name].decode("utf-8", "surrogateescape") for name in ("stdout", "stderr"))
    return Outcome(os.waitstatus_to_exitcode(status), out, err, seconds, was_interrupted)


def _become(number: int, kind: str, file: int) -> None:
    name, mode = (("stdin", "r"), ("stdout", "w"), ("stderr", "w"))[number]
    if kind == Stream.CLOSED:
        os.close(number)
        # As Python starts without it.
        setattr(sys, name, None)
        setattr(sys, f"__{name}__", None)
        return
    if kind == Stream.BROKEN:
        reader, file = os.pipe()
        os.close(reader)
    elif kind == Stream.FULL:
        file = os.open("/dev/full", os.O_WRONLY)
    os.dup2(file, number)
    # As Python makes them when it starts: they remember what they are.
    errors = "strict" if number == 1 else "backslashreplace"
    stream = os.fdopen(number, mode, encoding="utf-8", errors=errors, closefd=False)
    setattr(sys, name, stream)
    setattr(sys, f"__{name}__", stream)


def _drain(terminals: Mapping[str, tuple[int, int]], shown: dict[str, bytes]) -> None:
    for name, (master, _) in terminals.items():
        while select.select([master], [], [], 0)[0]:
            try:
                octets = os.read(master, 65_536)
            except OSError:  # Linux says EIO when the last writer is gone
                break
            if not octets:
                break
            shown[name] += octets


def _command(case: Case, nowhere: int) -> None:
    """In its own process: as the user, in the directory, without what it may not have. Ends with SystemExit."""
    if not case.has_network and ctypes.CDLL(None).setns(nowhere, CLONE_NEWNET) != 0:
        raise OSError("setns")
    os.close(nowhere)
    # Whoever runs the tests in the background of a shell has it ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(case.directory)
    if case.user:
        os.setgroups([])
        os.setgid(case.user)
        os.setuid(case.user)
    os.environ.update(case.environment)
    sys.argv = [case.program, *case.arguments]
    if case.program == "mailguard-milter":
        import mailguard_milter.__main__ as daemon

        _end(daemon.main())
    from mailguard.cli import main

    try:
        main()
    except SystemExit as ended:
        _end(ended.code)


def _end(code: object) -> None:
    """As Python ends, short of taking down every module, which here would cost more than the command."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    status = code if isinstance(code, int) else 0 if code is None else 1
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except OSError:
            os.write(2, b"Exception ignored in the last flush\n")
            status = 120
    os._exit(status)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "contrib"))
    # The stack is the command's: what it leaves behind is met when Python ends, as in the program itself.
    _serve()
