"""`mailguard quickstart` on a private Postfix: shown, applied, a message signed, the doctor content, and undone."""

from __future__ import annotations

import json
import os
import re
import stat
import tempfile
import time
import tomllib
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from audit_site import POSTCONF
from cli_process import Command
from mailguard.config import load
from mailguard.setup_host.first_configuration import with_domain
from mailguard.setup_host.whole_file import put_file
from postfix_site import ALICE, PASSWORD
from sandbox import PostfixSandbox
from sandbox_daemon import Daemon
from setup_site import ConfigDirectory, Host

pytestmark = [
    pytest.mark.skipif(POSTCONF is None, reason="postconf is not installed"),
    pytest.mark.skipif(os.geteuid() != 0, reason="the daemons of Postfix change their user"),
]


def contents(*roots: Path) -> dict[str, tuple[str, bytes]]:
    """Every file and directory: its mode and owner, and its octets."""
    found = {}
    for path in (each for root in roots for each in sorted(root.rglob("*"))):
        status = path.lstat()
        if not stat.S_ISSOCK(status.st_mode):
            octets = path.read_bytes() if path.is_file() else b""
            found[str(path)] = (f"{status.st_mode:o} {status.st_uid}:{status.st_gid}", octets)
    return found


class Site(ConfigDirectory):
    """Nothing of mailguard's yet."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.root = root
        self.config_file.unlink()
        self.config_file = root / "etc" / "mailguard.toml"
        self.keys = root / "etc" / "keys"
        self.backups = root / "backups"

    def arguments(self, domain: str = "us.test") -> list[str]:
        places = ["--keys", str(self.keys), "--backups", str(self.backups)]
        return ["quickstart", domain, *self.options, *places]

    def files(self) -> dict[str, tuple[str, bytes]]:  # type: ignore[override]  # more of each than there
        return {name: each for name, each in contents(self.root).items() if not name.startswith(str(self.backups))}


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


@pytest.fixture
def host() -> Iterator[Host]:
    """A Postfix without milters, and a configuration without domains; no daemon runs."""
    with Daemon() as daemon:
        daemon.configure('mode = "enforce"\n[dns]\nzone_file = "zone"\n')
        (daemon.directory / "zone").write_text("$TTL 60\n")
        with PostfixSandbox(
            main={"enable_long_queue_ids": "yes"},
            submission={"milter_macro_daemon_name": "submission"},
            users={ALICE: PASSWORD},
        ) as postfix:
            yield Host(postfix, daemon)


def undo_directory(text: str) -> str:
    (found,) = re.findall(r"^mailguard quickstart --undo (\S+)$", text, re.MULTILINE)
    return str(found)


def test_from_nothing_to_a_signed_message_and_back(mailguard_command: Command, host: Host, tmp_path: Path) -> None:
    config = host.postfix.directory / "config"
    before = contents(config, host.daemon.directory)
    places = ["--keys", str(host.daemon.directory / "keys"), "--backups", str(tmp_path / "backups")]
    arguments = ["quickstart", "us.test", *host.options, *places]
    shown = mailguard_command(*arguments)
    assert (shown.code, shown.err) == (0, "")
    assert contents(config, host.daemon.directory) == before, "nothing is changed without --apply"
    done = mailguard_command(*arguments, "--apply")
    assert done.code == 0, done.err
    # What was shown is what was done.
    diff = [line for line in shown.out.splitlines() if line.startswith(("+", "-"))]
    assert diff
    assert all(line in done.out for line in diff)
    # The records that it printed, and nothing else, are what verifies.
    records = [line for line in done.out.splitlines() if re.match(r"mg\w+\._domainkey\.us\.test\. ", line)]
    assert len(records) == 2
    (host.daemon.directory / "zone").write_text("$TTL 60\n" + "\n".join(records) + "\n")
    assert "records of the keys: problem" in done.out, "not yet published"
    host.daemon.start()
    host.run(f"postfix -c {config} reload")
    # A message is sent and explained.
    password = tmp_path / "password"
    password.write_text(PASSWORD)
    logs = [f"--log={host.postfix.directory}/mail.log", f"--log={host.daemon.directory}/log"]
    login = [
        f"--smtp=127.0.0.1:{host.postfix.ports['submission']}",
        f"--login={ALICE}",
        f"--password-file={password}",
    ]
    box = f"--mailbox={host.postfix.directory}/mail/box"
    sent = mailguard_command("test", "--send", "one@us.test", *host.options, *logs, *login, box)
    assert (sent.code, sent.err) == (0, ""), sent.out
    for words in ("test message to one@us.test: ok", "signed: d=us.test", "a signature of us.test passes"):
        assert words in sent.out
    assert "a=rsa-sha256 ed25519-sha256" in sent.out
    assert sent.out.count(": pass (verified)") == 2
    for file in config.glob("*.cf"):
        os.utime(file, (time.time() - 60,) * 2)
    doctor = mailguard_command("doctor", *host.options, "--json")
    problems = [
        each for card in json.loads(doctor.out)["children"] for each in card["children"] if each["title"] == "problem"
    ]
    assert (doctor.code, problems) == (0, [])
    # Again: nothing to do.
    again = mailguard_command(*arguments)
    assert "# nothing is to be changed" in again.out
    host.daemon.stop()
    back = mailguard_command("quickstart", "--undo", undo_directory(done.out))
    assert (back.code, back.err) == (0, "")
    after = contents(config, host.daemon.directory)
    for changing in ("zone", "log", "notify", "run", "code"):
        name = f"{host.daemon.directory}/{changing}"
        before = {path: each for path, each in before.items() if path != name and not path.startswith(f"{name}/")}
        after = {path: each for path, each in after.items() if path != name and not path.startswith(f"{name}/")}
    assert after == before
    kept = [path.name for path in Path(undo_directory(done.out)).iterdir()]
    assert len([name for name in kept if name.startswith("made-mg") and name.endswith(".pem")]) == 2
    # Twice is as once.
    assert mailguard_command("quickstart", "--undo", undo_directory(done.out)).code == 0


@pytest.mark.parametrize("chroot", ["n", "y"])
def test_a_first_configuration(mailguard_command: Command, site: Site, chroot: str) -> None:
    site.write({"smtpd_milters": "inet:127.0.0.1:8891"}, chroot=chroot)
    before = site.files()
    done = mailguard_command(*site.arguments(), "--user", "nobody", "--apply")
    assert done.code == 0, done.err
    found = tomllib.loads(site.config_file.read_text())
    socket = f"unix:{site.queue}/mailguard/mailguard.sock" if chroot == "y" else "unix:/run/mailguard/mailguard.sock"
    assert (found["mode"], found["authserv_id"], found["user"]) == ("monitor", "mx.us.test", "nobody")
    assert found["listeners"] == [{"address": socket}]
    assert set(load(site.config_file).domains) == {"us.test"}
    if chroot == "y":
        assert stat.S_IMODE((site.queue / "mailguard").stat().st_mode) == 0o750
        assert (site.queue / "mailguard").stat().st_uid == 65534
        assert site.value("smtpd_milters").startswith("{ unix:mailguard/mailguard.sock, ")
    assert site.value("smtpd_milters").endswith("}, inet:127.0.0.1:8891")
    keys = sorted((site.keys / "us.test").iterdir())
    assert [(stat.S_IMODE(each.stat().st_mode), each.stat().st_uid) for each in keys] == [(0o600, 65534)] * 2
    for words in (
        "in a chroot: smtp/inet, submission/inet, cleanup/unix" if chroot == "y" else "not in a chroot",
        "smtp/inet: milters now: inet:127.0.0.1:8891",
        "adduser postfix nobody",
        "mailguard on this host: problem",
    ):
        assert words in done.out, words
    # This machine's own resolver is asked which hosts take mail; it may have no network.
    assert "us.test. 3600 IN TXT" in done.out or "name them with --mx" in done.err
    assert "PRIVATE KEY" not in done.out
    undone = mailguard_command("quickstart", "--undo", undo_directory(done.out))
    assert undone.code == 0, undone.err
    assert site.files() == before


def test_a_domain_whose_keys_are_anywhere() -> None:
    place = "/k\u00fc/\U0001f511\x7f.pem"
    found = tomllib.loads(with_domain("", "us.test", [("s", place)]))
    assert found["domains"]["us.test"]["selectors"] == [{"name": "s", "key_file": place}]


def test_a_second_domain(mailguard_command: Command, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    first = mailguard_command(*site.arguments(), "--user", "nobody", "--apply")
    assert first.code == 0, first.err
    text = site.config_file.read_text() + "# mine"
    site.config_file.write_text(text)
    site.grow_old()
    joined = os.getgrouplist("postfix", 65534)
    with monkeypatch.context() as patched:
        patched.setattr(os, "getgrouplist", lambda name, gid: joined)
        second = mailguard_command(*site.arguments("them.test"), "--apply")
    assert second.code == 0, second.err
    # A restart would refuse mail for a moment, and Postfix has all that it needs.
    assert "\nsystemctl reload-or-restart mailguard-milter    # " in second.out
    assert " reload\n" not in second.out
    assert "adduser postfix" not in second.out
    assert site.config_file.read_text().startswith(f"{text}\n\n[domains.")
    assert set(load(site.config_file).domains) == {"us.test", "them.test"}
    # Its processes have the groups of when they were started.
    third = mailguard_command(*site.arguments("them.test"), "--apply")
    assert re.search(r"\nadduser postfix nobody .*\n.*\npostfix -c \S+ reload\n", third.out)
    # The first cannot be undone before the second, and then not without losing what was written since.
    for _ in range(2):
        refused = mailguard_command("quickstart", "--undo", undo_directory(first.out))
        assert (refused.code, refused.err.count("\n")) == (78, 1)
        assert "mailguard.toml has been changed since, by hand or by a later run" in refused.err
        mailguard_command("quickstart", "--undo", undo_directory(second.out))
        assert site.config_file.read_text() == text


@pytest.fixture
def open_site() -> Iterator[Site]:
    """Where the daemon's user can get to its keys."""
    with tempfile.TemporaryDirectory(prefix="mailguard-test-") as directory:
        Path(directory).chmod(0o755)
        yield Site(Path(directory))


