"""The log: escaping, bounds, JSON, drops and syslog. ATTACKS.md G01, G02, P26, V18, X12 (rate)."""

from __future__ import annotations

import calendar
import contextlib
import json
import os
import re
import select
import socket
import string
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailguard_milter import log as log_module
from mailguard_milter.log import (
    MAX_LINE_BYTES,
    MAX_QUEUED_LINES,
    Format,
    Log,
    Severity,
    Sink,
    SyslogSink,
    format_line,
)


class Kept(Sink):
    """Keeps lines, or refuses them while `is_broken`, or waits while `gate` is closed."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self.is_broken = False
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()
        self.refused = threading.Event()

    def write(self, line: bytes, severity: Severity) -> None:
        self.entered.set()
        self.gate.wait()
        if self.is_broken:
            self.refused.set()
            raise ConnectionRefusedError("no syslog")
        self.lines.append(line)


def kept_log(sink: Sink, format: Format = Format.LOGFMT) -> Log:
    log = Log(sink, format, timestamps=False)
    log.start()
    return log


HOSTILE = [
    ("lf", "a\nb", "\\n"),
    ("cr", "a\rb", "\\r"),
    ("esc", "\x1b[31m", "\\x1b"),
    ("bel", "\x07", "\\x07"),
    ("nul", "a\0b", "\\x00"),
    ("del", "\x7f", "\\x7f"),
    ("c1", "\x9b31m", "\\x9b"),
    ("line separator", "a\u2028b", "\\u2028"),
    ("paragraph separator", "a\u2029b", "\\u2029"),
    ("rtl override", "\u202egro", "\\u202e"),
    ("isolate", "\u2066x", "\\u2066"),
    ("zero width", "a\u200bb", "\\u200b"),
    ("bom", "\ufeffx", "\\ufeff"),
    ("tag", "\U000e0041", "\\U000e0041"),
    ("surrogate for an octet", "\udcff", "\\xff"),
    ("surrogate", "\ud800", "\\ud800"),
    ("quote", 'a" action="accept', '\\"'),
    ("backslash", "a\\", "\\\\"),
]


@pytest.mark.attack("G01", "G02", "P05")
@pytest.mark.parametrize(("text", "escaped"), [row[1:] for row in HOSTILE], ids=[row[0] for row in HOSTILE])
def test_what_is_hostile_is_escaped_in_logfmt(text: str, escaped: str) -> None:
    line = format_line({"login": text, "action": "reject"}, Format.LOGFMT).decode()
    assert escaped in line
    assert line.isprintable()
    assert line.endswith(" action=reject")


@pytest.mark.attack("G01", "G02")
@pytest.mark.parametrize("text", [row[1] for row in HOSTILE], ids=[row[0] for row in HOSTILE])
def test_json_is_ascii_and_keeps_the_text(text: str) -> None:
    line = format_line({"login": text}, Format.JSON)
    assert line.decode("ascii").isprintable()
    value = json.loads(line)["login"]
    value.encode("utf-8")
    if not any(0xD800 <= ord(char) <= 0xDFFF for char in text):
        assert value == text


@pytest.mark.attack("G01")
@pytest.mark.parametrize("format", list(Format))
def test_a_long_value_is_cut_with_a_mark(format: Format) -> None:
    line = format_line({"from": b"x" * 16_384, "action": "accept"}, format)
    assert len(line) < 1000
    assert b"[cut]" in line
    assert b"accept" in line


@pytest.mark.attack("G01")
@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("x" * 600, "x" * 600),
        (b"x" * 600, "x" * 600),
        ("x" * 601, "x" * 600 + "[cut]"),
        (b"x" * 601, "x" * 600 + "[cut]"),
        ("x" * 600 + "[cut]", "x" * 600 + "[cut]"),
        ("x y" * 200, '"' + "x y" * 200 + '"'),
        ("x y" * 201, '"' + "x y" * 200 + '[cut]"'),
        ("=" * 601, '"' + "=" * 600 + '[cut]"'),
        ("\n" * 601, '"' + "\\n" * 600 + '[cut]"'),
        (["x" * 601, "y"], "x" * 600 + "[cut]"),
    ],
    ids=[
        "word",
        "octets",
        "word, one more",
        "octets, one more",
        "bears the mark",
        "quoted",
        "quoted, three more",
        "needs quotes, one more",
        "escaped, one more",
        "in a list",
    ],
)
def test_a_value_has_600_characters_at_most(value: object, written: str) -> None:
    assert format_line({"k": value}, Format.LOGFMT) == b"k=" + written.encode()


@pytest.mark.attack("P26")
@pytest.mark.parametrize(
    ("format", "separator", "brackets", "cut_mark"),
    [(Format.LOGFMT, " ", "", "cut=true"), (Format.JSON, ", ", "{}", '"cut": true')],
    ids=["logfmt", "json"],
)
@pytest.mark.parametrize("char", ["a", "\u00fc"], ids=["one octet", "two octets"])
def test_fields_are_left_out_where_the_line_would_become_too_long(
    format: Format, separator: str, brackets: str, cut_mark: str, char: str
) -> None:
    """Every length around the bound: MAX_LINE_BYTES without the mark and two octets for each separator."""
    width = len(format_line({"k": char * 2}, format)) - len(format_line({"k": char}, format))
    seen = set()
    for length in range(540, 600):
        record = {f"k{number}": char * (length // width) + "a" * (length % width) for number in range(7)}
        record["end"] = "word"
        alone = [format_line({key: value}, format).decode().strip(brackets) for key, value in record.items()]
        room, expected = MAX_LINE_BYTES - len(', "cut": true}'), alone.copy()
        while sum(len(part.encode()) + 2 for part in expected) > room:
            # Of several that are the longest, the last.
            expected.remove(max(reversed(expected), key=lambda part: len(part.encode())))
        if len(expected) < len(alone):
            expected.append(cut_mark)
        seen.add(cut_mark in expected)
        line = format_line(record, format)
        assert line.decode().strip(brackets) == separator.join(expected)
        assert len(line) <= MAX_LINE_BYTES
    assert seen == {False, True}


@pytest.mark.attack("G01", "P26")
@pytest.mark.parametrize("format", list(Format))
def test_nothing_that_strangers_write_takes_out_what_became_of_the_message(format: Format) -> None:
    ends = {"action": "accept", "would": "reject", "rule": "dmarc-reject"}
    told = [format_line({key: word}, format).strip(b"{}") for key, word in ends.items()]
    for length in range(600):
        long = {"helo": "\\" * 600, "mail_from": "\\" * 600, "from": "\\" * 600, "dkim": "x" * length}
        line = format_line({"role": "verify", **long, **ends, "reason": "x" * 100, "seconds": 0.1}, format)
        assert [each for each in told if each not in line] == []


@pytest.mark.attack("G01", "P26")
@pytest.mark.parametrize("format", list(Format))
def test_many_long_values_make_one_bounded_line(format: Format) -> None:
    line = format_line({f"k{number}": "\u202e" * 5000 for number in range(50)} | {"last": "word"}, format)
    assert len(line) <= MAX_LINE_BYTES
    assert line.endswith(b"cut=true" if format is Format.LOGFMT else b'"cut": true}')
    if format is Format.JSON:
        json.loads(line)


LOGFMT_PAIR = re.compile(r' ?(\w+)=("(?:[^"\\]|\\.)*"|[^ "=\\]*)')
UNESCAPE = re.compile(r"\\(x[0-9a-f]{2}|u[0-9a-f]{4}|U[0-9a-f]{8}|.)")


def parsed_logfmt(line: str) -> dict[str, str]:
    """An independent reader: the whole line must be pairs."""

    def unescape(match: re.Match[str]) -> str:
        code = match[1]
        return chr(int(code[1:], 16)) if len(code) > 1 else {"n": "\n", "r": "\r", "t": "\t"}.get(code, code)

    found, position = {}, 0
    while position < len(line):
        pair = LOGFMT_PAIR.match(line, position)
        assert pair is not None, line[position:]
        value = pair[2][1:-1] if pair[2].startswith('"') else pair[2]
        found[pair[1]] = UNESCAPE.sub(unescape, value)
        position = pair.end()
    return found


@pytest.mark.attack("G01", "G02")
@settings(deadline=None)
@given(st.text(max_size=200), st.text(max_size=200))
def test_logfmt_can_be_read_back(one: str, other: str) -> None:
    line = format_line({"one": one, "other": other, "end": 1}, Format.LOGFMT).decode()
    assert line.isprintable()
    # An octet that was not UTF-8 reads \xNN, as the character with that number does.
    flat = str.maketrans({code: code - 0xDC00 for code in range(0xDC80, 0xDD00)})
    assert parsed_logfmt(line) == {"one": one.translate(flat), "other": other.translate(flat), "end": "1"}


@pytest.mark.attack("G01", "G02")
@settings(deadline=None)
@given(st.one_of(st.text(), st.binary(), st.integers(), st.floats(), st.lists(st.text()), st.none(), st.booleans()))
def test_every_value_makes_a_valid_line(value: object) -> None:
    log = kept_log(kept := Kept(), Format.JSON)
    log.message({"value": value})
    log.close(timeout_s=10)
    (line,) = kept.lines
    assert b"\n" not in line
    json.loads(line)
    assert format_line({"value": value}, Format.LOGFMT).decode().isprintable()


@pytest.mark.parametrize(
    ("value", "logfmt", "as_json"),
    [
        (None, b"", b"{}"),
        ("", b'k=""', b'{"k": ""}'),
        ("%s%n", b"k=%s%n", b'{"k": "%s%n"}'),
        ("a b", b'k="a b"', b'{"k": "a b"}'),
        ("a=b", b'k="a=b"', b'{"k": "a=b"}'),
        (True, b"k=true", b'{"k": true}'),
        (0.25, b"k=0.250", b'{"k": 0.25}'),
        (Severity.INFO, b"k=6", b'{"k": 6}'),
        (Format.JSON, b"k=json", b'{"k": "json"}'),
        (("a", "b"), b"k=a,b", b'{"k": ["a", "b"]}'),
        (10**400, b"k=huge", b'{"k": "huge"}'),
        ("ü", "k=ü".encode(), b'{"k": "\\u00fc"}'),
    ],
    ids=str,
)
def test_kinds_of_values(value: object, logfmt: bytes, as_json: bytes) -> None:
    assert format_line({"k": value}, Format.LOGFMT) == logfmt
    assert format_line({"k": value}, Format.JSON) == as_json


@pytest.mark.attack("V18")
def test_a_blocked_sink_blocks_nobody_and_what_is_dropped_is_counted() -> None:
    sink = Kept()
    sink.gate.clear()
    log = kept_log(sink)
    log.message({"n": "first"})
    assert sink.entered.wait(10)
    for number in range(MAX_QUEUED_LINES + 25):
        log.message({"n": number})
    sink.gate.set()
    log.close(timeout_s=30)
    assert b'event="log lines dropped" count=25' in sink.lines
    assert len(sink.lines) == 1 + MAX_QUEUED_LINES + 1


@pytest.mark.attack("V18")
def test_a_broken_sink_loses_lines_and_says_so_later() -> None:
    sink = Kept()
    sink.is_broken = True
    log = kept_log(sink)
    for number in range(3):
        sink.entered.clear()
        log.message({"n": number})
        assert sink.entered.wait(10)
    # The writer has taken the third line; a fourth can only be written after it was refused.
    sink.gate.clear()
    log.message({"n": "late"})
    sink.is_broken = False
    sink.gate.set()
    log.close(timeout_s=10)
    dropped = re.search(rb"count=(\d+)", b"\n".join(sink.lines))
    assert dropped is not None
    assert int(dropped[1]) + sum(line.startswith(b"n=") for line in sink.lines) == 4


def test_whatever_a_sink_raises_later_lines_are_written() -> None:
    sink = Kept()
    log = kept_log(sink)
    write = sink.write

    def fail(line: bytes, severity: Severity) -> None:
        sink.write = write  # type: ignore[method-assign]  # once
        raise MemoryError

    sink.write = fail  # type: ignore[method-assign]  # see above
    log.message({"n": 1}, Severity.ERROR)
    log.message({"n": 2}, Severity.ERROR)
    log.close(timeout_s=10)
    assert b"n=2" in sink.lines
    assert b'event="log lines dropped" count=1' in sink.lines


def test_a_line_that_a_full_disk_cuts_is_no_written_line(tmp_path: Path) -> None:
    program = (
        "import os, resource, signal\n"
        "from mailguard_milter.log import Severity, StderrSink\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10))\n"
        "StderrSink().write(b'n=1', Severity.INFO)\n"
        "try:\n"
        "    StderrSink().write(b'n=234567', Severity.INFO)\n"
        "except OSError:\n"
        "    os._exit(7)\n"
    )
    with open(tmp_path / "stderr", "wb") as stderr:
        assert subprocess.run([sys.executable, "-c", program], stderr=stderr, check=False).returncode == 7
    assert (tmp_path / "stderr").read_bytes().startswith(b"n=1\n")


def test_a_stderr_that_does_not_block_is_waited_for() -> None:
    program = (
        "import os\n"
        "from mailguard_milter.log import Severity, StderrSink\n"
        "os.set_blocking(2, False)\n"
        "try:\n"
        "    while True: os.write(2, b'x' * 4096)\n"
        "except BlockingIOError:\n"
        "    os.write(1, b'full')\n"
        "StderrSink().write(b'n=1', Severity.INFO)\n"
    )
    read, write = os.pipe()
    with open(read, "rb") as reading:
        with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=write) as process:
            os.close(write)
            assert process.stdout is not None
            assert process.stdout.read(4) == b"full"
            assert reading.read().endswith(b"xn=1\n")
        assert process.returncode == 0


class KeptTogether(Kept):
    takes_several = True


def test_lines_that_come_together_are_written_together_in_order_and_within_a_pipe_buffer() -> None:
    log = kept_log(sink := KeptTogether())
    sent = [f"{number}".encode() + b"x" * (number % 590) for number in range(2000)]
    for text in sent:
        log.message({"k": text})
    log.close(timeout_s=30)
    assert b"\n".join(sink.lines) == b"\n".join(b"k=" + text for text in sent)
    assert max(map(len, sink.lines)) < select.PIPE_BUF
    assert len(sink.lines) < len(sent) / 5


def test_of_lines_written_together_each_is_counted_when_they_are_dropped() -> None:
    sink = KeptTogether()
    sink.is_broken = True
    log = kept_log(sink)
    for number in range(7):
        log.message({"n": number})
    assert sink.refused.wait(10)
    sink.is_broken = False
    log.message({"n": "late"})
    log.close(timeout_s=10)
    text = b"\n".join(sink.lines)
    dropped = re.search(rb"count=(\d+)", text)
    assert dropped is not None
    assert int(dropped[1]) + len(re.findall(rb"(?m)^n=", text)) == 8


NEVER_S = 3600.0  # what a test sets that would not end if it were waited for


@pytest.mark.parametrize("severity", [Severity.ERROR, Severity.WARNING])
def test_what_is_wrong_waits_for_no_other_line(severity: Severity, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_module, "GATHER_S", NEVER_S)
    log = kept_log(sink := Kept())
    log.message({"n": "before"})
    log.event("wrong", severity)
    assert sink.entered.wait(10)
    log.close(timeout_s=10)
    assert sink.lines == [b"n=before", b"event=wrong"]


def test_a_line_that_waits_for_others_is_written_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_module, "GATHER_S", NEVER_S)
    log = kept_log(sink := Kept())
    log.message({"n": 1})
    assert not sink.entered.wait(0.05)
    log.message({"n": 2})
    log.close(timeout_s=10)
    assert sink.lines == [b"n=1", b"n=2"]


def test_a_line_waits_for_others_a_moment_and_no_longer() -> None:
    log = kept_log(sink := Kept())
    for number in range(3):
        sink.entered.clear()
        log.message({"n": number})
        # Longer than a machine under load needs; what waits for the next line waits for ever.
        assert sink.entered.wait(100 * log_module.GATHER_S)
    log.close(timeout_s=10)


def test_the_time_is_that_of_the_second() -> None:
    log = Log(kept := Kept(), Format.LOGFMT, timestamps=True)
    log.start()
    began = int(time.time())
    log.message({"n": 1})
    time.sleep(1.01)
    log.message({"n": 2})
    log.close(timeout_s=10)
    times = [line.split()[0].removeprefix(b"time=").decode() for line in kept.lines]
    read = [calendar.timegm(time.strptime(text, "%Y-%m-%dT%H:%M:%SZ")) for text in times]
    assert began <= read[0] < read[1] <= time.time()


@pytest.mark.attack("X12")
def test_an_event_is_logged_a_bounded_number_of_times() -> None:
    log = kept_log(kept := Kept())
    for _ in range(10_000):
        log.event("garbage on the socket")
    log.event("something else")
    log.close(timeout_s=10)
    assert len(kept.lines) == log_module.EVENTS_PER_WINDOW + 1


@pytest.mark.attack("X12")
def test_an_event_is_logged_again_in_the_next_window(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the number of those that were not; in the window after that there were none."""
    log = kept_log(kept := Kept())
    for _ in range(log_module.EVENTS_PER_WINDOW + 5):
        log.event("garbage")
    # Each begins a window of its own.
    monkeypatch.setattr(log_module, "EVENT_WINDOW_S", -1.0)
    log.event("garbage")
    log.event("garbage")
    log.close(timeout_s=10)
    expected = [b"event=garbage"] * log_module.EVENTS_PER_WINDOW
    assert kept.lines == [*expected, b"event=garbage not_logged=5", b"event=garbage"]


