"""The command line as users call it: what it prints, its exit codes, and what it does to files."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from datetime import date
from pathlib import Path

import pytest

import mailguard.cli.key
import mailguard.cli.key_files
import mailguard.cli.verify
from mailguard.cli.group import run
from mailguard.cli.key import default_selector, zone_line
from mailguard.cli.key_files import store_keys
from mailguard.cli.verify_report import ADVICE
from mailguard.dkim.result import DkimReason
from mailguard.dkim.signing_key import KeyCheck, SigningKey, generate_rsa
from mailguard.dns.question import Question, RecordType, Status
from mailguard.dns.zone import ZoneResolver
from mailguard.errors import KeyFileError

MAIL = b"From: a@example.com\nTo: b@example.net\nSubject: hello\n\nGood day\n"
PYTHON = [sys.executable, "-m", "mailguard"]
NOW = "1700000000"


class Result:
    """What a command did, run in this process."""

    def __init__(self, code: int, out: bytes, err: str) -> None:
        self.code, self.raw, self.out, self.err = code, out, out.decode("utf-8"), err


Command = Callable[..., Result]


@pytest.fixture
def mailguard_command(
    monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes], tmp_path: Path
) -> Command:
    """Runs `mailguard ARGUMENTS` in tmp_path, without a process of its own."""
    monkeypatch.chdir(tmp_path)

    def command(*arguments: str | Path, stdin: bytes = b"") -> Result:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        capfdbinary.readouterr()
        code = run([str(argument) for argument in arguments])
        captured = capfdbinary.readouterr()
        return Result(code, captured.out, captured.err.decode("utf-8"))

    return command


class Keys:
    """A domain with two keys in files, its zone, and a message signed with both, in `directory`."""

    def __init__(self, directory: Path) -> None:
        self.zone = directory / "zone"
        self.rsa, self.ed25519 = (directory / "keys" / "example.com" / f"{name}.pem" for name in ("r1", "e1"))
        self.message = directory / "signed.eml"
        rsa = ("--selector", "r1", "--key", str(self.rsa))
        self.options = ("--domain", "example.com", *rsa, "--selector", "e1", "--key", str(self.ed25519))

    @property
    def text(self) -> str:
        """What `key new` printed."""
        return self.zone.read_text(encoding="utf-8")

    @property
    def signed(self) -> bytes:
        return self.message.read_bytes()


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with what Keys describes, made by the command itself."""
    directory = tmp_path_factory.mktemp("prepared")
    selectors = ("--selector", "r1", "--selector", "e1", "--directory", "keys")
    made = subprocess.run(
        [*PYTHON, "key", "new", "Example.COM", *selectors], cwd=directory, capture_output=True, check=True
    )
    keys = Keys(directory)
    keys.zone.write_bytes(made.stdout)
    done = subprocess.run([*PYTHON, "sign", *keys.options, "--now", NOW], input=MAIL, capture_output=True, check=True)
    keys.message.write_bytes(done.stdout)
    return directory


@pytest.fixture
def keys(prepared: Path, tmp_path: Path) -> Keys:
    shutil.copytree(prepared, tmp_path, dirs_exist_ok=True)
    return Keys(tmp_path)


# key new