def test_a_key_that_is_there_is_used(mailguard_command: Command, open_site: Site) -> None:
    site = open_site
    first = mailguard_command(*site.arguments(), "--user", "nobody", "--apply")
    files = {path: path.read_bytes() for path in (site.keys / "us.test").iterdir()}
    site.config_file.write_text('user = "nobody"\n')
    again = mailguard_command(*site.arguments(), "--apply")
    assert (first.code, again.code) == (0, 0), again.err
    assert {path: path.read_bytes() for path in (site.keys / "us.test").iterdir()} == files
    assert "private key" not in again.out


@pytest.mark.parametrize(
    ("domain", "said"),
    [
        ("them.test", "with what sign.key_pattern finds: {keys}/them.test/s1.pem: no key is made"),
        ("mail.us.test", "with the keys of us.test, whose table has subdomains = true: no key is made"),
        ("new.test", ""),
    ],
)
def test_what_is_signed_already_keeps_its_keys(
    mailguard_command: Command, open_site: Site, domain: str, said: str
) -> None:
    """The keys that were there are published, and new ones are not."""
    site = open_site
    first = mailguard_command(*site.arguments(), "--user", "nobody", "--apply")
    assert first.code == 0, first.err
    (site.keys / "them.test").mkdir()
    key = site.keys / "them.test" / "s1.pem"
    key.write_bytes(next((site.keys / "us.test").iterdir()).read_bytes())
    key.chmod(0o600)
    for each in (key, key.parent):
        os.chown(each, 65534, 65534)
    # A name in the configuration begins where that is.
    pattern = '[sign]\nkey_pattern = "keys/{domain}/{selector}.pem"\nkey_selectors = ["s1"]\n'
    text = site.config_file.read_text().replace("[[listeners]]", f"{pattern}[[listeners]]") + "subdomains = true\n"
    site.config_file.write_text(text)
    site.grow_old()
    done = mailguard_command(*site.arguments(domain), "--apply")
    assert done.code == 0, done.err
    shown = f"# mail of {domain} is signed already, {said.format(keys=site.keys)}"
    assert (shown in done.out.splitlines()) is bool(said)
    assert ("# new file" in done.out) is (not said)
    assert (site.config_file.read_text() == text) is bool(said)
    others = "us.test" if domain == "them.test" else "us.test, them.test"
    assert f"# signed already: {others}" in done.out.splitlines()
    note = "mail of mail.us.test is signed with the keys of us.test: mailguard dns us.test prints their records"
    assert (note in done.err) is (domain == "mail.us.test")
    assert "make one with mailguard key new" not in done.err


