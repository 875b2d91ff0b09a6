"""`mailguard test` against those who write into what it reads: logs, mailboxes, and what a server says."""

from __future__ import annotations

import base64
import contextlib
import os
import socketserver
import ssl
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import pytest

from audit_host import HARDENED
from live_certificates import server, write_chain
from mailguard.cli.exit_code import ExitCode
from mailguard.cli.mail_log import MailLog, Places
from mailguard.cli.mail_trail import MAX_OF_A_KIND, Trail
from mailguard.cli.test import _copy, _password, _watch
from mailguard.cli.trail_cards import Trial, cards, exit_code_of
from mailguard.cli.trial_message import Handed, MailAddress, SmtpPlace, TrialMessage, by_smtp
from mailguard.config import Config
from mailguard.dkim.result import DkimResult
from mailguard.errors import ConfigError

ADDRESS = MailAddress.parse("a@us.test")
MESSAGE = TrialMessage.compose(ADDRESS, ADDRESS, host="mx", now=0.0, unique="0f")
ID = MESSAGE.message_id
HEAD = "Nov 21 15:56:51 mail postfix/"
OURS, OTHER = "4jWxfC38sBzLxYH", "4jWxsx2N0KzKqND"
BEGUN = [f"pickup[1]: {OURS}: uid=0 from=<a@us.test>", f"cleanup[1]: {OURS}: message-id={ID}"]
REMOVED = f"qmgr[1]: {OURS}: removed"


def delivery(status: str, reply: str, *, more: str = "", program: str = "smtp", queue_id: str = OURS) -> str:
    return (
        f"{program}[1]: {queue_id}: to=<b@x.test>, relay=mx.x.test[192.0.2.1]:25, delay=1, delays=0/0/1/0, {more}"
        f"dsn=5.1.1, status={status} ({reply}"
    )


def trail_of(lines: Sequence[str], *, queue_id: str = "") -> Trail:
    trail = Trail(ID, sender="a@us.test", uid=0, queue_id=queue_id)
    for each in lines:
        trail.feed(f"{HEAD}{each}".encode())
    return trail


def trial_of(handed: Handed | None = None) -> Trial:
    config = Config.model_validate({"authserv_id": "mx.us.test"})
    return Trial(MESSAGE, handed or Handed(), None, HARDENED, config, "x.toml", None, frozenset(), "log", 1.0)


def code_of(trail: Trail, results: tuple[DkimResult, ...] | None = None, *, is_copy_wanted: bool = False) -> ExitCode:
    return exit_code_of(trial_of(), trail, results, is_copy_wanted=is_copy_wanted)


SIGNED = f"queue_id={OURS} role=sign d=us.test s=x action=accept"


def signed(lines: Sequence[str]) -> Trail:
    trail = trail_of(lines)
    trail.feed(f"Nov 21 15:56:51 mail mailguard-milter[1]: {SIGNED}".encode())
    return trail


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (delivery("sent", "250 ok)"), ExitCode.PASS),
        # The server says so much that the line is cut before its last bracket.
        (delivery("bounced", "host said: 550 " + "no " * 2_000), ExitCode.FAIL),
        (delivery("deferred", "host said: 450 " + "no " * 2_000), ExitCode.TEMPORARY),
        (delivery("SOFTBOUNCE", "host said: 550 no)"), ExitCode.TEMPORARY),
        (delivery("bounced", "host said: 550 no)", more="tls=may, "), ExitCode.FAIL),
        # Deleted, expired, or what cannot be read.
        ("postsuper[1]: nothing", ExitCode.TEMPORARY),
    ],
    ids=["sent", "bounced-cut", "deferred-cut", "soft-bounce", "more-words", "removed"],
)
def test_only_what_was_delivered_counts_as_delivered(line: str, code: ExitCode) -> None:
    assert code_of(signed([*BEGUN, line, REMOVED])) is code


def test_the_log_does_not_say_where_it_went() -> None:
    trail = signed([*BEGUN, REMOVED])
    (gone,) = [each for each in cards(trial_of(), trail) if each.title.startswith("delivery")]
    assert (gone.status, "does not say where to" in gone.children[0].detail) == ("unknown", True)


