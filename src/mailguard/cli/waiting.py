"""waiting: a line that says what is waited for, on a terminal, beyond a second; gone when it is over."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Timer

from rich.console import Console
from rich.text import Text

__all__ = ["waiting"]

# What takes less needs no explanation, and would only flicker.
SILENT_S = 1.0


@contextmanager
def waiting(text: str) -> Iterator[None]:
    """While the body runs, which must not print. On standard error, and only where that is a terminal."""
    console = Console(stderr=True)
    # Text and never markup: rich would take brackets for a style.
    status = console.status(Text(text))
    timer = Timer(SILENT_S, status.start)
    timer.daemon = True
    if console.is_terminal:
        timer.start()
    try:
        yield
    finally:
        timer.cancel()
        if timer.ident is not None:
            timer.join()
        status.stop()
