"""The record that says which policy a domain has now: StsRecord, discover (RFC 8461 §3.1).

Pure: the answer of the DNS comes from `Answers`. Left out: the policy itself (policy.py), and what the lack of a
record means for a policy that is known already (cache.py). Values are frozen and safe to share between threads.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from typing import NoReturn, Self

from mailguard.dns.answers import Answers
from mailguard.dns.question import Question, RecordType
from mailguard.domain import MAX_DOMAIN_CHARS, Domain
from mailguard.mtasts.malformed import Malformed, shown

__all__ = ["Discovery", "DiscoveryStatus", "StsRecord", "discover", "record_question"]

# A record has some 40 octets; a TXT record could have 65,535.
MAX_RECORD_BYTES = 4_096

_WHITE_SPACE = b" \t"
_FIELD = re.compile(rb"([A-Za-z0-9][A-Za-z0-9_.-]{0,31})=([!-:<>-~]+)")
_ID = re.compile(rb"[A-Za-z0-9]{1,32}")


@dataclass(frozen=True, slots=True)
class StsRecord:
    """A record in force: `id` changes whenever the policy does."""

    id: str
    extensions: tuple[tuple[str, str], ...] = ()
    """Fields that RFC 8461 does not know, each name once."""

    @classmethod
    def parse(cls, text: bytes) -> Self | Malformed | None:
        """Read one TXT record, its strings joined; None for one that is not of this version, or of anything else."""
        if not _is_of_this_version(text):
            return None
        if len(text) > MAX_RECORD_BYTES:
            return Malformed(f"it has more than {MAX_RECORD_BYTES} octets")
        fields: dict[bytes, bytes] = {}
        # RFC 8461 §3.1, sts-field-delim: white space may stand on either side of a semicolon, and nowhere else.
        *inner, last = text.split(b";")[1:]
        parts = [*(part.strip(_WHITE_SPACE) for part in inner), last.lstrip(_WHITE_SPACE)]
        if parts[-1] == b"":
            # RFC 8461 §3.1, sts-text-record: one more delimiter may end it.
            parts.pop()
        for part in parts:
            field = _field(part)
            if isinstance(field, Malformed):
                return field
            # RFC 8461 §3.2: of a name that occurs again, the first counts.
            fields.setdefault(*field)
        identifier = fields.pop(b"id", None)
        if identifier is None:
            return Malformed("it has no id")
        if _ID.fullmatch(identifier) is None:
            return Malformed(f"its id is not 1 to 32 letters and digits: {shown(identifier)}")
        extensions = tuple((name.decode("ascii"), value.decode("ascii")) for name, value in fields.items())
        return cls(identifier.decode("ascii"), extensions)


def _is_of_this_version(text: bytes) -> bool:
    version, semicolon, _ = text.partition(b";")
    return bool(semicolon) and version.rstrip(_WHITE_SPACE) == b"v=STSv1"


def _field(part: bytes) -> tuple[bytes, bytes] | Malformed:
    found = _FIELD.fullmatch(part)
    # "=" stands between the name and the value, and in neither.
    if found is None or b"=" in found[2]:
        return Malformed(f"{shown(part)} is not name=value" if part else "a field is empty")
    return found[1], found[2]


class DiscoveryStatus(Enum):
    """What the DNS said about a domain's record. Only FOUND leads to a fetch by itself."""

    FOUND = "found"
    ABSENT = "absent"
    SEVERAL = "several"
    """More than one: RFC 8461 §3.1 counts them as none."""
    MALFORMED = "malformed"
    UNAVAILABLE = "unavailable"
    """The DNS did not answer, or its answer is bogus."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Discovery:
    """`record` is there exactly where `status` is FOUND."""

    status: DiscoveryStatus
    record: StsRecord | None = None
    ttl_s: int = 0
    """How long the DNS vouches for it; 0 where it did not answer."""
    detail: str = ""
    """For people; printable ASCII."""

    def __bool__(self) -> NoReturn:
        raise TypeError("a Discovery is not true or false: read its status")


def record_question(domain: Domain) -> Question | None:
    """What to ask the DNS; None where the name would be longer than the DNS allows."""
    name = f"_mta-sts.{domain}"
    return Question(name, RecordType.TXT) if len(name) <= MAX_DOMAIN_CHARS else None


def discover(domain: Domain, answers: Answers) -> Discovery:
    """The record of exactly `domain` (RFC 8461 §3.4: never of a parent). Raises Unanswered while it is not known."""
    question = record_question(domain)
    if question is None:
        return Discovery(status=DiscoveryStatus.ABSENT, detail="the name of the record would be too long")
    answer = answers.get(question)
    if answer.has_failed:
        return Discovery(status=DiscoveryStatus.UNAVAILABLE, detail=f"{question}: {answer.status.value}")
    # RFC 8461 §3.1: records that do not begin with the version are discarded, before they are counted.
    texts = [text for text in answer.texts() if _is_of_this_version(text)]
    if len(texts) > 1:
        # None of them is read: an answer may have thousands.
        detail = f"{question}: {len(texts)} records, which count as none"
        return Discovery(status=DiscoveryStatus.SEVERAL, ttl_s=answer.ttl_s, detail=detail)
    record = StsRecord.parse(texts[0]) if texts else None
    if record is None:
        return Discovery(status=DiscoveryStatus.ABSENT, ttl_s=answer.ttl_s, detail=f"{question}: no record")
    if isinstance(record, Malformed):
        detail = f"{question}: {record.detail}"
        return Discovery(status=DiscoveryStatus.MALFORMED, ttl_s=answer.ttl_s, detail=detail)
    return Discovery(status=DiscoveryStatus.FOUND, record=record, ttl_s=answer.ttl_s)
