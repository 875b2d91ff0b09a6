"""`mailguard check`: its output, mistakes, and waiting. What the card says is in test_scorecard.py."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from cli_process import Command


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ('@ MX 0 .\n@ TXT "v=spf1 -all"\n_dmarc TXT "v=DMARC1; p=reject; rua=mailto:d@us.test"\n', 0),
        ("@ MX 0 .\n", 1),
    ],
)
def test_the_command(mailguard_command: Command, tmp_path: Path, text: str, code: int) -> None:
    zone = tmp_path / "zone"
    zone.write_text(f"$ORIGIN us.test.\n{text}")
    done = mailguard_command("check", "us.test", "--zone", zone)
    assert done.code == code, done.out
    assert done.out.startswith("mail of us.test: ")
    as_json = json.loads(mailguard_command("check", "us.test", "--zone", zone, "--json").out)
    assert [each["title"] for each in as_json["children"]][:2] == ["MX", "SPF"]


def test_a_zone_file_tells_nothing_of_dane(mailguard_command: Command, tmp_path: Path) -> None:
    """Nobody validates it, and so nobody is told to sign it."""
    zone = tmp_path / "zone"
    zone.write_text("$ORIGIN us.test.\n@ MX 10 mx\nmx A 192.0.2.1\n")
    done = mailguard_command("check", "us.test", "--zone", zone)
    assert "mx.us.test: whether it has DANE cannot be told" in done.out
    assert "sign the zone" not in done.out


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["us test"], 64, "is not a domain name"),
        (["us.test", "--selector", "a b"], 64, "is not a selector"),
        (["us.test", "--selector", "s1._domainkey.us.test"], 64, 'write "s1"'),
        (["us.test", "--zone", "/no/such"], 78, "/no/such"),
        (["us.test", "-c", "/no/such"], 78, "/no/such"),
    ],
)
def test_mistakes(mailguard_command: Command, arguments: list[str], code: int, text: str) -> None:
    done = mailguard_command("check", *arguments)
    assert (done.code, done.out) == (code, "")
    assert text in done.err
    assert "Traceback" not in done.err


@pytest.mark.parametrize("is_silent", [True, False])
def test_what_takes_long_says_so_on_a_terminal(tmp_path: Path, is_silent: bool) -> None:
    """A DNS that is silent is waited for; a zone file is not."""
    config, zone = tmp_path / "mailguard.toml", tmp_path / "zone"
    zone.write_text('$ORIGIN us.test.\n@ TXT "v=spf1 -all"\n')
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        port = silent.getsockname()[1]
        config.write_text(f'authserv_id = "mx.us.test"\n[dns]\nnameservers = ["127.0.0.1"]\nport = {port}\n')
        more = [] if is_silent else ["--zone", str(zone)]
        master, slave = pty.openpty()
        # However long the process is held up, a file is read in less.
        patience = "" if is_silent else "waiting.SILENT_S = 60.0; "
        program = f"from mailguard.cli import main, waiting; {patience}main()"
        command = [sys.executable, "-c", program, "check", "us.test", "--no-fetch", "-c", str(config), *more]
        environment = {**os.environ, "TERM": "xterm"}
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=slave, env=environment) as process:
            os.close(slave)
            shown = b""
            with contextlib.suppress(OSError):  # Linux says EIO when the last writer is gone
                while b"asking the DNS about us.test" not in shown and (octets := os.read(master, 4096)):
                    shown += octets
            process.kill()
        os.close(master)
    assert (b"asking the DNS about us.test" in shown) is is_silent, shown
