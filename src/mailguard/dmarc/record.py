"""DmarcRecord: a DMARC policy record (RFC 9989 §4.7, RFC 9989 §4.8).

What is wrong after the version never makes a record none: an error there is put aside in favour of the default
(RFC 9989 §4.8). Left out: where records are found (discover.py). Values are frozen and safe to share between
threads.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from typing import Self, TypeVar

from mailguard.dmarc.report_uri import ReportUri

__all__ = [
    "POLICY_TAGS",
    "AlignmentMode",
    "AuthorStanding",
    "DmarcPolicy",
    "DmarcRecord",
    "FailureOption",
    "PublicSuffixFlag",
    "RequestedPolicy",
]

# A record with ten report addresses has some 500 octets; a TXT record could have 65,535.
MAX_RECORD_BYTES = 4_096
# How much of a record is kept to be shown: the records that are read are shown whole, what is escaped in it is not.
MAX_TEXT_CHARS = MAX_RECORD_BYTES

_WSP = b" \t"
# RFC 9989 §4.8, dmarc-version: "v" in either case (RFC 5234 §2.3), the value in this one only; nothing before it.
_VERSION = re.compile(rb"[vV][ \t]*=[ \t]*DMARC1[ \t]*(?:;|\Z)")
POLICY_TAGS = ("p", "sp", "np")
_OBSOLETE = ("pct", "rf", "ri")  # RFC 9989 Appendix C.5.2
_KNOWN = frozenset({*POLICY_TAGS, "psd", "t", "adkim", "aspf", "rua", "ruf", "fo", *_OBSOLETE})

Word = TypeVar("Word")


class DmarcPolicy(Enum):
    """What the domain owner asks to be done with mail that fails, weakest first."""

    NONE = "none"
    QUARANTINE = "quarantine"
    REJECT = "reject"

    @property
    def weaker(self) -> DmarcPolicy:
        """One step below: what t=y asks for (RFC 9989 §4.7)."""
        return DmarcPolicy.QUARANTINE if self is DmarcPolicy.REJECT else DmarcPolicy.NONE


class AlignmentMode(Enum):
    """RFC 9989 §3.2.10; the values are the words of adkim= and aspf= spelled out."""

    RELAXED = "relaxed"
    STRICT = "strict"


class PublicSuffixFlag(Enum):
    """psd= (RFC 9989 §4.7)."""

    YES = "y"
    NO = "n"
    UNKNOWN = "u"


class FailureOption(Enum):
    """fo= (RFC 9989 §4.7): when a failure report is asked for."""

    ALL = "0"
    ANY = "1"
    DKIM = "d"
    SPF = "s"


class AuthorStanding(Enum):
    """Where the author domain stands to the name that has the record (RFC 9989 §4.10.1)."""

    ITSELF = "itself"
    SUBDOMAIN = "subdomain"
    NONEXISTENT_SUBDOMAIN = "nonexistent-subdomain"


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestedPolicy:
    """What a record asks for, for one author domain."""

    policy: DmarcPolicy
    """After t=."""
    tag: str | None
    """Where it stands: "p", "sp" or "np"; None where the record counts as p=none for a fault of its own."""
    is_testing: bool
    """t=y made it one step weaker than published."""


_ALIGNMENT = {b"r": AlignmentMode.RELAXED, b"s": AlignmentMode.STRICT}
_POLICY = {policy.value.encode("ascii"): policy for policy in DmarcPolicy}
_PSD = {flag.value.encode("ascii"): flag for flag in PublicSuffixFlag}
_TESTING = {b"y": True, b"n": False}
_FAILURE = {option.value.encode("ascii"): option for option in FailureOption}


@dataclass(frozen=True, slots=True, kw_only=True)
class DmarcRecord:
    """A record as it counts: what is missing or wrong in an optional tag has its default."""

    text: str
    """The record as published: printable ASCII, other octets as \\xNN, at most `MAX_TEXT_CHARS` characters."""
    p: DmarcPolicy | None = None
    sp: DmarcPolicy | None = None
    np: DmarcPolicy | None = None
    psd: PublicSuffixFlag = PublicSuffixFlag.UNKNOWN
    is_testing: bool = False
    """t=y."""
    adkim: AlignmentMode = AlignmentMode.RELAXED
    aspf: AlignmentMode = AlignmentMode.RELAXED
    rua: tuple[ReportUri, ...] = ()
    ruf: tuple[ReportUri, ...] = ()
    failure_options: tuple[FailureOption, ...] = (FailureOption.ALL,)
    """fo=; without a ruf it means nothing (RFC 9989 §4.7)."""
    invalid: tuple[str, ...] = ()
    """The known tags whose value is not valid, or which occur more than once: they count as if they were absent."""
    obsolete: tuple[str, ...] = ()
    """Tags that RFC 7489 had and RFC 9989 has not: read by nothing."""

    @staticmethod
    def is_one(text: bytes) -> bool:
        """Whether `parse` takes `text` for a record: it begins with v=DMARC1 and is not over-long (RFC 9989 §4.7)."""
        return len(text) <= MAX_RECORD_BYTES and _VERSION.match(text) is not None

    @classmethod
    def parse(cls, text: bytes) -> Self | None:
        """Read a TXT record, its character-strings joined with nothing between (RFC 9989 §4.5).

        None for what is not a DMARC record.
        """
        version = _VERSION.match(text) if len(text) <= MAX_RECORD_BYTES else None
        if version is None:
            return None
        tags, repeated = _tags(text[version.end() :])
        reader = _Reader(tags, repeated)
        return cls(
            text=_shown(text),
            p=reader.word("p", _POLICY),
            sp=reader.word("sp", _POLICY),
            np=reader.word("np", _POLICY),
            psd=reader.word("psd", _PSD) or PublicSuffixFlag.UNKNOWN,
            is_testing=reader.word("t", _TESTING) or False,
            adkim=reader.word("adkim", _ALIGNMENT) or AlignmentMode.RELAXED,
            aspf=reader.word("aspf", _ALIGNMENT) or AlignmentMode.RELAXED,
            rua=reader.uris("rua"),
            ruf=reader.uris("ruf"),
            failure_options=reader.failure_options(),
            invalid=tuple(reader.invalid),
            obsolete=tuple(name for name in _OBSOLETE if name in tags or name in repeated),
        )

    @property
    def policy_fault(self) -> str:
        """Why no policy of the record counts (RFC 9989 §4.10.1), in our words; empty where they count."""
        missing = ["p= is missing"] if self.p is None and "p" not in self.invalid else []
        broken = [f"{tag}= cannot be read or stands there twice" for tag in POLICY_TAGS if tag in self.invalid]
        return ", ".join(missing + broken)

    def requested(self, standing: AuthorStanding) -> RequestedPolicy | None:
        """The policy for an author domain of this standing; None where DMARC is not to be applied at all.

        RFC 9989 §4.10.1: a record without a valid p, or with an sp or np that is not valid, counts as p=none if it
        asks for reports, and for nothing if it does not.
        """
        if self.p is None or self.policy_fault:
            # RFC 9989 §4.7 says the same of a record without p, rua or not; RFC 9989 §4.10.1 is the more exact.
            return RequestedPolicy(policy=DmarcPolicy.NONE, tag=None, is_testing=False) if self.rua else None
        published, tag = self.p, "p"
        if standing is AuthorStanding.NONEXISTENT_SUBDOMAIN and self.np is not None:
            published, tag = self.np, "np"
        elif standing is not AuthorStanding.ITSELF and self.sp is not None:
            published, tag = self.sp, "sp"
        policy = published.weaker if self.is_testing else published
        return RequestedPolicy(policy=policy, tag=tag, is_testing=policy is not published)


def _tags(remainder: bytes) -> tuple[dict[str, bytes], frozenset[str]]:
    """The tags that RFC 9989 defines or RFC 7489 defined, by name, and the names that occur more than once.

    RFC 6376 §3.2 calls a list with a repeated tag invalid as a whole, RFC 9989 §4.8 wants errors after the version
    put aside one by one. So the record stands, and of a repeated tag no value counts: which of them would be a guess.
    """
    values: dict[str, bytes] = {}
    repeated: set[str] = set()
    for specification in remainder.split(b";"):
        name, equals, value = specification.partition(b"=")
        # RFC 6376 §3.2: names are case-sensitive. What has no "=" is a syntax error, or the end.
        word = name.strip(_WSP).decode("latin-1")
        if not equals or word not in _KNOWN:
            continue
        if word in values:
            repeated.add(word)
        values[word] = value.strip(_WSP)
    return {name: value for name, value in values.items() if name not in repeated}, frozenset(repeated)


class _Reader:
    """Reads values and notes which are not valid."""

    def __init__(self, tags: dict[str, bytes], repeated: frozenset[str]) -> None:
        self._tags = tags
        self.invalid = sorted(repeated.difference(_OBSOLETE))

    def word(self, name: str, words: dict[bytes, Word]) -> Word | None:
        """RFC 9989 §4.8: the words of the grammar stand in either case (RFC 5234 §2.3)."""
        value = self._tags.get(name)
        found = None if value is None else words.get(value.lower())
        if value is not None and found is None:
            self.invalid.append(name)
        return found

    def uris(self, name: str) -> tuple[ReportUri, ...]:
        value = self._tags.get(name)
        found = ReportUri.parse_list(value) if value is not None else ()
        if value is not None and not found:
            self.invalid.append(name)
        return found

    def failure_options(self) -> tuple[FailureOption, ...]:
        value = self._tags.get("fo")
        if value is None:
            return (FailureOption.ALL,)
        options = tuple(_FAILURE.get(word) for word in value.lower().split(b":"))
        known = tuple(option for option in options if option is not None)
        # RFC 9989 §4.8, dmarc-fo: each at most once, and "0" and "1" exclude each other.
        if len(set(known)) < len(options) or {FailureOption.ALL, FailureOption.ANY} <= set(known):
            self.invalid.append("fo")
            return (FailureOption.ALL,)
        return known


def _shown(octets: bytes) -> str:
    text = "".join(chr(octet) if 0x20 <= octet <= 0x7E else f"\\x{octet:02x}" for octet in octets)
    return text if len(text) <= MAX_TEXT_CHARS else text[: MAX_TEXT_CHARS - 3] + "..."
