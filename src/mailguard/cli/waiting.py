"""waiting: a line that says what is waited for, on a terminal, beyond a second; gone when it is over.

`counted` says how many of many are done; `counted_without_thread` does so for what forks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from threading import Timer
from typing import TypeVar

import click
from rich.console import Console
from rich.text import Text

__all__ = ["counted", "counted_without_thread", "waiting"]

T = TypeVar("T")

# What takes less needs no explanation, and would only flicker.
SILENT_S = 1.0


@contextmanager
def waiting(text: str) -> Iterator[Callable[[str], None]]:
    """While the body runs, which must not print. On standard error, and only where that is a terminal.

    What the body is given changes the line.
    """
    console = Console(stderr=True)
    # Text and never markup: rich would take brackets for a style.
    status = console.status(Text(text))
    timer = Timer(SILENT_S, status.start)
    timer.daemon = True
    if console.is_terminal:
        timer.start()
    try:
        yield lambda changed: status.update(Text(changed))
    finally:
        timer.cancel()
        if timer.ident is not None:
            timer.join()
        status.stop()


def counted(text: str, found: Iterable[T], total: int) -> list[T]:
    """All of `found`, while a line says how many of `total` there are. One comes after the other."""
    gathered: list[T] = []
    with waiting(text) as say:
        for each in found:
            gathered.append(each)
            say(f"{text}: {len(gathered)} of {total}")
    return gathered


def counted_without_thread(text: str, found: Iterable[T], total: int) -> Iterator[T]:
    """The same, one by one, for what forks: `found` while it looks, or the caller, who may print lines."""
    is_shown = total > 1 and Console(stderr=True).is_terminal

    def say(done: int) -> None:
        if is_shown:
            click.echo(f"{text}: {done} of {total}\r", nl=False, err=True)

    try:
        say(0)
        for done, one in enumerate(found, 1):
            yield one
            say(done)
    finally:
        if is_shown:
            click.echo(" " * len(f"{text}: {total} of {total}") + "\r", nl=False, err=True)
