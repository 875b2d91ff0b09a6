"""Fixtures: where the commands of command_rows.py run, and the process that runs them."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from command_host import CommandHost
from command_rows import make_place

__all__ = ["NOBODY", "host", "model", "place"]

NOBODY = 65_534


@pytest.fixture(scope="module")
def host() -> Iterator[CommandHost]:
    with CommandHost() as started:
        yield started


@pytest.fixture(scope="module")
def model() -> Iterator[Path]:
    """The place, in a directory that other users can enter."""
    with tempfile.TemporaryDirectory(prefix="mailguard-place-") as name:
        place = Path(name)
        place.chmod(0o755)
        make_place(place)
        yield place


@pytest.fixture
def place(model: Path) -> Iterator[Path]:
    """A copy of it, to be spoilt."""
    with tempfile.TemporaryDirectory(prefix="mailguard-place-") as name:
        copy = Path(name)
        shutil.copytree(model, copy, dirs_exist_ok=True)
        copy.chmod(0o755)
        for file in (
            copy / "mailguard.toml",
            copy / "online.toml",
            copy / "postfix" / "main.cf",
            copy / "opendkim.conf",
        ):
            file.write_text(file.read_text("utf-8").replace(str(model), name), "utf-8")
        yield copy
