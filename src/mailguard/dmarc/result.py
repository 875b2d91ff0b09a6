"""DmarcVerdict: what DMARC says of one author domain (RFC 9989), and why.

Frozen; safe to share between threads.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import NoReturn

from mailguard.dmarc.record import AlignmentMode, DmarcPolicy, DmarcRecord
from mailguard.domain import Domain

__all__ = ["Aligned", "Alignment", "DiscoveryMethod", "DmarcReason", "DmarcStatus", "DmarcVerdict"]


class DmarcStatus(Enum):
    """The results of RFC 9989 §9.1 in Authentication-Results."""

    NONE = "none"
    PASS = "pass"
    FAIL = "fail"
    TEMPERROR = "temperror"
    PERMERROR = "permerror"


class DmarcReason(Enum):
    """Why, in one word for programs."""

    ALIGNED = "aligned"
    """An authenticated identifier belongs to the author domain."""
    NOT_ALIGNED = "not-aligned"
    """Something passed, but for another domain."""
    NOTHING_PASSED = "nothing-passed"
    """Neither SPF nor DKIM passed for any domain."""
    NO_RECORD = "no-record"
    RECORD_UNUSABLE = "record-unusable"
    """A record was found whose policy cannot be read and which has no rua: no processing (RFC 9989 §4.7)."""
    POLICY_UNAVAILABLE = "policy-unavailable"
    """The DNS did not say which policy holds."""
    AUTHENTICATION_UNAVAILABLE = "authentication-unavailable"
    """What the DNS did not answer might have made it pass."""
    SEVERAL_DOMAINS = "several-domains"
    """From names several domains: never a pass, whatever each of them says."""
    MALFORMED = "malformed"
    """There is no author domain that could be judged."""


class DiscoveryMethod(Enum):
    """How Organizational Domains were found; the words of RFC 9990."""

    TREE_WALK = "treewalk"
    PUBLIC_SUFFIX_LIST = "psl"


class Aligned(Enum):
    """Whether an identifier belongs to the author domain."""

    YES = "yes"
    NO = "no"
    UNKNOWN = "unknown"
    """The DNS did not answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Alignment:
    """One authenticated identifier, compared with the author domain (RFC 9989 §4.4)."""

    method: str
    """"spf" or "dkim"."""
    domain: Domain
    """The identifier: SPF's domain or d=."""
    result: str
    """The word of the method's status, such as "pass"."""
    selector: str | None = None
    """s=, for DKIM."""
    mode: AlignmentMode
    aligned: Aligned
    organizational_domain: Domain | None = None
    """Of the identifier; None where it was not needed or is not known."""
    counts: bool
    """The method passed, and nothing keeps the pass from counting (a key in testing, RFC 6376 §3.6.1)."""
    may_count: bool = False
    """Whether it passed could not be found out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DmarcVerdict:
    """The verdict for one author domain."""

    status: DmarcStatus
    reason: DmarcReason
    detail: str
    """For people, one sentence of printable ASCII; it quotes nothing but validated names."""
    author_domain: Domain | None
    policy: DmarcPolicy | None = None
    """The policy in effect, after sp, np and t; None where there is no record or it is not known."""
    policy_tag: str | None = None
    """Which tag gave it: "p", "sp" or "np"; None also where the record counts as p=none for a fault of its own."""
    is_testing: bool = False
    """t=y made it one step weaker than published."""
    record: DmarcRecord | None = None
    record_domain: Domain | None = None
    """Where the record was found, without "_dmarc."."""
    organizational_domain: Domain | None = None
    """Of the author domain; None where it is not known."""
    alignments: tuple[Alignment, ...] = ()
    method: DiscoveryMethod = DiscoveryMethod.TREE_WALK
    walk: tuple[str, ...] = ()
    """The names asked for the author domain's policy, in order, each with what was there: "_dmarc.a.test: none"."""

    @property
    def has_aligned_pass(self) -> bool:
        """Whether an aligned identifier passed, also where the policy could not be found out."""
        return any(each.counts and each.aligned is Aligned.YES for each in self.alignments)

    def __bool__(self) -> NoReturn:
        raise TypeError("a DmarcVerdict is not true or false: compare its status")
