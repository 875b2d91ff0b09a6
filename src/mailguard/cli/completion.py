"""`mailguard completion SHELL`: the script that makes a shell complete the command; click makes it."""

from __future__ import annotations

import click
from click.shell_completion import BashComplete, FishComplete, ZshComplete

__all__ = ["completion"]


class _Zsh(ZshComplete):
    @property
    def func_name(self) -> str:
        """As the file in site-functions. With click's name, zsh takes the whole file for the function from the second
        TAB on, which then completes nothing."""
        return "_mailguard"


SHELLS = {kind.name: kind for kind in (BashComplete, _Zsh, FishComplete)}


@click.command()
@click.argument("shell", type=click.Choice(list(SHELLS)))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the script that makes SHELL complete the command mailguard. Write it, on Debian, to

    \b
    bash: /usr/local/share/bash-completion/completions/mailguard
    zsh:  /usr/local/share/zsh/site-functions/_mailguard
    fish: /etc/fish/completions/mailguard.fish
    """
    # click asks for completions by this variable, named after the program.
    script = SHELLS[shell](ctx.find_root().command, {}, "mailguard", "_MAILGUARD_COMPLETE")
    click.echo(script.source())
