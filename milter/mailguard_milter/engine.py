"""Engine: what stands between an MTA and a session, as the worker and the session see it.

There are two: engine_libmilter.py and engine_native.py. Both read the milter protocol, call a `Dialogue` with what
arrives, answer its questions from a resolver, and carry out what it concludes. Here is what they have in common.
"""

from __future__ import annotations

import socket
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Protocol

from mailguard.dns.answers import Answers, Resolver
from mailguard.dns.question import Question
from mailguard.trace import Trace
from mailguard_milter.actions import Action, Reply
from mailguard_milter.log import Log, Severity

__all__ = [
    "CONNECT_MACROS",
    "INTERNAL_ERROR",
    "MAIL_MACROS",
    "QUEUE_ID_MACRO",
    "SESSION_TIMEOUT_S",
    "Concluded",
    "Dialogue",
    "Door",
    "Engine",
    "Surroundings",
    "client_address",
    "tell_failure",
]

# An MTA that lives may be silent here for long, and a session that is given up before its client's goes on without a
# milter. Each NOOP begins Postfix's smtpd_timeout (300 s) anew, and it takes 100 of them and 20 errors
# (smtpd_junk_command_limit, smtpd_hard_error_limit): ten hours. A message is handed over when all of it is there,
# for which Postfix has no limit: beyond this, milter_default_action says what becomes of it. An MTA that is gone
# closes its connection, or does not answer to keepalive (listening.KEEPALIVE).
SESSION_TIMEOUT_S = 43_200

# Only what a session looks at.
CONNECT_MACROS = ("{daemon_name}",)
MAIL_MACROS = ("{auth_type}", "{auth_authen}", "{mail_addr}")
# Postfix opens the queue file after the first recipient: the queue id is certain only from here on.
QUEUE_ID_MACRO = "i"

INTERNAL_ERROR = Reply("451", "4.3.0", "mailguard: internal error, please try again later")


class Concluded(Protocol):
    """What a message came to."""

    @property
    def actions(self) -> tuple[Action, ...]:
        """To be carried out in this order."""

    @property
    def record(self) -> Mapping[str, object]:
        """For the log."""

    @property
    def trace(self) -> Trace | None:
        """To be kept; None where nothing is."""


class Dialogue(Protocol):
    """One SMTP session, as session.Session is: called by one thread at a time, on any thread."""

    def connect(self, address: IPv4Address | IPv6Address | None, macros: Mapping[str, bytes | None]) -> None: ...
    def helo(self, name: bytes) -> None: ...
    def mail(self, path: bytes, macros: Mapping[str, bytes | None]) -> None: ...
    def rcpt(self) -> Sequence[Question]: ...
    def headers(self, fields: Sequence[tuple[bytes, bytes]]) -> None: ...
    def end_of_header(self) -> Sequence[Question]: ...
    def body(self, chunk: bytes) -> None: ...
    def end_of_message(self, answers: Answers, *, now: float) -> Concluded: ...
    def abort(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Door:
    """Where MTAs come in."""

    listening: socket.socket
    """Listens and does not block."""
    open_dialogue: Callable[[], Dialogue]


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a worker gives its engine."""

    doors: tuple[Door, ...]
    """libmilter knows one."""
    resolver: Resolver
    deadline_s: float
    """For all look-ups of a message."""
    log: Log
    keep_trace: Callable[[Trace, bytes | None], None] | None
    """Takes a trace and the queue id, and does not wait."""
    max_sessions: int
    """More connections are left in the backlog, where another worker finds them."""
    scratch_directory: str
    """Writable, and private or trusted."""


class Engine(Protocol):
    """A milter on its listening sockets. For the main thread of a worker."""

    failure: BaseException | None
    """Why it ended by itself."""

    def start(self) -> None:
        """Begin to serve; returns when it does. Raises OSError if it cannot."""

    @property
    def is_serving(self) -> bool:
        """Whether it still runs."""

    @property
    def messages(self) -> int:
        """Messages between MAIL and their end."""

    def sessions(self) -> int:
        """Connections that are open."""

    def longest_callback_s(self) -> float:
        """How long the slowest step that is under way has been."""

    def trouble(self, now: float) -> str | None:
        """Called a few times a second, to look after what needs it; `now` is of `time.monotonic()`.

        Returns why the process must end, or None.
        """

    def detach(self) -> None:
        """Accept nothing for good, and let go of the listening sockets. The open sessions go on."""


def client_address(text: str, family: int) -> IPv4Address | IPv6Address:
    """Of AF_INET or AF_INET6, in a quarter of the time that ipaddress takes.

    Raises ValueError; so it does for what has an interface behind it.
    """
    try:
        octets = socket.inet_pton(family, text)
    except OSError as error:
        raise ValueError("it is no address") from error
    return IPv4Address(octets) if family == socket.AF_INET else IPv6Address(octets)


def tell_failure(log: Log, stage: str, error: BaseException) -> None:
    """Log what was raised in a session, and where."""
    place = traceback.extract_tb(error.__traceback__)[-1:]
    log.event(
        "internal error",
        Severity.ERROR,
        stage=stage,
        error=f"{type(error).__name__}: {error}",
        place=",".join(f"{frame.filename}:{frame.lineno}" for frame in place),
    )
