"""`mailguard key rotate` and `mailguard key list`: keys that take turns, and never before everybody can see them.

Each call takes one step, whatever it finds: it can be run by hand or by a timer, and stopped at any moment.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import shlex
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime

import click

from mailguard.cli.exit_code import ExitCode
from mailguard.cli.key_files import find_owner, store_keys
from mailguard.cli.live_records import live_records
from mailguard.cli.parameters import POSIX_SECONDS, as_domain
from mailguard.config import DEFAULT_PATH, Config, load
from mailguard.dkim.signing_key import KeyCheck, KeyPermissions, SigningKey, generate_ed25519, generate_rsa
from mailguard.dns.authoritative import AuthoritativeDns, normal_rdata
from mailguard.domain import Domain
from mailguard.errors import ConfigError, KeyFileError
from mailguard.key_places import keys_of, read_rotation
from mailguard.records.compare import Comparison, Found, State, compare
from mailguard.records.record import DEFAULT_TTL_S, Record, quoted_strings
from mailguard.rotation.state import Generation, RotatedKey, Rotation, Stage
from mailguard.rotation.step import DAY_S, RotationRules, Seen, step

__all__ = ["list_", "rotate"]

DEFAULT_DIRECTORY = "/etc/mailguard/keys"
DEFAULT_EVERY_DAYS = 180
DEFAULT_RELOAD = "systemctl reload mailguard-milter"
_GENERATORS = {"rsa": generate_rsa, "ed25519": generate_ed25519}
_CONFIG = click.option("-c", "--config", "config_file", metavar="CONFIG", default=DEFAULT_PATH, show_default=True)
_JSON = click.option("--json", "as_json", is_flag=True, help="Write JSON.")


@click.command()
@click.argument("domain", callback=as_domain)
@_CONFIG
@click.option("--directory", default=DEFAULT_DIRECTORY, show_default=True, metavar="DIR", help="Where keys are kept.")
@click.option("--owner", metavar="USER", help="As root: give the key files to this user, as whom the daemon runs.")
@click.option(
    "--every", "days", type=click.IntRange(1, 3650), default=DEFAULT_EVERY_DAYS, show_default=True, metavar="DAYS"
)
@click.option("--new", "make_new", is_flag=True, help="Begin a new generation, however young the present one is.")
@click.option("--adopt", is_flag=True, help="Begin with the keys that the configuration names now.")
@click.option(
    "--reload",
    "reload_command",
    metavar="COMMAND",
    default=DEFAULT_RELOAD,
    show_default=True,
    help="What makes the daemon sign with other keys; '' if somebody else sees to it.",
)
@click.option("--now", "at", type=POSIX_SECONDS, metavar="SECONDS", help="Take this POSIX time for the present.")
@_JSON
def rotate(
    domain: Domain,
    config_file: str,
    directory: str,
    owner: str | None,
    days: int,
    make_new: bool,
    adopt: bool,
    reload_command: str,
    at: int | None,
    as_json: bool,
) -> ExitCode:
    """Take the next step in changing the keys of DOMAIN; run it again and again, by hand or by a timer.

    New keys are made, one RSA and one Ed25519. They sign when every authoritative server has their records; the old
    ones then stay published until the last of their signatures has expired. Where they are is kept in the file that
    `rotation` in [domains."DOMAIN"] names.

    Ends with 0 if there is nothing to do, 1 if keys sign that a server does not publish or the reload failed, 2 if
    records wait to be published or removed.
    """
    config = load(config_file)
    now = time.time() if at is None else float(at)
    path = _place(config, domain, config_file, adopt=adopt, directory=directory)
    ids = find_owner(owner) if owner else None
    with _alone(path):
        rotation = _begun(config, domain, path, adopt=adopt, now=now)
        rules = RotationRules(
            max_age_s=days * DAY_S, keep_s=config.sign.lifetime_days * DAY_S + DEFAULT_TTL_S, settle_s=0.0
        )
        taken = step(rotation, _seen(config, rotation), now=now, rules=rules, make_new=make_new)
        said = list(taken.said)
        result = taken.rotation
        _write(path, result)
        if taken.switches and not _reload(reload_command, said):
            # The daemon signs with the old keys: they have not retired.
            _write(path, rotation)
            _tell(config, rotation, said, as_json=as_json)
            return ExitCode.FAIL
        if taken.makes_keys:
            made = _new_generation(domain, directory, result, now, ids)
            result = replace(result, generations=(*result.generations, made))
            _write(path, result)
            said.append(f"{made.name}: made; publish its records")
        for generation in taken.forgotten:
            _remove_files(generation)
    rule = config.domains.get(domain)
    if rule is None or rule.rotation is None:
        said.append(f'put this into {config_file} under [domains."{domain}"], in place of selectors, and reload:')
        said.append(f"rotation = {json.dumps(path)}")
    _tell(config, result, said, as_json=as_json)
    if taken.is_broken:
        return ExitCode.FAIL
    return ExitCode.NO_SIGNATURE if taken.is_waiting or taken.makes_keys else ExitCode.PASS


@click.command("list")
@_CONFIG
@_JSON
def list_(config_file: str, as_json: bool) -> ExitCode:
    """Show the keys of the configuration: which sign, and which come and go where they are rotated."""
    config = load(config_file)
    rows: list[dict[str, object]] = []
    for name, rule in config.domains.items():
        rotation = read_rotation(rule.rotation) if rule.rotation is not None else None
        for generation in rotation.generations if rotation is not None else ():
            since = datetime.fromtimestamp(generation.since, UTC).isoformat(timespec="minutes")
            rows += [
                {
                    "domain": name,
                    "selector": key.selector,
                    "stage": generation.stage.value,
                    "since": since,
                    "file": key.file,
                }
                for key in generation.keys
            ]
        rows += [
            {"domain": name, "selector": each.name, "stage": "signing", "since": None, "file": each.key_file}
            for each in rule.selectors
        ]
    named = {(row["domain"], row["selector"]) for row in rows}
    rows += [
        {"domain": domain, "selector": selector, "stage": "signing", "since": None, "file": file}
        for domain, selector, file in keys_of(config)
        if (domain, selector) not in named
    ]
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return ExitCode.PASS
    for row in rows:
        since = f" since {row['since']}" if row["since"] else ""
        click.echo(f"{row['domain']}  {row['selector']}  {row['stage']}{since}  {row['file']}")
    return ExitCode.PASS


def _place(config: Config, domain: Domain, config_file: str, *, adopt: bool, directory: str) -> str:
    rule = config.domains.get(domain)
    if rule is not None and rule.rotation is not None:
        return rule.rotation
    path = os.path.abspath(os.path.join(directory, domain, "rotation.json"))
    if rule is not None and not adopt:
        raise click.UsageError(
            f"the keys of {domain} are named in {config_file}; to rotate them, run this with --adopt"
        )
    return path


def _begun(config: Config, domain: Domain, path: str, *, adopt: bool, now: float) -> Rotation:
    """The rotation as it is, or a new one."""
    rotation = read_rotation(path)
    if rotation is None:
        return Rotation(domain, tuple(_adopted(config, domain, now)) if adopt else ())
    if adopt:
        raise click.UsageError(f"--adopt: {path} is there already")
    if rotation.domain != domain:
        raise ConfigError(f"{path}: it is of {rotation.domain}, not of {domain}")
    return rotation


def _adopted(config: Config, domain: Domain, now: float) -> Iterator[Generation]:
    """The keys that sign now, as a generation of their own."""
    rule = config.domains.get(domain)
    keys = tuple(
        RotatedKey(each.name, each.key_file, _loaded(config, domain, each.name, each.key_file).algorithm)
        for each in (rule.selectors if rule is not None else ())
    )
    if not keys:
        raise click.UsageError(f"--adopt: the configuration names no key of {domain}")
    yield Generation(keys, Stage.SIGNING, now)


def _loaded(config: Config, domain: Domain, selector: str, file: str) -> SigningKey:
    owner = os.stat(file).st_uid if os.geteuid() == 0 and os.path.exists(file) else None
    return SigningKey.load(
        file,
        domain=domain,
        selector=selector,
        permissions=KeyPermissions(config.sign.key_permissions),
        check=KeyCheck.FULL,
        owner=owner,
    )


def _records(config: Config, rotation: Rotation, generation: Generation) -> list[Record]:
    keys = [_loaded(config, rotation.domain, key.selector, key.file) for key in generation.keys]
    return [
        Record(name=key.public_name, rdtype="TXT", value=key.record().decode("ascii"), why=key.algorithm)
        for key in keys
    ]


def _seen(config: Config, rotation: Rotation) -> list[Seen]:
    """What every authoritative server has of each generation."""
    records = [_records(config, rotation, each) for each in rotation.generations]
    authoritative = AuthoritativeDns(config.dns.nameservers, port=config.dns.port)
    live = live_records(authoritative, [record for group in records for record in group])
    return [_seen_of(group, live) for group in records]


def _seen_of(records: Sequence[Record], live: Mapping[tuple[str, str], Mapping[str, Found]]) -> Seen:
    compared = compare(records, live, normal=normal_rdata)
    # A server that has a second record beside the right one makes verifiers fail as well.
    lacking = [_lack(each) for each in compared if each.state is not State.PRESENT]
    there = [found for record in records for found in live[record.name, record.rdtype].values()]
    is_gone = bool(there) and all(not found.fault and not found.values for found in there)
    if not there:
        lacking.append("no server was found")
    return Seen(tuple(dict.fromkeys(lacking)), is_gone)


def _lack(comparison: Comparison) -> str:
    detail = f": {comparison.detail}" if comparison.detail else ""
    return f"{comparison.server} has {comparison.name} {comparison.state.value}{detail}"


def _new_generation(
    domain: Domain, directory: str, rotation: Rotation, now: float, ids: tuple[int, int] | None
) -> Generation:
    taken = {key.selector for each in rotation.generations for key in each.keys}
    month = datetime.fromtimestamp(now, UTC)
    names: dict[str, str] = {}
    for algorithm in _GENERATORS:
        base = f"mg{month:%Y%m}{algorithm[0]}"
        candidates = [base, *(f"{base}{number}" for number in range(2, 1000))]
        names[algorithm] = next(
            name for name in candidates if name not in taken and not _is_stored(directory, domain, name)
        )
    pems = [(names[algorithm], make()) for algorithm, make in _GENERATORS.items()]
    paths = store_keys(directory, domain, pems, owner=ids)
    keys = tuple(
        RotatedKey(name, os.path.abspath(path), algorithm)
        for (algorithm, name), path in zip(names.items(), paths, strict=True)
    )
    return Generation(keys, Stage.CREATED, now)


def _is_stored(directory: str, domain: Domain, selector: str) -> bool:
    return os.path.lexists(os.path.join(directory, domain, f"{selector}.pem"))


@contextmanager
def _alone(path: str) -> Iterator[None]:
    """One call at a time: a timer may start while somebody does it by hand."""
    try:
        os.makedirs(os.path.dirname(path), 0o755, exist_ok=True)
        lock = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise KeyFileError(f"{path}.lock: {error.strerror}") from None
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise KeyFileError(f"{path}: another mailguard key rotate is at work") from None
        yield
    finally:
        os.close(lock)


def _write(path: str, rotation: Rotation) -> None:
    """Complete or not at all. It has no secret in it, and the daemon's user reads it."""
    temporary = f"{path}.{secrets.token_hex(8)}"
    try:
        with open(temporary, "x", encoding="utf-8") as file:
            os.fchmod(file.fileno(), 0o644)
            file.write(rotation.text())
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise KeyFileError(f"{path}: cannot be written: {error.strerror}") from None