@pytest.mark.parametrize("owner", [0, 65534])
def test_a_key_that_is_there_and_cannot_be_used(mailguard_command: Command, open_site: Site, owner: int) -> None:
    """Else the daemon would answer 451 to all mail of the domain."""
    site = open_site
    key = site.keys / "us.test" / f"mg{datetime.now(UTC):%Y%m}r.pem"
    key.parent.mkdir(parents=True)
    key.write_bytes(b"garbage")
    key.chmod(0o600)
    os.chown(key, owner, owner)
    before = site.files()
    done = mailguard_command(*site.arguments(), "--user", "nobody", "--apply")
    assert (done.code, done.err.count("\n")) == (78, 1), done.err
    assert f"{key} is there already, and nobody cannot sign with it: " in done.err
    assert ("Permission denied" if owner == 0 else "neither PEM nor") in done.err
    assert done.err.endswith("correct it or move it away; nothing was changed\n")
    assert site.files() == before


# -- what can go wrong ---------------------------------------------------------------------------------------------


def test_mistakes_are_one_plain_line(mailguard_command: Command, site: Site) -> None:
    site.config_file.parent.mkdir()
    before = site.files()
    chrooted = ["--listener", "unix:/run/mailguard/mailguard.sock"]
    rows: list[tuple[list[str], int, str]] = [
        (["quickstart"], 64, "name the domain"),
        (["quickstart", "no domain"], 64, "is not a domain name"),
        (["quickstart", "us.test", "--undo", "/x"], 64, "--undo takes its directory alone"),
        (["quickstart", "--undo", str(site.root / "nothing")], 78, "manifest.json: cannot be read: No such file"),
        ([*site.arguments(), "--user", "nobody-such", "--apply"], 78, "adduser --system --group"),
        ([*site.arguments(), "--listener", "tcp:1", "--apply"], 78, "is not an address to listen on"),
        ([*site.arguments(), "--postconf", "no-such"], 78, "is Postfix installed?"),
        ([*site.arguments(), "--user", "nobody", "--backups", "/proc/x", "--apply"], 78, "nothing was changed"),
    ]
    for arguments, code, said in rows:
        done = mailguard_command(*arguments)
        assert (done.code, done.err.count("\n")) == (code, 1), (arguments, done.err)
        assert said in done.err
        assert site.files() == before
    site.write(chroot="y")
    done = mailguard_command(*site.arguments(), *chrooted)
    assert (done.code, done.out) == (78, "")
    assert "run in a chroot" in done.err
    site.config_file.write_text("")
    assert mailguard_command(*site.arguments(), "--user", "nobody").code == 64


