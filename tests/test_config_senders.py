"""The section [senders]: what is refused, what the defaults are, and which sources come of it."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mailguard.config import load
from mailguard.config_senders import SendersConfig
from mailguard.errors import ConfigError
from mailguard.sender_sources import open_senders
from mailguard.senders.combine import Senders
from mailguard.senders.database_access import socket_of_mysql
from mailguard.senders.identity import Address, Login, LoginCase, parse_address
from mailguard.senders.permission import PermissionStatus
from mailguard.senders.postfixadmin import PostfixAdmin
from sender_asking import ask


def section(directory: Path, text: str) -> SendersConfig:
    path = directory / "mailguard.toml"
    path.write_text(text, "utf-8")
    return load(path).senders


def opened(directory: Path, text: str) -> Senders:
    senders = open_senders(section(directory, text))
    assert senders is not None
    return senders


def test_by_default_nobody_is_held(tmp_path: Path) -> None:
    assert open_senders(section(tmp_path, "")) is None
    assert open_senders(section(tmp_path, "[senders]\n")) is None


MYSQL = '[senders]\nsources = ["postfixadmin"]\n[senders.postfixadmin]\ndatabase = "mysql"\n'
WRONG = [
    (
        "unknown-source",
        '[senders]\nsources = ["ldap"]',
        'must be "inline", "postfix", "postfixadmin" or "mailinabox"',
    ),
    ("twice", '[senders]\nsources = ["inline", "inline"]', 'senders.sources: "inline" is given twice'),
    ("unused-table", "[senders.inline]\nown_address = true", 'add "inline" to sources'),
    ("typo", '[senders]\nsource = ["inline"]', 'did you mean "sources"?'),
    (
        "no-address",
        '[senders]\nsources = ["inline"]\n[senders.inline.logins]\nalice = ["x"]',
        '"x" is neither an address',
    ),
    ("no-list", '[senders]\nsources = ["inline"]\n[senders.inline.logins]\nalice = "x@us.test"', "must be a list"),
    (
        "login-twice",
        '[senders]\nsources = ["inline"]\n[senders.inline.logins]\n"a@us.test" = []\n"a@US.test" = []',
        "twice",
    ),
    ("no-maps", '[senders]\nsources = ["postfix"]', "maps is missing in [senders.postfix]"),
    (
        "pcre",
        '[senders]\nsources = ["postfix"]\n[senders.postfix]\nmaps = "pcre:/x"',
        'of the type "pcre" are not read',
    ),
    ("no-database", '[senders]\nsources = ["postfixadmin"]', "database is missing in [senders.postfixadmin]"),
    (
        "sqlite-path",
        '[senders]\nsources = ["postfixadmin"]\n[senders.postfixadmin]\ndatabase = "sqlite"',
        "path is missing",
    ),
    (
        "path",
        f'{MYSQL}path = "/x"',
        "no effect",
    ),
    ("places", f'{MYSQL}host = "h"\nsocket = "/x"', "two places"),
    (
        "port",
        f"{MYSQL}port = 3306",
        "without host",
    ),
    (
        "passwords",
        f'{MYSQL}password = "x"\npassword_file = "/x"',
        "given both",
    ),
    (
        "prefix",
        f'{MYSQL}table_prefix = "x; y"',
        "table_prefix",
    ),
    ("deadline", "[senders]\ndeadline_s = 20.0", "must be at most 10"),
    ("domain", '[senders]\ndefault_domain = "us test"', "is not a domain name"),
    ("case", '[senders]\nlogin_case = "lower"', 'must be "ignored" or "significant"'),
]


@pytest.mark.parametrize(("text", "said"), [each[1:] for each in WRONG], ids=[each[0] for each in WRONG])
def test_what_is_refused(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        section(tmp_path, text)
    assert said in str(caught.value)
    assert str(caught.value).startswith(f"{tmp_path}/mailguard.toml")


@pytest.mark.parametrize(
    "text",
    [f"{MYSQL}password = 5551234", f'{MYSQL}password = ["5551234"]', 'database = "mysql://me:5551234@localhost/p"'],
)
def test_a_password_is_not_told_by_what_is_wrong_with_it(tmp_path: Path, text: str) -> None:
    """The daemon's log, where that is written when a reload fails, is for more people than the file."""
    if not text.startswith(MYSQL):
        text = MYSQL.replace('database = "mysql"', text)
    with pytest.raises(ConfigError, match="must be") as caught:
        section(tmp_path, text)
    assert "5551234" not in str(caught.value)


