"""The modules of mailguard as syntax trees, with what each imports."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = (ROOT / "src" / "mailguard", ROOT / "milter" / "mailguard_milter")


@dataclass(frozen=True)
class Module:
    name: str
    """Dotted; a package's `__init__` has the name of the package."""
    path: Path
    tree: ast.Module
    imports: frozenset[str]
    """Dotted names of modules, ours and others', wherever in the file they are imported."""


@cache
def modules() -> dict[str, Module]:
    """Every module of both packages by its name."""
    found = {}
    for package in PACKAGES:
        for path in sorted(package.rglob("*.py")):
            parts = path.relative_to(package.parent).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            found[name] = path
    trees = {name: ast.parse(path.read_text("utf-8"), str(path)) for name, path in found.items()}
    return {
        name: Module(name, found[name], tree, frozenset(imported(tree, known=found))) for name, tree in trees.items()
    }


def imported(tree: ast.AST, *, known: dict[str, Path]) -> Iterator[str]:
    """The modules that a syntax tree imports. `from a import b` is a.b where that is a module of ours, else a."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            assert node.module is not None
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in known else node.module


def is_ours(name: str) -> bool:
    return name.partition(".")[0] in ("mailguard", "mailguard_milter")


def within(name: str, ancestor: str) -> bool:
    """Whether the module `name` is `ancestor` or inside it."""
    return name == ancestor or name.startswith(ancestor + ".")
