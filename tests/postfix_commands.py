"""Postfix's commands without the machine's main.cf, which a test neither needs nor sees: there may be none."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

__all__ = ["postfix_config", "without_the_machines", "write_main_cf"]


@pytest.fixture(scope="session", autouse=True)
def without_the_machines() -> Iterator[None]:
    """What names no directory with -c fails, as it does where Postfix was installed without configuration."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MAIL_CONFIG", "/nonexistent/postfix")
        yield


@pytest.fixture
def postfix_config(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with a main.cf, which is that of Postfix's commands for the time of a test."""
    directory = write_main_cf(tmp_path_factory.mktemp("postfix"))
    monkeypatch.setenv("MAIL_CONFIG", str(directory))
    return directory


def write_main_cf(directory: Path) -> Path:
    """The least that Postfix's commands want, in a directory, which is returned."""
    file = directory / "main.cf"
    file.write_text("compatibility_level = 3.7\nmyhostname = mail.us.test\n")
    # Postfix waits until a file that has just been written is two seconds old.
    os.utime(file, (0, 0))
    return directory
