"""The whole tree: from the author's address down to each record that was used, and to what became of the message.

Pure; it asks nothing and raises for nothing that a message, a record or a result may hold. Statuses and reasons stand
in the tree with the words that results, logs and docs/reasons.md have for them.
"""

from __future__ import annotations

from collections.abc import Sequence

from mailguard.dns.question import Answer
from mailguard.evidence import Evidence
from mailguard.explain.advice import Names
from mailguard.explain.answer_text import answer_text
from mailguard.explain.check_advice import FLAGS, IPREV, MALFORMED
from mailguard.explain.dkim_node import dkim_nodes
from mailguard.explain.dmarc_node import dmarc_node
from mailguard.explain.explanation import Explanation, octets_text
from mailguard.explain.rule_advice import RULES
from mailguard.explain.spf_node import client_names, spf_node
from mailguard.inbound import Judged
from mailguard.iprev import IprevResult, IprevStatus
from mailguard.message import Message
from mailguard.policy import Decision, Finding

__all__ = ["explain"]

# Real mail has one or a few; the field itself is shown beside them.
MAX_SHOWN_MAILBOXES = 10
# Beyond the look-ups of SPF, DKIM and DMARC with all their bounds reached there is nothing to learn.
MAX_SHOWN_LOOKUPS = 300

_UNCHECKED = "not checked"


def explain(message: Message, judged: Judged, decision: Decision, *, answers: Sequence[Answer] = ()) -> Explanation:
    """The tree. `answers`, where they are known, are the DNS answers that the verdict rests on, in order.

    The node at the top is about the message: its status is what enforcing does ("accept", "header", "quarantine",
    "tempfail", "reject"), its reason the rule that decided. Below it stand, in this order, "From", "SPF", "HELO",
    "iprev", "DKIM signature N" or "DKIM", "DMARC", "decision" and "look-ups"; "HELO", "iprev" and "look-ups" only
    where there is something to tell.
    """
    evidence = judged.evidence
    known = {answer.question: answer for answer in answers}
    author = next(iter(evidence.author_domains), None)
    children = [_from_node(message, evidence)]
    if evidence.spf is None:
        children.append(Explanation("SPF", _UNCHECKED, detail=_why_unchecked(judged)))
    children += [
        spf_node(result, evidence.envelope, known)
        for result in (evidence.spf, evidence.helo_spf)
        if result is not None
    ]
    if evidence.iprev is not None:
        children.append(_iprev_node(evidence.iprev, evidence))
    children += dkim_nodes(evidence.dkim, evidence.ignored_signatures, known, author=author)
    if judged.verdict is None:
        children.append(Explanation("DMARC", _UNCHECKED, detail=_why_unchecked(judged)))
    else:
        children.append(dmarc_node(judged.verdict, judged.verdicts))
    children.append(_decision_node(decision, author))
    if answers:
        children.append(_lookups_node(answers))
    return Explanation(
        title="message",
        status=decision.would.value,
        reason=decision.rule.value,
        detail=decision.reason,
        facts=(("done", decision.disposition.value),) if decision.disposition is not decision.would else (),
        children=tuple(children),
    )


def _from_node(message: Message, evidence: Evidence) -> Explanation:
    author = message.author
    facts = [("field", octets_text(field.value.strip())) for field in message.named(b"from")[:MAX_SHOWN_MAILBOXES]]
    facts += [("mailbox", str(mailbox)) for mailbox in author.mailboxes[:MAX_SHOWN_MAILBOXES]]
    if len(author.mailboxes) > MAX_SHOWN_MAILBOXES:
        facts.append(("further mailboxes", str(len(author.mailboxes) - MAX_SHOWN_MAILBOXES)))
    if author.domains:
        facts.append(("domains", ", ".join(author.domains[:MAX_SHOWN_MAILBOXES])))
    facts += [(flag.value, FLAGS[flag].meaning) for flag in sorted(author.flags, key=lambda flag: flag.value)]
    # Several domains that can be judged are no malformed message, but no ordinary one either.
    reason = evidence.malformed or message.malformed
    if reason is None:
        return Explanation("From", "ok", facts=tuple(facts))
    status = "malformed" if evidence.malformed is not None else "several domains"
    return Explanation(
        title="From",
        status=status,
        reason=reason.value,
        detail=evidence.malformed_detail or message.malformed_detail,
        advice=MALFORMED[reason].text(),
        facts=tuple(facts),
    )


def _why_unchecked(judged: Judged) -> str:
    if judged.verdict is None:
        client = judged.evidence.envelope.client_ip
        return f"the client {client} is in an internal network: neither SPF nor DMARC judge its mail"
    return (
        "the client's address and the reverse path are not known (give --ip and --mail-from), so that DMARC is judged"
        " by DKIM alone"
    )


def _iprev_node(result: IprevResult, evidence: Evidence) -> Explanation:
    names = client_names(evidence.envelope.client_ip)
    name = (("name", str(result.name)),) if result.name is not None else ()
    return Explanation(
        title="iprev",
        status=result.status.value,
        detail=result.detail,
        advice=IPREV[result.status].text(names) if result.status is not IprevStatus.PASS else "",
        facts=(("client", str(result.address)), *name),
    )


def _decision_node(decision: Decision, author: str | None) -> Explanation:
    names = Names(author=author) if author else Names()
    advice = RULES[decision.rule].text(names) if decision.would.keeps_back else ""
    facts = [("enforcing would do", decision.would.value)] if decision.disposition is not decision.would else []
    facts.append(("rule", f"{decision.rule.value}: {RULES[decision.rule].meaning}"))
    if decision.override is not None:
        facts.append(("overridden by", f"{decision.override.kind.value}: {decision.override.identity}"))
    if decision.refusal is not None:
        refusal = decision.refusal
        facts.append(("reply", f"{refusal.code} {refusal.enhanced} {refusal.text}"))
    return Explanation(
        title="decision",
        status=decision.disposition.value,
        reason=decision.rule.value,
        detail=decision.reason,
        advice=advice,
        facts=tuple(facts),
        children=tuple(_finding_node(finding) for finding in decision.findings if finding.rule is not decision.rule),
    )


def _finding_node(finding: Finding) -> Explanation:
    """A rule that applies too, and what it would do by itself."""
    return Explanation(f"rule {finding.rule.value}", finding.disposition.value, detail=finding.reason)


def _lookups_node(answers: Sequence[Answer]) -> Explanation:
    facts = [
        (f"{answer.question.rdtype.value} {answer.question.name}", answer_text(answer))
        for answer in answers[:MAX_SHOWN_LOOKUPS]
    ]
    if len(answers) > MAX_SHOWN_LOOKUPS:
        facts.append(("further look-ups", str(len(answers) - MAX_SHOWN_LOOKUPS)))
    return Explanation("look-ups", facts=tuple(facts))
