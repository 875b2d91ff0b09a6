"""What RFC 9989 and RFC 7489 make of one author domain, side by side: for people who move from one to the other.

Pure: what it asks comes from `Answers`. Left out: alignment of identifiers, which follows from the Organizational
Domains. Values are frozen and safe to share between threads.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from mailguard.dmarc.discover import Discovery, discover, policy_questions
from mailguard.dmarc.record import DmarcPolicy, DmarcRecord
from mailguard.dmarc.suffixes import PublicSuffixes
from mailguard.dns.answers import Answers
from mailguard.domain import Domain

__all__ = ["Comparison", "Reading", "compare_7489"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What one of the two finds. Tags are read as RFC 9989 defines them in both."""

    is_known: bool
    """False: the DNS did not answer something on which record or policy hang."""
    organizational_domain: Domain | None
    record_domain: Domain | None
    record: DmarcRecord | None
    policy: DmarcPolicy | None
    """In effect; None where DMARC is not applied or it is not known."""
    policy_tag: str | None
    """None also where the record counts as p=none for a fault of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Both readings, and what differs, each in one sentence of printable ASCII."""

    tree_walk: Reading
    public_suffixes: Reading
    differences: tuple[str, ...]


def compare_7489(domain: Domain, answers: Answers, suffixes: PublicSuffixes) -> Comparison:
    """Compare for mail from `domain`. Raises Unanswered while an answer is missing."""
    new, old = discover(domain, answers), discover(domain, answers, suffixes)
    answers.need((*policy_questions(new), *policy_questions(old)))
    readings = _reading(new, answers), _reading(old, answers)
    return Comparison(
        tree_walk=readings[0],
        public_suffixes=readings[1],
        differences=tuple(_differences(*readings)),
    )


def _reading(discovery: Discovery, answers: Answers) -> Reading:
    requested, is_known = discovery.requested(answers)
    return Reading(
        is_known=is_known,
        organizational_domain=discovery.organizational_domain,
        record_domain=discovery.record_domain,
        record=discovery.record,
        policy=requested.policy if requested else None,
        policy_tag=requested.tag if requested else None,
    )


def _differences(new: Reading, old: Reading) -> Iterator[str]:
    if not new.is_known or not old.is_known or new.organizational_domain is None:
        yield "The DNS did not answer everything, so that there may be more differences."
    if new.organizational_domain not in (None, old.organizational_domain):
        yield (
            f"The Organizational Domain is {new.organizational_domain} by tree walk (RFC 9989) and "
            f"{old.organizational_domain} by the list of public suffixes (RFC 7489)."
        )
    if new.is_known and old.is_known:
        if new.record_domain != old.record_domain:
            yield f"RFC 9989 finds {_where(new)}, RFC 7489 finds {_where(old)}."
        if new.policy is not old.policy:
            yield f"The policy is {_policy(new)} by RFC 9989 and {_policy(old)} by RFC 7489."
    if new.record is not None:
        yield from _tags(new.record)


def _tags(record: DmarcRecord) -> Iterator[str]:
    if record.is_testing:
        yield "RFC 9989 takes the policy one step weaker for t=y; RFC 7489 does not know t."
    if record.np is not None:
        yield "RFC 9989 has np= for domains that do not exist; RFC 7489 takes sp= or p= for these too."
    if "pct" in record.obsolete:
        yield "RFC 7489 applies the policy to the part of the mail that pct= says; RFC 9989 ignores pct."


def _where(reading: Reading) -> str:
    return f"the record at {reading.record_domain}" if reading.record_domain is not None else "no record"


def _policy(reading: Reading) -> str:
    if reading.policy is None:
        return "not applied"
    fault = reading.record.policy_fault if reading.record is not None else ""
    return f"{reading.policy.value} ({fault or f'{reading.policy_tag}='})"
