"""The way of a message as the log tells it: Postfix's own lines, read back; those of others, and hostile ones."""

from __future__ import annotations

import pwd
from collections.abc import Sequence
from pathlib import Path

import pytest

from audit_host import HARDENED, main
from mailguard.cli.delivered_copy import MAX_MESSAGE_BYTES, find_copy
from mailguard.cli.mail_log import MailLog, Places, default_places
from mailguard.cli.mail_trail import MAX_OF_A_KIND, MAX_QUEUE_IDS, Delivery, Trail
from mailguard.cli.reply_meaning import meaning_of
from mailguard.cli.test import local_mailbox
from mailguard.errors import ConfigError

ID = "<mailguard-test.0f@us.test>"
HEAD = "Nov 21 15:56:51 mail postfix/"
# As Postfix 3.7 wrote them.
SENT = [
    "pickup[17285]: 4jWxfC38sBzLxYH: uid=0 from=<a@us.test>",
    f"cleanup[17298]: 4jWxfC38sBzLxYH: message-id={ID}",
    "qmgr[17286]: 4jWxfC38sBzLxYH: from=<a@us.test>, size=240, nrcpt=1 (queue active)",
    "virtual[17300]: 4jWxfC38sBzLxYH: to=<b@them.test>, relay=virtual, delay=0.02, delays=0.02/0/0/0, dsn=2.0.0,"
    " status=sent (delivered to maildir)",
    "qmgr[17286]: 4jWxfC38sBzLxYH: removed",
]
MILTER_DOWN = [
    "pickup[18725]: 244AF266741: uid=0 from=<a@us.test>",
    "cleanup[18747]: warning: connect to Milter service unix:/tmp/nothing.sock: No such file or directory",
    "cleanup[18747]: 244AF266741: milter-reject: CONNECT from localhost[127.0.0.1]: 4.7.1 Service unavailable - try"
    " again later; from=<a@us.test>",
]


def trail_of(lines: Sequence[str], *, queue_id: str = "", head: str = HEAD) -> Trail:
    trail = Trail(ID, sender="a@us.test", uid=0, queue_id=queue_id)
    for each in lines:
        trail.feed(f"{head}{each}".encode())
    return trail


@pytest.mark.parametrize(
    "head", [HEAD, "2026-11-21T15:56:51.123456+01:00 mx postfix/", "2026-11-21T15:56:51+0000 mx postfix-2/"]
)
def test_a_message_that_was_delivered(head: str) -> None:
    for count in range(len(SENT)):
        assert not trail_of(SENT[:count], head=head).is_over
    trail = trail_of(SENT, head=head)
    (hop,) = trail.hops
    assert trail.is_over
    assert hop.queue_id == "4jWxfC38sBzLxYH"
    assert hop.deliveries == [
        Delivery("b@them.test", "virtual", "2.0.0", "sent", "delivered to maildir", "virtual"),
    ]


def test_a_message_that_a_milter_stops_before_its_id_is_read() -> None:
    trail = trail_of(MILTER_DOWN)
    (hop,) = trail.hops
    assert (hop.queue_id, trail.is_over) == ("244AF266741", True)
    assert (hop.verdicts[0].verdict, hop.verdicts[0].is_temporary) == ("reject", True)
    assert trail.warnings == ["connect to Milter service unix:/tmp/nothing.sock: No such file or directory"]
    # That of another user, or of another sender, is not ours.
    for other in ("uid=0 from=<x@us.test>", "uid=1 from=<a@us.test>"):
        assert trail_of([MILTER_DOWN[0].replace("uid=0 from=<a@us.test>", other), *MILTER_DOWN[1:]]).hops == ()
    # And once it is tried again and accepted, that counts.
    assert [each.queue_id for each in trail_of([*MILTER_DOWN, *SENT]).hops] == ["4jWxfC38sBzLxYH"]


REFUSED = "5.5.0 Service unavailable; from=<a@us.test>"


@pytest.mark.parametrize(
    ("text", "waits"),
    [
        ("CONNECT from localhost[127.0.0.1]: 4.7.1 Service unavailable; from=<a>", True),
        ("END-OF-MESSAGE from h.test[192.0.2.1]: 451 4.7.0 later; from=<a>", True),
        (f"CONNECT from localhost[127.0.0.1]: {REFUSED}", False),
        ("END-OF-MESSAGE from localhost[127.0.0.1]: 550 5.7.1 no 4.7.1 here; from=<a>", False),
    ],
)
def test_refused_for_a_time_or_for_good(text: str, waits: bool) -> None:
    trail = trail_of([SENT[0], SENT[1], f"cleanup[1]: 4jWxfC38sBzLxYH: milter-reject: {text}"])
    (verdict,) = trail.hops[0].verdicts
    assert (verdict.by_milter, verdict.is_temporary) == (True, waits)
    assert trail.is_over


