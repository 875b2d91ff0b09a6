"""A tagged address that has an entry of its own in one source, and is only another address's tag in one before it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import pytest

from mailguard.config import load
from mailguard.sender_sources import open_senders
from mailguard.senders.combine import Senders
from mailguard.senders.dialect import Dialect
from mailguard.senders.identity import Address, Login, parse_address
from mailguard.senders.permission import PermissionStatus
from postfixadmin_site import alias_row, mailbox, schema

ALICE, OWN, TEAM, SLEEP = "alice@us.test", "alice+own@us.test", "alice+team@us.test", "alice+sleep@us.test"
IN_A_BOX = (
    "CREATE TABLE users (email TEXT)",
    "CREATE TABLE aliases (source TEXT, destination TEXT, permitted_senders TEXT)",
    "INSERT INTO users VALUES ('alice@us.test'), ('bob@us.test'), ('alice+own@us.test')",
    "INSERT INTO aliases VALUES ('alice+team@us.test', 'bob@us.test', NULL),"
    " ('alice+sleep@us.test', 'alice@us.test', ''),"
    " ('@us.test', 'bob@us.test', NULL), ('ceo@us.test', 'bob@us.test', NULL)",
)
POSTFIXADMIN = (
    *schema(Dialect.SQLITE),
    *(mailbox(Dialect.SQLITE, name) for name in (ALICE, "bob@us.test", OWN)),
    alias_row(Dialect.SQLITE, TEAM, "bob@us.test"),
    alias_row(Dialect.SQLITE, SLEEP, ALICE, False),
    alias_row(Dialect.SQLITE, "@us.test", "bob@us.test"),
    alias_row(Dialect.SQLITE, "ceo@us.test", "bob@us.test"),
)
MAPS = (
    f"inline:{{ {ALICE}={ALICE}, {OWN}={OWN}, {TEAM}=bob@us.test, {{{SLEEP} = ,}}, @us.test=bob@us.test,"
    " ceo@us.test=bob@us.test }"
)
INLINE = f"""
[senders.inline.logins]
"{ALICE}" = ["ceo@us.test", "@shop.test"]
"""
CASES = [
    # login, address, whether it is granted, and by which source
    (ALICE, ALICE, True, "inline"),
    (ALICE, "alice+x@us.test", True, "inline"),
    (ALICE, OWN, False, "database"),
    (ALICE, TEAM, False, "database"),
    (ALICE, SLEEP, False, "database"),
    ("bob@us.test", TEAM, True, "database"),
    (OWN, OWN, True, "inline"),
    # What the configuration adds has tags as well, and an address of a whole domain is no tag.
    (ALICE, "ceo@us.test", True, "inline"),
    (ALICE, "ceo+x@us.test", True, "inline"),
    (ALICE, "anybody+x@shop.test", True, "inline"),
    # Neither has the database, but for its catch-all.
    ("new@us.test", "new+x@us.test", True, "inline"),
    (ALICE, "bob+x@us.test", False, "database"),
]


def fill(path: Path, statements: Sequence[str]) -> None:
    with closing(sqlite3.connect(path)) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.commit()


@pytest.fixture(params=["postfixadmin", "mailinabox", "postfix"])
def senders(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Senders]:
    """The lists of the configuration before a database, which is made by `fill`."""
    database = {
        "postfixadmin": f'database = "sqlite"\npath = "{tmp_path}/database"',
        "mailinabox": f'path = "{tmp_path}/database"',
        "postfix": f'maps = "{MAPS}"\nlocal_domains = ["us.test"]',
    }[request.param]
    (tmp_path / "mailguard.toml").write_text(
        f'[senders]\nsources = ["inline", "{request.param}"]\nrecipient_delimiter = "+"\ncache_s = 0\n'
        f"[senders.{request.param}]\n{database}\n{INLINE}"
    )
    made = open_senders(load(tmp_path / "mailguard.toml").senders)
    assert made is not None
    yield made
    made.close()


def who_and_what(senders: Senders, login: str, address: str) -> tuple[Login, Address]:
    who, what = senders.rules.login(login), parse_address(address)
    assert isinstance(who, Login)
    assert isinstance(what, Address)
    return who, what


@pytest.mark.attack("L07")
def test_an_entry_of_its_own_in_a_later_source_decides(senders: Senders, tmp_path: Path) -> None:
    source = senders.sources[-1].name
    if source != "postfix":
        fill(tmp_path / "database", POSTFIXADMIN if source == "postfixadmin" else IN_A_BOX)
    for login, address, is_granted, by in CASES:
        who, what = who_and_what(senders, login, address)
        said = senders.may_use(who, what)
        assert (said.is_granted, said.source) == (is_granted, source if by == "database" else by), said
        # Without waiting nothing is said that asking all of them would say otherwise.
        known = senders.known(who, what)
        assert known is None or known.status is said.status
        assert (known is None) == (by == "database" or said.is_provisional)
        assert said.asked or not (by == "database" or said.is_provisional)


@pytest.mark.attack("L07")
@pytest.mark.parametrize("first", ["postfixadmin", "mailinabox"])
def test_also_after_a_database(first: str, tmp_path: Path) -> None:
    fill(tmp_path / "database", POSTFIXADMIN if first == "postfixadmin" else IN_A_BOX)
    postfixadmin = 'database = "sqlite"\n' if first == "postfixadmin" else ""
    (tmp_path / "mailguard.toml").write_text(
        f'[senders]\nsources = ["{first}", "postfix"]\nrecipient_delimiter = "+"\n[senders.{first}]\n{postfixadmin}'
        f'path = "{tmp_path}/database"\n[senders.postfix]\n'
        f'maps = "inline:{{ alice+late@us.test=bob@us.test, ceo+late@us.test={ALICE}, new@us.test={ALICE} }}"\n'
    )
    senders = open_senders(load(tmp_path / "mailguard.toml").senders)
    assert senders is not None
    for login, address, is_granted, by in (
        (ALICE, "alice+x@us.test", True, first),
        (ALICE, "alice+late@us.test", False, "postfix"),
        ("bob@us.test", "ceo+x@us.test", True, first),
        ("bob@us.test", "ceo+late@us.test", False, "postfix"),
        # A denial decides, and so does a catch-all, which is no entry of the address without its tag.
        ("bob@us.test", "alice+late@us.test", False, first),
        ("bob@us.test", "new@us.test", True, first),
        (ALICE, "new@us.test", False, first),
    ):
        said = senders.may_use(*who_and_what(senders, login, address))
        assert (said.is_granted, said.source) == (is_granted, by), said
    senders.close()


@pytest.mark.attack("L10")
@pytest.mark.parametrize("senders", ["postfixadmin", "mailinabox"], indirect=True)
def test_while_a_later_source_is_down_it_is_not_known_whether_it_has_one(senders: Senders) -> None:
    for address, status in (
        (ALICE, PermissionStatus.GRANTED),
        ("x+y@shop.test", PermissionStatus.GRANTED),
        ("alice+x@us.test", PermissionStatus.UNAVAILABLE),
    ):
        said = senders.may_use(*who_and_what(senders, ALICE, address))
        assert said.status is status, said
