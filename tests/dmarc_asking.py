"""What the tests of DMARC judge with: results of SPF and DKIM made up, zones in memory, questions recorded."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from mailguard.dkim.result import DkimReason, DkimResult, DkimStatus
from mailguard.dmarc.evaluate import judge
from mailguard.dmarc.result import DmarcReason, DmarcStatus, DmarcVerdict
from mailguard.dmarc.suffixes import PublicSuffixes
from mailguard.dns.answers import Answers, evaluate
from mailguard.dns.question import Status
from mailguard.dns.zone import ZoneResolver
from mailguard.domain import Domain
from mailguard.spf.result import SpfIdentity, SpfReason, SpfResult, SpfStatus

Records = Mapping[str, Mapping[str, Sequence[object]]]
SERVFAIL = Status.TEMPFAIL


def spf(
    domain: str, status: str = "pass", *, identity: SpfIdentity = SpfIdentity.MAIL_FROM, is_null_sender: bool = False
) -> SpfResult:
    return SpfResult(
        status=SpfStatus(status),
        reason=SpfReason.MATCH,
        detail="made up",
        identity=identity,
        domain=Domain.parse(domain),
        is_null_sender=is_null_sender,
    )


def dkim(domain: str, status: str = "pass", *, testing: bool = False) -> DkimResult:
    return DkimResult(
        status=DkimStatus(status),
        reason=DkimReason.VERIFIED,
        detail="made up",
        domain=Domain.parse(domain),
        selector="s1",
        testing=testing,
    )


def records(zone: Mapping[str, object]) -> dict[str, dict[str, list[object]]]:
    """A zone from a text, or a list of them, for each name."""
    return {name: {"TXT": list(texts) if isinstance(texts, list) else [texts]} for name, texts in zone.items()}


def resolver_of(zone: Records, failing: Sequence[str] = (), status: Status = SERVFAIL) -> ZoneResolver:
    """`failing` names have this status in place of an answer."""
    return ZoneResolver(zone, status={(name, "*"): status for name in failing})


def asked_and_judged(
    author: str,
    resolver: ZoneResolver,
    *,
    spf: SpfResult | None = None,
    dkim: Sequence[DkimResult] = (),
    suffixes: PublicSuffixes | None = None,
) -> tuple[DmarcVerdict, tuple[str, ...]]:
    """The verdict, and the questions that it consumed, in order."""
    consumed: tuple[str, ...] = ()

    def evaluation(answers: Answers) -> DmarcVerdict:
        nonlocal consumed
        verdict = judge(Domain.parse(author), spf=spf, dkim=dkim, answers=answers, suffixes=suffixes)
        consumed = tuple(str(answer.question) for answer in answers.consumed)
        return verdict

    verdict = evaluate(evaluation, resolver, deadline=time.monotonic() + 60)
    return verdict, consumed


def judged(
    author: str,
    resolver: ZoneResolver,
    *,
    spf: SpfResult | None = None,
    dkim: Sequence[DkimResult] = (),
    suffixes: PublicSuffixes | None = None,
) -> DmarcVerdict:
    return asked_and_judged(author, resolver, spf=spf, dkim=dkim, suffixes=suffixes)[0]


def outcome(verdict: DmarcVerdict) -> tuple[DmarcStatus, DmarcReason]:
    assert verdict.detail.isascii()
    assert verdict.detail.isprintable()
    return verdict.status, verdict.reason


def zone_of(**texts: object) -> ZoneResolver:
    """Names written with "__" for a dot and "D__" for "_dmarc."."""
    names = {name.replace("D__", "_dmarc.").replace("__", "."): text for name, text in texts.items()}
    return resolver_of(records(names))


def bank(**more: object) -> ZoneResolver:
    """`zone_of` with p=reject at bank.test."""
    return zone_of(**{"D__bank__test": "v=DMARC1; p=reject", **more})
