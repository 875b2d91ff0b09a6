"""SPF records: which TXT record is one, and the whole of its grammar (RFC 7208 §4.5, RFC 7208 §4.6, RFC 7208 §12).

pyspf reads each term again when it evaluates it; what it is given has passed here, because it takes things for valid
that are not, leaves some errors unnoticed and needs quadratic time for others. Linear in the input. Left out:
evaluation. Pure; values are frozen and safe to share between threads.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from ipaddress import AddressValueError, IPv6Address
from typing import Self

from mailguard.spf.macro import DomainSpec, MacroError, parse_macros

__all__ = ["Record", "RecordError", "Term", "spf_records"]

VERSION = "v=spf1"
# A prefix this short covers half of all addresses; see SpfResult.is_permissive.
WIDE_PREFIX = 1
IP4_BITS, IP6_BITS = 32, 128

_VERSION = re.compile(rb"v=spf1(?: |\Z)", re.IGNORECASE)
_VISIBLE_OR_SP = frozenset(range(0x20, 0x7F))
# RFC 7208 §4.6.1: "Modifiers always contain an equals character immediately after the name".
_MODIFIER = re.compile(r"([a-z][a-z0-9_.-]*+)=", re.IGNORECASE | re.ASCII)
_QUALIFIERS = frozenset("+-?~")
# RFC 7208 §12: ip4-cidr-length and ip6-cidr-length, at the end of a term.
_DUAL_CIDR = re.compile(r"(?:/(0|[1-9][0-9]?))?(?://(0|[1-9][0-9]{0,2}))?\Z", re.ASCII)
_CIDR = re.compile(r"(?:/(0|[1-9][0-9]{0,2}))?\Z", re.ASCII)
_QNUM = r"(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_IP4 = re.compile(rf"{_QNUM}(?:\.{_QNUM}){{3}}", re.ASCII)


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

    @property
    def looks_up(self) -> bool:
        """Whether it counts against the limit of RFC 7208 §4.6.4."""
        return self.mechanism in _LOOK_UP

    def is_wide(self, version: int) -> bool:
        """Whether a match says next to nothing: half of all addresses of that IP version match, or more."""
        return (self.prefix4 if version == 4 else self.prefix6) <= WIDE_PREFIX

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

    @classmethod
    def parse(cls, octets: bytes) -> Self:
        """Read a record that `spf_records` has chosen. Raises RecordError.

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
                    term = _directive(text)
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


def spf_records(texts: Iterable[bytes]) -> list[bytes]:
    """Those of a name's TXT records that are SPF records (RFC 7208 §4.5)."""
    return [text for text in texts if _VERSION.match(text)]


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
        raise RecordError("a name is missing or a prefix is too much")
    return DomainSpec.parse(rest[1:])


def _network(text: str, name: str, rest: str, *, bits: int) -> Term:
    found = _found(_CIDR, rest)
    address = rest[1 : found.start()]
    is_valid = _IP4.fullmatch(address) if bits == IP4_BITS else _is_ip6(address)
    if not rest.startswith(":") or not is_valid:
        raise RecordError("an address is missing or wrong")
    prefix = _prefix(found[1], bits)
    return Term(text, name, prefix4=prefix) if bits == IP4_BITS else Term(text, name, prefix6=prefix)


def _is_ip6(address: str) -> bool:
    """RFC 7208 §12: an ip6-network is as in RFC 4291 §2.2, so without the zone of RFC 4007 §11."""
    try:
        return IPv6Address(address).scope_id is None
    except AddressValueError:
        return False


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
    "ip4": partial(_network, bits=IP4_BITS),
    "ip6": partial(_network, bits=IP6_BITS),
}
