"""AnswerCache: what the DNS said, kept for as long as it may be, in a bounded space.

RFC 2181 §8 (TTLs), RFC 2308 §5 and §7 (denials and failures). Two LRU segments: a new answer stands on
probation and is protected once it was asked for again, so a million names that are asked for once push each
other out and leave the hot ones alone. Those on probation have all the room that the protected ones leave: names
that come again late are kept until then if there is any. A protected answer is read without the lock and without a
turn in the segment for a while. Left out: stale answers, and any sharing between processes. Thread-safe; the lock is
held for a few dictionary operations and never while a query is under way.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock
from typing import Final

import cachetools

from mailguard.dns.question import MX, TLSA, Answer, Question, RecordType, Status

__all__ = ["DEFAULT_CACHE_BYTES", "DEFAULT_CACHE_ENTRIES", "AnswerCache"]

DEFAULT_CACHE_ENTRIES: Final = 100_000
DEFAULT_CACHE_BYTES: Final = 64 * 1024 * 1024

# Records change within a day (keys are revoked); RFC 2181 §8 lets a resolver keep less than the TTL.
MAX_TTL_S = 86_400
# RFC 2308 §5 allows one to three hours. A record that somebody just published must be seen sooner.
MAX_NEGATIVE_TTL_S = 900
# RFC 2308 §7.1 allows five minutes. A failure must not outlive its cause by more than a retry takes.
FAILURE_TTL_S = 5
# How long a protected answer that is asked for keeps its place. Against LRU's order that is an error of half a
# minute; what falls out for it has another turn on probation.
REORDER_INTERVAL_S = 30

# A fifth is never for protected answers: enough for a new name to be asked for again before it is pushed out.
_PROBATION_SHARE = 0.2
# What CPython takes for one entry beside its text and records: the question, the answer, the entry and its
# places in the dictionaries of a segment. Measured with tracemalloc, rounded up; the test holds it to that.
_ENTRY_BYTES = 900
_OBJECT_BYTES = 64
# A record of tags is a key or a policy, and is kept as what was read from it too: an RSA key takes 1.1 kB in OpenSSL.
_READ_BYTES = 2_048
# A term of an SPF record with all that it may have: a name, macros, prefixes, and the results of those whom it
# decides about. Measured with tracemalloc, rounded up.
_TERM_BYTES = 1_280
# What was found out about an author domain, with or without a DMARC record; what was judged by a record.
_DISCOVERY_BYTES, _VERDICTS_BYTES = 1_024, 2_048
# An address for reports in a DMARC record.
_URI_BYTES = 384
_MAX_URIS = 20
# What was found out about a name as SPF's: that it has no record, as a rule, by what it came as.
_SENDER_BYTES, _SENDER_NAMES = 900, 2


@dataclass(slots=True)
class _Entry:
    answer: Answer
    expires: float
    weight: int
    at_once_until: float = 0.0
    """Until when it is read without the lock; only while it is protected."""


class _Probation(cachetools.LRUCache[Question, _Entry]):
    """Answers that were not asked for again yet."""


class _Protected(cachetools.LRUCache[Question, _Entry]):
    """Answers that were asked for again; what falls out gets another turn on probation."""

    def __init__(self, maxsize: int, probation: _Probation, at_once: dict[Question, _Entry]) -> None:
        super().__init__(maxsize, getsizeof=_weight)
        self._probation = probation
        self._at_once = at_once

    def __delitem__(self, question: Question) -> None:
        # All that leaves the segment, for whatever reason, leaves it through here.
        self._at_once.pop(question, None)
        super().__delitem__(question)

    def popitem(self) -> tuple[Question, _Entry]:
        question, entry = super().popitem()
        self._probation[question] = entry
        return question, entry


def _weight(entry: _Entry) -> int:
    return entry.weight


class AnswerCache:
    """Answers by question. Nothing in it is ever served beyond its time."""

    def __init__(
        self,
        *,
        clock: Callable[[], float],
        max_entries: int = DEFAULT_CACHE_ENTRIES,
        max_bytes: int = DEFAULT_CACHE_BYTES,
    ) -> None:
        """`clock` gives seconds, never goes back, and goes on while the host is suspended.

        `max_bytes` is of memory, estimated.
        """
        if max_entries < 1 or max_bytes < 1:
            raise ValueError("a cache needs room for one entry")
        self._clock = clock
        # An entry weighs its bytes, and at least its share of them: so one limit bounds bytes and entries.
        self._least_weight = -(-max_bytes // max_entries)
        self._max_bytes = max_bytes
        self._lock = Lock()
        self._reserved = max(int(max_bytes * _PROBATION_SHARE), min(max_bytes, self._least_weight))
        self._probation = _Probation(max_bytes, getsizeof=_weight)
        # Protected entries by question. Written under the lock and read without it: a dictionary is never seen half
        # changed, and an entry that was just replaced was right when it was found.
        self._at_once: dict[Question, _Entry] = {}
        self._protected = _Protected(max_bytes - self._reserved, self._probation, self._at_once)

    def get(self, question: Question) -> Answer | None:
        """The answer, as it was put, or None if there is none whose time is not over."""
        entry = self._at_once.get(question)
        if entry is not None and entry.at_once_until > self._clock():
            return entry.answer
        return self._get_in_turn(question)

    def reader(self) -> Callable[[Question], Answer | None]:
        """`get` for one evaluation, which begins now and takes milliseconds: the clock is read once."""
        find, now, get = self._at_once.get, self._clock(), self._get_in_turn

        def read(question: Question) -> Answer | None:
            entry = find(question)
            return entry.answer if entry is not None and entry.at_once_until > now else get(question)

        return read

    def _get_in_turn(self, question: Question) -> Answer | None:
        """`get`, and the answer is the last in its segment that would fall out."""
        now = self._clock()
        with self._lock:
            segment = self._protected if question in self._protected else self._probation
            entry = segment.get(question)
            if entry is None:
                return None
            if entry.expires <= now:
                # Not through popitem: an expired entry gets no turn on probation.
                del segment[question]
                return None
            if segment is self._probation and entry.weight <= self._protected.maxsize:
                del self._probation[question]
                self._protected[question] = entry
            if question in self._protected:
                entry.at_once_until = min(entry.expires, now + REORDER_INTERVAL_S)
                self._at_once[question] = entry
            return entry.answer

    def put(self, answer: Answer) -> None:
        """Keep `answer` for its TTL within the limits above; not at all if that is 0 (RFC 1035 §3.2.1).

        A failure never takes the place of an answer whose time is not over.
        """
        lifetime_s = _lifetime_s(answer)
        if lifetime_s <= 0:
            return
        question = answer.question
        now = self._clock()
        entry = _Entry(answer, now + lifetime_s, max(_estimated_bytes(answer), self._least_weight))
        with self._lock:
            old = self._protected.get(question) or self._probation.get(question)
            if old is not None and old.expires > now and answer.has_failed and not old.answer.has_failed:
                return
            segment = self._protected if question in self._protected else self._probation
            if old is not None:
                del segment[question]
            if entry.weight <= self._reserved:
                segment[question] = entry
                while self._protected.currsize + self._probation.currsize > self._max_bytes:
                    self._probation.popitem()

    def __len__(self) -> int:
        with self._lock:
            return len(self._protected) + len(self._probation)

    @property
    def estimated_bytes(self) -> int:
        """What the entries weigh; never more than `max_bytes`."""
        with self._lock:
            return int(self._protected.currsize + self._probation.currsize)


def _lifetime_s(answer: Answer) -> int:
    match answer.status:
        case Status.NOERROR:
            return min(answer.ttl_s, MAX_TTL_S)
        case Status.NXDOMAIN | Status.NODATA:
            return min(answer.ttl_s, MAX_NEGATIVE_TTL_S)
        case Status.TEMPFAIL | Status.BOGUS:
            return FAILURE_TTL_S


def _estimated_bytes(answer: Answer) -> int:
    total = _ENTRY_BYTES + len(answer.question.name) + len(answer.detail)
    name, rdtype = answer.question
    if name.startswith("_dmarc."):
        total += _DISCOVERY_BYTES
    elif rdtype is RecordType.TXT and "_" not in name:
        total += _SENDER_BYTES + _SENDER_NAMES * len(name)
    if answer.canonical_name:
        total += _OBJECT_BYTES + len(answer.canonical_name)
    for record in answer.records:
        if isinstance(record, MX):
            total += 3 * _OBJECT_BYTES + len(record.exchange)
        elif isinstance(record, TLSA):
            total += 3 * _OBJECT_BYTES + len(record.data)
        else:
            total += _OBJECT_BYTES + len(record)
        if isinstance(record, bytes):
            if record[:6].lower() == b"v=spf1":
                # The text is kept to be shown, and each term keeps its own, and what follows its name.
                total += 3 * len(record) + _TERM_BYTES * record.count(b" ")
            elif b"=" in record:
                total += _READ_BYTES
            # However the tag before it is written.
            if b"DMARC1" in record:
                total += _VERDICTS_BYTES + _URI_BYTES * min(record.count(b",") + 2, _MAX_URIS)
    return total
