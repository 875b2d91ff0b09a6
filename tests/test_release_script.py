"""contrib/test-release.sh: what it says to who has forgotten something. With a release it takes minutes."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from daemon_process import account

SCRIPT = Path(__file__).parent.parent / "contrib/test-release.sh"


def refused(*words: str, by: Mapping[str, Any] | None = None) -> str:
    done = subprocess.run(["/bin/sh", SCRIPT, *words], capture_output=True, check=False, **(by or {}))
    assert (done.returncode, done.stdout) == (1, b"")
    return bytes(done.stderr).decode()


@pytest.mark.parametrize("words", [(), ("",), ("--help",), ("-k", "trixie")])
def test_it_needs_a_release(words: tuple[str, ...]) -> None:
    assert refused(*words) == (
        "mailguard test-release: which release? For example: sh contrib/test-release.sh trixie\n"
    )


def test_it_needs_root() -> None:
    assert refused("trixie", by=account()).endswith("needs root; run this as root\n")


@pytest.mark.skipif(os.geteuid() != 0, reason="another refusal comes first")
def test_it_needs_a_release_that_debootstrap_knows() -> None:
    said = refused("trixi")
    assert "apt install debootstrap" in said or 'knows no release "trixi"' in said
