"""Internationalized mail (RFC 6531, RFC 6532) through the real Postfix and the real daemon.

What our own users send in U-labels and in any normal form is signed for the A-label; what comes in by U-labels is
verified. Whatever strangers write, what we put into the header and say in replies is ASCII: a message that every
server takes stays one.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import zone0
from postfix_site import ALL_THREE, OTHER_SELECTOR, Answer, Client, PostfixSite, fields_named, open_site

pytestmark = pytest.mark.postfix

DOMAIN = "xn--mller-kva.test"
KEY = zone0.rsa_key(2048, 3)
SENDERS = """
[senders]
sources = ["inline"]
[senders.inline.logins]
"alice@us.test" = ["jürgen@müller.test", "x@xn--mller-kva.test", "alice@xn--mgba3gch31f060k.test"]
"""


@pytest.fixture(scope="module")
def site(engine: str) -> Iterator[PostfixSite]:
    main = {"smtputf8_enable": "yes"}
    with open_site(workers=1, engine=engine, others={DOMAIN: KEY}, more=SENDERS, main=main) as made:
        yield made


def transmit(client: Client, content: bytes, *, sender: str, recipient: str) -> Answer:
    for line in (f"MAIL FROM:<{sender}> SMTPUTF8 BODY=8BITMIME", f"RCPT TO:<{recipient}>", "DATA"):
        answer = client.command(line.encode())
        assert answer.code in (250, 354), answer
    client.send(content + b".\r\n")
    return client.answer()


def submit(site: PostfixSite, sender: str, author: str, recipient: str) -> Answer:
    with site.connect("submission", client=None, login=True) as client:
        content = zone0.mail(author, more="X-Greeting: Grüße\r\n".encode())
        return transmit(client, content, sender=sender, recipient=recipient)


SPELLINGS = [
    pytest.param("jürgen@müller.test", "Jürgen <jürgen@müller.test>", id="U-labels"),
    pytest.param("jürgen@xn--mller-kva.test", '"Jürgen" <jürgen@müller.test>', id="A-label and U-label"),
    pytest.param("x@xn--mller-kva.test", "=?utf-8?q?J=C3=BCrgen?= <x@xn--mller-kva.test>", id="A-labels"),
    pytest.param("ju\u0308rgen@mu\u0308ller.test", "<ju\u0308rgen@mu\u0308ller.test>", id="decomposed"),
    pytest.param("JÜRGEN@MÜLLER.TEST", "<Jürgen@MÜLLER.test>", id="upper case"),
    pytest.param("jürgen@müller\u3002test", "<jürgen@müller\uff0etest>", id="other full stops"),
]


@pytest.mark.attack("D48")
@pytest.mark.parametrize(("sender", "author"), SPELLINGS)
def test_each_spelling_of_an_address_is_signed(site: PostfixSite, sender: str, author: str) -> None:
    recipient = site.recipient()
    answer = submit(site, sender, author, recipient)
    assert answer.code == 250, answer
    message = site.delivered_to(recipient)
    (signature,) = fields_named(message, "DKIM-Signature")
    assert signature.isascii()
    assert f" d={DOMAIN};".encode() in signature
    assert f"From: {author}\r\n".encode() in message
    assert site.verifiers.verdicts(message) == {OTHER_SELECTOR: ALL_THREE}


def test_a_reverse_path_with_a_joiner_is_its_owners(site: PostfixSite) -> None:
    answer = submit(site, "alice@نامه\u200cای.test", "x@xn--mller-kva.test", site.recipient())
    assert answer.code == 250, answer


@pytest.mark.parametrize(
    ("sender", "author", "place"),
    [
        pytest.param("jürgen@müller.test", "<ß@müller.test>", "From", id="From"),
        pytest.param("straße@müller.test", "<x@xn--mller-kva.test>", "MAIL FROM", id="reverse path"),
        pytest.param("x@xn--mller-kva.test", "<x@bücher.test>", "From", id="domain"),
        pytest.param("jurgen@muller.test", "<x@xn--mller-kva.test>", "MAIL FROM", id="without the accents"),
    ],
)
def test_a_refusal_is_in_ascii(site: PostfixSite, sender: str, author: str, place: str) -> None:
    answer = submit(site, sender, author, site.recipient())
    assert answer.code == 550
    assert answer.text.isascii()
    assert f" in {place} ".encode() in answer.text


STRANGERS = [
    # d=, s=, the result
    pytest.param("müller.test", OTHER_SELECTOR, b"dkim=pass", id="U-labels"),
    pytest.param("MÜLLER.test", OTHER_SELECTOR, b"dkim=pass", id="upper case"),
    pytest.param(DOMAIN, OTHER_SELECTOR, b"dkim=pass", id="A-labels"),
    pytest.param("müller.test", "ö1", b"dkim=permerror", id="no such selector"),
]


@pytest.mark.attack("D48")
@pytest.mark.parametrize(("domain", "selector", "result"), STRANGERS)
def test_what_is_said_of_a_strangers_mail_is_in_ascii(
    site: PostfixSite, domain: str, selector: str, result: bytes
) -> None:
    recipient = site.recipient()
    content = zone0.sign_as(KEY, zone0.mail("Jürgen <jürgen@müller.test>"), d=domain, s=selector)
    forged = "Authentication-Results: ｍx.us.test; dmarc=pass header.from=bänk.test\r\n".encode()
    with site.connect(helo="client.test") as client:
        client.command("EHLO höst.test".encode())
        answer = transmit(client, forged + content, sender="ö@bücher.test", recipient=recipient)
    assert answer.code == 250, answer
    (results,) = fields_named(site.delivered_to(recipient), "Authentication-Results")
    assert results.isascii()
    for words in (
        result,
        f"header.d={DOMAIN}".encode(),
        b"smtp.mailfrom=xn--bcher-kva.test",
        b"smtp.helo=xn--hst-sna.test",
        f"header.from={DOMAIN}".encode(),
    ):
        assert words in results, results
