"""PostfixAdmin's tables, with the columns and types that it makes in each of its database systems, and some tenants.

us.test (alias domain alias.test, and off.test, which is not active) and other.test are two tenants on one host;
closed.test is not active.
"""

from __future__ import annotations

from collections.abc import Iterator

from mailguard.senders.dialect import Dialect

__all__ = ["ALIASES", "DOMAINS", "MAILBOXES", "TARGETS", "alias_row", "insert", "mailbox", "schema", "statements"]

DOMAINS = {"us.test": True, "other.test": True, "closed.test": False, "alias.test": True, "off.test": True}
TARGETS = {"alias.test": ("us.test", True), "off.test": ("us.test", False)}
MAILBOXES = {
    "alice@us.test": True,
    "bob@us.test": True,
    "gone@us.test": False,
    "half@us.test": False,
    "o'brien@us.test": True,
    "us_er@us.test": True,
    "müller@us.test": True,
    "carol@other.test": True,
    "dave@closed.test": True,
    "alice+box@us.test": True,
}
ALIASES = {
    # PostfixAdmin has one for each mailbox; bob forwards to alice, and carol away from herself.
    **{name: (name, is_active) for name, is_active in MAILBOXES.items()},
    "bob@us.test": ("bob@us.test,alice@us.test", True),
    "carol@other.test": ("alice@us.test", True),
    "half@us.test": ("alice@us.test", True),
    "viahalf@us.test": ("half@us.test", True),
    "formerly@us.test": ("gone@us.test", True),
    "sales@us.test": ("alice@us.test,bob@us.test", True),
    "spaced@us.test": ("bob@us.test, alice@us.test\r\n", True),
    "team@us.test": ("sales@us.test", True),
    "byforward@us.test": ("carol@other.test", True),
    "circle1@us.test": ("circle2@us.test", True),
    "circle2@us.test": ("circle1@us.test", True),
    "tagged@us.test": ("alice+lists@us.test", True),
    "away@us.test": ("somebody@example.com", True),
    "sleeping@us.test": ("alice@us.test", False),
    "info@other.test": ("alice@us.test", True),
    "shop@alias.test": ("bob@us.test", True),
    "viaalias@us.test": ("alice@alias.test", True),
    "alice+own@us.test": ("bob@us.test", True),
    "toown@us.test": ("alice+own@us.test", True),
    "toteam@us.test": ("team+x@us.test", True),
    "toalias@us.test": ("alice+own@alias.test", True),
    "tobox@us.test": ("alice+box@us.test", True),
    "@us.test": ("bob@us.test", True),
    "@other.test": ("carol@other.test", False),
}


def schema(dialect: Dialect, prefix: str = "") -> Iterator[str]:
    """CREATE TABLE for the tables that are read, with the columns beside those that are."""
    active = "boolean NOT NULL DEFAULT true" if dialect is Dialect.POSTGRESQL else "tinyint(1) NOT NULL DEFAULT '1'"
    name = "varchar(255) NOT NULL"
    # PostfixAdmin makes them so in MySQL, whatever the server's default is.
    table = " CHARACTER SET latin1 COLLATE latin1_general_ci" if dialect is Dialect.MYSQL else ""
    yield f"CREATE TABLE {prefix}domain (domain {name} PRIMARY KEY, description {name}, active {active}){table}"
    yield (
        f"CREATE TABLE {prefix}alias_domain (alias_domain {name} PRIMARY KEY, target_domain {name},"
        f" active {active}){table}"
    )
    yield (
        f"CREATE TABLE {prefix}mailbox (username {name} PRIMARY KEY, password {name}, name {name},"
        f" local_part {name}, domain {name}, active {active}){table}"
    )
    yield (
        f"CREATE TABLE {prefix}alias (address {name} PRIMARY KEY, goto text NOT NULL, domain {name},"
        f" active {active}){table}"
    )


def statements(dialect: Dialect, prefix: str = "") -> list[str]:
    """All that makes the tenants."""
    rows = list(schema(dialect, prefix))
    for domain, is_active in (*DOMAINS.items(), ("ALL", True)):
        rows.append(insert(dialect, f"{prefix}domain", domain, "", is_active))
    for alias, (target, is_active) in TARGETS.items():
        rows.append(insert(dialect, f"{prefix}alias_domain", alias, target, is_active))
    rows += [mailbox(dialect, name, is_active, prefix) for name, is_active in MAILBOXES.items()]
    rows += [alias_row(dialect, name, goto, is_active, prefix) for name, (goto, is_active) in ALIASES.items()]
    return rows


def mailbox(dialect: Dialect, name: str, is_active: bool = True, prefix: str = "") -> str:
    """The statement that makes a mailbox."""
    local, _, domain = name.partition("@")
    return insert(dialect, f"{prefix}mailbox", name, "x", "Name", local, domain, is_active)


def alias_row(dialect: Dialect, name: str, goto: str, is_active: bool = True, prefix: str = "") -> str:
    """The statement that makes an alias."""
    return insert(dialect, f"{prefix}alias", name, goto, name.rpartition("@")[2], is_active)


def insert(dialect: Dialect, table: str, *values: str | bool) -> str:
    """An INSERT with a value for each column."""
    written = []
    for value in values:
        if isinstance(value, str):
            written.append("'" + value.replace("'", "''") + "'")
        else:
            written.append(str(value).lower() if dialect is Dialect.POSTGRESQL else str(int(value)))
    return f"INSERT INTO {table} VALUES ({', '.join(written)})"  # noqa: S608 - the tests' own tenants
