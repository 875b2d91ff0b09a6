"""From the files of one or several programs to a checked configuration: everything but storing it.

Reads the files that are named, those that they name, and private keys. Writes nothing.
"""

from __future__ import annotations

import re
import socket
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from mailguard.config import DEFAULT_USER, parse
from mailguard.errors import ConfigError
from mailguard.migration.compose import KeysInUse, compose, limited
from mailguard.migration.dkimpy_milter import read_dkimpy_milter
from mailguard.migration.found import Found
from mailguard.migration.note import Note, NoteKind, Place, shown
from mailguard.migration.opendkim import read_opendkim
from mailguard.migration.opendmarc import read_opendmarc
from mailguard.migration.option_lines import ReadText
from mailguard.migration.policyd_spf import read_policyd_spf
from mailguard.migration.private_keys import KeyCopy, Prepared, found_by_pattern, prepare_keys
from mailguard.migration.signing_plan import PatternKey, merged
from mailguard.migration.text_files import read_text
from mailguard.toml_text import comment, toml_text

__all__ = ["PROGRAMS", "Imported", "Program", "import_files"]


@dataclass(frozen=True, slots=True)
class Program:
    """One that can be imported from. `file`: where Debian has its configuration."""

    file: str
    read: Callable[[str, ReadText], Found]


# Where values differ, those of the first count: its name is the one that stands in the header of delivered mail.
PROGRAMS: Mapping[str, Program] = MappingProxyType(
    {
        "opendmarc": Program("/etc/opendmarc.conf", read_opendmarc),
        "opendkim": Program("/etc/opendkim.conf", read_opendkim),
        "dkimpy-milter": Program("/etc/dkimpy-milter/dkimpy-milter.conf", read_dkimpy_milter),
        "policyd-spf": Program("/etc/postfix-policyd-spf-python/policyd-spf.conf", read_policyd_spf),
    }
)
_HEADINGS = {
    NoteKind.DECIDE: "To decide:",
    NoteKind.BROKEN: "Not understood, by the program that it was for either:",
    NoteKind.DIFFERS: "Otherwise than before:",
    NoteKind.LEFT_OUT: "Left out, without an effect on mail:",
}


@dataclass(frozen=True, slots=True)
class Imported:
    """A configuration that loads, and what is to be said about it."""

    files: tuple[str, ...]
    text: str
    """TOML, with the notes as comments on top."""
    notes: tuple[Note, ...]
    copies: tuple[KeyCopy, ...]

    @property
    def needs_decision(self) -> bool:
        """Whether there is a note that somebody has to look at."""
        return any(note.kind.needs_decision for note in self.notes)

    def to_json(self) -> dict[str, Any]:
        """For `json.dumps`."""
        return {
            "files": [shown(file) for file in self.files],
            "configuration": tomllib.loads(self.text),
            "toml": self.text,
            "notes": [note.to_json() for note in self.notes],
            "copied_keys": [
                {"domain": copy.domain, "selector": copy.selector, "from": shown(copy.source)} for copy in self.copies
            ],
        }


def import_files(
    files: Mapping[str, str],
    *,
    copy_to: str | None = None,
    owner: str = "",
    myhostname: Callable[[], str] = lambda: "",
) -> Imported:
    """The configuration of mailguard for those in `files`, which has a path for each name of PROGRAMS.

    `myhostname` asks Postfix what it calls this host, which is the default of AuthservID; empty if it does not tell.
    With `copy_to`, an absolute path, the configuration names each key as DIRECTORY/DOMAIN/SELECTOR.pem, and `copies`
    has what belongs there, to be owned by the user `owner`. Raises ConfigError if a file cannot be read.
    """
    founds = [program.read(files[name], read_text) for name, program in PROGRAMS.items() if name in files]
    notes = [note for found in founds for note in found.notes]
    keys, copies = _keys(founds, notes, copy_to, owner)
    configuration = compose(founds, keys, notes, host=socket.getfqdn(), myhostname=myhostname)
    kept = limited(notes)
    named = tuple(found.file for found in founds)
    text = "\n".join([*_comments(named, kept), toml_text(configuration)])
    _check(text)
    return Imported(named, text, tuple(kept), tuple(copies))


def _keys(
    founds: Sequence[Found], notes: list[Note], copy_to: str | None, owner: str
) -> tuple[KeysInUse, list[KeyCopy]]:
    rules = [rule for found in founds for rule in found.plan.rules]
    kept, found_now = "", Prepared()
    selector = ""
    for pattern in [pattern for found in founds for pattern in found.plan.patterns]:
        ours = _key_pattern(pattern) if pattern.within is None else ""
        named = frozenset(domain for found in founds if pattern in found.plan.patterns for domain in found.plan.named)
        matching = [rule for rule in found_by_pattern(pattern) if rule.domain not in named]
        if ours and not kept and copy_to is None:
            kept, selector = ours, pattern.selector
            found_now = prepare_keys(matching, copy_to=None)
            continue
        rules += matching
        what = f"{len(matching)} domains have such a key now; keys of further ones have to be named in [domains]"
        notes.append(Note(NoteKind.DECIDE, what, pattern.place))
    prepared = prepare_keys(merged(rules, notes), copy_to=copy_to)
    notes += [*prepared.notes, *found_now.notes]
    owners = prepared.owners | found_now.owners
    return (
        KeysInUse(
            prepared.domains,
            owner or DEFAULT_USER if copy_to is not None else _user(owners, bool(prepared.domains), founds, notes),
            prepared.group_readable or found_now.group_readable,
            kept,
            selector,
            tuple(found_now.domains),
        ),
        prepared.copies,
    )


def _key_pattern(pattern: PatternKey) -> str:
    """`sign.key_pattern` for it; empty if its name does not say which part is the selector."""
    shape = rf"(?<![A-Za-z0-9_-]){re.escape(pattern.selector)}(?![A-Za-z0-9_-])"
    if "{" in pattern.file or "}" in pattern.file or len(re.findall(shape, pattern.file)) != 1:
        return ""
    return re.sub(shape, "{selector}", pattern.file).replace("%", "{domain}")


def _user(owners: set[str], has_keys: bool, founds: Sequence[Found], notes: list[Note]) -> str:
    """Who the daemon must be to read the keys where they are."""
    signer = next((found for found in founds if found.plan.rules or found.plan.patterns), None)
    if signer is None or not (owners or has_keys):
        return ""
    place = Place(signer.file)
    if not owners and signer.user:
        owners = {signer.user}
    elif len(owners) > 1 or owners == {"root"}:
        what = f"the keys belong to {' and '.join(sorted(owners))}, and the daemon reads those of its own user alone"
        notes.append(Note(NoteKind.DECIDE, f"{what}: --copy-keys", place))
    owner = min(owners - {"root"}, default="")
    if owner not in ("", DEFAULT_USER):
        what = f"the daemon has to be {owner}, who owns the keys: User={owner} in its unit, or --copy-keys"
        notes.append(Note(NoteKind.DECIDE, what, place))
    return owner


def _comments(files: Sequence[str], notes: Sequence[Note]) -> list[str]:
    lines = [comment(f"From {', '.join(map(shown, files))}, by mailguard import.")]
    for kind, heading in _HEADINGS.items():
        of_kind = [note for note in notes if note.kind is kind]
        if of_kind:
            lines += ["#", comment(heading), *(comment(f"- {note}") for note in of_kind)]
    return [*lines, ""]


def _check(text: str) -> None:
    try:
        parse(text, path="mailguard.toml")
    except ConfigError as error:
        raise ConfigError(f"what was found makes no configuration that can be used:\n{error}") from None
