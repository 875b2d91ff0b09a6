"""What is said of mistakes on the way of docs/enforcing-senders.md, by real databases, to who may not read all of it;
and what the dry run of `mailguard enforce` says of our own users.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

import zone0
from cli_process import Command
from database_site import PASSWORD, DatabaseServer, MariaDb, Postgres, mariadb, postgres
from enforcing_page import PAGE, rows
from log_samples import LINES, record
from postfixadmin_site import statements
from sandbox_place import make_public_directory, write_file
from walk_host import PATIENT, fill_mail_in_a_box

__all__ = ["mariadb", "postgres"]


@dataclass(frozen=True, slots=True)
class Mistake:
    """A configuration, or what makes one in `directory`; {mariadb} and {postgres} are the sockets of the servers."""

    toml: str
    prepare: Callable[[Path], None] = lambda directory: None


def _password(mode: int, text: str = PASSWORD) -> Callable[[Path], None]:
    def prepare(directory: Path) -> None:
        (directory / "password").write_text(text + "\n")
        (directory / "password").chmod(mode)

    return prepare


def _users(mode: int, journal: str = "delete") -> Callable[[Path], None]:
    def prepare(directory: Path) -> None:
        fill_mail_in_a_box(directory)
        with sqlite3.connect(directory / "users.sqlite") as database:
            database.execute(f"PRAGMA journal_mode = {journal}")
        database.close()
        (directory / "users.sqlite").chmod(mode)

    return prepare


def _cut_off(directory: Path) -> None:
    """What a crash leaves of a transaction: the file half written, and the journal to mend it by."""
    fill_mail_in_a_box(directory)
    names = ("users.sqlite", "users.sqlite-journal")
    with closing(sqlite3.connect(directory / names[0], isolation_level=None)) as database:
        database.execute("PRAGMA cache_size = 2")
        database.execute("BEGIN")
        database.execute("CREATE TABLE more AS SELECT hex(randomblob(100000))")
        for name in names:
            shutil.copy(directory / name, directory / f"{name}.cut")
        database.execute("ROLLBACK")
    for name in names:
        (directory / f"{name}.cut").rename(directory / name)
        (directory / name).chmod(0o644)


def _database(server: str, *, user: str = "mailguard") -> str:
    dialect = {"mariadb": "mysql", "postgres": "postgresql"}[server]
    return (
        f'sources = ["postfixadmin"]\n[senders.postfixadmin]\ndatabase = "{dialect}"\nname = "mistakes"\n'
        f'user = "{user}"\nsocket = "{{{server}}}"\npassword_file = "{{directory}}/password"\n'
    )


_IN_A_BOX = 'sources = ["mailinabox"]\n[senders.mailinabox]\npath = "{directory}/users.sqlite"\n'
MISTAKES: Mapping[str, Mistake] = {
    'did you mean "postfixadmin"?': Mistake('sources = ["postfixadmim"]\n'),
    'add "postfixadmin" to sources': Mistake('[senders.postfixadmin]\ndatabase = "mysql"\n'),
    "sources is missing in [senders], or empty": Mistake('[senders.actions]\nheader_from = "header"\n'),
    '"mariadb" is called "mysql" here': Mistake(
        'sources = ["postfixadmin"]\n[senders.postfixadmin]\ndatabase = "mariadb"\n'
    ),
    "cannot be read: Permission denied": Mistake(_database("mariadb"), _password(0o600)),
    "every user can read it": Mistake(_database("mariadb"), _password(0o644)),
    "Access denied for user": Mistake(_database("mariadb"), _password(0o640, "wrong")),
    "SELECT command denied to user": Mistake(_database("mariadb", user="halfway"), _password(0o640)),
    "password authentication failed for user": Mistake(_database("postgres"), _password(0o640, "wrong")),
    "permission denied for table": Mistake(_database("postgres", user="halfway"), _password(0o640)),
    "unable to open database file (Permission denied)": Mistake(_IN_A_BOX, _users(0o600)),
    "unable to open database file (No such file or directory)": Mistake(_IN_A_BOX),
    "it keeps a write-ahead log": Mistake(_IN_A_BOX, _users(0o644, "wal")),
    "who may write it has to open it once": Mistake(_IN_A_BOX, _cut_off),
}


def test_what_is_said_when_something_is_wrong_is_on_the_page() -> None:
    section = PAGE.read_text("utf-8").partition("## When something is wrong")[2]
    assert [said for said, _ in rows(section)] == list(MISTAKES)


@pytest.fixture(scope="module")
def half_granted(mariadb: MariaDb, postgres: Postgres) -> Sequence[DatabaseServer]:
    """Each with a user who may read no aliases."""
    for server in (mariadb, postgres):
        server.create("mistakes", statements(server.dialect))
    mariadb.execute(
        "mistakes",
        [
            f"GRANT SELECT ON mistakes.mailbox TO 'halfway'@'localhost' IDENTIFIED BY '{PASSWORD}'",
            "GRANT SELECT ON mistakes.domain TO 'halfway'@'localhost'",
        ],
    )
    postgres.execute(
        "mistakes", [f"CREATE ROLE halfway LOGIN PASSWORD '{PASSWORD}'", "GRANT SELECT ON domain TO halfway"]
    )
    return mariadb, postgres


# As nobody, in one process. What is needed is imported before: nobody may be unable to read this checkout.
_ASK = """
import io, json, os, sys
from contextlib import redirect_stderr, redirect_stdout
import sqlalchemy.dialects.mysql.pymysql, sqlalchemy.dialects.postgresql.pg8000, sqlalchemy.dialects.sqlite
import pg8000, pymysql
import mailguard.senders.mailinabox, mailguard.senders.postfixadmin
from mailguard.cli.group import run
os.setgroups([]); os.setgid(65534); os.setuid(65534)
said = []
for path in sys.argv[1:]:
    with redirect_stdout(io.StringIO()) as out, redirect_stderr(out):
        code = run(["senders", "test", "alice@us.test", "sales@us.test", "-c", path])
    said.append((code, out.getvalue()))
