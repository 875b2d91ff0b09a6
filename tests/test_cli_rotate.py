"""`mailguard key rotate` with two real name servers: what each stage waits for, and what holds it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import dns.resolver
import pytest

from cli_process import PYTHON, Command
from mailguard.cli.rotation_daemon import SigningDaemon
from rotation_site import DAY_S, FIRST, HEAD, HOUR_S, SECOND, RotationSite, rotation_site, said, servers, txt

__all__ = ["rotation_site", "servers"]


pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: port 53")


@pytest.mark.attack("V09")
def test_a_server_that_lags_holds_the_switch(rotation_site: RotationSite) -> None:
    site = rotation_site
    first = site.rotate()
    assert (first.code, site.stages(), len(site.records)) == (2, ["created"], 2)
    assert f'rotation = "{site.state}"' in said(first.out)
    site.configure()
    site.tell()
    site.publish(lagging=True)
    lagging = site.rotate(seconds=DAY_S)
    assert (lagging.code, site.stages()) == (2, ["created"])
    assert f"ns2.us.test ({SECOND}) has nothing at " in said(lagging.out)
    site.publish()
    assert (site.rotate().code, site.stages()) == (0, ["published"])
    # It had them, and has lost them: the time begins again.
    site.servers[1].serve({"us.test": HEAD})
    assert (site.rotate(seconds=HOUR_S).code, site.stages()) == (2, ["created"])
    site.publish()
    assert (site.rotate(seconds=DAY_S).code, site.stages()) == (0, ["published"])
    site.servers[1].stop()
    silent = site.rotate(seconds=HOUR_S)
    assert (silent.code, site.stages()) == (75, ["created"])
    site.servers[1].start()
    site.rotate()
    assert (site.rotate(seconds=HOUR_S - 1).code, site.stages()) == (0, ["published"])
    assert (site.rotate(seconds=1).code, site.stages()) == (0, ["signing"])


def test_the_zone_may_ask_for_more_patience(rotation_site: RotationSite) -> None:
    site = rotation_site
    site.rotate()
    site.configure()
    site.tell()
    records = "\n".join(txt(*each) for each in site.records.items())
    for server in site.servers:
        server.serve({"us.test": HEAD.replace("60 60 60 60", "60 60 60 7200") + records + "\n"})
    site.rotate()
    assert (site.rotate(seconds=HOUR_S).code, site.stages()) == (0, ["published"])
    assert (site.rotate(seconds=HOUR_S).code, site.stages()) == (0, ["signing"])


def test_nothing_is_signed_or_retired_until_the_daemon_has_said_so(rotation_site: RotationSite) -> None:
    site = rotation_site
    site.started()
    site.rotate("--new")
    site.publish()
    site.rotate()
    for reload, code, words in (
        ("echo reloaded", 1, "the daemon has not said yet that it signs with"),
        ("false", 1, "the reload ended with 1: false"),
        ("/no/such/program", 1, "the reload failed: /no/such/program"),
        ("'", 1, "the reload failed: '"),
        ("", 2, "the daemon has not said yet"),
    ):
        unconfirmed = site.rotate(seconds=HOUR_S, reload=reload)
        assert (unconfirmed.code, site.stages()) == (code, ["signing", "switching"])
        assert words in said(unconfirmed.out)
    # A week of that, and the old records are needed still.
    assert (site.rotate(seconds=9 * DAY_S, reload="").code, site.stages()) == (2, ["signing", "switching"])
    assert (site.rotate().code, site.stages()) == (0, ["retired", "signing"])
    # Somebody else reloaded: seen at the next run.
    site.rotate("--new")
    site.publish()
    site.rotate()
    site.rotate(seconds=HOUR_S, reload="")
    site.tell()
    assert (site.rotate(reload="").code, site.stages()) == (0, ["retired", "retired", "signing"])


def test_the_daemon_does_not_run(rotation_site: RotationSite) -> None:
    site = rotation_site
    site.rotate()
    site.configure()
    site.publish()
    site.rotate()
    down = site.rotate(seconds=HOUR_S, reload="true")
    assert (down.code, site.stages()) == (1, ["switching"])
    assert "the daemon does not run" in said(down.out)
    site.tell()
    assert (site.rotate(reload="true").code, site.stages()) == (0, ["signing"])
    # It ends, and that is not an affair of keys.
    (site.runtime / "keys.json").unlink()
    assert site.rotate().code == 0


def test_a_server_loses_the_records_before_the_daemon_has_reloaded(rotation_site: RotationSite) -> None:
    site = rotation_site
    site.started()
    site.rotate("--new")
    before = dict(site.records)
    site.publish()
    site.rotate()
    # The daemon did reload, and whoever waited for it was killed.
    site.rotate(seconds=HOUR_S, reload="true")
    site.tell()
    site.forget(site.selectors(1))
    site.publish()
    assert (site.rotate().code, site.stages()) == (2, ["signing", "created"])
    told = json.loads((site.runtime / "keys.json").read_text())
    assert set(told["domains"]["us.test"]["keys"]) == site.selectors(0), "it signs with the old ones again"
    site.records = before
    site.publish()
    site.rotate()
    assert (site.rotate(seconds=HOUR_S).code, site.stages()) == (0, ["retired", "signing"])


def test_keys_that_the_daemon_does_not_let_go_of_have_not_retired(rotation_site: RotationSite) -> None:
    site = rotation_site
    site.started()
    site.rotate("--new")
    site.publish()
    site.rotate()
    site.rotate(seconds=HOUR_S, reload="true")
    site.tell()
    given_up = site.rotate("--discard", reload="false")
    assert (given_up.code, site.stages()) == (1, ["signing", "retired"])
    assert (site.rotate(seconds=30 * DAY_S, reload="false").code, site.stages()) == (1, ["signing", "retired"])
    assert (site.rotate().code, site.stages()) == (0, ["signing", "retired"])
    assert (site.rotate(seconds=7 * DAY_S).code, site.stages()) == (0, ["signing", "retired"])
    assert (site.rotate(seconds=DAY_S).code, site.stages()) == (2, ["signing", "removable"])


def test_killed_while_the_daemon_reloads(rotation_site: RotationSite) -> None:
    site = rotation_site
    site.started()
    site.rotate("--new")
    site.publish()
    site.rotate()
    site.now += HOUR_S
    options = ["-c", str(site.config), "--reload", "sleep 60", "--now", str(int(site.now))]
    process = subprocess.Popen([*PYTHON, "key", "rotate", "us.test", *options], start_new_session=True)
    deadline = time.monotonic() + 30
    while "switching" not in site.stages() and time.monotonic() < deadline:
        time.sleep(0.05)
    busy = site.rotate()
    assert (busy.code, "another mailguard key rotate is at it" in busy.err) == (75, True)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert site.stages() == ["signing", "switching"]
    assert (site.rotate(seconds=30 * DAY_S).code, site.stages()) == (0, ["retired", "signing"])


def test_suspended_while_the_daemon_reloads(rotation_site: RotationSite, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the old keys signed after that, before the daemon had read the new ones, is as old as it is."""
    site = rotation_site
    site.started()
    site.rotate("--new")
    site.publish()
    site.rotate()
    reload, read, slept = SigningDaemon.reload, time.clock_gettime, [0.0]

    def suspended(*arguments: Any, **more: Any) -> str:
        slept[0] = 3.0 * DAY_S
        return reload(*arguments, **more)

    monkeypatch.setattr(time, "clock_gettime", lambda clock: read(clock) + slept[0])
    monkeypatch.setattr(SigningDaemon, "reload", suspended)
    assert (site.rotate(seconds=HOUR_S).code, site.stages()) == (0, ["retired", "signing"])
    assert 3 * DAY_S <= site.kept()["generations"][0]["since"] - site.now < 3 * DAY_S + HOUR_S


