"""What the DNS said to a question, in a few words. Pure."""

from __future__ import annotations

from mailguard.dns.question import Answer, Status

__all__ = ["answer_text"]

_NO_RECORDS = {
    Status.NODATA: "the name exists, without records of this type",
    Status.NXDOMAIN: "the name does not exist",
    Status.TEMPFAIL: "no answer",
    Status.BOGUS: "DNSSEC validation failed",
}


def answer_text(answer: Answer) -> str:
    """Such as "2 records" or "no answer: SERVFAIL from 192.0.2.53"."""
    if answer.status is Status.NOERROR:
        count = len(answer.records)
        return f"{count} record{'' if count == 1 else 's'}"
    text = _NO_RECORDS[answer.status]
    # A failure has a cause that the resolver tells.
    return f"{text}: {answer.detail}" if answer.has_failed and answer.detail else text
