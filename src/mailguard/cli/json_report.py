"""print_json: what a command prints with --json."""

from __future__ import annotations

import json

import click

__all__ = ["print_json"]


def print_json(value: object) -> None:
    """To standard output. All that is not ASCII is escaped."""
    click.echo(json.dumps(value, indent=2))
