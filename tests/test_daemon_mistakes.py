"""`mailguard-milter`, called as it should not be: a clear message, no traceback, the right exit code."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from command_host import Case, CommandHost
from command_place import NOBODY, host, model, place
from mailguard.cli.exit_code import ExitCode

__all__ = ["host", "model", "place"]

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="a network and users of its own need root")

DAEMON_MISTAKES = [
    (["--no-such-option"], "--no-such-option"),
    (["-c"], "expected one argument"),
    (["--config", "no-such-file"], "no-such-file"),
    (["-c", "keys"], "keys"),
    (["-c", "binary"], "binary"),
    (["-c", "zone"], "zone"),
]


@pytest.mark.parametrize("check", [[], ["--check-config"]], ids=["start", "check"])
@pytest.mark.parametrize(("words", "said"), DAEMON_MISTAKES, ids=[row[0][-1] for row in DAEMON_MISTAKES])
def test_the_daemon(host: CommandHost, place: Path, words: list[str], said: str, check: list[str]) -> None:
    (place / "binary").write_bytes(bytes(range(256)))
    done = host.run(Case(program="mailguard-milter", arguments=[*check, *words], directory=str(place)))
    assert "Traceback" not in done.err
    assert done.code in (ExitCode.USAGE, ExitCode.CONFIGURATION)
    assert (done.out, said in done.err) == ("", True), done.err


@pytest.mark.parametrize("check", [[], ["--check-config"]], ids=["start", "check"])
def test_the_daemon_and_a_configuration_that_it_may_not_read(
    host: CommandHost, place: Path, check: list[str]
) -> None:
    (place / "mailguard.toml").chmod(0o600)
    words = [*check, "-c", "mailguard.toml"]
    done = host.run(Case(program="mailguard-milter", arguments=words, directory=str(place), user=NOBODY))
    assert "Traceback" not in done.err
    assert done.code == ExitCode.CONFIGURATION
    assert "mailguard.toml" in done.err
    assert "Permission denied" in done.err
