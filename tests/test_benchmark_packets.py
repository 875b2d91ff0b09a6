"""The comparison speaks the milter protocol as Postfix does: its prepared packets, and the program that sends them.

The packets are compared with what Postfix 3.7.11 was recorded to send. The program is built and run against milters
that the test plays; without a compiler these tests are skipped.
"""

from __future__ import annotations

import shutil
import socket
import struct
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import pytest

from load_generator import LoadError, LoadGenerator
from milter_script import ACTIONS, STEPS, VERSION, Negotiated, Stage, Step, operations, packet
from sample_mail import Sample, outgoing

NO_REPLIES = Step(0x1CC380)
"""What mailguard negotiates: no reply but to CONNECT, HELO and the end of the message."""
NOTHING_SPECIAL = Step(0)


@pytest.fixture
def sample() -> Sample:
    return replace(
        outgoing(2048, 1, algorithms=("rsa",))[0],
        fields=((b"Received", b" from a by b\n\twith SMTP; today"), (b"Subject", b"  two blanks")),
        body=b"Hello\r\n",
        mail_from=b"x@evil.test",
        rcpt_to=b"a@b.test",
        helo=b"client.sandbox.test",
        queue_id=b"4D92920E736",
        client_name=b"unknown",
        client_address=b"127.0.0.1",
        receiver=b"mail.sandbox.test",
        daemon_name=b"mail.sandbox.test",
        login=b"",
    )


def negotiated(steps: int, *, macros: bytes = b"", path: str = "/s") -> Negotiated:
    return Negotiated.read(path, b"O" + struct.pack("!III", VERSION, 0x31, steps) + macros)


def sent(sample: Sample, *milters: Negotiated) -> list[tuple[bytes, int, bytes]]:
    """Without the negotiation and what follows the message."""
    return [
        (bytes(operation), number, octets)
        for operation, number, octets in operations(sample, milters)
        if bytes(operation) not in (b"C", b"O", b"X")
    ]


def octets_to(sample: Sample, milter: Negotiated) -> bytes:
    return b"".join(octets for _, _, octets in sent(sample, milter))


# The packets


def test_packets_are_those_that_postfix_sent(sample: Sample) -> None:
    """Recorded from Postfix 3.7.11 behind a milter that answers nothing but CONNECT, HELO and the end."""
    found = octets_to(sample, negotiated(NO_REPLIES))
    recorded = (
        b"\0\0\0\x15Hclient.sandbox.test\0",
        b"\0\0\0\x0fM<x@evil.test>\0",
        b"\0\0\0\x0cR<a@b.test>\0\0\0\0\x10DTi\x004D92920E736\0",
        b"\0\0\0\x10DLi\x004D92920E736\0\0\0\0\x29LReceived\0 from a by b\n\twith SMTP; today\0",
        b"\0\0\0\x10DLi\x004D92920E736\0\0\0\0\x16LSubject\0  two blanks\0\0\0\0\x10DNi\x004D92920E736\0\0\0\0\x01N",
        b"\0\0\0\x10DBi\x004D92920E736\0\0\0\0\x08BHello\r\n\0\0\0\x10DEi\x004D92920E736\0\0\0\0\x01E",
    )
    for part in recorded:
        assert part in found
    assert b"DM{mail_addr}\0x@evil.test\0{mail_host}\0evil.test\0{mail_mailer}\0" in found
    # {i} is there only when the queue file is.
    assert b"DR{rcpt_addr}\0a@b.test\0{rcpt_host}\0b.test\0{rcpt_mailer}\0" in found