def _remove_files(generation: Generation) -> None:
    for key in generation.keys:
        try:
            os.unlink(key.file)
        except OSError as error:
            click.echo(f"mailguard: note: {key.file} could not be removed: {error.strerror}", err=True)


def _reload(command: str, said: list[str]) -> bool:
    if not command:
        said.append("reload the daemon now: until then it signs with the old keys")
        return True
    try:
        done = subprocess.run(shlex.split(command), check=False, timeout=120)
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        said.append(f"nothing has changed, because the reload failed: {command}: {error}")
        return False
    if done.returncode:
        said.append(f"nothing has changed, because the reload ended with {done.returncode}: {command}")
    return done.returncode == 0


def _tell(config: Config, rotation: Rotation, said: Sequence[str], *, as_json: bool) -> None:
    waiting = [each for each in rotation.generations if each.stage is Stage.CREATED]
    records = [record for each in waiting for record in _records(config, rotation, each)]
    if as_json:
        to_publish = [{"name": each.name, "type": each.rdtype, "value": each.value} for each in records]
        click.echo(json.dumps({**rotation.to_json(), "said": list(said), "publish": to_publish}, indent=2))
        return
    for line in said:
        click.echo(line)
    for record in records:
        click.echo(f"{record.name}. {record.ttl_s} IN TXT {quoted_strings(record.value.encode())}")
