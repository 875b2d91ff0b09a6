"""JSON that a file must have exactly: no name twice or unknown, no value of another kind or size. Pure.

RFC 8259. What is wrong is one ConfigError, without the name of the file.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, TypeGuard

from mailguard.errors import ConfigError

__all__ = ["MAX_NUMBER", "Entry", "is_path", "read_json"]

# The year 8307: what is above is no time of a host that works, and a calendar ends with the year 9999.
MAX_NUMBER = 200_000_000_000
MAX_TEXT_CHARS = 8_192


def read_json(octets: bytes) -> object:
    """The one value in `octets`. Raises ConfigError."""
    try:
        return json.loads(octets.decode("utf-8"), object_pairs_hook=_once, parse_constant=_refuse)
    except RecursionError:
        raise ConfigError("not JSON: values are nested too deeply") from None
    except ValueError as error:
        raise ConfigError(f"not JSON: {error}") from None


class Entry:
    """An object whose names are `names`, no more and no fewer. What reads a value raises ConfigError."""

    def __init__(self, found: object, *names: str) -> None:
        if not isinstance(found, dict) or set(found) != set(names):
            raise ConfigError(f"an object with {', '.join(names)} is expected")
        self._found: dict[str, object] = found

    def text(self, name: str) -> str:
        """A text in printable ASCII."""
        value = self._found[name]
        if not _is_text(value):
            raise ConfigError(f"{name}: a text in printable ASCII is expected")
        return value

    def path(self, name: str) -> str:
        """The name of a file."""
        value = self._found[name]
        if not is_path(value):
            raise ConfigError(f"{name}: the name of a file without control characters is expected")
        return value

    def path_or_none(self, name: str) -> str | None:
        return None if self._found[name] is None else self.path(name)

    def number(self, name: str) -> float:
        """From 0 up."""
        value = self._found[name]
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= MAX_NUMBER:
            raise ConfigError(f"{name}: a number from 0 to {MAX_NUMBER} is expected")
        return value

    def number_or_none(self, name: str) -> float | None:
        return None if self._found[name] is None else self.number(name)

    def flag(self, name: str) -> bool:
        value = self._found[name]
        if not isinstance(value, bool):
            raise ConfigError(f"{name}: true or false is expected")
        return value

    def list(self, name: str, most: int) -> Sequence[object]:
        value = self._found[name]
        if not isinstance(value, list) or len(value) > most:
            raise ConfigError(f"{name}: a list of at most {most} is expected")
        return value

    def table(self, name: str, most: int) -> dict[str, object]:
        value = self._found[name]
        if not isinstance(value, dict) or len(value) > most:
            raise ConfigError(f"{name}: an object of at most {most} names is expected")
        # They are told in what follows, and what is told must not control the terminal.
        if not all(map(_is_text, value)):
            raise ConfigError(f"{name}: names in printable ASCII are expected")
        return value


def is_path(value: object) -> TypeGuard[str]:
    """Whether `Entry.path` reads it."""
    return isinstance(value, str) and len(value) <= MAX_TEXT_CHARS and value.isprintable()


def _is_text(value: object) -> TypeGuard[str]:
    return is_path(value) and value.isascii()


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name is there twice")
    return found


def _refuse(word: str) -> None:
    raise ValueError(f"{word} is no number")
