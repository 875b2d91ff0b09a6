"""Queries of Postfix's SQL tables: what becomes of the template, and that the answers are Postfix's own."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from database_site import AMPLE_S, PASSWORD, USER, MariaDb, Postgres, SqliteFiles, mariadb, postgres
from mailguard.errors import ConfigError
from mailguard.senders.dialect import Dialect
from mailguard.senders.expansion import Key, Needs, parts_of
from mailguard.senders.query_template import parse_query
from mailguard.senders.sql_table import SqlTable

__all__ = ["mariadb", "postgres"]

MYSQL, POSTGRESQL, SQLITE = Dialect.MYSQL, Dialect.POSTGRESQL, Dialect.SQLITE
KEY = Key("a_b%!'x@mail.us.test")

TEMPLATES = [
    # id, dialects, template, statement (with the placeholder as %s), values
    ("whole-key", "mps", "SELECT g FROM a WHERE k='%s'", "SELECT g FROM a WHERE k=%s", (KEY.text,)),
    ("semicolon", "mps", "SELECT g FROM a WHERE k='%s' ; ", "SELECT g FROM a WHERE k=%s", (KEY.text,)),
    (
        "parts",
        "mps",
        "SELECT g FROM a WHERE u='%u' AND d='%d'",
        "SELECT g FROM a WHERE u=%s AND d=%s",
        ("a_b%!'x", "mail.us.test"),
    ),
    (
        "upper-case",
        "mps",
        "SELECT g WHERE a='%S' AND b='%U' AND c='%D'",
        "SELECT g WHERE a=%s AND b=%s AND c=%s",
        (KEY.text, "a_b%!'x", "mail.us.test"),
    ),
    ("labels", "mps", "SELECT g WHERE d='%2.%1' AND e='%3'", "SELECT g WHERE d=%s AND e=%s", ("us.test", "mail")),
    ("in-a-text", "mps", "SELECT g WHERE k='<%u@%d>'", "SELECT g WHERE k=%s", ("<a_b%!'x@mail.us.test>",)),
    ("percent-in-a-text", "mps", "SELECT g WHERE k='100%%%u'", "SELECT g WHERE k=%s", ("100%a_b%!'x",)),
    ("doubled-quotes", "mps", "SELECT g WHERE k='it''s %u'", "SELECT g WHERE k=%s", ("it's a_b%!'x",)),
    ("concat", "ms", "SELECT g WHERE k=CONCAT('%u', '@', t)", "SELECT g WHERE k=CONCAT(%s, '@', t)", ("a_b%!'x",)),
    (
        "concat-postgresql",
        "p",
        "SELECT g WHERE k=concat('%u', '@', t)",
        "SELECT g WHERE k=concat(%s::text, '@', t)",
        ("a_b%!'x",),
    ),
    ("bars", "mps", "SELECT g WHERE k='%u' || '@' || t", "SELECT g WHERE k=%s || '@' || t", ("a_b%!'x",)),
    (
        "like-domain",
        "mps",
        "SELECT g WHERE k LIKE '%%@%d'",
        "SELECT g WHERE k LIKE %s ESCAPE '!'",
        ("%@mail.us.test",),
    ),
    (
        "like-key",
        "mps",
        "SELECT g WHERE k LIKE '%s'",
        "SELECT g WHERE k LIKE %s ESCAPE '!'",
        ("a!_b!%!!'x@mail.us.test",),
    ),
    (
        "like-static-escape",
        "mps",
        "SELECT g WHERE k NOT LIKE '!%s%%'",
        "SELECT g WHERE k NOT LIKE %s ESCAPE '!'",
        ("!!a!_b!%!!'x@mail.us.test%",),
    ),
    (
        "like-function-domain",
        "ms",
        "SELECT g WHERE k LIKE CONCAT('x', '%d')",
        "SELECT g WHERE k LIKE CONCAT('x', %s)",
        ("mail.us.test",),
    ),
    (
        "after-like",
        "mps",
        "SELECT g WHERE k LIKE 'x' AND (l='%s')",
        "SELECT g WHERE k LIKE 'x' AND (l=%s)",
        (KEY.text,),
    ),
    (
        "after-like-in-parentheses",
        "mps",
        "SELECT g WHERE (k LIKE concat('x', (m))) AND l='%s'",
        "SELECT g WHERE (k LIKE concat('x', (m))) AND l=%s",
        (KEY.text,),
    ),
    (
        "after-like-of-a-function",
        "mps",
        "SELECT g WHERE k LIKE concat('x', (m)) AND l='%s'",
        "SELECT g WHERE k LIKE concat('x', (m)) AND l=%s",
        (KEY.text,),
    ),
    ("as-subject-of-like", "mps", "SELECT g WHERE '%s' LIKE k", "SELECT g WHERE %s LIKE k", (KEY.text,)),
    (
        "as-subject-of-a-regular-expression",
        "mp",
        "SELECT g WHERE k=regexp_replace('%s', '[+].*@', '@') AND l='%s'",
        "SELECT g WHERE k=regexp_replace(%s, '[+].*@', '@') AND l=%s",
        (KEY.text, KEY.text),
    ),
    (
        "comment",
        "mps",
        "SELECT g /* it's; */ FROM a -- x\n WHERE k='%s'",
        "SELECT g   FROM a  \n WHERE k=%s",
        (KEY.text,),
    ),
    ("comment-mysql", "m", "SELECT g # it's\n FROM a WHERE k='%s'", "SELECT g  \n FROM a WHERE k=%s", (KEY.text,)),
    ("double-quotes", "ms", 'SELECT g WHERE k="%s"', "SELECT g WHERE k=%s", (KEY.text,)),
    ("identifiers", "mps", "SELECT `g` FROM \"a\" WHERE k='%s'", 'SELECT `g` FROM "a" WHERE k=%s', (KEY.text,)),
    ("backslash-elsewhere", "m", "SELECT g WHERE a='\\'' AND k='%s'", "SELECT g WHERE a='\\'' AND k=%s", (KEY.text,)),
    (
        "backslash-as-a-character",
        "ps",
        "SELECT g WHERE a='\\' AND k='%s'",
        "SELECT g WHERE a='\\' AND k=%s",
        (KEY.text,),
    ),
    ("backslash-in-a-name", "m", "SELECT `a\\` FROM a WHERE k='%s'", "SELECT `a\\` FROM a WHERE k=%s", (KEY.text,)),
    (
        "backslash-behind-a-prefix",
        "p",
        "SELECT g WHERE a=E'\\'' AND k='%s'",
        "SELECT g WHERE a=E'\\'' AND k=%s",
        (KEY.text,),
    ),
    (
        "doubled-quote-at-the-end",
        "mps",
        "SELECT g WHERE a='x''' AND k='%s'",
        "SELECT g WHERE a='x''' AND k=%s",
        (KEY.text,),
    ),
    ("number-sign", "p", "SELECT g WHERE i # 1 = 2 AND k='%s'", "SELECT g WHERE i # 1 = 2 AND k=%s", (KEY.text,)),
    (
        "with",
        "mps",
        "WITH x AS (SELECT 1) SELECT g FROM x WHERE k='%s'",
        "WITH x AS (SELECT 1) SELECT g FROM x WHERE k=%s",
        (KEY.text,),
    ),
    (
        "parentheses",
        "mps",
        "(SELECT g WHERE k='%s') UNION (SELECT h WHERE l='%s')",
        "(SELECT g WHERE k=%s) UNION (SELECT h WHERE l=%s)",
        (KEY.text, KEY.text),
    ),
    (
        "substring-by-a-number",
        "p",
        "SELECT g WHERE k=substring('%s' from position('@' in '%s') + 1)",
        "SELECT g WHERE k=substring(%s from position('@' in %s) + 1)",
        (KEY.text, KEY.text),
    ),
    (
        "placeholder-in-the-driver",
        "s",
        "SELECT g WHERE a='?' AND k='%s'",
        "SELECT g WHERE a='?' AND k=?",
        (KEY.text,),
    ),
]
REFUSED = [
    ("outside-of-quotes", "mps", "SELECT g WHERE k=%s", "stands outside of quotes"),
    ("outside-label", "mps", "SELECT g WHERE k=%1", "stands outside of quotes"),
    ("no-expansion", "mps", "SELECT g WHERE k='x'", "has none of %s"),
    ("unknown-expansion", "mps", "SELECT g WHERE k='%x'", '"%x" is no expansion'),
    ("percent-at-the-end", "mps", "SELECT g WHERE k='%s' %", '"%" is no expansion'),
    ("modulo", "mps", "SELECT g WHERE k='%s' AND i % 2", '"% " is no expansion'),
    ("column", "mps", "SELECT `%u` WHERE k='%s'", "in the name of a column"),
    ("column-postgresql", "p", 'SELECT g WHERE k="%s"', "in the name of a column"),
    ("comment", "mps", "SELECT g /* %s */ WHERE k='%s'", "stands outside of quotes"),
    ("executable-comment", "m", "SELECT /*! SQL_CACHE */ g WHERE k='%s'", "that MySQL executes"),
    ("backslash", "mps", "SELECT g WHERE k='\\%s'", "a backslash"),
    ("escape-prefix", "p", "SELECT g WHERE k=E'%s'", "with a prefix"),
    ("national-prefix", "mp", "SELECT g WHERE k=N'%s'", "with a prefix"),
    ("unicode-prefix", "p", "SELECT g WHERE k=U&'%s'", "with a prefix"),
    ("dollar", "p", "SELECT g WHERE k=$$%s$$", "between dollar signs"),
    ("regexp", "m", "SELECT g WHERE k REGEXP '^%u@'", "part of a pattern"),
    ("regexp-function", "mp", "SELECT g WHERE regexp_like(k, '%u')", "part of a pattern"),
    ("regexp-function-inside", "mp", "SELECT g WHERE REGEXP_LIKE(k, concat('^', '%d'), 'i')", "part of a pattern"),
    ("substring", "p", "SELECT g WHERE k = substring(k from '%u')", "part of a pattern"),
    ("substring-inside", "p", "SELECT g WHERE k = SUBSTRING(k, '^' || '%u')", "part of a pattern"),
    ("match", "m", "SELECT g WHERE MATCH(k) AGAINST('%s')", "part of a pattern"),
    ("rlike-domain", "m", "SELECT g WHERE k RLIKE '%d'", "part of a pattern"),
    ("tilde", "p", "SELECT g WHERE k ~* '%u'", "part of a pattern"),
    ("similar", "p", "SELECT g WHERE k SIMILAR TO '%s'", "part of a pattern"),
    ("glob", "s", "SELECT g WHERE k GLOB '%s'", "part of a pattern"),
    ("ilike-bars", "p", "SELECT g WHERE k ILIKE '%%' || '%u'", "part of a pattern"),
    ("like-function", "ms", "SELECT g WHERE k LIKE CONCAT('%%', '%u')", "part of a pattern"),
    ("like-bars", "mps", "SELECT g WHERE k LIKE '%%' || '%u'", "part of a pattern"),
    ("like-escape", "mps", "SELECT g WHERE k LIKE '%s' ESCAPE '|'", "ESCAPE of its own"),
    ("like-escape-at-once", "mps", "SELECT g WHERE k LIKE '%s'ESCAPE '|'", "ESCAPE of its own"),
    ("two-statements", "mps", "SELECT g WHERE k='%s'; DELETE FROM a", "more than one statement"),
    ("delete", "mps", "DELETE FROM a WHERE k='%s'", "no SELECT"),
    ("update-in-parentheses", "mps", "(UPDATE a SET k='%s')", "no SELECT"),
    ("call", "m", "CALL f('%s')", "stored procedures"),
    ("empty", "mps", "", "no SELECT"),
    ("open-quote", "mps", "SELECT g WHERE k='%s", "not closed"),
    ("long", "mps", "SELECT g WHERE k='%s'" + " " * 20_000, "more than 16384 characters"),
]


def dialects(letters: str) -> list[Dialect]:
    return [{"m": MYSQL, "p": POSTGRESQL, "s": SQLITE}[letter] for letter in letters]


@pytest.mark.attack("L09")
@pytest.mark.parametrize(
    ("letters", "template", "statement", "values"),
    [each[1:] for each in TEMPLATES],
    ids=[each[0] for each in TEMPLATES],
)
def test_templates(letters: str, template: str, statement: str, values: tuple[str, ...]) -> None:
    for dialect in dialects(letters):
        query = parse_query(template, dialect)
        assert query.statement == (statement.replace("%s", "?") if dialect is SQLITE else statement)
        assert query.values(KEY) == values


EXACT = [
    ("SELECT g FROM a WHERE k='%s'", "SELECT g FROM a WHERE k={}"),
    ("SELECT g FROM a WHERE k LIKE '%s'", "SELECT g FROM a WHERE k LIKE {} ESCAPE '!'"),
    (
        "SELECT DISTINCT ON (g) '%s' FROM a JOIN b ON d='%d' WHERE (k IN ('%s') OR u='%u') ORDER BY k='%s'",
        "SELECT DISTINCT ON (g) %s FROM a JOIN b ON d={} WHERE (k IN ({}) OR u={}) ORDER BY k=%s",
    ),
    (
        "SELECT '%u' FROM a WHERE k=(SELECT '%s' FROM b WHERE d='%d') UNION SELECT '%u'",
        "SELECT %s FROM a WHERE k=(SELECT %s FROM b WHERE d={}) UNION SELECT %s",
    ),
    ("SELECT '%u'", "SELECT %s"),
    ("SELECT g FROM a WHERE k='%s' COLLATE x", "SELECT g FROM a WHERE k=%s COLLATE x"),
    ("SELECT g FROM a WHERE BINARY k='%s'", "SELECT g FROM a WHERE BINARY k=%s"),
]


@pytest.mark.attack("L09")
@pytest.mark.parametrize(("template", "exact"), EXACT)
def test_what_is_compared_letter_for_letter(template: str, exact: str) -> None:
    """Results are left alone: of those of a UNION, PostgreSQL could not tell the type."""
    of_mysql = exact.replace("{}", "(CONVERT(%s USING utf8mb4) COLLATE utf8mb4_bin)")
    assert parse_query(template, MYSQL).exact_statement == of_mysql
    assert parse_query(template, POSTGRESQL).exact_statement == exact.replace("{}", '(%s COLLATE "C")')
    of_sqlite = parse_query(template, SQLITE)
    assert of_sqlite.exact_statement == of_sqlite.statement


@pytest.mark.parametrize(
    "word", ["AND", "OR", "UNION", "WHERE", "ORDER", "GROUP", "HAVING", "LIMIT", "THEN", "ELSE", ","]
)
def test_what_follows_a_pattern_is_compared_as_it_is(word: str) -> None:
    for dialect in Dialect:
        assert parse_query(f"SELECT g WHERE k LIKE 'x' {word} '%u'", dialect).values(KEY) == ("a_b%!'x",)


@pytest.mark.attack("L09")
@pytest.mark.parametrize(
    ("letters", "template", "said"), [each[1:] for each in REFUSED], ids=[each[0] for each in REFUSED]
)
def test_templates_that_are_refused(letters: str, template: str, said: str) -> None:
    for dialect in dialects(letters):
        with pytest.raises(ConfigError) as caught:
            parse_query(template, dialect)
        assert said in str(caught.value)


@pytest.mark.attack("L09")
@pytest.mark.parametrize("value", ["'", "\\", "x' OR '1'='1", "%s", "--", "; DROP TABLE a", "*", "|", "\\'", "/../"])
def test_no_key_is_part_of_the_statement(value: str) -> None:
    for dialect in Dialect:
        query = parse_query("SELECT g FROM a WHERE k='%s' OR u='%u' OR v LIKE '%u'", dialect)
        assert query.values(Key(f"{value}@us.test"))[:2] == (f"{value}@us.test", value)
        assert (
            query.statement == parse_query("SELECT g FROM a WHERE k='%s' OR u='%u' OR v LIKE '%u'", dialect).statement
        )


NEEDS = [
    ("%s", "user@us.test", True),
    ("%s", "user", True),
    ("%s", "@us.test", True),
    ("%d", "user", False),
    ("%d", "user@", False),
    ("%d", "@us.test", True),
    ("%u", "@us.test", False),
    ("%u", "user", True),
    ("%u@%d", "@us.test", False),
    ("%2", "user@us.test", True),
    ("%3", "user@us.test", False),
    ("%2", "user@us..test", False),
    ("%1", "user", False),
]


@pytest.mark.parametrize(("template", "key", "is_asked"), NEEDS)
def test_keys_that_are_not_looked_up(template: str, key: str, is_asked: bool) -> None:
    assert Key(key).satisfies(Needs.of(parts_of(template))) is is_asked


def test_result_formats() -> None:
    key = Key("user@us.test")
    assert key.result(parts_of("%s"), "a@b.test") == "a@b.test"
    assert key.result(parts_of("%u=%d/%U=%D/%1"), "a@b.test") == "a=b.test/user=us.test/test"
    assert key.result(parts_of("%d"), "a") == ""
    assert key.result(parts_of("%u"), "@b.test") == ""
    assert key.result(parts_of("x%s"), "") == ""
    assert key.result(parts_of("%u"), "a") == "a"
    assert Needs.of(parts_of("%s"), parts_of("%u %d")) == Needs()
    assert Needs.of(parts_of("%s"), parts_of("%U %D %3")) == Needs(domain=True, user=True, labels=3)


# The same file for Postfix and for us

ROWS = [
    ("alice@us.test", "alice@us.test, bob@us.test"),
    ("bob@us.test", "bob@us.test"),
    ("@us.test", "postmaster@us.test"),
    ("local", "alice"),
    ("o'brien@us.test", "o'brien"),
    ("per%cent@us.test", "per%cent"),
    ("under_score@us.test", "under_score"),
    ("underXscore@us.test", "underxscore"),
    ("back\\slash@us.test", "back\\slash"),
    ("empty@us.test", ""),
    ("two@us.test", "one"),
    ("two@us.test", "two@us.test"),
    ("bücher@us.test", "bücher"),
    ("x@a.b.us.test", "labels"),
]
QUERIES = [
    "SELECT login FROM owners WHERE address='%s'",
    "SELECT login FROM owners WHERE address='%u@%d' AND 1=1;",
    "SELECT login FROM owners WHERE address LIKE '%%@%d' AND address LIKE 'a%%' ORDER BY login",
    "SELECT login, address FROM owners WHERE address='%s' ORDER BY login",
    "SELECT login FROM owners WHERE address = '%u' ORDER BY login",
    "SELECT 'x%%y' FROM owners WHERE address='%s'",
    "SELECT login FROM owners WHERE address='x@a.b.%2.%1' AND '%3' <> 'x'",
    "SELECT NULL FROM owners WHERE address='%s'",
    "SELECT login FROM owners WHERE address='nobody''s %s'",
]
FORMATS = ["%s", "<%s>", "%u/%d", "%S:%s"]
KEYS = [
    *(address for address, _ in ROWS),
    "ALICE@US.TEST",
    "nobody@us.test",
    "nobody",
    "@other.test",
    "x' OR '1'='1",
    "x' OR '1'='1@us.test",
    "%",
    "_",
    "alice@us.test' -- ",
    "alice@us.test\\",
    "al%@us.test",
    "user@sub.us.test",
    "user@a.us.test",
    '"quoted"@us.test',
]


def owners_table(dialect: Dialect) -> list[str]:
    def text(value: str) -> str:
        # No "%": the drivers of the administrator's connection would read it.
        escaped = value.replace("'", "''").replace("\\", "\\\\" if dialect is MYSQL else "\\")
        if "%" not in escaped:
            return f"'{escaped}'"
        left, right = escaped.split("%")
        percent = {MYSQL: "CHAR(37)", POSTGRESQL: "CHR(37)", SQLITE: "CHAR(37)"}[dialect]
        return (
            f"CONCAT('{left}', {percent}, '{right}')" if dialect is MYSQL else f"'{left}' || {percent} || '{right}'"
        )

    columns = "address varchar(255), login varchar(255)"
    rows = [f"({text(address)}, {text(login)})" for address, login in ROWS]
    return [f"CREATE TABLE owners ({columns})", *(f"INSERT INTO owners VALUES {row}" for row in rows)]  # noqa: S608


def write_old(path: Path, text: str) -> None:
    """Postfix waits for two seconds before it reads a file that has just been written."""
    path.write_text(text, "utf-8")
    os.utime(path, (0, 0))


class Tables:
    """A database, and Postfix's files for it."""

    def __init__(self, server: Postgres | MariaDb | SqliteFiles, directory: Path) -> None:
        self.directory = directory
        self.kind = {MYSQL: "mysql", POSTGRESQL: "pgsql", SQLITE: "sqlite"}[server.dialect]
        access = server.create("owners", owners_table(server.dialect))
        if isinstance(server, SqliteFiles):
            self.place = f"dbpath = {access.places[0].path}\n"
        else:
            # Postfix's client for MySQL has no way to write a password with a blank at its end or "#" at its start.
            host = f"{access.places[0].host}:{access.places[0].port}"
            self.place = f"hosts = {host}\nuser = {USER}\npassword = {PASSWORD}\ndbname = owners\n"
        write_old(directory / "main.cf", "compatibility_level = 3.7\nmyhostname = mail.us.test\n")

    def file(self, query: str, more: str = "") -> Path:
        path = self.directory / "owners.cf"
        write_old(path, f"# a table\n{self.place}query = {query}\n{more}")
        return path

    def ours(self, path: Path) -> SqlTable:
        return SqlTable(self.kind, str(path), deadline_s=AMPLE_S, clock=time.monotonic)

    def of_postfix(self, path: Path, keys: Sequence[str]) -> dict[str, str]:
        """What postmap gives for all of them at once, by the key as it was asked for."""
        done = subprocess.run(
            ["postmap", "-c", str(self.directory), "-q", "-", f"{self.kind}:{path}"],
            input="".join(f"{key}\n" for key in keys).encode(),
            capture_output=True,
            check=False,
        )
        lines = done.stdout.decode().splitlines()
        return {line.partition("\t")[0]: line.partition("\t")[2] for line in lines}


