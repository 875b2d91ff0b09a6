"""What Postfix must be told so that its mail passes mailguard: the settings that are missing, and why each. Pure.

docs/postfix.md has the reasons at length. Left out: what belongs to other milters, and services that take mail back
from a content filter, whose part nobody but the administrator knows.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from ipaddress import ip_address

from mailguard.audit.facts import HostFacts
from mailguard.audit.postfix import MX_PORTS, SUBMISSION_PORTS, Postfix, Service, parameters, quoted
from mailguard.audit.restriction_list import effective, words
from mailguard.audit.smuggling import BARE_NEWLINE, GOOD, PIPELINING
from mailguard.config import Config, Listener
from mailguard.setup_host.milter_entry import TEMPFAIL, Entry, entries, is_listener
from mailguard.setup_host.milter_list import BRACES_SINCE, MILTERS, OTHER_MILTERS, MilterLists, Written, is_ours

__all__ = [
    "MILTERS",
    "OTHER_MILTERS",
    "MilterPlan",
    "Setting",
    "chrooted_services",
    "is_for_users",
    "is_ours",
    "listener_for",
    "macro_settings",
    "milter_plan",
    "milter_services",
    "missing_macros",
]

PROTOCOL = "6"
DAEMON_NAME = "milter_macro_daemon_name"
OVERRIDE = "receive_override_options"
MACROS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("milter_connect_macros", ("{daemon_name}",)),
    ("milter_mail_macros", ("{auth_type}", "{auth_authen}", "{mail_addr}")),
    ("milter_end_of_data_macros", ("i",)),
)
# The lists before the message itself: whom one of them refuses sends nothing.
REFUSING_LISTS = (
    "smtpd_client_restrictions",
    "smtpd_helo_restrictions",
    "smtpd_sender_restrictions",
    "smtpd_relay_restrictions",
    "smtpd_recipient_restrictions",
)
LOGINS = frozenset({"permit_sasl_authenticated", "permit_tls_clientcerts", "permit_tls_all_clientcerts"})
LOOPBACK = ip_address("127.0.0.1")
# What keeps one message from being two, the value for it, and those that do as well.
SMUGGLING = ((BARE_NEWLINE, "normalize", GOOD), (PIPELINING, "yes", frozenset({"yes"})))


@dataclass(frozen=True, slots=True)
class Setting:
    """One parameter, in main.cf or for a service alone."""

    name: str
    value: str
    why: str
    service: Service | None = None

    @property
    def argument(self) -> str:
        """What postconf -e takes, or -P for a service: in its value are no blanks."""
        if self.service is None:
            return f"{self.name} = {self.value}"
        value = re.sub(r"\s*=\s*", "=", self.value.replace("{ ", "{").replace(" }", "}"))
        return f"{self.service.place}/{self.name}={','.join(value.replace(',', ' ').split())}"

    def command(self, postfix: Postfix) -> str:
        """For a shell."""
        return f"{postfix.postconf} -{'e' if self.service is None else 'P'} {quoted(self.argument)}"


@dataclass(frozen=True, slots=True)
class MilterPlan:
    """What is missing."""

    settings: tuple[Setting, ...]
    notes: tuple[str, ...]
    """What to know besides, a sentence each."""


def chrooted_services(text: str, postfix: Postfix) -> frozenset[str]:
    """The places of the services in a chroot, from the output of `postconf -F '*/*/chroot'`."""
    level = postfix.value("compatibility_level").partition(".")[0]
    # master(5): `-` is `n` since 3.0, unless it has to be as it was before.
    otherwise = "n" if level.isdigit() and int(level) >= 1 and postfix.version >= BRACES_SINCE else "y"
    found = parameters(text)
    return frozenset(
        name.removesuffix("/chroot") for name, value in found.items() if value.replace("-", otherwise) == "y"
    )


def milter_services(postfix: Postfix) -> tuple[Service, ...]:
    """Every smtpd whose mail passes milters, if there are any."""
    return tuple(
        each for each in postfix.running("smtpd") if "no_milters" not in words(postfix.value(OVERRIDE, each))
    )


def _takes_back(service: Service) -> bool:
    """Whether a content filter on this host returns mail to it: only there, mail must not go to the filter again."""
    on_loopback = service.address.startswith("127.") or service.address in ("localhost", "::1")
    return on_loopback and service.kind == "inet" and service.overrides.get("content_filter") == ""


def is_for_users(facts: HostFacts, service: Service) -> bool:
    """Whether our own users alone send through it: by its port, or because it refuses who has not logged in."""
    if service.port in SUBMISSION_PORTS:
        return True
    is_login = facts.postfix.is_on("smtpd_sasl_auth_enable", service)
    return is_login and service.port not in MX_PORTS and service.kind == "inet" and _refuses(facts, service)


def _refuses(facts: HostFacts, service: Service) -> bool:
    """Whether one of its lists lets nobody through but who has logged in.

    A content filter returns mail that came from anywhere to a service with `permit_mynetworks, reject`.
    """
    lists = (tuple(effective(facts.restrictions(name, service))) for name in REFUSING_LISTS)
    return any(
        each[-1:] == ("reject",) and all(word in LOGINS for word in each if word.startswith(("permit", "check_")))
        for each in lists
    )


def listener_for(config: Config, roles: Sequence[str], present: Sequence[Entry], queue: str) -> Listener | None:
    """The listener of the first of these roles that there is; of several, the one that Postfix has already."""
    for role in roles:
        found = [each for each in config.listeners if each.role == role]
        named = [each for each in found if any(is_listener(one, each, queue_directory=queue) for one in present)]
        if found:
            return (named or found)[0]
    return None


def missing_macros(postfix: Postfix, service: Service | None) -> Iterator[tuple[str, tuple[str, ...]]]:
    """The lists of macros that lack something that is read, and what: without it, nobody's login is seen."""
    for name, needed in MACROS:
        found = {each.strip("{}") for each in words(postfix.value(name, service))}
        missing = tuple(each for each in needed if each.strip("{}") not in found)
        if missing:
            yield name, missing


