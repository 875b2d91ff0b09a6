"""What callers get goes to other processes and back: pickle, copy, deepcopy."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import pytest

import mailguard
from dane_asking import Records, zone
from mailguard.dns.question import Answer, Dnssec, Question, RecordType, Status
from mailguard.dns.zone import ZoneResolver
from mailguard.errors import MailguardError, SigningRefused
from mailguard.outcome import Outcome

COPIES: list[Callable[[Any], Any]] = [
    copy.copy,
    copy.deepcopy,
    *(
        lambda value, protocol=protocol: pickle.loads(pickle.dumps(value, protocol))  # noqa: S301  # our own octets
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1)
    ),
]
IDS = ["copy", "deepcopy", *(f"pickle{protocol}" for protocol in range(pickle.HIGHEST_PROTOCOL + 1))]
MESSAGE = b"From: a@a.test\r\nTo: b@b.test\r\nSubject: x\r\nDKIM-Signature: v=1; a=rsa-sha256; d=a.test\r\n\r\nx\r\n"
ZONE: Records = {
    "a.test": {"TXT": ["v=spf1 ip4:192.0.2.1 -all"], "MX": [(10, "mx.a.test")]},
    "_dmarc.a.test": {"TXT": ["v=DMARC1; p=reject"]},
    "mx.a.test": {"A": ["192.0.2.1"]},
}

made_again = pytest.mark.parametrize("made_again", COPIES, ids=IDS)


def outcome() -> Outcome:
    resolver = ZoneResolver(ZONE)
    return mailguard.authenticate(
        MESSAGE, ip="192.0.2.1", helo="mx.a.test", mail_from="a@a.test", resolver=resolver, now=1_750_000_000.0
    )


@made_again
def test_the_outcome_of_a_message(made_again: Callable[[Outcome], Outcome]) -> None:
    judged = outcome()
    again = made_again(judged)
    assert again == judged
    assert again.answers == judged.answers
    assert repr(again) == repr(judged)


@made_again
def test_what_dane_demands(made_again: Callable[[Any], Any]) -> None:
    policy = mailguard.check_dane("example.com", resolver=zone())
    assert made_again(policy) == policy


@made_again
def test_an_answer_is_copied_without_what_was_made_of_it(made_again: Callable[[Answer], Answer]) -> None:
    name = Question("a.test", RecordType.TXT)
    answer = Answer(name, Status.NOERROR, (b"one",), 60, Dnssec.SECURE, "from a server", "b.test")
    given = [field.name for field in fields(Answer) if field.init]
    assert all(getattr(answer, field) != getattr(Answer(name, Status.NODATA), field) for field in given[1:])
    answer.read("what cannot be copied", lambda _: lambda: None)
    again = made_again(answer)
    assert [getattr(again, field) for field in given] == [getattr(answer, field) for field in given]
    assert again.read("what cannot be copied", lambda _: "made anew") == "made anew"


@made_again
def test_a_refusal_to_sign(made_again: Callable[[SigningRefused], SigningRefused]) -> None:
    again = made_again(SigningRefused("no-from", "not signed: there is no From"))
    assert (type(again), again.reason, str(again)) == (SigningRefused, "no-from", "not signed: there is no From")


@pytest.mark.parametrize("kind", [MailguardError, *MailguardError.__subclasses__()])
def test_every_exception(kind: type[MailguardError]) -> None:
    error = kind("one", "two") if kind is SigningRefused else kind("one")
    for made in COPIES:
        assert (type(made(error)), str(made(error))) == (kind, str(error))
