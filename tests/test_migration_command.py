"""`mailguard import`: what is asked of it, what it prints and stores, and how it ends."""

from __future__ import annotations

import base64
import errno
import json
import os
import shutil
import socket
import stat
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

from cli_process import Command
from mailguard.config import load
from mailguard.dkim.signing_key import KeyPermissions, SigningKey, generate_rsa
from mailguard.migration.note import NoteKind
from migration_site import ED25519_KEY, KEY, Site, at, migration_site, public_migration_site, said

__all__ = ["migration_site", "public_migration_site"]

IS_ROOT = os.geteuid() == 0
ONE_KEY = (
    "Mode s\nDomain one.test\nSelector s\nKeyFile @/keys/a.private\nInternalHosts 192.0.2.1\nSignatureTTL 604800\n"
)
NOTHING_TO_DECIDE = "Mode s\nPidFile /run/opendkim.pid\n"


@pytest.fixture
def site(migration_site: Site) -> Site:
    migration_site.key("keys/a.private")
    migration_site.write("opendkim.conf", ONE_KEY)
    migration_site.write("signer.conf", NOTHING_TO_DECIDE)
    migration_site.write("opendmarc.conf", "RejectFailures true\nAuthservID mx.one.test\n")
    migration_site.write("policyd-spf.conf", "TestOnly = 0\nAuthserv_Id = other.test\n")
    return migration_site


def test_one_program(mailguard_command: Command, site: Site) -> None:
    done = mailguard_command("import", "opendkim=signer.conf")
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith("# From signer.conf, by mailguard import.\n#\n# Otherwise than before:\n")
    assert "\n# Left out, without an effect on mail:\n# - signer.conf:2: PidFile: " in done.out
    assert tomllib.loads(done.out)["listeners"] == [{"address": "unix:/run/mailguard/mailguard.sock", "role": "sign"}]
    assert mailguard_command("import", "opendkim", "signer.conf").out == done.out
    assert mailguard_command("import", "opendmarc=opendmarc.conf").code == 1


def test_several_programs(mailguard_command: Command, site: Site) -> None:
    done = mailguard_command(
        "import", "policyd-spf=policyd-spf.conf", "opendkim", "opendkim.conf", "opendmarc=opendmarc.conf"
    )
    assert (done.code, done.err) == (1, "")
    found = tomllib.loads(done.out)
    assert found["mode"] == "monitor"
    assert found["authserv_id"] == "mx.one.test"
    assert list(found["domains"]) == ["one.test"]
    assert found["policy"]["spf"]["fail"] == "reject"
    assert found["policy"]["dmarc"]["quarantine"] == "accept"
    assert "policyd-spf has other.test here, OpenDMARC mx.one.test; that is used" in done.out
    path = site.write("found.toml", done.out)
    assert load(path).authserv_id == "mx.one.test"


def test_json(mailguard_command: Command, site: Site) -> None:
    done = mailguard_command("import", "opendmarc=opendmarc.conf", "--json")
    said = json.loads(done.out)
    assert said["files"] == ["opendmarc.conf"]
    assert said["configuration"]["authserv_id"] == "mx.one.test"
    assert tomllib.loads(said["toml"]) == said["configuration"]
    (decision,) = [note for note in said["notes"] if note["kind"] == "decide"]
    assert (decision["file"], decision["line"], decision["option"]) == ("opendmarc.conf", 1, "RejectFailures")


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ([], 64, "Missing argument"),
        (["sendmail"], 64, '"sendmail" is none of dkimpy-milter, opendkim, opendmarc, policyd-spf'),
        (["opendkim", "a", "b"], 64, '"b" is none of'),
        (["opendkim=signer.conf", "opendkim=signer.conf"], 64, "opendkim is there twice"),
        (["opendkim="], 64, "opendkim= names no file"),
        (["opendkim=signer.conf", "--owner", "nobody"], 64, "give --copy-keys too"),
        (["opendkim=missing.conf"], 78, "missing.conf cannot be read: No such file or directory"),
        (["opendkim=keys"], 78, "keys cannot be read: it is not a regular file"),
        (["opendkim=signer.conf", "--output", "opendkim.conf"], 78, "is never overwritten"),
        (["opendkim=signer.conf", "--output", "nowhere/at/all"], 78, "cannot be written: No such file"),
        (["opendkim=opendkim.conf", "--copy-keys", "new", "--owner", "no-such-user"], 78, "no user no-such-user"),
    ],
)
def test_what_is_not_accepted(
    mailguard_command: Command, site: Site, arguments: list[str], code: int, words: str
) -> None:
    done = mailguard_command("import", *arguments)
    assert (done.code, done.out) == (code, "")
    assert words in done.err
    assert "Traceback" not in done.err
    assert not (site.directory / "new").exists()


