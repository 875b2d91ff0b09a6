"""Files of the host changed and put back: killed at each step, a full disk, changes by hand, and whoever owns a
directory above."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import resource
import signal
import stat
import sys
import tempfile
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from mailguard.cli.key_files import store_keys
from mailguard.errors import ConfigError
from mailguard.guarded_file import named
from mailguard.setup_host.file_changes import FileChange, Journal, undo
from mailguard.setup_host.whole_file import make_directory, missing_directories, put_file, read_file

NOBODY = 65534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="files are given to another user")

# What changes files, besides opening one that is new.
EVENTS = frozenset(
    {"os.mkdir", "os.rmdir", "os.link", "os.rename", "os.remove", "os.chmod", "os.chown", "os.setxattr"}
)
KILLED = 9


def tree(root: Path) -> dict[str, tuple[str, bytes | str]]:
    """Every name, with mode and owner, and what is in it."""
    found: dict[str, tuple[str, bytes | str]] = {}
    for path in sorted(root.rglob("*")):
        status = path.lstat()
        content: bytes | str = b""
        if path.is_symlink():
            content = os.readlink(path)
        elif path.is_file():
            content = path.read_bytes()
        found[str(path.relative_to(root))] = (f"{status.st_mode:o} {status.st_uid}:{status.st_gid}", content)
    return found


class Place:
    """Two files that change, one through a symbolic link, one that is new, and keys in a new directory."""

    def __init__(self, root: Path) -> None:
        self.host, self.backups = root / "host", root / "backups"
        self.host.mkdir()
        (self.host / "managed").write_bytes(b"\xff\r\nno newline at the end")
        (self.host / "managed").chmod(0o640)
        (self.host / "main.cf").symlink_to("managed")
        (self.host / "master.cf").write_bytes(b"")
        self.before = tree(self.host)
        self.keys = self.host / "keys"

    def journal(self) -> Journal:
        new = self.host / "etc" / "new.toml"
        keys = [str(self.keys / "us.test" / f"{name}.pem") for name in ("r1", "e1")]
        missing = {each for path in (str(new), *keys) for each in missing_directories(path)}
        changes = [
            FileChange(str(new), None, b"made"),
            FileChange(str(self.host / "master.cf"), b"", b"changed\n"),
            FileChange(str(self.host / "main.cf"), b"\xff\r\nno newline at the end", b"changed, too"),
        ]
        directories = sorted(missing, key=len, reverse=True)
        return Journal(str(self.backups), changes, directories=directories, made=keys, afterwards=["postfix reload"])

    def others(self) -> None:
        make_directory(str(self.host / "etc"), 0o755)
        store_keys(str(self.keys), "us.test", [("r1", b"a key"), ("e1", b"another")], owner=None)

    def apply(self) -> str:
        journal = self.journal()
        journal.begin()
        journal.carry_out(self.others)
        return journal.directory

    def kept(self) -> list[Path]:
        """The directories of copies."""
        return sorted(each for each in self.backups.iterdir() if each.is_dir()) if self.backups.exists() else []


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def in_child(work: Callable[[], object], *, killed_at: int = 0) -> int:
    """Its exit code; killed before the step with this number nothing of it goes on, as without power."""
    child = os.fork()
    if child == 0:
        steps = 0

        def watch(event: str, arguments: tuple[object, ...]) -> None:
            nonlocal steps
            flags = arguments[2] if event == "open" else 0
            is_step = event in EVENTS or (isinstance(flags, int) and bool(flags & os.O_CREAT))
            steps += is_step
            if is_step and steps == killed_at:
                os._exit(KILLED)

        code = 1
        try:
            if killed_at:
                sys.addaudithook(watch)
            work()
            code = 0
        except ConfigError as error:
            os.write(2, f"{error}\n".encode())
            code = 2
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_there_and_back(place: Place) -> None:
    directory = place.apply()
    found = tree(place.host)
    assert found["main.cf"] == place.before["main.cf"], "the link stays"
    assert found["managed"] == (place.before["managed"][0], b"changed, too")
    assert found["etc/new.toml"] == (f"{stat.S_IFREG | 0o644:o} {os.geteuid()}:{os.getegid()}", b"made")
    for each in (place.backups, Path(directory)):
        assert stat.S_IMODE(each.stat().st_mode) == (0o755 if each == place.backups else 0o700)
    done = undo(directory)
    assert done.commands == ("postfix reload",)
    assert tree(place.host) == place.before
    # Postfix does without mailguard before that loses its configuration.
    assert [line.partition(": ")[0].rpartition("/")[2] for line in done.lines[:3]] == [
        "managed",
        "master.cf",
        "new.toml",
    ]
    kept = tree(Path(directory))
    assert {kept[f"made-{name}"][1] for name in ("r1.pem", "e1.pem", "new.toml")} == {b"a key", b"another", b"made"}
    assert stat.S_IMODE(os.stat(f"{directory}/made-r1.pem").st_mode) == 0o600
    assert undo(directory).lines == ()
    assert tree(place.host) == place.before


@pytest.fixture
def quick_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who is killed needs no fsync."""
    monkeypatch.setattr("os.fsync", lambda _: None)


