"""`mailguard import`: the configuration of OpenDKIM, OpenDMARC, policyd-spf and dkimpy-milter as one of mailguard's.

Nothing of theirs is changed, and no file is ever overwritten.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Sequence
from functools import partial

import click

from mailguard.audit.gather import run_postconf
from mailguard.cli.exit_code import ExitCode
from mailguard.cli.host_options import POSTCONF_OPTION
from mailguard.cli.json_report import print_json
from mailguard.cli.key_files import Owner, find_owner, store_keys
from mailguard.cli.parameters import DIRECTORY, FILE
from mailguard.config import DEFAULT_USER
from mailguard.errors import ConfigError, KeyFileError
from mailguard.migration.importing import PROGRAMS, Imported, import_files
from mailguard.migration.private_keys import KeyCopy
from mailguard.setup_host.whole_file import write_whole

__all__ = ["import_"]


@click.command("import")
@click.argument("programs", nargs=-1, required=True, metavar="PROGRAM[=FILE]...")
@click.option(
    "--copy-keys",
    "copy_to",
    type=DIRECTORY,
    metavar="DIRECTORY",
    help="Copy keys there, as DIRECTORY/DOMAIN/SELECTOR.pem.",
)
@click.option(
    "--owner",
    metavar="USER",
    help=f"As root: give the copies to this user, as whom the daemon runs.  [default: {DEFAULT_USER}]",
)
@click.option("--output", type=FILE, metavar="FILE", help="Write the configuration there, if there is no such file.")
@POSTCONF_OPTION
@click.option("--json", "as_json", is_flag=True, help="Write the configuration and the notes as JSON.")
def import_(
    programs: tuple[str, ...],
    copy_to: str | None,
    owner: str | None,
    output: str | None,
    postconf: str,
    as_json: bool,
) -> ExitCode:
    """Print the configuration that does what that of other programs does: opendkim, opendmarc, policyd-spf,
    dkimpy-milter. Several are put together: mailguard import opendkim opendmarc policyd-spf.

    FILE is where Debian has it, if it is not given. Keys are used where they are, unless they are copied. What has to
    be decided, what is broken (FILE:LINE), what differs and what has no counterpart stands in comments. The mode is
    always monitor.

    Ends with 0 if all was taken over, 1 if something has to be decided, 78 if a file cannot be read.
    """
    if owner is not None and copy_to is None:
        raise click.UsageError("--owner is for keys that are copied: give --copy-keys too")
    files = _files(programs)
    if output is not None and os.path.lexists(output):
        raise ConfigError(_taken(output))
    directory = None if copy_to is None else os.path.abspath(copy_to)
    user = owner or DEFAULT_USER
    ids = find_owner(user) if directory is not None and (owner is not None or os.geteuid() == 0) else None
    imported = import_files(files, copy_to=directory, owner=user, myhostname=partial(_myhostname, postconf))
    if directory is not None:
        _store(imported.copies, directory, ids)
    if output is not None:
        _write(output, imported.text)
    if as_json:
        print_json(imported.to_json())
    elif output is None:
        click.echo(imported.text, nl=False)
    else:
        _tell(imported, output)
    return ExitCode.FAIL if imported.needs_decision else ExitCode.PASS


def _myhostname(postconf: str) -> str:
    """What Postfix calls this host; empty where it cannot be asked."""
    try:
        done = run_postconf([postconf, "-xh", "myhostname"])
    except ConfigError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _files(words: Sequence[str]) -> dict[str, str]:
    """The file for each program: `NAME=FILE`, `NAME FILE`, or `NAME` with Debian's."""
    files: dict[str, str] = {}
    waiting = ""
    for word in words:
        name, equals, file = word.partition("=")
        if name in PROGRAMS:
            if name in files:
                raise click.UsageError(f"{name} is there twice")
            if equals and not file:
                raise click.UsageError(f"{name}= names no file")
            files[name] = file or PROGRAMS[name].file
            waiting = "" if equals else name
        elif waiting:
            files[waiting] = word
            waiting = ""
        else:
            raise click.UsageError(f'"{word}" is none of {", ".join(sorted(PROGRAMS))}')
    return files


def _store(copies: Sequence[KeyCopy], directory: str, owner: Owner | None) -> None:
    """Copies that are there already, octet for octet, stay; any other file of such a name is an error."""
    missing = [copy for copy in copies if not _is_there(copy, directory)]
    domains = dict.fromkeys(copy.domain for copy in missing)
    for domain in domains:
        keys = [(copy.selector, copy.octets) for copy in missing if copy.domain == domain]
        store_keys(directory, domain, keys, owner=owner)


def _is_there(copy: KeyCopy, directory: str) -> bool:
    path = os.path.join(directory, copy.domain, f"{copy.selector}.pem")
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise KeyFileError(f"{path} is in the way: {error.strerror}") from None
    with open(descriptor, "rb") as file:
        if file.read(len(copy.octets) + 1) != copy.octets:
            raise KeyFileError(f"{path} is there already, with another key, and is never overwritten")
    return True


def _write(path: str, text: str) -> None:
    temporary = f"{path}.{secrets.token_hex(8)}.new"
    try:
        # The daemon's user reads it. It names files with secrets, and holds none.
        write_whole(text.encode("utf-8"), path, temporary=temporary, mode=0o644, is_new=True)
    except FileExistsError:
        raise ConfigError(_taken(path)) from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}") from None


def _taken(path: str) -> str:
    return f"{path} is there already and is never overwritten; choose another name with --output"


def _tell(imported: Imported, output: str) -> None:
    decisions = [note for note in imported.notes if note.kind.needs_decision]
    click.echo(f"{output} is written; {len(decisions)} of {len(imported.notes)} notes in it need a decision")
    for note in decisions:
        click.echo(f"  {note.kind.value}: {note}")
