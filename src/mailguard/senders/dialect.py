"""The three database systems, as far as their text differs."""

from __future__ import annotations

from enum import Enum

__all__ = ["Dialect"]


class Dialect(Enum):
    """A database system. MariaDB is MYSQL."""

    MYSQL = "mysql"
    POSTGRESQL = "postgresql"
    SQLITE = "sqlite"

    @property
    def placeholder(self) -> str:
        """What stands for a bound value in the text that the driver takes."""
        return "?" if self is Dialect.SQLITE else "%s"

    def exactly(self, value: str) -> str:
        """SQL for a value that is compared letter for letter, whatever the collation of the column."""
        if self is Dialect.MYSQL:
            return f"(CONVERT({value} USING utf8mb4) COLLATE utf8mb4_bin)"
        # Not "::text": citext, which tells letters apart as it is, would be compared with its case.
        return f'({value} COLLATE "C")' if self is Dialect.POSTGRESQL else value

    def written(self, text: str, *, is_quoted: bool) -> str:
        """SQL without bound values as the driver takes it, where "%" begins one. Only whole tokens."""
        # PyMySQL resolves "%%" everywhere, pg8000 everywhere but between quotes.
        doubled = self is Dialect.MYSQL or (self is Dialect.POSTGRESQL and not is_quoted)
        return text.replace("%", "%%") if doubled else text
