"""The bounds on the time and on the octets of one reply of a policy host (RFC 8461 §3.3).

ATTACKS.md rows: T09.
"""

from __future__ import annotations

import socket
import time

import pytest

from mailguard.mtasts.metered_tls import Meter, MeteredContext, TooLarge
from policy_site import HOST


@pytest.mark.attack("T09")
def test_the_handshake_ends_with_the_time_for_all() -> None:
    """Whatever time the connection itself was given."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        meter = Meter(wait_s=60, deadline=time.monotonic() + 0.2, max_bytes=1)
        context = MeteredContext.of(meter, authorities=None)
        with socket.create_connection(listener.getsockname(), timeout=60) as connection:
            begun = time.monotonic()
            with pytest.raises(TimeoutError):
                context.wrap_socket(connection, server_hostname=HOST)
            assert time.monotonic() - begun < 30


def test_a_meter_lets_through_what_is_within_its_bounds() -> None:
    meter = Meter(wait_s=5, deadline=time.monotonic() + 60, max_bytes=10)
    assert meter.wait_s() == 5
    meter.came(4)
    meter.came(6)
    assert (meter.is_too_large, meter.is_late) == (False, False)
    with pytest.raises(TooLarge):
        meter.came(1)
    assert meter.is_too_large
    soon = Meter(wait_s=60, deadline=time.monotonic() + 5, max_bytes=1)
    assert 0 < soon.wait_s() <= 5
    over = Meter(wait_s=60, deadline=time.monotonic(), max_bytes=1)
    with pytest.raises(TimeoutError):
        over.wait_s()
    assert over.is_late
