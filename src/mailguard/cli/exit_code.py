"""How the commands end: the numbers of sysexits.h above 63, and those of a verdict below."""

from __future__ import annotations

from enum import IntEnum

__all__ = ["ExitCode"]


class ExitCode(IntEnum):
    """What a command's exit code means."""

    PASS = 0
    FAIL = 1
    NO_SIGNATURE = 2
    USAGE = 64
    """The command was not called as it must be: an unknown option, a message file that is not there."""
    TEMPORARY = 75
    """The DNS did not answer; the same command may succeed later."""
    CONFIGURATION = 78
    """A key, a zone, a configuration file or an installation that cannot be used."""
    INTERRUPTED = 130
