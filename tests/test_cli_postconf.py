"""`mailguard postconf` with the real postconf(1), and a message through the real Postfix that it has set up."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from audit_site import POSTCONF
from cli_process import Command, is_told_in_one_line
from mailguard.audit.gather import Places, gather
from mailguard.config import load
from mailguard.setup_host.milter_plan import chrooted_services, milter_plan
from setup_site import SUBMISSION, ConfigDirectory, open_host

pytestmark = [
    pytest.mark.skipif(POSTCONF is None, reason="postconf is not installed"),
    pytest.mark.skipif(os.geteuid() != 0, reason="the daemons of Postfix change their user"),
]

SOCKET = "unix:/run/mailguard/mailguard.sock"
SETTINGS = "connect_timeout=30s, command_timeout=30s, content_timeout=300s, default_action=tempfail"
OURS = f"{{ {SOCKET}, {SETTINGS} }}"
OTHER = "inet:127.0.0.1:11332"
LISTED = '[[sign.networks]]\nnetworks = ["127.0.0.0/8"]\ndomains = ["us.test"]'
NESTED = "{ inet:[::1]:9, { command_timeout = 9s } }"
MAIL = (
    b"From: alice@us.test\r\nTo: bob@them.test\r\nSubject: hello\r\nDate: Sat, 21 Nov 2026 12:00:00 +0000\r\n\r\n"
    b"Good day\r\n"
)


@pytest.fixture
def site(tmp_path: Path) -> ConfigDirectory:
    return ConfigDirectory(tmp_path)


def planned(command: Command, site: ConfigDirectory, *more: str) -> dict[str, Any]:
    done = command("postconf", *site.options, "--backups", str(site.path.parent / "backups"), "--json", *more)
    assert (done.code, done.err) == (0, "")
    report: dict[str, Any] = json.loads(done.out)
    return report


def undone(command: Command, report: dict[str, Any]) -> str:
    """With the command that was printed; what it said."""
    done = command(*shlex.split(report["undo"])[1:])
    assert (done.code, done.err) == (0, "")
    return done.out


def wanted(report: dict[str, Any]) -> dict[str, str]:
    """What is to be set, by its name, after the service where it is for one."""
    return {f"{each['service'] or ''}/{each['name']}".strip("/"): each["value"] for each in report["settings"]}


SMUGGLED = {"smtpd_forbid_bare_newline": "no"}
NAMED = {"submission/inet/milter_macro_daemon_name": "ORIGINATING"}


def test_a_fresh_postfix(mailguard_command: Command, site: ConfigDirectory) -> None:
    before = site.files()
    report = planned(mailguard_command, site)
    assert wanted(report) == {"smtpd_milters": OURS, "non_smtpd_milters": OURS, **NAMED}
    assert f"+smtpd_milters = {OURS}" in report["diff"]
    assert "+    -o milter_macro_daemon_name=ORIGINATING" in report["diff"]
    assert site.files() == before, "nothing is changed without --apply"
    assert any("internal_mail_filter_classes" in each for each in report["notes"])


def test_apply_and_undo(mailguard_command: Command, site: ConfigDirectory) -> None:
    (site.path / "master.cf").chmod(0o640)
    os.chown(site.path / "master.cf", 0, 12)
    before = site.files()
    report = planned(mailguard_command, site, "--apply")
    assert site.value("smtpd_milters") == site.value("non_smtpd_milters") == OURS
    assert site.service_value("submission", "milter_macro_daemon_name") == "ORIGINATING"
    for number, name in enumerate(("master.cf", "main.cf")):
        backup = Path(report["backup"]) / f"{number}-{name}"
        assert backup.read_bytes() == before[name]
        for each in (backup, site.path / name):
            found = each.stat()
            assert (found.st_mode & 0o777, found.st_gid) == ((0o640, 12) if name == "master.cf" else (0o644, 0))
        assert (site.path / name).read_bytes().startswith(b"# kept as it is\n")
    after = site.files()
    assert list(after) == ["main.cf", "master.cf"]
    # Again: nothing to do, and no further backup.
    again = planned(mailguard_command, site, "--apply")
    assert (again["settings"], again["diff"], again["applied"], again["undo"]) == ([], "", False, "")
    assert site.files() == after
    assert "nothing is to be changed" in mailguard_command("postconf", *site.options).out
    back = undone(mailguard_command, report)
    assert back.endswith(f"# now run:\npostfix -c {site.path} reload\n")
    assert site.files() == before


def test_the_commands_that_are_shown_do_the_same(mailguard_command: Command, site: ConfigDirectory) -> None:
    site.write({"milter_protocol": "2"}, {"submissions": SUBMISSION, "25": {"smtpd_milters": f"{OTHER},{SOCKET}"}})
    shown = mailguard_command("postconf", *site.options).out
    commands = [line for line in shown.splitlines() if line.startswith("postconf ")]
    assert len(commands) == 6
    for each in commands:
        site.grow_old()
        subprocess.run(["/bin/sh", "-ec", each], check=True, env={"PATH": "/usr/sbin:/usr/bin:/bin"})
    site.grow_old()
    assert planned(mailguard_command, site)["settings"] == []


LISTENERS = {
    "auto": [(SOCKET, "auto")],
    "pair": [("unix:/run/m/verify.sock", "verify"), ("unix:/run/m/sign.sock", "sign")],
    "sign": [("inet:127.0.0.1:8891", "sign")],
    "verify": [("inet6:[::1]:8891", "verify")],
    "everywhere": [("inet:0.0.0.0:8891", "auto")],
}
VERIFIER = f"{{ unix:/run/m/verify.sock, {SETTINGS} }}"
SIGNER = f"{{ unix:/run/m/sign.sock, {SETTINGS} }}"

CASES: list[tuple[str, str, dict[str, str], dict[str, Mapping[str, str]], dict[str, str]]] = [
    # id, listeners, main.cf, services, what is to be set
    ("others-stay-behind", "auto", {"smtpd_milters": OTHER}, {}, {"smtpd_milters": f"{OURS}, {OTHER}"}),
    ("ours-goes-first", "auto", {"smtpd_milters": f"{OTHER}, {OURS}"}, {}, {"smtpd_milters": f"{OURS}, {OTHER}"}),
    ("already-there", "auto", {"smtpd_milters": OURS, "non_smtpd_milters": "$smtpd_milters"}, {}, {}),
    ("bare", "auto", {"smtpd_milters": f"{SOCKET} {OTHER}"}, {}, {"smtpd_milters": f"{OURS}, {OTHER}"}),
    (
        "by what /run was called",
        "auto",
        {"smtpd_milters": "unix:/var/run/mailguard/mailguard.sock"},
        {},
        {"smtpd_milters": OURS},
    ),
    (
        "own-timeouts-stay",
        "auto",
        {"smtpd_milters": f"{{{SOCKET},content_timeout=99s,default_action=accept}}"},
        {},
        {"smtpd_milters": OURS.replace("300s", "99s")},
    ),
    (
        "another-action-stays",
        "auto",
        {"smtpd_milters": OURS.replace("tempfail", "reject"), "non_smtpd_milters": "$smtpd_milters"},
        {},
        {},
    ),
    (
        "through-a-variable",
        "auto",
        {"mine": OTHER, "smtpd_milters": "$mine", "non_smtpd_milters": "$smtpd_milters"},
        {},
        {"smtpd_milters": f"{OURS}, $mine"},
    ),
    (
        "variables-stay",
        "auto",
        {"mine": OTHER, "none": "", "ours": f"{NESTED} {SOCKET}", "smtpd_milters": "${mine}, $(none) $ours"},
        {"25": {"smtpd_milters": "$mine"}, "2525": {"smtpd_milters": "$none"}},
        {
            "smtpd_milters": f"{OURS}, ${{mine}}, $(none), {NESTED}",
            "25/inet/smtpd_milters": f"{OURS}, $mine",
        },
    ),
    (
        "one-list-through-the-other",
        "pair",
        {"smtpd_milters": OTHER, "all": "$smtpd_milters", "non_smtpd_milters": "inet:[::1]:9 $all"},
        {},
        {
            "smtpd_milters": f"{VERIFIER}, {OTHER}",
            "non_smtpd_milters": f"{VERIFIER}, inet:[::1]:9, {OTHER}",
            "submission/inet/smtpd_milters": f"{OTHER}, {SIGNER}",
        },
    ),
    (
        "others-keep-what-is-in-their-braces",
        "auto",
        {"smtpd_milters": "{ inet:[::1]:9, { connect_timeout = 9s }, command_timeout=5s },inet:[::1]:8"},
        {"25": {"smtpd_milters": "{inet:[::1]:9,{connect_timeout=9s}}"}},
        {
            "smtpd_milters": OURS + ", { inet:[::1]:9, { connect_timeout = 9s }, command_timeout=5s }, inet:[::1]:8",
            "25/inet/smtpd_milters": f"{OURS}, {{inet:[::1]:9,{{connect_timeout=9s}}}}",
        },
    ),
    (
        "ours-with-braces-in-braces",
        "auto",
        {"smtpd_milters": f"{{{SOCKET},{{ content_timeout = 99s }}}}"},
        {},
        {"smtpd_milters": OURS.replace("300s", "99s")},
    ),
    (
        "a-list-of-its-own",
        "auto",
        {"smtpd_milters": OURS},
        {"submission": {**SUBMISSION, "smtpd_milters": OTHER}},
        {"submission/inet/smtpd_milters": f"{OURS}, {OTHER}"},
    ),
    (
        "switched-off-for-strangers",
        "auto",
        {"smtpd_milters": OURS},
        {"2525": {"smtpd_milters": ""}, "2526": {"receive_override_options": "no_milters", "smtpd_milters": OTHER}},
        {},
    ),
    (
        "pair",
        "pair",
        {"smtpd_milters": OTHER},
        {},
        {
            "smtpd_milters": f"{VERIFIER}, {OTHER}",
            "non_smtpd_milters": VERIFIER,
            "submission/inet/smtpd_milters": f"{OTHER}, {SIGNER}",
        },
    ),
    (
        "sign-alone",
        "sign",
        {"smtpd_milters": f"inet:localhost:8891, {OTHER}"},
        {},
        {
            "smtpd_milters": OTHER,
            "non_smtpd_milters": "-",
            "submission/inet/smtpd_milters": f"{OTHER}, {{ inet:127.0.0.1:8891, {SETTINGS} }}",
        },
    ),
    (
        "verify-alone",
        "verify",
        {},
        {},
        {
            "smtpd_milters": f"{{ inet:[::1]:8891, {SETTINGS} }}",
            "non_smtpd_milters": f"{{ inet:[::1]:8891, {SETTINGS} }}",
            "submission/inet/smtpd_milters": "",
            "submission/inet/milter_macro_daemon_name": "-",
        },
    ),
    (
        "every-address",
        "everywhere",
        {"non_smtpd_milters": "$smtpd_milters"},
        {},
        {"smtpd_milters": f"{{ inet:127.0.0.1:8891, {SETTINGS} }}"},
    ),
    (
        "old-protocol",
        "auto",
        {"smtpd_milters": OURS, "milter_protocol": "2"},
        {"submission": {**SUBMISSION, "milter_protocol": "4"}},
        {"milter_protocol": "6", "submission/inet/milter_protocol": "6"},
    ),
    (
        "smuggling",
        "auto",
        {"smtpd_milters": OURS, "smtpd_forbid_bare_newline": "no", "smtpd_forbid_unauth_pipelining": "no"},
        {"submission": {**SUBMISSION, "smtpd_forbid_bare_newline": "reject"}, "2525": SMUGGLED},
        {
            "smtpd_forbid_bare_newline": "yes",
            "smtpd_forbid_unauth_pipelining": "yes",
            "2525/inet/smtpd_forbid_bare_newline": "yes",
        },
    ),
    (
        "no-stranger-comes-in",
        "auto",
        {"smtpd_milters": OURS, "smtpd_forbid_bare_newline": "no", "inet_interfaces": "loopback-only"},
        {},
        {},
    ),
    (
        "macros-trimmed",
        "auto",
        {"smtpd_milters": OURS, "milter_mail_macros": "{mail_addr} i", "milter_connect_macros": "j daemon_name"},
        {"submission": {**SUBMISSION, "milter_mail_macros": "i"}},
        {
            "milter_mail_macros": "{mail_addr} i {auth_type} {auth_authen}",
            "submission/inet/milter_mail_macros": "i {auth_type} {auth_authen} {mail_addr}",
        },
    ),
    (
        "users-by-their-restrictions",
        "auto",
        {"smtpd_milters": OURS},
        {"2525": SUBMISSION, "2526": {"smtpd_sasl_auth_enable": "yes"}},
        {"2525/inet/milter_macro_daemon_name": "ORIGINATING"},
    ),
    (
        "a-content-filter-returns-mail",
        "pair",
        {"smtpd_milters": VERIFIER, "non_smtpd_milters": VERIFIER, "smtpd_sasl_auth_enable": "yes"},
        {
            "127.0.0.1:10026": {"mynetworks": "127.0.0.0/8", "smtpd_relay_restrictions": "permit_mynetworks,reject"},
            "submission": {"smtpd_client_restrictions": "check_client_access,static:OK,reject"},
        },
        {"submission/inet/smtpd_milters": SIGNER, "submission/inet/milter_macro_daemon_name": "-"},
    ),
    (
        "who-has-not-logged-in-passes",
        "auto",
        {"smtpd_milters": OURS},
        {"submission": {"smtpd_sasl_auth_enable": "yes"}},
        {"submission/inet/milter_macro_daemon_name": "-"},
    ),
]


@pytest.mark.parametrize(
    ("listeners", "main", "services", "expected"), [row[1:] for row in CASES], ids=[row[0] for row in CASES]
)
def test_what_is_to_be_set(
    mailguard_command: Command,
    site: ConfigDirectory,
    listeners: str,
    main: dict[str, str],
    services: dict[str, Mapping[str, str]],
    expected: dict[str, str],
) -> None:
    site.configure(*LISTENERS[listeners])
    if listeners == "everywhere":
        site.config_file.write_text(site.config_file.read_text() + "allow_remote = true\n")
    site.write({"non_smtpd_milters": "$smtpd_milters" if listeners == "auto" else "", **main}, services)
    found = wanted(planned(mailguard_command, site))
    wanted_settings = {name: value for name, value in {**NAMED, **expected}.items() if value != "-"}
    assert found == wanted_settings
    # With them, nothing is missing any more.
    planned(mailguard_command, site, "--apply")
    site.grow_old()
    assert planned(mailguard_command, site)["settings"] == []


def test_notes(mailguard_command: Command, site: ConfigDirectory) -> None:
    site.configure(("inet:127.0.0.1:8891", "sign"), more=LISTED)
    site.write(
        {"content_filter": "smtp:[127.0.0.1]:10025", "internal_mail_filter_classes": "bounce"},
        {"smtp": {"milter_macro_daemon_name": "ORIGINATING"}, "submission": {"smtpd_sasl_auth_enable": "yes"}},
    )
    report = planned(mailguard_command, site)
    assert wanted(report)["non_smtpd_milters"] == f"{{ inet:127.0.0.1:8891, {SETTINGS} }}"
    text = "\n".join(report["notes"])
    for said in (
        "mail from outside is not judged",
        "submission/inet does not refuse who has not logged in",
        "smtp/inet is called ORIGINATING",
        "no_milters",
        "internal_mail_filter_classes = bounce: ",
    ):
        assert said in text, text


def test_which_directory_is_read_does_not_hang_on_the_age_of_its_files(site: ConfigDirectory) -> None:
    """Postfix 3.10 says /etc/postfix of a main.cf that has just been written, unless it is told otherwise."""
    program = site.path.parent / "postconf"
    program.write_text(f'#!/bin/sh\necho "$@" >> {site.path.parent}/asked\nexec {POSTCONF} "$@"\n')
    program.chmod(0o755)
    (site.path / "main.cf").touch()
    facts = gather(Places(Path("/"), str(site.path), postconf=str(program)), now=0.0)
    assert facts.postfix.directory == str(site.path)
    asked = (site.path.parent / "asked").read_text().splitlines()
    told = f"-c {site.path} -o config_directory={site.path}"
    assert [each.removesuffix(" -o").startswith(told) for each in asked] == [True] * len(asked)


def test_the_instance_of_the_environment_is_named_in_what_is_shown(
    site: ConfigDirectory, mailguard_command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`postmulti -i NAME -x mailguard postconf`: who runs the commands later may have no such variable."""
    monkeypatch.setenv("MAIL_CONFIG", str(site.path))
    told = mailguard_command("postconf", "-c", site.config_file).out
    assert f"\npostconf -c '{site.path}' -e 'smtpd_milters = " in told
    assert told.endswith(f"\npostfix -c {site.path} reload\n")


