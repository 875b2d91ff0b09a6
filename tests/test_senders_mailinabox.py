"""Mail-in-a-Box's users.sqlite as a source, beside Mail-in-a-Box's own query for Postfix."""

from __future__ import annotations

import os
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from database_site import AMPLE_S
from mailguard.senders.database_access import DatabaseAccess, DatabasePlace
from mailguard.senders.dialect import Dialect
from mailguard.senders.identity import LoginRules
from mailguard.senders.listing import ListingStatus
from mailguard.senders.mailinabox import MailInABox
from mailguard.senders.permission import PermissionStatus
from mailguard.senders.sql import MAX_ROWS, Database
from sender_asking import ask

GRANTED, DENIED = PermissionStatus.GRANTED, PermissionStatus.DENIED
UNKNOWN, UNAVAILABLE = PermissionStatus.UNKNOWN, PermissionStatus.UNAVAILABLE

SCHEMA = (
    "CREATE TABLE users (id INTEGER PRIMARY KEY AUTOINCREMENT, email TEXT NOT NULL UNIQUE, password TEXT NOT NULL,"
    " extra, privileges TEXT NOT NULL DEFAULT '')",
    "CREATE TABLE aliases (id INTEGER PRIMARY KEY AUTOINCREMENT, source TEXT NOT NULL UNIQUE,"
    " destination TEXT NOT NULL, permitted_senders TEXT)",
)
USERS = (
    "alice@us.test",
    "bob@us.test",
    "carol@other.test",
    "o'brien@us.test",
    "both@us.test",
    "m@xn--bcher-kva.test",
)
ALIASES = (
    ("sales@us.test", "alice@us.test,bob@us.test", None),
    ("ceo@us.test", "alice@us.test", "bob@us.test"),
    ("team@us.test", "alice@us.test", "bob@us.test,\ncarol@other.test"),
    ("both@us.test", "alice@us.test", None),
    ("nobody@us.test", "alice@us.test", ""),
    ("@us.test", "bob@us.test", None),
    ("@other.test", "carol@other.test", "alice@us.test"),
    ("list+x@us.test", "alice@us.test", None),
    ("chained@us.test", "sales@us.test", None),
    ("info@xn--bcher-kva.test", "m@xn--bcher-kva.test", None),
)
CASES = [
    ("own", "alice@us.test", "alice@us.test", GRANTED, "user alice@us.test"),
    ("own-case", "ALICE@us.test", "Alice@US.test", GRANTED, "user alice@us.test"),
    ("own-tag", "alice@us.test", "alice+x@us.test", GRANTED, "user alice@us.test"),
    ("other", "alice@us.test", "bob@us.test", DENIED, "user bob@us.test"),
    ("other-tenant", "alice@us.test", "carol@other.test", DENIED, "user carol@other.test"),
    ("destination", "alice@us.test", "sales@us.test", GRANTED, "alias sales@us.test"),
    ("destination-second", "bob@us.test", "sales+x@us.test", GRANTED, "alias sales@us.test"),
    ("destination-of-others", "carol@other.test", "sales@us.test", DENIED, "alias sales@us.test"),
    ("permitted", "bob@us.test", "ceo@us.test", GRANTED, "alias ceo@us.test, permitted_senders"),
    ("permitted-not-destination", "alice@us.test", "ceo@us.test", DENIED, "alias ceo@us.test, permitted_senders"),
    ("permitted-second", "carol@other.test", "team@us.test", GRANTED, "alias team@us.test, permitted_senders"),
    ("permitted-empty", "alice@us.test", "nobody@us.test", DENIED, "alias nobody@us.test, permitted_senders"),
    ("alias-before-user", "both@us.test", "both@us.test", DENIED, "alias both@us.test"),
    ("alias-before-user-2", "alice@us.test", "both@us.test", GRANTED, "alias both@us.test"),
    ("tag-with-entry", "alice@us.test", "list+x@us.test", GRANTED, "alias list+x@us.test"),
    ("not-followed", "alice@us.test", "chained@us.test", DENIED, "alias chained@us.test"),
    ("catch-all", "bob@us.test", "new@us.test", GRANTED, "alias @us.test"),
    ("catch-all-of-others", "alice@us.test", "new@us.test", DENIED, "alias @us.test"),
    ("catch-all-not-for-users", "bob@us.test", "alice@us.test", DENIED, "user alice@us.test"),
    ("catch-all-permitted", "alice@us.test", "new@other.test", GRANTED, "alias @other.test, permitted_senders"),
    ("unknown", "alice@us.test", "x@example.com", UNKNOWN, ""),
    ("u-label", "m@bücher.test", "info@bücher.test", GRANTED, "alias info@xn--bcher-kva.test"),
    ("u-label-own", "M@bücher.test", "m@BÜCHER.test", GRANTED, "user m@xn--bcher-kva.test"),
    ("quote", "o'brien@us.test", "o'brien@us.test", GRANTED, "user o'brien@us.test"),
    ("quote-injected", "x' OR '1'='1@us.test", "alice@us.test", DENIED, "user alice@us.test"),
    ("wildcard", "%@us.test", "alice@us.test", DENIED, "user alice@us.test"),
    ("wildcard-address", "alice@us.test", "al%@us.test", DENIED, "alias @us.test"),
    ("star", "*", "alice@us.test", DENIED, "user alice@us.test"),
    ("full-width", "\uff41lice@us.test", "alice@us.test", DENIED, "user alice@us.test"),
]


