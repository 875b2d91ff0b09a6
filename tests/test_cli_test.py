"""`mailguard test` on a real Postfix with a real daemon: one message sent, and each thing that may become of it."""

from __future__ import annotations

import email
import json
import os
import re
import shutil
import subprocess
import time
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from audit_site import POSTCONF
from cli_process import Command, findings_of
from postfix_site import ALICE, PASSWORD
from sandbox_place import clean_environment
from setup_site import Host, open_host
from smtp_receiver import receiving

pytestmark = [
    pytest.mark.skipif(POSTCONF is None, reason="postconf is not installed"),
    pytest.mark.skipif(os.geteuid() != 0, reason="the daemons of Postfix change their user"),
]

# What sendmail(1) hands over has the client 127.0.0.1.
SIGNED_HERE = '[[sign.networks]]\nnetworks = ["127.0.0.1/32"]\ndomains = ["us.test", "sub.us.test", "nokey.test"]\n'


@dataclass
class Site:
    """A host whose Postfix names mailguard, and a server elsewhere."""

    host: Host
    mailbox: Path
    saved: Path

    @property
    def config(self) -> Path:
        return self.host.postfix.directory / "config"

    @property
    def arguments(self) -> list[str]:
        return [*self.host.options, "--log", str(self.host.postfix.directory / "mail.log"), "--log", self.daemon_log]

    @property
    def daemon_log(self) -> str:
        return str(self.host.daemon.directory / "log")

    @property
    def socket(self) -> Path:
        return self.host.daemon.directory / "run" / "milter.sock"

    @property
    def submission(self) -> str:
        return f"127.0.0.1:{self.host.postfix.ports['submission']}"

    def change(self, old: str, new: str) -> None:
        """In main.cf."""
        text = (self.config / "main.cf").read_text()
        assert old in text
        fresh = self.config / "main.cf.new"
        fresh.write_text(text.replace(old, new))
        self.put(fresh)

    def put(self, main: Path) -> None:
        """At once: a daemon of Postfix that starts meanwhile and reads half of it stays away for a minute."""
        main.replace(self.config / "main.cf")
        self.reload()

    def reload(self) -> None:
        for each in self.config.glob("*.cf"):
            os.utime(each, (time.time() - 60,) * 2)
        self.host.run(f"postfix -c {self.config} reload")

    def restore(self) -> None:
        if not self.host.daemon.workers():
            self.host.daemon.start()
        if (self.config / "main.cf").read_bytes() != (self.saved / "main.cf").read_bytes():
            self.put(Path(shutil.copy2(self.saved / "main.cf", self.config / "main.cf.new")))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    from mailguard.cli.group import run

    with receiving() as port, open_host(more=SIGNED_HERE, rule="subdomains = true\n") as host:
        config, saved = host.postfix.directory / "config", tmp_path_factory.mktemp("saved")
        with open(config / "main.cf", "a") as file:
            file.write(f"transport_maps = inline:{{ far.test=smtp:[127.0.0.1]:{port} }}\n")
        for each in config.glob("*.cf"):
            os.utime(each, (time.time() - 60,) * 2)
        assert run(["postconf", *host.options, "--backups", f"{host.postfix.directory}/backups", "--apply"]) == 0
        shutil.copy2(config / "main.cf", saved)
        site = Site(host, host.postfix.directory / "mail" / "box", saved)
        site.reload()
        yield site


@pytest.fixture
def site(made: Site) -> Iterator[Site]:
    yield made
    made.restore()


def send(command: Command, *arguments: str | Path) -> tuple[int, dict[str, Any], str]:
    """The exit code, the tree, and its text."""
    done = command("test", *arguments, "--json")
    assert done.err == ""
    tree = json.loads(done.out)
    return done.code, tree, json.dumps(tree)


def facts(tree: dict[str, Any], title: str) -> dict[str, str]:
    (card,) = [each for each in tree["children"] if each["title"].startswith(title)]
    return {each["name"]: each["value"] for each in card["facts"]}


# -- it leaves -----------------------------------------------------------------------------------------------------


