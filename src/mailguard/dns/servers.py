"""The servers to ask, and which of them to ask first.

RFC 1035 §7.2 (which server to ask next). The configured order holds as long as a server does its work. One is
blamed only when another has answered a question that it could not: a stranger's broken or slow zone, which fails
everywhere, blames nobody. A blamed server is asked last, and tried beside a real look-up from time to time. Left
out: round-trip times. Belongs to one event loop.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from mailguard.errors import ConfigError

__all__ = ["Server", "ServerAddress", "Servers", "server_addresses", "trust_word"]

# One lost packet is no reason to leave a server; two in a row are.
BLAME_LIMIT = 2
# How often a blamed server is tried; so long after its return it is in service again.
TRIAL_INTERVAL_S = 3.0
# resolv.conf(5), MAXNS.
MAX_RESOLV_CONF_SERVERS = 3


@dataclass(frozen=True, slots=True)
class ServerAddress:
    """Where a server is, and whether its AD bit counts (RFC 4035 §4.9.3)."""

    address: str
    port: int
    trust_ad: bool


@dataclass(slots=True)
class Server:
    """A server and how it did of late."""

    at: ServerAddress
    blames: int = 0
    try_again_at: float = 0.0


class Servers:
    """All servers of a resolver."""

    def __init__(self, addresses: Iterable[ServerAddress], *, clock: Callable[[], float]) -> None:
        self._servers = [Server(address) for address in addresses]
        self._clock = clock

    def in_order(self) -> list[Server]:
        """Every server, the one to ask first in front."""
        return sorted(self._servers, key=_is_blamed)

    def due_for_trial(self) -> Server | None:
        """A blamed server whose time has come to be tried again; it is not given out again for a while."""
        now = self._clock()
        for server in self._servers:
            if _is_blamed(server) and server.try_again_at <= now:
                server.try_again_at = now + TRIAL_INTERVAL_S
                return server
        return None

    def answered(self, server: Server, *, after: Iterable[Server]) -> None:
        """`server` answered what those in `after` had been asked in vain."""
        server.blames = 0
        for failed in after:
            if failed is not server:
                failed.blames = min(failed.blames + 1, BLAME_LIMIT)
                failed.try_again_at = self._clock() + TRIAL_INTERVAL_S


def _is_blamed(server: Server) -> bool:
    return server.blames >= BLAME_LIMIT


def server_addresses(
    configured: Iterable[str], *, port: int, trust_ad: Iterable[str], resolv_conf: str
) -> tuple[ServerAddress, ...]:
    """The servers of the configuration, or those of `resolv_conf` if it names none.

    The AD bit counts from loopback and from the addresses in `trust_ad`. Raises ConfigError for text in
    `configured` or `trust_ad` that is not an address.
    """
    trusted = {_address(text, "trust_ad") for text in trust_ad}
    addresses = [_address(text, "nameservers") for text in configured] or _resolv_conf_addresses(resolv_conf)
    return tuple(
        ServerAddress(str(address), port, address.is_loopback or address in trusted)
        for address in dict.fromkeys(addresses)
    )


def trust_word(servers: Iterable[ServerAddress]) -> str:
    """For people: `trusted` if the AD bit of each counts, and there are any. One that does not may be asked next."""
    trusts = [server.trust_ad for server in servers]
    return "trusted" if trusts and all(trusts) else "untrusted"


def _address(text: str, option: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        raise ConfigError(f"dns {option}: {text!r} is not an IP address; give the address of a resolver") from None


def _resolv_conf_addresses(path: str) -> list[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    """resolv.conf(5): the first three `nameserver` lines, else the local host. Its search list is not read."""
    addresses = []
    try:
        lines = Path(path).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    for line in lines:
        words = line.split()
        if len(words) >= 2 and words[0] == "nameserver":
            try:
                addresses.append(ipaddress.ip_address(words[1]))
            except ValueError:
                continue
    return addresses[:MAX_RESOLV_CONF_SERVERS] or [ipaddress.IPv4Address("127.0.0.1")]
