"""A domain whose keys take turns: its configuration, its two name servers (nsd), and what the daemon tells.

Needs root, for port 53. The directories are such that the daemon's user, nobody, passes.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from cli_process import Command, Result
from nsd_site import Nsd

__all__ = [
    "DAY_S",
    "FIRST",
    "HEAD",
    "HOUR_S",
    "NOW",
    "SECOND",
    "RotationSite",
    "rotation_site",
    "said",
    "servers",
    "txt",
]

# Everybody asks port 53, so that files that run at the same time need addresses of their own.
_WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
FIRST, SECOND = f"127.0.{8 + _WORKER}.1", f"127.0.{8 + _WORKER}.2"
NOW = 1_800_000_000
HOUR_S, DAY_S = 3_600, 86_400
USER = "nobody"
HEAD = f"""\
$TTL 60
@ IN SOA ns1.us.test. h.us.test. 1 60 60 60 60
@ IN NS ns1.us.test.
@ IN NS ns2.us.test.
ns1 IN A {FIRST}
ns2 IN A {SECOND}
"""


def txt(name: str, value: str) -> str:
    """A line of a zone file."""
    return f"{name}. IN TXT " + " ".join(f'"{value[at : at + 250]}"' for at in range(0, len(value), 250))


class RotationSite:
    """One domain, us.test."""

    def __init__(self, command: Command, directory: Path, servers: tuple[Nsd, Nsd]) -> None:
        self._command = command
        self.servers = servers
        self.directory = directory
        self.runtime = directory / "run"
        self.config = directory / "mailguard.toml"
        self.state = directory / "rotation" / "us.test.json"
        self.keys = directory / "keys" / "us.test"
        self.reload = f"{sys.executable} {Path(__file__).with_name('told_keys.py')} {self.config}"
        self.records: dict[str, str] = {}
        """What was asked to be published."""
        self.now = float(NOW)
        self.runtime.mkdir()
        shutil.chown(self.runtime, USER)
        self.configure("")
        self.publish()

    def configure(self, domain_rule: str | None = None, *, more: str = "") -> None:
        """None: the rule that names the rotation."""
        rule = f'[domains."us.test"]\nrotation = "{self.state}"\n' if domain_rule is None else domain_rule
        self.config.write_text(
            f'authserv_id = "mx.us.test"\nuser = "{USER}"\nruntime_directory = "{self.runtime}"\n{more}'
            f'[[listeners]]\naddress = "unix:{self.runtime}/m.sock"\nworkers = 1\n'
            f'[log]\ndestination = "stderr"\n[dns]\nnameservers = ["{FIRST}"]\n{rule}'
        )
        self.config.chmod(0o644)

    def tell(self) -> None:
        """Have it told what the daemon would tell after a reload."""
        subprocess.run(shlex.split(self.reload), check=True)

    def rotate(
        self,
        *arguments: str,
        seconds: float = 0,
        reload: str | None = None,
        wait: str = "",
        domain: str = "us.test",
    ) -> Result:
        """One run, `seconds` after the one before."""
        self.now += seconds
        found = self._command(
            "key", "rotate", *([domain] if domain else []), "-c", self.config,
            "--directory", self.keys.parent, "--state", self.state.parent, "--now", str(int(self.now)),
            "--reload", self.reload if reload is None else reload,
            "--wait", wait or ("20" if reload is None else "1"), "--json", *arguments,
        )  # fmt: skip
        if found.out:
            outcome = json.loads(found.out)
            for each in outcome if isinstance(outcome, list) else [outcome] if outcome else []:
                self.records.update((record["name"], record["value"]) for record in each["publish"])
        return found

    def publish(self, *, lagging: bool = False) -> None:
        """Put all that was asked for on both servers, or on the first alone."""
        lines = "\n".join(txt(name, value) for name, value in self.records.items())
        for server in self.servers[: 1 if lagging else 2]:
            server.serve({"us.test": f"{HEAD}{lines}\n"})

    def forget(self, selectors: set[str]) -> None:
        """Take their records out of what is published."""
        self.records = {
            name: value for name, value in self.records.items() if name.partition(".")[0] not in selectors
        }

    def started(self) -> None:
        """The first keys sign."""
        self.rotate()
        self.configure()
        self.tell()
        self.publish()
        self.rotate()
        assert (self.rotate(seconds=HOUR_S).code, self.stages()) == (0, ["signing"])

    def kept(self) -> dict[str, Any]:
        """The state, as it is in the file."""
        found: dict[str, Any] = json.loads(self.state.read_text())
        return found

    def stages(self) -> list[str]:
        return [each["stage"] for each in self.kept()["generations"]]

    def selectors(self, at: int) -> set[str]:
        """Those of a generation."""
        return {key["selector"] for key in self.kept()["generations"][at]["keys"]}


class Kept(Nsd):
    """Begins again only for other zones."""

    def serve(self, zones: Mapping[str, str]) -> None:
        if zones != self._zones:
            super().serve(zones)


@pytest.fixture(scope="module")
def servers() -> Iterator[tuple[Nsd, Nsd]]:
    with Kept(FIRST, {"us.test": HEAD}) as first, Kept(SECOND, {"us.test": HEAD}) as second:
        yield first, second


@pytest.fixture
def rotation_site(mailguard_command: Command, servers: tuple[Nsd, Nsd]) -> Iterator[RotationSite]:
    directory = Path(tempfile.mkdtemp(prefix="mg-"))
    directory.chmod(0o755)  # the daemon's user must be able to pass
    yield RotationSite(mailguard_command, directory, servers)
    shutil.rmtree(directory)


def said(out: str) -> str:
    return "\n".join(json.loads(out)["said"])
