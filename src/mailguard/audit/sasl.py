"""Logins, and whose address they may use. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from mailguard.audit.facts import HostFacts, MailguardFacts
from mailguard.audit.finding import Check, Found, Severity, Unclear
from mailguard.audit.milters import roles
from mailguard.audit.postfix import Service
from mailguard.audit.restriction_list import reaches, words
from mailguard.audit.tls_server import requires_tls

__all__ = ["CHECKS", "IREDAPD"]

MISMATCHES = (
    "reject_sender_login_mismatch",
    "reject_authenticated_sender_login_mismatch",
    "reject_known_sender_login_mismatch",
)
SENDER_LISTS = ("smtpd_client_restrictions", "smtpd_helo_restrictions", "smtpd_sender_restrictions")
LETS_LOGINS_IN = ("permit", "permit_sasl_authenticated")
LATER_LISTS = ("smtpd_relay_restrictions", "smtpd_recipient_restrictions")
IREDAPD = ":7777"
"""Where iRedMail's policy service listens. What it refuses stands in a file of its own."""
MAPS_HINT = "# fill smtpd_sender_login_maps, or use mailguard's [senders]: docs/senders.md"


def under_tls(facts: HostFacts) -> Iterator[Found]:
    """Where TLS is optional, a login must not be."""
    postfix = facts.postfix
    for service in postfix.login_services:
        # `noplaintext`: in the clear, no password is taken that could be read.
        options = words(postfix.value("smtpd_sasl_security_options", service).lower())
        if requires_tls(postfix, service) or "noplaintext" in options:
            continue
        if not postfix.is_on("smtpd_tls_auth_only", service):
            command = postfix.setting("smtpd_tls_auth_only", "yes", service)
            yield Found(service.place, "a login is accepted in the clear: smtpd_tls_auth_only = no", (command,))


def not_anonymous(facts: HostFacts) -> Iterator[Found]:
    """In the clear and under TLS."""
    postfix = facts.postfix
    for service in postfix.login_services:
        for name in ("smtpd_sasl_security_options", "smtpd_sasl_tls_security_options"):
            value = postfix.value(name, service)
            if "noanonymous" not in words(value.lower()):
                fixed = ", ".join((*words(value), "noanonymous"))
                yield Found(service.place, postfix.shown(name, service), (postfix.setting(name, fixed, service),))


def separate(facts: HostFacts) -> Iterator[Found]:
    """Users log in on ports of their own."""
    postfix = facts.postfix
    for service in postfix.mx_services:
        if service in postfix.login_services:
            others = [each.place for each in postfix.submission_services]
            shown = f"submission is also at {', '.join(others)}" if others else "there is no service for submission"
            commands: tuple[str, ...] = (postfix.service_setting("smtpd_sasl_auth_enable", "no", service),)
            if not others:
                commands = ("# first uncomment submission and submissions in master.cf, then:", *commands)
            yield Found(service.place, f"users can log in on port 25; {shown}", commands)


def own_address(facts: HostFacts) -> Iterator[Found | Unclear]:
    """Either Postfix or mailguard holds a login to its addresses."""
    ours = facts.mailguard if facts.mailguard is not None and facts.mailguard.sender_sources else None
    postfix = facts.postfix
    for service in postfix.login_services:
        maps = postfix.value("smtpd_sender_login_maps", service)
        if maps and _rejects_mismatch(facts, service):
            continue
        loophole = _loophole(facts, ours, service) if ours is not None else ""
        if ours is not None and not loophole:
            continue
        if facts.mailguard_problem:
            yield Unclear(f"{service.place}: whether mailguard does is not known: {facts.mailguard_problem}")
            continue
        if policy := _iredapd(facts, service):
            yield Unclear(
                f"{service.place}: whether {policy}, which is iRedAPD, refuses a mismatch is not known: its plugin"
                " reject_sender_login_mismatch does, for the reverse path, and knows aliases that"
                " smtpd_sender_login_maps does not. Nobody looks at From (docs/mail-systems.md, iRedMail)"
            )
            continue
        command = postfix.prepended("smtpd_sender_restrictions", MISMATCHES[0], service, for_it_alone=True)
        missing = "no restriction refuses a mismatch" if maps else "smtpd_sender_login_maps is empty"
        if loophole:
            missing += f", and {loophole}"
        commands = (command,) if maps else (MAPS_HINT, command)
        yield Found(service.place, f"a login may send as anybody: {missing}", commands)


def _loophole(facts: HostFacts, ours: MailguardFacts, service: Service) -> str:
    """Why mailguard does not hold the logins of a service to their addresses; empty if it does."""
    if ours.mode != "enforce":
        return "mailguard refuses nothing in monitor mode"
    if not ours.keeps_senders_back:
        return "[senders.actions] of mailguard keeps nothing back"
    if roles(facts, service) <= {"verify"}:
        return "its mail passes no listener of mailguard that looks at logins"
    return ""


def _rejects_mismatch(facts: HostFacts, service: Service) -> bool:
    return any(reaches(each, MISMATCHES, before=LETS_LOGINS_IN) for each in _lists(facts, service))


def _iredapd(facts: HostFacts, service: Service) -> str:
    """As it is asked about a login; empty if it is not."""
    lists = _lists(facts, service)
    named = (word for each in lists for word in each if word.endswith(IREDAPD))
    asked = (word for word in named if any(reaches(each, (word,), before=LETS_LOGINS_IN) for each in lists))
    return next((f"check_policy_service {word}" for word in asked), "")


def _lists(facts: HostFacts, service: Service) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(facts.restrictions(name, service)) for name in (*SENDER_LISTS, *LATER_LISTS))


CHECKS = (
    Check(
        "login-under-tls",
        Severity.CRITICAL,
        "A login is accepted under TLS alone (`smtpd_tls_auth_only = yes`)",
        "Passwords in the clear are read by everybody on the way.",
        under_tls,
    ),
    Check(
        "login-not-anonymous",
        Severity.CRITICAL,
        "Nobody logs in as nobody (`noanonymous` in `smtpd_sasl_security_options` and"
        " `smtpd_sasl_tls_security_options`)",
        "An anonymous login counts as a login, and whoever has one may send anything to anybody.",
        not_anonymous,
    ),
    Check(
        "submission-separate",
        Severity.WARNING,
        "Port 25 offers no login; users send through submission (587, 465)",
        "Passwords are guessed on port 25, which cannot be closed or restricted to users.",
        separate,
    ),
    Check(
        "sender-login",
        Severity.WARNING,
        "A login may use only its own addresses: `smtpd_sender_login_maps` with `reject_sender_login_mismatch` before"
        " any `permit_sasl_authenticated`, or mailguard's `[senders]`",
        "One stolen password then sends as the chief executive, correctly signed.",
        own_address,
    ),
)
