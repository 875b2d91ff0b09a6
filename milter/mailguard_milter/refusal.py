"""Refusal: why the daemon does not start or does not reload, and the exit code that says so.

The supervisor's own, because it does not import mailguard. Exit codes as in sysexits.h.
"""

from __future__ import annotations

__all__ = ["EX_CONFIG", "EX_SOFTWARE", "EX_TEMPFAIL", "EX_USAGE", "Refusal"]

EX_USAGE = 64
EX_SOFTWARE = 70
EX_TEMPFAIL = 75
EX_CONFIG = 78


class Refusal(Exception):
    """The text says what is wrong and what to do."""

    def __init__(self, text: str, code: int = EX_CONFIG) -> None:
        super().__init__(text)
        self.code = code
