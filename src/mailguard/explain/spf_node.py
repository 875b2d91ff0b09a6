"""How SPF came out for one identity, with the records that were used (RFC 7208). Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from ipaddress import IPv4Address, IPv6Address

from mailguard.dns.question import Answer, Question, RecordType
from mailguard.envelope import Envelope
from mailguard.explain.advice import Names
from mailguard.explain.answer_text import answer_text
from mailguard.explain.check_advice import SPF, SPF_PERMISSIVE
from mailguard.explain.explanation import Explanation, octets_text
from mailguard.spf.limits import MAX_TERMS, MAX_VOIDS
from mailguard.spf.record import Published
from mailguard.spf.result import SpfIdentity, SpfResult, SpfStatus

__all__ = ["client_names", "spf_node"]

# A record may name thousands of others; no more than ten look-ups are made, and the rest is in the record's text.
MAX_SHOWN_TARGETS = 20

_TARGET = re.compile(r"[+?~-]?(include:|redirect=)([^ %]+)", re.IGNORECASE)

Known = Mapping[Question, Answer]


def client_names(client: IPv4Address | IPv6Address | None, **names: str | None) -> Names:
    """`Names` with the client's address, and those of `names` that are known."""
    known = {name: str(value) for name, value in names.items() if value}
    if client is None:
        return Names(**known)
    return Names(client=str(client), term=f"ip{client.version}:{client}", **known)


def spf_node(result: SpfResult, envelope: Envelope, answers: Known) -> Explanation:
    """The result, what was checked, and the records; `answers` are those that the evaluation read."""
    names = client_names(envelope.client_ip, domain=result.domain)
    passes = result.status is SpfStatus.PASS
    advice = (SPF_PERMISSIVE if result.is_permissive else None) if passes else SPF[result.reason]
    return Explanation(
        title="HELO" if result.identity is SpfIdentity.HELO else "SPF",
        status=result.status.value,
        reason=result.reason.value,
        detail=result.detail,
        advice=advice.text(names) if advice is not None else "",
        facts=tuple(_facts(result, envelope)),
        children=tuple(_included(result.record, answers, shown={str(result.domain)})),
    )


def _facts(result: SpfResult, envelope: Envelope) -> Iterator[tuple[str, str]]:
    yield "identity", result.identity.value
    if result.identity is SpfIdentity.MAIL_FROM:
        shown = f"<{octets_text(envelope.mail_from)}>"
        yield (
            "reverse path",
            f"{shown}, for which postmaster at the HELO name stands" if result.is_null_sender else shown,
        )
    if result.identity is SpfIdentity.HELO or result.is_null_sender:
        yield "HELO name", octets_text(envelope.helo) or "none"
    if result.domain is not None:
        yield "domain", result.domain
    yield "client", str(envelope.client_ip) if envelope.client_ip is not None else "unknown"
    if result.record is not None:
        yield "record", result.record
    if result.mechanism is not None:
        yield "term that matched", result.mechanism
    if result.is_permissive:
        yield "permissive", "the term covers half of all addresses or more"
    yield "look-ups", f"{result.lookups} of {MAX_TERMS}"
    yield "voids", f"{result.voids} of {MAX_VOIDS}"
    if result.explanation is not None:
        yield "explanation, in the domain's own words", result.explanation


def _included(record: str | None, answers: Known, *, shown: set[str]) -> Iterator[Explanation]:
    """What a record includes and redirects to, as far as it names that without macros, and its records in turn.

    Each name is shown once (`shown`): records that include each other would make a tree of all their permutations.
    """
    if record is None or not answers:
        return
    targets = [match for match in map(_TARGET.fullmatch, record.split(" ")) if match is not None]
    for match in targets[:MAX_SHOWN_TARGETS]:
        yield _target(match[1] + match[2], match[2].lower().removesuffix("."), answers, shown=shown)
    if len(targets) > MAX_SHOWN_TARGETS:
        yield Explanation(title=f"{len(targets) - MAX_SHOWN_TARGETS} more")


def _target(term: str, name: str, answers: Known, *, shown: set[str]) -> Explanation:
    answer = answers.get(Question(name, RecordType.TXT))
    if name in shown:
        return Explanation(title=term, status="shown above")
    if answer is None:
        return Explanation(title=term, status="not asked", detail="the result did not depend on it")
    shown.add(name)
    records = [octets_text(text) for text in Published.of(answer).texts]
    if len(records) != 1:
        status = "several records" if records else "no record"
        return Explanation(title=term, status=status, detail=f"{name}: {answer_text(answer)}")
    children = tuple(_included(records[0], answers, shown=shown))
    return Explanation(title=term, status="record", facts=(("record", records[0]),), children=children)
