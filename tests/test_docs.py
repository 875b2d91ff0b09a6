"""docs/configuration.md, docs/reasons.md and docs/rfc-map.md say what the code says."""

from __future__ import annotations

import ast
import importlib.util
import re
import subprocess
import sys
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from types import ModuleType

import pytest

from mailguard.config import Config
from mailguard.dkim.result import DkimReason
from mailguard.dmarc.result import DmarcReason
from mailguard.iprev import IprevStatus
from mailguard.message import MalformedReason
from mailguard.rule import Rule
from mailguard.spf.result import SpfReason
from reasons_document import DAEMON, reasons
from source_tree import modules

ROOT = Path(__file__).resolve().parent.parent
GENERATOR = ROOT / "contrib" / "generate_docs.py"


@pytest.fixture
def generator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """contrib/generate_docs.py, to be run on a tree below tmp_path."""
    spec = importlib.util.spec_from_file_location("generate_docs", GENERATOR)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "ROOT", tmp_path)
    return module


def test_the_documents_are_as_generated() -> None:
    done = subprocess.run([sys.executable, str(GENERATOR), "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_check_shows_what_is_stale(
    generator: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "src/mailguard/one.py"
    source.parent.mkdir(parents=True)
    source.write_text('"""One (RFC 6376 §3.5)."""\n', encoding="utf-8")
    monkeypatch.setattr(sys, "argv", ["generate_docs.py"])
    assert generator.main() == 0
    document = tmp_path / "docs/rfc-map.md"
    before = document.read_text(encoding="utf-8")
    source.write_text('"""One (RFC 6376 §3.6)."""\n', encoding="utf-8")
    monkeypatch.setattr(sys, "argv", ["generate_docs.py", "--check"])
    assert generator.main() == 1
    assert document.read_text(encoding="utf-8") == before
    shown = capsys.readouterr().out
    assert "-| §3.5 |" in shown
    assert "+| §3.6 |" in shown


def test_the_map_names_file_and_function(generator: ModuleType, tmp_path: Path) -> None:
    source = tmp_path / "src/mailguard/dkim/one.py"
    source.parent.mkdir(parents=True)
    source.write_text(
        '"""Signing (RFC 6376 §5)."""\n\n\n'
        "class Signer:\n"
        '    """RFC 6376 §3.10 is after RFC 6376 §3.7."""\n\n'
        "    def sign(self) -> None:\n"
        "        # RFC 6376 §3.7, §5.4.2 and §5.4: and RFC 8301 §3.1.\n"
        "        pass\n",
        encoding="utf-8",
    )
    text = generator.rfc_map()
    rows = re.findall(r"^(?:## (RFC \d+)|\| (§\S+) \| (.*) \|)$", text, re.MULTILINE)
    file = "`src/mailguard/dkim/one.py`"
    assert [row[0] or row[1] for row in rows] == [
        "RFC 6376",
        "§3.7",
        "§3.10",
        "§5",
        "§5.4",
        "§5.4.2",
        "RFC 8301",
        "§3.1",
    ]
    assert dict(row[1:] for row in rows[:6] if row[1]) == {
        "§3.7": f"{file} `Signer`<br>{file} `Signer.sign`",
        "§3.10": f"{file} `Signer`",
        "§5": f"{file} (module)",
        "§5.4": f"{file} `Signer.sign`",
        "§5.4.2": f"{file} `Signer.sign`",
    }


def test_every_key_is_described(generator: ModuleType) -> None:
    text = generator.configuration()
    keys = re.findall(r"^\| `(\w+)` \| (.*?) \| (.*?) ?\| (.+) \|$", text, re.MULTILINE)
    names = [key for key, *_ in keys]
    assert {"mode", "key_selectors", "allow_remote", "subdomains", "key_file", "zone_file"} <= set(names)
    assert set(Config.model_fields) <= set(names)
    assert all(meaning.strip() and "None" not in meaning for *_, meaning in keys)
    assert ("port", "whole number", "`53`", "The port of these resolvers.") in keys
    assert ("name", "text", "must be given") in [key[:3] for key in keys]


# -- docs/reasons.md ----------------------------------------------------------------------------------------------


def section(heading: str) -> str:
    """What stands in docs/reasons.md between this heading and the next."""
    return reasons().partition(f"\n## {heading}\n")[2].partition("\n## ")[0]


@pytest.mark.parametrize(
    ("heading", "words"),
    [
        ("Rules", Rule),
        ("From", MalformedReason),
        ("SPF", SpfReason),
        ("DKIM", DkimReason),
        ("DMARC", DmarcReason),
        ("iprev", IprevStatus),
    ],
)
def test_every_reason_is_explained(heading: str, words: type[Enum]) -> None:
    rows = re.findall(r"^\| `([^`]+)` \| (.+?) \|", section(heading), re.MULTILINE)
    assert {word.value for word in words} <= {word for word, _ in rows}
    assert all(meaning.strip() for _, meaning in rows)


def test_every_row_has_as_many_cells_as_its_heading() -> None:
    cells = 0
    for line in reasons().splitlines():
        found = len(re.findall(r"(?<!\\)\|", line)) if line.startswith("|") else 0
        assert found == cells or not cells or not found, line
        cells = found


def literal(node: ast.expr) -> Iterator[str]:
    """How the texts begin that an expression may come to, up to what is filled in."""
    match node:
        case ast.Constant(str() as text):
            yield text
        case ast.JoinedStr([ast.Constant(str() as text), *_]):
            yield text
        case ast.BoolOp():
            for value in node.values:
                yield from literal(value)
        case ast.Call(ast.Name("_although"), [value, _]):
            yield from literal(value)


def said_by_the_daemon() -> Iterator[str]:
    """Each reason, warning and reply that the daemon words by itself."""
    for name in ("conclusion", "session", "engine", "engine_libmilter", "conversation"):
        for node in ast.walk(modules()[f"mailguard_milter.{name}"].tree):
            match node:
                case ast.keyword("reason", value):
                    yield from literal(value)
                case ast.Call(ast.Name("Reply"), [_, _, value]):
                    yield from (text.removeprefix("mailguard: ") for text in literal(value))
                case ast.Assign([ast.Name("reason")], value):
                    yield from literal(value)
                case ast.Assign([ast.Attribute(_, "unsigned_because")], value):
                    yield from literal(value)
                case ast.FunctionDef(name="_macro_warning" | "_line_warning"):
                    for inner in ast.walk(node):
                        if isinstance(inner, ast.Return) and inner.value is not None:
                            yield from literal(inner.value)


def test_every_reason_of_the_daemon_is_explained() -> None:
    known = [word.removeprefix("unsigned: ") for word in DAEMON]
    found = {text.removeprefix("unsigned: ") for text in said_by_the_daemon()} - {""}
    assert len(found) >= 8, found
    assert not [text for text in found if not any(text.startswith(word) or word.startswith(text) for word in known)]
    told = [word for word in known if any(text.startswith(word) or word.startswith(text) for text in found)]
    assert told == known, "what the daemon does not say any more is not explained"