print(json.dumps(said))
"""


@pytest.fixture(scope="module")
def what_is_said(half_granted: Sequence[DatabaseServer]) -> Mapping[str, tuple[int, str]]:
    """Exit code and words of `senders test` for each mistake."""
    mysql, postgresql = half_granted
    place = make_public_directory("mailguard-mistakes-")
    try:
        files = []
        for number, mistake in enumerate(MISTAKES.values()):
            directory = place / str(number)
            directory.mkdir(mode=0o755)
            mistake.prepare(directory)
            if (directory / "password").exists():
                shutil.chown(directory / "password", "root", "nogroup")
            toml = f"[senders]\n{PATIENT}\n{mistake.toml}"
            words = {"directory": directory, "mariadb": mysql.socket, "postgres": postgresql.socket}
            for word, value in words.items():
                toml = toml.replace(f"{{{word}}}", str(value))
            files.append(directory / "mailguard.toml")
            write_file(files[-1], toml)
        done = subprocess.run(
            [sys.executable, "-c", _ASK, *map(str, files)], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return {name: (code, text) for name, (code, text) in zip(MISTAKES, json.loads(done.stdout), strict=True)}
    finally:
        shutil.rmtree(place)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, who can be somebody else")
@pytest.mark.parametrize("said", MISTAKES)
def test_what_a_mistake_leads_to(what_is_said: Mapping[str, tuple[int, str]], said: str) -> None:
    code, text = what_is_said[said]
    assert said in text
    assert code in (75, 78)


# The dry run


def test_our_own_users_are_told_by_their_login(mailguard_command: Command, tmp_path: Path) -> None:
    ours = {"role": "sign", "login": "alice@us.test", "domain": None, "rule": "sender-from", "action": "sign"}
    lines = [
        LINES["syslog"](record(**{**ours, "client": f"198.51.{number}.7", "from": author}), zone0.NOW)
        for number, author in enumerate(("bob@us.test", "a@us.test,bob@us.test", '"x@y"@other.test'))
    ]
    # A login beside mail from outside, as on a listener with role = "verify", is no reason to count it as ours.
    lines.append(LINES["json"](record(login="alice@us.test"), zone0.NOW))
    log = tmp_path / "mail.log"
    log.write_bytes(b"\n".join([*lines, b""]))
    done = mailguard_command("enforce", "--dry-run", "--json", "--now", str(zone0.NOW), "--log", log)
    groups = [
        (each["source"], each["domain"], each["rule"], each["count"]) for each in json.loads(done.out)["groups"]
    ]
    assert groups == [
        ("alice@us.test", "us.test", "sender-from", 2),
        ("alice@us.test", "other.test", "sender-from", 1),
        ("198.51.100.66", "bank.test", "dmarc-reject", 1),
    ]
