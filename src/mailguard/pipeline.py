"""The whole flow, from a message to its results, for callers who have the message in one piece."""

from __future__ import annotations

import time
from collections.abc import Sequence

from mailguard.dkim.canonical import BodyDigests, BodyRequest
from mailguard.dkim.result import DkimResult
from mailguard.dkim.sign import SigningRules, sign, sign_body_requests
from mailguard.dkim.signing_key import SigningKey
from mailguard.dkim.verify import VerifyRules, plan_verification, verify
from mailguard.dns.answers import Resolver, evaluate
from mailguard.message import HeaderField, Message

__all__ = ["LOOKUP_TIME_S", "sign_dkim", "verify_dkim"]

# All look-ups for one message together: below every time-out of SMTP (RFC 5321 §4.5.3.2) and of Postfix.
LOOKUP_TIME_S = 8.0


def verify_dkim(
    message: Message, *, resolver: Resolver, now: float, rules: VerifyRules | None = None
) -> tuple[DkimResult, ...]:
    """Verify the message's DKIM signatures (RFC 6376 §6), those of the author's domains first among many.

    `message` has its body; `now` is in POSIX seconds. The results are in the order of the header; there are
    none for an unsigned message. Look-ups take at most `LOOKUP_TIME_S`; what is open then is a temperror.
    """
    plan = plan_verification(message, rules)
    digests = _digests(message, plan.body_requests)
    deadline = time.monotonic() + LOOKUP_TIME_S
    return evaluate(lambda answers: verify(plan, digests, answers, now=now), resolver, deadline=deadline)


def sign_dkim(
    message: Message, *, keys: Sequence[SigningKey], now: float, rules: SigningRules | None = None
) -> tuple[HeaderField, ...]:
    """The DKIM-Signature fields (RFC 6376 §5) to put on top of the message, one for each key.

    `message` has its body; `now` is in POSIX seconds. Raises SigningRefused for a message without exactly one
    author domain.
    """
    rules = rules or SigningRules()
    return sign(message, _digests(message, sign_body_requests(rules)), keys=keys, now=now, rules=rules)


def _digests(message: Message, requests: Sequence[BodyRequest]) -> BodyDigests:
    if message.body is None:
        raise ValueError("the message has no body: feed BodyDigests and use mailguard.dkim directly")
    digests = BodyDigests(requests)
    digests.update(message.body)
    digests.finish()
    return digests
