"""SPF records: which TXT record is one, and the whole of its grammar (RFC 7208 §4.5, RFC 7208 §4.6, RFC 7208 §12).

pyspf reads each term again when it evaluates it; what it is given has passed here, because it takes things for valid
that are not, leaves some errors unnoticed and needs quadratic time for others. Linear in the input. Left out:
evaluation. Pure; values are frozen and safe to share between threads.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import Self

from mailguard.dns.question import Answer
from mailguard.spf.limits import MAX_RECORD_OCTETS
from mailguard.spf.macro import DomainSpec, MacroError, parse_macros
from mailguard.spf.result import SpfStatus

__all__ = ["Published", "Record", "RecordError", "Term", "shares_prefix"]

VERSION = "v=spf1"
# A prefix this short covers half of all addresses; see SpfResult.is_permissive.
WIDE_PREFIX = 1
IP4_BITS, IP6_BITS = 32, 128

_VERSION = re.compile(rb"v=spf1(?: |\Z)", re.IGNORECASE)
_VISIBLE_OR_SP = frozenset(range(0x20, 0x7F))
_NOT_PRINTABLE = re.compile(r"[^ -~]")
# RFC 7208 §4.6.1: "Modifiers always contain an equals character immediately after the name".
_MODIFIER = re.compile(r"([a-z][a-z0-9_.-]*+)=", re.IGNORECASE | re.ASCII)
# RFC 7208 §4.6.2; "+" may be left out.
_QUALIFIERS = {"+": SpfStatus.PASS, "-": SpfStatus.FAIL, "~": SpfStatus.SOFTFAIL, "?": SpfStatus.NEUTRAL}
# RFC 7208 §12: ip4-cidr-length and ip6-cidr-length, at the end of a term.
_DUAL_CIDR = re.compile(r"(?:/(0|[1-9][0-9]?))?(?://(0|[1-9][0-9]{0,2}))?\Z", re.ASCII)
_CIDR = re.compile(r"(?:/(0|[1-9][0-9]{0,2}))?\Z", re.ASCII)
_QNUM = r"(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
# Most terms of most records, and all of the longest ones.
_IP4_TERM = re.compile(rf"[-+?~]?ip4:({_QNUM}(?:\.{_QNUM}){{3}})(?:/(0|[1-9][0-9]?))?", re.ASCII | re.IGNORECASE)


class RecordError(ValueError):
    """A record that breaks the grammar. The text is ours and says what is wrong."""


@dataclass(frozen=True, slots=True)
class Term:
    """A directive (RFC 7208 §4.6.1)."""

    text: str
    """As published."""
    mechanism: str
    """Its name, in lower case."""
    spec: DomainSpec | None = None
    prefix4: int = IP4_BITS
    prefix6: int = IP6_BITS
    network: int = 0
    """Of an "ip4" or "ip6": the bits before its prefix ends."""

    @property
    def status(self) -> SpfStatus:
        """The result of a match."""
        return _QUALIFIERS.get(self.text[0], SpfStatus.PASS)

    @property
    def looks_up(self) -> bool:
        """Whether it counts against the limit of RFC 7208 §4.6.4."""
        return self.mechanism in _LOOK_UP

    def is_wide(self, version: int) -> bool:
        """Whether a match says next to nothing: half of all addresses of that IP version match, or more."""
        return self.prefix(version) <= WIDE_PREFIX

    def prefix(self, version: int) -> int:
        """How many bits of an address of that IP version have to match."""
        return self.prefix4 if version == 4 else self.prefix6

    def uses(self, letters: frozenset[str]) -> bool:
        """Whether one of these macros is in it."""
        return self.spec is not None and not letters.isdisjoint(self.spec.letters)


@dataclass(frozen=True, slots=True)
class Record:
    """What of a record can matter to an evaluation."""

    terms: tuple[Term, ...]
    """The directives up to "all"."""
    redirect: DomainSpec | None = None
    """None also where "all" is in the record."""
    explanation: DomainSpec | None = None
    """The target of exp=."""

    def reachable(self, client: IPv4Address | IPv6Address) -> Iterator[Term]:
        """The terms that can decide about `client`, in order: those that look something up, and the first that
        matches without a look-up, after which nothing is considered (RFC 7208 §4.6.2).
        """
        address, version = int(client), client.version
        for term in self.terms:
            match term.mechanism:
                case "ip4":
                    # RFC 7208 §5.6: an "ip4" matches IPv4 clients only, an "ip6" IPv6 clients only.
                    matches = version == 4 and address >> (IP4_BITS - term.prefix4) == term.network
                case "ip6":
                    matches = version == 6 and address >> (IP6_BITS - term.prefix6) == term.network
                case "all":
                    matches = True  # RFC 7208 §5.1
                case _:
                    yield term
                    continue
            if matches:
                yield term
                return

    @classmethod
    def parse(cls, octets: bytes) -> Self:
        """Read a record that begins with its version. Raises RecordError.

        RFC 7208 §4.6: "The syntax of the record is validated first", all of it, also what is never evaluated.
        """
        if not _VISIBLE_OR_SP.issuperset(octets):
            raise RecordError("it has a character other than printable ASCII")
        terms: list[Term] = []
        redirect = explanation = None
        has_all = False
        # RFC 7208 §4.6.1: SP separates terms, nothing else does.
        for number, text in enumerate(filter(None, octets[len(VERSION) :].decode("ascii").split(" ")), 1):
            try:
                modifier = _MODIFIER.match(text) if "=" in text else None
                if modifier is None:
                    ip4 = _IP4_TERM.fullmatch(text)
                    term = _directive(text) if ip4 is None else _ip4(text, ip4)
                    if not has_all:
                        terms.append(term)
                        # RFC 7208 §5.1: "Mechanisms listed after "all" MUST be ignored."
                        has_all = term.mechanism == "all"
                    continue
                value = text[modifier.end() :]
                match modifier[1].lower():
                    case "redirect":
                        redirect = _once(redirect, DomainSpec.parse(value))
                    case "exp":
                        explanation = _once(explanation, DomainSpec.parse(value))
                    case _:
                        # RFC 7208 §6: "Unrecognized modifiers MUST be ignored no matter where, or how often, they
                        # appear in a record."
                        parse_macros(value)
            except (RecordError, MacroError) as error:
                raise RecordError(f"in its term {number} {error}") from None
        # RFC 7208 §5.1: "Any "redirect" modifier MUST be ignored when there is an "all" mechanism in the record".
        return cls(tuple(terms), None if has_all else redirect, explanation)


@dataclass(frozen=True, slots=True)
class Published:
    """What of the TXT records at a name concerns SPF (RFC 7208 §4.5)."""

    texts: tuple[bytes, ...] = ()
    """The SPF records; there should be one (RFC 7208 §3.2)."""
    record: Record | None = None
    """The only one, read; None where there is none, several, or one that is too long or not valid."""
    fault: str = ""
    """What is wrong with the only one, in our words."""
    shown: str | None = None
    """The first, printable ASCII, bounded; None where there is none."""

    @classmethod
    def of(cls, answer: Answer) -> Published:
        """Read once for each answer."""
        return answer.read(Published, _read)


def _read(answer: Answer) -> Published:
    texts = tuple(text for text in answer.texts() if _VERSION.match(text))
    shown = _NOT_PRINTABLE.sub("?", texts[0][:MAX_RECORD_OCTETS].decode("latin-1")) if texts else None
    if len(texts) != 1 or len(texts[0]) > MAX_RECORD_OCTETS:
        return Published(texts, shown=shown)
    try:
        return Published(texts, Record.parse(texts[0]), shown=shown)
    except RecordError as error:
        return Published(texts, fault=str(error), shown=shown)


def shares_prefix(client: IPv4Address | IPv6Address, addresses: Iterable[str], bits: int) -> bool:
    """Whether one of the addresses, all of the client's IP version, has its first `bits` bits in common with it.

    No more of them are taken than that needs.
    """
    shift = client.max_prefixlen - bits
    read = _ip4_bits if client.version == 4 else _ip6_bits
    wanted = int(client) >> shift
    return any(read(text) >> shift == wanted for text in addresses)


def _ip4_bits(text: str) -> int:
    """What int(IPv4Address(text)) is, in a fifth of the time, for an address that is known to be one."""
    return int.from_bytes(bytes(map(int, text.split("."))), "big")


def _ip6_bits(text: str) -> int:
    return int(IPv6Address(text))


def _once(before: DomainSpec | None, spec: DomainSpec) -> DomainSpec:
    if before is not None:
        # RFC 7208 §6: "These two modifiers MUST NOT appear in a record more than once each."
        raise RecordError("a modifier is repeated")
    return spec


def _directive(text: str) -> Term:
    body = text[1:] if text[0] in _QUALIFIERS else text
    # "ip6:2001:db8::1/64", "a/24", "mx:example.com/24//64": the name ends at the first delimiter.
    name = body.partition(":")[0].partition("/")[0].lower()
    read = _READERS.get(name)
    if read is None:
        raise RecordError("there is no such mechanism")
    return read(text, name, body[len(name) :])


def _all(text: str, name: str, rest: str) -> Term:
    if rest:
        raise RecordError("all has an argument")
    return Term(text, name, prefix4=0, prefix6=0)


def _with_name(text: str, name: str, rest: str) -> Term:
    return Term(text, name, _spec(rest))


def _with_own_name(text: str, name: str, rest: str) -> Term:
    return Term(text, name, _spec(rest) if rest else None)


def _with_prefixes(text: str, name: str, rest: str) -> Term:
    found = _found(_DUAL_CIDR, rest)
    before = rest[: found.start()]
    prefix4, prefix6 = _prefix(found[1], IP4_BITS), _prefix(found[2], IP6_BITS)
    return Term(text, name, _spec(before) if before else None, prefix4, prefix6)


def _spec(rest: str) -> DomainSpec:
    if not rest.startswith(":"):
        raise RecordError("a name is missing, or a prefix is wrong or too much")
    return DomainSpec.parse(rest[1:])


def _ip4(text: str, found: re.Match[str]) -> Term:
    prefix = _prefix(found[2], IP4_BITS)
    return Term(text, "ip4", prefix4=prefix, network=_ip4_bits(found[1]) >> (IP4_BITS - prefix))


def _no_ip4(text: str, name: str, rest: str) -> Term:
    raise RecordError("an IPv4 network is missing or wrong")


def _ip6(text: str, name: str, rest: str) -> Term:
    found = _found(_CIDR, rest)
    address = _ip6_address(rest[1 : found.start()])
    if not rest.startswith(":") or address is None:
        raise RecordError("an IPv6 network is missing or wrong")
    prefix = _prefix(found[1], IP6_BITS)
    return Term(text, name, prefix6=prefix, network=int(address) >> (IP6_BITS - prefix))


def _ip6_address(text: str) -> IPv6Address | None:
    """RFC 7208 §12: an ip6-network is as in RFC 4291 §2.2, so without the zone of RFC 4007 §11."""
    try:
        address = IPv6Address(text)
    except AddressValueError:
        return None
    return address if address.scope_id is None else None


def _found(pattern: re.Pattern[str], rest: str) -> re.Match[str]:
    """The prefix lengths at the end; they may be none. Searched for in the last characters only: linear time."""
    found = pattern.search(rest, max(0, len(rest) - LONGEST_PREFIXES))
    if found is None:
        raise AssertionError("an empty match is found at the end")
    return found


def _prefix(digits: str | None, bits: int) -> int:
    length = bits if digits is None else int(digits)
    if length > bits:
        raise RecordError("a prefix is too long")
    return length


LONGEST_PREFIXES = len("/32//128")
_LOOK_UP = frozenset({"include", "a", "mx", "ptr", "exists"})
_READERS: dict[str, Callable[[str, str, str], Term]] = {
    "all": _all,
    "include": _with_name,
    "exists": _with_name,
    "ptr": _with_own_name,
    "a": _with_prefixes,
    "mx": _with_prefixes,
    "ip4": _no_ip4,
    "ip6": _ip6,
}
