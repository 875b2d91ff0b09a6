"""`mailguard key rotate` and what is around it: mistakes, the list, other commands and the timer."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from cli_process import Command
from mailguard.cli.rotate import rotate
from mailguard.cli.rotation_turn import WAITING
from mailguard.rotation.state import Stage
from rotation_site import DAY_S, HOUR_S, RotationSite, rotation_site, said, servers

__all__ = ["rotation_site", "servers"]

CHECK_CONFIG = (sys.executable, "-m", "mailguard_milter", "--check-config", "-c")

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: port 53")


def test_a_dry_run_changes_nothing(rotation_site: RotationSite) -> None:
    site = rotation_site
    dry = site.rotate("--dry-run")
    assert (dry.code, "keys of these names would be made" in said(dry.out)) == (2, True)
    assert not site.state.parent.exists()
    site.rotate()
    site.publish()
    site.configure()
    site.tell()
    before = site.state.read_bytes()
    dry = site.rotate("--dry-run")
    assert "(published): every server has its records" in said(dry.out)
    assert site.state.read_bytes() == before


def test_of_many_domains_it_is_said_how_many_want_what(rotation_site: RotationSite) -> None:
    site = rotation_site
    site.rotate()
    gone = "".join(f'[domains."d{each}.test"]\nrotation = "{site.directory}/d{each}.json"\n' for each in range(11))
    site.configure(f'{gone}[domains."us.test"]\nrotation = "{site.state}"\n')
    site.publish()
    done = site.rotate("--all", domain="")
    assert (done.code, site.stages()) == (78, ["published"])
    assert done.err.endswith("mailguard: 12 domains: 11 not looked at, 1 in order\n")


def test_a_whole_host_at_once(rotation_site: RotationSite, mailguard_command: Command) -> None:
    site = rotation_site
    assert site.rotate("--all", domain="").code == 0, "nothing to do"
    site.rotate()
    rule = f'[domains."us.test"]\nrotation = "{site.state}"\n'
    site.configure(f'[domains."lost.test"]\nrotation = "{site.directory}/lost.json"\n{rule}')
    site.publish()
    done = site.rotate("--all", domain="")
    assert (done.code, site.stages()) == (78, ["published"])
    assert "lost.test: " in done.err
    for verb in (("dns", "us.test", "--mx", "a.us.test"), ("check", "us.test", "--no-fetch")):
        assert "lost.json" not in mailguard_command(*verb, "-c", site.config).err
    listed = mailguard_command("key", "list", "-c", site.config)
    assert (listed.code, listed.out.count("published"), "lost.json" in listed.err) == (78, 2, True)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ((), 64, "give DOMAIN or --all"),
        (("--all", "us.test"), 64, "give DOMAIN or --all"),
        (("--all", "--new"), 64, "are for one DOMAIN"),
        (("us.test", "--new", "--discard"), 64, "one at most"),
        (("us.test", "--adopt"), 78, "names no keys of us.test"),
        (("us.test", "--owner", "no-such-user"), 78, "there is no user no-such-user"),
        (("us.test", "--state", "/proc/x/y"), 78, "/proc/x is not there"),
        (("us.test", "--state", "/proc/self/x"), 78, "/proc/self is a symbolic link"),
        (("us.test", "--state", "/tmp"), 78, "/tmp: others can write to it"),
        (("us.test", "--directory", "/proc/x"), 78, "/proc/x"),
        (("us.test", "-c", "/no/such.toml"), 78, "/no/such.toml"),
        (("a b",), 64, "not a domain name"),
    ],
)
def test_mistakes(
    rotation_site: RotationSite, mailguard_command: Command, arguments: tuple[str, ...], code: int, words: str
) -> None:
    given = {"-c": rotation_site.config, "--state": rotation_site.state.parent}
    options = [str(each) for name, value in given.items() if name not in arguments for each in (name, value)]
    done = mailguard_command("key", "rotate", *arguments, *options)
    assert (done.code, words in done.err) == (code, True), done.err


def test_the_dns_is_out_of_reach(rotation_site: RotationSite) -> None:
    site = rotation_site
    site.started()
    for server in site.servers:
        server.stop()
    try:
        out = site.rotate("--new", seconds=200 * DAY_S)
        assert (out.code, site.stages()) == (75, ["signing"])
    finally:
        for server in site.servers:
            server.start()


def test_a_state_that_was_begun_anew_stops_nobody(rotation_site: RotationSite) -> None:
    site = rotation_site
    site.started()
    old = json.loads((site.runtime / "keys.json").read_text())
    site.state.unlink()
    begun = site.rotate("--begin")
    assert (begun.code, site.stages()) == (2, ["created"])
    assert json.loads((site.runtime / "keys.json").read_text()) == old, "nobody had it reloaded"
    site.publish()
    site.rotate()
    assert (site.rotate(seconds=HOUR_S).code, site.stages()) == (0, ["signing"])
    assert json.loads((site.runtime / "keys.json").read_text()) != old


def test_the_other_commands_take_such_a_domain(rotation_site: RotationSite, mailguard_command: Command) -> None:
    site = rotation_site
    site.started()
    checked = subprocess.run([*CHECK_CONFIG, site.config], capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stdout.count("signs us.test with selector mg202701")) == (0, 2)
    assert mailguard_command("key", "test", "-c", site.config).code == 0
    card = mailguard_command("check", "us.test", "--no-fetch", "-c", site.config).out
    assert all(f"{selector}: " in card for selector in site.selectors(0))
    keys = mailguard_command("doctor", "-c", site.config, "--config-directory", site.directory).out
    assert "nobody can sign with each" in keys


def test_the_timer_runs_this_command() -> None:
    contrib = Path(__file__).parents[1] / "contrib"
    service = (contrib / "mailguard-key-rotate.service").read_text()
    assert "ExecStart=/opt/mailguard/bin/mailguard key rotate --all -c /etc/mailguard/mailguard.toml" in service
    assert f"SuccessExitStatus={WAITING:d}" in service
    text = (contrib.parent / "docs" / "keys.md").read_text()
    assert all(f"| `{stage.value}` |" in text for stage in Stage)
    options = {option for each in rotate.params for option in each.opts if option.startswith("--")}
    # Of `dns`, and of `key new`.
    named = set(re.findall(r"--[a-z][a-z-]*", text)) - {"--diff", "--selector"}
    assert named <= options


def test_the_list(rotation_site: RotationSite, mailguard_command: Command) -> None:
    site = rotation_site
    site.started()
    rows = json.loads(mailguard_command("key", "list", "-c", site.config, "--json").out)
    assert {(row["next"], row["when"]) for row in rows} == {("the next keys are made", "2027-07-14T09:00+00:00")}
    site.rotate("--new")
    rows = json.loads(mailguard_command("key", "list", "-c", site.config, "--json").out)
    assert [(row["algorithm"], row["stage"]) for row in rows] == [
        (algorithm, stage) for stage in ("signing", "created") for algorithm in ("rsa", "ed25519")
    ]
    assert [row["next"] for row in rows[::2]] == [
        "the keys that come take its place",
        "publish its records on every server",
    ]
    assert rows[0]["when"] is None
    table = mailguard_command("key", "list", "-c", site.config).out.splitlines()
    assert table[0].split() == ["domain", "selector", "algorithm", "stage", "since", "next", "when", "file"]
    assert len(table) == 5


def test_the_records_of_all_that_come_and_go_are_to_be_published(
    rotation_site: RotationSite, mailguard_command: Command
) -> None:
    site = rotation_site

    def listed() -> set[str]:
        found = mailguard_command("dns", "us.test", "--mx", "mx.us.test", "-c", site.config, "--json").out
        names = [each["name"] for each in json.loads(found)["records"]]
        return {name.partition(".")[0] for name in names if "._domainkey." in name}

    site.started()
    old = site.selectors(0)
    assert listed() == old
    site.rotate("--new")
    both = old | site.selectors(1)
    assert listed() == both
    site.publish()
    site.rotate()
    # The file of a key that has retired may be gone.
    site.rotate(seconds=HOUR_S)
    assert site.stages() == ["retired", "signing"]
    for selector in old:
        (site.keys / f"{selector}.pem").unlink()
    assert listed() == both
    assert site.rotate().code == 0
    site.rotate(seconds=9 * DAY_S)
    assert site.stages() == ["removable", "signing"]
    assert listed() == both - old
    assert mailguard_command("key", "test", "-c", site.config).code == 0


def test_two_hosts_that_sign_for_a_domain_take_turns_of_their_own(
    rotation_site: RotationSite, mailguard_command: Command
) -> None:
    one = rotation_site
    elsewhere = one.directory / "other"
    elsewhere.mkdir()
    other = RotationSite(mailguard_command, elsewhere, one.servers)
    for site in (one, other):
        assert site.rotate().code == 2
        site.configure()
        site.tell()
    assert one.selectors(0) == other.selectors(0), "nothing was published yet"
    one.publish()
    assert (one.rotate().code, one.stages()) == (0, ["published"])
    clash = other.rotate(seconds=DAY_S)
    assert (clash.code, other.stages()) == (2, ["created"])
    assert "has another key" in said(clash.out)
    other.rotate("--discard")
    other.records.clear()
    assert other.rotate().code == 2
    assert not one.selectors(0) & other.selectors(0)
    other.records.update(one.records)
    other.publish()
    for site in (one, other):
        site.rotate()
        assert (site.rotate(seconds=DAY_S).code, site.stages()) == (0, ["signing"])
