"""The protocol module and the real Postfix: what it says is decoded, what we say it does.

What it says in four sessions is kept in postfix_capture.py, for machines without Postfix; that this is still what it
says is shown here. Replies: each of them, and the largest.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from smtplib import SMTPConnectError

import pytest

from mailguard_milter import protocol
from mailguard_milter.protocol import (
    CONTINUE,
    Abort,
    Body,
    Connect,
    Data,
    EndOfMessage,
    Event,
    Headers,
    Helo,
    Macros,
    Mail,
    Negotiate,
    Quit,
    Rcpt,
    Unknown,
    Violation,
)
from milter_packets import decoded, packet
from postfix_capture import COMMANDS, LOCAL, OLD, SESSIONS, TWO_MESSAGES, without_chance
from postfix_site import Answer, Client
from protocol_server import RecordingMilter, recording_milter
from sandbox import Delivery, PostfixSandbox

pytestmark = pytest.mark.postfix

SENDER, RECIPIENT = "x@evil.test", "box@us.test"
ALL_ACTIONS = 0x1FF
QUIET = (
    protocol.SMFIP_NR_CONN
    | protocol.SMFIP_NR_HELO
    | protocol.SMFIP_NR_MAIL
    | protocol.SMFIP_NR_RCPT
    | protocol.SMFIP_NR_DATA
    | protocol.SMFIP_NR_UNKN
    | protocol.SMFIP_NR_HDR
    | protocol.SMFIP_NR_EOH
    | protocol.SMFIP_NR_BODY
    | protocol.SMFIP_HDR_LEADSPC
)
SHORT = b"From: <x@evil.test>\r\nSubject: first\r\nSubject: second\r\n\r\nbody\r\n"


@dataclass
class Site:
    """Postfix with two services: `inbound` speaks version 6 of the protocol, `submission` version 2."""

    postfix: PostfixSandbox
    milter: RecordingMilter
    old: RecordingMilter
    seen: int = 0

    def connect(self, *, old: bool = False) -> Client:
        port = self.postfix.ports["submission" if old else "inbound"]
        return Client("127.0.0.1", port, local_hostname="client.test", timeout=60)

    def send(self, content: bytes = SHORT, *, recipient: str = RECIPIENT) -> Answer:
        with self.connect() as client:
            client.ehlo()
            return client.transmit(content, sender=SENDER, recipient=recipient)

    def answered(self, *packets: bytes, at: type[Event] = EndOfMessage) -> Answer:
        """What the client is told when the filter answers so."""
        self.milter.answers = {at: packets}
        try:
            return self.send()
        finally:
            self.milter.answers = {}
            self.milter.take(1)

    def delivered(self, count: int = 1) -> Sequence[Delivery]:
        """The deliveries since the last call."""
        found = self.postfix.wait_delivered(self.seen + count)[self.seen :]
        assert len(found) == count
        self.seen += count
        return found

    def edited(self, *packets: bytes) -> bytes:
        """The message as it is delivered when the filter says this at its end; LF line ends."""
        answer = self.answered(*packets, CONTINUE)
        assert answer.code == 250, answer
        return self.delivered()[0].message


@pytest.fixture(scope="module")
def running() -> Iterator[Site]:
    with (
        recording_milter(steps=protocol.SMFIP_HDR_LEADSPC) as milter,
        recording_milter() as old,
        PostfixSandbox(
            main={
                "smtpd_milters": milter.address,
                "non_smtpd_milters": milter.address,
                "milter_default_action": "tempfail",
                "inet_protocols": "all",
            },
            inbound={"local_header_rewrite_clients": ""},
            submission={
                "smtpd_milters": old.address,
                "milter_protocol": "2",
                "content_filter": "",
                "smtpd_recipient_restrictions": "",
            },
        ) as postfix,
    ):
        made = Site(postfix, milter, old)
        milter.actions = ALL_ACTIONS
        yield made


@pytest.fixture
def site(running: Site) -> Site:
    """As it was at the beginning, whatever the test before left."""
    running.milter.answers = {}
    running.milter.recordings.clear()
    running.seen = running.postfix.delivered_count()
    return running


# What it says


def test_two_messages_in_a_session(site: Site) -> None:
    with site.connect() as client:
        client.ehlo()
        for content in TWO_MESSAGES:
            assert client.transmit(content, sender=SENDER, recipient=RECIPIENT).code == 250
    site.delivered(2)
    (recording,) = site.milter.take(1)
    assert without_chance(recording.events) == without_chance(decoded(SESSIONS["two messages"]))


def test_commands(site: Site) -> None:
    with site.connect() as client:
        for line, code in COMMANDS:
            assert client.command(line).code == code, line
        client.send(b"no header\r\n.\r\n")
        assert client.answer().code == 250
    site.delivered()
    (recording,) = site.milter.take(1)
    assert without_chance(recording.events) == without_chance(decoded(SESSIONS["commands"]))


@pytest.mark.parametrize(
    ("xclient", "event"),
    [
        (b"NAME=six.test ADDR=IPV6:2001:db8::1", Connect(b"six.test", b"6", 0, b"2001:db8::1")),
        (b"NAME=[UNAVAILABLE] ADDR=192.0.2.1", Connect(b"[192.0.2.1]", b"4", 0, b"192.0.2.1")),
        (b"NAME=[UNAVAILABLE] ADDR=[UNAVAILABLE]", Connect(b"unknown", b"4", 0, b"unknown")),
    ],
    ids=["inet6", "no name", "nothing"],
)
def test_a_client_that_becomes_another(site: Site, xclient: bytes, event: Connect) -> None:
    """For a filter it is a new connection."""
    with site.connect() as client:
        client.ehlo()
        assert client.command(b"XCLIENT " + xclient).code == 220
        client.ehlo()
    before, after = site.milter.take(2)
    assert before.events[-1] == Quit()
    assert without_chance(after.events)[2] == event


def test_local_mail(site: Site) -> None:
    site.postfix.command("sendmail", "-f", SENDER, RECIPIENT, content=LOCAL)
    site.delivered()
    (recording,) = site.milter.take(1)
    assert without_chance(recording.events) == without_chance(decoded(SESSIONS["local mail"]))


def test_version_2(site: Site) -> None:
    with site.connect(old=True) as client:
        client.ehlo()
        assert client.command(b"FOO").code == 500
        assert client.transmit(OLD, sender=SENDER, recipient=RECIPIENT).code == 250
    site.delivered()
    (recording,) = site.old.take(1)
    assert recording.events[0] == Negotiate(2, 0x1FF, 0x7F)
    assert not any(isinstance(event, Unknown | Data) for event in recording.events)
    assert without_chance(recording.events) == without_chance(decoded(SESSIONS["version 2"]))


def test_the_same_without_replies(site: Site) -> None:
    """And a body of more than one part."""
    body = b"".join(b"%059d\r\n" % number for number in range(3_000))
    site.milter.steps = QUIET
    try:
        assert site.send(b"From: <x@evil.test>\r\n\r\n" + body).code == 250
    finally:
        site.milter.steps = protocol.SMFIP_HDR_LEADSPC
    site.delivered()
    (recording,) = site.milter.take(1)
    parts = [event.chunk for event in recording.events if isinstance(event, Body)]
    assert [len(part) for part in parts] == [65_535, 65_535, len(body) - 2 * 65_535]
    assert b"".join(parts) == body
    assert sum(isinstance(event, Macros) and event.command == b"B" for event in recording.events) == 1
    assert recording.events[-1] == Quit()


def test_the_longest_header_field(site: Site) -> None:
    """Postfix cuts it; it stays within our bounds."""
    assert site.send(b"From: <x@evil.test>\r\nX-Long: " + b"y" * 300_000 + b"\r\n\r\n").code == 250
    site.delivered()
    (recording,) = site.milter.take(1)
    longest = max(len(value) for event in recording.events if isinstance(event, Headers) for _, value in event.fields)
    assert 59_000 < longest <= 60_000
    assert not any(isinstance(event, Violation) for event in recording.events)


def test_the_macros_that_were_asked_for(site: Site) -> None:
    site.milter.symbols = {
        protocol.SMFIM_CONNECT: b"{daemon_name} j",
        protocol.SMFIM_EOM: b"i",
        protocol.SMFIM_EOH: b"",
    }
    try:
        assert site.send().code == 250
    finally:
        site.milter.symbols = {}
    site.delivered()
    (recording,) = site.milter.take(1)
    names = {event.command: set(event.values) for event in recording.events if isinstance(event, Macros)}
    assert names[b"C"] == {b"{daemon_name}", b"j"}
    assert names[b"E"] == {b"i"}
    # A stage without any name, and one that is not named.
    assert names[b"N"] == {b"i"}
    assert names[b"M"] == {b"{mail_addr}", b"{mail_host}", b"{mail_mailer}"}


# What it does


def test_no_edits(site: Site) -> None:
    message = site.edited()
    assert message.startswith(b"Received: ")
    assert message.endswith(b"Subject: first\nSubject: second\n\nbody\n")


def test_fields_are_added_inserted_changed_and_deleted(site: Site) -> None:
    message = site.edited(
        protocol.add_header(b"X-Last", b"  two spaces"),
        protocol.insert_header(0, b"X-Top", b" folded\n\tonce\n and twice"),
        protocol.insert_header(2, b"X-Third", b" "),
        protocol.change_header(2, b"subject", b" changed"),
        protocol.change_header(1, b"Subject", b""),
    )
    header, _, body = message.partition(b"\n\n")
    assert header.startswith(b"X-Top: folded\n\tonce\n and twice\nReceived: ")
    assert header.endswith(b"\nX-Third: \nFrom: <x@evil.test>\nsubject: changed\nX-Last:  two spaces")
    assert body == b"body\n"


def test_the_largest_field(site: Site) -> None:
    """Postfix takes the packet, and cuts the field as it cuts those that come by SMTP."""
    fold = b"\n " + b"y" * 998
    value = (b" " + fold * 66)[: 65_535 - 4 - 3]
    message = site.edited(protocol.insert_header(0, b"X", value))
    field = message.partition(b"\nReceived: ")[0]
    assert (b"X:" + value).startswith(field)
    assert 59_000 < len(field) <= 60_000


def test_the_body_is_replaced(site: Site) -> None:
    line = b"%059d\r\n" % 7
    first = line * (65_535 // len(line))
    message = site.edited(protocol.replace_body(first), protocol.replace_body(b"line\r\n.\r\nlast"))
    assert message.partition(b"\n\n")[2] == first.replace(b"\r\n", b"\n") + b"line\n.\nlast\n"
    assert site.edited(protocol.replace_body(b"")).endswith(b"Subject: second\n\n")


def test_sender_and_recipients_are_changed(site: Site) -> None:
    answer = site.answered(
        protocol.change_from(b"<other@evil.test>"),
        protocol.add_recipient(b"<one@us.test>"),
        protocol.add_recipient(b"<two@us.test>", b"NOTIFY=NEVER"),
        protocol.delete_recipient(b"<box@us.test>"),
        CONTINUE,
    )
    assert answer.code == 250
    found = site.delivered(2)
    assert {each.sender for each in found} == {"other@evil.test"}
    assert {each.recipient for each in found} == {"one@us.test", "two@us.test"}


def test_quarantine(site: Site) -> None:
    answer = site.answered(protocol.quarantine(b"a reason"), CONTINUE)
    assert answer.code == 250
    assert site.postfix.held() == [answer.queue_id]
    site.postfix.command("postsuper", "-d", answer.queue_id)


VERDICTS = [
    ("accept", (protocol.ACCEPT,), 250, b""),
    ("reject", (protocol.REJECT,), 550, b"5.7.1 Command rejected"),
    ("tempfail", (protocol.TEMPFAIL,), 451, b"4.7.1 Service unavailable - try again later"),
    ("after progress", (protocol.PROGRESS, protocol.PROGRESS, protocol.REJECT), 550, b"5.7.1 Command rejected"),
    ("reply", (protocol.reply_code(b"554", b"5.7.9", b"100% %s no"),), 554, b"5.7.9 100% %s no"),
    ("long reply", (protocol.reply_code(b"451", b"4.7.1", b"x" * 500),), 451, b"4.7.1 " + b"x" * 500),
    (
        "reply of lines",
        (protocol.reply_code(b"550", b"5.7.1", b"one\r\ntwo\r\nthree"),),
        550,
        b"5.7.1 one\n5.7.1 two\n5.7.1 three",
    ),
]


@pytest.mark.parametrize(("packets", "code", "text"), [row[1:] for row in VERDICTS], ids=[row[0] for row in VERDICTS])
@pytest.mark.parametrize("at", [Mail, Rcpt, Data, Headers, Body, EndOfMessage])
def test_verdicts(site: Site, at: type[Event], packets: tuple[bytes, ...], code: int, text: bytes) -> None:
    answer = site.answered(*packets, at=at)
    assert answer.code == code or (code == 250 and answer.code == 354)
    if code == 250:
        site.delivered()
    else:
        assert answer.text == text


def test_discard(site: Site) -> None:
    assert site.answered(protocol.DISCARD).code == 250
    assert site.postfix.delivered_count() == site.seen
    assert not site.postfix.queue()


def test_a_refused_client(site: Site) -> None:
    site.milter.answers = {Connect: (protocol.reply_code(b"554", b"5.7.1", b"no"),)}
    with pytest.raises(SMTPConnectError):
        site.connect()
    site.milter.answers = {Helo: (protocol.reply_code(b"554", b"5.7.1", b"no"),)}
    assert site.send() == Answer(554, b"5.7.1 no")
    for recording in site.milter.take(2):
        assert not any(isinstance(event, Mail | Violation) for event in recording.events)


def test_skip_ends_the_parts_of_the_body(site: Site) -> None:
    site.milter.answers = {Body: (protocol.SKIP,)}
    assert site.send(SHORT + b"line\r\n" * 30_000).code == 250
    site.milter.answers = {}
    site.delivered()
    (recording,) = site.milter.take(1)
    assert sum(isinstance(event, Body) for event in recording.events) == 1
    assert EndOfMessage(b"") in recording.events
    assert Abort() in recording.events


def test_what_is_refused_here_is_not_taken_by_postfix(site: Site) -> None:
    """A reply of another class, a field with a NUL."""
    assert site.answered(packet(b"y", b"250 2.0.0 \0"), CONTINUE).code == 451
    assert site.answered(packet(b"h", b"X\0 a\0b\0"), CONTINUE).code == 451
