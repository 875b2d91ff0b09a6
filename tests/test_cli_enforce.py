"""`mailguard enforce --dry-run`: from traces, from the log in all its forms, with what strangers put between."""

from __future__ import annotations

import gzip
import io
import json
import os
import re
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cli_process import Command, Result
from judged_messages import judge_message
from mailguard.cli import enforce_report, group
from mailguard.cli.enforce import enforce
from mailguard.cli.enforce_report import Report
from mailguard.cli.log_lines import LogRecord, Unreadable, read_lines
from mailguard.cli.recorded import judge_recorded, looks_like_queue_id
from mailguard.errors import ConfigError
from mailguard.policy import Mode, Policy
from mailguard.spf.result import SpfStatus
from mailguard.trace_store import Row, TraceStore
from mailguard_milter.log import Format, format_line
from zone0 import DAY_S, NOW, ke, mail, sign_as

LOCAL_NOW = datetime.fromtimestamp(NOW)


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


# What a line is


LINES: dict[str, Callable[[dict[str, object], float], bytes]] = {
    "logfmt": lambda fields, at: format_line({"time": stamp(at), **fields}, Format.LOGFMT),
    "json": lambda fields, at: format_line({"time": stamp(at), **fields}, Format.JSON),
    "syslog": lambda fields, at: syslog(format_line(fields, Format.LOGFMT), at),
    "syslog-json": lambda fields, at: syslog(format_line({"time": stamp(at), **fields}, Format.JSON), at),
    "rfc3339": lambda fields, at: rfc3339(format_line(fields, Format.LOGFMT), at),
    "crlf": lambda fields, at: format_line({"time": stamp(at), **fields}, Format.LOGFMT) + b"\r",
}


def read(*lines: bytes, now: datetime = LOCAL_NOW) -> list[LogRecord | Unreadable]:
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


def test_a_time_without_a_year_is_the_last_such_one() -> None:
    january = datetime(2026, 1, 2, 12, 0, 0)
    december = datetime(2025, 12, 30, 9, 0, 0)
    line = b"Dec 30 09:00:00 mx1 mailguard-milter[1]: " + format_line(record(), Format.LOGFMT)
    (found,) = read(line, now=january)
    assert isinstance(found, LogRecord)
    assert found.time == december.timestamp()


@pytest.mark.parametrize(
    "text", ["Feb 30 09:00:00", "Foo 30 09:00:00", "Jan  1 99:00:00", "2026-99-01T00:00:00+00:00"]
)
def test_a_time_that_is_none_is_none(text: str) -> None:
    line = text.encode() + b" mx1 mailguard-milter[1]: " + format_line(record(), Format.LOGFMT)
    (found,) = read(line)
    assert isinstance(found, LogRecord)
    assert found.time is None


# The command


@pytest.fixture
def command(mailguard_command: Command) -> Command:
    group.mailguard.add_command(enforce)
    return mailguard_command


def dry_run(command: Command, *arguments: str | Path, stdin: bytes = b"") -> Result:
    return command("enforce", "--dry-run", "--now", str(NOW), *arguments, stdin=stdin)


def written(path: Path, *lines: bytes) -> Path:
    path.write_bytes(b"\n".join([*lines, b""]))
    return path


def mixed() -> list[bytes]:
    """A week at a small site."""
    return [
        *(LINES["syslog"](record(client=f"198.51.100.{n}"), NOW - n) for n in range(5)),
        *(LINES["json"](record(client="2001:db8::1", domain="us.test", would="quarantine"), NOW) for _ in range(2)),
        LINES["logfmt"](record(client="2001:db8::1", domain="us.test", rule="spf-fail", would="tempfail"), NOW),
        *(LINES["rfc3339"](accepted(), NOW - n) for n in range(12)),
        LINES["logfmt"](record(), NOW - 8 * DAY_S),
        b"Jun 15 10:00:00 mx1 postfix/qmgr[1]: 4bZk1x2Qp3z: removed",
    ]