def test_inline_and_the_rules_of_logins(tmp_path: Path) -> None:
    senders = opened(
        tmp_path,
        """
        [senders]
        sources = ["inline"]
        default_domain = "us.test"
        recipient_delimiter = "+"
        login_case = "significant"
        [senders.inline.logins]
        alice = ["sales@us.test", "@shop.test"]
        """,
    )
    assert senders.rules.case is LoginCase.SIGNIFICANT
    assert ask(senders, "alice", "sales+x@us.test").is_granted
    assert ask(senders, "alice@us.test", "x@shop.test").is_granted
    assert not ask(senders, "Alice", "x@shop.test").is_granted


def test_a_login_that_is_there_twice_only_with_the_default_domain(tmp_path: Path) -> None:
    config = section(
        tmp_path,
        '[senders]\nsources = ["inline"]\ndefault_domain = "us.test"\n'
        '[senders.inline.logins]\nalice = []\n"alice@us.test" = []\n',
    )
    with pytest.raises(ConfigError, match="given twice"):
        open_senders(config)


@pytest.mark.attack("L10")
def test_sources_that_are_not_there_are_opened_and_unavailable(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("secret\n")
    (tmp_path / "password").chmod(0o600)
    senders = opened(
        tmp_path,
        f"""
        [senders]
        sources = ["inline", "postfix", "mailinabox", "postfixadmin"]
        deadline_s = 0.3
        [senders.postfix]
        maps = "hash:{tmp_path}/logins, texthash:{tmp_path}/more"
        [senders.mailinabox]
        path = "users.sqlite"
        [senders.postfixadmin]
        database = "mysql"
        socket = "{tmp_path}/socket"
        password_file = "password"
        """,
    )
    said = ask(senders, "alice@us.test", "bob@us.test")
    assert (said.status, said.source) == (PermissionStatus.UNAVAILABLE, "postfix")
    assert ask(senders, "alice@us.test", "alice@us.test").is_granted
    for source in senders.sources[1:]:
        who, what = senders.rules.login("alice@us.test"), parse_address("bob@us.test")
        assert isinstance(who, Login)
        assert isinstance(what, Address)
        assert source.may_use(who, what).status is PermissionStatus.UNAVAILABLE, source.name
    senders.close()


def test_what_can_never_work_is_told_when_it_is_opened(tmp_path: Path) -> None:
    text = '[senders]\nsources = ["postfix"]\n[senders.postfix]\nmaps = "sqlite:{}/x.cf"\n'
    with pytest.raises(ConfigError, match=r"x\.cf: cannot be read: No such file"):
        open_senders(section(tmp_path, text.format(tmp_path)))
    (tmp_path / "x.cf").write_text("dbpath = /x\nquery = SELECT 1\n")
    with pytest.raises(ConfigError, match=r"x\.cf: the query has none of %s"):
        open_senders(section(tmp_path, text.format(tmp_path)))


POSTFIXADMIN = '[senders]\nsources = ["postfixadmin"]\n[senders.postfixadmin]\n'
PLACES = [
    ('database = "mysql"', "/run/mysqld/mysqld.sock"),
    ('database = "mysql"\nhost = "db.test"', "db.test:3306"),
    ('database = "postgresql"', "/run/postgresql/.s.PGSQL.5432"),
    ('database = "postgresql"\nhost = "db.test"\nport = 5433', "db.test:5433"),
    ('database = "postgresql"\nsocket = "/x/.s.PGSQL.1"', "/x/.s.PGSQL.1"),
    ('database = "sqlite"\npath = "/x/y.sqlite"', "/x/y.sqlite"),
]


@pytest.mark.parametrize(("text", "place"), PLACES)
def test_where_postfixadmin_is(tmp_path: Path, text: str, place: str) -> None:
    (source,) = opened(tmp_path, POSTFIXADMIN + text).sources
    assert isinstance(source, PostfixAdmin)
    access = source._database.access
    assert str(access.places[0]) == place
    assert (access.name, access.user) == ("postfix", "mailguard")


def _is(there: str) -> Callable[[Path], bool]:
    return lambda path: str(path) == there


def test_no_socket_of_a_database_is_looked_for_where_every_user_can_make_one(monkeypatch: pytest.MonkeyPatch) -> None:
    for there, found in (
        ("/tmp/mysql.sock", "/run/mysqld/mysqld.sock"),
        ("/var/lib/mysql/mysql.sock", "/var/lib/mysql/mysql.sock"),
    ):
        monkeypatch.setattr(Path, "exists", _is(there))
        assert socket_of_mysql() == found


def test_the_password_file(tmp_path: Path) -> None:
    path = tmp_path / "password"
    text = POSTFIXADMIN + 'database = "mysql"\npassword_file = "password"'
    for octets, mode, said in (
        (b"x", 0o644, "every user can read it"),
        (b"\xff", 0o600, "not UTF-8"),
    ):
        path.write_bytes(octets)
        path.chmod(mode)
        with pytest.raises(ConfigError, match=said):
            opened(tmp_path, text)
    path.write_text("p@ss word#1\r\nsecond line\n")
    path.chmod(0o640)
    (source,) = opened(tmp_path, text).sources
    assert isinstance(source, PostfixAdmin)
    assert source._database.access.password == "p@ss word#1"
    path.unlink()
    with pytest.raises(ConfigError, match="cannot be read"):
        opened(tmp_path, text)


def test_answers_are_kept_as_configured(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "users.sqlite") as connection:
        connection.execute("CREATE TABLE users (email TEXT)")
        connection.execute("CREATE TABLE aliases (source TEXT, destination TEXT, permitted_senders TEXT)")
        connection.execute("INSERT INTO users VALUES ('a@us.test')")
    connection.close()
    for cache_s, again in (("60.0", True), ("0.0", False)):
        senders = opened(
            tmp_path,
            f'[senders]\nsources = ["mailinabox"]\ncache_s = {cache_s}\n[senders.mailinabox]\npath = "users.sqlite"',
        )
        assert ask(senders, "a@us.test", "a@us.test").is_granted
        os.rename(tmp_path / "users.sqlite", tmp_path / "away")
        senders.sources[0].close()
        assert ask(senders, "a@us.test", "a@us.test").is_granted is again
        os.rename(tmp_path / "away", tmp_path / "users.sqlite")
        senders.close()


@pytest.mark.parametrize("missing", ["sqlalchemy", "pymysql"])
def test_what_the_extra_is_for(tmp_path: Path, missing: str) -> None:
    """Only databases need it, and without it they say so."""
    path = tmp_path / "mailguard.toml"
    code = (
        f"import sys; sys.modules['{missing}'] = None\n"
        "from mailguard.config import load\n"
        "from mailguard.sender_sources import open_senders\n"
        f"open_senders(load('{path}').senders)\n"
    )
    for text, said in (
        (f'sources = ["inline", "postfix"]\n[senders.postfix]\nmaps = "texthash:{tmp_path}/x"', ""),
        (
            'sources = ["postfixadmin"]\n[senders.postfixadmin]\ndatabase = "mysql"',
            "pip install 'mailguard-milter[sql]'",
        ),
    ):
        path.write_text(f"[senders]\n{text}\n")
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert (said in done.stderr) if said else (done.stderr == ""), done.stderr
        assert bool(said) == (done.returncode != 0)
