"""Whether SPF, DKIM and DMARC are verified, and by whom. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from mailguard.audit.facts import HostFacts
from mailguard.audit.finding import Check, Found, Severity, Unclear
from mailguard.audit.restriction_list import words

__all__ = ["CHECKS"]

ALL = ("SPF", "DKIM", "DMARC")
# What stands in the address of a milter or a policy service, by name or by its usual port, and what that verifies.
VERIFIERS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("mailguard", ALL),
    ("rspamd", ALL),
    ("11332", ALL),
    ("opendkim", ("DKIM",)),
    ("dkimpy", ("DKIM",)),
    ("opendmarc", ("DMARC",)),
    ("8893", ("DMARC",)),
    ("policyd-spf", ("SPF",)),
    ("policy-spf", ("SPF",)),
    ("spf-policy", ("SPF",)),
    ("pyspf-milter", ("SPF",)),
    ("authentication_milter", ALL),
)
OUR_SOCKET = "unix:/run/mailguard/mailguard.sock"


def verified(facts: HostFacts) -> Iterator[Found | Unclear]:
    """Port 25, or for all strangers' mail."""
    for service in facts.postfix.mx_services:
        asked = tuple(map(address_of, (*facts.milters(service), *facts.policy_services(service))))
        known = {what for address in asked for what in _verifies(facts, address)}
        missing = [what for what in ALL if what not in known]
        strange = [each for each in map(address_of, facts.milters(service)) if not _verifies(facts, each)]
        if missing and strange:
            yield Unclear(f"{service.place}: whether {', '.join(strange)} verifies {', '.join(missing)} is not known")
        elif missing:
            ours = OUR_SOCKET if facts.mailguard is None else " ".join(facts.mailguard.listeners[:1]) or OUR_SOCKET
            commands = (
                "# mailguard key new DOMAIN, and /etc/mailguard/mailguard.toml: README.md; then:",
                facts.postfix.prepended("smtpd_milters", ours, service),
            )
            yield Found(service.place, f"nothing verifies {', '.join(missing)}", commands)


def default_action(facts: HostFacts) -> Iterator[Found]:
    """For all milters, and for a single one in braces."""
    postfix = facts.postfix
    for service in postfix.mx_services:
        milters = facts.milters(service)
        if milters and postfix.value("milter_default_action", service) == "accept":
            command = postfix.setting("milter_default_action", "tempfail", service)
            yield Found(service.place, "milter_default_action = accept", (command,))
        elif any("default_action=accept" in each.replace(" ", "") for each in milters):
            new = ", ".join(milters).replace(" ", "").replace("default_action=accept", "default_action=tempfail")
            command = postfix.setting("smtpd_milters", new.replace(",", ", "), service)
            yield Found(service.place, "a milter in smtpd_milters has default_action=accept", (command,))


def originating(facts: HostFacts) -> Iterator[Found]:
    """The name tells signers that all mail of a service is of this host's own users."""
    postfix = facts.postfix
    for service in postfix.mx_services:
        if postfix.value("milter_macro_daemon_name", service) == "ORIGINATING":
            commands = [postfix.setting("milter_macro_daemon_name", "$myhostname", service)]
            if "milter_macro_daemon_name" not in service.overrides:
                commands += [
                    postfix.service_setting("milter_macro_daemon_name", "ORIGINATING", each)
                    for each in postfix.submission_services
                ]
            yield Found(service.place, "milter_macro_daemon_name = ORIGINATING", tuple(commands))


def enforcing(facts: HostFacts) -> Iterator[Found]:
    """mailguard's mode."""
    if facts.mailguard is not None and facts.mailguard.mode != "enforce":
        commands = (
            "mailguard enforce --dry-run",
            '# then set mode = "enforce" and: systemctl reload mailguard-milter',
        )
        yield Found(
            "mailguard.toml", f'mode = "{facts.mailguard.mode}": mail is judged, and nothing refused', commands
        )


def address_of(milter: str) -> str:
    """Without the settings in braces."""
    return words(milter.strip("{}"))[0] if words(milter.strip("{}")) else milter


def _verifies(facts: HostFacts, address: str) -> tuple[str, ...]:
    if facts.mailguard is not None and any(_is_same(address, each) for each in facts.mailguard.listeners):
        return ALL
    found = (what for name, what in VERIFIERS if name in address)
    return tuple(dict.fromkeys(each for what in found for each in what))


def _is_same(address: str, listener: str) -> bool:
    """A chrooted smtpd names a socket by its path below the queue directory."""
    kind, _, path = address.partition(":")
    return address == listener or (kind == "unix" and listener.endswith(f"/{path.lstrip('/')}"))


CHECKS = (
    Check(
        "authentication",
        Severity.WARNING,
        "SPF, DKIM and DMARC of the mail that comes in are verified by a milter (`smtpd_milters`)",
        "Without it anybody can write to your users in anybody's name, also in your own.",
        verified,
    ),
    Check(
        "milter-default-action",
        Severity.WARNING,
        "Mail waits while the milter is down (`milter_default_action = tempfail`)",
        "With `accept`, mail passes unverified and unsigned, and with results forged in your name.",
        default_action,
    ),
    Check(
        "originating",
        Severity.CRITICAL,
        "Port 25 does not call its mail ORIGINATING (`milter_macro_daemon_name`)",
        "A signer takes the mail of strangers for that of your users and signs it.",
        originating,
    ),
    Check(
        "mailguard-enforces",
        Severity.NOTICE,
        'mailguard refuses what fails (`mode = "enforce"`)',
        "In monitor mode forged mail is marked and delivered.",
        enforcing,
    ),
)
