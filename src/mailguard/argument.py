"""Arguments that a caller got wrong: refused with their names, before anything is judged by them.

Most of it a type checker tells. Who has none would get a verdict: a string is equal to no member of an enum, so that
something else is checked than was asked for, and no time is before NaN. For the edges of the library; what is called
for each message of the daemon does without.
"""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["check_each", "check_now", "check_type"]

# RFC 6376 §3.5: t= and x= are read up to 10^12 at least. What is more is milliseconds as a rule.
MAX_NOW = 10**12


def check_type(name: str, value: object, *kinds: type) -> None:
    """Raise TypeError unless `value` is of one of `kinds`. True and False are no numbers."""
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        wanted = " or ".join([_called(kind) for kind in kinds])
        raise TypeError(f"{name}: {wanted} is needed, not {_called(type(value))}")


def check_each(name: str, values: Iterable[object], *kinds: type) -> None:
    """`check_type` for each of `values`, which are read once. Raises TypeError for one value in place of several."""
    if isinstance(values, (str, bytes, *kinds)) or not isinstance(values, Iterable):
        raise TypeError(f"{name}: several of {_called(kinds[0])} are needed, not {_called(type(values))}")
    for value in values:
        check_type(name, value, *kinds)


def check_now(now: float) -> None:
    """Raise TypeError for what is no number, and ValueError for what are no POSIX seconds."""
    check_type("now", now, float, int)
    if not 0 <= now <= MAX_NOW:
        raise ValueError(f"now: POSIX seconds are needed, as time.time() gives them, not {now!r:.40}")


def _called(kind: type) -> str:
    return "None" if kind is type(None) else kind.__name__
