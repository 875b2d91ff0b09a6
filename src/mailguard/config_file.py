"""Reading a TOML file for a strict model: is it safe to trust, where is each key, what is wrong, in sentences.

TOML 1.0 through tomllib. A file that others could have written is refused; a value that the model refuses is
named by file, line and dotted key path, and not only the first problem is told. Knows nothing of what
the keys mean: that is config.py. Left out: includes and variables. Functions without state, safe on any
thread.
"""

from __future__ import annotations

import difflib
import json
import os
import re
import stat
import tomllib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from mailguard.errors import ConfigError
from mailguard.toml_text import toml_key

__all__ = ["KeyPath", "TomlFile", "did_you_mean", "sentences"]

KeyPath = tuple[str | int, ...]

# The longest value for which line numbers are worked out: each of its lines costs one attempt to parse it.
MAX_STATEMENT_LINES = 500
MAX_SHOWN_VALUE_CHARS = 60
# A program that writes thousands of domains makes the same mistake with each.
MAX_SENTENCES = 50
# With less, "domains" would be taken for "logins".
MIN_LIKENESS = 0.7

_TOML_POSITION = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)$")
_LEADING_ZERO = re.compile(r"=\s*0[0-9]+\s*(?:#|$)")
# As SQLAlchemy and others take a database.
_URL_PASSWORD = re.compile(r"://[^@]*@")


class TomlFile:
    """A TOML file and its content."""

    def __init__(self, path: str, octets: bytes) -> None:
        """A file that has or will have these octets. Raises ConfigError if that is not TOML."""
        self.path = path
        self.directory = os.path.dirname(os.path.abspath(path))
        self._text = self._decode(octets).replace("\r\n", "\n")
        try:
            self.content: dict[str, Any] = tomllib.loads(self._text)
        except tomllib.TOMLDecodeError as error:
            raise ConfigError(self._syntax(str(error))) from None
        except RecursionError:
            raise ConfigError(f"{self.path}: not TOML: values are nested too deeply") from None

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> TomlFile:
        """The file at `path`. Raises ConfigError if it cannot be read, or others than trusted users can write it."""
        name = os.fspath(path)
        return cls(name, _read(name))

    def _decode(self, raw: bytes) -> str:
        try:
            return raw.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            line = raw.count(b"\n", 0, error.start) + 1
            raise ConfigError(f"{self.path}:{line}: not TOML: the file is not UTF-8") from None

    def _syntax(self, message: str) -> str:
        position = _TOML_POSITION.search(message)
        if position is None:
            return f"{self.path}: not TOML: {message}"
        what = message[: position.start()]
        line = "" if position[1] is None else self._text.split("\n")[int(position[1]) - 1]
        # Such as the octal mode of a socket: no number of TOML begins with 0.
        if "Invalid value" in what or _LEADING_ZERO.search(line):
            what += "; text needs quotes"
        if position[1] is None:
            return f"{self.path}:{self._text.count(chr(10)) + 1}: not TOML: {what} at the end of the file"
        return f"{self.path}:{position[1]}: not TOML: {what} (column {position[2]})"

    def lines(self) -> dict[KeyPath, int]:
        """The line, from 1, on which each key path is first mentioned."""
        return _key_lines(self._text)


def _read(path: str) -> bytes:
    try:
        # O_NONBLOCK: opening a FIFO must not wait for a writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            opened = os.fstat(descriptor)
            if not stat.S_ISREG(opened.st_mode):
                raise ConfigError(f"{path}: not a regular file")
            _refuse_if_others_can_write(path, opened)
            with open(descriptor, "rb", closefd=False) as file:
                return file.read()
        finally:
            os.close(descriptor)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except ValueError:
        raise ConfigError(f"{path!r}: not the name of a file") from None


def _refuse_if_others_can_write(path: str, opened: os.stat_result) -> None:
    if opened.st_mode & stat.S_IWOTH:
        raise ConfigError(f"{path}: every user can write to it; run: chmod o-w {path}")
    _refuse_if_root_obeys_others(path, path, opened)
    for route in {os.path.abspath(path), os.path.realpath(path)}:
        below = os.lstat(route)
        directory = os.path.dirname(route)
        while True:
            status = os.stat(directory)
            # In a sticky directory (/tmp) only the owner of an entry, of the directory, or root can replace it.
            held = status.st_mode & stat.S_ISVTX and below.st_uid in (0, os.geteuid())
            if status.st_mode & stat.S_IWOTH and not held:
                raise ConfigError(
                    f"{path}: every user can write to the directory {directory}, and so replace the file;"
                    f" run: chmod o-w {directory}"
                )
            _refuse_if_root_obeys_others(path, directory, status)
            if directory == os.path.dirname(directory):
                break
            below = os.lstat(directory)
            directory = os.path.dirname(directory)