def test_an_output_file(mailguard_command: Command, site: Site) -> None:
    printed = mailguard_command("import", "opendmarc=opendmarc.conf").out
    before = os.umask(0o077)
    try:
        done = mailguard_command("import", "opendmarc=opendmarc.conf", "--output", "mailguard.toml")
    finally:
        os.umask(before)
    assert done.code == 1
    # The daemon's user reads it.
    assert stat.S_IMODE((site.directory / "mailguard.toml").stat().st_mode) == 0o644
    lines = done.out.splitlines()
    assert lines[0].startswith("mailguard.toml is written; 1 of ")
    assert lines[1].startswith("  decide: opendmarc.conf:1: RejectFailures: ")
    assert (site.directory / "mailguard.toml").read_text() == printed
    assert not list(site.directory.glob("*.new"))
    done = mailguard_command("import", "opendmarc=opendmarc.conf", "--output", "mailguard.toml")
    assert done.code == 78
    assert (site.directory / "mailguard.toml").read_text() == printed
    assert not list(site.directory.glob("*.new"))


def test_a_disk_that_fails_leaves_no_output_file(
    mailguard_command: Command, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", broken)
    done = mailguard_command("import", "opendmarc=opendmarc.conf", "--output", "mailguard.toml")
    assert (done.code, done.err) == (78, "mailguard: mailguard.toml cannot be written: Input/output error\n")
    assert not list(site.directory.glob("mailguard.toml*"))


def test_a_file_that_comes_meanwhile_is_not_overwritten(
    mailguard_command: Command, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os.path, "lexists", lambda path: False)
    path = site.write("mailguard.toml", "theirs")
    done = mailguard_command("import", "opendmarc=opendmarc.conf", "--output", "mailguard.toml")
    assert (done.code, "is never overwritten" in done.err) == (78, True)
    assert path.read_text() == "theirs"
    assert not list(site.directory.glob("*.new"))


def test_the_files_of_debian(mailguard_command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without FILE: each program's own default, whether or not it is installed here."""
    places = {
        "opendkim": "/etc/opendkim.conf",
        "opendmarc": "/etc/opendmarc.conf",
        "policyd-spf": "/etc/postfix-policyd-spf-python/policyd-spf.conf",
        "dkimpy-milter": "/etc/dkimpy-milter/dkimpy-milter.conf",
    }
    for program, path in places.items():
        done = mailguard_command("import", program)
        assert path in (done.out if os.path.exists(path) else done.err)
        assert done.code in ((0, 1) if os.path.exists(path) else (78,))


# -- keys ---------------------------------------------------------------------------------------------------------


def copied(site: Site, mailguard_command: Command) -> Path:
    owner = ["--owner", "nobody"] if IS_ROOT else []
    done = mailguard_command("import", "opendkim=opendkim.conf", "--copy-keys", "new", *owner)
    assert done.code == 0, done.out + done.err
    (selector,) = tomllib.loads(done.out)["domains"]["one.test"]["selectors"]
    assert selector == {"name": "s", "key_file": str(site.directory / "new/one.test/s.pem")}
    if IS_ROOT:
        assert tomllib.loads(done.out)["user"] == "nobody"
    return Path(selector["key_file"])


def test_keys_are_copied(mailguard_command: Command, site: Site) -> None:
    path = copied(site, mailguard_command)
    assert path.read_bytes() == KEY
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert path.owner() == ("nobody" if IS_ROOT else path.parent.parent.parent.owner())
    # Once more: what is there is the same and stays.
    before = path.stat()
    assert copied(site, mailguard_command).stat() == before


def test_a_key_is_never_overwritten(mailguard_command: Command, site: Site) -> None:
    path = copied(site, mailguard_command)
    path.write_bytes(ED25519_KEY)
    owner = ["--owner", "nobody"] if IS_ROOT else []
    again = ["import", "opendkim=opendkim.conf", "--copy-keys", "new", *owner]
    done = mailguard_command(*again, "--output", "mailguard.toml")
    assert (done.code, "with another key, and is never overwritten" in done.err) == (78, True)
    assert path.read_bytes() == ED25519_KEY
    assert not (site.directory / "mailguard.toml").exists()
    path.unlink()
    path.symlink_to(site.directory / "keys/a.private")
    done = mailguard_command(*again)
    assert (done.code, "is in the way" in done.err) == (78, True)


def der(octets: bytes, form: PrivateFormat) -> str:
    key = load_pem_private_key(octets, password=None)
    return base64.b64encode(key.private_bytes(Encoding.DER, form, NoEncryption())).decode()


@pytest.mark.parametrize("form", [PrivateFormat.TraditionalOpenSSL, PrivateFormat.PKCS8])
def test_a_key_in_the_table(mailguard_command: Command, site: Site, form: PrivateFormat) -> None:
    site.write("KeyTable", f"k one.test:s:{der(KEY, form)}\nbad two.test:s:AAAA\n")
    site.write(
        "opendkim.conf",
        "KeyTable file:@/KeyTable\nSigningTable csl:one.test=k,two.test=bad\nInternalHosts 192.0.2.1\n",
    )
    done = mailguard_command("import", "opendkim=opendkim.conf")
    assert "domains" not in tomllib.loads(done.out)
    assert "KeyTable:1: the key of s._domainkey.one.test stands in the table itself" in done.out
    assert "KeyTable:2: the key of s._domainkey.two.test is left out: what stands in the table is neither" in done.out
    assert der(KEY, form) not in done.out
    done = mailguard_command("import", "opendkim=opendkim.conf", "--copy-keys", "new", "--owner", "nobody")
    assert done.code == 1
    path = site.directory / "new/one.test/s.pem"
    assert SigningKey.load(path, domain="one.test", selector="s", owner=path.stat().st_uid).record() == (
        SigningKey.from_bytes(KEY, domain="one.test", selector="s").record()
    )


def small_key() -> bytes:
    done = subprocess.run(["openssl", "genrsa", "-traditional", "768"], capture_output=True, check=True)
    return done.stdout


def as_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


FAULTS = [
    ("missing", lambda path: path.unlink(), "is left out: ", "No such file", False),
    ("junk", lambda path: path.write_bytes(b"-----BEGIN nothing"), "is left out: ", "no end", False),
    ("empty", lambda path: path.write_bytes(b""), "is left out: ", "neither PEM nor", False),
    ("too small", lambda path: path.write_bytes(small_key()), "is left out: ", "1024 to", False),
    ("too large", lambda path: path.write_bytes(KEY + b"\n" * 40_000), "is left out: ", "file with a key", False),
    ("directory", lambda path: (path.unlink(), path.mkdir()), "is left out: ", "not a file with a key", False),
    ("fifo", as_fifo, "is left out: ", "not a file with a key", False),
    ("world-readable", lambda path: path.chmod(0o644), "", "chmod 640 it", True),
    ("group-readable", lambda path: path.chmod(0o640), "", "", True),
    ("symbolic link", lambda path: (path.rename(f"{path}.1"), path.symlink_to(f"{path}.1")), "", "", True),
]  # fmt: skip


@pytest.mark.parametrize(
    ("change", "left_out", "words", "kept"), [pytest.param(*row, id=name) for name, *row in FAULTS]
)
def test_keys_that_cannot_be_used_as_they_are(
    mailguard_command: Command, site: Site, change: object, left_out: str, words: str, kept: bool
) -> None:
    path = site.directory / "keys/a.private"
    change(path)  # type: ignore[operator]
    done = mailguard_command("import", "opendkim=opendkim.conf")
    assert words in done.out
    assert left_out in done.out
    found = tomllib.loads(done.out)
    assert ("domains" in found) is kept
    if path.is_symlink():
        assert found["domains"]["one.test"]["selectors"][0]["key_file"] == f"{path}.1"
    if kept and path.stat().st_mode & 0o040:
        assert found["sign"]["key_permissions"] == "group"
    copy = mailguard_command(
        "import", "opendkim=opendkim.conf", "--copy-keys", "new", *(["--owner", "nobody"] if IS_ROOT else [])
    )
    assert (site.directory / "new/one.test/s.pem").exists() is kept
    assert copy.code == (0 if kept else 1)


def test_a_key_for_each_domain(mailguard_command: Command, site: Site) -> None:
    for domain in ("one.test", "two.test", "_.test"):
        site.key(f"keys/{domain}/mail.private", generate_rsa(1024))
    site.write("SigningTable", "*@* each\n")
    text = "KeyTable csl:each=%:mail:@/keys/%/mail.private\nSigningTable refile:@/SigningTable\n"
    text += "InternalHosts 192.0.2.1\n"
    site.write("opendkim.conf", text)
    found = tomllib.loads(mailguard_command("import", "opendkim=opendkim.conf").out)
    assert found["sign"]["key_pattern"] == f"{site.directory}/keys/{{domain}}/{{selector}}.private"
    assert found["sign"]["key_selectors"] == ["mail"]
    assert found["sign"]["networks"] == [{"networks": ["192.0.2.1/32"], "domains": ["one.test", "two.test"]}]
    assert "domains" not in found
    # The name of the file does not tell the selector: each domain by itself.
    site.write("opendkim.conf", text.replace("%:mail:", "%:other:"))
    done = mailguard_command("import", "opendkim=opendkim.conf")
    assert list(tomllib.loads(done.out)["domains"]) == ["one.test", "two.test"]
    assert "2 domains have such a key now" in done.out
    owner = ["--owner", "nobody"] if IS_ROOT else []
    mailguard_command("import", "opendkim=opendkim.conf", "--copy-keys", "new", *owner)
    assert sorted(path.parent.name for path in site.directory.glob("new/*/other.pem")) == ["one.test", "two.test"]


@pytest.mark.skipif(not IS_ROOT, reason="only root can be somebody else")
def test_as_a_user_who_may_not_read_the_keys(public_migration_site: Site) -> None:
    public_migration_site.key("keys/a.private")
    configuration = public_migration_site.write("opendkim.conf", f"{ONE_KEY}UserID opendkim:opendkim\n")
    done = subprocess.run(
        [sys.executable, "-m", "mailguard", "import", f"opendkim={configuration}"],
        capture_output=True,
        text=True,
        user="nobody",
        cwd="/",
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert "a.private cannot be read by this user: do this as root" in done.stdout
    assert list(tomllib.loads(done.stdout)["domains"]) == ["one.test"]


@pytest.mark.skipif(not IS_ROOT, reason="only root can give a key away")
def test_whose_keys_they_are(mailguard_command: Command, site: Site) -> None:
    path = site.directory / "keys/a.private"
    done = mailguard_command("import", "opendkim=opendkim.conf")
    assert "the keys belong to root, and the daemon reads those of its own user alone: --copy-keys" in done.out
    assert "user" not in tomllib.loads(done.out)
    shutil.chown(path, "nobody")
    done = mailguard_command("import", "opendkim=opendkim.conf")
    assert tomllib.loads(done.out)["user"] == "nobody"
    assert "User=nobody in its unit" in done.out
    site.key("keys/b.private")
    site.write("opendkim.conf", "KeyTable file:@/KeyTable\nSigningTable csl:one.test=a,two.test=c\n")
    site.write("KeyTable", "a one.test:a:@/keys/a.private\nc two.test:b:@/keys/b.private\n")
    done = mailguard_command("import", "opendkim=opendkim.conf")
    assert "the keys belong to nobody and root" in done.out


def test_the_loaded_keys_sign(site: Site, mailguard_command: Command) -> None:
    path = copied(site, mailguard_command)
    key = SigningKey.load(
        path, domain="one.test", selector="s", permissions=KeyPermissions.STRICT, owner=path.stat().st_uid
    )
    assert key.record() == SigningKey.from_bytes(KEY, domain="one.test", selector="s").record()


OTHER, HOST = "other.test", socket.getfqdn()


@pytest.mark.parametrize(
    ("texts", "whose"),
    [
        ({"opendmarc": f"AuthservID {OTHER}", "opendkim": ""}, "this host (myhostname)"),
        ({"opendmarc": f"AuthservID {OTHER}", "opendkim": "AuthservID HOSTNAME"}, "this host"),
        ({"policyd_spf": f"Authserv_Id = {OTHER}", "dkimpy_milter": "Mode v"}, "this host"),
        ({"opendmarc": f"AuthservID {OTHER}", "opendkim": "AuthservID mx.test"}, '"mx.test"'),
        ({"opendmarc": f"AuthservID {OTHER}", "opendkim": f"AuthservID {OTHER.upper()}"}, ""),
        ({"opendmarc": f"AuthservID {HOST}", "opendkim": ""}, ""),
        ({"opendmarc": "", "opendkim": ""}, ""),
        ({"opendmarc": "", "opendkim": "AuthservID mx.test"}, ""),
        ({"opendmarc": f"AuthservID {OTHER}", "opendkim": "Mode s"}, ""),
        ({"opendmarc": f"AuthservID {OTHER}", "opendkim": "KeepAuthResults yes"}, ""),
        ({"opendmarc": f"AuthservID {OTHER}", "policyd_spf": "TestOnly = 1"}, ""),
    ],
)
def test_in_whose_name_results_can_be_forged_now(migration_site: Site, texts: dict[str, str], whose: str) -> None:
    """What OpenDKIM removed from mail from outside (RFC 8601 §5) stays, where another program's name is taken."""
    imported = migration_site.imported(**texts)
    told = [text for text in said(imported, NoteKind.DECIDE) if "removed results in the name of" in text]
    assert len(told) == bool(whose)
    assert all(f"in the name of {whose} from" in text and OTHER in text for text in told)


@pytest.mark.parametrize(
    ("texts", "is_told"),
    [
        ({"opendkim": ""}, True),
        ({"opendmarc": ""}, True),
        ({"opendmarc": "", "opendkim": "AuthservID HOSTNAME"}, True),
        ({"opendkim": "Mode s"}, False),
        ({"opendkim": "AuthservID HOSTNAME"}, False),
        ({"opendmarc": "", "opendkim": f"AuthservID {OTHER}"}, False),
        ({"dkimpy_milter": ""}, False),
    ],
)
def test_that_results_stood_in_the_name_of_postfix(
    migration_site: Site, texts: dict[str, str], is_told: bool
) -> None:
    """Without AuthservID, both go by {j}: myhostname, which need not be what the host calls itself."""
    imported = migration_site.imported(**texts)
    told = [text for text in said(imported, NoteKind.DECIDE) if "name of myhostname" in text]
    assert len(told) == is_told
    assert at(imported, "authserv_id") is None or not told
    assert all(f'"{HOST}"' in text for text in told)


@pytest.mark.parametrize(
    ("texts", "myhostname", "name"),
    [
        ({"opendkim": ""}, "mx.one.test", "mx.one.test"),
        ({"opendkim": "", "opendmarc": "AuthservID HOSTNAME"}, "mx.one.test", "mx.one.test"),
        ({"opendkim": ""}, HOST.upper(), None),
        ({"opendkim": "", "opendmarc": f"AuthservID {OTHER}"}, "mx.one.test", OTHER),
        ({"opendkim": "Mode s"}, "mx.one.test", None),
        ({"dkimpy_milter": ""}, "mx.one.test", None),
        ({"opendkim": ""}, "no name", None),
    ],
)
def test_what_postfix_calls_this_host(
    mailguard_command: Command, migration_site: Site, texts: dict[str, str], myhostname: str, name: str | None
) -> None:
    words = [f"{each.replace('_', '-')}={migration_site.write(each, text)}" for each, text in texts.items()]
    postconf = migration_site.write("postconf", f'#!/bin/sh\n[ "$*" = "-xh myhostname" ] && echo {myhostname}\n')
    postconf.chmod(0o755)
    done = mailguard_command("import", *words, "--postconf", postconf, "--json")
    found = json.loads(done.out)
    assert found["configuration"].get("authserv_id") == name
    told = [note["text"] for note in found["notes"]]
    assert any("name of myhostname" in text for text in told) == (myhostname == "no name")
    assert any("removed results in the name of this host (myhostname)" in text for text in told) == (name == OTHER)


def test_where_postfix_cannot_be_asked(mailguard_command: Command, migration_site: Site) -> None:
    file = migration_site.write("opendkim.conf", "")
    for postconf in ("/nowhere/postconf", "false"):
        done = mailguard_command("import", f"opendkim={file}", "--postconf", postconf)
        assert "if postconf -h myhostname says another, set authserv_id to that" in done.out