def shape(steps: Sequence[tuple[bytes, int, bytes]]) -> str:
    return b"".join(operation for operation, _, _ in steps).decode()


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        # CONNECT, HELO, MAIL, RCPT, DATA, then two fields, end of header, body, end: W macros, W event, R reply.
        pytest.param(NOTHING_SPECIAL, "WWRWWRWWRWWRWWRFWRWRWRbWE", id="every event is answered"),
        pytest.param(NO_REPLIES, "WWRWWRWWWWWFWWWBWE", id="as mailguard negotiates"),
        # The macros of HELO, MAIL, RCPT and DATA come all the same.
        pytest.param(Step(0x10027E), "WWRWWWWFWE", id="no event but connect and the end"),
    ],
)
def test_what_is_answered_and_what_is_left_out(sample: Sample, steps: Step, expected: str) -> None:
    assert shape(sent(sample, negotiated(steps))) == expected


def test_blank_after_the_colon(sample: Sample) -> None:
    assert b"LSubject\0  two blanks\0" in octets_to(sample, negotiated(Step.LEADING_BLANK))
    assert b"LSubject\0two blanks\0" in octets_to(sample, negotiated(NOTHING_SPECIAL))


def test_macros_that_a_milter_asks_for(sample: Sample) -> None:
    asked = struct.pack("!I", Stage.MAIL) + b"{mail_addr} i\0" + struct.pack("!I", Stage.END_OF_HEADER) + b"\0"
    found = octets_to(sample, negotiated(NO_REPLIES, macros=asked))
    assert b"DM{mail_addr}\0x@evil.test\0\0\0\0" in found
    # An empty list changes nothing.
    assert b"DNi\x004D92920E736\0" in found


def test_login(sample: Sample) -> None:
    found = octets_to(replace(sample, login=b"alice"), negotiated(NO_REPLIES))
    assert b"DM{auth_type}\0PLAIN\0{auth_authen}\0alice\0{mail_addr}\0" in found


def test_chunks(sample: Sample) -> None:
    body = b"x" * 65_535 + b"y" * 2
    chunks = [octets for operation, _, octets in sent(replace(sample, body=body), negotiated(0)) if operation == b"b"]
    assert [octets[-2:] for octets in chunks] == [b"xx", b"yy"]
    assert packet(b"B", b"yy") in chunks[1]
    assert [o for o, _, _ in sent(replace(sample, body=b""), negotiated(0)) if o in (b"b", b"B")] == []


