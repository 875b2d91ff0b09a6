"""Mail of strangers that comes back as this host's own, such as from Sieve's redirect: it is not lent our domain."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path

import pytest

import zone0
from mailguard.authserv_id import OwnIds
from mailguard.dmarc.result import DmarcStatus
from mailguard.message import HeaderField, Message
from mailguard_milter.arrival import Arrival, failed_on_arrival
from milter_peer import (
    ALICE,
    NOBODY,
    STRANGER,
    Field,
    Peer,
    configuration,
    delivered,
    field_values,
    make_keys,
    message,
)
from postfix_site import SIGNED_BY_US, fields_named, open_site

LOOPBACK = ip_address("127.0.0.1")
LISTED = {"networks": [{"networks": ["127.0.0.1/32"], "domains": ["us.test", "lists.us.test"]}]}
NAME = b"Authentication-Results"
BODY = b"Hello\r\n"


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_keys(tmp_path_factory.mktemp("keys"))


FAIL, NONE = DmarcStatus.FAIL, DmarcStatus.NONE
FIELDS: list[tuple[str, bytes, DmarcStatus | None]] = [
    # id, what follows the colon, what is found for From: alice@us.test
    ("fails", b" mx.us.test; spf=pass smtp.mailfrom=evil.test; dmarc=fail header.from=us.test", FAIL),
    (
        "no record",
        b' mx.us.test; dkim=none; dmarc=none reason="no record" header.from=us.test policy.dmarc=none',
        NONE,
    ),
    ("folded", b" mx.us.test;\r\n\tdkim=none;\r\n\tdmarc=fail\r\n\theader.from=us.test", FAIL),
    ("capitals", b" MX.us.test; DMARC=Fail HEADER.FROM=US.Test", FAIL),
    ("the DNS did not answer", b" mx.us.test; dmarc=temperror header.from=us.test", DmarcStatus.TEMPERROR),
    ("passes", b" mx.us.test; dmarc=pass header.from=us.test", None),
    ("another domain", b" mx.us.test; dmarc=fail header.from=bank.test", None),
    ("a domain below", b" mx.us.test; dmarc=fail header.from=web.us.test", None),
    ("another host", b" mx.bank.test; dmarc=fail header.from=us.test", None),
    ("no DMARC", b" mx.us.test; dkim=pass header.d=us.test", None),
    ("a client of our own", b" mx.us.test; dkim=none", None),
    ("no domain", b' mx.us.test; dmarc=permerror reason="malformed message"', None),
    ("of no known result", b" mx.us.test; dmarc=bad header.from=us.test", None),
    (
        "a reason and a comment say otherwise",
        b' mx.us.test; dmarc=fail (policy; dmarc=pass) reason="a \\"b; dmarc=pass header.from=x" header.from=us.test',
        FAIL,
    ),
    ("only a reason says so", b' mx.us.test; spf=fail reason="; dmarc=fail header.from=us.test"', None),
    ("empty", b"", None),
]


@pytest.mark.parametrize(("value", "expected"), [row[1:] for row in FIELDS], ids=[row[0] for row in FIELDS])
def test_what_our_field_says(value: bytes, expected: DmarcStatus | None) -> None:
    fields = [HeaderField(NAME, value), HeaderField(b"From", b" alice@us.test")]
    found = failed_on_arrival(Message.from_fields(fields), OwnIds(["mx.us.test"]))
    assert found == (Arrival("us.test", expected) if expected is not None else None)


def came_in(keys: Path, sender: bytes) -> list[Field]:
    """A stranger's message as it is in the mailbox, with our results on top."""
    fields = message(sender)
    raw = delivered(fields, BODY, Peer(configuration(keys)).connect(STRANGER).send(fields, BODY))
    return [(each.name, each.value.replace(b"\r\n", b"\n")) for each in Message.parse(raw).fields]


@pytest.mark.attack("L18")
@pytest.mark.parametrize("role", ["auto", "sign"])
def test_a_strangers_message_does_not_come_back_signed(keys: Path, role: str) -> None:
    fields = came_in(keys, b"ceo@us.test")
    # However often it comes back.
    for _ in range(3):
        peer = Peer(configuration(keys, sign=LISTED, mode="enforce"), role=role).connect(LOOPBACK)
        conclusion = peer.send(fields, BODY, macros=NOBODY)
        after = delivered(fields, BODY, conclusion)
        assert conclusion.record["reason"] == "unsigned: it came in from outside, and did not pass DMARC for us.test"
        assert (conclusion.record["action"], conclusion.record["forged_results_removed"]) == ("accept", 1)
        assert not field_values(after, b"DKIM-Signature")
        (told,) = field_values(after, NAME)
        assert told == b' mx.us.test;\r\n\tdmarc=none reason="found when it came in" header.from=us.test'
        fields = [(each.name, each.value.replace(b"\r\n", b"\n")) for each in Message.parse(after).fields]


def test_of_a_field_that_nobody_vouches_for_nothing_else_is_kept(keys: Path) -> None:
    forged = b" mx.us.test; dkim=pass header.d=us.test; spf=pass; dmarc=fail header.from=us.test"
    fields = [(NAME, forged), *message(b"ceo@us.test")]
    conclusion = Peer(configuration(keys, sign=LISTED)).connect(LOOPBACK).send(fields, BODY, macros=NOBODY)
    (told,) = field_values(delivered(fields, BODY, conclusion), NAME)
    assert told == b' mx.us.test;\r\n\tdmarc=fail reason="found when it came in" header.from=us.test'


@pytest.mark.parametrize(
    ("client", "macros"), [(LOOPBACK, ALICE), (STRANGER, ALICE)], ids=["a login on this host", "a login"]
)
def test_who_logs_in_answers_for_what_is_sent_on(keys: Path, client: object, macros: dict[str, bytes]) -> None:
    fields = came_in(keys, b"ceo@us.test")
    peer = Peer(configuration(keys, sign=LISTED)).connect(client)  # type: ignore[arg-type]
    assert peer.send(fields, BODY, macros=macros).record["action"] == "sign"


def test_a_list_signs_what_it_sends_under_its_own_name(keys: Path) -> None:
    post = [field for field in came_in(keys, b"x@bank.test") if field[0] != b"From"]
    fields = [*post, (b"From", b" X via L <l@lists.us.test>")]
    conclusion = Peer(configuration(keys, sign=LISTED)).connect(LOOPBACK).send(fields, BODY, macros=NOBODY)
    assert conclusion.record["action"] == "sign"
    assert not field_values(delivered(fields, BODY, conclusion), NAME)


@pytest.mark.postfix
@pytest.mark.attack("L18")
def test_through_postfix() -> None:
    """What it takes out and puts in counts from the top of a header that has grown."""
    listed = '[[sign.networks]]\nnetworks = ["203.0.113.9/32"]\ndomains = ["us.test"]\n'
    with open_site(workers=1, sign=listed) as site:
        message = site.receive(zone0.mail("<ceo@us.test>"))
        assert len(fields_named(message, "Authentication-Results")) == 1
        for _ in range(2):
            message = site.receive(
                b"Authentication-Results: other.test; spf=pass\r\n" + message, client="203.0.113.9"
            )
            ours, *others = fields_named(message, "Authentication-Results")
            assert ours == b' mx.us.test;\r\n\tdmarc=none reason="found when it came in" header.from=us.test'
            assert set(others) == {b" other.test; spf=pass"}
            assert fields_named(message, "DKIM-Signature") == []
        assert site.verifiers.verdicts(site.receive(zone0.mail("<x@us.test>"), client="203.0.113.9")) == SIGNED_BY_US
