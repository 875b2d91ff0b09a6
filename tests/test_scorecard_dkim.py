"""`mailguard check`: a key record is ok only if a signature can be verified with it."""

from __future__ import annotations

import pytest

from mailguard.dkim.signing_key import SigningKey, generate_ed25519, generate_rsa
from mailguard.dns.answers import evaluate
from mailguard.dns.zone import ZoneResolver
from mailguard.domain import Domain
from mailguard.scorecard.card import Mark
from mailguard.scorecard.dkim_card import dkim_card

US = Domain.parse("us.test")
KEYS = {
    name: SigningKey.from_bytes(pem, domain=US, selector="s").record().rpartition(b"p=")[2]
    for name, pem in ((b"p=RSA", generate_rsa()), (b"p=ED25519", generate_ed25519()))
}
NOT_RSA = "s: the key is not of type rsa (k=)"


@pytest.mark.parametrize(
    ("record", "mark", "text"),
    [
        (b"v=DKIM1; p=RSA", Mark.OK, "s: rsa, 2048 bits"),
        (b"k=RSA; p=RSA", Mark.OK, "s: rsa, 2048 bits"),
        (b"v=DKIM1; k=Ed25519; p=ED25519", Mark.OK, "s: ed25519, 256 bits"),
        (b"v=DKIM1; p=ED25519", Mark.PROBLEM, "s: p= is not an RSA key"),
        (b"v=DKIM1; k=ed25519; p=RSA", Mark.PROBLEM, "s: an Ed25519 key has 32 octets"),
        (b"v=DKIM1; k=rsa-sha256; p=RSA", Mark.PROBLEM, NOT_RSA),
        (b"v=DKIM1; k=rsa2048; p=RSA", Mark.PROBLEM, NOT_RSA),
        (b"v=DKIM1; k=dsa; p=RSA", Mark.PROBLEM, NOT_RSA),
        (b"v=DKIM1; k=; p=RSA", Mark.PROBLEM, NOT_RSA),
        (b"v=DKIM1; k=r\xc3\xa4; p=RSA", Mark.PROBLEM, NOT_RSA),
        (b"v=DKIM1; k=\xff; p=RSA", Mark.PROBLEM, NOT_RSA),
    ],
)
def test_only_a_key_with_which_a_signature_verifies_is_ok(record: bytes, mark: Mark, text: str) -> None:
    for name, key in KEYS.items():
        record = record.replace(name, b"p=" + key)
    resolver = ZoneResolver({"s._domainkey.us.test": {"TXT": [record]}})
    found, *shown = evaluate(lambda answers: dkim_card(US, ["s"], answers), resolver, deadline=0.0).children
    assert (found.title, found.detail) == (mark.value, text)
    # What has to be repaired is shown.
    assert [each.title for each in shown] == ["s._domainkey.us.test"] * (mark is Mark.PROBLEM)


@pytest.mark.parametrize("name", ["s._domainkey.us.test.us.test", "s.us.test"])
@pytest.mark.parametrize(
    ("record", "text"),
    [
        (b"v=DKIM1; p=RSA", "s: the record stands at {name}, and belongs at s._domainkey.us.test"),
        (b"v=DMARC1; p=none", "s: s._domainkey.us.test has no record"),
    ],
)
def test_a_record_where_nobody_looks(name: str, record: bytes, text: str) -> None:
    resolver = ZoneResolver({name: {"TXT": [record]}})
    (found,) = evaluate(lambda answers: dkim_card(US, ["s"], answers), resolver, deadline=0.0).children
    assert (found.title, found.detail) == (Mark.PROBLEM.value, text.format(name=name))
