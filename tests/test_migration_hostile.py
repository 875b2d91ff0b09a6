"""Configurations that nobody meant well with: never a crash, never for long, and what cannot be read is said."""

from __future__ import annotations

import os
import time
import tomllib

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mailguard.errors import ConfigError
from mailguard.migration.importing import PROGRAMS, import_files
from mailguard.migration.note import NoteKind
from mailguard.migration.option_lines import MAX_INCLUDES_DEEP, MAX_LINE_CHARS
from mailguard.migration.text_files import MAX_FILE_BYTES
from mailguard.toml_text import comment, toml_text
from migration_site import Site, at, configuration, migration_site, said

__all__ = ["migration_site"]

SIGNING = "Domain one.test\nSelector s\nKeyFile @/a.private\nInternalHosts 192.0.2.1\n"
TABLES = "KeyTable file:@/KeyTable\nSigningTable refile:@/SigningTable\nInternalHosts 192.0.2.1\n"
OCTETS = {
    "nothing": b"",
    "blank": b"\n \t\n\r\n",
    "NUL": b"Domain one.test\0two.test\nSelector \0\n",
    "not UTF-8": b"Domain \xff\xfe.test\nSelector s\n",
    "binary": bytes(range(256)) * 400,
    "one long line": b"Domain " + b"a" * 1_000_000,
    "no values": b"Domain\nSelector\n=\n= =\n",
    "many lines": b"x y\n" * 200_000,
    "many names": b"".join(b"n%d = v\n" % number for number in range(100_000)),
    "escapes": b"\x1b[31mDomain red\x07\n\x1b]0;title\x07 = x\n",
    "line separators": "Domain one.test\u2028Selector s\x0bKeyFile /x\n".encode(),
    "right to left": "Domain \u202etset.eno\nAuthserv_Id = \u202eabc\n".encode(),
}


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("name", OCTETS)
def test_octets_of_any_kind(migration_site: Site, program: str, name: str) -> None:
    began = time.monotonic()
    imported = migration_site.imported_from({program: OCTETS[name]})
    assert configuration(imported)["mode"] == "monitor"
    assert all(character == "\n" or character.isprintable() for character in imported.text)
    assert all(str(note).isprintable() for note in imported.notes)
    assert len(imported.notes) < 500
    assert time.monotonic() - began < 30


def test_a_line_that_is_too_long(migration_site: Site) -> None:
    imported = migration_site.imported(opendmarc=f"AuthservID a{' ' * MAX_LINE_CHARS}\n")
    assert at(imported, "authserv_id") is None
    assert any("more than 4096 characters" in text for text in said(imported, NoteKind.BROKEN))


def test_a_comment_stays_one() -> None:
    assert comment("a\nb\u2028c\x7f") == "# a?b?c?"


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("what", ["missing", "directory", "fifo", "device", "10 MB", "NUL", "loop", "empty name"])
def test_a_configuration_that_cannot_be_read(migration_site: Site, program: str, what: str) -> None:
    path = str(unreadable(migration_site, what))
    with pytest.raises(ConfigError, match="cannot be read"):
        import_files({program: path})


