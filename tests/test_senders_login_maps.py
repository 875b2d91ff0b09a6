"""smtpd_sender_login_maps: which tables a value names, what they hold, and who owns an address."""

from __future__ import annotations

import math
import os
import re
import shutil
import sqlite3
import stat
import subprocess
import time
from collections.abc import Mapping
from itertools import product
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from database_site import AMPLE_S
from mailguard.domain import Domain
from mailguard.errors import ConfigError
from mailguard.senders.identity import LoginCase, LoginRules
from mailguard.senders.listing import ListingStatus
from mailguard.senders.login_maps import LoginMaps
from mailguard.senders.map_list import TableOptions, open_tables, parse_maps, split_maps
from mailguard.senders.permission import Asked, PermissionStatus
from mailguard.senders.table import Found, InMemoryTable, Table, TableDown, UnionTable, key_of
from mailguard.senders.table_file import LOOK_EVERY_S, MAX_DATABASE_BYTES, MAX_FILE_BYTES, read_text
from postfix_commands import write_main_cf
from sender_asking import ask, login_of

GRANTED, DENIED = PermissionStatus.GRANTED, PermissionStatus.DENIED
UNKNOWN, UNAVAILABLE = PermissionStatus.UNKNOWN, PermissionStatus.UNAVAILABLE
OPTIONS = TableOptions(clock=time.monotonic, deadline_s=AMPLE_S)
POSTMAP = shutil.which("postmap", path="/usr/sbin:/usr/bin")


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def write(path: Path, text: str, *, age_s: float = 60.0) -> Path:
    """A file that was written some time ago: Postfix waits for a file that is younger than two seconds."""
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    then = time.time() - age_s
    os.utime(path, (then, then))
    return path


def maps(value: str, *, delimiters: str = "", local: str = "", rules: LoginRules | None = None) -> LoginMaps:
    return LoginMaps(
        open_tables(value, OPTIONS),
        rules=rules or LoginRules(),
        delimiters=delimiters,
        local_domains=[Domain.parse(name) for name in local.split()],
    )


# Which tables a value names

VALUES = [
    ("empty", "", ()),
    ("one", "hash:/etc/a", ("hash:/etc/a",)),
    (
        "commas-and-blanks",
        "hash:/a, lmdb:/b\n btree:/c,,texthash:/d",
        ("hash:/a", "lmdb:/b", "btree:/c", "texthash:/d"),
    ),
    ("proxy", "proxy:mysql:/a.cf proxy:proxy:hash:/b", ("mysql:/a.cf", "hash:/b")),
    ("braces", "inline:{a=b, {c = d, e}} hash:/x", ("inline:{a=b, {c = d, e}}", "hash:/x")),
]


@pytest.mark.parametrize(("value", "names"), [each[1:] for each in VALUES], ids=[each[0] for each in VALUES])
def test_the_tables_of_a_value(value: str, names: tuple[str, ...]) -> None:
    assert split_maps(value) == names
    assert [table.text for table in parse_maps(value)] == [name.replace("proxy:", "") for name in names]


