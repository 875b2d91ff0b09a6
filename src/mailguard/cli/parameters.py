"""The kinds of value that several commands take; what is wrong with one is a usage error that quotes it.

`as_domain`, `as_selector` and `as_selectors` are callbacks for click's arguments and options. `FILE` and `DIRECTORY`
tell a shell what to complete; whether there is such a file is found out where it is opened. What ends with `_OPTION`
is a whole option.
"""

from __future__ import annotations

from collections.abc import Sequence

import click
from click.shell_completion import CompletionItem

from mailguard.dkim.signature import own_selector
from mailguard.domain import Domain
from mailguard.errors import DomainError

__all__ = [
    "DIRECTORY",
    "FILE",
    "JSON_OPTION",
    "POSIX_SECONDS",
    "ZONE_OPTION",
    "as_domain",
    "as_selector",
    "as_selectors",
]


class _Directory(click.Path):
    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem[str]]:
        return [CompletionItem(incomplete, type="dir")]


FILE = click.Path(readable=False)
DIRECTORY = _Directory(readable=False)

# RFC 6376 §3.5 (t=): values of more than 12 digits may be taken as infinite.
POSIX_SECONDS = click.IntRange(0, 10**12)

JSON_OPTION = click.option("--json", "as_json", is_flag=True, help="Write JSON.")
ZONE_OPTION = click.option("--zone", type=FILE, metavar="FILE", help="Take the DNS answers from this master file.")


def as_domain(ctx: click.Context, param: click.Parameter, value: str | None) -> Domain | None:
    """A Domain, or None for an argument that may be left out and is."""
    try:
        return None if value is None else Domain.parse(value)
    except DomainError as error:
        raise click.BadParameter(f"{value!r} is not a domain name: {error}", ctx, param) from None


def as_selector(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """A selector in lower case, or None for an argument that may be left out and is."""
    try:
        return None if value is None else own_selector(value)
    except DomainError as error:
        raise click.BadParameter(f"{value!r} is not a selector: {error}", ctx, param) from None


def as_selectors(ctx: click.Context, param: click.Parameter, value: Sequence[str]) -> tuple[str | None, ...]:
    """Each of several selectors."""
    return tuple(as_selector(ctx, param, each) for each in value)
