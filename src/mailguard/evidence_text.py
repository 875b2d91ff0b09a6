"""What SPF and DKIM came to, in one line for replies, logs and explanations.

Nothing but statuses, validated names and sentences of ours: safe wherever printable ASCII is. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping

from mailguard.dmarc.result import Aligned, DmarcVerdict
from mailguard.domain import Domain
from mailguard.evidence import Evidence

__all__ = ["identifiers_text"]

# A reply has room for so many names; the log has the rest.
MAX_NAMED_SIGNATURES = 2
_ALIGNED = {Aligned.YES: "aligned", Aligned.NO: "not aligned", Aligned.UNKNOWN: "alignment unknown"}


def identifiers_text(evidence: Evidence, verdict: DmarcVerdict) -> str:
    """Such as "SPF pass for evil.test (not aligned), DKIM none"."""
    said = {(each.method, each.domain): _ALIGNED[each.aligned] for each in verdict.alignments}
    parts = []
    if evidence.spf is not None:
        name = f" for {evidence.spf.domain}" if evidence.spf.domain is not None else ""
        parts.append(f"SPF {evidence.spf.status.value}{name}{_note(said, 'spf', evidence.spf.domain)}")
    for result in evidence.dkim[:MAX_NAMED_SIGNATURES]:
        name = f" for {result.domain}" if result.domain is not None else ""
        parts.append(f"DKIM {result.status.value}{name}{_note(said, 'dkim', result.domain)}")
    more = len(evidence.dkim) - MAX_NAMED_SIGNATURES
    if not evidence.dkim:
        parts.append("DKIM none")
    elif more > 0:
        parts.append(f"{more} more signature{'s' if more > 1 else ''}")
    return ", ".join(parts)


def _note(said: Mapping[tuple[str, Domain], str], method: str, domain: Domain | None) -> str:
    note = said.get((method, domain)) if domain is not None else None
    return f" ({note})" if note else ""
