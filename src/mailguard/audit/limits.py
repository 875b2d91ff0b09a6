"""How much one client may do. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from mailguard.audit.facts import HostFacts
from mailguard.audit.finding import Check, Found, Severity
from mailguard.audit.postfix import Service

__all__ = ["CHECKS"]

MAX_ERRORS = 20


def connection_count(facts: HostFacts) -> Iterator[Found]:
    """At one time."""
    yield from _unlimited(facts, "smtpd_client_connection_count_limit", "50", facts.postfix.public_services)


def connection_rate(facts: HostFacts) -> Iterator[Found]:
    """In anvil_rate_time_unit, a minute by default."""
    yield from _unlimited(facts, "smtpd_client_connection_rate_limit", "60", facts.postfix.public_services)


def message_rate(facts: HostFacts) -> Iterator[Found]:
    """In anvil_rate_time_unit."""
    yield from _unlimited(facts, "smtpd_client_message_rate_limit", "100", facts.postfix.public_services)


def login_rate(facts: HostFacts) -> Iterator[Found]:
    """Attempts, successful or not, in anvil_rate_time_unit."""
    if facts.postfix.knows("smtpd_client_auth_rate_limit"):
        yield from _unlimited(facts, "smtpd_client_auth_rate_limit", "10", facts.postfix.login_services)


def errors(facts: HostFacts) -> Iterator[Found]:
    """Wrong passwords and unknown recipients among them."""
    postfix = facts.postfix
    for service in postfix.public_services:
        value = postfix.value("smtpd_hard_error_limit", service)
        if value.isdecimal() and int(value) > MAX_ERRORS:
            command = postfix.setting("smtpd_hard_error_limit", str(MAX_ERRORS), service)
            yield Found(
                postfix.place("smtpd_hard_error_limit", service), f"smtpd_hard_error_limit = {value}", (command,)
            )


def message_size(facts: HostFacts) -> Iterator[Found]:
    """0 is no limit."""
    postfix = facts.postfix
    for service in (None, *postfix.public_services):
        if postfix.value("message_size_limit", service) == "0":
            command = postfix.setting("message_size_limit", "52428800", service)
            yield Found(postfix.place("message_size_limit", service), "message_size_limit = 0", (command,))


def _unlimited(facts: HostFacts, name: str, proposed: str, services: tuple[Service, ...]) -> Iterator[Found]:
    postfix = facts.postfix
    seen = set()
    for service in services:
        place = postfix.place(name, service)
        if postfix.value(name, service) == "0" and place not in seen:
            seen.add(place)
            yield Found(place, f"{name} = 0, which is no limit", (postfix.setting(name, proposed, service),))


CHECKS = (
    Check(
        "connection-count",
        Severity.WARNING,
        "A client has a limited number of connections at a time (`smtpd_client_connection_count_limit`)",
        "One client can otherwise take every process that the host has for SMTP.",
        connection_count,
    ),
    Check(
        "connection-rate",
        Severity.NOTICE,
        "A client can connect only so often a minute (`smtpd_client_connection_rate_limit`)",
        "It bounds what guessing and flooding cost the host.",
        connection_rate,
    ),
    Check(
        "message-rate",
        Severity.NOTICE,
        "A client can send only so many messages a minute (`smtpd_client_message_rate_limit`)",
        "A stolen password then sends hundreds of messages before somebody looks, not hundreds of thousands.",
        message_rate,
    ),
    Check(
        "login-rate",
        Severity.NOTICE,
        "A client can try to log in only so often a minute (`smtpd_client_auth_rate_limit`)",
        "It makes guessing passwords slow.",
        login_rate,
    ),
    Check(
        "error-limit",
        Severity.NOTICE,
        "A client is disconnected after 20 errors (`smtpd_hard_error_limit`)",
        "Unknown recipients and wrong passwords are errors: a high limit helps those who try them out.",
        errors,
    ),
    Check(
        "message-size",
        Severity.WARNING,
        "Messages have a limited size (`message_size_limit`)",
        "One message can otherwise fill the disk.",
        message_size,
    ),
)