def test_several_milters_get_each_event_in_turn_and_the_content_one_after_the_other(sample: Sample) -> None:
    steps = sent(sample, negotiated(0, path="/a"), negotiated(NO_REPLIES, path="/b"))
    numbers = [number for operation, number, _ in steps if operation == b"F"]
    assert numbers == [0, 1]
    # smtpd's part goes to and fro between them, cleanup's is first the one's and then the other's.
    handed_over = [operation for operation, _, _ in steps].index(b"F", [o for o, _, _ in steps].index(b"F") + 1)
    content = [number for _, number, _ in steps[handed_over + 1 :]]
    assert content == sorted(content)
    assert [number for operation, number, octets in steps if b"R<a@b.test>" in octets] == [0, 1]
    # Only a later milter gets what earlier ones inserted.
    assert [number for operation, number, _ in steps if operation in b"Ii"] == [1]


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"O\0\0\0\x06", id="cut off"),
        pytest.param(b"c" + b"\0" * 12, id="another command"),
        pytest.param(b"O" + b"\0" * 12 + b"\0\0\0\x09x\0", id="an unknown stage"),
        pytest.param(b"O" + b"\0" * 12 + b"\0\0\0\x02x", id="macros without an end"),
    ],
)
def test_malformed_negotiation(answer: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        Negotiated.read("/s", answer)


# The generator, against a milter that the test plays


class PlayedMilter(threading.Thread):
    """Answers every event, keeps the header fields, and inserts the fields that it is told to."""

    def __init__(self, path: Path, *, insert: Sequence[bytes] = (), steps: int = 0, hangs_up: bool = False) -> None:
        super().__init__(daemon=True)
        self.path = str(path)
        self.fields: list[bytes] = []
        self.steps = steps
        self._insert = insert
        self._hangs_up = hangs_up
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(self.path)
        self._listener.listen()
        self.start()

    @property
    def negotiated(self) -> Negotiated:
        return negotiated(self.steps, path=self.path)

    def run(self) -> None:
        while True:
            connection, _ = self._listener.accept()
            with connection, connection.makefile("rb") as stream:
                self._serve(connection, stream)

    def _serve(self, connection: socket.socket, stream: BinaryIO) -> None:
        while len(head := stream.read(4)) == 4:
            octets = stream.read(*struct.unpack("!I", head))
            command = octets[:1]
            if command == b"O":
                connection.sendall(packet(b"O", struct.pack("!III", VERSION, 0x31, self.steps)))
            elif command == b"E":
                if self._hangs_up:
                    return
                for field in self._insert:
                    connection.sendall(packet(b"i", struct.pack("!I", 0) + field))
                connection.sendall(packet(b"p") + packet(b"c"))
            elif command not in b"DAQ":
                if command == b"L":
                    self.fields.append(octets[1:])
                connection.sendall(packet(b"c"))


@pytest.fixture(scope="module")
def generator(tmp_path_factory: pytest.TempPathFactory) -> LoadGenerator:
    if shutil.which("gcc") is None:
        pytest.skip("no gcc")
    return LoadGenerator(tmp_path_factory.mktemp("load"))


def test_load_keeps_every_answer(generator: LoadGenerator, tmp_path: Path, sample: Sample) -> None:
    milter = PlayedMilter(tmp_path / "s", insert=[b"X-One\0 1\0", b"X-Two\0 2\0"])
    prepared = generator.prepare("kept", [sample, sample], [milter.negotiated])
    load = generator.run(prepared, concurrency=3, count=7)
    assert load.messages == 7
    assert sorted(answered.number for answered in load.answers) == [0, 0, 0, 0, 1, 1, 1]
    for answered in load.answers:
        assert answered.inserted == [(b"X-One", b" 1"), (b"X-Two", b" 2")]
        assert answered.verdicts == [b"c"]
        assert 0 < answered.latency_s < load.seconds + 1


def test_a_later_milter_sees_what_earlier_ones_inserted(
    generator: LoadGenerator, tmp_path: Path, sample: Sample
) -> None:
    first = PlayedMilter(tmp_path / "a", insert=[b"X-One\0 1\0", b"X-Two\x002\0"], steps=Step.LEADING_BLANK)
    second = PlayedMilter(tmp_path / "b")
    prepared = generator.prepare("chain", [sample], [first.negotiated, second.negotiated])
    (answered,) = generator.run(prepared, concurrency=1, count=1).answers
    assert len(answered.verdicts) == 2
    assert first.fields[0].startswith(b"Received\0 from")
    # The last inserted is on top; this milter does not want the blank after the colon.
    assert second.fields == [
        b"X-Two\x002\0",
        b"X-One\x001\0",
        *(f.replace(b"\0 ", b"\0").replace(b"\0 ", b"\0") for f in first.fields),
    ]


def test_load_without_a_measurement(generator: LoadGenerator, tmp_path: Path, sample: Sample) -> None:
    hanging = PlayedMilter(tmp_path / "a", hangs_up=True)
    with pytest.raises(LoadError, match="hung up"):
        generator.run(generator.prepare("hangs", [sample], [hanging.negotiated]), concurrency=1, count=1)
    other = PlayedMilter(tmp_path / "b")
    before = replace(other.negotiated, answer=other.negotiated.answer + b"\0")
    with pytest.raises(LoadError, match="negotiated something else"):
        generator.run(generator.prepare("other", [sample], [before]), concurrency=1, count=1)
    absent = replace(other.negotiated, path=str(tmp_path / "absent"))
    with pytest.raises(LoadError, match="connect"):
        generator.run(generator.prepare("absent", [sample], [absent]), concurrency=1, count=1)


def test_offer_is_that_of_postfix() -> None:
    assert (VERSION, ACTIONS, STEPS) == (6, 0x1FF, 0x1FFFFF)
