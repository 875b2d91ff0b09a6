"""Postfix's postmap, which the daemon calls, works with the kinds of sockets that the daemon's unit leaves it."""

from __future__ import annotations

import ctypes
import errno
import platform
import re
import shutil
import socket
import struct
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

from postfix_commands import write_main_cf

UNIT = Path(__file__).parents[1] / "contrib" / "mailguard-milter.service"
POSTMAP = shutil.which("postmap", path="/usr/sbin:/usr/bin:/usr/local/sbin")
# socket(2), by machine.
SOCKET_CALL = {"x86_64": 41, "aarch64": 198}.get(platform.machine())

_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 38, 22, 2
# linux/bpf_common.h and linux/seccomp.h.
_LOAD, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x15, 0x06
_ALLOW, _ERROR = 0x7FFF0000, 0x00050000
_OFFSET_OF_CALL, _OFFSET_OF_FIRST_ARGUMENT = 0, 16


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def allow_only(families: Iterable[int]) -> None:
    """For this process and its children, as systemd does it for RestrictAddressFamilies=."""
    allowed = list(families)
    instructions = [
        (_LOAD, 0, 0, _OFFSET_OF_CALL),
        (_JUMP_IF_EQUAL, 0, len(allowed) + 2, SOCKET_CALL),
        (_LOAD, 0, 0, _OFFSET_OF_FIRST_ARGUMENT),
        *((_JUMP_IF_EQUAL, len(allowed) - number, 0, family) for number, family in enumerate(allowed)),
        (_RETURN, 0, 0, _ERROR | errno.EAFNOSUPPORT),
        (_RETURN, 0, 0, _ALLOW),
    ]
    octets = b"".join(struct.pack("=HBBI", *each) for each in instructions)
    libc, program = ctypes.CDLL(None, use_errno=True), _Program(len(instructions), octets)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.prctl(
        _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0
    ):
        raise OSError(ctypes.get_errno(), "the filter was not taken")


def families_of_the_unit() -> list[int]:
    found = re.search(r"^RestrictAddressFamilies=(.*)$", UNIT.read_text(), re.MULTILINE)
    assert found is not None
    return [int(getattr(socket, name)) for name in found[1].split()]


@pytest.mark.skipif(POSTMAP is None or SOCKET_CALL is None, reason="needs Postfix, and a known machine")
def test_postmap_lists_a_table_with_the_sockets_that_the_unit_leaves(tmp_path: Path) -> None:
    config, table = write_main_cf(tmp_path), tmp_path / "logins"
    table.write_text("alice@us.test alice\n")
    assert POSTMAP is not None
    for arguments in ([f"hash:{table}"], ["-s", f"hash:{table}"]):
        done = subprocess.run(
            [POSTMAP, "-c", str(config), *arguments],
            capture_output=True,
            text=True,
            check=False,
            preexec_fn=lambda: allow_only(families_of_the_unit()),
        )
        assert done.returncode == 0, done.stderr
    assert done.stdout == "alice@us.test\talice\n"


@pytest.mark.skipif(SOCKET_CALL is None, reason="needs a known machine")
def test_the_filter_of_these_tests_forbids_what_is_left_out() -> None:
    said = subprocess.run(
        [sys.executable, "-c", "import socket; socket.socket(socket.AF_UNIX); socket.socket(socket.AF_INET)"],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: allow_only([socket.AF_UNIX]),
    ).stderr
    assert f"[Errno {errno.EAFNOSUPPORT}]" in said
