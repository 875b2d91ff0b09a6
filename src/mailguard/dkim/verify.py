"""Verifying DKIM signatures (RFC 6376 §6).

Two steps, so that a milter can hash the body while it arrives: `plan_verification` reads the header and says
which body digests and which keys will be asked for; `verify` takes the digests and the answers. Both are
pure; a plan is not changed by use and may be shared between threads.
"""

from __future__ import annotations

import hmac
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import NamedTuple, TypeVar

from mailguard.argument import check_type
from mailguard.dkim.canonical import BodyDigests, BodyRequest, canonical_fields
from mailguard.dkim.key import KeyRecord, KeyRecordError
from mailguard.dkim.result import DkimReason, DkimResult, DkimStatus
from mailguard.dkim.signature import ALGORITHMS, FIELD_KEY, Known, Signature, SignatureError, claimed_domain
from mailguard.dns.answers import Answers
from mailguard.dns.question import Answer, Question, Status
from mailguard.domain import Domain
from mailguard.message import HeaderField, MalformedReason, Message

__all__ = ["BodyLengthRule", "VerificationPlan", "VerifyRules", "plan_verification", "verify"]

_Error = TypeVar("_Error", bound=Exception)
_Candidate = tuple[int, HeaderField, Signature | SignatureError]

# At one selector there should be one key (RFC 6376 §3.6.2.2); each further one costs a signature check.
MAX_KEYS = 4
# How many signatures are read, for each that may be verified, in the search for readable ones.
READ_FACTOR = 10


