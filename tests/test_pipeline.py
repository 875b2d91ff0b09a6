"""What a caller may hand to `authenticate`, and that the public names suffice to call it."""

from __future__ import annotations

import inspect
from enum import Enum
from typing import Any, get_args, get_type_hints

import pytest

import mailguard
from mailguard.dns.zone import ZoneResolver
from mailguard.pipeline import authenticate
from mailguard.spf.result import SpfReason, SpfStatus

ZONE = {"a.test": {"TXT": ["v=spf1 ip4:192.0.2.1 -all"]}}
# Half of a character beyond U+FFFF, which stands for no octet.
ALONE = chr(0xD800)
RAW = b"From: <x@a.test>\r\n\r\nHello.\r\n"


@pytest.mark.parametrize(
    ("mail_from", "status", "reason"),
    [
        ("x@a.test", SpfStatus.PASS, SpfReason.MATCH),
        ("<x@a.test>", SpfStatus.PASS, SpfReason.MATCH),
        (b"<x@a.test>", SpfStatus.PASS, SpfReason.MATCH),
        ("ü@a.test", SpfStatus.PASS, SpfReason.MATCH),
        (b"\xff@a.test", SpfStatus.PERMERROR, SpfReason.SENDER_SYNTAX),
        ("\udcff@a.test", SpfStatus.PERMERROR, SpfReason.SENDER_SYNTAX),
        (f"{ALONE}@a.test", SpfStatus.PERMERROR, SpfReason.SENDER_SYNTAX),
        (f"x@{ALONE}.test", SpfStatus.PERMERROR, SpfReason.SENDER_SYNTAX),
    ],
    ids=ascii,
)
def test_a_reverse_path_is_octets_or_any_text(mail_from: str | bytes, status: SpfStatus, reason: SpfReason) -> None:
    """Python has text for octets that are no UTF-8, and JSON has text for no octets at all."""
    outcome = authenticate(RAW, ip="192.0.2.1", helo="a.test", mail_from=mail_from, resolver=ZoneResolver(ZONE))
    assert outcome.spf is not None
    assert (outcome.spf.status, outcome.spf.reason) == (status, reason)


@pytest.mark.parametrize("helo", [ALONE, "\udc80", "\udc80" + ALONE, b"\xff"], ids=ascii)
def test_so_is_a_helo_name(helo: str | bytes) -> None:
    outcome = authenticate(RAW, ip="192.0.2.1", helo=helo, mail_from="", resolver=ZoneResolver(ZONE))
    assert outcome.spf is not None
    assert (outcome.spf.status, outcome.spf.reason) == (SpfStatus.NONE, SpfReason.NO_DOMAIN)


def _parts(hint: Any) -> list[Any]:
    return [hint, *(part for inner in get_args(hint) for part in _parts(inner))]


def test_what_a_public_function_wants_is_public() -> None:
    """Beside the functions: the fields of Question and Answer, which whoever writes a Resolver reads and makes."""
    public = {name: getattr(mailguard, name) for name in mailguard.__all__}
    asked = [one for one in public.values() if inspect.isfunction(one)] + [mailguard.Question, mailguard.Answer]
    wanted = {
        part
        for one in asked
        for name, hint in get_type_hints(one).items()
        if name != "return"
        for part in _parts(hint)
        if isinstance(part, type) and (issubclass(part, Enum) or part.__module__.startswith("mailguard."))
    }
    assert {mailguard.Resolver, mailguard.Status} <= wanted
    assert [part.__name__ for part in wanted if part not in public.values()] == []


def test_every_public_name_has_annotations_that_can_be_read() -> None:
    """As frameworks read them: dataclass converters, dependency injection, generators of documents."""
    for name in mailguard.__all__:
        one = getattr(mailguard, name)
        if inspect.isfunction(one) or inspect.isclass(one):
            get_type_hints(one)
