"""The message of `mailguard test`, and how it is handed to Postfix: by sendmail(1), or by SMTP (RFC 5321, RFC 6409).

A password is sent under TLS alone, or to this host itself. What a server says has a bound in size and in time. Left
out: addresses that need SMTPUTF8.
"""

from __future__ import annotations

import base64
import contextlib
import re
import smtplib
import socket
import ssl
import subprocess
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import format_datetime
from ipaddress import ip_address
from typing import Self

from mailguard.domain import Domain
from mailguard.errors import ConfigError, DomainError

__all__ = ["Handed", "MailAddress", "SmtpPlace", "TrialMessage", "by_sendmail", "by_smtp"]

SENDMAIL_TIMEOUT_S = 60.0
SMTP_TIMEOUT_S = 60.0
# For all that a server says from its greeting on; who sends an octet now and then is never silent for a minute.
SMTP_TIME_S = 120.0
# A server says some hundred octets; more than this is no mail server.
MAX_SAID_BYTES = 256 * 1024
SUBMISSION_PORT = 587
# The port on which TLS begins at once (RFC 8314 §3.3).
SUBMISSIONS_PORT = 465
MAX_REPLY_CHARS = 1_000

# RFC 5322 §3.2.3: a dot-atom, and no quotes.
_LOCAL_PART = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?:\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*")
MAX_LOCAL_PART = 64  # RFC 5321 §4.5.3.1.1
_QUEUED_AS = re.compile(r"queued as ([0-9A-Za-z]{6,24})")
_DSN = re.compile(r"(?:^|\n)([245]\.[0-9]{1,3}\.[0-9]{1,3})\b")


@dataclass(frozen=True, slots=True)
class MailAddress:
    """An address with its domain."""

    local_part: str
    domain: Domain

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises DomainError for what is none, or would need quotes or SMTPUTF8."""
        local_part, at, domain = text.rpartition("@")
        if not at or len(local_part) > MAX_LOCAL_PART or not _LOCAL_PART.fullmatch(local_part):
            raise DomainError(f"{text!r} is not an address such as postmaster@example.com")
        return cls(local_part, Domain.parse(domain))

    def __str__(self) -> str:
        return f"{self.local_part}@{self.domain}"


@dataclass(frozen=True, slots=True)
class TrialMessage:
    """What is sent."""

    sender: MailAddress
    recipient: MailAddress
    message_id: str
    """With its brackets."""
    octets: bytes
    """With LF line ends."""

    @classmethod
    def compose(cls, sender: MailAddress, recipient: MailAddress, *, host: str, now: float, unique: str) -> Self:
        """`unique` is what nobody can guess; `now` is in POSIX seconds."""
        message_id = f"<mailguard-test.{unique}@{sender.domain}>"
        date = format_datetime(datetime.fromtimestamp(now, UTC))
        # RFC 3834 §5: so that no responder answers.
        text = f"""\
From: {sender}
To: {recipient}
Subject: Test message of mailguard
Date: {date}
Message-ID: {message_id}
Auto-Submitted: auto-generated
MIME-Version: 1.0
Content-Type: text/plain; charset=us-ascii

