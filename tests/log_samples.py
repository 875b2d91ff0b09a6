"""Lines of the daemon's log, as a log may hold them, for the tests of what reads them."""

from __future__ import annotations

import time
from collections.abc import Callable

from mailguard_milter.log import Format, format_line
from zone0 import NOW

__all__ = ["LINES", "accepted", "record", "stamp", "syslog"]


def record(**more: object) -> dict[str, object]:
    """What the daemon logs for a message that the bank did not send."""
    return {
        "queue_id": b"4bZk1x2Qp3z",
        "role": "verify",
        "client": "198.51.100.66",
        "helo": b"mx.evil.test",
        "mail_from": b"x@evil.test",
        "from": "x@bank.test",
        "dmarc": "fail",
        "domain": "bank.test",
        "action": "accept",
        "would": "reject",
        "rule": "dmarc-reject",
        "reason": 'bank.test asks for reject: SPF "none", DKIM none',
        **more,
    }


def accepted(**more: object) -> dict[str, object]:
    return record(would=None, rule="no-objection", **more)


def stamp(at: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at))


def syslog(line: bytes, at: float = NOW) -> bytes:
    return time.strftime("%b %e %H:%M:%S", time.localtime(at)).encode() + b" mx1 mailguard-milter[123]: " + line


def rfc3339(line: bytes, at: float = NOW) -> bytes:
    return stamp(at)[:-1].encode() + b".000000+00:00 mx1 mailguard-milter[123]: " + line


def rfc5424(line: bytes, at: float = NOW) -> bytes:
    """As rsyslog's RSYSLOG_SyslogProtocol23Format has it."""
    return b"<22>1 %b.000000+00:00 mx1 mailguard-milter 123 - -  %b" % (stamp(at)[:-1].encode(), line)


LINES: dict[str, Callable[[dict[str, object], float], bytes]] = {
    "logfmt": lambda fields, at: format_line({"time": stamp(at), **fields}, Format.LOGFMT),
    "json": lambda fields, at: format_line({"time": stamp(at), **fields}, Format.JSON),
    "syslog": lambda fields, at: syslog(format_line(fields, Format.LOGFMT), at),
    "syslog-json": lambda fields, at: syslog(format_line({"time": stamp(at), **fields}, Format.JSON), at),
    "rfc3339": lambda fields, at: rfc3339(format_line(fields, Format.LOGFMT), at),
    "rfc5424": lambda fields, at: rfc5424(format_line(fields, Format.LOGFMT), at),
    "rfc5424-json": lambda fields, at: rfc5424(format_line(fields, Format.JSON), at).replace(b"<22>", b""),
    "crlf": lambda fields, at: format_line({"time": stamp(at), **fields}, Format.LOGFMT) + b"\r",
}