@pytest.mark.parametrize(
    ("line", "status", "is_over"),
    [
        ("smtp[1]: {}: to=<b@x.test>, relay=mx.x.test[192.0.2.1]:25, conn_use=2, delay=1, delays=0/0/1/0, dsn=4.7.1,"
         " status=deferred (host mx.x.test[192.0.2.1] said: 451 4.7.1 later (in reply to RCPT TO command))",
         "deferred", True),
        ("smtp[1]: {}: to=<b@x.test>, orig_to=<c@us.test>, relay=none, delay=1, delays=0/0/1/0, dsn=5.4.4,"
         " status=bounced (Host or domain name not found)", "bounced", False),
        ("cleanup[1]: {}: to=<b@x.test>, relay=none, delay=1, delays=0/0/1/0, dsn=5.5.0, status=bounced (no)",
         "bounced", True),
    ],
    ids=["deferred", "bounced", "bounced-by-cleanup"],
)  # fmt: skip
def test_what_became_of_a_delivery(line: str, status: str, is_over: bool) -> None:
    trail = trail_of([*SENT[:2], line.format("4jWxfC38sBzLxYH")])
    (found,) = trail.hops[0].deliveries
    assert (found.status, trail.is_over) == (status, is_over)
    assert trail_of([*SENT[:2], line.format("4jWxfC38sBzLxYH"), "qmgr[1]: 4jWxfC38sBzLxYH: removed"]).is_over


def test_a_content_filter_gives_it_a_second_queue_id() -> None:
    passed_on = SENT[3].replace("delivered to maildir", "250 2.0.0 Ok: queued as 4jWxsx2N0KzKqND")
    again = [
        "10025/smtpd[1]: 4jWxsx2N0KzKqND: client=filter.test[192.0.2.9]",
        f"cleanup[2]: 4jWxsx2N0KzKqND: message-id={ID}",
    ]
    trail = trail_of([SENT[0], SENT[1], *again, passed_on, SENT[4]])
    assert [each.queue_id for each in trail.hops] == ["4jWxfC38sBzLxYH", "4jWxsx2N0KzKqND"]
    assert not trail.is_over, "the second has not left"
    # Who was not given it and sends it back to us is somebody else.
    assert [each.queue_id for each in trail_of([*SENT, *again]).hops] == ["4jWxfC38sBzLxYH"]
    from_here = [again[0].replace("filter.test[192.0.2.9]", "localhost[127.0.0.1]"), again[1]]
    assert len(trail_of([*SENT, *from_here]).hops) == 2


def test_what_others_wrote_is_not_taken_for_ours() -> None:
    lines = [
        f"smtpd[1]: NOQUEUE: reject: RCPT from x[192.0.2.1]: 4jWxfC38sBzLxYH: message-id={ID}",
        f"smtpd[1]: warning: 4jWxfC38sBzLxYH: message-id={ID}",
        f"cleanup[1]: 4jWxfC38sBzLxYH: message-id=<x{ID}>",
        f"cleanup[1]: 4jWxfC38sBzLxYH: warning: header Subject: message-id={ID}",
    ]
    assert trail_of(lines).hops == ()
    # A line of the daemon's is one from its beginning to its end; Postfix's are none.
    for line in (
        b'Nov 21 15:56:51 mail postfix/smtpd[1]: queue_id=4jWxfC38sBzLxYH action=sign d="x"',
        b"Nov 21 15:56:51 mail mailguard-milter[1]: from x: queue_id=4jWxfC38sBzLxYH action=sign",
        b"Nov 21 15:56:51 mail mailguard-milter[1]: action=sign role=sign",
    ):
        trail = trail_of(SENT)
        trail.feed(line)
        assert trail.record(trail.hops[0]) is None
    trail.feed(b"Nov 21 15:56:51 mail mailguard-milter[1]: queue_id=4jWxfC38sBzLxYH role=sign d=us.test action=sign")
    assert trail.record(trail.hops[0]) == {
        "queue_id": "4jWxfC38sBzLxYH",
        "role": "sign",
        "d": "us.test",
        "action": "sign",
    }


