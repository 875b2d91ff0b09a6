"""The whole daemon as processes: start, kill, hang, reload, drain, and what it refuses.

ATTACKS.md rows: V01, V03-V08, V24-V26, K07-K09, P17, P24, P25. The session is the real one, spoken to over the wire
and answered from a zone file. What needs the real Postfix and load is in the end-to-end tests.
"""

from __future__ import annotations

import os
import pwd
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mailguard import config as configuration
from mailguard.dkim.signing_key import generate_ed25519
from mailguard_milter import __main__ as command
from mailguard_milter import supervisor, worker
from mailguard_milter.identity import Identity
from mailguard_milter.listening import check_directory
from mailguard_milter.refusal import Refusal
from milter_client import MilterClient, MilterGone

PATIENCE_S = 30.0
IS_ROOT = os.geteuid() == 0
USER = "nobody" if IS_ROOT else pwd.getpwuid(os.geteuid()).pw_name
DAEMON = (sys.executable, "-m", "mailguard_milter", "-c")
QUICK = (sys.executable, str(Path(__file__).with_name("quick_daemon.py")))


def eventually(what: Callable[[], Any], *, within_s: float = PATIENCE_S) -> Any:
    """The first true value of `what`."""
    deadline = time.monotonic() + within_s
    while not (value := what()) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert value, f"{what} did not come true"
    return value


