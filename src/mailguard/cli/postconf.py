"""`mailguard postconf`: what main.cf and master.cf need for a configuration, shown or put in place.

Nothing is changed without --apply, and then never without a backup.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click

from mailguard.audit.facts import HostFacts
from mailguard.audit.gather import Places, gather
from mailguard.cli.exit_code import ExitCode
from mailguard.config import DEFAULT_PATH, load
from mailguard.setup_host.milter_plan import MilterPlan, milter_plan
from mailguard.setup_host.postfix_files import Backup, Edit, edit, read_chroots, stamp

__all__ = ["host_options", "postconf", "printable", "shown_changes"]


def host_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """The options that say which configuration and which Postfix are meant."""
    options = (
        click.option("-c", "--config", "config_file", metavar="CONFIG", default=DEFAULT_PATH, show_default=True),
        click.option("--config-directory", metavar="DIRECTORY", help="Postfix's, where it is not the default one."),
        click.option(
            "--postconf",
            "program",
            metavar="PROGRAM",
            default="postconf",
            show_default=True,
            help="Postfix's postconf.",
        ),
        click.option("--json", "as_json", is_flag=True, help="Write JSON."),
    )
    for option in reversed(options):
        function = option(function)
    return function


@click.command()
@host_options
@click.option("--apply", "applied", is_flag=True, help="Change the files, and keep the old ones beside them.")
def postconf(config_file: str, config_directory: str | None, program: str, as_json: bool, applied: bool) -> ExitCode:
    """Show the settings that Postfix needs for this configuration: as postconf commands, each with its reason, and as
    the difference to main.cf and master.cf as they are.

    Other milters stay; mailguard comes first, and after them on a listener with role = "sign". With --apply both
    files are written, the old ones kept beside them, and the command that puts those back is printed. Run twice, it
    changes nothing.
    """
    config = load(config_file)
    facts = gather(Places(Path("/"), config_directory, program, Path(config_file)), now=time.time())
    plan = milter_plan(facts, config, chrooted=read_chroots(facts.postfix, postconf=program))
    change = edit(facts.postfix, plan.settings, postconf=program)
    backup = change.apply(stamp()) if applied and change.changed else None
    if as_json:
        click.echo(json.dumps(_as_json(facts, plan, change, backup), indent=2))
    else:
        for line in shown_changes(facts, plan, change, backup):
            click.echo(line)
    return ExitCode.PASS


def shown_changes(facts: HostFacts, plan: MilterPlan, change: Edit, backup: Backup | None) -> Iterator[str]:
    """For people; what begins with # is not for the shell."""
    for note in plan.notes:
        yield f"# {printable(note)}"
    if not change.changed:
        yield f"# {change.directory}: nothing is to be changed"
        return
    for setting in plan.settings:
        yield ""
        yield f"# {printable(setting.why)}"
        yield printable(setting.command(facts.postfix))
    yield ""
    yield from map(printable, change.diff().splitlines())
    yield ""
    if backup is None:
        yield "# nothing is changed yet: --apply does it, or run these commands; then:"
        yield change.reload
        return
    yield "# written; before, it was as in " + " and ".join(copy for _, copy in backup.files)
    yield "# now run:"
    yield change.reload
    yield "# to undo all of it:"
    yield backup.undo


def _as_json(facts: HostFacts, plan: MilterPlan, change: Edit, backup: Backup | None) -> dict[str, object]:
    return {
        "directory": change.directory,
        "settings": [
            {
                "name": each.name,
                "value": each.value,
                "service": each.service.place if each.service is not None else None,
                "why": each.why,
                "command": each.command(facts.postfix),
            }
            for each in plan.settings
        ],
        "notes": list(plan.notes),
        "diff": change.diff(),
        "applied": backup is not None,
        "backups": [copy for _, copy in backup.files] if backup is not None else [],
        "undo": backup.undo if backup is not None else "",
        "reload": change.reload,
    }


def printable(text: str) -> str:
    """With everything else as a backslash escape; a tab stays."""
    return "".join(char if char.isprintable() or char == "\t" else ascii(char)[1:-1] for char in text)
