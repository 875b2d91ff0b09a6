"""What each authoritative server publishes at the names of some records, for `mailguard dns --diff`.

All servers are asked at the same time, and those of an alias' target after them; what takes longer shows its progress
on a terminal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from rich.console import Console
from rich.progress import Progress

from mailguard.cli.at_once import at_once
from mailguard.dns.authoritative import Alias, AuthoritativeDns, NameServer, NotFromHere, Published, Unreachable
from mailguard.dns.reply import MAX_ALIASES
from mailguard.records.compare import Found
from mailguard.records.record import Record

__all__ = ["live_records"]

# Queries wait for the network nearly all the time; a zone with as many servers as are asked fits in.
PARALLEL = 32
NO_SERVER = "the DNS"
KEYS_LABEL = "._domainkey."

_Key = tuple[str, str]
_In = TypeVar("_In")
_Out = TypeVar("_Out")


@dataclass(frozen=True, slots=True)
class _Visit:
    """A record to look for at one name: its own, or the one that an alias leads to."""

    key: _Key
    name: str

    @property
    def cut_at(self) -> str:
        """The name at which to begin to look for its zone. A name that may not be there yet is not asked for with a
        recursive resolver, which would remember that it is not (RFC 2308 §5)."""
        if self.name != self.key[0]:
            return self.name.partition(".")[2] or self.name
        _, found, domain = self.name.partition(KEYS_LABEL)
        return f"{KEYS_LABEL[1:]}{domain}" if found else self.name

    def label(self, server: str) -> str:
        return server if self.name == self.key[0] else f"{server} for {self.name}"


_Reply = Published | Alias | Unreachable


class _Survey:
    """The questions of one comparison, asked in parallel."""

    def __init__(self, authoritative: AuthoritativeDns, threads: ThreadPoolExecutor, progress: Progress) -> None:
        self._authoritative = authoritative
        self._threads = threads
        self._progress = progress
        self._task = progress.add_task("", visible=progress.console.is_terminal)
        self._zones: dict[str, str | Unreachable] = {}
        self._servers: dict[str, tuple[NameServer, ...] | Unreachable] = {}

    def asked(self, visits: Iterable[_Visit]) -> list[tuple[_Visit, NameServer | None, _Reply]]:
        """What each server says to each visit; None for the server where none could be found."""
        visits = list(visits)
        names = dict.fromkeys(visit.cut_at for visit in visits if visit.cut_at not in self._zones)
        self._zones.update(self._each("finding the zones", names, self._authoritative.zone_of))
        zones = dict.fromkeys(zone for zone in self._zones.values() if isinstance(zone, str))
        new = [zone for zone in zones if zone not in self._servers]
        self._servers.update(self._each("finding their servers", new, self._authoritative.servers))
        self._widen(new)
        pairs: list[tuple[_Visit, NameServer]] = []
        lost: list[tuple[_Visit, NameServer | None, _Reply]] = []
        for visit in visits:
            zone = self._zones[visit.cut_at]
            servers = self._servers[zone] if isinstance(zone, str) else zone
            if isinstance(servers, Unreachable):
                lost.append((visit, None, servers))
            else:
                pairs += [(visit, server) for server in servers]
        replies = self._each("asking each server", pairs, self._ask)
        return [*lost, *((visit, server, reply) for (visit, server), reply in replies.items())]

    def _widen(self, zones: Sequence[str]) -> None:
        """Add the servers that the zone itself and the one above it name: the world asks these, too.

        What none of them says is not known better than before.
        """
        pairs = [(zone, each) for zone in zones for each in _servers_in(self._servers[zone])]
        ask = self._authoritative.ask
        told = self._each("asking for their servers", pairs, lambda pair: ask(pair[1], pair[0], "NS"))
        names: dict[str, set[str]] = {zone: set() for zone in zones}
        for (zone, _), reply in told.items():
            names[zone] |= {value.rstrip(".") for value in reply.values} if isinstance(reply, Published) else set()
        for zone, above in self._each("asking above them", zones, self._authoritative.delegated).items():
            names[zone] |= above if isinstance(above, frozenset) else set()
        found = [zone for zone in zones if _servers_in(self._servers[zone])]
        widened = self._each("finding more", found, lambda zone: self._authoritative.widened(zone, names[zone]))
        self._servers.update(widened)

    def target_zone(self, visit: _Visit) -> str:
        """The zone that an alias led to; empty where none did."""
        zone = self._zones.get(visit.cut_at)
        return zone if isinstance(zone, str) and visit.name != visit.key[0] else ""

    def _ask(self, pair: tuple[_Visit, NameServer]) -> Published | Alias:
        visit, server = pair
        return self._authoritative.ask(server, visit.name, visit.key[1])

    def _each(self, what: str, inputs: Iterable[_In], ask: Callable[[_In], _Out]) -> dict[_In, _Out | Unreachable]:
        inputs = list(inputs)
        self._progress.update(self._task, description=what, total=len(inputs), completed=0)
        found: dict[_In, _Out | Unreachable] = {}
        for each, answer in zip(inputs, self._threads.map(lambda each: _tried(ask, each), inputs), strict=True):
            found[each] = answer
            self._progress.advance(self._task)
        return found


def live_records(
    authoritative: AuthoritativeDns, records: Iterable[Record], *, is_quiet: bool = False
) -> Mapping[_Key, Mapping[str, Found]]:
    """By name and type, and then by server. Where no server can be found, that is what one of them says.

    Where a server has an alias, each server of the target says what is there. Quiet: without progress.
    """
    keys = dict.fromkeys((record.name, record.rdtype) for record in records if not record.held_back)
    live: dict[_Key, dict[str, Found]] = {key: {} for key in keys}
    console = Console(stderr=True)
    progress = Progress(console=console, transient=True, disable=is_quiet or not console.is_terminal)
    with at_once(PARALLEL) as threads, progress:
        survey = _Survey(authoritative, threads, progress)
        visits = {_Visit(key, key[0]): None for key in keys}
        for depth in range(MAX_ALIASES + 1):
            following: dict[_Visit, None] = {}
            for visit, server, reply in _heard(survey.asked(visits)):
                label = visit.label(NO_SERVER if server is None else str(server))
                if isinstance(reply, Unreachable):
                    live[visit.key][label] = Found(fault=str(reply))
                elif not isinstance(reply, Alias):
                    live[visit.key][label] = Found(reply.values, ttl_s=reply.ttl_s, zone=survey.target_zone(visit))
                elif depth < MAX_ALIASES:
                    following[_Visit(visit.key, reply.target)] = None
                else:
                    live[visit.key][label] = Found(fault=f"more than {MAX_ALIASES} aliases lead from one to the next")
            visits = following
            if not visits:
                break
    return live


def _servers_in(found: tuple[NameServer, ...] | Unreachable) -> tuple[NameServer, ...]:
    return () if isinstance(found, Unreachable) else found


def _heard(
    replies: Iterable[tuple[_Visit, NameServer | None, _Reply]],
) -> Iterable[tuple[_Visit, NameServer | None, _Reply]]:
    """Without the addresses that cannot be asked from here, where the same server has another that can."""
    replies = list(replies)
    asked = {
        (visit, server.name)
        for visit, server, reply in replies
        if server is not None and server.address and not isinstance(reply, NotFromHere)
    }
    return [
        (visit, server, reply)
        for visit, server, reply in replies
        if server is None or not isinstance(reply, NotFromHere) or (visit, server.name) not in asked
    ]


def _tried(ask: Callable[[_In], _Out], each: _In) -> _Out | Unreachable:
    try:
        return ask(each)
    except Unreachable as error:
        return error
