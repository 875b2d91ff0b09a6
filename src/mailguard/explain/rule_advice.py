"""What each rule of local policy means and what an administrator can do about it, for the tree and docs/reasons.md.

Each entry names the key of the configuration that says what is done. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from mailguard.explain.advice import Advice
from mailguard.rule import Rule
from mailguard.submission import ACTION_KEYS

__all__ = ["KEYS", "OF_DOMAINS", "RULES"]

OF_DOMAINS = frozenset({"dmarc", "spf", "helo", "dkim"})
"""The tables of [policy] that a domain can have for itself, in [policy.domains]."""

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
    if rule in ACTION_KEYS:
        return f"senders.actions.{ACTION_KEYS[rule]}"
    match rule:
        case Rule.NO_OBJECTION | Rule.INTERNAL_CLIENT | Rule.SENDER_UNAVAILABLE:
            return ""
        case Rule.MALFORMED | Rule.TRUSTED_TEMPERROR:
            return f"policy.{rule.value.replace('-', '_')}"
    method, _, word = rule.value.partition("-")
    return f"policy.{method}.{word.replace('-', '_')}"


KEYS: Mapping[Rule, str] = MappingProxyType({rule: _key(rule) for rule in Rule})
"""The configuration key that says what a rule does; empty for the rules that always accept."""


def _chosen(rule: Rule) -> str:
    """What the receiving side can change."""
    _, method, *word = KEYS[rule].split(".")
    before = ""
    if word and method in OF_DOMAINS:
        before = "; an action in [policy.domains] for the domain in From goes before it"
    return f"to have such mail treated otherwise, set {KEYS[rule]}{before}"


def _of_spf(rule: Rule) -> Advice:
    method, _, word = rule.value.partition("-")
    meaning = f"{_SPF_NAMES[method]} {_SPF_MEANINGS[word]}."
    if word == "temperror":
        return Advice(meaning, "", f"{_WAIT}; {_chosen(rule)}")
    return Advice(meaning, f"see the advice for {method.upper()}", _chosen(rule))


def _of_sender(rule: Rule, meaning: str) -> Advice:
    return Advice(
        f"{meaning} What your tables say about it, mailguard senders test LOGIN ADDRESS tells.",
        "write as somebody you are; the administrator can give the login the address",
        f"if the login is to have the address, give it to it in the source (docs/senders.md); {_chosen(rule)}",
    )


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
            "The client is in policy.internal_networks: neither SPF nor DMARC judge it, and it is never refused.",
            "",
            "if its mail is to be signed, let it log in, or list its address and your domains under sign.networks",
        ),
        Rule.MALFORMED: Advice(
            "The header names no author that could be judged.",
            "see the advice for From",
            f"{_chosen(Rule.MALFORMED)}, which is for mail from outside; that of your own users is never signed, and"
            " refused in enforce mode whatever is set",
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
        Rule.SENDER_ENVELOPE: _of_sender(
            Rule.SENDER_ENVELOPE, "One of your own users gives a reverse path (MAIL FROM) that is not theirs."
        ),
        Rule.SENDER_FROM: _of_sender(
            Rule.SENDER_FROM,
            "One of your own users writes an address into From that is not theirs; or From has several, and no Sender"
            " that is theirs.",
        ),
        Rule.SENDER_SENDER: _of_sender(
            Rule.SENDER_SENDER, "One of your own users writes an address into Sender that is not theirs."
        ),
        Rule.SENDER_RESENT: _of_sender(
            Rule.SENDER_RESENT,
            "One of your own users sends a message again (Resent-From, Resent-Sender) as somebody they are not.",
        ),
        Rule.SENDER_REPLY_TO: _of_sender(
            Rule.SENDER_REPLY_TO, "One of your own users asks for answers to an address that is not theirs."
        ),
        Rule.SENDER_NULL: _of_sender(
            Rule.SENDER_NULL,
            "One of your own users sends with the null sender (MAIL FROM:<>) in the name of somebody they are not.",
        ),
        Rule.SENDER_ALIGNMENT: Advice(
            "The reverse path of a message of one of your own users is in another domain than its From.",
            "use one domain in both",
            _chosen(Rule.SENDER_ALIGNMENT),
        ),
        Rule.SENDER_UNAVAILABLE: Advice(
            "Whether one of your own users may use an address could not be looked up: a source did not answer.",
            "",
            "look at the source that the log names; mailguard senders test LOGIN ADDRESS asks it. Until it is back"
            " such mail waits (451), and nothing is lost",
        ),
    }
)
"""For the rule that decided, and for each that applies."""