def test_what_fails_in_between_is_taken_back(
    mailguard_command: Command, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = site.files()

    def fails(octets: bytes, path: str, **how: Any) -> None:
        if path == str(site.path / "main.cf"):
            raise OSError(28, "No space left on device", path)
        put_file(octets, path, **how)

    monkeypatch.setattr("mailguard.setup_host.file_changes.put_file", fails)
    done = mailguard_command(*site.arguments(), "--user", "nobody", "--apply")
    assert done.code == 78
    assert done.err.count("\n") == 1
    assert "No space left on device; all is as it was before" in done.err
    assert site.files() == before


def test_the_way_back_is_told_before_anything_is_done(
    mailguard_command: Command, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = site.files()

    def interrupted(octets: bytes, path: str, **how: Any) -> None:
        if path == str(site.path / "main.cf"):
            raise KeyboardInterrupt
        put_file(octets, path, **how)

    monkeypatch.setattr("mailguard.setup_host.file_changes.put_file", interrupted)
    done = mailguard_command(*site.arguments(), "--user", "nobody", "--apply")
    assert done.code == 130
    assert "mailguard: all is as it was before\n" in done.err
    assert "also if this is interrupted" in done.out
    assert Path(undo_directory(done.out), "manifest.json").exists()
    assert site.files() == before


def test_what_becomes_of_mail_meanwhile_is_said(mailguard_command: Command, site: Site) -> None:
    site.write(chroot="y")
    shown = mailguard_command(*site.arguments(), "--user", "no-such-user")
    assert "# first: adduser --system --group --no-create-home no-such-user" in shown.out
    nobody = f"# nobody answers at unix:{site.queue}/mailguard/mailguard.sock yet (No such file or directory)."
    assert nobody in shown.out
    done = mailguard_command(*site.arguments(), "--user", "nobody", "--apply")
    assert done.code == 0, done.err
    undone = mailguard_command("quickstart", "--undo", undo_directory(done.out))
    # Postfix first: it does without the daemon then.
    assert undone.out.endswith(f"# now run:\npostfix -c {site.path} reload\nsystemctl stop mailguard-milter\n")


def test_a_table_that_cannot_be_added(mailguard_command: Command, site: Site) -> None:
    site.config_file.parent.mkdir()
    site.config_file.write_text("domains = {}\n")
    done = mailguard_command(*site.arguments(), "--apply")
    assert (done.code, done.err.count("\n")) == (78, 1)
    assert f"a table for us.test cannot be put at the end of {site.config_file}: write it by hand" in done.err


def test_two_sockets_in_directories_of_their_own(mailguard_command: Command, open_site: Site) -> None:
    """Both are the daemon's, who makes the sockets."""
    site = open_site
    site.write(chroot="y")
    site.config_file.parent.mkdir()
    text = 'user = "nobody"\n'
    for role in ("verify", "sign"):
        text += f'[[listeners]]\naddress = "unix:{site.queue}/{role}/socket"\nrole = "{role}"\n'
    site.config_file.write_text(text)
    done = mailguard_command(*site.arguments(), "--apply")
    assert done.code == 0, done.err
    found = [(site.queue / role).stat() for role in ("verify", "sign")]
    assert [(stat.S_IMODE(each.st_mode), each.st_uid) for each in found] == [(0o750, 65534)] * 2
    undone = mailguard_command("quickstart", "--undo", undo_directory(done.out))
    # The configuration was there before: the daemon goes on with it.
    assert undone.out.endswith(" reload\nsystemctl reload-or-restart mailguard-milter\n")
    assert list(site.queue.iterdir()) == []
