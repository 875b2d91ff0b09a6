"""The macros that the native engine asks the real Postfix for: they come, whatever main.cf says, in whatever octets.

RELEASE_NOTES-2.5 of Postfix, "SETSYMLIST". A second filter records what Postfix says to one that asks for the same,
and a third one what it says to one that asks for nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import pytest

import zone0
from mailguard_milter import protocol
from mailguard_milter.protocol import Event, Macros
from mailguard_milter.received_macros import SYMBOLS
from postfix_site import ALICE, PostfixSite, fields_named, open_site
from protocol_server import RecordingMilter, recording_milter
from sandbox_place import free_port

pytestmark = pytest.mark.postfix

# What an administrator may have left of them.
TRIMMED = {
    "milter_connect_macros": "j",
    "milter_helo_macros": "{tls_version}",
    "milter_mail_macros": "{mail_host}",
    "milter_rcpt_macros": "{rcpt_host}",
    "milter_end_of_header_macros": "",
    "milter_end_of_data_macros": "",
    "milter_macro_daemon_name": "outgoing",
    # Otherwise Postfix itself refuses commands that are not UTF-8.
    "smtputf8_enable": "no",
}
LOGIN = {b"{auth_type}": b"PLAIN", b"{auth_authen}": ALICE.encode(), b"{mail_addr}": ALICE.encode()}


@dataclass(frozen=True, slots=True)
class Site:
    postfix: PostfixSite
    asking: RecordingMilter
    silent: RecordingMilter


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with ExitStack() as stack:
        asking, silent = (stack.enter_context(recording_milter()) for _ in range(2))
        asking.actions, asking.symbols = protocol.SMFIF_SETSYMLIST, SYMBOLS
        milter = f"inet:127.0.0.1:{free_port()}"
        made = stack.enter_context(
            open_site(
                address=milter,
                engine="native",
                main={**TRIMMED, "smtpd_milters": f"{milter}, {asking.address}, {silent.address}"},
                submission={"content_filter": "", "milter_macro_daemon_name": "outgoing"},
            )
        )
        yield Site(made, asking, silent)


@pytest.fixture(autouse=True)
def unheard(site: Site) -> None:
    """Recordings of a test before are not mixed with those of the next one."""
    for milter in (site.asking, site.silent):
        milter.take(len(milter.recordings))


@pytest.fixture
def sent(site: Site) -> tuple[list[Event], list[Event], list[str]]:
    """Two messages of alice's in one session: what the two filters heard, and the queue ids."""
    ids = []
    with site.postfix.connect("submission", client=None, login=True) as client:
        for _ in range(2):
            answer = client.transmit(zone0.mail(f"<{ALICE}>"), sender=ALICE, recipient=site.postfix.recipient())
            assert answer.code == 250, answer
            ids.append(answer.queue_id)
    (asking,), (silent,) = site.asking.take(1), site.silent.take(1)
    return asking.events, silent.events, ids


def macros(events: list[Event], command: bytes) -> list[dict[bytes, bytes]]:
    return [dict(event.values) for event in events if isinstance(event, Macros) and event.command == command]


@pytest.mark.attack("P22")
def test_postfix_sends_what_was_asked_for_and_nothing_else(sent: tuple[list[Event], list[Event], list[str]]) -> None:
    asking, _, ids = sent
    queue_ids = [{b"i": each.encode()} for each in ids]
    assert macros(asking, b"C") == [{b"{daemon_name}": b"outgoing"}]
    assert macros(asking, b"M") == [LOGIN, LOGIN]
    assert macros(asking, b"E") == queue_ids
    assert macros(asking, b"N") == queue_ids
    # No queue file is open yet.
    assert [set(each) for each in macros(asking, b"H") + macros(asking, b"R")] == [set()] * 3


def test_a_filter_that_asks_for_nothing_gets_those_of_main_cf(
    sent: tuple[list[Event], list[Event], list[str]],
) -> None:
    _, silent, _ = sent
    assert macros(silent, b"M") == [{b"{mail_host}": b"us.test"}] * 2
    assert macros(silent, b"E") == [{}] * 2


@pytest.mark.attack("P22")
def test_login_and_queue_id_are_known_whatever_main_cf_says(
    site: Site, sent: tuple[list[Event], list[Event], list[str]]
) -> None:
    for queue_id in sent[2]:
        record = site.postfix.record(queue_id)
        assert (record["role"], record["login"], record.get("warning")) == ("sign", ALICE, None), record
    recipient = site.postfix.recipient()
    answer = site.postfix.send(zone0.mail("<x@evil.test>"), recipient=recipient)
    record = site.postfix.record(answer.queue_id)
    assert (record["role"], record.get("login")) == ("verify", None), record
    assert len(fields_named(site.postfix.delivered_to(recipient), "Authentication-Results")) == 1


@pytest.mark.attack("P02", "P04", "E13")
def test_a_helo_name_and_a_path_that_are_not_utf8_are_served(site: Site) -> None:
    """Postfix itself makes a login of XCLIENT text; one that is none comes in test_engine.py."""
    recipient = site.postfix.recipient()
    with site.postfix.connect("submission", client=None, login=True) as client:
        assert client.command(b"HELO \xff\xfe").code == 250
        answer = client.transmit(zone0.mail(f"<{ALICE}>"), sender=b"al\xff@us.test", recipient=recipient)
        assert answer.code == 250, answer
    record = site.postfix.record(answer.queue_id)
    assert (record["role"], record["login"], record["helo"]) == ("sign", ALICE, "\\xff\\xfe"), record
    assert record["mail_from"] == "al\\xff@us.test"
    assert len(fields_named(site.postfix.delivered_to(recipient), "DKIM-Signature")) == 2
