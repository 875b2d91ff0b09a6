"""How each command is called so that it works, and a place that has all the files: the table of test_cli_mistakes.py.

A command without a row fails that test, and so does a row whose words name no file where the command takes one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.serialization import Encoding

from dane_certificates import Made, server
from log_samples import LINES, record
from mailguard.dkim.signing_key import SigningKey, generate_ed25519, generate_rsa
from mailguard.message import Message
from mailguard.pipeline import sign_dkim

__all__ = ["ROWS", "Directory", "File", "Name", "New", "Reported", "ReportedDirectory", "Row", "make_place"]

NOW = "1700000000"


class File(str):
    """A file that is read."""


class Reported(File):
    """A file that the command reports on: what is wrong with it is in its report."""


class Directory(str):
    """A directory that is read."""


class ReportedDirectory(Directory):
    """As Reported."""


class New(str):
    """A file or a directory that is written, and not there yet."""


class Name(str):
    """A domain name."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """How one command is called."""

    words: Sequence[str]
    """So that it works without a network."""
    codes: Sequence[int] = (0,)
    """How it ends then."""
    online: Sequence[str] | None = None
    """So that it asks the network; None if it never does."""
    offline_codes: Sequence[int] = (75,)
    """How it ends when the network is not there."""
    waits: Sequence[str] | None = None
    """So that it waits until it is interrupted, for something else than the network."""
    why_no_json: str = ""
    why_no_progress: str = ""
    """Why a terminal is not told what is waited for."""
    is_server: bool = False
    """Whether it works until it is told to end."""


CONFIG = ("-c", File("mailguard.toml"))
OFF = ("-c", File("online.toml"))
POSTFIX = ("--config-directory", Directory("postfix"))
ZONE = ("--zone", File("zone"))
CLIENT = ("--ip", "192.0.2.10", "--helo", "mx.us.test", "--mail-from", "a@us.test")

ROWS: Mapping[tuple[str, ...], Row] = {
    ("audit",): Row(
        words=[*POSTFIX, *CONFIG, "--baseline", File("accepted.json"), "--root", Directory("/"), "--now", NOW],
        codes=(0, 1, 2, 3),
    ),
    ("check",): Row(words=[Name("us.test"), *CONFIG, *ZONE], codes=(0, 1), online=["us.test", *OFF]),
    ("completion",): Row(words=["fish"], why_no_json="it prints a script"),
    ("dane", "check"): Row(words=[Name("us.test"), *CONFIG, "--no-connect"], codes=(78,), online=["us.test", *OFF]),
    ("dane", "rollover"): Row(
        words=[File("cert.pem"), "--host", Name("mx.us.test"), *CONFIG],
        codes=(78,),
        online=["cert.pem", "--host", "mx.us.test", *OFF],
    ),
    ("dane", "tlsa"): Row(
        words=[File("cert.pem"), "--host", Name("mx.us.test"), *CONFIG], online=["mx.us.test", *OFF]
    ),
    ("dmarc", "check"): Row(
        words=[Name("us.test"), *ZONE, "--compare-7489", "--suffix-list", File("suffixes.dat")], online=["us.test"]
    ),
    ("dns",): Row(
        words=[Name("us.test"), *CONFIG, "--mx", Name("mx.us.test"), "--certificate", File("cert.pem")],
        online=["us.test", *OFF],
    ),
    ("doctor",): Row(
        words=[*CONFIG, "--config-directory", ReportedDirectory("postfix")],
        codes=(1,),
        online=[*OFF, *POSTFIX],
        offline_codes=(1,),
    ),
    ("enforce",): Row(words=["--dry-run", "--now", NOW, "--log", Reported("daemon.log")]),
    ("explain",): Row(
        words=[File("signed.eml"), *CLIENT, *CONFIG, *ZONE, "--now", NOW],
        online=["signed.eml", *CLIENT, "--now", NOW],
    ),
    ("import",): Row(
        words=[
            "opendkim",
            File("opendkim.conf"),
            "--copy-keys",
            New("copies"),
            "--output",
            New("new.toml"),
            "--owner",
            "nobody",
        ],
        codes=(0, 1),
    ),
    ("key", "list"): Row(words=CONFIG),
    ("key", "rotate"): Row(
        # 1: the user of the daemon cannot read the keys of this place.
        words=[Name("us.test"), *CONFIG, "--adopt", "--dry-run", "--owner", "nobody"],
        codes=(1,),
        online=["us.test", *OFF, "--adopt", "--dry-run", "--owner", "nobody"],
        offline_codes=(1,),
    ),
    ("key", "new"): Row(words=[Name("new.test"), "--directory", New("made")]),
    ("key", "test"): Row(
        words=[Name("us.test"), "r1", Reported("keys/r1.pem"), *ZONE], online=["us.test", "r1", "keys/r1.pem"]
    ),
    ("mta-sts", "check"): Row(
        words=[Name("us.test"), *CONFIG, "--no-connect", "--ca-file", File("cert.pem")],
        codes=(0, 1),
        online=["us.test", *OFF],
    ),
    ("postconf",): Row(words=[*CONFIG, *POSTFIX, "--backups", New("backups")]),
    ("quickstart",): Row(
        words=[Name("new.test"), *CONFIG, *POSTFIX, "--keys", New("made"), "--backups", New("backups")],
        why_no_json="it shows commands and differences for a person to read",
    ),
    ("senders", "audit"): Row(words=CONFIG),
    ("senders", "import"): Row(words=POSTFIX),
    ("senders", "list"): Row(words=["alice", *CONFIG]),
    ("senders", "test"): Row(words=["alice", "a@us.test", *CONFIG]),
    ("sign",): Row(
        words=[File("mail.eml"), "--domain", Name("us.test"), "--selector", "r1", "--key", File("keys/r1.pem")],
        waits=["--domain", "us.test", "--selector", "r1", "--key", "keys/r1.pem"],
        why_no_json="it writes the message",
        why_no_progress="it waits for the message on standard input",
    ),
    ("spf", "check"): Row(words=[*CLIENT, *ZONE], online=CLIENT),
    ("test",): Row(
        words=[
            *("--send", "b@them.test", "--from", "a@us.test", "--smtp", "127.0.0.1:2525", "--login", "alice"),
            *("--password-file", File("password"), "--log", File("daemon.log"), "--mailbox", File("mailbox")),
            *("--wait", "1", *CONFIG, *POSTFIX),
        ],
        codes=(1, 75),
        online=["--send", "b@them.test", "--from", "a@us.test", "--smtp", "mx.us.test", *OFF, *POSTFIX],
        offline_codes=(1, 75),
    ),
    ("tlspolicy", "check"): Row(words=CONFIG, codes=(1,), online=OFF, offline_codes=(1,)),
    ("tlspolicy", "query"): Row(words=["us.test", *CONFIG], codes=(1,), online=["us.test", *OFF]),
    ("tlspolicy", "serve"): Row(
        words=CONFIG,
        waits=CONFIG,
        is_server=True,
        why_no_json="it serves",
        why_no_progress="it serves",
    ),
    ("verify",): Row(words=[File("signed.eml"), *ZONE, "--now", NOW], online=["signed.eml", "--now", NOW]),
}

CONFIGURATION = """authserv_id = "mx.us.test"
user = "nobody"
runtime_directory = "{place}/run"

