"""What can decide about a message, and what can be done with it: words of configurations, logs and replies. Pure."""

from __future__ import annotations

from enum import Enum

__all__ = ["STRICTNESS", "Disposition", "Mode", "Rule"]


class Mode(Enum):
    """Whether mailguard refuses mail."""

    MONITOR = "monitor"
    ENFORCE = "enforce"


class Disposition(Enum):
    """What is done with a message."""

    ACCEPT = "accept"
    HEADER = "header"
    """Accepted, with a header field that names the rule."""
    QUARANTINE = "quarantine"
    """Accepted into Postfix's hold queue, until somebody releases or deletes it."""
    TEMPFAIL = "tempfail"
    REJECT = "reject"

    # Enum hashes by the name, in Python, at each look-up; a member is one object and equal to no other.
    __hash__ = object.__hash__

    @property
    def keeps_back(self) -> bool:
        """Whether the message does not reach its reader now."""
        return self in _KEPT_BACK


_KEPT_BACK = frozenset({Disposition.QUARANTINE, Disposition.TEMPFAIL, Disposition.REJECT})

# What a stricter finding outweighs: a refusal that stands whatever the DNS says comes before waiting for it.
STRICTNESS = {
    Disposition.ACCEPT: 0,
    Disposition.HEADER: 1,
    Disposition.QUARANTINE: 2,
    Disposition.TEMPFAIL: 3,
    Disposition.REJECT: 4,
}


class Rule(Enum):
    """Everything that can decide about a message, by the name that logs, replies and docs/reasons.md use."""

    NO_OBJECTION = "no-objection"
    INTERNAL_CLIENT = "internal-client"
    MALFORMED = "malformed"
    DMARC_REJECT = "dmarc-reject"
    DMARC_QUARANTINE = "dmarc-quarantine"
    DMARC_NONE = "dmarc-none"
    DMARC_TEMPERROR = "dmarc-temperror"
    DMARC_PERMERROR = "dmarc-permerror"
    SPF_FAIL = "spf-fail"
    SPF_SOFTFAIL = "spf-softfail"
    SPF_NEUTRAL = "spf-neutral"
    SPF_NONE = "spf-none"
    SPF_PERMERROR = "spf-permerror"
    SPF_TEMPERROR = "spf-temperror"
    HELO_FAIL = "helo-fail"
    HELO_SOFTFAIL = "helo-softfail"
    HELO_NEUTRAL = "helo-neutral"
    HELO_NONE = "helo-none"
    HELO_PERMERROR = "helo-permerror"
    HELO_TEMPERROR = "helo-temperror"
    DKIM_NO_PASS = "dkim-no-pass"
    DKIM_NO_AUTHOR_PASS = "dkim-no-author-pass"
    DKIM_TEMPERROR = "dkim-temperror"
    IPREV_FAIL = "iprev-fail"
    IPREV_TEMPERROR = "iprev-temperror"
    TRUSTED_TEMPERROR = "trusted-temperror"
    """Whether a trusted source vouches for the message could not be found out."""
    # Of our own users' mail (submission.py).
    SENDER_ENVELOPE = "sender-envelope"
    SENDER_FROM = "sender-from"
    SENDER_SENDER = "sender-sender"
    SENDER_RESENT = "sender-resent"
    SENDER_REPLY_TO = "sender-reply-to"
    SENDER_NULL = "sender-null"
    SENDER_ALIGNMENT = "sender-alignment"
    SENDER_UNAVAILABLE = "sender-unavailable"

    __hash__ = object.__hash__  # as above
