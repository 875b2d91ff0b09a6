"""SMTP smuggling: a message inside another one, which passes as the sending server's own. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from mailguard.audit.facts import HostFacts
from mailguard.audit.finding import Check, Found, Severity
from mailguard.audit.postfix import Postfix, Service
from mailguard.audit.restriction_list import words

__all__ = ["BARE_NEWLINE", "CHECKS", "GOOD", "NORMALIZE", "PIPELINING"]

GOOD = frozenset({"yes", "normalize", "reject"})
BARE_NEWLINE = "smtpd_forbid_bare_newline"
NORMALIZE = "yes"
"""The older name of `normalize`: 3.5.23, 3.6.13, 3.7.9 and 3.8.4 know no other, and do not start with that."""
PIPELINING = "smtpd_forbid_unauth_pipelining"


def end_of_data(facts: HostFacts) -> Iterator[Found]:
    """The end of a message is CRLF, a dot and CRLF, and nothing else."""
    postfix = facts.postfix
    for service in postfix.public_services:
        value = postfix.value(BARE_NEWLINE, service).lower()
        if postfix.knows(BARE_NEWLINE):
            if value not in GOOD:
                command = postfix.setting(BARE_NEWLINE, NORMALIZE, service)
                yield Found(postfix.place(BARE_NEWLINE, service), f"{BARE_NEWLINE} = {value}", (command,))
        elif not _older_way(facts, postfix, service):
            shown = ".".join(map(str, postfix.version))
            discarded = words(postfix.value("smtpd_discard_ehlo_keywords", service))
            commands = (
                "# better: upgrade to 3.5.24, 3.6.14, 3.7.10, 3.8.5, 3.9 or later; until then:",
                postfix.prepended("smtpd_data_restrictions", "reject_unauth_pipelining", service),
                postfix.setting("smtpd_discard_ehlo_keywords", ", ".join((*discarded, "chunking")), service),
            )
            yield Found(service.place, f"Postfix {shown} has no {BARE_NEWLINE}", commands)


def commands_in_turn(facts: HostFacts) -> Iterator[Found]:
    """Port 25, where clients are strangers."""
    postfix = facts.postfix
    for service in postfix.mx_services:
        by_list = "reject_unauth_pipelining" in facts.restrictions("smtpd_data_restrictions", service)
        if by_list or postfix.is_on(PIPELINING, service):
            continue
        if postfix.knows(PIPELINING):
            command = postfix.setting(PIPELINING, "yes", service)
        else:
            command = postfix.prepended("smtpd_data_restrictions", "reject_unauth_pipelining", service)
        yield Found(service.place, "commands out of turn are accepted", (command,))


def _older_way(facts: HostFacts, postfix: Postfix, service: Service) -> bool:
    by_list = "reject_unauth_pipelining" in facts.restrictions("smtpd_data_restrictions", service)
    discarded = words(postfix.value("smtpd_discard_ehlo_keywords", service).lower())
    return (by_list or postfix.is_on(PIPELINING, service)) and "chunking" in discarded


CHECKS = (
    Check(
        "smuggling-end-of-data",
        Severity.CRITICAL,
        "The end of a message is where every other server sees it (`smtpd_forbid_bare_newline = yes`)",
        "A message hidden in another one arrives as the sending server's own, and passes its SPF.",
        end_of_data,
    ),
    Check(
        "smuggling-pipelining",
        Severity.WARNING,
        "Commands that a client sends out of turn are refused (`smtpd_forbid_unauth_pipelining = yes`, or"
        " `reject_unauth_pipelining` in `smtpd_data_restrictions`)",
        "Smuggled commands arrive so; and so do those of programs that do not wait for the answer.",
        commands_in_turn,
    ),
)
