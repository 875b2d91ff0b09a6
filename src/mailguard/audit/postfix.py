"""Postfix's configuration as postconf(1) tells it: parameters, the services of master.cf, and what holds where.

postconf itself knows the defaults of the installed version and expands `$name`, so no table of either is here. Pure;
values are immutable and safe to share between threads.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address

from mailguard.audit.restriction_list import ENDS, words
from mailguard.errors import ConfigError

__all__ = [
    "Postfix",
    "Service",
    "aliases",
    "parameters",
    "quoted",
    "service_overrides",
    "services",
    "unused",
    "version_of",
]

# The columns of master.cf before the command.
MASTER_COLUMNS = 7

MX_PORTS = frozenset({"smtp", "25"})
SUBMISSION_PORTS = frozenset({"submission", "587", "submissions", "smtps", "ssmtp", "urd", "465"})

_ALIAS = re.compile(r"\$(?:(\w+)|\{(\w+)\}|\((\w+)\))")


@dataclass(frozen=True, slots=True)
class Service:
    """A line of master.cf."""

    name: str
    """`smtp`, `127.0.0.1:10025`, `private/auth`."""
    kind: str
    """`inet`, `unix`, `unix-dgram`, `fifo` or `pass`."""
    command: str
    """The daemon's program: `smtpd`."""
    overrides: Mapping[str, str]
    """What stands in master.cf as -o, expanded."""
    follows: Mapping[str, str] = field(default_factory=dict)
    """What main.cf comes to under these overrides, where it is not what it comes to without: `$name` in it."""

    @property
    def place(self) -> str:
        """As postconf names it: `submission/inet`."""
        return f"{self.name}/{self.kind}"

    @property
    def port(self) -> str:
        """A number or a name, without the address before it."""
        return self.name.rpartition(":")[2]

    @property
    def address(self) -> str:
        """What it listens on, if master.cf says so; otherwise inet_interfaces does."""
        return self.name.rpartition(":")[0].strip("[]")