def make(path: Path) -> Path:
    with sqlite3.connect(path) as connection:
        for statement in SCHEMA:
            connection.execute(statement)
        connection.executemany("INSERT INTO users (email, password) VALUES (?, 'x')", [(user,) for user in USERS])
        connection.executemany(
            "INSERT INTO aliases (source, destination, permitted_senders) VALUES (?, ?, ?)", ALIASES
        )
    connection.close()
    return path


def opened(path: Path) -> MailInABox:
    access = DatabaseAccess(Dialect.SQLITE, (DatabasePlace(path=str(path)),))
    return MailInABox(Database(access, deadline_s=AMPLE_S), rules=LoginRules(), delimiters="+")


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("mailinabox") / "users.sqlite")


@pytest.fixture(scope="module")
def source(path: Path) -> Iterator[MailInABox]:
    made = opened(path)
    yield made
    made.close()


@pytest.mark.attack("L01", "L02", "L07", "L09", "L11")
@pytest.mark.parametrize(
    ("login", "address", "status", "rule"), [each[1:] for each in CASES], ids=[each[0] for each in CASES]
)
def test_may_use(source: MailInABox, login: str, address: str, status: PermissionStatus, rule: str) -> None:
    said = ask(source, login, address)
    assert (said.status, said.rule, said.source) == (status, rule, "mailinabox"), said
    assert said.asked
    if status is not GRANTED:
        assert said.reason


OWN_QUERY = (
    "SELECT permitted_senders FROM ("
    "SELECT permitted_senders, 0 AS priority FROM aliases WHERE source='%s' AND permitted_senders IS NOT NULL"
    " UNION SELECT destination AS permitted_senders, 1 AS priority FROM aliases"
    " WHERE source='%s' AND permitted_senders IS NULL"
    " UNION SELECT email as permitted_senders, 2 AS priority FROM users WHERE email='%s') ORDER BY priority LIMIT 1;"
)


def test_the_owners_are_those_that_it_gives_to_postfix(path: Path, source: MailInABox, tmp_path: Path) -> None:
    """By the query in its sender-login-maps.cf, for each address that has an entry and somebody among its owners."""
    for name, text in (
        ("main.cf", "compatibility_level = 3.7\nmyhostname = mail.us.test\n"),
        ("maps.cf", f"dbpath = {path}\nquery = {OWN_QUERY}\n"),
    ):
        (tmp_path / name).write_text(text)
        os.utime(tmp_path / name, (0, 0))
    addresses = [
        *(user for user in USERS if "'" not in user),
        *(alias for alias, _, allowed in ALIASES if allowed != ""),
    ]
    done = subprocess.run(
        ["postmap", "-c", str(tmp_path), "-q", "-", f"sqlite:{tmp_path}/maps.cf"],
        input="".join(f"{address}\n" for address in addresses),
        capture_output=True,
        text=True,
        check=True,
    )
    theirs = dict(line.split("\t", 1) for line in done.stdout.replace(",\n", ",").splitlines())
    assert set(theirs) == set(addresses)
    for address, owners in theirs.items():
        asked = f"unlisted{address}" if address.startswith("@") else address
        for login in USERS:
            said = ask(source, login, asked)
            assert said.is_granted == (login in owners.replace(",", " ").split()), (login, address, owners, said)