def test_a_count_that_could_not_be_logged_is_logged_later() -> None:
    count = b'event="log lines dropped" count=1'
    refused = [b"n=1", count]

    class Picky(Kept):
        def write(self, line: bytes, severity: Severity) -> None:
            if line in refused:
                refused.remove(line)
                raise OSError("not this time")
            super().write(line, severity)

    log = kept_log(sink := Picky())
    for number in (1, 2, 3):
        log.message({"n": number})
    log.close(timeout_s=10)
    assert sink.lines == [b"n=2", b"n=3", count]


def test_several_lines_are_written_at_once_up_to_what_a_pipe_takes_whole() -> None:
    for length, writes in ((94, 1), (95, 2)):
        log = Log(sink := KeptTogether(), Format.LOGFMT, timestamps=False)
        for each in (4000, length):
            log._put(b"x" * each, Severity.INFO)
        log.start()
        log.close(timeout_s=10)
        assert len(sink.lines) == writes
        assert max(map(len, sink.lines)) < select.PIPE_BUF


def full_pipe() -> tuple[int, int]:
    """A pipe for whose writing end there is no room; it would block."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writer, b"x" * select.PIPE_BUF)
    os.set_blocking(writer, True)
    return reader, writer


def test_telling_does_not_wait_for_a_reader() -> None:
    reader, writer = full_pipe()
    program = "from mailguard_milter.log import tell; tell('unheard')"
    try:
        assert subprocess.run([sys.executable, "-c", program], stderr=writer, check=False, timeout=60).returncode == 0
    finally:
        os.close(reader)
        os.close(writer)


def test_a_syslog_daemon_that_does_not_read_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_module, "SYSLOG_PATIENCE_S", 0.05)
    path, over = str(tmp_path / "log"), threading.Event()

    def fill() -> None:
        sink = SyslogSink(path)
        try:
            while True:
                sink.write(b"x" * 1000, Severity.INFO)
        except TimeoutError:
            over.set()

    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as daemon:
        daemon.bind(path)
        threading.Thread(target=fill, daemon=True).start()
        assert over.wait(30)


def test_a_value_that_cannot_be_printed_fails_nothing() -> None:
    class Unprintable:
        def __str__(self) -> str:
            raise RuntimeError("no")

    log = kept_log(kept := Kept())
    log.message({"value": Unprintable()})
    log.close(timeout_s=10)
    assert kept.lines == [b'event="unprintable log record" error=RuntimeError']


@pytest.mark.attack("V18")
def test_syslog_datagrams_and_a_restarted_daemon(tmp_path: Path) -> None:
    path = str(tmp_path / "log")
    sink = SyslogSink(path)
    with pytest.raises(OSError, match="No such file"):
        sink.write(b"nobody there", Severity.INFO)
    for text in (b"one", b"two"):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as daemon:
            daemon.bind(path)
            if text == b"two":
                with pytest.raises(ConnectionRefusedError):
                    sink.write(b"lost with the old daemon", Severity.INFO)
            sink.write(text, Severity.WARNING)
            received = daemon.recv(4096)
        os.unlink(path)
        # facility mail (2), severity warning (4)
        assert re.fullmatch(rb"<20>\w{3} [ \d]\d [\d:]{8} mailguard-milter\[\d+\]: " + text, received)


@pytest.mark.attack("P26")
def test_lines_of_several_processes_do_not_mix(tmp_path: Path) -> None:
    program = (
        "from mailguard_milter.log import *\nimport sys\n"
        "log = Log(StderrSink(), Format.LOGFMT, timestamps=False); log.start()\n"
        "for _ in range(300): log.message({'k': sys.argv[1] * 500})\nlog.close(timeout_s=30)"
    )
    reader, writer = os.pipe()
    running = [subprocess.Popen([sys.executable, "-c", program, char], stderr=writer) for char in "abcd"]
    os.close(writer)
    with open(reader, "rb") as stream:
        lines = stream.read().splitlines()
    assert [process.wait() for process in running] == [0] * 4
    assert len(lines) == 1200
    assert set(lines) == {b"k=" + char * 500 for char in (b"a", b"b", b"c", b"d")}


@pytest.mark.attack("G01")
def test_printable_ascii_stays_as_it_is() -> None:
    text = "".join(set(string.printable) - set(string.whitespace) - set('\\"='))
    assert format_line({"k": text}, Format.LOGFMT) == b"k=" + text.encode()
