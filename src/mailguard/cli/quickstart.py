"""`mailguard quickstart DOMAIN`: from a Postfix without mailguard to one that signs and verifies.

Nothing is changed without --apply, and then all of it can be undone. What is left to the administrator is printed:
services are not started, and no record is published.
"""

from __future__ import annotations

import difflib
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import click

from mailguard.audit.facts import HostFacts
from mailguard.audit.gather import Places, gather
from mailguard.cli.applying import BACKUPS_OPTION, UNDO_OPTION, carry_out, undo_command, undone, warnings
from mailguard.cli.dns import dns
from mailguard.cli.doctor import diagnosis
from mailguard.cli.doctor_child import Person
from mailguard.cli.doctor_probe import engine_found, load_keys
from mailguard.cli.exit_code import ExitCode
from mailguard.cli.host_options import CONFIG_DIRECTORY_OPTION, CONFIG_OPTION, POSTCONF_OPTION
from mailguard.cli.key_files import Owner, find_owner, store_keys
from mailguard.cli.new_keys import DEFAULT_DIRECTORY, GENERATORS, default_selector
from mailguard.cli.parameters import DIRECTORY, as_domain
from mailguard.cli.printable import file_line
from mailguard.cli.tree_report import show
from mailguard.config import DEFAULT_USER, Config, load, parse
from mailguard.dkim.signing_key import KeyPermissions
from mailguard.domain import Domain
from mailguard.errors import ConfigError
from mailguard.key_places import pattern_keys, signer_of
from mailguard.setup_host.file_changes import FileChange, Journal
from mailguard.setup_host.first_configuration import (
    DEFAULT_ENGINE,
    first_address,
    first_configuration,
    with_domain,
)
from mailguard.setup_host.milter_entry import entries
from mailguard.setup_host.milter_plan import (
    MILTERS,
    MilterPlan,
    milter_places_in_chroots,
    milter_plan,
    milter_services,
)
from mailguard.setup_host.postfix_files import Edit, edit, read_chroots, read_written
from mailguard.setup_host.whole_file import make_directory, missing_directories

__all__ = ["quickstart"]

SOCKET_DIRECTORY_MODE = 0o750
# A daemon that runs refuses nobody then.
RELOAD = "systemctl reload-or-restart mailguard-milter"
# Below a queue directory, where contrib/mailguard-milter.service lets the daemon write.
UNIT_DIRECTORY = "/var/spool/postfix/mailguard"
# A pattern may find keys of thousands of domains.
MAX_DOMAINS_SHOWN = 20


@click.command()
@click.argument("domain", callback=as_domain, required=False)
@CONFIG_OPTION
@CONFIG_DIRECTORY_OPTION
@POSTCONF_OPTION
@click.option(
    "--keys",
    type=DIRECTORY,
    metavar="DIRECTORY",
    default=DEFAULT_DIRECTORY,
    show_default=True,
    help="Where keys are kept.",
)
@click.option("--user", metavar="USER", help=f"As whom the daemon runs, if it is new. [default: {DEFAULT_USER}]")
@click.option("--listener", metavar="ADDRESS", help="Where Postfix reaches mailguard, if it is new.")
@BACKUPS_OPTION
@click.option("--apply", "applied", is_flag=True, help="Do it.")
@UNDO_OPTION
def quickstart(
    domain: Domain | None,
    config_file: str,
    config_directory: str | None,
    postconf: str,
    keys: str,
    user: str | None,
    listener: str | None,
    backups: str,
    applied: bool,
    kept: str | None,
) -> ExitCode:
    """Set this host up for DOMAIN: keys, mailguard.toml, main.cf and master.cf.

    Shows what there is and what would be written. With --apply it is written, the old files are kept, and the command
    that undoes it is printed; then the DNS records to publish, and what mailguard doctor says. Mail is signed and
    annotated, and nothing refused, until you set mode = "enforce".
    """
    if kept is not None:
        if domain is not None or applied:
            raise click.UsageError("--undo takes its directory alone")
        undone(kept)
        return ExitCode.PASS
    if domain is None:
        raise click.UsageError("name the domain")
    host = _look(config_file, config_directory, postconf)
    start = _plan(domain, host, keys=keys, user=user, listener=listener)
    for line in _shown(host, start):
        click.echo(file_line(line))
    if not applied:
        click.echo("\n# nothing is changed yet: --apply does it, and prints the DNS records")
        return ExitCode.PASS
    if start.changes or start.keys or start.directories:
        _apply(host, start, backups)
    click.echo("# now run:")
    for line in _next(host, start):
        click.echo(line)
    click.echo("\n; -- the DNS records to publish: mailguard dns")
    click.get_current_context().invoke(dns, domain=domain, config_file=config_file)
    click.echo("\n# mailguard doctor; run it again when the daemon is started and the records are published:")
    show(diagnosis(config_file, config_directory, postconf), as_json=False)
    return ExitCode.PASS


@dataclass(frozen=True, slots=True)
class _Host:
    """What there is."""

    facts: HostFacts
    chrooted: frozenset[str]
    using: tuple[str, ...]
    """The services in a chroot that reach milters."""
    config_file: str
    text: str | None
    """The configuration, None if there is none."""
    config: Config | None
    """What it says."""
    postconf: str