def test_signed_and_delivered(mailguard_command: Command, site: Site) -> None:
    code, tree, text = send(mailguard_command, "--send", "one@them.test", *site.arguments, "--mailbox", site.mailbox)
    assert (code, tree["status"], findings_of(tree, "problem", "unknown", "note")) == (0, "ok", [])
    mailguard = facts(tree, "mailguard, ")
    assert (mailguard["role"], mailguard["d"], mailguard["s"]) == ("sign", "us.test", "r1 e1")
    assert mailguard["a"] == "rsa-sha256 ed25519-sha256"
    (handed,) = [each for each in findings_of(tree, "ok") if each.startswith("handed over")]
    queue_id = re.findall(r"accepted it as (\w+)", handed)[0]
    assert f"delivery, {queue_id}" in text
    assert "a signature of us.test passes" in text
    assert "DKIM signature 2" in text
    (sent,) = [each for each in site.host.postfix.delivered() if each.recipient == "one@them.test"]
    message = email.message_from_bytes(sent.message)
    assert message["From"] == "postmaster@us.test"
    assert (message["Auto-Submitted"], message["Message-ID"]) == (
        "auto-generated",
        facts(tree, "handed")["Message-ID"],
    )
    assert message["Date"]
    assert b"test message" in sent.message
    # Another one has another id, and the same command as text.
    done = mailguard_command("test", "--send", "one@them.test", *site.arguments)
    assert (done.code, done.out.splitlines()[0]) == (0, "test message to one@them.test: ok")
    assert str(message["Message-ID"]) not in done.out


def test_signed_by_the_domain_above(mailguard_command: Command, site: Site) -> None:
    arguments: list[str | Path] = ["--send", "one@them.test", "--from", "a@sub.us.test", *site.arguments]
    code, tree, text = send(mailguard_command, *arguments, "--mailbox", site.mailbox)
    assert (code, findings_of(tree, "problem", "unknown", "note")) == (0, [])
    assert facts(tree, "mailguard, ")["d"] == "us.test"
    assert "a signature of us.test passes" in text