def macro_settings(postfix: Postfix) -> Iterator[Setting]:
    """The lists of macros with what they lack, where they stand."""
    places: tuple[Service | None, ...] = (None, *milter_services(postfix))
    for service in places:
        for name, missing in missing_macros(postfix, service):
            if service is None or name in service.overrides:
                value = " ".join((*words(postfix.value(name, service)), *missing))
                yield Setting(name, value, f"{' '.join(missing)} was taken out, and is read", service)


def milter_plan(
    facts: HostFacts, config: Config, *, chrooted: frozenset[str], written: Written | None = None
) -> MilterPlan:
    """Without `written`, a list that changes has what each `$name` stands for. Raises ConfigError where a service
    cannot reach a listener."""
    return _Planner(facts, config, chrooted, written or Written()).plan()


class _Planner:
    """The pieces of one plan share all of this."""

    def __init__(self, facts: HostFacts, config: Config, chrooted: frozenset[str], written: Written) -> None:
        self._facts, self._config, self._postfix = facts, config, facts.postfix
        self._queue = facts.postfix.value("queue_directory")
        self._services = milter_services(facts.postfix)
        using = (*self._services, *facts.postfix.running("cleanup"))
        places = tuple(each.place for each in using if each.place in chrooted)
        self._lists = MilterLists(config, facts.postfix, written, places)
        present = entries(self._postfix.value(MILTERS))
        per_service = (each for s in self._services for each in entries(self._postfix.value(MILTERS, s)))
        present = (*present, *per_service)
        self._strangers = listener_for(config, ("verify", "auto"), present, self._queue)
        self._users = listener_for(config, ("sign", "auto"), present, self._queue)

    def plan(self) -> MilterPlan:
        settings = [*self._milters(), *self._of_other_mail(), *self._everywhere(), *macro_settings(self._postfix)]
        settings += self._names()
        # What a service sets begins with what main.cf sets: so main.cf comes first.
        settings.sort(key=lambda each: each.service is not None)
        return MilterPlan(tuple(settings), tuple(self._notes()))

    def _milters(self) -> Iterator[Setting]:
        main = self._postfix.value(MILTERS)
        wanted = self._lists.arranged(main, self._lists.as_written(MILTERS), self._strangers)
        if wanted.entries != entries(main):
            why = "mail from outside is verified; mailguard sees it first, as it came"
            if self._strangers is None:
                why = "no listener verifies: mail from outside does not pass mailguard"
            elif self._strangers.role == "auto":
                why = "mail from outside is verified, that of users who have logged in signed; mailguard comes first"
            yield Setting(MILTERS, wanted.text, why)
        for service in self._services:
            overrides = service.overrides
            value, written = overrides.get(MILTERS, main), self._lists.as_written(MILTERS, service)
            if is_for_users(self._facts, service):
                wanted_here = self._lists.arranged(value, written, self._users)
                if MILTERS in overrides:
                    needed = wanted_here.entries != entries(value)
                else:
                    needed = wanted_here.entries != wanted.entries
                why = "mail of your users is signed as it leaves, after all other milters"
                if self._users is None:
                    why = "no listener signs: mail of your users does not pass mailguard"
                elif self._users.role == "auto":
                    why = f"mail of your users is signed; {service.place} has a list of its own"
            else:
                # An empty list was emptied on purpose.
                needed = bool(entries(overrides.get(MILTERS, "")))
                wanted_here = self._lists.arranged(value, written, self._strangers)
                needed = needed and wanted_here.entries != entries(value)
                why = f"as in main.cf: {service.place} has a list of its own"
            if needed:
                yield Setting(MILTERS, wanted_here.text, why, service)

    def _of_other_mail(self) -> Iterator[Setting]:
        signs = any(LOOPBACK in network for rule in self._config.sign.networks for network in rule.networks)
        listener = self._users if signs and self._users is not None else self._strangers
        value = self._postfix.value(OTHER_MILTERS)
        follows = self._postfix.aliases.get(OTHER_MILTERS) == MILTERS and listener is self._strangers
        wanted = self._lists.arranged(value, self._lists.as_written(OTHER_MILTERS), listener)
        if not follows and wanted.entries != entries(value):
            signed = "signed, as [[sign.networks]] lists 127.0.0.1" if signs else "verified, and not signed"
            yield Setting(OTHER_MILTERS, wanted.text, f"mail from sendmail(1) on this host is {signed}")

    def _everywhere(self) -> Iterator[Setting]:
        why = "mailguard then sees header fields octet for octet"
        yield from self._unless("milter_protocol", PROTOCOL, frozenset({PROTOCOL}), why)
        if self._postfix.version < BRACES_SINCE:
            why = "mail waits while mailguard is down; before 3.0 this is for all milters"
            yield from self._unless("milter_default_action", TEMPFAIL, frozenset({TEMPFAIL}), why)
        # Postfix before 3.9 has it off; where the version has no such setting, the audit says what else there is.
        why = "what a stranger hides in a message would pass SPF as the mail of the server that sends it"
        for name, value, fine in SMUGGLING if self._postfix.public_services else ():
            if self._postfix.knows(name):
                yield from self._unless(name, value, fine, why)

    def _unless(self, name: str, value: str, fine: frozenset[str], why: str) -> Iterator[Setting]:
        if self._postfix.value(name) not in fine:
            yield Setting(name, value, why)
        for service in self._services:
            if service.overrides.get(name, value) not in fine:
                yield Setting(name, value, why, service)

    def _names(self) -> Iterator[Setting]:
        names = self._config.sign.daemon_names
        for service in self._services if names and self._users is not None else ():
            is_named = self._postfix.value(DAEMON_NAME, service) in names
            if is_for_users(self._facts, service) and _refuses(self._facts, service) and not is_named:
                yield Setting(DAEMON_NAME, names[0], "all mail that this service accepts is of your users", service)

    def _notes(self) -> Iterator[str]:
        postfix, names = self._postfix, self._config.sign.daemon_names
        if self._strangers is None:
            yield 'no listener has role "verify" or "auto": mail from outside is not judged'
        if self._users is None:
            yield 'no listener has role "sign" or "auto": mail of your users is not signed'
        for service in self._services:
            for_users = is_for_users(self._facts, service)
            if for_users and not _refuses(self._facts, service):
                yield (
                    f"{service.place} does not refuse who has not logged in, so that only who has is signed: set"
                    f" {postfix.postconf} -P"
                    f" {quoted(f'{service.place}/smtpd_relay_restrictions=permit_sasl_authenticated,reject')}"
                )
            elif not for_users and postfix.value(DAEMON_NAME, service) in names:
                yield (
                    f"{service.place} is called {postfix.value(DAEMON_NAME, service)}, and takes mail from others"
                    " than your users: whatever it accepts is signed. Take that away:"
                    f" {postfix.setting(DAEMON_NAME, '$myhostname', service)}"
                )
        yield from self._filters()
        yield self._internal()

    def _filters(self) -> Iterator[str]:
        postfix = self._postfix
        places: tuple[Service | None, ...] = (None, *postfix.services)
        returning = [each for each in postfix.running("smtpd") if _takes_back(each)]
        for service in returning:
            if service in self._services and MILTERS not in service.overrides:
                options = (*words(postfix.value(OVERRIDE, service)), "no_milters")
                yield (
                    f"{service.place} takes mail back from a content filter, which then passes mailguard a second"
                    " time: what it found before is removed, and what the filter sends is judged. Unless this service"
                    f" signs: {postfix.service_setting(OVERRIDE, ','.join(options), service)}"
                )
        if not returning and any(postfix.value("content_filter", service) for service in places):
            yield (
                "there is a content filter: the service that takes mail back from it needs -o"
                f" {OVERRIDE}=no_milters (docs/postfix.md, Content filters)"
            )
        yield from self._filter_programs()
        for service in self._services:
            if proxy := postfix.value("smtpd_proxy_filter", service):
                yield (
                    f"{service.place} hands mail to a proxy (smtpd_proxy_filter = {proxy}), and milters do not see"
                    " what is in it: it is neither signed nor verified. Use content_filter (docs/postfix.md, Content"
                    " filters)"
                )

    def _filter_programs(self) -> Iterator[str]:
        """They give mail back with sendmail(1)."""
        postfix = self._postfix
        places: tuple[Service | None, ...] = (None, *postfix.services)
        filters = {postfix.value("content_filter", each).partition(":")[0] for each in places}
        programs = ", ".join(each.name for each in postfix.running("pipe") if each.name in filters)
        for pickup in postfix.running("pickup") if programs else ():
            options = words(postfix.value(OVERRIDE, pickup))
            if "no_milters" not in options:
                command = postfix.service_setting(OVERRIDE, ",".join((*options, "no_milters")), pickup)
                yield (
                    f"{programs} filters mail with a program. If that gives it back with sendmail(1), it passes"
                    f" {OTHER_MILTERS} as mail of this host: what mailguard found before is removed. Then set:"
                    f" {command}"
                )

    def _internal(self) -> str:
        found = self._postfix.value("internal_mail_filter_classes")
        if "bounce" in words(found):
            return (
                f"internal_mail_filter_classes = {found}: bounces that Postfix makes pass non_smtpd_milters as mail"
                " of this host, and are signed only where [[sign.networks]] lists 127.0.0.1"
            )
        return (
            "internal_mail_filter_classes is left as it is: bounces that Postfix makes pass no milter and are not"
            " signed. `bounce` there sends them through non_smtpd_milters; list 127.0.0.1 in [[sign.networks]] then"
        )
