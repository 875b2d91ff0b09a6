"""Which macros count for which message; and a queue id that an MTA tells with MAIL and never again."""

from __future__ import annotations

import pytest

from engine_process import Host
from mailguard_milter.protocol import Macros
from mailguard_milter.received_macros import ReceivedMacros

Sent = tuple[bytes, dict[bytes, bytes]]


def received(*macros: Sent, then: Sent | None = None) -> bytes | None:
    """The queue id, after what came before MAIL, and after that."""
    made = ReceivedMacros()
    for command, values in macros:
        made.take(Macros(command, values))
    made.at_mail()
    if then is not None:
        made.take(Macros(*then))
    return made.queue_id()


@pytest.mark.parametrize("name", [b"i", b"{i}"])
@pytest.mark.parametrize(
    ("then", "queue_id"),
    [
        (None, b"4MAIL"),
        ((b"R", {}), b"4MAIL"),
        ((b"E", {b"{x}": b"y"}), b"4MAIL"),
        ((b"E", {b"i": b"4END"}), b"4END"),
        ((b"R", {b"{i}": b"4RCPT"}), b"4RCPT"),
    ],
    ids=["never again", "an empty list", "others at the end", "another at the end", "another at RCPT"],
)
def test_a_queue_id_that_comes_with_mail_counts_until_another_comes(
    name: bytes, then: Sent | None, queue_id: bytes
) -> None:
    assert received((b"M", {name: b"4MAIL", b"{auth_authen}": b"bob"}), then=then) == queue_id


def test_it_does_not_count_for_the_next_message_and_a_login_neither() -> None:
    made = ReceivedMacros()
    made.take(Macros(b"M", {b"i": b"4MAIL", b"{auth_authen}": b"bob"}))
    assert made.at_mail() == {"{auth_authen}": b"bob"}
    assert made.queue_id() == b"4MAIL"
    assert made.at_mail() == {}
    assert made.queue_id() is None


def test_another_client_on_the_connection_has_nothing_of_the_one_before() -> None:
    made = ReceivedMacros()
    made.take(Macros(b"C", {b"{daemon_name}": b"submission"}))
    made.take(Macros(b"H", {b"{auth_authen}": b"bob"}))
    assert made.at_connect() == {"{daemon_name}": b"submission"}
    assert made.at_mail() == {"{auth_authen}": b"bob"}
    made.take(Macros(b"R", {b"i": b"4RCPT"}))
    made.forget()
    assert (made.at_connect(), made.queue_id(), made.at_mail()) == ({}, None, {})


def test_none_is_told() -> None:
    assert received() is None
    assert received((b"M", {}), (b"C", {b"i": b"4CONNECT"})) is None


def test_an_mta_that_tells_it_with_mail_alone(host: Host) -> None:
    before = len(host.messages_logged(0))
    with host.client() as client:
        client.open()
        for macros in ({b"{mail_addr}": b"x@evil.test", b"i": b"4WITHMAIL"}, {b"{mail_addr}": b"x@evil.test"}):
            client.mail(macros=macros)
            client.event(b"R", b"<alice@us.test>\0")
            client.event(b"N")
            client.send(b"E")
            while client.receive()[0] != b"c":
                continue
    told = host.messages_logged(before + 2)[before:]
    assert [line.get("queue_id") for line in told] == ["4WITHMAIL", None]
