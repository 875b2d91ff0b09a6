"""A live look at mail servers: STARTTLS with each address of each host, several at once, all within a minute."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mailguard.cli.at_once import at_once
from mailguard.dns.answers import Answers, Resolver, evaluate
from mailguard.dns.question import Question, RecordType
from mailguard.starttls.presented import Handshake

if TYPE_CHECKING:
    from mailguard.starttls.handshake import StartTls

__all__ = ["Visit", "addresses_of", "starttls", "visits"]

# Of one host: the largest have about ten, which show the same.
MAX_ADDRESSES = 4
AT_ONCE = 8
TOTAL_TIME_S = 60.0


@dataclass(frozen=True, slots=True)
class Visit:
    """A host to look at. Only the first few of its addresses are."""

    name: str
    server_name: str
    """For SNI."""
    addresses: tuple[str, ...]


def starttls(ca_file: str | None) -> StartTls:
    """What shakes hands. Raises MissingExtraError: the extra [dane] is needed to connect, and for nothing else."""
    from mailguard.starttls.handshake import StartTls

    return StartTls(ca_file=ca_file)


def visits(client: StartTls, port: int, hosts: Iterable[Visit]) -> Mapping[str, tuple[Handshake, ...]]:
    """By the name of the host, in the order of its addresses."""
    deadline = time.monotonic() + TOTAL_TIME_S
    with at_once(AT_ONCE) as pool:
        begun = {
            host.name: [
                pool.submit(client.shake, address, port, server_name=host.server_name, deadline=deadline)
                for address in host.addresses[:MAX_ADDRESSES]
            ]
            for host in hosts
        }
        return {name: tuple(each.result() for each in futures) for name, futures in begun.items()}


def addresses_of(names: Iterable[str], resolver: Resolver, *, deadline: float) -> dict[str, tuple[str, ...]]:
    """IPv4 first; empty where there are none, or where the DNS does not say."""
    wanted = tuple(dict.fromkeys(names))
    questions = {name: [Question(name, rdtype) for rdtype in (RecordType.A, RecordType.AAAA)] for name in wanted}

    def look_up(answers: Answers) -> dict[str, tuple[str, ...]]:
        answers.need(question for both in questions.values() for question in both)
        return {
            name: tuple(address for question in both for address in answers.get(question).names())
            for name, both in questions.items()
        }

    return evaluate(look_up, resolver, deadline=deadline)
