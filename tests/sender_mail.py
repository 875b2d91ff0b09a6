"""What somebody writes under a name that is theirs or is not, and what must become of it (docs/senders.md)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pytest

import zone0
from dovecot_site import LoginSite
from postfix_site import Answer, fields_named

__all__ = [
    "ALICE",
    "BOB",
    "CEO",
    "DIRECT",
    "EVERYBODY",
    "OTHERS",
    "Mail",
    "assert_refused",
    "assert_signed",
    "mail",
    "rows",
    "written",
]

ALICE, BOB, CEO = "alice@us.test", "bob@us.test", "ceo@other.test"
OTHER_DOMAINS = ("other.test", "alias.test", "example.com")
OTHERS = {domain: zone0.ed25519_key(60 + number) for number, domain in enumerate(OTHER_DOMAINS)}
"""Domains of ours beside us.test, each with its key."""
DIRECT = {"content_filter": ""}
"""For the submission service: delivered at once, not through a second service."""
EVERYBODY = ["mailguard", "dkimpy", "opendkim"]


@dataclass(frozen=True, slots=True)
class Mail:
    """What somebody writes: `header` has the fields without Subject, `sender` is the reverse path."""

    login: str
    sender: str
    header: bytes

    @property
    def content(self) -> bytes:
        return self.header + b"Subject: An offer\r\n\r\n" + zone0.BODY


def mail(login: str, sender: str, *fields: str) -> Mail:
    return Mail(login, sender, b"".join(field.encode() + b"\r\n" for field in fields))


def written(author: str, *, login: str = ALICE, sender: str | None = None) -> Mail:
    """A message with this From; the reverse path is the login unless given."""
    return mail(login, login if sender is None else sender, f"From: <{author}>")


def rows(table: Mapping[str, object]) -> list[object]:
    """Names of a table, as parameters; those that begin with a row of the attack table carry it."""
    return [
        pytest.param(name, id=name, marks=pytest.mark.attack(name[:3]) if name[0] == "L" else ()) for name in table
    ]


def assert_signed(site: LoginSite, recipient: str, domain: str) -> bytes:
    """Delivered, with a signature of that domain that verifies, and none of another one; the message."""
    message = site.mail.delivered_to(recipient)
    verdicts = site.mail.verifiers.verdicts(message)
    assert verdicts == ({"r1": EVERYBODY, "e1": EVERYBODY} if domain == "us.test" else {"o1": EVERYBODY})
    for value in fields_named(message, "DKIM-Signature"):
        assert b"d=%b;" % domain.encode() in value
    return message


def assert_refused(answer: Answer, rule: str, named: str) -> None:
    """For good, on one line of printable ASCII."""
    assert answer.code == 550, answer
    text = answer.text.decode("ascii")
    assert text.isprintable()
    assert text.startswith("5.7.1 mailguard: "), answer
    assert text.endswith(f"[{rule}]"), answer
    assert named in text, answer
