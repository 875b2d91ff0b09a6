"""The command `mailguard` with its verbs, and the one place where what goes wrong becomes a line and an exit code.

A user's mistake is one plain line on standard error, never a traceback.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module

import click

from mailguard.cli.exit_code import ExitCode
from mailguard.cli.standard_error import tell
from mailguard.errors import ConfigError, DomainError, MailguardError, MissingExtraError, SigningRefused, ZoneError

__all__ = ["run"]


class Verb(click.Command):
    """A verb as the list of commands shows it. Its module is imported when it is used: a shell that asks for
    completions waits for no other."""

    def __init__(self, name: str, short_help: str, place: str = "") -> None:
        """`place` is module:function below mailguard.cli where the name does not tell it."""
        super().__init__(name, short_help=short_help)
        plain = name.replace("-", "_")
        self._module, _, self._function = (place or f"{plain}:{plain}").partition(":")

    def load(self) -> click.Command:
        """The verb itself."""
        command: click.Command = getattr(import_module(f"mailguard.cli.{self._module}"), self._function)
        return command


class Verbs(click.Group):
    """A group that loads the one command that is called."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name, command, rest = super().resolve_command(ctx, args)
        return name, command.load() if isinstance(command, Verb) else command, rest


@click.group(cls=Verbs, no_args_is_help=False, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="mailguard-milter", prog_name="mailguard")
def mailguard() -> None:
    """Sign mail and make the keys for it; verify mail and explain what becomes of it; check what domains publish
    and who may use which address.

    Exit codes: 0 pass or accepted, 1 fail or refused, 2 no signature, 64 usage, 75 temporary error, 78 configuration.
    """


for verb in (
    Verb("audit", "Hold this host's Postfix against the hardening guides."),
    Verb("check", "Show what a domain publishes, and what to do about it."),
    Verb("completion", "Print what makes a shell complete this command."),
    Verb("dane", "DANE: TLSA records and the certificates behind them."),
    Verb("dmarc", "Look at what domains publish for DMARC."),
    Verb("dns", "Print the DNS records to publish, or compare them."),
    Verb("doctor", "Look whether everything is in place on this host."),
    Verb("enforce", "Show what mode = enforce would have refused."),
    Verb("explain", "Explain what becomes of a message, and why."),
    Verb("import", "Take over the configuration of other milters.", "migrate:import_"),
    Verb("key", "Make keys to sign with, test them, and change them."),
    Verb("mta-sts", "MTA-STS: a policy, and whether its servers satisfy it."),
    Verb("postconf", "Show or apply the settings that Postfix needs."),
    Verb("quickstart", "Set this host up for a domain."),
    Verb("senders", "Look at who may use which address."),
    Verb("sign", "Sign a message."),
    Verb("spf", "Look at what domains publish for SPF."),
    Verb("test", "Send a message, and explain what became of it."),
    Verb("tlspolicy", "Tell Postfix what TLS to demand of each destination."),
    Verb("verify", "Verify the DKIM signatures of a message."),
):
    mailguard.add_command(verb)


def run(arguments: Sequence[str]) -> int:
    """Run one command; its exit code. Raises nothing for what a user may do wrong."""
    if sys.stdout is None:
        return _say("standard output is closed", ExitCode.CONFIGURATION)
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
    tell(text)
    return code
