"""`mailguard key`: keys to sign with, made and tested here; those that take turns are in rotate.py and key_list.py.

RFC 6376 §3.6 (the record), RFC 8301 §3.2 (2048 bits), RFC 8463 §4 (Ed25519), RFC 1035 §5.1 (zone files).
"""

from __future__ import annotations

import os
from collections import Counter
from datetime import UTC, datetime

import click

from mailguard.cli.exit_code import ExitCode
from mailguard.cli.json_report import print_json
from mailguard.cli.key_check import CheckedKey, check_keys
from mailguard.cli.key_files import find_owner, store_keys
from mailguard.cli.key_list import list_
from mailguard.cli.new_keys import GENERATORS, KEY_DIRECTORY_OPTION, default_selector
from mailguard.cli.parameters import FILE, JSON_OPTION, ZONE_OPTION, as_domain, as_selector, as_selectors
from mailguard.cli.rotate import rotate
from mailguard.cli.standard_error import note, tell
from mailguard.cli.waiting import counted
from mailguard.config import DEFAULT_PATH, load
from mailguard.configured_dns import resolver_config
from mailguard.dkim.signing_key import KeyCheck, KeyPermissions, SigningKey
from mailguard.dns.live import ResolverConfig, open_resolver
from mailguard.domain import Domain
from mailguard.key_places import keys_of
from mailguard.pipeline import LOOKUP_TIME_S
from mailguard.records.record import zone_line
from mailguard.toml_text import toml_value

__all__ = ["key"]

# With so many, who reads them is told how many of them are wrong.
MANY_KEYS = 10


@click.group(no_args_is_help=False)
def key() -> None:
    """Make keys to sign with, test them against the DNS, and let them take turns."""


key.add_command(list_)
key.add_command(rotate)


@key.command()
@click.argument("domain", callback=as_domain)
@click.option(
    "--selector",
    "selectors",
    callback=as_selectors,
    multiple=True,
    metavar="NAME",
    help="Name of the RSA key, and given again that of the Ed25519 key. Default: made from the month.",
)
@click.option("--only", type=click.Choice(list(GENERATORS)), help="Make one key instead of both.")
@KEY_DIRECTORY_OPTION
@click.option("--owner", metavar="USER", help="As root: give the files to this user, as whom the daemon runs.")
@JSON_OPTION
def new(
    domain: Domain, selectors: tuple[str, ...], only: str | None, directory: str, owner: str | None, as_json: bool
) -> None:
    """Make an RSA key of 2048 bits and an Ed25519 key for DOMAIN, and print the DNS records to publish.

    The keys are stored as DIR/DOMAIN/NAME.pem, which must not exist. The output is a piece of a zone file.
    """
    algorithms = [only] if only else list(GENERATORS)
    today = datetime.now(UTC).date()
    names = list(selectors) or [default_selector(each, today) for each in algorithms]
    if len(names) != len(algorithms):
        needed = "once with --only" if only else "twice, for the RSA and the Ed25519 key, or once with --only"
        raise click.UsageError(f"give --selector {needed}")
    if len(set(names)) != len(names):
        raise click.UsageError("the two keys need different selectors")
    pems = [GENERATORS[algorithm]() for algorithm in algorithms]
    keys = [
        SigningKey.from_bytes(pem, domain=domain, selector=selector, check=KeyCheck.FULL)
        for selector, pem in zip(names, pems, strict=True)
    ]
    ids = find_owner(owner) if owner else None
    paths = store_keys(directory, domain, list(zip(names, pems, strict=True)), owner=ids)
    made = [(signing_key, os.path.abspath(path)) for signing_key, path in zip(keys, paths, strict=True)]
    print_json(_new_as_json(domain, made)) if as_json else click.echo(_new_as_zone(domain, made))
    if os.geteuid() == 0 and ids is None:
        note("the files belong to root; --owner gives them to the daemon's user")


