"""Which configuration and which Postfix of this host are meant: the options that say it."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import click

from mailguard.cli.parameters import DIRECTORY, FILE, JSON_OPTION
from mailguard.config import DEFAULT_PATH, Config, load

__all__ = ["CONFIG_DIRECTORY_OPTION", "CONFIG_OPTION", "POSTCONF_OPTION", "config_if_any", "host_options"]

CONFIG_OPTION = click.option(
    "-c", "--config", "config_file", type=FILE, metavar="CONFIG", default=DEFAULT_PATH, show_default=True
)
CONFIG_DIRECTORY_OPTION = click.option(
    "--config-directory", type=DIRECTORY, metavar="DIRECTORY", help="Postfix's, where it is not the default one."
)
POSTCONF_OPTION = click.option(
    "--postconf", metavar="PROGRAM", default="postconf", show_default=True, help="Postfix's postconf."
)


def config_if_any(path: str | None) -> Config | None:
    """None where nobody named one and there is none: a domain can be looked at from anywhere. Raises ConfigError."""
    return load(path or DEFAULT_PATH) if path is not None or os.path.exists(DEFAULT_PATH) else None


def host_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """All of them, and --json."""
    for option in (JSON_OPTION, POSTCONF_OPTION, CONFIG_DIRECTORY_OPTION, CONFIG_OPTION):
        function = option(function)
    return function