@pytest.fixture(scope="module", params=["sqlite", "postgresql", "mariadb"])
def tables(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Tables:
    directory = tmp_path_factory.mktemp(f"owners-{request.param}")
    if request.param == "sqlite":
        return Tables(SqliteFiles(directory), directory)
    server = request.getfixturevalue({"postgresql": "postgres", "mariadb": "mariadb"}[request.param])
    return Tables(server, directory)


@pytest.mark.attack("L09")
@pytest.mark.parametrize("query", QUERIES)
def test_the_answers_are_postfixs_own(tables: Tables, query: str) -> None:
    for result_format in FORMATS if query in (QUERIES[0], QUERIES[3]) else FORMATS[:1]:
        path = tables.file(query, f"result_format = {result_format}\n")
        theirs = tables.of_postfix(path, KEYS)
        ours = tables.ours(path)
        for key in KEYS:
            if not key.isascii() and tables.kind == "pgsql":
                continue  # before Postfix 3.8, its client says that it speaks Latin 1
            owners = ours.find(key.lower()).owners
            if owners and " " in key:
                # Unlike in Postfix, each value is one owner here.
                owners = tuple(" ".join(owners).replace(",", " ").split())
            expected = theirs.get(key)
            assert (" ".join(owners) if owners else None) == (
                " ".join(expected.replace(",", " ").split()) if expected else None
            ), (key, result_format)
        ours.close()
