"""The whole daemon as processes: kill, hang, reload, drain, and the unit.

ATTACKS.md rows: V01, V03-V08, P24. The session is the real one, spoken to over the wire and answered from a zone
file. What needs the real Postfix and load is in the tests with Postfix.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from daemon_process import (
    DAEMON,
    PATIENCE_S,
    QUICK,
    Daemon,
    authserv_id,
    eventually,
    kill,
    parent,
)
from engine_process import per_engine
from mailguard.cli.quickstart import UNIT_DIRECTORY
from mailguard_milter import __main__ as command
from mailguard_milter import refusal, supervisor, worker
from milter_client import MilterClient, MilterGone
from quick_daemon import PATIENCE
from sandbox_place import free_port

# Death and hanging


@pytest.mark.attack("V01")
@per_engine
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
    # The last worker was killed, and nobody waited for it.
    eventually(lambda: daemon.family() == [])


@pytest.mark.attack("V04")
@per_engine
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


def test_who_was_stopped_itself_does_not_take_that_for_the_workers_silence(daemon: Daemon) -> None:
    """As all are when a machine is paused."""
    daemon.started(*QUICK)
    before = daemon.workers()
    (watcher,) = {parent(pid) for pid in before}
    kill(watcher, signal.SIGSTOP)
    time.sleep(PATIENCE.answer_s + 2)
    kill(watcher, signal.SIGCONT)
    time.sleep(1)
    assert daemon.workers() == before
    assert "does not answer" not in daemon.log()


@pytest.mark.attack("V03")
@per_engine
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


@contextmanager
def orphaned_session(daemon: Daemon) -> Iterator[MilterClient]:
    """A message is under way; the parent of its worker was killed, and a new generation serves."""
    (first, *_) = daemon.workers()
    with daemon.client() as client:
        client.open()
        client.mail()
        kill(parent(first), signal.SIGKILL)
        daemon.await_ready()
        yield client


@pytest.mark.attack("V03")
@per_engine
def test_when_a_generation_parent_is_killed_its_sessions_end_well_and_a_new_one_starts(daemon: Daemon) -> None:
    daemon.started()
    old = daemon.workers()
    with orphaned_session(daemon) as client:
        client.end_of_header()
        assert client.end_of_message()[-1] == (b"c", b"")
        assert daemon.verdict() == "mx1.us.test"
        client.quit()
    eventually(lambda: not set(daemon.family()) & set(old))


@pytest.mark.attack("V03", "P24")
@per_engine
def test_processes_share_the_listener_and_nothing_else(daemon: Daemon) -> None:
    """A copy of someone's control channel would hide from its other end that a process died."""
    daemon.started()
    held = {pid: sockets_of(pid) for pid in daemon.family()}
    (listener,) = set.intersection(*held.values())
    for pid, inodes in held.items():
        for other, others in held.items():
            assert pid == other or inodes & others == {listener}


def sockets_of(pid: int) -> set[str]:
    links = set()
    for entry in os.scandir(f"/proc/{pid}/fd"):
        with suppress(FileNotFoundError):  # closed meanwhile
            links.add(os.readlink(entry.path))
    return {link for link in links if link.startswith("socket:")}


# Reload and drain


@pytest.mark.attack("V06", "V08", "P17")
@per_engine
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
    assert re.search(r'event="reload failed; the old configuration stays".*mg.toml:5: lisseners', daemon.log())
    assert daemon.family() == before
    assert daemon.verdict() == "mx1.us.test"
    daemon.configure(authserv_id="mx2.us.test")
    daemon.reload()
    assert daemon.verdict() == "mx2.us.test"


@pytest.mark.attack("V06")
def test_who_starts_it_may_ignore_the_end_of_children(daemon: Daemon) -> None:
    ignoring = (
        "import os, signal, sys; signal.signal(signal.SIGCHLD, signal.SIG_IGN); os.execv(sys.argv[1], sys.argv[1:])"
    )
    daemon.started(sys.executable, "-c", ignoring, *DAEMON)
    one, _ = daemon.workers()
    kill(one, signal.SIGKILL)
    eventually(lambda: re.search(rf'event="worker died" pid={one} status=-9', daemon.log()))
    good = daemon.config.read_bytes()
    daemon.config.write_text("nonsense = [")
    daemon.reload()
    assert f'event="reload failed; the old configuration stays" why="{daemon.config}:' in daemon.log()
    daemon.config.write_bytes(good)
    assert daemon.verdict() == "mx1.us.test"