def test_an_old_postfix(site: ConfigDirectory) -> None:
    """Before 3.0 there are no braces."""
    site.write({"smtpd_milters": OTHER, "milter_default_action": "accept"})
    facts = gather(Places(Path("/"), str(site.path)), now=0.0)
    old = replace(facts, postfix=replace(facts.postfix, version=(2, 11, 3)))
    plan = milter_plan(old, load(site.config_file), chrooted=frozenset())
    found = {each.name: each.value for each in plan.settings if each.service is None}
    assert found == {
        "smtpd_milters": f"{SOCKET}, {OTHER}",
        "non_smtpd_milters": SOCKET,
        "milter_default_action": "tempfail",
    }
    assert chrooted_services("smtp/inet/chroot = -\ncleanup/unix/chroot = n\n", old.postfix) == {"smtp/inet"}


# -- chroot --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("chroot", "level", "relative"), [("y", "3.6", True), ("-", "0", True), ("-", "3.6", False), ("n", "0", False)]
)
def test_a_socket_below_the_queue_directory(
    mailguard_command: Command, site: ConfigDirectory, chroot: str, level: str, relative: bool
) -> None:
    socket = f"unix:{site.queue}/mailguard/mailguard.sock"
    site.configure((socket, "auto"))
    site.write({"compatibility_level": level}, chroot=chroot)
    named = "unix:mailguard/mailguard.sock" if relative else socket
    assert wanted(planned(mailguard_command, site))["smtpd_milters"] == f"{{ {named}, {SETTINGS} }}"
    # However it is written, it is one and the same.
    for each in ("unix:mailguard/mailguard.sock", "unix:/mailguard/mailguard.sock", socket):
        site.write({"smtpd_milters": f"{OTHER} {each}", "compatibility_level": level}, chroot=chroot)
        assert wanted(planned(mailguard_command, site))["smtpd_milters"] == f"{{ {named}, {SETTINGS} }}, {OTHER}"


