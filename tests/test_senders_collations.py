"""What a collation takes for one name: a query of Postfix's tables, held against columns that know no accents."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from database_site import AMPLE_S, PASSWORD, USER, MariaDb, Postgres, mariadb, postgres
from mailguard.senders.dialect import Dialect
from mailguard.senders.identity import Address, Login, LoginRules, parse_address
from mailguard.senders.login_maps import LoginMaps
from mailguard.senders.permission import PermissionStatus
from mailguard.senders.sql_table import SqlTable

__all__ = ["mariadb", "postgres"]

RULES = LoginRules()
ROWS = [
    ("info@muller.test", "tenant@muller.test"),
    ("@muller.test", "all@muller.test"),
    ("büro@müller.test", "bernd@müller.test"),
    ("josé@us.test", "josé@us.test"),
    ("strasse@us.test", "strasse@us.test"),
    ("i@us.test", "i@us.test"),
]
GRANTED, UNKNOWN = PermissionStatus.GRANTED, PermissionStatus.UNKNOWN
PERMISSIONS = [
    # id, login, address, what is said
    ("own-in-ascii", "tenant@muller.test", "info@muller.test", GRANTED),
    ("own-in-u-labels", "bernd@müller.test", "büro@xn--mller-kva.test", GRANTED),
    ("own-accent", "josé@us.test", "jose\u0301@us.test", GRANTED),
    ("another-tenant", "tenant@muller.test", "info@xn--mller-kva.test", UNKNOWN),
    ("another-tenant-in-u-labels", "tenant@muller.test", "info@müller.test", UNKNOWN),
    ("another-tenants-domain", "all@muller.test", "ceo@müller.test", UNKNOWN),
    ("sharp-s", "strasse@us.test", "straße@us.test", UNKNOWN),
    ("accent", "i@us.test", "í@us.test", UNKNOWN),
]
QUERIES = [
    "SELECT login FROM owners WHERE address = '%s'",
    "SELECT login FROM owners WHERE address = CONCAT('%u', '@', '%d') UNION"
    " SELECT login FROM owners WHERE '%u' = '' AND address IN ('@%d')",
    "SELECT '%u' FROM owners WHERE address = '@%d' UNION SELECT login FROM owners WHERE address = '%s'",
]
LIKE = "SELECT login FROM owners WHERE address LIKE '%s' AND active = 1"


def owners(server: MariaDb | Postgres) -> str:
    """A table with a lax collation. Returns how Postfix reaches its database."""
    is_mysql = server.dialect is Dialect.MYSQL
    lax = "utf8mb4_unicode_ci" if is_mysql else "lax"
    before = (
        [] if is_mysql else ["CREATE COLLATION lax (provider=icu, locale='und-u-ks-level1', deterministic=false)"]
    )
    access = server.create(
        f"lax_{time.monotonic_ns()}",
        [
            *before,
            f"CREATE TABLE owners (address varchar(200) COLLATE {lax}, login varchar(200), active int)",
            *(f"INSERT INTO owners VALUES ('{address}', '{login}', 1)" for address, login in ROWS),  # noqa: S608
        ],
    )
    (place,) = access.places
    return f"hosts = {place.host}:{place.port}\nuser = {USER}\npassword = {PASSWORD}\ndbname = {access.name}\n"


@pytest.fixture(scope="module", params=["postgres", "mariadb"])
def place(request: pytest.FixtureRequest) -> tuple[str, str]:
    return {"postgres": "pgsql", "mariadb": "mysql"}[request.param], owners(request.getfixturevalue(request.param))


def source(place: tuple[str, str], path: Path, query: str) -> LoginMaps:
    kind, text = place
    path.write_text(f"{text}query = {query}\n", "utf-8")
    os.chmod(path, 0o600)
    table = SqlTable(kind, str(path), deadline_s=AMPLE_S, clock=time.monotonic)
    return LoginMaps((table,), rules=RULES)


@pytest.mark.attack("L09")
def test_a_letter_beyond_ascii_is_no_other_one(place: tuple[str, str], tmp_path: Path) -> None:
    # Before PostgreSQL 18, LIKE does not do with such a collation.
    for query in [*QUERIES, *([LIKE] if place[0] == "mysql" else [])]:
        maps = source(place, tmp_path / "owners.cf", query)
        for name, who, what, said in PERMISSIONS:
            login, address = RULES.login(who), parse_address(what)
            assert isinstance(login, Login)
            assert isinstance(address, Address)
            found = maps.may_use(login, address)
            assert found.status is said, (name, query)
            if query == QUERIES[0]:
                # Who puts the same to the database himself finds the same.
                assert any("COLLATE" in each.statement for each in found.asked) is (name != "own-in-ascii"), name
        maps.close()
