"""Asking a database: bound values, SELECT only, within a deadline; what goes wrong is one exception with a reason.

SQLAlchemy's engines with drivers in pure Python (PyMySQL, pg8000) and the sqlite3 of Python, in the extra `[sql]`. A
session is read-only to the server too, and behind a pooler each question a transaction that is. A call may take a
third of its deadline for a place in the pool or a new connection, and each statement another third; none begins in
the last one. A connection that turns out to be dead (the server was started anew) is replaced at once and the
question asked again; a server that is down is not asked again for a second. Left out: TLS; a server that is not on
this host stands on a network of its own. Thread-safe.

Known faults of the drivers, translated here: PyMySQL and pg8000 raise what they like on a connection that breaks
(OSError, struct.error, AttributeError), and SQLAlchemy does not take PostgreSQL's last words ("terminating connection
due to administrator command") for a lost connection.
"""

from __future__ import annotations

import logging
import math
import os
import re
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from threading import Lock
from typing import Any, Final, TypeVar
from urllib.parse import quote

from mailguard.errors import MissingExtraError, install_command
from mailguard.senders.database_access import DatabaseAccess, DatabasePlace
from mailguard.senders.dialect import Dialect
from mailguard.senders.permission import Asked

try:
    import sqlalchemy
    from sqlalchemy.exc import DBAPIError
    from sqlalchemy.exc import TimeoutError as PoolTimeoutError
    from sqlalchemy.pool import PoolProxiedConnection
except ModuleNotFoundError as error:
    raise MissingExtraError(
        f"asking a database needs SQLAlchemy; install it with: {install_command('sql')}"
    ) from error

__all__ = ["DEFAULT_DEADLINE_S", "Asking", "Database", "DatabaseDown", "TooManyRows"]

T = TypeVar("T")

# Postfix waits 30 s for a milter's reply; a database that serves mail answers in milliseconds. Half a second a query.
DEFAULT_DEADLINE_S: Final = 1.5
# More than one worker process ever asks at once; a database has some hundred connections for all.
POOL_SIZE = 4
# A server that is down is not hammered, and is noticed within this when it is back.
RETRY_AFTER_S = 1.0
# What stands between may drop a connection that is idle for four minutes, without a word. A new one takes 20 ms, in
# which the driver prepares for TLS.
MAX_IDLE_S = 180.0
# A file may be replaced by another, of which a connection sees nothing. A new one takes a tenth of a millisecond.
MAX_AGE_OF_A_FILE_S = 5
# An address has a handful of owners; a query that gives more is a mistake.
MAX_ROWS = 1_000
MAX_REASON_CHARS = 200

# What needs no quotes in any of the three systems.
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_LOGGER = "mailguard"
_NO_ANSWER = "no answer in time"
_NO_TIME_LEFT = "the deadline has passed"
_BEGIN = "BEGIN READ ONLY"
# A statement that was given up is ended: while a table is locked, each that waits for it has one of PostgreSQL's few
# connections. Older than 14, it knows no such thing.
_NOTICE_ABSENCE = (
    "SELECT set_config('client_connection_check_interval', '1s', false)"
    " WHERE current_setting('client_connection_check_interval', true) IS NOT NULL"
)
# A node of Galera that is outside of its cluster; to "SELECT 1" it says 1. By a new connection, a proxy in front of
# the cluster gives another node.
_NO_PRIMARY = 1047
# Noted with a connection: somebody else stands between it and PostgreSQL; when it was used last.
_IS_POOLED, _USED_AT = "is_pooled", "used_at"
# What SQLite says where it may not read a file, and where it may not write beside one.
_NOT_OPENED, _NOT_WRITTEN = "unable to open database file", "attempt to write a readonly database"
_DRIVERS = {
    Dialect.MYSQL: "mysql+pymysql",
    Dialect.POSTGRESQL: "postgresql+pg8000",
    Dialect.SQLITE: "sqlite",
}


