"""`mailguard senders`: who may use which address, from the sources that the configuration names.

What is printed of a login, an address or a table is escaped: nothing in it can move the cursor or colour a line.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import click

from mailguard.cli.exit_code import ExitCode
from mailguard.cli.host_options import CONFIG_DIRECTORY_OPTION, CONFIG_OPTION, POSTCONF_OPTION
from mailguard.cli.json_report import print_json
from mailguard.cli.parameters import JSON_OPTION
from mailguard.cli.senders_import import read_postfix
from mailguard.cli.senders_report import audit_json, audit_lines, listing_json, listing_lines
from mailguard.cli.tree_report import show
from mailguard.cli.waiting import waiting
from mailguard.config import load
from mailguard.explain import Explanation
from mailguard.sender_sources import open_senders
from mailguard.senders.combine import Senders
from mailguard.senders.identity import Unusable
from mailguard.senders.listing import Listing, ListingStatus
from mailguard.senders.permission import Permission, PermissionStatus

__all__ = ["senders"]

_EXIT_CODES = {
    PermissionStatus.GRANTED: ExitCode.PASS,
    PermissionStatus.DENIED: ExitCode.FAIL,
    PermissionStatus.UNKNOWN: ExitCode.FAIL,
    PermissionStatus.UNAVAILABLE: ExitCode.TEMPORARY,
}


@click.group(no_args_is_help=False)
def senders() -> None:
    """Look at who may use which address. The daemon holds the mail of your own users to the same answers."""


@senders.command()
@click.argument("login")
@click.argument("address")
@CONFIG_OPTION
@JSON_OPTION
def test(login: str, address: str, config_file: str, as_json: bool) -> ExitCode:
    """Show whether LOGIN may use ADDRESS, by which rule of which source, and what was asked for it.

    Ends with 0 if it may, 1 if not, 75 if a source could not be asked.
    """
    with _opened(config_file) as sources, waiting("asking the sources"):
        permission = sources.ask(os.fsencode(login), os.fsencode(address))
    if as_json:
        print_json(permission.to_json())
    else:
        show(_explained(permission), as_json=False)
    return _EXIT_CODES[permission.status]


@senders.command("list")
@click.argument("login")
@CONFIG_OPTION
@JSON_OPTION
def list_(login: str, config_file: str, as_json: bool) -> ExitCode:
    """Show what LOGIN may use, by each source, and which sources cannot be listed.

    Ends with 0 if every source could be listed, 1 if one cannot be listed, 75 if one could not be asked.
    """
    with _opened(config_file) as sources:
        who = sources.rules.login(os.fsencode(login))
        if isinstance(who, Unusable):
            raise click.UsageError(f'"{who.shown}" stands for nobody: {who.detail}')
        with waiting("asking the sources"):
            listings = sources.listings(who)
    if as_json:
        print_json(listing_json(who, listings))
    else:
        click.echo("\n".join(listing_lines(who, listings)))
    return _completeness(listings)


@senders.command()
@CONFIG_OPTION
@JSON_OPTION
def audit(config_file: str, as_json: bool) -> ExitCode:
    """Show which accounts can send as whom, the one with the widest reach first.

    Marked are the accounts that reach a whole domain, and those that reach an address of another domain than their
    own.

    Ends with 0 if every source could be listed, 1 if one cannot be listed, 75 if one could not be asked.
    """
    with _opened(config_file) as sources:
        with waiting("asking the sources"):
            listings = sources.everyone()
        rules = sources.rules
    if as_json:
        print_json(audit_json(listings, rules))
    else:
        click.echo("\n".join(audit_lines(listings, rules)))
    return _completeness(listings)


@senders.command("import")
@POSTCONF_OPTION
@CONFIG_DIRECTORY_OPTION
@JSON_OPTION
def import_(postconf: str, config_directory: str | None, as_json: bool) -> ExitCode:
    """Print the configuration that reads the tables of Postfix's smtpd_sender_login_maps, from main.cf and master.cf.

    Nothing is changed: the text belongs into the configuration file. Ends with 0 if mailguard can read all tables,
    otherwise with 1; what to do about those that are left out stands in comments.
    """
    found = read_postfix(postconf, config_directory)
    if as_json:
        print_json(found.to_json())
    else:
        click.echo(found.toml(), nl=False)
    return ExitCode.FAIL if found.left_out else ExitCode.PASS


@contextmanager
def _opened(config_file: str) -> Iterator[Senders]:
    opened = open_senders(load(config_file).senders)
    if opened is None:
        raise click.UsageError(f"no login is held to its addresses: set sources in [senders] in {config_file}")
    try:
        yield opened
    finally:
        opened.close()


def _completeness(listings: tuple[Listing, ...]) -> ExitCode:
    statuses = {listing.status for listing in listings}
    if ListingStatus.UNAVAILABLE in statuses:
        return ExitCode.TEMPORARY
    return ExitCode.FAIL if ListingStatus.UNLISTABLE in statuses else ExitCode.PASS


def _explained(permission: Permission) -> Explanation:
    facts = [("source", permission.source), ("rule", permission.rule)]
    for asked in permission.asked:
        facts.append(("asked", asked.statement))
        facts += [("with", value) for value in asked.parameters]
    return Explanation(
        f"{permission.login} as {permission.address}",
        permission.status.value,
        detail=permission.reason,
        facts=tuple((name, value) for name, value in facts if value),
    )