def _refuse_if_root_obeys_others(path: str, place: str, status: os.stat_result) -> None:
    """`place` is the file or a directory above. What it names, root runs, and makes for a user that it names."""
    if os.geteuid() != 0:
        return
    if status.st_uid != 0:
        # Who had it to read it, as a rule the daemon's user, still can by its group.
        remedy = f"chown root {place}" + (f"; chmod 640 {place}" if place == path else "")
        raise ConfigError(
            f"{path}: {place} belongs to another user (uid {status.st_uid}), and root takes orders from root alone;"
            f" run: {remedy}"
        )
    if status.st_mode & stat.S_IWGRP and status.st_gid != 0 and not status.st_mode & stat.S_ISVTX:
        raise ConfigError(
            f"{path}: the group {status.st_gid} can write to {place}, and root takes orders from root alone;"
            f" run: chmod g-w {place}"
        )


def _key_lines(text: str) -> dict[KeyPath, int]:
    """`text` is valid TOML. Each statement is parsed by itself, so that tomllib alone knows the syntax."""
    found: dict[KeyPath, int] = {}
    table: KeyPath = ()
    arrays: dict[KeyPath, int] = {}
    statement, start = "", 0
    for number, line in enumerate(text.split("\n"), 1):
        if not statement:
            start = number
        statement += line + "\n"
        if number - start > MAX_STATEMENT_LINES:
            break
        try:
            content = tomllib.loads(statement)
        except tomllib.TOMLDecodeError:
            continue
        if statement.lstrip().startswith("["):
            table = _table_path(content, arrays, is_array=statement.lstrip().startswith("[["))
            _note(found, table, {}, start)
        else:
            _note(found, table, content, start)
        statement = ""
    return found


def _table_path(content: Any, arrays: dict[KeyPath, int], *, is_array: bool) -> KeyPath:
    """The path that a header, parsed alone as `content`, opens; `arrays` counts the entries opened so far."""
    path: KeyPath = ()
    while isinstance(content, dict) and content:
        key, content = next(iter(content.items()))
        path = (*path, key)
        if isinstance(content, list):
            arrays[path] = arrays.get(path, -1) + 1
            content = None
        if path in arrays and (content or content is None):
            # A header below an array of tables belongs to its last entry.
            path = (*path, arrays[path])
    if is_array:
        # The entries of the arrays inside a new entry are counted anew.
        for deeper in [each for each in arrays if len(each) > len(path) and each[: len(path)] == path]:
            del arrays[deeper]
    return path


def _note(found: dict[KeyPath, int], path: KeyPath, content: Any, line: int) -> None:
    for depth in range(1, len(path) + 1):
        found.setdefault(path[:depth], line)
    if isinstance(content, dict):
        for key, value in content.items():
            _note(found, (*path, key), value, line)
    elif isinstance(content, list):
        for index, value in enumerate(content):
            _note(found, (*path, index), value, line)


def sentences(
    error: ValidationError,
    model: type[BaseModel],
    *,
    file: TomlFile,
    unknown_key: Callable[[KeyPath], str | None],
) -> list[str]:
    """One sentence for each problem: file, line, key path, what is wrong. In the order of the lines.

    Of more than MAX_SENTENCES the first, and how many more there are.

    `unknown_key` may give a reason of its own for a key that `model` does not have.
    """
    lines = file.lines()
    told: dict[str, int] = {}
    for detail in error.errors(include_url=False):
        if detail["type"] == "too_short" and detail["input"]:
            continue  # each of its entries has a problem of its own
        path = tuple(part for part in detail["loc"] if part != "[key]")
        line = _line_of(path, lines)
        place = f"{file.path}:{line}" if line else file.path
        name = f"{_dotted(path)}: " if path else ""
        what = _what(detail, path, model, unknown_key)
        told.setdefault(f"{place}: {name}{what}", line)
    ordered = sorted(told, key=lambda sentence: told[sentence])
    more = len(ordered) - MAX_SENTENCES
    return ordered if more <= 0 else [*ordered[:MAX_SENTENCES], f"{file.path}: and {more} problems more"]


def _line_of(path: KeyPath, lines: Mapping[KeyPath, int]) -> int:
    for depth in range(len(path), 0, -1):
        if path[:depth] in lines:
            return lines[path[:depth]]
    return 0


def _dotted(path: KeyPath) -> str:
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += f".{toml_key(part)}" if text else toml_key(part)
    return text


