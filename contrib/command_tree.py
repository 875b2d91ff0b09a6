"""Every command of `mailguard`, with the commands in its groups, loaded."""

from __future__ import annotations

from collections.abc import Iterator

import click

from mailguard.cli.group import mailguard

__all__ = ["commands"]


def commands() -> Iterator[tuple[tuple[str, ...], click.Command, click.Context]]:
    """(the words that call it, the command, its context), each group before what is in it."""
    yield from _below(("mailguard",), mailguard, None)


def _below(
    path: tuple[str, ...], command: click.Command, parent: click.Context | None
) -> Iterator[tuple[tuple[str, ...], click.Command, click.Context]]:
    ctx = click.Context(command, parent=parent, info_name=path[-1], **command.context_settings)
    yield path, command, ctx
    if isinstance(command, click.Group):
        for name in command.list_commands(ctx):
            _, inner, _ = command.resolve_command(ctx, [name])
            if inner is not None:
                yield from _below((*path, name), inner, ctx)
