"""docs/mail-systems.md: its configurations can be loaded, and its queries and its script say who may send as whom."""

from __future__ import annotations

import itertools
import os
import re
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from database_site import AMPLE_S, PASSWORD, USER, DatabaseServer, mariadb, postgres
from mailguard.config import load
from mailguard.senders.dialect import Dialect
from mailguard.senders.identity import LoginRules
from mailguard.senders.login_maps import LoginMaps
from mailguard.senders.map_list import TableOptions, open_tables
from sandbox_place import HOST
from sender_asking import ask
from source_tree import ROOT

__all__ = ["mariadb", "postgres"]

TEXT = (ROOT / "docs" / "mail-systems.md").read_text(encoding="utf-8")


def block(language: str) -> str:
    found: list[str] = re.findall(rf"^```{re.escape(language)}\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
    return found[0]


@contextmanager
def login_maps(maps: str) -> Iterator[LoginMaps]:
    options = TableOptions(clock=time.monotonic, deadline_s=AMPLE_S)
    with closing(LoginMaps(open_tables(maps, options), rules=LoginRules(), delimiters="+")) as source:
        yield source


def table(path: Path, server: DatabaseServer, name: str, query: str) -> str:
    """The file of a table, as `maps` names it."""
    place = f"hosts = {HOST}:{server.port}\nuser = {USER}\npassword = {PASSWORD}\ndbname = {name}\n"
    path.write_text(f"{place}{query}")
    return f"{'mysql' if server.dialect is Dialect.MYSQL else 'pgsql'}:{path}"


def granted(source: LoginMaps, logins: Sequence[str], addresses: Sequence[str]) -> set[tuple[str, str]]:
    return {each for each in itertools.product(logins, addresses) if ask(source, *each).is_granted}


def test_the_configurations_can_be_loaded(tmp_path: Path) -> None:
    path = tmp_path / "mailguard.toml"
    found = re.findall(r"^( *)```toml\n(.*?)^ *```", TEXT, re.MULTILINE | re.DOTALL)
    for indent, text in found:
        path.write_text(re.sub(f"^{indent}", "", text, flags=re.MULTILINE))
        assert load(path)
    assert len(found) == 5


# -- iRedMail ------------------------------------------------------------------------------------------------------

IREDMAIL = [
    "CREATE TABLE domain (domain VARCHAR(255) NOT NULL PRIMARY KEY, backupmx SMALLINT, active SMALLINT)",
    "CREATE TABLE alias_domain (alias_domain VARCHAR(255) NOT NULL, target_domain VARCHAR(255), active SMALLINT)",
    "CREATE TABLE mailbox (username VARCHAR(255) NOT NULL PRIMARY KEY, domain VARCHAR(255), enablesmtp SMALLINT,"
    " active SMALLINT)",
    "CREATE TABLE forwardings (address VARCHAR(255), forwarding VARCHAR(255), is_list SMALLINT,"
    " is_forwarding SMALLINT, is_alias SMALLINT, active SMALLINT)",
    "INSERT INTO domain VALUES ('us.test', 0, 1), ('them.test', 0, 1), ('off.test', 0, 0), ('relayed.test', 1, 1)",
    "INSERT INTO alias_domain VALUES ('us-too.test', 'us.test', 1), ('us-once.test', 'us.test', 0)",
    "INSERT INTO mailbox VALUES ('alice@us.test', 'us.test', 1, 1), ('bob@us.test', 'us.test', 1, 1),"
    " ('jose@us.test', 'us.test', 1, 1), ('carol@them.test', 'them.test', 1, 1), ('gone@us.test', 'us.test', 1, 0),"
    " ('reader@us.test', 'us.test', 0, 1), ('dave@off.test', 'off.test', 1, 1),"
    " ('erin@relayed.test', 'relayed.test', 1, 1)",
    # A mailbox forwards to itself; an alias of a mailbox; members of lists; the catch-all has no local part.
    "INSERT INTO forwardings VALUES ('alice@us.test', 'alice@us.test', 0, 1, 0, 1),"
    " ('bob@us.test', 'carol@them.test', 0, 1, 0, 1), ('a.smith@us.test', 'alice@us.test', 0, 0, 1, 1),"
    " ('a.jones@us.test', 'alice@us.test', 0, 0, 1, 0), ('g.too@us.test', 'gone@us.test', 0, 0, 1, 1),"
    " ('sales@us.test', 'alice@us.test', 1, 0, 0, 1), ('us.test', 'alice@us.test', 1, 0, 0, 1)",
]
LOGINS = (
    *("alice@us.test", "bob@us.test", "jose@us.test", "carol@them.test", "gone@us.test", "reader@us.test"),
    *("dave@off.test", "erin@relayed.test"),
)
LOCAL_PARTS = (
    *("alice", "alice+tag", "ali", "al_ce", "bob", "carol", "dave", "jos\u00e9"),
    *("a.smith", "a.jones", "g.too", "sales"),
)
DOMAINS = ("us.test", "us-too.test", "us-once.test", "them.test", "off.test", "relayed.test")
ADDRESSES = (*(f"{local}@{domain}" for local in LOCAL_PARTS for domain in DOMAINS), "jose@us-too.test")
OWN = {
    *(("alice@us.test", f"alice{tag}@{domain}") for tag in ("", "+tag") for domain in ("us.test", "us-too.test")),
    *(("bob@us.test", f"bob@{domain}") for domain in ("us.test", "us-too.test")),
    ("jose@us.test", "jose@us-too.test"),
    ("alice@us.test", "a.smith@us.test"),
    ("carol@them.test", "carol@them.test"),
}


@pytest.mark.parametrize("name", ["mariadb", "postgres"])
def test_iredmail(name: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    server: DatabaseServer = request.getfixturevalue(name)
    server.create("iredmail", IREDMAIL)
    query = block("iredmail.cf")
    with login_maps(table(tmp_path / "senders.cf", server, "iredmail", query)) as source:
        assert granted(source, LOGINS, ADDRESSES) == OWN
    with_lists = query.replace("is_alias=1", "(is_alias=1 OR is_list=1)")
    assert with_lists != query
    with login_maps(table(tmp_path / "lists.cf", server, "iredmail", with_lists)) as source:
        assert granted(source, LOGINS, ADDRESSES) == OWN | {("alice@us.test", "sales@us.test")}


# -- ISPConfig -----------------------------------------------------------------------------------------------------

ISPCONFIG = [
    "CREATE TABLE mail_forwarding (source VARCHAR(255), destination TEXT, type VARCHAR(20), active CHAR(1),"
    " allow_send_as CHAR(1))",
    "CREATE TABLE mail_user (email VARCHAR(255), login VARCHAR(255), disablesmtp CHAR(1))",
    "INSERT INTO mail_user VALUES ('alice@us.test', 'alice@us.test', 'n'), ('bob@us.test', 'bob', 'n'),"
    " ('carol@them.test', 'carol@them.test', 'n'), ('reader@us.test', 'reader@us.test', 'y')",
    "INSERT INTO mail_forwarding VALUES ('@us-too.test', '@us.test', 'aliasdomain', 'y', 'y'),"
    " ('@us-once.test', '@us.test', 'aliasdomain', 'n', 'y'), ('@us.test', 'bob@us.test', 'catchall', 'y', 'n'),"
    " ('sales@us.test', 'alice@us.test, carol@them.test', 'forward', 'y', 'y'),"
    " ('info@us.test', 'alice@us.test', 'alias', 'y', 'n')",
]


def test_ispconfig(mariadb: DatabaseServer, tmp_path: Path) -> None:
    mariadb.create("ispconfig", ISPCONFIG)
    query = block("ispconfig.cf")
    local_parts = ("alice", "bob", "carol", "reader", "sales", "info")
    addresses = [
        f"{local}@{domain}" for local in local_parts for domain in ("us.test", "us-too.test", "us-once.test")
    ]
    logins = ("alice@us.test", "bob", "bob@us.test", "carol@them.test", "reader@us.test")
    with login_maps(table(tmp_path / "alias-domains.cf", mariadb, "ispconfig", query)) as source:
        assert granted(source, logins, addresses) == {
            ("alice@us.test", "alice@us-too.test"),
            ("alice@us.test", "sales@us-too.test"),
            ("carol@them.test", "sales@us-too.test"),
            ("bob", "bob@us-too.test"),
        }


# -- LDAP ----------------------------------------------------------------------------------------------------------

LDIF = """\
dn: mail=alice@us.test,ou=Users,domainName=us.test,o=domains,dc=example,dc=com
mail: alice@us.test
shadowAddress: a.smith@us.test
shadowAddress: team@us.test
shadowAddress: bob@us.test carol@them.test
shadowAddress:: asO2cmdAdXMudGVzdA==

dn: mail=nobody,o=domains,dc=example,dc=com
shadowAddress: lost@us.test

dn: mail=eve,o=domains,dc=example,dc=com
mail: eve@them.test alice@us.test
shadowAddress: eve@them.test

dn: mail=carol@them.test,ou=Users,domainName=them.test,o=domains,dc=example,dc=com
shadowAddress: team@us.test
mail: carol@them.test

"""


def test_ldap(tmp_path: Path) -> None:
    """What ldapsearch prints becomes a table; a directory that does not answer leaves the one that is there."""
    script = (
        block("sh").replace("cd /etc/mailguard", f"cd {tmp_path}").replace("chgrp mailguard", f"chgrp {os.getgid()}")
    )
    program = tmp_path / "ldapsearch"

    def run(answer: str) -> int:
        program.write_text(f"#!/bin/sh\n{answer}")
        program.chmod(0o755)
        path = f"{tmp_path}:{os.environ['PATH']}"
        return subprocess.run(["/bin/sh", "-c", script], env={"PATH": path}, check=False).returncode

    assert run(f"cat <<'END'\n{LDIF}END\n") == 0
    made = tmp_path / "senders.texthash"
    logins = ("alice@us.test", "carol@them.test", "nobody")
    addresses = [f"{name}@us.test" for name in ("alice", "a.smith", "team", "bob", "lost")]
    addresses += ["carol@them.test", "eve@them.test"]
    with login_maps(f"texthash:{made}") as source:
        assert granted(source, logins, addresses) == {
            *(("alice@us.test", f"{name}@us.test") for name in ("alice", "a.smith", "team")),
            ("carol@them.test", "team@us.test"),
            ("carol@them.test", "carol@them.test"),
        }
    before = made.read_bytes()
    assert run("exit 255\n") != 0
    assert run("exit 0\n") != 0
    assert made.read_bytes() == before
