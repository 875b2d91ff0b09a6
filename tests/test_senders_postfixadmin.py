"""PostfixAdmin's database as a source, on SQLite, a real PostgreSQL and a real MariaDB."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from database_site import AMPLE_S, MariaDb, Postgres, SqliteFiles, mariadb, postgres
from mailguard.domain import Domain
from mailguard.senders.database_access import DatabaseAccess
from mailguard.senders.dialect import Dialect
from mailguard.senders.identity import LoginRules, without_tag
from mailguard.senders.listing import ListingStatus
from mailguard.senders.permission import PermissionStatus
from mailguard.senders.postfixadmin import PostfixAdmin
from mailguard.senders.sql import MAX_ROWS, Database
from postfixadmin_site import ALIASES, MAILBOXES, alias_row, mailbox, schema, statements
from sender_asking import address_of, ask, login_of

__all__ = ["mariadb", "postgres"]

GRANTED, DENIED = PermissionStatus.GRANTED, PermissionStatus.DENIED
UNKNOWN, UNAVAILABLE = PermissionStatus.UNKNOWN, PermissionStatus.UNAVAILABLE

Server = Postgres | MariaDb | SqliteFiles


@pytest.fixture(scope="session", params=["sqlite", "postgresql", "mariadb"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Server:
    if request.param == "sqlite":
        return SqliteFiles(tmp_path_factory.mktemp("sqlite"))
    found: Server = request.getfixturevalue({"postgresql": "postgres", "mariadb": "mariadb"}[request.param])
    return found


@pytest.fixture(scope="session")
def access(server: Server) -> DatabaseAccess:
    return server.create("postfixadmin", statements(server.dialect))


@pytest.fixture(scope="session")
def source(access: DatabaseAccess) -> Iterator[PostfixAdmin]:
    made = PostfixAdmin(Database(access, deadline_s=AMPLE_S), rules=LoginRules(), delimiters="+")
    yield made
    made.close()


CASES = [
    # id, login, address, what is said, part of the rule
    ("own", "alice@us.test", "alice@us.test", GRANTED, "mailbox alice@us.test"),
    ("own-case", "Alice@US.test", "ALICE@us.TEST", GRANTED, "mailbox alice@us.test"),
    ("own-tag", "alice@us.test", "alice+shop@us.test", GRANTED, "mailbox alice@us.test"),
    ("other-in-tenant", "alice@us.test", "bob@us.test", DENIED, "mailbox bob@us.test"),
    ("other-tag", "alice@us.test", "bob+x@us.test", DENIED, "mailbox bob@us.test"),
    ("other-tenant", "alice@us.test", "carol@other.test", DENIED, "mailbox carol@other.test"),
    ("own-although-forwarded-away", "carol@other.test", "carol@other.test", GRANTED, "mailbox carol@other.test"),
    ("alias", "alice@us.test", "sales@us.test", GRANTED, "alias sales@us.test"),
    ("alias-second-goto", "bob@us.test", "sales@us.test", GRANTED, "alias sales@us.test"),
    ("alias-of-others", "o'brien@us.test", "sales@us.test", DENIED, "alias sales@us.test"),
    ("alias-tag", "alice@us.test", "sales+spring@us.test", GRANTED, "alias sales@us.test"),
    ("alias-spaces", "alice@us.test", "spaced@us.test", GRANTED, "alias spaced@us.test"),
    ("alias-of-alias", "alice@us.test", "team@us.test", GRANTED, "alias team@us.test, by way of 1 more"),
    ("alias-by-forward", "alice@us.test", "byforward@us.test", DENIED, "alias byforward@us.test"),
    ("alias-to-mailbox-tag", "alice@us.test", "tagged@us.test", GRANTED, "alias tagged@us.test"),
    # A tag in what an alias goes to: as Postfix delivers, the entry of the address with it goes before the other.
    ("alias-to-tag-with-own-entry", "alice@us.test", "toown@us.test", DENIED, "alias toown@us.test"),
    (
        "alias-to-tag-with-own-entry-2",
        "bob@us.test",
        "toown@us.test",
        GRANTED,
        "alias toown@us.test, by way of 1 more",
    ),
    ("alias-to-tag-in-alias-domain", "alice@us.test", "toalias@us.test", DENIED, "alias toalias@us.test"),
    (
        "alias-to-tag-in-alias-domain-2",
        "bob@us.test",
        "toalias@us.test",
        GRANTED,
        "alias toalias@us.test, by way of 2 more",
    ),
    ("alias-to-box-with-tag", "alice@us.test", "tobox@us.test", DENIED, "alias tobox@us.test"),
    ("alias-to-box-with-tag-2", "alice+box@us.test", "tobox@us.test", GRANTED, "alias tobox@us.test"),
    ("alias-to-alias-tag", "bob@us.test", "toteam@us.test", GRANTED, "alias toteam@us.test, by way of 2 more"),
    ("alias-away", "alice@us.test", "away@us.test", DENIED, "alias away@us.test"),
    ("alias-inactive", "alice@us.test", "sleeping@us.test", DENIED, "alias sleeping@us.test"),
    ("alias-inactive-catch-all", "bob@us.test", "sleeping@us.test", DENIED, "alias sleeping@us.test"),
    ("alias-in-other-tenant", "alice@us.test", "info@other.test", GRANTED, "alias info@other.test"),
    (
        "alias-goes-to-alias-domain",
        "alice@us.test",
        "viaalias@us.test",
        GRANTED,
        "alias viaalias@us.test, by way of 1 more",
    ),
    ("tag-with-own-entry", "alice@us.test", "alice+own@us.test", DENIED, "alias alice+own@us.test"),
    ("tag-with-own-entry-2", "bob@us.test", "alice+own@us.test", GRANTED, "alias alice+own@us.test"),
    (
        "alias-domain-own",
        "alice@us.test",
        "alice@alias.test",
        GRANTED,
        "mailbox alice@us.test, alias domain alias.test",
    ),
    (
        "alias-domain-alias",
        "bob@us.test",
        "sales@alias.test",
        GRANTED,
        "alias sales@us.test, alias domain alias.test",
    ),
    ("alias-domain-other", "alice@us.test", "bob@alias.test", DENIED, "mailbox bob@us.test, alias domain alias.test"),
    ("alias-domain-own-entry", "bob@us.test", "shop@alias.test", GRANTED, "alias shop@alias.test"),
    ("alias-domain-catch-all", "bob@us.test", "any@alias.test", GRANTED, "alias @us.test, alias domain alias.test"),
    ("alias-domain-inactive", "alice@us.test", "alice@off.test", UNKNOWN, ""),
    ("catch-all", "bob@us.test", "anything@us.test", GRANTED, "alias @us.test"),
    ("catch-all-of-others", "alice@us.test", "anything@us.test", DENIED, "alias @us.test"),
    ("catch-all-not-for-mailboxes", "bob@us.test", "alice@us.test", DENIED, "mailbox alice@us.test"),
    ("catch-all-not-for-inactive", "bob@us.test", "gone@us.test", DENIED, "mailbox gone@us.test"),
    ("catch-all-inactive", "carol@other.test", "anything@other.test", UNKNOWN, ""),
    ("inactive-login", "gone@us.test", "gone@us.test", DENIED, "mailbox gone@us.test"),
    ("inactive-login-alias", "gone@us.test", "formerly@us.test", DENIED, "mailbox gone@us.test"),
    ("inactive-address", "alice@us.test", "gone@us.test", DENIED, "mailbox gone@us.test"),
    ("inactive-domain", "dave@closed.test", "dave@closed.test", DENIED, "domain closed.test"),
    ("inactive-domain-of-login", "dave@closed.test", "sales@us.test", DENIED, "domain closed.test"),
    ("unknown-domain", "alice@us.test", "x@example.com", UNKNOWN, ""),
    ("unknown-login", "stranger", "sales@us.test", DENIED, "alias sales@us.test"),
    ("login-without-domain", "alice", "alice@us.test", DENIED, "mailbox alice@us.test"),
    ("circle", "alice@us.test", "circle1@us.test", DENIED, "alias circle1@us.test"),
    ("quote", "o'brien@us.test", "o'brien@us.test", GRANTED, "mailbox o'brien@us.test"),
    ("quote-injected", "x' OR '1'='1@us.test", "alice@us.test", DENIED, "mailbox alice@us.test"),
    ("wildcard-underscore", "us_er@us.test", "us_er@us.test", GRANTED, "mailbox us_er@us.test"),
    ("wildcard-as-login", "%@us.test", "alice@us.test", DENIED, "mailbox alice@us.test"),
    ("wildcard-underscore-as-login", "a_ice@us.test", "alice@us.test", DENIED, "mailbox alice@us.test"),
    ("star-as-login", "*@us.test", "alice@us.test", DENIED, "mailbox alice@us.test"),
    ("backslash-login", "alice\\@us.test", "alice@us.test", DENIED, "mailbox alice@us.test"),
    ("pipe-and-path-login", "|../../etc/passwd@us.test", "alice@us.test", DENIED, "mailbox alice@us.test"),
    ("trailing-space-login", "alice @us.test", "alice@us.test", DENIED, "mailbox alice@us.test"),
    ("umlaut", "müller@us.test", "müller@us.test", GRANTED, "mailbox müller@us.test"),
    ("umlaut-case", "MÜLLER@us.test", "müller@us.test", GRANTED, "mailbox müller@us.test"),
    ("umlaut-nfd", "mu\u0308ller@us.test", "müller@us.test", GRANTED, "mailbox müller@us.test"),
    ("umlaut-lax-collation", "muller@us.test", "müller@us.test", DENIED, "mailbox müller@us.test"),
    ("full-width", "\uff41lice@us.test", "alice@us.test", DENIED, "mailbox alice@us.test"),
    ("cyrillic", "\u0430lice@us.test", "alice@us.test", DENIED, "mailbox alice@us.test"),
]


@pytest.mark.attack("L01", "L07", "L09", "L11", "L16")
@pytest.mark.parametrize(
    ("login", "address", "status", "rule"), [each[1:] for each in CASES], ids=[each[0] for each in CASES]
)
def test_may_use(source: PostfixAdmin, login: str, address: str, status: PermissionStatus, rule: str) -> None:
    said = ask(source, login, address)
    assert (said.status, said.rule) == (status, rule), said
    assert said.source == "postfixadmin"
    assert said.asked
    assert all("%s" in each.statement or "?" in each.statement for each in said.asked)
    if status is not GRANTED:
        assert said.reason


def test_forwards_count_if_they_are_told_to(access: DatabaseAccess) -> None:
    source = PostfixAdmin(Database(access, deadline_s=AMPLE_S), rules=LoginRules(), delimiters="+", forwards=True)
    for login, address, status in (
        ("alice@us.test", "bob@us.test", GRANTED),
        ("bob@us.test", "bob@us.test", GRANTED),
        ("alice@us.test", "carol@other.test", GRANTED),
        ("carol@other.test", "carol@other.test", GRANTED),
        ("alice@us.test", "byforward@us.test", GRANTED),
        ("bob@us.test", "alice@us.test", DENIED),
        ("alice@us.test", "half@us.test", DENIED),
        ("alice@us.test", "viahalf@us.test", DENIED),
    ):
        assert ask(source, login, address).status is status, (login, address)
    source.close()


def test_without_delimiter_a_tag_is_part_of_the_name(access: DatabaseAccess) -> None:
    source = PostfixAdmin(Database(access, deadline_s=AMPLE_S), rules=LoginRules())
    assert ask(source, "alice@us.test", "alice+shop@us.test").rule == "alias @us.test"
    assert ask(source, "alice@us.test", "tagged@us.test").status is DENIED
    source.close()


def test_logins_without_domain(access: DatabaseAccess) -> None:
    rules = LoginRules(default_domain=Domain.parse("us.test"))
    source = PostfixAdmin(Database(access, deadline_s=AMPLE_S), rules=rules)
    assert ask(source, "alice", "sales@us.test").is_granted
    source.close()


def test_everyone(source: PostfixAdmin) -> None:
    everyone = source.everyone()
    assert everyone.status is ListingStatus.LISTED
    reach = {name: {grant.what for grant in grants} for name, grants in everyone.accounts.items()}
    assert reach["alice@us.test"] == {
        *("alice@us.test", "alice@alias.test", "info@other.test"),
        *(
            f"{name}@{domain}"
            for name in ("sales", "spaced", "team", "tagged", "toteam", "viaalias")
            for domain in ("us.test", "alias.test")
        ),
    }
    assert reach["bob@us.test"] >= {"bob@us.test", "@us.test", "@alias.test", "shop@alias.test", "alice+own@us.test"}
    assert "sleeping@us.test" not in reach["alice@us.test"]
    assert reach["carol@other.test"] == {"carol@other.test", "byforward@us.test", "byforward@alias.test"}
    assert "gone@us.test" not in reach
    assert "dave@closed.test" not in reach
    homes = {grant.what: grant.domain for grant in everyone.accounts["alice@us.test"]}
    assert homes["alice@alias.test"] == "us.test"
    assert homes["info@other.test"] == "other.test"
    listed = source.addresses(login_of("Alice@us.test"))
    assert {grant.what for grant in listed.accounts["Alice@us.test"]} == reach["alice@us.test"]


@pytest.mark.parametrize("forwards", [False, True])
def test_what_is_listed_is_granted_and_what_is_granted_is_listed(access: DatabaseAccess, forwards: bool) -> None:
    """For every login, and for every address that is anywhere in the tables or in the cases above."""
    source = PostfixAdmin(Database(access, deadline_s=AMPLE_S), rules=LoginRules(), delimiters="+", forwards=forwards)
    addresses = {address for _, _, address, _, _ in CASES} | {name for name in ALIASES if not name.startswith("@")}
    listing = source.everyone().accounts
    for login in (*MAILBOXES, "stranger@us.test"):
        what = {grant.what for grant in listing.get(login, ())}
        for text in sorted(addresses):
            said = ask(source, login, text)
            exact = address_of(text).folded
            bare = without_tag(address_of(text), "+")
            catch_all = said.rule.startswith("alias @")
            listed = (
                f"@{address_of(text).domain}" in what
                if catch_all
                else exact in what or (said.is_granted and bare is not None and bare.folded in what)
            )
            assert said.is_granted == listed, (login, text, said)
    source.close()


@pytest.mark.attack("L16")
def test_how_far_aliases_are_followed(server: Server) -> None:
    rows = list(schema(server.dialect))
    aliases = {f"chain{number}@us.test": f"chain{number + 1}@us.test" for number in range(20)}
    aliases["chain20@us.test"] = "alice@us.test"
    aliases["wide@us.test"] = ",".join(f"w{number}@us.test" for number in range(3000)) + ",alice@us.test"
    aliases["deepwide@us.test"] = ",".join(f"x{number}@us.test" for number in range(1100))
    aliases["x5@us.test"] = "alice@us.test"
    aliases["self@us.test"] = "self@us.test"
    aliases["widetags@us.test"] = ",".join(f"w+{number}@us.test" for number in range(3000)) + ",alice@us.test"
    rows.append(mailbox(server.dialect, "alice@us.test"))
    rows += [alias_row(server.dialect, name, goto) for name, goto in aliases.items()]
    database = Database(server.create("chains", rows), deadline_s=AMPLE_S)
    source = PostfixAdmin(database, rules=LoginRules(), delimiters="+")
    for text, status in (
        ("chain20@us.test", GRANTED),
        ("chain12@us.test", GRANTED),
        ("chain11@us.test", GRANTED),
        ("chain10@us.test", DENIED),
        ("wide@us.test", GRANTED),
        ("deepwide@us.test", DENIED),
        ("self@us.test", DENIED),
        ("widetags@us.test", GRANTED),
    ):
        assert ask(source, "alice@us.test", text).status is status, text
    assert source.everyone().status is ListingStatus.LISTED
    source.close()


def test_a_host_with_more_accounts_than_an_answer_may_have_rows_can_be_listed(server: Server) -> None:
    names = [f"u{number}@us.test" for number in range(MAX_ROWS + 1)]
    rows = [*schema(server.dialect), *(mailbox(server.dialect, name) for name in names)]
    rows += [alias_row(server.dialect, f"a{name}", name) for name in names]
    source = PostfixAdmin(Database(server.create("large", rows), deadline_s=AMPLE_S), rules=LoginRules())
    listed = source.everyone()
    assert {name: [grant.what for grant in grants] for name, grants in listed.accounts.items()} == {
        name: [name, f"a{name}"] for name in names
    }, listed.reason
    source.close()


def test_more_mailboxes_than_can_be_listed(source: PostfixAdmin, monkeypatch: pytest.MonkeyPatch) -> None:
    """The database is there and answers: who tries it again gets nothing else."""
    monkeypatch.setattr("mailguard.senders.postfixadmin_tables.MAX_ACCOUNTS", 1)
    listed = source.everyone()
    assert (listed.status, listed.accounts) == (ListingStatus.UNLISTABLE, {})
    assert "too many to list; mailguard senders test asks for one" in listed.reason
    assert ask(source, "alice@us.test", "sales@us.test").is_granted


def test_a_table_prefix(server: Server) -> None:
    access = server.create("prefixed", statements(server.dialect, "pa_"))
    source = PostfixAdmin(Database(access, deadline_s=AMPLE_S), rules=LoginRules(), table_prefix="pa_")
    said = ask(source, "alice@us.test", "sales@us.test")
    assert said.is_granted
    assert all("pa_" in each.statement for each in said.asked)
    source.close()
    missing = PostfixAdmin(Database(access, deadline_s=AMPLE_S), rules=LoginRules())
    said = ask(missing, "alice@us.test", "sales@us.test")
    assert said.status is UNAVAILABLE
    assert "alias_domain" in said.reason
    assert missing.everyone().status is ListingStatus.UNAVAILABLE
    missing.close()


def test_a_domain_that_goes_to_another_by_catch_all(server: Server) -> None:
    """How PostfixAdmin did alias domains before it had a table for them."""
    rows = list(schema(server.dialect))
    rows += [mailbox(server.dialect, "alice@us.test"), alias_row(server.dialect, "@old.test", "@us.test")]
    source = PostfixAdmin(Database(server.create("older", rows), deadline_s=AMPLE_S), rules=LoginRules())
    assert ask(source, "alice@us.test", "alice@old.test").is_granted
    assert ask(source, "alice@us.test", "bob@old.test").status is DENIED
    assert [grant.what for grant in source.everyone().accounts["alice@us.test"]] == [
        "alice@us.test",
        "alice@old.test",
    ]
    source.close()


@pytest.mark.attack("L01")
@pytest.mark.parametrize("server", ["sqlite", "postgresql"], indirect=True)
def test_two_mailboxes_that_differ_in_case_alone(server: Server) -> None:
    """MariaDB's collation takes both for one row."""
    rows = [*schema(server.dialect), *(mailbox(server.dialect, f"{name}@us.test") for name in ("alice", "Alice"))]
    rows.append(alias_row(server.dialect, "boss@us.test", "Alice@us.test"))
    rows.append(alias_row(server.dialect, "all@us.test", "boss@us.test"))
    source = PostfixAdmin(Database(server.create("cases", rows), deadline_s=AMPLE_S), rules=LoginRules())
    listing = source.everyone().accounts
    for login in ("alice@us.test", "Alice@us.test"):
        for address in ("alice@us.test", "Alice@us.test", "boss@us.test", "all@us.test"):
            is_own = address == login or (login == "Alice@us.test" and "lice" not in address)
            assert ask(source, login, address).is_granted == is_own, (login, address)
            assert (address in {grant.what for grant in listing[login]}) == is_own, (login, address)
    assert ask(source, "ALICE@us.test", "boss@us.test").status is DENIED
    source.close()


@pytest.mark.attack("V15")
def test_bits_for_booleans(mariadb: MariaDb) -> None:
    wider = [f"ALTER TABLE {table} MODIFY active bit(1) NOT NULL" for table in ("domain", "mailbox", "alias")]
    access = mariadb.create("bits", [*statements(Dialect.MYSQL), *wider])
    source = PostfixAdmin(Database(access, deadline_s=AMPLE_S), rules=LoginRules())
    assert ask(source, "alice@us.test", "sales@us.test").is_granted
    for login, address in (("alice@us.test", "sleeping@us.test"), ("gone@us.test", "gone@us.test")):
        assert ask(source, login, address).status is DENIED
    source.close()