def test_a_socket_out_of_reach(mailguard_command: Command, site: ConfigDirectory) -> None:
    before = site.files()
    site.write(chroot="y")
    before = site.files()
    done = mailguard_command("postconf", *site.options, "--apply")
    assert (done.code, done.out) == (78, "")
    assert done.err.count("\n") == 1
    for said in (
        f"mailguard: {SOCKET}: smtp/inet, submission/inet, cleanup/unix run in a chroot in {site.queue}",
        f'address = "unix:{site.queue}/mailguard/mailguard.sock"',
        f"install -d -o mailguard -g mailguard -m 0750 {site.queue}/mailguard",
    ):
        assert said in done.err
    assert site.files() == before
    site.configure(("inet:127.0.0.1:8891", "auto"))
    assert wanted(planned(mailguard_command, site))["smtpd_milters"] == f"{{ inet:127.0.0.1:8891, {SETTINGS} }}"


@pytest.mark.parametrize(("chroot", "named"), [("y", "inet:127.0.0.1:8891"), ("n", SOCKET)])
def test_of_several_listeners_the_one_of_this_instance(
    mailguard_command: Command, site: ConfigDirectory, chroot: str, named: str
) -> None:
    """One daemon for two instances of Postfix, each with a queue directory of its own."""
    site.write(chroot=chroot)
    listeners = [(SOCKET, "auto"), ("unix:/queue-of-another/m.sock", "auto"), ("inet:127.0.0.1:8891", "auto")]
    site.configure(*listeners)
    assert wanted(planned(mailguard_command, site))["smtpd_milters"] == f"{{ {named}, {SETTINGS} }}"
    below = f"unix:{site.queue}/m.sock"
    site.configure(*listeners, (below, "auto"))
    found = wanted(planned(mailguard_command, site))["smtpd_milters"]
    assert found == f"{{ {'unix:m.sock' if chroot == 'y' else below}, {SETTINGS} }}"


