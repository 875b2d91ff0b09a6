"""Write docs/audit.md, configuration.md, reasons.md and rfc-map.md from the code; with --check, say what is stale.

The first comes from the checks of `mailguard audit` (audit_document.py), the second from the descriptions in the
configuration model, the third from the tables of advice (reasons_document.py), the last from the citations `RFC nnnn
§x.y` in the code, each with the file and the function or class around it (names do not move as line numbers do).
Run from anywhere: python contrib/generate_docs.py [--check]. Exits 1 with a diff when --check finds a
difference.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import json
import re
import sys
import types
from collections.abc import Iterator, Mapping
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ("src/mailguard", "milter/mailguard_milter")

SECTION_SIGN = "\N{SECTION SIGN}"
CITATION = re.compile(r"RFC (\d{3,5}) §([0-9A-Z]+(?:\.[0-9A-Z]+)*)")
# "RFC 6376 §3.3 and RFC 8463 §3" is two citations by itself; "RFC 6376 §3.5, §3.7" continues the first.
CONTINUED = re.compile(r"(?:,| and| or)\s+(?:#\s*)?§([0-9A-Z]+(?:\.[0-9A-Z]+)*)")

CONFIGURATION_HEAD = """\
# Configuration

<!-- Made by contrib/generate_docs.py from src/mailguard/config*.py. Do not edit. -->

One TOML file, by default `{path}`. It is strict: an unknown key, a wrong type or an
impossible value is an error that names the file, the line and the key, and the daemon keeps the configuration
that it has. Relative file names begin at the directory of the configuration file. A file that every user can
write to, or replace, is refused. Root takes one from root alone: neither the file nor a directory above it may
be another user's, or a group's to write to. Check a file with `mailguard-milter --check-config`;
contrib/mailguard.toml is a commented example.
"""

MAP_HEAD = """\
# From the standards to the code

<!-- Made by contrib/generate_docs.py from the citations in the code. Do not edit. -->

Each section of an RFC that the code cites, and where. "(module)" is the text at the top of a file.
"""


def configuration() -> str:
    """docs/configuration.md."""
    from mailguard.config import DEFAULT_PATH, Config

    parts = [CONFIGURATION_HEAD.format(path=DEFAULT_PATH), *_sections(Config, "")]
    return "\n".join(parts)


def _sections(model: Any, path: str) -> Iterator[str]:
    yield f"## {path or 'Top level'}\n"
    yield f"{_said_of(model)}\n"
    yield "| key | type | default | meaning |\n|---|---|---|---|"
    tables: list[tuple[Any, str]] = []
    for name, field in model.model_fields.items():
        inner, heading = _table(field.annotation, f"{path.strip('[]`')}.{name}".lstrip("."))
        if inner is None:
            cells = (f"`{name}`", _type(field.annotation), _default(field), field.description)
            yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
        else:
            tables.append((inner, heading))
            yield f"| `{name}` | table | | {_said_of(inner)} See {heading} below. |"
    yield ""
    for inner, heading in tables:
        yield from _sections(inner, heading)


def _said_of(model: Any) -> str:
    """The model's own text in one line, as a cell must be."""
    return " ".join((model.__doc__ or "").split())


def _table(annotation: Any, path: str) -> tuple[Any, str]:
    """The model that a key's value is made of, and how its table is headed; None for a plain value."""
    if hasattr(annotation, "model_fields"):
        return annotation, f"`[{path}]`"
    arguments = get_args(annotation)
    if get_origin(annotation) is tuple and hasattr(arguments[0], "model_fields"):
        return arguments[0], f"`[[{path}]]`"
    if get_origin(annotation) is Mapping and hasattr(arguments[1], "model_fields"):
        return arguments[1], f'`[{path}."example.com"]`'
    return None, ""


_TYPE_NAMES = {
    "Domain": "domain",
    "FieldName": "name of a header field",
    "FilePath": "path",
    "IPv4Network": "network",
    "KeyPattern": "path with `{domain}` and `{selector}`",
    "Nameserver": "IP address",
    "Selector": "selector",
    "bool": "true or false",
    "float": "number",
    "int": "whole number",
    "str": "text",
}


def _type(annotation: Any) -> str:
    import mailguard.config_values as values

    for name in values.__all__:
        if getattr(values, name) == annotation and name in _TYPE_NAMES:
            return _TYPE_NAMES[name]
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _type(arguments[0])
    if origin is Literal:
        return " or ".join(f"`{json.dumps(value)}`" for value in arguments)
    if origin is tuple:
        return f"list: {_type(arguments[0])}"
    if origin is Mapping:
        return f"table: {_type(arguments[1])}"
    if origin in (Union, types.UnionType):
        return _type(arguments[0])
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return " or ".join(f"`{json.dumps(member.value)}`" for member in annotation)
    return _TYPE_NAMES[annotation.__name__]


