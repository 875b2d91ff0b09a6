"""PyPI's miltertest as the MTA: a client of the milter protocol that nobody here wrote, with each engine.

It cannot read an answer that asks for macros (SMFIR_SETSYMLIST), so it says that it does not support that, as older
MTAs do; and it takes a quarantine for the end, so what follows one is read here. The worker has a stand-in session
(engine_host.py), which does what fields called X-Do ask for. Debian's program of the same name: test_miltertest.py.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from engine_process import Host, only

miltertest = pytest.importorskip("miltertest")

TIMEOUT_S = 20.0
# What it does not understand is not offered.
ACTIONS = miltertest.SMFI_V6_ACTS & ~miltertest.SMFIF_SETSYMLIST
EVERY_STEP_IS_ANSWERED = miltertest.SMFI_V2_PROT & ~miltertest.SMFIP_NR_HDR
NOTHING_IS_ANSWERED = miltertest.SMFI_V6_PROT
CONTINUE: tuple[str, dict[str, object]] = ("c", {})
VERDICTS = "carty"


@contextmanager
def session(host: Host, *, steps: int) -> Iterator[Any]:
    with socket.socket(socket.AF_UNIX) as connected:
        connected.settimeout(TIMEOUT_S)
        connected.connect(host.address)
        connection = miltertest.MilterConnection(connected)
        connection.optneg_mta(actions=ACTIONS, protocol=steps)
        yield connection


def tell(connection: Any, unanswered: int, command: str, **fields: object) -> None:
    """Send an event, and wait for the answer unless none was agreed."""
    if connection.protocol_flags & unanswered:
        connection._send(command, **fields)
    else:
        assert connection.send_get(command, **fields) == CONTINUE, command


def begin(connection: Any) -> None:
    connection.send_macro(miltertest.SMFIC_CONNECT, **{"{daemon_name}": "smtpd"})
    client = {"hostname": "client.test", "family": miltertest.SMFIA_INET, "port": 4321, "address": "192.0.2.1"}
    tell(connection, miltertest.SMFIP_NR_CONN, miltertest.SMFIC_CONNECT, **client)
    tell(connection, miltertest.SMFIP_NR_HELO, miltertest.SMFIC_HELO, helo="client.test")


def message(connection: Any, *orders: str) -> list[Any]:
    """The replies to its end."""
    connection.send_macro(miltertest.SMFIC_MAIL, i="4QUEUEID", **{"{auth_authen}": "bob"})
    tell(connection, miltertest.SMFIP_NR_MAIL, miltertest.SMFIC_MAIL, args=["<x@evil.test>", "SIZE=100"])
    for recipient in ("<one@us.test>", "<two@us.test>"):
        if not connection.protocol_flags & miltertest.SMFIP_NORCPT:
            tell(connection, miltertest.SMFIP_NR_RCPT, miltertest.SMFIC_RCPT, args=[recipient])
    if not connection.protocol_flags & miltertest.SMFIP_NODATA:
        tell(connection, miltertest.SMFIP_NR_DATA, miltertest.SMFIC_DATA)
    for name, value in [("Subject", "hello"), *(("X-Do", order) for order in orders)]:
        tell(connection, miltertest.SMFIP_NR_HDR, miltertest.SMFIC_HEADER, name=name, value=value)
    tell(connection, miltertest.SMFIP_NR_EOH, miltertest.SMFIC_EOH)
    tell(connection, miltertest.SMFIP_NR_BODY, miltertest.SMFIC_BODY, buf="0123456789abcde\r\n" * 3000)
    replies: list[Any] = connection.send_eom()
    while replies[-1][0] not in VERDICTS:
        replies.append(connection.recv())
    return replies


def seen(replies: list[Any]) -> str:
    (events,) = [fields["value"] for command, fields in replies if fields.get("name") == "X-Events"]
    return json.dumps(json.loads(events)["events"])


@pytest.mark.attack("X09")
@pytest.mark.parametrize("steps", [EVERY_STEP_IS_ANSWERED, NOTHING_IS_ANSWERED], ids=["old", "new"])
def test_a_session(host: Host, steps: int) -> None:
    with session(host, steps=steps) as connection:
        assert not connection.action_flags & miltertest.SMFIF_SETSYMLIST
        begin(connection)
        replies = message(connection, "delete X-Gone 2", "insert X-New 2076")
        assert replies[-1] == CONTINUE
        assert ("m", {"index": 2, "name": "X-Gone", "value": ""}) in replies
        assert [fields["value"].strip() for _, fields in replies if fields.get("name") == "X-New"] == ["v"]
        events = seen(replies)
        for expected in ("bob", "192.0.2.1", "client.test", "<x@evil.test>", "hello", "end of message"):
            assert expected in events

        replies = message(connection, "quarantine for a look")
        assert ("q", {"reason": "for a look"}) in replies
        assert replies[-1] == CONTINUE

        (refused,) = [each for each in message(connection, "reply 550 5.7.1 not here") if each[0] == "y"]
        assert refused[1] == {"smtpcode": "550", "space": " ", "text": "5.7.1 not here"}

        connection.send_macro(miltertest.SMFIC_MAIL)
        tell(connection, miltertest.SMFIP_NR_MAIL, miltertest.SMFIC_MAIL, args=["<dropped@evil.test>"])
        connection._send(miltertest.SMFIC_ABORT)
        assert "dropped" not in seen(message(connection))

        connection._send(miltertest.SMFIC_QUIT)
        assert connection.recv(eof_ok=True) is None


@only("native")
def test_what_it_cannot_read(host: Host) -> None:
    """Where this no longer holds, SETSYMLIST can be offered to it."""
    with socket.socket(socket.AF_UNIX) as connected:
        connected.settimeout(TIMEOUT_S)
        connected.connect(host.address)
        connection = miltertest.MilterConnection(connected)
        with pytest.raises(miltertest.codec.MilterDecodeError, match="Packet contents for O too long"):
            connection.optneg_mta()
