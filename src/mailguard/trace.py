"""Trace: how a message was judged, kept so that the judgement can be repeated without the DNS.

A verdict depends on the header, the digests of the body, the envelope, the time and the answers of the DNS, and on
nothing else: `Trace` holds these, and not the body. `encode` makes octets of it, `decode` reads them back, `replay`
judges again. RFC 6376 §3.4 (what the digests are of). Pure; frozen values, safe to share between threads. Left out:
where traces are kept (trace_store.py).

The format: one octet with its version, then zlib (RFC 1950), inside JSON (RFC 8259) in ASCII. An octet of the message
is the character of the same number; base64 would hide from zlib what repeats, and take twice the room.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from ipaddress import ip_address
from typing import Any

from mailguard.dkim.canonical import BodyDigests, BodyRequest, Canonicalization
from mailguard.dns.answers import Answers
from mailguard.dns.question import MX, TLSA, Answer, Dnssec, Question, RecordType, Status
from mailguard.envelope import Envelope
from mailguard.errors import TraceError
from mailguard.inbound import InboundPlan, InboundRules, judge_inbound, plan_inbound
from mailguard.message import HeaderField, MalformedReason, Message
from mailguard.outcome import Outcome
from mailguard.policy import Policy, decide

__all__ = [
    "MAX_TRACE_BYTES",
    "Decided",
    "RecordedDigests",
    "Trace",
    "decode",
    "differences",
    "encode",
    "replay",
    "unrecorded",
]

FORMAT = 1
# One trace, encoded. A header of real mail takes 1 to 10 kB; and so much goes through a socket in one piece.
MAX_TRACE_BYTES = 128 * 1024
# Unpacked: the largest header that Message takes, at six characters for an octet that is not ASCII, and the answers.
MAX_PLAIN_BYTES = 4 * 1024 * 1024
# A level beyond this takes twice the time for a few per cent.
COMPRESSION_LEVEL = 3
# So many names fit into a sentence that is still read.
MAX_NAMED_QUESTIONS = 4
NOT_RECORDED = "not recorded: the configuration or mailguard asks more than when the message was judged"


@dataclass(frozen=True, slots=True, kw_only=True)
class Decided:
    """What was decided, in the words of the log; another version of mailguard may know others."""

    disposition: str
    would: str
    """What enforcing does."""
    rule: str
    domain: str
    """The author domains, separated by commas; empty where there is none."""
    reason: str

    @classmethod
    def of(cls, outcome: Outcome) -> Decided:
        """The words for `outcome`."""
        decision = outcome.decision
        return cls(
            disposition=decision.disposition.value,
            would=decision.would.value,
            rule=decision.rule.value,
            domain=",".join(outcome.evidence.author_domains),
            reason=decision.reason,
        )


class RecordedDigests(BodyDigests):
    """The digests of a body that is gone, in the place of those that were computed from it."""

    def __init__(self, digests: Mapping[BodyRequest, bytes | None], totals: Mapping[Canonicalization, int]) -> None:
        super().__init__(())
        self.finish()
        self._recorded = dict(digests)
        self._totals = dict(totals)

    def total(self, canonicalization: Canonicalization) -> int:
        """The length of the canonical body in octets. Raises TraceError if it was not recorded."""
        if canonicalization not in self._totals:
            raise TraceError(_NO_DIGEST)
        return self._totals[canonicalization]

    def digest(self, request: BodyRequest) -> bytes | None:
        """The digest; None where l= is more than the body had. Raises TraceError if it was not recorded."""
        if request not in self._recorded:
            raise TraceError(_NO_DIGEST)
        return self._recorded[request]


_NO_DIGEST = (
    "the trace cannot be replayed: a hash of the body is wanted that was not recorded; replay it with the version of"
    " mailguard that recorded it"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """Everything that a verdict rests on, and what was decided."""

    queue_id: str = ""
    """Postfix's name for the message; empty where it gave none. Short ones are used again for later messages."""
    message: Message
    """The header; without a body."""
    envelope: Envelope
    now: float
    """The time as at which it was judged, in POSIX seconds."""
    signatures: int
    """How many signatures were chosen for verification."""
    digests: tuple[tuple[BodyRequest, bytes | None], ...]
    totals: tuple[tuple[Canonicalization, int], ...]
    """The length of each canonical form of the body, in octets."""
    answers: tuple[Answer, ...]
    """The DNS answers that were read, in that order."""
    decided: Decided
    version: str
    """Of mailguard."""

    @classmethod
    def of(
        cls, outcome: Outcome, *, plan: InboundPlan, digests: BodyDigests, version: str, queue_id: str = ""
    ) -> Trace:
        """The trace of a message that was judged. `plan` and `digests` are those that led to `outcome`.

        It copies next to nothing: cheap enough for the path of the mail.
        """
        forms = dict.fromkeys(request.canonicalization for request in plan.body_requests)
        message = outcome.message
        return cls(
            queue_id=queue_id,
            message=message if message.body is None else replace(message, body=None),
            envelope=plan.envelope,
            now=outcome.now,
            signatures=len(plan.signatures.chosen),
            digests=tuple((request, digests.digest(request)) for request in plan.body_requests),
            totals=tuple((form, digests.total(form)) for form in forms),
            answers=outcome.answers,
            decided=Decided.of(outcome),
            version=version,
        )

    @property
    def octets(self) -> int:
        """The size of the header and of the DNS answers, most of what a trace takes in memory."""
        header = sum(len(field.name) + len(field.value) for field in self.message.fields)
        texts = sum(len(record) for answer in self.answers for record in answer.records)
        return header + texts


