"""KeyTable and SigningTable as [domains]: whose mail is signed, with which keys, and what cannot be said so."""

from __future__ import annotations

import pytest

from mailguard.migration.importing import Imported
from mailguard.migration.note import NoteKind
from migration_site import Site, configuration, migration_site, said

__all__ = ["migration_site"]

KEYS = """
# name  domain:selector:file
one one.test:s1:@/keys/a.private
ONE two.test:s2:@/keys/a.private   # another name
two two.test:s2:@/keys/a.private
any %:sp:@/keys/a.private
far provider.test:s9:@/keys/a.private
third.test third.test:s3:@/keys/a.private
uno one.test:s1b:@/keys/a.private
each %:sk:@/keys/%.each.private
"""


def tables(site: Site, key_table: str, signing_table: str, *, kind: str = "refile", extra: str = "") -> Imported:
    for name in ("a", "one.test.each", "x.one.test.each", "two.test.each", "five.test.each"):
        site.key(f"keys/{name}.private")
    site.write("KeyTable", key_table)
    site.write("SigningTable", signing_table)
    text = f"KeyTable file:@/KeyTable\nSigningTable {kind}:@/SigningTable\nInternalHosts 192.0.2.1\n{extra}"
    return site.imported(opendkim=text)


def signed(imported: Imported) -> str:
    """DOMAIN:SELECTOR of each key; + where subdomains are signed too."""
    found = configuration(imported).get("domains", {})
    return " ".join(
        f"{domain}:{each['name']}{'+' if rule.get('subdomains') else ''}"
        for domain, rule in found.items()
        for each in rule["selectors"]
    )


TABLE = [
    # id, type, extra options, signing table, what is signed, a word of what has to be decided
    ("one domain", "refile", "", "*@one.test one", "one.test:s1", ""),
    ("case", "refile", "", "*@ONE.Test one", "one.test:s1", ""),
    ("names of keys have case", "refile", "", "*@two.test ONE", "two.test:s2", ""),
    ("percent", "refile", "", "*@four.test any", "four.test:sp", ""),
    ("key of the domain's name", "refile", "", "*@third.test %", "third.test:s3", ""),
    ("key of every domain's name", "refile", "", "* %", "third.test:s3", ""),
    ("subdomains", "refile", "", "*@one.test one\n*@*.one.test one", "one.test:s1+", ""),
    ("subdomains alone", "refile", "", "*@*.one.test one", "one.test:s1+", "one.test itself"),
    ("one subdomain", "refile", "", "*@a.one.test one", "one.test:s1+", "all subdomains of one.test"),
    ("below, another key", "refile", "", "*@one.test one\n*@*.one.test uno", "one.test:s1+", "not s1b as before"),
    ("below, no key", "refile", "", "*@one.test one\n*@*.one.test one1", "one.test:s1", "one1"),
    ("ending", "refile", "", "*one.test one", "one.test:s1+", ""),
    ("ending after @", "refile", "", "*@*one.test one", "one.test:s1+", ""),
    ("below first, ending last", "refile", "", "*@*.one.test far\n*@*one.test one", "one.test:s1", "d=provider.test"),
    ("the first counts", "refile", "", "*@one.test far\n*@one.test one", "", "d=provider.test"),
    ("everybody comes first", "refile", "", "* far\n*@one.test one", "provider.test:s9", "every dom"),
    ("everybody comes last", "refile", "", "*@one.test one\n* far", "one.test:s1 provider.test:s9", "every domain"),
    ("several", "refile", "MultipleSignatures yes", "*@one.test one\n* far", "one.test:s1 provider.test:s9", "every"),
    (
        "everybody, one key",
        "refile",
        "",
        "* any",
        "one.test:sp two.test:sp provider.test:sp third.test:sp",
        "had one key",
    ),
    ("subdomains, a key each", "refile", "", "*@*.one.test each", "x.one.test:sk", "1 domains have such a key now"),
    ("an end, a key each", "refile", "", "*one.test each", "one.test:sk x.one.test:sk", "1 domains have"),
    ("one of them otherwise", "refile", "", "*@x.one.test far\n*@*.one.test each", "", "d=provider.test"),
    ("a user", "refile", "", "bob@one.test one", "", "for all its users"),
    ("a user and his domain", "refile", "", "bob@one.test far\n*@one.test one", "one.test:s1", "users"),
    ("another domain", "refile", "", "*@five.test far", "", "d=provider.test"),
    ("a pattern within", "refile", "", "*@mail*.one.test one", "", "name the domains"),
    ("a pattern with the @ in it", "refile", "", "bob* one", "", "name the domains"),
    ("no such key", "refile", "", "*@one.test nothing", "", '"nothing" is not in KeyTable'),
    ("no key", "refile", "", "*@one.test", "", "name of a key is missing"),
    ("two words", "refile", "", "*@one.test one two", "", '"one two" is not in KeyTable'),
    ("no domain", "refile", "", "*@-bad-.test one", "", "name the domains"),
    ("no @", "refile", "", "one.test one", "", "never fits"),
    ("empty", "refile", "", "# nothing\n\n", "", "nothing is signed"),
    ("domain", "file", "", "one.test one", "one.test:s1", ""),
    ("dot", "file", "", "one.test one\n.one.test one", "one.test:s1+", ""),
    ("dot alone", "file", "", ".one.test one", "one.test:s1+", "one.test itself"),
    ("the first of equals", "file", "MultipleSignatures yes", "two.test two\ntwo.test far", "two.test:s2", ""),
    ("the more precise", "file", "", "* far\none.test one", "one.test:s1 provider.test:s9", "every domain"),
    ("a user in a table", "file", "", "bob@one.test one\none.test one", "one.test:s1", "users"),
    ("a pattern in a table", "file", "", "*@one.test one", "", "never fits"),
]


