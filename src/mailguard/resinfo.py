"""ResInfo: what our Authentication-Results field says about a message, one for each method and identity.

RFC 8601 §2.7 and, for dmarc, RFC 9989 §9.1. Left out: how it is written (authresults.py), which makes harmless what
strangers wrote. Pure; values are frozen and safe to share between threads.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from mailguard.dkim.result import DkimResult, DkimStatus
from mailguard.dmarc.result import DmarcReason, DmarcStatus, DmarcVerdict
from mailguard.envelope import Envelope
from mailguard.evidence import Evidence
from mailguard.iprev import IprevResult, IprevStatus
from mailguard.spf.result import SpfIdentity, SpfResult, SpfStatus

__all__ = ["ResInfo", "login_result", "results_of"]

# Twice what is verified by default. The longest names and details of so many make 32 kB, and libmilter's limit for
# one header field is 64 kB.
MAX_LISTED_SIGNATURES = 20
MAX_LOCAL_PART_CHARS = 64  # RFC 5321 §4.5.3.1.1
# RFC 5322 §3.2.3 dot-atom, without "=": a local part such as "dmarc=pass" would fool who looks for that text. Nor
# with "/", at which Mail::AuthenticationResults gives up.
_LOCAL_PART = re.compile(r"[A-Za-z0-9!#$%&'*+?^_`{|}~-]+(?:\.[A-Za-z0-9!#$%&'*+?^_`{|}~-]+)*")

# Of what every message says, `_value_`: an Enum's `value` is the same by two functions in Python.


class ResInfo(NamedTuple):
    """One result (RFC 8601 §2.2). The texts are as they came: a stranger's may hold anything."""

    method: str
    result: str
    comment: str = ""
    reason: str = ""
    properties: tuple[tuple[str, str], ...] = ()
    """Each a name with its ptype, such as "header.d", and a value. One that may need quotes stands last."""


def results_of(
    evidence: Evidence, verdict: DmarcVerdict | None, *, override: str = "", shows_login: bool = False
) -> list[ResInfo]:
    """All there is to say. `verdict` is None for a client of our own; `override` says what set it aside."""
    results = []
    if shows_login and evidence.envelope.login:
        results.append(login_result(evidence.envelope))
    if evidence.iprev is not None:
        results.append(_iprev(evidence.iprev))
    results += [_spf(spf, evidence.envelope) for spf in (evidence.spf, evidence.helo_spf) if spf is not None]
    results += _dkim(evidence)
    if evidence.malformed is not None:
        # RFC 8601 §2.7.1 has permerror for what cannot be judged however often it is tried.
        reason = f"malformed message: {evidence.malformed_detail}"
        results.append(ResInfo(method="dmarc", result=DmarcStatus.PERMERROR.value, comment=override, reason=reason))
    elif verdict is not None:
        results.append(_dmarc(evidence, verdict, override))
    return results


def login_result(envelope: Envelope) -> ResInfo:
    """RFC 8601 §2.7.4. Raises ValueError for a client that did not log in."""
    if not envelope.login:
        raise ValueError("the client did not authenticate")
    return ResInfo(method="auth", result="pass", properties=(("smtp.auth", _text(envelope.login)),))


def _iprev(result: IprevResult) -> ResInfo:
    """RFC 8601 §2.7.3."""
    is_pass = result.status is IprevStatus.PASS
    return ResInfo(
        method="iprev",
        result=result.status.value,
        comment=result.name or "",
        reason="" if is_pass else result.detail,
        properties=(("policy.iprev", str(result.address)),),
    )


def _spf(result: SpfResult, envelope: Envelope) -> ResInfo:
    """RFC 8601 §2.7.2: the domain without the local part, which SPF does not authenticate."""
    is_pass = result.status is SpfStatus.PASS
    of_helo = result.identity is SpfIdentity.HELO or result.is_null_sender
    value = result.domain or ""
    if not value and not is_pass:
        # RFC 8601 §4 would leave out what was not authenticated. What is no domain is named all the same, beside a
        # result that is no pass: nothing else shows the reader what was wrong with it.
        value = _text(envelope.helo if of_helo else envelope.mail_from.rpartition(b"@")[2])
    return ResInfo(
        method="spf",
        result=result.status._value_,
        reason="" if is_pass else result.detail,
        properties=(("smtp.helo" if of_helo else "smtp.mailfrom", value),) if value else (),
    )


