"""Data sets of OpenDKIM: a list in the option itself, or a file of keys and values (opendkim(8), DATA SETS). Pure.

Read are csl:, file:, refile: and what they are short for. Databases, LDAP, scripts and other servers are named in a
note and not asked.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Collection
from dataclasses import dataclass, replace

from mailguard.migration.note import Note, NoteKind, Place, Setting, shown
from mailguard.migration.option_lines import MAX_LINE_CHARS, MAX_NOTES_A_FILE, ReadText
from mailguard.migration.text_files import BYTE_ORDER_MARK

__all__ = ["DataSet", "Entry", "read_dataset"]

_OTHER_KINDS = re.compile(r"(?i:db|dsn|ldap|ldaps|ldapi|lua|memcache|erlang|mdb|repute|socket):|.*\.db$")


@dataclass(frozen=True, slots=True)
class Entry:
    """A key and its value, empty where it has none."""

    key: str
    value: str
    place: Place


@dataclass(frozen=True, slots=True)
class DataSet:
    """The entries in the order of the file."""

    entries: tuple[Entry, ...] = ()
    notes: tuple[Note, ...] = ()
    is_pattern_file: bool = False
    """refile: in each key * stands for any text."""


def read_dataset(
    setting: Setting, read: ReadText, *, directory: str = "", drops_indented: Collection[str] = ()
) -> DataSet:
    """What `setting` names, its type in any case. A relative file begins at `directory`, OpenDKIM's BaseDirectory.

    `drops_indented`: the types of file of which lines that begin with white space are not entries.
    """
    text = setting.value
    name, colon, rest = text.partition(":")
    kind = name.lower()
    if colon and kind in ("file", "refile"):
        table = _from_file(setting, rest.strip(), read, directory, drops_indented=kind in drops_indented)
        return replace(table, is_pattern_file=kind == "refile")
    if _OTHER_KINDS.match(text):
        what = f"{shown(name) if colon else 'Berkeley DB'} tables are not read: write the entries into a file"
        return DataSet(notes=(Note(NoteKind.DECIDE, what, setting.place, setting.name),))
    if text.startswith(("/", "./", "../")):
        return _from_file(setting, text, read, directory)
    return _from_list(setting, rest if kind == "csl" and colon else text)


def _from_list(setting: Setting, text: str) -> DataSet:
    entries, notes = [], []
    for part in filter(None, (part.strip() for part in text.split(","))):
        key, _, value = (piece.strip() for piece in part.partition("="))
        if len(key.split()) == 1:
            entries.append(Entry(key, value, setting.place))
        else:
            what = f'"{shown(part)}" is taken for one word, blanks and all: write commas between words'
            notes.append(Note(NoteKind.BROKEN, what, setting.place, setting.name))
    return DataSet(tuple(entries), tuple(notes))


def _from_file(
    setting: Setting, file: str, read: ReadText, directory: str, *, drops_indented: bool = False
) -> DataSet:
    path = posixpath.join(directory, file)
    found = read(path)
    if found.problem:
        what = f"{shown(path)} cannot be read: {found.problem}"
        return DataSet(notes=(Note(NoteKind.DECIDE, what, setting.place, setting.name),))
    entries: list[Entry] = []
    notes: list[Note] = []
    for number, line in enumerate(found.lines, 1):
        place = Place(path, number)
        statement = line.partition("#")[0].strip()
        if not statement:
            continue
        if len(line) > MAX_LINE_CHARS or "\0" in statement or "\ufffd" in statement:
            notes.append(Note(NoteKind.BROKEN, f"not read: {shown(statement)}", place, setting.name))
            continue
        if number == 1 and statement.startswith(BYTE_ORDER_MARK):
            if statement != BYTE_ORDER_MARK:
                what = f"a byte order mark is before {shown(statement[1:])}, which makes it no entry"
                notes.append(Note(NoteKind.BROKEN, f"{what}: take it out of the file", place, setting.name))
            continue
        if drops_indented and line[:1].isspace():
            what = f"{shown(statement)} is no entry, because white space is before it"
            notes.append(Note(NoteKind.BROKEN, what, place, setting.name))
            continue
        key, *rest = statement.split(maxsplit=1)
        entries.append(Entry(key, rest[0] if rest else "", place))
    if len(notes) > MAX_NOTES_A_FILE:
        more = Note(NoteKind.BROKEN, f"{len(notes) - MAX_NOTES_A_FILE} more such lines", Place(path), setting.name)
        notes = [*notes[:MAX_NOTES_A_FILE], more]
    return DataSet(tuple(entries), tuple(notes))
