"""`mailguard key list`: every key of a configuration, the stage that it is in, and what comes next."""

from __future__ import annotations

from collections.abc import Iterator

import click
from rich.console import Console
from rich.table import Table

from mailguard.cli.exit_code import ExitCode
from mailguard.cli.host_options import CONFIG_OPTION
from mailguard.cli.json_report import print_json
from mailguard.cli.parameters import JSON_OPTION
from mailguard.cli.rotation_keys import adopted
from mailguard.cli.rotation_settings import date_of
from mailguard.cli.standard_error import tell
from mailguard.config import Config, load
from mailguard.dkim.signing_key import KeyCheck
from mailguard.domain import Domain
from mailguard.errors import ConfigError
from mailguard.key_places import WantedKey, keys_of, rotation_of
from mailguard.rotation.state import COMING, Rotation, Stage
from mailguard.rotation.words import next_step

__all__ = ["list_"]

COLUMNS = ("domain", "selector", "algorithm", "stage", "since", "next", "when", "file")
BY_HAND = "by hand, or key rotate --adopt"
# On a pipe lines are as long as they must be.
PIPE_WIDTH = 1_000
_Row = dict[str, str | None]


@click.command("list")
@CONFIG_OPTION
@JSON_OPTION
def list_(config_file: str, as_json: bool) -> ExitCode:
    """Show every key of the configuration: which sign, which come and go, and what their next step is.

    Ends with 78 if the state of a rotation cannot be read; the other domains are shown all the same.
    """
    config = load(config_file)
    rows: list[_Row] = []
    faults: list[str] = []
    rotated: set[str] = set()
    for name, rule in config.domains.items():
        domain = Domain.parse(name)
        try:
            rotation = rotation_of(domain, rule)
        except ConfigError as error:
            faults.append(f"{domain}: {error}")
            rotated.add(domain)
            continue
        if rotation is not None:
            rotated.add(domain)
            rows += _of_rotation(rotation)
    rows += [_of_file(config, each) for each in _by_hand(config, rotated)]
    rows.sort(key=lambda row: str(row["domain"]))
    print_json(rows) if as_json else _show(rows)
    for fault in faults:
        tell(fault)
    return ExitCode.CONFIGURATION if faults else ExitCode.PASS


def _by_hand(config: Config, rotated: set[str]) -> Iterator[WantedKey]:
    rules = {name: rule for name, rule in config.domains.items() if name not in rotated}
    for each in keys_of(config.model_copy(update={"domains": rules})):
        # A pattern may find files of a domain that has a rule.
        if each[0] not in rotated:
            yield each


def _of_rotation(rotation: Rotation) -> Iterator[_Row]:
    for generation in rotation.generations:
        is_followed = generation.stage is Stage.SIGNING and bool(rotation.at(*COMING))
        for key in generation.keys:
            yield {
                "domain": rotation.domain,
                "selector": key.selector,
                "algorithm": key.algorithm,
                "stage": generation.stage.value,
                "since": _time(generation.since),
                "next": next_step(generation, is_followed=is_followed),
                "when": None if is_followed else _time(generation.until),
                "file": key.file,
            }


def _of_file(config: Config, wanted: WantedKey) -> _Row:
    domain, selector, file = wanted
    try:
        algorithm = adopted(config, wanted, check=KeyCheck.QUICK).algorithm
    except ConfigError:
        algorithm = "unusable"  # why, key test says
    return {
        "domain": domain,
        "selector": selector,
        "algorithm": algorithm,
        "stage": "signing",
        "since": None,
        "next": BY_HAND,
        "when": None,
        "file": file,
    }


def _time(at: float | None) -> str | None:
    return None if at is None else date_of(at)


def _show(rows: list[_Row]) -> None:
    # The name of a file is itself, whatever rich would make of brackets and colons in it.
    console = Console(highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console = Console(highlight=False, markup=False, emoji=False, width=PIPE_WIDTH)
    table = Table(box=None, pad_edge=False)
    for column in COLUMNS:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(row[column] or "-" for column in COLUMNS))
    console.print(table)
