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

    def written(self, text: str, *, is_quoted: bool) -> str:
        """SQL without bound values as the driver takes it, where "%" begins one. Only whole tokens."""
        # PyMySQL resolves "%%" everywhere, pg8000 everywhere but between quotes.
        doubled = self is Dialect.MYSQL or (self is Dialect.POSTGRESQL and not is_quoted)
        return text.replace("%", "%%") if doubled else text
