"""`mailguard key rotate`: keys that take turns, and never before everybody can see them.

Each call takes the next step, whatever it finds: it can be run by hand or by a timer, and stopped at any moment.
"""

from __future__ import annotations

import os
import time

import click

from mailguard.cli.exit_code import ExitCode
from mailguard.cli.host_options import CONFIG_OPTION
from mailguard.cli.json_report import print_json
from mailguard.cli.key_files import Owner, find_owner
from mailguard.cli.key_use import KeyUse
from mailguard.cli.new_keys import KEY_DIRECTORY_OPTION
from mailguard.cli.parameters import DIRECTORY, JSON_OPTION, as_domain
from mailguard.cli.rotation_daemon import SigningDaemon
from mailguard.cli.rotation_settings import Settings
from mailguard.cli.rotation_store import Busy, RotationStore, StateLocks
from mailguard.cli.rotation_turn import WAITING, Turn
from mailguard.cli.standard_error import note, tell
from mailguard.cli.waiting import counted_without_thread
from mailguard.clock import clock_that_never_sleeps
from mailguard.config import Config, load
from mailguard.domain import Domain
from mailguard.errors import ConfigError, KeyFileError
from mailguard.records.record import zone_line
from mailguard.rotation.step import DAY_S
from mailguard.rotation.strict_json import MAX_NUMBER

__all__ = ["rotate"]

DEFAULT_STATE = "/etc/mailguard/rotation"
DEFAULT_RELOAD = "systemctl reload mailguard-milter"
DEFAULT_DAYS = 180
HOUR_S = 3_600
# What follows from it must be a time that the state can have.
MAX_NOW = MAX_NUMBER // 2
# With so many, who reads them is told how many of them want something.
MANY_DOMAINS = 10
_WORDS = {
    ExitCode.CONFIGURATION: "not looked at",
    ExitCode.FAIL: "with something wrong",
    ExitCode.TEMPORARY: "to be asked again",
    WAITING: "with something to do",
    ExitCode.PASS: "in order",
}
_WORST_FIRST = (ExitCode.CONFIGURATION, ExitCode.FAIL, ExitCode.TEMPORARY, WAITING)


@click.command()
@click.argument("domain", callback=as_domain, required=False)
@click.option("--all", "all_domains", is_flag=True, help="Every domain whose keys are rotated: for a timer.")
@CONFIG_OPTION
@KEY_DIRECTORY_OPTION
@click.option(
    "--state",
    "state_directory",
    type=DIRECTORY,
    default=DEFAULT_STATE,
    show_default=True,
    metavar="DIR",
    help="Where the state of a domain begins to be kept, which the configuration then names.",
)
@click.option("--owner", metavar="USER", help="As root: whose the key files are. [default: the daemon's user]")
@click.option(
    "--every",
    "days",
    type=click.IntRange(1, 3650),
    default=DEFAULT_DAYS,
    show_default=True,
    metavar="DAYS",
    help="After so many days of signing, new keys are made.",
)
@click.option(
    "--settle",
    "settle_hours",
    type=click.IntRange(1, 168),
    default=1,
    show_default=True,
    metavar="HOURS",
    help="All servers must have had the records for so long before the keys sign; longer if the zone's SOA asks it.",
)
@click.option("--new", "make_new", is_flag=True, help="Make new keys now, however young the present ones are.")
@click.option("--adopt", is_flag=True, help="Begin with the keys that the configuration names now.")
@click.option("--begin", is_flag=True, help="Begin anew though the configuration names a file that is not there.")
@click.option("--discard", is_flag=True, help="Give up the keys that do not sign yet.")
@click.option("--clock-is-right", is_flag=True, help="Go on though a stage began in the future: it begins again now.")
@click.option(
    "--reload",
    "reload_command",
    metavar="COMMAND",
    default=DEFAULT_RELOAD,
    show_default=True,
    help="What makes the daemon read its keys again; '' if somebody else sees to it.",
)
@click.option(
    "--wait",
    "wait_s",
    type=click.IntRange(1, 3600),
    default=60,
    show_default=True,
    metavar="SECONDS",
    help="For the daemon to say that it signs with the new keys.",
)
@click.option("--dry-run", "is_dry", is_flag=True, help="Say what the next step is, and change nothing.")
@click.option(
    "--now", "at", type=click.IntRange(0, MAX_NOW), metavar="SECONDS", help="Take this POSIX time for the present."
)
@JSON_OPTION
def rotate(
    domain: Domain | None,
    all_domains: bool,
    config_file: str,
    directory: str,
    state_directory: str,
    owner: str | None,
    days: int,
    settle_hours: int,
    make_new: bool,
    adopt: bool,
    begin: bool,
    discard: bool,
    clock_is_right: bool,
    reload_command: str,
    wait_s: int,
    is_dry: bool,
    at: int | None,
    as_json: bool,
) -> ExitCode:
    """Take the next step in changing the keys of DOMAIN; run it again and again, by hand or by a timer.

    New keys are made, one RSA and one Ed25519. They sign when every authoritative server has had their records for
    a while; the old ones retire when the daemon says that it signs with the new, and their records stay until the
    last of their signatures has expired. docs/keys.md has the stages, and what to do when something fails.

    Ends with 0 if there is nothing to do, 1 if keys sign that a server does not publish or the daemon does not sign
    with those that it should, 2 if somebody has to publish records, to remove them or to reload, 75 if a server could
    not be asked.
    """
    if (domain is None) is not all_domains:
        raise click.UsageError("give DOMAIN or --all")
    if all_domains and (adopt or begin or discard or make_new):
        raise click.UsageError("--new, --adopt, --begin and --discard are for one DOMAIN")
    if make_new + discard > 1 or adopt + begin > 1:
        raise click.UsageError("of --new and --discard, and of --adopt and --begin, one at most")
    config = load(config_file)
    now, clock = time.time() if at is None else float(at), clock_that_never_sleeps()
    began = clock()
    settings = Settings(
        config=config,
        key_use=KeyUse(config),
        config_file=config_file,
        key_directory=directory,
        owner=_owner(config, owner),
        max_age_s=days * DAY_S,
        settle_s=settle_hours * HOUR_S,
        now=now,
        clock=lambda: now + clock() - began,
        reload_command=reload_command,
        make_new=make_new,
        adopt=adopt,
        begin=begin,
        discard=discard,
        clock_is_right=clock_is_right,
        is_dry=is_dry,
        is_one_of_many=all_domains,
    )
    domains = (
        [domain] if domain is not None else [Domain.parse(each) for each, r in config.domains.items() if r.rotation]
    )
    if not domains:
        note(f"{config_file} has no domain whose keys are rotated")
    turns, codes = _taken(domains, settings, state_directory, wait_s)
    if as_json:
        shown = [_as_json(turn) for turn in turns]
        print_json(shown if all_domains else next(iter(shown), None))
    else:
        for turn in turns:
            _show(turn)
    if len(domains) >= MANY_DOMAINS:
        said = ", ".join(f"{codes.count(code)} {word}" for code, word in _WORDS.items() if code in codes)
        tell(f"{len(domains)} domains: {said}")
    return next((each for each in _WORST_FIRST if each in codes), ExitCode.PASS)


