"""`mailguard key new` and `mailguard key test`: files, records, and what the DNS publishes (K14)."""

from __future__ import annotations

import errno
import json
import os
import re
import resource
import stat
import tomllib
from collections.abc import Callable
from datetime import date
from pathlib import Path

import pytest

import mailguard.cli.key
import mailguard.cli.key_files
import mailguard.cli.verify
from cli_process import Command, Keys
from mailguard.cli.key_files import store_keys
from mailguard.cli.new_keys import default_selector
from mailguard.dkim.signing_key import KeyCheck, SigningKey, generate_rsa
from mailguard.dns.question import Question, RecordType, Status
from mailguard.dns.zone import ZoneResolver
from mailguard.errors import KeyFileError
from mailguard.records.record import zone_line

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


def test_what_is_for_the_configuration_is_toml_wherever_the_keys_are(
    mailguard_command: Command, tmp_path: Path
) -> None:
    directory = tmp_path / 'k\u00fc "\\ \U0001f511'
    done = mailguard_command("key", "new", "example.com", "--only", "ed25519", "--directory", directory)
    _, _, snippet = done.out.partition("; for mailguard.toml:\n")
    found = tomllib.loads(snippet.replace(";", ""))
    (made,) = found["domains"]["example.com"]["selectors"]
    SigningKey.load(made["key_file"], domain="example.com", selector=made["name"])


def test_of_a_pair_that_the_disk_has_no_room_for_nothing_stays(tmp_path: Path) -> None:
    pair = [("r1", b"a key"), ("e1", b"and one that is too long")]
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(pair[0][1]), limits[1]))
    try:
        with pytest.raises(KeyFileError, match="cannot store a key: File too large"):
            store_keys(str(tmp_path), "example.com", pair, owner=None)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert os.listdir(tmp_path / "example.com") == []
    store_keys(str(tmp_path), "example.com", pair, owner=None)


@pytest.mark.parametrize("failing", range(4))
def test_where_a_disk_fails_there_is_no_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: int) -> None:
    """The two directories and the two files: each flush of one is the last."""
    done = 0

    def broken(descriptor: int) -> None:
        nonlocal done
        done += 1
        if done > failing:
            raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", broken)
        with pytest.raises(KeyFileError, match="cannot store a key: Input/output error"):
            store_keys(str(tmp_path), "example.com", [("r1", b"one"), ("e1", b"other")], owner=None)
    assert done == failing + 1
    assert os.listdir(tmp_path / "example.com") == []


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


def test_the_umask_closes_no_directory_above_the_keys(tmp_path: Path) -> None:
    """The configuration is beside them, and the daemon's user must get to both."""
    before = os.umask(0o077)
    try:
        store_keys(str(tmp_path / "etc" / "mailguard" / "keys"), "example.com", [("s", b"new")], owner=None)
        assert os.umask(0o077) == 0o077
    finally:
        os.umask(before)
    places = [
        tmp_path / each for each in ("etc", "etc/mailguard", "etc/mailguard/keys", "etc/mailguard/keys/example.com")
    ]
    assert [stat.S_IMODE(each.stat().st_mode) for each in places] == [0o755, 0o755, 0o750, 0o700]


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
    ("another", lambda text: re.sub(r"r1.*TXT.*", OTHER_LINE, text), 1, "another key: if another host"),
    ("wrong-type", lambda text: text.replace('"v=DKIM1; k=rsa;', '"v=DKIM1; " "k=ed25519;'), 1, "not of type rsa"),
    ("quoted", lambda text: re.sub("(r1.* TXT )", r'\1"\\"" ', text), 1, '\n  published: "v=DKIM1; k=rsa; p=MI'),
    (
        "cut-in-two",
        lambda text: re.sub(r'(r1.* IN TXT )("v.*?") (".*?")', r"\1\2\n\1\3", text),
        1,
        "2 TXT records are there: a long key is one record of several strings",
    ),
    (
        "domain-twice",
        lambda text: text.replace("r1._domainkey.example.com.", "r1._domainkey.example.com.example.com."),
        1,
        "no record is published; there is one at r1._domainkey.example.com.example.com,",
    ),
    (
        "no-domainkey",
        lambda text: text.replace("r1._domainkey.example.com.", "r1.example.com."),
        1,
        "no record is published; there is one at r1.example.com,",
    ),
    ("twice", lambda text: OTHER_LINE + "\n" + text, 1, "leave only this one"),
    ("testing", lambda text: text.replace('"v=DKIM1; k=rsa;', '"v=DKIM1; " "k=rsa; t=y;'), 0, "testing: r1."),
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
