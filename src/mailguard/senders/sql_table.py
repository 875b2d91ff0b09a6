"""`mysql:`, `pgsql:` and `sqlite:` tables: the file that Postfix has for one, and the query in it.

mysql_table(5), pgsql_table(5), sqlite_table(5): hosts, user, password, dbname or dbpath, query, result_format,
domain, expansion_limit, and the older select_field, table, where_field, additional_conditions. What would change the
answer and is not understood (TLS, option files, tables of domains) is an error that names it. mysql and pgsql give
the owners in all columns of a row, sqlite in the first. Connections are made when they are needed. Thread-safe.
"""

from __future__ import annotations

import math
import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping

from mailguard.domain import Domain
from mailguard.errors import ConfigError, DomainError
from mailguard.senders.database_access import (
    MYSQL_PORT,
    POSTGRESQL_PORT,
    DatabaseAccess,
    DatabasePlace,
    socket_of_mysql,
)
from mailguard.senders.dialect import Dialect
from mailguard.senders.expansion import Key, parts_of
from mailguard.senders.permission import Asked
from mailguard.senders.query_template import parse_query
from mailguard.senders.sql import Asking, Database, DatabaseDown
from mailguard.senders.table import MAX_OWNERS, Found, Table, TableDown, owners_of
from mailguard.senders.table_file import text_lines

__all__ = ["SqlTable", "read_parameters"]

MAX_FILE_BYTES = 65_536
MAX_HOSTS = 10

_DIALECTS = {"mysql": Dialect.MYSQL, "pgsql": Dialect.POSTGRESQL, "sqlite": Dialect.SQLITE}
_LEGACY = frozenset({"select_field", "table", "where_field", "additional_conditions"})
_QUERY = frozenset({"query", "result_format", "domain", "expansion_limit"}) | _LEGACY
_SERVER = frozenset({"hosts", "user", "password", "dbname"})
# How long Postfix keeps connections says nothing about the answer; and it knows no `port`, which iRedMail writes.
_WITHOUT_EFFECT = frozenset({"idle_interval", "retry_interval", "port"})
_KNOWN = {
    "mysql": _QUERY | _SERVER | _WITHOUT_EFFECT | {"require_result_set", "charset"},
    "pgsql": _QUERY | _SERVER | _WITHOUT_EFFECT | {"select_function", "encoding"},
    "sqlite": _QUERY | {"dbpath"},
}
_ONLY = {"require_result_set": ("yes",), "charset": ("utf8mb4", "utf8", ""), "encoding": ("utf8", "utf-8", "")}
_PARAMETER = re.compile(r"([A-Za-z0-9_]+)[ \t\r\n\v\f]*=(.*)", re.DOTALL)


class SqlTable(Table):
    """A table that is a query."""

    def __init__(self, kind: str, path: str, *, deadline_s: float, clock: Callable[[], float]) -> None:
        """Reads the file. Raises ConfigError, whose text begins with its path."""
        super().__init__(f"{kind}:{path}")
        self._deadline_s = deadline_s
        self._clock = clock
        parameters = read_parameters(path)
        try:
            self._open(kind, parameters)
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from None

    def _open(self, kind: str, parameters: Mapping[str, str]) -> None:
        unknown = sorted(parameters.keys() - _KNOWN[kind])
        if unknown:
            raise ConfigError(f'"{unknown[0]}" is not understood here; known are {", ".join(sorted(_KNOWN[kind]))}')
        for name, values in _ONLY.items():
            if parameters.get(name, values[0]).lower() not in values:
                raise ConfigError(f"{name} = {parameters[name]}: only {values[0]} is understood")
        dialect = _DIALECTS[kind]
        result_format = parameters.get("result_format", "%s")
        self._result = parts_of(result_format)
        self._query = parse_query(_query(parameters), dialect, result_format=result_format)
        self._first_column_only = dialect is Dialect.SQLITE
        # A key may have either form.
        domains = tuple(_domains(parameters.get("domain", "")))
        self._domains = frozenset((*domains, *(domain.unicode for domain in domains)))
        limit = parameters.get("expansion_limit", "0")
        if not limit.isascii() or not limit.isdigit():
            raise ConfigError(f"expansion_limit = {limit}: not a number")
        self._limit = int(limit) or MAX_OWNERS
        access = DatabaseAccess(
            dialect,
            tuple(_places(kind, parameters)),
            name=parameters.get("dbname", ""),
            user=parameters.get("user", ""),
            password=parameters.get("password", ""),
        )
        self._database = Database(access, deadline_s=self._deadline_s, clock=self._clock)

    def find(self, key: str, *, deadline: float = math.inf) -> Found:
        """Asks the database, unless the file says that such keys are not looked up."""
        sought = Key(key)
        if not sought.satisfies(self._query.needs) or not self._is_in_domain(sought):
            return Found(None)
        values = self._query.values(sought)

        def question(asking: Asking) -> tuple[list[str], Asked]:
            rows = asking.rows(self._query.statement, values)
            if rows and not key.isascii() and self._query.exact_statement != self._query.statement:
                # Often no index helps this one. It is asked of what is there, perhaps as another name.
                rows = asking.rows(self._query.exact_statement, values)
            return list(self._results(rows, sought)), asking.asked[-1]

        try:
            allowed_s = min(self._deadline_s, deadline - self._clock())
            results, asked = self._database.ask(question, deadline_s=allowed_s)
        except DatabaseDown as error:
            raise TableDown(str(error)) from None
        if len(results) > self._limit:
            raise TableDown(f"the answer has more than {self._limit} elements")
        owners: tuple[str, ...] | None = None
        if results:
            # A query may repeat the key: with a comma or a blank of its own, the sender would choose the owners.
            is_plain = owners_of(key) == (key,)
            owners = owners_of(",".join(results)) if is_plain else tuple(results)
        return Found(owners, asked)

    def entries(self) -> Mapping[str, tuple[str, ...]] | None:
        """A query answers for one key."""
        return None

    def close(self) -> None:
        """Close the connections."""
        self._database.close()

    def _is_in_domain(self, key: Key) -> bool:
        return not self._domains or (bool(key.user) and key.domain in self._domains)

    def _results(self, rows: list[tuple[object, ...]], key: Key) -> Iterator[str]:
        for row in rows:
            for value in row[:1] if self._first_column_only else row:
                text = "" if value is None else str(value)
                if result := key.result(self._result, text):
                    yield result


