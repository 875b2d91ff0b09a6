"""The files of Postfix's SQL tables: what in them is understood, and what is refused with its name."""

from __future__ import annotations

import os
import sqlite3
import time
from pathlib import Path

import pytest

from database_site import AMPLE_S
from mailguard.config import load
from mailguard.errors import ConfigError
from mailguard.sender_sources import open_senders
from mailguard.senders.identity import Login, LoginRules, parse_address
from mailguard.senders.listing import ListingStatus
from mailguard.senders.login_maps import LoginMaps
from mailguard.senders.map_list import TableOptions, open_tables
from mailguard.senders.permission import PermissionStatus
from mailguard.senders.sql_table import SqlTable, read_parameters
from mailguard.senders.table import TableDown

SQLITE = "dbpath = {directory}/owners.sqlite\n"
MYSQL = "hosts = unix:/run/x.sock\nuser = u\npassword = p\ndbname = d\n"
QUERY = "query = SELECT login FROM owners WHERE address='%s'\n"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    with sqlite3.connect(tmp_path / "owners.sqlite") as connection:
        connection.execute("CREATE TABLE owners (address TEXT, login TEXT, active INTEGER)")
        rows = [("a@us.test", "alice", 1), ("a@us.test", "bob", 1), ("b@us.test", "bob", 0), ("@us.test", "root", 1)]
        rows += [("many@us.test", f"login{number}", 1) for number in range(2000)]
        connection.executemany("INSERT INTO owners VALUES (?, ?, ?)", rows)
    connection.close()
    return tmp_path


def table(directory: Path, text: str, kind: str = "sqlite") -> SqlTable:
    path = directory / "owners.cf"
    path.write_text(text.format(directory=directory), "utf-8")
    return SqlTable(kind, str(path), deadline_s=AMPLE_S, clock=time.monotonic)


def test_parameters(tmp_path: Path) -> None:
    path = tmp_path / "x.cf"
    path.write_text(
        '# comment\n\nuser=u\npassword =  p#w = "x" \nquery = SELECT a\n  FROM b\n # inside\n\tWHERE c\nuser = v\n'
    )
    assert read_parameters(str(path)) == {
        "user": "v",
        "password": 'p#w = "x"',
        "query": "SELECT a  FROM b\tWHERE c",
    }


def test_files_that_are_not_read(tmp_path: Path) -> None:
    path = tmp_path / "x.cf"
    cases = [(b"secret\n", "not of the form"), (b"a = \xff\n", "not UTF-8"), (b"a = b\n" * 20_000, "more than 65536")]
    for octets, said in cases:
        path.write_bytes(octets)
        with pytest.raises(ConfigError, match=said) as caught:
            read_parameters(str(path))
        assert "secret" not in str(caught.value)
    with pytest.raises(ConfigError, match="No such file"):
        read_parameters(str(tmp_path / "missing"))
    with pytest.raises(ConfigError, match=r"Is a directory|not a regular file"):
        read_parameters(str(tmp_path))
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(ConfigError, match="not a regular file"):
        read_parameters(str(tmp_path / "fifo"))