class DatabaseDown(Exception):
    """The database did not answer. The text says why, and has no password."""


class TooManyRows(DatabaseDown):
    """The database answers, with more than was asked for."""


class _Fault(Exception):
    """What a driver has raised, in words. `is_lost`: nothing can be asked on this connection any more."""

    def __init__(self, words: str, *, is_lost: bool, told_as: type[DatabaseDown] = DatabaseDown) -> None:
        super().__init__(words)
        self.is_lost = is_lost
        self.told_as = told_as


class Asking:
    """One connection, for the questions of one call."""

    def __init__(self, connection: PoolProxiedConnection, dialect: Dialect, may_begin: Callable[[], bool]) -> None:
        self._connection = connection
        self._placeholder = dialect.placeholder
        self._may_begin = may_begin
        self.asked: list[Asked] = []
        """What was asked so far, for people."""
        self._is_in_transaction = False

    def begin(self) -> None:
        """Make the session read-only, or begin a transaction that is, where one must be held to keep the server.

        pg8000 has parse, bind and execute in three turns. Behind a pooler that gives the server's process to another
        client between two of them (PgBouncer with pool_mode = transaction), the answer would be that of another
        statement. The number of the process, which a pooler makes up in its greeting, tells.
        """
        try:
            with closing(self._connection.cursor()) as cursor:
                if _IS_POOLED not in self._connection.info:
                    cursor.execute("SELECT pg_backend_pid()", ())
                    greeting: Any = getattr(self._connection.driver_connection, "_backend_key_data", None)
                    is_pooled = int.from_bytes((greeting or b"")[:4], "big") != cursor.fetchall()[0][0]
                    if not is_pooled:
                        cursor.execute("SET default_transaction_read_only = on", ())
                        # A server of PostgreSQL 14 or newer may not be able to, such as one on Windows.
                        with suppress(Exception):
                            cursor.execute(_NOTICE_ABSENCE, ())
                    self._connection.info[_IS_POOLED] = is_pooled
                if self._connection.info[_IS_POOLED]:
                    cursor.execute(_BEGIN, ())
                    self._is_in_transaction = True
        except Exception as error:  # noqa: BLE001 - as in rows()
            raise _Fault(_words(error), is_lost=True) from None

    def end(self) -> None:
        """Let go of the transaction, or of the connection if that cannot be done."""
        if self._is_in_transaction and self._connection.is_valid:
            try:
                with closing(self._connection.cursor()) as cursor:
                    # Not ROLLBACK, which who watches PostgreSQL takes for trouble.
                    cursor.execute("COMMIT", ())
            except Exception:  # noqa: BLE001 - as in rows()
                self._connection.invalidate()

    def rows(self, statement: str, values: Sequence[str] = (), *, limit: int = MAX_ROWS) -> list[tuple[Any, ...]]:
        """The rows of a SELECT as the driver takes it (`Dialect.placeholder`), at most `limit`.

        A value with a character that the database's character set has not is in no row. What comes as octets (BLOB,
        VARBINARY, bytea) is text here, UTF-8, as MySQL's and SQLite's is to Postfix.
        """
        if not self._may_begin():
            raise _Fault(_NO_TIME_LEFT, is_lost=False)
        self.asked.append(Asked(statement, tuple(values)))
        try:
            with closing(self._connection.cursor()) as cursor:
                cursor.execute(statement, tuple(values))
                found = [tuple(map(_read, row)) for row in cursor.fetchmany(limit + 1)]
        except Exception as error:  # noqa: BLE001 - drivers raise what they like on a connection that breaks
            words = _words(error)
            is_lost = words == _NO_ANSWER or _code(error) == _NO_PRIMARY or not self._is_alive()
            if not is_lost and _has_foreign_characters(error) and not all(map(str.isascii, values)):
                return []
            raise _Fault(words, is_lost=is_lost) from None
        if len(found) > limit:
            raise _Fault(f"the answer has more than {limit} rows", is_lost=False, told_as=TooManyRows)
        return found

    def _is_alive(self) -> bool:
        """Whether the statement was at fault, and not the connection. It can be asked again then."""
        try:
            with closing(self._connection.cursor()) as cursor:
                if self._is_in_transaction:
                    cursor.execute("ROLLBACK", ())
                    cursor.execute(_BEGIN, ())
                cursor.execute("SELECT 1", ())
                cursor.fetchall()
        except Exception:  # noqa: BLE001 - as above
            return False
        return True

    def select(
        self,
        columns: Sequence[str],
        table: str,
        *,
        where: str = "",
        among: Sequence[str] = (),
        limit: int = MAX_ROWS,
    ) -> list[tuple[Any, ...]]:
        """The columns of the rows whose `where` is among these; of all rows without `where`."""
        found = self._selected(columns, table, where, among, limit)
        plain = [value for value in among if value.isascii()]
        if not found and plain and len(plain) < len(among):
            # A character that the database has not may have kept it from looking at the other values.
            return self._selected(columns, table, where, plain, limit)
        return found

    def _selected(
        self, columns: Sequence[str], table: str, where: str, among: Sequence[str], limit: int
    ) -> list[tuple[Any, ...]]:
        # Put together here: SQLAlchemy needs ten times as long for that as SQLite for the answer.
        for name in (*columns, table, where or table):
            if not _NAME.fullmatch(name):
                raise ValueError(f"{name!r} is no name of a table or a column")
        statement = f"SELECT {', '.join(columns)} FROM {table}"  # noqa: S608 - names that were checked, no values
        if where:
            statement += " WHERE " + " OR ".join([f"{where} = {self._placeholder}"] * len(among))
        return self.rows(statement, among, limit=limit)


