"""Each engine in a real worker process, spoken to over the wire.

ATTACKS.md rows: X07-X14, P02-P09, P11, P13, P16-P18, P20. A stand-in session (engine_host.py) notes what arrives.
"""

from __future__ import annotations

import struct
from ipaddress import ip_address
from pathlib import Path

import pytest

from engine_host import DEADLINE_S
from engine_process import CONTINUE, Host, do, notes, only, unix_listener
from milter_client import ADDHDRS, CHGHDRS, HDR_LEADSPC, POSTFIX_STEPS, QUARANTINE, SETSYMLIST, MilterGone

PATIENCE_S = 20.0


# What arrives


@pytest.mark.attack("P05", "P13", "P23")
def test_a_dialogue_in_bytes_event_by_event(host: Host) -> None:
    with host.client() as client:
        client.negotiate()
        assert client.actions & ~SETSYMLIST == ADDHDRS | CHGHDRS | QUARANTINE
        assert client.steps & HDR_LEADSPC
        assert client.connect(macros={b"j": b"mx", b"{daemon_name}": b"smtpd"}) is None
        assert client.helo() is None
        login = {b"{auth_type}": b"PLAIN", b"{auth_authen}": b"bob", b"{mail_addr}": b"b@us.test", b"{x}": b"y"}
        assert client.mail(b"<b\xff@us.test>", login) is None
        assert client.rcpt() is None
        assert client.rcpt(b"<bob@us.test>") is None
        assert client.header(b"Subject", b" \xff\n\tfolded") is None
        assert client.header(b"Empty", b"") is None
        assert client.end_of_header() is None
        assert client.body(b"x" * 65_535) is None
        replies = client.end_of_message()
        assert replies[-1] == CONTINUE
        assert notes(replies)["events"] == [
            ["connect", "192.0.2.1", "[('{daemon_name}', b'smtpd')]"],
            ["helo", "client.test"],
            [
                "mail",
                "<b\xff@us.test>",
                "[('{auth_authen}', b'bob'), ('{auth_type}', b'PLAIN'), ('{mail_addr}', b'b@us.test')]",
            ],
            ["rcpt"],
            ["rcpt"],
            ["header", "Subject", " \xff\n\tfolded"],
            ["header", "Empty", ""],
            ["end of header"],
            ["body", "65535"],
            ["end of message"],
        ]


@pytest.mark.parametrize(
    ("family", "address", "seen"),
    [
        (b"4", b"198.51.100.66", "198.51.100.66"),
        (b"6", b"2001:db8::1", "2001:db8::1"),
        # Python writes its end in hexadecimal or, from 3.13 on, with dots.
        (b"6", b"::ffff:192.0.2.10", str(ip_address("::ffff:c000:20a"))),
        (b"U", b"", "None"),
        (b"L", b"/run/x", "None"),
    ],
    ids=["inet", "inet6", "mapped", "unknown", "unix"],
)
def test_the_address_comes_with_connect(host: Host, family: bytes, address: bytes, seen: str) -> None:
    with host.client() as client:
        client.negotiate()
        assert client.connect(family=family, address=address) is None
        assert notes(client.message())["events"][0][1] == seen


def test_two_messages_and_an_abort_in_one_connection(host: Host) -> None:
    with host.client() as client:
        client.open()
        first = notes(client.message([(b"Subject", b" one")]))["events"]
        assert ["header", "Subject", " one"] in first
        client.mail(b"<dropped@evil.test>")
        client.header(b"Subject", b" dropped")
        client.abort()
        second = notes(client.message([(b"Subject", b" two")]))["events"]
        assert ["header", "Subject", " two"] in second
        assert "dropped" not in str(second)
        assert "one" not in str(second)


def test_two_sessions_at_once_do_not_mix(host: Host) -> None:
    with host.client() as one, host.client() as other:
        one.open()
        other.open()
        for client, text in ((one, b" one"), (other, b" other")):
            client.mail(b"<x@evil.test>")
            client.header(b"Subject", text)
        for client, heard in ((other, " other"), (one, " one")):
            client.end_of_header()
            seen = [event for event in notes(client.end_of_message())["events"] if event[0] == "header"]
            assert seen == [["header", "Subject", heard]]


