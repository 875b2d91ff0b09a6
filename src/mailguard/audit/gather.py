"""Gathers what the checks look at: asks postconf(1), and reads files. It changes nothing.

The only place here that starts programs and opens files. A file that cannot be read is a fact with its reason; only
Postfix's configuration must be readable.
"""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from mailguard.audit.access_table import source_file, text_permits
from mailguard.audit.certificate_file import has_private_key, read_certificate
from mailguard.audit.certificates import certificate_files, key_files, sni_tables
from mailguard.audit.facts import CertificateFacts, FileFacts, HostFacts, MailguardFacts, TableFacts
from mailguard.audit.host import BANNERS, database_files, password_files
from mailguard.audit.postfix import (
    Postfix,
    Service,
    aliases,
    parameters,
    quoted,
    service_overrides,
    services,
    unused,
    version_of,
)
from mailguard.audit.restriction_list import words
from mailguard.errors import ConfigError

__all__ = ["Places", "gather", "run_postconf"]

POSTCONF_TIMEOUT_S = 60.0
# Certificates with their chain, and configuration files, are far smaller.
MAX_FILE_OCTETS = 1024 * 1024
MAX_FILES_OF_A_PROGRAM = 200
# The programs whose parameters are judged for each service of master.cf.
FOLLOWED = ("smtpd", "smtp", "postscreen")
# Where postconf is, also for a user in whose path it is not.
_SYSTEM_PATH = "/usr/sbin:/usr/local/sbin:/sbin:/usr/bin:/usr/local/bin"

PROGRAMS = ("fail2ban-client", *BANNERS)
PROGRAM_DIRECTORIES = ("usr/sbin", "usr/bin", "usr/local/sbin", "usr/local/bin", "sbin", "bin")
SETTINGS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("unbound", ("etc/unbound/unbound.conf", "etc/unbound/unbound.conf.d/*.conf")),
    ("named", ("etc/bind/named.conf", "etc/bind/named.conf.options", "etc/named.conf")),
    ("kresd", ("etc/knot-resolver/kresd.conf", "etc/knot-resolver/config.yaml")),
    ("pdns_recursor", ("etc/powerdns/recursor.conf", "etc/powerdns/recursor.d/*")),
    ("dnsmasq", ("etc/dnsmasq.conf", "etc/dnsmasq.d/*")),
    ("systemd-resolved", ("etc/systemd/resolved.conf", "etc/systemd/resolved.conf.d/*.conf")),
    # In the order in which fail2ban reads them.
    (
        "fail2ban",
        tuple(f"etc/fail2ban/{name}" for name in ("jail.conf", "jail.d/*.conf", "jail.local", "jail.d/*.local")),
    ),
    ("opendmarc", ("etc/opendmarc.conf",)),
    ("postfixadmin", ("etc/postfixadmin/config.local.php", "etc/postfixadmin/dbconfig.inc.php")),
)
COMMENTS = ("#", ";", "//")
# Of [senders.actions]: what mail that is not under a login's own name is known by, and what becomes of it.
SENDER_RULES = ("envelope", "header_from")
KEPT_BACK = ("reject", "quarantine")


@dataclass(frozen=True, slots=True)
class Places:
    """Where the host is to be found."""

    root: Path = Path("/")
    """Every path that a configuration names is below it."""
    config_directory: str | None = None
    """Postfix's; without it, that of $MAIL_CONFIG or the one that its postconf knows; or, below a root that is given,
    etc/postfix."""
    postconf: str = "postconf"
    mailguard: Path | None = None
    """mailguard's configuration, which may be missing where it is not given."""


def gather(places: Places, *, now: float) -> HostFacts:
    """Everything. Raises ConfigError if Postfix's configuration, or mailguard's that is given, cannot be read."""
    host = _Host(places.root)
    postfix = _postfix(places)
    values = (*postfix.main.values(), *(each for s in postfix.services for each in s.overrides.values()))
    tables = {path: _table(path, kind, host) for path, kind in database_files(values).items()}
    certificates = {path for each in postfix.public_services for path in certificate_files(postfix, each)}
    may_be_missing = (*password_files(postfix), *sni_tables(postfix))
    directory = postfix.directory
    paths = (directory, f"{directory}/main.cf", f"{directory}/master.cf", *key_files(postfix), *certificates, *tables)
    files = {path: host.facts(path) for path in paths}
    # The table may be of another kind, or not made yet.
    files |= {path: host.facts(path) for path in may_be_missing if not host.lacks(path)}
    mailguard, problem = _mailguard(places, host)
    return HostFacts(
        postfix=postfix,
        now=now,
        files=files,
        certificates=dict(_certificates(sorted(certificates), host)),
        tables=tables,
        networks={path: _first_words(path, host) for path in _network_tables(postfix)},
        programs=frozenset(name for name in PROGRAMS if host.has_program(name)),
        settings=dict(_settings(host)),
        nameservers=tuple(_nameservers(host)),
        mailguard=mailguard,
        mailguard_problem=problem,
        access=dict(_access_tables(postfix, host)),
    )