def unreadable(site: Site, what: str) -> str:
    path = site.directory / "unreadable"
    if what == "directory":
        path.mkdir()
    elif what == "fifo":
        os.mkfifo(path)
    elif what == "device":
        return "/dev/zero"
    elif what == "10 MB":
        site.write("unreadable", b"x y\n" * (MAX_FILE_BYTES // 4 + 1))
    elif what == "NUL":
        return f"{path}\0"
    elif what == "loop":
        path.symlink_to(path)
    elif what == "empty name":
        return ""
    return str(path)


@pytest.mark.parametrize("option", ["KeyTable", "SigningTable", "InternalHosts", "PeerList", "KeyFile", "Domain"])
@pytest.mark.parametrize("what", ["missing", "directory", "fifo", "device", "10 MB", "loop"])
def test_a_table_that_cannot_be_read(migration_site: Site, option: str, what: str) -> None:
    migration_site.key("a.private")
    migration_site.write("KeyTable", "one one.test:s:@/a.private\n")
    migration_site.write("SigningTable", "*@one.test one\n")
    before = SIGNING if option in ("KeyFile", "Domain") else TABLES
    imported = migration_site.imported(opendkim=f"{before}{option} {unreadable(migration_site, what)}\n")
    path = "/dev/zero" if what == "device" else f"{migration_site.directory}/unreadable"
    assert any(path in text for text in said(imported, NoteKind.DECIDE))


@pytest.mark.parametrize("what", ["fifo", "device", "missing"])
def test_hosts_of_opendmarc_that_cannot_be_read(migration_site: Site, what: str) -> None:
    imported = migration_site.imported(opendmarc=f"IgnoreHosts {unreadable(migration_site, what)}\n")
    assert any("cannot be read" in text for text in said(imported, NoteKind.DECIDE))


def test_files_that_include_each_other(migration_site: Site) -> None:
    migration_site.write("other.conf", f"Include {migration_site.directory}/opendkim.conf\nSelector deep\n")
    imported = migration_site.imported(opendkim="Include @/other.conf\nInclude @/missing.conf\n")
    assert any("includes itself" in text for text in said(imported, NoteKind.BROKEN))
    assert any("missing.conf cannot be read" in text for text in said(imported, NoteKind.BROKEN))


def test_files_as_deep_as_opendkim_reads_them(migration_site: Site) -> None:
    for depth in range(MAX_INCLUDES_DEEP):
        migration_site.write(f"{depth}.conf", f"Include @/{depth + 1}.conf\n")
    migration_site.write(f"{MAX_INCLUDES_DEEP}.conf", "AuthservID deepest.test\n")
    # opendkim.conf is the first; five levels below it are read.
    assert at(migration_site.imported(opendkim="Include @/1.conf\n"), "authserv_id") == "deepest.test"
    assert at(migration_site.imported(opendkim="Include @/0.conf\n"), "authserv_id") is None


def test_an_avalanche_of_includes(migration_site: Site) -> None:
    text = "".join(f"Include @/{number}.conf\n" for number in range(200))
    for number in range(200):
        migration_site.write(f"{number}.conf", text)
    began = time.monotonic()
    imported = migration_site.imported(opendkim=text)
    assert time.monotonic() - began < 20
    assert any("too many files" in text for text in said(imported, NoteKind.BROKEN))


@pytest.mark.parametrize("line_end", [b"\r\n", b"\r", b"\n"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf# before a comment\n"])
def test_line_ends_and_byte_order_marks(migration_site: Site, line_end: bytes, mark: bytes) -> None:
    migration_site.key("a.private")
    place = str(migration_site.directory).encode()
    for name, text in (
        ("opendkim.conf", TABLES.encode()),
        ("KeyTable", b"one one.test:s:@/a.private\n"),
        ("SigningTable", b"*@one.test one\n"),
    ):
        migration_site.write(name, mark + text.replace(b"@/", place + b"/").replace(b"\n", line_end))
    imported = import_files({"opendkim": f"{migration_site.directory}/opendkim.conf"})
    (selector,) = at(imported, 'domains."one.test".selectors')
    assert selector == {"name": "s", "key_file": f"{migration_site.directory}/a.private"}
    assert not said(imported, NoteKind.BROKEN)


@pytest.mark.parametrize(
    ("program", "text", "words"),
    [
        ("opendkim", "\ufeffMode s\nSyslog yes\n", "Mode s, which makes it no option"),
        ("opendkim", "InternalHosts @/hosts\n", "192.0.2.1, which makes it no entry"),
        ("opendmarc", "IgnoreHosts @/hosts\n", "192.0.2.1, which makes it no entry"),
        ("policyd-spf", "\ufeffHELO_reject = No_Check\n", "HELO_reject = No_Check, which makes it no option"),
    ],
)
def test_what_a_byte_order_mark_is_before(migration_site: Site, program: str, text: str, words: str) -> None:
    """To none of the programs is it there, and so it does not come over."""
    migration_site.write("hosts", "\ufeff192.0.2.1\n192.0.2.2\n")
    imported = migration_site.imported_from({program: text.replace("@/", f"{migration_site.directory}/")})
    assert [note for note in said(imported, NoteKind.BROKEN) if f"a byte order mark is before {words}" in note]
    assert at(imported, "listeners") is None
    assert at(imported, "spf") is None
    networks = at(imported, "policy.internal_networks") or []
    assert "192.0.2.1/32" not in networks
    assert ("192.0.2.2/32" in networks) == ("@/hosts" in text)


def test_a_line_is_named_where_it_stands(migration_site: Site) -> None:
    migration_site.write("KeyTable", "# keys\n\nbroken\nalso a:b\n  third\t: : \n")
    migration_site.write("SigningTable", "*@a.test broken # no key\n")
    imported = migration_site.imported(opendkim=f"\n{TABLES}Nonsense\nColour  red  # comment\n")
    texts = "\n".join(said(imported, NoteKind.BROKEN))
    assert f"{migration_site.directory}/opendkim.conf:5: Nonsense has no value" in texts
    assert f"{migration_site.directory}/opendkim.conf:6: Colour: OpenDKIM has no such option" in texts
    for line in (3, 4, 5):
        assert f"{migration_site.directory}/KeyTable:{line}: KeyTable: " in texts
    assert f'{migration_site.directory}/SigningTable:1: SigningTable: the key "broken" is not in KeyTable' in texts


@pytest.mark.parametrize(
    ("keys", "signing"),
    [
        ("k%d d%d.test:s:@/a.private\n", "*@d%d.test k%d\n"),
        ("k%d d%d.test:s:@/a.private\n", "*@*.d%d.test k%d\n"),
        ("k%d d%d.test:s:@/nothing%d\n", "*mail*%d.test k%d\n"),
        ("k%d d%d.test:s:@/nothing%d\n", "user%d@d%d.test k1\n"),
    ],
    ids=["domains", "subdomains", "odd patterns", "users"],
)
def test_large_tables(migration_site: Site, keys: str, signing: str) -> None:
    migration_site.key("a.private")
    count = 10_000

    def rows(row: str) -> str:
        return "".join(row.replace("%d", str(number)) for number in range(count))

    migration_site.write("KeyTable", rows(keys))
    migration_site.write("SigningTable", rows(signing) + "* k1\n")
    began = time.monotonic()
    imported = migration_site.imported(opendkim=TABLES)
    # About two seconds, most of it for reading and checking the TOML.
    assert time.monotonic() - began < 60
    assert len(imported.notes) < 500


def test_names_of_very_many_labels(migration_site: Site) -> None:
    migration_site.key("a.private")
    deep = ".".join("a" * 120)
    migration_site.write("KeyTable", "".join(f"k{n} {deep}.d{n}.test:s:@/a.private\n" for n in range(1000)))
    migration_site.write(
        "SigningTable", "".join(f"*@{deep}.d{n}.test k{n}\n*@*.{deep}.d{n}.test k{n}\n" for n in range(1000))
    )
    assert len(configuration(migration_site.imported(opendkim=TABLES))["domains"]) == 1000


def test_many_hosts(migration_site: Site) -> None:
    migration_site.key("a.private")
    hosts = "".join(f"10.{n // 256 % 256}.{n % 256}.0/25\n!10.{n // 256 % 256}.{n % 256}.7\n" for n in range(30_000))
    migration_site.write("hosts", f"{hosts}not a host\n-\n")
    began = time.monotonic()
    imported = migration_site.imported(opendkim=f"{SIGNING}InternalHosts refile:@/hosts\n")
    assert time.monotonic() - began < 60
    assert any("exceptions" in text or "is not read" in text for text in said(imported, NoteKind.DECIDE))


WORDS = """
    Domain Selector KeyFile KeyTable SigningTable InternalHosts PeerList Mode AuthservID HELO_reject Whitelist
    Domain_Whitelist IgnoreMailFrom TrustedAuthservIDs Nameservers Canonicalization SubDomains Socket UMask UserID
    SignatureTTL MTA MacroList yes one.test *@one.test % * csl: refile: file: @/t k=one.test:s:@/a.private = ,
    .one.test
    user@one.test !10.0.0.0/8 10.0.0.0/8 ::1 reject 0 # : \\ ' "
"""


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_whatever_stands_there(migration_site: Site, data: st.DataObject) -> None:
    words = st.sampled_from(WORDS.split())
    text = st.lists(st.one_of(words, st.text(max_size=8), st.just("\n"))).map(" ".join)
    migration_site.write("t", data.draw(text).encode("utf-8", "replace"))
    texts = {name: data.draw(text).encode("utf-8", "replace") for name in PROGRAMS}
    imported = migration_site.imported_from(texts)
    assert configuration(imported)["mode"] == "monitor"


TEXT = st.text(st.characters(codec="utf-8"), max_size=8)
VALUES = st.recursive(
    st.booleans() | st.integers(-(2**62), 2**62) | TEXT | st.lists(st.booleans() | TEXT, max_size=3),
    lambda inner: (
        st.dictionaries(TEXT, inner, max_size=3)
        | st.lists(st.dictionaries(TEXT, inner, max_size=2), min_size=1, max_size=2)
    ),
    max_leaves=8,
)


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(TEXT, VALUES, max_size=4))
def test_toml_is_read_back_as_it_was(value: dict[str, object]) -> None:
    assert tomllib.loads(toml_text(value)) == value