def test_a_question_is_answered_at_the_end(host: Host) -> None:
    with host.client() as client:
        replies = client.open().message(do("question"))
        assert [event[0] for event in notes(replies)["events"]].count("end of message") == 1
        assert replies[-1] == CONTINUE


@pytest.mark.attack("V22")
def test_the_end_of_a_message_waits_no_longer_than_the_configuration_says(host: Host) -> None:
    with host.client() as client:
        events = notes(client.open().message(do("question")))["events"]
    (left,) = (float(detail) for stage, *details in events if stage == "answered" for detail in details)
    assert left <= DEADLINE_S


def test_a_quarantined_message_is_accepted_after_the_word(host: Host) -> None:
    with host.client() as client:
        replies = client.open().message(do("quarantine for a look"))
        assert replies[-2:] == [(b"q", b"for a look\0"), CONTINUE]


@pytest.mark.attack("P04")
def test_a_macro_that_is_not_utf8_is_told_and_an_absent_one_is_absent(host: Host, engine: str) -> None:
    with host.client() as client:
        client.open()
        client.mail(macros={b"{auth_authen}": b"u\xff"})
        client.end_of_header()
        value = None if engine == "libmilter" else b"u\xff"
        assert notes(client.end_of_message())["events"][2][2] == f"[('{{auth_authen}}', {value!r})]"


@only("native")
def test_macros_of_another_message_do_not_count(host: Host) -> None:
    """libmilter keeps them until others come. Postfix sends {mail_addr} with each MAIL."""
    with host.client() as client:
        client.open()
        client.mail(macros={b"{auth_authen}": b"bob"})
        client.abort()
        client.event(b"M", b"<x@evil.test>\0")
        client.end_of_header()
        assert notes(client.end_of_message())["events"][2][2] == "[]"


# What is not UTF-8: pymilter cannot decode it


@only("libmilter")
@pytest.mark.attack("P02", "E13")
def test_a_helo_that_is_not_utf8_is_not_told_and_the_session_goes_on(host: Host) -> None:
    with host.client() as client:
        client.negotiate()
        client.connect()
        client.helo(b"\xff\xfe")
        for name in ("", "better.test"):
            if name:
                client.helo(name.encode())
            replies = client.message()
            assert replies[-1] == CONTINUE
            assert [event[1] for event in notes(replies)["events"] if event[0] == "helo"] == [name] * bool(name)
    assert host.events_logged("uncaught", place="pymilter")


@pytest.mark.attack("P02", "E13")
@only("native")
def test_what_is_not_utf8_is_served_like_the_rest(host: Host) -> None:
    with host.client() as client:
        client.negotiate()
        client.connect(hostname=b"\xff", family=b"L", address=b"/\xff")
        client.helo(b"\xff\xfe")
        replies = client.message([(b"X-\xf6", b" y")])
        assert replies[-1] == CONTINUE
        events = notes(replies)["events"]
        assert ["helo", "\xff\xfe"] in events
        assert ["header", "X-\xf6", " y"] in events


@only("native")
def test_a_client_whose_address_the_mta_does_not_know_has_none(host: Host) -> None:
    """Postfix says so after XCLIENT ADDR=[UNAVAILABLE]; to libmilter it is a broken CONNECT."""
    with host.client() as client:
        client.negotiate()
        assert client.connect(hostname=b"unknown", address=b"unknown") is None
        assert notes(client.message())["events"][0][1] == "None"


@only("libmilter")
@pytest.mark.attack("P02")
@pytest.mark.parametrize(("hostname", "family", "address"), [(b"\xff", b"4", b"192.0.2.1"), (b"h", b"L", b"/\xff")])
def test_a_connect_that_cannot_be_decoded_never_ends_in_250(
    host: Host, hostname: bytes, family: bytes, address: bytes
) -> None:
    with host.client() as client:
        client.negotiate()
        client.connect(hostname=hostname, family=family, address=address)
        client.helo()
        # Nothing is known of the client.
        for _ in range(2):
            assert client.message()[-1][1].startswith(b"451 4.3.0 mailguard")
    assert host.has_forgotten_all()


