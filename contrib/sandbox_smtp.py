"""The client's side of SMTP for the sandbox: XCLIENT LOGIN, and a transaction that yields the queue id.

Postfix's XCLIENT_README (LOGIN), RFC 3461 §4 (xtext). For use with smtplib; no state.
"""

from __future__ import annotations

import re
import smtplib
from collections.abc import Sequence
from functools import partial

from sandbox_place import SandboxError

__all__ = ["login_with_xclient", "transmit"]

_QUEUED_AS = re.compile(rb"queued as ([0-9A-Za-z]+)")


def login_with_xclient(client: smtplib.SMTP, login: str) -> None:
    """Make Postfix take the connection for one that has logged in. A new EHLO is done."""
    code, reply = client.docmd("XCLIENT", f"LOGIN={_xtext(login)}")
    if code != 220:
        raise smtplib.SMTPResponseException(code, reply)
    client.ehlo()


def transmit(client: smtplib.SMTP, message: bytes, *, sender: str, recipients: Sequence[str]) -> str:
    """One transaction, all of whose recipients must be accepted; the queue id. Raises smtplib's errors."""
    commands = [partial(client.mail, sender), *(partial(client.rcpt, each) for each in recipients)]
    for command in (*commands, partial(client.data, message)):
        code, reply = command()
        if code not in (250, 251):
            client.rset()
            raise smtplib.SMTPResponseException(code, reply)
    queued = _QUEUED_AS.search(reply)
    if queued is None:
        raise SandboxError(f"the reply names no queue id: {reply!r}")
    return queued[1].decode("ascii")


def _xtext(value: str) -> str:
    # RFC 3461 §4
    plain = set(range(33, 127)) - set(b"+=")
    return "".join(chr(octet) if octet in plain else f"+{octet:02X}" for octet in value.encode())