@pytest.mark.attack("V06")
def test_a_reload_whose_workers_die_keeps_the_old_generation(daemon: Daemon) -> None:
    daemon.started(*QUICK)
    before = daemon.family()
    (daemon.directory / "break-workers").touch()
    daemon.reload()
    assert re.search(r'event="reload failed; the old configuration stays".*die while they start', daemon.log())
    # The workers of the new one were killed, and nobody waited for them.
    eventually(lambda: daemon.family() == before)
    assert daemon.verdict() == "mx1.us.test"


@pytest.mark.attack("V06")
@per_engine
def test_a_reload_that_fails_finishes_what_its_first_workers_have_taken(daemon: Daemon) -> None:
    daemon.started(*QUICK)
    before = set(daemon.family())
    (daemon.directory / "break-workers").write_text("all but one")
    (daemon.directory / "break-workers").chmod(0o644)
    daemon.signal(signal.SIGHUP)
    clients: list[MilterClient] = []

    def is_served_by_a_new_one() -> bool:
        clients.append(client := daemon.client().open())
        client.mail()
        return serving(set(daemon.family()) - before) is not None

    eventually(is_served_by_a_new_one)
    assert "die while they start" not in daemon.log()
    eventually(lambda: re.findall(r'event="worker died".* again_in_s=1\.', daemon.log()))
    time.sleep(1)
    for client in clients:
        with client:
            client.end_of_header()
            assert client.end_of_message()[-1] == (b"c", b"")
            client.quit()
    daemon.await_ready()
    assert re.search(r'event="reload failed; the old configuration stays".*die while they start', daemon.log())
    eventually(lambda: set(daemon.family()) == before)
    assert daemon.verdict() == "mx1.us.test"


@pytest.mark.attack("V06")
@per_engine
def test_another_runtime_directory_waits_for_the_next_start(daemon: Daemon) -> None:
    daemon.started()
    text = daemon.config.read_text().replace(f'"{daemon.runtime}"', f'"{daemon.directory}/other"')
    daemon.config.write_text(text.replace("mx1.us.test", "mx2.us.test"))
    daemon.reload()
    assert 'event="runtime_directory changed: that takes effect at the next start"' in daemon.log()
    eventually(lambda: daemon.verdict() == "mx2.us.test")
    assert "reload failed" not in daemon.log()
    assert not (daemon.directory / "other").exists()


@pytest.mark.attack("V06")
def test_many_signals_are_few_reloads_and_the_last_configuration_is_seen(daemon: Daemon) -> None:
    daemon.started()
    for number in range(100):
        daemon.configure(authserv_id=f"mx{number}.us.test")
        daemon.signal(signal.SIGHUP)
    # Each reload ends with READY; the last one has read what was there at the last signal.
    eventually(lambda: daemon.verdict() == "mx99.us.test")
    assert len(re.findall("event=serving", daemon.log())) < 30


@pytest.mark.attack("V06")
@per_engine
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
@pytest.mark.parametrize(("before", "after"), [("libmilter", "native"), ("native", "libmilter")])
def test_a_reload_changes_the_engine_and_no_session_notices(daemon: Daemon, before: str, after: str) -> None:
    daemon.engine = before
    daemon.configure()
    daemon.started()
    old = daemon.workers()
    with daemon.client() as client:
        assert authserv_id(client.open()) == "mx1.us.test"
        client.mail()
        daemon.engine = after
        daemon.configure(authserv_id="mx2.us.test")
        daemon.reload()
        assert daemon.verdict() == "mx2.us.test"
        assert {loaded(pid) for pid in old} == {before}
        assert {loaded(pid) for pid in set(daemon.workers()) - set(old)} == {after}
        client.end_of_header()
        assert client.end_of_message()[-1] == (b"c", b"")
        client.quit()
    eventually(lambda: not set(daemon.family()) & set(old))