class BodyLengthRule(Enum):
    """What a verifying signature with l= is worth: anybody can append what the reader then sees (RFC 6376 §8.2)."""

    POLICY = "policy"
    """Never a pass: the result is `policy`."""
    ACCEPT_WHOLE = "accept-whole"
    """A pass where l= covers the whole body and is not 0; otherwise `policy`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyRules:
    """Local choices that RFC 6376 leaves to the verifier. Raises TypeError for values of another type."""

    max_signatures: int = 10
    """How many signatures of one message are verified; further ones are ignored."""
    body_length: BodyLengthRule = BodyLengthRule.POLICY
    clock_skew_s: int = 300
    """By how much t= and x= may miss `now`."""

    def __post_init__(self) -> None:
        check_type("max_signatures", self.max_signatures, int)
        check_type("body_length", self.body_length, BodyLengthRule)
        check_type("clock_skew_s", self.clock_skew_s, int, float)


class VerificationPlan(NamedTuple):
    """The signatures chosen for verification, from the top of the header."""

    message: Message
    rules: VerifyRules
    chosen: tuple[tuple[HeaderField, Signature | SignatureError], ...]
    ignored: int
    """How many DKIM-Signature fields were beyond `rules.max_signatures`."""
    body_requests: tuple[BodyRequest, ...]
    """What BodyDigests must compute."""
    questions: tuple[Question, ...]
    """All keys that `verify` may ask for."""


def plan_verification(message: Message, rules: VerifyRules | None = None) -> VerificationPlan:
    """Choose the signatures to verify: those of the author's domains first, then from the top.

    RFC 6376 §6.1 leaves the order to the verifier; RFC 6376 §8.4 warns of messages with very many signatures.
    The bound applies before any look-up or hash. Of a message with an over-long header, none is chosen.
    """
    rules = rules or VerifyRules()
    fields = message.named(FIELD_KEY)
    if not fields or message.malformed is MalformedReason.HEADER_SIZE:
        return VerificationPlan(message, rules, (), len(fields), (), ())
    if len(fields) <= rules.max_signatures:
        chosen = [(field, _read(field)) for field in fields]
    else:
        chosen = _nearest(fields, message.author.domains, rules.max_signatures)
    signatures = [found for _, found in chosen if isinstance(found, Signature)]
    requests = tuple(dict.fromkeys([found.body for found in signatures]))
    questions = tuple(dict.fromkeys([found.key_question for found in signatures]))
    return VerificationPlan(message, rules, tuple(chosen), len(fields) - len(chosen), requests, questions)


def verify(plan: VerificationPlan, digests: BodyDigests, answers: Answers, *, now: float) -> tuple[DkimResult, ...]:
    """A result for each chosen signature. `digests` is finished; `now` is in POSIX seconds.

    Raises Unanswered while a key is unknown.
    """
    answers.need(plan.questions)
    return tuple(
        _verify_one(found, field, plan, digests, answers, now)
        if isinstance(found, Signature)
        else _result(DkimStatus.PERMERROR, found.reason, str(found), found.known)
        for field, found in plan.chosen
    )


def _read(field: HeaderField) -> Signature | SignatureError:
    try:
        return Signature.parse(field)
    except SignatureError as error:
        return _alone(error)


def _nearest(
    fields: Sequence[HeaderField], authors: Sequence[Domain], at_most: int
) -> list[tuple[HeaderField, Signature | SignatureError]]:
    """`at_most` of the fields, in their order: the readable ones that are nearest to an author domain."""
    # RFC 8616 §4: d= may have U-labels. To convert those of a thousand fields would take most of a second.
    names = dict.fromkeys(name for author in authors for name in (author, author.unicode))
    ranked = sorted(enumerate(fields), key=lambda entry: (_distance(entry[1], names), entry[0]))
    usable: list[_Candidate] = []
    unusable: list[_Candidate] = []
    for number, field in ranked[: at_most * READ_FACTOR]:
        found = _read(field)
        (usable if isinstance(found, Signature) else unusable).append((number, field, found))
        if len(usable) == at_most:
            break
    kept = sorted([*usable, *unusable][:at_most], key=lambda entry: entry[0])
    return [(field, found) for _, field, found in kept]


def _distance(field: HeaderField, authors: Collection[str]) -> int:
    """How near d= is to an author domain: 0 the same, 1 above or below it, 2 elsewhere, 3 unreadable."""
    domain = claimed_domain(field)
    if domain is None:
        return 3
    if domain in authors:
        return 0
    return 1 if any(domain.endswith("." + name) or name.endswith("." + domain) for name in authors) else 2


def _result(
    status: DkimStatus,
    reason: DkimReason,
    detail: str,
    known: Known,
    *,
    key_bits: int | None = None,
    testing: bool = False,
) -> DkimResult:
    return DkimResult(
        status=status,
        reason=reason,
        detail=detail,
        domain=known.domain,
        selector=known.selector,
        identity=known.identity,
        algorithm=known.algorithm,
        key_bits=key_bits,
        signature_prefix=known.signature_prefix,
        testing=testing,
    )


def _verify_one(
    signature: Signature,
    field: HeaderField,
    plan: VerificationPlan,
    digests: BodyDigests,
    answers: Answers,
    now: float,
) -> DkimResult:
    """RFC 6376 §6.1.2 and RFC 6376 §6.1.3, for a signature that could be read."""
    known = signature.known
    untimely = _untimely(signature, plan.rules, now)
    if untimely is not None:
        return _result(*untimely, known)
    wrong_body = _wrong_body(signature, digests)
    answer = answers.get(signature.key_question)
    if answer.has_failed and wrong_body is not None:
        return _result(*wrong_body, known)  # no later attempt mends it
    if answer.status is not Status.NOERROR:
        return _result(*_no_key(answer), known)  # RFC 6376 §6.1.2, step 3: before anything is said of the body
    keys, fault = _keys(answer, signature)
    if not keys:
        return _key_fault_result(fault, known)
    bits, testing = keys[0].bits, all(key.testing for key in keys)
    if wrong_body is not None:
        result = _result(*wrong_body, known, key_bits=bits)
        return _as_testing(result) if testing else result
    signed = _signed_octets(signature, field, plan.message.by_key)
    for key in keys:
        if key.verifies(signature.signature, signed):
            return _verified(signature, plan.rules, digests, key)
    detail = "a signed header field was changed, or another key made the signature"
    result = _result(DkimStatus.FAIL, DkimReason.SIGNATURE, detail, known, key_bits=bits)
    return _as_testing(result) if testing else result


def _untimely(signature: Signature, rules: VerifyRules, now: float) -> tuple[DkimStatus, DkimReason, str] | None:
    if signature.expires_at is not None and now > signature.expires_at + rules.clock_skew_s:
        return DkimStatus.FAIL, DkimReason.EXPIRED, "the signature has expired (x=)"
    if signature.signed_at is not None and signature.signed_at > now + rules.clock_skew_s:
        # RFC 6376 §3.5: signatures with a timestamp in the future may be ignored.
        return DkimStatus.POLICY, DkimReason.FUTURE, "the signature is from the future (t=)"
    return None


def _wrong_body(signature: Signature, digests: BodyDigests) -> tuple[DkimStatus, DkimReason, str] | None:
    computed = digests.digest(signature.body)
    if computed is None:
        # RFC 6376 §3.5: l= "MUST NOT be greater than the actual number of octets in the canonicalized message body".
        return DkimStatus.PERMERROR, DkimReason.BODY_TOO_SHORT, "l= is more than the body has"
    if not hmac.compare_digest(computed, signature.body_hash):
        return DkimStatus.FAIL, DkimReason.BODY_HASH, "the body was changed after it was signed"
    return None


def _no_key(answer: Answer) -> tuple[DkimStatus, DkimReason, str]:
    """RFC 6376 §6.1.2: no answer is temporary, no such name or record is permanent."""
    name = answer.question.name
    if answer.status in (Status.NXDOMAIN, Status.NODATA):
        return DkimStatus.PERMERROR, DkimReason.KEY_MISSING, f"there is no key at {name}"
    why = "DNSSEC validation failed" if answer.status is Status.BOGUS else "the DNS did not answer"
    return DkimStatus.TEMPERROR, DkimReason.KEY_UNAVAILABLE, f"the key at {name} could not be looked up: {why}"


def _keys(answer: Answer, signature: Signature) -> tuple[list[KeyRecord], KeyRecordError | None]:
    """The usable records of the answer, and the fault of the one of the others that came nearest to being a key.

    RFC 6376 §3.6.2.2 leaves several records undefined; each is tried, so that their order does not matter.
    """
    keys: list[KeyRecord] = []
    fault: KeyRecordError | None = None
    key_type = ALGORITHMS[signature.algorithm]
    for key in answer.read((KeyRecord, key_type), lambda found: _records(found, key_type)):
        if isinstance(key, KeyRecordError):
            if fault is None or fault.reason is DkimReason.KEY_SYNTAX:
                fault = key
        elif key.strict and signature.identity_domain != signature.domain:
            detail = "the key does not allow a subdomain in i= (t=s)"  # RFC 6376 §3.10
            fault = KeyRecordError(DkimReason.KEY_STRICT, detail, bits=key.bits, testing=key.testing)
        else:
            keys.append(key)
    return keys, fault


def _records(answer: Answer, key_type: str) -> tuple[KeyRecord | KeyRecordError, ...]:
    """The TXT records that are keys of this type, up to MAX_KEYS, behind what is wrong with the others, if anything.

    These live as long as the answer does: of a hundred faults one is kept, the one that `_keys` tells of.
    """
    keys: list[KeyRecord] = []
    fault: KeyRecordError | None = None
    for record in answer.texts():  # as many as fit into one DNS message
        if len(keys) == MAX_KEYS:
            break
        try:
            keys.append(KeyRecord.parse(record, key_type=key_type))
        except KeyRecordError as error:
            if fault is None or fault.reason is DkimReason.KEY_SYNTAX:
                fault = error
    return tuple(keys) if fault is None else (_alone(fault), *keys)


def _alone(error: _Error) -> _Error:
    """The error without what it came through and from, and what these hold ("from None" only hides it)."""
    error.__context__ = error.__cause__ = None
    return error.with_traceback(None)


def _key_fault_result(fault: KeyRecordError | None, known: Known) -> DkimResult:
    if fault is None:
        detail = "there is no key record among the TXT records"
        return _result(DkimStatus.PERMERROR, DkimReason.KEY_SYNTAX, detail, known)
    result = _result(DkimStatus.PERMERROR, fault.reason, str(fault), known, key_bits=fault.bits)
    return _as_testing(result) if fault.testing else result


def _as_testing(result: DkimResult) -> DkimResult:
    """RFC 6376 §3.6.1 (t=y): a failure is treated as if the message were unsigned."""
    detail = f"the domain is testing DKIM (t=y); otherwise: {result.detail}"
    return replace(result, status=DkimStatus.NEUTRAL, reason=DkimReason.TESTING, detail=detail, testing=True)


def _verified(signature: Signature, rules: VerifyRules, digests: BodyDigests, key: KeyRecord) -> DkimResult:
    length = signature.body.length
    status, reason, detail = DkimStatus.PASS, DkimReason.VERIFIED, "the signature verifies"
    if length is not None:
        total = digests.total(signature.body.canonicalization)
        whole = 0 < length == total
        if rules.body_length is BodyLengthRule.POLICY or not whole:
            status, reason = DkimStatus.POLICY, DkimReason.BODY_LENGTH
            detail = f"the signature verifies, but l= covers {length} of {total} octets and more could be appended"
    return _result(status, reason, detail, signature.known, key_bits=key.bits, testing=key.testing)


def _signed_octets(signature: Signature, own: HeaderField, fields: Mapping[bytes, list[HeaderField]]) -> bytes:
    """RFC 6376 §3.7: what is signed. `own` is the field of `signature` among `fields`."""
    left = dict(fields)
    # A signature does not sign itself, whatever its h= says (RFC 6376 §3.5).
    left[FIELD_KEY] = [field for field in fields[FIELD_KEY] if field is not own]
    signed: list[HeaderField] = []
    for name in signature.signed_names:
        # A name without a field left signs its absence: nothing is hashed, not even CRLF (RFC 6376 §5.4).
        if name in left:
            instances = left.pop(name)
            if len(instances) > 1:
                left[name] = instances = instances.copy() if instances is fields[name] else instances
                signed.append(instances.pop())  # RFC 6376 §5.4.2: the lowest instance not yet taken
            else:
                signed += instances
    return canonical_fields([*signed, signature.unsigned_field], signature.header_canonicalization)
