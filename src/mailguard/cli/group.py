"""The command `mailguard` with its verbs, and the one place where what goes wrong becomes a line and an exit code.

A user's mistake is one plain line on standard error, never a traceback.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib.metadata import version

import click

from mailguard.cli.audit import audit
from mailguard.cli.check import check
from mailguard.cli.dane import dane
from mailguard.cli.dmarc import dmarc
from mailguard.cli.dns import dns
from mailguard.cli.doctor import doctor
from mailguard.cli.enforce import enforce
from mailguard.cli.exit_code import ExitCode
from mailguard.cli.explain import explain
from mailguard.cli.key import key
from mailguard.cli.migrate import import_
from mailguard.cli.mta_sts import mta_sts
from mailguard.cli.postconf import postconf
from mailguard.cli.quickstart import quickstart
from mailguard.cli.senders import senders
from mailguard.cli.sign import sign
from mailguard.cli.spf import spf
from mailguard.cli.tlspolicy import tlspolicy
from mailguard.cli.verify import verify
from mailguard.errors import ConfigError, DomainError, MailguardError, MissingExtraError, SigningRefused, ZoneError

__all__ = ["run"]


@click.group(no_args_is_help=False, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(version("mailguard-milter"), prog_name="mailguard")
def mailguard() -> None:
    """Sign mail and make the keys for it; verify mail and explain what becomes of it; check what domains publish
    and who may use which address.

    Exit codes: 0 pass or accepted, 1 fail or refused, 2 no signature, 64 usage, 75 temporary error, 78 configuration.
    """


for verb in (
    audit,
    check,
    dane,
    dmarc,
    dns,
    doctor,
    enforce,
    explain,
    import_,
    key,
    mta_sts,
    postconf,
    quickstart,
    senders,
    sign,
    spf,
    tlspolicy,
    verify,
):
    mailguard.add_command(verb)


def run(arguments: Sequence[str]) -> int:
    """Run one command; its exit code. Raises nothing for what a user may do wrong."""
    try:
        code = mailguard.main(list(arguments), prog_name="mailguard", standalone_mode=False)
        sys.stdout.flush()
    except click.UsageError as error:
        where = error.ctx.command_path if error.ctx else "mailguard"
        return _say(f"{error.format_message().rstrip('.')}; see: {where} --help", ExitCode.USAGE)
    except click.ClickException as error:
        return _say(error.format_message(), ExitCode.USAGE)
    except click.Abort:
        return _say("interrupted", ExitCode.INTERRUPTED)
    except SigningRefused as error:
        return _say(str(error), ExitCode.FAIL)
    except DomainError as error:
        return _say(str(error), ExitCode.USAGE)
    except (ConfigError, ZoneError, MissingExtraError) as error:
        return _say(str(error), ExitCode.CONFIGURATION)
    except MailguardError as error:
        return _say(str(error), ExitCode.FAIL)
    except BrokenPipeError:
        # The reader (head, less) has gone, and knows.
        _drop_unwritable_output()
        return ExitCode.FAIL
    except OSError as error:
        _drop_unwritable_output()
        place = f"{error.filename}: " if error.filename else ""
        return _say(f"{place}{error.strerror or error}", ExitCode.CONFIGURATION)
    return int(code or ExitCode.PASS)


def _drop_unwritable_output() -> None:
    """If what is left in the buffer cannot be written, see that Python does not try again at exit, and complain."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _say(text: str, code: ExitCode) -> int:
    for line in text.splitlines():
        print(f"mailguard: {line}", file=sys.stderr)
    return code
