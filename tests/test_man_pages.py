"""The manual pages: man, groff and mandoc take each without a warning, and nothing is missing from them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest

import mailguard_milter.__main__ as daemon
from command_tree import commands
from generate_docs import configuration
from mailguard.cli.exit_code import ExitCode
from mailguard.config import Config
from roff import Page, from_markdown, plain
from source_tree import ROOT

GENERATOR = ROOT / "contrib" / "man_pages.py"
# Wide, so that no name is broken.
WIDE = {**os.environ, "MANWIDTH": "400", "LC_ALL": "C.UTF-8"}
# Of a paragraph: five columns since groff 1.24, seven before.
INDENT = "^ {5,7}"


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("man")
    command = [sys.executable, str(GENERATOR), str(made)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(done.stdout.split()) == sorted(str(page) for page in made.rglob("*.[158]"))
    return made


@pytest.fixture(scope="module")
def shown(directory: Path) -> dict[str, str]:
    """Each page as man shows it, by its name."""
    if shutil.which("man") is None:
        pytest.skip("man is not installed")
    texts = {}
    for page in directory.rglob("*.[158]"):
        command = ["man", "--warnings", "-l", str(page)]
        done = subprocess.run(command, env=WIDE, capture_output=True, text=True, check=True)
        assert done.stderr == "", page
        texts[page.name] = done.stdout
    return texts


@pytest.mark.parametrize(
    "check",
    [("groff", "-ww", "-man", "-z", "-Tutf8"), ("mandoc", "-T", "lint", "-W", "warning")],
    ids=["groff", "mandoc"],
)
def test_no_warning(directory: Path, check: tuple[str, ...]) -> None:
    if shutil.which(check[0]) is None:
        pytest.skip(f"{check[0]} is not installed")
    pages = sorted(directory.rglob("*.[158]"))
    assert len(pages) > 30
    done = subprocess.run([*check, *map(str, pages)], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("", "")


def test_each_command_and_option_is_there(shown: dict[str, str]) -> None:
    for path, command, ctx in commands():
        text = shown[f"{'-'.join(path)}.1"]
        assert re.search(rf"{INDENT}{' '.join(path)} ", text, re.MULTILINE)
        terms = [line.strip() for line in text.splitlines()]
        for parameter in command.get_params(ctx):
            if isinstance(parameter, click.Option):
                names = ", ".join(parameter.opts)
                assert [term for term in terms if re.match(rf"{names}( |$)", term)], (path, names)
        if isinstance(command, click.Group):
            for name in command.list_commands(ctx):
                assert re.search(rf"{INDENT}{'-'.join((*path, name))}\(1\)", text, re.MULTILINE)
        if len(path) > 1:
            assert f"{'-'.join(path[:-1])}(1)" in text.partition("SEE ALSO")[2]


def test_the_exit_codes_are_there(shown: dict[str, str]) -> None:
    for code in ExitCode:
        assert re.search(rf"^ +{int(code)} +{re.escape(code.meaning)}$", shown["mailguard.1"], re.MULTILINE)


def test_the_exit_codes_are_in_the_document() -> None:
    rows = re.findall(r"^\| (\d+) \| (.+) \|$", (ROOT / "docs" / "command-line.md").read_text("utf-8"), re.MULTILINE)
    assert rows == [(str(int(code)), code.meaning) for code in ExitCode]


def test_the_daemon_and_its_configuration(shown: dict[str, str]) -> None:
    for action in daemon.command_line()._actions:
        assert ", ".join(action.option_strings) in shown["mailguard-milter.8"]
    keys = set(re.findall(rf"{INDENT}(\w+) \((?!RFC)", shown["mailguard.toml.5"], re.MULTILINE))
    assert set(Config.model_fields) <= keys
    assert keys == set(re.findall(r"^\| `(\w+)` \|", configuration(), re.MULTILINE))
    assert "[dns]\n" in shown["mailguard.toml.5"]
    assert '[domains."example.com"]\n' in shown["mailguard.toml.5"]


def test_a_directory_that_cannot_be_written() -> None:
    command = [sys.executable, str(GENERATOR), "/proc/no"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("/proc/no")


def test_the_same_source_gives_the_same_page(directory: Path, tmp_path: Path) -> None:
    command = [sys.executable, str(GENERATOR), str(tmp_path)]
    subprocess.run(command, env={**os.environ, "SOURCE_DATE_EPOCH": "1700000000"}, capture_output=True, check=True)
    then = (tmp_path / "man1" / "mailguard.1").read_text("utf-8")
    now = (directory / "man1" / "mailguard.1").read_text("utf-8")
    assert then.splitlines()[0].split()[3] == "2023-11-14"
    assert then.splitlines()[1:] == now.splitlines()[1:]


HOSTILE = [
    ".TH x",
    "'br",
    "a\\fBb",
    "--zone",
    "it's `so`",
    "a~b^c",
    '"quoted"',
    "caf\N{LATIN SMALL LETTER E WITH ACUTE}",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_text_stays_as_it_is(tmp_path: Path, text: str) -> None:
    if shutil.which("man") is None:
        pytest.skip("man is not installed")
    page = Page("x", 1, "x", version="1", date="2026-01-01")
    page.heading("FIRST")
    page.paragraph(plain(text))
    page.item(plain(text), plain(text))
    page.lines([plain(text)])
    (tmp_path / "x.1").write_text(page.text())
    command = ["man", "--warnings", "-l", str(tmp_path / "x.1")]
    done = subprocess.run(command, env=WIDE, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert done.stdout.count(text) == 4


def test_mark_up_of_the_documents() -> None:
    assert from_markdown("`a-b`, **c** and [d](e.md)") == r"\fBa\-b\fP, \fBc\fP and d"
    assert from_markdown("[d](https://e.test)") == "d <https://e.test>"
