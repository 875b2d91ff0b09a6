"""What `mailguard doctor` finds out about the host, each as a value: sockets, files, the clock, libmilter.

The milter protocol is spoken as far as the negotiation, which concerns no message.
"""

from __future__ import annotations

import ctypes
import errno
import grp
import os
import pwd
import socket
import stat
import struct
import subprocess
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from mailguard.cli.doctor_child import Person, fault_as, run_as
from mailguard.config import Config
from mailguard.dkim.signing_key import KeyCheck, KeyPermissions, SigningKey
from mailguard.errors import KeyFileError, MailguardError
from mailguard.key_places import WantedKey
from mailguard.sender_sources import open_senders
from mailguard.senders.permission import PermissionStatus
from mailguard.setup_host.doctor_cards import Engine, Probe
from mailguard.setup_host.libmilter_build import Build, build_of

__all__ = [
    "ask_senders",
    "closed_directories",
    "engine_found",
    "group_name",
    "is_of_this_host",
    "is_open_to_all",
    "is_readable_by_all",
    "is_synchronised",
    "load_keys",
    "newest_file",
    "owner_name",
    "probe",
    "readable_by",
]

CONNECT_TIMEOUT_S = 5.0
FILE_TIMEOUT_S = 20.0
CHILD_KEYS = 200
IMPORT_TIMEOUT_S = 30.0
# A reply to the negotiation holds three numbers and a few names of macros.
MAX_REPLY = 65_536
NEGOTIATE = ord("O")
QUIT = b"\0\0\0\1Q"
OFFER = struct.pack(">IBIII", 13, NEGOTIATE, 6, 0x1FF, 0x1FFFFF)
# libmilter has 80 kB; what it was linked into is not much larger.
MAX_LIBRARY_BYTES = 16 * 1024 * 1024
# adjtimex(2): what it returns while nobody keeps the clock right, and the octets of struct timex, with room.
TIME_ERROR = 5
TIMEX_OCTETS = 512

# In a process of its own: an import that brings the process down is found out, too.
_LOOK_AT_LIBMILTER = """\
import milter
print(".".join(map(str, milter.getversion())))
print(next((line.split()[-1] for line in open("/proc/self/maps") if "libmilter" in line), milter.__file__))
"""


def probe(
    family: str, place: str | tuple[str, int], *, person: Person | None, queue_directory: str, chroot: bool
) -> Probe:
    """Connect as smtpd does, from its directory, and negotiate. `place` is a path, or a host and a port."""
    families = {"unix": socket.AF_UNIX, "inet": socket.AF_INET, "inet6": socket.AF_INET6}
    found = run_as(
        person,
        lambda: _negotiate(families[family], place),
        timeout_s=2 * CONNECT_TIMEOUT_S,
        directory=queue_directory if os.path.isdir(queue_directory) else "/",
        chroot=queue_directory if chroot else "",
    )
    if "error" in found:
        return Probe(fault=str(found["error"]))
    if "errno" in found:
        code = int(str(found["errno"]))
        denied = ("", "")
        if code == errno.EACCES and isinstance(place, str) and person is not None:
            denied = _refused(os.path.join(queue_directory, place.lstrip("/") if chroot else place), person)
        return Probe(
            fault=os.strerror(code), code=errno.errorcode.get(code, ""), denied_at=denied[0], group=denied[1]
        )
    return Probe(
        protocol=int(str(found["protocol"])), actions=int(str(found["actions"])), steps=int(str(found["steps"]))
    )


def _negotiate(family: int, place: str | tuple[str, int]) -> dict[str, object]:
    with socket.socket(family, socket.SOCK_STREAM) as connection:
        connection.settimeout(CONNECT_TIMEOUT_S)
        try:
            connection.connect(place)
            connection.sendall(OFFER)
            (length,) = struct.unpack(">I", _exactly(connection, 4))
            if not 13 <= length <= MAX_REPLY:
                return {"error": "what answers does not speak the milter protocol"}
            command, protocol, actions, steps = struct.unpack(">BIII", _exactly(connection, length)[:13])
            connection.sendall(QUIT)
        except TimeoutError:
            return {"error": f"it takes connections, but does not answer within {CONNECT_TIMEOUT_S:g} s"}
        except EOFError:
            return {"error": "it closes the connection without an answer"}
        except OSError as error:
            return {"errno": error.errno or errno.EIO}
    if command != NEGOTIATE:
        return {"error": "what answers does not speak the milter protocol"}
    return {"protocol": protocol, "actions": actions, "steps": steps}


def _exactly(connection: socket.socket, length: int) -> bytes:
    octets = b""
    while len(octets) < length:
        chunk = connection.recv(length - len(octets))
        if not chunk:
            raise EOFError
        octets += chunk
    return octets


def _refused(path: str, person: Person) -> tuple[str, str]:
    """The directory or socket that the person may not use, and the group that may."""
    ways = [path]
    while os.path.dirname(ways[0]) != ways[0]:
        ways.insert(0, os.path.dirname(ways[0]))
    for each in ways:
        try:
            found = os.stat(each)
        except OSError:
            return each, ""
        needed = stat.S_IXOTH if stat.S_ISDIR(found.st_mode) else stat.S_IWOTH
        shift = _shift(found, person)
        if not found.st_mode >> shift & needed:
            may = shift == 0 and found.st_mode >> 3 & needed
            return each, group_name(found.st_gid) if may else ""
    return path, ""


