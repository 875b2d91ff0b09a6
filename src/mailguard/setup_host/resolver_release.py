"""Whether a resolver has the remedies against KeyTrap and NSEC3 with many iterations (CVE-2023-50387, -50868). Pure.

One answer of a stranger's zone holds a validating resolver without them up for minutes, and all mail with it. Every
release that has one of the two remedies has the other. Distributions mend old releases: the version of a package says
more than the number of the release that it is made of, and where nothing is known of a package, nothing is said.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum

from mailguard.explain.explanation import Explanation
from mailguard.scorecard.card import Mark, card, finding

__all__ = ["PROGRAMS", "Program", "Remedy", "Running", "remedy_of", "resolver_program_card", "said_program"]

AtLeast = Callable[[str, str], bool]
"""Whether the first version of a Debian package is the second or later, as `dpkg --compare-versions` has it."""


@dataclass(frozen=True, slots=True)
class Program:
    """A resolver, and the releases of it that have the remedies."""

    name: str
    said: str
    """How its answer for version.bind begins, but for the number."""
    fixed: tuple[str, ...]
    """The first of each branch that has them; branches are the first two numbers. Later branches have them too."""
    version_option: str
    packages: tuple[tuple[str, str], ...] = ()
    """Of Debian: how the release's number begins, and the first version of the package with the remedies."""
    restart: str = ""


# Where the numbers come from. `fixed`: the announcements of the makers of 2024-02-13; for dnsmasq, the changelog of
# Debian's package. `packages`: the changelogs of Debian 12; for Debian 11 (unbound 1.13.1, BIND 9.16), the advisories
# DSA-5620 and DSA-5621.
PROGRAMS: Mapping[str, Program] = {
    "unbound": Program(
        "unbound",
        "unbound ",
        ("1.19.1",),
        "-V",
        (("1.13.1", "1.13.1-1+deb11u2"), ("1.17.1", "1.17.1-2+deb12u2")),
        "systemctl restart unbound",
    ),
    "named": Program(
        "BIND",
        "",
        ("9.16.48", "9.18.24", "9.19.21"),
        "-v",
        (("9.16.", "1:9.16.48-1"), ("9.18.", "1:9.18.24-1")),
        "systemctl restart named",
    ),
    "kresd": Program(
        "Knot Resolver",
        "Knot Resolver ",
        ("5.7.1",),
        "--version",
        (("5.6.0", "5.6.0-1+deb12u1"),),
        "systemctl restart 'kresd@*'",
    ),
    "pdns_recursor": Program(
        "PowerDNS Recursor",
        "PowerDNS Recursor ",
        ("4.8.6", "4.9.3", "5.0.2"),
        "--version",
        (("4.8.", "4.8.6-1"),),
        "systemctl restart pdns-recursor",
    ),
    "dnsmasq": Program("dnsmasq", "dnsmasq-", ("2.90",), "--version", (), "systemctl restart dnsmasq"),
}
_NUMBER = re.compile(r"(?:[0-9]+:)?([0-9]{1,9}(?:\.[0-9]{1,9}){1,3})")
_BIND_SAYS = re.compile(r"(?:BIND )?9\.\d")


class Remedy(Enum):
    """Whether it has them."""

    HAS = "has"
    LACKS = "lacks"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Running:
    """What is known of the resolver at an address."""

    address: str
    program: str = ""
    """The name of its file, a key of PROGRAMS where it is one of these; empty if it is not known."""
    version: str = ""
    package: str = ""
    """The Debian package whose version it is; empty if it is the number of the release."""
    is_replaced: bool = False
    """Its file was replaced since it started: what runs is older than what is installed."""
    is_said: bool = False
    """It is the number that the server says, and its file is not seen: it may be a package's."""


def said_program(text: str) -> tuple[str, str]:
    """The program and the version that an answer for version.bind names; empty where it names none that is known."""
    found = _NUMBER.search(text)
    if found is None:
        return "", ""
    if _BIND_SAYS.match(text):
        return "named", found[1]
    for file, program in PROGRAMS.items():
        if program.said and text.lower().startswith(program.said.lower()):
            return file, found[1]
    return "", ""


def remedy_of(running: Running, at_least: AtLeast) -> Remedy:
    """Whether it has the remedies, by its version."""
    program, number = PROGRAMS.get(running.program), _NUMBER.match(running.version)
    if program is None or number is None:
        return Remedy.UNKNOWN
    if _is_fixed(number[1], program.fixed):
        return Remedy.HAS
    if not running.package:
        return Remedy.UNKNOWN if running.is_said else Remedy.LACKS
    # Ubuntu's packages are made of the same releases, and mended under numbers of their own.
    for start, fixed in program.packages if "ubuntu" not in running.version else ():
        if number[1].startswith(start):
            return Remedy.HAS if at_least(running.version, fixed) else Remedy.LACKS
    return Remedy.UNKNOWN


def _is_fixed(release: str, fixed: tuple[str, ...]) -> bool:
    numbers = _numbers(release)
    for each in map(_numbers, fixed):
        if each[:2] == numbers[:2]:
            return numbers >= each
    return numbers > max(map(_numbers, fixed))


def _numbers(release: str) -> tuple[int, ...]:
    return tuple(map(int, release.split(".")))


def resolver_program_card(running: Running, at_least: AtLeast) -> Explanation:
    """What answers at an address of this host, and what to do about it."""
    program = PROGRAMS.get(running.program)
    name = program.name if program is not None else running.program or "unknown"
    facts = [("program", name), ("version", running.version or "unknown")]
    if running.package:
        facts.append(("package", running.package))
    remedy = remedy_of(running, at_least)
    if remedy is Remedy.HAS:
        found = [finding(Mark.OK, "a zone that is made to be costly to validate does not hold it up")]
    elif remedy is Remedy.LACKS:
        detail = (
            "one answer of a stranger's zone can hold it up for minutes, and all mail with it"
            " (CVE-2023-50387, CVE-2023-50868)"
        )
        install = f"apt install --only-upgrade {running.package}" if running.package else f"install a newer {name}"
        found = [finding(Mark.PROBLEM, detail, install)]
    else:
        detail = "whether a zone that is made to be costly to validate (CVE-2023-50387) holds it up is not known"
        found = [finding(Mark.UNKNOWN, detail, _where_to_look(running))]
    if running.is_replaced:
        restart = program.restart if program is not None else "restart it"
        found.append(
            finding(Mark.PROBLEM, "what runs is older than what is installed: it was not restarted", restart)
        )
    return card(f"resolver at {running.address}", found, facts=facts)


def _where_to_look(running: Running) -> str:
    if running.package:
        return f"apt changelog {running.package}, and look for the number"
    if not running.program or running.is_said:
        return "run it as root, so that the program can be found"
    return "ask who makes it"
