"""Sockets that systemd makes and passes: what is taken, what is refused, a reload, and a restart that refuses nobody.

ATTACKS.md rows: V03, V07, K08, K09. The test does what systemd does (systemd_starter.py); systemd-socket-activate
is systemd's own program for that.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from activated_daemon import Activated, activated, inet_socket, unix_socket
from daemon_process import DAEMON, PATIENCE_S, Daemon, authserv_id, eventually
from engine_process import per_engine
from mailguard.config import Listener
from mailguard_milter.systemd_sockets import take_passed
from milter_client import Address, MilterClient
from sandbox_place import free_port

__all__ = ["activated"]

SOCKET_ACTIVATE = shutil.which("systemd-socket-activate")
# A client may wait for a whole start of the daemon.
CLIENT_TIMEOUT_S = 60.0
WAITING = 40
SENDERS = 4
MIN_MESSAGES = 40


def verdict(address: Address) -> str:
    with MilterClient(address, timeout_s=CLIENT_TIMEOUT_S) as client:
        served = authserv_id(client.open())
        client.quit()
        return served


# What is taken


@pytest.mark.attack("P24", "P25")
@per_engine
def test_they_serve_and_are_left_as_they_were(activated: Activated) -> None:
    daemon = activated.daemon
    before = os.lstat(daemon.socket)
    activated.started()
    assert [verdict(address) for address in activated.addresses] == ["mx1.us.test"] * 2
    unix, inet = activated.sockets
    # The options and the flag belong to the socket, whoever sets them.
    assert not os.get_blocking(unix.fileno())
    assert not os.get_blocking(inet.fileno())
    assert inet.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    assert inet.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    for pid in daemon.family()[1:]:
        assert b"LISTEN_" not in Path(f"/proc/{pid}/environ").read_bytes()
    daemon.signal(signal.SIGTERM)
    assert daemon.process is not None
    assert daemon.process.wait(PATIENCE_S) == 0
    after = os.lstat(daemon.socket)
    kept = ("st_ino", "st_mode", "st_uid", "st_gid")
    assert [getattr(before, each) for each in kept] == [getattr(after, each) for each in kept]


@per_engine
def test_ipv6(activated: Activated) -> None:
    daemon, port = activated.daemon, free_port()
    activated.sockets.clear()
    activated.pass_on(inet_socket("::1", port))
    daemon.configure(listeners=f'[[listeners]]\naddress = "inet6:[::1]:{port}"\nworkers = 1\n')
    activated.started()
    with socket.create_connection(("::1", port), CLIENT_TIMEOUT_S) as connection:
        connection.sendall(b"\0\0\0\x0dO\0\0\0\x06\0\0\1\xff\0\x1f\xff\xff")
        assert connection.recv(5)[4:] == b"O"


def test_a_path_by_another_name_is_the_same(activated: Activated) -> None:
    daemon = activated.daemon
    link = daemon.directory / "link"
    link.symlink_to(daemon.runtime)
    daemon.configure(listeners=activated.listeners().replace(str(daemon.runtime), str(link)))
    activated.started()
    assert daemon.verdict() == "mx1.us.test"


def test_a_name_that_is_a_path_of_a_listener_names_it(activated: Activated) -> None:
    """As where the socket was made outside of the place in which the daemon sees it."""
    daemon = activated.daemon
    daemon.configure(listeners=activated.listeners().replace(str(daemon.socket), "/run/mail/seen.sock"))
    activated.names = "/run/mail/seen.sock:some.socket"
    activated.started()
    assert "unix:/run/mail/seen.sock" in daemon.log()
    assert daemon.verdict() == "mx1.us.test"


def test_what_was_passed_to_another_process_is_not_taken(activated: Activated) -> None:
    """sd_listen_fds(3): an environment is inherited further than its sockets."""
    daemon = activated.daemon
    daemon.configure()
    activated.sockets.clear()
    daemon.socket.unlink()
    activated.variables = {"PID": "1", "FDS": "2"}
    activated.started()
    assert re.search(r'level=warning event="sockets were passed to another process.* LISTEN_PID=1 ', daemon.log())
    assert daemon.verdict() == "mx1.us.test"
    assert all(b"LISTEN_" not in Path(f"/proc/{pid}/environ").read_bytes() for pid in daemon.family()[1:])


@pytest.mark.parametrize("lacks", [{"FDS": "0"}, {"FDS": None}, {"PID": None}, {"FDS": ""}], ids=str)
def test_no_sockets_is_a_start_without_systemd(lacks: dict[str, str | None]) -> None:
    values = {"PID": str(os.getpid()), "FDS": "2", "FDNAMES": "a:b", **lacks}
    environment = {f"LISTEN_{name}": value for name, value in values.items() if value is not None}
    assert take_passed(environment) == ()
    assert environment == {}


# What is refused

Arrange = Callable[[Activated], None]


def nothing_there(made: Activated) -> None:
    made.variables = {"FDS": "4", "FDNAMES": "a:b:c:d"}


def a_file(made: Activated) -> None:
    opened = made.stack.enter_context(made.daemon.config.open())
    made.sockets.append(opened)  # type: ignore[arg-type]  # the fault


def datagram(made: Activated) -> None:
    made.pass_on(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)).bind(str(made.daemon.directory / "datagram"))


def netlink(made: Activated) -> None:
    made.pass_on(socket.socket(socket.AF_NETLINK, socket.SOCK_RAW))


def not_listening(made: Activated) -> None:
    made.pass_on(socket.socket(socket.AF_INET)).bind(("127.0.0.1", 0))


def a_connection(made: Activated) -> None:
    one, other = socket.socketpair()
    made.stack.enter_context(other)
    made.pass_on(one)


def unknown_path(made: Activated) -> None:
    made.pass_on(unix_socket(made.daemon.runtime / "other.sock"))


def abstract(made: Activated) -> None:
    abstract = made.pass_on(socket.socket(socket.AF_UNIX))
    abstract.bind(b"\0mailguard-test-%d" % os.getpid())
    abstract.listen(1)


def every_address(made: Activated) -> None:
    """ListenStream=PORT."""
    port = free_port()
    made.pass_on(inet_socket("::", port))
    made.daemon.configure(
        listeners=made.listeners() + f'[[listeners]]\naddress = "inet:127.0.0.2:{port}"\nworkers = 1\n'
    )


def one_too_few(made: Activated) -> None:
    made.sockets.pop()


def twice(made: Activated) -> None:
    made.names = f"{made.daemon.socket}:b:{made.daemon.socket}"
    made.pass_on(unix_socket(made.daemon.runtime / "other.sock"))


def names_do_not_agree(made: Activated) -> None:
    made.variables = {"FDNAMES": "one"}


def no_number(made: Activated) -> None:
    made.variables = {"FDS": "2x"}


def endless(made: Activated) -> None:
    made.variables = {"FDS": "9" * 9}


def for_everybody(made: Activated) -> None:
    made.daemon.socket.chmod(0o666)


def another_group(made: Activated) -> None:
    made.daemon.configure(listeners=made.listeners(unix='group = "tty"'))


def public_directory(made: Activated) -> None:
    public = made.daemon.directory / "public"
    public.mkdir()
    public.chmod(0o777)
    made.pass_on(unix_socket(public / "m.sock"))
    made.daemon.configure(listeners=made.listeners() + f'[[listeners]]\naddress = "unix:{public}/m.sock"\n')


UNIT = "mailguard-milter.socket"
REFUSALS: list[tuple[Arrange, str]] = [
    (nothing_there, r'descriptor 5 ("c"), which systemd passed, is not open; start the daemon itself in ExecStart='),
    (a_file, rf'descriptor 5 ("{UNIT}"), which systemd passed, is not a socket; put ListenStream= into'),
    (datagram, "is no stream socket (unix:{directory}/datagram); write ListenStream= in place of ListenDatagram="),
    (netlink, f"is no unix, IPv4 or IPv6 socket; correct ListenStream= in {UNIT}"),
    (not_listening, "does not listen (inet:127.0.0.1:"),
    (a_connection, f"does not listen (unix:); set Accept=no in {UNIT}"),
    (unknown_path, 'give a listener address = "unix:{directory}/run/other.sock" there, or correct ListenStream= in'),
    (abstract, "unix:@mailguard-test-"),
    (every_address, "inet6:[::]:"),
    (
        one_too_few,
        "none for the listener inet:127.0.0.1:{port} in {config}; add ListenStream=127.0.0.1:{port} to " + UNIT,
    ),
    (twice, "two sockets for the listener unix:{directory}/run/m.sock; remove one ListenStream= from"),
    (names_do_not_agree, "LISTEN_FDNAMES names 1 sockets and LISTEN_FDS says 2"),
    (no_number, 'LISTEN_FDS is "2x" and not a number'),
    (endless, 'LISTEN_FDS is "999999999" and not a number'),
    (
        for_everybody,
        "has mode 0666, and its listener 0660: whoever can connect can have mail signed; set SocketMode=",
    ),
    (another_group, f"and its listener tty; set SocketGroup=tty in {UNIT} and restart both units"),
    (public_directory, "every user can write to {directory}/public"),
]


@pytest.mark.attack("K08", "K09")
@pytest.mark.parametrize(("arrange", "told"), [pytest.param(*row, id=row[0].__name__) for row in REFUSALS])
def test_what_does_not_fit_is_refused_with_what_to_change(activated: Activated, arrange: Arrange, told: str) -> None:
    daemon = activated.daemon
    arrange(activated)
    if activated.names is None and "FDNAMES" not in activated.variables:
        activated.names = ":".join([UNIT] * len(activated.sockets))
    assert activated.start().wait(PATIENCE_S) == 78
    said = daemon.log().replace('\\"', '"')
    assert told.format(directory=daemon.directory, port=activated.port, config=daemon.config) in said
    assert daemon.socket.is_socket()
    assert daemon.family() == []


def test_a_path_that_is_gone_is_told(activated: Activated) -> None:
    """RuntimeDirectory= without RuntimeDirectoryPreserve= removes it with the service."""
    activated.daemon.socket.unlink()
    activated.started()
    assert "nobody can connect: the path of a socket of systemd's is gone" in activated.daemon.log()
    assert verdict(("127.0.0.1", activated.port)) == "mx1.us.test"


# Reload


@pytest.mark.attack("V06", "V08")
@per_engine
def test_a_reload_keeps_them(activated: Activated) -> None:
    daemon = activated.daemon
    activated.started()
    before = os.lstat(daemon.socket)
    old = daemon.workers()
    with daemon.client() as client:
        client.open()
        client.mail()
        daemon.configure(authserv_id="mx2.us.test", listeners=activated.listeners())
        daemon.reload()
        assert [verdict(address) for address in activated.addresses] == ["mx2.us.test"] * 2
        client.end_of_header()
        assert client.end_of_message()[-1] == (b"c", b"")
        client.quit()
    eventually(lambda: not set(daemon.family()) & set(old))
    assert (os.lstat(daemon.socket).st_ino, os.lstat(daemon.socket).st_ctime) == (before.st_ino, before.st_ctime)


def test_a_reload_that_asks_for_other_sockets_fails_and_the_old_ones_serve(activated: Activated) -> None:
    daemon, both = activated.daemon, activated.listeners()
    first, second = both.split("[[listeners]]")[1:]
    activated.started()
    for wanted, why in (
        (f"[[listeners]]{first}", "is not the address of a listener"),
        (f'{both}[[listeners]]\naddress = "unix:{daemon.socket}2"\n', "and none for the listener"),
        (activated.listeners(unix='mode = "0600"'), "set SocketMode=0600"),
    ):
        daemon.configure(authserv_id="mx2.us.test", listeners=wanted)
        daemon.reload()
        assert re.search(rf'event="reload failed; the old configuration stays".*{why}', daemon.log())
        assert [verdict(address) for address in activated.addresses] == ["mx1.us.test"] * 2
    daemon.configure(authserv_id="mx3.us.test", listeners=f"[[listeners]]{second}\n[[listeners]]{first}")
    daemon.reload()
    assert [verdict(address) for address in activated.addresses] == ["mx3.us.test"] * 2


# Restart


class Senders:
    """Threads that send messages; what came of them."""

    def __init__(self) -> None:
        self.verdicts: list[str] = []
        self.failures: list[str] = []
        self.sent = 0
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []

    def one_each(self, addresses: list[Address]) -> None:
        self._start([threading.Thread(target=self._send, args=(address,)) for address in addresses])

    def without_end(self, addresses: list[Address]) -> None:
        self._start([threading.Thread(target=self._send_on, args=(address,)) for address in addresses])

    def wait_for_more(self) -> None:
        reached = len(self.verdicts)
        eventually(lambda: len(self.verdicts) > reached + MIN_MESSAGES)

    def _start(self, threads: list[threading.Thread]) -> None:
        self._threads += threads
        for thread in threads:
            thread.start()

    def _send(self, address: Address) -> None:
        self.sent += 1
        try:
            self.verdicts.append(verdict(address))
        except Exception as error:  # noqa: BLE001 - whatever it is, a message was not served
            self.failures.append(repr(error))

    def _send_on(self, address: Address) -> None:
        while not self._stop.wait(0.005):
            self._send(address)

    def end(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(CLIENT_TIMEOUT_S)


@pytest.mark.attack("V03", "V07")
@per_engine
def test_who_connects_while_the_daemon_is_down_waits_and_is_served(activated: Activated) -> None:
    daemon = activated.daemon
    activated.started()
    daemon.signal(signal.SIGTERM)
    assert daemon.process is not None
    assert daemon.process.wait(PATIENCE_S) == 0
    senders = Senders()
    senders.one_each(activated.addresses * (WAITING // 2))
    eventually(lambda: senders.sent == WAITING)
    daemon.configure(authserv_id="mx2.us.test", listeners=activated.listeners())
    activated.started()
    senders.end()
    assert (senders.failures, senders.verdicts) == ([], ["mx2.us.test"] * WAITING)


def terminate(daemon: Daemon) -> None:
    daemon.signal(signal.SIGTERM)


def kill_supervisor(daemon: Daemon) -> None:
    daemon.signal(signal.SIGKILL)


@pytest.mark.attack("V03", "V07")
@pytest.mark.parametrize("end", [terminate, kill_supervisor])
@per_engine
def test_a_restart_under_load_refuses_and_loses_nothing(activated: Activated, end: Callable[[Daemon], None]) -> None:
    daemon = activated.daemon
    activated.started()
    senders = Senders()
    senders.without_end(activated.addresses * (SENDERS // 2))
    for number in (2, 3):
        senders.wait_for_more()
        daemon.configure(authserv_id=f"mx{number}.us.test", listeners=activated.listeners())
        end(daemon)
        assert daemon.process is not None
        daemon.process.wait(PATIENCE_S)
        activated.started()
    senders.wait_for_more()
    senders.end()
    assert senders.failures == []
    assert len(senders.verdicts) == senders.sent
    assert {"mx1.us.test", "mx2.us.test", "mx3.us.test"} == set(senders.verdicts)


# systemd's own program


@pytest.mark.skipif(SOCKET_ACTIVATE is None, reason="needs systemd-socket-activate")
@per_engine
def test_systemds_program_starts_it(daemon: Daemon) -> None:
    assert SOCKET_ACTIVATE is not None
    port = free_port()
    daemon.configure(
        listeners=f'[[listeners]]\naddress = "unix:{daemon.socket}"\nworkers = 1\n'
        f'[[listeners]]\naddress = "inet:127.0.0.1:{port}"\nworkers = 1\n'
    )
    listen = ["-l", str(daemon.socket), "-l", f"127.0.0.1:{port}", "-E", f"NOTIFY_SOCKET={daemon.directory}/notify"]
    with open(daemon.stderr, "ab") as stderr:
        daemon.process = subprocess.Popen([SOCKET_ACTIVATE, *listen, *DAEMON, str(daemon.config)], stderr=stderr)
    eventually(daemon.socket.exists)
    assert len(daemon.family()) == 1
    # The first connection starts the daemon.
    assert eventually(lambda: "Listening on" in daemon.log())
    assert verdict(str(daemon.socket)) == "mx1.us.test"
    assert verdict(("127.0.0.1", port)) == "mx1.us.test"
    # One for each listener, or one for both.
    assert len(daemon.workers()) == (2 if daemon.engine == "libmilter" else 1)


# The units

CONTRIB = Path(__file__).parents[1] / "contrib"


def test_the_socket_unit_and_the_default_listener_agree() -> None:
    lines = (CONTRIB / "mailguard-milter.socket").read_text().splitlines()
    listener = Listener()
    assert f"ListenStream={listener.socket_address.path}" in lines
    assert f"SocketMode={listener.mode}" in lines
    assert "Accept=no" in lines
    # Its directory is the service's, which must not remove it with what is in it.
    service = (CONTRIB / "mailguard-milter.service").read_text().splitlines()
    assert f"RuntimeDirectory={Path(listener.socket_address.path).parent.name}" in service
    assert "RuntimeDirectoryPreserve=yes" in service


@pytest.mark.parametrize(
    "unit", ["mailguard-milter.service", "mailguard-milter.socket", "mailguard-tlspolicy.service"]
)
def test_postfix_starts_after_them_and_ends_before(unit: str) -> None:
    """By whatever name it has: Debian 12's postfix.service waits for postfix@-.service, which is Postfix itself."""
    (before,) = re.findall(r"^Before=(.*)$", (CONTRIB / unit).read_text(), re.MULTILINE)
    assert before.split() == ["postfix.service", "postfix@-.service"]


@pytest.mark.parametrize("unit", sorted(path.name for path in CONTRIB.glob("*.service")))
def test_they_start_when_the_clock_is_right(unit: str) -> None:
    """As far as the host waits for that at all (systemd.special(7), time-sync.target)."""
    (after,) = re.findall(r"^After=(.*)$", (CONTRIB / unit).read_text(), re.MULTILINE)
    assert "time-sync.target" in after.split()


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_systemd_finds_no_fault_with_the_units(tmp_path: Path) -> None:
    for name in ("mailguard-milter.socket", "mailguard-milter.service"):
        text = (CONTRIB / name).read_text()
        (tmp_path / name).write_text(text.replace("/opt/mailguard/bin/mailguard-milter", "/bin/true"))
    units = [str(tmp_path / name) for name in ("mailguard-milter.socket", "mailguard-milter.service")]
    done = subprocess.run(["systemd-analyze", "verify", *units], capture_output=True, text=True, check=False)
    # Of other units of this machine it may say what it likes.
    assert "mailguard-milter" not in done.stderr
