"""The clock of the host is set while the daemon runs, forwards and backwards, by an hour and by a year.

A library that is loaded first (stepped_clock.c) sets it for every process of the daemon, libmilter included; what
CLOCK_MONOTONIC says goes on, as it does on a host. ATTACKS.md row: V17.
"""

from __future__ import annotations

import re
import struct
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from daemon_process import Daemon, eventually, sign_for_us
from dns_fault_server import FaultServer
from engine_process import per_engine
from held_dns import HeldDns, held_dns
from mailguard_milter.engine_native import SWEEP_EVERY_S
from milter_client import HDR_LEADSPC, MilterClient, MilterGone, Packet

__all__ = ["held_dns"]

HOUR_S, DAY_S, YEAR_S = 3_600, 86_400, 366 * 86_400
MESSAGE = ((b"From", b" <alice@us.test>"), (b"Subject", b" hello"))
BODY = b"hello\r\n"
LATENESS_S = 60.0
# By then whoever looks for time-outs has looked.
LOOKED_S = 2 * SWEEP_EVERY_S


@dataclass
class SteppedDaemon:
    """A daemon on a clock of its own, which signs for us.test and verifies what comes from there."""

    daemon: Daemon
    library: Path

    def __post_init__(self) -> None:
        directory = self.daemon.directory
        self.clock = directory / "clock"
        self.clock.touch(0o644)
        self.step(0)
        self.daemon.environment.update(LD_PRELOAD=str(self.library), STEPPED_CLOCK=str(self.clock))
        signing = sign_for_us(self.daemon)
        with (directory / "zone").open("a") as zone:
            zone.write(f'{signing.public_name}. IN TXT "{signing.record().decode()}"\n')

    def step(self, seconds: int) -> None:
        """From now on its clock is so much ahead of the host's."""
        with self.clock.open("r+b", buffering=0) as file:
            file.write(struct.pack("=q", seconds))

    def has_logged_at(self, second: int) -> bool:
        """Whether a line of the log is of about this time."""
        stamps = (time.strftime("time=%Y-%m-%dT%H:%M:%S", time.gmtime(second + more)) for more in range(60))
        log = self.daemon.log()
        return any(stamp in log for stamp in stamps)

    def signed(self) -> bytes:
        """The value of the DKIM-Signature that our user's message gets."""
        with self.daemon.client() as client:
            client.open()
            client.mail(b"<alice@us.test>", {b"{auth_authen}": b"alice", b"{auth_type}": b"PLAIN"})
            client.rcpt()
            for name, value in MESSAGE:
                client.header(name, value)
            client.end_of_header()
            client.body(BODY)
            return inserted(client.end_of_message(), b"DKIM-Signature")

    def judged(self, signature: bytes) -> bytes:
        """The Authentication-Results of the signed message when a stranger brings it."""
        with self.daemon.client() as client:
            fields = ((b"DKIM-Signature", signature), *MESSAGE)
            return inserted(client.open().message(fields, BODY), b"Authentication-Results")


def inserted(replies: list[Packet], name: bytes) -> bytes:
    assert replies[-1] == (b"c", b""), replies
    (value,) = [data[4:].split(b"\0")[1] for code, data in replies if code == b"i" and data[4:].startswith(name)]
    return value


@pytest.fixture(scope="module")
def library() -> Iterator[Path]:
    # Not below pytest's own directory, which the daemon's user may not pass.
    with tempfile.TemporaryDirectory(prefix="mg-") as directory:
        Path(directory).chmod(0o755)
        made = Path(directory, "stepped_clock.so")
        source = Path(__file__).with_name("stepped_clock.c")
        subprocess.run(["gcc", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o", made, source], check=True)
        yield made


@pytest.fixture
def stepped(daemon: Daemon, library: Path) -> SteppedDaemon:
    return SteppedDaemon(daemon, library)


@pytest.mark.attack("V17")
@per_engine
def test_signatures_are_made_and_judged_by_the_clock_of_now(stepped: SteppedDaemon) -> None:
    stepped.daemon.started()
    workers = stepped.daemon.workers()
    first = stepped.signed()
    for step_s, expected in (
        (0, b"dkim=pass"),
        (HOUR_S, b"dkim=pass"),
        (YEAR_S, b"dkim=fail"),
        (6 * DAY_S, b"dkim=pass"),
        (8 * DAY_S, b"dkim=fail"),
        (-HOUR_S, b"dkim=policy"),
        (-YEAR_S, b"dkim=policy"),
        (-60, b"dkim=pass"),
    ):
        stepped.step(step_s)
        assert expected in stepped.judged(first), step_s
        (made_at,) = re.findall(rb"\bt=(\d+)", stepped.signed())
        assert abs(int(made_at) - time.time() - step_s) < LATENESS_S
        eventually(partial(stepped.has_logged_at, int(made_at)))
    assert stepped.daemon.workers() == workers
    assert "level=error" not in stepped.daemon.log()


@pytest.mark.attack("V17")
@pytest.mark.parametrize("step_s", [HOUR_S, -HOUR_S, YEAR_S, -YEAR_S])
@per_engine
def test_a_message_that_waits_for_the_dns_gets_its_answer(
    stepped: SteppedDaemon, held_dns: tuple[HeldDns, FaultServer], step_s: int
) -> None:
    held, server = held_dns
    daemon = stepped.daemon
    asked = f'nameservers = ["127.0.0.1"]\nport = {server.port}\ndeadline_s = 25\nquery_timeout_s = 25'
    daemon.config.write_text(daemon.config.read_text().replace('zone_file = "zone"', asked))
    daemon.started()
    workers = daemon.workers()
    with daemon.client() as client:
        client.open()
        begin(client)
        client.end_of_header()
        client.send(b"E")
        eventually(lambda: "evil.test" in server.names())
        stepped.step(step_s)
        time.sleep(LOOKED_S)
        held.let_go.set()
        results = inserted(client.conclusion(), b"Authentication-Results")
    assert b"spf=fail" in results
    assert b"temperror" not in results
    assert daemon.verdict() == "mx1.us.test"
    assert daemon.workers() == workers


@pytest.mark.attack("V17")
@pytest.mark.parametrize("step_s", [HOUR_S, -HOUR_S, YEAR_S, -YEAR_S])
@per_engine
def test_a_message_that_the_mta_is_slow_with_goes_on(stepped: SteppedDaemon, engine: str, step_s: int) -> None:
    daemon = stepped.daemon
    daemon.started()
    workers = daemon.workers()
    with daemon.client() as client:
        # Each step is answered, so that it has come.
        client.negotiate(steps=HDR_LEADSPC)
        client.connect()
        client.helo()
        begin(client)
        stepped.step(step_s)
        time.sleep(LOOKED_S)
        assert daemon.verdict() == "mx1.us.test"
        try:
            client.end_of_header()
            assert inserted(client.end_of_message(), b"Authentication-Results")
        except (MilterGone, BrokenPipeError):
            # libmilter's time-outs are times of day, looked at now and then. Postfix does milter_default_action.
            assert (engine, step_s) == ("libmilter", YEAR_S)
    assert daemon.verdict() == "mx1.us.test"
    assert daemon.workers() == workers


def begin(client: MilterClient) -> None:
    client.mail()
    client.rcpt()
    client.header(b"From", b" <x@evil.test>")