def test_submitted_with_a_login(mailguard_command: Command, site: Site, tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.write_text(f"{PASSWORD}\nsecond line\n")
    login: list[str | Path] = ["--smtp", site.submission, "--login", ALICE, "--password-file", password]
    code, tree, text = send(mailguard_command, "--send", "two@them.test", *login, *site.arguments)
    assert (code, findings_of(tree, "problem", "unknown", "note")) == (0, [])
    assert f"SMTP to {site.submission}" in text
    assert '"name": "login", "value": "alice@us.test"' in text
    assert ", then " in next(each for each in findings_of(tree, "ok") if each.startswith("handed over")), (
        "content filter"
    )
    # The wrong one, and none.
    password.write_text("wrong")
    code, tree, text = send(mailguard_command, "--send", "two@them.test", *login, *site.arguments)
    assert (code, "535" in text, PASSWORD in text) == (1, True, False)
    code, tree, _ = send(mailguard_command, "--send", "two@them.test", *login[:2], *site.arguments)
    (found,) = findings_of(tree, "problem")
    assert (code, "add --login USER" in found) == (1, True)


def test_an_address_that_looks_like_an_option(mailguard_command: Command, site: Site) -> None:
    """-bv asks sendmail(1) to send nothing but a report."""
    code, tree, _ = send(mailguard_command, "--send", "-bv@them.test", *site.arguments)
    assert code == 1
    assert (facts(tree, "delivery")["dsn"], facts(tree, "delivery")["reply"]) == ("5.1.3", "bad address syntax")


def test_delivered_to_a_server_elsewhere(mailguard_command: Command, site: Site) -> None:
    code, tree, _ = send(mailguard_command, "--send", "250@far.test", *site.arguments)
    assert (code, facts(tree, "delivery")["reply"]) == (0, "250 2.0.0 queued as FAR1")


# -- it does not ---------------------------------------------------------------------------------------------------


def test_its_signature_does_not_verify(mailguard_command: Command, site: Site) -> None:
    zone = site.host.daemon.directory / "zone"
    records = zone.read_text()
    zone.write_text("$TTL 60\n")
    try:
        arguments: list[str | Path] = ["--send", "a@them.test", *site.arguments, "--mailbox", site.mailbox]
        code, tree, text = send(mailguard_command, *arguments)
    finally:
        zone.write_text(records)
    (found,) = findings_of(tree, "problem")
    assert (code, found.partition(" | ")[0]) == (1, "as delivered")
    assert "no signature of us.test passes" in found
    assert "DKIM signature 2" in text


@pytest.mark.parametrize(
    ("recipient", "code", "mark", "words"),
    [
        (
            "451@far.test",
            75,
            "unknown",
            ["deferred (127.0.0.1[127.0.0.1]:", "said 451", "4.7.1", "postqueue -c ", " -i "],
        ),
        ("550@far.test", 1, "problem", ["bounced (127.0.0.1[127.0.0.1]:", "said 550", "knows no such mailbox"]),
        ("552@far.test", 1, "problem", ["bounced (127.0.0.1[127.0.0.1]:", "said 552", "knows no such mailbox"]),
    ],
)
def test_a_receiver_that_refuses(
    mailguard_command: Command, site: Site, recipient: str, code: int, mark: str, words: list[str]
) -> None:
    found, tree, text = send(mailguard_command, "--send", recipient, *site.arguments)
    assert (found, tree["status"]) == (code, mark)
    (delivery,) = [each for each in tree["children"] if each["title"].startswith("delivery")]
    told = json.dumps(delivery)
    for word in words:
        assert word in told
    assert "for you" in facts(tree, "delivery")["reply"]
    assert "signed: d=us.test" in text, "that it left signed is told all the same"
    assert not [each for value in facts(tree, "delivery").values() for each in value if not " " <= each <= "~"]
    if code == 75:
        done = mailguard_command("test", "--send", recipient, *site.arguments)
        assert done.raw.replace(b"\n", b"").isascii()
        assert b"\x1b" not in done.raw
        subprocess.run(
            ["postsuper", "-c", str(site.config), "-d", "ALL", "deferred"], check=True, capture_output=True,
            env=clean_environment(),
        )  # fmt: skip


def test_no_key(mailguard_command: Command, site: Site) -> None:
    code, tree, _ = send(mailguard_command, "--send", "a@them.test", "--from", "b@nokey.test", *site.arguments)
    (found,) = findings_of(tree, "problem")
    assert code == 2
    for word in (
        "not signed: unsigned: no key is configured for nokey.test",
        " | mailguard key new nokey.test",
        "us.test",
    ):
        assert word in found


def test_a_key_of_the_domain_above(mailguard_command: Command, site: Site) -> None:
    daemon = site.host.daemon
    text = daemon.config_file.read_text()
    daemon.config_file.write_text(text.replace("subdomains = true", "subdomains = false"))
    daemon.stop()
    try:
        daemon.start()
        _, tree, _ = send(mailguard_command, "--send", "a@them.test", "--from", "b@sub.us.test", *site.arguments)
    finally:
        daemon.stop()
        daemon.config_file.write_text(text)
        daemon.start()
    (found,) = findings_of(tree, "problem")
    assert f'sub.us.test | set subdomains = true in [domains."us.test"] of {daemon.config_file}; or mail' in found


def test_a_log_that_is_named_twice_is_read_once(mailguard_command: Command, site: Site) -> None:
    again = str(site.host.postfix.directory / "config" / ".." / "mail.log")
    code, tree, _ = send(mailguard_command, "--send", "250@far.test", *site.arguments, "--log", again)
    assert code == 0
    assert json.dumps(tree).count("250 2.0.0 queued as FAR1") == 1
    assert again not in json.dumps(tree)


def test_not_a_domain_of_this_network(mailguard_command: Command, site: Site, tmp_path: Path) -> None:
    code, tree, _ = send(
        mailguard_command,
        "--send",
        "a@them.test",
        "--from",
        "b@other.test",
        *site.arguments,
        "--mailbox",
        site.mailbox,
    )
    assert code == 2
    found = findings_of(tree, "note")
    (judged,) = [each for each in found if "judged as mail from outside" in each]
    # What is to be run puts a table at the end of the configuration, also behind a last line that has no end.
    (command,) = re.findall(
        r"unless a content filter returns mail from there: (printf .*); then systemctl rel", judged
    )
    config = tmp_path / "mailguard.toml"
    config.write_text(site.host.daemon.config_file.read_text().rstrip("\n"))
    before = tomllib.loads(config.read_text())
    named = command.replace(str(site.host.daemon.config_file), str(config))
    assert named != command
    subprocess.run(["/bin/sh", "-ec", named], check=True)
    after = tomllib.loads(config.read_text())
    rule = {"networks": ["127.0.0.1/32"], "domains": ["other.test"]}
    assert after["sign"].pop("networks") == [*before.get("sign", {}).pop("networks", []), rule]
    assert {**before, "sign": after["sign"]} == after
    assert "mailguard key new other.test" in judged
    assert any(each.startswith("as delivered | it has no signature") for each in found)


def test_the_milter_is_down(mailguard_command: Command, site: Site) -> None:
    site.host.daemon.stop()
    code, tree, _ = send(mailguard_command, "--send", "a@them.test", *site.arguments)
    waits, silent = findings_of(tree, "unknown", "problem")
    assert code == 75
    assert "a milter had it wait" in waits
    assert "4.7.1 Service unavailable" in waits
    assert f"connect to Milter service unix:{site.socket}: No such file" in silent
    assert "systemctl start mailguard-milter; mailguard doctor" in silent
    # By SMTP, where the client is told.
    code, tree, text = send(mailguard_command, "--send", "a@them.test", "--smtp", site.submission, *site.arguments)
    assert (code, "refused: 451 4.7.1" in text) == (75, True)
    assert "mailguard doctor" in text
    site.change("default_action=tempfail", "default_action=accept")
    code, tree, text = send(mailguard_command, "--send", "a@them.test", *site.arguments)
    assert (code, "delivered to maildir" in text) == (2, True)
    (found,) = findings_of(tree, "problem")
    assert f"connect to Milter service unix:{site.socket}" in found


def test_another_milter_is_down(mailguard_command: Command, site: Site) -> None:
    site.change("\nnon_smtpd_milters = ", "\nnon_smtpd_milters = inet:127.0.0.1:1, ")
    code, tree, _ = send(mailguard_command, "--send", "a@them.test", *site.arguments)
    assert code == 75
    assert [each for each in findings_of(tree, "problem") if "this milter is not mailguard" in each]


def test_postfix_does_not_name_mailguard(mailguard_command: Command, site: Site) -> None:
    site.change("\nnon_smtpd_milters = ", "\n#non_smtpd_milters = ")
    code, tree, _ = send(mailguard_command, "--send", "a@them.test", *site.arguments, "--wait", "60")
    assert code == 2, site.host.postfix.log()[-5000:]
    (found,) = findings_of(tree, "problem")
    assert "mailguard was not asked: non_smtpd_milters (main.cf) does not name it; it is empty" in found
    # The command that it names is the one that mends it.
    command = found.partition(" | mailguard was")[2].partition(" | ")[2]
    site.host.run(command.partition("; ")[0])
    site.reload()
    assert send(mailguard_command, "--send", "a@them.test", *site.arguments)[0] == 0


def test_the_daemons_log_is_not_among_those_watched(mailguard_command: Command, site: Site) -> None:
    code, tree, _ = send(mailguard_command, "--send", "a@them.test", *site.arguments[:-2], "--mailbox", site.mailbox)
    (found,) = findings_of(tree, "unknown")
    assert "no line of mailguard's about it" in found
    assert "--log FILE" in found
    assert code == 0, "the copy has its signature"


def test_time_is_over(mailguard_command: Command, site: Site, tmp_path: Path) -> None:
    empty = tmp_path / "empty.log"
    empty.touch()
    started = time.monotonic()
    code, tree, _ = send(
        mailguard_command, "--send", "a@them.test", *site.host.options, "--log", str(empty), "--wait", "1"
    )
    # Without the option it watches for 60 s.
    assert (code, time.monotonic() - started < 55) == (75, True)
    assert any(f"no line of {empty} names it within 1 s" in each for each in findings_of(tree, "unknown"))


def test_held_by_header_checks(mailguard_command: Command, site: Site) -> None:
    site.change("\nnon_smtpd_milters = ", "\nheader_checks = static:HOLD\nnon_smtpd_milters = ")
    code, tree, _ = send(mailguard_command, "--send", "a@them.test", *site.arguments)
    (found,) = [each for each in findings_of(tree, "problem") if each.startswith("handed over")]
    assert code == 1
    assert "cleanup(8) put it into quarantine" in found
    queue_id = re.findall(r"postsuper -c \S+ -H (\w+)", found)[0]
    assert queue_id in site.host.postfix.held()


# -- mistakes ------------------------------------------------------------------------------------------------------


def test_postfix_is_not_running(mailguard_command: Command, site: Site) -> None:
    site.host.run(f"postfix -c {site.config} stop")
    try:
        code, tree, _ = send(mailguard_command, "--send", "stopped@them.test", *site.arguments)
        assert (code, findings_of(tree, "problem")) == (
            1,
            [
                "handed over | it was not handed over: Postfix is not running | is Postfix running? postfix start, or"
                " systemctl start postfix; then run this again"
            ],
        )
        code, tree, text = send(
            mailguard_command, "--send", "a@them.test", "--smtp", site.submission, *site.arguments
        )
        assert (code, "Connection refused" in text) == (75, True)
    finally:
        site.host.run(f"postfix -c {site.config} start")
    assert send(mailguard_command, "--send", "started@them.test", *site.arguments)[0] == 0
    recipients = [each.recipient for each in site.host.postfix.delivered()]
    assert "started@them.test" in recipients
    assert "stopped@them.test" not in recipients, "what is said not to be sent is not"


def test_a_log_that_cannot_be_read(mailguard_command: Command, site: Site, tmp_path: Path) -> None:
    before = len(site.host.postfix.log())
    for log, words in ((tmp_path / "none", "No such file"), (tmp_path, "Is a directory")):
        done = mailguard_command("test", "--send", "a@them.test", *site.host.options, "--log", log)
        assert (done.code, done.out, done.err.count("\n")) == (78, "", 1)
        assert f"{log}: the log cannot be read: {words}" in done.err
        assert "Nothing was sent" in done.err
    assert "pickup" not in site.host.postfix.log()[before:]


def test_mistakes_are_one_plain_line(mailguard_command: Command, site: Site, tmp_path: Path) -> None:
    mailbox = tmp_path / "link"
    mailbox.symlink_to("nowhere")
    rows: list[tuple[list[str], int, str]] = [
        ([], 64, "--send"),
        (["--send", "root"], 64, "is not an address"),
        (["--send", "a@us.test\nBcc: b@x.test"], 64, "is not an address"),
        (["--send", "a b@us.test"], 64, "is not an address"),
        (["--send", "a@b@us.test"], 64, "is not an address"),
        (["--send", "a@us..test"], 64, "--send"),
        (["--send", "a@us.test", "--from", "x"], 64, "is not an address"),
        (["--send", "a@us.test", "--smtp", "a b"], 64, "is not HOST"),
        (["--send", "a@us.test", "--smtp", "a:0"], 64, "is no port"),
        (["--send", "a@us.test", "--login", "x"], 64, "--login with --smtp"),
        (["--send", "a@us.test", "--smtp", "a", "--password-file", "x"], 64, "goes with --login"),
        (["--send", "a@us.test", "--smtp", "a", "--login", "x"], 64, "no terminal to ask"),
        (["--send", "a@us.test", "--smtp", "a", "--login", "x", "--password-file", "none"], 64, "none: No such file"),
        (["--send", "a@us.test", "--mailbox", str(mailbox)], 78, "cannot be read"),
        (["--send", "a@us.test", "--wait", "0"], 64, "--wait"),
        (["--send", "a@us.test", "-c", "none"], 78, "none: "),
        (["--send", "a@us.test", "--postconf", "no-such"], 78, "is Postfix installed?"),
    ]
    before = len(site.host.postfix.log())
    for arguments, code, words in rows:
        done = mailguard_command("test", *site.arguments, *arguments)
        assert (done.code, done.out, done.err.count("\n")) == (code, "", 1), (arguments, done.err)
        assert words in done.err
    assert "pickup" not in site.host.postfix.log()[before:], "nothing was sent"