def test_without_dry_run_it_says_how_enforcing_is_switched_on(command: Command) -> None:
    done = command("enforce", "--config", "/etc/mailguard/mg.toml")
    assert done.code == 64
    assert 'mode = "enforce" in /etc/mailguard/mg.toml' in done.err
    assert "--dry-run" in done.err
    assert done.out == ""


def test_the_table_has_sources_by_how_often_they_would_be_refused(command: Command, tmp_path: Path) -> None:
    done = dry_run(command, "--log", written(tmp_path / "mail.log", *mixed()))
    assert done.code == 0
    first, *rows = done.out.splitlines()
    assert first.split() == ["count", "would", "source", "domain", "rule", "reason"]
    assert rows[0].split()[:5] == ["5", "reject", "198.51.100.0/24", "bank.test", "dmarc-reject"]
    # One client of a network is named itself.
    assert rows[1].split()[:5] == ["2", "quarantine", "2001:db8::1", "us.test", "dmarc-reject"]
    assert rows[2].split()[:5] == ["1", "tempfail", "2001:db8::1", "us.test", "spf-fail"]
    assert rows[3] == ""
    assert "Of 20 messages of the last 7 days" in rows[4]
    assert "enforcing would keep back 8 (40.0 %): reject 5, quarantine 2, tempfail 1." in rows[4]


def test_json_has_the_same(command: Command, tmp_path: Path) -> None:
    done = dry_run(command, "--json", "--log", written(tmp_path / "mail.log", *mixed()))
    report = json.loads(done.out)
    assert (report["messages"], report["would_refuse"], report["days"]) == (20, 8, 7)
    assert report["would"] == {"reject": 5, "quarantine": 2, "tempfail": 1}
    assert report["groups"][0] == {
        "source": "198.51.100.0/24",
        "domain": "bank.test",
        "would": "reject",
        "rule": "dmarc-reject",
        "reason": 'bank.test asks for reject: SPF "none", DKIM none',
        "count": 5,
    }
    assert (report["notes"], report["not_grouped"]) == ([], 0)
    assert report["to"] == stamp(NOW)


@pytest.mark.parametrize(("days", "messages"), [("1", 20), ("7", 20), ("8", 21), ("30", 21)])
def test_only_the_last_days_count(command: Command, tmp_path: Path, days: str, messages: int) -> None:
    done = dry_run(command, "--json", "--days", days, "--log", written(tmp_path / "mail.log", *mixed()))
    assert json.loads(done.out)["messages"] == messages


def test_several_files_and_standard_input_and_compressed_ones_are_one_log(command: Command, tmp_path: Path) -> None:
    line = LINES["syslog"](record(), NOW)
    plain = written(tmp_path / "mail.log", line)
    packed = tmp_path / "mail.log.2.gz"
    packed.write_bytes(gzip.compress(line + b"\n" + line + b"\n"))
    done = dry_run(command, "--json", "--log", plain, "--log", packed, "--log", "-", stdin=line)
    assert json.loads(done.out)["would_refuse"] == 4
    assert done.code == 0


def test_what_could_not_be_read_is_said_and_the_rest_is_shown(command: Command, tmp_path: Path) -> None:
    line = LINES["syslog"](record(), NOW)
    untimed = format_line(record(), Format.LOGFMT)
    log = written(tmp_path / "mail.log", line, line[:-5], b"x" * 50_000, untimed)
    cut = tmp_path / "cut.gz"
    cut.write_bytes(gzip.compress(os.urandom(5000) + b"\n" + line)[:-100])
    noise = tmp_path / "noise.gz"
    noise.write_bytes(b"\x1f\x8b" + os.urandom(500))
    names = [log, tmp_path / "none.log", tmp_path, cut, noise]
    done = dry_run(command, "--json", *(word for name in names for word in ("--log", name)))
    assert done.code == 1
    report = json.loads(done.out)
    assert report["would_refuse"] == 2
    notes = "\n".join(report["notes"])
    assert f"{log}: 1 line is damaged" in notes
    assert f"{log}: 1 line is too long" in notes
    assert f"{log}: 1 messages have no time" in notes
    assert f"{tmp_path / 'none.log'} could not be read to its end: No such file or directory" in notes
    assert f"{tmp_path} could not be read to its end: Is a directory" in notes
    assert f"{cut} could not be read to its end" in notes
    assert f"{noise} could not be read to its end" in notes
    text = dry_run(command, *(word for name in names for word in ("--log", name)))
    assert text.out.count("note: ") == len(report["notes"])


