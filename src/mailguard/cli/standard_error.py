"""What a command says on standard error, beside its output: a line each, of which strangers' text moves no cursor."""

from __future__ import annotations

import click

from mailguard.cli.printable import file_line

__all__ = ["note", "tell"]


def tell(text: str) -> None:
    """Each line of it, with the name of the program before."""
    for line in text.splitlines():
        click.echo(f"mailguard: {file_line(line)}", err=True)


def note(text: str) -> None:
    """What is worth knowing, and changes nothing."""
    tell(f"note: {text}")
