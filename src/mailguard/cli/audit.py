"""`mailguard audit`: this host's Postfix against the recommendations of the hardening guides.

It reads configuration and changes nothing; the one file that it writes is the baseline that --write-baseline names.
"""

from __future__ import annotations

import secrets
import time
from pathlib import Path

import click

from mailguard.audit.baseline import MAX_OCTETS, Baseline
from mailguard.audit.checks import run_checks
from mailguard.audit.finding import Severity
from mailguard.audit.gather import Places, gather
from mailguard.cli.audit_report import AuditReport, show
from mailguard.cli.exit_code import ExitCode
from mailguard.cli.host_options import CONFIG_DIRECTORY_OPTION, POSTCONF_OPTION
from mailguard.cli.parameters import JSON_OPTION, POSIX_SECONDS
from mailguard.errors import ConfigError
from mailguard.guarded_file import read_beginning
from mailguard.setup_host.whole_file import write_whole

__all__ = ["audit"]


@click.command()
@CONFIG_DIRECTORY_OPTION
@click.option(
    "--root",
    type=click.Path(file_okay=False, path_type=Path),
    default="/",
    metavar="DIRECTORY",
    help="Look at the host whose files are below DIRECTORY: an image, a container.",
)
@POSTCONF_OPTION
@click.option(
    "-c",
    "--config",
    "config_file",
    type=click.Path(readable=False, path_type=Path),
    metavar="CONFIG",
    help="mailguard's, where it is not the default one.",
)
@click.option(
    "--baseline",
    type=click.Path(readable=False, path_type=Path),
    metavar="FILE",
    help="Accept the findings that FILE lists.",
)
@click.option(
    "--write-baseline",
    type=click.Path(readable=False, path_type=Path),
    metavar="FILE",
    help="Write the present findings to FILE.",
)
@click.option("--now", type=POSIX_SECONDS, metavar="SECONDS", help="Judge certificates at this POSIX time.")
@JSON_OPTION
def audit(
    config_directory: str | None,
    root: Path,
    postconf: str,
    config_file: Path | None,
    baseline: Path | None,
    write_baseline: Path | None,
    now: int | None,
    as_json: bool,
) -> int:
    """Hold this host's Postfix against the recommendations of the hardening guides.

    Shows what is not as it should be, why it matters, and the command that puts it right. Nothing is changed. Run it
    as root: it then can see the permissions of private keys.

    Ends with 0 if there is nothing to say, otherwise with the number of the worst that is not accepted: 1 a notice,
    or something that could not be told, 2 a warning, 3 critical.
    """
    if not root.is_dir():
        raise click.UsageError(f"{root}: there is no such directory")
    places = Places(root.resolve(), config_directory, postconf, config_file)
    accepted = _read(baseline) if baseline is not None else Baseline(frozenset())
    facts = gather(places, now=time.time() if now is None else float(now))
    report = AuditReport(run_checks(facts), accepted, facts.postfix.version)
    if write_baseline is not None:
        new = Baseline.of(report.results)
        _write(write_baseline, new.text())
        click.echo(f"{write_baseline}: {len(new.accepted)} findings are accepted from now on")
        return ExitCode.PASS
    show(report, as_json=as_json)
    worst: Severity | None = report.worst
    return worst.value if worst is not None else ExitCode.PASS


def _read(path: Path) -> Baseline:
    octets = read_beginning(str(path), max_octets=MAX_OCTETS + 1)
    if len(octets) > MAX_OCTETS:
        raise ConfigError(f"{path}: not a baseline: it is longer than {MAX_OCTETS} octets")
    return Baseline.parse(octets.decode("utf-8", "replace"), name=str(path))


def _write(path: Path, text: str) -> None:
    temporary = path.parent / f".{path.name}.{secrets.token_hex(4)}"
    try:
        write_whole(text.encode("utf-8"), str(path), temporary=str(temporary), mode=0o600, is_new=False)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written: {error.strerror or error}") from None
