"""A message that waits for the DNS while its worker is told to end: it is judged by what the DNS says, as any other.

ATTACKS.md rows: V07, V08.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from daemon_process import PATIENCE_S, Daemon, eventually
from dns_fault_server import FaultServer
from engine_process import per_engine
from held_dns import HeldDns, held_dns

__all__ = ["held_dns"]

LISTENS = "00010000"  # unix(7): __SO_ACCEPTCON


def stopped(daemon: Daemon) -> None:
    """Every process has let go of the listener: the worker knows that it is to end."""
    daemon.signal(signal.SIGTERM)
    eventually(lambda: not is_listened_on(daemon.socket))


def reloaded(daemon: Daemon) -> None:
    daemon.reload()
    eventually(lambda: len(daemon.workers()) == 2)


def is_listened_on(path: Path) -> bool:
    rows = [line.split() for line in Path("/proc/net/unix").read_text().splitlines()[1:]]
    return any(row[3] == LISTENS and row[-1] == str(path) for row in rows)


@pytest.mark.attack("V07", "V08")
@pytest.mark.parametrize("ends", [stopped, reloaded])
@per_engine
def test_the_answer_still_comes_and_counts(
    daemon: Daemon, held_dns: tuple[HeldDns, FaultServer], ends: Callable[[Daemon], None]
) -> None:
    held, server = held_dns
    daemon.configure(listeners=f'[[listeners]]\naddress = "unix:{daemon.socket}"\nworkers = 1\n')
    asked = f'nameservers = ["127.0.0.1"]\nport = {server.port}\ndeadline_s = 25\nquery_timeout_s = 25'
    daemon.config.write_text(daemon.config.read_text().replace('zone_file = "zone"', asked))
    daemon.started()
    (worker,) = daemon.workers()
    with daemon.client() as client:
        client.socket.settimeout(PATIENCE_S)
        client.open()
        client.mail()
        client.header(b"From", b" <x@evil.test>")
        client.end_of_header()
        client.send(b"E")
        eventually(lambda: "evil.test" in server.names())
        assert is_listened_on(daemon.socket)
        ends(daemon)
        assert worker in daemon.family()
        held.let_go.set()
        replies = client.conclusion()
        client.quit()
    assert replies[-1] == (b"c", b"")
    (results,) = [data for command, data in replies if command == b"i"]
    assert b"spf=fail" in results
    assert b"temperror" not in results
    eventually(lambda: worker not in daemon.family())
