"""The files behind the tables that a parameter names: `hash:/etc/postfix/sasl_passwd`. Pure."""

from __future__ import annotations

import re

__all__ = ["table_files"]

_TABLE = re.compile(r"(?:proxy:)?(hash|btree|lmdb|cdb|texthash):(/[^\s,{}]+)")
_SUFFIXES = {"hash": ".db", "btree": ".db", "lmdb": ".lmdb", "cdb": ".cdb"}


def table_files(value: str) -> tuple[tuple[str, ...], ...]:
    """For each table the source, and the table that postmap made from it where there is one."""
    return tuple(
        (path, path + _SUFFIXES[kind]) if kind in _SUFFIXES else (path,) for kind, path in _TABLE.findall(value)
    )