This is a test message. The administrator of {host} has sent it with the
command "mailguard test", to see whether mail leaves that host, and whether
it is signed. Nobody needs to answer, or to do anything.
"""
        return cls(sender, recipient, message_id, text.encode("ascii", "replace"))


@dataclass(frozen=True, slots=True)
class Handed:
    """What came of handing it over. Texts are bounded, and hold whatever the other side said."""

    queue_id: str = ""
    """Empty where it was not told."""
    code: int = 0
    """Of an SMTP reply that refused it."""
    dsn: str = ""
    reply: str = ""
    fault: str = ""
    """Why it did not come to a reply."""
    is_unanswered: bool = False
    """Whether that is because no server answered."""


def by_sendmail(message: TrialMessage, program: str, *, config_directory: str | None) -> Handed:
    """Postfix's sendmail(1), as programs on this host use it."""
    instance = [] if config_directory is None else ["-C", config_directory]
    try:
        done = subprocess.run(
            [program, *instance, "-i", "-f", str(message.sender), "--", str(message.recipient)],
            input=message.octets,
            capture_output=True,
            timeout=SENDMAIL_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Handed(fault=f"{program} does not end within {SENDMAIL_TIMEOUT_S:g} s")
    except OSError as error:
        return Handed(fault=f"{program} cannot be run: {error.strerror}")
    if done.returncode:
        said = done.stderr.decode("utf-8", "backslashreplace").strip()[-MAX_REPLY_CHARS:]
        return Handed(fault=f"{program} ends with {done.returncode}: {said or 'it does not say why'}")
    return Handed()


@dataclass(frozen=True, slots=True)
class SmtpPlace:
    """Where to submit, and as whom."""

    host: str
    port: int
    login: str = ""
    password: str = field(default="", repr=False)

    @classmethod
    def parse(cls, text: str) -> Self:
        """`HOST`, `HOST:PORT`, `[IPV6]:PORT`. Raises ValueError."""
        found = re.fullmatch(
            r"(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<name>[A-Za-z0-9._-]+))(?::(?P<port>[0-9]{1,5}))?", text
        )
        if found is None:
            raise ValueError(f"{text!r} is not HOST or HOST:PORT")
        port = int(found["port"] or SUBMISSION_PORT)
        if not 0 < port < 65_536:
            raise ValueError(f"{port} is no port")
        return cls(found["v6"] or found["name"], port)

    @property
    def is_this_host(self) -> bool:
        """By loopback: nobody is between."""
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class _Said:
    """What a server says, line by line: up to a size, and until a time (monotonic)."""

    def __init__(self, connection: socket.socket, *, until: float) -> None:
        self._connection, self._until, self._left = connection, until, MAX_SAID_BYTES
        self._held = b""

    def readline(self, limit: int) -> bytes:
        """As a file's; empty at its end. Raises OSError."""
        while b"\n" not in self._held and len(self._held) < limit:
            left_s = self._until - time.monotonic()
            if left_s <= 0:
                raise TimeoutError(f"it does not come to an end within {SMTP_TIME_S:g} s")
            self._connection.settimeout(min(left_s, SMTP_TIMEOUT_S))
            octets = self._connection.recv(limit)
            self._left -= len(octets)
            if self._left < 0:
                raise OSError(f"it says more than {MAX_SAID_BYTES} octets")
            if not octets:
                break
            self._held += octets
        end = min(limit, self._held.find(b"\n") + 1 or len(self._held))
        line, self._held = self._held[:end], self._held[end:]
        return line

    def close(self) -> None:
        """The connection is closed by whom it belongs to."""


class _Smtp(smtplib.SMTP):
    """With a bound to what is read: smtplib takes reply lines for as long as they come."""

    _until: float | None = None

    def getreply(self) -> tuple[int, bytes]:
        """See SMTP.getreply."""
        if self._until is None:
            self._until = time.monotonic() + SMTP_TIME_S
        if self.file is None and self.sock is not None:
            self.file = _Said(self.sock, until=self._until)
        return super().getreply()


class _SmtpOverTls(_Smtp, smtplib.SMTP_SSL):
    """From the first octet on."""


def by_smtp(message: TrialMessage, place: SmtpPlace, *, helo: str) -> Handed:
    """As a user's program does: STARTTLS where it is offered, then the login. Raises ConfigError for no TLS."""
    try:
        client = _connected(place, helo)
        try:
            if place.login:
                _log_in(client, place)
            return _transaction(client, message)
        finally:
            # Whatever is said to that, what became of the message is known.
            with contextlib.suppress(OSError, smtplib.SMTPException):
                client.quit()
            client.close()
    except smtplib.SMTPResponseException as error:
        return _refused(error.smtp_code, error.smtp_error)
    except smtplib.SMTPNotSupportedError as error:
        return Handed(fault=f"{place}: {error}")
    except ssl.SSLError as error:
        return Handed(fault=f"TLS with {place} fails: {error.reason or error}")
    except ValueError:
        # A name that the DNS cannot have, or what is no base64 in a login.
        return Handed(fault=f"{place}: no such name, or it does not speak SMTP")
    except (OSError, smtplib.SMTPException) as error:
        told = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        return Handed(fault=f"{place}: {told[:MAX_REPLY_CHARS] or type(error).__name__}", is_unanswered=True)


def _connected(place: SmtpPlace, helo: str) -> smtplib.SMTP:
    context = ssl.create_default_context()
    if place.is_this_host:
        # Its certificate has another name, and whoever could stand between has this host already.
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if place.port == SUBMISSIONS_PORT:
        return _SmtpOverTls(place.host, place.port, local_hostname=helo, timeout=SMTP_TIMEOUT_S, context=context)
    client = _Smtp(place.host, place.port, local_hostname=helo, timeout=SMTP_TIMEOUT_S)
    try:
        client.ehlo()
        if client.has_extn("starttls"):
            client.starttls(context=context)
            client.ehlo()
    except BaseException:
        client.close()
        raise
    return client


def _log_in(client: smtplib.SMTP, place: SmtpPlace) -> None:
    if not isinstance(client.sock, ssl.SSLSocket) and not place.is_this_host:
        raise ConfigError(f"{place} offers no TLS: the password was not sent, nor the message")
    client.ehlo_or_helo_if_needed()
    if (place.login + place.password).isascii():
        client.login(place.login, place.password)
        return
    # smtplib knows ASCII alone. RFC 4616 §2: in UTF-8.
    if "PLAIN" not in client.esmtp_features.get("auth", "").upper().split():
        raise smtplib.SMTPNotSupportedError("AUTH PLAIN is not offered, which this login needs: it is not ASCII")
    said = f"\0{place.login}\0{place.password}".encode("utf-8", "surrogateescape")
    code, reply = client.docmd("AUTH", f"PLAIN {base64.b64encode(said).decode('ascii')}")
    if code != 235:
        raise smtplib.SMTPAuthenticationError(code, reply)


def _transaction(client: smtplib.SMTP, message: TrialMessage) -> Handed:
    client.ehlo_or_helo_if_needed()
    code, reply = client.mail(str(message.sender))
    if code == 250:
        code, reply = client.rcpt(str(message.recipient))
    if code in (250, 251):
        code, reply = client.data(message.octets.replace(b"\n", b"\r\n"))
    if code != 250:
        return _refused(code, reply)
    text = reply.decode("utf-8", "backslashreplace")[:MAX_REPLY_CHARS]
    queued = _QUEUED_AS.search(text)
    return Handed(queue_id=queued[1] if queued is not None else "", reply=text)


def _refused(code: int, reply: bytes | str) -> Handed:
    text = reply if isinstance(reply, str) else reply.decode("utf-8", "backslashreplace")
    text = text[:MAX_REPLY_CHARS]
    if not 200 <= code <= 599:
        return Handed(fault=f"what was said is no reply of SMTP: {text}")
    dsn = _DSN.search(text)
    return Handed(code=code, dsn=dsn[1] if dsn is not None else "", reply=text)
