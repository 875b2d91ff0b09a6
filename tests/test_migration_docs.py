"""docs/migrating.md: its example is what comes out, and each of its commands is run, or is one of the host's."""

from __future__ import annotations

import os
import re
import tomllib
from pathlib import Path

import pytest
from pydantic import BaseModel

from cli_process import Command
from mailguard.config import Config
from mailguard.migration.importing import PROGRAMS
from mailguard_milter.check_config import main as check_config
from migration_site import Site, public_migration_site
from source_tree import ROOT

__all__ = ["public_migration_site"]

TEXT = (ROOT / "docs" / "migrating.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^ {4,7}((?:mailguard|systemctl|postfix)\S* .+)$", TEXT, re.MULTILINE)
# What is done to a host, and shown by tests of the daemon behind Postfix.
ON_THE_HOST = {
    "mailguard postconf --apply",
    "systemctl enable --now mailguard-milter",
    "postfix reload",
    "systemctl disable --now opendkim opendmarc",
    "systemctl reload mailguard-milter",
}
DIRECTORIES = ("/etc/mailguard", "/etc/dkimkeys", "/etc/opendkim/", "/var/log")


def block(name: str) -> str:
    (found,) = re.findall(rf"^```{name}\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
    return str(found)


@pytest.fixture
def host(public_migration_site: Site) -> Site:
    """Its directories below another, with the files of the document's example."""
    place = str(public_migration_site.directory)

    def moved(text: str) -> str:
        for directory in DIRECTORIES:
            text = text.replace(directory, place + directory)
        return text

    for program, file in {"opendkim": "opendkim.conf", "opendmarc": "opendmarc.conf"}.items():
        public_migration_site.write(f"etc/{file}", moved(block("opendkim.conf")) if program == "opendkim" else "")
    public_migration_site.write("etc/opendkim/KeyTable", moved(block("KeyTable")))
    public_migration_site.write("etc/opendkim/SigningTable", moved(block("SigningTable")))
    public_migration_site.write("etc/postfix-policyd-spf-python/policyd-spf.conf", "TestOnly = 1\n")
    public_migration_site.write("etc/dkimpy-milter/dkimpy-milter.conf", "Mode v\n")
    public_migration_site.key("etc/dkimkeys/example.com.private")
    public_migration_site.write("var/log/mail.log", "")
    public_migration_site.write("zone", "$ORIGIN example.com.\n$TTL 60\n@ IN SOA ns root 1 1 1 1 1\n")
    (public_migration_site.directory / "etc/mailguard").mkdir()
    return public_migration_site


def in_place(command: str, host: Site) -> list[str]:
    """The words of a command with every path below the host, and each program's file named."""
    words = []
    for word in command.split()[1:]:
        name, equals, file = word.partition("=")
        if name in PROGRAMS:
            words.append(f"{name}={host.directory}{file if equals else PROGRAMS[name].file}")
        else:
            words.append(f"{host.directory}{word}" if word.startswith("/") else word)
    return words


def test_each_command_is_run_or_listed(mailguard_command: Command, host: Site) -> None:
    toml = host.directory / "etc/mailguard/mailguard.toml"
    owner = ["--owner", "nobody"] if os.geteuid() == 0 else []
    seen = set()
    for command in COMMANDS:
        seen.add(command)
        if command in ON_THE_HOST:
            continue
        words = in_place(command, host)
        if words[0] == "import":
            done = mailguard_command(*words, *(owner if "--copy-keys" in words else []))
            assert done.code in (0, 1), done.err
        elif command == "mailguard-milter --check-config":
            toml.chmod(0o644)
            keys = host.directory / "etc/mailguard/keys"
            keys.chmod(keys.stat().st_mode | 0o055)
            assert check_in_child(toml) == 0
        elif command == "mailguard key test":
            done = mailguard_command("key", "test", "-c", toml, "--zone", host.directory / "zone")
            assert (done.code, "no record is published" in done.out) == (1, True), done.out + done.err
        elif words[0] == "enforce":
            assert mailguard_command(*words).code in (0, 1)
        else:
            pytest.fail(f"nobody tries {command}")
    assert seen >= ON_THE_HOST
    assert len(seen) >= 10
    assert toml.exists()


def check_in_child(path: Path) -> int:
    """In a process of its own, which becomes the daemon's user."""
    child = os.fork()
    if child == 0:
        os._exit(check_config([str(path)]))
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_the_example_is_what_comes_out(mailguard_command: Command, host: Site) -> None:
    keys = f"{host.directory}/etc/mailguard/keys"
    owner = ["--owner", "nobody"] if os.geteuid() == 0 else []
    done = mailguard_command(
        "import", f"opendkim={host.directory}/etc/opendkim.conf", "--copy-keys", keys, *owner, "--postconf=false"
    )
    found = done.out.partition("\n\n")[2].replace(str(host.directory), "").replace('user = "nobody"\n', "")
    assert found == block("toml")


def test_the_named_options_are_options() -> None:
    table = TEXT.partition("## What comes over")[2].partition("So this of")[0]
    keys = set(re.findall(r"`\[*([a-z_]+)(?:\.([a-z_]+))?", table))
    for section, name in keys - {("networks", ""), ("ptr", ""), ("spf", ""), ("role", "")}:
        assert section in Config.model_fields
        inner = Config.model_fields[section].annotation
        if name and isinstance(inner, type) and issubclass(inner, BaseModel):
            assert name in inner.model_fields, (section, name)


def test_the_example_loads() -> None:
    assert tomllib.loads(block("toml"))["mode"] == "monitor"
