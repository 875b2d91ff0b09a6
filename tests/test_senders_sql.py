"""Asking databases: their faults, deadlines and returns, with real servers; and that nothing is ever written."""

from __future__ import annotations

import contextlib
import socket
import sqlite3
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.exc import SQLAlchemyError

from database_site import PASSWORD, DatabaseServer, MariaDb, Postgres, SqliteFiles, mariadb, postgres
from mailguard.config_senders import SendersConfig
from mailguard.senders.database_access import DatabaseAccess, DatabasePlace
from mailguard.senders.dialect import Dialect
from mailguard.senders.sql import (
    DEFAULT_DEADLINE_S,
    MAX_AGE_OF_A_FILE_S,
    MAX_IDLE_S,
    MAX_ROWS,
    POOL_SIZE,
    RETRY_AFTER_S,
    Asking,
    Database,
    DatabaseDown,
)
from sandbox_place import HOST, free_port

__all__ = ["mariadb", "postgres"]

ROWS = ["CREATE TABLE owners (address varchar(255), login varchar(255))", "INSERT INTO owners VALUES ('a', 'alice')"]
# Of what must be answered, on a machine that may stand still for seconds.
DEADLINE_S = 90.0
# Of what has no answer: a third of it for a connection, and a third for a statement.
SHORT_S = 2.4
# Whoever has waited so long did not give up in time.
LATEST_S = 20.0


class Clock:
    def __init__(self) -> None:
        self.ahead_s = 0.0
        self.stands_at: float | None = None

    def __call__(self) -> float:
        return (time.monotonic() if self.stands_at is None else self.stands_at) + self.ahead_s