@only("libmilter")
@pytest.mark.attack("P02", "P03", "F10")
def test_a_field_name_that_is_not_utf8_gets_no_250_and_the_next_message_is_served(host: Host) -> None:
    with host.client() as client:
        client.open()
        client.mail()
        client.header(b"X-\xf6", b" y")
        client.end_of_header()
        client.send(b"E")
        client.socket.settimeout(0.5)
        with pytest.raises(TimeoutError):
            client.receive()
        client.socket.settimeout(PATIENCE_S)
        client.abort()
        assert client.message()[-1] == CONTINUE


# What goes wrong in a session

STAGES = ["mail", "header", "end of header", "body", "end of message"]


@pytest.mark.attack("P07", "P09")
@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("fault", ["raise", "exit", "interrupt", "generator", "memory"])
def test_whatever_is_raised_the_message_gets_451_and_the_next_one_is_served(
    host: Host, stage: str, fault: str
) -> None:
    with host.client() as client:
        client.open()
        path = f"<do+{fault}+mail>".encode() if stage == "mail" else b"<x@evil.test>"
        replies = client.message(do(f"{fault} {stage}"), path=path)
        assert [reply[0] for reply in replies] == [b"y"]
        assert replies[0][1] == b"451 4.3.0 mailguard: internal error, please try again later\0"
        assert client.message()[-1] == CONTINUE
    assert host.process.poll() is None


@pytest.mark.attack("P07", "P20")
def test_a_failure_at_connect_is_told_at_the_end_of_each_message(host: Host) -> None:
    with host.client() as client:
        client.negotiate()
        assert client.connect(macros={b"{daemon_name}": b"do raise connect"}) is None
        assert client.helo() is None
        for _ in range(2):
            assert client.message()[-1][1].startswith(b"451 4.3.0")


@pytest.mark.attack("P07")
def test_a_failure_is_logged_with_its_stage_and_place(own_directory: Path, engine: str) -> None:
    with unix_listener(own_directory / "m.sock") as listening:
        host = Host.start(own_directory, listening, engine=engine)
        for stage in ("body", "end of message"):
            with host.client() as client:
                client.open().message(do(f"raise {stage}"))
            (line,) = host.events_logged("internal error", stage=stage, error=f"RuntimeError: as told, at {stage}")
            assert "engine_host.py:" in line["place"]
        lines = [(line["queue_id"], line["action"], line["reason"]) for line in host.messages_logged(2)]
        assert lines == [("4QUEUEID", "tempfail", "internal error")] * 2
        host.end()


def test_many_fields_arrive_in_their_order(host: Host) -> None:
    """However many of them an engine tells at once."""
    with host.client() as client:
        fields = [(b"Subject", b" %d" % number) for number in range(150)]
        events = notes(client.open().message(fields))["events"]
        assert [event[2] for event in events if event[0] == "header"] == [f" {number}" for number in range(150)]


@pytest.mark.attack("P08")
@pytest.mark.parametrize("stage", ["header", "body"])
def test_true_from_a_session_does_not_reject(host: Host, stage: str) -> None:
    with host.client() as client:
        assert client.open().message(do(f"true {stage}"))[-1] == CONTINUE


@pytest.mark.attack("P08")
@pytest.mark.parametrize("order", ["none", "verdict", "nothing"])
def test_a_conclusion_of_the_wrong_type_is_451(host: Host, order: str) -> None:
    with host.client() as client:
        assert client.open().message(do(order))[-1][1].startswith(b"451 4.3.0")


# What is done


def test_actions_in_their_order(host: Host) -> None:
    with host.client() as client:
        value = b" one\n\ttwo\xc3\xa9"
        replies = client.open().message(do("delete X-Gone 2", f"insert X-New {value.hex()}"))
        assert replies[1] == (b"m", struct.pack("!I", 2) + b"X-Gone\0\0")
        assert replies[2] == (b"i", struct.pack("!I", 0) + b"X-New\0" + value + b"\0")
        assert replies[-1] == CONTINUE


