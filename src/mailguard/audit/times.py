"""Postfix's way to write a length of time. Pure."""

from __future__ import annotations

import re

__all__ = ["DAY_S", "seconds"]

DAY_S = 86_400
_UNITS = {"s": 1, "m": 60, "h": 3_600, "d": DAY_S, "w": 7 * DAY_S}
_TIME = re.compile(r"(\d{1,12})\s*([smhdw]?)", re.IGNORECASE)


def seconds(value: str) -> int | None:
    """`3600s`, `2h` or `1d`; a number alone is in seconds. None if it is no time."""
    found = _TIME.fullmatch(value.strip())
    return int(found[1]) * _UNITS[found[2].lower() or "s"] if found else None