@pytest.mark.usefixtures("quick_disk")
def test_killed_at_any_step_it_can_be_undone(tmp_path: Path) -> None:
    for number in range(1, 1000):
        root = tmp_path / str(number)
        root.mkdir()
        place = Place(root)
        code = in_child(place.apply, killed_at=number)
        if not any((each / "manifest.json").exists() for each in place.kept()):
            assert tree(place.host) == place.before, "nothing is done before it is written down"
        for each in place.kept():
            if (each / "manifest.json").exists():
                undo(str(each))
        # A key that was not yet whole has no name: it is left, and so is where it is.
        found = {name: each for name, each in tree(place.host).items() if not name.startswith("keys")}
        assert found == place.before, number
        assert not list(place.keys.rglob("*.pem"))
        if code == 0:
            assert number > 50
            return
        assert code == KILLED


@pytest.mark.usefixtures("quick_disk")
def test_an_undoing_that_was_killed_is_done_again(tmp_path: Path) -> None:
    for number in range(1, 1000):
        root = tmp_path / str(number)
        root.mkdir()
        place = Place(root)
        directory = place.apply()
        code = in_child(lambda: undo(directory), killed_at=number)  # noqa: B023 - it is run at once
        undo(directory)
        assert tree(place.host) == place.before, number
        contents = [each[1] for each in tree(Path(directory)).values()]
        assert (contents.count(b"a key"), contents.count(b"another")) == (1, 1), "no key is lost"
        if code == 0:
            assert number > 30
            return
        assert code == KILLED


@pytest.mark.parametrize("large", ["managed", "new"])
def test_a_full_disk(place: Place, capfd: pytest.CaptureFixture[str], large: str) -> None:
    """As far as a process can have one of its own: no file may be larger than the old ones."""
    size = 5000
    (place.host / "main.cf").write_bytes(b"x" * size)
    place.before = tree(place.host)
    changes = [
        FileChange(str(place.host / "master.cf"), b"", b"changed"),
        FileChange(str(place.host / "new"), None, b"made" * (size if large == "new" else 1)),
        FileChange(str(place.host / "main.cf"), b"x" * size, b"y" * (size + 1)),
    ]

    def work() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
        journal = Journal(str(place.backups), changes)
        journal.begin()
        journal.carry_out()

    assert in_child(work) == 2
    said = capfd.readouterr().err
    assert said == f"{place.host}/{large}: cannot be written: File too large; all is as it was before\n"
    assert tree(place.host) == place.before
    # Nor is there room to keep what there is: then nothing is begun, and nothing is left behind.
    size -= 1
    assert in_child(work) == 2
    assert capfd.readouterr().err.endswith("cannot be written: File too large; nothing was changed\n")
    assert len(place.kept()) == 1


