"""The files of a rotation: who may have written them, and what is deleted."""

from __future__ import annotations

import json
import os
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from mailguard.cli.rotation_store import StateLocks
from mailguard.config import load
from mailguard.dkim.signing_key import generate_ed25519
from mailguard.errors import ConfigError
from mailguard.guarded_file import read_guarded
from mailguard.key_places import keys_of, read_rotation
from mailguard.rotation.state import Stage
from mailguard_milter.service import Service
from rotation_made import US, generation, rotation
from rotation_site import DAY_S, HOUR_S, RotationSite, rotation_site, servers

__all__ = ["rotation_site", "servers"]

NOBODY = 65_534
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can make files of others")


# Whom a state is believed


@pytest.mark.parametrize("mode", [0o666, 0o664, 0o646])
def test_a_state_that_others_can_write_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "us.test.json"
    path.write_text(rotation().text())
    assert read_rotation(str(path), US) == rotation()
    path.chmod(mode)
    with pytest.raises(ConfigError, match="others can write to it"):
        read_rotation(str(path), US)


def test_a_state_below_what_others_can_write_is_refused(tmp_path: Path) -> None:
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    path = inner / "us.test.json"
    path.write_text(rotation().text())
    for directory in (inner, tmp_path / "a"):
        for mode in (0o775, 0o757):
            directory.chmod(mode)
            with pytest.raises(ConfigError, match=f"{directory}: others can write to it"):
                read_rotation(str(path), US)
        directory.chmod(0o755)
        os.chown(directory, NOBODY, 0)
        with pytest.raises(ConfigError, match=f"{directory} belongs to another user"):
            read_rotation(str(path), US)
        os.chown(directory, 0, 0)
    os.chown(path, NOBODY, 0)
    with pytest.raises(ConfigError, match=r"us\.test\.json belongs to another user"):
        read_rotation(str(path), US)


def test_nobody_is_told_to_close_a_directory_for_everybody(tmp_path: Path) -> None:
    """Programs of the host fail when /tmp is not for all."""
    tmp_path.chmod(0o777)
    with pytest.raises(ConfigError, match=f"replace what is below it; run: chmod go-w {tmp_path}$"):
        read_guarded(f"{tmp_path}/x", max_octets=1)
    tmp_path.chmod(0o1777)
    with pytest.raises(ConfigError, match="replace what is below it; choose a directory that is root's all the way"):
        read_guarded(f"{tmp_path}/x", max_octets=1)


def link(path: Path) -> None:
    (path.parent / "small").write_text("{}")
    path.symlink_to("small")


def great(path: Path) -> None:
    path.touch()
    os.truncate(path, 1 << 30)


@pytest.mark.parametrize("make", [link, os.mkfifo, os.mkdir, great])
def test_a_state_that_is_no_small_file_is_refused(tmp_path: Path, make: Callable[[Path], object]) -> None:
    path = tmp_path / "us.test.json"
    make(path)
    with pytest.raises(ConfigError):
        read_guarded(str(path), max_octets=1_000)


def test_a_state_of_just_the_size_is_read(tmp_path: Path) -> None:
    path = tmp_path / "us.test.json"
    path.write_text("{}")
    assert read_guarded(str(path), max_octets=2) == b"{}"
    with pytest.raises(ConfigError, match="at most 1 octets"):
        read_guarded(str(path), max_octets=1)


def test_a_link_on_the_way_is_refused(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "us.test.json").write_text(rotation().text())
    (tmp_path / "link").symlink_to("real")
    with pytest.raises(ConfigError, match="link is a symbolic link"):
        read_rotation(str(tmp_path / "link" / "us.test.json"), US)


def test_a_write_is_complete_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "state" / "us.test.json"
    with StateLocks() as locks:
        store = locks.store(str(path), US, makes_directory=True)
        store.write(rotation())
        (path.parent / ".us.test.json.new").write_text("of one that was killed")
        store.write(rotation(generation("a", Stage.CREATED)))
        kept = path.read_bytes()

        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(ConfigError, match="No space left on device"):
            store.write(rotation())
    assert path.read_bytes() == kept
    assert sorted(each.name for each in path.parent.iterdir()) == [".lock", "us.test.json"]
    assert (stat.S_IMODE(path.stat().st_mode), stat.S_IMODE(path.parent.stat().st_mode)) == (0o644, 0o755)


# What is deleted