def loaded(pid: int) -> str:
    """The engine that a process has in its memory."""
    return "libmilter" if "/libmilter.so" in Path(f"/proc/{pid}/maps").read_text() else "native"


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


@pytest.mark.attack("V06", "K08")
def test_a_reload_that_fails_leaves_the_sockets_as_they_were(daemon: Daemon) -> None:
    daemon.started(*QUICK)
    broken, added = daemon.directory / "break-workers", daemon.runtime / "new.sock"

    def mode() -> int:
        return stat.S_IMODE(daemon.socket.stat().st_mode)

    inode = daemon.socket.stat().st_ino
    daemon.configure(
        listeners=f'[[listeners]]\naddress = "unix:{daemon.socket}"\nmode = "0600"\nworkers = 1\n'
        f'[[listeners]]\naddress = "unix:{added}"\nworkers = 1\n'
    )
    broken.touch()
    daemon.reload()
    assert "reload failed; the old configuration stays" in daemon.log()
    assert (mode(), added.exists()) == (0o660, False)
    assert daemon.verdict() == "mx1.us.test"
    broken.unlink()
    daemon.reload()
    assert (mode(), added.exists(), daemon.socket.stat().st_ino) == (0o600, True, inode)
    assert daemon.verdict() == "mx1.us.test"


@pytest.mark.attack("V07")
@per_engine
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


@pytest.mark.attack("V03")
@per_engine
def test_sigterm_waits_for_a_message_whose_generation_parent_was_killed(daemon: Daemon) -> None:
    daemon.started()
    with orphaned_session(daemon) as client:
        daemon.signal(signal.SIGTERM)
        assert daemon.process is not None
        with pytest.raises(subprocess.TimeoutExpired):
            daemon.process.wait(3)
        client.end_of_header()
        assert client.end_of_message()[-1] == (b"c", b"")
        client.quit()
    assert daemon.process.wait(PATIENCE_S) == 0
    assert daemon.family() == []
    assert "killed_generations=" not in daemon.log()


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
    said = re.search(r"^# Exposure by .*: ([\d.]+) \(systemd 252\)$", UNIT.read_text(), re.MULTILINE)
    assert said is not None
    assert float(measured[1]) <= float(said[1]) <= 1.2


@pytest.mark.parametrize("name", ["mailguard-milter.service", "mailguard-tlspolicy.service"])
def test_systemd_goes_on_to_try_as_long_as_the_configuration_is_good(name: str) -> None:
    text = UNIT.with_name(name).read_text()
    assert "Restart=on-failure\n" in text
    assert f"RestartPreventExitStatus={refusal.EX_USAGE} {refusal.EX_CONFIG}\n" in text
    numbers = dict(re.findall(r"^(StartLimit\w+|RestartSec)=(\d+)s?$", text, re.MULTILINE))
    # At the limit, what is in the way for half a minute would keep the daemon down for good, and its socket unit too.
    most = int(numbers["StartLimitIntervalSec"]) / int(numbers["RestartSec"])
    assert most < int(numbers.get("StartLimitBurst", 5))


@pytest.mark.parametrize("name", ["mailguard-milter.service", "mailguard-tlspolicy.service"])
def test_the_units_let_the_daemons_make_the_socket_that_a_chroot_needs(name: str) -> None:
    assert f"ReadWritePaths=-{UNIT_DIRECTORY}" in UNIT.with_name(name).read_text().splitlines()


def test_a_worker_that_is_killed_for_want_of_memory_does_not_end_the_service() -> None:
    # The default, stop, would end all workers for one (systemd.service(5)).
    assert "OOMPolicy=continue" in UNIT.read_text().splitlines()


def test_the_unit_and_the_daemon_agree() -> None:
    text = UNIT.read_text()
    assert "ExecReload=/bin/kill -HUP $MAINPID" in text
    assert f"ExecStart=/opt/mailguard/bin/mailguard-milter -c {command.DEFAULT_CONFIG}" in text
    stop_s = re.search(r"^TimeoutStopSec=(\d+)$", text, re.MULTILINE)
    assert stop_s is not None
    assert int(stop_s[1]) > supervisor.STOP_TIMEOUT_S > worker.STOP_DEADLINE_S