@pytest.mark.parametrize("content", [[], mixed()[8:20]], ids=["nothing", "nothing-refused"])
def test_where_nothing_would_be_refused_it_says_so(command: Command, tmp_path: Path, content: list[bytes]) -> None:
    done = dry_run(command, "--log", written(tmp_path / "mail.log", *content))
    assert done.code == 0
    expected = "would refuse none" if content else "There is no message of the last 7 days."
    assert expected in done.out
    assert len(done.out.splitlines()) == 1


@pytest.mark.parametrize(
    ("fields", "counts"),
    [
        (record(action="reject", would=None), True),
        (record(action="quarantine", would=None), True),
        (record(role="sign", domain=None, rule="malformed"), True),
        (record(action="tempfail", would=None, rule=None, reason="signing key: unreadable"), False),
        (record(would="header"), False),
        (record(action="sign", would=None, rule=None), False),
    ],
    ids=["enforced", "held", "own-users", "our-fault", "marked", "signed"],
)
def test_what_counts_as_refused(command: Command, tmp_path: Path, fields: dict[str, object], counts: bool) -> None:
    done = dry_run(command, "--json", "--log", written(tmp_path / "mail.log", LINES["logfmt"](fields, NOW)))
    assert json.loads(done.out)["would_refuse"] == int(counts)


def test_what_was_refused_already_is_told(command: Command, tmp_path: Path) -> None:
    log = written(tmp_path / "mail.log", LINES["logfmt"](record(action="reject", would=None), NOW), *mixed())
    assert "1 of them were kept back already" in dry_run(command, "--log", log).out


def test_nothing_hostile_reaches_the_terminal(command: Command, tmp_path: Path) -> None:
    fields = record(
        domain="[red]\x1b[31m\u202ebank", reason="\x9b31m\x07" * 9, client="\x1b]0;t\x07", rule="\x1brule"
    )
    log = written(tmp_path / "mail.log", LINES["json"](fields, NOW))
    done = dry_run(command, "--log", log)
    assert all(char.isprintable() or char == "\n" for char in done.out)
    assert r"[red]\x1b[31m\u202ebank" in done.out