class Daemon:
    """A daemon, its files and its processes."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.config = directory / "mg.toml"
        self.runtime = directory / "run"
        self.socket = self.runtime / "m.sock"
        self.stderr = directory / "stderr"
        self.process: subprocess.Popen[bytes] | None = None
        self.notified = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.notified.bind(str(directory / "notify"))
        self.notified.settimeout(PATIENCE_S)
        (directory / "notify").chmod(0o666)
        (directory / "zone").write_text("$ORIGIN test.\n$TTL 60\n@ IN SOA ns root 1 1 1 1 1\n")
        (directory / "zone").chmod(0o644)
        self.configure()

    def configure(self, *, authserv_id: str = "mx1.us.test", listeners: str | None = None, extra: str = "") -> None:
        if listeners is None:
            listeners = f'[[listeners]]\naddress = "unix:{self.socket}"\nworkers = 2\n'
        fresh = self.config.with_suffix(".new")
        fresh.write_text(
            f'authserv_id = "{authserv_id}"\nuser = "{USER}"\nruntime_directory = "{self.runtime}"\n{extra}\n'
            f'[log]\ndestination = "stderr"\n[dns]\nzone_file = "zone"\n{listeners}'
        )
        fresh.chmod(0o644)
        fresh.replace(self.config)

    def start(self, *command: str) -> subprocess.Popen[bytes]:
        with open(self.stderr, "ab") as stderr:
            self.process = subprocess.Popen(
                [*(command or DAEMON), str(self.config)],
                stderr=stderr,
                env={**os.environ, "NOTIFY_SOCKET": str(self.directory / "notify")},
            )
        return self.process

    def started(self, *command: str) -> int:
        pid = self.start(*command).pid
        self.await_ready()
        return pid

    def heard(self) -> str:
        return self.notified.recv(4096).decode()

    def await_ready(self) -> None:
        while "READY=1" not in self.heard():
            continue

    def signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def reload(self) -> None:
        self.signal(signal.SIGHUP)
        self.await_ready()

    def log(self) -> str:
        return self.stderr.read_text()

    def client(self) -> MilterClient:
        return MilterClient(str(self.socket))

    def verdict(self) -> str:
        """The authserv-id that a message gets."""
        with self.client() as client:
            return authserv_id(client.open())

    def end(self) -> None:
        if self.process is not None:
            for pid in self.family():
                kill(pid, signal.SIGKILL)
            self.process.kill()
            self.process.wait()
        self.notified.close()

    def family(self) -> list[int]:
        """All processes of this daemon, also of generations whose supervisor is gone; the supervisor first."""
        assert self.process is not None
        others = [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if self._is_ours(pid)]
        return sorted(others, key=lambda pid: pid != self.process.pid if self.process else False)

    def _is_ours(self, pid: int) -> bool:
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes()
            return str(self.config).encode() in words and state(pid) != "Z"
        except OSError:
            return False

    def workers(self) -> list[int]:
        assert self.process is not None
        family = self.family()
        return [pid for pid in family if parent(pid) in set(family) - {self.process.pid}]


def state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def kill(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def authserv_id(client: MilterClient) -> str:
    replies = client.message()
    assert replies[-1] == (b"c", b""), replies
    (field,) = [data for code, data in replies if code == b"i"]
    return field.split(b"\0")[-2].split(b";")[0].decode().strip()


@pytest.fixture
def daemon() -> Iterator[Daemon]:
    directory = Path(tempfile.mkdtemp(prefix="mg-"))
    # The daemon's user must be able to pass.
    directory.chmod(0o755)
    if IS_ROOT:
        (directory / "run").mkdir(mode=0o755)
        shutil.chown(directory / "run", USER)
    made = Daemon(directory)
    yield made
    made.end()
    shutil.rmtree(directory)


# Start and end


@pytest.mark.attack("V25", "P25", "P24")
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
def test_what_a_killed_daemon_left_is_no_obstacle(daemon: Daemon) -> None:
    daemon.started()
    for pid in daemon.family():
        kill(pid, signal.SIGKILL)
    assert daemon.process is not None
    daemon.process.wait()
    assert daemon.socket.is_socket()
    (daemon.runtime / "worker-left").mkdir()
    daemon.started()
    assert daemon.verdict() == "mx1.us.test"
    assert not (daemon.runtime / "worker-left").exists()


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


@pytest.mark.attack("K09")
@pytest.mark.parametrize("address", ["inet:0.0.0.0:{port}", "inet6:[::]:{port}"])
def test_an_address_that_others_reach_needs_a_word(daemon: Daemon, address: str) -> None:
    daemon.configure(listeners=f'[[listeners]]\naddress = "{address.format(port=free_port())}"\n')
    assert daemon.start().wait(PATIENCE_S) == 78
    assert "allow_remote = true" in daemon.log()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


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


def test_check_config_says_what_it_found(daemon: Daemon) -> None:
    done = subprocess.run(
        [*DAEMON, str(daemon.config), "--check-config"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0
    assert done.stdout.splitlines()[0] == f"ok: {daemon.config}"
    assert f"listener unix:{daemon.socket}, role auto" in done.stdout
    assert not daemon.socket.exists()


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


# Death and hanging


@pytest.mark.attack("V01")
def test_a_killed_worker_is_replaced_and_the_others_go_on(daemon: Daemon) -> None:
    daemon.started()
    before = set(daemon.workers())
    with daemon.client() as one:
        one.open()
        one.mail()
        victim = serving(before)
        other = daemon.client()
        while True:
            other.open()
            other.mail()
            if serving(before - {victim}) is not None:
                break
            other = daemon.client()
        kill(victim, signal.SIGKILL)
        with pytest.raises(MilterGone):
            one.receive()
        with other:
            other.end_of_header()
            assert other.end_of_message()[-1] == (b"c", b"")
    replaced = eventually(lambda: len(daemon.workers()) == 2 and set(daemon.workers()) - before)
    assert len(replaced) == 1
    assert re.search(rf'event="worker died" pid={victim} status=-9 .* again_in_s=0.000', daemon.log())
    assert daemon.verdict() == "mx1.us.test"


def serving(pids: set[int]) -> int:
    """One of `pids` that has a session open: it has more than one connection on the listener's path."""
    table = Path("/proc/net/unix").read_text().splitlines()
    inodes = {line.split()[6] for line in table if line.endswith("m.sock") and line.split()[5] == "03"}
    for pid in pids:
        if sockets_of(pid) & {f"socket:[{inode}]" for inode in inodes}:
            return pid
    return None  # type: ignore[return-value]  # callers compare


@pytest.mark.attack("V05")
def test_workers_that_keep_dying_are_started_less_and_less_often(daemon: Daemon) -> None:
    daemon.configure(listeners=f'[[listeners]]\naddress = "unix:{daemon.socket}"\nworkers = 1\n')
    daemon.started(*QUICK)
    (daemon.directory / "break-workers").touch()
    kill(daemon.workers()[0], signal.SIGKILL)
    delays = eventually(lambda: len(found := re.findall(r"again_in_s=([\d.]+)", daemon.log())) >= 4 and found)
    assert delays[:4] == ["0.000", "0.500", "1.000", "2.000"]
    (daemon.directory / "break-workers").unlink()
    assert eventually(daemon.verdict) == "mx1.us.test"


@pytest.mark.attack("V05")
def test_a_daemon_whose_workers_cannot_start_says_so_and_ends(daemon: Daemon) -> None:
    (daemon.directory / "break-workers").touch()
    assert daemon.start(*QUICK).wait(PATIENCE_S) != 0
    assert "die while they start" in daemon.log()
    assert daemon.family() == []


