"""The kinds of value that several commands take; what is wrong with one is a usage error that quotes it.

`as_domain`, `as_selector`, `as_selectors` and what `read_as` makes are callbacks for click's arguments and options.
`FILE` and `DIRECTORY` tell a shell what to complete; whether there is such a file is found out where it is opened.
What ends with `_OPTION` is a whole option.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import click
from click.shell_completion import CompletionItem

from mailguard.dkim.signature import own_selector
from mailguard.domain import Domain

__all__ = [
    "DIRECTORY",
    "FILE",
    "JSON_OPTION",
    "POSIX_SECONDS",
    "ZONE_OPTION",
    "as_domain",
    "as_selector",
    "as_selectors",
    "read_as",
]


_T = TypeVar("_T")


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


def read_as(
    parse: Callable[[str], _T], what: str = ""
) -> Callable[[click.Context, click.Parameter, str | None], _T | None]:
    """What `parse` makes of a value, or None for one that may be left out and is.

    `parse` raises ValueError, whose text is told, after "is not" and `what` where that is given.
    """

    def callback(ctx: click.Context, param: click.Parameter, value: str | None) -> _T | None:
        try:
            return None if value is None else parse(value)
        except ValueError as error:
            said = f"{value!r} is not {what}: {error}" if what else str(error)
            raise click.BadParameter(said, ctx, param) from None

    return callback


as_domain = read_as(Domain.parse, "a domain name")
as_selector = read_as(own_selector, "a selector")


def as_selectors(ctx: click.Context, param: click.Parameter, value: Sequence[str]) -> tuple[str | None, ...]:
    """Each of several selectors."""
    return tuple(as_selector(ctx, param, each) for each in value)
