"""`mailguard explain` and `mailguard spf check` as users call them: what they print, and their exit codes."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

import mailguard.cli.explain
import mailguard.cli.spf
from cli_process import NOW, Command, Keys, is_told_in_one_line, on_a_terminal
from mailguard.dns.question import Status
from mailguard.dns.zone import ZoneResolver

ZONE = """\
bank.test. IN TXT "v=spf1 ip4:192.0.2.10 include:out.test -all"
out.test. IN TXT "v=spf1 ip4:192.0.2.20 -all"
_dmarc.bank.test. IN TXT "v=DMARC1; p=reject; rua=mailto:d@bank.test"
evil.test. IN TXT "v=spf1 ip4:198.51.100.66 -all"
_dmarc.hold.test. IN TXT "v=DMARC1; p=quarantine"
10.2.0.192.in-addr.arpa. IN PTR mx.bank.test.
mx.bank.test. IN A 192.0.2.10
"""
MAIL = b"From: <ceo@bank.test>\nSubject: hello\n\nGood day\n"
GOOD = ("--ip", "192.0.2.10", "--helo", "mx.bank.test", "--mail-from", "ceo@bank.test")
EVIL = ("--ip", "198.51.100.66", "--helo", "evil.test", "--mail-from", "x@evil.test")


@pytest.fixture
def bank(tmp_path: Path) -> tuple[str, ...]:
    """The options for a zone with a bank and its imitator."""
    (tmp_path / "bank.zone").write_text(ZONE)
    (tmp_path / "mail.eml").write_bytes(MAIL)
    return ("--zone", "bank.zone", "--now", NOW)


# explain


@pytest.mark.parametrize(
    ("mail", "client", "code", "said"),
    [
        pytest.param(MAIL, GOOD, 0, "message: accept (no-objection)\n", id="spf aligned"),
        pytest.param(MAIL, EVIL, 1, "message: reject (dmarc-reject)\n", id="forged"),
        pytest.param(
            MAIL.replace(b"bank", b"hold"), EVIL, 1, "message: quarantine (dmarc-quarantine)\n", id="quarantine"
        ),
        pytest.param(MAIL.replace(b"bank", b"no"), EVIL, 0, "DMARC: none (no-record)\n", id="no record"),
        pytest.param(b"Subject: x\n\n", EVIL, 1, "From: malformed (no-from)\n", id="no From"),
        pytest.param(b"", EVIL, 1, "message: reject (malformed)\n", id="nothing"),
        pytest.param(b"\0\xff\x1b" * 100, EVIL, 1, "message: reject (malformed)\n", id="rubbish"),
        pytest.param(MAIL, (*GOOD[:5], ""), 1, "reverse path: <>, for which postmaster", id="null sender"),
        pytest.param(MAIL, (*GOOD[:5], "<ceo@bank.test>"), 0, "reverse path: <ceo@bank.test>\n", id="angle brackets"),
        pytest.param(MAIL, ("--ip", "127.0.0.1", "--mail-from", ""), 0, "accept (internal-client)", id="our own"),
    ],
)
def test_exit_codes(
    mailguard_command: Command, bank: tuple[str, ...], mail: bytes, client: tuple[str, ...], code: int, said: str
) -> None:
    done = mailguard_command("explain", *client, *bank, stdin=mail)
    assert (done.code, done.err) == (code, "")
    assert said in done.out
    assert "\x1b" not in done.out


def test_a_file_and_the_order_of_the_tree(mailguard_command: Command, bank: tuple[str, ...]) -> None:
    done = mailguard_command("explain", "mail.eml", *GOOD, *bank)
    titles = [
        line.strip().partition(":")[0] for line in done.out.splitlines() if line.startswith("  ") and line[2] != " "
    ]
    wanted = ["From", "SPF", "HELO", "iprev", "DKIM", "DMARC", "decision", "look-ups"]
    assert [title for title in titles if title in wanted] == wanted
    assert "name: mx.bank.test" in done.out


def test_an_outage_is_temporary(
    mailguard_command: Command, bank: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    resolver = ZoneResolver({}, status={("_dmarc.bank.test", "TXT"): Status.TEMPFAIL})
    monkeypatch.setattr(mailguard.cli.explain, "open_resolver", lambda config: resolver)
    done = mailguard_command("explain", "mail.eml", *EVIL)
    assert done.code == 75
    assert "reply: 451 4.7.0 " in done.out


def test_without_a_client_dmarc_is_judged_by_dkim_alone(mailguard_command: Command, keys: Keys) -> None:
    zone = keys.zone.read_text() + '\n_dmarc.example.com. IN TXT "v=DMARC1; p=reject"\n'
    keys.zone.write_text(zone)
    done = mailguard_command("explain", keys.message, "--zone", keys.zone, "--now", NOW)
    assert done.code == 0
    assert "SPF: not checked\n    the client's address and the reverse path are not known" in done.out
    assert "DKIM example.com s=r1: aligned (pass)" in done.out
    changed = keys.signed.replace(b"Good", b"Bad")
    done = mailguard_command("explain", "--zone", keys.zone, "--now", NOW, stdin=changed)
    assert done.code == 1
    assert "DKIM signature 1: fail (body-hash)" in done.out
    assert "rule spf-" not in done.out


def test_json(mailguard_command: Command, bank: tuple[str, ...]) -> None:
    done = mailguard_command("explain", "mail.eml", *EVIL, *bank, "--json")
    report = json.loads(done.out)
    assert (report["title"], report["status"], report["reason"]) == ("message", "reject", "dmarc-reject")
    assert {each["title"]: each["status"] for each in report["children"]} == {
        "From": "ok",
        "SPF": "pass",
        "HELO": "pass",
        "iprev": "permerror",
        "DKIM": "none",
        "DMARC": "fail",
        "decision": "reject",
        "look-ups": "",
    }


def test_by_the_daemons_configuration(mailguard_command: Command, bank: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "m.toml").write_text('mode = "monitor"\n[dns]\nzone_file = "bank.zone"\n[spf]\ncheck_helo = false\n')
    done = mailguard_command("explain", "mail.eml", *EVIL, "-c", "m.toml")
    assert (done.code, done.err) == (1, "")
    assert "decision: accept (dmarc-reject)" in done.out
    assert "enforcing would do: reject" in done.out
    assert "HELO:" not in done.out
    (tmp_path / "a.toml").write_text('mode = "enforce"\n[policy.dmarc]\nreject = "header"\n')
    done = mailguard_command("explain", "mail.eml", *EVIL, "-c", "a.toml", *bank)
    assert done.code == 0
    assert "message: header (dmarc-reject)" in done.out


HOSTILE = (
    b'From: "\x1b[2J" <ceo@bank.test>\n'
    b"DKIM-Signature: v=1; a=\x1b]0;x\x07; i=[red]\xe2\x80\xae@bank.test; d=bank.test\n\nx\n"
)
HOSTILE_OPTIONS = (
    "--ip",
    "198.51.100.66",
    "--helo",
    "\x1b[1mx",
    "--mail-from",
    "\N{RIGHT-TO-LEFT OVERRIDE}[red]@evil.test",
)


def test_strangers_text_cannot_steer_the_terminal(
    mailguard_command: Command, bank: tuple[str, ...], tmp_path: Path
) -> None:
    done = mailguard_command("explain", *HOSTILE_OPTIONS, *bank, stdin=HOSTILE)
    assert not [character for character in done.out if not " " <= character <= "~" and character != "\n"]
    assert "\\u202e[red]@evil.test" in done.out
    (tmp_path / "hostile.eml").write_bytes(HOSTILE)
    environment = {**os.environ, "TERM": "xterm", "NO_COLOR": "1", "COLUMNS": "300", "PYTHONIOENCODING": "utf-8"}
    arguments = ["explain", str(tmp_path / "hostile.eml"), *HOSTILE_OPTIONS, "--zone", str(tmp_path / "bank.zone")]
    shown = on_a_terminal(arguments, environment)
    assert "\\u202e[red]@evil.test" in shown
    assert "\x1b[2J" not in shown
    assert "\x1b]0" not in shown


def test_a_tree_on_a_terminal(bank: tuple[str, ...], tmp_path: Path) -> None:
    environment = {**os.environ, "TERM": "xterm-256color", "PYTHONIOENCODING": "utf-8"}
    environment.pop("NO_COLOR", None)
    arguments = ["explain", str(tmp_path / "mail.eml"), *EVIL, "--zone", str(tmp_path / "bank.zone")]
    coloured = on_a_terminal(arguments, environment)
    assert "\x1b[31m: reject (dmarc-reject)" in coloured
    assert "\N{BOX DRAWINGS LIGHT VERTICAL AND RIGHT}" in coloured
    plain = on_a_terminal(arguments, {**environment, "NO_COLOR": "1"})
    assert "\x1b[31m" not in plain
    assert "\x1b[1mDMARC\x1b[0m: fail (not-aligned)" in plain


# spf check


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        pytest.param(("--ip", "192.0.2.10", "--mail-from", "a@bank.test"), 0, ["SPF: pass (match)"], id="pass"),
        pytest.param(
            ("--ip", "192.0.2.20", "--mail-from", "a@bank.test"),
            0,
            [
                "look-ups: 1 of 10",
                "voids: 0 of 2",
                "  include:out.test: record\n    record: v=spf1 ip4:192.0.2.20 -all",
            ],
            id="by an include",
        ),
        pytest.param(
            ("--ip", "192.0.2.30", "--mail-from", "a@bank.test"),
            1,
            ["SPF: fail (match)", "write ip4:192.0.2.30 into the TXT record of bank.test"],
            id="fail",
        ),
        pytest.param(
            ("--ip", "192.0.2.30", "--mail-from", "a@no.test"), 1, ["SPF: none (no-record)"], id="no record"
        ),
        pytest.param(("--ip", "198.51.100.66", "--helo", "evil.test"), 0, ["HELO: pass (match)"], id="HELO alone"),
        pytest.param(
            ("--ip", "198.51.100.66", "--helo", "evil.test", "--mail-from", ""),
            0,
            ["SPF: pass (match)", "postmaster at the HELO name"],
            id="null sender",
        ),
        pytest.param(
            ("--ip", "192.0.2.10", "--mail-from", "<a@bank.test>"), 0, ["reverse path: <a@bank.test>\n"], id="<>"
        ),
        pytest.param(("--ip", "::1", "--mail-from", "@"), 1, ["SPF: "], id="no address"),
    ],
)
def test_spf_check(
    mailguard_command: Command, bank: tuple[str, ...], options: tuple[str, ...], code: int, said: list[str]
) -> None:
    done = mailguard_command("spf", "check", *options, *bank)
    assert (done.code, done.err) == (code, "")
    for each in said:
        assert each in done.out


def test_spf_check_when_the_dns_is_silent(mailguard_command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    resolver = ZoneResolver({}, status={("bank.test", "TXT"): Status.TEMPFAIL})
    monkeypatch.setattr(mailguard.cli.spf, "open_resolver", lambda config: resolver)
    done = mailguard_command("spf", "check", "--ip", "192.0.2.1", "--mail-from", "a@bank.test", "--json")
    assert done.code == 75
    assert json.loads(done.out)["reason"] == "dns"


# What a user may do wrong


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["explain", "missing.eml"], 64, "missing.eml: No such file or directory"),
        (
            ["explain", "mail.eml", "--ip", "192.0.2.1"],
            64,
            "--ip and --mail-from go together; --mail-from is missing",
        ),
        (["explain", "mail.eml", "--mail-from", "a@b.test"], 64, "--ip is missing"),
        (["explain", "mail.eml", "--helo", "b.test"], 64, "--helo needs --ip and --mail-from"),
        (["explain", "mail.eml", "--ip", "192.0.2.300", "--mail-from", ""], 64, "'192.0.2.300' is not an IP address"),
        (["explain", "mail.eml", "-c", "missing.toml"], 78, "missing.toml: cannot be read"),
        (["explain", "mail.eml", "--zone", "missing.zone"], 78, "missing.zone"),
        (["spf"], 64, "Missing command"),
        (["spf", "check"], 64, "--ip is missing"),
        (["spf", "check", "--ip", "192.0.2.1"], 64, "give --mail-from, or --helo"),
        (["spf", "check", "--ip", "192.0.2.1", "--mail-from", ""], 64, "a null reverse path"),
    ],
)
def test_a_mistake_is_one_plain_line(
    mailguard_command: Command, bank: tuple[str, ...], arguments: list[str], code: int, said: str
) -> None:
    done = mailguard_command(*arguments)
    is_told_in_one_line(done, code, said)


@pytest.mark.parametrize("arguments", [["--help"], ["explain", "--help"], ["spf", "check", "--help"]])
def test_help_tells_the_exit_codes(mailguard_command: Command, arguments: list[str]) -> None:
    done = mailguard_command(*arguments)
    assert done.code == 0
    assert "75" in done.out