# Judging again


def replay(trace: Trace, *, rules: InboundRules | None = None, policy: Policy | None = None) -> Outcome:
    """Judge the message again, as at the time when it came: with the rules and the policy of then, as it was then.

    With others, what the record lacks is answered TEMPFAIL; `unrecorded` names it. Raises TraceError for a trace that
    another version of mailguard has made from other hashes of the body.
    """
    plan = _plan(trace, rules or InboundRules())
    known = {answer.question: answer for answer in trace.answers}
    outcome = _judge(trace, plan, known, policy or Policy())
    lacking = unrecorded(trace, outcome)
    if lacking:
        # The same answers again, with the true reason why there is none.
        known |= {question: Answer(question, Status.TEMPFAIL, detail=NOT_RECORDED) for question in lacking}
        outcome = _judge(trace, plan, known, policy or Policy())
    return outcome


def unrecorded(trace: Trace, outcome: Outcome) -> tuple[Question, ...]:
    """What replaying asked and the record does not have: the configuration or mailguard has changed since."""
    recorded = {answer.question for answer in trace.answers}
    return tuple(answer.question for answer in outcome.answers if answer.question not in recorded)


def differences(trace: Trace, outcome: Outcome) -> tuple[str, ...]:
    """Where the replay differs from what was recorded, a sentence each for people; printable ASCII."""
    notes = []
    if lacking := unrecorded(trace, outcome):
        names = ", ".join(map(str, lacking[:MAX_NAMED_QUESTIONS]))
        more = len(lacking) - MAX_NAMED_QUESTIONS
        notes.append(f"not recorded, so taken as not answered: {names}{f' and {more} more' if more > 0 else ''}")
    then, today = trace.decided, Decided.of(outcome)
    if (then.disposition, then.would, then.rule) != (today.disposition, today.would, today.rule):
        notes.append(
            f"then it was {_words(then)}; with the configuration and the version of today it is {_words(today)}"
        )
    return tuple(notes)


def _words(decided: Decided) -> str:
    would = f", enforcing: {decided.would}" if decided.would != decided.disposition else ""
    text = f"{decided.disposition} ({decided.rule}{would})"
    return "".join(char if char.isascii() and char.isprintable() else "?" for char in text)