@pytest.mark.attack("K14")
def test_new_keys(keys: Keys) -> None:
    assert stat.S_IMODE(keys.rsa.stat().st_mode) == stat.S_IMODE(keys.ed25519.stat().st_mode) == 0o600
    assert stat.S_IMODE(keys.rsa.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(keys.rsa.parent.parent.stat().st_mode) == 0o750
    rsa = SigningKey.load(keys.rsa, domain="example.com", selector="r1", check=KeyCheck.FULL)
    assert (rsa.algorithm, rsa.bits) == ("rsa-sha256", 2048)
    ed25519 = SigningKey.load(keys.ed25519, domain="example.com", selector="e1")
    assert ed25519.algorithm == "ed25519-sha256"
    # Nothing but the keys is left, and what was printed is a zone that holds their records.
    assert sorted(os.listdir(keys.rsa.parent)) == ["e1.pem", "r1.pem"]
    zone = ZoneResolver.from_file(keys.zone)
    for key in (rsa, ed25519):
        question = Question(key.public_name, RecordType.TXT)
        assert zone.resolve([question], deadline=0.0)[question].texts() == (key.record(),)
        assert f";   {key.record().decode()}\n" in keys.text
    assert all(
        len(string) <= 255 for string in re.findall(r'TXT "([^"]*)"|" "([^"]*)"', keys.text) for string in string
    )


@pytest.mark.attack("K14")
@pytest.mark.parametrize("taken", ["r1.pem", "e1.pem"])
def test_a_key_is_never_overwritten(mailguard_command: Command, tmp_path: Path, taken: str) -> None:
    directory = tmp_path / "keys" / "example.com"
    directory.mkdir(parents=True)
    (directory / taken).write_text("precious")
    done = mailguard_command(
        "key", "new", "example.com", "--selector", "r1", "--selector", "e1", "--directory", "keys"
    )
    assert done.code == 78
    assert done.out == ""
    assert f"{taken} is there already and is never overwritten" in done.err
    assert (directory / taken).read_text() == "precious"
    assert os.listdir(directory) == [taken]


@pytest.mark.attack("K14")
def test_a_name_taken_at_the_last_moment_is_not_overwritten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = tmp_path / "example.com"
    fsync = os.fsync

    def meanwhile(handle: int) -> None:
        fsync(handle)
        (directory / "s.pem").write_text("precious")

    monkeypatch.setattr("os.fsync", meanwhile)
    with pytest.raises(KeyFileError, match="never overwritten"):
        store_keys(str(tmp_path), "example.com", [("s", b"new")], owner=None)
    assert (directory / "s.pem").read_text() == "precious"
    assert os.listdir(directory) == ["s.pem"]


@pytest.mark.attack("K14")
def test_a_key_is_on_the_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(KeyFileError, match="No space left on device"):
        store_keys(str(tmp_path), "example.com", [("s", b"new")], owner=None)
    assert os.listdir(tmp_path / "example.com") == []


@pytest.mark.attack("K11", "K14")
def test_a_key_is_private_from_its_first_octet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, int, int]] = []
    fchmod, fsync = os.fchmod, os.fsync

    def note(handle: int) -> None:
        name = os.readlink(f"/proc/self/fd/{handle}")
        seen.append((name, stat.S_IMODE(os.fstat(handle).st_mode), os.fstat(handle).st_size))

    def noted_fchmod(handle: int, mode: int) -> None:
        fchmod(handle, mode)
        note(handle)

    def noted_fsync(handle: int) -> None:
        note(handle)
        fsync(handle)

    monkeypatch.setattr("os.fchmod", noted_fchmod)
    monkeypatch.setattr("os.fsync", noted_fsync)
    before = os.umask(0)
    try:
        for name in ("a", "b"):
            store_keys(str(tmp_path), "example.com", [(name, b"new")], owner=None)
    finally:
        os.umask(before)
    files = [entry for entry in seen if entry[0].endswith(".new")]
    assert [(mode, size) for _, mode, size in files] == [(0o600, 0), (0o600, 3)] * 2
    assert len({name for name, _, _ in files}) == 2
    assert all(Path(name).parent == tmp_path / "example.com" for name, _, _ in files)
    assert stat.S_IMODE((tmp_path / "example.com").stat().st_mode) == 0o700


@pytest.mark.attack("K11")
def test_a_directory_that_others_control_gets_no_key(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "example.com").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(KeyFileError):
        store_keys(str(tmp_path), "example.com", [("s", b"new")], owner=None)
    assert os.listdir(tmp_path / "elsewhere") == []
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    with pytest.raises(KeyFileError, match="writable by everybody"):
        store_keys(str(tmp_path / "open"), "example.org", [("s", b"new")], owner=None)
    assert os.listdir(tmp_path / "open" / "example.org") == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_keys_for_the_user_of_the_daemon(mailguard_command: Command, tmp_path: Path) -> None:
    done = mailguard_command("key", "new", "example.com", "--owner", "nobody", "--directory", "new/keys")
    assert done.code == 0
    made = [tmp_path / "new/keys", *(tmp_path / "new/keys").rglob("*")]
    assert len(made) == 4
    assert {path.owner() for path in made} == {"nobody"}
    # What lies above may hold the configuration: it stays root's.
    assert (tmp_path / "new").owner() == "root"


