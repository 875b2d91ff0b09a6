"""How the commands end: the numbers of sysexits.h above 63, and those of a verdict below."""

from __future__ import annotations

from enum import IntEnum

__all__ = ["ExitCode"]


class ExitCode(IntEnum):
    """What a command's exit code means; `meaning` tells it to users."""

    PASS = 0, "Pass, accepted, done, nothing found."
    FAIL = 1, "Fail, refused, not done, something found."
    NO_SIGNATURE = 2, "The message has no signature; key rotate: records wait to be published or removed."
    USAGE = 64, "Not called as it must be: an unknown option, a name that is none, a message file that is not there."
    TEMPORARY = 75, "A server did not answer, such as the DNS; the same command may succeed later."
    CONFIGURATION = 78, "A key, a zone, a configuration file or an installation that cannot be used."
    INTERRUPTED = 130, "Interrupted, with control-C."

    meaning: str

    def __new__(cls, number: int, meaning: str) -> ExitCode:
        """A member."""
        member = int.__new__(cls, number)
        member._value_ = number
        member.meaning = meaning
        return member
