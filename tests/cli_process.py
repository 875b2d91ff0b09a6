"""The command line for tests: run in this process, with keys and a zone of its own."""

from __future__ import annotations

import io
import os
import pty
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mailguard.cli.group import run

MAIL = b"From: a@example.com\nTo: b@example.net\nSubject: hello\n\nGood day\n"
PYTHON = [sys.executable, "-m", "mailguard"]
NOW = "1700000000"


class Result:
    """What a command did, run in this process."""

    def __init__(self, code: int, out: bytes, err: str) -> None:
        self.code, self.raw, self.out, self.err = code, out, out.decode("utf-8"), err


Command = Callable[..., Result]


@pytest.fixture
def mailguard_command(
    monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes], tmp_path: Path
) -> Command:
    """Runs `mailguard ARGUMENTS` in tmp_path, without a process of its own."""
    monkeypatch.chdir(tmp_path)

    def command(*arguments: str | Path, stdin: bytes = b"") -> Result:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        capfdbinary.readouterr()
        code = run([str(argument) for argument in arguments])
        captured = capfdbinary.readouterr()
        return Result(code, captured.out, captured.err.decode("utf-8"))

    return command


def is_told_in_one_line(done: Result, code: int, said: str) -> None:
    """What a user did wrong, or what could not be done: a plain line on standard error, and nothing else."""
    assert (done.code, done.out) == (code, ""), done.err
    assert done.err.startswith("mailguard: ")
    assert done.err.count("\n") == 1
    assert said in done.err


def findings_of(tree: dict[str, Any], *marks: str) -> list[str]:
    """The findings with these marks: the card, what was found, what to do."""
    return [
        f"{card['title']} | {each['detail']} | {each['what_to_do']}"
        for card in tree["children"]
        for each in card["children"]
        if each["title"] in marks
    ]


def on_a_terminal(arguments: list[str], environment: dict[str, str]) -> str:
    """What `mailguard ARGUMENTS` writes to a terminal, in a process of its own."""
    master, slave = pty.openpty()
    process = subprocess.Popen([*PYTHON, *arguments], stdout=slave, stdin=subprocess.DEVNULL, env=environment)
    os.close(slave)
    shown = b""
    while True:
        try:
            octets = os.read(master, 4096)
        except OSError:  # Linux says EIO when the last writer is gone
            break
        if not octets:
            break
        shown += octets
    os.close(master)
    process.wait()
    return shown.decode("utf-8")


class Keys:
    """A domain with two keys in files, its zone, and a message signed with both, in `directory`."""

    def __init__(self, directory: Path) -> None:
        self.zone = directory / "zone"
        self.rsa, self.ed25519 = (directory / "keys" / "example.com" / f"{name}.pem" for name in ("r1", "e1"))
        self.message = directory / "signed.eml"
        rsa = ("--selector", "r1", "--key", str(self.rsa))
        self.options = ("--domain", "example.com", *rsa, "--selector", "e1", "--key", str(self.ed25519))

    @property
    def text(self) -> str:
        """What `key new` printed."""
        return self.zone.read_text(encoding="utf-8")

    @property
    def signed(self) -> bytes:
        return self.message.read_bytes()


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with what Keys describes, made by the command itself."""
    directory = tmp_path_factory.mktemp("prepared")
    selectors = ("--selector", "r1", "--selector", "e1", "--directory", "keys")
    made = subprocess.run(
        [*PYTHON, "key", "new", "Example.COM", *selectors], cwd=directory, capture_output=True, check=True
    )
    keys = Keys(directory)
    keys.zone.write_bytes(made.stdout)
    done = subprocess.run([*PYTHON, "sign", *keys.options, "--now", NOW], input=MAIL, capture_output=True, check=True)
    keys.message.write_bytes(done.stdout)
    return directory


@pytest.fixture
def keys(prepared: Path, tmp_path: Path) -> Keys:
    shutil.copytree(prepared, tmp_path, dirs_exist_ok=True)
    return Keys(tmp_path)
