"""Finding: what an SPF evaluation comes to, before the identity is added that makes it an SpfResult. Pure; frozen."""

from __future__ import annotations

from typing import NamedTuple, Self

from mailguard.spf.record import Term
from mailguard.spf.result import SpfReason, SpfStatus

__all__ = ["NO_MATCH", "NO_RECORD", "Finding"]

_SENTENCES = {
    SpfStatus.PASS: "the domain permits the client",
    SpfStatus.FAIL: "the domain does not permit the client",
    SpfStatus.SOFTFAIL: "the domain says that it probably does not permit the client",
    SpfStatus.NEUTRAL: "the domain says nothing about the client",
}


class Finding(NamedTuple):
    """Status and reason, and what they come from."""

    status: SpfStatus
    reason: SpfReason
    detail: str
    matched: Term | None = None
    """The term that decided; that of the target, after a redirect."""
    is_permissive: bool = False
    """Whether the last term that passed, however deep, covers half of all addresses."""
    explanation: str | None = None

    @classmethod
    def of_match(cls, term: Term, status: SpfStatus, *, is_permissive: bool, explanation: str | None = None) -> Self:
        """`term` matched, and so the result is `status`."""
        return cls(status, SpfReason.MATCH, _SENTENCES[status], term, is_permissive, explanation)


NO_RECORD = Finding(SpfStatus.NONE, SpfReason.NO_RECORD, "the domain has no SPF record")
# RFC 7208 §4.7: as if "?all" were the last directive.
NO_MATCH = Finding(SpfStatus.NEUTRAL, SpfReason.NO_MATCH, "no term of the record matches")
