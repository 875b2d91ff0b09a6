"""Databases for tests: a private PostgreSQL and a private MariaDB, and SQLite in files.

The servers are those of Debian's packages, on a port of 127.0.0.1 and a socket in a directory of their own, as the
user nobody; they can be stopped, killed, paused and started again on the same port. `mailguard` is the user that may
only SELECT. One object is for one thread.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest
import sqlalchemy

from mailguard.senders.database_access import DatabaseAccess, DatabasePlace
from mailguard.senders.dialect import Dialect
from sandbox_place import HOST, SYSTEM_PATH, make_public_directory, port_of, reserve_port

__all__ = [
    "AMPLE_S",
    "PASSWORD",
    "USER",
    "DatabaseServer",
    "MariaDb",
    "Postgres",
    "SqliteFiles",
    "mariadb",
    "postgres",
]

USER = "mailguard"
PASSWORD = "s3cret:/@ #word"
PATIENCE_S = 30.0
# A deadline of a question, of which a query may take a third, on a machine that may stand still for seconds.
AMPLE_S = 90.0
POLL_S = 0.02
NOBODY = 65534

_HBA = """\
local all postgres trust
local all all scram-sha-256
host all all 127.0.0.1/32 scram-sha-256
"""
_POSTGRES_OPTIONS = {
    "listen_addresses": HOST,
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
    "shared_buffers": "16MB",
    "max_connections": "30",
    "autovacuum": "off",
}
_MARIADB_OPTIONS = (
    f"--bind-address={HOST}",
    "--skip-name-resolve",
    "--innodb-buffer-pool-size=16M",
    "--innodb-flush-log-at-trx-commit=0",
    "--skip-log-bin",
    "--performance-schema=off",
    "--character-set-server=utf8mb4",
)


class SqliteFiles:
    """Databases in files of one directory."""

    dialect = Dialect.SQLITE

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def create(self, name: str, statements: Sequence[str]) -> DatabaseAccess:
        """A database; how it is reached."""
        path = self._directory / f"{name}.sqlite"
        with sqlite3.connect(path) as connection:
            for statement in statements:
                connection.execute(statement)
        connection.close()
        return DatabaseAccess(Dialect.SQLITE, (DatabasePlace(path=str(path)),))

    def execute(self, name: str, statements: Sequence[str]) -> None:
        """Change a database."""
        self.create(name, statements)


class DatabaseServer(ABC):
    """A context manager: entered, it serves; left, its processes and files are gone."""

    dialect: Dialect

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self.directory = Path()
        self.port = 0
        self._held: socket.socket | None = None

    @property
    @abstractmethod
    def socket(self) -> Path:
        """Its socket in the file system."""

    @abstractmethod
    def _initialize(self) -> None: ...

    @abstractmethod
    def _command(self) -> list[str]: ...

    @abstractmethod
    def _admin(self, name: str) -> sqlalchemy.URL: ...

    @abstractmethod
    def _let_read(self, name: str) -> list[str]: ...

    def __enter__(self) -> Self:
        self.directory = make_public_directory("mailguard-database-")
        os.chown(self.directory, NOBODY, NOBODY)
        # Held also while it does not run: its first start takes seconds, and others look for ports meanwhile.
        self._held = reserve_port()
        self.port = port_of(self._held)
        try:
            self._initialize()
            self.start()
        except BaseException:
            self._leave()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave()

    def start(self) -> None:
        """Run it; it answers afterwards."""
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                self._command(),
                cwd=self.directory,
                stdout=log,
                stderr=log,
                env=self._environment(),
                user=NOBODY,
                group=NOBODY,
                extra_groups=[],
            )
        end = time.monotonic() + PATIENCE_S
        while not self._answers():
            assert self._process.poll() is None, self._log()
            assert time.monotonic() < end, self._log()
            time.sleep(POLL_S)

    def stop(self) -> None:
        """As an administrator does: it ends its connections."""
        self._end(signal.SIGINT if self.dialect is Dialect.POSTGRESQL else signal.SIGTERM)

    def kill(self) -> None:
        """At once."""
        self._end(signal.SIGKILL)

    def pause(self) -> None:
        """It takes connections and questions and says nothing, until `resume`."""
        self._signal_all(signal.SIGSTOP)
        # A thread on another core may answer one more question before it stands.
        until = time.monotonic() + PATIENCE_S
        while not all(_state(each) in "TZX" for pid in self._processes() for each in _tasks_of(pid)):
            assert time.monotonic() < until, "it does not stand"
            time.sleep(0.01)

    def resume(self) -> None:
        self._signal_all(signal.SIGCONT)

    def access(self, name: str, *, by_socket: bool = False) -> DatabaseAccess:
        """How a database of that name is reached by USER."""
        place = DatabasePlace(socket=str(self.socket)) if by_socket else DatabasePlace(host=HOST, port=self.port)
        return DatabaseAccess(self.dialect, (place,), name=name, user=USER, password=PASSWORD)

    def create(self, name: str, statements: Sequence[str]) -> DatabaseAccess:
        """A new database; how it is reached by USER, who may read it."""
        self.execute("", [f"CREATE DATABASE {name}"])
        self.execute(name, [*statements, *self._let_read(name)])
        return self.access(name)

    def execute(self, name: str, statements: Sequence[str]) -> None:
        """Statements of its administrator."""
        engine = sqlalchemy.create_engine(
            self._admin(name), isolation_level="AUTOCOMMIT", poolclass=sqlalchemy.NullPool
        )
        with engine.connect() as connection:
            for statement in statements:
                # The drivers take "%" between quotes in different ways: no statement has one.
                assert "%" not in statement
                connection.exec_driver_sql(statement)

    def _answers(self) -> bool:
        try:
            self.execute("", ["SELECT 1"])
        except (sqlalchemy.exc.SQLAlchemyError, OSError):
            return False
        return True

    def _run(self, *command: str) -> None:
        done = subprocess.run(
            command,
            cwd=self.directory,
            capture_output=True,
            check=False,
            env=self._environment(),
            user=NOBODY,
            group=NOBODY,
            extra_groups=[],
        )
        assert done.returncode == 0, (done.stdout + done.stderr).decode("utf-8", "replace")

    def _environment(self) -> dict[str, str]:
        # Where it starts, MariaDB deletes temporary tables that it takes for its own of an earlier time.
        own = str(self.directory)
        return {"PATH": SYSTEM_PATH, "LC_ALL": "C.UTF-8", "HOME": own, "TMPDIR": own}

    def _log(self) -> str:
        return (self.directory / "log").read_text("utf-8", "replace")[-4000:]

    def _processes(self) -> list[int]:
        assert self._process is not None, "it does not run"
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text("ascii")
        return [self._process.pid, *map(int, children.split())]

    def _signal_all(self, number: signal.Signals) -> None:
        for process in self._processes():
            # The one that served a connection which was closed a moment ago may have ended.
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, number)

    def _end(self, number: signal.Signals) -> None:
        process = self._process
        assert process is not None, "it does not run"
        children: list[int] = []
        if number is signal.SIGKILL:
            process.send_signal(signal.SIGSTOP)  # so that it has no more of them
            children = self._processes()[1:]
        self._process = None
        process.send_signal(number)
        process.wait(PATIENCE_S)
        # Its children notice that it is gone, if later: while one of them is left, PostgreSQL does not start.
        for child in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        until = time.monotonic() + PATIENCE_S
        while not all(_state(Path(f"/proc/{child}")) in "ZX" for child in children):
            assert time.monotonic() < until, "its children do not end"
            time.sleep(0.01)

    def _leave(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._signal_all(signal.SIGCONT)
            self.kill()
        if self._held is not None:
            self._held.close()
        shutil.rmtree(self.directory, ignore_errors=True)


def _tasks_of(pid: int) -> list[Path]:
    try:
        return list(Path(f"/proc/{pid}/task").iterdir())
    except FileNotFoundError:
        return []  # it has ended


def _state(task: Path) -> str:
    """As ps(1) names it: T has been stopped, Z has ended and nobody has taken note, X has ended."""
    try:
        return (task / "stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return "X"


class Postgres(DatabaseServer):
    """PostgreSQL."""

    dialect = Dialect.POSTGRESQL

    @property
    def socket(self) -> Path:
        """libpq's name for it."""
        return self.directory / f".s.PGSQL.{self.port}"

    @staticmethod
    def is_installed() -> bool:
        """Whether Debian's package is there."""
        return _postgres_programs() is not None

    def _initialize(self) -> None:
        self._run(
            f"{_postgres_programs()}/initdb",
            *("-D", "data", "-U", "postgres", "-E", "UTF8", "--locale=C.UTF-8", "--auth=trust", "--no-sync"),
        )
        (self.directory / "data" / "pg_hba.conf").write_text(_HBA, "ascii")

    def _command(self) -> list[str]:
        options = {
            **_POSTGRES_OPTIONS,
            "port": str(self.port),
            "unix_socket_directories": str(self.directory),
        }
        flags = [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
        return [f"{_postgres_programs()}/postgres", "-D", "data", *flags]

    def _admin(self, name: str) -> sqlalchemy.URL:
        return sqlalchemy.URL.create(
            "postgresql+pg8000",
            username="postgres",
            database=name or "postgres",
            query={"unix_sock": str(self.socket)},
        )

    def _let_read(self, name: str) -> list[str]:
        return [
            f"DO $$ BEGIN CREATE ROLE {USER} LOGIN PASSWORD '{PASSWORD}';"
            " EXCEPTION WHEN duplicate_object THEN NULL; END $$",
            f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {USER}",
        ]


class MariaDb(DatabaseServer):
    """MariaDB."""

    dialect = Dialect.MYSQL

    @property
    def socket(self) -> Path:
        """Where its clients are told to look."""
        return self.directory / "socket"

    @staticmethod
    def is_installed() -> bool:
        """Whether Debian's package is there."""
        return shutil.which("mariadbd", path=SYSTEM_PATH) is not None

    def _initialize(self) -> None:
        self._run(
            "mariadb-install-db",
            *("--no-defaults", f"--datadir={self.directory}/data", "--skip-test-db"),
            "--auth-root-authentication-method=normal",
        )

    def _command(self) -> list[str]:
        places = (f"--datadir={self.directory}/data", f"--socket={self.socket}", f"--port={self.port}")
        return ["mariadbd", "--no-defaults", *places, f"--tmpdir={self.directory}", *_MARIADB_OPTIONS]

    def _admin(self, name: str) -> sqlalchemy.URL:
        query = {"unix_socket": str(self.socket), "charset": "utf8mb4"}
        return sqlalchemy.URL.create("mysql+pymysql", username="root", database=name or None, query=query)

    def _let_read(self, name: str) -> list[str]:
        hosts = (HOST, "localhost")
        return [f"GRANT SELECT ON {name}.* TO '{USER}'@'{host}' IDENTIFIED BY '{PASSWORD}'" for host in hosts]


def _postgres_programs() -> Path | None:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    return found[-1].parent if found else None


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """One server for all tests of a process."""
    if not Postgres.is_installed():
        pytest.skip("postgresql is not installed")
    with Postgres() as server:
        yield server


@pytest.fixture(scope="session")
def mariadb() -> Iterator[MariaDb]:
    """One server for all tests of a process."""
    if not MariaDb.is_installed():
        pytest.skip("mariadb-server-core is not installed")
    with MariaDb() as server:
        yield server