@dataclass(frozen=True, slots=True)
class _Start:
    """What is to be done."""

    domain: Domain
    config: Config
    changes: tuple[FileChange, ...]
    keys: tuple[tuple[str, str, str], ...]
    """Algorithm, selector and file of each key to be made."""
    used_keys: tuple[tuple[str, str, str], ...]
    """Those that are there."""
    signed: str
    """With what mail of the domain is signed already, though it has no table; empty if it is not."""
    key_directory: str
    directories: tuple[str, ...]
    """To be made, the innermost first."""
    socket_directories: tuple[str, ...]
    """Those of them which are for sockets."""
    plan: MilterPlan
    edit: Edit


def _look(config_file: str, config_directory: str | None, postconf: str) -> _Host:
    path = os.path.abspath(config_file)
    text = config = None
    if os.path.lexists(path):
        # Checked as the daemon does.
        config = load(path)
        text = Path(path).read_bytes().decode("utf-8")
    facts = gather(Places(Path("/"), config_directory, postconf), now=time.time())
    chrooted = read_chroots(facts.postfix, postconf=postconf)
    places = milter_places_in_chroots(facts.postfix, chrooted)
    return _Host(facts, chrooted, places, path, text, config, postconf)


def _plan(domain: Domain, host: _Host, *, keys: str, user: str | None, listener: str | None) -> _Start:
    if host.text is not None and (user or listener):
        raise click.UsageError(f"--user and --listener are for a new configuration; {host.config_file} is there")
    text = host.text
    if text is None:
        address = listener or first_address(host.facts, is_chrooted=bool(host.using))
        engine = DEFAULT_ENGINE if not engine_found(DEFAULT_ENGINE).fault else "native"
        text = first_configuration(host.facts, address=address, user=user or DEFAULT_USER, engine=engine)
    name = f"{host.config_file} (new)"
    new_keys: tuple[tuple[str, str, str], ...] = ()
    used_keys: tuple[tuple[str, str, str], ...] = ()
    signed = _signed(host.config, domain) if host.config is not None else ""
    if not signed and domain not in parse(text, path=name).domains:
        today = datetime.now(UTC).date()
        named = [(each, default_selector(each, today)) for each in GENERATORS]
        files = [(kind, name, os.path.join(os.path.abspath(keys), domain, f"{name}.pem")) for kind, name in named]
        text = with_domain(text, domain, [(name, file) for _, name, file in files])
        # What is there already is used.
        new_keys = tuple(each for each in files if not os.path.lexists(each[2]))
        used_keys = tuple(each for each in files if each not in new_keys)
    try:
        config = parse(text, path=name)
    except ConfigError as error:
        raise ConfigError(
            f"{error}; a table for {domain} cannot be put at the end of {host.config_file}: write it by hand"
            " (docs/configuration.md), and run this again"
        ) from None
    written = read_written(host.facts.postfix, postconf=host.postconf)
    plan = milter_plan(host.facts, config, chrooted=host.chrooted, written=written)
    change = edit(host.facts.postfix, plan.settings, postconf=host.postconf)
    changes = list(change.changes)
    before = host.text.encode() if host.text is not None else None
    if text.encode() != before:
        changes.insert(0, FileChange(host.config_file, before, text.encode()))
    paths = [host.config_file, *(file for _, _, file in new_keys)]
    sockets = [each.socket_address.path for each in config.listeners if each.socket_address.path]
    below_queue = [path for path in sockets if host.using and not path.startswith(config.runtime_directory)]
    missing = {each for path in (*paths, *below_queue) for each in missing_directories(path)}
    directories = tuple(sorted(missing, key=len, reverse=True))
    for_sockets = dict.fromkeys(os.path.dirname(path) for path in below_queue)
    return _Start(
        domain,
        config,
        tuple(changes),
        new_keys,
        used_keys,
        signed,
        os.path.abspath(keys),
        directories,
        tuple(each for each in for_sockets if each in directories),
        plan,
        change,
    )


def _signed(config: Config, domain: Domain) -> str:
    """With what mail of a domain is signed that has no table of its own; empty if it is not."""
    signer = signer_of(config, domain)
    if signer is not None:
        return f"with the keys of {signer}, whose table has subdomains = true" if signer != domain else ""
    files = [file for owner, _, file in pattern_keys(config) if owner == domain]
    return f"with what sign.key_pattern finds: {', '.join(files)}" if files else ""