def _default(field: Any) -> str:
    if field.is_required():
        return "must be given"
    value = field.default.value if isinstance(field.default, Enum) else field.default
    if value is None or field.default_factory is not None:
        return ""
    # A network, the one kind of default that TOML has not, stands there as its text.
    return f"`{json.dumps(value, default=str)}`"


def rfc_map() -> str:
    """docs/rfc-map.md."""
    found: dict[int, dict[tuple[tuple[int, int | str], ...], tuple[str, set[str]]]] = {}
    for source in SOURCES:
        for file in sorted((ROOT / source).rglob("*.py")):
            text = file.read_text(encoding="utf-8")
            citations = list(_citations(text))
            if len(citations) != text.count(SECTION_SIGN):
                bare = f"{file.relative_to(ROOT)}: {text.count(SECTION_SIGN) - len(citations)} section numbers"
                raise SystemExit(
                    f"{bare} are not cited as `RFC nnnn {SECTION_SIGN}n`, and would be missing from the map"
                )
            for rfc, section, line in citations:
                place = f"`{file.relative_to(ROOT)}` {_around(text, line)}"
                found.setdefault(rfc, {}).setdefault(_order(section), (section, set()))[1].add(place)
    parts = [MAP_HEAD]
    for rfc, sections in sorted(found.items()):
        parts.append(f"## RFC {rfc}\n\n| section | where |\n|---|---|")
        for _, (section, places) in sorted(sections.items()):
            parts.append(f"| §{section} | {'<br>'.join(sorted(places, key=_plain))} |")
        parts.append("")
    return "\n".join(parts)


def reasons() -> str:
    """docs/reasons.md."""
    import reasons_document

    return reasons_document.reasons()


def audit() -> str:
    """docs/audit.md."""
    import audit_document

    return audit_document.audit()


def _citations(text: str) -> Iterator[tuple[int, str, int]]:
    """(RFC, section, line from 1) of each citation."""
    for match in CITATION.finditer(text):
        line = text.count("\n", 0, match.start()) + 1
        yield int(match[1]), match[2], line
        end = match.end()
        while more := CONTINUED.match(text, end):
            yield int(match[1]), more[1], text.count("\n", 0, more.end()) + 1
            end = more.end()


def _around(text: str, line: int) -> str:
    """The innermost function or class around a line, as Class.function."""
    names: list[str] = []
    nodes: list[ast.AST] = [ast.parse(text)]
    while nodes:
        node = nodes.pop()
        for child in ast.iter_child_nodes(node):
            begin, end = getattr(child, "lineno", 0), getattr(child, "end_lineno", 0)
            if begin <= line <= end:
                if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                    names.append(child.name)
                nodes.append(child)
    return f"`{'.'.join(names)}`" if names else _constant(text, line)


def _constant(text: str, line: int) -> str:
    """The constant on a line, or below the comment that the line belongs to; else the module's own text."""
    lines = text.splitlines()
    while lines[line - 1].startswith("#"):
        line += 1
    for node in ast.parse(text).body:
        if isinstance(node, ast.Assign) and node.lineno <= line <= (node.end_lineno or 0):
            return f"`{ast.unparse(node.targets[0])}`"
    return "(module)"


def _plain(place: str) -> str:
    return place.replace("`", "")


def _order(section: str) -> tuple[tuple[int, int | str], ...]:
    return tuple((0, int(part)) if part.isdigit() else (1, part) for part in section.split("."))


def main() -> int:
    """Write or check; the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 with a diff if stale")
    check = parser.parse_args().check
    stale = False
    documents = (
        ("docs/audit.md", audit()),
        ("docs/configuration.md", configuration()),
        ("docs/reasons.md", reasons()),
        ("docs/rfc-map.md", rfc_map()),
    )
    for name, text in documents:
        file = ROOT / name
        present = file.read_text(encoding="utf-8") if file.exists() else ""
        if present == text:
            continue
        stale = True
        if check:
            old, new = present.splitlines(keepends=True), text.splitlines(keepends=True)
            sys.stdout.writelines(difflib.unified_diff(old, new, f"{name} (present)", f"{name} (as generated)"))
        else:
            file.parent.mkdir(exist_ok=True)
            file.write_text(text, encoding="utf-8")
    if check and stale:
        print("the documents are stale; run: python contrib/generate_docs.py", file=sys.stderr)
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