def test_everyone(source: MailInABox) -> None:
    everyone = source.everyone()
    assert everyone.status is ListingStatus.LISTED
    reach = {name: {grant.what for grant in grants} for name, grants in everyone.accounts.items()}
    assert reach == {
        "alice@us.test": {"alice@us.test", "sales@us.test", "both@us.test", "@other.test", "list+x@us.test"},
        "bob@us.test": {"bob@us.test", "sales@us.test", "ceo@us.test", "team@us.test", "@us.test"},
        "carol@other.test": {"carol@other.test", "team@us.test"},
        "o'brien@us.test": {"o'brien@us.test"},
        "both@us.test": set(),
        "m@xn--bcher-kva.test": {"m@xn--bcher-kva.test", "info@xn--bcher-kva.test"},
    }


def test_a_host_with_more_accounts_than_an_answer_may_have_rows_can_be_listed(tmp_path: Path) -> None:
    names = [f"u{number}@us.test" for number in range(MAX_ROWS + 1)]
    path = make(tmp_path / "users.sqlite")
    with sqlite3.connect(path) as connection:
        connection.executemany("INSERT INTO users (email, password) VALUES (?, 'x')", [(name,) for name in names])
        connection.executemany(
            "INSERT INTO aliases (source, destination) VALUES (?, ?)", [(f"a{name}", name) for name in names]
        )
    connection.close()
    source = opened(path)
    listed = source.everyone()
    reach = {name: {grant.what for grant in grants} for name, grants in listed.accounts.items()}
    assert all(reach.get(name) == {name, f"a{name}"} for name in names), listed.reason
    source.close()


def test_more_users_than_can_be_listed(source: MailInABox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mailguard.senders.mailinabox.MAX_ACCOUNTS", 1)
    listed = source.everyone()
    assert listed.status is ListingStatus.UNLISTABLE
    assert "too many to list" in listed.reason


@pytest.mark.attack("L01")
def test_two_users_that_differ_in_case_alone(tmp_path: Path) -> None:
    path = make(tmp_path / "users.sqlite")
    with sqlite3.connect(path) as connection:
        connection.execute("INSERT INTO users (email, password) VALUES ('Alice@us.test', 'x')")
        connection.execute("INSERT INTO aliases (source, destination) VALUES ('boss@us.test', 'Alice@us.test')")
    connection.close()
    source = opened(path)
    listing = source.everyone().accounts
    for login in ("alice@us.test", "Alice@us.test"):
        for address in ("alice@us.test", "Alice@us.test", "boss@us.test"):
            is_own = address == login or (login == "Alice@us.test" and address == "boss@us.test")
            assert ask(source, login, address).is_granted == is_own, (login, address)
            assert (address in {grant.what for grant in listing[login]}) == is_own, (login, address)
    assert ask(source, "ALICE@us.test", "boss@us.test").status is DENIED
    source.close()


def test_a_database_that_is_written_at_the_same_time(tmp_path: Path) -> None:
    """With a WAL journal, as some installations have it."""
    path = make(tmp_path / "users.sqlite")
    writer = sqlite3.connect(path, isolation_level=None)
    writer.execute("PRAGMA journal_mode=WAL")
    source = opened(path)
    assert ask(source, "dave@us.test", "dave@us.test").status is DENIED
    writer.execute("INSERT INTO users (email, password) VALUES ('dave@us.test', 'x')")
    assert ask(source, "dave@us.test", "dave@us.test").status is GRANTED
    writer.execute("BEGIN IMMEDIATE")
    writer.execute("DELETE FROM users")
    assert ask(source, "dave@us.test", "dave@us.test").status is GRANTED
    writer.execute("ROLLBACK")
    writer.close()
    source.close()


@pytest.mark.attack("L10")
def test_a_database_that_is_not_there(tmp_path: Path) -> None:
    source = opened(tmp_path / "missing.sqlite")
    said = ask(source, "alice@us.test", "alice@us.test")
    assert (said.status, "unable to open" in said.reason) == (UNAVAILABLE, True)
    assert source.everyone().status is ListingStatus.UNAVAILABLE
    source.close()