def test_keys_that_sign_already_are_adopted(rotation_site: RotationSite, mailguard_command: Command) -> None:
    site = rotation_site
    made = json.loads(
        mailguard_command("key", "new", "us.test", "--directory", site.keys.parent, "--owner", "nobody", "--json").out
    )
    named = ", ".join(f'{{ name = "{each["selector"]}", key_file = "{each["file"]}" }}' for each in made["keys"])
    site.configure(f'[domains."us.test"]\nselectors = [{named}]\n')
    refused = site.rotate()
    assert (refused.code, "run this with --adopt" in refused.err) == (78, True)
    # A record that another program made says the same in its own words.
    site.records = {each["name"]: each["record"].replace("; k=", "; t=s; h=sha256; k=") for each in made["keys"]}
    site.publish()
    adopted = site.rotate("--adopt")
    assert (adopted.code, site.stages()) == (2, ["signing"])
    # Others were named meanwhile: what the state says is of no use any more.
    site.configure(f'[domains."us.test"]\nselectors = [{named.replace("mg2", "other2")}]\n')
    assert "has nothing: remove that file, and begin again with --adopt" in said(site.rotate().out)
    site.configure()
    assert site.rotate().code == 0
    assert "--adopt" in site.rotate("--adopt").err
    assert site.rotate("--new").code == 2
    assert not site.selectors(0) & site.selectors(1)
    old = site.selectors(0)
    site.publish()
    site.rotate()
    site.rotate(seconds=HOUR_S)
    assert site.rotate(seconds=9 * DAY_S).code == 2
    site.forget(old)
    site.publish()
    gone = site.rotate()
    assert (gone.code, site.stages()) == (0, ["signing"])
    assert all(Path(each["file"]).exists() for each in made["keys"])
    assert said(gone.out).count("mailguard did not make it") == 2


