"""What each rule of local policy means and what an administrator can do about it, for the tree and docs/reasons.md.

Each entry names the key of the configuration that says what is done. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from mailguard.explain.advice import Advice
from mailguard.policy import Rule

__all__ = ["KEYS", "RULES"]

_SPF_MEANINGS = {
    "fail": "says that the client may not send for it",
    "softfail": "says that the client probably may not send for it (~all)",
    "neutral": "says nothing about the client",
    "none": "has no SPF record, or there is no domain that could be checked",
    "permerror": "has an SPF record that cannot be used",
    "temperror": "could not be checked: the DNS did not answer",
}
_SPF_NAMES = {"spf": "The domain of the reverse path", "helo": "The name given with HELO"}

_WAIT = (
    "nothing: the sender tries again, and the message is judged when the DNS answers; if it stays, look at the"
    " resolver of this host"
)


def _key(rule: Rule) -> str:
    """The configuration key that says what the rule does; empty for a rule that always accepts."""
    match rule:
        case Rule.NO_OBJECTION | Rule.INTERNAL_CLIENT:
            return ""
        case Rule.MALFORMED | Rule.TRUSTED_TEMPERROR:
            return f"policy.{rule.value.replace('-', '_')}"
    method, _, word = rule.value.partition("-")
    return f"policy.{method}.{word.replace('-', '_')}"


KEYS: Mapping[Rule, str] = MappingProxyType({rule: _key(rule) for rule in Rule})
"""The configuration key that says what a rule does; empty for the rules that always accept."""


def _chosen(rule: Rule) -> str:
    """What the receiving side can change."""
    return f"to have such mail treated otherwise, set {KEYS[rule]}"


def _of_spf(rule: Rule) -> Advice:
    method, _, word = rule.value.partition("-")
    meaning = f"{_SPF_NAMES[method]} {_SPF_MEANINGS[word]}."
    if word == "temperror":
        return Advice(meaning, "", f"{_WAIT}; {_chosen(rule)}")
    return Advice(meaning, f"see the advice for {method.upper()}", _chosen(rule))


def _of_dmarc(rule: Rule, asked: str) -> Advice:
    return Advice(
        f"The message fails DMARC, and the domain in From asks for {asked}.",
        "see the advice for DMARC",
        f"if a source that you know sent it, list that under [[trusted]]; {_chosen(rule)}",
    )


RULES: Mapping[Rule, Advice] = MappingProxyType(
    {
        Rule.NO_OBJECTION: Advice("No rule applies to the message."),
        Rule.INTERNAL_CLIENT: Advice(
            "The client is in policy.internal_networks: neither SPF nor DMARC judge it, and it is never refused."
        ),
        Rule.MALFORMED: Advice(
            "The header names no author that could be judged.",
            "see the advice for From",
            _chosen(Rule.MALFORMED),
        ),
        Rule.DMARC_REJECT: _of_dmarc(Rule.DMARC_REJECT, "reject"),
        Rule.DMARC_QUARANTINE: _of_dmarc(Rule.DMARC_QUARANTINE, "quarantine"),
        Rule.DMARC_NONE: _of_dmarc(Rule.DMARC_NONE, "nothing (p=none)"),
        Rule.DMARC_TEMPERROR: Advice(
            "The DNS did not answer, and its answer could keep the message back.",
            "",
            f"{_WAIT}; {_chosen(Rule.DMARC_TEMPERROR)}",
        ),
        Rule.DMARC_PERMERROR: Advice(
            "From names several domains, and none of them fails.",
            "write addresses of one domain into From",
            _chosen(Rule.DMARC_PERMERROR),
        ),
        **{rule: _of_spf(rule) for rule in Rule if rule.value.startswith(("spf-", "helo-"))},
        Rule.DKIM_NO_PASS: Advice(
            "No DKIM signature passes, or there is none.",
            "see the advice for each signature",
            _chosen(Rule.DKIM_NO_PASS),
        ),
        Rule.DKIM_NO_AUTHOR_PASS: Advice(
            "A DKIM signature passes, but none of the domain in From.",
            "sign with d={author}",
            _chosen(Rule.DKIM_NO_AUTHOR_PASS),
        ),
        Rule.DKIM_TEMPERROR: Advice(
            "A DKIM key could not be looked up.", "", f"{_WAIT}; {_chosen(Rule.DKIM_TEMPERROR)}"
        ),
        Rule.IPREV_FAIL: Advice(
            "The client has no name that leads back to its address.",
            "see the advice for iprev",
            _chosen(Rule.IPREV_FAIL),
        ),
        Rule.IPREV_TEMPERROR: Advice(
            "The client's name could not be looked up.", "", f"{_WAIT}; {_chosen(Rule.IPREV_TEMPERROR)}"
        ),
        Rule.TRUSTED_TEMPERROR: Advice(
            "The message would be kept back, and whether a source under [[trusted]] sent it could not be looked up.",
            "",
            f"{_WAIT}; {_chosen(Rule.TRUSTED_TEMPERROR)}",
        ),
    }
)
"""For the rule that decided, and for each that applies."""
