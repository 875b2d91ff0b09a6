"""What the results say of the machine."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from machine import busy_with, describe

RUN = Path(__file__).resolve().parent.parent / "benchmarks" / "run.sh"


def program(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


# Packages


@pytest.mark.parametrize("name", ["libssl3", "libssl3t64"], ids=["Debian 12", "Debian 13"])
def test_version_of_a_library_that_has_two_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    program(tmp_path / "dpkg-query", f'[ "$4" = {name} ] && printf 3.5.1')
    monkeypatch.setenv("PATH", str(tmp_path))
    found = describe(["opendkim"])
    assert (found["libssl3 (Debian)"], found["opendkim (Debian)"]) == ("3.5.1", "not installed")


# Its load


@pytest.mark.parametrize(("load", "busy"), [("0.10", False), ("0.80", True), (None, True)])
def test_load_is_that_before_the_set_up(monkeypatch: pytest.MonkeyPatch, load: str | None, *, busy: bool) -> None:
    monkeypatch.setattr(os, "getloadavg", lambda: (0.95, 0.9, 0.5))
    monkeypatch.delenv("MAILGUARD_BENCHMARK_LOAD", raising=False)
    if load is not None:
        monkeypatch.setenv("MAILGUARD_BENCHMARK_LOAD", load)
    assert describe([])["load before"] == (load or "0.95")
    assert bool(busy_with()) == busy


@pytest.mark.skipif(os.geteuid() != 0 or not Path("/usr/bin/apt-get").exists(), reason="needs root on Debian")
def test_load_is_read_before_anything_is_installed(tmp_path: Path) -> None:
    """With a set-up and a comparison that only say what they find."""
    (tmp_path / "benchmarks").mkdir()
    script = shutil.copy(RUN, tmp_path / "benchmarks")
    program(tmp_path / "contrib" / "setup.sh", 'echo "set-up ${MAILGUARD_BENCHMARK_LOAD:+has it}"')
    done = subprocess.run(["sh", script], capture_output=True, text=True, check=False)
    assert "set-up has it\n" in done.stdout