def read_parameters(path: str) -> dict[str, str]:
    """The parameters of a file in the format of main.cf; of equal names the last holds. Raises ConfigError."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with open(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise ConfigError(f"{path}: not a regular file")
            octets = file.read(MAX_FILE_BYTES + 1)
    except PermissionError:
        raise ConfigError(
            f"{path}: cannot be read: Permission denied; its group must be one of the daemon's user, as with:"
            f" chgrp mailguard {path} && chmod g+r {path}"
        ) from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    if len(octets) > MAX_FILE_BYTES:
        raise ConfigError(f"{path}: it has more than {MAX_FILE_BYTES} octets")
    try:
        text = octets.decode("utf-8")
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: it is not UTF-8") from None
    parameters = {}
    for line in text_lines(text):
        match = _PARAMETER.fullmatch(line.strip(" \t\r\n\v\f"))
        if match is None:
            # Not the line itself: it may be half of a password.
            raise ConfigError(f'{path}: a line is not of the form "name = value"')
        parameters[match[1]] = match[2].strip(" \t\r\n\v\f")
    return parameters


def _query(parameters: Mapping[str, str]) -> str:
    if parameters.get("query"):
        return parameters["query"]
    if parameters.get("select_function"):
        return f"SELECT {parameters['select_function']}('%s')"
    for name in ("select_field", "table", "where_field"):
        if not parameters.get(name):
            raise ConfigError("there is no query")
    select, table, where = (parameters[name] for name in ("select_field", "table", "where_field"))
    # The administrator's own words, put together as Postfix does it; no value is among them.
    return f"SELECT {select} FROM {table} WHERE {where} = '%s' {parameters.get('additional_conditions', '')}"  # noqa: S608


def _domains(value: str) -> Iterator[Domain]:
    for name in value.replace(",", " ").split():
        try:
            yield Domain.parse(name)
        except DomainError:
            raise ConfigError(f"domain = {name}: only names of domains are understood, no files and tables") from None


def _places(kind: str, parameters: Mapping[str, str]) -> Iterator[DatabasePlace]:
    if kind == "sqlite":
        path = parameters.get("dbpath", "")
        if not path.startswith("/"):
            raise ConfigError(f"dbpath = {path}: the path of the database must begin with /")
        yield DatabasePlace(path=path)
        return
    if not parameters.get("dbname"):
        raise ConfigError("dbname is missing")
    hosts = parameters.get("hosts", "").replace(",", " ").split() or ["localhost"]
    if len(hosts) > MAX_HOSTS:
        raise ConfigError(f"hosts: more than {MAX_HOSTS}")
    for host in hosts:
        yield _place(kind, host)


def _place(kind: str, host: str) -> DatabasePlace:
    if "://" in host:
        raise ConfigError("hosts: addresses with :// are not read; write hosts, user, password and dbname")
    default = MYSQL_PORT if kind == "mysql" else POSTGRESQL_PORT
    if host.startswith("unix:"):
        path = host.removeprefix("unix:")
        if kind == "pgsql" and not path.rpartition("/")[2].startswith(".s.PGSQL."):
            # libpq takes the directory.
            path = f"{path.rstrip('/')}/.s.PGSQL.{default}"
        return DatabasePlace(socket=path)
    name, colon, port = host.removeprefix("inet:").rpartition(":")
    if not colon:
        name, port = port, str(default)
    if not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise ConfigError(f"hosts: {host}: the port is no number")
    if kind == "mysql" and name.lower() == "localhost":
        # To MySQL's clients that name is the socket.
        return DatabasePlace(socket=socket_of_mysql())
    return DatabasePlace(host=name, port=int(port))
