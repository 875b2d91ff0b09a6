"""LoginSite: a PostfixSite whose users log in as at home: STARTTLS, AUTH, and Dovecot, which knows their passwords.

Dovecot is Debian's, as SASL server for smtpd alone (no IMAP), with a configuration, sockets and a password file in a
directory of its own; Debian's service and /etc/dovecot are neither read nor started. Needs root. The certificate is
made for each site, and the client trusts no other. One object is for one thread, except `log_in`.
"""

from __future__ import annotations

import datetime
import os
import re
import shutil
import signal
import ssl
import subprocess
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from ipaddress import ip_address
from pathlib import Path
from types import TracebackType
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

import zone0
from postfix_site import DEFAULT_ENGINE, Answer, Client, PostfixSite, open_site
from sandbox_place import HOST, clean_environment, end_processes_in, make_public_directory, write_file

__all__ = ["PASSWORD", "Dovecot", "LoginSite", "open_login_site", "why_no_dovecot"]

DOVECOT = "/usr/sbin/dovecot"
# Each has a language of its own for its configuration.
VERSIONS = ("2.3.", "2.4.")
_QUOTES, _ESCAPED = re.compile(r"(['\"\\])"), r"\\\1"
PATIENCE_S = 30.0
POLL_S = 0.02
PASSWORD = "correct horse"
CERTIFICATE_LIFETIME = datetime.timedelta(days=1)

# Users of Debian's package run its processes. A login may have any octets: it is mailguard that is tested here.
_COMMON = """\
base_dir = {directory}/run
state_dir = {directory}/state
log_path = {directory}/log
auth_verbose = yes
protocols =
ssl = no
auth_mechanisms = plain login
auth_username_chars =
auth_username_format = {username_format}
service auth {{
  unix_listener {socket} {{
    mode = 0660
    user = postfix
    group = postfix
  }}
}}
"""
_OLD = """\
passdb {{
  driver = passwd-file
  args = scheme=PLAIN username_format=%u {directory}/users
}}
userdb {{
  driver = static
  args = uid=nobody gid=nogroup home=/nonexistent
}}
"""
_NEW = """\
passdb passwd-file {{
  default_password_scheme = PLAIN
  auth_username_format = %{{user}}
  passwd_file_path = {directory}/users
}}
userdb static {{
  fields {{
    uid = nobody
    gid = nogroup
    home = /nonexistent
  }}
}}
"""
# Where versions are named, they come first.
_FIRST = "dovecot_config_version = 2.4.0\ndovecot_storage_version = 2.4.0\n"


@cache
def why_no_dovecot() -> str | None:
    """Why there is none for the tests; None if there is."""
    if not os.path.exists(DOVECOT):
        return "dovecot-core is not installed"
    return None if _version().startswith(VERSIONS) else f"Dovecot {_version()} is neither of {VERSIONS}"


@cache
def _version() -> str:
    return subprocess.run([DOVECOT, "--version"], capture_output=True, text=True, check=False).stdout.strip()


def _configuration(directory: Path, socket: Path, *, folds_case: bool) -> str:
    if _version().startswith("2.3."):
        text, username_format = _COMMON + _OLD, "%Lu" if folds_case else "%u"
    else:
        text, username_format = _FIRST + _COMMON + _NEW, "%{user | lower}" if folds_case else "%{user}"
    return text.format(directory=directory, socket=socket, username_format=username_format)


