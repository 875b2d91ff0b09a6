"""Listening sockets by themselves: whose directories they are made in, and what they take the place of.

ATTACKS.md rows: K08, K09, V26.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mailguard_milter import listening
from mailguard_milter.identity import Identity
from mailguard_milter.listening import ListeningSocket, check_directory
from mailguard_milter.refusal import EX_TEMPFAIL, Refusal
from mailguard_milter.systemd_sockets import PassedSocket, SystemdSocket
from sandbox_place import free_port

NOBODY, STRANGER = 65_534, 12_345
OURSELVES = Identity("x", os.geteuid(), os.getegid(), ())
only_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can make files of others")


def plan(path: Path, mode: int = 0o660, group: str = "") -> dict[str, Any]:
    return {"family": "unix", "address": f"unix:{path}", "path": str(path), "group": group, "mode": mode}


def inet(family: str, ip: str, port: int) -> dict[str, Any]:
    return {"family": family, "address": f"{family}:{ip}:{port}", "ip": ip, "port": port, "allow_remote": True}


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


# Directories


def directory(path: Path, inner: Path) -> None:
    path.mkdir()


def link(path: Path, inner: Path) -> None:
    path.symlink_to(inner)


@only_root
@pytest.mark.attack("K08")
@pytest.mark.parametrize("make", [directory, link])
def test_in_a_sticky_directory_who_owns_the_entry_can_replace_it(
    own_directory: Path, make: Callable[[Path, Path], None]
) -> None:
    inner, public = own_directory / "inner", own_directory / "public"
    inner.mkdir()
    public.mkdir()
    make(public / "way", inner)
    daemon = Identity("daemon", NOBODY, NOBODY, ())
    # With fs.protected_symlinks, as systemd sets it, root itself follows no other user's link in such a directory.
    is_refused_by_kernel = make is link and Path("/proc/sys/fs/protected_symlinks").read_text() != "0\n"
    for owner in (0,) if is_refused_by_kernel else (0, NOBODY):
        os.chown(public / "way", owner, -1, follow_symlinks=False)
        public.chmod(0o1777)
        check_directory(str(public / "way"), daemon)
        public.chmod(0o777)
        with pytest.raises(Refusal, match=f"every user can write to {public}.*chmod o-w"):
            check_directory(str(public / "way"), daemon)
    public.chmod(0o1777)
    os.chown(public / "way", STRANGER, -1, follow_symlinks=False)
    with pytest.raises(Refusal, match=r"who could replace what is in it|every user can write|Permission denied"):
        check_directory(str(public / "way"), daemon)


@pytest.mark.attack("K08")
def test_what_a_link_leads_to_is_looked_at_all_the_way(own_directory: Path) -> None:
    (own_directory / "public" / "inner").mkdir(parents=True)
    (own_directory / "way").symlink_to(own_directory / "public" / "inner")
    check_directory(str(own_directory / "way"), OURSELVES)
    (own_directory / "public").chmod(0o777)
    with pytest.raises(Refusal, match=f"every user can write to {own_directory}/public"):
        check_directory(str(own_directory / "way"), OURSELVES)


# Sockets


@only_root
@pytest.mark.attack("K08")
def test_nobody_can_connect_before_it_has_its_owner(own_directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, seen = own_directory / "m.sock", []

    class Watched(socket.socket):
        def bind(self, address: Any) -> None:
            super().bind(address)
            seen.append(mode_of(path))

    monkeypatch.setattr(socket, "socket", Watched)
    daemon = Identity("daemon", NOBODY, NOBODY, ())
    os.chown(own_directory, NOBODY, -1)
    before = os.umask(0)
    try:
        opened = ListeningSocket.open(plan(path, 0o640, group="root"), daemon)
        assert os.umask(0) == 0
    finally:
        os.umask(before)
    assert seen == [0]
    status = path.lstat()
    assert (mode_of(path), status.st_uid, status.st_gid) == (0o640, NOBODY, 0)
    opened.adjust(plan(path, 0o660), daemon)
    status = path.lstat()
    assert (mode_of(path), status.st_uid, status.st_gid) == (0o660, NOBODY, NOBODY)
    opened.close()
    assert not path.exists()


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM])
def test_at_a_limit_a_start_may_succeed_later(
    own_directory: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """systemd starts it again, as it does not after EX_CONFIG."""

    def refused(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    with socket.socket(socket.AF_UNIX) as unused:
        opened = ListeningSocket("m", unused, str(own_directory / "m.sock"))
        monkeypatch.setattr(os, "open", refused)
        with pytest.raises(Refusal, match=f"group and mode cannot be set: {os.strerror(number)}") as raised:
            opened.adjust(plan(own_directory / "m.sock"), OURSELVES)
    assert raised.value.code == EX_TEMPFAIL


@only_root
@pytest.mark.attack("K08")
def test_what_another_user_puts_in_the_place_of_a_socket_is_refused(
    own_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, plain = own_directory / "m.sock", socket.socket

    class Replaced(socket.socket):
        def bind(self, address: Any) -> None:
            super().bind(address)
            os.unlink(address)
            with plain(socket.AF_UNIX) as other:
                other.bind(address)
            os.chown(address, STRANGER, -1)

    monkeypatch.setattr(socket, "socket", Replaced)
    with pytest.raises(Refusal, match="was replaced while it was made"):
        ListeningSocket.open(plan(path), OURSELVES)


@pytest.mark.attack("K08", "V26")
def test_who_is_too_busy_to_accept_keeps_its_socket(own_directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening, "PROBE_TIMEOUT_S", 0.1)
    monkeypatch.setattr(listening, "STALE_PATIENCE_S", 0.0)
    path = own_directory / "m.sock"
    with socket.socket(socket.AF_UNIX) as busy, socket.socket(socket.AF_UNIX) as waiting:
        busy.bind(str(path))
        busy.listen(0)
        waiting.connect(str(path))
        with pytest.raises(Refusal, match="another process listens there") as caught:
            ListeningSocket.open(plan(path), OURSELVES)
        assert caught.value.code == EX_TEMPFAIL
        assert path.is_socket()
    ListeningSocket.open(plan(path), OURSELVES).close()


@pytest.mark.attack("K08")
def test_what_has_taken_its_path_since_stays(own_directory: Path) -> None:
    path = own_directory / "m.sock"
    first = ListeningSocket.open(plan(path), OURSELVES)
    path.unlink()
    assert first.is_lost()
    second = ListeningSocket.open(plan(path), OURSELVES)
    assert first.is_lost()
    first.close()
    assert path.is_socket()
    assert not second.is_lost()
    second.close()


@pytest.mark.attack("K09")
def test_others_reach_none_that_the_plan_does_not_allow_them() -> None:
    """Whoever made it; the configuration is refused before."""
    not_allowed = {**inet("inet", "0.0.0.0", free_port()), "allow_remote": False}
    with pytest.raises(Refusal, match="can be reached by other hosts"):
        ListeningSocket.open(not_allowed, OURSELVES)
    with socket.socket() as passed:
        passed.bind(("0.0.0.0", not_allowed["port"]))
        with pytest.raises(Refusal, match="can be reached by other hosts"):
            SystemdSocket.open(PassedSocket(passed, "m.socket"), not_allowed, OURSELVES)


def test_an_ipv6_listener_leaves_the_port_of_ipv4_alone() -> None:
    port = free_port()
    one = ListeningSocket.open(inet("inet6", "::", port), OURSELVES)
    other = ListeningSocket.open(inet("inet", "0.0.0.0", port), OURSELVES)
    one.close()
    other.close()