@dataclass(frozen=True, slots=True)
class Postfix:
    """The configuration of one instance."""

    version: tuple[int, ...]
    """Of mail_version: (3, 7, 11)."""
    main: Mapping[str, str]
    """Every parameter, defaults included, expanded."""
    aliases: Mapping[str, str]
    """The parameters whose value is another one alone."""
    explicit: frozenset[str]
    """What stands in main.cf."""
    services: tuple[Service, ...]
    unused: tuple[tuple[str, str], ...]
    """What postconf knows nothing of: the file or `mysql:/path`, and the setting as `smtpd_helo_requierd=yes`."""
    directory: str
    """config_directory."""
    postconf: str = "postconf"
    """How commands for the administrator begin: with -c where this is not the default instance."""

    @property
    def is_default(self) -> bool:
        """Whether this is the instance that postconf asks about by itself."""
        return self.postconf == "postconf"

    def knows(self, name: str) -> bool:
        """Whether this version has the parameter."""
        return name in self.main

    def value(self, name: str, service: Service | None = None) -> str:
        """What holds in the service, or in those that set nothing themselves. Empty if Postfix knows no such name."""
        for values in (service.overrides, service.follows) if service is not None else ():
            if name in values:
                return values[name]
        return self.main.get(name, "")

    def is_on(self, name: str, service: Service | None = None) -> bool:
        """Whether a parameter is `yes`."""
        return self.value(name, service).lower() == "yes"

    def shown(self, name: str, service: Service | None = None) -> str:
        """A parameter with what holds in the service, for a finding."""
        value = self.value(name, service)
        return f"{name} = {value}" if value else f"{name} is empty"

    def place(self, name: str, service: Service | None) -> str:
        """Where the value comes from that holds in the service."""
        return service.place if service is not None and name in service.overrides else "main.cf"

    def setting(self, name: str, value: str, service: Service | None = None) -> str:
        """The command that sets a parameter: in main.cf, or in the service if it is set there."""
        if service is not None and name in service.overrides:
            return self.service_setting(name, value, service)
        return f"{self.postconf} -e {quoted(f'{name} = {value}')}"

    def service_setting(self, name: str, value: str, service: Service) -> str:
        """The command that sets a list or a word for the service alone, and leaves main.cf as it is."""
        return f"{self.postconf} -P {quoted(f'{service.place}/{name}={_without_blanks(value)}')}"

    def text_setting(self, name: str, value: str, service: Service) -> tuple[str, ...]:
        """The commands that set a text with blanks, which postconf puts into main.cf alone."""
        command = self.setting(name, value)
        if name not in service.overrides:
            return (command,)
        return f"{self.postconf} -PX {quoted(f'{service.place}/{name}')}", command

    def prepended(self, name: str, added: str, service: Service, *, for_it_alone: bool = False) -> str:
        """The command that puts something in front of a list, whatever is in the list when it is run.

        `for_it_alone` leaves main.cf as it is, where the list stands there.
        """
        in_service = for_it_alone or name in service.overrides
        return self._extended(name, service, before=added, in_service=in_service)

    def appended(self, name: str, added: str, service: Service) -> str:
        """The command that puts something at the end of a list, before a word that would end it."""
        found = words(self.value(name, service))
        last = found[-1] if found and found[-1].lower() in ENDS else ""
        in_service = name in service.overrides
        return self._extended(name, service, after=added, last=last, in_service=in_service)

    def _extended(
        self, name: str, service: Service, *, in_service: bool, before: str = "", after: str = "", last: str = ""
    ) -> str:
        """The shell replaces `$(...)` by the present value: several such commands can be run one after the other."""
        own = f"{service.place}/{name}"
        if in_service and "{" in self.value(name, service):
            # postconf -P takes no blanks, and between braces they cannot always be replaced.
            where = f"at the end, before {last}" if last else "at the end" if after else "in front"
            return f"# in master.cf, {own}: put {where}: {before or after}"
        look = f"{self.postconf} -Ph {quoted(own)}" if name in service.overrides else f"{self.postconf} -h {name}"
        if last:
            look += f" | sed 's/[, ]*{last}$//'"
        before = f"{before}, " if before else ""
        after = "".join(f", {each}" for each in (after, last) if each)
        if in_service:
            look += " | tr -s ', ' ,"
            command, head, after = f"{self.postconf} -P", f"{own}={_without_blanks(before)}", _without_blanks(after)
        else:
            command, head = f"{self.postconf} -e", f"{name} = {before}"
        return f'{command} {quoted(head)}"$({look})"' + (quoted(after) if after else "")

    def running(self, command: str) -> tuple[Service, ...]:
        """The services of one program."""
        return tuple(each for each in self.services if each.command == command)

    @property
    def mx_services(self) -> tuple[Service, ...]:
        """The smtpd that strangers send mail to: port 25, or what postscreen(8) hands its clients to."""
        return tuple(each for each in self._public_smtpd() if each.kind == "pass" or each.port in MX_PORTS)

    @property
    def submission_services(self) -> tuple[Service, ...]:
        """The smtpd that users send mail through, by their port."""
        return tuple(each for each in self._public_smtpd() if each.port in SUBMISSION_PORTS)

    @property
    def public_services(self) -> tuple[Service, ...]:
        """Every smtpd that others than this host itself can reach."""
        return tuple(self._public_smtpd())

    @property
    def login_services(self) -> tuple[Service, ...]:
        """The public smtpd in which users log in."""
        return tuple(each for each in self._public_smtpd() if self.is_on("smtpd_sasl_auth_enable", each))

    @property
    def outbound_service(self) -> Service | None:
        """The smtp(8) that mail for elsewhere leaves by, unless a table says otherwise."""
        name = self.value("default_transport").partition(":")[0]
        found = [each for each in self.running("smtp") if each.name == name and each.kind == "unix"]
        return found[0] if found else None

    @property
    def postscreen(self) -> Service | None:
        """The postscreen(8) before port 25, if there is one."""
        found = [each for each in self.running("postscreen") if each.kind == "inet"]
        return found[0] if found else None

    def _public_smtpd(self) -> Iterator[Service]:
        for each in self.running("smtpd"):
            # What comes over postscreen's socket has come from where postscreen listens.
            listening = self.postscreen if each.kind == "pass" else each
            if listening is not None and listening.kind == "inet" and self._is_public(listening):
                yield each

    def _is_public(self, service: Service) -> bool:
        if service.address:
            return not _is_loopback(service.address)
        # master(8) listens, and reads main.cf alone.
        return not all(_is_loopback(each) for each in words(self.value("inet_interfaces")))