def removable(site: RotationSite) -> tuple[Path, Path]:
    """The key files of a generation that is about to be forgotten."""
    site.started()
    old = site.selectors(0)
    site.rotate("--new")
    site.publish()
    site.rotate()
    site.rotate(seconds=HOUR_S)
    site.rotate(seconds=9 * DAY_S)
    site.forget(old)
    site.publish()
    first, second = (site.keys / f"{selector}.pem" for selector in sorted(old, reverse=True))
    return first, second


def test_nothing_is_deleted_but_the_keys_that_were_made(rotation_site: RotationSite) -> None:
    """The directory of the keys is the daemon's user's, who may put there what he likes."""
    site = rotation_site
    swapped, other = removable(site)
    victim = site.directory / "victim.pem"
    swapped.rename(victim)
    victim.chmod(0o600)
    swapped.symlink_to(victim)
    other.write_bytes(generate_ed25519())
    found = site.rotate()
    assert (found.code, site.stages()) == (0, ["signing"])
    assert victim.exists()
    assert other.exists()
    assert json.loads(found.out)["said"][0].startswith(f"{swapped}: it is not the key that was made")
    assert f"{other}: another key is in it; it stays" in json.loads(found.out)["said"]


def test_no_directory_is_followed(rotation_site: RotationSite) -> None:
    site = rotation_site
    files = removable(site)
    moved = site.directory / "elsewhere"
    site.keys.rename(moved)
    site.keys.symlink_to(moved)
    assert site.rotate().code == 0
    assert all((moved / each.name).exists() for each in files)


def test_what_is_gone_already_is_deleted(rotation_site: RotationSite) -> None:
    site = rotation_site
    for each in removable(site):
        each.unlink()
    assert (site.rotate().code, site.stages()) == (0, ["signing"])


# What the daemon's user can do


@pytest.mark.parametrize("kind", ["link", "fifo", "huge", "text"])
def test_what_the_daemon_tells_is_not_believed_blindly(rotation_site: RotationSite, kind: str) -> None:
    site = rotation_site
    site.started()
    told = site.runtime / "keys.json"
    told.unlink()
    if kind == "link":
        told.symlink_to(site.state)
    elif kind == "fifo":
        os.mkfifo(told)
    else:
        told.write_text("{" if kind == "text" else " " * (17 << 20))
    done = site.rotate("--new")
    assert (done.code, "keys.json" in done.err, site.stages()) == (78, True, ["signing"])


def test_keys_that_the_daemon_cannot_read_do_not_sign(rotation_site: RotationSite) -> None:
    """It would not start again."""
    site = rotation_site
    site.started()
    made = site.rotate("--new", "--owner", "root")
    assert (made.code, "nobody cannot sign with mg" in made.out) == (1, True)
    site.publish()
    site.rotate()
    assert (site.rotate(seconds=HOUR_S).code, site.stages()) == (1, ["signing", "published"])
    for each in site.keys.iterdir():
        os.chown(each, NOBODY, NOBODY)
    assert (site.rotate().code, site.stages()) == (0, ["retired", "signing"])
    # Nor with another key than the one that the world knows.
    (selector, *_) = site.selectors(1)
    (site.keys / f"{selector}.pem").write_bytes(generate_ed25519())
    reload = subprocess.run(site.reload.split(), capture_output=True, text=True, check=False)
    assert (reload.returncode, "it is not the key that mailguard key rotate made" in reload.stderr) == (1, True)
    lost = site.rotate()
    assert (lost.code, "the daemon would not start again: put the key back" in lost.out) == (1, True)


# What is lost


@pytest.mark.parametrize(
    ("break_it", "words"),
    [
        (Path.unlink, "it is not there, so that nobody knows which keys of us.test sign"),
        (lambda path: path.write_text("{"), "it is not what mailguard key rotate wrote"),
        (lambda path: path.write_text(path.read_text().replace("us.test", "other.test")), "it is of other.test"),
    ],
)
def test_a_lost_state_is_told_and_never_begun_anew(
    rotation_site: RotationSite, break_it: Callable[[Path], object], words: str
) -> None:
    site = rotation_site
    site.started()
    break_it(site.state)
    before = site.state.read_bytes() if site.state.exists() else None
    done = site.rotate()
    assert (done.code, words in done.err) == (78, True)
    assert (site.state.read_bytes() if site.state.exists() else None) == before
    for use in (keys_of, Service.open):
        with pytest.raises(ConfigError, match=words):
            use(load(site.config))
    if before is None:
        assert (site.rotate("--begin").code, site.stages()) == (2, ["created"])
    else:
        assert site.rotate("--begin").code == 78
