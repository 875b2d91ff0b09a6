"""The command line as users call it: what it prints, its exit codes, and what it does to files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import dkim
import pytest

import mailguard.cli.key
import mailguard.cli.key_files
import mailguard.cli.verify
from cli_process import MAIL, NOW, PYTHON, Command, Keys, is_told_in_one_line, on_a_terminal
from mailguard.dns.question import Status
from mailguard.dns.zone import ZoneResolver
from mailguard.errors import install_command

# sign


def test_the_message_is_written_as_it_came(mailguard_command: Command, keys: Keys) -> None:
    assert keys.signed.endswith(b"\n" + MAIL)
    assert b"\r" not in keys.signed
    crlf = MAIL.replace(b"\n", b"\r\n")
    done = mailguard_command("sign", *keys.options, "--now", NOW, stdin=crlf)
    assert done.raw == keys.signed.replace(b"\n", b"\r\n")
    assert done.raw.count(b"DKIM-Signature:") == 2
    assert mailguard_command("verify", "--now", NOW, "--zone", keys.zone, stdin=done.raw).code == 0


@pytest.mark.parametrize("form", ["simple/simple", "simple/relaxed", "relaxed/simple"])
def test_canonicalization(mailguard_command: Command, keys: Keys, form: str) -> None:
    done = mailguard_command("sign", *keys.options, "--canonicalization", form, stdin=MAIL)
    assert f"c={form};".encode() in done.raw
    assert mailguard_command("verify", "--zone", keys.zone, stdin=done.raw).code == 0


def test_what_is_not_signed(mailguard_command: Command, keys: Keys) -> None:
    done = mailguard_command("sign", *keys.options, stdin=b"Subject: x\n\ntext\n")
    assert (done.code, done.out, done.err) == (1, "", "mailguard: not signed: there is no From field\n")


NOT_OURS = "From is of {}, not of {}: DMARC gains only if both have one Organizational Domain\n"


@pytest.mark.parametrize(
    ("author", "domain", "noted"),
    [
        ("example.com", "example.com", False),
        ("news.example.com", "example.com", False),
        ("example.com", "mail.example.com", False),
        ("example.org", "example.com", True),
        ("news.example.com", "mail.example.com", True),
    ],
)
def test_signing_for_another_author_is_noted(
    mailguard_command: Command, keys: Keys, author: str, domain: str, noted: bool
) -> None:
    options = [domain if option == "example.com" else option for option in keys.options]
    done = mailguard_command("sign", *options, stdin=MAIL.replace(b"a@example.com", b"a@" + author.encode()))
    assert f"d={domain};" in done.out
    assert (done.code, done.err) == (0, "mailguard: note: " + NOT_OURS.format(author, domain) if noted else "")


# verify


def test_a_signed_message_passes(mailguard_command: Command, keys: Keys) -> None:
    done = mailguard_command("verify", keys.message, "--zone", keys.zone, "--now", NOW)
    assert (done.code, done.err) == (0, "")
    lines = done.out.splitlines()
    assert lines[:3] == ["pass: 2 of 2 signatures pass", "From: example.com", "signature 1: pass"]
    assert "d=example.com, s=r1, i=@example.com, a=rsa-sha256, b=" in lines[4]
    assert "key of 2048 bits" in lines[4]
    assert "dkimpy" not in done.out
    assert "\x1b" not in done.out


@pytest.mark.parametrize(
    ("change", "code", "said"),
    [
        (lambda mail: mail, 0, "pass: 2 of 2 signatures pass"),
        (lambda mail: mail.replace(b"s=e1", b"s=e9"), 0, "pass: 1 of 2 signatures passes"),
        (lambda mail: mail.replace(b"Good", b"Bad"), 1, "reason: body-hash: "),
        (lambda mail: mail.replace(b"hello", b"hallo"), 1, "reason: signature: "),
        (lambda mail: mail.replace(b"d=example.com", b"d=example.net"), 1, "reason: key-missing: "),
        (
            lambda mail: b"A: b\r\n" * 1_000 + mail,
            1,
            "fail: 2 signatures were not verified: the header has more than",
        ),
        (lambda mail: b"A: b\r\n" * 1_000 + MAIL, 2, "none: the message has no DKIM signature"),
        (lambda mail: b"A: \0\r\n" + mail, 1, "fail: 2 of 2 signatures pass, but the message is malformed"),
        (lambda mail: MAIL, 2, "none: the message has no DKIM signature"),
        (
            lambda mail: b"From a@b Mon Jan  1 00:00:00 2024\n" + mail,
            2,
            "none: there is no DKIM signature in the part",
        ),
        (lambda mail: b"", 2, "From: malformed (no-from)"),
        (lambda mail: b"\0\xff" * 100, 2, "From: malformed"),
    ],
)
def test_exit_codes_of_verify(
    mailguard_command: Command, keys: Keys, change: Callable[[bytes], bytes], code: int, said: str
) -> None:
    done = mailguard_command("verify", "-", "--zone", keys.zone, "--now", NOW, stdin=change(keys.signed))
    assert (done.code, done.err) == (code, "")
    assert said in done.out


@pytest.mark.attack("D07")
@pytest.mark.parametrize("more", [b"From: ceo@bank.test\n", b"from: a@example.com\n"])
def test_a_second_from_above_a_signature_that_has_one(mailguard_command: Command, keys: Keys, more: bytes) -> None:
    """Neither a script nor a reader is to take the message for that of the domain which signed a part of it."""
    _, selector, path = (keys.options[keys.options.index(name) + 1] for name in ("--domain", "--selector", "--key"))
    made = dkim.sign(MAIL, selector.encode(), b"example.com", Path(path).read_bytes(), include_headers=[b"from"])
    signed = made.replace(b"\r\n", b"\n") + MAIL
    assert mailguard_command("verify", "--zone", keys.zone, stdin=signed).code == 0
    done = mailguard_command("verify", "--zone", keys.zone, stdin=more + signed)
    assert (done.code, done.out.splitlines()[:2]) == (
        1,
        [
            "fail: 1 of 1 signatures passes, but the message is malformed",
            "From: malformed (several-from): there are 2 From fields",
        ],
    )
    done = mailguard_command("verify", "--zone", keys.zone, "--json", stdin=more + signed)
    assert (done.code, json.loads(done.out)["result"]) == (1, "fail")


def test_a_key_that_cannot_be_looked_up_is_temporary(
    mailguard_command: Command, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing = {(f"{selector}._domainkey.example.com", "TXT"): Status.TEMPFAIL for selector in ("r1", "e1")}
    resolver = ZoneResolver({}, status=failing)
    monkeypatch.setattr(mailguard.cli.verify, "open_resolver", lambda config: resolver)
    done = mailguard_command("verify", keys.message, "--now", NOW, "--second-opinion")
    assert done.code == 75
    assert done.out.startswith("temperror: 0 of 2")
    assert done.out.count("they differ: dkimpy says False where the DNS gives no answer") == 2
    # Also of a message that will not pass, as the help has it.
    malformed = b"From: ceo@bank.test\n" + Path(keys.message).read_bytes()
    assert mailguard_command("verify", "--now", NOW, stdin=malformed).code == 75


def test_json_and_second_opinion(mailguard_command: Command, keys: Keys) -> None:
    arguments = ("verify", keys.message, "--zone", keys.zone, "--now", NOW, "--json")
    report = json.loads(mailguard_command(*arguments).out)
    assert (report["result"], report["author_domains"], report["malformed"]) == ("pass", ["example.com"], None)
    assert [each["selector"] for each in report["signatures"]] == ["r1", "e1"]
    assert "second_opinion" not in report["signatures"][0]
    report = json.loads(mailguard_command(*arguments, "--second-opinion").out)
    opinion = report["signatures"][0]["second_opinion"]
    # The message is of 2023 and dkimpy knows no other time than now.
    assert (opinion["by"], opinion["verdict"]) == ("dkimpy", "fail")
    assert "reads the clock itself" in opinion["difference"]


def test_signatures_under_too_many_fields_are_not_verified_and_not_absent(
    mailguard_command: Command, keys: Keys
) -> None:
    flood = b"A: b\r\n" * 1_000
    done = mailguard_command("verify", "--zone", keys.zone, "--now", NOW, "--json", stdin=flood + keys.signed)
    report = json.loads(done.out)
    assert (done.code, report["result"], report["signatures"], report["signatures_not_verified"]) == (
        1,
        "fail",
        [],
        2,
    )
    assert (report["malformed"], report["malformed_detail"][:20]) == ("header-size", "the header has more ")
    one = flood + b"DKIM-Signature: v=1\r\n" + MAIL
    done = mailguard_command("verify", "--zone", keys.zone, "--second-opinion", stdin=one)
    assert done.out.startswith("fail: 1 signature was not verified: the header has more than 1000 fields or ")


def test_the_second_opinion_stands_beside_its_signature(mailguard_command: Command, keys: Keys) -> None:
    now = mailguard_command("sign", *keys.options, stdin=MAIL).raw
    top = b"DKIM-Signature: v=1; a=rsa-sha256; d=other.test; s=x; h=from; bh=AAAA; b=AAAA\n" * 9
    done = mailguard_command("verify", "--zone", keys.zone, "--second-opinion", "--json", stdin=top + now)
    report = json.loads(done.out)
    assert report["signatures_not_verified"] == 1
    assert len(report["signatures"]) == 10
    # Ours are verified first and stand last: dkimpy's verdict on them is of the 10th and 11th field.
    last = report["signatures"][-2:]
    assert [each["selector"] for each in last] == ["r1", "e1"]
    assert [each["second_opinion"]["verdict"] for each in last] == ["pass", "not asked"]


@pytest.mark.parametrize(
    ("identity", "shown"),
    [
        ("\x1b[2Jx@example.com", "reason: syntax: "),
        ("=1B[2Jx@example.com", "i==1B[2Jx@example.com"),
        ("\N{RIGHT-TO-LEFT OVERRIDE}x@example.com", "i=\\u202ex@example.com"),
        ("[red]x@example.com", "i=[red]x@example.com"),
    ],
)
def test_strangers_text_cannot_steer_the_terminal(
    mailguard_command: Command, keys: Keys, identity: str, shown: str
) -> None:
    signature = (
        f"DKIM-Signature: v=1; a=rsa-sha256; d=example.com; s=r1; h=from; bh={'A' * 43}=; b=AAAA; i={identity}\n"
    )
    arguments = ["verify", "--zone", str(keys.zone), "--second-opinion"]
    mail = signature.encode() + MAIL
    done = mailguard_command(*arguments, stdin=mail)
    assert done.code == 1
    assert shown in done.out
    assert not [c for c in done.out if not c.isprintable() and c != "\n"]
    # On a terminal rich must not take brackets for its markup.
    keys.message.write_bytes(mail)
    environment = {**os.environ, "TERM": "xterm", "NO_COLOR": "1", "COLUMNS": "200", "PYTHONIOENCODING": "utf-8"}
    assert shown in on_a_terminal([*arguments, str(keys.message)], environment)


@pytest.mark.parametrize("command", ["explain", "verify"])
def test_the_name_of_a_file_cannot_steer_the_terminal(
    mailguard_command: Command, tmp_path: Path, command: str
) -> None:
    """Root looks at the mail of a user, who calls his files what he likes."""
    directory = tmp_path / "\x1b]0;own\x07\N{RIGHT-TO-LEFT OVERRIDE}"
    directory.mkdir()
    done = mailguard_command(command, str(directory))
    assert done.code == 64
    assert done.err.isascii()
    assert not [c for c in done.err if not c.isprintable() and c != "\n"]
    assert "\\x1b]0;own\\x07\\u202e" in done.err


def test_a_tree_on_a_terminal(keys: Keys) -> None:
    environment = {**os.environ, "TERM": "xterm-256color", "PYTHONIOENCODING": "utf-8"}
    environment.pop("NO_COLOR", None)
    arguments = ["verify", str(keys.message), "--zone", str(keys.zone), "--now", NOW]
    coloured = on_a_terminal(arguments, environment)
    assert "\x1b[32mpass" in coloured
    assert "\N{BOX DRAWINGS LIGHT VERTICAL AND RIGHT}" in coloured
    plain = on_a_terminal(arguments, {**environment, "NO_COLOR": "1"})
    assert "\x1b[32m" not in plain
    assert "signature 2: pass" in plain


# What a user may do wrong


MISTAKES = [
    ([], 64, "Missing command"),
    (["bogus"], 64, "No such command"),
    (["verify", "--bogus"], 64, "No such option"),
    (["verify", "a", "b"], 64, "extra argument"),
    (["verify", "missing.eml"], 64, "missing.eml: No such file or directory"),
    (["verify", "."], 64, ".: Is a directory"),
    (["verify", "--now", "nan"], 64, "nan"),
    (["verify", "--zone", "missing.zone"], 78, "missing.zone"),
    (["verify", "--zone", "signed.eml"], 78, "signed.eml:1: "),
    (["key"], 64, "Missing command"),
    (["key", "new"], 64, "DOMAIN"),
    (["key", "new", "no domain"], 64, "'no domain' is not a domain name"),
    (["key", "new", "a.test", "--only", "rsa", "--selector", "../x"], 64, "'../x' is not a selector"),
    (["key", "new", "a.test", "--selector", "x"], 64, "give --selector twice"),
    (["key", "new", "a.test", "--selector", "x", "--selector", "X"], 64, "different selectors"),
    (["key", "new", "a.test", "--directory", "signed.eml"], 78, "Not a directory"),
    (["key", "new", "a.test", "--directory", "/proc/no"], 78, "cannot store a key"),
    (["key", "new", "a.test", "--owner", "no-such-user"], 78, "there is no user no-such-user"),
    (["key", "test", "a.test"], 64, "go together"),
    (["key", "test", "a.test", "s", "k", "-c", "x"], 64, "either"),
    (["key", "test", "-c", "missing.toml"], 78, "missing.toml: cannot be read: No such file"),
    (["key", "test", "-c", "signed.eml"], 78, "not TOML"),
    (["sign"], 64, "--domain"),
    (["sign", "--domain", "a.test", "--selector", "s"], 64, "--key"),
    (["sign", "--domain", "a.test", "--selector", "s", "--key", "missing"], 78, "missing"),
    (["sign", "--domain", "a.test", "--selector", "s", "--key", "signed.eml"], 78, "signed.eml"),
    (["sign", "--domain", "a.test", "--selector", "s", "--key", "k", "--key", "k"], 64, "in pairs"),
    (["sign", "--domain", "a..test", "--selector", "s", "--key", "k"], 64, "'a..test' is not a domain name"),
]


@pytest.mark.parametrize(
    ("arguments", "code", "said"), MISTAKES, ids=[" ".join(row[0]) or "nothing" for row in MISTAKES]
)
def test_a_mistake_is_one_plain_line(
    mailguard_command: Command, keys: Keys, arguments: list[str], code: int, said: str
) -> None:
    done = mailguard_command(*arguments)
    is_told_in_one_line(done, code, said)


def test_every_problem_of_a_configuration_is_a_line(mailguard_command: Command, tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_text("a = 1\nb = 2\n")
    done = mailguard_command("key", "test", "-c", "bad.toml")
    assert done.code == 78
    assert [line.split(":")[:3] for line in done.err.splitlines()] == [
        ["mailguard", " bad.toml", "1"],
        ["mailguard", " bad.toml", "2"],
    ]


# As processes


def test_as_a_module(keys: Keys) -> None:
    done = subprocess.run(
        [*PYTHON, "verify", "--zone", str(keys.zone), "--now", NOW],
        input=keys.signed,
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.startswith(b"pass: 2 of 2")


@pytest.mark.parametrize("verb", ["verify", "sign"])
def test_a_full_disk_and_a_closed_pipe_end_without_traceback(keys: Keys, verb: str) -> None:
    options = keys.options if verb == "sign" else ("--zone", str(keys.zone), "--now", NOW)
    arguments = [*PYTHON, verb, str(keys.message), *options]
    # Buffered, as users run it: what is written last fails when the command is over.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    with open("/dev/full", "wb") as full:
        done = subprocess.run(arguments, stdout=full, stderr=subprocess.PIPE, env=environment, check=False)
    assert done.returncode == 78
    assert done.stderr == b"mailguard: standard output: No space left on device\n"
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(arguments, stdout=writer, stderr=subprocess.PIPE, env=environment, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, b"")


@pytest.mark.parametrize("package", ["click", "rich", "pydantic"])
def test_a_missing_extra_is_named(package: str) -> None:
    program = f"import sys; sys.modules[{package!r}] = None; import mailguard.cli; mailguard.cli.main()"
    done = subprocess.run(
        [sys.executable, "-c", program, "check", "a.test"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 78
    assert done.stderr.startswith("mailguard: ")
    assert done.stderr.rstrip().endswith(f"needs {package}; install it with: {install_command('cli')}")


def test_who_starts_it_may_ignore_the_end_of_children() -> None:
    program = (
        "import signal, sys; signal.signal(signal.SIGCHLD, signal.SIG_IGN); sys.argv = ['mailguard', '--help']\n"
        "import mailguard.cli\n"
        "try:\n    mailguard.cli.main()\n"
        "finally:\n    print(signal.getsignal(signal.SIGCHLD).name)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stdout.endswith("\nSIG_DFL\n")


def test_a_stream_that_was_closed_is_nobodys_socket() -> None:
    program = (
        "import os, sys; sys.argv = ['mailguard', '--help']\n"
        "import mailguard.cli\n"
        "kept = os.dup(1)\n"
        "for each in range(3):\n    os.close(each)\n"
        "try:\n    mailguard.cli.main()\n"
        "finally:\n    os.write(kept, ' '.join(os.readlink(f'/proc/self/fd/{each}') for each in range(3)).encode())\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stdout == "/dev/null /dev/null /dev/null"


@pytest.mark.parametrize(("option", "said"), [("-u", "a"), ("-B", "")])
def test_python_without_buffers_has_none(option: str, said: str) -> None:
    program = (
        "import os, mailguard.cli.group\n"
        "from mailguard.cli import main\n"
        "def ended(arguments): print('a', end=''); os._exit(0)\n"
        "mailguard.cli.group.run = ended\n"
        "main()\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    words = [sys.executable, option, "-c", program]
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=environment)
    assert done.stdout == said


def test_who_is_interrupted_before_there_is_a_command_is_told_so() -> None:
    program = (
        "import mailguard.cli.group\n"
        "from mailguard.cli import main\n"
        "def interrupted(arguments): raise KeyboardInterrupt\n"
        "mailguard.cli.group.run = interrupted\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (130, "mailguard: interrupted\n")
