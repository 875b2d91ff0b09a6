"""How files of the host are changed and put back: the way back is told before anything is changed, and what comes of
it afterwards."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Sequence

import click

from mailguard.cli.doctor_probe import probe
from mailguard.cli.parameters import DIRECTORY
from mailguard.cli.printable import file_line
from mailguard.cli.standard_error import tell
from mailguard.config import Config, Mode
from mailguard.setup_host.file_changes import Journal, undo
from mailguard.setup_host.milter_list import MILTERS, OTHER_MILTERS
from mailguard.setup_host.milter_plan import Setting

__all__ = ["BACKUPS_OPTION", "UNDO_OPTION", "carry_out", "undo_command", "undone", "warnings"]

BACKUPS_OPTION = click.option(
    "--backups",
    type=DIRECTORY,
    metavar="DIRECTORY",
    default="/var/backups/mailguard",
    show_default=True,
    help="Where old files are kept.",
)
UNDO_OPTION = click.option(
    "--undo", "kept", type=DIRECTORY, metavar="DIRECTORY", help="Put back what an earlier run has kept there."
)


def undo_command(verb: str, journal: Journal) -> str:
    """For a shell."""
    return f"mailguard {verb} --undo {shlex.quote(journal.directory)}"


def carry_out(journal: Journal, others: Callable[[], None] = lambda: None) -> None:
    """Raises ConfigError as the Journal does."""
    try:
        journal.carry_out(others)
    except KeyboardInterrupt:
        # Whatever else happens, click says that it was interrupted.
        tell("all is as it was before")
        raise


def undone(directory: str) -> None:
    """Put back what was kept there, and say so. Raises ConfigError."""
    found = undo(directory)
    for line in found.lines or ("# all is as it was before already",):
        click.echo(file_line(line))
    click.echo("# now run:")
    for line in found.commands:
        click.echo(file_line(line))


def warnings(config: Config, settings: Sequence[Setting]) -> Iterator[str]:
    """What becomes of mail between the change of the files and the reload, or the start of the daemon."""
    names = {each.name for each in settings if each.value and each.service is None}
    if not names & {MILTERS, OTHER_MILTERS}:
        return
    for each in config.listeners:
        address = each.socket_address
        place = address.path or (str(address.ip), address.port)
        found = probe(address.family, place, person=None, queue_directory="/", chroot=False)
        if found.fault:
            yield (
                f"nobody answers at {each.address} yet ({found.fault}). Postfix begins to use main.cf as soon as it"
                " is written, before any reload: until mailguard-milter runs there it answers 451. Other servers try"
                " again, your users see an error. So start it at once"
            )
    roles = {each.role for each in config.listeners}
    if {"verify", "sign"} <= roles and any(each.service is not None for each in settings):
        yield (
            "reload Postfix at once: from when main.cf is written until the reload, mail of your users passes the"
            f' listener with role = "verify"{_refusing(config)}'
        )


def _refusing(config: Config) -> str:
    return ', which may refuse it as mode = "enforce"' if config.mode is Mode.ENFORCE else ""