def _taken(
    domains: list[Domain], settings: Settings, state_directory: str, wait_s: int
) -> tuple[list[Turn], list[ExitCode]]:
    """The turns of all domains, with one reload for all. What is wrong with one is told, and stops no other."""
    codes: list[ExitCode] = []
    turns: list[Turn] = []
    daemon = SigningDaemon(settings.config)
    with StateLocks() as locks:
        for domain in counted_without_thread("asking about the keys of domains", domains, len(domains)):
            try:
                path, is_named = _state_file(settings.config, domain, state_directory)
                store = RotationStore(path, domain)
                if not settings.is_dry:
                    store = locks.store(path, domain, makes_directory=not is_named)
                turn = Turn(domain, store, settings, daemon)
                turn.prepare()
                turns.append(turn)
            except ConfigError as error:
                codes.append(_told(domain, error))
        try:
            waiting = [turn for turn in turns if turn.wants_reload]
            if waiting and settings.reload_command:
                fault = daemon.reload(
                    settings.reload_command, lambda: all(turn.is_in_step for turn in waiting), wait_s=wait_s
                )
                for turn in waiting if fault else ():
                    turn.said.append(fault)
        except ConfigError as error:
            codes.append(_told(None, error))
        for turn in list(turns):
            try:
                turn.conclude()
                codes.append(turn.code())
            except ConfigError as error:
                turns.remove(turn)
                codes.append(_told(turn.domain, error))
    return turns, codes


def _told(domain: Domain | None, error: ConfigError) -> ExitCode:
    for line in str(error).splitlines():
        tell(f"{f'{domain}: ' if domain is not None else ''}{line}")
    return ExitCode.TEMPORARY if isinstance(error, Busy) else ExitCode.CONFIGURATION


def _owner(config: Config, name: str | None) -> Owner | None:
    """Key files are the daemon's user's, unless who runs this cannot give files away."""
    if name is not None:
        return find_owner(name)
    if os.geteuid() != 0:
        return None
    try:
        return find_owner(config.user)
    except KeyFileError as error:
        raise KeyFileError(f"{error}; create it, or name the daemon's user with --owner") from None


def _state_file(config: Config, domain: Domain, directory: str) -> tuple[str, bool]:
    """Where the state is, and whether the configuration says so."""
    rule = config.domains.get(domain)
    if rule is not None and rule.rotation is not None:
        return rule.rotation, True
    return os.path.join(os.path.abspath(directory), f"{domain}.json"), False


def _as_json(turn: Turn) -> dict[str, object]:
    return {
        **turn.rotation.to_json(),
        "file": turn.file,
        "said": turn.said,
        "publish": [{"name": name, "type": "TXT", "value": record} for name, record in turn.to_publish()],
        "remove": list(turn.to_remove()),
    }


def _show(turn: Turn) -> None:
    for line in turn.said:
        click.echo(f"{turn.domain}: {line}")
    for name, record in turn.to_publish():
        click.echo(zone_line(name, record.encode("ascii")))
    for name in turn.to_remove():
        click.echo(f"; remove: {name}. TXT")
