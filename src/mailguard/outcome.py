"""Outcome: a judged message, with everything that led to the verdict.

Frozen; safe to share between threads. Left out: judging (inbound.py) and deciding (policy.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NoReturn

from mailguard import authresults
from mailguard.dkim.result import DkimResult
from mailguard.dmarc.result import DmarcVerdict
from mailguard.dns.question import Answer
from mailguard.evidence import Evidence
from mailguard.explain import Explanation, explain
from mailguard.inbound import Judged
from mailguard.message import HeaderField, Message
from mailguard.policy import Decision
from mailguard.spf.result import SpfResult

__all__ = ["Outcome"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of a message."""

    message: Message
    judged: Judged
    decision: Decision
    now: float
    """The time as at which it was judged, in POSIX seconds."""
    answers: tuple[Answer, ...] = ()
    """The DNS answers that the verdict rests on, in the order in which they were read."""

    @property
    def evidence(self) -> Evidence:
        """All results together."""
        return self.judged.evidence

    @property
    def spf(self) -> SpfResult | None:
        """For the reverse path (RFC 7208); None for a client of our own."""
        return self.judged.evidence.spf

    @property
    def helo_spf(self) -> SpfResult | None:
        """For the HELO name; None where it was not checked."""
        return self.judged.evidence.helo_spf

    @property
    def dkim(self) -> tuple[DkimResult, ...]:
        """A result for each signature, from the top of the header (RFC 6376)."""
        return self.judged.evidence.dkim

    @property
    def dmarc(self) -> DmarcVerdict | None:
        """RFC 9989; None for a client of our own."""
        return self.judged.verdict

    def header(self, authserv_id: str, *, shows_login: bool = False) -> HeaderField:
        """The Authentication-Results field for this message (RFC 8601), to be put on top of the header.

        Fields in it that claim `authserv_id` already are a stranger's, and are to be removed: `OwnIds` finds them.
        `shows_login` tells the world the client's login, where there is one. Raises ValueError if `authserv_id` is
        not a token.
        """
        override = self.decision.override
        said = f"policy overridden: {override.kind.value} {override.identity}" if override else ""
        evidence, verdict = self.judged.evidence, self.judged.verdict
        return authresults.build(authserv_id, evidence, verdict, override=said, shows_login=shows_login)

    def explain(self) -> Explanation:
        """Why, as a tree."""
        return explain(self.message, self.judged, self.decision, answers=self.answers)

    def to_json(self) -> dict[str, object]:
        """The explanation as a value for `json.dumps`."""
        return self.explain().to_json()

    def __bool__(self) -> NoReturn:
        raise TypeError("an Outcome is not true or false: look at its decision")
