"""Starting the daemon: what it gives up, what it refuses and why, and --check-config.

ATTACKS.md rows: V24-V26, K01, K07-K09, P17, P25.
"""

from __future__ import annotations

import errno
import fcntl
import os
import pwd
import re
import resource
import shutil
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from daemon_process import (
    DAEMON,
    IS_ROOT,
    PATIENCE_S,
    USER,
    Daemon,
    eventually,
    kill,
)
from engine_process import per_engine
from mailguard import config as configuration
from mailguard.dkim.signing_key import generate_ed25519
from mailguard_milter import __main__ as command
from mailguard_milter import supervisor
from mailguard_milter.identity import Identity
from mailguard_milter.listening import ListeningSocket, check_directory
from mailguard_milter.refusal import Refusal
from mailguard_milter.runtime_directory import RuntimeDirectory
from sandbox_place import free_port

# Start and end


@pytest.mark.attack("V25", "P25", "P24")
@per_engine
def test_ready_means_that_mail_is_served_and_the_end_leaves_nothing(daemon: Daemon) -> None:
    daemon.started()
    assert daemon.verdict() == "mx1.us.test"
    status = daemon.socket.stat()
    assert stat.S_IMODE(status.st_mode) == 0o660
    assert status.st_uid == pwd.getpwnam(USER).pw_uid
    assert len(daemon.workers()) == 2
    daemon.signal(signal.SIGTERM)
    assert daemon.process is not None
    assert daemon.process.wait(PATIENCE_S) == 0
    assert "STOPPING=1" in daemon.heard()
    assert daemon.family() == []
    assert [entry.name for entry in daemon.runtime.iterdir()] == ["lock"]


@pytest.mark.attack("K07")
@pytest.mark.skipif(not IS_ROOT, reason="only root can give up root")
@per_engine
def test_every_process_has_given_up_root_for_good(daemon: Daemon) -> None:
    daemon.started()
    user = pwd.getpwnam(USER)
    family = daemon.family()
    assert len(family) == 4
    for pid in family:
        fields = dict(
            line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line
        )
        assert set(fields["Uid"].split()) == {str(user.pw_uid)}
        assert set(fields["Gid"].split()) == {str(user.pw_gid)}
        assert "0" not in fields["Groups"].split()
        assert int(fields["CapEff"], 16) == int(fields["CapPrm"], 16) == 0


@pytest.mark.attack("K07")
@pytest.mark.skipif(not IS_ROOT, reason="only root changes its user")
@pytest.mark.parametrize(
    ("user", "told"),
    [("no-such-user", "adduser --system --group --no-create-home no-such-user"), ("root", '"root" is root')],
)
def test_root_without_a_user_to_become_is_refused(daemon: Daemon, user: str, told: str) -> None:
    daemon.config.write_text(daemon.config.read_text().replace(f'user = "{USER}"', f'user = "{user}"'))
    assert daemon.start().wait(PATIENCE_S) == 78
    assert told.replace('"', '\\"') in daemon.log()
    assert not daemon.socket.exists()