UNREADABLE = [
    ("no-query", "mysql", MYSQL, "there is no query"),
    ("tls", "mysql", MYSQL + QUERY + "tls_CAfile = /x\n", '"tls_CAfile" is not understood'),
    ("option-file", "mysql", MYSQL + QUERY + "option_file = /x\n", '"option_file" is not understood'),
    ("result-set", "mysql", MYSQL + QUERY + "require_result_set = no\n", "require_result_set = no"),
    ("charset", "mysql", MYSQL + QUERY + "charset = latin1\n", "charset = latin1"),
    ("encoding", "pgsql", MYSQL + QUERY + "encoding = LATIN1\n", "encoding = LATIN1"),
    ("no-database", "mysql", "hosts = x\n" + QUERY, "dbname is missing"),
    ("relative-path", "sqlite", "dbpath = x\n" + QUERY, "must begin with /"),
    ("server-with-sqlite", "sqlite", SQLITE + QUERY + "user = x\n", '"user" is not understood'),
    ("path-with-mysql", "mysql", MYSQL + QUERY + "dbpath = /x\n", '"dbpath" is not understood'),
    ("domain-table", "mysql", MYSQL + QUERY + "domain = hash:/x\n", "only names of domains"),
    ("limit", "mysql", MYSQL + QUERY + "expansion_limit = many\n", "not a number"),
    ("uri", "pgsql", "hosts = postgresql://u@x/d\ndbname = d\n" + QUERY, "addresses with ://"),
    ("port", "pgsql", "hosts = x:pop3\ndbname = d\n" + QUERY, "the port is no number"),
    ("hosts", "pgsql", "hosts = " + "x " * 11 + "\ndbname = d\n" + QUERY, "more than 10"),
    ("query", "mysql", MYSQL + "query = SELECT a WHERE b=%s\n", "outside of quotes"),
    ("result-format", "mysql", MYSQL + QUERY + "result_format = %q\n", '"%q" is no expansion'),
    ("function-with-mysql", "mysql", MYSQL + "select_function = f\n", '"select_function" is not understood'),
]


