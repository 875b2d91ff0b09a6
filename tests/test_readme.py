"""What README.md and the documents written by hand say is so: the code runs, what they name exists.

Left out: that Postfix does with main.cf's lines what the text says, which the tests with the real Postfix show.
"""

from __future__ import annotations

import ast
import re
import runpy
import shutil
import subprocess
import time
import tomllib
from pathlib import Path

import pytest

import mailguard.pipeline
from mailguard import Message, SigningKey, ZoneResolver, sign_dkim
from mailguard.config import Config
from mailguard.dkim.signing_key import generate_ed25519
from mailguard.errors import install_command
from source_tree import ROOT, modules

DOCUMENTS = ("README.md", "docs/architecture.md", "docs/postfix.md")
_BLOCK = re.compile(r"^```([a-z.]+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def text_of(document: str) -> str:
    return (ROOT / document).read_text("utf-8")


def blocks(document: str, language: str) -> list[str]:
    return [body for name, body in _BLOCK.findall(text_of(document)) if name == language]


def test_the_python_in_the_readme_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (source,) = blocks("README.md", "python")
    key = SigningKey.from_bytes(generate_ed25519(), domain="example.com", selector="s")
    raw = b"From: a@example.com\r\nSubject: x\r\n\r\nHello\r\n"
    (signature,) = sign_dkim(Message.parse(raw), keys=[key], now=time.time())
    (tmp_path / "message.eml").write_bytes(signature.raw + b"\r\n" + raw)
    (tmp_path / "readme.py").write_text(source)
    zone = ZoneResolver(
        {
            key.public_name: {"TXT": [key.record()]},
            "example.com": {"TXT": ["v=spf1 ip4:192.0.2.10 -all"]},
            "_dmarc.example.com": {"TXT": ["v=DMARC1; p=reject"]},
        }
    )
    monkeypatch.setattr(mailguard.pipeline, "open_resolver", lambda: zone)
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(tmp_path / "readme.py"))
    first, *tree = capsys.readouterr().out.splitlines()
    assert first == "accept no-objection"
    assert first in text_of("README.md")
    assert tree[0] == "message: accept (no-objection)"
    assert {"  SPF: pass (match)", "  DKIM signature 1: pass (verified)", "  DMARC: pass (aligned)"} <= set(tree)
    statements = [line for line in source.splitlines() if line and not line.startswith(("import ", "from "))]
    assert len(statements) <= 5


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_file_that_is_named_exists(document: str) -> None:
    text = text_of(document)
    named = set(re.findall(r"\b(?:src|milter|tests|docs|contrib|benchmarks)/[\w./-]*\w", text))
    links = {link for link in re.findall(r"\]\(([^)#]+)", text) if "://" not in link}
    assert named | links
    missing = [name for name in sorted(named) if not (ROOT / name).exists()]
    missing += [link for link in sorted(links) if not ((ROOT / document).parent / link).exists()]
    assert not missing


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_link_inside_a_document_has_its_heading(document: str) -> None:
    text = text_of(document)
    headings = {
        re.sub(r"[^\w -]", "", line).strip().lower().replace(" ", "-")
        for line in re.findall(r"^#+ (.*)$", text, re.M)
    }
    assert not [anchor for anchor in re.findall(r"\]\(#([^)]+)\)", text) if anchor not in headings]


def defined(path: Path) -> set[str]:
    """The classes, functions and methods of a module."""
    found = set()
    for node in ast.parse(path.read_text("utf-8")).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            found |= {f"{node.name}.{inner.name}" for inner in node.body if isinstance(inner, ast.FunctionDef)}
    return found


def test_every_function_that_the_architecture_names_exists() -> None:
    text = text_of("docs/architecture.md")
    found = re.findall(r"`((?:src|milter)/[\w/]+\.py)` `([\w.]+)`(?: and `([\w.]+)`)?", text)
    assert len(found) > 15
    for path, *names in found:
        for name in filter(None, names):
            assert name in defined(ROOT / path), f"{path} {name}"


def test_the_architecture_names_every_module() -> None:
    text = text_of("docs/architecture.md")
    packages = (ROOT / "src" / "mailguard", ROOT / "milter" / "mailguard_milter")
    for name, module in modules().items():
        package = packages[name.partition(".")[0] == "mailguard_milter"]
        relative = str(module.path.relative_to(package))
        if relative.endswith("/__init__.py") or (relative == "__init__.py" and package is packages[1]):
            continue
        assert f"`{relative}`" in text, f"{name} is not in docs/architecture.md"


