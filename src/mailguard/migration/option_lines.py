"""The two kinds of configuration file: `Name value` (OpenDKIM and its kin) and `name = value` (policyd-spf). Pure.

In both, # begins a comment wherever it stands. Of an option that is there several times, the last line counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from mailguard.errors import ConfigError
from mailguard.migration.note import Note, NoteKind, Place, Setting, shown
from mailguard.migration.text_files import BYTE_ORDER_MARK, FileText

__all__ = ["MAX_NOTES_A_FILE", "Settings", "blank_settings", "equals_settings"]

# opendkim.conf(5), Include: nesting is allowed to a maximum of five levels.
MAX_INCLUDES_DEEP = 5
MAX_INCLUDED_FILES = 100
MAX_LINE_CHARS = 4096
# Who imports a file that is none of these programs' has enough from the first hundred lines.
MAX_NOTES_A_FILE = 100

ReadText = Callable[[str], FileText]


class Settings:
    """The options of one file and of those that it includes, and what is wrong with their lines."""

    def __init__(self, file: str, *, names: Iterable[str] = ()) -> None:
        """One of `names` in another case is not that option."""
        self.file = file
        self._spelled = {name.casefold(): name for name in names}
        self.notes: list[Note] = []
        self._by_name: dict[str, Setting] = {}
        self._broken = 0

    def __iter__(self) -> Iterator[Setting]:
        return iter(self._by_name.values())

    def get(self, name: str) -> Setting | None:
        """The option that counts, if there is one. `name` as documented."""
        return self._by_name.get(name.casefold())

    def add(self, setting: Setting) -> None:
        """A further option; it replaces one of the same name."""
        right = self._spelled.get(setting.name.casefold(), setting.name)
        if right != setting.name:
            self.broken(setting.place, f"{shown(setting.name)} is no option, and {right} is: they have case")
            return
        earlier = self._by_name.pop(setting.name.casefold(), None)
        if earlier is not None and earlier.value != setting.value:
            text = f"{earlier.place} has it too, with another value; this, the last, counts"
            self.notes.append(Note(NoteKind.DIFFERS, text, setting.place, setting.name))
        self._by_name[setting.name.casefold()] = setting

    def broken(self, place: Place, text: str) -> None:
        """A line that cannot be read."""
        self._broken += 1
        if self._broken <= MAX_NOTES_A_FILE:
            self.notes.append(Note(NoteKind.BROKEN, text, place))
        elif self._broken == MAX_NOTES_A_FILE + 1:
            self.notes.append(Note(NoteKind.BROKEN, "there are more such lines; they are not listed", place))


def _statements(settings: Settings, file: str, lines: Iterable[str]) -> Iterator[tuple[Place, str]]:
    for number, line in enumerate(lines, 1):
        place = Place(file, number)
        if len(line) > MAX_LINE_CHARS:
            settings.broken(place, f"the line has more than {MAX_LINE_CHARS} characters")
            continue
        statement = line.partition("#")[0].strip()
        if "\0" in statement or "\ufffd" in statement:
            settings.broken(place, f"not text: {shown(statement)}")
        elif number == 1 and statement.startswith(BYTE_ORDER_MARK):
            if statement != BYTE_ORDER_MARK:
                what = f"a byte order mark is before {shown(statement[1:])}, which makes it no option"
                settings.broken(place, f"{what}: take it out of the file")
        elif statement:
            yield place, statement


def blank_settings(file: str, read: ReadText, *, includes: bool = False, names: Iterable[str] = ()) -> Settings:
    """The options of `file`, a name and a value with blanks between. Raises ConfigError if it cannot be read.

    With `includes`, `Include FILE` stands for the options of that file. `names`: as in `Settings`.
    """
    settings = Settings(file, names=names)
    _read_blank(settings, (file,), _lines_of(file, read), read if includes else None, [])
    return settings


def _read_blank(
    settings: Settings, chain: tuple[str, ...], lines: Iterable[str], read: ReadText | None, seen: list[str]
) -> None:
    """`chain`: the files that include one another, this one last; `seen`: all that were included."""
    for place, statement in _statements(settings, chain[-1], lines):
        name, *rest = statement.split(maxsplit=1)
        if not rest:
            settings.broken(place, f"{shown(name)} has no value")
            continue
        setting = Setting(name, rest[0], place)
        if name.casefold() != "include" or read is None:
            settings.add(setting)
            continue
        seen.append(setting.value)
        if setting.value in chain:
            settings.broken(place, f"{shown(setting.value)} includes itself and is not read again")
        elif len(chain) > MAX_INCLUDES_DEEP or len(seen) > MAX_INCLUDED_FILES:
            settings.broken(place, f"{shown(setting.value)} is included from too many files and is not read")
        else:
            included = read(setting.value)
            if included.problem:
                settings.broken(place, f"{shown(setting.value)} cannot be read: {included.problem}")
            _read_blank(settings, (*chain, setting.value), included.lines, read, seen)


def equals_settings(file: str, read: ReadText, *, names: Iterable[str]) -> Settings:
    """The options of `file`, a name and a value with = between. Raises ConfigError if it cannot be read.

    `names`: as in `Settings`.
    """
    settings = Settings(file, names=names)
    for place, statement in _statements(settings, file, _lines_of(file, read)):
        name, *rest = (part.strip() for part in statement.split("="))
        if len(rest) == 1 and name and rest[0]:
            settings.add(Setting(name, rest[0], place))
        else:
            settings.broken(place, f"not a name, = and a value: {shown(statement)}")
    return settings


def _lines_of(file: str, read: ReadText) -> tuple[str, ...]:
    text = read(file)
    if text.problem:
        raise ConfigError(f"{shown(file)} cannot be read: {text.problem}")
    return text.lines