def _plan(trace: Trace, rules: InboundRules) -> InboundPlan:
    recorded = {request for request, _ in trace.digests}
    plan = plan_inbound(trace.message, trace.envelope, rules)
    if recorded.issuperset(plan.body_requests):
        return plan
    # More signatures are verified today, whose body hashes nobody has: verify those that were.
    verifying = replace(rules.verifying, max_signatures=trace.signatures)
    plan = plan_inbound(trace.message, trace.envelope, replace(rules, verifying=verifying))
    if recorded.issuperset(plan.body_requests):
        return plan
    raise TraceError(_NO_DIGEST)


def _judge(trace: Trace, plan: InboundPlan, known: Mapping[Question, Answer], policy: Policy) -> Outcome:
    answers = Answers(known, closed=True)
    digests = RecordedDigests(dict(trace.digests), dict(trace.totals))
    judged = judge_inbound(plan, digests, answers, now=trace.now)
    decision = decide(judged, policy=policy)
    return Outcome(message=plan.message, judged=judged, decision=decision, now=trace.now, answers=answers.consumed)


# The format


def encode(trace: Trace) -> bytes:
    """`trace` as octets, at most MAX_TRACE_BYTES. Raises TraceError if it is larger."""
    plain = json.dumps(_to_json(trace), separators=(",", ":")).encode("ascii")
    packed = bytes([FORMAT]) + zlib.compress(plain, COMPRESSION_LEVEL)
    if len(plain) > MAX_PLAIN_BYTES or len(packed) > MAX_TRACE_BYTES:
        raise TraceError(f"the trace is too large: {len(packed)} octets of {MAX_TRACE_BYTES}; it is not kept")
    return packed


def decode(octets: bytes) -> Trace:
    """The trace that `encode` made `octets` of. Raises TraceError for anything else, whatever it is."""
    if octets[:1] != bytes([FORMAT]):
        written = f"format {octets[0]}" if octets else "nothing"
        raise TraceError(
            f"the trace is of another version of mailguard ({written}; this one knows format {FORMAT}); read it with"
            " the one that wrote it"
        )
    if len(octets) > MAX_TRACE_BYTES:
        raise TraceError(f"the trace is too large to be one: {len(octets)} octets of {MAX_TRACE_BYTES}")
    try:
        return _from_json(json.loads(_unpacked(octets[1:])))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError, zlib.error) as error:
        raise TraceError(
            f"the trace is damaged ({type(error).__name__}); if there are many of them, move the database away and"
            " restart the daemon, which then makes a new one"
        ) from None


def _unpacked(packed: bytes) -> bytes:
    stream = zlib.decompressobj()
    plain = stream.decompress(packed, MAX_PLAIN_BYTES + 1)
    if len(plain) > MAX_PLAIN_BYTES:
        raise ValueError("too large")
    if not stream.eof or stream.unused_data:
        raise ValueError("cut, or with something behind it")
    return plain


def _to_json(trace: Trace) -> dict[str, object]:
    message, envelope, decided = trace.message, trace.envelope, trace.decided
    return {
        "queue_id": trace.queue_id,
        "version": trace.version,
        "now": trace.now,
        "header": [
            [_text(field.name), _text(field.value), *([_text(field.gap)] if field.gap else [])]
            for field in message.fields
        ],
        "defect": [message.header_defect.value, message.header_detail] if message.header_defect else None,
        "envelope": {
            "client": str(envelope.client_ip) if envelope.client_ip is not None else None,
            "helo": _text(envelope.helo),
            "mail_from": _text(envelope.mail_from),
            "rcpt_to": [_text(path) for path in envelope.rcpt_to],
            "as_read": _text(envelope.mail_from_as_read) if envelope.mail_from_as_read is not None else None,
            "login": _text(envelope.login) if envelope.login is not None else None,
        },
        "signatures": trace.signatures,
        "digests": [
            [request.canonicalization.value, request.length, digest.hex() if digest is not None else None]
            for request, digest in trace.digests
        ],
        "totals": [[form.value, total] for form, total in trace.totals],
        "answers": [
            [
                answer.question.name,
                answer.question.rdtype.value,
                answer.status.value,
                answer.dnssec.value,
                answer.ttl_s,
                answer.detail,
                [_record_to_json(record) for record in answer.records],
                *([answer.canonical_name] if answer.canonical_name else []),
            ]
            for answer in trace.answers
        ],
        "decided": [decided.disposition, decided.would, decided.rule, decided.domain, decided.reason],
    }