def test_names_are_not_used_again(rotation_site: RotationSite) -> None:
    site = rotation_site
    month = time.strftime("mg%Y%m", time.gmtime(site.now))
    # One server knows something there, and a wildcard means nothing.
    wild = (
        f'*.us.test. IN TXT "v=spf1 -all"\n{month}e._domainkey IN TXT x\n{month}r2._domainkey IN CNAME ns2.us.test.\n'
    )
    site.servers[1].serve({"us.test": HEAD + wild})
    site.rotate()
    assert site.selectors(0) == {f"{month}r3", f"{month}e3"}
    gave_up = site.rotate("--discard")
    assert (gave_up.code, site.stages()) == (2, []), "nothing published them, so that they are forgotten at once"
    assert not list(site.keys.iterdir())
    site.servers[1].serve({"us.test": HEAD})
    assert site.rotate().code == 2
    assert site.selectors(0) == {f"{month}r", f"{month}e"}
    site.rotate("--discard")
    site.rotate()
    assert site.selectors(0) == {f"{month}r2", f"{month}e2"}
    assert site.kept()["used"] == [f"{month}{letter}{n}" for n in ("3", "", "2") for letter in "re"]


def test_no_resolver_learns_that_a_name_is_not_there(
    rotation_site: RotationSite, monkeypatch: pytest.MonkeyPatch, mailguard_command: Command
) -> None:
    site = rotation_site
    asked: list[str] = []
    resolve = dns.resolver.Resolver.resolve

    def noting(self: dns.resolver.Resolver, name: object, *rest: object, **more: object) -> object:
        asked.append(str(name))
        return resolve(self, name, *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(dns.resolver.Resolver, "resolve", noting)
    site.rotate()
    site.configure()
    site.rotate()
    mailguard_command("dns", "us.test", "--mx", "mx.us.test", "-c", site.config, "--diff")
    assert "_domainkey.us.test." in asked
    assert not [name for name in asked if "._domainkey" in name]


def test_a_zone_of_its_own_below_the_domain(rotation_site: RotationSite) -> None:
    site = rotation_site
    cut = "_domainkey IN NS ns2.us.test.\n"
    own = "$TTL 60\n@ IN SOA ns2.us.test. h.us.test. 1 60 60 60 60\n@ IN NS ns2.us.test.\n"
    # The first server answers as the resolver would; of this zone it is none.
    site.servers[0].serve({"us.test": HEAD + cut, "_domainkey.us.test": own})
    site.servers[1].serve({"us.test": HEAD + cut, "_domainkey.us.test": own})
    site.rotate()
    records = "\n".join(txt(*each) for each in site.records.items()) + "\n"
    site.servers[1].serve({"us.test": HEAD + cut, "_domainkey.us.test": own + records})
    assert (site.rotate().code, site.stages()) == (2, ["published"])
    assert FIRST not in str(site.kept())
