"""Whether SPF, DKIM and DMARC are verified, and by whom. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator

from mailguard.audit.facts import HostFacts
from mailguard.audit.finding import Check, Found, Severity, Unclear
from mailguard.audit.postfix import Service, quoted
from mailguard.audit.restriction_list import words

__all__ = ["CHECKS", "roles"]

ALL = ("SPF", "DKIM", "DMARC")
# What stands in the address of a milter or a policy service, by name or by its usual port, and what that verifies.
VERIFIERS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("rspamd", ALL),
    ("11332", ALL),
    ("opendkim", ("DKIM",)),
    ("8891", ("DKIM",)),
    ("dkimpy", ("DKIM",)),
    ("opendmarc", ("DMARC",)),
    ("8893", ("DMARC",)),
    ("policyd-spf", ("SPF",)),
    ("policy-spf", ("SPF",)),
    ("spf-policy", ("SPF",)),
    ("pyspf-milter", ("SPF",)),
    ("authentication_milter", ALL),
)
OWN_NAME = "mailguard"
"""In the address of a milter: it is a listener of ours, though the configuration names no such address."""
_ACTION = re.compile(r"\bdefault_action\s*=\s*(\w+)", re.IGNORECASE)
_SPF_ITSELF = re.compile(r"SPFSelfValidate\s+(?:true|yes|on|1)\b", re.IGNORECASE)


def verified(facts: HostFacts) -> Iterator[Found | Unclear]:
    """Port 25, or for all strangers' mail."""
    for service in facts.postfix.mx_services:
        # MILTER_README: what stands there for a client takes the place of smtpd_milters.
        if maps := facts.postfix.value("smtpd_milter_maps", service):
            yield Unclear(
                f"{service.place}: whose mail passes which milters is not known: smtpd_milter_maps = {maps}"
            )
            continue
        # MILTER_README: behind such a proxy, milters see the commands alone.
        proxy = facts.postfix.value("smtpd_proxy_filter", service)
        milters = () if proxy else facts.milters(service)
        asked = tuple(map(address_of, (*milters, *facts.policy_services(service))))
        known = {what for address in asked for what in _verifies(facts, address)}
        if "DMARC" in known and _opendmarc_checks_spf(facts):
            known.add("SPF")
        missing = [what for what in ALL if what not in known]
        others = (each for each in map(address_of, milters) if not _role(facts, each))
        strange = [each for each in others if not _verifies(facts, each)]
        if proxy:
            strange.append(f"the proxy at {proxy}, behind which milters see no content,")
        if missing and strange:
            yield Unclear(f"{service.place}: whether {', '.join(strange)} verifies {', '.join(missing)} is not known")
        elif missing:
            # Mail would wait for a milter that is not there, or in a chroot is not where Postfix looks for it.
            directory = "" if facts.postfix.is_default else f" --config-directory {quoted(facts.postfix.directory)}"
            command = f"mailguard postconf --apply{directory}"
            if facts.mailguard is None:
                command = "# mailguard quickstart DOMAIN --apply"
            yield Found(service.place, f"nothing verifies {', '.join(missing)}", (command,))


def default_action(facts: HostFacts) -> Iterator[Found]:
    """For all milters, and for a single one in braces; mail of strangers and of users, each place named once."""
    postfix = facts.postfix
    seen = set()
    for service in postfix.public_services:
        milters = facts.milters(service)
        own = [_default_action(each) for each in milters]
        if "" in own and postfix.value("milter_default_action", service).lower() == "accept":
            name, what = "milter_default_action", "milter_default_action = accept"
            command = postfix.setting(name, "tempfail", service)
        elif "accept" in own:
            name, what = "smtpd_milters", "a milter in smtpd_milters has default_action=accept"
            new = (re.sub(r"\s*=\s*", "=", re.sub(r"([{}])", r" \1 ", each)) for each in milters)
            mended = (_ACTION.sub("default_action=tempfail", " ".join(each.split())) for each in new)
            command = postfix.setting(name, ", ".join(mended), service)
        else:
            continue
        place = postfix.place(name, service)
        if (name, place) not in seen:
            seen.add((name, place))
            yield Found(service.place, what, (command,))


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


def enforcing(facts: HostFacts) -> Iterator[Found | Unclear]:
    """mailguard's mode."""
    if facts.mailguard_problem:
        yield Unclear(facts.mailguard_problem)
    elif facts.mailguard is not None and facts.mailguard.mode != "enforce":
        commands = (
            "mailguard enforce --dry-run",
            '# then set mode = "enforce" and: systemctl reload mailguard-milter',
        )
        yield Found(
            "mailguard.toml", f'mode = "{facts.mailguard.mode}": mail is judged, and nothing refused', commands
        )


def _default_action(milter: str) -> str:
    """What stands in the braces of a single milter, if anything."""
    found = _ACTION.search(milter) if milter.startswith("{") else None
    return found[1].lower() if found else ""


def _opendmarc_checks_spf(facts: HostFacts) -> bool:
    return any(_SPF_ITSELF.match(line) for line in facts.settings.get("opendmarc", ()))


def address_of(milter: str) -> str:
    """Without the settings in braces."""
    return words(milter.strip("{}"))[0] if words(milter.strip("{}")) else milter


def roles(facts: HostFacts, service: Service) -> frozenset[str]:
    """Those of mailguard's listeners that mail through the service passes."""
    return frozenset(filter(None, (_role(facts, address_of(each)) for each in facts.milters(service))))


def _role(facts: HostFacts, address: str) -> str:
    """That of mailguard's listener at the address; empty if it is another's milter."""
    listeners = facts.mailguard.listeners if facts.mailguard is not None else {}
    named = "auto" if OWN_NAME in address else ""
    return next((role for each, role in listeners.items() if _is_same(address, each)), named)


def _verifies(facts: HostFacts, address: str) -> tuple[str, ...]:
    role = _role(facts, address)
    if role:
        # With the role "sign", mail of strangers is passed by.
        return () if role == "sign" else ALL
    found = (what for name, what in VERIFIERS if name in address)
    return tuple(dict.fromkeys(each for what in found for each in what))


def _is_same(address: str, listener: str) -> bool:
    """A chrooted smtpd names a socket by its path below the queue directory; a host has many names, a port one."""
    kind, _, path = address.partition(":")
    if kind == "unix":
        return address == listener or listener.endswith(f"/{path.lstrip('/')}")
    return kind.startswith("inet") and listener.startswith("inet") and _port(address) == _port(listener)


def _port(address: str) -> str:
    return address.rpartition(":")[2]


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
