"""`mailguard quickstart` on a private Postfix: shown, applied, a message signed, the doctor content, and undone."""

from __future__ import annotations

import json
import os
import re
import stat
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from audit_site import POSTCONF
from cli_process import Command
from mailguard.config import load
from mailguard.errors import ConfigError
from mailguard.setup_host.file_changes import FileChange, Journal, missing_directories, undo
from postfix_site import ALICE, PASSWORD
from sandbox import PostfixSandbox
from sandbox_daemon import Daemon
from setup_site import ConfigDirectory, Host

pytestmark = [
    pytest.mark.skipif(POSTCONF is None, reason="postconf is not installed"),
    pytest.mark.skipif(os.geteuid() != 0, reason="the daemons of Postfix change their user"),
]

MAIL = (
    b"From: alice@us.test\r\nTo: b@them.test\r\nSubject: hello\r\nDate: Sat, 21 Nov 2026 12:00:00 +0000\r\n\r\nhi\r\n"
)


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
    assert host.submit(MAIL, "one@us.test").count(b"DKIM-Signature: ") == 2
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
        "us.test. 3600 IN TXT",
        "mailguard on this host: problem",
    ):
        assert words in done.out, words
    assert "PRIVATE KEY" not in done.out
    undone = mailguard_command("quickstart", "--undo", undo_directory(done.out))
    assert undone.code == 0, undone.err
    assert site.files() == before


def test_a_second_domain(mailguard_command: Command, site: Site) -> None:
    first = mailguard_command(*site.arguments(), "--user", "nobody", "--apply")
    assert first.code == 0, first.err
    text = site.config_file.read_text() + "# mine"
    site.config_file.write_text(text)
    site.grow_old()
    time.sleep(1.1)  # the directory of a backup is named by the second
    second = mailguard_command(*site.arguments("them.test"), "--apply")
    assert second.code == 0, second.err
    assert site.config_file.read_text().startswith(f"{text}\n\n[domains.")
    assert set(load(site.config_file).domains) == {"us.test", "them.test"}
    # The first cannot be undone before the second, and then not without losing what was written since.
    for _ in range(2):
        refused = mailguard_command("quickstart", "--undo", undo_directory(first.out))
        assert (refused.code, refused.err.count("\n")) == (78, 1)
        assert "mailguard.toml has been changed since, and is left alone" in refused.err
        mailguard_command("quickstart", "--undo", undo_directory(second.out))
        assert site.config_file.read_text() == text


def test_a_key_that_is_there_is_used(mailguard_command: Command, site: Site) -> None:
    first = mailguard_command(*site.arguments(), "--user", "nobody", "--apply")
    files = {path: path.read_bytes() for path in (site.keys / "us.test").iterdir()}
    site.config_file.write_text('user = "nobody"\n')
    time.sleep(1.1)  # the directory of a backup is named by the second
    again = mailguard_command(*site.arguments(), "--apply")
    assert (first.code, again.code) == (0, 0), again.err
    assert {path: path.read_bytes() for path in (site.keys / "us.test").iterdir()} == files
    assert "private key" not in again.out


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

    def fails(octets: bytes, path: str) -> None:
        raise OSError(28, "No space left on device", path)

    monkeypatch.setattr("mailguard.setup_host.file_changes.replace_file", fails)
    done = mailguard_command(*site.arguments(), "--user", "nobody", "--apply")
    assert done.code == 78
    assert done.err.count("\n") == 1
    assert "No space left on device; all is as it was before" in done.err
    assert site.files() == before


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"mailguard": 2}', "[" * 100_000])
def test_a_directory_of_somebody_else(tmp_path: Path, text: str) -> None:
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(ConfigError, match="not written by mailguard quickstart"):
        undo(str(tmp_path))


def test_a_journal(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "deep" / "er" / "new"
    old.write_bytes(b"\xff\r\n")
    old.chmod(0o640)
    directories = missing_directories(str(new))
    assert directories == (str(tmp_path / "deep" / "er"), str(tmp_path / "deep"))
    new.parent.mkdir(parents=True)
    changes = [FileChange(str(old), b"\xff\r\n", b"changed"), FileChange(str(new), None, b"made")]
    journal = Journal(str(tmp_path / "kept"), changes, directories)
    journal.begin([])
    journal.write()
    assert (old.read_bytes(), new.read_bytes(), stat.S_IMODE(old.stat().st_mode)) == (b"changed", b"made", 0o640)
    # Of two files that were changed since, none is put back.
    new.write_bytes(b"theirs")
    with pytest.raises(ConfigError, match="new has been changed since"):
        undo(str(tmp_path / "kept"))
    assert old.read_bytes() == b"changed"
    new.write_bytes(b"made")
    assert len(undo(str(tmp_path / "kept"))) == 4
    assert (old.read_bytes(), stat.S_IMODE(old.stat().st_mode), new.exists()) == (b"\xff\r\n", 0o640, False)
    assert not (tmp_path / "deep").exists()
    assert undo(str(tmp_path / "kept")) == ()