REFUSED = [
    ("pcre", "pcre:/etc/postfix/x", "own_address = true in [senders.inline]"),
    ("regexp-behind-proxy", "proxy:regexp:/etc/postfix/x", "own_address = true"),
    ("ldap", "ldap:/etc/postfix/x.cf", "texthash:/path"),
    ("cdb", "cdb:/etc/postfix/x", "Postfix cannot list it"),
    ("static", "static:alice", "[senders.inline.logins]"),
    ("socketmap", "socketmap:unix:/run/x:y", '"socketmap" are not read'),
    ("pipemap", "pipemap:{hash:/a, hash:/b}", '"pipemap" are not read'),
    ("tcp", "tcp:127.0.0.1:99", '"tcp" are not read'),
    ("in-a-union", "unionmap:{hash:/a, pcre:/b}", "pcre"),
    ("no-type", "/etc/postfix/logins", "written type:name"),
    ("no-name", "hash:", "written type:name"),
    ("relative", "hash:logins", "begins with /"),
    ("parameters-in-main-cf", "mysql:owners", "a file of their own"),
    ("open-brace", "inline:{a=b", "a brace is not closed"),
    ("closed-brace", "inline:a=b}", "was not opened"),
    ("inline-without-braces", "inline:a=b", "in braces"),
    ("inline-more-behind-braces", "inline:{a=b}x", 'what follows "{a=b}" does not belong there'),
    ("inline-more-behind-an-entry", "inline:{ {a=b}x }", 'what follows "{a=b}" does not belong there'),
    ("inline-no-separator", "inline:{ {a=b}{c=d} }", 'what follows "{a=b}" does not belong there'),
    ("inline-empty", "inline:{ }", "is empty"),
    ("inline-no-value", "inline:{a=}", "key=value"),
    ("inline-spaces", "inline:{ a = b }", "key=value"),
    ("union-empty", "unionmap:{ }", "names no table"),
    ("union-no-separator", "unionmap:{hash:/a}{hash:/b}", 'what follows "{hash:/a}" does not belong there'),
    ("union-deep", "unionmap:{" * 7 + "hash:/a" + "}" * 7, "more than 5 times"),
    ("many", "hash:/a " * 200, "more than 100"),
    ("long", "hash:/" + "a" * 70_000, "more than 65536"),
]


