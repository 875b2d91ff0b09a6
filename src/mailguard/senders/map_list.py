"""The value of Postfix's smtpd_sender_login_maps: which tables it names, and each of them opened.

Read are texthash, hash, btree, lmdb, dbm, sdbm, inline, unionmap, and mysql, pgsql and sqlite with their own file.
`proxy:` only says that another process of Postfix opens the table; here it is opened directly. Other types are
refused with what to do instead: a pattern cannot be listed, and what it allows cannot be shown to anybody. `$name` is
not expanded: `postconf -hx` has done it. Safe on any thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from mailguard.errors import ConfigError
from mailguard.senders.table import InMemoryTable, Table, UnionTable, key_of, owners_of
from mailguard.senders.table_file import FILE_KINDS, FileTable

__all__ = ["TableName", "TableOptions", "open_tables", "parse_maps", "split_maps", "split_union"]

# smtpd_sender_login_maps of a large host names a dozen.
MAX_TABLES = 100
MAX_VALUE_CHARS = 65_536
# unionmap in unionmap in ...: Postfix itself would take any depth.
MAX_DEPTH = 5
_SEPARATORS = ", \t\r\n"
_DEPTH = {"{": 1, "}": -1}
_SQL_KINDS = frozenset({"mysql", "pgsql", "sqlite"})

_OWN_ADDRESS = (
    "if it only lets everyone use the address that is the login, own_address = true in [senders.inline] does so too;"
    " otherwise list the logins with their addresses and whole domains in [senders.inline.logins]"
)
_ALTERNATIVES = {
    "cdb": "Postfix cannot list it; name the text file that it was made from, as texthash:/path",
    "ldap": "write what it has into a file by a script (docs/mail-systems.md), and name that as texthash:/path",
    "pcre": _OWN_ADDRESS,
    "regexp": _OWN_ADDRESS,
    "static": "list the login with its whole domains in [senders.inline.logins]",
}
_ANY_ALTERNATIVE = "write what it has into a file, and name that as texthash:/path, or into [senders.inline.logins]"


@dataclass(frozen=True, slots=True)
class TableOptions:
    """What opening a table depends on beside its name."""

    clock: Callable[[], float]
    deadline_s: float
    postmap: str = "postmap"


@dataclass(frozen=True, slots=True)
class TableName:
    """A table as a value names it. `text` is for people; `path` for kinds that have one, `parts` for unionmap."""

    text: str
    kind: str
    path: str = ""
    parts: tuple[TableName, ...] = ()
    entries: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def split_maps(value: str) -> tuple[str, ...]:
    """The tables that a value names, as written, without `proxy:`. Raises ConfigError for open braces."""
    if len(value) > MAX_VALUE_CHARS:
        raise ConfigError(f"the list of tables has more than {MAX_VALUE_CHARS} characters")
    names = tuple(_unproxied(part) for part in _parts(value))
    if len(names) > MAX_TABLES:
        raise ConfigError(f"the list names more than {MAX_TABLES} tables")
    return names


def split_union(name: str) -> tuple[str, ...]:
    """The tables of a unionmap, without `proxy:`; of any other table, itself."""
    kind, _, rest = name.partition(":")
    return tuple(_unproxied(part) for part in _parts(_inside(name, rest))) if kind == "unionmap" else (name,)


def parse_maps(value: str) -> tuple[TableName, ...]:
    """The tables that a value names. Raises ConfigError for what is not read here; opens nothing."""
    return tuple(_parsed(name, 0) for name in split_maps(value))


def open_tables(value: str, options: TableOptions) -> tuple[Table, ...]:
    """The tables, in order. Raises ConfigError for what cannot be read; a file that is not there is no such error."""
    return tuple(_opened(name, options) for name in parse_maps(value))


def _unproxied(name: str) -> str:
    while name.startswith("proxy:"):
        name = name.removeprefix("proxy:")
    return name


def _parts(value: str) -> Iterator[str]:
    """Split at commas and white space outside of braces."""
    part, depth = "", 0
    for character in value:
        if character in _SEPARATORS and depth == 0:
            if part:
                yield part
            part = ""
            continue
        depth += _DEPTH.get(character, 0)
        if depth < 0:
            raise ConfigError(f'"{_short(value)}": a brace is closed that was not opened')
        part += character
    if depth:
        raise ConfigError(f'"{_short(value)}": a brace is not closed')
    if part:
        yield part


def _parsed(name: str, depth: int) -> TableName:
    kind, colon, rest = name.partition(":")
    if not colon or not rest:
        raise ConfigError(f'"{_short(name)}" is no table; Postfix\'s tables are written type:name')
    if kind == "inline":
        return TableName(_short(name), kind, entries=dict(_inline_entries(name, rest)))
    if kind == "unionmap":
        if depth >= MAX_DEPTH:
            raise ConfigError(f"unionmap stands in itself more than {MAX_DEPTH} times")
        parts = tuple(_parsed(_unproxied(part), depth + 1) for part in _parts(_inside(name, rest)))
        if not parts:
            raise ConfigError(f'"{name}" names no table')
        return TableName(_short(name), kind, parts=parts)
    if kind not in FILE_KINDS | _SQL_KINDS:
        alternative = _ALTERNATIVES.get(kind, _ANY_ALTERNATIVE)
        raise ConfigError(f'"{_short(name)}": tables of the type "{kind}" are not read; {alternative}')
    if not rest.startswith("/"):
        if kind in _SQL_KINDS:
            raise ConfigError(f'"{name}": parameters in main.cf are not read; write them into a file of their own')
        raise ConfigError(f'"{name}": the path of a table begins with /')
    return TableName(name, kind, path=rest)


def _opened(name: TableName, options: TableOptions) -> Table:
    if name.kind == "inline":
        return InMemoryTable(name.text, name.entries)
    if name.kind == "unionmap":
        return UnionTable(name.text, tuple(_opened(part, options) for part in name.parts))
    if name.kind in FILE_KINDS:
        return FileTable(name.kind, name.path, postmap=options.postmap, clock=options.clock)
    # Only these need the extra [sql].
    from mailguard.senders.sql_table import SqlTable

    return SqlTable(name.kind, name.path, deadline_s=options.deadline_s, clock=options.clock)


def _inside(name: str, rest: str) -> str:
    if not rest.startswith("{"):
        raise ConfigError(f'"{_short(name)}": what follows the colon stands in braces')
    return _unbraced(name, rest)


def _unbraced(name: str, text: str) -> str:
    """What stands in the braces with which `text` begins; they have to end with it."""
    depth = 0
    for at, character in enumerate(text, 1):
        depth += _DEPTH.get(character, 0)
        if depth == 0 and at < len(text):
            raise ConfigError(f'"{_short(name)}": what follows "{_short(text[:at])}" does not belong there')
    return text[1:-1]


def _inline_entries(name: str, rest: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    """`{key=value, {key = value, value}}`; of equal keys the last holds."""
    parts = tuple(_parts(_inside(name, rest)))
    if not parts:
        raise ConfigError(f'"{_short(name)}" is empty')
    for part in parts:
        bare = _unbraced(name, part) if part.startswith("{") else part
        key, equals, value = (text.strip() for text in bare.partition("="))
        if not equals or not key or not value:
            raise ConfigError(f'"{_short(name)}": "{_short(part)}" is not key=value or {{key = value, value}}')
        yield key_of(key), owners_of(value)


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:57]}..."