class _Host:
    """The files of a host, below its root."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def at(self, path: str) -> Path:
        """A path of the host's. One that is below the root already stays what it is, as $config_directory does."""
        if self._root == Path("/") or Path(path).is_relative_to(self._root):
            return Path(path)
        return self._root / path.lstrip("/")

    def read(self, path: str) -> bytes:
        """At most MAX_FILE_OCTETS of a plain file. Raises OSError."""
        descriptor = os.open(self.at(path), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise OSError(0, "it is no plain file")
            return file.read(MAX_FILE_OCTETS)

    def lines(self, path: str) -> tuple[str, ...]:
        """Without comments and blank lines. Raises OSError."""
        text = self.read(path).decode("utf-8", "replace")
        stripped = (line.strip() for line in text.splitlines())
        return tuple(line for line in stripped if line and not line.startswith(COMMENTS))

    def facts(self, path: str) -> FileFacts | str:
        """Owner and permissions; a text says why they are not known."""
        try:
            found = self.at(path).stat()
        except OSError as error:
            return _reason(error)
        holds_key: bool | None = None
        try:
            if stat.S_ISREG(found.st_mode):
                holds_key = has_private_key(self.read(path))
        except OSError:
            # Its permissions are judged all the same.
            holds_key = None
        group = self._group(found.st_gid)
        return FileFacts(stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid, holds_key, group)

    def _group(self, gid: int) -> str:
        try:
            entries = [line.split(":") for line in self.lines("/etc/group")]
        except OSError:
            return ""
        return next((entry[0] for entry in entries if entry[2:3] == [str(gid)]), "")

    def lacks(self, path: str) -> bool:
        """Whether there is certainly no such file."""
        try:
            self.at(path).stat()
        except (FileNotFoundError, NotADirectoryError):
            return True
        except OSError:
            return False
        return False

    def matching(self, pattern: str) -> tuple[str, ...]:
        """The files of a pattern, sorted, as paths of the host."""
        found = sorted(self._root.glob(pattern))[:MAX_FILES_OF_A_PROGRAM]
        return tuple(f"/{each.relative_to(self._root)}" for each in found)

    def has_program(self, name: str) -> bool:
        """In one of the usual directories."""
        return any(os.path.exists(self._root / directory / name) for directory in PROGRAM_DIRECTORIES)


def _reason(error: OSError) -> str:
    return error.strerror or str(error)


def _postfix(places: Places) -> Postfix:
    directory = places.config_directory
    if directory is None and places.root != Path("/"):
        directory = str(places.root / "etc/postfix")
    elif directory is None:
        # As postmulti(1) -x sets it. Where the commands that are shown will be run, it may not be set.
        directory = os.environ.get("MAIL_CONFIG") or None
    prefix = [places.postconf]
    if directory is not None:
        # While main.cf is younger than two seconds, Postfix 3.10 names /etc/postfix whatever -c says.
        prefix += ["-c", directory, "-o", f"config_directory={directory}"]
    # postconf may wait for the DNS: once, rather than one time after the other.
    with ThreadPoolExecutor() as pool:
        options: tuple[tuple[str, ...], ...] = (("-x",), (), ("-n",), ("-M",), ("-Px",), ("-P",))
        expanded, plain, explicit, master, overrides, as_written = pool.map(
            _run, [[*prefix, *each] for each in options]
        )
        main = parameters(expanded.stdout)
        found = services(master.stdout, service_overrides(overrides.stdout))
        written = service_overrides(as_written.stdout)
        found = tuple(pool.map(lambda each: _followed(each, written.get(each.place, {}), prefix, main), found))
    if "config_directory" not in main:
        raise ConfigError(f"{places.postconf} does not say what Postfix's postconf says: is it really that?")
    return Postfix(
        version=version_of(main.get("mail_version", "")),
        main=main,
        aliases=aliases(plain.stdout),
        explicit=frozenset(parameters(explicit.stdout)),
        services=found,
        unused=unused(expanded.stderr.splitlines()),
        directory=main["config_directory"],
        postconf="postconf" if directory is None else f"postconf -c {quoted(directory)}",
    )


def _followed(
    service: Service, overrides: Mapping[str, str], prefix: Sequence[str], main: Mapping[str, str]
) -> Service:
    """With what main.cf comes to where the service sets a parameter that another one names.

    `overrides` are not expanded: postconf does that.
    """
    if service.command not in FOLLOWED or not overrides:
        return service
    options = [word for name, value in overrides.items() for word in ("-o", f"{name}={value}")]
    found = parameters(_run([*prefix, "-x", *options]).stdout)
    differing = {name: value for name, value in found.items() if value != main.get(name)}
    return replace(service, follows=differing)


def run_postconf(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """What postconf, the first word, says, and what it ends with. Raises ConfigError where it cannot be run, or does
    not end."""
    name, *arguments = command
    program = shutil.which(name) or shutil.which(name, path=_SYSTEM_PATH)
    if program is None:
        raise ConfigError(f"there is no {name}: is Postfix installed? Name its postconf with --postconf")
    try:
        return subprocess.run(
            [program, *arguments],
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=POSTCONF_TIMEOUT_S,
            check=False,
            encoding="utf-8",
            errors="replace",
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        why = _reason(error) if isinstance(error, OSError) else f"no end within {POSTCONF_TIMEOUT_S:g} s"
        raise ConfigError(f"{program} cannot be run: {why}") from None


def _run(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    done = run_postconf(command)
    if done.returncode:
        said = [line.partition("fatal: ")[2] for line in done.stderr.splitlines() if "fatal: " in line]
        raise ConfigError(f"{said[-1]} (says {done.args[0]})" if said else f"{' '.join(done.args)} failed")
    return done


def _certificates(paths: Iterable[str], host: _Host) -> Iterator[tuple[str, CertificateFacts | str]]:
    """Without those that this user may not read: nothing is wrong with them, as far as can be told."""
    for path in paths:
        try:
            yield path, read_certificate(host.read(path))
        except PermissionError:
            continue
        except OSError as error:
            yield path, _reason(error)


def _table(path: str, kind: str, host: _Host) -> TableFacts | str:
    """The file of a table in a database: `name = value` lines."""
    try:
        found = parameters("\n".join(host.lines(path)))
    except OSError as error:
        return _reason(error)
    names = ("bind_dn", "bind_pw") if kind == "ldap" else ("user", "password")
    user, password = (found.get(name, "") for name in names)
    return TableFacts(kind, user, bool(password))


def _network_tables(postfix: Postfix) -> Iterator[str]:
    values = [postfix.value("mynetworks"), *(each.overrides.get("mynetworks", "") for each in postfix.services)]
    for word in (word for value in values for word in words(value)):
        if word.startswith(("/", "cidr:/")):
            yield word.removeprefix("cidr:")


def _first_words(path: str, host: _Host) -> tuple[str, ...] | str:
    try:
        return tuple(line.split(None, 1)[0].rstrip(",") for line in host.lines(path))
    except OSError as error:
        return _reason(error)


def _settings(host: _Host) -> Iterator[tuple[str, tuple[str, ...]]]:
    for program, patterns in SETTINGS:
        paths = [path for pattern in patterns for path in host.matching(pattern)]
        if paths:
            yield program, tuple(_all_lines(paths, host))


def _all_lines(paths: Iterable[str], host: _Host) -> Iterator[str]:
    for path in paths:
        try:
            yield from host.lines(path)
        except OSError:
            # A directory among the files, or one that this user may not read: what it says is not known.
            continue


def _nameservers(host: _Host) -> Iterator[str]:
    """As the C library takes them: the first three, and 127.0.0.1 if there is none."""
    try:
        lines = host.lines("/etc/resolv.conf")
    except OSError:
        lines = ()
    found = [line.split() for line in lines if line.startswith("nameserver")]
    addresses = [columns[1] for columns in found if len(columns) > 1][:3]
    yield from addresses or ["127.0.0.1"]


def _access_tables(postfix: Postfix, host: _Host) -> Iterator[tuple[str, bool]]:
    """Without those that cannot be read."""
    found = (postfix.value(name, each) for each in postfix.public_services for name in postfix.main)
    names = {word.removeprefix("proxy:") for value in found if "check_" in value for word in words(value)}
    for name in sorted(names):
        source = source_file(name)
        if source is not None:
            try:
                text = host.read(source[1]).decode("utf-8", "replace")
            except OSError:
                continue
            yield name, text_permits(source[0], text)


def _mailguard(places: Places, host: _Host) -> tuple[MailguardFacts | None, str]:
    """What it says, or why that is not known."""
    path = str(places.mailguard or "/etc/mailguard/mailguard.toml")
    try:
        octets = places.mailguard.read_bytes() if places.mailguard is not None else host.read(path)
        content = tomllib.loads(octets.decode("utf-8"))
    except OSError as error:
        if places.mailguard is None and isinstance(error, FileNotFoundError):
            return None, ""
        if places.mailguard is None and isinstance(error, PermissionError):
            return None, f"{path}: {_reason(error)}"
        raise ConfigError(f"{path}: cannot be read: {_reason(error)}") from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path}: not TOML: {error}; see mailguard-milter --check-config") from None
    senders, listeners = content.get("senders"), content.get("listeners")
    sources = senders.get("sources") if isinstance(senders, dict) else None
    found = senders.get("actions") if isinstance(senders, dict) else None
    actions = found if isinstance(found, dict) else {}
    tables = [each for each in listeners if isinstance(each, dict)] if isinstance(listeners, list) else []
    facts = MailguardFacts(
        mode=str(content.get("mode", "monitor")),
        sender_sources=tuple(map(str, sources)) if isinstance(sources, list) else (),
        listeners={str(each.get("address", "")): str(each.get("role", "auto")) for each in tables},
        keeps_senders_back=any(actions.get(rule, KEPT_BACK[0]) in KEPT_BACK for rule in SENDER_RULES),
    )
    return facts, ""