def test_new_keys_as_json(mailguard_command: Command, tmp_path: Path) -> None:
    domain = "b\N{LATIN SMALL LETTER U WITH DIAERESIS}cher.example"
    arguments = ("--only", "ed25519", "--selector", "S1", "--directory", "keys", "--json")
    done = mailguard_command("key", "new", domain, *arguments)
    report = json.loads(done.out)
    assert report["domain"] == "xn--bcher-kva.example"
    (key,) = report["keys"]
    assert (key["selector"], key["algorithm"]) == ("s1", "ed25519-sha256")
    assert key["name"] == "s1._domainkey.xn--bcher-kva.example"
    assert key["file"] == str(tmp_path / "keys/xn--bcher-kva.example/s1.pem")
    assert key["zone_line"] == f'{key["name"]}. 3600 IN TXT "{key["record"]}"'


def test_default_selectors_show_type_and_age(mailguard_command: Command, tmp_path: Path) -> None:
    assert default_selector("rsa", date(2026, 1, 31)) == "mg202601r"
    assert default_selector("ed25519", date(2026, 12, 1)) == "mg202612e"
    assert mailguard_command("key", "new", "example.com", "--directory", "keys").code == 0
    names = sorted(os.listdir(tmp_path / "keys/example.com"))
    assert [re.sub(r"20\d{4}", "YYYYMM", name) for name in names] == ["mgYYYYMMe.pem", "mgYYYYMMr.pem"]


def test_long_records_are_split() -> None:
    assert zone_line("a.test", b"x" * 255) == f'a.test. 3600 IN TXT "{"x" * 255}"'
    assert zone_line("a.test", b"x" * 511) == f'a.test. 3600 IN TXT "{"x" * 255}" "{"x" * 255}" "x"'


# key test


def test_a_published_key_passes(mailguard_command: Command, keys: Keys) -> None:
    done = mailguard_command("key", "test", "example.com", "R1", keys.rsa, "--zone", keys.zone)
    assert (done.code, done.out.partition(":")[0]) == (0, "pass")


def test_key_test_of_a_configuration(mailguard_command: Command, keys: Keys, tmp_path: Path) -> None:
    config = tmp_path / "mailguard.toml"
    snippet = "\n".join(
        line.removeprefix(";").strip() for line in keys.text.partition("mailguard.toml:\n")[2].split("\n")
    )
    config.write_text(f'[dns]\nzone_file = "zone"\n{snippet}')
    done = mailguard_command("key", "test", "-c", config)
    assert done.code == 0, done.err
    assert done.out.count("pass: ") == 2
    config.write_text(
        '[dns]\nzone_file = "zone"\n'
        '[sign]\nkey_pattern = "keys/{domain}/{selector}.pem"\nkey_selectors = ["r1", "x"]\n'
    )
    done = mailguard_command("key", "test", "-c", config)
    assert (done.code, done.out.count("\n")) == (0, 1)
    assert "r1._domainkey.example.com" in done.out
    config.write_text("")
    assert mailguard_command("key", "test", "-c", config).code == 78


def published(keys: Keys, change: Callable[[str], str]) -> None:
    keys.zone.write_text(change(keys.text), encoding="utf-8")


OTHER_KEY = SigningKey.from_bytes(generate_rsa(), domain="example.com", selector="r1").record()
OTHER_LINE = zone_line("r1._domainkey.example.com", OTHER_KEY)

KEY_FAULTS: list[tuple[str, Callable[[str], str], int, str]] = [
    ("absent", lambda text: text.replace("r1._domainkey", "r9._domainkey"), 1, "no record is published"),
    ("revoked", lambda text: re.sub(r"k=rsa; p=.*", 'k=rsa; p="', text), 1, "revoked"),
    ("malformed", lambda text: re.sub(r"k=rsa; p=.*", 'k=rsa; p=!"', text), 1, "not base64"),
    ("another", lambda text: re.sub(r"r1.*TXT.*", OTHER_LINE, text), 1, "another key"),
    ("wrong-type", lambda text: text.replace('"v=DKIM1; k=rsa;', '"v=DKIM1; " "k=ed25519;'), 1, "not of type rsa"),
    ("twice", lambda text: OTHER_LINE + "\n" + text, 0, "2 TXT records"),
    ("testing", lambda text: text.replace('"v=DKIM1; k=rsa;', '"v=DKIM1; " "k=rsa; t=y;'), 0, "t=y is set"),
]


