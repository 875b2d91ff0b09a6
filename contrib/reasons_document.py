"""The text of docs/reasons.md: every word that a log line, a reply or `mailguard explain` gives as a reason.

Made from the tables of mailguard.explain, and from the one here for what the daemon says by itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import Enum
from typing import TypeVar

from mailguard.explain.advice import Advice
from mailguard.explain.check_advice import (
    ALIGNMENT,
    DKIM,
    DKIM_UNSIGNED,
    DMARC,
    FLAGS,
    IPREV,
    MALFORMED,
    SPF,
    SPF_PERMISSIVE,
)
from mailguard.explain.dmarc_problem import PROBLEMS
from mailguard.explain.rule_advice import RULES
from mailguard.policy import Policy

__all__ = ["DAEMON", "reasons"]

Word = TypeVar("Word", bound=Enum)

HEAD = """\
# Reasons

<!-- Made by contrib/generate_docs.py from src/mailguard/explain/ and contrib/reasons_document.py. Do not edit. -->

Every word that mailguard gives as a reason: what it means, and what the administrator of the sending side and of the
receiving side can do. `mailguard explain` shows it for a message, with the names filled in where here stand DOMAIN,
AUTHOR-DOMAIN (the domain in From), SELECTOR and ADDRESS (of the client).
"""

DAEMON: Mapping[str, Advice] = {
    "signed": Advice("The message is of one of your own users, and was signed with the keys in d= and s=."),
    "unsigned: the client is not authenticated, nor listed for the domain in From": Advice(
        "The listener only signs, and nothing says that the client is one of your own.",
        "",
        "if it is, let it log in, or list its network and domains under sign.networks, where a subdomain is a domain"
        " of its own",
    ),
    "unsigned: no key is configured for": Advice(
        "The message is of one of your own users, and there is no key for the domain in its From.",
        "",
        "if the domain is yours, make one with mailguard key new, and name it in the configuration, or set"
        " subdomains = true for the domain above it; mailguard-milter --check-config shows which domains are signed."
        " If it is not, as where the form of a website puts the visitor's address into From, have the program write"
        " an address of yours there, and that one into Reply-To",
    ),
    "unsigned: it came in from outside, and did not pass DMARC for": Advice(
        "The client is listed under sign.networks for the domain in From, and the message came from outside before:"
        " this host's own Authentication-Results says that DMARC did not pass for that domain. What Sieve redirects,"
        " or a list sends on, is not lent the domain for it.",
        "",
        "have mail that claims to be yours and fails refused when it comes in: dmarc in [policy.domains] for the"
        " domain, and enforce mode",
    ),
    "unsigned: malformed message:": Advice(
        "The message is of one of your own users, and its From names nobody: no domain is lent to it. In enforce mode"
        " it is refused.",
        "repair the program that made the message; the words are those under From below",
    ),
    "malformed message:": Advice(
        "The same, refused with 550 5.6.0 and the rule malformed.",
        "repair the program that made the message; the words are those under From below",
    ),
    "signing key:": Advice(
        "A key that the configuration names could not be loaded. Nothing goes out unsigned that is to be signed: the"
        " reply is 451 4.7.5.",
        "",
        "see mailguard key test, run as the daemon's user; the text says what is wrong with the file",
    ),
    "the signing key of the sender's domain is unavailable": Advice(
        "The reply for the same.", "", "see mailguard key test, run as the daemon's user"
    ),
    "logins cannot be seen:": Advice(
        "Postfix does not tell the milter who logged in. In enforce mode a listener that only signs answers 451"
        " 4.7.0.",
        "",
        "add {{auth_authen}} and {{mail_addr}} to milter_mail_macros in main.cf, or leave that at its default",
    ),
    "the client authenticated, but Postfix names no login:": Advice(
        "The same, for a client that did log in.",
        "",
        "add {{auth_authen}} to milter_mail_macros in main.cf, or leave that at its default",
    ),
    "a signed header field has a line of more than 998 octets": Advice(
        "The message was signed, and Postfix sends no line that long (smtp_line_length_limit): what it puts into the"
        " line on the way out breaks the signature.",
        "repair the program that made the message: it has to fold the field, such as References or To",
        "see Behind the signature in [postfix.md](postfix.md#behind-the-signature)",
    ),
    "the body has a line of more than 998 octets": Advice(
        "The same in the body, mostly of HTML in one line.",
        "repair the program that made the message: it has to encode such text as quoted-printable or base64",
        "see Behind the signature in [postfix.md](postfix.md#behind-the-signature)",
    ),
    "this mail system is misconfigured (milter_mail_macros)": Advice(
        "The reply for both.", "", "the log says which macro is missing"
    ),
    "too many header fields that are to be removed": Advice(
        "See the rule too-many-removals.", "", "look at who sends such mail"
    ),
    "internal error": Advice(
        "A fault of mailguard; nothing is concluded from it: the reply is 451 4.3.0.",
        "",
        "see the daemon's messages for the traceback, and report it; with libmilter, `cannot add header` and"
        " `cannot change header` say that Postfix closed the connection while it was told of them: its log says why",
    ),
}
"""How what conclusion.py, session.py and the engines say by themselves begins, in the log and in replies."""


DAEMON_RULES: Mapping[str, Advice] = {
    "macros-missing": Advice(
        "Postfix does not tell a listener that only signs who logged in. In enforce mode the reply is 451 4.7.0.",
        "",
        "see `logins cannot be seen` below",
    ),
    "too-many-removals": Advice(
        "Behind its first 1,000 fields or 262,144 octets, the header has more than 10 fields that are to be removed,"
        " such as Authentication-Results, of which none is read there. Postfix would be busy with them for many"
        " seconds, and left in they could speak in our name: 550 5.6.0, in monitor mode too.",
        "",
        "look at who sends such mail; if it is `verify.strip_headers` that names a frequent field, take it out",
    ),
}
"""The rules that conclusion.py knows beside those of policy.py."""


def reasons() -> str:
    """docs/reasons.md."""
    return "\n".join([HEAD, *_rules(), *_checks()])


def _rules() -> Iterator[str]:
    yield "## Rules\n"
    yield (
        "The rule that decided stands in brackets in a reply, as `rule=` in the log line, and in the\n"
        "header field X-Mailguard-Policy. What a rule does is set under `[policy]`; see\n"
        "[configuration.md](configuration.md).\n"
    )
    yield "| rule | means | by default | sending side | receiving side |\n|---|---|---|---|---|"
    policy = Policy()
    for rule, advice in RULES.items():
        yield _row(rule.value, advice, f"`{policy.action(rule, ()).value}`")
    yield ""
    yield "Two rules are the daemon's own, and no action of `[policy]` changes them:\n"
    yield from _table("rule", DAEMON_RULES)
    yield "## What the daemon says by itself\n"
    yield "`reason=` or `warning=` in the log line, or the text of a reply after `mailguard: `, begins so.\n"
    yield from _table("begins with", DAEMON)


def _checks() -> Iterator[str]:
    yield "## From\n"
    yield "Why the header names no author that could be judged. Nothing that passes counts for such a message.\n"
    yield from _table("reason", _by_value(MALFORMED))
    yield "What a From that can be judged may do all the same:\n"
    yield from _table("flag", _by_value(FLAGS))
    yield "## SPF\n"
    yield "For the reverse path (`SPF`) and for the name given with HELO (`HELO`).\n"
    yield from _table("reason", _by_value(SPF) | {"permissive": SPF_PERMISSIVE})
    yield "## DKIM\n"
    yield "For each signature.\n"
    yield from _table("reason", _by_value(DKIM) | {"none": DKIM_UNSIGNED})
    yield "## DMARC\n"
    yield from _table("reason", _by_value(DMARC))
    yield "For each name for which SPF or DKIM passes, and which does not belong to the domain in From:\n"
    yield from _table(
        "alignment", {f"{method}, {mode.value}": advice for (method, mode), advice in ALIGNMENT.items()}
    )
    yield "What `mailguard dmarc check` finds to say of a record:\n"
    yield from _table("problem", _by_value(PROBLEMS))
    yield "## iprev\n"
    yield "Whether the client's address leads to a name, and the name back.\n"
    yield from _table("result", _by_value(IPREV))


def _by_value(table: Mapping[Word, Advice]) -> dict[str, Advice]:
    return {member.value: advice for member, advice in table.items()}


def _table(heading: str, rows: Mapping[str, Advice]) -> Iterator[str]:
    yield f"| {heading} | means | sending side | receiving side |\n|---|---|---|---|"
    for word, advice in rows.items():
        yield _row(word, advice)
    yield ""


def _row(word: str, advice: Advice, *more: str) -> str:
    cells = (f"`{word}`", advice.meaning, *more, advice.for_sender(), advice.for_receiver())
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