def _from_json(content: Any) -> Trace:
    """Every value is checked: what has the wrong type raises one of the errors that `decode` expects."""
    sent = content["envelope"]
    disposition, would, rule, domain, reason = map(_str, content["decided"])
    return Trace(
        queue_id=_str(content["queue_id"]),
        version=_str(content["version"]),
        now=_seconds(content["now"]),
        message=_message(content),
        envelope=Envelope(
            client_ip=ip_address(_str(sent["client"])) if sent["client"] is not None else None,
            helo=_octets(sent["helo"]),
            mail_from=_octets(sent["mail_from"]),
            rcpt_to=tuple(map(_octets, sent["rcpt_to"])),
            mail_from_as_read=_octets(sent["as_read"]) if sent["as_read"] is not None else None,
            login=_octets(sent["login"]) if sent["login"] is not None else None,
        ),
        signatures=_int(content["signatures"]),
        digests=tuple(
            (
                BodyRequest(Canonicalization(form), None if length is None else _int(length)),
                None if digest is None else bytes.fromhex(digest),
            )
            for form, length, digest in content["digests"]
        ),
        totals=tuple((Canonicalization(form), _int(total)) for form, total in content["totals"]),
        answers=tuple(
            Answer(
                Question(_str(name), RecordType(rdtype)),
                Status(status),
                tuple(_record_from_json(record, RecordType(rdtype)) for record in records),
                ttl_s=_int(ttl_s),
                dnssec=Dnssec(dnssec),
                detail=_str(detail),
                canonical_name=_str(*canonical_name) if canonical_name else "",
            )
            for name, rdtype, status, dnssec, ttl_s, detail, records, *canonical_name in content["answers"]
        ),
        decided=Decided(disposition=disposition, would=would, rule=rule, domain=domain, reason=reason),
    )


def _message(content: Any) -> Message:
    fields = tuple(HeaderField(*map(_octets, field)) for field in content["header"])
    if content["defect"] is None:
        return Message(fields)
    reason, detail = content["defect"]
    return Message(fields, header_defect=MalformedReason(reason), header_detail=_str(detail))


def _record_to_json(record: bytes | str | MX | TLSA) -> object:
    if isinstance(record, bytes):
        return _text(record)
    if isinstance(record, TLSA):
        return [record.usage, record.selector, record.matching_type, _text(record.data)]
    return [record.preference, record.exchange] if isinstance(record, MX) else record


def _record_from_json(record: Any, rdtype: RecordType) -> bytes | str | MX | TLSA:
    """The type of a record is that of the question (see `Answer`)."""
    if rdtype is RecordType.MX:
        preference, exchange = record
        return MX(_int(preference), _str(exchange))
    if rdtype is RecordType.TLSA:
        usage, selector, matching_type, data = record
        return TLSA(_int(usage), _int(selector), _int(matching_type), _octets(data))
    return _octets(record) if rdtype is RecordType.TXT else _str(record)


def _text(octets: bytes) -> str:
    return octets.decode("latin-1")


def _octets(text: object) -> bytes:
    return _str(text).encode("latin-1")


def _str(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("not text")
    return value


def _seconds(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise TypeError("not a time")
    return float(value)


def _int(value: object) -> int:
    if type(value) is not int:
        raise TypeError("not a whole number")
    return value