def test_where_nothing_can_be_written(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system that is mounted read-only, with one of the files: the others are put back all the same."""
    real_open, real_unlink = os.open, os.unlink

    def new(path: str, *arguments: Any, **how: Any) -> int:
        if str(path).startswith(".managed"):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), path)
        return real_open(path, *arguments, **how)

    def unlinked(path: str, **how: Any) -> None:
        if str(path).startswith(".managed"):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), path)
        real_unlink(path, **how)

    monkeypatch.setattr("os.open", new)
    monkeypatch.setattr("os.unlink", unlinked)
    with pytest.raises(
        ConfigError, match="managed: cannot be written: Read-only file system; all is as it was before"
    ):
        place.apply()
    assert tree(place.host) == place.before


def test_what_cannot_be_taken_back_is_said(place: Place) -> None:
    """Somebody writes to a file that has just been changed, and then something fails."""
    journal = place.journal()
    journal.begin()

    def others() -> None:
        place.others()
        (place.host / "main.cf").write_bytes(b"theirs")
        (place.host / "etc" / "new.toml").write_bytes(b"theirs, too")

    with pytest.raises(ConfigError) as error:
        journal.carry_out(others)
    text = str(error.value)
    assert "new.toml has just been changed by somebody else; and not all of it could be taken back: " in text
    assert "all is as it was before" not in text
    assert (place.host / "managed").read_bytes() == b"theirs"


def test_two_in_one_second(place: Place) -> None:
    first = place.apply()
    undo(first)
    second = place.apply()
    assert first != second
    assert len(place.kept()) == 2
    # The keys of both are kept, whichever is undone, and in whatever order.
    (place.keys / "us.test" / "r1.pem").write_bytes(b"a newer key")
    undo(first)
    assert tree(place.host) == place.before
    assert (Path(first) / "made-r1.pem").read_bytes() == b"a key"
    assert (Path(first) / "made-2-r1.pem").read_bytes() == b"a newer key"


@pytest.mark.parametrize("name", ["managed", "etc/new.toml"])
def test_what_was_edited_by_hand_is_left(place: Place, name: str) -> None:
    directory = place.apply()
    (place.host / name).write_bytes(b"edited by hand")
    edited = tree(place.host)
    with pytest.raises(ConfigError) as error:
        undo(directory)
    assert f"{name} has been changed since, by hand or by a later run that must be undone first" in str(error.value)
    assert tree(place.host) == edited


def test_a_file_that_is_gone_is_put_back(place: Place) -> None:
    directory = place.apply()
    (place.host / "managed").unlink()
    (place.host / "etc" / "new.toml").unlink()
    undo(directory)
    assert tree(place.host) == place.before


def test_directories_with_something_in_them_are_left_and_said(place: Place) -> None:
    directory = place.apply()
    (place.keys / "us.test" / "mine.pem").write_bytes(b"mine")
    lines = undo(directory).lines
    assert f"{place.keys}/us.test: left as it is: Directory not empty" in lines
    assert (place.keys / "us.test" / "mine.pem").read_bytes() == b"mine"


def test_somebody_else_was_faster(place: Place) -> None:
    journal = place.journal()
    (place.host / "master.cf").write_bytes(b"theirs")
    with pytest.raises(ConfigError, match="has just been changed by somebody else; nothing was changed"):
        journal.begin()
    assert place.kept() == []


@pytest.mark.parametrize("is_over", [True, False])
def test_two_at_once(place: Place, is_over: bool) -> None:
    """What the one has made is not taken back when the other fails, though both would make the same."""
    first, second = place.journal(), place.journal()
    for each in (first, second):
        each.begin()
    faults: list[str] = []

    def fails() -> None:
        with pytest.raises(ConfigError) as caught:
            second.carry_out(place.others)
        faults.append(str(caught.value))

    def others() -> None:
        place.others()
        if not is_over:
            fails()
            with pytest.raises(ConfigError, match="another command changes files"):
                undo(first.directory)

    first.carry_out(others)
    done = tree(place.host)
    if is_over:
        fails()
    assert faults[0].endswith("; nothing was changed")
    assert tree(place.host) == done
    assert place.kept() == [Path(first.directory)], "nothing that could be undone by mistake"
    assert done["keys/us.test/r1.pem"][1] == b"a key"
    undo(first.directory)
    assert tree(place.host) == place.before


def test_nobody_else_can_keep_files_from_being_changed_or_put_back(place: Place) -> None:
    """To lock a file with flock(2), it is enough to read it."""
    before = os.umask(0)
    try:
        directory = place.apply()
    finally:
        os.umask(before)
    assert stat.S_IMODE((place.backups / ".lock").stat().st_mode) == 0o600
    held = os.open(place.backups, os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        undo(directory)
    finally:
        os.close(held)
    assert tree(place.host) == place.before


def test_a_key_that_somebody_else_has_just_made_stays(place: Place) -> None:
    journal = place.journal()
    journal.begin()
    store_keys(str(place.keys), "us.test", [("e1", b"of somebody else")], owner=None)
    with pytest.raises(ConfigError, match=r"e1\.pem has just been made by somebody else; nothing was changed"):
        journal.carry_out(place.others)
    assert (place.keys / "us.test" / "e1.pem").read_bytes() == b"of somebody else"


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"mailguard": 2}', "[" * 100_000, '{"mailguard": 1}'])
def test_a_directory_of_somebody_else(tmp_path: Path, text: str) -> None:
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(ConfigError, match="not written by mailguard quickstart"):
        undo(str(tmp_path))


@pytest.mark.parametrize(
    "changed",
    [
        {"files": 5},
        {"files": [{}]},
        {"files": [{"path": "/x", "copy": "", "after": "", "temporary": 7}]},
        {"directories": "/"},
        {"afterwards": [7]},
    ],
    ids=["files", "no-names", "a-number", "a-text", "no-command"],
)
def test_a_manifest_that_is_none(place: Place, changed: dict[str, object]) -> None:
    manifest = Path(place.apply()) / "manifest.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_bytes()), **changed}))
    with pytest.raises(ConfigError, match="not written by mailguard quickstart"):
        undo(str(manifest.parent))


def test_a_copy_that_is_gone(place: Place) -> None:
    directory = place.apply()
    (Path(directory) / "2-managed").unlink()
    after = tree(place.host)
    with pytest.raises(ConfigError, match="2-managed is missing"):
        undo(directory)
    assert tree(place.host) == after


# -- whoever owns a directory --------------------------------------------------------------------------------------


@as_root
def test_a_manifest_that_another_user_could_write(place: Place) -> None:
    directory = Path(place.apply())
    after = tree(place.host)
    os.chown(directory, NOBODY, NOBODY)
    with pytest.raises(ConfigError, match="belongs to another user"):
        undo(str(directory))
    os.chown(directory, 0, 0)
    directory.chmod(0o777)
    with pytest.raises(ConfigError, match="others can write to it"):
        undo(str(directory))
    directory.chmod(0o700)
    os.chown(directory / "manifest.json", NOBODY, NOBODY)
    with pytest.raises(ConfigError, match="belongs to another user"):
        undo(str(directory))
    assert tree(place.host) == after


@as_root
def test_backups_that_this_user_may_not_make(capfd: pytest.CaptureFixture[str]) -> None:
    with tempfile.TemporaryDirectory() as open_to_all:
        Path(open_to_all).chmod(0o755)
        place = Place(Path(open_to_all))
        place.backups.mkdir()

        def work() -> None:
            os.setresuid(NOBODY, NOBODY, NOBODY)
            place.journal().begin()

        assert in_child(work) == 2
    said = capfd.readouterr().err
    assert said.startswith(f"{place.backups}/2")
    assert said.endswith("Z: cannot be written: Permission denied; nothing was changed\n")


@as_root
def test_backups_where_another_user_could_reach_them(place: Place) -> None:
    place.backups.mkdir()
    os.chown(place.backups, NOBODY, NOBODY)
    with pytest.raises(ConfigError, match=r"belongs to another user .*; nothing was changed"):
        place.apply()
    assert (tree(place.host), place.kept()) == (place.before, [])


def test_a_key_that_became_something_else(place: Place) -> None:
    """Its owner, the daemon, may put there what he likes; root does not wait for a FIFO, nor follow him elsewhere."""
    directory = place.apply()
    victims = place.host / "victims"
    victims.mkdir()
    (victims / "r1.pem").write_bytes(b"precious")
    key = place.keys / "us.test" / "r1.pem"
    key.unlink()
    os.mkfifo(key)
    rows = ["is not a regular file, and left alone"] * 2 + ["is a symbolic link or no directory"]
    for number, said in enumerate(rows):
        if number == 1:
            key.unlink()
            key.symlink_to(victims / "r1.pem")
        elif number == 2:
            key.parent.rename(place.keys / "away")
            key.parent.symlink_to(victims)
        after = tree(place.host)
        with pytest.raises(ConfigError, match=said):
            undo(directory)
        assert tree(place.host) == after


@as_root
def test_a_directory_below_one_of_another_user(tmp_path: Path) -> None:
    """He could put a link in its place before it gets its owner."""
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    os.chown(theirs, NOBODY, NOBODY)
    with pytest.raises(ConfigError, match="belongs to another user"):
        make_directory(str(theirs / "new"), 0o750, (NOBODY, NOBODY))
    assert list(theirs.iterdir()) == []
    make_directory(str(tmp_path / "new"), 0o750, (NOBODY, NOBODY))
    found = (tmp_path / "new").stat()
    assert (stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid) == (0o750, NOBODY, NOBODY)


def test_owner_mode_and_attributes_stay(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"old")
    file.chmod(0o640)
    if os.geteuid() == 0:
        os.chown(file, 1, 2)
    try:
        os.setxattr(file, "user.note", b"mine")
    except OSError:
        pytest.skip("the file system has no attributes")
    before = read_file(str(file))
    assert before is not None
    put_file(b"new", str(file), temporary=".t", like=before)
    after = read_file(str(file))
    assert after is not None
    assert (after.octets, after.mode, after.owner) == (b"new", before.mode, before.owner)
    assert dict(after.attributes)["user.note"] == b"mine"
    assert [each.name for each in tmp_path.iterdir()] == ["file"]
    with pytest.raises(OSError, match="File exists"):
        put_file(b"other", str(file), temporary=".t", is_new=True)
    assert sha256(file.read_bytes()).digest() == sha256(b"new").digest()


def test_a_full_disk_is_told_with_the_file(tmp_path: Path) -> None:
    copy = str(tmp_path / "copy")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        with pytest.raises(OSError, match="File too large") as raised, named(copy):
            Path(copy).write_text("a")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert raised.value.filename == copy