# -- what can go wrong ---------------------------------------------------------------------------------------------


def test_mistakes_are_one_plain_line(mailguard_command: Command, site: ConfigDirectory) -> None:
    nothing = site.path / "nothing"
    config, directory = ["-c", str(site.config_file)], ["--config-directory", str(site.path)]
    rows: list[tuple[list[str], int, str]] = [
        (["-c", str(nothing), *directory], 78, "No such file"),
        ([*config, "--config-directory", str(nothing)], 78, f"{nothing}/main.cf"),
        ([*config, *directory, "--postconf", str(nothing)], 78, "is Postfix installed?"),
        ([*config, *directory, "again"], 64, "extra argument"),
    ]
    for arguments, code, said in rows:
        is_told_in_one_line(mailguard_command("postconf", *arguments), code, said)


def test_a_symbolic_link_stays_one(mailguard_command: Command, site: ConfigDirectory) -> None:
    target = site.path.parent / "managed.cf"
    (site.path / "main.cf").rename(target)
    (site.path / "main.cf").symlink_to(target)
    report = planned(mailguard_command, site, "--apply")
    assert (site.path / "main.cf").is_symlink()
    assert b"smtpd_milters" in target.read_bytes()
    undone(mailguard_command, report)
    assert (site.path / "main.cf").is_symlink()
    assert b"smtpd_milters" not in target.read_bytes()


