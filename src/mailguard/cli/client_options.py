"""What SMTP said, as the options --ip, --helo and --mail-from, which several commands take."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any

import click

__all__ = ["ClientAddress", "client_options", "reverse_path"]

ClientAddress = IPv4Address | IPv6Address


def client_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The three options; none of them is required, so that each command says what it can do without them."""
    for option in (
        click.option("--mail-from", metavar="ADDRESS", help="The reverse path (MAIL FROM); '' for the null one."),
        click.option("--helo", metavar="NAME", help="What the client said with HELO or EHLO."),
        click.option(
            "--ip", callback=_as_address, metavar="IP", help="The address of the client that sent the message."
        ),
    ):
        command = option(command)
    return command


def reverse_path(text: str) -> bytes:
    """The octets of --mail-from, without angle brackets."""
    octets = text.encode("utf-8", "surrogateescape")
    return octets[1:-1] if octets.startswith(b"<") and octets.endswith(b">") else octets


def _as_address(ctx: click.Context, param: click.Parameter, value: str | None) -> ClientAddress | None:
    try:
        return None if value is None else ip_address(value)
    except ValueError:
        raise click.BadParameter(f"{value!r} is not an IP address", ctx, param) from None
