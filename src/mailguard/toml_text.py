"""TOML 1.0 for a configuration: tables, lists of tables, and the few kinds of value that mailguard's has. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

__all__ = ["comment", "toml_key", "toml_text", "toml_value"]

MAX_LINE_CHARS = 100
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")


def toml_text(configuration: Mapping[str, Any]) -> str:
    """`configuration`, whole; the values of a table before the tables in it."""
    return "\n".join(_table(configuration, ())).strip() + "\n"


def comment(text: str) -> str:
    """`text` as a comment of one line."""
    return "# " + "".join(character if character.isprintable() else "?" for character in text)


def toml_key(key: str) -> str:
    """One key, in quotes if it needs them."""
    return key if _BARE_KEY.fullmatch(key) else _string(key)


def toml_value(value: Any) -> str:
    """What stands behind the sign; a list that is long has a line for each entry."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, str):
        return _string(value)
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{toml_key(key)} = {toml_value(inner)}" for key, inner in value.items()) + " }"
    parts = [toml_value(each) for each in value]
    line = f"[{', '.join(parts)}]"
    if len(line) <= MAX_LINE_CHARS and not any(isinstance(each, Mapping) for each in value):
        return line
    return "[\n" + "".join(f"    {part},\n" for part in parts) + "]"


def _table(table: Mapping[str, Any], path: tuple[str, ...]) -> Iterable[str]:
    for key, value in table.items():
        if not _is_deeper(value):
            yield f"{toml_key(key)} = {toml_value(value)}"
    for key, value in table.items():
        if not _is_deeper(value):
            continue
        name = ".".join(map(toml_key, (*path, key)))
        if isinstance(value, Mapping):
            if not value or any(not _is_deeper(each) for each in value.values()):
                yield from ("", f"[{name}]")
            yield from _table(value, (*path, key))
            continue
        for each in value:
            yield from ("", f"[[{name}]]")
            yield from _table(each, (*path, key))


def _is_deeper(value: Any) -> bool:
    """Whether it has a header of its own. The selectors of a domain stand in one list, a line each."""
    if isinstance(value, Mapping):
        return True
    return isinstance(value, list) and bool(value) and isinstance(value[0], Mapping) and "key_file" not in value[0]


def _string(text: str) -> str:
    """JSON's strings are TOML's, but that JSON escapes in UTF-16, or not at all. What is no character (an octet of a
    file's name that is not UTF-8) becomes an escape that readers of TOML refuse."""
    written = json.dumps(text, ensure_ascii=False)
    return "".join(char if char.isprintable() else f"\\U{ord(char):08x}" for char in written)