def test_what_was_edited_by_hand_is_not_undone(mailguard_command: Command, site: ConfigDirectory) -> None:
    report = planned(mailguard_command, site, "--apply")
    (site.path / "main.cf").write_text((site.path / "main.cf").read_text() + "mine = yes\n")
    edited = site.files()
    refused = mailguard_command(*shlex.split(report["undo"])[1:])
    assert (refused.code, refused.err.count("\n")) == (78, 1)
    assert f"{site.path}/main.cf has been changed since, by hand or by a later run" in refused.err
    assert f"{report['backup']}/1-main.cf: compare them with diff -u" in refused.err
    assert site.files() == edited


def test_the_way_back_is_told_before_anything_is_done(mailguard_command: Command, site: ConfigDirectory) -> None:
    before = site.files()
    done = mailguard_command("postconf", *site.options, "--backups", str(site.path.parent / "b"), "--apply")
    assert (done.code, done.err) == (0, "")
    command = next(line for line in done.out.splitlines() if line.startswith("mailguard postconf --undo "))
    assert done.out.index("+smtpd_milters") < done.out.index(command) < done.out.index("# written; ")
    assert mailguard_command(*shlex.split(command)[1:]).code == 0
    assert site.files() == before
    again = mailguard_command(*shlex.split(command)[1:])
    assert (again.code, again.out.splitlines()[0]) == (0, "# all is as it was before already")


