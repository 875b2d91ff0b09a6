"""What each authoritative server publishes at the names of some records, for `mailguard dns --diff`.

All servers are asked at the same time; what takes longer shows its progress on a terminal.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor

from rich.console import Console
from rich.progress import Progress

from mailguard.dns.authoritative import AuthoritativeDns, NameServer, Unreachable
from mailguard.records.compare import Found
from mailguard.records.record import Record

__all__ = ["live_records"]

# Queries wait for the network nearly all the time.
PARALLEL = 16
NO_SERVER = "the DNS"


def live_records(
    authoritative: AuthoritativeDns, records: Iterable[Record]
) -> Mapping[tuple[str, str], Mapping[str, Found]]:
    """By name and type, and then by server. Where no server can be found, that is what one of them says."""
    keys = list(dict.fromkeys((record.name, record.rdtype) for record in records if not record.held_back))
    console = Console(stderr=True)
    with ThreadPoolExecutor(PARALLEL) as threads, Progress(console=console, transient=True) as progress:
        task = progress.add_task("finding the servers", total=len(keys), visible=console.is_terminal)
        servers: dict[tuple[str, str], tuple[NameServer, ...] | str] = {}
        for key, found in zip(keys, threads.map(lambda key: _servers(authoritative, key[0]), keys), strict=True):
            servers[key] = found
            progress.advance(task)
        asked = [(key, server) for key, found in servers.items() if not isinstance(found, str) for server in found]
        progress.update(task, description="asking each server", total=len(asked), completed=0)
        live: dict[tuple[str, str], dict[str, Found]] = {
            key: {NO_SERVER: Found(fault=found)} if isinstance(found, str) else {} for key, found in servers.items()
        }
        answers = threads.map(lambda each: _ask(authoritative, each[1], *each[0]), asked)
        for (key, server), there in zip(asked, answers, strict=True):
            live[key][str(server)] = there
            progress.advance(task)
    return live


def _servers(authoritative: AuthoritativeDns, name: str) -> tuple[NameServer, ...] | str:
    try:
        return authoritative.servers(name)
    except Unreachable as error:
        return str(error)


def _ask(authoritative: AuthoritativeDns, server: NameServer, name: str, rdtype: str) -> Found:
    try:
        return Found(authoritative.ask(server, name, rdtype))
    except Unreachable as error:
        return Found(fault=str(error))
