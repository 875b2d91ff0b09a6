"""What the results say of the machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from machine import describe


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