def test_what_becomes_of_mail_meanwhile_is_said(mailguard_command: Command, site: ConfigDirectory) -> None:
    site.configure(("unix:/run/m/verify.sock", "verify"), ("unix:/run/m/sign.sock", "sign"), more='mode = "enforce"')
    text = "\n".join(planned(mailguard_command, site)["notes"])
    assert "nobody answers at unix:/run/m/sign.sock yet (No such file or directory)" in text
    assert 'role = "verify", which may refuse it as mode = "enforce"' in text
    planned(mailguard_command, site, "--apply")
    site.grow_old()
    # Nothing is changed now, and so nothing becomes of mail.
    assert "nobody answers" not in "\n".join(planned(mailguard_command, site)["notes"])


def test_braces_in_braces_for_a_service(mailguard_command: Command, site: ConfigDirectory) -> None:
    """In master.cf are no blanks."""
    site.configure(*LISTENERS["pair"])
    site.write({"smtpd_milters": NESTED})
    planned(mailguard_command, site, "--apply")
    value = site.service_value("submission", "smtpd_milters")
    assert value.startswith("{inet:[::1]:9,{command_timeout=9s}},{unix:/run/m/sign.sock,")
    assert planned(mailguard_command, site)["settings"] == []


def test_octets_of_others_are_not_changed(mailguard_command: Command, site: ConfigDirectory) -> None:
    main = site.path / "main.cf"
    main.write_bytes(main.read_bytes() + b"smtpd_milters = unix:/caf\xe9\n")
    site.grow_old()
    done = mailguard_command("postconf", *site.options)
    assert (done.code, done.out) == (78, "")
    assert done.err.startswith("mailguard: smtpd_milters has octets that are not UTF-8, and would be changed")