@pytest.mark.attack("V04")
def test_a_hanging_worker_is_killed_and_replaced(daemon: Daemon) -> None:
    daemon.started(*QUICK)
    before = set(daemon.workers())
    with daemon.client() as client:
        client.open()
        client.mail()
        victim = serving(before)
        kill(victim, signal.SIGSTOP)
        with pytest.raises(MilterGone):
            client.receive()
    eventually(lambda: len(daemon.workers()) == 2 and victim not in daemon.workers())
    assert f'event="worker does not answer and is killed" pid={victim}' in daemon.log()
    assert daemon.verdict() == "mx1.us.test"


@pytest.mark.attack("V03")
def test_when_the_supervisor_is_killed_sessions_end_well_and_a_new_one_starts(daemon: Daemon) -> None:
    pid = daemon.started()
    with daemon.client() as client:
        client.open()
        client.mail()
        kill(pid, signal.SIGKILL)
        assert daemon.process is not None
        daemon.process.wait()
        eventually(lambda: "the supervisor is gone" in daemon.log())
        daemon.started()
        daemon.configure(authserv_id="mx2.us.test")
        client.end_of_header()
        assert client.end_of_message()[-1] == (b"c", b"")
        assert daemon.verdict() == "mx1.us.test"
        client.quit()
    eventually(lambda: len(daemon.family()) == 4)


@pytest.mark.attack("V03")
def test_when_a_generation_parent_is_killed_its_sessions_end_well_and_a_new_one_starts(daemon: Daemon) -> None:
    daemon.started()
    old = daemon.workers()
    with daemon.client() as client:
        client.open()
        client.mail()
        kill(parent(old[0]), signal.SIGKILL)
        daemon.await_ready()
        client.end_of_header()
        assert client.end_of_message()[-1] == (b"c", b"")
        assert daemon.verdict() == "mx1.us.test"
        client.quit()
    eventually(lambda: not set(daemon.family()) & set(old))


@pytest.mark.attack("V03", "P24")
def test_processes_share_the_listener_and_nothing_else(daemon: Daemon) -> None:
    """A copy of someone's control channel would hide from its other end that a process died."""
    daemon.started()
    held = {pid: sockets_of(pid) for pid in daemon.family()}
    (listener,) = set.intersection(*held.values())
    for pid, inodes in held.items():
        for other, others in held.items():
            assert pid == other or inodes & others == {listener}


def sockets_of(pid: int) -> set[str]:
    links = {os.readlink(entry.path) for entry in os.scandir(f"/proc/{pid}/fd") if os.path.islink(entry.path)}
    return {link for link in links if link.startswith("socket:")}


# Reload and drain


@pytest.mark.attack("V06", "V08", "P17")
def test_a_reload_serves_new_sessions_anew_and_old_ones_to_their_end(daemon: Daemon) -> None:
    daemon.started()
    inode = daemon.socket.stat().st_ino
    old = daemon.workers()
    with daemon.client() as client:
        assert authserv_id(client.open()) == "mx1.us.test"
        client.mail()
        daemon.configure(authserv_id="mx2.us.test")
        daemon.reload()
        assert daemon.verdict() == "mx2.us.test"
        client.end_of_header()
        assert client.end_of_message()[-1] == (b"c", b"")
        assert authserv_id(client) == "mx1.us.test"
        client.quit()
    eventually(lambda: not set(daemon.family()) & set(old))
    assert len(daemon.workers()) == 2
    assert daemon.socket.stat().st_ino == inode


@pytest.mark.attack("V06")
def test_a_reload_of_a_bad_configuration_keeps_the_old_one_and_says_why(daemon: Daemon) -> None:
    daemon.started()
    before = daemon.family()
    daemon.configure(extra="lisseners = []")
    daemon.reload()
    assert re.search(r'event="reload failed; the old configuration stays".*mg.toml:4: lisseners', daemon.log())
    assert daemon.family() == before
    assert daemon.verdict() == "mx1.us.test"
    daemon.configure(authserv_id="mx2.us.test")
    daemon.reload()
    assert daemon.verdict() == "mx2.us.test"


@pytest.mark.attack("V06")
def test_a_reload_whose_workers_die_keeps_the_old_generation(daemon: Daemon) -> None:
    daemon.started(*QUICK)
    before = daemon.family()
    (daemon.directory / "break-workers").touch()
    daemon.reload()
    assert re.search(r'event="reload failed; the old configuration stays".*die while they start', daemon.log())
    assert daemon.family() == before
    assert daemon.verdict() == "mx1.us.test"


