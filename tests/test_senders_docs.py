"""docs/senders.md: its configurations can be loaded, and its statements give the database's user what it needs."""

from __future__ import annotations

import re
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from cli_process import Command
from database_site import AMPLE_S, DatabaseServer, mariadb, postgres
from mailguard.config import load
from mailguard.config_senders import SenderActions
from mailguard.rule import Rule
from mailguard.senders.dialect import Dialect
from mailguard.senders.identity import Address, Login, LoginRules, parse_address
from mailguard.senders.postfixadmin import PostfixAdmin
from mailguard.senders.sql import Database, DatabaseDown
from mailguard.submission import ACTION_KEYS
from postfixadmin_site import statements
from source_tree import ROOT

__all__ = ["mariadb", "postgres"]

TEXT = (ROOT / "docs" / "senders.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("number", range(len(blocks("toml"))))
def test_the_configurations_can_be_loaded(tmp_path: Path, number: int) -> None:
    path = tmp_path / "mailguard.toml"
    path.write_text(blocks("toml")[number])
    assert load(path).senders.sources


@pytest.mark.parametrize("name", ["mariadb", "postgres"])
def test_the_statements_are_enough(name: str, request: pytest.FixtureRequest) -> None:
    server: DatabaseServer = request.getfixturevalue(name)
    of_mysql, of_postgresql = blocks("sql")
    text = of_mysql if server.dialect is Dialect.MYSQL else of_postgresql
    # Beside the user of other tests, and by the database's own name.
    text = text.replace("postfix.", "documented.").replace("mailguard", "documented")
    server.create("documented", statements(server.dialect))
    server.execute("documented", [line for line in text.splitlines() if line.startswith(("CREATE", "GRANT"))])
    access = replace(server.access("documented", by_socket=True), user="documented", password="a long password")
    database = Database(access, deadline_s=AMPLE_S)
    source = PostfixAdmin(database, rules=LoginRules())
    login, address = LoginRules().login("alice@us.test"), parse_address("team@us.test")
    assert isinstance(login, Login)
    assert isinstance(address, Address)
    assert source.may_use(login, address).is_granted
    assert source.everyone().accounts
    with pytest.raises(DatabaseDown, match="denied"):
        database.ask(lambda asking: asking.select(("password",), "mailbox"))
    source.close()


def test_the_commands_are_there(mailguard_command: Command) -> None:
    verbs = set(re.findall(r"mailguard senders (\w+)", TEXT))
    assert verbs == {"test", "list", "audit", "import"}
    for verb in verbs:
        assert mailguard_command("senders", verb, "--help").code == 0


def test_how_the_password_file_is_made(tmp_path: Path) -> None:
    (line,) = re.findall(r"^    (install .*)$", TEXT, re.MULTILINE)
    words = line.replace("/etc/mailguard", str(tmp_path)).replace("-o mailguard -g mailguard ", "").split()
    subprocess.run(words, check=True)
    assert (tmp_path / "postfixadmin.password").stat().st_mode & 0o777 == 0o600


def test_every_rule_is_described_with_its_key_and_default() -> None:
    rows = re.findall(r"^\| `(sender-[a-z-]+)` \| .* \| `(\w+)` \| `(\w+)` \|$", TEXT, re.MULTILINE)
    defaults = SenderActions().model_dump()
    assert rows == [(rule.value, key, defaults[key]) for rule, key in ACTION_KEYS.items()]
    assert {rule.value for rule in Rule if rule.value.startswith("sender-")} <= set(
        re.findall(r"sender-[a-z-]+", TEXT)
    )


def test_every_source_is_described() -> None:
    for name in ("inline", "postfix", "postfixadmin", "mailinabox"):
        assert f"\n### {name}: " in TEXT