def test_the_architecture_names_no_module_that_is_not_there() -> None:
    files = text_of("docs/architecture.md").partition("## The files")[2].partition("## Processes")[0]
    roots = ("src/mailguard", "src/mailguard/dkim", "milter/mailguard_milter", ".")
    for name in re.findall(r"`((?:[a-z]+/)?[a-z_]+\.py)`", files):
        assert any((ROOT / root / name).exists() for root in roots), name


POSTCONF = shutil.which("postconf", path="/usr/sbin:/usr/bin:/sbin")
# With a name and networks of its own, postconf does not look for them.
MAIN_CF = "compatibility_level = 3.6\nmyhostname = mx.example.com\nmynetworks = 127.0.0.0/8\n"
POSTFIX_BLOCKS = {
    f"{document} {kind} {number}": (kind, block)
    for document in DOCUMENTS
    for kind in ("main.cf", "master.cf")
    for number, block in enumerate(blocks(document, kind), 1)
}
MISSPELT = "a misspelt parameter"


@pytest.fixture(scope="module")
def postconf(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, str]]:
    """What postconf(1) prints and warns of for each block. All run at once, for each takes seconds to begin."""
    if POSTCONF is None:
        pytest.skip("postconf is not installed")
    running = {}
    for name, (kind, block) in {**POSTFIX_BLOCKS, MISSPELT: ("main.cf", "smtpd_miltres = x\n")}.items():
        directory = tmp_path_factory.mktemp("postfix")
        (directory / "main.cf").write_text(MAIN_CF)
        (directory / "master.cf").write_text("smtp inet n - y - - smtpd\n")
        with (directory / kind).open("a") as file:
            file.write(block)
        command = [POSTCONF, "-c", str(directory), "-n" if kind == "main.cf" else "-P"]
        running[name] = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    return {name: process.communicate(timeout=60) for name, process in running.items()}


@pytest.mark.parametrize("name", POSTFIX_BLOCKS)
def test_postfix_reads_the_lines(postconf: dict[str, tuple[str, str]], name: str) -> None:
    """postconf(1) warns of parameters that no program of Postfix knows, and of lines that are none."""
    output, warnings = postconf[name]
    assert warnings == ""
    lines = POSTFIX_BLOCKS[name][1].splitlines()
    written = [line.partition("=")[0].strip().removeprefix("-o ") for line in lines if "=" in line]
    assert written
    for parameter in written:
        assert re.search(rf"(^|/){parameter} =", output, re.MULTILINE), parameter


def test_postfix_would_warn(postconf: dict[str, tuple[str, str]]) -> None:
    assert "smtpd_miltres" in postconf[MISSPELT][1]


TOML_BLOCKS = [
    pytest.param(block, id=f"{document} {number}")
    for document in DOCUMENTS
    for number, block in enumerate(blocks(document, "toml"), 1)
]


@pytest.mark.parametrize("block", TOML_BLOCKS)
def test_the_configuration_in_the_documents_is_one(block: str) -> None:
    assert Config.model_validate(tomllib.loads(block)).listeners


def test_no_document_sends_anybody_to_another_project() -> None:
    """mailguard is somebody else's on PyPI, and mailguard-milter nobody's yet: it is installed from its directory."""
    extras = tomllib.loads(text_of("pyproject.toml"))["project"]["optional-dependencies"]
    named = set()
    for document in ["README.md", *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md")))]:
        text = text_of(document)
        assert not re.search(r"pip3? install (-\S+ )*['\"]?mailguard", text), document
        named |= {name for listed in re.findall(r"pip install '\.\[([\w,-]+)\]'", text) for name in listed.split(",")}
        # Debian's own pip installs nothing: PEP 668.
        assert not re.search(r"(?<!/opt/mailguard/bin/)pip install '\.", text), document
    assert named
    assert named <= set(extras)


def test_no_message_sends_anybody_to_another_project() -> None:
    """The same, for what the programs say: the name is looked for in this installation, by its own pip."""
    naming = [name for name, module in modules().items() if "mailguard-milter[" in module.path.read_text("utf-8")]
    assert naming == ["mailguard.errors"]
    command = f"{install_command('cli')} --no-index --no-build-isolation --dry-run"
    done = subprocess.run(["/bin/sh", "-c", command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "already satisfied: mailguard-milter[cli]" in done.stdout
