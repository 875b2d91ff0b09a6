"""The lines of the daemon's log, read back: in every form, between the lines of others, whole or damaged."""

from __future__ import annotations

import io
import json
from datetime import datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from log_samples import LINES, record, syslog
from mailguard.cli.log_lines import LOST, LogRecord, Lost, Unreadable, read_lines
from mailguard_milter.log import Format, Log, Severity, Sink, format_line
from zone0 import NOW

LOCAL_NOW = datetime.fromtimestamp(NOW)


def read(*lines: bytes, now: datetime = LOCAL_NOW) -> list[LogRecord | Lost | Unreadable]:
    return list(read_lines(io.BytesIO(b"\n".join(lines) + b"\n"), now=now))


@pytest.mark.parametrize("form", LINES)
def test_a_line_is_read_in_every_form(form: str) -> None:
    assert read(LINES[form](record(), NOW)) == [
        LogRecord(
            time=NOW,
            client="198.51.100.66",
            domain="bank.test",
            action="accept",
            would="reject",
            rule="dmarc-reject",
            reason='bank.test asks for reject: SPF "none", DKIM none',
        )
    ]


@pytest.mark.parametrize("form", LINES)
def test_what_the_daemon_could_not_write_is_counted(form: str) -> None:
    assert read(LINES[form]({"event": LOST.decode(), "count": 25}, NOW)) == [Lost(NOW, 25)]