def test_a_failure_among_many_deliveries_is_seen() -> None:
    many = [delivery("sent", "250 ok)") for _ in range(MAX_OF_A_KIND)]
    trail = signed([*BEGUN, *many, delivery("bounced", "host said: 550 no)"), *many, REMOVED])
    assert len(trail.hops[0].deliveries) == MAX_OF_A_KIND
    assert code_of(trail) is ExitCode.FAIL


def test_a_mailbox_that_is_named_decides() -> None:
    """Delivered, says the log; but nothing of it is in the mailbox that the message was to be in."""
    trail = signed([*BEGUN, delivery("sent", "250 ok)"), REMOVED])
    assert code_of(trail, None, is_copy_wanted=True) is ExitCode.TEMPORARY
    assert code_of(trail, None) is ExitCode.PASS


def test_forwarded_by_local_delivery() -> None:
    """To where an alias or .forward says, under another queue id; it has neither client nor user."""
    forwarded = delivery("sent", f"forwarded as {OTHER})", program="local")
    trail = signed([*BEGUN, f"cleanup[1]: {OTHER}: message-id={ID}", forwarded, REMOVED])
    assert [each.queue_id for each in trail.hops] == [OURS, OTHER]
    assert not trail.is_over
    for line in (delivery("bounced", "550 no)", queue_id=OTHER), f"qmgr[1]: {OTHER}: removed"):
        trail.feed(f"{HEAD}{line}".encode())
    assert (trail.is_over, code_of(trail)) == (True, ExitCode.FAIL)


@pytest.mark.parametrize(
    "warning",
    [
        "hostname filter.evil.test does not resolve to address 192.0.2.1: Name or service not known",
        "Illegal address syntax from x[192.0.2.1] in MAIL command: <connect to Milter service inet:evil:1: down>",
        "header Subject: milter inet:evil:1: can't read SMFIC_BODY reply packet header; from=<x> to=<y>",
    ],
)
def test_what_a_client_makes_postfix_warn_of_is_no_milter(warning: str) -> None:
    trail = trail_of([f"smtpd[1]: warning: {warning}", f"cleanup[1]: warning: {warning}"])
    assert trail.warnings == []
    for genuine in ("connect to Milter service inet:127.0.0.1:1: refused", "milter unix:/x: can't read reply"):
        trail.feed(f"{HEAD}cleanup[1]: warning: {genuine}".encode())
    assert len(trail.warnings) == 2


def test_a_server_that_names_the_queue_id_of_other_mail() -> None:
    """What the server of --smtp says it is queued as need not be so."""
    others = [f"smtpd[1]: {OTHER}: client=x[192.0.2.1]", f"cleanup[1]: {OTHER}: message-id=<other@x.test>"]
    assert trail_of([*others, delivery("bounced", "550 no)", queue_id=OTHER)], queue_id=OTHER).hops == ()
    assert len(trail_of([others[0], f"cleanup[1]: {OTHER}: message-id={ID}"], queue_id=OTHER).hops) == 1
    # Nor is other mail of the same user's and sender's ours, where a milter stops it.
    lines = [BEGUN[0], f"cleanup[1]: {OURS}: message-id=<other@x.test>"]
    assert trail_of([*lines, f"cleanup[1]: {OURS}: milter-reject: CONNECT from x[127.0.0.1]: 4.7.1 x"]).hops == ()


@pytest.mark.parametrize("instance", ["", " -c /etc/postfix-out", " -c '/etc/postconf 2'"])
def test_commands_are_for_the_instance_that_is_meant(instance: str) -> None:
    facts = replace(HARDENED, postfix=replace(HARDENED.postfix, postconf=f"postconf{instance}"))
    trail = trail_of([*BEGUN, delivery("deferred", "450 later)")])
    shown = "\n".join(each.text() for each in cards(replace(trial_of(), facts=facts), trail))
    assert f"postqueue{instance} -i {OURS} tries now, postsuper{instance} -d {OURS} deletes it" in shown
    held = trail_of([*BEGUN, f"cleanup[1]: {OURS}: hold: header From: x from localhost; from=<a>"])
    shown = "\n".join(each.text() for each in cards(replace(trial_of(), facts=facts), held))
    assert f"postcat{instance} -q {OURS}; postsuper{instance} -H {OURS} releases it" in shown


