"""Messages without one author domain, as the real Postfix 3.7 hands them over: refused, or annotated when monitoring.

RFC 5322 §3.6; section F of the attack table. Beside them the rows that Postfix makes harmless, and those at its
limits of size. Each is sent by a stranger, and what the daemon saw is compared with the delivered file.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import zone0
from postfix_site import ALICE, STRANGER, PostfixSite, fields_named, header_fields, open_site

pytestmark = pytest.mark.postfix

EVIL = b"From: <x@evil.test>\r\n"
BANK = b"From: <ceo@bank.test>\r\n"
TO = b"To: <alice@us.test>\r\n"
LATER = b"Subject: later\r\nDate: Sun, 15 Jun 2025 15:06:40 +0000\r\n"
NO_FROM = "there is no From field"
TWO_FROM = "there are 2 From fields"
TOO_LARGE = "the header has more than 1000 fields or 262144 octets"

MALFORMED = [
    pytest.param(EVIL + BANK, TWO_FROM, id="F01"),
    pytest.param(BANK + EVIL, TWO_FROM, id="F02"),
    pytest.param(
        b"From: <a@bank.test>\r\nfrom: <b@bank.test>\r\nFROM: <c@bank.test>\r\n", "there are 3 From fields", id="F03"
    ),
    pytest.param(b" From: <x@evil.test>\r\n" + BANK, NO_FROM, id="F04"),
    pytest.param(b"H: a\r\n From: <x@evil.test>\r\n", NO_FROM, id="F05"),
    pytest.param(TO + b"From : <ceo@bank.test>\r\n" + EVIL, TWO_FROM, id="F06 space"),
    pytest.param(b"From\t: <ceo@bank.test>\r\n" + EVIL, TWO_FROM, id="F06 tab"),
    pytest.param(b"From\r\n : <x@evil.test>\r\n" + BANK, NO_FROM, id="F07"),
    pytest.param(b"From\0: <ceo@bank.test>\r\n", NO_FROM, id="F08"),
    pytest.param(b"X-\xc3\xb6: y\r\n" + BANK, NO_FROM, id="F10"),
    pytest.param(b": y\r\n" + BANK, NO_FROM, id="F12"),
    pytest.param(TO + b"From x@evil.test Mon Jan  1 00:00:00 2024\r\n" + BANK, NO_FROM, id="F13"),
    pytest.param(b"Sender: <ceo@bank.test>\r\n", NO_FROM, id="F14"),
    pytest.param(b"Resent-From: <ceo@bank.test>\r\n", NO_FROM, id="F15"),
    pytest.param(b"From: <x@evil.test>ceo@bank.test\r\n", "From: ", id="F23"),
    pytest.param(b"From: ceo@bank.test(<x@evil.test>\r\n", "From: ", id="F26"),
    pytest.param(b"From: x@evil.test " + b"(" * 20_000 + b"\r\n", "From: ", id="F28"),
    pytest.param(b"From: g: ceo@bank.test;\r\n", "From: ", id="F37"),
    pytest.param(b"From:\r\n", "From: ", id="F38"),
    pytest.param(b"From: " + b", ".join(b"<a%d@bank.test>" % n for n in range(3000)) + b"\r\n", "From: ", id="F41"),
    pytest.param(BANK + b"".join(b"X%d: y\r\n" % n for n in range(20_000)), TOO_LARGE, id="F42"),
    pytest.param(b"Subject: a\n" + BANK + EVIL, TWO_FROM, id="F46"),
]


@pytest.fixture(scope="module")
def enforcing(engine: str) -> Iterator[PostfixSite]:
    with open_site(
        engine=engine, inbound={"smtpd_sasl_auth_enable": "yes"}, main={"header_size_limit": "102400"}
    ) as made:
        yield made


@pytest.fixture(scope="module")
def monitoring(engine: str) -> Iterator[PostfixSite]:
    with open_site(engine=engine, mode="monitor", inbound={"smtpd_sasl_auth_enable": "yes"}) as made:
        yield made


def message_of(header: bytes) -> bytes:
    return header + LATER + b"\r\nbody\r\n"


@pytest.mark.attack("F")
@pytest.mark.parametrize(("header", "why"), MALFORMED)
def test_enforcing_refuses_it(enforcing: PostfixSite, header: bytes, why: str) -> None:
    recipient = enforcing.recipient()
    with enforcing.connect() as client:
        answer = client.transmit(message_of(header), sender="x@evil.test", recipient=recipient)
        assert answer.code == 550
        assert answer.text.startswith(f"5.6.0 mailguard: malformed message: {why}".encode())
        # The session goes on.
        again = client.transmit(zone0.mail("<x@evil.test>"), sender="x@evil.test", recipient=recipient)
        assert again.code == 250
    assert fields_named(enforcing.delivered_to(recipient), "Subject") == [b" An offer"]


@pytest.mark.attack("F")
@pytest.mark.parametrize(("header", "why"), MALFORMED)
def test_monitoring_annotates_it(monitoring: PostfixSite, header: bytes, why: str) -> None:
    forged = b"Authentication-Results: mx.us.test; dmarc=pass header.from=bank.test\r\n"
    recipient = monitoring.recipient()
    # A fold at the start would belong to what is put above it.
    prefix = b"" if header.startswith(b" ") else forged
    answer = monitoring.send(prefix + message_of(header), recipient=recipient)
    record = monitoring.record(answer.queue_id)
    assert str(record["reason"]).startswith(f"malformed message: {why}")
    assert (record["would"], record["rule"]) == ("reject", "malformed")
    message = monitoring.delivered_to(recipient)
    (results,) = fields_named(message, "Authentication-Results")
    assert header_fields(message)[0] == b"Authentication-Results:" + results
    assert b"dmarc=permerror" in results
    assert b"=pass" not in results
    assert b"bank.test" not in results


@pytest.mark.attack("D47", "L04")
@pytest.mark.parametrize(
    "header",
    [
        EVIL + b"From: <alice@us.test>\r\n",
        b"From: <alice@us.test>\r\nFrom: <alice@us.test>\r\n",
        b"From: <alice@us.test>, <ceo@bank.test>\r\n",
        b"From: <alice@us.test\r\n",
    ],
)
def test_it_is_never_signed_whoever_sends_it(enforcing: PostfixSite, monitoring: PostfixSite, header: bytes) -> None:
    for site, code in ((enforcing, 550), (monitoring, 250)):
        recipient = site.recipient()
        with site.connect(client=None) as client:
            assert client.command(b"XCLIENT ADDR=%b LOGIN=alice" % STRANGER.encode()).code == 220
            client.ehlo()
            answer = client.transmit(message_of(header), sender=ALICE, recipient=recipient)
        assert answer.code == code
        if code == 250:
            assert site.record(answer.queue_id)["role"] == "sign"
            assert fields_named(site.delivered_to(recipient), "DKIM-Signature") == []


LONG_NAME = b"X-" + b"n" * 898
HARMLESS = [
    pytest.param(b"From: <x@evil.test>\0<ceo@bank.test>\r\n", "x@evil.test", {"From": b" <x@evil.test>"}, id="F09"),
    # What looks like an mbox separator on the first line, Postfix gives another name.
    pytest.param(
        b"From : <ceo@bank.test>\r\n" + EVIL,
        "x@evil.test",
        {"X-Mailbox-Line": b" From : <ceo@bank.test>"},
        id="F06 first",
    ),
    pytest.param(b"From ceo@bank.test Mon\r\n" + EVIL, "x@evil.test", {"From": b" <x@evil.test>"}, id="F13 first"),
    pytest.param(b'From"(: y\r\n' + EVIL, "x@evil.test", {'From"(': b" y"}, id="F11"),
    pytest.param(b"From: <a@us.test>, <b@us.test>\r\n", "a@us.test,b@us.test", {}, id="F17"),
    pytest.param(b'From: "ceo@bank.test" <x@evil.test>\r\n', "x@evil.test", {}, id="F24"),
    pytest.param(
        b'From: "\xff\xfe" <x@evil.test>\r\n', "x@evil.test", {"From": b' "\xff\xfe" <x@evil.test>'}, id="F36"
    ),
    pytest.param(b"From:\r\n \t\r\n <ceo@bank.test>\r\n", "ceo@bank.test", {}, id="F39"),
    pytest.param(EVIL + LONG_NAME + b": y\r\n", "x@evil.test", {LONG_NAME.decode(): b" y"}, id="F44"),
    pytest.param(
        EVIL + b"Subject: a\rFrom: <ceo@bank.test>\r\n",
        "x@evil.test",
        {"Subject": b" a From: <ceo@bank.test>"},
        id="F47",
    ),
]


@pytest.mark.attack("F")
@pytest.mark.parametrize(("header", "author", "delivered"), HARMLESS)
def test_it_has_an_author(enforcing: PostfixSite, header: bytes, author: str, delivered: dict[str, bytes]) -> None:
    recipient = enforcing.recipient()
    answer = enforcing.send(header + b"To: <a@us.test>\r\n\r\nbody\r\n", recipient=recipient)
    assert enforcing.record(answer.queue_id)["from"] == author
    message = enforcing.delivered_to(recipient)
    for name, value in delivered.items():
        assert fields_named(message, name) == [value]


@pytest.mark.attack("F")
@pytest.mark.parametrize("size", [pytest.param(70_000, id="F43 70 kB"), pytest.param(150_000, id="F43 150 kB")])
def test_a_field_that_postfix_cuts_is_signed_as_it_is_delivered(enforcing: PostfixSite, size: int) -> None:
    recipient = enforcing.recipient()
    line = b" " + b"r" * 68 + b"\r\n"
    header = b"From: <alice@us.test>\r\nReferences:" + line * (size // len(line))
    with enforcing.connect(client=None) as client:
        client.command(b"XCLIENT ADDR=%b LOGIN=alice" % STRANGER.encode())
        client.ehlo()
        answer = client.transmit(message_of(header), sender=ALICE, recipient=recipient)
    assert answer.code == 250
    message = enforcing.delivered_to(recipient)
    (references,) = fields_named(message, "References")
    assert 55_000 < len(references) < 66_000
    assert dict(enforcing.verifiers.mailguard(message)) == {"r1": True, "e1": True}


@pytest.mark.attack("F")
@pytest.mark.parametrize(
    ("content", "code"),
    [
        pytest.param(b"", 550, id="F45 nothing"),
        pytest.param(b"\r\nonly a body\r\n", 550, id="F45 no header"),
        pytest.param(b"\r\n", 550, id="F45 neither"),
        pytest.param(EVIL, 250, id="F45 no body"),
        pytest.param(EVIL + b"\r\n", 250, id="F45 empty body"),
    ],
)
def test_parts_may_be_missing(enforcing: PostfixSite, content: bytes, code: int) -> None:
    assert enforcing.send(content).code == code