@pytest.mark.skipif(not IS_ROOT, reason="needs root to try")
@pytest.mark.attack("K07")
def test_giving_up_root_is_verified() -> None:
    """In a child: a user database that names root's group keeps the daemon from starting."""
    program = (
        "from mailguard_milter.identity import Identity\n"
        "from mailguard_milter.refusal import Refusal\n"
        "try:\n    Identity('x', 65534, 65534, (65534, 0)).become()\n"
        "except Refusal as refusal:\n    print(refusal.code)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "70\n"


@pytest.mark.attack("V24")
def test_a_second_daemon_ends_and_leaves_the_first_alone(daemon: Daemon) -> None:
    pid = daemon.started()
    inode = daemon.socket.stat().st_ino
    second = subprocess.run([*DAEMON, str(daemon.config)], capture_output=True, text=True, check=False)
    assert second.returncode == 75
    assert f"another mailguard-milter runs with this configuration (process {pid}" in second.stderr
    assert daemon.socket.stat().st_ino == inode
    assert daemon.verdict() == "mx1.us.test"


@pytest.mark.attack("V24", "K08")
def test_a_daemon_with_another_runtime_directory_does_not_take_the_socket(daemon: Daemon) -> None:
    daemon.started()
    other = daemon.directory / "other"
    other.mkdir()
    if IS_ROOT:
        shutil.chown(other, USER)
    text = daemon.config.read_text().replace(
        f'runtime_directory = "{daemon.runtime}"', f'runtime_directory = "{other}"'
    )
    (daemon.directory / "other.toml").write_text(text)
    second = subprocess.run(
        [*DAEMON, str(daemon.directory / "other.toml")], capture_output=True, text=True, check=False
    )
    assert second.returncode == 75
    assert "another process listens there" in second.stderr
    assert daemon.verdict() == "mx1.us.test"


@pytest.mark.attack("V26", "K08")
@per_engine
def test_what_a_killed_daemon_left_is_no_obstacle(daemon: Daemon) -> None:
    daemon.started()
    for pid in daemon.family():
        kill(pid, signal.SIGKILL)
    assert daemon.process is not None
    daemon.process.wait()
    # A process that is still dying listens.
    eventually(lambda: daemon.family() == [])
    assert daemon.socket.is_socket()
    (daemon.runtime / "worker-left").mkdir()
    daemon.started()
    assert daemon.verdict() == "mx1.us.test"
    assert not (daemon.runtime / "worker-left").exists()


@per_engine
@pytest.mark.parametrize("lost", ["m.sock", "."])
def test_a_daemon_that_nobody_can_reach_finishes_and_ends_to_be_started_again(daemon: Daemon, lost: str) -> None:
    daemon.started()
    with daemon.client() as client:
        client.open()
        client.mail()
        gone = daemon.runtime / lost
        if gone.is_dir():
            shutil.rmtree(gone)
        else:
            gone.unlink()
        eventually(lambda: "deleted or replaced; ending, to be started again" in daemon.log())
        client.header(b"From", b" <x@evil.test>")
        client.end_of_header()
        assert client.end_of_message()[-1] == (b"c", b"")
    assert daemon.process is not None
    assert daemon.process.wait(PATIENCE_S) == 75
    assert daemon.family() == []
    daemon.started()
    assert daemon.verdict() == "mx1.us.test"


def a_file(path: Path, directory: Path) -> None:
    path.write_text("precious")


def a_directory(path: Path, directory: Path) -> None:
    path.mkdir()


def a_symlink(path: Path, directory: Path) -> None:
    (directory / "precious").write_text("precious")
    path.symlink_to(directory / "precious")


def a_symlink_to_a_socket(path: Path, directory: Path) -> None:
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(directory / "precious"))
    path.symlink_to(directory / "precious")


@pytest.mark.attack("K08", "V26")
@pytest.mark.parametrize("make", [a_file, a_directory, a_symlink, a_symlink_to_a_socket])
@pytest.mark.parametrize("name", ["m.sock", "lock"])
def test_what_is_in_the_way_stays(daemon: Daemon, make: Callable[[Path, Path], None], name: str) -> None:
    daemon.runtime.mkdir(exist_ok=True)
    make(daemon.runtime / name, daemon.directory)
    if name == "lock" and make is a_file:
        (daemon.runtime / name).unlink()
        os.mkfifo(daemon.runtime / name)
    before = os.lstat(daemon.runtime / name)
    assert daemon.start().wait(PATIENCE_S) in (75, 78)
    assert "remove it" in daemon.log()
    after = os.lstat(daemon.runtime / name)
    assert (before.st_ino, before.st_mode) == (after.st_ino, after.st_mode)
    if (daemon.directory / "precious").is_file():
        assert (daemon.directory / "precious").read_text() == "precious"


@pytest.mark.skipif(not IS_ROOT, reason="only root can make files of others")
def test_a_runtime_directory_that_is_not_the_users_is_refused(own_directory: Path) -> None:
    with (
        pytest.raises(Refusal, match=f"does not belong to the user x; run: chown x {own_directory}"),
        RuntimeDirectory.claim(str(own_directory), Identity("x", 65_534, 65_534, ())),
    ):
        pass
    assert list(own_directory.iterdir()) == []


@pytest.mark.attack("V26")
@pytest.mark.parametrize("left_with", [None, 0o644])
def test_nobody_else_can_hold_the_lock(own_directory: Path, left_with: int | None) -> None:
    # To lock a file with flock(2), it is enough to read it.
    lock = own_directory / "lock"
    if left_with is not None:
        lock.touch()
        lock.chmod(left_with)
    before = os.umask(0)
    try:
        with RuntimeDirectory.claim(str(own_directory), Identity("x", os.geteuid(), os.getegid(), ())):
            assert stat.S_IMODE(lock.stat().st_mode) == 0o600
    finally:
        os.umask(before)


