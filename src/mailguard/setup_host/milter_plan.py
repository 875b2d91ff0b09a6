"""What Postfix must be told so that its mail passes mailguard: the settings that are missing, and why each. Pure.

docs/postfix.md has the reasons at length. Left out: what belongs to other milters, and services that take mail back
from a content filter and have milters, whose part nobody but the administrator knows.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import NamedTuple

from mailguard.audit.facts import HostFacts
from mailguard.audit.postfix import MX_PORTS, SUBMISSION_PORTS, Postfix, Service, parameters, quoted
from mailguard.audit.restriction_list import effective, words
from mailguard.audit.smuggling import BARE_NEWLINE, GOOD, NORMALIZE, PIPELINING
from mailguard.config import Config, Listener
from mailguard.setup_host.milter_entry import TEMPFAIL, Entry, entries, is_below, is_in_our_directory, is_listener
from mailguard.setup_host.milter_list import BRACES_SINCE, MILTERS, OTHER_MILTERS, MilterLists, Written, is_ours

__all__ = [
    "MILTERS",
    "OTHER_MILTERS",
    "OVERRIDE",
    "MilterPlan",
    "Note",
    "Setting",
    "chrooted_services",
    "is_ours",
    "macro_settings",
    "milter_places_in_chroots",
    "milter_plan",
    "milter_services",
]

PROTOCOL = "6"
DAEMON_NAME = "milter_macro_daemon_name"
OVERRIDE = "receive_override_options"
PROXY = "smtpd_proxy_filter"
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
LOOPBACK_6 = ip_address("::1")
# Of a host with more domains, so many are named.
MAX_DOMAINS_SHOWN = 5
# What keeps one message from being two, the value for it, and those that do as well.
SMUGGLING = ((BARE_NEWLINE, NORMALIZE, GOOD), (PIPELINING, "yes", frozenset({"yes"})))


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


class Note(NamedTuple):
    """What to know besides, in a sentence."""

    text: str
    is_problem: bool = False
    """Mail of strangers is signed, passes though mailguard is named, or waits."""


@dataclass(frozen=True, slots=True)
class MilterPlan:
    """What is missing."""

    settings: tuple[Setting, ...]
    notes: tuple[Note, ...]


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


def milter_places_in_chroots(postfix: Postfix, chrooted: Container[str]) -> tuple[str, ...]:
    """The services that reach milters, cleanup(8) among them, and are in `chrooted`."""
    using = (*milter_services(postfix), *postfix.running("cleanup"))
    return tuple(each.place for each in using if each.place in chrooted)


def _takes_back(service: Service) -> bool:
    """Whether a content filter on this host returns mail to it: only there, mail must not go to the filter again."""
    on_loopback = service.address.startswith("127.") or service.address in ("localhost", "::1")
    return on_loopback and service.kind == "inet" and service.overrides.get("content_filter") == ""


def _without_milters(postfix: Postfix, service: Service) -> str:
    """What its receive_override_options becomes."""
    return ",".join((*words(postfix.value(OVERRIDE, service)), "no_milters"))


def _clients(service: Service) -> tuple[IPv4Address | IPv6Address, ...]:
    """The addresses from which a filter reaches a service on loopback."""
    if service.address == "localhost":
        return LOOPBACK, LOOPBACK_6
    return (LOOPBACK_6,) if ":" in service.address else (LOOPBACK,)


def _is_for_users(facts: HostFacts, service: Service) -> bool:
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


def _listener_for(
    config: Config, roles: Sequence[str], present: Sequence[Entry], queue: str, *, in_chroot: bool
) -> Listener | None:
    """The listener of the first of these roles that there is; of several, the one that Postfix has already, or which
    is meant for this instance of it: below its queue directory, or an address where its chroot hides the other paths.
    """
    for role in roles:
        found = [each for each in config.listeners if each.role == role]
        named = [each for each in found if any(is_listener(one, each, queue_directory=queue) for one in present)]
        below = [each for each in found if is_below(each, queue_directory=queue)]
        addresses = [each for each in found if in_chroot and each.socket_address.family != "unix"]
        if found:
            return (named or below or addresses or found)[0]
    return None


def _missing_macros(postfix: Postfix, service: Service | None) -> Iterator[tuple[str, tuple[str, ...]]]:
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
        for name, missing in _missing_macros(postfix, service):
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
        places = milter_places_in_chroots(facts.postfix, chrooted)
        self._lists = MilterLists(config, facts.postfix, written, places)
        present = entries(self._postfix.value(MILTERS))
        per_service = (each for s in self._services for each in entries(self._postfix.value(MILTERS, s)))
        present = (*present, *per_service)
        of_role = partial(_listener_for, config, present=present, queue=self._queue, in_chroot=bool(places))
        self._strangers = of_role(("verify", "auto"))
        self._users = of_role(("sign", "auto"))

    def plan(self) -> MilterPlan:
        settings = [*self._milters(), *self._of_other_mail(), *self._everywhere(), *macro_settings(self._postfix)]
        settings += self._names()
        settings += self._past_filters()
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
            if _is_for_users(self._facts, service):
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
        signs = bool(self._signed_from(LOOPBACK))
        listener = self._users if signs and self._users is not None else self._strangers
        value = self._postfix.value(OTHER_MILTERS)
        follows = self._postfix.aliases.get(OTHER_MILTERS) == MILTERS and listener is self._strangers
        wanted = self._lists.arranged(value, self._lists.as_written(OTHER_MILTERS), listener)
        if not follows and wanted.entries != entries(value):
            signed = "signed, as [[sign.networks]] lists 127.0.0.1" if signs else "verified, and not signed"
            yield Setting(OTHER_MILTERS, wanted.text, f"mail from sendmail(1) on this host is {signed}")

    def _signed_from(self, *clients: IPv4Address | IPv6Address) -> str:
        """The domains that clients with these addresses are signed for without a login; empty if there is none."""
        rules = self._config.sign.networks
        listed = (rule for rule in rules if any(each in network for network in rule.networks for each in clients))
        domains = list(dict.fromkeys(str(domain) for rule in listed for domain in rule.domains))
        more = f" and {len(domains) - MAX_DOMAINS_SHOWN} more" if len(domains) > MAX_DOMAINS_SHOWN else ""
        return ", ".join(domains[:MAX_DOMAINS_SHOWN]) + more

    def _may_sign(self, service: Service) -> bool:
        """Whether its mail passes a listener that signs, as it is or with what is planned."""
        present = entries(self._postfix.value(MILTERS, service))
        if MILTERS in service.overrides and not present:
            return False
        signers = [each for each in self._config.listeners if each.role != "verify"]
        return (self._strangers is not None and self._strangers.role == "auto") or any(
            is_listener(entry, each, queue_directory=self._queue) for entry in present for each in signers
        )

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
            if _is_for_users(self._facts, service) and _refuses(self._facts, service) and not is_named:
                yield Setting(DAEMON_NAME, names[0], "all mail that this service accepts is of your users", service)

    def _past_filters(self) -> Iterator[Setting]:
        why = "mailguard has seen what a content filter gives back here, and would remove what it found"
        for service in self._spared():
            yield Setting(OVERRIDE, _without_milters(self._postfix, service), why, service)

    def _spared(self) -> tuple[Service, ...]:
        """The services to which a content filter returns mail that only mailguard would be asked about, to no avail.

        Not those that somebody has made to sign, nor where another milter is: what that does there, we do not know.
        """
        postfix, names = self._postfix, self._config.sign.daemon_names
        main = entries(postfix.value(MILTERS))
        is_in_main = self._strangers is not None and all(is_ours(each, self._config, postfix) for each in main)
        return tuple(
            each
            for each in self._services
            if is_in_main
            and _takes_back(each)
            and MILTERS not in each.overrides
            and not self._has_proxy_alone()
            and not _is_for_users(self._facts, each)
            and postfix.value(DAEMON_NAME, each) not in names
            and not self._signed_from(*_clients(each))
        )

    def _has_proxy_alone(self) -> bool:
        """Whether mail goes to a filter before it is in the queue, and not after."""
        places: tuple[Service | None, ...] = (None, *self._postfix.services)
        is_filtered = any(self._postfix.value("content_filter", each) for each in places)
        return not is_filtered and any(self._postfix.value(PROXY, each) for each in self._services)

    def _notes(self) -> Iterator[Note]:
        postfix, names = self._postfix, self._config.sign.daemon_names
        if self._strangers is None:
            yield Note('no listener has role "verify" or "auto": mail from outside is not judged')
        if self._users is None:
            yield Note('no listener has role "sign" or "auto": mail of your users is not signed')
        for service in self._services:
            for_users = _is_for_users(self._facts, service)
            if for_users and not _refuses(self._facts, service):
                yield Note(
                    f"{service.place} does not refuse who has not logged in, so that only who has is signed: set"
                    f" {postfix.postconf} -P"
                    f" {quoted(f'{service.place}/smtpd_relay_restrictions=permit_sasl_authenticated,reject')}"
                )
            elif not for_users and postfix.value(DAEMON_NAME, service) in names:
                name, host = postfix.value(DAEMON_NAME, service), postfix.value("myhostname", service)
                text = (
                    f"{service.place} is called {name}, and takes mail from others than your users: whatever it"
                    " accepts is signed. "
                )
                if host in names:
                    text += f"Take {host}, as Postfix calls each service without a name, out of sign.daemon_names"
                else:
                    text += f"Take that away: {postfix.setting(DAEMON_NAME, '$myhostname', service)}"
                yield Note(text, is_problem=service in postfix.public_services and self._may_sign(service))
        yield from self._former()
        yield from self._filters()
        yield Note(self._internal())

    def _former(self) -> Iterator[Note]:
        """Sockets that listeners have left. They may be another daemon's of ours: nothing takes them out."""
        postfix = self._postfix
        lists = [postfix.value(MILTERS), postfix.value(OTHER_MILTERS)]
        lists += [each.overrides.get(MILTERS, "") for each in self._services]
        others = (each for value in lists for each in entries(value) if not is_ours(each, self._config, postfix))
        for entry in dict.fromkeys(each.address for each in others if is_in_our_directory(each)):
            yield Note(
                f"Postfix asks {entry}, too, where no listener of the configuration is. If mailguard-milter has left"
                " it, take it out of all lists of milters before the daemon is started again: while nobody answers"
                " there, all mail waits (451)",
                is_problem=True,
            )

    def _filters(self) -> Iterator[Note]:
        postfix = self._postfix
        places: tuple[Service | None, ...] = (None, *postfix.services)
        returning = [each for each in postfix.running("smtpd") if _takes_back(each)]
        is_filtered = any(postfix.value("content_filter", service) for service in places)
        spared = self._spared()
        for service in returning:
            if service in self._services and MILTERS not in service.overrides and service not in spared:
                yield self._behind_proxy(service) if self._has_proxy_alone() else self._returning(service)
        if not returning and is_filtered:
            signed = self._signed_from(LOOPBACK, LOOPBACK_6)
            what = f": mail of strangers that it returns from this host is signed for {signed} otherwise"
            yield Note(
                "there is a content filter: the service that takes mail back from it needs -o"
                f" {OVERRIDE}=no_milters (docs/postfix.md, Content filters){what if signed else ''}"
            )
        yield from self._filter_programs()
        for service in self._services:
            if proxy := postfix.value(PROXY, service):
                yield Note(
                    f"{service.place} hands mail to a proxy ({PROXY} = {proxy}), and milters do not see"
                    " what is in it: it is neither signed nor verified. Use content_filter (docs/postfix.md, Content"
                    " filters)",
                    is_problem=service in postfix.public_services,
                )

    def _returning(self, service: Service) -> Note:
        """Of a service on loopback whose mail passes mailguard again."""
        postfix = self._postfix
        command = postfix.service_setting(OVERRIDE, _without_milters(postfix, service), service)
        clients = _clients(service)
        signed = self._signed_from(*clients) if self._may_sign(service) else ""
        text = (
            f"{service.place} takes mail back from a content filter, which then passes mailguard a second time: what"
            " it found before is removed, and "
        )
        if not signed:
            return Note(f"{text}what the filter sends is judged. Unless this service signs: {command}")
        listed = " and ".join(map(str, clients))
        text += (
            f"mail of strangers is signed for {signed}, as [[sign.networks]] lists {listed}. Take that out, or give"
            f" this service no milters: {command}"
        )
        return Note(text, is_problem=True)

    def _behind_proxy(self, service: Service) -> Note:
        """Of a service on loopback to which a proxy hands what milters have not seen: another may sign here."""
        clients = _clients(service)
        listed = " and ".join(map(str, clients))
        signed = self._signed_from(*clients) if self._may_sign(service) else ""
        text = (
            f"{service.place} takes mail back from a proxy ({PROXY}): only here do milters see what is in it, as mail"
            f" from {listed} without a login. "
        )
        if signed:
            return Note(
                f"{text}Mail of strangers is signed for {signed}, as [[sign.networks]] lists {listed}: take that out",
                is_problem=True,
            )
        return Note(
            f"{text}mailguard neither judges nor signs that. Another milter, such as OpenDKIM, may sign it: do not"
            " set no_milters before content_filter has taken the place of the proxy"
        )

    def _filter_programs(self) -> Iterator[Note]:
        """They give mail back with sendmail(1)."""
        postfix = self._postfix
        places: tuple[Service | None, ...] = (None, *postfix.services)
        filters = {postfix.value("content_filter", each).partition(":")[0] for each in places}
        programs = ", ".join(each.name for each in postfix.running("pipe") if each.name in filters)
        signed = self._signed_from(LOOPBACK) if self._users is not None else ""
        what = f", and mail of strangers is signed for {signed}, as [[sign.networks]] lists {LOOPBACK}"
        for pickup in postfix.running("pickup") if programs else ():
            if "no_milters" not in words(postfix.value(OVERRIDE, pickup)):
                command = postfix.service_setting(OVERRIDE, _without_milters(postfix, pickup), pickup)
                text = (
                    f"{programs} filters mail with a program. If that gives it back with sendmail(1), it passes"
                    f" {OTHER_MILTERS} as mail of this host: what mailguard found before is removed"
                    f"{what if signed else ''}. Then set: {command}"
                )
                yield Note(text, is_problem=bool(signed))

    def _internal(self) -> str:
        found = self._postfix.value("internal_mail_filter_classes")
        if "bounce" in words(found):
            return (
                f"internal_mail_filter_classes = {found}: bounces that Postfix makes pass non_smtpd_milters as mail"
                " of this host, and are signed only where [[sign.networks]] lists 127.0.0.1: do not list it if a"
                " content filter returns mail from there"
            )
        return (
            "internal_mail_filter_classes is left as it is: bounces that Postfix makes pass no milter and are not"
            " signed. `bounce` there sends them through non_smtpd_milters; list 127.0.0.1 in [[sign.networks]]"
            " then, unless a content filter returns mail from there: that came from anywhere"
        )