class Ticking:
    """A clock that goes on with each look at it."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        self.now_s += 0.001
        return self.now_s


@pytest.fixture(scope="module", params=["postgres", "mariadb"])
def server(request: pytest.FixtureRequest) -> DatabaseServer:
    found: DatabaseServer = request.getfixturevalue(request.param)
    return found


@pytest.fixture(scope="module")
def access(server: DatabaseServer) -> DatabaseAccess:
    return server.create("faults", ROWS)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def database(access: DatabaseAccess, clock: Clock) -> Iterator[Database]:
    made = Database(access, deadline_s=DEADLINE_S, clock=clock)
    yield made
    made.close()


@pytest.fixture
def hurried(access: DatabaseAccess, clock: Clock) -> Iterator[Database]:
    made = Database(access, deadline_s=SHORT_S, clock=clock)
    assert_answers(made, clock)
    yield made
    made.close()


def find(asking: Asking) -> list[tuple[object, ...]]:
    return asking.select(("login",), "owners", where="address", among=["a"])


def assert_answers(database: Database, clock: Clock) -> None:
    """It does, if not always within the short time that it has."""
    end = time.monotonic() + DEADLINE_S
    while True:
        with contextlib.suppress(DatabaseDown):
            assert database.ask(find) == [("alice",)]
            return
        assert time.monotonic() < end
        clock.ahead_s += RETRY_AFTER_S


def trouble(database: Database, statement: str = "SELECT 1", *, deadline_s: float | None = None) -> str:
    with pytest.raises(DatabaseDown) as caught:
        database.ask(lambda asking: asking.rows(statement), deadline_s=deadline_s)
    return str(caught.value)


def test_a_server_that_was_started_anew_is_not_noticed(server: DatabaseServer, database: Database) -> None:
    assert database.ask(find) == [("alice",)]
    server.stop()
    server.start()
    assert database.ask(find) == [("alice",)]
    server.kill()
    server.start()
    assert database.ask(find) == [("alice",)]


def test_a_connection_that_was_idle_for_minutes_is_made_anew(
    server: DatabaseServer, database: Database, clock: Clock
) -> None:
    """What stands between may have dropped it without a word."""
    number = "pg_backend_pid()" if server.dialect is Dialect.POSTGRESQL else "CONNECTION_ID()"

    def connections() -> set[object]:
        """Of all the places in the pool."""
        with ThreadPoolExecutor(POOL_SIZE) as threads:
            together = threading.Barrier(POOL_SIZE)

            def ask(asking: Asking) -> object:
                together.wait(DEADLINE_S)
                return asking.rows(f"SELECT {number}")[0][0]

            return set(threads.map(lambda _: database.ask(ask), range(POOL_SIZE)))

    clock.stands_at = time.monotonic()
    before = connections()
    assert len(before) == POOL_SIZE
    clock.ahead_s += MAX_IDLE_S
    assert connections() == before
    clock.ahead_s += MAX_IDLE_S + 0.1
    assert not connections() & before


@pytest.mark.attack("L10")
def test_a_server_that_is_down_and_back(
    server: DatabaseServer, database: Database, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries: list[None] = []
    attempt = database._try

    def counted(*arguments: Any) -> Any:
        tries.append(None)
        return attempt(*arguments)

    monkeypatch.setattr(database, "_try", counted)
    assert database.ask(find) == [("alice",)]
    server.stop()
    try:
        clock.stands_at = time.monotonic()
        assert f":{server.port}: " in trouble(database)
        # It is not asked again for a second, and asked once then.
        tries.clear()
        for _ in range(1000):
            trouble(database)
        clock.ahead_s += RETRY_AFTER_S * 0.99
        trouble(database)
        assert tries == []
        clock.ahead_s += RETRY_AFTER_S * 0.02
        trouble(database)
        asked = len(tries)
        assert asked > 0
        trouble(database)
        assert len(tries) == asked
    finally:
        server.start()
    clock.ahead_s += RETRY_AFTER_S
    assert database.ask(find) == [("alice",)]


@pytest.mark.attack("L10")
def test_a_server_that_says_nothing(server: DatabaseServer, hurried: Database, clock: Clock) -> None:
    server.pause()
    try:
        for _ in range(2):  # by a connection that is there, and by a new one
            began = time.monotonic()
            assert "no answer in time" in trouble(hurried)
            assert time.monotonic() - began < LATEST_S
            clock.ahead_s += RETRY_AFTER_S
    finally:
        server.resume()
    assert_answers(hurried, clock)


def test_by_default_a_query_may_take_half_a_second() -> None:
    assert DEFAULT_DEADLINE_S / 3 <= 0.5
    assert SendersConfig().deadline_s == DEFAULT_DEADLINE_S


def test_a_statement_that_takes_too_long(server: DatabaseServer, hurried: Database, clock: Clock) -> None:
    began = time.monotonic()
    sleep = "SELECT pg_sleep(30)" if server.dialect is Dialect.POSTGRESQL else "SELECT sleep(30)"
    assert "no answer in time" in trouble(hurried, sleep)
    assert time.monotonic() - began < LATEST_S
    clock.ahead_s += RETRY_AFTER_S
    assert_answers(hurried, clock)


def test_postgresql_ends_what_was_given_up(postgres: Postgres) -> None:
    """Each statement that waits for a table which is locked would keep one of its connections otherwise."""
    database = Database(postgres.create("given_up", ROWS), deadline_s=SHORT_S)
    with pytest.raises(DatabaseDown):
        database.ask(lambda asking: asking.rows("SELECT pg_sleep(300) FROM owners"))
    database.close()
    running = "SELECT FROM pg_stat_activity WHERE datname = 'given_up' AND pid <> pg_backend_pid()"
    end = time.monotonic() + LATEST_S
    while True:
        with contextlib.suppress(SQLAlchemyError):
            postgres.execute("", [f"DO $$ BEGIN IF EXISTS ({running}) THEN RAISE 'it is'; END IF; END $$"])
            return
        assert time.monotonic() < end
        time.sleep(0.1)


def test_no_statement_begins_after_two_thirds_of_the_deadline(database: Database, clock: Clock) -> None:
    def slow(asking: Asking) -> None:
        find(asking)
        clock.ahead_s += DEADLINE_S * 0.7
        find(asking)

    with pytest.raises(DatabaseDown, match="the deadline has passed"):
        database.ask(slow)
    database.ask(slow, deadline_s=25 * DEADLINE_S)


def test_the_fault_of_a_statement_is_no_outage(server: DatabaseServer, database: Database) -> None:
    for statement in ("SELECT nothing FROM owners", "SELECT FROM WHERE", "SELECT login FROM nowhere"):
        assert trouble(database, statement)
        assert database.ask(find) == [("alice",)]


def test_the_last_words_of_postgresql_are_told(postgres: Postgres) -> None:
    database = Database(postgres.create("last_words", ROWS), deadline_s=DEADLINE_S)
    assert "terminating connection due to" in trouble(database, "SELECT pg_terminate_backend(pg_backend_pid())")
    database.close()


def test_nothing_is_written(server: DatabaseServer, access: DatabaseAccess, database: Database) -> None:
    server.execute("faults", _let_write(server))
    fresh = Database(access, deadline_s=DEADLINE_S)
    for statement in ("INSERT INTO owners VALUES ('b', 'bob')", "DELETE FROM owners", "DROP TABLE owners"):
        assert "read" in trouble(fresh, statement).lower() or "denied" in trouble(fresh, statement), statement
    assert database.ask(lambda asking: asking.select(("login",), "owners")) == [("alice",)]
    fresh.close()


def _let_write(server: DatabaseServer) -> list[str]:
    if server.dialect is Dialect.POSTGRESQL:
        return ["GRANT ALL ON owners TO mailguard"]
    return [f"GRANT ALL ON faults.* TO 'mailguard'@'{HOST}'"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"password": f"{PASSWORD}x"}, "mailguard"),
        ({"user": "nobody-known"}, "nobody-known"),
        ({"name": "nowhere"}, "nowhere"),
        ({"user": PASSWORD}, "***"),
    ],
)
def test_a_refusal_is_told_without_password(access: DatabaseAccess, change: dict[str, str], said: str) -> None:
    database = Database(replace(access, **change), deadline_s=DEADLINE_S)  # type: ignore[arg-type]
    told = trouble(database)
    assert said in told
    assert PASSWORD not in told
    assert PASSWORD not in repr(replace(database.access, user=""))
    database.close()


def test_by_socket(server: DatabaseServer, access: DatabaseAccess) -> None:
    database = Database(server.access("faults", by_socket=True), deadline_s=DEADLINE_S)
    assert database.ask(find) == [("alice",)]
    database.close()


def test_the_first_place_that_answers_is_asked(access: DatabaseAccess) -> None:
    closed = DatabasePlace(host=HOST, port=free_port())
    database = Database(replace(access, places=(closed, *access.places)), deadline_s=DEADLINE_S)
    assert database.ask(find) == [("alice",)]
    database.close()
    nobody = Database(replace(access, places=(closed, replace(closed, port=free_port()))), deadline_s=DEADLINE_S)
    assert trouble(nobody).count(f"{HOST}:") >= 2
    nobody.close()


@pytest.mark.attack("L10")
def test_a_place_that_says_nothing_is_left_out_for_a_second(access: DatabaseAccess, clock: Clock) -> None:
    with socket.create_server((HOST, 0)) as silent:
        silent.settimeout(0.0)
        place = DatabasePlace(host=HOST, port=silent.getsockname()[1])
        clock.stands_at = time.monotonic()
        database = Database(replace(access, places=(place, *access.places)), deadline_s=SHORT_S, clock=clock)
        assert_answers(database, clock)
        silent.accept()[0].close()
        with contextlib.suppress(BlockingIOError):
            while True:
                silent.accept()[0].close()
        with contextlib.suppress(DatabaseDown):
            database.ask(find)
        with pytest.raises(BlockingIOError):
            silent.accept()
        database.close()


# What a node of Galera says outside of the primary component (to "SELECT 1" it says 1), and a standby that recovers.
IS_BY_TCP = "LOCATE('127.0.0.1', USER()) > 0"
REFUSING = {
    Dialect.MYSQL: (
        f"CREATE FUNCTION node() RETURNS int BEGIN IF {IS_BY_TCP} THEN SIGNAL SQLSTATE '08S01'"
        " SET MYSQL_ERRNO = 1047, MESSAGE_TEXT = 'WSREP has not yet prepared node for application use'; END IF;"
        " RETURN 1; END"
    ),
    Dialect.POSTGRESQL: (
        "CREATE FUNCTION node() RETURNS int LANGUAGE plpgsql AS $$ BEGIN IF inet_client_addr() IS NOT NULL THEN"
        " RAISE 'canceling statement due to conflict with recovery' USING ERRCODE = '40001'; END IF; RETURN 1; END $$"
    ),
}


@pytest.mark.attack("L10")
def test_a_place_that_refuses_a_statement_leaves_it_to_the_next(server: DatabaseServer) -> None:
    access = server.create("refusing", [REFUSING[server.dialect]])
    if server.dialect is Dialect.MYSQL:
        for host in (HOST, "localhost"):
            server.execute("", [f"GRANT EXECUTE ON refusing.* TO '{access.user}'@'{host}'"])
    by_socket = server.access("refusing", by_socket=True).places
    alone = Database(access, deadline_s=DEADLINE_S)
    assert "WSREP" in (told := trouble(alone, "SELECT node()")) or "recovery" in told
    alone.close()
    database = Database(replace(access, places=access.places + by_socket), deadline_s=DEADLINE_S)
    for _ in range(2):
        assert database.ask(lambda asking: asking.rows("SELECT node()")) == [(1,)]
    database.close()


def test_a_node_that_has_lost_its_cluster_is_left_by_a_new_connection(mariadb: MariaDb) -> None:
    access = mariadb.create("cluster", ["CREATE TABLE owners (address varchar(255))"])
    mariadb.execute("", [f"GRANT EXECUTE ON cluster.* TO '{access.user}'@'{HOST}'"])
    database = Database(access, deadline_s=DEADLINE_S)
    [(number,)] = database.ask(lambda asking: asking.rows("SELECT CONNECTION_ID()"))
    mariadb.execute("cluster", [REFUSING[Dialect.MYSQL].replace(IS_BY_TCP, f"CONNECTION_ID() = {number}")])
    assert database.ask(lambda asking: asking.rows("SELECT node()")) == [(1,)]
    database.close()


def test_a_server_that_takes_no_more_connections_answers_on_those_that_are_there(
    server: DatabaseServer, access: DatabaseAccess, clock: Clock
) -> None:
    if server.dialect is Dialect.MYSQL:
        crowd = f"GRANT SELECT ON faults.* TO crowd@'{HOST}' IDENTIFIED BY '{PASSWORD}' WITH MAX_USER_CONNECTIONS 1"
        server.execute("", [crowd])
    else:
        server.execute("", [f"CREATE ROLE crowd LOGIN PASSWORD '{PASSWORD}' CONNECTION LIMIT 1"])
        server.execute("faults", ["GRANT SELECT ON owners TO crowd"])
    database = Database(replace(access, user="crowd"), deadline_s=DEADLINE_S, clock=clock)
    clock.stands_at = time.monotonic()

    def ask_beside(asking: Asking) -> list[tuple[object, ...]]:
        told = trouble(database)
        assert "max_user_connections" in told or "too many connections" in told
        return find(asking)

    for _ in range(2):
        assert database.ask(ask_beside) == [("alice",)]
    database.close()


def test_many_threads_share_a_bounded_number_of_connections(access: DatabaseAccess) -> None:
    database = Database(access, deadline_s=DEADLINE_S)
    together, lock = 0, threading.Lock()
    most = 0

    def count(asking: Asking) -> list[tuple[object, ...]]:
        nonlocal together, most
        with lock:
            together += 1
            most = max(most, together)
        found = find(asking)
        time.sleep(0.005)
        with lock:
            together -= 1
        return found

    with ThreadPoolExecutor(16) as threads:
        found = list(threads.map(lambda _: database.ask(count), range(200)))
    assert found == [[("alice",)]] * 200
    assert most <= POOL_SIZE
    database.close()


def test_when_all_connections_are_in_use(access: DatabaseAccess) -> None:
    # A third of it to make the connections in, and to wait for one in vain.
    database = Database(access, deadline_s=15.0)
    with ThreadPoolExecutor(POOL_SIZE) as threads:
        held, release = threading.Barrier(POOL_SIZE + 1), threading.Event()

        def hold(asking: Asking) -> None:
            held.wait(DEADLINE_S)
            release.wait(DEADLINE_S)

        busy = [threads.submit(database.ask, hold) for _ in range(POOL_SIZE)]
        held.wait(DEADLINE_S)
        assert f"all {POOL_SIZE} connections are in use" in trouble(database)
        release.set()
        for each in busy:
            each.result()
    # That is no outage.
    assert database.ask(find) == [("alice",)]
    database.close()


def test_percent_signs_between_quotes_and_outside(server: DatabaseServer, database: Database) -> None:
    dialect = server.dialect
    statement = dialect.written("SELECT 7 ", is_quoted=False) + dialect.written("%", is_quoted=False)
    statement += f" 4, {dialect.written(chr(39) + '50%' + chr(39), is_quoted=True)}, {dialect.placeholder}"
    statement += "::text" if dialect is Dialect.POSTGRESQL else ""
    assert database.ask(lambda asking: asking.rows(statement, ["100%s"])) == [(3, "50%", "100%s")]


def test_characters_that_the_database_has_not(server: DatabaseServer) -> None:
    latin1 = "latin1" if server.dialect is Dialect.MYSQL else ""
    column = f"varchar(255) CHARACTER SET {latin1}" if latin1 else "varchar(255)"
    if latin1:
        access = server.create("latin", [f"CREATE TABLE owners (address {column}, login text)", ROWS[1]])
    else:
        server.create("user_alone", [])
        server.execute("", ["CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0"])
        server.execute("latin", [*ROWS, "GRANT SELECT ON owners TO mailguard"])
        access = server.access("latin")
    database = Database(access, deadline_s=DEADLINE_S)
    for foreign in ("\u0430", "a\u0430", "\U0001f600"):
        many = database.ask(
            lambda asking, foreign=foreign: asking.select(("login",), "owners", where="address", among=[foreign, "a"])  # type: ignore[misc]
        )
        assert many == [("alice",)]
        text = f"SELECT login FROM owners WHERE address={server.dialect.placeholder}"  # noqa: S608
        assert database.ask(lambda asking, text=text, foreign=foreign: asking.rows(text, [foreign])) == []  # type: ignore[misc]
    database.close()


def test_characters_that_a_column_of_mysql_9_has_not(mariadb: MariaDb) -> None:
    # What MySQL 9.7 says of "WHERE address = '\u0430'" with a column in latin1 or utf8mb3; MariaDB has to be told to.
    said = "Cannot convert string"
    error = f"SIGNAL SQLSTATE 'HY000' SET MYSQL_ERRNO = 3854, MESSAGE_TEXT = '{said}'"
    function = f"CREATE FUNCTION compared(value text) RETURNS text BEGIN {error}; RETURN ''; END"
    access = mariadb.create("nine", [function])
    mariadb.execute("", [f"GRANT EXECUTE ON nine.* TO '{access.user}'@'{HOST}'"])
    database = Database(access, deadline_s=DEADLINE_S)
    assert database.ask(lambda asking: asking.rows("SELECT compared(%s)", ["\u0430"])) == []
    with pytest.raises(DatabaseDown, match=said):
        database.ask(lambda asking: asking.rows("SELECT compared(%s)", ["a"]))
    database.close()


@pytest.mark.attack("V15")
def test_octets_and_numbers(server: DatabaseServer) -> None:
    octets = "bytea" if server.dialect is Dialect.POSTGRESQL else "varbinary(255)"
    rows = [f"CREATE TABLE owners (address varchar(255), login {octets}, number int)"]
    rows += ["INSERT INTO owners VALUES ('a', 'alice', 7), ('b', NULL, NULL)"]
    database = Database(server.create("octets", rows), deadline_s=DEADLINE_S)
    assert database.ask(find) == [("alice",)]
    found = database.ask(lambda asking: asking.select(("login", "number"), "owners"))
    assert found == [("alice", 7), (None, None)]
    database.close()


# SQLite


@pytest.fixture
def files(tmp_path: Path) -> SqliteFiles:
    return SqliteFiles(tmp_path)


def test_a_sqlite_file(files: SqliteFiles, tmp_path: Path) -> None:
    database = Database(files.create("odd ?#%41 name", ROWS), deadline_s=DEADLINE_S)
    assert database.ask(find) == [("alice",)]
    assert "readonly" in trouble(database, "INSERT INTO owners VALUES ('b', 'bob')")
    assert database.ask(find) == [("alice",)]
    database.close()


@pytest.mark.attack("V15")
def test_any_type_in_a_sqlite_file(files: SqliteFiles) -> None:
    rows = ["CREATE TABLE owners (address, login)", "INSERT INTO owners VALUES ('a', x'616c696365')"]
    rows += ["INSERT INTO owners VALUES ('b', x'61ff'), ('c', 7), ('d', 7.5), ('e', NULL)"]
    database = Database(files.create("types", rows), deadline_s=DEADLINE_S)
    assert database.ask(find) == [("alice",)]
    every = database.ask(lambda asking: asking.select(("login",), "owners"))
    assert every == [("alice",), ("a\\xff",), (7,), (7.5,), (None,)]
    database.close()


@pytest.mark.attack("L10")
def test_sqlite_files_that_cannot_be_asked(files: SqliteFiles, tmp_path: Path) -> None:
    clock = Clock()
    (tmp_path / "broken.sqlite").write_bytes(b"this is no database" * 100)
    for name, said in (("missing", "unable to open"), ("broken", "not a database")):
        access = DatabaseAccess(Dialect.SQLITE, (DatabasePlace(path=str(tmp_path / f"{name}.sqlite")),))
        assert said in trouble(Database(access, deadline_s=DEADLINE_S), "SELECT login FROM owners")
    access = files.create("later", ROWS)
    path = tmp_path / "later.sqlite"
    path.rename(tmp_path / "away")
    database = Database(access, deadline_s=DEADLINE_S, clock=clock)
    trouble(database)
    (tmp_path / "away").rename(path)
    clock.ahead_s += RETRY_AFTER_S
    assert database.ask(find) == [("alice",)]
    database.close()


def test_a_locked_sqlite_file_is_waited_for(files: SqliteFiles, tmp_path: Path) -> None:
    database = Database(files.create("locked", ROWS), deadline_s=SHORT_S)
    with contextlib.closing(sqlite3.connect(tmp_path / "locked.sqlite", isolation_level=None)) as writer:
        writer.execute("BEGIN EXCLUSIVE")
        began = time.monotonic()
        assert "locked" in trouble(database, "SELECT login FROM owners", deadline_s=DEADLINE_S)
        assert time.monotonic() - began < LATEST_S
        writer.execute("COMMIT")
    database.close()


def test_a_sqlite_file_that_is_replaced(files: SqliteFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    database = Database(files.create("kept", ROWS), deadline_s=DEADLINE_S)
    assert database.ask(find) == [("alice",)]
    files.create("restored", [ROWS[0], "INSERT INTO owners VALUES ('a', 'carol')"])
    (tmp_path / "restored.sqlite").rename(tmp_path / "kept.sqlite")
    later = time.time() + MAX_AGE_OF_A_FILE_S + 1
    monkeypatch.setattr(time, "time", lambda: later)
    assert database.ask(find) == [("carol",)]
    database.close()


def test_a_sqlite_query_that_takes_too_long(files: SqliteFiles) -> None:
    clock = Ticking()
    database = Database(files.create("long", ROWS), deadline_s=0.6, clock=clock)
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
    assert "interrupted" in trouble(database, endless)
    assert clock.now_s < 1.0
    clock.now_s += RETRY_AFTER_S
    assert database.ask(find) == [("alice",)]
    database.close()


def test_the_number_of_rows_has_a_bound(files: SqliteFiles) -> None:
    database = Database(files.create("many", ROWS), deadline_s=DEADLINE_S)
    many = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {}) SELECT i FROM n"
    assert len(database.ask(lambda asking: asking.rows(many.format(MAX_ROWS)))) == MAX_ROWS
    assert f"more than {MAX_ROWS} rows" in trouble(database, many.format(MAX_ROWS + 1))
    database.close()


def test_what_goes_wrong_in_the_question_itself_is_not_hidden(files: SqliteFiles) -> None:
    database = Database(files.create("own", ROWS), deadline_s=DEADLINE_S)

    def wrong(asking: Asking) -> None:
        raise KeyError("ours")

    with pytest.raises(KeyError, match="ours"):
        database.ask(wrong)
    assert database.ask(find) == [("alice",)]
    database.close()


@pytest.mark.attack("L09")
@pytest.mark.parametrize("name", ["", "a b", "a;b", 'a"', "a'", "ü", "1a", "a.b"])
def test_names_that_are_no_names(files: SqliteFiles, name: str) -> None:
    database = Database(files.create("names", ROWS))
    for columns, table, where in (
        ((name,), "owners", ""),
        (("login",), name, ""),
        (("login",), "owners", name or "'"),
    ):
        with pytest.raises(ValueError, match="no name of a table or a column"):
            database.ask(
                lambda asking, columns=columns, table=table, where=where: asking.select(  # type: ignore[misc]
                    columns, table, where=where, among=["a"]
                )
            )
    database.close()
