"""Key rotation against whoever may write where root reads, disks that fail, and hosts with many domains."""

from __future__ import annotations

import base64
import json
import os
import re
import resource
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from cli_process import PYTHON, Command
from mailguard.cli import rotation_keys
from mailguard.cli.doctor_child import fault_as
from mailguard.cli.key_files import store_keys
from mailguard.cli.rotation_daemon import SigningDaemon
from mailguard.cli.rotation_store import Busy, RotationStore, StateLocks
from mailguard.config import load
from mailguard.dkim.signing_key import KeyCheck, SigningKey
from mailguard.errors import ConfigError, KeyFileError
from mailguard.guarded_file import read_guarded
from mailguard.key_places import read_rotation
from mailguard.rotation.loaded import LoadedDomain, LoadedKeys
from mailguard.rotation.state import Stage
from mailguard_milter import generation as parent
from mailguard_milter.identity import Identity
from mailguard_milter.refusal import Refusal
from mailguard_milter.runtime_directory import RuntimeDirectory
from rotation_made import US, generation, rotation
from rotation_site import DAY_S, HOUR_S, RotationSite, rotation_site, servers

__all__ = ["rotation_site", "servers"]

NOBODY = 65_534
SERVICE = Path(__file__).parents[1] / "contrib" / "mailguard-key-rotate.service"
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can make files of others")


# What the daemon tells


@pytest.mark.parametrize("name", ["\\u001b]0;owned\\u0007", "\\ud800", "a\\nb", "ä"])
def test_what_the_daemon_tells_does_not_control_the_terminal(name: str) -> None:
    for domains in (f'{{"{name}": 1}}', f'{{"us.test": {{"rotation": null, "keys": {{"{name}": 1}}}}}}'):
        told = f'{{"version": 1, "lifetime_s": 1, "domains": {domains}}}'
        with pytest.raises(ConfigError) as caught:
            LoadedKeys.parse(told.encode())
        assert re.fullmatch(r"[ -~]+", str(caught.value))