[[listeners]]
address = "unix:{place}/run/milter.sock"

[domains."us.test"]
selectors = [{ name = "r1", key_file = "keys/r1.pem" }]

[senders]
sources = ["inline"]

[senders.inline.logins]
alice = ["a@us.test"]

[tlspolicy]
listen = ["inet:127.0.0.1:8465"]
cache_file = "run/tlspolicy.sqlite"

[dns]
"""
ZONE_TEXT = """$ORIGIN us.test.
@ 3600 IN MX 10 mx
@ 3600 IN TXT "v=spf1 ip4:192.0.2.10 -all"
_dmarc 3600 IN TXT "v=DMARC1; p=reject"
mx 3600 IN A 192.0.2.10
"""
MAIN_CF = """compatibility_level = 3.6
myhostname = mx.us.test
mynetworks = 127.0.0.0/8
mydestination = $myhostname
alias_maps =
smtpd_sender_login_maps = inline:{a@us.test=alice}
"""
SUFFIXES = "".join(
    f"// ==={edge} {kind} DOMAINS===\n{names}"
    for edge, kind, names in (
        ("BEGIN", "ICANN", "test\n"),
        ("END", "ICANN", ""),
        ("BEGIN", "PRIVATE", ""),
        ("END", "PRIVATE", ""),
    )
)
MASTER_CF = "smtp inet n - n - - smtpd\ncleanup unix n - n - 0 cleanup\n"
MAIL = b"From: a@us.test\r\nTo: b@them.test\r\nSubject: hello\r\n\r\nGood day\r\n"


def make_place(place: Path) -> None:
    """All files that the rows name, in a directory that everybody can read."""
    (place / "keys").mkdir()
    (place / "run").mkdir()
    for name, pem in (("r1", generate_rsa()), ("e1", generate_ed25519())):
        (place / "keys" / f"{name}.pem").write_bytes(pem)
        (place / "keys" / f"{name}.pem").chmod(0o600)
    key = SigningKey.load(str(place / "keys/r1.pem"), domain="us.test", selector="r1")
    strings = key.record().decode()
    text = " ".join(f'"{strings[start : start + 200]}"' for start in range(0, len(strings), 200))
    (place / "zone").write_text(f"{ZONE_TEXT}r1._domainkey 3600 IN TXT {text}\n")
    (signature,) = sign_dkim(Message.parse(MAIL), keys=[key], now=int(NOW))
    (place / "mail.eml").write_bytes(MAIL)
    (place / "signed.eml").write_bytes(signature.raw + b"\r\n" + MAIL)
    certificate = server(Made.of("authority"), "mx.us.test").certificate
    (place / "cert.pem").write_bytes(certificate.public_bytes(Encoding.PEM))
    configuration = CONFIGURATION.replace("{place}", str(place))
    (place / "mailguard.toml").write_text(f'{configuration}zone_file = "zone"\n')
    (place / "online.toml").write_text(configuration)
    (place / "suffixes.dat").write_text(SUFFIXES)
    (place / "accepted.json").write_text('{"baseline": 1, "accepted": []}\n')
    (place / "daemon.log").write_bytes(b"".join(line(record(), float(NOW)) + b"\n" for line in LINES.values()))
    (place / "opendkim.conf").write_text(f"Mode sv\nDomain us.test\nSelector r1\nKeyFile {place}/keys/r1.pem\n")
    (place / "postfix").mkdir()
    (place / "postfix" / "main.cf").write_text(f"{MAIN_CF}queue_directory = {place}/queue\n")
    (place / "postfix" / "master.cf").write_text(MASTER_CF)
    (place / "queue").mkdir()
    (place / "password").write_text("secret\n")
    (place / "password").chmod(0o600)
    (place / "mailbox").touch()
