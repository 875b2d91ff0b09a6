"""PostgreSQL behind a connection pooler: a question keeps its server's process, and is read-only by itself."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import replace
from typing import Any

import pytest

from database_site import AMPLE_S, NOBODY, PASSWORD, PATIENCE_S, USER, Postgres, postgres
from mailguard.senders.database_access import DatabaseAccess, DatabasePlace
from mailguard.senders.sql import Asking, Database, DatabaseDown
from sandbox_place import HOST, SYSTEM_PATH, free_port

__all__ = ["postgres"]

PGBOUNCER = shutil.which("pgbouncer", path=f"{SYSTEM_PATH}:{os.environ.get('PATH', '')}")
TABLES = ("owners", "others")
KEYS = 20
ROUNDS = 5
INI = """\
[databases]
* = host={host} port={server_port}
[pgbouncer]
listen_addr = {host}
listen_port = {port}
unix_socket_dir =
auth_type = scram-sha-256
auth_file = users
pool_mode = {mode}
default_pool_size = {size}
"""
# When the transaction of a statement began, and the statement itself.
TIMES = "SELECT now(), statement_timestamp()"


def rows_of(table: str) -> list[str]:
    return [
        f"CREATE TABLE {table} (address varchar(255), login varchar(255))",
        f"INSERT INTO {table} SELECT 'a' || n, '{table}' || n FROM generate_series(0, {KEYS - 1}) n",  # noqa: S608
    ]


@pytest.fixture(scope="module")
def access(postgres: Postgres) -> DatabaseAccess:
    return postgres.create("pooled", [statement for table in TABLES for statement in rows_of(table)])


@contextmanager
def pgbouncer(server: Postgres, mode: str, *, size: int) -> Iterator[DatabasePlace]:
    """One that has so many connections to the server; where it is."""
    if PGBOUNCER is None:
        pytest.skip("pgbouncer is not installed")
    port = free_port()
    directory = server.directory / f"pgbouncer-{port}"
    directory.mkdir()
    ini = INI.format(host=HOST, server_port=server.port, port=port, mode=mode, size=size)
    (directory / "ini").write_text(ini, "utf-8")
    (directory / "users").write_text(f'"{USER}" "{PASSWORD}"\n', "utf-8")
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(
            [PGBOUNCER, "ini"], cwd=directory, stdout=log, stderr=log, user=NOBODY, group=NOBODY, extra_groups=[]
        )
    try:
        end = time.monotonic() + PATIENCE_S
        while not listens(port):
            assert process.poll() is None, (directory / "log").read_text("utf-8")
            assert time.monotonic() < end, (directory / "log").read_text("utf-8")
            time.sleep(0.02)
        yield DatabasePlace(host=HOST, port=port)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


def listens(port: int) -> bool:
    with closing(socket.socket()) as client:
        return client.connect_ex((HOST, port)) == 0


@pytest.mark.attack("L10")
@pytest.mark.parametrize(("mode", "size"), [("transaction", 1), ("session", 2)])
def test_each_answer_is_that_of_its_question(
    postgres: Postgres, access: DatabaseAccess, mode: str, size: int
) -> None:
    def ask_all(database: Database, table: str) -> None:
        for key in [*range(KEYS)] * ROUNDS:

            def find(asking: Asking, key: int = key) -> list[tuple[object, ...]]:
                return asking.select(("login",), table, where="address", among=[f"a{key}"])

            assert database.ask(find) == [(f"{table}{key}",)]

    with pgbouncer(postgres, mode, size=size) as place:
        databases = [Database(replace(access, places=(place,)), deadline_s=AMPLE_S) for _ in TABLES]
        with ThreadPoolExecutor(len(TABLES)) as threads:
            list(threads.map(ask_all, databases, TABLES))
        for database in databases:
            database.close()


def test_a_pooler_that_permits_no_transaction_is_an_outage(postgres: Postgres, access: DatabaseAccess) -> None:
    with pgbouncer(postgres, "statement", size=1) as place:
        database = Database(replace(access, places=(place,)), deadline_s=AMPLE_S)
        with pytest.raises(DatabaseDown, match="transaction blocks not allowed in statement pooling mode"):
            database.ask(lambda asking: asking.rows("SELECT 1"))
        database.close()


@pytest.mark.parametrize("is_pooled", [True, False])
def test_a_question_is_a_transaction_behind_a_pooler_alone(
    postgres: Postgres, access: DatabaseAccess, monkeypatch: pytest.MonkeyPatch, is_pooled: bool
) -> None:
    name = "latin_pooled" if is_pooled else "latin_direct"
    postgres.execute("", [f"CREATE DATABASE {name} ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0"])
    postgres.execute(name, [*rows_of("owners"), f"GRANT SELECT ON owners TO {USER}"])
    if is_pooled:
        monkeypatch.setattr("pg8000.core.CoreConnection.handle_BACKEND_KEY_DATA", pretend)
    database = Database(replace(access, name=name), deadline_s=AMPLE_S)

    def begins(asking: Asking) -> list[bool]:
        return [began == at for _ in range(2) for began, at in asking.rows(TIMES)]

    def after_a_foreign_character(asking: Asking) -> list[tuple[object, ...]]:
        assert asking.rows("SELECT login FROM owners WHERE address = %s", ["\u0430"]) == []
        return asking.rows("SELECT login FROM owners WHERE address = %s", ["a7"])

    for _ in range(2):
        assert database.ask(begins) == [not is_pooled] * 2
        assert database.ask(after_a_foreign_character) == [("owners7",)]
        for statement, said in (("SELECT login FROM nowhere", "nowhere"), ("CREATE TABLE more (n int)", "read-only")):
            with pytest.raises(DatabaseDown, match=said):
                database.ask(lambda asking, statement=statement: asking.rows(statement))  # type: ignore[misc]
    database.close()


def pretend(connection: Any, _data: bytes, _context: object) -> None:
    connection._backend_key_data = b"made up!"