def test_what_the_daemon_tells_is_read_once(rotation_site: RotationSite, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of 10,000 domains asks several times."""
    site = rotation_site
    told = site.runtime / "keys.json"
    config = load(site.config)
    daemon = SigningDaemon(config)
    assert daemon.loaded() is None
    read: list[bytes] = []
    parse = LoadedKeys.parse

    def counted(octets: bytes) -> LoadedKeys:
        read.append(octets)
        return parse(octets)

    monkeypatch.setattr(LoadedKeys, "parse", counted)
    for number in range(1, 4):
        fresh = told.with_suffix(".new")
        fresh.write_text(LoadedKeys({"us.test": LoadedDomain({"a": str(number)})}, 1).text())
        fresh.replace(told)
        for _ in range(5):
            found = daemon.loaded()
            assert found is not None
            assert found.domains["us.test"].keys == {"a": str(number)}
        assert len(read) == number
    told.unlink()
    assert daemon.loaded() is None


def test_who_goes_on_writing_does_not_hold_the_reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "keys.json"
    path.write_text("{")
    reads: list[int] = []

    def slow(descriptor: int, most: int) -> bytes:
        with path.open("a") as file:
            file.write(" ")
        reads.append(most)
        return os.pread(descriptor, min(1, most), len(reads) - 1)

    monkeypatch.setattr(os, "read", slow)
    with pytest.raises(ConfigError, match="grows while it is read"):
        read_guarded(str(path), max_octets=1_000)
    assert len(reads) < 5


class Application:
    """What a generation that cannot write needs."""

    keys = "x" * 10_000


def test_half_a_file_is_not_what_the_daemon_tells(tmp_path: Path) -> None:
    """As on a full disk."""
    directory = RuntimeDirectory(str(tmp_path))
    (tmp_path / "keys.json").write_text("of before")
    made = object.__new__(parent._Parent)
    made.application, made.keys_file = Application(), directory.keys_of(1)  # type: ignore[assignment]  # all it needs
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, before[1]))
    try:
        made._tell_keys()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not Path(made.keys_file).exists()
    directory.announce_keys(1)
    assert not list(tmp_path.iterdir())


# The directory of the daemon, which root tidies up at a start


def claimed(path: Path) -> None:
    with RuntimeDirectory.claim(str(path), Identity("nobody", NOBODY, NOBODY, ())):
        pass


@pytest.fixture
def daemons(tmp_path: Path) -> Path:
    path = tmp_path / "run"
    path.mkdir()
    os.chown(path, NOBODY, NOBODY)
    return path


@pytest.mark.parametrize("is_after", [False, True])
def test_root_follows_no_link_when_it_tidies_up(
    daemons: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_after: bool
) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "shadow").touch()
    worker = daemons / "worker-1"
    worker.mkdir()
    swapped: list[object] = []

    def swap() -> None:
        """What the daemon's user does between a check and what follows."""
        if worker.is_dir() and not worker.is_symlink():
            swapped.append(worker.rename(daemons / "gone"))
            worker.symlink_to(victim)

    def beside_a_swap(call: Callable[..., object]) -> Callable[..., object]:
        def called(*arguments: object, **more: object) -> object:
            is_worker = str(arguments[0]).endswith(worker.name)
            if is_worker and not is_after:
                swap()
            found = call(*arguments, **more)
            if is_worker:
                swap()
            return found

        return called

    for name in ("scandir", "listdir", "open"):
        monkeypatch.setattr(os, name, beside_a_swap(getattr(os, name)))
    claimed(daemons)
    assert swapped
    assert (victim / "shadow").exists()
    monkeypatch.undo()
    assert worker.is_symlink()
    worker.unlink()
    worker.mkdir()
    (worker / "socket").touch()
    claimed(daemons)
    assert not worker.exists()


def test_root_gives_nothing_away_in_place_of_a_new_directory(
    daemons: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    victim = tmp_path / "victim"
    victim.mkdir(mode=0o700)
    mkdir = os.mkdir

    def swapped(path: str, *more: object) -> None:
        mkdir(path)
        os.rmdir(path)
        os.symlink(victim, path)

    monkeypatch.setattr(os, "mkdir", swapped)
    with pytest.raises(Refusal):
        claimed(daemons / "inner")
    assert (victim.stat().st_uid, victim.stat().st_mode & 0o777) == (0, 0o700)


def test_root_writes_to_no_file_that_was_linked_as_the_lock(daemons: Path, tmp_path: Path) -> None:
    victim = tmp_path / "shadow"
    victim.write_text("secret")
    victim.chmod(0o600)
    os.link(victim, daemons / "lock")
    with pytest.raises(Refusal, match="lock is not a regular file, or has another name"):
        claimed(daemons)
    assert (victim.read_text(), victim.stat().st_uid, victim.stat().st_mode & 0o777) == ("secret", 0, 0o600)


# What is written can be read again


def test_a_state_that_could_not_be_read_again_is_not_written(tmp_path: Path) -> None:
    path = tmp_path / "us.test.json"
    with StateLocks() as locks:
        store = locks.store(str(path), US, makes_directory=False)
        store.write(rotation(generation("a", Stage.SIGNING)))
        kept = path.read_bytes()
        with pytest.raises(ConfigError, match="not written, for it could not be read again"):
            store.write(rotation(generation("a", Stage.SIGNING, until=1e13)))
    assert path.read_bytes() == kept


def test_names_of_directories_in_any_script(rotation_site: RotationSite) -> None:
    site = rotation_site
    place = site.directory / "ключи"
    assert site.rotate("--directory", str(place), "--state", str(place)).code == 2
    site.state = place / "us.test.json"
    site.configure()
    site.tell()
    site.publish()
    assert (site.rotate().code, site.stages()) == (0, ["published"])
    assert (site.rotate(seconds=HOUR_S).code, site.stages()) == (0, ["signing"])


@pytest.mark.parametrize(("length", "code"), [(223, 2), (224, 78), (253, 78)])
def test_a_domain_with_a_long_name(rotation_site: RotationSite, length: int, code: int) -> None:
    site = rotation_site
    labels = ".".join(["a" * 49] * 5)
    domain = f"{labels[: length - len('.a.us.test')]}.a.us.test".replace("..", "b.")
    done = site.rotate(domain=domain)
    assert (len(domain), done.code, "too long" in done.err) == (length, code, code == 78), done.err


def test_names_of_files_are_no_markup(rotation_site: RotationSite, mailguard_command: Command) -> None:
    site = rotation_site
    file = f"{site.directory}/[/b]/[red]:key:.pem"
    site.configure(f'[domains."us.test"]\nselectors = [{{ name = "a", key_file = "{file}" }}]\n')
    listed = mailguard_command("key", "list", "-c", site.config)
    assert (listed.code, file in listed.out) == (0, True)


@pytest.mark.parametrize("name", [b"a\x1b[31m", b"\xff"])
def test_names_that_are_no_text_are_refused_before_there_is_a_key(rotation_site: RotationSite, name: bytes) -> None:
    site = rotation_site
    place = os.fsdecode(os.fsencode(site.directory) + b"/" + name)
    refused = site.rotate("--directory", place)
    assert (refused.code, "without control characters" in refused.err) == (78, True)
    assert not os.path.lexists(place)
    assert "\x1b" not in refused.err
    assert site.kept()["used"] == []


def test_times_that_no_calendar_has(rotation_site: RotationSite, mailguard_command: Command) -> None:
    site = rotation_site
    assert site.rotate("--now", str(10**12)).code == 64
    site.started()
    state = site.kept()
    state["generations"][0]["since"] = 10**12
    site.state.write_text(json.dumps(state))
    listed = mailguard_command("key", "list", "-c", site.config)
    assert (listed.code, "a number from 0 to" in listed.err) == (78, True)
    assert site.rotate().code == 78


def test_the_directory_of_the_states_can_be_passed_from_the_first_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the umask, and whoever is killed there."""

    class Killed(BaseException):
        pass

    def killed(*_: object, **__: object) -> None:
        raise Killed

    for name in ("chmod", "fchmod", "fsync"):
        monkeypatch.setattr(os, name, killed)
    before = os.umask(0o077)
    try:
        with pytest.raises(Killed), StateLocks() as locks:
            locks.store(f"{tmp_path}/rotation/us.test.json", US, makes_directory=True)
    finally:
        assert os.umask(before) == 0o077
    assert (tmp_path / "rotation").stat().st_mode & 0o777 == 0o755


def test_a_key_that_would_take_long_to_check_is_refused_first() -> None:
    """Root checks what lies in a directory of the daemon's user."""
    n = (1 << 16_383) + 1
    numbers = b"".join(_integer(each) for each in (0, n, 65_537, n - 2, 1 << 8_191 | 1, 1 << 8_191 | 3, 5, 7, 9))
    body = base64.encodebytes(b"\x30\x82" + len(numbers).to_bytes(2, "big") + numbers)
    pem = b"-----BEGIN RSA PRIVATE KEY-----\n" + body + b"-----END RSA PRIVATE KEY-----\n"
    for check in KeyCheck:
        with pytest.raises(KeyFileError, match="1024 to 8192 bits, not 16384"):
            SigningKey.from_bytes(pem, domain=US, selector="a", check=check)


def _integer(value: int) -> bytes:
    """In DER."""
    octets = value.to_bytes(value.bit_length() // 8 + 1, "big")
    length = len(octets)
    return b"\x02" + (bytes([length]) if length < 128 else b"\x82" + length.to_bytes(2, "big")) + octets


# Disks that fail


def test_a_disk_that_stays_broken_uses_up_no_names(
    rotation_site: RotationSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = rotation_site
    site.started()
    before = site.kept()
    files = sorted(site.keys.iterdir())
    write = RotationStore.write

    def half(place: str, domain: str, keys: list[tuple[str, bytes]], **more: object) -> list[str]:
        store_keys(place, domain, keys[:1], owner=None)
        raise KeyFileError("No space left on device")

    def full(self: RotationStore, kept: object) -> None:
        if len(kept.generations) > 1:  # type: ignore[attr-defined]  # a Rotation
            raise ConfigError("No space left on device")
        write(self, kept)  # type: ignore[arg-type]  # as above

    for owner, name, broken in ((rotation_keys, "store_keys", half), (RotationStore, "write", full)):
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, broken)
            for _ in range(3):
                failed = site.rotate("--new")
                assert (failed.code, "No space left on device" in failed.err) == (78, True)
        assert site.kept()["used"] == before["used"], name
        assert sorted(site.keys.iterdir()) == files, name
    assert site.rotate("--new").code == 2


# Keys that others need


@pytest.mark.parametrize("how", ["other", "rotation", "own", "pattern"])
def test_keys_that_are_needed_elsewhere_are_not_deleted(rotation_site: RotationSite, how: str) -> None:
    site = rotation_site
    site.started()
    old = site.selectors(0)
    site.rotate("--new")
    site.publish()
    site.rotate()
    site.rotate(seconds=HOUR_S)
    named = ", ".join(f'{{ name = "{each}", key_file = "{site.keys}/{each}.pem" }}' for each in old)
    rule = f'[domains."us.test"]\nrotation = "{site.state}"\n'
    if how == "other":
        site.configure(f'{rule}[domains."b.test"]\nselectors = [{named}]\n')
    elif how == "own":
        site.configure(f'[domains."us.test"]\nselectors = [{named}]\n')
    elif how == "pattern":
        pattern = f'[sign]\nkey_pattern = "{site.keys.parent}/{{domain}}/{{selector}}.pem"\n'
        site.configure("", more="")
        site.config.write_text(site.config.read_text() + f"{pattern}key_selectors = {sorted(old)}\n")
    else:
        adopted = json.loads(site.state.read_text().replace('"domain": "us.test"', '"domain": "b.test"'))
        adopted["generations"] = adopted["generations"][:1]
        for each in adopted["generations"][0]["keys"]:
            each["is_made"] = False
        other = site.state.with_name("b.test.json")
        other.write_text(json.dumps(adopted))
        site.configure(f'{rule}[domains."b.test"]\nrotation = "{other}"\n')
    site.rotate(seconds=9 * DAY_S, reload="")
    site.forget(old)
    site.publish()
    done = site.rotate(reload="")
    assert site.stages() == ["signing"], done.out + done.err
    assert all((site.keys / f"{each}.pem").exists() for each in old)
    assert done.out.count("it stays: ") == 2


# Many domains, and how it is run


@contextmanager
def descriptors(most: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_there_are_more_domains_than_descriptors(tmp_path: Path) -> None:
    used = len(os.listdir("/proc/self/fd"))
    domains = [US.parse(f"d{number}.test") for number in range(300)]
    with descriptors(used + 20), StateLocks() as locks:
        stores = [locks.store(f"{tmp_path}/{each}.json", each, makes_directory=True) for each in domains]
        stores[-1].write(rotation().__class__(domain=domains[-1]))
    assert read_rotation(f"{tmp_path}/{domains[-1]}.json", domains[-1]) is not None
    assert len(os.listdir("/proc/self/fd")) == used


def test_each_state_has_a_lock_of_its_own(tmp_path: Path) -> None:
    other = US.parse("other.test")
    with StateLocks() as locks:
        locks.store(f"{tmp_path}/{US}.json", US, makes_directory=False)
        child = os.fork()
        if child == 0:
            try:
                with StateLocks() as others:
                    others.store(f"{tmp_path}/{other}.json", other, makes_directory=False)
                    try:
                        others.store(f"{tmp_path}/{US}.json", US, makes_directory=False)
                    except Busy:
                        os._exit(7)
            finally:
                os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


def test_the_keys_of_a_domain_are_looked_at_in_one_process(
    rotation_site: RotationSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = rotation_site
    site.started()
    looks: list[object] = []

    def counted(*arguments: Any, **more: Any) -> str:
        looks.append(arguments)
        return fault_as(*arguments, **more)

    monkeypatch.setattr(rotation_keys, "fault_as", counted)
    assert (site.rotate().code, len(looks)) == (0, 1)


@pytest.mark.parametrize("command", [" ", "'", "\0"])
def test_no_reload_command_is_a_command(rotation_site: RotationSite, command: str) -> None:
    site = rotation_site
    site.rotate()
    site.configure()
    site.publish()
    site.rotate()
    done = site.rotate(seconds=HOUR_S, reload=command)
    assert (done.code, "the reload failed" in done.out, site.stages()) == (1, True, ["switching"])


def test_the_unit_lets_it_do_what_it_must(rotation_site: RotationSite) -> None:
    """Its capabilities and its umask. Not: its mounts."""
    unit = SERVICE.read_text()
    (names,) = re.findall(r"^CapabilityBoundingSet=(.+)$", unit, re.M)
    assert {"UMask=0077", "NoNewPrivileges=yes", "TimeoutStartSec=infinity"} <= set(unit.splitlines())
    site = rotation_site
    site.rotate()
    site.configure()
    site.tell()
    site.publish()
    kept = ",".join(f"+{name.removeprefix('CAP_').lower()}" for name in names.split())
    caged = ["setpriv", "--no-new-privs", f"--bounding-set=-all,{kept}", f"--inh-caps=-all,{kept}"]

    def run(seconds: float, *more: str) -> int:
        site.now += seconds
        options = ["-c", str(site.config), "--directory", str(site.keys.parent), "--now", str(int(site.now))]
        command = [*caged, *PYTHON, "key", "rotate", "--all", *options, "--reload", site.reload, "--json", *more]
        done = subprocess.run(command, capture_output=True, text=True, check=False, umask=0o077, timeout=60)
        for each in json.loads(done.stdout):
            site.records.update((record["name"], record["value"]) for record in each["publish"])
        return done.returncode

    assert (run(0), run(HOUR_S), site.stages()) == (0, 0, ["signing"])
    old = site.selectors(0)
    assert run(200 * DAY_S) == 2
    site.publish()
    assert (run(0), run(HOUR_S), site.stages()) == (0, 0, ["retired", "signing"])
    assert {each.stat().st_uid for each in site.keys.iterdir()} == {NOBODY}
    assert run(9 * DAY_S) == 2
    site.forget(old)
    site.publish()
    assert (run(0), site.stages()) == (0, ["signing"])
    assert {each.stem for each in site.keys.iterdir()} == site.selectors(0)
