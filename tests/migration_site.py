"""Configurations of OpenDKIM and its kin as strings, imported; and Debian's opendkim, to be asked what it does."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from daemon_process import eventually
from mailguard.dkim.signing_key import generate_ed25519, generate_rsa
from mailguard.migration.importing import Imported, import_files
from mailguard.migration.note import NoteKind
from milter_client import MilterClient
from sandbox_place import make_public_directory

__all__ = [
    "BODY",
    "ED25519_KEY",
    "KEY",
    "OpenDkim",
    "Signature",
    "Site",
    "at",
    "configuration",
    "message_fields",
    "migration_site",
    "opendkim",
    "opendkim_place",
    "public_migration_site",
    "said",
    "signatures",
]

KEY = generate_rsa(2048)
ED25519_KEY = generate_ed25519()
OPENDKIM = shutil.which("opendkim", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
CLIENT = "192.0.2.1"
USER = "opendkim"


class Site:
    """A directory with files; `@` in a text stands for it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def write(self, name: str, text: str | bytes) -> Path:
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        octets = text if isinstance(text, bytes) else text.replace("@/", f"{self.directory}/").encode()
        path.write_bytes(octets)
        return path

    def key(self, name: str, octets: bytes = KEY, mode: int = 0o600) -> Path:
        path = self.write(name, octets)
        path.chmod(mode)
        return path

    def imported(self, **texts: str) -> Imported:
        """From a text for each program, whose name is written with _ for -."""
        return self.imported_from({name.replace("_", "-"): text for name, text in texts.items()})

    def imported_from(self, texts: Mapping[str, str | bytes]) -> Imported:
        """From a text for each program."""
        return import_files({name: str(self.write(f"{name}.conf", text)) for name, text in texts.items()})


def configuration(imported: Imported) -> dict[str, Any]:
    """As data."""
    found = imported.to_json()["configuration"]
    assert isinstance(found, dict)
    return found


def at(imported: Imported, path: str) -> Any:
    """The value at a dotted path; None if there is none. A path may hold one domain in quotes."""
    value: Any = configuration(imported)
    for part in re.findall(r'"([^"]+)"|([^."]+)', path):
        value = value.get(part[0] or part[1]) if isinstance(value, dict) else None
    return value


def said(imported: Imported, kind: NoteKind) -> list[str]:
    """The notes of one kind."""
    return [str(note) for note in imported.notes if note.kind is kind]


@pytest.fixture
def migration_site(tmp_path: Path) -> Site:
    return Site(tmp_path)


@pytest.fixture
def public_migration_site() -> Iterator[Site]:
    """In a directory that every user may enter; pytest's own are the user's alone."""
    directory = make_public_directory("mailguard-import-")
    yield Site(directory)
    shutil.rmtree(directory)


@dataclass(frozen=True)
class Signature:
    """d=, s= and i= of a DKIM-Signature, and the whole field as a message has it."""

    domain: str
    selector: str
    field: bytes


class OpenDkim:
    """Debian's opendkim with a configuration of its own, in a directory of its own. Keys are in keys/ there."""

    def __init__(self, site: Site) -> None:
        self.site = site
        # Configurations are made beside it, and root takes none from a directory of another user.
        self._run = site.directory / "run"
        self.socket = str(self._run / "opendkim.sock")
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, config: str) -> None:
        assert OPENDKIM is not None
        self.stop()
        Path(self.socket).unlink(missing_ok=True)
        common = f"UserID {USER}\nSocket local:{self.socket}\nSyslog no\nUMask 077\n"
        path = self.site.write("opendkim.conf", config + common)
        path.chmod(0o644)
        log = self.site.directory / "opendkim.log"
        self._run.mkdir(exist_ok=True)
        for directory in (self._run, self.site.directory / "keys"):
            shutil.chown(directory, USER, USER)
        with open(log, "wb") as stderr:
            self.process = subprocess.Popen([OPENDKIM, "-f", "-x", str(path)], stderr=stderr)

        def serves() -> bool:
            assert self.process is not None
            assert self.process.poll() is None, log.read_text()
            return os.path.exists(self.socket)

        eventually(serves)

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()  # it takes five seconds to end by itself
            self.process.wait()
            self.process = None


@pytest.fixture
def opendkim_place() -> Iterator[Site]:
    """OpenDKIM takes no configuration below a directory that everybody can write to, such as /tmp."""
    if OPENDKIM is None:
        pytest.skip("opendkim is not installed")
    if os.geteuid() != 0:
        pytest.skip("only root has a directory outside /tmp for opendkim")
    directory = Path(tempfile.mkdtemp(prefix="mailguard-opendkim-", dir="/var/lib"))
    directory.chmod(0o755)
    yield Site(directory)
    shutil.rmtree(directory)


@pytest.fixture
def opendkim(opendkim_place: Site) -> Iterator[OpenDkim]:
    daemon = OpenDkim(opendkim_place)
    yield daemon
    daemon.stop()


def signatures(
    socket: str,
    author: str,
    *,
    macros: Mapping[bytes, bytes] | None = None,
    timeout_s: float = 10.0,
    client: str = CLIENT,
) -> tuple[Signature, ...]:
    """With what the milter at `socket` signs a message from `author`; none if it has had enough before its end."""
    with MilterClient(socket, timeout_s=timeout_s) as milter:
        milter.negotiate()
        family = b"6" if ":" in client else b"4"
        replies = [milter.connect(address=client.encode(), family=family), milter.helo()]
        replies += [milter.mail(b"<bounce@us.test>", macros), milter.rcpt()]
        replies += [milter.header(name, value) for name, value in message_fields(author)]
        replies.append(milter.end_of_header())
        if any(reply is not None and reply[0] == b"a" for reply in replies):
            return ()
        if milter.body(BODY) not in (None, (b"c", b"")):
            return ()
        packets = milter.end_of_message()
    found = []
    for code, data in packets:
        name, _, value = data.removeprefix(data[:4] if code == b"i" else b"").rstrip(b"\0").partition(b"\0")
        if code in b"ih" and name == b"DKIM-Signature":
            tags: dict[bytes, bytes] = dict(re.findall(rb"\b([a-z]+)=([^;]*)", value))
            field = b"DKIM-Signature:" + (value if value[:1] in b" \t" else b" " + value)
            found.append(Signature(tags[b"d"].strip().decode(), tags[b"s"].strip().decode(), field))
    return tuple(found)


BODY = b"Good day\r\n"


def message_fields(author: str) -> list[tuple[bytes, bytes]]:
    """As the milter protocol has them: the value with the blank after the colon."""
    return [
        (b"From", b" " + author.encode()),
        (b"To", b" someone@them.test"),
        (b"Subject", b" hello"),
        (b"Date", b" Sat, 21 Nov 2026 12:00:00 +0000"),
        (b"Message-ID", b" <1@us.test>"),
    ]