def _shown(value: object) -> str:
    try:
        text = json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError):
        text = str(value)
    text = _URL_PASSWORD.sub("://***@", text)
    return text if len(text) <= MAX_SHOWN_VALUE_CHARS else text[:MAX_SHOWN_VALUE_CHARS] + "..."


# What a value must be, by the kind of pydantic's error; the rest of the sentence is the value.
_MUST_BE = {
    "bool_type": "true or false",
    "int_type": "a whole number",
    "float_type": "a number",
    "finite_number": "a number that is not infinite",
    "string_type": "text in quotes",
    "tuple_type": "a list in square brackets",
    "mapping_type": "a table",
    "dict_type": "a table",
    "model_type": "a table",
    "greater_than": "more than {gt}",
    "greater_than_equal": "at least {ge}",
    "less_than": "less than {lt}",
    "less_than_equal": "at most {le}",
}


def _what(
    detail: ErrorDetails, path: KeyPath, model: type[BaseModel], unknown_key: Callable[[KeyPath], str | None]
) -> str:
    kind = detail["type"]
    context = detail.get("ctx", {})
    if kind == "extra_forbidden":
        reason = unknown_key(path)
        return f"unknown key; {reason}" if reason else f"unknown key{_nearest(path, model, detail['input'])}"
    if kind == "tuple_type" and isinstance(detail["input"], dict):
        return f"is a list of tables: write [[{_dotted(path)}]], with two brackets"
    if kind in _MUST_BE:
        return f"must be {_MUST_BE[kind].format(**context)}, not {_shown(detail['input'])}"
    if kind in ("literal_error", "enum"):
        expected = str(context["expected"]).replace("'", '"')
        return f"must be {expected}, not {_shown(detail['input'])}{did_you_mean(detail['input'], expected)}"
    if kind == "missing":
        meaning = _model_at(path[:-1], model).model_fields[str(path[-1])].description
        return f"this key is missing ({meaning})"
    if kind == "too_short":
        return "must have at least one entry"
    if kind == "value_error":
        return str(context["error"])
    return detail["msg"]


def did_you_mean(value: object, expected: str) -> str:
    """The hint for a wrong value, where it resembles one of the quoted words in `expected`; otherwise nothing."""
    close = difflib.get_close_matches(str(value).lower(), re.findall('"([^"]+)"', expected), n=1)
    return f'; did you mean "{close[0]}"?' if close else ""


def _nearest(path: KeyPath, model: type[BaseModel], value: object) -> str:
    """The hint for an unknown key: a similar key beside it, or the same key in another table."""
    section = _model_at(path[:-1], model)
    wanted = str(path[-1])
    names = list(section.model_fields)
    close = difflib.get_close_matches(wanted.lower().replace("-", "_"), names, n=1, cutoff=MIN_LIKENESS)
    if close:
        return f', did you mean "{close[0]}"?'
    # A table is not meant where a value stands, nor a value where a table stands.
    elsewhere = [
        place
        for place, table in _tables(model, ())
        if wanted in table.model_fields
        and isinstance(value, dict) == (_model_in(table.model_fields[wanted].annotation) is not None)
    ]
    general = [place for place in elsewhere if '"' not in place]
    if elsewhere:
        return f", it belongs {' or '.join(general or elsewhere)}"
    return f"; known here: {', '.join(names)}"


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The model that an annotation names, itself or inside a container."""
    if isinstance(annotation, type) and get_origin(annotation) is None and issubclass(annotation, BaseModel):
        return annotation
    for inner in get_args(annotation):
        if model := _model_in(inner):
            return model
    return None


def _model_at(path: KeyPath, model: type[BaseModel]) -> type[BaseModel]:
    for part in path:
        field = model.model_fields.get(part) if isinstance(part, str) else None
        model = (_model_in(field.annotation) if field else None) or model
    return model


def _tables(
    model: type[BaseModel], path: Sequence[str], *, is_list: bool = False
) -> list[tuple[str, type[BaseModel]]]:
    """Each table that the model has: how to say where it is, and what it is."""
    place = f"in [{'.'.join(path)}]" if path else "at the top, before the first [table]"
    if is_list:
        place = f"in [[{'.'.join(path)}]]"
    tables = [(place, model)]
    for name, field in model.model_fields.items():
        inner = _model_in(field.annotation)
        if inner is not None:
            kind = get_origin(field.annotation)
            # A table of tables has names of the administrator's own.
            key = (name,) if kind in (None, tuple) else (name, '"example.com"')
            tables += _tables(inner, (*path, *key), is_list=kind is tuple)
    return tables