@pytest.mark.parametrize(
    ("kind", "text", "said"), [each[1:] for each in UNREADABLE], ids=[each[0] for each in UNREADABLE]
)
def test_what_is_not_understood(tmp_path: Path, kind: str, text: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        table(tmp_path, text, kind)
    assert said in str(caught.value)
    assert str(caught.value).startswith(str(tmp_path / "owners.cf"))


PLACES = [
    ("mysql", "", "/run/mysqld/mysqld.sock"),
    ("mysql", "localhost", "/run/mysqld/mysqld.sock"),
    ("mysql", "inet:localhost:3307", "/run/mysqld/mysqld.sock"),
    ("mysql", "127.0.0.1", "127.0.0.1:3306"),
    ("mysql", "inet:db.us.test:3307, unix:/run/x.sock", "db.us.test:3307 /run/x.sock"),
    # Postfix ignores a port by itself.
    ("mysql", "127.0.0.1\nport = 3307", "127.0.0.1:3306"),
    ("pgsql", "127.0.0.1\nport = 5433", "127.0.0.1:5432"),
    ("pgsql", "", "localhost:5432"),
    ("pgsql", "inet:db.us.test", "db.us.test:5432"),
    ("pgsql", "unix:/run/postgresql", "/run/postgresql/.s.PGSQL.5432"),
    ("pgsql", "unix:/run/postgresql/.s.PGSQL.5433", "/run/postgresql/.s.PGSQL.5433"),
]


@pytest.mark.parametrize(("kind", "hosts", "places"), PLACES)
def test_hosts(tmp_path: Path, kind: str, hosts: str, places: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "exists", lambda self: False)
    made = table(tmp_path, f"hosts = {hosts}\ndbname = d\n{QUERY}", kind)
    assert " ".join(str(place) for place in made._database.access.places) == places


@pytest.mark.parametrize(
    ("kind", "legacy"),
    [
        (
            "sqlite",
            "select_field = login\ntable = owners\nwhere_field = address\nadditional_conditions = AND active = 1\n",
        ),
        ("sqlite", "query =\nselect_field = login\ntable = owners\nwhere_field = address\n"),
    ],
)
def test_the_older_parameters(directory: Path, kind: str, legacy: str) -> None:
    assert table(directory, SQLITE + legacy, kind).find("a@us.test").owners == ("alice", "bob")


def test_a_function_of_postgresql(tmp_path: Path) -> None:
    made = table(tmp_path, "dbname = d\nselect_function = owners_of\n", "pgsql")
    assert made._query.statement == "SELECT owners_of(%s)"


def test_limits_and_domains(directory: Path) -> None:
    made = table(directory, SQLITE + QUERY + "expansion_limit = 1\ndomain = us.test, OTHER.test\n")
    assert made.find("b@us.test").owners == ("bob",)
    with pytest.raises(TableDown, match="more than 1 elements"):
        made.find("a@us.test")
    # As Postfix: neither keys without user nor those of other domains are looked up.
    assert made.find("@us.test") == made.find("a@elsewhere.test") == made.find("a")
    assert made.find("@us.test").asked is None
    assert table(directory, SQLITE + QUERY).find("@us.test").owners == ("root",)
    with pytest.raises(TableDown, match="more than 1000 rows"):
        table(directory, SQLITE + QUERY).find("many@us.test")


@pytest.mark.parametrize("written", ["bücher.test", "xn--bcher-kva.test", "BÜCHER.test"])
def test_the_domains_of_a_table_are_those_of_its_keys_in_either_form(directory: Path, written: str) -> None:
    with sqlite3.connect(directory / "owners.sqlite") as connection:
        connection.execute("INSERT INTO owners VALUES ('a@bücher.test', 'alice', 1)")
    connection.close()
    made = table(directory, f"{SQLITE}{QUERY}domain = {written}\n")
    assert made.find("a@bücher.test").owners == ("alice",)
    assert made.find("a@xn--bcher-kva.test").asked is not None
    assert made.find("a@us.test").asked is None


class Ticking:
    """A clock on which each look takes its time."""

    now = 1000.0

    def __call__(self) -> float:
        self.now += 0.02
        return self.now


@pytest.mark.attack("L10")
@pytest.mark.parametrize("value", ["{0} {0}", "unionmap:{{ {0}, {0} }}"])
def test_all_queries_of_one_question_have_one_deadline(directory: Path, value: str) -> None:
    table(directory, SQLITE + QUERY).close()
    clock, toml = Ticking(), directory / "mailguard.toml"
    for deadline_s, status in ((10.0, PermissionStatus.UNKNOWN), (0.3, PermissionStatus.UNAVAILABLE)):
        maps = value.format(f"sqlite:{directory}/owners.cf")
        toml.write_text(
            f'[senders]\nsources = ["postfix"]\nrecipient_delimiter = "+"\ndeadline_s = {deadline_s}\n'
            f'[senders.postfix]\nmaps = "{maps}"\n'
        )
        senders = open_senders(load(toml).senders, clock=clock)
        assert senders is not None
        began = clock.now
        said = senders.ask(b"alice", b"new+x@other.test")
        assert said.status is status, said
        senders.close()
    assert "the deadline has passed" in said.reason
    assert deadline_s / 2 < clock.now - began < deadline_s


@pytest.mark.attack("L10")
def test_a_database_that_is_not_there(tmp_path: Path) -> None:
    made = table(tmp_path, SQLITE + QUERY)
    with pytest.raises(TableDown, match="unable to open database file"):
        made.find("a@us.test")
    # A database that is only read is never made.
    assert not (tmp_path / "owners.sqlite").exists()


def test_a_query_in_the_list_of_tables(directory: Path) -> None:
    made = table(directory, SQLITE + QUERY)
    made.close()
    options = TableOptions(clock=time.monotonic, deadline_s=AMPLE_S)
    source = LoginMaps(
        open_tables(f"inline:{{x@us.test=alice}} sqlite:{directory}/owners.cf", options), rules=LoginRules()
    )
    login, address = LoginRules().login("alice"), parse_address("a@us.test")
    assert isinstance(login, Login)
    said = source.may_use(login, address)  # type: ignore[arg-type]
    assert said.status is PermissionStatus.GRANTED
    assert said.rule == f'sqlite:{directory}/owners.cf has "a@us.test"'
    assert said.asked[-1].statement == "SELECT login FROM owners WHERE address=?"
    assert said.asked[-1].parameters == ("a@us.test",)
    everyone = source.everyone()
    assert everyone.status is ListingStatus.LISTED
    assert "cannot be listed" in everyone.reason
    only = LoginMaps(open_tables(f"sqlite:{directory}/owners.cf", options), rules=LoginRules())
    assert only.everyone().status is ListingStatus.UNLISTABLE
    source.close()
    only.close()
