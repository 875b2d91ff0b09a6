"""The whole flow, from a message to its results, for callers who have the message in one piece."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address, ip_address
from types import NoneType

from mailguard.argument import check_each, check_now, check_type
from mailguard.dane.destination import Destination
from mailguard.dane.discover import InsecureMx, discover
from mailguard.dane.result import DanePolicy
from mailguard.dkim.canonical import BodyDigests, BodyRequest
from mailguard.dkim.result import DkimResult
from mailguard.dkim.sign import SigningRules, sign, sign_body_requests
from mailguard.dkim.signing_key import SigningKey
from mailguard.dkim.verify import VerifyRules, plan_verification, verify
from mailguard.dmarc.evaluate import judge
from mailguard.dmarc.result import DmarcVerdict
from mailguard.dns.answers import Answers, Resolver, evaluate, evaluate_async
from mailguard.dns.live import open_resolver
from mailguard.domain import Domain
from mailguard.envelope import Envelope
from mailguard.inbound import InboundPlan, InboundRules, judge_inbound, plan_inbound
from mailguard.message import HeaderField, Message
from mailguard.outcome import Outcome
from mailguard.policy import Policy, decide
from mailguard.spf.check import check_host
from mailguard.spf.result import SpfIdentity, SpfResult

__all__ = [
    "LOOKUP_TIME_S",
    "authenticate",
    "authenticate_async",
    "check_dane",
    "check_spf",
    "evaluate_dmarc",
    "sign_dkim",
    "verify_dkim",
]

# All look-ups for one message together: below every time-out of SMTP (RFC 5321 §4.5.3.2) and of Postfix.
LOOKUP_TIME_S = 8.0


def authenticate(
    raw: bytes,
    *,
    ip: str | IPv4Address | IPv6Address | None,
    helo: str | bytes,
    mail_from: str | bytes,
    resolver: Resolver | None = None,
    now: float | None = None,
    policy: Policy | None = None,
    rules: InboundRules | None = None,
) -> Outcome:
    """Judge a message that came in by SMTP: SPF, DKIM, DMARC and what `policy` makes of them.

    `raw` is the whole message, CRLF or LF line ends. `ip` is the client's address, `helo` the argument of its HELO or
    EHLO, `mail_from` the reverse path, empty for the null sender, with or without angle brackets. Without a
    `resolver`, one is opened for this call and closed after it; `now` is in POSIX seconds and defaults to the clock.
    Look-ups take at most `LOOKUP_TIME_S`; what is open then is a temperror. Raises TypeError for arguments of another
    type, ValueError if `ip` is no address or `now` no POSIX seconds, and nothing for what a message or the DNS may
    hold.
    """
    _check_judging(resolver, policy, rules)
    judged_at = _judged_at(now)
    plan, digests = _prepared(raw, _envelope(ip, helo, mail_from), rules)
    deadline = time.monotonic() + LOOKUP_TIME_S
    with open_resolver() if resolver is None else nullcontext(resolver) as used:
        return evaluate(
            lambda answers: _outcome(plan, digests, answers, now=judged_at, policy=policy), used, deadline=deadline
        )


async def authenticate_async(
    raw: bytes,
    *,
    ip: str | IPv4Address | IPv6Address | None,
    helo: str | bytes,
    mail_from: str | bytes,
    resolver: Resolver | None = None,
    now: float | None = None,
    policy: Policy | None = None,
    rules: InboundRules | None = None,
) -> Outcome:
    """`authenticate`, awaited: look-ups leave the event loop free."""
    _check_judging(resolver, policy, rules)
    judged_at = _judged_at(now)
    plan, digests = _prepared(raw, _envelope(ip, helo, mail_from), rules)
    deadline = time.monotonic() + LOOKUP_TIME_S
    async with open_resolver() if resolver is None else nullcontext(resolver) as used:
        return await evaluate_async(
            lambda answers: _outcome(plan, digests, answers, now=judged_at, policy=policy), used, deadline=deadline
        )


def check_spf(
    envelope: Envelope,
    *,
    resolver: Resolver,
    identity: SpfIdentity = SpfIdentity.MAIL_FROM,
    now: float | None = None,
) -> SpfResult:
    """check_host() of RFC 7208 §4 for one identity. `now` is in POSIX seconds and defaults to the clock.

    Raises TypeError for arguments of another type, ValueError if `now` is no POSIX seconds.
    """
    _check_envelope(envelope)
    check_type("resolver", resolver, Resolver)
    check_type("identity", identity, SpfIdentity)
    judged_at = _judged_at(now)
    deadline = time.monotonic() + LOOKUP_TIME_S
    return evaluate(
        lambda answers: check_host(envelope, answers, identity=identity, now=judged_at), resolver, deadline=deadline
    )


def check_dane(
    domain: str, *, resolver: Resolver, port: int | None = None, insecure_mx: InsecureMx = InsecureMx.MAY
) -> DanePolicy:
    """What DANE demands of delivery to `domain` (RFC 7672 §2.2), also written as Postfix writes a next hop.

    Only a validating resolver on loopback or in `trust_ad` makes an answer secure: dns/validation.py tells whether
    there is one. Every server of `resolver` has to be one of these, as with `open_resolver(only_trusted(config))`:
    where a trusted one fails, the next is asked, and by the word of one that is not, what DANE protects looks
    unprotected. `port` replaces the one in `domain`, which is 25 unless named. Raises ValueError for what is no
    destination, TypeError for arguments of another type.
    """
    check_type("domain", domain, str)
    check_type("resolver", resolver, Resolver)
    check_type("port", port, int, NoneType)
    check_type("insecure_mx", insecure_mx, InsecureMx)
    destination = Destination.parse(domain)
    if port is not None:
        destination = replace(destination, port=port)
    deadline = time.monotonic() + LOOKUP_TIME_S
    return evaluate(
        lambda answers: discover(destination, answers, insecure_mx=insecure_mx), resolver, deadline=deadline
    )


def evaluate_dmarc(
    author_domain: Domain, *, spf: SpfResult | None, dkim: Sequence[DkimResult], resolver: Resolver
) -> DmarcVerdict:
    """DMARC for one author domain (RFC 9989), from results of SPF (for the reverse path) and DKIM.

    Raises TypeError for arguments of another type.
    """
    check_type("author_domain", author_domain, Domain)
    check_type("spf", spf, SpfResult, NoneType)
    dkim = tuple(dkim)
    check_each("dkim", dkim, DkimResult)
    check_type("resolver", resolver, Resolver)
    deadline = time.monotonic() + LOOKUP_TIME_S
    return evaluate(
        lambda answers: judge(author_domain, spf=spf, dkim=dkim, answers=answers), resolver, deadline=deadline
    )


def verify_dkim(
    message: Message, *, resolver: Resolver, now: float, rules: VerifyRules | None = None
) -> tuple[DkimResult, ...]:
    """Verify the message's DKIM signatures (RFC 6376 §6), those of the author's domains first among many.

    `message` has its body; `now` is in POSIX seconds. The results are in the order of the header; there are
    none for an unsigned message. Look-ups take at most `LOOKUP_TIME_S`; what is open then is a temperror.
    Raises TypeError for arguments of another type, ValueError if `now` is no POSIX seconds.
    """
    check_type("message", message, Message)
    check_type("resolver", resolver, Resolver)
    check_now(now)
    check_type("rules", rules, VerifyRules, NoneType)
    plan = plan_verification(message, rules)
    digests = _digests(message, plan.body_requests)
    deadline = time.monotonic() + LOOKUP_TIME_S
    return evaluate(lambda answers: verify(plan, digests, answers, now=now), resolver, deadline=deadline)


def sign_dkim(
    message: Message, *, keys: Sequence[SigningKey], now: float, rules: SigningRules | None = None
) -> tuple[HeaderField, ...]:
    """The DKIM-Signature fields (RFC 6376 §5) to put on top of the message, one for each key.

    `message` has its body; `now` is in POSIX seconds. Raises SigningRefused for a message without exactly one
    author domain, TypeError for arguments of another type, and ValueError if `now` is no POSIX seconds.
    """
    check_type("message", message, Message)
    keys = tuple(keys)
    check_each("keys", keys, SigningKey)
    check_now(now)
    check_type("rules", rules, SigningRules, NoneType)
    rules = rules or SigningRules()
    return sign(message, _digests(message, sign_body_requests(rules)), keys=keys, now=now, rules=rules)


def _digests(message: Message, requests: Sequence[BodyRequest]) -> BodyDigests:
    if message.body is None:
        raise ValueError("the message has no body: feed BodyDigests and use mailguard.dkim directly")
    digests = BodyDigests(requests)
    digests.update(message.body)
    digests.finish()
    return digests


def _envelope(ip: str | IPv4Address | IPv6Address | None, helo: str | bytes, mail_from: str | bytes) -> Envelope:
    check_type("ip", ip, str, IPv4Address, IPv6Address, NoneType)
    check_type("helo", helo, str, bytes)
    check_type("mail_from", mail_from, str, bytes)
    reverse_path = _octets(mail_from)
    if reverse_path.startswith(b"<") and reverse_path.endswith(b">"):
        reverse_path = reverse_path[1:-1]
    return Envelope(
        client_ip=ip_address(ip) if isinstance(ip, str) else ip, helo=_octets(helo), mail_from=reverse_path
    )


def _check_envelope(envelope: Envelope) -> None:
    """What SPF reads of it. Envelope makes no checks of its own: the daemon makes one for each transaction."""
    check_type("envelope", envelope, Envelope)
    check_type("client_ip", envelope.client_ip, IPv4Address, IPv6Address, NoneType)
    check_type("helo", envelope.helo, bytes)
    check_type("mail_from", envelope.mail_from, bytes)
    check_type("mail_from_as_read", envelope.mail_from_as_read, bytes, NoneType)


def _check_judging(resolver: Resolver | None, policy: Policy | None, rules: InboundRules | None) -> None:
    check_type("resolver", resolver, Resolver, NoneType)
    check_type("policy", policy, Policy, NoneType)
    check_type("rules", rules, InboundRules, NoneType)


def _judged_at(now: float | None) -> float:
    if now is None:
        return time.time()
    check_now(now)
    return now


def _octets(text: str | bytes) -> bytes:
    if isinstance(text, bytes):
        return text
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        # A surrogate that stands for no octet, as JSON may hold: octets that are not UTF-8 for anybody.
        return text.encode("utf-8", "surrogatepass")


def _prepared(raw: bytes, envelope: Envelope, rules: InboundRules | None) -> tuple[InboundPlan, BodyDigests]:
    """What the DNS cannot change: parsing and hashing, done once."""
    message = Message.parse(raw)
    plan = plan_inbound(message, envelope, rules)
    return plan, _digests(message, plan.body_requests)


def _outcome(
    plan: InboundPlan, digests: BodyDigests, answers: Answers, *, now: float, policy: Policy | None
) -> Outcome:
    judged = judge_inbound(plan, digests, answers, now=now)
    decision = decide(judged, policy=policy or Policy())
    return Outcome(message=plan.message, judged=judged, decision=decision, now=now, answers=answers.consumed)
