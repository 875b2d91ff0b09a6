"""Where a database is and as whom it is asked. Values; nothing is connected to."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from mailguard.senders.dialect import Dialect

__all__ = ["MYSQL_PORT", "POSTGRESQL_PORT", "DatabaseAccess", "DatabasePlace", "socket_of_mysql"]

MYSQL_PORT, POSTGRESQL_PORT = 3306, 5432


@dataclass(frozen=True, slots=True)
class DatabasePlace:
    """Where a server is: a host and port, or a socket; for SQLite, its file in `path`."""

    host: str = ""
    port: int | None = None
    socket: str = ""
    path: str = ""

    def __str__(self) -> str:
        return self.path or self.socket or (f"{self.host}:{self.port}" if self.port else self.host)


@dataclass(frozen=True, slots=True)
class DatabaseAccess:
    """A database. Of several places the first that answers is asked."""

    dialect: Dialect
    places: tuple[DatabasePlace, ...]
    name: str = ""
    user: str = ""
    password: str = field(default="", repr=False)


def socket_of_mysql() -> str:
    """Where the socket of a MySQL server on this host is, as its clients have it compiled in.

    Never in /tmp, MySQL's own default: while the server is down, any user can make a socket there, is given the
    password, and says who may use which address.
    """
    known = ("/run/mysqld/mysqld.sock", "/var/lib/mysql/mysql.sock")
    return next((path for path in known if Path(path).exists()), known[0])