def _shift(found: os.stat_result, person: Person) -> int:
    """Where in the mode the bits are that count for the person."""
    return 6 if found.st_uid == person.uid else 3 if found.st_gid in person.groups else 0


def closed_directories(path: str, person: Person) -> tuple[str, ...]:
    """Those above a file that the person cannot pass, the outermost first. Needs root."""
    found = []
    for each in reversed(Path(os.path.abspath(path)).parents):
        try:
            status = os.stat(each)
        except OSError:
            # That it is missing is told by the one who reads the file.
            break
        if not status.st_mode >> _shift(status, person) & stat.S_IXOTH:
            found.append(str(each))
    return tuple(found)


def is_of_this_host(address: str) -> bool:
    """Whether an interface has the IP address: nothing else can be bound to."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as bound:
            bound.bind((address, 0))
    except OSError:
        return False
    return True


def is_open_to_all(path: str) -> bool:
    """Whether every user of this host can connect to a unix socket; False where there is none."""
    return bool(path) and _all_may(path, stat.S_IWOTH)


def is_readable_by_all(path: str) -> bool:
    """Whether every user of this host can read a file; False where there is none."""
    return _all_may(path, stat.S_IROTH)


def _all_may(path: str, needed: int) -> bool:
    try:
        parents = Path(os.path.abspath(path)).parents
        return bool(os.stat(path).st_mode & needed) and all(each.stat().st_mode & stat.S_IXOTH for each in parents)
    except OSError:
        # That it is missing is told by the one who connects, or reads.
        return False


def group_name(gid: int) -> str:
    """Of this host, or the number."""
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def readable_by(person: Person | None, path: str) -> str:
    """Empty if the person can read the file; otherwise why not."""

    def work() -> str:
        try:
            with open(path, "rb"):
                return ""
        except OSError as error:
            return error.strerror or str(error)

    return fault_as(person, work, timeout_s=FILE_TIMEOUT_S)


def load_keys(person: Person | None, wanted: Sequence[WantedKey], permissions: KeyPermissions) -> Iterator[str]:
    """For each: empty if the person, who is the daemon's user, can sign with it; otherwise why not.

    One child looks at CHILD_KEYS: of a host with many domains, a child for each would take minutes.
    """
    for start in range(0, len(wanted), CHILD_KEYS):
        batch = wanted[start : start + CHILD_KEYS]
        found = run_as(person, partial(_key_faults, batch, permissions), timeout_s=FILE_TIMEOUT_S)
        faults = found.get("faults")
        yield from map(str, faults) if isinstance(faults, list) else [str(found.get("error"))] * len(batch)


def _key_faults(wanted: Sequence[WantedKey], permissions: KeyPermissions) -> dict[str, object]:
    return {"faults": [_key_fault(each, permissions) for each in wanted]}


def _key_fault(wanted: WantedKey, permissions: KeyPermissions) -> str:
    domain, selector, file = wanted
    try:
        SigningKey.load(
            os.path.abspath(file), domain=domain, selector=selector, permissions=permissions, check=KeyCheck.FULL
        )
    except KeyFileError as error:
        return " ".join(str(error).split())
    return ""


def owner_name(path: str) -> str:
    """The user to whom a file belongs."""
    uid = os.stat(path).st_uid
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def ask_senders(person: Person | None, config: Config) -> str:
    """Empty if the sources can be asked, which are asked about an address that nobody has; otherwise why not."""

    def work() -> str:
        try:
            sources = open_senders(config.senders)
            if sources is None:
                return ""
            permission = sources.ask(b"nobody@mailguard.invalid", b"nobody@mailguard.invalid")
        except MailguardError as error:
            return str(error)
        is_down = permission.status is PermissionStatus.UNAVAILABLE
        return f"{permission.source}: {permission.reason}" if is_down else ""

    return fault_as(person, work, timeout_s=config.senders.deadline_s + FILE_TIMEOUT_S)


def is_synchronised() -> bool | None:
    """Whether the kernel believes that somebody keeps the clock right; None if it does not say."""
    try:
        state = ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.create_string_buffer(TIMEX_OCTETS))
    except (OSError, AttributeError):
        return None
    return None if state < 0 else state != TIME_ERROR


def newest_file(paths: Sequence[str]) -> tuple[str, float]:
    """The file that was changed last, and when, in POSIX seconds."""
    found = ("", 0.0)
    for path in paths:
        try:
            changed = os.stat(path).st_mtime
        except OSError:
            # What is missing is told elsewhere.
            continue
        found = max(found, (path, changed), key=lambda each: each[1])
    return found


def engine_found(name: str) -> Engine:
    """What the engine of the configuration needs, and whether it is there, for this Python."""
    if name != "libmilter":
        return Engine(name, installed=_installed("uvloop"))
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-c", _LOOK_AT_LIBMILTER],
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=IMPORT_TIMEOUT_S,
            check=False,
            encoding="utf-8",
            errors="replace",
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return Engine(name, fault=str(error))
    if done.returncode:
        said = done.stderr.strip().splitlines()
        return Engine(name, fault=said[-1] if said else f"importing it ends with {done.returncode}")
    library, path = [*done.stdout.splitlines(), "", ""][:2]
    return Engine(name, installed=_installed("pymilter"), library=library, path=path, build=_build(path))


def _build(path: str) -> str:
    try:
        with open(path, "rb") as file:
            return build_of(file.read(MAX_LIBRARY_BYTES)).value
    except OSError as error:
        return f"{Build.UNKNOWN.value}: {error.strerror}"


def _installed(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return ""
