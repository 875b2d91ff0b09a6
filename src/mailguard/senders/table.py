"""Table: one of Postfix's lookup tables, asked for the owners of a key. Values and the interface; no I/O of its
own.
"""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

from mailguard.domain import Domain
from mailguard.errors import DomainError
from mailguard.senders.identity import folded_text
from mailguard.senders.permission import Asked

__all__ = ["Found", "InMemoryTable", "Table", "TableDown", "UnionTable", "key_of", "owners_of"]

# Postfix knows no bound. A value with more is no list of owners but a mistake.
MAX_OWNERS = 1_000
# Postfix's CHARS_COMMA_SP: no other white space parts two logins.
_SEPARATORS = re.compile("[, \t\r\n]+")


class TableDown(Exception):
    """The table cannot be asked now. The text says why, and has no password."""


@dataclass(frozen=True, slots=True)
class Found:
    """What a look-up gave: the owners, None where the key is not there; `asked` for people."""

    owners: tuple[str, ...] | None
    asked: Asked | None = None


class Table(ABC):
    """`name` is the table as main.cf has it (`hash:/etc/postfix/logins`)."""

    def __init__(self, name: str) -> None:
        self.name = name

    @abstractmethod
    def find(self, key: str, *, deadline: float = math.inf) -> Found:
        """The owners of `user@domain`, `user` or `@domain`, folded. Raises TableDown.

        `deadline`, in the seconds of the table's clock, is when a database has to have answered at the latest.
        """

    @abstractmethod
    def entries(self) -> Mapping[str, tuple[str, ...]] | None:
        """All keys, folded, with their owners; None if the table cannot be listed. Raises TableDown."""

    def close(self) -> None:  # noqa: B027 - most tables hold nothing that has to be closed
        """Let go of connections."""


class InMemoryTable(Table):
    """Entries that are there: those of an `inline:` table."""

    def __init__(self, name: str, entries: Mapping[str, tuple[str, ...]]) -> None:
        super().__init__(name)
        self._entries = entries

    def find(self, key: str, *, deadline: float = math.inf) -> Found:
        """Does not block."""
        return Found(self.entries().get(key), Asked(self.name, (key,)))

    def entries(self) -> Mapping[str, tuple[str, ...]]:
        """As given."""
        return self._entries


class UnionTable(Table):
    """`unionmap:`: the owners that any of its tables gives."""

    def __init__(self, name: str, tables: tuple[Table, ...]) -> None:
        super().__init__(name)
        self._tables = tables

    def find(self, key: str, *, deadline: float = math.inf) -> Found:
        """If one of the tables cannot be asked, neither can the union."""
        found = [table.find(key, deadline=deadline) for table in self._tables]
        asked = [each.asked for each in found if each.asked is not None]
        owners = [each.owners for each in found if each.owners is not None]
        return Found(
            tuple(owner for each in owners for owner in each) if owners else None,
            Asked(" and ".join(each.statement for each in asked), asked[0].parameters) if asked else None,
        )

    def entries(self) -> Mapping[str, tuple[str, ...]] | None:
        """Those of all tables, if each can be listed."""
        together: dict[str, tuple[str, ...]] = {}
        for table in self._tables:
            entries = table.entries()
            if entries is None:
                return None
            for key, owners in entries.items():
                together[key] = (*together.get(key, ()), *owners)
        return together

    def close(self) -> None:
        """Those of all tables."""
        for table in self._tables:
            table.close()


def key_of(written: str) -> str:
    """A key of a table in the form in which it is asked for: lower case, the domain as A-label where it is one."""
    local, at, right = written.rpartition("@")
    if at:
        try:
            return f"{folded_text(local)}@{Domain.parse(right)}"
        except DomainError:
            pass  # a key that no address has
    return folded_text(written)


def owners_of(value: str) -> tuple[str, ...]:
    """The logins in a value, as Postfix splits it: by commas and white space. Raises TableDown for too many."""
    owners = tuple(_SEPARATORS.sub(" ", value).strip(" ").split(" ")) if value.strip(", \t\r\n") else ()
    if len(owners) > MAX_OWNERS:
        raise TableDown(f"an entry has more than {MAX_OWNERS} owners")
    return owners
