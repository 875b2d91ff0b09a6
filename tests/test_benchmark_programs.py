"""Two programs of the comparison at work: the slow DNS, and the milter that does nothing on the native engine."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from compared_daemon import Task
from daemon_noop import CHECKOUT, NoopLibmilter, NoopNative
from daemon_process import eventually, state
from load_generator import LoadGenerator, build
from mailguard_milter.log import Format, Severity, Sink
from milter_script import Negotiated, Step, negotiate
from noop_engine import Silent
from sample_mail import outgoing
from sandbox_place import free_port

pytestmark = pytest.mark.skipif(shutil.which("gcc") is None, reason="no gcc")
TIMEOUT_S = 20.0


@contextmanager
def running(command: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(command, stderr=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()


# The DNS that is slow

DELAY_S, ZONE_DELAY_S = 0.05, 0.4


def query(number: int, name: str) -> bytes:
    """RFC 1035 §4.1: one question, TXT IN."""
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split(".") if label)
    return number.to_bytes(2, "big") + b"\1\0\0\1\0\0\0\0\0\0" + labels + b"\0\0\x10\0\1"


def udp() -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.settimeout(TIMEOUT_S)
    made.bind(("127.0.0.1", 0))
    return made


class SlowDns:
    """The program, between a client and a resolver that the test plays."""

    def __init__(
        self, program: Path, log: Path, stack: ExitStack, *, zone: str, zone_delay_s: float = ZONE_DELAY_S
    ) -> None:
        self.client, self.resolver = stack.enter_context(udp()), stack.enter_context(udp())
        self.port = free_port()
        ports = [str(self.port), str(self.resolver.getsockname()[1])]
        arguments = [*ports, str(DELAY_S), zone, str(zone_delay_s), str(log)]
        self.log = log
        self.process = stack.enter_context(running([str(program), *arguments]))
        self._await()

    def _await(self) -> None:
        """Until it listens, which /proc tells."""
        wanted = f"0100007F:{self.port:04X}"
        deadline = time.monotonic() + TIMEOUT_S
        while wanted not in Path("/proc/net/udp").read_text():
            assert self.process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def ask(self, octets: bytes) -> None:
        self.client.sendto(octets, ("127.0.0.1", self.port))

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """What is asked meanwhile comes to it at once, however long the asking takes."""
        self.process.send_signal(signal.SIGSTOP)
        eventually(lambda: state(self.process.pid) == "T")
        yield
        self.process.send_signal(signal.SIGCONT)

    def names(self) -> list[str]:
        return [line.split(" ", 1)[1] for line in self.log.read_text().splitlines()]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("slow_dns.c", tmp_path_factory.mktemp("slow_dns"))


@pytest.fixture
def slow_dns(program: Path, tmp_path: Path) -> Iterator[SlowDns]:
    with ExitStack() as stack:
        yield SlowDns(program, tmp_path / "queries", stack, zone="slow.example")


def test_queries_are_held_and_those_of_one_zone_for_longer(slow_dns: SlowDns) -> None:
    names = ["_dmarc.D0001.slow.Example", "slow.example", "_dmarc.d0000.example", "notslow.example", ""]
    began = time.monotonic()
    with slow_dns.stopped():
        for number, name in enumerate(names):
            slow_dns.ask(query(1000 + number, name))
    came = []
    for _ in names:
        octets, address = slow_dns.resolver.recvfrom(2048)
        came.append((octets[2:], time.monotonic() - began))
        # The resolver sees numbers of the program's own; the client gets its own back.
        slow_dns.resolver.sendto(octets[:2] + b"\x81\x80" + octets[4:], address)
    order = [2, 3, 4, 0, 1]
    assert [octets for octets, _ in came] == [query(0, names[number])[2:] for number in order]
    assert all(seconds >= DELAY_S for _, seconds in came[:3])
    assert all(seconds >= ZONE_DELAY_S for _, seconds in came[3:])
    answers = [slow_dns.client.recv(2048) for _ in names]
    assert answers == [
        query(1000 + number, names[number])[:2] + b"\x81\x80" + query(0, names[number])[4:] for number in order
    ]
    assert slow_dns.names() == [name.lower() for name in names]


@pytest.mark.parametrize(
    "octets",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"\0" * 12, id="no question"),
        pytest.param(query(1, "a.test")[:-8], id="cut off in a label"),
        pytest.param(b"\0" * 12 + b"\xc0\x0c\0\x10\0\1", id="a pointer"),
        pytest.param(query(1, ".".join(["x" * 60] * 5)), id="a name too long"),
        pytest.param(query(1, "a.test") + b"\0" * 1024, id="a query too long"),
    ],
)
def test_what_is_no_query_is_dropped(slow_dns: SlowDns, octets: bytes) -> None:
    slow_dns.ask(octets)
    slow_dns.ask(query(7, "b.test"))
    assert slow_dns.resolver.recv(2048)[2:] == query(7, "b.test")[2:]
    assert slow_dns.names() == ["b.test"]


def test_many_are_held_at_once(slow_dns: SlowDns) -> None:
    # A socket's buffer has room for about 250 by default, and the test reads only afterwards.
    count = 100
    with slow_dns.stopped():
        for number in range(count):
            slow_dns.ask(query(number, f"d{number}.test"))
            slow_dns.ask(query(number, f"d{number}.slow.example"))
    found = [slow_dns.resolver.recv(2048) for _ in range(2 * count)]
    assert [octets[2:] for octets in found[:count]] == [query(0, f"d{number}.test")[2:] for number in range(count)]
    assert len({octets[:2] for octets in found}) == 2 * count


def test_without_a_slow_zone(program: Path, tmp_path: Path) -> None:
    with ExitStack() as stack:
        # Held like those of a zone it would not come at all.
        dns = SlowDns(program, tmp_path / "queries", stack, zone="", zone_delay_s=10 * TIMEOUT_S)
        dns.ask(query(1, "slow.example"))
        assert dns.resolver.recv(2048)[2:] == query(1, "slow.example")[2:]


def test_port_that_is_taken(program: Path, tmp_path: Path) -> None:
    with udp() as taken:
        arguments = [str(taken.getsockname()[1]), "5300", "0.1", "", "0", str(tmp_path / "queries")]
        done = subprocess.run([str(program), *arguments], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "slow_dns: bind: Address already in use\n")


# The milter that does nothing


def negotiated_with(milter: subprocess.Popen[bytes], path: Path) -> Negotiated | None:
    """None before it listens; its socket is there a moment earlier."""
    assert milter.poll() is None
    try:
        return negotiate(str(path))
    except (FileNotFoundError, ConnectionRefusedError):
        return None


@pytest.mark.parametrize("engine", ["libmilter", "native"])
def test_noop_on_an_engine(tmp_path: Path, engine: str) -> None:
    path = tmp_path / "s"
    environment = {**os.environ, "PYTHONPATH": f"{CHECKOUT / 'src'}{os.pathsep}{CHECKOUT / 'milter'}"}
    script = str(CHECKOUT / "benchmarks" / "noop_engine.py")
    with subprocess.Popen([sys.executable, "-P", script, engine, str(path)], env=environment) as milter:
        try:
            negotiated = eventually(lambda: negotiated_with(milter, path))
            # An event that is answered costs a switch of processes: none is, but the end of the message.
            for step in (Step.NO_REPLY_CONNECT, Step.NO_REPLY_HELO, Step.NO_REPLY_RCPT, Step.NO_REPLY_BODY):
                assert step in negotiated.steps
            samples = outgoing(2048, 3, algorithms=("rsa",))
            generator = LoadGenerator(tmp_path)
            load = generator.run(generator.prepare("noop", samples, [negotiated]), concurrency=4, count=20)
            assert {tuple(answered.inserted) for answered in load.answers} == {((b"X-Noop", b" yes"),)}
            assert {tuple(answered.verdicts) for answered in load.answers} == {(b"c",)}
        finally:
            milter.terminate()
    # Which thread takes the signal is not said: libmilter's own ends it, any other the process.
    assert milter.returncode in (0, -signal.SIGTERM)


class Kept(Sink):
    def __init__(self) -> None:
        self.lines: list[bytes] = []

    def write(self, line: bytes, severity: Severity) -> None:
        self.lines.append(line)


def test_noop_says_nothing_about_single_messages() -> None:
    sink = Kept()
    log = Silent(sink, Format.LOGFMT, timestamps=False)
    log.start()
    log.message({"action": "accept"})
    log.event("something is wrong", Severity.WARNING)
    log.close(timeout_s=TIMEOUT_S)
    assert sink.lines == [b'event="something is wrong"']


@pytest.mark.parametrize(("kind", "engine"), [(NoopLibmilter, "libmilter"), (NoopNative, "native")])
def test_noop_runs_the_engine_of_this_checkout(kind: type[NoopLibmilter], engine: str) -> None:
    milter = kind(Task.JUDGE, None)  # type: ignore[arg-type]  # needs no keys
    assert milter.environment()["PYTHONPATH"].split(os.pathsep) == [str(CHECKOUT / "src"), str(CHECKOUT / "milter")]
    assert milter.engine == engine
