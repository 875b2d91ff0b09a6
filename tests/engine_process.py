"""A worker with a stand-in session, as a process, for the tests of the engine."""

from __future__ import annotations

import json
import select
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mailguard_milter.channel import Channel, Word
from milter_client import Address, MilterClient, Packet

ENGINES = ("libmilter", "native")
HOST = Path(__file__).with_name("engine_host.py")
CONTINUE: Packet = (b"c", b"")
PATIENCE_S = 60.0


@dataclass
class Host:
    """A worker process."""

    directory: Path
    listening: socket.socket
    process: subprocess.Popen[bytes]
    channel: Channel

    @classmethod
    def start(cls, directory: Path, listening: socket.socket, *, engine: str, descriptors: int | None = None) -> Host:
        ours, theirs = Channel.pair()
        orders = {
            "control": theirs.fileno(),
            "listening": listening.fileno(),
            "directory": str(directory),
            "descriptors": descriptors,
            "engine": engine,
        }
        with open(directory / "log", "ab") as log:
            process = subprocess.Popen(
                [sys.executable, str(HOST), json.dumps(orders)],
                pass_fds=[theirs.fileno(), listening.fileno()],
                stderr=log,
            )
        theirs.close()
        host = cls(directory, listening, process, ours)
        assert host.hear() is Word.READY
        return host

    def hear(self) -> Word:
        assert select.select([self.channel], [], [], PATIENCE_S)[0], "the worker says nothing"
        packet = self.channel.receive()
        assert packet is not None
        return packet[0]

    @property
    def address(self) -> Address:
        name = self.listening.getsockname()
        return name if isinstance(name, str) else (name[0], name[1])

    def client(self) -> MilterClient:
        return MilterClient(self.address, timeout_s=PATIENCE_S)

    def log(self) -> list[dict[str, Any]]:
        # Without the line that is being written.
        whole, _, _ = (self.directory / "log").read_text().rpartition("\n")
        return [json.loads(line) for line in whole.splitlines()]

    def events_logged(self, name: str, **fields: object) -> list[dict[str, Any]]:
        """Those with this name and these fields; waits for the first."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            found = [line for line in self.log() if line.get("event") == name and fields.items() <= line.items()]
            if found or time.monotonic() > deadline:
                return found
            time.sleep(0.02)

    def messages_logged(self, count: int) -> list[dict[str, Any]]:
        """The lines about messages, which are written after the answer; waits for so many."""
        deadline = time.monotonic() + PATIENCE_S
        while len(found := [line for line in self.log() if "action" in line]) < count:
            assert time.monotonic() < deadline, found
            time.sleep(0.02)
        return found

    def alive(self) -> int:
        """Sessions in the worker's memory, that of the asking one included."""
        with self.client() as client:
            client.open()
            return int(notes(client.message())["alive"])

    def has_forgotten_all(self) -> bool:
        """Whether only the asking session is left; a session ends a moment after its MTA has gone."""
        deadline = time.monotonic() + PATIENCE_S
        while self.alive() != 1:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.05)
        return True

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        self.channel.close()


@pytest.fixture(scope="module")
def engine(request: pytest.FixtureRequest) -> str:
    """Which engine serves; `only` narrows it."""
    return str(request.param)


@pytest.hookimpl(trylast=True)
def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """With each engine, unless a mark says with which. Last, so that ids begin with what a test itself says."""
    names = [str(mark.args[0]) for mark in metafunc.definition.iter_markers("parametrize")]
    if "engine" in metafunc.fixturenames and not any("engine" in each for each in names):
        metafunc.parametrize("engine", ENGINES, indirect=True, scope="module")


per_engine = pytest.mark.usefixtures("engine")
"""For a test whose daemon runs with each engine; `only` narrows it."""


def only(name: str) -> pytest.MarkDecorator:
    """What one engine alone does."""
    return pytest.mark.parametrize("engine", [name], indirect=True)


@pytest.fixture(scope="module")
def directory(engine: str) -> Iterator[Path]:
    # Short: a unix socket's path has at most 107 octets.
    made = Path(tempfile.mkdtemp(prefix="mg-"))
    yield made
    shutil.rmtree(made)


def unix_listener(path: Path) -> socket.socket:
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(path))
    listening.setblocking(False)
    listening.listen(1024)
    return listening


@pytest.fixture(scope="module")
def host(directory: Path, engine: str) -> Iterator[Host]:
    with unix_listener(directory / "m.sock") as listening:
        started = Host.start(directory, listening, engine=engine)
        yield started
        assert started.process.poll() is None, "the worker died on the way"
        started.end()


@pytest.fixture
def own_directory() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="mg-"))
    yield made
    shutil.rmtree(made)


def notes(replies: Sequence[Packet]) -> dict[str, Any]:
    """What the stand-in noted, from the field that it inserts."""
    (field,) = [data for command, data in replies if command == b"i" and data[4:].startswith(b"X-Events\0")]
    loaded: dict[str, Any] = json.loads(field[4:].split(b"\0")[1])
    return loaded


def do(*orders: str) -> list[tuple[bytes, bytes]]:
    return [(b"X-Do", b" " + order.encode()) for order in orders]
