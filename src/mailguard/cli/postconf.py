"""`mailguard postconf`: what main.cf and master.cf need for a configuration, shown or put in place.

Nothing is changed without --apply, and then all of it can be undone.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import click

from mailguard.audit.facts import HostFacts
from mailguard.audit.gather import Places, gather
from mailguard.cli.applying import BACKUPS_OPTION, UNDO_OPTION, carry_out, undo_command, undone, warnings
from mailguard.cli.exit_code import ExitCode
from mailguard.cli.host_options import host_options
from mailguard.cli.json_report import print_json
from mailguard.cli.printable import file_line
from mailguard.config import load
from mailguard.setup_host.file_changes import Journal
from mailguard.setup_host.milter_plan import MilterPlan, milter_plan
from mailguard.setup_host.postfix_files import Edit, edit, read_chroots, read_written

__all__ = ["postconf"]


@click.command()
@host_options
@BACKUPS_OPTION
@click.option("--apply", "applied", is_flag=True, help="Change the files, and keep the old ones.")
@UNDO_OPTION
def postconf(
    config_file: str,
    config_directory: str | None,
    postconf: str,
    as_json: bool,
    backups: str,
    applied: bool,
    kept: str | None,
) -> ExitCode:
    """Show the settings that Postfix needs for this configuration: as postconf commands, each with its reason, and as
    the difference to main.cf and master.cf as they are.

    Other milters stay; mailguard comes first, and after them on a listener with role = "sign". With --apply both
    files are written, the old ones kept, and the command that puts those back is printed. Run twice, it changes
    nothing.
    """
    if kept is not None:
        if applied or as_json:
            raise click.UsageError("--undo takes its directory alone")
        undone(kept)
        return ExitCode.PASS
    config = load(config_file)
    facts = gather(Places(Path("/"), config_directory, postconf, Path(config_file)), now=time.time())
    chrooted = read_chroots(facts.postfix, postconf=postconf)
    written = read_written(facts.postfix, postconf=postconf)
    plan = milter_plan(facts, config, chrooted=chrooted, written=written)
    change = edit(facts.postfix, plan.settings, postconf=postconf)
    notes = (*(each.text for each in plan.notes), *warnings(config, plan.settings))
    journal = Journal(backups, change.changes, afterwards=[change.reload]) if applied and change.changed else None
    if journal is not None:
        journal.begin()
    if as_json:
        if journal is not None:
            carry_out(journal)
        print_json(_as_json(facts, plan, notes, change, journal))
        return ExitCode.PASS
    for line in _shown(facts, plan, notes, change):
        click.echo(line)
    if journal is not None:
        click.echo(f"# to undo all of it, also if this is interrupted:\n{undo_command('postconf', journal)}")
        carry_out(journal)
        click.echo(f"# written; what was there before is in {journal.directory}\n# now run:\n{change.reload}")
    elif change.changed:
        click.echo(f"# nothing is changed yet: --apply does it, or run these commands; then:\n{change.reload}")
    return ExitCode.PASS


def _shown(facts: HostFacts, plan: MilterPlan, notes: Sequence[str], change: Edit) -> Iterator[str]:
    """For people; what begins with # is not for the shell."""
    for note in notes:
        yield f"# {file_line(note)}"
    if not change.changed:
        yield f"# {change.directory}: nothing is to be changed"
        return
    for setting in plan.settings:
        yield ""
        yield f"# {file_line(setting.why)}"
        yield file_line(setting.command(facts.postfix))
    yield ""
    yield from map(file_line, change.diff().splitlines())
    yield ""


def _as_json(
    facts: HostFacts, plan: MilterPlan, notes: Sequence[str], change: Edit, journal: Journal | None
) -> dict[str, object]:
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
        "notes": list(notes),
        "diff": change.diff(),
        "applied": journal is not None,
        "backup": journal.directory if journal is not None else "",
        "undo": undo_command("postconf", journal) if journal is not None else "",
        "reload": change.reload,
    }
