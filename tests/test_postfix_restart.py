"""The daemon restarts behind the real Postfix, with a socket that systemd keeps: whoever sends meanwhile waits.

The test is systemd (activated_daemon.py). milter_default_action is tempfail: a message that found no milter would get
451. ATTACKS.md rows: V03, V07.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from activated_daemon import Activated, activated
from daemon_process import PATIENCE_S, Daemon, eventually
from engine_process import per_engine
from sandbox import PostfixSandbox

__all__ = ["activated"]

pytestmark = [pytest.mark.postfix, pytest.mark.skipif(os.geteuid() != 0, reason="Postfix needs root")]

MESSAGES = 12
MESSAGE = b"From: x@evil.test\r\nSubject: hello\r\n\r\nbody\r\n"
_ESTABLISHED = "01"


def connections(port: int) -> int:
    """To this port of ours: those of Postfix' smtpd processes, accepted or not."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(row[3] == _ESTABLISHED and int(row[2].rpartition(":")[2], 16) == port for row in rows)


def terminate(daemon: Daemon) -> None:
    daemon.signal(signal.SIGTERM)


def kill_supervisor(daemon: Daemon) -> None:
    daemon.signal(signal.SIGKILL)


@pytest.mark.attack("V03", "V07")
@pytest.mark.parametrize("end", [terminate, kill_supervisor])
@per_engine
def test_messages_that_come_while_it_is_down_are_accepted_after_the_restart(
    activated: Activated, end: Callable[[Daemon], None]
) -> None:
    daemon = activated.daemon
    main = {
        "smtpd_milters": f"inet:127.0.0.1:{activated.port}",
        "milter_default_action": "tempfail",
        # For the first that waits: twelve processes of Postfix begin, and then the daemon.
        "milter_connect_timeout": "120s",
    }
    activated.started()
    with PostfixSandbox(main=main) as postfix:

        def send() -> None:
            postfix.submit(MESSAGE, sender="x@evil.test", recipients=["alice@us.test"], service="inbound")

        send()
        (first,) = postfix.wait_delivered(1)
        end(daemon)
        assert daemon.process is not None
        daemon.process.wait(PATIENCE_S)
        eventually(lambda: daemon.family() == [])
        senders = [threading.Thread(target=send) for _ in range(MESSAGES)]
        for sender in senders:
            sender.start()
        eventually(lambda: connections(activated.port) >= MESSAGES)
        daemon.configure(authserv_id="mx2.us.test", listeners=activated.listeners())
        activated.started()
        for sender in senders:
            sender.join(PATIENCE_S)
        # Each was answered 250: `send` raises otherwise, and nothing is delivered then.
        _, *others = postfix.wait_delivered(1 + MESSAGES)
    assert b"Authentication-Results: mx1.us.test;" in first.message
    assert len(others) == MESSAGES
    assert all(b"Authentication-Results: mx2.us.test;" in each.message for each in others)