def _new_as_json(domain: Domain, made: list[tuple[SigningKey, str]]) -> dict[str, object]:
    return {
        "domain": domain,
        "keys": [
            {
                "selector": each.selector,
                "algorithm": each.algorithm,
                "bits": each.bits,
                "file": path,
                "name": each.public_name,
                "record": each.record().decode("ascii"),
                "zone_line": zone_line(each.public_name, each.record()),
            }
            for each, path in made
        ],
    }


def _new_as_zone(domain: Domain, made: list[tuple[SigningKey, str]]) -> str:
    lines = []
    for each, path in made:
        lines += [
            f"; {each.algorithm}, {each.bits} bits: {path}",
            zone_line(each.public_name, each.record()),
            ";   for a web form: the name, and the value in one line",
            f";   {each.public_name}",
            f";   {each.record().decode('ascii')}",
            "",
        ]
    lines += ["; for mailguard.toml:", f';   [domains."{domain}"]', ";   selectors = ["]
    lines += [f";     {toml_value({'name': each.selector, 'key_file': path})}," for each, path in made]
    return "\n".join([*lines, ";   ]"])


@key.command()
@click.argument("domain", callback=as_domain, required=False)
@click.argument("selector", callback=as_selector, required=False)
@click.argument("key_file", type=FILE, required=False)
@click.option(
    "-c", "--config", "config_file", type=FILE, metavar="CONFIG", help="Test every key of this configuration."
)
@ZONE_OPTION
@click.option("--group-readable", is_flag=True, help="Accept a key file that its group can read.")
@JSON_OPTION
def test(
    domain: Domain | None,
    selector: str | None,
    key_file: str | None,
    config_file: str | None,
    zone: str | None,
    group_readable: bool,
    as_json: bool,
) -> int:
    """Check a private key completely, and compare it with the record that is published for it.

    Name DOMAIN, SELECTOR and KEY_FILE, or a configuration with -c; with neither, the default configuration.
    """
    named = [part for part in (domain, selector, key_file) if part is not None]
    if config_file is not None and named:
        raise click.UsageError("give either DOMAIN SELECTOR KEY_FILE or -c CONFIG")
    asked = ResolverConfig(zone_file=zone)
    if domain is not None and selector is not None and key_file is not None:
        permissions = KeyPermissions.GROUP if group_readable else KeyPermissions.STRICT
        wanted = [(domain, selector, key_file)]
    elif named:
        raise click.UsageError("DOMAIN, SELECTOR and KEY_FILE go together")
    else:
        config = load(config_file or DEFAULT_PATH)
        permissions = KeyPermissions(config.sign.key_permissions)
        wanted = keys_of(config)
        asked = resolver_config(config.dns, zone_file=zone)
    with open_resolver(asked) as resolver:
        each_checked = check_keys(wanted, resolver, permissions=permissions, time_s=LOOKUP_TIME_S)
        checked = counted("asking the DNS for the records", each_checked, len(wanted))
    if as_json:
        print_json([_checked_as_json(each) for each in checked])
    else:
        for each in checked:
            click.echo(_checked_as_text(each))
        if len(checked) >= MANY_KEYS:
            counts = Counter(each.outcome.value for each in checked)
            tell(f"{len(checked)} keys: {', '.join(f'{count} {name}' for name, count in counts.items())}")
    if not checked:
        tell("no key signs by the configuration; mailguard key list shows those that come")
        return ExitCode.CONFIGURATION
    return max((each.outcome.exit_code for each in checked), default=ExitCode.PASS)


def _checked_as_json(checked: CheckedKey) -> dict[str, object]:
    return {
        "domain": checked.domain,
        "selector": checked.selector,
        "file": checked.file,
        "outcome": checked.outcome.value,
        "detail": checked.detail,
        "name": checked.name,
        "record": checked.record,
        "published": list(checked.published),
    }


def _checked_as_text(checked: CheckedKey) -> str:
    text = f"{checked.outcome.value}: {checked.name}: {checked.detail}"
    if checked.is_to_be_published:
        text += "".join(f"\n  published: {each}" for each in checked.published)
        text += f"\n  publish: {checked.zone_line}"
    return text
