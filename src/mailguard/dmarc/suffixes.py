"""PublicSuffixes: a list of public suffixes (publicsuffix.org), for Organizational Domains as in RFC 7489 §3.2.

Only for receivers that choose it: RFC 9989 finds Organizational Domains by tree walk. The only importer of
publicsuffixlist, which is imported when a list is loaded. Faults of it: it takes any text for a list, so that a
file that was cut off passes for one; an unencodable rule stops it with a UnicodeError of its own. Left out: fetching
the list. A loaded list never changes, whatever happens to its file; safe to share between threads.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self

from mailguard.domain import Domain
from mailguard.errors import ConfigError, MissingExtraError, install_command

__all__ = ["PublicSuffixes"]

# The list has some 330 kB.
MAX_LIST_BYTES = 16 * 1024 * 1024
# The list has these lines in this order, the last of them at its end.
_MARKS = tuple(f"// ==={mark} {section} DOMAINS===" for section in ("ICANN", "PRIVATE") for mark in ("BEGIN", "END"))


class _List(Protocol):
    """publicsuffixlist.PublicSuffixList, which not everybody has installed."""

    def privatesuffix(self, domain: str) -> str | None: ...


@dataclass(frozen=True, slots=True)
class PublicSuffixes:
    """The suffixes, those of private registries such as github.io among them."""

    _list: _List
    source: str
    """The path of the file."""

    @classmethod
    def load(cls, path: str | None = None) -> Self:
        """Read the list in the file `path`, or without one that of the installed package publicsuffixlist.

        Raises ConfigError for a file that is missing, unreadable, empty or cut off, and MissingExtraError where the
        package is not installed.
        """
        try:
            import publicsuffixlist
        except ModuleNotFoundError as error:
            raise MissingExtraError(
                f"public suffixes need publicsuffixlist; install it with: {install_command('psl')}"
            ) from error
        source = path if path is not None else publicsuffixlist.PSLFILE
        rules = _checked(_read(source), source)
        try:
            return cls(publicsuffixlist.PublicSuffixList(rules), source)
        except UnicodeError as error:
            raise ConfigError(f"{source}: a rule is not a domain name: {error}") from error

    def organizational_domain(self, domain: Domain) -> Domain:
        """RFC 7489 §3.2: the public suffix and one label more. A public suffix is its own."""
        found = self._list.privatesuffix(str(domain))
        return domain if found is None else Domain(found)


def _read(path: str) -> bytes:
    try:
        with Path(path).open("rb") as file:
            octets = file.read(MAX_LIST_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{path}: the list of public suffixes cannot be read: {error.strerror or error}") from error
    if len(octets) > MAX_LIST_BYTES:
        raise ConfigError(f"{path}: the list of public suffixes has more than {MAX_LIST_BYTES} octets")
    return octets


def _checked(octets: bytes, source: str) -> str:
    """The text of a whole list, without byte order mark."""
    try:
        text = octets.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{source}: the list of public suffixes is not UTF-8 text") from error
    lines = [line.strip() for line in text.splitlines()]
    found = [line for line in lines if line in _MARKS]
    if tuple(found) != _MARKS:
        missing = next((mark for mark in _MARKS if mark not in found), _MARKS[-1])
        raise ConfigError(
            f"{source}: not a whole list of public suffixes: the line {missing!r} is missing or not in its place; "
            "fetch the file again from https://publicsuffix.org/list/"
        )
    if not any(line and not line.startswith("//") for line in lines):
        raise ConfigError(f"{source}: the list of public suffixes has no rules")
    return text
