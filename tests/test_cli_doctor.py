"""`mailguard doctor` on a real Postfix with a real daemon: nothing wrong, and then each fault, which names itself."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from audit_site import POSTCONF
from cli_process import Command, findings_of, on_a_terminal
from setup_site import Host, open_host, zone_file

pytestmark = [
    pytest.mark.skipif(POSTCONF is None, reason="postconf is not installed"),
    pytest.mark.skipif(os.geteuid() != 0, reason="the daemons of Postfix change their user"),
]

Fault = Callable[[Host], None]
PATH = {"PATH": "/usr/sbin:/usr/bin:/bin"}


@dataclass
class Site:
    """A host in order, and its files as they were."""

    host: Host
    socket: Path

    def restore(self, saved: Path) -> None:
        for each in ("main.cf", "master.cf"):
            shutil.copy2(saved / each, self.host.postfix.directory / "config" / each)
        for each in ("mailguard.toml", "zone"):
            shutil.copy2(saved / each, self.host.daemon.directory / each)
        for file in (self.host.daemon.directory / "keys").iterdir():
            shutil.chown(file, "nobody")
            file.chmod(0o600)
            os.utime(file)
        if not self.host.daemon.workers():
            self.host.daemon.start()
        shutil.chown(self.socket, "nobody", "postfix")
        self.socket.chmod(0o660)
        self.socket.parent.chmod(0o755)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Site, Path]]:
    from mailguard.cli.group import run

    with open_host() as host:
        assert run(["postconf", *host.options, "--backups", f"{host.postfix.directory}/backups", "--apply"]) == 0
        directory = host.postfix.directory / "config"
        for each in directory.glob("*.cf"):
            os.utime(each, (time.time() - 60,) * 2)
        saved = tmp_path_factory.mktemp("saved")
        for each in (directory / "main.cf", directory / "master.cf"):
            shutil.copy2(each, saved)
        for name in ("mailguard.toml", "zone"):
            shutil.copy2(host.daemon.directory / name, saved)
        yield Site(host, host.daemon.directory / "run" / "milter.sock"), saved


@pytest.fixture
def sound(site: tuple[Site, Path]) -> Iterator[Site]:
    made, saved = site
    made.restore(saved)
    yield made
    made.restore(saved)


def diagnosed(command: Command, host: Host) -> tuple[int, dict[str, Any]]:
    done = command("doctor", *host.options, "--json")
    assert done.err == ""
    return done.code, json.loads(done.out)


def test_a_sound_host(mailguard_command: Command, sound: Site) -> None:
    code, tree = diagnosed(mailguard_command, sound.host)
    assert (code, findings_of(tree, "problem", "unknown")) == (0, [])
    # The sandbox takes its own mail back, has clients of any address, and its zone in a file.
    notes = [each.split(" |")[0] for each in findings_of(tree, "note") if not each.startswith("clock")]
    # Its own name is not in that zone.
    assert notes == ["milters of Postfix", "who may speak for other clients", "resolver", *["name of this host"] * 2]
    titles = [card["title"].split(" ")[0] for card in tree["children"]]
    assert titles == [
        "configuration",
        "listener",
        "milters",
        "while",
        "macros",
        "SMTP",
        "who",
        "clients",
        "engine",
        "keys",
        "senders",
        "clock",
        "resolver",
        "records",
        "name",
    ]
    facts = {each["name"]: each["value"] for card in tree["children"] for each in card["facts"]}
    assert facts["connected"].startswith("as postfix, to unix:/")
    assert "protocol 6" in facts["negotiated"]
    assert "libmilter.so" in facts["libmilter"]
    text = mailguard_command("doctor", *sound.host.options).out
    assert text.startswith("mailguard on this host: ")
    assert "it answers as a milter does" in text


def test_it_changes_nothing(mailguard_command: Command, sound: Site) -> None:
    def seen() -> dict[Path, tuple[int, int]]:
        roots = (sound.host.postfix.directory / "config", sound.host.daemon.directory)
        paths = [each for root in roots for each in root.rglob("*") if each.name not in ("log", "code")]
        return {each: (each.stat().st_mtime_ns, each.stat().st_mode) for each in paths if "/code/" not in str(each)}

    before = seen()
    mailguard_command("doctor", *sound.host.options)
    assert seen() == before


# -- each fault names itself ---------------------------------------------------------------------------------------


def postconf(*settings: str) -> Fault:
    def fault(host: Host) -> None:
        directory = host.postfix.directory / "config"
        for each in settings:
            option = "-P" if each.count("/") > 1 and " = " not in each else "-e"
            subprocess.run(["postconf", "-c", str(directory), option, each], check=True, env=PATH)
            for file in directory.glob("*.cf"):
                os.utime(file, (0, 0))

    return fault


def chroot(host: Host) -> None:
    directory = host.postfix.directory / "config"
    subprocess.run(["postconf", "-c", str(directory), "-F", "*/inet/chroot=y"], check=True, env=PATH)
    os.utime(directory / "master.cf", (0, 0))


def configured(old: str, new: str) -> Fault:
    def fault(host: Host) -> None:
        text = host.daemon.config_file.read_text()
        assert old in text
        host.daemon.config_file.write_text(text.replace(old, new, 1))

    return fault


def in_socket_place(change: Callable[[Path], None]) -> Fault:
    return lambda host: change(host.daemon.directory / "run" / "milter.sock")


def down(host: Host) -> None:
    host.daemon.stop()


def stale(host: Host) -> None:
    """As one that was killed leaves it."""
    down(host)
    path = host.daemon.directory / "run" / "milter.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    path.chmod(0o666)


def keys(change: Callable[[Path], None]) -> Fault:
    return lambda host: change(host.daemon.directory / "keys" / "e1.pem")


def key_for_postfix(host: Host) -> None:
    file = host.daemon.directory / "keys" / "e1.pem"
    shutil.chown(file, "nobody", "postfix")
    file.chmod(0o640)
    configured("[[listeners]]", '[sign]\nkey_permissions = "group"\n[[listeners]]')(host)


def record_missing(host: Host) -> None:
    (host.daemon.directory / "zone").write_text(zone_file(["r1"]))


def second_record(host: Host) -> None:
    zone = host.daemon.directory / "zone"
    zone.write_text(zone.read_text() + 'r1._domainkey.us.test. IN TXT "v=spf1 -all"\n')


def not_reloaded(host: Host) -> None:
    """A domain that the daemon has not heard of, with its record."""
    with open(host.daemon.config_file, "a") as file:
        file.write('[domains."new.test"]\nselectors = [{ name = "r1", key_file = "keys/r1.pem" }]\n')
    zone = host.daemon.directory / "zone"
    zone.write_text(zone.read_text() + zone_file(["r1"]).replace("us.test", "new.test"))


def accepts(host: Host) -> None:
    directory = host.postfix.directory / "config"
    main = directory / "main.cf"
    main.write_text(main.read_text().replace("default_action=tempfail", "default_action=accept"))
    os.utime(main, (0, 0))


DEAD = 'nameservers = ["127.0.0.1"]\nport = 9\nquery_timeout_s = 0.2'
FAULTS: list[tuple[str, Fault, int, list[str]]] = [
    # id, what is done, the exit code, what is said: the card, what was found, what to do
    (
        "socket-missing",
        down,
        1,
        ["listener unix:", "No such file", "is the daemon running"],
    ),
    ("socket-stale", stale, 1, ["listener unix:", "Connection refused", "nobody listens there"]),
    (
        "socket-wrong-group",
        in_socket_place(lambda path: shutil.chown(path, "root", "daemon")),
        1,
        ["listener unix:", "Permission denied", "adduser postfix daemon"],
    ),
    (
        "socket-for-all",
        in_socket_place(lambda path: path.chmod(0o666)),
        1,
        ["listener unix:", "every user of this host can connect", "chmod o-w /tmp/"],
    ),
    (
        "socket-directory-closed",
        in_socket_place(lambda path: path.parent.chmod(0o700)),
        1,
        ["listener unix:", "Permission denied", "postfix may not use", "/run"],
    ),
    (
        "key-of-root",
        keys(lambda path: shutil.chown(path, "root")),
        1,
        ["keys", "nobody cannot sign with it", "e1.pem", "Permission denied", "chown nobody"],
    ),
    (
        "daemon-not-reloaded",
        not_reloaded,
        1,
        ["keys", "new.test: the daemon that runs signs with no key", "names r1", "systemctl reload mailguard-milter"],
    ),
    ("key-for-all", keys(lambda path: path.chmod(0o644)), 1, ["keys", "mode 0644", "chmod 600"]),
    (
        "key-for-postfix",
        key_for_postfix,
        1,
        ["keys", "postfix can read", "e1.pem: who breaks into Postfix has the key", "chmod 600"],
    ),
    (
        "record-missing",
        record_missing,
        1,
        ["records of the keys", "e1._domainkey.us.test: ", "no record", "publish: e1"],
    ),
    (
        "record-beside-another",
        second_record,
        1,
        ["records of the keys", "r1._domainkey.us.test: ", "2 TXT records are there", "leave only this one"],
    ),
    ("resolver-dead", configured('zone_file = "zone"', DEAD), 1, ["resolver", "it does not answer", "delv"]),
    (
        "default-action-accept",
        accepts,
        1,
        ["while mailguard is down", "default_action is accept", "postconf --apply"],
    ),
    (
        "not-in-postfix",
        postconf("smtpd_milters = inet:127.0.0.1:1"),
        1,
        ["milters of Postfix", "mail does not pass mailguard", "mailguard postconf --apply"],
    ),
    ("chroot", chroot, 1, ["milters of Postfix", "run in a chroot", "[[listeners]]"]),
    (
        "user-unknown",
        configured('user = "nobody"', 'user = "nobody-such"'),
        1,
        ["configuration", 'no user "nobody-such"', "adduser --system"],
    ),
    (
        "configuration-unreadable",
        lambda host: host.daemon.config_file.chmod(0o600),
        1,
        ["configuration", "nobody cannot read it: Permission denied", "chgrp nogroup /", "chmod 640 /"],
    ),
    (
        "password-for-all",
        configured(
            "[[listeners]]",
            '[senders]\nsources = ["postfixadmin"]\n[senders.postfixadmin]\ndatabase = "mysql"\npassword = "p"\n'
            "[[listeners]]",
        ),
        1,
        ["configuration", "every user of this host can read the password", "password_file", "chmod 640 /"],
    ),
    (
        "clock-slow",
        keys(lambda path: os.utime(path, (time.time() + 9_999,) * 2)),
        1,
        ["clock", "e1.pem was changed 999", "timedatectl"],
    ),
    (
        "senders-down",
        configured("[dns]", '[senders]\nsources = ["postfix"]\n[senders.postfix]\nmaps = "texthash:/no/such"\n[dns]'),
        75,
        ["senders", "a source cannot be asked: ", "/no/such", "mailguard senders test"],
    ),
]


@pytest.mark.parametrize(("fault", "code", "words"), [row[1:] for row in FAULTS], ids=[row[0] for row in FAULTS])
def test_each_fault_names_itself(
    mailguard_command: Command, sound: Site, fault: Fault, code: int, words: list[str]
) -> None:
    fault(sound.host)
    found_code, tree = diagnosed(mailguard_command, sound.host)
    found = findings_of(tree, "problem", "unknown")
    named = [each for each in found if all(word in each for word in words)]
    assert named, found
    assert found_code == code
    # And nothing else is blamed: what follows from it is in the same card, or could not be told.
    others = [each for each in findings_of(tree, "problem") if each.split(" |")[0] != named[0].split(" |")[0]]
    assert not others, others


@pytest.mark.parametrize(("name", "is_noted"), [("localhost", True), ("mx.us.test", False)])
def test_results_by_a_name_that_other_hosts_have(
    mailguard_command: Command, sound: Site, name: str, is_noted: bool
) -> None:
    config = sound.host.daemon.config_file
    config.write_text(
        re.sub(r"^authserv_id = .*$", f'authserv_id = "{name}"', config.read_text(), flags=re.MULTILINE)
    )
    code, tree = diagnosed(mailguard_command, sound.host)
    noted = [each for each in findings_of(tree, "note") if "set authserv_id to its full name" in each]
    assert (code, [f'"{name}"' in each for each in noted]) == (0, [True] * is_noted)


def test_a_key_in_testing(mailguard_command: Command, sound: Site) -> None:
    zone = sound.host.daemon.directory / "zone"
    zone.write_text(zone.read_text().replace("v=DKIM1;", "v=DKIM1; t=y;", 1))
    code, tree = diagnosed(mailguard_command, sound.host)
    assert (code, findings_of(tree, "problem", "unknown")) == (0, [])
    assert [each for each in findings_of(tree, "note") if "t=y is set" in each]


def test_keys_below_directories_of_root(mailguard_command: Command, sound: Site) -> None:
    """As mailguard key new makes them without --owner; what is to be done mends all of it."""
    directory = sound.host.daemon.directory / "keys"
    kept = directory.stat()
    try:
        os.chown(directory, 0, 0)
        directory.chmod(0o700)
        for file in directory.iterdir():
            os.chown(file, 0, 0)
        code, tree = diagnosed(mailguard_command, sound.host)
        found = [each for each in findings_of(tree, "problem") if each.startswith("keys | ")]
        assert (code, len(found)) == (1, 2)
        for each in found:
            assert f"Permission denied; uid 65534 may not pass {directory} | chgrp nogroup {directory}; " in each
            sound.host.run(each.rpartition(" | ")[2].removesuffix("; mailguard key test says more"))
        code, tree = diagnosed(mailguard_command, sound.host)
        assert (code, findings_of(tree, "problem")) == (0, [])
        assert stat.S_IMODE(directory.stat().st_mode) == 0o710
    finally:
        os.chown(directory, kept.st_uid, kept.st_gid)
        directory.chmod(stat.S_IMODE(kept.st_mode))


@pytest.mark.attack("L14")
def test_macros_that_are_trimmed(mailguard_command: Command, sound: Site) -> None:
    """A daemon that asks Postfix for its macros gets them all the same."""
    postconf("milter_mail_macros = {mail_addr} i")(sound.host)
    code, tree = diagnosed(mailguard_command, sound.host)
    (found,) = [each for each in findings_of(tree, "problem", "note") if each.startswith("macros of Postfix")]
    for word in ("milter_mail_macros", "{auth_type} {auth_authen} was taken out", "mailguard postconf --apply"):
        assert word in found
    (actions,) = [
        each["value"] for card in tree["children"] for each in card["facts"] if each["name"] == "negotiated"
    ]
    asks = int(actions.partition("actions ")[2].partition(",")[0], 16) & 0x100
    assert code == (0 if asks else 1)
    # Where it cannot be told that it asks, nobody is seen to be logged in.
    down(sound.host)
    code, tree = diagnosed(mailguard_command, sound.host)
    assert code == 1
    assert [each for each in findings_of(tree, "problem") if "logins are not seen" in each]


@pytest.mark.attack("X15")
def test_who_may_speak_for_other_clients(mailguard_command: Command, sound: Site) -> None:
    def shown() -> tuple[int, str, list[str], list[str]]:
        code, tree = diagnosed(mailguard_command, sound.host)
        (card,) = [each for each in tree["children"] if each["title"] == "who may speak for other clients"]
        notes = [each for each in findings_of(tree, "note") if each.startswith(card["title"])]
        return code, card["status"], [f"{each['name']} = {each['value']}" for each in card["facts"]], notes

    code, status, facts, notes = shown()
    assert (code, status, facts) == (0, "note", ["main.cf: smtpd_authorized_xclient_hosts = 127.0.0.1"])
    assert "XCLIENT is taken from 127.0.0.1: every user of this host can take any address, and any login" in notes[0]
    postconf("smtpd_authorized_xclient_hosts = !127.0.0.1, 192.0.2.0/24")(sound.host)
    code, status, facts, notes = shown()
    assert (code, status) == (0, "note")
    assert facts == ["main.cf: smtpd_authorized_xclient_hosts = !127.0.0.1, 192.0.2.0/24"]
    assert ["XCLIENT is taken from 192.0.2.0/24" in each for each in notes] == [True]
    postconf("smtpd_authorized_xclient_hosts = ", "smtpd_authorized_xforward_hosts = 127.0.0.1")(sound.host)
    assert shown() == (0, "ok", ["main.cf: smtpd_authorized_xforward_hosts = 127.0.0.1"], [])


def test_a_relay_host_greets_by_its_own_name(mailguard_command: Command, sound: Site) -> None:
    postconf("relayhost = [relay.test]:587")(sound.host)
    _, tree = diagnosed(mailguard_command, sound.host)
    assert not [each for each in findings_of(tree, "note") if each.startswith("name of this host")]
    assert "name of this host | all mail leaves by the relay host | " in findings_of(tree, "ok")


@pytest.mark.attack("X01")
def test_a_postfix_that_takes_smuggled_messages(mailguard_command: Command, sound: Site) -> None:
    """On a port that others can reach; the others of the sandbox are on loopback."""
    directory = sound.host.postfix.directory / "config"
    with open(directory / "master.cf", "a") as file:
        file.write("2599 inet n - n - - smtpd\nsmtp inet n - n - - smtpd\n")
    postconf("smtpd_forbid_bare_newline = no", "smtpd_forbid_unauth_pipelining = no", "inet_interfaces = all")(
        sound.host
    )
    code, tree = diagnosed(mailguard_command, sound.host)
    found = [each for each in findings_of(tree, "problem") if each.startswith("SMTP smuggling")]
    assert code == 1
    assert any("smtpd_forbid_bare_newline" in each for each in found), found
    assert any("commands out of turn" in each for each in found), found
    # The commands that it names are the ones that mend it.
    postconf("smtpd_forbid_bare_newline = normalize", "smtpd_forbid_unauth_pipelining = yes")(sound.host)
    _, tree = diagnosed(mailguard_command, sound.host)
    knows = "smtpd_forbid_bare_newline" in str(tree)
    assert not knows or not [each for each in findings_of(tree, "problem") if each.startswith("SMTP smuggling")]


def test_an_engine_that_cannot_be_loaded(
    mailguard_command: Command, sound: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.executable", "/bin/false")
    code, tree = diagnosed(mailguard_command, sound.host)
    (found,) = findings_of(tree, "problem")
    assert (code, found.partition(":")[0]) == (1, "engine libmilter | cannot be loaded")


def test_other_milters_are_shown(mailguard_command: Command, sound: Site) -> None:
    main = sound.host.postfix.directory / "config" / "main.cf"
    text = main.read_text()
    main.write_text(text.replace("\nsmtpd_milters = ", "\nsmtpd_milters = inet:127.0.0.1:8891, "))
    os.utime(main, (0, 0))
    _, tree = diagnosed(mailguard_command, sound.host)
    (card,) = [each for each in tree["children"] if each["title"] == "milters of Postfix"]
    orders = {each["value"] for each in card["facts"]}
    assert any(each.startswith("inet:127.0.0.1:8891, then mailguard (unix:/") for each in orders), orders
    assert [
        each for each in findings_of(tree, "note") if "smtpd_milters is not as mailguard postconf sets it" in each
    ]


@pytest.mark.attack("R13")
def test_a_milter_that_follows_can_speak_in_our_name(mailguard_command: Command, sound: Site) -> None:
    main = sound.host.postfix.directory / "config" / "main.cf"
    text = main.read_text()
    line = next(each for each in text.splitlines() if each.startswith("smtpd_milters = "))
    main.write_text(text.replace(line, f"{line}, inet:127.0.0.1:8891"))
    os.utime(main, (0, 0))
    _, tree = diagnosed(mailguard_command, sound.host)
    found = [each for each in findings_of(tree, "note") if "inet:127.0.0.1:8891 comes after mailguard" in each]
    assert found
    assert all("its authserv-id must not be" in each for each in found)


# -- mistakes ------------------------------------------------------------------------------------------------------


def test_mistakes_are_one_plain_line(mailguard_command: Command, tmp_path: Path) -> None:
    bad = tmp_path / "bad.toml"
    bad.write_text("mode = \n")
    public = tmp_path / "public.toml"
    public.write_text("")
    public.chmod(0o666)
    rows = [
        (["-c", str(tmp_path / "nothing")], 78, "No such file"),
        (["-c", str(bad)], 78, "bad.toml:1"),
        (["-c", str(public)], 78, "every user can write to it; run: chmod o-w"),
        (["now"], 64, "extra argument"),
    ]
    for arguments, code, words in rows:
        done = mailguard_command("doctor", *arguments)
        assert (done.code, done.out, done.err.count("\n")) == (code, "", 1), done.err
        assert words in done.err


def test_without_postfix(mailguard_command: Command, sound: Site) -> None:
    done = mailguard_command("doctor", "-c", str(sound.host.daemon.config_file), "--postconf", "no-such", "--json")
    assert (done.code, done.err) == (1, "")
    (found,) = findings_of(json.loads(done.out), "problem")
    assert "Postfix | there is no no-such: is Postfix installed?" in found


def test_a_tree_on_a_terminal(sound: Site) -> None:
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "160", "NO_COLOR": "1"}
    shown = re.sub(r"\x1b\[[0-9;]*m", "", on_a_terminal(["doctor", *sound.host.options], environment))
    assert "while mailguard is down: ok" in shown
