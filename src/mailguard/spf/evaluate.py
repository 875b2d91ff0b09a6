"""check_host() (RFC 7208 §4) for one sender and client: read by ourselves as far as nothing is looked up.

Most records end at an "ip4", "ip6" or "all" (RFC 7208 §5.6, RFC 7208 §5.1), and many names have none. What looks
something up is evaluated by pyspf (engine.py). Pure; nothing here is shared.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

from mailguard.dns.answers import Answers, Unanswered
from mailguard.spf.engine import Query
from mailguard.spf.finding import NO_MATCH, NO_RECORD, Finding
from mailguard.spf.identity import Sender
from mailguard.spf.lookups import LookUpFailed, Lookups, Refused
from mailguard.spf.record import Record
from mailguard.spf.result import SpfReason, SpfResult, SpfStatus

__all__ = ["evaluate"]

# What is kept of the term that matched; a reply and a log line have room for no more.
MAX_MECHANISM_CHARS = 200


def evaluate(
    sender: Sender,
    *,
    client: IPv4Address | IPv6Address,
    helo: str,
    answers: Answers,
    now: float,
    receiver: str,
) -> SpfResult:
    """The result for `sender`. Raises Unanswered while an answer is missing, and nothing else.

    `helo` is what %{h} stands for, and may be any text; `now` is in POSIX seconds.
    """
    lookups = Lookups(client, answers)
    try:
        record = lookups.record_of(sender.domain)
        found = NO_RECORD if record is None else _without_look_ups(record, client)
        if found is None:
            found = Query(sender, client, helo, lookups, now, receiver).evaluated(record)
    except Unanswered:
        raise
    except Refused as error:
        found = Finding(SpfStatus.PERMERROR, error.reason, error.detail)
    except LookUpFailed as error:
        found = Finding(SpfStatus.TEMPERROR, SpfReason.DNS, str(error))
    except Exception as error:  # noqa: BLE001  # the edge: what pyspf trips over is a fault of the record
        detail = f"the record cannot be evaluated: {type(error).__name__}"
        found = Finding(SpfStatus.PERMERROR, SpfReason.RECORD_SYNTAX, detail)
    return SpfResult(
        status=found.status,
        reason=found.reason,
        detail=found.detail,
        identity=sender.identity,
        domain=sender.domain,
        is_null_sender=sender.is_null,
        mechanism=found.matched.text[:MAX_MECHANISM_CHARS] if found.matched is not None else None,
        record=lookups.first_record,
        lookups=lookups.terms,
        voids=lookups.voids,
        explanation=found.explanation,
        is_uncertain=bool(lookups.failed_reverse) and found.status not in (SpfStatus.PASS, SpfStatus.TEMPERROR),
        is_permissive=found.status is SpfStatus.PASS and found.is_permissive,
    )


def _without_look_ups(record: Record, client: IPv4Address | IPv6Address) -> Finding | None:
    """What `record` comes to where nothing has to be looked up; None where something has to be."""
    term = next(record.reachable(client), None)
    if term is None:
        return NO_MATCH if record.redirect is None else None
    if term.looks_up or (term.status is SpfStatus.FAIL and record.explanation is not None):
        return None
    return Finding.of_match(term, term.status, is_permissive=term.is_wide(client.version))