class FullTwice(Sink):
    """As a disk on which somebody makes room."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self.tried = 0

    def write(self, line: bytes, severity: Severity) -> None:
        self.tried += 1
        if self.tried <= 2:
            raise OSError("no room")
        self.lines.append(line)


@pytest.mark.parametrize("format", Format)
@pytest.mark.parametrize("timestamps", [False, True])
def test_the_daemon_says_it_in_words_that_are_read(format: Format, timestamps: bool) -> None:
    log = Log(sink := FullTwice(), format, timestamps=timestamps)
    log.start()
    for number in range(3):
        log.message({"n": number})
    log.close(timeout_s=10)
    (found,) = read(*sink.lines)
    assert isinstance(found, Lost)
    assert (found.count, found.time is not None) == (2, timestamps)


@pytest.mark.parametrize("form", LINES)
def test_a_message_that_speaks_of_lost_lines_is_a_message(form: str) -> None:
    (found,) = read(LINES[form](record(helo=b'event="log lines dropped" count=25'), NOW))
    assert isinstance(found, LogRecord)
    assert found.would == "reject"


@pytest.mark.parametrize(
    "content",
    [
        b'event="log lines dropped" count=99999999999999999999',
        b'event="log lines dropped" count=1 action=accept',
        b'sender="x" event="log lines dropped" count=25',
        b'the event="log lines dropped" count=25',
        b'{"event": "log lines dropped", "count": 25, "by": "x"}',
    ],
)
def test_what_only_resembles_it_is_not_taken_for_it(content: bytes) -> None:
    assert read(syslog(content)) == []


@pytest.mark.parametrize("form", LINES)
def test_what_strangers_wrote_changes_no_other_value(form: str) -> None:
    hostile = 'x" action=reject would=accept rule="none" \\ \n\r{"action": 1}\x1b\u2028\udcff]: role=sign '
    (found,) = read(LINES[form](record(**{"from": hostile, "mail_from": hostile.encode("utf-8", "replace")}), NOW))
    assert isinstance(found, LogRecord)
    assert (found.action, found.would, found.rule, found.client) == (
        "accept",
        "reject",
        "dmarc-reject",
        "198.51.100.66",
    )


@given(st.text(max_size=60), st.sampled_from(sorted(LINES)))
@settings(max_examples=200, deadline=None)
def test_every_line_that_the_daemon_writes_is_read(text: str, form: str) -> None:
    (found,) = read(LINES[form](record(login=text, **{"from": text}), NOW))
    assert isinstance(found, LogRecord)
    assert (found.would, found.domain) == ("reject", "bank.test")


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"Jun 15 10:00:00 mx1 postfix/smtpd[1]: NOQUEUE: reject: RCPT from x: role=verify action=accept",
        b"Jun 15 10:00:00 mx1 postfix/smtpd[1]: warning: helo=<]: role=verify action=accept would=reject rule=r>",
        b"Jun 15 10:00:00 mx1 postfix/cleanup[1]: A: warning: header role=verify action=accept would=reject rule=r",
        syslog(b'level=error event="internal error" action=role'),
        syslog(b'queue_id=A action=tempfail reason="internal error"'),
        syslog(b'{"event": "role action"}'),
        b"role of an action",
        b"\x00\xff role action",
    ],
    ids=["empty", "postfix", "forged-helo", "forged-header", "event", "no-role", "json-event", "prose", "noise"],
)
def test_lines_of_others_are_passed_over(line: bytes) -> None:
    assert read(line) == []


@pytest.mark.parametrize(
    ("line", "what"),
    [
        (syslog(b'queue_id=A role=verify action=accept reason="cut in the mid'), Unreadable.DAMAGED),
        (syslog(b'{"role": "verify", "action": "accept", "reason": "cut in'), Unreadable.DAMAGED),
        (syslog(b'{"role": "verify", "action": ' + b"[" * 8000), Unreadable.DAMAGED),
        (b"role=verify action=accept and prose", Unreadable.DAMAGED),
        (b"role=verify action=accept reason=" + b"x" * 20_000, Unreadable.TOO_LONG),
        (b"x" * 200_000, Unreadable.TOO_LONG),
    ],
    ids=["logfmt-cut", "json-cut", "json-nested", "no-pair", "long", "very-long"],
)
def test_what_cannot_be_read_is_told_and_the_next_line_is_read(line: bytes, what: Unreadable) -> None:
    after = LINES["logfmt"](record(), NOW)
    assert [type(each) for each in read(line, after)] == [Unreadable, LogRecord]
    assert read(line, after)[0] is what


@pytest.mark.parametrize("format", list(Format))
@pytest.mark.parametrize(
    "beginning",
    [
        # journalctl, in French and in German, and with three of its other formats.
        "nov. 22 20:00:00 mx1 mailguard-milter[12]: ",
        "M\u00e4r 22 20:00:00 mx1 mailguard-milter[12]: ",
        "Sun 2026-11-22 20:00:00 UTC mx1 mailguard-milter[12]: ",
        "Nov 22 20:00:00.123456 mx1 mailguard-milter[12]: ",
        "1763841600.123456 mx1 mailguard-milter[12]: ",
        # BusyBox' syslogd, Docker Compose, a pod's log.
        "Nov 22 20:00:00 mx1 mail.info mailguard-milter[12]: ",
        "mailguard-1  | ",
        "2026-11-22T20:00:00.123456789Z stderr F ",
    ],
)
def test_a_record_behind_what_is_not_known_is_told(beginning: str, format: Format) -> None:
    """And not passed over, as if there had been no message."""
    line = beginning.encode() + format_line(record(), format)
    assert read(line, LINES["logfmt"](record(), NOW))[0] is Unreadable.UNKNOWN_BEGINNING


@pytest.mark.parametrize("format", list(Format))
@pytest.mark.parametrize("key", ["log", "MESSAGE"])
def test_a_record_as_text_in_json_is_told(key: str, format: Format) -> None:
    """As Docker keeps it, and journalctl writes it with -o json."""
    line = json.dumps({key: format_line(record(), format).decode() + "\n", "stream": "stderr"}).encode()
    assert read(line) == [Unreadable.UNKNOWN_BEGINNING]


@pytest.mark.parametrize(
    "line",
    [
        b'time=2026-11-22T20:00:00Z level=error event="internal error" error="role=verify client=x action=accept"',
        b"Nov 22 20:00:00 mx1 postfix/smtpd[1]: warning: helo=<: role=verify client=x action=accept>",
    ],
    ids=["event", "postfix"],
)
def test_what_strangers_write_into_other_lines_is_no_record_behind_something(line: bytes) -> None:
    assert read(line) == []


@pytest.mark.parametrize("size", [1, 2, 7, 65_536])
def test_lines_are_read_across_whatever_a_pipe_gives(size: int) -> None:
    content = b"\n".join([LINES["logfmt"](record(), NOW)] * 3 + [b"x" * 40_000] + [LINES["json"](record(), NOW)])

    class Pipe(io.RawIOBase):
        place = 0

        def read(self, wanted: int = -1) -> bytes:
            piece = content[self.place : self.place + min(size, wanted)]
            self.place += len(piece)
            return piece

    found = list(read_lines(Pipe(), now=LOCAL_NOW))  # type: ignore[arg-type]  # read() is all that is needed
    assert [type(each) for each in found] == [LogRecord] * 3 + [Unreadable, LogRecord]


@pytest.mark.parametrize(
    ("text", "now", "then"),
    [
        ("Dec 30 09:00:00", datetime(2026, 1, 2, 12), datetime(2025, 12, 30, 9)),
        ("Feb 29 09:00:00", datetime(2028, 2, 29, 12), datetime(2028, 2, 29, 9)),
        ("Feb 29 09:00:00", datetime(2029, 1, 2, 12), datetime(2028, 2, 29, 9)),
        ("Feb 29 09:00:00", datetime(2032, 1, 2, 12), datetime(2028, 2, 29, 9)),
        ("Feb 29 09:00:00", datetime(2103, 12, 31, 12), datetime(2096, 2, 29, 9)),
    ],
)
def test_a_time_without_a_year_is_the_last_such_one(text: str, now: datetime, then: datetime) -> None:
    line = text.encode() + b" mx1 mailguard-milter[1]: " + format_line(record(), Format.LOGFMT)
    (found,) = read(line, now=now)
    assert isinstance(found, LogRecord)
    assert found.time == then.timestamp()


@pytest.mark.parametrize(
    "text", ["Feb 30 09:00:00", "Foo 30 09:00:00", "Jan  1 99:00:00", "2026-99-01T00:00:00+00:00"]
)
def test_a_time_that_is_none_is_none(text: str) -> None:
    line = text.encode() + b" mx1 mailguard-milter[1]: " + format_line(record(), Format.LOGFMT)
    (found,) = read(line)
    assert isinstance(found, LogRecord)
    assert found.time is None
