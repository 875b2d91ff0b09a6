"""Question and Answer: what evaluation code asks of the DNS, and what it may get back.

Pure values, without I/O; frozen and safe to share between threads. NXDOMAIN, NODATA, TEMPFAIL and BOGUS
stay four things: each leads to another verdict.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from enum import Enum
from types import NoneType
from typing import Any, NamedTuple, TypeVar

from mailguard.argument import check_type

__all__ = ["MX", "TLSA", "TXT", "Answer", "Dnssec", "Question", "RecordType", "Status"]


T = TypeVar("T")


class RecordType(Enum):
    """The record types that mailguard asks for."""

    A = "A"
    AAAA = "AAAA"
    CNAME = "CNAME"
    MX = "MX"
    PTR = "PTR"
    TLSA = "TLSA"
    TXT = "TXT"
    SENDER = "sender"
    """Not of the DNS: whether a login may use an address (senders/question.py)."""

    # Enum hashes by the name, in Python, at each look-up of a Question; a member is one object and equal to no other.
    __hash__ = object.__hash__


TXT = RecordType.TXT
"""For the questions of every message: Enum finds a member by a function in Python (3.11)."""


class Status(Enum):
    """How a look-up ended."""

    NOERROR = "noerror"
    """There are records of the type (after aliases were followed)."""
    NODATA = "nodata"
    """The name exists, without records of the type."""
    NXDOMAIN = "nxdomain"
    """The name does not exist, and nothing below it does (RFC 8020)."""
    TEMPFAIL = "tempfail"
    """No usable answer: a timeout, SERVFAIL, REFUSED, a malformed reply, or the deadline passed."""
    BOGUS = "bogus"
    """The resolver says that DNSSEC validation failed (RFC 8914, extended errors 6 to 12)."""


_NOERROR = Status.NOERROR
_FAILED = (Status.TEMPFAIL, Status.BOGUS)


class Dnssec(Enum):
    """What a trusted validating resolver says of an answer (RFC 4033 §5)."""

    SECURE = "secure"
    INSECURE = "insecure"
    BOGUS = "bogus"
    INDETERMINATE = "indeterminate"


class MX(NamedTuple):
    """RFC 1035 §3.3.9; `exchange` is lower case without trailing dot, "" for the null MX (RFC 7505)."""

    preference: int
    exchange: str


class TLSA(NamedTuple):
    """RFC 6698 §2.1, as published: dane/record.py says what it is good for."""

    usage: int
    selector: int
    matching_type: int
    data: bytes

    def __str__(self) -> str:
        return f"{self.usage} {self.selector} {self.matching_type} {self.data.hex()}"


class Question(NamedTuple):
    """A look-up. `name` is absolute and has no trailing dot; it is lower-case ASCII. No search list applies."""

    name: str
    rdtype: RecordType

    def __str__(self) -> str:
        return f"{self.name} {self.rdtype.value}"


_RECORD_KINDS: dict[RecordType, type] = {
    RecordType.A: str,
    RecordType.AAAA: str,
    RecordType.CNAME: str,
    RecordType.MX: MX,
    RecordType.PTR: str,
    RecordType.TLSA: TLSA,
    RecordType.TXT: bytes,
}


@dataclass(frozen=True, slots=True, weakref_slot=True)
class Answer:
    """What the DNS said to one question.

    `records` by type: TXT bytes, the character-strings of one record joined with nothing between;
    A, AAAA str; CNAME, PTR str, lower case without trailing dot, bytes outside LDH and "_" escaped as \\DDD;
    MX `MX`, TLSA `TLSA`. In the order of the reply. Empty unless `status` is NOERROR.
    Raises TypeError for a record, a status or a word of DNSSEC of another type, and ValueError for records that there
    cannot be.
    """

    question: Question
    status: Status
    records: tuple[bytes | str | MX | TLSA, ...] = ()
    ttl_s: int = 0
    dnssec: Dnssec = Dnssec.INDETERMINATE
    detail: str = ""
    """For people: which server said what, or why there is no answer."""
    canonical_name: str = ""
    """Where aliases led from the name of the question, written like the records of a CNAME; "" without an alias."""
    _read: dict[Hashable, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # A word in place of a member is equal to none: NXDOMAIN to one, no failure to another, never secure.
        if self.status.__class__ is not Status or self.dnssec.__class__ is not Dnssec:
            check_type("status", self.status, Status)
            check_type("dnssec", self.dnssec, Dnssec)
        if self.records and self.status is not _NOERROR:
            raise ValueError(f"{self.question}: there are no records where the status is {self.status.value}")
        for record in self.records:
            # Whoever reads the answer would pass over it, and find that there is no SPF record, no DMARC policy.
            kind = _RECORD_KINDS.get(self.question.rdtype, NoneType)
            if not isinstance(record, kind):
                raise TypeError(f"{self.question}: a record is {kind.__name__}, not {type(record).__name__}")

    def __reduce__(self) -> tuple[type[Answer], tuple[object, ...]]:
        """For pickle and copy. What was made of this answer is not copied: it is made anew where it is asked for."""
        values = (self.question, self.status, self.records, self.ttl_s, self.dnssec, self.detail, self.canonical_name)
        return Answer, values

    @property
    def has_failed(self) -> bool:
        """Whether the DNS did not tell: what there is, is not known."""
        return self.status in _FAILED

    def read(self, key: Hashable, reader: Callable[[Answer], T]) -> T:
        """What `reader` makes of this answer: made once, kept as long as the answer is, and the same for equal ones.

        `key` stands for the reader and its arguments. Called by several threads, `reader` may run more than once.
        """
        found = self._read.get(key)
        if found is None:
            found = self._read[key] = reader(self)
        value: T = found
        return value

    def texts(self) -> tuple[bytes, ...]:
        """The TXT records, each joined (RFC 6376 §3.6.2.2, RFC 7208 §3.3)."""
        return tuple(record for record in self.records if isinstance(record, bytes))

    def names(self) -> tuple[str, ...]:
        """The A, AAAA, CNAME or PTR records."""
        return tuple(record for record in self.records if isinstance(record, str))

    def exchanges(self) -> tuple[MX, ...]:
        """The MX records."""
        return tuple(record for record in self.records if isinstance(record, MX))

    def associations(self) -> tuple[TLSA, ...]:
        """The TLSA records."""
        return tuple(record for record in self.records if isinstance(record, TLSA))