def quoted(text: str) -> str:
    """For a shell, between apostrophes."""
    inner = text.replace("'", "'\\''")
    return f"'{inner}'"


def _without_blanks(value: str) -> str:
    """postconf -P takes none; in Postfix's lists a comma is the same."""
    return re.sub(r"[\s,]+", ",", value)


def _is_loopback(name: str) -> bool:
    try:
        return ip_address(name.strip("[]")).is_loopback
    except ValueError:
        return name in ("localhost", "loopback-only")


def parameters(text: str) -> dict[str, str]:
    """The output of `postconf`: a line `name = value` each."""
    # Not splitlines(): a value may have characters that Unicode ends lines with.
    lines = (line.partition("=") for line in text.split("\n"))
    return {name.strip(): value.strip() for name, equals, value in lines if equals}


def aliases(text: str) -> dict[str, str]:
    """Of the output of `postconf` without -x: the parameters whose value is another one alone."""
    found = {}
    for name, value in parameters(text).items():
        alias = _ALIAS.fullmatch(value)
        if alias is not None:
            found[name] = alias[1] or alias[2] or alias[3]
    return found


def service_overrides(text: str) -> dict[str, dict[str, str]]:
    """The output of `postconf -Px`, by the service: `submission/inet/smtpd_tls_security_level = encrypt`."""
    found: dict[str, dict[str, str]] = {}
    for name, value in parameters(text).items():
        place, _, parameter = name.rpartition("/")
        found.setdefault(place, {})[parameter] = value
    return found


def services(text: str, overrides: Mapping[str, Mapping[str, str]]) -> tuple[Service, ...]:
    """The output of `postconf -M`: a line each, with the columns of master.cf."""
    found = []
    for line in text.split("\n"):
        columns = line.split(None, MASTER_COLUMNS)
        if len(columns) > MASTER_COLUMNS:
            name, kind = columns[:2]
            command = columns[MASTER_COLUMNS].split(None, 1)[0]
            found.append(Service(name, kind, command, dict(overrides.get(f"{name}/{kind}", {}))))
    return tuple(found)


def unused(messages: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """What postconf warns of as unused, once each: the name of the file, and the setting.

    main.cf and master.cf are named so, and the file of a table as `mysql:/etc/postfix/aliases.cf`.
    """
    parts = (message.partition(": unused parameter: ") for message in messages)
    found = (
        (_named(before.rpartition(": ")[2]), " ".join(setting.split())) for before, _, setting in parts if setting
    )
    return tuple(dict.fromkeys(found))


def _named(file: str) -> str:
    return file.rpartition("/")[2] if file.startswith("/") else file


def version_of(mail_version: str) -> tuple[int, ...]:
    """`3.7.11`, `3.10-20240101` or `3.11-RC1` as numbers. Raises ConfigError for anything else."""
    found = re.match(r"(\d+)\.(\d+)(?:\.(\d+))?", mail_version)
    if found is None:
        raise ConfigError(f'"{mail_version[:40]}" is no version of Postfix: is it really its postconf?')
    return tuple(int(each) for each in found.groups() if each is not None)
