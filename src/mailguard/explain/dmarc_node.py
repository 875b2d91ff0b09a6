"""How DMARC came out: the walk to the record, the policy in effect, and each identifier compared (RFC 9989). Pure."""

from __future__ import annotations

from collections.abc import Iterator

from mailguard.dmarc.record import AlignmentMode, DmarcPolicy, DmarcRecord
from mailguard.dmarc.result import Aligned, Alignment, DmarcReason, DmarcVerdict
from mailguard.domain import Domain
from mailguard.explain.advice import Names
from mailguard.explain.check_advice import ALIGNMENT, DMARC
from mailguard.explain.explanation import Explanation

__all__ = ["compared", "dmarc_node", "policy_facts", "policy_text"]

_STATUS = {Aligned.YES: "aligned", Aligned.NO: "not aligned", Aligned.UNKNOWN: "unknown"}


def dmarc_node(verdict: DmarcVerdict, verdicts: tuple[DmarcVerdict, ...]) -> Explanation:
    """The verdict; where several author domains were judged, with a node for each of `verdicts`."""
    if len(verdicts) > 1:
        return _node(verdict, children=tuple(_of_one(each) for each in verdicts))
    return _node(verdict, children=tuple(_alignment_nodes(verdict)))


def policy_facts(verdict: DmarcVerdict) -> Iterator[tuple[str, str]]:
    """The record that holds, where it was found and how, and what it asks for."""
    for visit in verdict.walk:
        yield "asked", visit
    yield "organizational domain", _or_unknown(verdict.organizational_domain)
    yield "found by", verdict.method.value
    if verdict.record is not None:
        yield "record", verdict.record.text
        yield "record at", f"_dmarc.{verdict.record_domain}"
    if verdict.policy is not None:
        yield "policy in effect", policy_text(verdict.policy, verdict.policy_tag, verdict.record)
    if verdict.is_testing:
        yield "testing", "t=y makes the policy one step weaker than published"


def policy_text(policy: DmarcPolicy, tag: str | None, record: DmarcRecord | None) -> str:
    """A policy in effect, and what of the record made it."""
    if tag is not None:
        return f"{policy.value}, by {tag}="
    fault = record.policy_fault if record is not None else ""
    return f"{policy.value}, as {fault}" if fault else policy.value


def _of_one(verdict: DmarcVerdict) -> Explanation:
    return _node(verdict, children=tuple(_alignment_nodes(verdict)), of=f" for {verdict.author_domain}")


def _node(verdict: DmarcVerdict, *, children: tuple[Explanation, ...], of: str = "") -> Explanation:
    names = Names(author=verdict.author_domain) if verdict.author_domain is not None else Names()
    judged = verdict.reason is not DmarcReason.MALFORMED
    author = (("author domain", str(verdict.author_domain)),) if verdict.author_domain is not None else ()
    return Explanation(
        title=f"DMARC{of}",
        status=verdict.status.value,
        reason=verdict.reason.value,
        detail=verdict.detail,
        advice=DMARC[verdict.reason].text(names),
        facts=(*author, *policy_facts(verdict)) if judged else (),
        children=children,
    )


def _alignment_nodes(verdict: DmarcVerdict) -> Iterator[Explanation]:
    author = verdict.author_domain
    if author is None:
        return
    for each in verdict.alignments:
        method = f"{each.method.upper()} {each.domain}" + (f" s={each.selector}" if each.selector else "")
        yield Explanation(
            title=method,
            status=_STATUS[each.aligned],
            reason=each.result,
            detail=compared(each, author, verdict.organizational_domain),
            advice=_alignment_advice(each, author),
            facts=(("counts", _counts(each)), ("mode", each.mode.value)),
        )


def _alignment_advice(each: Alignment, author: Domain) -> str:
    """For a pass that is lost because of the name; what does not pass has its advice at SPF or at the signature."""
    if not each.counts or each.aligned is not Aligned.NO:
        return ""
    return ALIGNMENT[each.method, each.mode].text(Names(author=author))


def _counts(each: Alignment) -> str:
    if each.counts:
        return "yes"
    if each.result != "pass":
        return f"no: {each.result} is no pass"
    return "no: the key is in testing (t=y)" if each.method == "dkim" else "no: its term covers too many addresses"


def compared(each: Alignment, author: Domain, organizational_domain: Domain | None) -> str:
    """The identifier beside the author domain, label by label from the right (RFC 9989 §4.4)."""
    both = f"{each.domain} vs {author}"
    if each.domain == author:
        return f"{both}: the same name"
    if each.aligned is Aligned.YES:
        common = each.organizational_domain or organizational_domain
        return f"{both}: same Organizational Domain {_or_unknown(common)}"
    labels = _first_difference(each.domain, author)
    if each.mode is AlignmentMode.STRICT:
        return f"{both}: not the same name, which strict alignment asks for: {labels}"
    if each.aligned is Aligned.UNKNOWN:
        return f"{both}: the DNS did not say whether they have the same Organizational Domain"
    if each.organizational_domain is None or organizational_domain is None:
        return f"{both}: {labels}"
    return f"{both}: {labels}; Organizational Domains {each.organizational_domain} and {organizational_domain}"


def _first_difference(identifier: str, author: str) -> str:
    """Where two different names part, read from the right."""
    own, others = identifier.split(".")[::-1], author.split(".")[::-1]
    shared = 0
    while shared < min(len(own), len(others)) and own[shared] == others[shared]:
        shared += 1
    common = ".".join(reversed(own[:shared]))
    if shared == len(own):
        return f"the latter is below {common}"
    if shared == len(others):
        return f"the former is below {common}"
    before = f"{common} is the same, then " if common else ""
    return f"from the right, {before}{own[shared]} is not {others[shared]}"


def _or_unknown(domain: Domain | None) -> str:
    return str(domain) if domain is not None else "unknown"