@only("libmilter")
@pytest.mark.attack("P06")
def test_a_value_that_libmilter_cannot_take_is_451(host: Host) -> None:
    with host.client() as client:
        assert client.open().message(do(f"insert X-New {b' ff'.hex()}ff"))[-1][1].startswith(b"451 4.3.0")


@pytest.mark.attack("P16")
@pytest.mark.parametrize(
    ("order", "line"),
    [
        ("reply 550 5.7.1 100% sure %s %n %%", b"550 5.7.1 100%% sure %%s %%n %%%%\0"),
        ("reply 451 4.7.0 later", b"451 4.7.0 later\0"),
        ("reply 550 5.6.0 " + "x" * 480, b"550 5.6.0 " + b"x" * 480 + b"\0"),
    ],
    ids=["percent", "temporary", "long"],
)
def test_replies(host: Host, order: str, line: bytes) -> None:
    with host.client() as client:
        assert client.open().message(do(order))[-1] == (b"y", line)
        assert client.message()[-1] == CONTINUE


def test_one_log_line_a_message(own_directory: Path, engine: str) -> None:
    with unix_listener(own_directory / "m.sock") as listening:
        host = Host.start(own_directory, listening, engine=engine)
        with host.client() as client:
            client.open().message()
        (line,) = host.messages_logged(1)
        assert line.items() >= {"queue_id": "4QUEUEID", "from": "x@evil.test", "action": "accept"}.items()
        assert 0 <= line["seconds"] < 60
        host.end()


# Negotiation


@pytest.mark.attack("X09")
@pytest.mark.parametrize("version", [2, 4, 6])
def test_old_protocol_versions_are_served(host: Host, version: int) -> None:
    with host.client() as client:
        client.negotiate(version=version, actions=0x3F, steps=0x7F if version < 6 else POSTFIX_STEPS)
        client.connect()
        client.helo()
        assert client.message()[-1] == CONTINUE


@pytest.mark.attack("X09")
@pytest.mark.parametrize("actions", [ADDHDRS, CHGHDRS, 0x02, ADDHDRS | CHGHDRS])
def test_an_mta_without_header_changes_or_quarantine_is_refused_at_once(host: Host, actions: int) -> None:
    with host.client() as client, pytest.raises(MilterGone):
        client.negotiate(actions=actions)


@pytest.mark.attack("X09")
def test_that_refusal_is_logged_once(own_directory: Path, engine: str) -> None:
    with unix_listener(own_directory / "m.sock") as listening:
        host = Host.start(own_directory, listening, engine=engine)
        for _ in range(3):
            with host.client() as client, pytest.raises(MilterGone):
                client.negotiate(actions=ADDHDRS)
        name = "refused an MTA that does not let its milters change header fields and quarantine"
        assert len(host.events_logged(name)) == 1
        host.end()


def test_without_leading_space_values_get_one_and_lose_it_again(own_directory: Path, engine: str) -> None:
    with unix_listener(own_directory / "m.sock") as listening:
        host = Host.start(own_directory, listening, engine=engine)
        for _ in range(2):
            with host.client() as client:
                client.negotiate(steps=POSTFIX_STEPS & ~HDR_LEADSPC)
                client.connect()
                replies = client.message([(b"Subject", b"x"), *[(b"X-Do", f"insert X-New {b' v'.hex()}".encode())]])
                assert ["header", "Subject", " x"] in notes(replies)["events"]
                assert replies[1] == (b"i", struct.pack("!I", 0) + b"X-New\0v\0")
        name = "the MTA does not tell the space after the colon; simple header canonicalization is a guess"
        assert len(host.events_logged(name)) == 1
        host.end()


@pytest.mark.attack("X10")
def test_a_connection_reused_after_quit_nc_starts_anew(own_directory: Path, engine: str) -> None:
    with unix_listener(own_directory / "m.sock") as listening:
        host = Host.start(own_directory, listening, engine=engine)
        with host.client() as client:
            client.open().message([(b"Subject", b" old")])
            client.quit_and_reuse()
            assert client.connect(address=b"192.0.2.77") is None
            assert client.helo() is None
            seen = notes(client.message())
            assert seen["events"][0][1] == "192.0.2.77"
            assert "old" not in str(seen)
            assert seen["alive"] == 1
        host.end()