def _shown(host: _Host, start: _Start) -> Iterator[str]:
    postfix = host.facts.postfix
    where = f"in a chroot: {', '.join(host.using)}" if host.using else "not in a chroot"
    yield f"# Postfix {'.'.join(map(str, postfix.version))}, {postfix.directory}; {where}"
    for service in milter_services(postfix):
        found = ", then ".join(each.address for each in entries(postfix.value(MILTERS, service)))
        yield f"# {service.place}: milters now: {found or 'none'}"
        if found and host.text is None:
            yield "#   they stay; what OpenDKIM, OpenDMARC or policyd-spf do can be taken over: mailguard import"
    yield f"# names are looked up at {', '.join(host.facts.nameservers)}"
    if os.geteuid() == 0 and Person.named(start.config.user) is None:
        yield f"# first: {_new_user(start.config.user)}"
    if start.signed:
        yield f"# mail of {start.domain} is signed already, {start.signed}: no key is made"
    known = host.config or start.config
    names = dict.fromkeys((*known.domains, *sorted(owner for owner, _, _ in pattern_keys(known))))
    if others := [each for each in names if each != start.domain]:
        more = f" and {len(others) - MAX_DOMAINS_SHOWN} more" if len(others) > MAX_DOMAINS_SHOWN else ""
        yield f"# signed already: {', '.join(others[:MAX_DOMAINS_SHOWN])}{more}"
    for note in (*(each.text for each in start.plan.notes), *warnings(start.config, start.plan.settings)):
        yield f"# {note}"
    if not (start.changes or start.keys or start.directories):
        yield "# nothing is to be changed"
    for path in reversed(start.directories):
        yield f"# new directory {path}"
    for kind, _, file in start.keys:
        yield f"# new file {file}: a private key ({kind}), of {start.config.user}, mode 0600"
    for change in start.changes:
        old = (change.before or b"").decode("utf-8", "replace").splitlines()
        new = change.after.decode("utf-8", "replace").splitlines()
        name = change.path if change.before is not None else "/dev/null"
        yield ""
        yield from difflib.unified_diff(old, new, name, f"{change.path} (new)", lineterm="")
    if start.plan.settings:
        yield ""
        yield "# the lines for main.cf and master.cf as commands:"
    for setting in start.plan.settings:
        yield f"{setting.command(postfix)}    # {setting.why}"


def _apply(host: _Host, start: _Start, backups: str) -> None:
    owner = _owner(start)
    _refuse_unusable(start)
    journal = Journal(
        backups,
        start.changes,
        directories=start.directories,
        made=[file for _, _, file in start.keys],
        afterwards=[*_reload(start), "systemctl stop mailguard-milter" if host.text is None else RELOAD],
    )
    journal.begin()
    click.echo(f"\n# to undo all of it, also if this is interrupted:\n{undo_command('quickstart', journal)}")
    carry_out(journal, lambda: _make(start, owner))
    click.echo(f"# written; what was there before is in {journal.directory}")


def _make(start: _Start, owner: Owner | None) -> None:
    """Directories and keys."""
    for path in reversed(start.directories):
        # store_keys makes its own, with the permissions that keys need.
        if f"{path}/".startswith(f"{start.key_directory}/"):
            continue
        if path in start.socket_directories:
            make_directory(path, SOCKET_DIRECTORY_MODE, owner)
        else:
            make_directory(path, 0o755)
    if start.keys:
        pems = [(name, GENERATORS[kind]()) for kind, name, _ in start.keys]
        store_keys(start.key_directory, start.domain, pems, owner=owner)


def _refuse_unusable(start: _Start) -> None:
    """Mail of a domain with a key that cannot be used waits."""
    person = Person.named(start.config.user) if os.geteuid() == 0 else None
    permissions = KeyPermissions(start.config.sign.key_permissions)
    wanted = [(start.domain, selector, file) for _, selector, file in start.used_keys]
    for (_, _, file), fault in zip(wanted, load_keys(person, wanted, permissions), strict=True):
        if fault:
            raise ConfigError(
                f"{file} is there already, and {start.config.user} cannot sign with it: {fault}; correct it or move"
                " it away; nothing was changed"
            )


def _owner(start: _Start) -> Owner | None:
    """Whose the keys and the socket's directory will be; None where that is who we are."""
    if os.geteuid() != 0 or not (start.keys or start.used_keys or start.socket_directories):
        return None
    try:
        return find_owner(start.config.user)
    except ConfigError as error:
        raise ConfigError(f"{error}: {_new_user(start.config.user)}; nothing was changed") from None


def _new_user(name: str) -> str:
    return f"adduser --system --group --no-create-home {name}"


def _next(host: _Host, start: _Start) -> Sequence[str]:
    lines = []
    has_its_group = any(each.socket_address.path and each.group is None for each in start.config.listeners)
    postfix, daemon = (Person.named(name) for name in (host.facts.postfix.value("mail_owner"), start.config.user))
    if has_its_group and postfix and daemon and daemon.gid not in postfix.groups:
        lines.append(f"adduser {postfix.name} {daemon.name}    # the group of the socket")
    unit = "contrib/mailguard-milter.service says how it is installed"
    if elsewhere := [each for each in start.socket_directories if each != UNIT_DIRECTORY]:
        unit += f", and what it needs for {', '.join(elsewhere)}"
    start_it = "systemctl restart mailguard-milter" if host.text is None else RELOAD
    # Postfix's processes have the groups of when they were started.
    return [*lines, f"{start_it}    # {unit}", *([start.edit.reload] if lines else _reload(start))]


def _reload(start: _Start) -> Sequence[str]:
    return [start.edit.reload] if start.edit.changed else []