def test_the_lock_is_held_on_a_disk_that_is_full(own_directory: Path) -> None:
    identity = Identity("x", os.geteuid(), os.getegid(), ())
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        with (
            RuntimeDirectory.claim(str(own_directory), identity),
            pytest.raises(Refusal, match=r"another mailguard-milter runs .*process unknown"),
            RuntimeDirectory.claim(str(own_directory), identity),
        ):
            pass
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_file_system_without_locks_is_refused(own_directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refused)
    with (
        pytest.raises(Refusal, match=r"lock cannot be locked: No locks available; choose a runtime_directory"),
        RuntimeDirectory.claim(str(own_directory), Identity("x", os.geteuid(), os.getegid(), ())),
    ):
        pass


@pytest.mark.skipif(not IS_ROOT or shutil.which("unshare") is None, reason="needs root, to mount a file system")
def test_a_runtime_directory_that_is_full_is_tried_again(daemon: Daemon) -> None:
    # An inode for the directory itself, and none for the lock.
    mount = (
        f'mount -t tmpfs -o nr_inodes=1,mode=755,uid={pwd.getpwnam(USER).pw_uid} tmpfs {daemon.runtime} && exec "$@"'
    )
    daemon.runtime.mkdir(exist_ok=True)
    process = daemon.start("unshare", "-m", "--propagation", "private", "sh", "-c", mount, "sh", *DAEMON)
    assert process.wait(PATIENCE_S) == 75
    assert "No space left on device; no room or no inode is left there" in daemon.log()


@pytest.mark.skipif(not IS_ROOT or shutil.which("unshare") is None, reason="needs root, to mount a directory")
def test_a_directory_that_the_unit_closes_is_named_with_the_remedy(daemon: Daemon) -> None:
    closed = daemon.directory / "closed"
    closed.mkdir()
    daemon.configure(listeners=f'[[listeners]]\naddress = "unix:{closed}/m.sock"\n')
    mount = f'mount --bind {closed} {closed} && mount -o remount,bind,ro {closed} && exec "$@"'
    process = daemon.start("unshare", "-m", "--propagation", "private", "sh", "-c", mount, "sh", *DAEMON)
    assert process.wait(PATIENCE_S) == 75
    assert (
        "Read-only file system; mounted so, or closed by the unit: name the directory in ReadWritePaths="
        in daemon.log()
    )


@pytest.mark.attack("K08")
@pytest.mark.parametrize("mode", [0o777, 0o1777])
def test_a_socket_in_a_directory_of_everybody_is_refused(daemon: Daemon, mode: int) -> None:
    public = daemon.directory / "public"
    public.mkdir()
    public.chmod(mode)
    daemon.configure(listeners=f'[[listeners]]\naddress = "unix:{public}/m.sock"\n')
    assert daemon.start().wait(PATIENCE_S) == 78
    assert f"every user can write to {public}" in daemon.log()
    assert list(public.iterdir()) == []


@pytest.mark.attack("K08")
@pytest.mark.skipif(not IS_ROOT, reason="only root can make files of others")
def test_directories_and_sockets_of_other_users_are_refused(daemon: Daemon) -> None:
    foreign = daemon.directory / "foreign"
    foreign.mkdir()
    os.chown(foreign, 12_345, -1)
    with pytest.raises(Refusal, match="belongs to another user"):
        check_directory(str(foreign), Identity.to_become(USER))
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(daemon.socket))
    os.chown(daemon.socket, 12_345, -1)
    assert daemon.start().wait(PATIENCE_S) == 78
    assert "belongs to another user" in daemon.log()
    assert daemon.socket.is_socket()


@pytest.mark.parametrize("closed", [(2,), (0, 1, 2)])
def test_a_stream_that_was_closed_is_nobodys_socket(daemon: Daemon, closed: tuple[int, ...]) -> None:
    program = f"import os, sys; [os.close(each) for each in {closed}]; os.execv(sys.argv[1], sys.argv[1:])"
    daemon.started(sys.executable, "-c", program, *DAEMON)
    for pid in daemon.family():
        links = [os.readlink(f"/proc/{pid}/fd/{descriptor}") for descriptor in closed]
        assert links == ["/dev/null"] * len(closed)
    assert daemon.verdict() == "mx1.us.test"


