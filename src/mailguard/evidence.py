"""Evidence: all that was found out about a message from outside, before DMARC and local policy are applied.

Frozen; safe to share between threads.
"""

from __future__ import annotations

from dataclasses import dataclass

from mailguard.dkim.result import DkimResult, DkimStatus
from mailguard.domain import Domain
from mailguard.envelope import Envelope
from mailguard.iprev import IprevResult
from mailguard.message import MalformedReason
from mailguard.spf.result import SpfResult

__all__ = ["Evidence"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What SPF, DKIM and the header's structure say."""

    envelope: Envelope
    author_domains: tuple[Domain, ...] = ()
    """The distinct domains in From, in order; empty where it is malformed."""
    malformed: MalformedReason | None = None
    """Why there is no author domain that could be judged. Several domains that can be judged are no reason."""
    malformed_detail: str = ""
    spf: SpfResult | None = None
    """For the reverse path; None where it was not checked: the client is one of our own."""
    helo_spf: SpfResult | None = None
    """For the HELO name; None where it was not checked or `spf` is for that name already."""
    dkim: tuple[DkimResult, ...] = ()
    ignored_signatures: int = 0
    """DKIM-Signature fields beyond the number that is verified."""
    iprev: IprevResult | None = None
    """None where it was not asked for."""

    @property
    def passing_signatures(self) -> tuple[DkimResult, ...]:
        """The DKIM results that pass and count: a key in testing does not (RFC 6376 §3.6.1)."""
        return tuple(one for one in self.dkim if one.status is DkimStatus.PASS and not one.testing)