@pytest.mark.attack("V06")
def test_many_signals_are_few_reloads_and_the_last_configuration_is_seen(daemon: Daemon) -> None:
    daemon.started()
    for number in range(100):
        daemon.configure(authserv_id=f"mx{number}.us.test")
        daemon.signal(signal.SIGHUP)
    # Each reload ends with READY; the last one has read what was there at the last signal.
    eventually(lambda: daemon.verdict() == "mx99.us.test")
    assert len(re.findall("event=serving", daemon.log())) < 10


@pytest.mark.attack("V06")
def test_a_reload_opens_and_closes_listeners(daemon: Daemon) -> None:
    daemon.started()
    port = free_port()
    daemon.configure(
        listeners=f'[[listeners]]\naddress = "inet:127.0.0.1:{port}"\nworkers = 1\nrole = "verify"\n'
        f'[[listeners]]\naddress = "unix:{daemon.runtime}/two.sock"\nworkers = 1\nmode = "0600"\n'
    )
    daemon.reload()
    assert not daemon.socket.exists()
    for address in (("127.0.0.1", port), f"{daemon.runtime}/two.sock"):
        with MilterClient(address) as client:
            assert authserv_id(client.open()) == "mx1.us.test"
    assert stat.S_IMODE((daemon.runtime / "two.sock").stat().st_mode) == 0o600
    with socket.create_connection(("127.0.0.1", port)) as connection:
        assert connection  # the workers inherit this socket's options; ours tells nothing of them
    daemon.configure()
    daemon.reload()
    assert daemon.verdict() == "mx1.us.test"
    with pytest.raises(ConnectionRefusedError):
        MilterClient(("127.0.0.1", port))


@pytest.mark.attack("V06")
def test_a_listener_that_cannot_be_opened_fails_the_reload_alone(daemon: Daemon) -> None:
    daemon.started()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen(1)
        port = taken.getsockname()[1]
        daemon.configure(
            listeners=f'[[listeners]]\naddress = "unix:{daemon.runtime}/new.sock"\n'
            f'[[listeners]]\naddress = "inet:127.0.0.1:{port}"\n'
        )
        daemon.reload()
    assert "reload failed" in daemon.log()
    assert not (daemon.runtime / "new.sock").exists()
    assert daemon.verdict() == "mx1.us.test"


@pytest.mark.attack("V07")
def test_sigterm_finishes_the_message_under_way_and_refuses_new_sessions(daemon: Daemon) -> None:
    daemon.started()
    with daemon.client() as client:
        client.open()
        client.mail()
        daemon.signal(signal.SIGTERM)
        eventually(lambda: not daemon.socket.exists())
        with pytest.raises(FileNotFoundError):
            daemon.client()
        client.header(b"From", b" <x@evil.test>")
        client.end_of_header()
        assert client.end_of_message()[-1] == (b"c", b"")
    assert daemon.process is not None
    assert daemon.process.wait(PATIENCE_S) == 0
    assert daemon.family() == []


@pytest.mark.attack("V06")
def test_the_service_manager_is_told_of_every_step(daemon: Daemon) -> None:
    daemon.started()
    daemon.signal(signal.SIGHUP)
    assert re.match(r"RELOADING=1\nMONOTONIC_USEC=\d+\n", daemon.heard())
    assert daemon.heard().startswith("READY=1\n")
    daemon.signal(signal.SIGTERM)
    assert daemon.heard().startswith("STOPPING=1\n")


UNIT = Path(__file__).parents[1] / "contrib" / "mailguard-milter.service"


@pytest.mark.attack("K12")
@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_the_unit_is_as_little_exposed_as_it_says() -> None:
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", str(UNIT)], capture_output=True, text=True, check=False
    )
    measured = re.search(r"Overall exposure level for mailguard-milter.service: ([\d.]+)", done.stdout)
    assert measured is not None, done.stderr
    assert float(measured[1]) <= 1.1
    assert re.search(r"^# Exposure by .*: ([\d.]+) \(systemd 252\)$", UNIT.read_text(), re.MULTILINE) is not None


def test_the_unit_and_the_daemon_agree() -> None:
    text = UNIT.read_text()
    assert "ExecReload=/bin/kill -HUP $MAINPID" in text
    assert f"ExecStart=/usr/bin/mailguard-milter -c {command.DEFAULT_CONFIG}" in text
    stop_s = re.search(r"^TimeoutStopSec=(\d+)$", text, re.MULTILINE)
    assert stop_s is not None
    assert int(stop_s[1]) > supervisor.STOP_TIMEOUT_S > worker.STOP_DEADLINE_S