@pytest.mark.parametrize(
    ("kind", "extra", "table", "wanted", "word"), [pytest.param(*row, id=name) for name, *row in TABLE]
)
def test_signing_tables(migration_site: Site, kind: str, extra: str, table: str, wanted: str, word: str) -> None:
    imported = tables(migration_site, KEYS, table, kind=kind, extra=extra)
    assert signed(imported) == wanted
    decisions = [*said(imported, NoteKind.DECIDE), *said(imported, NoteKind.BROKEN)]
    if word:
        assert any(word in text for text in decisions), decisions
    else:
        assert not [text for text in decisions if "Table" in text.partition(": ")[2]], decisions


@pytest.mark.parametrize("kind", ["", "file:", "refile:"])
def test_each_table_of_dkimpy_milter_has_patterns(migration_site: Site, kind: str) -> None:
    migration_site.key("keys/a.private")
    migration_site.write("KeyTable", KEYS)
    migration_site.write("SigningTable", "*@one.test one\nthird.test third.test\n*@two.test two\n")
    imported = migration_site.imported(dkimpy_milter=f"KeyTable @/KeyTable\nSigningTable {kind}@/SigningTable\n")
    assert signed(imported) == "one.test:s1 two.test:s2"
    assert any('"third.test" never fits' in text for text in said(imported, NoteKind.BROKEN))


def test_of_equal_keys_dkimpy_milter_knows_the_last(migration_site: Site) -> None:
    migration_site.key("keys/a.private")
    migration_site.write("KeyTable", f"{KEYS}one one.test:late:@/keys/a.private\n")
    migration_site.write("SigningTable", "*@two.test far\n*@one.test one\n*@two.test two\n")
    imported = migration_site.imported(dkimpy_milter="KeyTable @/KeyTable\nSigningTable @/SigningTable\n")
    assert signed(imported) == "two.test:s2 one.test:late"
    told = [text for text in said(imported, NoteKind.BROKEN) if "this, the last, counts" in text]
    assert [text.split(": ")[1] for text in told] == ["KeyTable", "SigningTable"]


def test_a_domain_below_another_with_dkimpy_milter(migration_site: Site) -> None:
    """With SubDomains it signs with d= that above it: the other name may have no record."""
    migration_site.key("keys/a.private")
    lines = "Domain x.one.test,one.test,one.test.test\nSelector s\nKeyFile @/keys/a.private\n"
    assert signed(migration_site.imported(dkimpy_milter=lines)) == "x.one.test:s one.test:s one.test.test:s"
    imported = migration_site.imported(dkimpy_milter=f"{lines}SubDomains yes\n")
    assert signed(imported) == "one.test:s+ one.test.test:s+"
    assert signed(migration_site.imported(opendkim=f"{lines}SubDomains yes\n")).startswith(
        "x.one.test:s+ one.test:s+"
    )


def test_an_indented_line_of_a_pattern_file(migration_site: Site) -> None:
    """OpenDKIM drops it; dkimpy-milter does not."""
    table = "*@one.test one\n\t*@two.test two\n *@four.test any\n"
    imported = tables(migration_site, KEYS, table)
    assert signed(imported) == "one.test:s1"
    told = [text for text in said(imported, NoteKind.BROKEN) if "white space is before it" in text]
    assert [text.partition("SigningTable:")[2][:1] for text in told] == ["2", "3"]
    text = "KeyTable file:@/KeyTable\nSigningTable refile:@/SigningTable\n"
    assert signed(migration_site.imported(dkimpy_milter=text)) == "one.test:s1 two.test:s2 four.test:sp"


def test_a_name_that_is_there_twice(migration_site: Site) -> None:
    imported = tables(migration_site, f"{KEYS}one one.test:late:@/keys/a.private\n", "*@one.test one")
    assert signed(imported) == "one.test:s1"
    assert any('KeyTable: "one" is at ' in text for text in said(imported, NoteKind.BROKEN))


def test_a_selector_that_is_there_twice(migration_site: Site) -> None:
    keys = "a one.test:s:@/keys/a.private\nb one.test:s:@/keys/b.private\n"
    several = "MultipleSignatures yes"
    imported = tables(migration_site, keys, "one.test a\n* b", kind="file", extra=several)
    assert signed(imported) == "one.test:s"
    assert any("has the selector s at" in text for text in said(imported, NoteKind.BROKEN))
