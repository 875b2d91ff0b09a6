"""What Postfix's configuration says of logins and senders, as a section of mailguard's: `mailguard senders import`.

Postfix's postconf is asked: main.cf, and what the services of master.cf set in its place. Tables that mailguard does
not read are left out, each with what to do about it. A pattern table in which every address belongs to the login of
the same name becomes own_address: Postfix asks it before it looks for a whole domain or for a name without domain in
any table, and asks no table behind it.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, field
from typing import Any

from mailguard.audit.gather import run_postconf
from mailguard.audit.postfix import parameters
from mailguard.audit.restriction_list import words
from mailguard.audit.sasl import IREDAPD
from mailguard.domain import Domain
from mailguard.errors import ConfigError, DomainError, MissingExtraError
from mailguard.senders.map_list import TableOptions, open_tables, parse_maps, split_maps, split_union
from mailguard.senders.table import Table, TableDown
from mailguard.senders.table_file import FILE_KINDS, text_lines
from mailguard.toml_text import comment, toml_value

__all__ = ["PostfixSettings", "read_postfix"]

MAX_PATTERN_FILE_CHARS = 65_536

_MAPS = "smtpd_sender_login_maps"
_POLICY = "smtpd_recipient_restrictions"
_NAMES = (_MAPS, "recipient_delimiter", "mydestination", "myorigin", _POLICY)
# "/^(.*)$/ ${1}": whatever the address is, its owner is the login of that name.
_OWN_ADDRESS = re.compile(r"/\^\(\.[*+]\)\$/[a-zA-Z]*\s+\$(?:\{1\}|\(1\)|1)")
_SQL = re.compile(r"\b(?:mysql|pgsql):")
_INTO_LOGINS = "list its logins with their addresses in [senders.inline.logins]"


@dataclass(slots=True)
class _Tables:
    """What is made of the value: the tables that are read, those that are not, and those that Postfix never asks."""

    kept: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)
    own: bool = False
    """Whether own addresses count, by a pattern table."""
    own_first: bool = False


@dataclass(frozen=True, slots=True)
class PostfixSettings:
    """What was found, as mailguard has it."""

    place: str
    """Where smtpd_sender_login_maps is set."""
    maps: str
    own_address: bool
    own_address_first: bool
    """Whether a login may use its own address also where a table gives it to others."""
    delimiter: str
    local_domains: tuple[Domain, ...]
    left_out: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def sources(self) -> tuple[str, ...]:
        """For [senders]."""
        postfix = ("postfix",) if self.maps else ()
        inline = ("inline",) if self.own_address else ()
        return (*inline, *postfix) if self.own_address_first else (*postfix, *inline)

    def toml(self) -> str:
        """The section, with comments on what is left out."""
        lines = ["[senders]", f"sources = {toml_value(list(self.sources))}"]
        if self.delimiter:
            lines.append(f"recipient_delimiter = {toml_value(self.delimiter)}")
        if self.own_address:
            lines += ["", "[senders.inline]", "own_address = true"]
        if self.maps:
            lines += ["", "[senders.postfix]", f"# from {self.place}", f"maps = {toml_value(self.maps)}"]
            if self.local_domains:
                lines.append(f"local_domains = {toml_value(list(self.local_domains))}")
        comments = [*(f"not read: {each}" for each in self.left_out), *self.notes]
        return "\n".join([*lines, *map(comment, comments)]) + "\n"

    def to_json(self) -> dict[str, Any]:
        """For `json.dumps`."""
        return {
            "place": self.place,
            "sources": list(self.sources),
            "maps": self.maps,
            "own_address": self.own_address,
            "recipient_delimiter": self.delimiter,
            "local_domains": list(self.local_domains),
            "left_out": list(self.left_out),
            "notes": list(self.notes),
        }


def read_postfix(postconf: str, config_directory: str | None) -> PostfixSettings:
    """Ask postconf. Raises ConfigError if it fails, or if there is nothing to import."""
    # Where main.cf has just been written, the postconf of Postfix 3.10 forgets -c in $config_directory.
    directory = ["-c", config_directory, "-o", f"config_directory={config_directory}"] if config_directory else []
    main = parameters(_run(postconf, [*directory, "-x", *_NAMES]))
    services = parameters(_run(postconf, [*directory, "-Px", f"*/*/{_MAPS}"]))
    found = {f"{_MAPS} in main.cf": main.get(_MAPS, "")} | {
        f"{_MAPS} of {name.removesuffix(f'/{_MAPS}')} in master.cf": value for name, value in services.items()
    }
    found = {place: value for place, value in found.items() if value}
    if not found:
        raise ConfigError(
            f"Postfix has no {_MAPS}, neither in main.cf nor in master.cf; docs/senders.md says what else can be used"
        )
    # What a service sets, it sets for submission; main.cf is for all.
    place, value = list(found.items())[-1]
    others = {other: text for other, text in found.items() if text != value}
    notes = [f"not used: {other}: {text}" for other, text in others.items() if text == main.get(_MAPS)]
    elsewhere = [
        f"{other}: {text}; who logs in there is held to the tables of {place} too: if those are about other"
        " addresses, name both in maps"
        for other, text in others.items()
        if text != main.get(_MAPS)
    ]
    domains, unread = _local_domains(f"{main.get('myorigin', '')} {main.get('mydestination', '')}")
    notes += [f"not read: {each} in mydestination or myorigin" for each in unread]
    if _SQL.search(value) and any(word.endswith(IREDAPD) for word in words(main.get(_POLICY, ""))):
        notes.append(
            "iRedAPD is asked, too. It knows aliases of mailboxes that iRedMail's own table does not, and who writes"
            " as one of them would be refused: docs/mail-systems.md has a query with them"
        )
    tables = _readable(value)
    notes += [f"not used: {each}" for each in tables.unused]
    return PostfixSettings(
        place=place,
        maps=", ".join(tables.kept),
        own_address=tables.own,
        own_address_first=tables.own_first,
        delimiter=main.get("recipient_delimiter", ""),
        # Beside the pattern, no name without domain is looked up.
        local_domains=() if tables.own else domains,
        left_out=(*elsewhere, *tables.left_out),
        notes=tuple(notes),
    )


def _run(postconf: str, arguments: list[str]) -> str:
    done = run_postconf([postconf, *arguments])
    if done.returncode:
        said = done.stderr.strip().splitlines()
        raise ConfigError(said[-1] if said else f"{postconf} failed")
    return done.stdout


def _local_domains(text: str) -> tuple[tuple[Domain, ...], list[str]]:
    domains: dict[Domain, None] = {}
    unread = []
    for name in text.replace(",", " ").split():
        try:
            domains[Domain.parse(name)] = None
        except DomainError:
            unread.append(name)
    return tuple(domains), unread


def _readable(value: str) -> _Tables:
    found = _Tables()
    names = split_maps(value)
    answering = [place for place, name in enumerate(names) if any(map(_is_own_address, split_union(name)))]
    if answering:
        last = answering[0]
        found.own = True
        found.own_first = len(split_union(names[last])) > 1
        found.unused = [
            f"{name} stands behind {names[last]}, which answers for every address" for name in names[last + 1 :]
        ]
        names = names[: last + 1]
        if found.own_first:
            reason = f"it decides before {names[last]}, where one's own address counts first"
            found.left_out = [f'"{name}": {reason}; {_INTO_LOGINS}' for name in names[:-1]]
            names = names[last:]
    for name in names:
        fine = []
        for part in split_union(name):
            if found.own and _is_own_address(part):
                continue
            try:
                parse_maps(part)
                if found.own:
                    _check_beside_pattern(part)
                _open(part)
            except (ConfigError, TableDown) as error:
                found.left_out.append(str(error))
                continue
            except MissingExtraError as error:
                found.left_out.append(f'"{part}": {error}')
                continue
            fine.append(part)
        if len(fine) > 1:
            found.kept.append(f"unionmap:{{ {', '.join(fine)} }}")
        else:
            found.kept += fine
    return found


def _open(name: str) -> Table:
    """Raises ConfigError for what the daemon would not start with, such as a query that is not understood."""
    (table,) = open_tables(name, TableOptions(clock=time.monotonic, deadline_s=0.0))
    return table


def _check_beside_pattern(name: str) -> None:
    """Raises ConfigError for entries of whole domains: beside a pattern, Postfix never looks for them."""
    entries = None
    if name.partition(":")[0] in FILE_KINDS | {"inline"}:
        entries = _open(name).entries()
    if entries is None:
        raise ConfigError(
            f'"{name}": whether it has entries of whole domains cannot be seen, and Postfix does not look for these'
            " beside a pattern table that has every address; if it has none, name it in maps"
        )
    whole = next((key for key in entries if key.startswith("@")), None)
    if whole is not None:
        raise ConfigError(
            f'"{name}": it has entries of whole domains ({whole}), for which Postfix does not look beside a pattern'
            " table that has every address; write its other entries into a file, and name that as texthash:/path"
        )


def _is_own_address(name: str) -> bool:
    kind, _, path = name.partition(":")
    if kind not in ("pcre", "regexp"):
        return False
    try:
        with open(path, encoding="utf-8") as file:
            lines = list(text_lines(file.read(MAX_PATTERN_FILE_CHARS)))
    except (OSError, UnicodeDecodeError):
        return False
    return bool(lines) and all(_OWN_ADDRESS.fullmatch(line.strip()) for line in lines)
