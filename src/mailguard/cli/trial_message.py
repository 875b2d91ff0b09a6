"""The message of `mailguard test`, and how it is handed to Postfix: by sendmail(1), or by SMTP (RFC 5321, RFC 6409).

A password is sent under TLS alone, or to this host itself. Left out: addresses that need SMTPUTF8.
"""

from __future__ import annotations

import contextlib
import re
import smtplib
import ssl
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime
from ipaddress import ip_address
from typing import Self

from mailguard.domain import Domain
from mailguard.errors import ConfigError, DomainError

__all__ = ["Handed", "MailAddress", "SmtpPlace", "TrialMessage", "by_sendmail", "by_smtp"]

SENDMAIL_TIMEOUT_S = 60.0
SMTP_TIMEOUT_S = 60.0
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
    password: str = ""

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
    except ssl.SSLError as error:
        return Handed(fault=f"TLS with {place} fails: {error.reason or error}")
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
        return smtplib.SMTP_SSL(place.host, place.port, local_hostname=helo, timeout=SMTP_TIMEOUT_S, context=context)
    client = smtplib.SMTP(place.host, place.port, local_hostname=helo, timeout=SMTP_TIMEOUT_S)
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
    client.login(place.login, place.password)


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
    dsn = _DSN.search(text)
    return Handed(code=code, dsn=dsn[1] if dsn is not None else "", reply=text)