@pytest.mark.parametrize(
    ("change", "code", "said"), [row[1:] for row in KEY_FAULTS], ids=[row[0] for row in KEY_FAULTS]
)
def test_what_is_published_is_compared(
    mailguard_command: Command, keys: Keys, change: Callable[[str], str], code: int, said: str
) -> None:
    published(keys, change)
    done = mailguard_command("key", "test", "example.com", "r1", keys.rsa, "--zone", keys.zone)
    assert (done.code, said in done.out) == (code, True), done.out + done.err
    # The remedy is the record itself.
    record = SigningKey.load(keys.rsa, domain="example.com", selector="r1").record()
    assert (f"publish: {zone_line('r1._domainkey.example.com', record)}" in done.out) is (code == 1)


def test_a_key_whose_record_cannot_be_looked_up(
    mailguard_command: Command, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolver = ZoneResolver({}, status={("r1._domainkey.example.com", "TXT"): Status.TEMPFAIL})
    monkeypatch.setattr(mailguard.cli.key, "open_resolver", lambda config: resolver)
    done = mailguard_command("key", "test", "example.com", "r1", keys.rsa, "--json")
    assert done.code == 75
    assert json.loads(done.out)[0]["outcome"] == "temperror"


@pytest.mark.attack("K03")
def test_a_key_is_checked_completely(mailguard_command: Command, keys: Keys) -> None:
    pem = keys.rsa.read_text().splitlines()
    # Another octet in the middle of the numbers: it still parses, and signs nothing that verifies.
    middle = pem[20]
    pem[20] = middle[:30] + ("A" if middle[30] != "A" else "B") + middle[31:]
    keys.rsa.write_text("\n".join(pem))
    SigningKey.load(keys.rsa, domain="example.com", selector="r1", check=KeyCheck.QUICK)
    done = mailguard_command("key", "test", "example.com", "r1", keys.rsa, "--zone", keys.zone)
    assert done.code == 78
    assert done.out.startswith("unusable: r1._domainkey.example.com: ")


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


def test_signing_for_another_author_is_noted(mailguard_command: Command, keys: Keys) -> None:
    done = mailguard_command("sign", *keys.options, stdin=MAIL.replace(b"a@example.com", b"a@example.org"))
    assert done.code == 0
    assert "From is of example.org, not of example.com" in done.err


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
        (lambda mail: MAIL, 2, "none: the message has no DKIM signature"),
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


def test_there_is_advice_for_every_reason() -> None:
    assert set(ADVICE) == set(DkimReason)


def on_a_terminal(arguments: list[str], environment: dict[str, str]) -> str:
    master, slave = pty.openpty()
    process = subprocess.Popen([*PYTHON, *arguments], stdout=slave, stdin=subprocess.DEVNULL, env=environment)
    os.close(slave)
    shown = b""
    while True:
        try:
            octets = os.read(master, 4096)
        except OSError:  # Linux says EIO when the last writer is gone
            break
        if not octets:
            break
        shown += octets
    os.close(master)
    process.wait()
    return shown.decode("utf-8")


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
    assert done.code == code, done.err
    assert done.out == ""
    assert done.err.startswith("mailguard: ")
    assert done.err.count("\n") == 1
    assert said in done.err
    assert "Traceback" not in done.err


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
    assert done.stderr == b"mailguard: No space left on device\n"
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(arguments, stdout=writer, stderr=subprocess.PIPE, env=environment, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, b"")


@pytest.mark.parametrize("package", ["click", "rich", "pydantic"])
def test_a_missing_extra_is_named(package: str) -> None:
    program = f"import sys; sys.modules[{package!r}] = None; import mailguard.cli; mailguard.cli.main()"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 78
    assert done.stderr.startswith("mailguard: ")
    assert done.stderr.rstrip().endswith(f"needs {package}; install it with: pip install 'mailguard-milter[cli]'")