@pytest.mark.parametrize(("value", "said"), [each[1:] for each in REFUSED], ids=[each[0] for each in REFUSED])
def test_tables_that_are_not_read(value: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_maps(value)
    assert said in str(caught.value)
    assert len(str(caught.value)) < 400


# The text format

HARD_TEXT = (
    '"a b@us.test" x y\n"c d"@us.test   z\n"e\\"f@us.test"\tq\nplain\tv1\n"unclosed key v\n'
    "tab@us.test\tv, w ,,z\n   # comment inside\n more\n\n  \nnext v\r\n@dom.test a\x0bb\nkey2 \n v2\n"
    '"k3"v3\n"k4" v4\n  leading\nnbsp\xa0k v\n\udcff\udcfe bad\nFOO@Us.Test BAR\n"" empty\n'
    "plain other\nnovalue\nlong v\n  first second\nend v"
)
texts = st.text(st.sampled_from('ab@.# \n\r\x0b,"\\{}=\xfcAB'), max_size=60)


def listed_by_postfix(value: str, directory: Path) -> dict[str, str]:
    done = subprocess.run([str(POSTMAP), "-c", str(directory), "-s", value], capture_output=True, check=False)
    # Postfix 3.11 lists what is not UTF-8, and does not find it either when asked.
    lines = done.stdout.decode("utf-8", "surrogateescape").split("\n")
    entries = [line.partition("\t") for line in lines if "\t" in line]
    return {key: value for key, _, value in entries if not re.search("[\udc80-\udcff]", key)}


@pytest.fixture(scope="module")
def postfix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a main.cf."""
    return write_main_cf(tmp_path_factory.mktemp("postfix"))


def check_text(text: str, directory: Path) -> None:
    file = write(directory / "text", text)
    ours = read_text(file.read_bytes())
    theirs = listed_by_postfix(f"texthash:{file}", directory)
    assert dict(ours) == {
        key_of(key): tuple(filter(None, re.split("[, \t\r\n]", value))) for key, value in theirs.items()
    }


def test_a_hard_text_is_read_as_postfix_reads_it(postfix: Path) -> None:
    check_text(HARD_TEXT, postfix)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts)
def test_any_text_is_read_as_postfix_reads_it(postfix: Path, text: str) -> None:
    check_text(text, postfix)


# Tables made by postmap


@pytest.mark.usefixtures("postfix_config")
@pytest.mark.parametrize("kind", ["hash", "btree", "lmdb"])
def test_tables_that_postmap_has_made(tmp_path: Path, kind: str) -> None:
    text = write(tmp_path / "logins", HARD_TEXT)
    subprocess.run([str(POSTMAP), f"{kind}:{text}"], check=True, capture_output=True)
    (made,) = open_tables(f"{kind}:{text}", OPTIONS)
    assert made.entries() == read_text(text.read_bytes())
    assert made.find("plain").owners == ("v1",)
    assert made.find("nobody").owners is None


@pytest.mark.usefixtures("postfix_config")
@pytest.mark.parametrize("kind", ["hash", "btree", "lmdb", "texthash"])
def test_letters_that_postmap_has_folded(tmp_path: Path, kind: str) -> None:
    """Of a table that it has made, nobody knows any more how its keys were written."""
    text = write(
        tmp_path / "logins", "νίκος@us.test nikos\nstraße petra\nJÜRGEN@us.test j\n@us.test all\n@uss.test all\n"
    )
    if kind != "texthash":
        subprocess.run([str(POSTMAP), f"{kind}:{text}"], check=True, capture_output=True)
    source = maps(f"{kind}:{text}", local="us.test")
    for who, what in (("nikos", "νίκος@us.test"), ("petra", "straße@us.test"), ("j", "jürgen@us.test")):
        assert ask(source, who, what).is_granted
        assert ask(source, who, what.replace("ß", "ẞ").upper()).is_granted
        assert not ask(source, "all", what).is_granted
    # What becomes of a domain is another one.
    assert ask(source, "all", "x@uß.test").status is UNKNOWN
    source.close()


INLINE = [
    "inline:{a=b,c=d}",
    "inline:{ {a@x.test = b, c}, {B = d} }",
    "inline:{a=1, a=2}",
    "inline:{ {a= {x y} }, B=z=y }",
    "inline:{ a={b}, x{c=d} }",
]


@pytest.mark.parametrize("value", INLINE)
def test_inline_is_read_as_postfix_reads_it(postfix: Path, value: str) -> None:
    (made,) = open_tables(value, OPTIONS)
    theirs = listed_by_postfix(value, postfix)
    assert made.entries() == {key: tuple(filter(None, re.split("[, ]", owners))) for key, owners in theirs.items()}


def test_a_union_has_the_owners_of_all_its_tables() -> None:
    (union,) = open_tables("unionmap:{ inline:{a=x,b=y}, inline:{ {a=y z} } }", OPTIONS)
    assert union.find("a").owners == ("x", "y", "z")
    assert union.find("b").owners == ("y",)
    assert union.find("c").owners is None
    assert union.entries() == {"a": ("x", "y", "z"), "b": ("y",)}
    asked = union.find("a").asked
    assert asked == Asked("inline:{a=x,b=y} and inline:{ {a=y z} }", ("a",))


def test_a_union_may_stand_in_itself_five_times() -> None:
    (union,) = open_tables("unionmap:{" * 5 + "inline:{a=x}" + "}" * 5, OPTIONS)
    assert union.find("a").owners == ("x",)
    with pytest.raises(ConfigError, match="more than 5 times"):
        parse_maps("unionmap:{" * 6 + "inline:{a=x}" + "}" * 6)


def test_a_union_closes_all_its_tables() -> None:
    class Closing(InMemoryTable):
        is_closed = False

        def close(self) -> None:
            self.is_closed = True

    tables = Closing("a", {}), Closing("b", {})
    UnionTable("both", tables).close()
    assert [table.is_closed for table in tables] == [True, True]


# Files that change, and files that cannot be read


def table(path: Path, clock: Clock, kind: str = "texthash", postmap: str = "postmap") -> Table:
    (made,) = open_tables(f"{kind}:{path}", TableOptions(clock=clock, deadline_s=AMPLE_S, postmap=postmap))
    return made


def test_a_changed_file_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # By the clock of the file system: 2 s may be over before the file is looked at.
    monkeypatch.setattr("mailguard.senders.table_file.SETTLED_AFTER_S", 40.0)
    clock, path = Clock(), write(tmp_path / "logins", "a@us.test alice\n")
    made = table(path, clock)
    assert made.find("a@us.test").owners == ("alice",)
    write(path, "a@us.test bob\n", age_s=50)
    assert made.find("a@us.test").owners == ("alice",)
    clock.now += LOOK_EVERY_S
    assert made.find("a@us.test").owners == ("bob",)
    # Half of a file that is being written is not taken.
    write(path, "", age_s=0)
    clock.now += LOOK_EVERY_S
    assert made.find("a@us.test").owners == ("bob",)
    write(path, "a@us.test carol\n", age_s=45)
    clock.now += LOOK_EVERY_S
    assert made.find("a@us.test").owners == ("carol",)


@pytest.mark.attack("L10")
def test_a_file_that_cannot_be_read_is_unavailable_until_it_can(tmp_path: Path) -> None:
    clock, path = Clock(), tmp_path / "logins"
    made = table(path, clock)
    for _ in range(2):
        with pytest.raises(TableDown, match="logins cannot be read: No such file"):
            made.find("a@us.test")
    write(path, "a@us.test alice\n", age_s=0)
    clock.now += LOOK_EVERY_S
    assert made.find("a@us.test").owners == ("alice",)
    path.unlink()
    clock.now += LOOK_EVERY_S
    with pytest.raises(TableDown):
        made.find("a@us.test")
    path.mkdir()
    clock.now += LOOK_EVERY_S
    with pytest.raises(TableDown, match="not a regular file"):
        made.find("a@us.test")
    path.rmdir()
    with path.open("wb") as file:
        file.truncate(100 * 1024 * 1024)
    clock.now += LOOK_EVERY_S
    with pytest.raises(TableDown, match="more than"):
        made.find("a@us.test")
    # What was read before is not known to hold any more.
    write(path, "a@us.test bob\n", age_s=0)
    clock.now += LOOK_EVERY_S
    assert made.find("a@us.test").owners == ("bob",)


def test_a_database_of_postmap_may_be_larger_than_a_text(tmp_path: Path) -> None:
    """hash: has 80 MB for half a million entries that have 30 MB as text."""
    listing = write(tmp_path / "postmap", "#!/bin/sh\nprintf 'a@us.test\\talice\\n'\n")
    listing.chmod(stat.S_IRWXU)
    database = tmp_path / "logins.db"
    with database.open("wb") as file:
        file.truncate(MAX_FILE_BYTES + 1)
    assert table(tmp_path / "logins", Clock(), "hash", str(listing)).find("a@us.test").owners == ("alice",)
    with database.open("wb") as file:
        file.truncate(MAX_DATABASE_BYTES + 1)
    with pytest.raises(TableDown, match="octets; put them into a database, which is asked for one at a time"):
        table(tmp_path / "logins", Clock(), "hash", str(listing)).find("a@us.test")


def test_more_entries_than_can_be_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mailguard.senders.login_maps.MAX_ACCOUNTS", 1)
    everyone = maps("inline:{a@us.test=alice, b@us.test=bob}").everyone()
    assert everyone.status is ListingStatus.UNLISTABLE
    assert "too many to list; mailguard senders test asks for one" in everyone.reason


@pytest.mark.attack("L10")
@pytest.mark.usefixtures("postfix_config")
def test_a_postmap_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "logins.db", "this is no database")
    with pytest.raises(TableDown, match=r"logins\.db: postmap: fatal: open database"):
        table(tmp_path / "logins", Clock(), "hash").find("a")
    with pytest.raises(TableDown, match=r"/none/postmap cannot be run: No such file"):
        table(tmp_path / "logins", Clock(), "hash", str(tmp_path / "none/postmap")).find("a")
    silent = write(tmp_path / "postmap", "#!/bin/sh\nexit 3\n")
    silent.chmod(stat.S_IRWXU)
    with pytest.raises(TableDown, match="postmap: it failed"):
        table(tmp_path / "logins", Clock(), "hash", str(silent)).find("a")
    endless = write(tmp_path / "postmap", "#!/bin/sh\nexec sleep 600\n")
    monkeypatch.setattr("mailguard.senders.table_file.POSTMAP_TIMEOUT_S", 0.2)
    with pytest.raises(TableDown, match=r"postmap did not end within 0\.2 s"):
        table(tmp_path / "logins", Clock(), "hash", str(endless)).find("a")


def test_an_entry_with_too_many_owners(tmp_path: Path) -> None:
    path = write(tmp_path / "logins", "a@us.test " + "x," * 2000)
    with pytest.raises(TableDown, match="more than 1000 owners"):
        table(path, Clock()).find("a@us.test")


# Who owns an address

OWNERS = (
    "inline:{ {alice@us.test = alice@us.test bob@us.test}, bob@us.test=bob@us.test, @us.test=postmaster@us.test,"
    " sales=alice@us.test, {nobody@us.test = ,}, alice+own@us.test=bob@us.test, @xn--bcher-kva.test=alice@us.test },"
    ' inline:{ bob@us.test=alice@us.test, carol@us.test=Carol, dave@us.test=carol, {"a b"@us.test = alice@us.test} }'
)
DECISIONS = [
    # login, address, what is said, rule
    ("alice@us.test", "alice@us.test", GRANTED, 'inline has "alice@us.test"'),
    ("bob@us.test", "ALICE@US.test", GRANTED, 'inline has "alice@us.test"'),
    ("alice@us.test", "alice+x@us.test", GRANTED, 'inline has "alice@us.test"'),
    ("alice@us.test", "alice+own@us.test", DENIED, 'inline has "alice+own@us.test"'),
    ("alice@us.test", "bob@us.test", DENIED, 'inline has "bob@us.test"'),
    ("alice@us.test", "sales@us.test", GRANTED, 'inline has "sales"'),
    ("alice@us.test", "sales+x@us.test", GRANTED, 'inline has "sales"'),
    ("alice@us.test", "sales@other.test", UNKNOWN, ""),
    ("alice@us.test", "new@us.test", DENIED, 'inline has "@us.test"'),
    ("postmaster@us.test", "new@us.test", GRANTED, 'inline has "@us.test"'),
    ("postmaster@us.test", "alice@us.test", DENIED, 'inline has "alice@us.test"'),
    ("alice@us.test", "nobody@us.test", DENIED, 'inline has "nobody@us.test"'),
    ("alice@us.test", "x@other.test", UNKNOWN, ""),
    ("alice@us.test", "x@bücher.test", GRANTED, 'inline has "@xn--bcher-kva.test"'),
    ("alice@us.test", '"a b"@us.test', GRANTED, 'inline has ""a b"@us.test"'),
    # The tables have "Carol" and "carol": each is only himself.
    ("Carol", "carol@us.test", GRANTED, 'inline has "carol@us.test"'),
    ("carol", "carol@us.test", DENIED, 'inline has "carol@us.test"'),
    ("carol", "dave@us.test", GRANTED, 'inline has "dave@us.test"'),
    ("Carol", "dave@us.test", DENIED, 'inline has "dave@us.test"'),
    ("CAROL", "dave@us.test", DENIED, 'inline has "dave@us.test"'),
]


@pytest.mark.attack("L01", "L02", "L07", "L11")
@pytest.mark.parametrize(("who", "what", "status", "rule"), DECISIONS)
def test_who_owns_an_address(who: str, what: str, status: PermissionStatus, rule: str) -> None:
    source = maps(OWNERS, delimiters="+", local="us.test")
    said = ask(source, who, what)
    short = re.sub(r"inline:\{.*?\.\.\.", "inline", said.rule)
    assert (said.status, short) == (status, rule), said
    assert said.asked
    if status is DENIED:
        assert "its owners are others" in said.reason


def test_without_delimiter_and_local_domains() -> None:
    source = maps(OWNERS)
    assert ask(source, "alice@us.test", "alice+x@us.test").status is DENIED
    assert ask(source, "alice@us.test", "sales@us.test").status is DENIED
    default = LoginRules(default_domain=Domain.parse("us.test"))
    assert ask(maps("inline:{x@us.test=alice}", rules=default), "alice@us.test", "x@us.test").is_granted
    exact = LoginRules(case=LoginCase.SIGNIFICANT)
    assert not ask(maps("inline:{x@us.test=Alice}", rules=exact), "alice", "x@us.test").is_granted
    assert ask(maps("inline:{x@us.test=Alice}"), "alice", "x@us.test").is_granted


# A local part that reads as an address, a domain or a list of them, as it stands or without its tag.
STRANGE = [
    '"alice@us.test"@other.test',
    '"alice@us.test+x"@other.test',
    '"alice+x@us.test"@other.test',
    '"@us.test"@other.test',
    '"@us.test+x"@other.test',
    r'"\@us.test"@other.test',
    r'"\"a b\"@us.test"@other.test',
    r'"\"a b\""@us.test',
    '"+alice@us.test"@other.test',
    '"alice@us.test,x"@other.test',
    '"alice@us.test x"@other.test',
    '"x alice@us.test "@other.test',
    '",alice@us.test,"@other.test',
]


@pytest.fixture
def owners_databases(tmp_path: Path) -> tuple[str, str]:
    """Tables that are queries, with the entries of an address, a domain and an address in quotes.

    The second gives something for every key, so that it is asked for the first of an address alone.
    """
    with sqlite3.connect(tmp_path / "owners.sqlite") as connection:
        connection.execute("CREATE TABLE owners (key TEXT)")
        keys = [("alice@us.test",), ("@us.test",), ('"a b"@us.test',)]
        connection.executemany("INSERT INTO owners VALUES (?)", keys)
    connection.close()
    query = "SELECT 'alice@us.test' FROM owners WHERE key='%s' OR key='%u'"
    for name, more in (("owners", ""), ("any", " UNION SELECT '%s' UNION SELECT '%u'")):
        (tmp_path / f"{name}.cf").write_text(f"dbpath = {tmp_path}/owners.sqlite\nquery = {query}{more}\n")
    return f"sqlite:{tmp_path}/owners.cf", f"sqlite:{tmp_path}/any.cf"


@pytest.mark.attack("L01", "L02", "L07")
@pytest.mark.parametrize("what", STRANGE)
def test_a_local_part_is_no_address_of_its_own(owners_databases: tuple[str, str], what: str) -> None:
    memory = 'inline:{ alice@us.test=alice@us.test, @us.test=alice@us.test, {"a b"@us.test = alice@us.test} }'
    for table, local in ((memory, "other.test"), *product(owners_databases, ("other.test", ""))):
        source = maps(table, delimiters="+", local=local)
        assert ask(source, "alice@us.test", "alice@us.test").is_granted
        said = ask(source, "alice@us.test", what)
        # What is in her own domain is hers by its entry, and by no other.
        own = table is memory and what.endswith("@us.test")
        assert said.is_granted == own, said
        assert not own or '"@us.test"' in said.rule


class Owners(Table):
    """What it holds can change; `is_listable` False: it is known by its answers alone, as of a database."""

    def __init__(self, owners: Mapping[str, tuple[str, ...]], *, is_listable: bool = True) -> None:
        super().__init__("owners")
        self.owners = owners
        self.is_listable = is_listable

    def find(self, key: str, *, deadline: float = math.inf) -> Found:
        return Found(self.owners.get(key))

    def entries(self) -> Mapping[str, tuple[str, ...]] | None:
        return self.owners if self.is_listable else None


@pytest.mark.attack("L07")
def test_of_two_owners_in_the_answer_of_a_database_each_is_only_himself() -> None:
    table = Owners({"x@us.test": ("Carol", "carol"), "y@us.test": ("Carol",)}, is_listable=False)
    source = LoginMaps([table], rules=LoginRules())
    assert [ask(source, who, "x@us.test").status for who in ("Carol", "carol", "CAROL")] == [GRANTED, GRANTED, DENIED]
    assert ask(source, "CAROL", "y@us.test").is_granted


@pytest.mark.attack("L07")
def test_an_account_that_comes_is_not_taken_for_the_one_that_was_there() -> None:
    table = Owners({"x@us.test": ("Carol",)})
    source = LoginMaps([table], rules=LoginRules())
    assert ask(source, "carol", "x@us.test").is_granted
    table.owners = {"x@us.test": ("Carol",), "y@us.test": ("carol",)}
    assert ask(source, "carol", "x@us.test").status is DENIED
    assert ask(source, "Carol", "x@us.test").is_granted


def test_an_owner_that_stands_for_nobody_is_none() -> None:
    source = maps("inline:{ {x@us.test = al\u200bice bob} }")
    assert ask(source, "bob", "x@us.test").is_granted
    assert ask(source, "alice", "x@us.test").status is DENIED


@pytest.mark.parametrize("local", ["a..b", ".a", "a."])
def test_dots_that_need_quotes_are_looked_up_with_them_and_without(local: str) -> None:
    for key in (f'"{local}"@us.test', f"{local}@us.test"):
        source = LoginMaps([Owners({key: ("alice",)})], rules=LoginRules())
        assert ask(source, "alice", f'"{local}"@us.test').is_granted


def test_a_domain_is_looked_up_as_postfix_would_have_it_as_well() -> None:
    source = LoginMaps([Owners({"x@b\u00fccher.test": ("alice",)})], rules=LoginRules())
    assert ask(source, "alice", "x@xn--bcher-kva.test").is_granted


def test_a_quote_in_a_local_part_is_looked_up_with_its_backslash() -> None:
    source = maps(r'inline:{ {"a\"b\\c"@us.test = alice} }')
    assert ask(source, "alice", r'"a\"b\\c"@us.test').is_granted
    assert not ask(source, "alice", r'"a\"b\c"@us.test').is_granted


@pytest.mark.attack("L10")
def test_a_table_that_is_down_makes_the_source_unavailable(tmp_path: Path) -> None:
    missing = f"texthash:{tmp_path}/missing"
    source = maps(f"inline:{{a@us.test=alice}}, {missing}")
    # Postfix as well asks the second table only if the first has not the key.
    assert ask(source, "alice", "a@us.test").is_granted
    said = ask(source, "alice", "b@us.test")
    assert (said.status, "cannot be read" in said.reason) == (UNAVAILABLE, True)
    assert ask(maps(f"{missing}, inline:{{a@us.test=alice}}"), "alice", "a@us.test").status is UNAVAILABLE
    assert (
        ask(maps(f"unionmap:{{inline:{{a@us.test=alice}}, {missing}}}"), "alice", "a@us.test").status is UNAVAILABLE
    )
    assert source.everyone().status is ListingStatus.UNAVAILABLE


def test_login_maps_are_listed() -> None:
    source = maps(OWNERS, local="us.test")
    everyone = source.everyone()
    assert everyone.status is ListingStatus.LISTED
    assert {grant.what for grant in everyone.accounts["alice@us.test"]} == {
        "alice@us.test",
        "sales@us.test",
        "@xn--bcher-kva.test",
        '"a b"@us.test',
    }
    assert [grant.what for grant in everyone.accounts["postmaster@us.test"]] == ["@us.test"]
    assert {grant.what for grant in source.addresses(login_of("BOB@us.test")).accounts["BOB@us.test"]} == {
        "alice@us.test",
        "bob@us.test",
        "alice+own@us.test",
    }
    assert source.addresses(login_of("nobody")).accounts == {"nobody": ()}