def _dkim(evidence: Evidence) -> list[ResInfo]:
    """RFC 8601 §2.7.1, in the order of the header. Of too many, those that pass are listed first."""
    listed = evidence.dkim
    if len(listed) > MAX_LISTED_SIGNATURES:
        ranked = sorted(range(len(listed)), key=lambda index: evidence.dkim[index].status is not DkimStatus.PASS)
        listed = tuple(evidence.dkim[index] for index in sorted(ranked[:MAX_LISTED_SIGNATURES]))
    rest = _unlisted(len(evidence.dkim) - len(listed), evidence.ignored_signatures)
    if not listed:
        return [ResInfo(method="dkim", result="none", comment=rest)]
    *others, last = listed
    return [*[_signature(each, evidence, "") for each in others], _signature(last, evidence, rest)]


def _unlisted(not_listed: int, not_verified: int) -> str:
    counts = {"are not listed": not_listed, "were not verified": not_verified}
    return ", ".join(f"{count} further signatures {what}" for what, count in counts.items() if count)


def _signature(result: DkimResult, evidence: Evidence, note: str) -> ResInfo:
    """One signature, with header.b (RFC 6008) to tell it from others."""
    status, detail = result.status, result.detail
    if evidence.malformed is not None and status is DkimStatus.PASS:
        # The signature may not cover what makes the message malformed, such as a second From: nobody
        # is to read a pass for a domain beside it. RFC 8601 §2.7.1: "policy", not acceptable by local policy.
        status, detail = DkimStatus.POLICY, "the signature verifies, but the message is malformed"
    size = f"{result.key_bits}-bit key" if result.key_bits else ""
    testing = "testing" if result.testing else ""
    return ResInfo(
        method="dkim",
        result=status._value_,
        comment=_comment(size, testing, note),
        reason="" if status is DkimStatus.PASS else detail,
        properties=_properties(
            ("header.d", result.domain),
            ("header.i", _identity(result.identity)),
            ("header.a", result.algorithm),
            ("header.s", result.selector),
            # Whole base64 has "=" at its end only. A signer who writes b=dmarc=pass is not repeated.
            ("header.b", result.signature_prefix and result.signature_prefix.partition("=")[0]),
        ),
    )


def _identity(identity: str | None) -> str | None:
    """i= as a pvalue (RFC 8601 §2.2). Its local part is a stranger's text: only a plain one is repeated."""
    if identity is None:
        return None
    local_part, _, domain = identity.rpartition("@")
    plain = len(local_part) <= MAX_LOCAL_PART_CHARS and _LOCAL_PART.fullmatch(local_part)
    return f"{local_part}@{domain}" if plain else f"@{domain}"


def _dmarc(evidence: Evidence, verdict: DmarcVerdict, override: str) -> ResInfo:
    """RFC 9989 §9.1, with the policy in effect."""
    status, detail, author = verdict.status, verdict.detail, verdict.author_domain
    if status is DmarcStatus.PASS and (
        verdict.reason is DmarcReason.SEVERAL_DOMAINS or evidence.author_domains != (author,)
    ):
        # A pass is for the one domain that From names, whatever verdict comes in.
        status, detail = DmarcStatus.PERMERROR, "From does not name one domain that passes"
    return ResInfo(
        method="dmarc",
        result=status._value_,
        comment=_comment(override, "t=y: one step weaker than published" if verdict.is_testing else ""),
        reason="" if status is DmarcStatus.PASS else detail,
        properties=_properties(
            ("header.from", author),
            ("policy.dmarc", verdict.policy._value_ if verdict.policy is not None else None),
        ),
    )


def _comment(*notes: str) -> str:
    return ", ".join(filter(None, notes))


def _properties(*found: tuple[str, str | None]) -> tuple[tuple[str, str], ...]:
    return tuple([(name, value) for name, value in found if value])


def _text(octets: bytes) -> str:
    return octets.decode("utf-8", "replace")