def test_everything_has_a_bound() -> None:
    trail = trail_of(SENT[:3])
    for number in range(3 * MAX_QUEUE_IDS):
        trail.feed(f"{HEAD}smtpd[1]: {number:012X}: client=x[192.0.2.1]".encode())
        trail.feed(f"mailguard: queue_id={number} action=sign".encode())
        trail.feed(f"queue_id={number} role=sign action=sign".encode())
        trail.feed(f"{HEAD}smtpd[1]: warning: milter inet:x: {number}".encode())
    for number in range(3 * MAX_OF_A_KIND):
        trail.feed(f"{HEAD}{SENT[3]}{number}".encode())
    assert len(trail._known) == MAX_QUEUE_IDS
    assert len(trail._records) == MAX_QUEUE_IDS
    assert len(trail.warnings) == MAX_OF_A_KIND
    (hop,) = trail.hops
    assert len(hop.deliveries) == MAX_OF_A_KIND
    trail.feed(f"{HEAD}{SENT[3]}".encode() + b"x" * 100_000)
    trail.feed(b"\xff\x00\x1b[2J" * 4_000)


# What a server of Gmail says in full, but for the address.
FROM_GMAIL = (
    "host gmail-smtp-in.l.google.com[192.0.2.1] said: 550-5.7.27 Your email has been blocked because SPF"
    " authentication didn't pass for the message. - gsmtp (in reply to end of DATA command)"
)


FROM_YAHOO = (
    "host mta7.am0.yahoodns.net[192.0.2.1] said: 550 5.7.9 This mail has been blocked because the sender is"
    " unauthenticated. See https://senders.yahooinc.com/smtp-error-codes/#authentication-failures (in reply to end of"
    " DATA command)"
)


@pytest.mark.parametrize(
    ("dsn", "reply", "words"),
    [
        ("5.1.1", "", "no such mailbox"),
        ("4.1.1", "", "no such mailbox"),
        ("5.7.26", "", "neither SPF nor DKIM"),
        ("5.7.26", FROM_GMAIL, "neither SPF nor DKIM"),
        ("5.7.27", "", "null MX"),
        ("5.7.27", FROM_GMAIL, "SPF does not pass"),
        ("4.7.23", "", "SPF fails"),
        ("4.7.23", FROM_GMAIL, "has no name"),
        ("4.7.29", FROM_GMAIL, "without TLS"),
        ("4.7.30", FROM_GMAIL, "no DKIM signature passes"),
        ("4.7.31", FROM_GMAIL, "no DMARC record"),
        ("4.7.32", FROM_GMAIL, "not the author's domain"),
        ("5.7.40", FROM_GMAIL, "no DMARC record"),
        ("5.7.9", "", "the way to log in"),
        ("5.7.9", FROM_YAHOO, "neither SPF nor DKIM"),
        ("5.7.509", "", "fails DMARC"),
        ("5.7.515", "", "Outlook wants all"),
        ("5.7.99", "", "its policy or its security"),
        ("4.4.1", "", "does not answer"),
        ("5.9.9", "", "does not say why"),
        ("5", "", "does not say why"),
        ("", "", "does not say why"),
    ],
)
def test_what_a_code_means(dsn: str, reply: str, words: str) -> None:
    meaning, advice = meaning_of(dsn, reply)
    assert words in meaning
    assert advice


# -- the log -------------------------------------------------------------------------------------------------------


def test_a_log_is_followed_from_its_end(tmp_path: Path) -> None:
    path = tmp_path / "mail.log"
    path.write_bytes(b"before\nhalf")
    with MailLog(Places((str(path),))) as log, open(path, "ab", buffering=0) as file:
        assert list(log.lines()) == []
        file.write(b" line\none\ntw")
        assert list(log.lines()) == [b" line", b"one"]
        file.write(b"o\n" + b"x" * 40_000 + b"\nafter\n")
        assert list(log.lines()) == [b"two", b"after"], "a line that is too long is left out"
        file.write(b"y" * 20_000)
        assert list(log.lines()) == []
        assert log._files[0]._lines._held == b"", "nor is it kept"
        file.write(b"z\nlast\n")
        assert list(log.lines()) == [b"last"]
        path.rename(tmp_path / "mail.log.1")
        path.write_bytes(b"new file\n")
        file.write(b"old file\n")
        assert [*log.lines(), *log.lines()] == [b"old file", b"new file"]
        path.unlink()
        assert list(log.lines()) == []
        path.write_bytes(b"again\n")
        assert list(log.lines()) == [b"again"]


def test_a_log_that_is_cut(tmp_path: Path) -> None:
    path = tmp_path / "mail.log"
    path.write_bytes(b"a long line that was there\n")
    with MailLog(Places((str(path),))) as log:
        path.write_bytes(b"fresh\n")
        assert [*log.lines(), *log.lines()] == [b"fresh"]


