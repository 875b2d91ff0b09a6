"""Reading the message that a command is about, from a file or standard input."""

from __future__ import annotations

import sys
from pathlib import Path

import click

__all__ = ["STANDARD_INPUT", "read_message"]

STANDARD_INPUT = "-"


def read_message(file: str) -> bytes:
    """The octets of `file`, or of standard input for "-". Raises click.ClickException for what cannot be read."""
    if file == STANDARD_INPUT:
        if sys.stdin is None:
            raise click.ClickException("standard input is closed; name a file")
        return sys.stdin.buffer.read()
    try:
        return Path(file).read_bytes()
    except OSError as error:
        raise click.ClickException(f"{file}: {error.strerror}") from None