# -- logs and mailboxes --------------------------------------------------------------------------------------------


def test_only_a_file_is_a_log(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero"), tmp_path):
        with pytest.raises(ConfigError, match="cannot be read"), MailLog(Places((str(path),))):
            pass


def test_a_log_that_becomes_something_else_is_no_reason_to_end(tmp_path: Path) -> None:
    """The message is on its way by then."""
    path = tmp_path / "log"
    path.write_bytes(b"")
    with MailLog(Places((str(path),))) as log:
        with path.open("ab") as file:
            file.write(b"half a ")
        assert list(log.lines()) == []
        path.unlink()
        os.mkfifo(path)
        assert list(log.lines()) == []
        path.unlink()
        path.mkdir()
        assert list(log.lines()) == []
        path.rmdir()
        path.write_bytes(b"whole line\n")
        assert list(log.lines()) == [b"whole line"], "and not the end of the half one"


def test_a_log_that_is_rotated_before_syslog_knows(tmp_path: Path) -> None:
    """logrotate makes the new file, and syslog writes to the old one until it is told."""
    path = tmp_path / "log"
    path.write_bytes(b"")
    with MailLog(Places((str(path),))) as log, path.open("ab", buffering=0) as old:
        old.write(b"one\nhalf ")
        path.rename(tmp_path / "log.1")
        path.write_bytes(b"")
        assert [*log.lines(), *log.lines()] == [b"one"]
        old.write(b"two\n")
        with path.open("ab", buffering=0) as new:
            new.write(b"three\n")
        assert [*log.lines(), *log.lines()] == [b"half two", b"three"]


def test_a_mailbox_that_becomes_a_link_is_none(tmp_path: Path) -> None:
    (tmp_path / "box").symlink_to(tmp_path / "nowhere")
    assert _copy(str(tmp_path / "box"), MESSAGE, Handed(), until=time.monotonic() - 1) is None
    (tmp_path / "box").unlink()
    (tmp_path / "box").write_bytes(b"From x\n" + MESSAGE.octets)
    assert _copy(str(tmp_path / "box"), MESSAGE, Handed(), until=time.monotonic() - 1) is not None


def test_the_log_is_looked_at_once_at_least(tmp_path: Path) -> None:
    """Also where handing it over took all the time."""
    path = tmp_path / "log"
    path.write_bytes(b"")
    trail = trail_of([])
    with MailLog(Places((str(path),))) as log:
        path.write_text("".join(f"{HEAD}{each}\n" for each in BEGUN))
        _watch(log, trail, Handed(), None, until=time.monotonic() - 10)
    assert [each.queue_id for each in trail.hops] == [OURS]


def test_the_password(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", None)
    with pytest.raises(Exception, match="no terminal"):
        _password(None, "alice")
    assert "secret" not in repr(SmtpPlace("mx.test", 587, "alice", "secret"))


# -- servers -------------------------------------------------------------------------------------------------------


class Talker(socketserver.StreamRequestHandler):
    """Says what it is told to, for as long as anybody listens."""

    greeting = b""
    said_again = b""
    replies: ClassVar[dict[bytes, bytes]] = {}
    heard: ClassVar[list[bytes]] = []

    def handle(self) -> None:
        with contextlib.suppress(OSError):
            self.wfile.write(self.greeting)
            while self.said_again:
                self.wfile.write(self.said_again)
                if len(self.said_again) < 10:
                    time.sleep(0.05)
            for line in self.rfile:
                self.heard.append(line)
                self.wfile.write(self.replies.get(line[:4].upper(), b"250 ok") + b"\r\n")


@contextlib.contextmanager
def talking(**how: object) -> Iterator[SmtpPlace]:
    handler = type("Handler", (Talker,), {"heard": [], **how})
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        server.heard = handler.heard  # type: ignore[attr-defined]  # for the test that reads it
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield SmtpPlace("127.0.0.1", server.server_address[1], "alice", "päss wörd")
        server.shutdown()


# Ends by a time of 0.5 s that is patched; the real one is longer.
LATEST_S = 15.0


@pytest.mark.parametrize("said_again", [b"220-more\r\n" * 100, b"2", b"\n"], ids=["lines", "octets", "empty"])
def test_a_server_that_never_ends_its_reply(monkeypatch: pytest.MonkeyPatch, said_again: bytes) -> None:
    monkeypatch.setattr("mailguard.cli.trial_message.SMTP_TIME_S", 0.5)
    started = time.monotonic()
    with talking(greeting=b"220-mx\r\n", said_again=said_again) as place:
        handed = by_smtp(MESSAGE, place, helo="mx")
    assert (bool(handed.fault), time.monotonic() - started < LATEST_S) == (True, True)


def test_a_password_that_is_not_ascii() -> None:
    """RFC 4616 §2: in UTF-8."""
    replies = {b"EHLO": b"250-mx\r\n250 AUTH CRAM-MD5 PLAIN", b"AUTH": b"235 ok", b"DATA": b"354 go"}
    heard: list[bytes] = []
    with talking(greeting=b"220 mx\r\n", replies=replies, heard=heard) as place:
        by_smtp(MESSAGE, place, helo="mx")
    login = base64.b64encode("\0alice\0päss wörd".encode())
    assert [line.split()[2] for line in heard if line.startswith(b"AUTH PLAIN")] == [login]
    replies[b"EHLO"] = b"250-mx\r\n250 AUTH CRAM-MD5"
    with talking(greeting=b"220 mx\r\n", replies=replies) as place:
        handed = by_smtp(MESSAGE, place, helo="mx")
    assert "AUTH PLAIN is not offered" in handed.fault


@pytest.mark.parametrize(
    ("replies", "words"),
    [
        ({b"EHLO": b"250 mx"}, "AUTH"),
        ({b"EHLO": b"250-mx\r\n250 AUTH CRAM-MD5", b"AUTH": b"334 x"}, "does not speak SMTP"),
        ({b"EHLO": b"250-mx\r\n250 AUTH PLAIN", b"AUTH": b"235 ok", b"MAIL": b"hello"}, "no reply of SMTP"),
    ],
    ids=["no-logins", "no-base64", "no-code"],
)
def test_a_server_that_answers_wrongly(replies: dict[bytes, bytes], words: str) -> None:
    with talking(greeting=b"220 mx\r\n", replies=replies) as place:
        handed = by_smtp(MESSAGE, SmtpPlace(place.host, place.port, "alice", "secret"), helo="mx")
    assert words in handed.fault
    assert not handed.is_unanswered


def test_a_name_that_no_host_can_have() -> None:
    handed = by_smtp(MESSAGE, SmtpPlace.parse("a..b"), helo="mx")
    assert (bool(handed.fault), handed.is_unanswered) == (True, False)


def test_tls_from_the_first_octet_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """RFC 8314 §3.3. What is read has the same bounds."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(write_chain(tmp_path / "chain.pem", server("mx.far.test")))

    def setup(handler: socketserver.StreamRequestHandler) -> None:
        handler.request = context.wrap_socket(handler.request, server_side=True)
        socketserver.StreamRequestHandler.setup(handler)

    replies = {b"EHLO": b"250-mx\r\n250 AUTH PLAIN", b"AUTH": b"235 ok", b"DATA": b"354 go", b".\r\n": b"250 ok"}
    for said_again, is_handed in ((b"", True), (b"220-more\r\n" * 1_000, False)):
        greeting = b"220-mx\r\n" if said_again else b"220 mx\r\n"
        with talking(greeting=greeting, said_again=said_again, replies=replies, setup=setup) as place:
            monkeypatch.setattr("mailguard.cli.trial_message.SUBMISSIONS_PORT", place.port)
            handed = by_smtp(MESSAGE, place, helo="mx")
        assert (handed.fault == "", handed.code) == (is_handed, 0), handed
    assert "octets" in handed.fault
