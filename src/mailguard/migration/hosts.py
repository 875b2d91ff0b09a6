"""Lists of hosts (opendkim.conf(5), PeerList): addresses, networks, names, each perhaps with ! for "not". Pure.

The more precise entry counts, and of two that are equally precise the one with !, so that what remains of the
networks can be said without "not". OpenDKIM and OpenDMARC compare texts: to them, a network that is written in
another way than they would write it has no address in it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, collapse_addresses, ip_network

from mailguard.domain import Domain
from mailguard.errors import DomainError
from mailguard.migration.dataset import Entry
from mailguard.migration.note import Note, NoteKind, Place, shown

__all__ = ["LOCALHOST", "MAPPED", "MAX_EXCEPTIONS", "Hosts", "Network", "parse_hosts", "without"]

Network = IPv4Network | IPv6Network

MAX_HOSTS = 20_000
# Each one cuts up to 128 pieces from the networks before it.
MAX_EXCEPTIONS = 200
LOCALHOST = (ip_network("127.0.0.1/32"), ip_network("::1/128"))
_BRACKETED = re.compile(r"\[([^\[\]/]+)\](/[0-9]+)?")
# RFC 4291 §2.5.5.2: an IPv4 address in an IPv6 address.
MAPPED = IPv6Network("::ffff:0:0/96")


@dataclass(frozen=True, slots=True)
class Hosts:
    """What a list names: networks without overlap, and names with the place of each."""

    networks: tuple[Network, ...] = ()
    names: tuple[tuple[Domain, Place], ...] = ()
    """Of hosts, or of domains of which all hosts are meant."""
    notes: tuple[Note, ...] = ()


def parse_hosts(entries: Iterable[Entry], option: str, *, compared_by: str = "", patterns: bool = False) -> Hosts:
    """The hosts that `entries` name by their keys; `option` is said in the notes.

    `compared_by`: the program that compares texts, if it does. `patterns`: * stands for any text.
    """
    networks: list[tuple[bool, Network]] = []
    names: list[tuple[Domain, Place]] = []
    notes: list[Note] = []
    exceptions = 0
    for number, entry in enumerate(entries):
        if number >= MAX_HOSTS:
            notes.append(
                Note(NoteKind.DECIDE, f"more than {MAX_HOSTS} hosts: the rest is not read", entry.place, option)
            )
            break
        excepted, text = entry.key.startswith("!"), entry.key.removeprefix("!").lower()
        exceptions += excepted
        found = _networks(text)
        is_compared = compared_by != "" and text != "localhost"
        if is_compared and found and not _is_as_compared(text, compared_by, patterns=patterns):
            what = f"has no address in it to {compared_by}, which knows it as {found[0]}; it is not taken over"
            notes.append(Note(NoteKind.BROKEN, f'"{shown(entry.key)}" {what}', entry.place, option))
            continue
        if patterns and "*" in text and not found and not _is_name_below(text):
            what = f'"{shown(entry.key)}" is a pattern and is not taken over: name the networks'
            notes.append(Note(NoteKind.DECIDE, what, entry.place, option))
            continue
        if is_compared and _is_name_below(text):
            what = f'"{shown(entry.key)}" fits no host to {compared_by}, as "{shown(text[1:])}" would'
            notes.append(Note(NoteKind.BROKEN, f"{what}; it is not taken over", entry.place, option))
            continue
        if found and exceptions <= MAX_EXCEPTIONS:
            whole = [each for each in found if not each.prefixlen]
            networks += [(excepted, each) for each in found if each.prefixlen]
            if whole:
                what = f'"{shown(text)}" is every address there is and is not taken over: name those that are meant'
                notes.append(Note(NoteKind.DECIDE, what, entry.place, option))
            continue
        try:
            name = Domain.parse(text.removeprefix("*").removeprefix("."))
            if excepted or found or name.rpartition(".")[2].isdigit():  # RFC 1123 §2.1: 192.0.2 is none
                raise DomainError
        except DomainError:
            notes.append(_unread(entry, option, is_exception=excepted))
            continue
        names.append((name, entry.place))
    return Hosts(_remaining(networks), tuple(names), tuple(notes))


def without(networks: Iterable[Network], others: Iterable[Network]) -> tuple[Network, ...]:
    """What is left of networks."""
    return _remaining([(False, each) for each in networks], holes=others)


def _unread(entry: Entry, option: str, *, is_exception: bool) -> Note:
    if is_exception:
        what = f'"{shown(entry.key)}" is not taken over: exceptions are known for networks alone'
        return Note(NoteKind.DECIDE, what, entry.place, option)
    return Note(NoteKind.BROKEN, f'"{shown(entry.key)}" is neither a network nor a host', entry.place, option)


def _is_name_below(text: str) -> bool:
    return text.startswith("*.") and "*" not in text[1:]


def _is_as_compared(text: str, program: str, *, patterns: bool) -> bool:
    # In a table of patterns, brackets are a choice of characters.
    bracketed = _BRACKETED.fullmatch(text) if program == "OpenDKIM" and not patterns else None
    written = f"{bracketed[1]}{bracketed[2] or ''}" if bracketed else text
    try:
        network = ip_network(written, strict=True)
    except ValueError:
        return False
    if program == "OpenDKIM" and isinstance(network, IPv6Network) and network.subnet_of(MAPPED):
        return False  # a client with an IPv4 address has no other
    known = {str(network)} if "/" in written else {str(network.network_address)}
    if program == "OpenDMARC" and network.version == 4:
        known.add(network.with_netmask)
    return written in known


def _networks(text: str) -> list[Network]:
    if text == "localhost":
        return [*LOCALHOST]
    try:
        network = ip_network(text.replace("[", "").replace("]", ""), strict=False)
    except ValueError:
        return []
    if isinstance(network, IPv6Network) and network.subnet_of(MAPPED):
        inner = network.network_address.ipv4_mapped
        return [ip_network(f"{inner}/{network.prefixlen - 96}")]
    return [network]


def _remaining(entries: Iterable[tuple[bool, Network]], holes: Iterable[Network] = ()) -> tuple[Network, ...]:
    kept: list[Network] = []
    for excepted, network in sorted(entries, key=lambda entry: (entry[1].prefixlen, entry[0])):
        if excepted:
            kept = [piece for each in kept for piece in _without(each, network)]
        else:
            kept.append(network)
    for hole in holes:
        kept = [piece for each in kept for piece in _without(each, hole)]
    fourth = collapse_addresses(each for each in kept if isinstance(each, IPv4Network))
    sixth = collapse_addresses(each for each in kept if isinstance(each, IPv6Network))
    return (*fourth, *sixth)


def _without(network: Network, hole: Network) -> Iterable[Network]:
    if isinstance(network, IPv4Network) and isinstance(hole, IPv4Network):
        if network.subnet_of(hole):
            return []
        return network.address_exclude(hole) if hole.subnet_of(network) else [network]
    if isinstance(network, IPv6Network) and isinstance(hole, IPv6Network):
        if network.subnet_of(hole):
            return []
        return network.address_exclude(hole) if hole.subnet_of(network) else [network]
    return [network]
