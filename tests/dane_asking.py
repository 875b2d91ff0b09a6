"""What the tests of DANE ask with: zones in memory, secure or not, and the questions that were asked."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from mailguard.dane.destination import Destination
from mailguard.dane.discover import InsecureMx, discover
from mailguard.dane.result import DanePolicy, HostPolicy
from mailguard.dns.answers import Answers, evaluate
from mailguard.dns.question import Dnssec, Question, Status
from mailguard.dns.zone import ZoneResolver

Records = Mapping[str, Mapping[str, Sequence[object]]]

EE = (3, 1, 1, "ab" * 32)
TA = (2, 0, 1, "cd" * 32)
ZONE: Records = {
    "example.com": {"MX": [(10, "mx.example.com")]},
    "mx.example.com": {"A": ["192.0.2.1"], "AAAA": ["2001:db8::1"]},
    "_25._tcp.mx.example.com": {"TLSA": [EE]},
}
"""A domain with one host, and that with TLSA records."""


def zone(
    records: Records = ZONE,
    *,
    unsigned: Sequence[str] = (),
    status: Mapping[tuple[str, str], Status] | None = None,
    dnssec: Mapping[tuple[str, str], Dnssec] | None = None,
) -> ZoneResolver:
    """Every name in `records` is secure, and so is what is denied below them, but what is at or below `unsigned`."""
    denied = [f"_25._tcp.{name}" for name in records]
    said: dict[tuple[str, str], Dnssec] = {
        (name, "*"): Dnssec.SECURE
        for name in (*records, *denied)
        if not any(name == above or name.endswith(f".{above}") for above in unsigned)
    }
    return ZoneResolver(records, status=status or {}, dnssec={**said, **(dnssec or {})})


def found(
    text: str, resolver: ZoneResolver, *, insecure_mx: InsecureMx = InsecureMx.MAY
) -> tuple[DanePolicy, list[Question]]:
    """The policy, and what was asked for, in this order."""
    destination = Destination.parse(text)

    def evaluation(answers: Answers) -> tuple[DanePolicy, list[Question]]:
        policy = discover(destination, answers, insecure_mx=insecure_mx)
        return policy, [answer.question for answer in answers.consumed]

    return evaluate(evaluation, resolver, deadline=time.monotonic() + 5)


def only_host(text: str, resolver: ZoneResolver, *, insecure_mx: InsecureMx = InsecureMx.MAY) -> HostPolicy:
    """The policy of the one host of the destination."""
    policy, _ = found(text, resolver, insecure_mx=insecure_mx)
    (host,) = policy.hosts
    return host
