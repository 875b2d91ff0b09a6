"""iprev: does the client have a name that leads back to its address? (RFC 8601 §3)

What it says is not authentication (RFC 8601 §7.11). Pure; safe to share between threads.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv4Address, IPv6Address
from typing import NoReturn

from mailguard.dns.answers import Answers
from mailguard.dns.question import Question, RecordType
from mailguard.domain import Domain
from mailguard.errors import DomainError

__all__ = ["IprevResult", "IprevStatus", "check_iprev"]

# RFC 8601 §3: "the number of names evaluated [...] is limited", as in RFC 7208 §4.6.4.
MAX_NAMES = 10


class IprevStatus(Enum):
    """RFC 8601 §2.7.3. There is no none."""

    PASS = "pass"
    FAIL = "fail"
    """There are names, and none has the address."""
    TEMPERROR = "temperror"
    PERMERROR = "permerror"
    """The address has no name."""


@dataclass(frozen=True, slots=True)
class IprevResult:
    """The result for one client."""

    status: IprevStatus
    detail: str
    """For people, one sentence of printable ASCII, in our words."""
    address: IPv4Address | IPv6Address
    """What was checked: for an IPv4-mapped IPv6 address, the IPv4 address."""
    names: tuple[Domain, ...] = ()
    """The names that have the address; empty unless `status` is PASS."""
    unanswered: tuple[Domain, ...] = ()
    """The names whose addresses could not be looked up."""

    @property
    def name(self) -> Domain | None:
        """The first of `names`."""
        return self.names[0] if self.names else None

    def __bool__(self) -> NoReturn:
        raise TypeError("an IprevResult is not true or false: compare its status")


def check_iprev(address: IPv4Address | IPv6Address | None, answers: Answers) -> IprevResult | None:
    """The result for a client; None for one without an address. Raises Unanswered while an answer is missing."""
    if address is None:
        return None
    if isinstance(address, IPv6Address):
        address = address.ipv4_mapped or address
        if isinstance(address, IPv6Address) and address.scope_id is not None:
            # RFC 4007 §6: such an address means something on one link only, and has no name in the DNS.
            return IprevResult(IprevStatus.PERMERROR, "the address is valid on one link only", address)
    reverse = answers.get(Question(address.reverse_pointer, RecordType.PTR))
    if reverse.has_failed:
        return IprevResult(IprevStatus.TEMPERROR, "the name of the address could not be looked up", address)
    if not reverse.names():
        return IprevResult(IprevStatus.PERMERROR, "the address has no name", address)
    rdtype = RecordType.A if address.version == 4 else RecordType.AAAA
    names = tuple(_domains(reverse.names()[:MAX_NAMES]))
    questions = [Question(name, rdtype) for name in names]
    answers.need(questions)
    forward = [answers.get(question) for question in questions]
    looked_up = list(zip(names, forward, strict=True))
    confirmed = tuple(
        name for name, answer in looked_up if any(type(address)(text) == address for text in answer.names())
    )
    unanswered = tuple(name for name, answer in looked_up if answer.has_failed)
    if confirmed:
        # RFC 8601 §3: one name that leads back is enough, and which comes first is chance.
        detail = "a name of the address has the address"
        return IprevResult(IprevStatus.PASS, detail, address, confirmed, unanswered)
    if unanswered:
        detail = "a name of the address could not be looked up"
        return IprevResult(IprevStatus.TEMPERROR, detail, address, (), unanswered)
    return IprevResult(IprevStatus.FAIL, "no name of the address has the address", address)


def _domains(names: Iterable[str]) -> Iterator[Domain]:
    """Those that are host names; an answer may hold anything."""
    for name in dict.fromkeys(names):
        try:
            yield Domain.parse(name)
        except DomainError:
            continue
