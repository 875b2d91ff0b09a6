"""An entry of Postfix's lists of milters, alone or in braces with settings of its own; and which is ours. Pure.

postconf(5), smtpd_milters. Settings in braces came with Postfix 3.0.
"""

from __future__ import annotations

import posixpath
from collections.abc import Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_address

from mailguard.audit.restriction_list import words
from mailguard.config import Listener
from mailguard.errors import ConfigError

__all__ = ["Entry", "entries", "is_in_our_directory", "is_listener", "looked_for_at", "postfix_address"]

# Postfix's own defaults, written down because others may have changed them for all milters. content_timeout must
# stay well above dns.deadline_s.
DEFAULTS = (("connect_timeout", "30s"), ("command_timeout", "30s"), ("content_timeout", "300s"))
DEFAULT_ACTION = "default_action"
TEMPFAIL = "tempfail"
# What the directory of our sockets is called, in all that is documented: nobody else puts one there.
OUR_DIRECTORY = "mailguard"


@dataclass(frozen=True, slots=True)
class Entry:
    """One milter."""

    address: str
    """As Postfix names it: `unix:mailguard/mailguard.sock`, `inet:127.0.0.1:8891`."""
    options: tuple[tuple[str, str], ...] = ()
    written: str = field(default="", compare=False)
    """As it stands in the list; empty for one that does not yet."""

    @classmethod
    def parse(cls, word: str) -> Entry:
        """A word of the list, with its braces."""
        inner = words(_without_braces(word))
        if not inner:
            return cls(word, written=word)
        found = (_without_braces(each).partition("=") for each in inner[1:])
        return cls(inner[0], tuple((name.strip(), value.strip()) for name, _, value in found), word)

    @property
    def text(self) -> str:
        """As it stands in main.cf; master.cf takes it without its blanks."""
        if self.written or not self.options:
            return self.written or self.address
        return f"{{ {', '.join([self.address, *(f'{name}={value}' for name, value in self.options)])} }}"

    def option(self, name: str) -> str:
        """The value of a setting in braces; empty where the one for all milters holds."""
        return dict(self.options).get(name, "")

    def at(self, address: str, *, takes_braces: bool) -> Entry:
        """For our own listener: what the administrator has chosen stays, except that mail passes without us."""
        if not takes_braces:
            return Entry(address)
        kept = dict(self.options)
        if kept.get(DEFAULT_ACTION, "accept") == "accept":
            kept[DEFAULT_ACTION] = TEMPFAIL
        # Another protocol than that of milter_protocol would be an older one.
        kept.pop("protocol", None)
        return Entry(address, (*((name, kept.pop(name, value)) for name, value in DEFAULTS), *sorted(kept.items())))


def entries(value: str) -> tuple[Entry, ...]:
    """The milters of a list."""
    return tuple(map(Entry.parse, words(value)))


def _without_braces(word: str) -> str:
    return word[1:-1] if word.startswith("{") and word.endswith("}") else word


def is_listener(entry: Entry, listener: Listener, *, queue_directory: str) -> bool:
    """Whether an entry leads to the listener, by whichever of the ways to write it."""
    address = listener.socket_address
    kind, _, rest = entry.address.partition(":")
    if address.family == "unix":
        # A chrooted smtpd takes an absolute path, too, as below the queue directory.
        below = posixpath.join(queue_directory, rest.lstrip("/"))
        return kind == "unix" and _normal(address.path) in map(_normal, (rest, below))
    host, _, port = rest.rpartition(":")
    try:
        named = ip_address(host.strip("[]").replace("localhost", "127.0.0.1"))
    except ValueError:
        return False
    return kind == "inet" and port == str(address.port) and named in (address.ip, _reached(listener))


def is_below(listener: Listener, *, queue_directory: str) -> bool:
    """Whether its socket is below the queue directory, where Postfix finds it from a chroot as well."""
    address = listener.socket_address
    queue = posixpath.normpath(queue_directory)
    return address.family == "unix" and posixpath.normpath(address.path).startswith(f"{queue}/")


def is_in_our_directory(entry: Entry) -> bool:
    """Whether an entry leads to a socket where ours are, whether or not a listener is there."""
    kind, _, path = entry.address.partition(":")
    return kind == "unix" and posixpath.basename(posixpath.dirname(path)) == OUR_DIRECTORY


def _normal(path: str) -> str:
    """Debian's /var/run is /run."""
    path = posixpath.normpath(path)
    return path.removeprefix("/var") if path.startswith("/var/run/") else path


def looked_for_at(entry: Entry, *, queue_directory: str, is_chrooted: bool) -> str:
    """The path of the socket that a service of Postfix connects to; empty for what is no unix socket.

    All daemons of Postfix work in the queue directory, which is the root of those in a chroot.
    """
    kind, _, path = entry.address.partition(":")
    if kind != "unix":
        return ""
    return posixpath.normpath(posixpath.join(queue_directory, path.lstrip("/") if is_chrooted else path))


def postfix_address(listener: Listener, *, queue_directory: str, chrooted: Sequence[str]) -> str:
    """As main.cf names it, where these services run in a chroot. Raises ConfigError where they cannot reach it."""
    address = listener.socket_address
    if address.family != "unix":
        reached = _reached(listener)
        return f"inet:{reached}:{address.port}" if reached.version == 4 else f"inet:[{reached}]:{address.port}"
    if not chrooted:
        return listener.address
    path, queue = posixpath.normpath(address.path), posixpath.normpath(queue_directory)
    if is_below(listener, queue_directory=queue):
        # All daemons of Postfix work in the queue directory, in a chroot or not.
        return f"unix:{posixpath.relpath(path, queue)}"
    suggested = f"{queue}/mailguard/{posixpath.basename(path)}"
    raise ConfigError(
        f"{listener.address}: {', '.join(chrooted)} run in a chroot in {queue} and cannot reach it. Either make a"
        f" directory there (install -d -o mailguard -g mailguard -m 0750 {posixpath.dirname(suggested)}), set"
        f' address = "unix:{suggested}" in [[listeners]] and restart mailguard-milter (docs/postfix.md, Chroot); or'
        " take these services out of the chroot (postconf -F"
        f" {' '.join(f'{place}/chroot=n' for place in chrooted)})"
    )


def _reached(listener: Listener) -> IPv4Address | IPv6Address:
    """What listens on every address is reached on loopback."""
    ip = listener.socket_address.ip
    if ip is None:
        raise ValueError(f"{listener.address} is not an address of the network")
    if ip.is_unspecified:
        return IPv4Address("127.0.0.1") if ip.version == 4 else IPv6Address("::1")
    return ip
