"""What the real Postfix changes before and behind the signature, as docs/postfix.md tells it.

RFC 6376 §3.4, RFC 5321 §4.5.3.1.6.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import zone0
from postfix_site import ALICE, SIGNED_BY_US, PostfixSite, fields_named, open_site

pytestmark = pytest.mark.postfix

FIELDS = b"From: <alice@us.test>\r\nTo: <bob@us.test>\r\nSubject: Hello\r\n"
HEADER_CHECKS = "regexp:{ {/^Subject: An/ REPLACE Subject: [external]} {/^X-Elsewhere:/ REDIRECT b@us.test} }"
# Postfix adds nothing before the milter.
AS_FROM_AFAR = {"local_header_rewrite_clients": ""}


@pytest.fixture(scope="module")
def seven_bits() -> Iterator[PostfixSite]:
    """Its smtp(8) finds a next server that does not offer 8BITMIME."""
    with open_site(workers=1, main={"smtpd_discard_ehlo_keywords": "8bitmime, smtputf8"}) as made:
        yield made


@pytest.fixture(scope="module")
def unchanging() -> Iterator[PostfixSite]:
    """The same, with what docs/postfix.md tells against changes behind the signature."""
    main = {
        "smtpd_discard_ehlo_keywords": "8bitmime, smtputf8",
        "smtp_line_length_limit": "0",
        "disable_mime_output_conversion": "yes",
    }
    with open_site(workers=1, main=main, submission=AS_FROM_AFAR) as made:
        yield made


@pytest.fixture(scope="module")
def changing() -> Iterator[PostfixSite]:
    """It has header_checks, and the service that takes mail back adds what is missing, as for all clients there."""
    main = {"header_checks": HEADER_CHECKS}
    inbound = {"local_header_rewrite_clients": "permit_inet_interfaces"}
    with open_site(workers=1, main=main, submission=AS_FROM_AFAR, inbound=inbound) as made:
        yield made


@pytest.mark.parametrize(
    ("header", "body", "said"),
    [
        (b"References: " + b"<1@us.test>" * 100 + b"\r\n", b"Hello\r\n", "a signed header field"),
        (b"", b"word " * 200 + b"\r\n", "the body"),
    ],
    ids=["header", "body"],
)
def test_lines_that_postfix_breaks_when_it_sends(
    seven_bits: PostfixSite, unchanging: PostfixSite, header: bytes, body: bytes, said: str
) -> None:
    """What docs/postfix.md says of them: broken by default, with the signature, and sent as they are with 0."""
    sent = FIELDS + header + b"\r\n" + body
    recipient = seven_bits.recipient()
    with seven_bits.connect("submission", client=None, login=True) as client:
        answer = client.transmit(sent, sender=ALICE, recipient=recipient)
    assert seven_bits.record(answer.queue_id)["warning"] == f"{said} has a line of more than 998 octets"
    assert seven_bits.verifiers.verdicts(seven_bits.delivered_to(recipient)) == {"r1": [], "e1": []}
    assert unchanging.verifiers.verdicts(unchanging.submit(sent)) == SIGNED_BY_US


def test_eight_bits_behind_a_server_that_offers_seven(seven_bits: PostfixSite, unchanging: PostfixSite) -> None:
    """The same page: what smtp(8) makes of them is not what was signed."""
    text = b"MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n"
    sent = FIELDS + text + "\r\nGrüße\r\n".encode()
    made = seven_bits.submit(sent)
    assert b"quoted-printable" in made
    assert not any(seven_bits.verifiers.verdicts(made).values())
    assert unchanging.verifiers.verdicts(unchanging.submit(sent)) == SIGNED_BY_US


def test_fields_that_the_service_behind_a_content_filter_adds(changing: PostfixSite, unchanging: PostfixSite) -> None:
    """The same page: the Date and the Message-ID that a message lacks, which the signature forbids to add."""
    sent = FIELDS + b"\r\nHello\r\n"
    made = changing.submit(sent)
    assert [len(fields_named(made, name)) for name in ("Date", "Message-ID")] == [1, 1]
    assert changing.verifiers.verdicts(made) == {"r1": [], "e1": []}
    kept = unchanging.submit(sent)
    assert [len(fields_named(kept, name)) for name in ("Date", "Message-ID")] == [0, 0]
    assert unchanging.verifiers.verdicts(kept) == SIGNED_BY_US


def test_a_from_that_postfix_adds_is_the_author(changing: PostfixSite, unchanging: PostfixSite) -> None:
    """The same page: it is there when the milter gets the header, so that there is no malformed message to refuse."""
    recipient = changing.recipient()
    answer = changing.send(b"Subject: no From\r\n\r\nHello\r\n", sender="x@evil.test", recipient=recipient)
    assert changing.record(answer.queue_id)["from"] == "x@evil.test"
    assert fields_named(changing.delivered_to(recipient), "From") == [b" x@evil.test"]
    assert unchanging.send(b"Subject: no From\r\n\r\nHello\r\n", sender="x@evil.test").code == 550


def test_what_header_checks_change_was_not_signed_so(changing: PostfixSite, unchanging: PostfixSite) -> None:
    """What docs/postfix.md says of them: the signature is verified after that."""
    signed = zone0.sign_as(zone0.ke(), zone0.mail())
    assert b"dkim=fail" in fields_named(changing.receive(signed), "Authentication-Results")[0]
    assert b"dkim=pass" in fields_named(unchanging.receive(signed), "Authentication-Results")[0]


def test_header_checks_redirect_past_the_milter(changing: PostfixSite) -> None:
    forged = b"Authentication-Results: mx.us.test; dmarc=pass\r\n"
    answer = changing.send(zone0.mail(more=b"X-Elsewhere: yes\r\n" + forged))
    message = changing.delivered_to("b@us.test")
    assert fields_named(message, "Authentication-Results") == [b" mx.us.test; dmarc=pass"]
    # The one worker writes of a later message.
    later = changing.send(zone0.mail(more=forged))
    changing.record(later.queue_id)
    assert answer.queue_id not in [record["queue_id"] for record in changing.records()]