class Dovecot:
    """A context manager: entered, it answers smtpd; left, its processes and files are gone."""

    def __init__(self, users: Collection[str], *, folds_case: bool = True) -> None:
        """`users` are logins, all with PASSWORD; `folds_case`: Dovecot writes them with small letters."""
        self.directory = Path()
        self._users = tuple(users)
        self._folds_case = folds_case
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def socket(self) -> Path:
        """What smtpd_sasl_path names."""
        return self.directory / "auth"

    def __enter__(self) -> Self:
        self.directory = make_public_directory("mailguard-dovecot-")
        for name in ("run", "state"):
            (self.directory / name).mkdir(mode=0o755)
        # Dovecot looks for a login with its quotes escaped, as it would for a query.
        users = "".join(f"{_QUOTES.sub(_ESCAPED, login)}:{PASSWORD}\n" for login in self._users)
        # Its auth process reads it, as Debian's user dovecot.
        write_file(self.directory / "users", users)
        write_file(
            self.directory / "dovecot.conf",
            _configuration(self.directory, self.socket, folds_case=self._folds_case),
        )
        try:
            self._start()
        except BaseException:
            self._leave()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave()

    def log(self) -> str:
        """What it has logged."""
        path = self.directory / "log"
        return path.read_text("utf-8", "replace") if path.exists() else ""

    def _start(self) -> None:
        with (self.directory / "said").open("ab") as said:
            self._process = subprocess.Popen(
                [DOVECOT, "-F", "-c", str(self.directory / "dovecot.conf")],
                cwd=self.directory,
                env=clean_environment(),
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
            )
        end = time.monotonic() + PATIENCE_S
        while not self.socket.exists():
            assert self._process.poll() is None, (self.directory / "said").read_text() + self.log()
            assert time.monotonic() < end, self.log()
            time.sleep(POLL_S)

    def _leave(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(PATIENCE_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        # Its children work in base_dir.
        left = [*end_processes_in(self.directory / "run"), *end_processes_in(self.directory)]
        shutil.rmtree(self.directory, ignore_errors=True)
        assert not left, f"processes of Dovecot are still there: {left}"


@dataclass
class LoginSite:
    """All three, running."""

    mail: PostfixSite
    dovecot: Dovecot
    certificate: Path
    key: Path
    """Of the certificate; root's."""

    def encrypted(self, *, with_certificate: bool = False) -> Client:
        """A connection to the submission service after STARTTLS, for whoever shows the site's own certificate."""
        client = Client(HOST, self.mail.postfix.ports["submission"], local_hostname="client.test", timeout=120)
        try:
            client.ehlo()
            code, said = client.starttls(context=self.trust(with_certificate=with_certificate))
            assert code == 220, (code, said)
            client.ehlo()
        except BaseException:
            client.close()
            raise
        return client

    def trust(self, *, with_certificate: bool = False) -> ssl.SSLContext:
        """A client's trust in this site alone; it may show a certificate itself, which is the same."""
        context = ssl.create_default_context(cafile=str(self.certificate))
        if with_certificate:
            context.load_cert_chain(self.certificate, self.key)
        return context

    def log_in(self, login: str, *, mechanism: str = "PLAIN") -> Client:
        """Encrypted and logged in."""
        client = self.encrypted()
        try:
            client.user, client.password = login, PASSWORD
            authenticate = client.auth_plain if mechanism == "PLAIN" else client.auth_login
            code, said = client.auth(mechanism, authenticate)
            assert code == 235, (code, said, self.dovecot.log()[-2000:])
        except BaseException:
            client.close()
            raise
        return client

    def send(
        self, content: bytes, *, login: str, sender: str | None = None, recipient: str | None = None
    ) -> tuple[Answer, dict[str, object]]:
        """A message in a session of its own, by default with the login as sender; what was logged of it."""
        known = len(self.records(login))
        with self.log_in(login) as client:
            answer = client.transmit(
                content, sender=login if sender is None else sender, recipient=recipient or self.mail.recipient()
            )
        (record,) = self.records_after(login, known, 1)
        return answer, record

    def records(self, login: str) -> list[dict[str, object]]:
        """What the daemon has logged of messages of this login so far."""
        return [record for record in self.mail.records() if record.get("login") == login]

    def records_after(self, login: str, known: int, count: int) -> list[dict[str, object]]:
        """Those that follow the login's first `known`: `count`, each of them written after the answer."""
        end = time.monotonic() + PATIENCE_S
        while len(records := self.records(login)) < known + count:
            assert time.monotonic() < end, self.mail.daemon.log_tail()
            time.sleep(POLL_S)
        assert len(records) == known + count, records
        return records[known:]


@contextmanager
def open_login_site(
    *,
    users: Collection[str],
    mode: str = "enforce",
    sign: str = "",
    senders: str = "",
    others: Mapping[str, zone0.PrivateKey] | None = None,
    main: Mapping[str, str] | None = None,
    inbound: Mapping[str, str] | None = None,
    submission: Mapping[str, str] | None = None,
    workers: int = 2,
    folds_case: bool = True,
    engine: str = DEFAULT_ENGINE,
    role: str = "",
) -> Iterator[LoginSite]:
    """Start all three. `users` are logins, `senders` tables of the configuration; the rest is as for open_site."""
    directory = make_public_directory("mailguard-tls-")
    try:
        certificate, key = directory / "cert.pem", directory / "key.pem"
        write_certificate(certificate, key)
        with (
            Dovecot(users, folds_case=folds_case) as dovecot,
            open_site(
                mode=mode,
                sign=sign,
                more=senders,
                others=others,
                workers=workers,
                engine=engine,
                role=role,
                main=main,
                inbound=inbound,
                submission={
                    "smtpd_sasl_type": "dovecot",
                    "smtpd_sasl_path": str(dovecot.socket),
                    "smtpd_tls_security_level": "encrypt",
                    "smtpd_tls_auth_only": "yes",
                    "smtpd_tls_cert_file": str(certificate),
                    "smtpd_tls_key_file": str(key),
                    **(submission or {}),
                },
            ) as mail,
        ):
            yield LoginSite(mail, dovecot, certificate, key)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def write_certificate(certificate: Path, key: Path) -> None:
    """A certificate for 127.0.0.1 that vouches for itself, and its key, which root alone can read."""
    private = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "mail.sandbox.test")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CERTIFICATE_LIFETIME)
        .not_valid_after(now + CERTIFICATE_LIFETIME)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address(HOST))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(private, SHA256())
    )
    certificate.write_bytes(made.public_bytes(Encoding.PEM))
    with open(os.open(key, os.O_WRONLY | os.O_CREAT, 0o600), "wb") as file:
        file.write(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