@pytest.mark.attack("K08")
@pytest.mark.parametrize("replace", [os.symlink, os.link])
def test_what_is_put_in_the_place_of_a_socket_keeps_its_mode(
    own_directory: Path, monkeypatch: pytest.MonkeyPatch, replace: Callable[[str, str], None]
) -> None:
    precious = own_directory / "precious"
    precious.touch(mode=0o600)
    plan = {"family": "unix", "address": "m", "path": str(own_directory / "m.sock"), "group": "", "mode": 0o666}
    identity = Identity("x", os.geteuid(), os.getegid(), ())

    def put(path: str) -> None:
        os.unlink(path)
        replace(str(precious), path)

    class Replaced(socket.socket):
        def bind(self, address: Any) -> None:
            super().bind(address)
            put(address)

    opened = ListeningSocket.open(plan, identity)
    with opened.socket:
        assert stat.S_IMODE(os.lstat(opened.path).st_mode) == 0o666
        put(opened.path)
        with pytest.raises(Refusal, match="not this daemon's socket any more"):
            opened.adjust(plan, identity)
    os.unlink(opened.path)
    monkeypatch.setattr(socket, "socket", Replaced)
    with pytest.raises(Refusal, match="replaced while it was made"):
        ListeningSocket.open(plan, identity)
    assert stat.S_IMODE(precious.stat().st_mode) == 0o600


