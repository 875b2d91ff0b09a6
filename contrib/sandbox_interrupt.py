"""Signals that would end a program before it has ended what it started: they interrupt it instead, once.

For the main thread of a program; a signal that is ignored when it starts, as nohup(1) has it, stays ignored.
"""

from __future__ import annotations

import signal
from types import FrameType
from typing import NoReturn

__all__ = ["ignore_signals", "interrupt_on_signals"]

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def interrupt_on_signals() -> None:
    """From now on the first of these signals raises KeyboardInterrupt, and later ones do nothing."""
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _interrupt)


def ignore_signals() -> None:
    """From now on they do nothing."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    """The contexts end what they have started, and are not disturbed by a second Ctrl-C."""
    ignore_signals()
    raise KeyboardInterrupt
