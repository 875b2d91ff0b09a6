"""check_host() for an SMTP session (RFC 7208 §4): may this client use this reverse path, this HELO name?

Left out: what to do about the result. Pure; safe to share between threads.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

from mailguard.dns.answers import Answers
from mailguard.dns.question import TXT, Question
from mailguard.envelope import Envelope
from mailguard.spf.evaluate import evaluate
from mailguard.spf.identity import Sender, Unchecked, read_identity
from mailguard.spf.result import SpfIdentity, SpfReason, SpfResult, SpfStatus

__all__ = ["check_host", "check_sender", "sender_questions"]


def check_host(
    envelope: Envelope, answers: Answers, *, identity: SpfIdentity, now: float, receiver: str = "unknown"
) -> SpfResult:
    """The result for one identity of the session.

    `now` is in POSIX seconds; `receiver` is the host that checks, for the macro %{r}. Raises Unanswered while an
    answer is missing.
    """
    return check_sender(read_identity(envelope, identity), envelope, answers, now=now, receiver=receiver)


def check_sender(
    sender: Sender | Unchecked, envelope: Envelope, answers: Answers, *, now: float, receiver: str = "unknown"
) -> SpfResult:
    """`check_host` for an identity that was read before."""
    client = _address(envelope.client_ip)
    if client is None:
        return _unchecked(sender, SpfStatus.NONE, SpfReason.NO_ADDRESS, "the client has no address that SPF knows")
    if isinstance(sender, Unchecked):
        # RFC 7208 §4.3: no domain is a "none". An address that is none is its sender's error (RFC 7208 §2.6.7).
        status = SpfStatus.NONE if sender.reason is SpfReason.NO_DOMAIN else SpfStatus.PERMERROR
        return _unchecked(sender, status, sender.reason, sender.detail)
    return evaluate(sender, envelope, client=client, answers=answers, now=now, receiver=receiver)


def sender_questions(sender: Sender | Unchecked, envelope: Envelope) -> tuple[Question, ...]:
    """What `check_sender` will ask first; it can be asked for as soon as MAIL is known."""
    if isinstance(sender, Unchecked) or _address(envelope.client_ip) is None:
        return ()
    return (Question(sender.domain, TXT),)


def _address(address: IPv4Address | IPv6Address | None) -> IPv4Address | IPv6Address | None:
    """The <ip> argument; None where there is none."""
    # RFC 4007 §6: the zone means something to this host only, and no record can name it. That IPv4-mapped addresses
    # are IPv4 clients (RFC 7208 §5), the envelope sees to.
    return None if isinstance(address, IPv6Address) and address.scope_id is not None else address


def _unchecked(sender: Sender | Unchecked, status: SpfStatus, reason: SpfReason, detail: str) -> SpfResult:
    return SpfResult(
        status=status,
        reason=reason,
        detail=detail,
        identity=sender.identity,
        domain=sender.domain if isinstance(sender, Sender) else None,
        is_null_sender=sender.is_null,
    )
