"""A Decision as smtp_tls_policy_maps of Postfix takes it (postconf(5); TLSRPT_README for the attributes of 3.10).

The certificate of an MX host must have one of the names of `match` at the level `secure`. A pattern `*.example.com`
becomes `.example.com`, which in Postfix stands for names of any depth below, where RFC 8461 §4.1 has one label; whose
they are, is the same. Pure.
"""

from __future__ import annotations

from mailguard.mtasts.policy import StsPolicy
from mailguard.tlspolicy.decide import UNMATCHABLE, Decision, DecisionStatus, Level
from mailguard.tlspolicy.socketmap import MAX_REPLY_BYTES, Reply, ReplyStatus

__all__ = ["policy_text", "reply_to"]

# "OK " and the netstring's own octets are beside it.
_MAX_TEXT_CHARS = MAX_REPLY_BYTES - 16


def reply_to(decision: Decision, *, with_tlsrpt: bool) -> Reply:
    """`with_tlsrpt` adds what Postfix 3.10 and later reports of an MTA-STS policy (RFC 8460 §4.4).

    Older versions keep mail back when they see these attributes, and so do new ones where the policy is not of
    MTA-STS.
    """
    if decision.status is DecisionStatus.NOT_FOUND:
        return Reply(ReplyStatus.NOT_FOUND)
    if decision.status is DecisionStatus.TEMPORARY:
        return Reply(ReplyStatus.TEMPORARY, decision.detail)
    return Reply(ReplyStatus.OK, policy_text(decision, with_tlsrpt=with_tlsrpt))


def policy_text(decision: Decision, *, with_tlsrpt: bool = False) -> str:
    """The policy of a decision that found one. Raises ValueError for others."""
    if decision.level is None:
        raise ValueError("nothing was found")
    sts = decision.sts
    if decision.level is not Level.SECURE or sts is None:
        return decision.level.value
    names = [pattern[1:] if pattern.startswith("*.") else pattern for pattern in sts.mx if pattern not in UNMATCHABLE]
    # RFC 8461 §7.1 has the MX host name in SNI: `hostname` stands for it.
    text = f"secure match={':'.join(names)} servername=hostname"
    if with_tlsrpt:
        longer = " ".join([text, f"policy_type=sts policy_domain={decision.policy_domain}", *_reported(sts)])
        # The reports of a policy this long go without it; what is demanded does not change.
        text = longer if len(longer) <= _MAX_TEXT_CHARS else text
    return text


def _reported(sts: StsPolicy) -> list[str]:
    """RFC 8460 §4.4, policy-string and mx-host: written anew, so that nothing of the text could be an attribute."""
    strings = [
        "version: STSv1",
        f"mode: {sts.mode.value}",
        *(f"mx: {pattern}" for pattern in sts.mx),
        f"max_age: {sts.max_age_s}",
    ]
    return [
        *(f"{{ policy_string = {string} }}" for string in strings),
        *(f"mx_host_pattern={pattern}" for pattern in sts.mx),
    ]