def test_on_a_terminal_it_is_a_table_and_strangers_colour_nothing(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.delenv("NO_COLOR", raising=False)
    hostile = LINES["json"](record(domain="[red]\x1b[31mbank", client="192.0.2.1"), NOW)
    done = dry_run(command, "--log", written(tmp_path / "mail.log", hostile, *mixed()))
    shown = re.sub("\x1b\\[[0-9;]*m", "", done.out)
    assert r"[red]\x1b[31mbank" in shown
    assert "\x1b[31mbank" not in done.out.replace(r"\x1b[31mbank", "")
    assert "\x1b[31mreject" in done.out
    assert "198.51.100.0/24" in shown
    assert "reading" in done.err


def test_the_groups_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(enforce_report, "MAX_GROUPS", 3)
    report = Report(7)
    for number in range(10):
        report.add(
            time=NOW,
            client=f"10.{number}.0.1",
            domain="d",
            action="reject",
            would="",
            rule="r",
            reason="why",
        )
    assert (len(report.rows()), report.not_grouped, report.refused) == (3, 7, 10)


@pytest.mark.parametrize(
    ("clients", "source"),
    [
        (["192.0.2.1", "192.0.2.1"], "192.0.2.1"),
        (["192.0.2.1", "192.0.2.254"], "192.0.2.0/24"),
        (["2001:db8:0:1::1", "2001:db8:0:ff::1"], "2001:db8::/56"),
        (["unknown", "unknown"], "unknown"),
        (["", ""], "unknown"),
        (["fe80::1%eth0"], "fe80::1%eth0"),
    ],
    ids=["one", "network", "ipv6", "unknown", "absent", "scoped"],
)
def test_a_source_is_a_client_or_its_network(clients: list[str], source: str) -> None:
    report = Report(7)
    for client in clients:
        report.add(time=None, client=client, domain="", action="accept", would="reject", rule="r", reason="")
    (row,) = report.rows()
    assert (row["source"], row["count"]) == (source, len(clients))


def test_the_largest_are_shown_and_the_rest_counted(command: Command, tmp_path: Path) -> None:
    lines = [LINES["logfmt"](record(domain=f"d{n}.test"), NOW) for n in range(150)]
    done = dry_run(command, "--log", written(tmp_path / "mail.log", *lines))
    assert len([line for line in done.out.splitlines() if ".test" in line and "reject" in line]) == 100
    assert "and 50 lines more, which --json shows" in done.out


# From traces


def site(tmp_path: Path, *, enabled: bool = True) -> Path:
    """A configuration whose traces are beside it."""
    config = tmp_path / "mg.toml"
    switch = "true" if enabled else "false"
    config.write_text(f'authserv_id = "mx1.us.test"\n[trace]\nenabled = {switch}\npath = "trace.sqlite"\n')
    return config


def store(tmp_path: Path, *rows: Row) -> None:
    made = TraceStore(str(tmp_path / "trace.sqlite"), max_days=366, max_bytes=1 << 26)
    made.add(rows)
    made.close()


def traced(queue_id: str, *, at: float = NOW, author: str = "<x@bank.test>", mode: Mode = Mode.MONITOR) -> Row:
    made = judge_message(sign_as(ke(), mail(author)), now=at, policy=Policy(mode=mode))
    return Row.of(made.trace(queue_id))


def test_the_traces_are_read_where_they_are_kept(command: Command, tmp_path: Path) -> None:
    old = traced("000001", at=NOW - 9 * DAY_S)
    store(tmp_path, old, *(traced(f"{n:06X}") for n in range(2, 5)), traced("000009", author="<x@evil.test>"))
    done = dry_run(command, "--json", "--config", site(tmp_path))
    assert done.code == 0, done.err
    report = json.loads(done.out)
    assert (report["messages"], report["would"]["reject"], report["refused_already"]) == (4, 3, 0)
    (row,) = report["groups"]
    assert (row["source"], row["domain"], row["rule"], row["count"]) == (
        "198.51.100.66",
        "bank.test",
        "dmarc-reject",
        3,
    )
    assert row["reason"] == old.reason


def test_without_traces_it_names_both_ways(command: Command, tmp_path: Path) -> None:
    config = site(tmp_path, enabled=False)
    done = dry_run(command, "--config", config)
    assert done.code == 64
    assert "--log" in done.err
    assert f"enabled = true in [trace] in {config}" in done.err
    done = dry_run(command, "--config", site(tmp_path))
    assert done.code == 78
    assert "nothing was recorded yet" in done.err
    done = dry_run(command, "--config", tmp_path / "none.toml")
    assert done.code == 78


# A recorded message, for `mailguard explain QUEUE-ID`


def test_a_recorded_message_is_judged_again_by_its_queue_id(tmp_path: Path) -> None:
    store(tmp_path, traced("4bZk1x2Qp3z", at=NOW - 60), traced("4bZk1x2Qp3z"))
    found = judge_recorded("4bZk1x2Qp3z", str(site(tmp_path)))
    assert found.outcome.now == NOW
    assert found.outcome.spf is not None
    assert found.outcome.spf.status is SpfStatus.PASS
    assert found.outcome.decision.rule.value == "dmarc-reject"
    when, reused, *more = found.notes
    assert (
        when == f"recorded {stamp(NOW).replace('T', ' ').removesuffix('Z')} UTC by mailguard 0.1.0, judged again now"
    )
    assert reused.startswith("1 older message has the same queue id")
    assert more == []


def test_what_has_changed_since_is_noted(tmp_path: Path) -> None:
    store(tmp_path, traced("4bZk1x2Qp3z", mode=Mode.ENFORCE))
    (_, changed) = judge_recorded("4bZk1x2Qp3z", str(site(tmp_path))).notes
    assert changed.startswith("then it was reject (dmarc-reject)")


@pytest.mark.parametrize("queue_id", ["4BZK1X2QP3Z", "' OR 1=1 --", "\udcff\x1b[31m"], ids=["case", "sql", "octets"])
def test_an_unknown_queue_id_is_one_line(tmp_path: Path, queue_id: str) -> None:
    store(tmp_path, traced("4bZk1x2Qp3z"))
    with pytest.raises(Exception, match="has no trace of it") as raised:
        judge_recorded(queue_id, str(site(tmp_path)))
    text = raised.value.format_message()  # type: ignore[attr-defined]  # a ClickException
    assert "traces go from 2025-06-15" in text
    assert text.isprintable()
    store(tmp_path)
    with pytest.raises(Exception, match="is not enabled in"):
        judge_recorded("4bZk1x2Qp3y", str(site(tmp_path, enabled=False)))


def test_without_a_database_it_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="set enabled = true"):
        judge_recorded("4bZk1x2Qp3z", str(site(tmp_path)))


