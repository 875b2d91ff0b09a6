"""`mailguard doctor`: which program resolves names on this host, and whether its version is safe to use.

The program is the one that has the server's port, as /proc tells root; otherwise the one that the server says it is.
Its version is that of its Debian package, or else what it says.
"""

from __future__ import annotations

import os
import re
import stat
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from socket import ntohl

from mailguard.dns.live import LiveResolver, ResolverConfig
from mailguard.dns.server_version import said_version
from mailguard.dns.servers import ServerAddress
from mailguard.explain import Explanation
from mailguard.setup_host.resolver_release import PROGRAMS, Running, resolver_program_card, said_program

__all__ = ["at_least", "resolver_program_cards", "running_at"]

COMMAND_TIMEOUT_S = 10.0
# The user to whom nothing belongs: a file that somebody else put there is never run as root.
NOBODY = 65534
DELETED = " (deleted)"
# What stands in /proc/net/udp before the port, and the column of the inode.
_INODE_COLUMN = 9
_RELEASE = re.compile(r"[0-9]{1,9}(?:\.[0-9]{1,9}){1,3}")


def resolver_program_cards(config: ResolverConfig) -> Iterator[Explanation]:
    """A card for each server on this host; none where answers come from a file."""
    if config.zone_file is not None:
        return
    with LiveResolver(config) as resolver:
        servers = resolver.servers
    for server in servers:
        if ip_address(server.address).is_loopback:
            yield resolver_program_card(running_at(server), at_least)


def running_at(server: ServerAddress) -> Running:
    """What answers there."""
    file = _file_at(server)
    is_replaced, file = file.endswith(DELETED), file.removesuffix(DELETED)
    program = os.path.basename(file)
    said = said_program(said_version(server))
    if program not in PROGRAMS and said[0]:
        # Another one holds the port for it, or it is not seen.
        program, file = said[0], ""
    is_seen = bool(file)
    package = _package_of(file) if file else ""
    version = _package_version(package) if package else ""
    if not version:
        package = ""
        version = said[1] if said[0] == program else ""
    if not version and file and not is_replaced:
        version = _own_version(file, program)
    return Running(server.address, program, version, package, is_replaced, is_said=bool(version) and not is_seen)


def at_least(version: str, wanted: str) -> bool:
    """As Debian compares versions of packages."""
    return _run("dpkg", "--compare-versions", version, "ge", wanted) is not None


def _package_of(file: str) -> str:
    # Where /usr has been merged, dpkg knows some files by the path that they had before.
    for path in dict.fromkeys((file, file.removeprefix("/usr"))):
        text = _run("dpkg-query", "-S", path)
        if text:
            # `unbound: /usr/sbin/unbound`, and with the architecture for some: `libc6:amd64: /...`
            return text.split(": ")[0].split(",")[0]
    return ""


def _package_version(package: str) -> str:
    return (_run("dpkg-query", "-W", "-f", "${Version}", package) or "").strip()


def _own_version(file: str, program: str) -> str:
    if program not in PROGRAMS or not _is_roots(file):
        return ""
    text = _run(file, PROGRAMS[program].version_option, is_trusted=False) or ""
    found = _RELEASE.search(text)
    return found[0] if found is not None else ""


def _is_roots(file: str) -> bool:
    """Whether nobody but root can have put it there, where we are root."""
    try:
        status = os.stat(file)
    except OSError:
        return False
    return os.geteuid() != 0 or (status.st_uid == 0 and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH))


def _run(*command: str, is_trusted: bool = True) -> str | None:
    """What it prints; None if it fails or is not there."""
    # Only root can become somebody else.
    user = None if is_trusted or os.geteuid() != 0 else NOBODY
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=COMMAND_TIMEOUT_S,
            check=False,
            encoding="utf-8",
            errors="replace",
            cwd="/",
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"},
            user=user,
            group=user,
            extra_groups=None if user is None else (),
            # Whoever has our terminal could type into it, and root's shell would read that.
            start_new_session=True,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


# -- who has a port ------------------------------------------------------------------------------------------------


def _file_at(server: ServerAddress) -> str:
    """The file of the program that takes datagrams there; empty if it cannot be seen."""
    inodes = {f"socket:[{inode}]" for inode in _sockets_at(server)}
    for process in Path("/proc").iterdir() if inodes else ():
        if process.name.isdigit() and inodes & set(_open_files(process)):
            with suppress(OSError):
                file = os.readlink(process / "exe")
                # In a container, another file may have that path.
                if file.endswith(DELETED) or os.path.samefile(process / "exe", file):
                    return file
    return ""


def _open_files(process: Path) -> Iterator[str]:
    # Processes end, and those of others are not for everybody to see.
    with suppress(OSError):
        for each in (process / "fd").iterdir():
            with suppress(OSError):
                yield os.readlink(each)


def _sockets_at(server: ServerAddress) -> Iterator[str]:
    """proc(5): the inodes of the sockets with this address and port, else those with the port on all addresses."""
    wanted, everywhere = ip_address(server.address), []
    for name in ("udp", "udp6"):
        try:
            lines = Path("/proc/net", name).read_text("ascii").splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            columns = line.split()
            address, _, port = columns[1].partition(":")
            if int(port, 16) != server.port:
                continue
            bound = _address(address)
            if bound == wanted:
                yield columns[_INODE_COLUMN]
            elif bound.is_unspecified:
                everywhere.append(columns[_INODE_COLUMN])
    yield from everywhere


def _address(text: str) -> IPv4Address | IPv6Address:
    """proc(5) has words of four octets in the order of the processor."""
    words = [ntohl(int(text[start : start + 8], 16)) for start in range(0, len(text), 8)]
    octets = b"".join(word.to_bytes(4, "big") for word in words)
    return ip_address(octets)
