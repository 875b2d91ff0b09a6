"""`mailguard enforce --dry-run`: from traces, from the log in all its forms, with what strangers put between."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import os
import re
from pathlib import Path

import pytest

from cli_process import Command, Result
from log_samples import LINES, accepted, record, stamp
from mailguard.cli import enforce_report
from mailguard.cli.enforce_report import Report
from mailguard_milter.log import Format, format_line
from trace_site import site, store, traced
from zone0 import DAY_S, NOW


def dry_run(mailguard_command: Command, *arguments: str | Path, stdin: bytes = b"") -> Result:
    return mailguard_command("enforce", "--dry-run", "--now", str(NOW), *arguments, stdin=stdin)


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


def test_without_dry_run_it_says_how_enforcing_is_switched_on(mailguard_command: Command) -> None:
    done = mailguard_command("enforce", "--config", "/etc/mailguard/mg.toml")
    assert done.code == 64
    assert 'mode = "enforce" in /etc/mailguard/mg.toml' in done.err
    assert "--dry-run" in done.err
    assert done.out == ""


def test_the_table_has_sources_by_how_often_they_would_be_refused(mailguard_command: Command, tmp_path: Path) -> None:
    done = dry_run(mailguard_command, "--log", written(tmp_path / "mail.log", *mixed()))
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


def test_json_has_the_same(mailguard_command: Command, tmp_path: Path) -> None:
    done = dry_run(mailguard_command, "--json", "--log", written(tmp_path / "mail.log", *mixed()))
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
def test_only_the_last_days_count(mailguard_command: Command, tmp_path: Path, days: str, messages: int) -> None:
    done = dry_run(mailguard_command, "--json", "--days", days, "--log", written(tmp_path / "mail.log", *mixed()))
    assert json.loads(done.out)["messages"] == messages


def test_several_files_and_standard_input_and_compressed_ones_are_one_log(
    mailguard_command: Command, tmp_path: Path
) -> None:
    line = LINES["syslog"](record(), NOW)
    plain = written(tmp_path / "mail.log", line)
    packed = tmp_path / "mail.log.2.gz"
    packed.write_bytes(gzip.compress(line + b"\n" + line + b"\n"))
    done = dry_run(mailguard_command, "--json", "--log", plain, "--log", packed, "--log", "-", stdin=line)
    assert json.loads(done.out)["would_refuse"] == 4
    assert done.code == 0


def test_what_the_daemon_could_not_write_is_said(mailguard_command: Command, tmp_path: Path) -> None:
    loss: dict[str, object] = {"event": "log lines dropped", "count": 20}
    lines = [*mixed(), *(LINES["syslog"](loss, NOW - days * DAY_S) for days in (1, 2, 9))]
    log = written(tmp_path / "mail.log", *lines)
    done = dry_run(mailguard_command, "--log", log)
    assert done.code == 1
    assert "Of 20 messages of the last 7 days" in done.out
    assert f"note: {log}: 40 lines, of messages perhaps, are missing: the daemon could not write them" in done.out


def test_what_could_not_be_read_is_said_and_the_rest_is_shown(mailguard_command: Command, tmp_path: Path) -> None:
    line = LINES["syslog"](record(), NOW)
    untimed = format_line(record(), Format.LOGFMT)
    log = written(tmp_path / "mail.log", line, line[:-5], b"x" * 50_000, untimed)
    cut = tmp_path / "cut.gz"
    cut.write_bytes(gzip.compress(os.urandom(5000) + b"\n" + line)[:-100])
    noise = tmp_path / "noise.gz"
    noise.write_bytes(b"\x1f\x8b" + os.urandom(500))
    names = [log, tmp_path / "none.log", tmp_path, cut, noise]
    done = dry_run(mailguard_command, "--json", *(word for name in names for word in ("--log", name)))
    assert done.code == 1
    report = json.loads(done.out)
    assert report["would_refuse"] == 2
    notes = "\n".join(report["notes"])
    assert f"{log}: 1 line is damaged" in notes
    assert f"{log}: 1 line is too long" in notes
    assert f"{log}: 1 messages have no time" in notes
    assert (
        f"{tmp_path / 'none.log'} could not be read to its end: No such file or directory; where journald has"
        in notes
    )
    assert f"{tmp_path} could not be read to its end: Is a directory" in notes
    assert f"{cut} could not be read to its end" in notes
    assert f"{noise} could not be read to its end" in notes
    text = dry_run(mailguard_command, *(word for name in names for word in ("--log", name)))
    assert text.out.count("note: ") == len(report["notes"])


@pytest.mark.parametrize(
    ("program", "compressed"),
    [
        ("xzcat", lzma.compress(b"x")),
        ("bzcat", bz2.compress(b"x")),
        # Of an empty file, by zstd 1.5.
        ("zstdcat", bytes.fromhex("28b52ffd2400010000 99e9d851")),
    ],
    ids=["xz", "bzip2", "zstd"],
)
def test_a_log_that_cannot_be_unpacked_is_not_one_without_messages(
    mailguard_command: Command, tmp_path: Path, program: str, compressed: bytes
) -> None:
    log = tmp_path / "mail.log.3"
    log.write_bytes(compressed)
    done = dry_run(mailguard_command, "--json", "--log", log)
    advice = f"{program} FILE | mailguard enforce --dry-run --log -"
    note = f"{log} could not be read to its end: it is compressed, and not by gzip: {advice}"
    assert (done.code, json.loads(done.out)["notes"]) == (1, [note])


def test_any_time_that_it_takes_can_be_looked_back_from(mailguard_command: Command, tmp_path: Path) -> None:
    log = written(tmp_path / "mail.log", *mixed())
    for now, messages in (("0", 16), ("253402300800", 0), (str(10**12), 0)):
        done = mailguard_command("enforce", "--dry-run", "--json", "--log", log, "--now", now)
        assert (done.code, json.loads(done.out)["messages"]) == (0, messages)


def test_short_logs_are_read_whole(mailguard_command: Command, tmp_path: Path) -> None:
    """Shorter than what tells how a log is compressed."""
    for content in (b"", b"\n", b"\x1f", b"BZ", b"fd7zX"):
        (tmp_path / "mail.log").write_bytes(content)
        assert dry_run(mailguard_command, "--log", tmp_path / "mail.log").code == 0


@pytest.mark.parametrize("content", [[], mixed()[8:20]], ids=["nothing", "nothing-refused"])
def test_where_nothing_would_be_refused_it_says_so(
    mailguard_command: Command, tmp_path: Path, content: list[bytes]
) -> None:
    done = dry_run(mailguard_command, "--log", written(tmp_path / "mail.log", *content))
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
def test_what_counts_as_refused(
    mailguard_command: Command, tmp_path: Path, fields: dict[str, object], counts: bool
) -> None:
    done = dry_run(mailguard_command, "--json", "--log", written(tmp_path / "mail.log", LINES["logfmt"](fields, NOW)))
    assert json.loads(done.out)["would_refuse"] == int(counts)


def test_what_was_refused_already_is_told(mailguard_command: Command, tmp_path: Path) -> None:
    log = written(tmp_path / "mail.log", LINES["logfmt"](record(action="reject", would=None), NOW), *mixed())
    assert "1 of them were kept back already" in dry_run(mailguard_command, "--log", log).out


def test_nothing_hostile_reaches_the_terminal(mailguard_command: Command, tmp_path: Path) -> None:
    fields = record(
        domain="[red]\x1b[31m\u202ebank", reason="\x9b31m\x07" * 9, client="\x1b]0;t\x07", rule="\x1brule"
    )
    log = written(tmp_path / "mail.log", LINES["json"](fields, NOW))
    done = dry_run(mailguard_command, "--log", log)
    assert all(char.isprintable() or char == "\n" for char in done.out)
    assert r"[red]\x1b[31m\u202ebank" in done.out


def test_on_a_terminal_it_is_a_table_and_strangers_colour_nothing(
    mailguard_command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "200")
    # A dumb terminal has 80 columns, whatever is said.
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    hostile = LINES["json"](record(domain="[red]\x1b[31mbank", client="192.0.2.1"), NOW)
    done = dry_run(mailguard_command, "--log", written(tmp_path / "mail.log", hostile, *mixed()))
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
    # Strangers leave room for our own users.
    report.add(
        time=NOW, client="", login="a", is_ours=True, domain="d", action="reject", would="", rule="r", reason="why"
    )
    assert [row["source"] for row in report.rows()] == ["a", "10.0.0.1", "10.1.0.1", "10.2.0.1"]


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


def test_each_address_that_a_login_may_not_use_is_a_line(mailguard_command: Command, tmp_path: Path) -> None:
    """One that is to have an alias must not hide behind one that is not."""
    used = ["sales@us.test"] * 3 + ["bob@us.test", "info@us.test"]
    lines = [
        LINES["logfmt"](
            record(
                role="sign",
                login=b"alice@us.test",
                domain=None,
                rule="sender-from",
                reason=f"signed although login alice@us.test may not use {address} in From",
                **{"from": address},
            ),
            NOW,
        )
        for address in used
    ]
    done = dry_run(mailguard_command, "--json", "--log", written(tmp_path / "mail.log", *lines))
    rows = json.loads(done.out)["groups"]
    assert {(row["source"], row["domain"]) for row in rows} == {("alice@us.test", "us.test")}
    assert [(row["count"], row["reason"].split()[-3]) for row in rows] == [
        (3, "sales@us.test"),
        (1, "bob@us.test"),
        (1, "info@us.test"),
    ]


def test_the_largest_are_shown_and_the_rest_counted(mailguard_command: Command, tmp_path: Path) -> None:
    lines = [LINES["logfmt"](record(domain=f"d{n}.test"), NOW) for n in range(150)]
    done = dry_run(mailguard_command, "--log", written(tmp_path / "mail.log", *lines))
    assert len([line for line in done.out.splitlines() if ".test" in line and "reject" in line]) == 100
    assert "and 50 lines more, which --json shows" in done.out


def test_strangers_do_not_hide_our_own_users(mailguard_command: Command, tmp_path: Path) -> None:
    own = [
        record(role="sign", login=b"alice@us.test", domain=None, rule="sender-from"),
        # Of a listed network, and where Postfix does not tell who logged in: without a login.
        record(role="sign", domain=None, rule="sender-from"),
        record(role="none", domain=None, rule="macros-missing", would="tempfail"),
    ]
    forged = [record(domain=f"d{n}.test") for n in range(150) for _ in range(2)]
    lines = [LINES["logfmt"](each, NOW) for each in (*forged, *own)]
    done = dry_run(mailguard_command, "--log", written(tmp_path / "mail.log", *lines))
    _, *rows = [line.split() for line in done.out.splitlines()]
    assert [row[4] for row in rows[:4]] == ["sender-from", "macros-missing", "sender-from", "dmarc-reject"]
    assert "and 50 lines more, which --json shows" in done.out
    report = json.loads(dry_run(mailguard_command, "--json", "--log", tmp_path / "mail.log").out)
    assert [row["rule"] for row in report["groups"][2:4]] == ["sender-from", "dmarc-reject"]
    assert len(report["groups"]) == 153


# From traces


def test_the_traces_are_read_where_they_are_kept(mailguard_command: Command, tmp_path: Path) -> None:
    old = traced("000001", at=NOW - 9 * DAY_S)
    store(tmp_path, old, *(traced(f"{n:06X}") for n in range(2, 5)), traced("000009", author="<x@evil.test>"))
    done = dry_run(mailguard_command, "--json", "--config", site(tmp_path))
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


@pytest.mark.parametrize(
    ("role", "notes"),
    [
        ("auto", ["traces are kept of mail from outside alone; for that of your own users name a --log"]),
        ("sign", ["traces are kept of mail from outside alone; for that of your own users name a --log"]),
        ("verify", []),
    ],
)
def test_what_traces_do_not_tell_is_said(
    mailguard_command: Command, tmp_path: Path, role: str, notes: list[str]
) -> None:
    """Without [senders] too: enforcing refuses a malformed From of one's own users whatever is set."""
    store(tmp_path, traced("000001"))
    config = site(tmp_path)
    with config.open("a") as file:
        file.write(f'[[listeners]]\naddress = "inet:127.0.0.1:8891"\nrole = "{role}"\n')
    done = dry_run(mailguard_command, "--json", "--config", config)
    assert (done.code, json.loads(done.out)["notes"]) == (0, notes)


def test_without_traces_it_names_both_ways(mailguard_command: Command, tmp_path: Path) -> None:
    config = site(tmp_path, enabled=False)
    done = dry_run(mailguard_command, "--config", config)
    assert done.code == 64
    assert "--log" in done.err
    assert f"enabled = true in [trace] in {config}" in done.err
    done = dry_run(mailguard_command, "--config", site(tmp_path))
    assert done.code == 78
    assert "no message was recorded yet" in done.err
    done = dry_run(mailguard_command, "--config", tmp_path / "none.toml")
    assert done.code == 78