@pytest.mark.parametrize("as_json", [False, True], ids=["text", "json"])
def test_explain_shows_a_recorded_message(mailguard_command: Command, tmp_path: Path, as_json: bool) -> None:
    store(tmp_path, traced("4bZk1x2Qp3z"))
    options = ("--config", site(tmp_path), *(["--json"] if as_json else []))
    done = mailguard_command("explain", "4bZk1x2Qp3z", *options)
    assert done.code == 1, done.err
    if as_json:
        assert json.loads(done.out)["reason"] == "dmarc-reject"
        assert done.err.startswith("note: recorded 2025-06-15")
    else:
        assert done.out.startswith("note: recorded 2025-06-15")
        # In monitor mode it was accepted; what is explained is what enforcing does.
        assert "message: reject (dmarc-reject)" in done.out


def test_explain_takes_no_client_for_a_recorded_message(mailguard_command: Command, tmp_path: Path) -> None:
    done = mailguard_command("explain", "4bZk1x2Qp3z", "--config", site(tmp_path), "--ip", "192.0.2.1")
    assert done.code == 64
    assert "there is no file 4bZk1x2Qp3z" in done.err


def test_explain_prefers_a_file_of_that_name(mailguard_command: Command, tmp_path: Path) -> None:
    (tmp_path / "message").write_bytes(b"From: <x@bank.test>\n\nHi\n")
    (tmp_path / "zone").write_text("bank.test. IN TXT x\n")
    done = mailguard_command("explain", "message", "--zone", "zone")
    assert done.code == 0, done.err


def test_explain_of_what_is_neither_says_what_it_was_taken_for(mailguard_command: Command, tmp_path: Path) -> None:
    done = mailguard_command("explain", "mesage", "--config", tmp_path / "none.toml")
    assert done.code == 78
    assert "there is no file mesage, so it is taken for a queue id" in done.err
    assert "none.toml" in done.err


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        ("4bZk1x2Qp3z", True),
        ("3F2A1B", True),
        ("9C3B61A2F7", True),
        ("message.eml", False),
        ("./4bZk1x2Qp3z", False),
        ("-", False),
        ("", False),
        ("12345", False),
        ("4bZk1x2Qp3z\n", False),
    ],
)
def test_what_looks_like_a_queue_id(text: str, is_one: bool) -> None:
    assert looks_like_queue_id(text) is is_one