@pytest.mark.attack("K09")
@pytest.mark.parametrize("address", ["inet:0.0.0.0:{port}", "inet6:[::]:{port}"])
def test_an_address_that_others_reach_needs_a_word(daemon: Daemon, address: str) -> None:
    daemon.configure(listeners=f'[[listeners]]\naddress = "{address.format(port=free_port())}"\n')
    assert daemon.start().wait(PATIENCE_S) == 78
    assert "allow_remote = true" in daemon.log()


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("lisseners = []\n", 'mg.toml:1: lisseners: unknown key, did you mean \\"listeners\\"?'),
        ("[", "mg.toml:1: not TOML"),
        ('[domains."us.test"]\nselectors = [{name = "s", key_file = "/no/such"}]\n', "/no/such"),
    ],
    ids=["unknown key", "syntax", "key"],
)
def test_a_bad_configuration_is_refused_with_its_place(daemon: Daemon, content: str, told: str) -> None:
    if content.startswith("[domains"):
        daemon.configure(extra="")
        content = daemon.config.read_text() + content
    daemon.config.write_text(content)
    assert daemon.start().wait(PATIENCE_S) == 78
    assert told in daemon.log()
    assert not daemon.socket.exists()


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["--no-such-option"], 64, "unrecognized arguments"),
        (["-c", "/no/such/file", "--check-config"], 78, "/no/such/file: cannot be read"),
        (["-c", "/no/such/file"], 78, "/no/such/file: cannot be read"),
    ],
)
def test_the_command_line(arguments: list[str], code: int, told: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mailguard_milter", *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == code
    assert told in done.stderr


def test_the_version_is_that_of_the_distribution() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mailguard_milter", "--version"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"mailguard-milter, version {version('mailguard-milter')}\n"


def test_check_config_says_what_it_found(daemon: Daemon) -> None:
    done = subprocess.run(
        [*DAEMON, str(daemon.config), "--check-config"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0
    assert done.stdout.splitlines()[0] == f"ok: {daemon.config}"
    assert f"listener unix:{daemon.socket}, role auto" in done.stdout
    assert not daemon.socket.exists()


def test_a_python_that_the_user_cannot_run_is_said(tmp_path: Path) -> None:
    directory = RuntimeDirectory(str(tmp_path))
    daemon = supervisor.Supervisor("mg.toml", generation_command=(__file__,), _directory=directory)
    with pytest.raises(Refusal, match=r'the user "nobody" cannot run .*test_daemon_start\.py \(Permission denied\)'):
        daemon._spawn({"user": "nobody", "listeners": [], "trace": None})


@pytest.mark.attack("K01", "K07")
@pytest.mark.skipif(not IS_ROOT, reason="only root can make files of others")
@pytest.mark.parametrize(("owner", "code", "told"), [(USER, 0, "signs us.test"), ("root", 78, "cannot be opened")])
def test_check_config_as_root_judges_keys_as_the_daemon(daemon: Daemon, owner: str, code: int, told: str) -> None:
    daemon.configure()
    with daemon.config.open("a") as config:
        config.write('[domains."us.test"]\nselectors = [{name = "s", key_file = "s.pem"}]\n')
    key = daemon.directory / "s.pem"
    key.write_bytes(generate_ed25519())
    key.chmod(0o600)
    shutil.chown(key, owner)
    done = subprocess.run(
        [*DAEMON, str(daemon.config), "--check-config"], capture_output=True, text=True, check=False
    )
    assert done.returncode == code, done.stderr
    assert told in done.stdout + done.stderr


def test_the_default_file_is_the_one_of_the_configuration() -> None:
    assert command.DEFAULT_CONFIG == configuration.DEFAULT_PATH


def test_the_supervisor_imports_neither_mailguard_nor_pydantic() -> None:
    program = "import sys, mailguard_milter.__main__; print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert not loaded & {"mailguard", "pydantic", "milter", "dns", "cryptography", "asyncio"}


def test_without_the_extra_the_daemon_says_what_to_install() -> None:
    program = (
        "import sys; sys.modules['pydantic'] = None\n"
        "import mailguard_milter.plan as plan; sys.exit(plan.main(['/nonexistent']))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (78, "", 1), done.stderr
    assert "pip install 'mailguard-milter[native]'" in done.stderr


def test_check_config_reads_the_keys_of_the_pattern_in_full(daemon: Daemon) -> None:
    sign = f'key_pattern = "{daemon.directory}/{{domain}}/{{selector}}.pem"\nkey_selectors = ["s"]\n'
    daemon.configure(extra=f"[sign]\n{sign}")
    for domain in ("one.test", "two.test"):
        key = daemon.directory / domain / "s.pem"
        key.parent.mkdir()
        key.write_bytes(generate_ed25519())
        key.chmod(0o600)
        shutil.chown(key, USER)
    check = [*DAEMON, str(daemon.config), "--check-config"]
    done = subprocess.run(check, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "where 2 keys are now" in done.stdout
    (daemon.directory / "two.test" / "s.pem").write_bytes(b"junk")
    done = subprocess.run(check, capture_output=True, text=True, check=False)
    assert done.returncode == 78
    assert "two.test/s.pem" in done.stderr


@pytest.mark.parametrize(
    ("listener", "told"),
    [
        ('address = "unix:/tmp/m.sock"', "every user can write to /tmp; choose a directory of its own\n"),
        ('address = "unix:{socket}"\ngroup = "no-such-group"', 'there is no group "no-such-group"'),
    ],
    ids=["directory", "group"],
)
def test_check_config_says_what_would_refuse_the_socket(daemon: Daemon, listener: str, told: str) -> None:
    daemon.configure(listeners="[[listeners]]\n" + listener.format(socket=daemon.socket) + "\n")
    done = subprocess.run(
        [*DAEMON, str(daemon.config), "--check-config"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 78
    assert told in done.stderr


def test_a_listener_has_a_worker_a_core(daemon: Daemon) -> None:
    daemon.configure(listeners=f'[[listeners]]\naddress = "unix:{daemon.socket}"\n')
    daemon.started()
    assert len(daemon.workers()) == len(os.sched_getaffinity(0))


def test_workers_have_as_many_descriptors_as_they_may(daemon: Daemon) -> None:
    """Each session needs one, and 1,024 are what a service begins with."""
    daemon.started("prlimit", "--nofile=512:4096", *DAEMON)
    limits = [Path(f"/proc/{pid}/limits").read_text() for pid in daemon.workers()]
    assert [re.findall(r"Max open files +(\d+) +(\d+)", each) for each in limits] == [[("4096", "4096")]] * 2


@pytest.mark.attack("K09")
def test_an_address_that_others_reach_is_warned_of(daemon: Daemon) -> None:
    daemon.configure(listeners=f'[[listeners]]\naddress = "inet:0.0.0.0:{free_port()}"\nallow_remote = true\n')
    daemon.started()
    assert 'level=warning event="other hosts can reach a listener and have mail signed"' in daemon.log()