@dataclass(slots=True)
class _Server:
    """One of the places, and what became of asking there."""

    place: DatabasePlace
    engine: sqlalchemy.Engine
    asked_again_at: float = float("-inf")
    trouble: str = ""


class Database:
    """A database, its connections made when they are needed."""

    def __init__(
        self,
        access: DatabaseAccess,
        *,
        deadline_s: float = DEFAULT_DEADLINE_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`clock` gives seconds and never goes back."""
        self.access = access
        self._deadline_s = deadline_s
        self._clock = clock
        step = deadline_s / 3
        self._servers = [
            _Server(place, _engine(access, place, step / len(access.places), step)) for place in access.places
        ]
        self._lock = Lock()

    def ask(self, question: Callable[[Asking], T], *, deadline_s: float | None = None) -> T:
        """What `question` makes of the answers; it may be called twice. Raises DatabaseDown."""
        began = self._clock()
        with self._lock:
            troubles = [server.trouble for server in self._servers if began < server.asked_again_at]
            asked = [server for server in self._servers if began >= server.asked_again_at]
        allowed = self._deadline_s if deadline_s is None else deadline_s
        if asked and allowed < self._deadline_s / 3:
            raise DatabaseDown(_NO_TIME_LEFT)
        for server in asked:
            try:
                return self._ask_one(server, question, began, allowed)
            except _Fault as fault:
                trouble = self._told(f"{server.place}: {fault}{_of_its_file(server.place.path, str(fault))}")
                if fault.told_as is not DatabaseDown:
                    raise fault.told_as(trouble) from None
                troubles.append(trouble)
                if fault.is_lost:
                    server.engine.dispose()
                    with self._lock:
                        server.asked_again_at, server.trouble = self._clock() + RETRY_AFTER_S, trouble
            if self._clock() > began + allowed * 2 / 3:
                break
        raise DatabaseDown(self._told("; ".join(troubles)))

    def _ask_one(self, server: _Server, question: Callable[[Asking], T], began: float, allowed: float) -> T:
        """Raises _Fault."""
        try:
            return self._try(server.engine, question, began + allowed)
        except _Fault as fault:
            if not fault.is_lost or self._clock() > began + allowed / 3:
                raise
        # It may have been a connection from the pool, and then everything in the pool is as old.
        server.engine.dispose()
        return self._try(server.engine, question, began + allowed)

    def close(self) -> None:
        """Close the connections."""
        for server in self._servers:
            server.engine.dispose()

    def _try(self, engine: sqlalchemy.Engine, question: Callable[[Asking], T], end: float) -> T:
        last_begin = end - self._deadline_s / 3
        try:
            # Below SQLAlchemy's Connection, which says ROLLBACK after each question, and waits for that as well.
            connection = engine.raw_connection()
            while self._clock() > connection.info.get(_USED_AT, math.inf) + MAX_IDLE_S:
                connection.invalidate()
                connection = engine.raw_connection()
        except Exception as error:  # noqa: BLE001 - as above
            is_full = isinstance(error, PoolTimeoutError) or _takes_no_more(error)
            raise _Fault(_words(error), is_lost=not is_full) from None
        try:
            if self.access.dialect is Dialect.SQLITE:
                # Its only way to end a query. Looked at every 10,000 steps, about each millisecond.
                driver: Any = connection.driver_connection
                driver.set_progress_handler(lambda: self._clock() > end, 10_000)
            asking = Asking(connection, self.access.dialect, lambda: self._clock() <= last_begin)
            try:
                if self.access.dialect is Dialect.POSTGRESQL:
                    asking.begin()
                return question(asking)
            except _Fault as fault:
                if fault.is_lost:
                    connection.invalidate()
                raise
            finally:
                asking.end()
        finally:
            if connection.is_valid:
                connection.info[_USED_AT] = self._clock()
            connection.close()

    def _told(self, text: str) -> str:
        """What may be told of a fault: on one line, and never the password."""
        password = self.access.password
        shown = text.replace(password, "***") if password else text
        shown = "".join(character if character.isprintable() else " " for character in shown)
        return shown if len(shown) <= MAX_REASON_CHARS else shown[:MAX_REASON_CHARS] + "..."


def _engine(access: DatabaseAccess, place: DatabasePlace, connect_s: float, statement_s: float) -> sqlalchemy.Engine:
    query: dict[str, str] = {}
    arguments: dict[str, Any]
    database, user, password = access.name, access.user or None, access.password or None
    if access.dialect is Dialect.MYSQL:
        query = {"charset": "utf8mb4"} | ({"unix_socket": place.socket} if place.socket else {})
        arguments = {
            "connect_timeout": connect_s,
            "read_timeout": statement_s,
            "write_timeout": statement_s,
            "init_command": "SET SESSION TRANSACTION READ ONLY",
        }
    elif access.dialect is Dialect.POSTGRESQL:
        query = {"unix_sock": place.socket} if place.socket else {}
        arguments = {
            "timeout": statement_s,
            # Of more than this, PgBouncer says that it is unsupported.
            "startup_params": {"client_encoding": "UTF8"},
        }
    else:
        # A file has no user.
        database, user, password = f"file:{quote(place.path)}", None, None
        query = {"mode": "ro", "uri": "true"}
        arguments = {"timeout": statement_s, "check_same_thread": False}
    url = sqlalchemy.URL.create(
        _DRIVERS[access.dialect],
        username=user,
        password=password,
        host=place.host or None,
        port=place.port,
        database=database,
        query=query,
    )
    # SQLAlchemy's pool tells of each connection that breaks, with a traceback. What matters of it is in DatabaseDown.
    logger = logging.getLogger(f"sqlalchemy.pool.impl.QueuePool.{_LOGGER}")
    logger.addHandler(logging.NullHandler())
    logger.propagate = False
    try:
        return sqlalchemy.create_engine(
            url,
            poolclass=sqlalchemy.QueuePool,
            pool_logging_name=_LOGGER,
            connect_args=arguments,
            isolation_level="AUTOCOMMIT",
            paramstyle="qmark" if access.dialect is Dialect.SQLITE else "format",
            pool_size=POOL_SIZE,
            max_overflow=0,
            pool_timeout=connect_s,
            pool_recycle=MAX_AGE_OF_A_FILE_S if access.dialect is Dialect.SQLITE else -1,
            # In AUTOCOMMIT there is nothing to roll back.
            pool_reset_on_return=None,
            hide_parameters=True,
        )
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"asking this database needs {error.name}; install it with: {install_command('sql')}"
        ) from error


def _read(value: object) -> object:
    """A value of a row. Octets that are not UTF-8 are told apart, and are nobody's name."""
    return bytes(value).decode("utf-8", "backslashreplace") if isinstance(value, bytes | bytearray) else value


def _words(error: Exception) -> str:
    """What a driver says, without statement and parameters."""
    if isinstance(error, PoolTimeoutError):
        return f"all {POOL_SIZE} connections are in use"
    cause = _cause(error)
    # Of a wait that was too long, pg8000 says "network error", and PyMySQL that the connection was lost.
    if isinstance(cause, TimeoutError) or isinstance(cause.__cause__, TimeoutError) or "timed out" in str(cause):
        return _NO_ANSWER
    fields = _fields_of_the_server(cause)
    if fields is not None:
        return str(fields.get("M", fields))
    said = str(cause.args[-1]) if cause.args else type(cause).__name__
    # pg8000 says "communication error" alone of a server that cannot be reached.
    why = cause.__cause__.strerror if isinstance(cause.__cause__, OSError) else None
    return f"{said}: {why}" if why and why not in said else said


def _fields_of_the_server(error: BaseException | None) -> dict[str, Any] | None:
    """The fields of the server's message that pg8000 gives; M is the text for people.

    Where the server hangs up after it, pg8000 may raise a fault of its own that comes of that, or say "network error"
    of the end of the connection: what it has read before is then to be found where it was reading.
    """
    while error is not None:
        if error.args and isinstance(error.args[-1], dict):
            return error.args[-1]
        for frame, _ in traceback.walk_tb(error.__traceback__):
            last_words = getattr(frame.f_locals.get("context"), "error", None)
            if last_words is not None:
                return _fields_of_the_server(last_words)
        error = error.__cause__ or error.__context__
    return None


def _of_its_file(path: str, said: str) -> str:
    """What SQLite does not say of a file that it cannot read."""
    if said == _NOT_WRITTEN:
        if os.path.lexists(f"{path}-journal"):
            return " (who wrote to it was cut off, and who may write it has to open it once)"
        return " (it keeps a write-ahead log, which only who may write it can begin)"
    if said != _NOT_OPENED:
        return ""
    try:
        with open(path, "rb"):
            return " (it may be read itself; perhaps not the -wal and -shm beside it)"
    except OSError as error:
        return f" ({error.strerror})"


def _cause(error: Exception) -> BaseException:
    """The driver's own exception: SQLAlchemy wraps those of a new connection."""
    return error.orig if isinstance(error, DBAPIError) and error.orig is not None else error


def _code(error: Exception) -> object:
    """MySQL's number of an error, or PostgreSQL's SQLSTATE."""
    cause = _cause(error)
    fields = _fields_of_the_server(cause)
    return fields.get("C") if fields is not None else next(iter(cause.args), None)


def _takes_no_more(error: Exception) -> bool:
    """Whether the server has as many connections as it takes: of all users, or of this one. Those there are good."""
    return _code(error) in (1040, 1203, 1226, "53300")


def _has_foreign_characters(error: Exception) -> bool:
    """Whether a value has a character that a column cannot have: PostgreSQL's 22P05, MySQL's errors on collations.

    MySQL 9 has one of its own (3854, "Cannot convert string"), also for a mere `column = value`; 8.4 has it in
    LOCATE() and REPLACE(), and MariaDB nowhere.
    """
    return _code(error) in (1267, 1270, 1271, 3854, "22P05")
