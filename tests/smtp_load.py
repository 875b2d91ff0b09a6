"""Load: SMTP sessions of a logged-in user that never stop, and an account of every message's fate.

Each session sends a few messages and begins anew. What is answered 4xx is counted and sent again in a new session,
as a mail program would; any other failure ends the session and is kept for the test to see. `conversation` is one
such session, step by step, for a test that wants to interfere at a certain one.
"""

from __future__ import annotations

import base64
import itertools
import re
import smtplib
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Self

from postfix_site import ALICE, PASSWORD, Answer, Client, PostfixSite, fields_named

__all__ = ["Load", "Refusal", "Sent", "Stage", "conversation", "delivered_queue_ids", "message_of"]

Stage = str
CONNECT, EHLO, AUTH, MAIL, RCPT = "connect", "ehlo", "auth", "mail", "rcpt"
DATA, CONTENT, END = "data", "content", "end"

SESSIONS = 8
MESSAGES_A_SESSION = 5
RETRY_AFTER_S = 0.05
PATIENCE_S = 120.0
POLL_S = 0.01
RECIPIENT = "load@us.test"
_CREDENTIALS = base64.b64encode(f"\0{ALICE}\0{PASSWORD}".encode())
_ID = re.compile(rb"with ESMTPA id ([0-9A-Za-z]+)")


@dataclass(frozen=True, slots=True)
class Sent:
    """A message that was answered 250. `generation` is what Load.generation was before its session began."""

    token: str
    queue_id: str
    generation: int


@dataclass(frozen=True, slots=True)
class Refusal:
    """A 4xx, and the last stage of the session before it."""

    stage: Stage
    answer: Answer

    @property
    def is_for_want_of_a_milter(self) -> bool:
        """Whether it is what Postfix says when milter_default_action is tempfail; to AUTH it says 454."""
        return (self.answer.code, self.answer.text[:5]) == (
            (454, b"4.3.0") if self.stage == EHLO else (451, b"4.7.1")
        )


def message_of(token: str, body: bytes = b"Hello,\r\n\r\nworld.\r\n") -> bytes:
    """A message of alice's with the token as its subject."""
    return b"From: <alice@us.test>\r\nTo: <load@us.test>\r\nSubject: %b\r\n\r\n%b" % (token.encode(), body)


def conversation(
    port: int, messages: Iterable[bytes], *, hold: list[Client] | None = None
) -> Iterator[tuple[Stage, Answer]]:
    """A session with a login: each stage that it has reached, and the answer there. It ends when it is closed.

    At "content" the message is sent but for its last line. `hold` gets the client.
    """
    try:
        client = Client("127.0.0.1", port, local_hostname="client.test", timeout=PATIENCE_S)
    except smtplib.SMTPConnectError as error:
        yield CONNECT, Answer(error.smtp_code, b"%r" % (error.smtp_error,))
        return
    if hold is not None:
        hold.append(client)
    try:
        yield CONNECT, Answer(220, b"")
        yield EHLO, client.command(b"EHLO client.test")
        yield AUTH, client.command(b"AUTH PLAIN " + _CREDENTIALS)
        for message in messages:
            yield MAIL, client.command(b"MAIL FROM:<%b>" % ALICE.encode())
            yield RCPT, client.command(b"RCPT TO:<%b>" % RECIPIENT.encode())
            yield DATA, client.command(b"DATA")
            client.send(message)
            yield CONTENT, Answer(354, b"")
            client.send(b"the last line\r\n.\r\n")
            yield END, client.answer()
    finally:
        # Without QUIT, which amid a message would be a part of it.
        client.close()


class Load:
    """A context manager: inside, the sessions run."""

    def __init__(self, site: PostfixSite, *, sessions: int = SESSIONS) -> None:
        self.generation = 0
        self.sent: list[Sent] = []
        self.refusals: list[Refusal] = []
        self.failures: list[str] = []
        self._port = site.postfix.ports["submission"]
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(number,)) for number in range(sessions)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Let each session finish the message that it is at; one that was refused is given up."""
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def wait_until(self, condition: Callable[[], bool]) -> None:
        """While the sessions run."""
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            assert not self.failures, self.failures
            assert time.monotonic() < deadline, f"{len(self.sent)} sent, {Counter(self.refusals)}"
            time.sleep(POLL_S)

    def wait_for_messages(self, count: int) -> None:
        """Until so many have been accepted since the start."""
        self.wait_until(lambda: len(self.sent) >= count)

    def wait_for_generation(self, generation: int) -> None:
        """Say that it is there, and wait for a message of a session that began thereafter."""
        self.generation = generation
        known = len(self.sent)
        self.wait_until(lambda: any(sent.generation == generation for sent in self.sent[known:]))

    def _run(self, number: int) -> None:
        tokens = (f"{number}-{count}" for count in itertools.count())
        try:
            token = next(tokens)
            while not self._stopping.is_set():
                token = self._session(token, tokens)
        except Exception as error:  # noqa: BLE001 - for the test's thread to see
            self.failures.append(f"session {number}: {type(error).__name__}: {error}")

    def _session(self, token: str, tokens: Iterator[str]) -> str:
        """One connection. Returns the first token that is still to be sent."""
        generation = self.generation
        mine = [token, *itertools.islice(tokens, MESSAGES_A_SESSION - 1)]
        left = list(mine)
        stage = CONNECT
        for reached, answer in conversation(self._port, map(message_of, mine)):
            if 400 <= answer.code < 500:
                self.refusals.append(Refusal(stage, answer))
                time.sleep(RETRY_AFTER_S)
                break
            stage = reached
            if answer.code >= 500:
                raise AssertionError(f"after {stage}: {answer}")
            if reached == END:
                self.sent.append(Sent(left.pop(0), answer.queue_id, generation))
                if self._stopping.is_set():
                    break
        # Tokens that were not reached are never sent; nobody counts on them.
        return left[0] if left else next(tokens)


def delivered_queue_ids(site: PostfixSite, count: int) -> dict[str, bytes]:
    """The messages by the queue id under which Postfix accepted them, once there are `count`; each only once."""
    found: dict[str, bytes] = {}
    for delivery in site.postfix.wait_delivered(count, timeout_s=PATIENCE_S):
        message = delivery.message.replace(b"\n", b"\r\n")
        match = _ID.search(fields_named(message, "Received")[0])
        assert match is not None, message
        queue_id = match[1].decode("ascii")
        assert queue_id not in found, f"{queue_id} was delivered twice"
        found[queue_id] = message
    return found