def test_journald_is_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By journalctl, which a script stands for: it says how it was called, and goes on."""
    program = tmp_path / "journalctl"
    program.write_text('#!/bin/sh\necho "$@"\nexec sleep 60\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with MailLog(Places(journal=("SYSLOG_FACILITY=2", "_SYSTEMD_UNIT=x"))) as log:
        lines: list[bytes] = []
        while not lines:
            lines = list(log.lines())
        process = log._journal._process if log._journal is not None else None
        assert process is not None
    assert process.returncode is not None, "it has been ended"
    assert lines[0].endswith(b" SYSLOG_FACILITY=2 + _SYSTEMD_UNIT=x")
    assert b"--follow --no-tail " in lines[0]


def test_where_the_log_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def places(postfix_file: str, *, to_stderr: bool) -> tuple[tuple[str, ...], int]:
        found = default_places(postfix_file=postfix_file, daemon_logs_to_stderr=to_stderr)
        return found.files, len(found.journal)

    syslog = tmp_path / "mail.log"
    monkeypatch.setattr("mailguard.cli.mail_log.SYSLOG_FILES", (str(syslog),))
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    assert places("", to_stderr=False) == ((), 1)
    assert places("", to_stderr=True) == ((), 2)
    assert places("/var/log/postfix.log", to_stderr=True) == (("/var/log/postfix.log",), 1)
    assert places("/dev/stdout", to_stderr=False) == ((), 1)
    syslog.touch()
    assert places("", to_stderr=False) == ((str(syslog),), 0)
    assert places("/var/log/postfix.log", to_stderr=False) == (("/var/log/postfix.log", str(syslog)), 0)
    assert places("", to_stderr=True) == ((str(syslog),), 1)
    # One file by two names is one.
    assert places(str(syslog), to_stderr=False) == ((str(syslog),), 0)
    link = tmp_path / "link"
    link.symlink_to(syslog)
    assert places(str(link), to_stderr=False) == ((str(link),), 0)
    syslog.unlink()
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(ConfigError, match="name it with --log"):
        places("", to_stderr=True)


# -- the delivered copy --------------------------------------------------------------------------------------------

COPY = f"Return-Path: <a@us.test>\nMessage-ID: {ID}\nSubject: x\n\nbody\n".encode()
ANSWER = f"Message-ID: <other@x>\nIn-Reply-To: {ID}\n\n> Message-ID: {ID}\n".encode()


def test_a_copy_in_a_maildir(tmp_path: Path) -> None:
    box = tmp_path / "Maildir"
    for part in ("new", "cur", "tmp"):
        (box / part).mkdir(parents=True)
    (box / "tmp" / "1").write_bytes(COPY)
    (box / "new" / "2").write_bytes(ANSWER)
    # Too large for ours, and what it ends with looks like ours.
    (box / "new" / "3").write_bytes(b"x" * 100 + COPY.ljust(MAX_MESSAGE_BYTES, b"x"))
    (box / "new" / "4").symlink_to(box / "tmp" / "1")
    assert find_copy(str(box), ID) is None
    (box / "cur" / "5:2,S").write_bytes(COPY)
    assert find_copy(str(box), ID) == COPY


def test_a_copy_in_a_file_of_mailboxes(tmp_path: Path) -> None:
    box = tmp_path / "root"
    assert find_copy(str(box), ID) is None
    entries = [b"From x@y Sat Nov 21 15:00:00 2026\n%b\n" % each for each in (COPY, ANSWER)]
    box.write_bytes(b"".join(entries))
    assert find_copy(str(box), ID) == COPY
    link = tmp_path / "link"
    link.symlink_to(box)
    with pytest.raises(ConfigError, match="cannot be read"):
        find_copy(str(link), ID)


def test_where_local_delivery_puts_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pwd.getpwnam", {"root": replace_home(tmp_path)}.__getitem__)
    (tmp_path / "root").touch()
    (tmp_path / "Mailbox").touch()
    spool = main(mail_spool_directory=str(tmp_path), home_mailbox="")(HARDENED)
    home = main(mail_spool_directory=str(tmp_path), home_mailbox="Mailbox")(HARDENED)
    nowhere = main(mail_spool_directory=str(tmp_path / "none"), home_mailbox="")(HARDENED)
    line = SENT[3].replace("virtual", "local").replace("delivered to maildir", "delivered to mailbox")
    local = trail_of([*SENT[:3], line.replace("b@them.test", "Root@us.test"), SENT[4]])
    assert local_mailbox(spool, local) == str(tmp_path / "root")
    assert local_mailbox(home, local) == str(tmp_path / "Mailbox")
    assert local_mailbox(nowhere, local) is None
    assert local_mailbox(spool, trail_of([*SENT[:3], line, SENT[4]])) is None, "no such user"
    by_virtual = SENT[3].replace("maildir", "mailbox").replace("b@them.test", "root@us.test")
    assert local_mailbox(spool, trail_of([*SENT[:3], by_virtual, SENT[4]])) is None


def replace_home(home: Path) -> pwd.struct_passwd:
    return pwd.struct_passwd(("root", "x", 0, 0, "", str(home), "/bin/sh"))