def test_a_filter_that_gives_mail_back_with_sendmail(mailguard_command: Command, site: ConfigDirectory) -> None:
    site.write(services={"smtp": {"content_filter": "spamassassin"}})
    master = site.path / "master.cf"
    master.write_text(
        master.read_text()
        + "pickup unix n - n 60 1 pickup\nspamassassin unix - n n - - pipe\n  user=spamd argv=/bin/spamc"
    )
    site.grow_old()
    (said,) = [each for each in planned(mailguard_command, site)["notes"] if each.startswith("spamassassin filters")]
    command = said.rpartition("Then set: ")[2]
    subprocess.run(["/bin/sh", "-ec", command], check=True, env={"PATH": "/usr/sbin:/usr/bin:/bin"})
    site.grow_old()
    notes = planned(mailguard_command, site)["notes"]
    assert not any("spamassassin filters" in each for each in notes)


AMAVIS = {"content_filter": "smtp-amavis:[127.0.0.1]:10024"}
GIVEN_BACK = {"content_filter": "", "receive_override_options": "no_address_mappings"}


def test_services_that_take_mail_back(mailguard_command: Command, site: ConfigDirectory) -> None:
    """As amavis has it: they had no milters, and get none."""
    back = {"content_filter": ""}
    site.write(
        AMAVIS,
        {
            "127.0.0.1:10025": GIVEN_BACK,
            "127.0.0.1:10026": {**back, "receive_override_options": "no_milters"},
            "127.0.0.1:10027": {**back, "smtpd_milters": ""},
            "[::1]:10028": back,
            "2525": {"smtpd_proxy_filter": "127.0.0.1:10030"},
        },
    )
    report = planned(mailguard_command, site, "--apply")
    override = "inet/receive_override_options"
    assert {name: value for name, value in wanted(report).items() if "override" in name} == {
        f"127.0.0.1:10025/{override}": "no_address_mappings,no_milters",
        f"[::1]:10028/{override}": "no_milters",
    }
    notes = report["notes"]
    assert not any("takes mail back" in each or "there is a content filter" in each for each in notes)
    assert any(each.startswith("2525/inet hands mail to a proxy") for each in notes)
    site.grow_old()
    assert planned(mailguard_command, site)["settings"] == []


