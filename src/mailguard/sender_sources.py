"""The sources that a configuration names, opened.

A database that is down, or a table that is not there yet, is opened all the same: it is unavailable until it is.
The clock is an argument; files are read when a source is opened or asked.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from mailguard.config_senders import PostfixAdminSenders, SendersConfig
from mailguard.errors import ConfigError
from mailguard.senders.cache import PermissionCache
from mailguard.senders.combine import Senders
from mailguard.senders.database_access import (
    MYSQL_PORT,
    POSTGRESQL_PORT,
    DatabaseAccess,
    DatabasePlace,
    socket_of_mysql,
)
from mailguard.senders.dialect import Dialect
from mailguard.senders.inline import InlineSource
from mailguard.senders.login_maps import LoginMaps
from mailguard.senders.map_list import TableOptions, open_tables
from mailguard.senders.source import Source

if TYPE_CHECKING:
    from mailguard.senders.sql import Database

__all__ = ["open_senders"]

MAX_PASSWORD_BYTES = 4_096


def open_senders(config: SendersConfig, *, clock: Callable[[], float] = time.monotonic) -> Senders | None:
    """What `config` names, None if it names no source. Raises ConfigError for what can never work.

    Nothing is connected to before it is asked. `clock` gives seconds and never goes back.
    """
    if not config.sources:
        return None
    cache = None
    if config.cache_s:
        cache = PermissionCache(clock=clock, max_entries=config.cache_entries, lifetime_s=config.cache_s)
    return Senders(tuple(_sources(config, clock)), rules=config.rules, cache=cache)


def _sources(config: SendersConfig, clock: Callable[[], float]) -> Iterator[Source]:
    rules, delimiters = config.rules, config.recipient_delimiter
    for name in config.sources:
        if name == "inline":
            yield InlineSource(
                config.inline.logins, rules=rules, own_address=config.inline.own_address, delimiters=delimiters
            )
        elif name == "postfix":
            options = TableOptions(clock=clock, deadline_s=config.deadline_s, postmap=config.postfix.postmap)
            yield LoginMaps(
                open_tables(config.postfix.maps or "", options),
                rules=rules,
                delimiters=delimiters,
                local_domains=config.postfix.local_domains,
                deadline=lambda: clock() + config.deadline_s,
            )
        elif name == "postfixadmin":
            # Only databases need the extra [sql].
            from mailguard.senders.postfixadmin import PostfixAdmin

            yield PostfixAdmin(
                _postfixadmin_database(config.postfixadmin, config.deadline_s, clock),
                rules=rules,
                delimiters=delimiters,
                table_prefix=config.postfixadmin.table_prefix,
                forwards=config.postfixadmin.forwards,
            )
        else:
            from mailguard.senders.mailinabox import MailInABox
            from mailguard.senders.sql import Database

            access = DatabaseAccess(Dialect.SQLITE, (DatabasePlace(path=config.mailinabox.path),))
            database = Database(access, deadline_s=config.deadline_s, clock=clock)
            yield MailInABox(database, rules=rules, delimiters=delimiters)


def _postfixadmin_database(config: PostfixAdminSenders, deadline_s: float, clock: Callable[[], float]) -> Database:
    from mailguard.senders.sql import Database

    dialect = Dialect(config.database)
    password = config.password or ""
    if config.password_file is not None:
        password = _password_in(config.password_file)
    access = DatabaseAccess(
        dialect, (_place(config, dialect),), name=config.name, user=config.user, password=password
    )
    return Database(access, deadline_s=deadline_s, clock=clock)


def _place(config: PostfixAdminSenders, dialect: Dialect) -> DatabasePlace:
    if dialect is Dialect.SQLITE:
        return DatabasePlace(path=config.path or "")
    default = MYSQL_PORT if dialect is Dialect.MYSQL else POSTGRESQL_PORT
    if config.host is not None:
        return DatabasePlace(host=config.host, port=config.port or default)
    if config.socket is not None:
        return DatabasePlace(socket=config.socket)
    if dialect is Dialect.MYSQL:
        return DatabasePlace(socket=socket_of_mysql())
    return DatabasePlace(socket=f"/run/postgresql/.s.PGSQL.{default}")


def _password_in(path: str) -> str:
    try:
        with open(path, "rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            if mode & stat.S_IROTH:
                raise ConfigError(f"{path}: every user can read it; run: chmod o-r {path}")
            line = file.read(MAX_PASSWORD_BYTES).split(b"\n")[0].rstrip(b"\r")
        return line.decode("utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: the password is not UTF-8") from None
