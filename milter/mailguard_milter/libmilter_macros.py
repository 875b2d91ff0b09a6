"""The macros that the MTA has sent, as pymilter's context has them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from mailguard_milter.engine import QUEUE_ID_MACRO

__all__ = ["macros", "queue_id_of"]


def queue_id_of(context: Any) -> bytes | None:
    """The message's, where there is one yet."""
    return macros(context, (QUEUE_ID_MACRO,)).get(QUEUE_ID_MACRO)


def macros(context: Any, names: Iterable[str]) -> dict[str, bytes | None]:
    """The macros that the MTA sent. None is one whose value is not UTF-8: pymilter cannot hand it over."""
    found: dict[str, bytes | None] = {}
    for name in names:
        try:
            value = context.getsymval(name)
        except UnicodeDecodeError:
            found[name] = None
            continue
        if value is not None:
            found[name] = value.encode()
    return found