@pytest.mark.parametrize(
    ("main", "service", "sign"),
    [
        pytest.param({"smtpd_milters": OTHER}, {}, "", id="another-milter"),
        pytest.param({}, {"milter_macro_daemon_name": "ORIGINATING"}, "", id="made-to-sign"),
        pytest.param({}, {}, LISTED, id="signed-by-its-address"),
    ],
)
def test_a_service_that_takes_mail_back_and_may_be_meant_to_have_milters(
    mailguard_command: Command,
    site: ConfigDirectory,
    main: Mapping[str, str],
    service: Mapping[str, str],
    sign: str,
) -> None:
    site.configure(more=sign)
    site.write({**AMAVIS, **main}, {"127.0.0.1:10025": {**GIVEN_BACK, **service}})
    report = planned(mailguard_command, site)
    assert not any("receive_override_options" in each for each in wanted(report))
    (note,) = [each for each in report["notes"] if "takes mail back from a content filter" in each]
    command = note.partition("postconf -c ")[1] + note.partition("postconf -c ")[2]
    assert command.endswith("-P '127.0.0.1:10025/inet/receive_override_options=no_address_mappings,no_milters'")
    subprocess.run(["/bin/sh", "-ec", command], check=True, env={"PATH": "/usr/sbin:/usr/bin:/bin"})
    site.grow_old()
    assert not any("takes mail back" in each for each in planned(mailguard_command, site)["notes"])


@pytest.mark.parametrize("where", ["login", "no-verifier"])
def test_a_service_on_loopback_that_keeps_its_milters(
    mailguard_command: Command, site: ConfigDirectory, where: str
) -> None:
    """One for users who have logged in; and all, where no listener judges."""
    if where == "no-verifier":
        site.configure(("inet:127.0.0.1:8891", "sign"))
    login = {"smtpd_sasl_auth_enable": "yes", "smtpd_relay_restrictions": "permit_sasl_authenticated,reject"}
    site.write(AMAVIS, {"127.0.0.1:10587": {**GIVEN_BACK, **(login if where == "login" else {})}})
    assert not any("receive_override_options" in each for each in wanted(planned(mailguard_command, site)))


PROXIED: Mapping[str, Mapping[str, str]] = {
    "smtp": {"smtpd_proxy_filter": "127.0.0.1:10024"},
    "127.0.0.1:10025": {"content_filter": ""},
}


@pytest.mark.parametrize(
    ("main", "sign", "words"),
    [
        pytest.param({}, "", ["takes mail back from a proxy", "do not set no_milters"], id="as-modoboa-has-it"),
        pytest.param({}, LISTED, ["Mail of strangers is signed for us.test", "take that out"], id="and-signed"),
        pytest.param(
            {"content_filter": "a:[127.0.0.1]:10026", "smtpd_milters": OTHER},
            "",
            ["from a content filter"],
            id="beside-a-filter",
        ),
    ],
)
def test_a_service_that_takes_mail_back_from_a_proxy(
    mailguard_command: Command, site: ConfigDirectory, main: Mapping[str, str], sign: str, words: list[str]
) -> None:
    """Milters have seen nothing of it before: without any there, a signer beside mailguard signs no more."""
    site.configure(more=sign)
    site.write(main, PROXIED)
    (note,) = [each for each in planned(mailguard_command, site)["notes"] if each.startswith("127.0.0.1:10025/inet")]
    assert all(word in note for word in words), note


# -- through the real Postfix --------------------------------------------------------------------------------------


def test_a_message_is_signed_and_undo_restores(mailguard_command: Command, tmp_path: Path) -> None:
    with open_host() as host:
        before = host.config_files()
        assert b"DKIM-Signature" not in host.submit(MAIL, "first@us.test")
        backups = ["--backups", str(tmp_path / "backups")]
        done = mailguard_command("postconf", *host.options, *backups, "--apply", "--json")
        assert (done.code, done.err) == (0, "")
        report = json.loads(done.out)
        host.run(report["reload"])
        message = host.submit(MAIL, "second@us.test")
        assert message.count(b"DKIM-Signature: ") == 2, host.postfix.log_tail()
        assert b"warning" not in b"\n".join(
            line for line in host.postfix.log().encode().splitlines() if b"milter" in line
        )
        undone(mailguard_command, report)
        host.run(report["reload"])
        assert host.config_files() == before
        assert b"DKIM-Signature" not in host.submit(MAIL, "third@us.test")
