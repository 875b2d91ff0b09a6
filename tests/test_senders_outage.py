"""The database of who may use which address goes and comes back under load: real servers, Postfix and logins.

Meanwhile what depends on it waits (451), and nothing else does: no message is lost, none goes out unsigned, and none
is refused for good that its sender may send. Each message from a login bears addresses that nobody has asked for
before, but for those that show what a remembered grant is worth.
"""

from __future__ import annotations

import itertools
import re
import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Self

import pytest

import zone0
from database_site import PASSWORD, USER, DatabaseServer, MariaDb, Postgres
from dovecot_site import LoginSite, open_login_site, why_no_dovecot
from postfix_site import Answer, fields_named
from postfixadmin_site import statements
from sandbox_place import HOST
from sender_mail import ALICE, BOB, DIRECT, EVERYBODY

pytestmark = [pytest.mark.postfix, pytest.mark.skipif(why_no_dovecot() is not None, reason=str(why_no_dovecot()))]

SENDERS = """
[senders]
sources = ["postfixadmin"]
recipient_delimiter = "+"
deadline_s = 4.5
[senders.postfixadmin]
database = "{database}"
host = "{host}"
port = {port}
name = "{name}"
user = "{user}"
password = "{password}"
"""
WORKERS = 2
RECIPIENT = "load@us.test"
SESSIONS = 4
MESSAGES_A_SESSION = 6
RETRY_AFTER_S = 0.05
BACK_WITHIN_S = 10.0
# Longer than the daemon waits before it asks a database again that was down.
LASTS_S = 1.5
# So many of each kind are seen before, during and after each outage.
ENOUGH = 12
PATIENCE_S = 60.0
POLL_S = 0.02
# All three verifiers look at so many; mailguard's own looks at each.
SAMPLE = 10
# With a database that says nothing, a message that has to wait for it waits for longer: a third of deadline_s.
UNAFFECTED_S = 1.2
_ID = re.compile(rb"with ESMTP\w* id ([0-9A-Za-z]+)")

Kind = str
NEW, KNOWN, FORBIDDEN, INBOUND = "new addresses", "a known address", "somebody else's address", "inbound"
FROM_LOGINS = (NEW, KNOWN, FORBIDDEN)
IS_UNAVAILABLE = re.compile(rb"4\.4\.3 mailguard: [ -~]+ \[sender-unavailable\]; try again later")
IS_FORBIDDEN = re.compile(rb"5\.7\.1 mailguard: login alice@us\.test may not use [ -~]+ \[sender-from\]")


@dataclass(frozen=True, slots=True)
class Try:
    """A message, and the answer at its end. Times are those of time.monotonic()."""

    kind: Kind
    began: float
    ended: float
    answer: Answer

    @property
    def waits(self) -> bool:
        return self.answer.code == 451 and IS_UNAVAILABLE.fullmatch(self.answer.text) is not None


def message_of(kind: Kind, token: str) -> tuple[bytes, str]:
    """A message of that kind, and its reverse path. The token is for addresses that nobody has asked for before."""
    author, sender = {
        NEW: (f"sales+{token}@us.test", f"alice+{token}@us.test"),
        KNOWN: (ALICE, ALICE),
        FORBIDDEN: (f"bob+{token}@us.test", ALICE),
        INBOUND: ("x@evil.test", "x@evil.test"),
    }[kind]
    return b"From: <%b>\r\nSubject: %b\r\n\r\n%b" % (author.encode(), token.encode(), zone0.BODY), sender


@dataclass
class Traffic:
    """A context manager: inside, logins and strangers send without a pause."""

    site: LoginSite
    tries: list[Try] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    _stopping: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)
    _tokens: Iterator[int] = field(default_factory=itertools.count)

    def __enter__(self) -> Self:
        kinds: list[tuple[Kind, ...]] = [FROM_LOGINS] * SESSIONS + [(INBOUND,)]
        self._threads = [threading.Thread(target=self._run, args=(each,)) for each in kinds]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def wait_for(self, condition: Callable[[Sequence[Try]], bool], *, since: float) -> None:
        """Until it holds for what began then or later."""
        end = time.monotonic() + PATIENCE_S
        while not condition([each for each in self.tries[:] if each.began >= since]):
            assert not self.failures, self.failures
            assert time.monotonic() < end, Counter((each.kind, each.answer.code) for each in self.tries)
            time.sleep(POLL_S)

    def _run(self, kinds: tuple[Kind, ...]) -> None:
        in_turn = itertools.cycle(kinds)
        try:
            while not self._stopping.is_set():
                self._session(in_turn)
        except Exception as error:  # noqa: BLE001 - for the test's thread to see
            self.failures.append(f"{kinds}: {type(error).__name__}: {error}")

    def _session(self, in_turn: Iterator[Kind]) -> None:
        for number, kind in zip(range(MESSAGES_A_SESSION), in_turn, strict=False):
            if not number:
                client = self.site.mail.connect() if kind == INBOUND else self.site.log_in(ALICE)
            content, sender = message_of(kind, f"t{next(self._tokens)}")
            began = time.monotonic()
            answer = client.transmit(content, sender=sender, recipient=RECIPIENT)
            self.tries.append(Try(kind, began, time.monotonic(), answer))
            if answer.code == 451:
                time.sleep(RETRY_AFTER_S)
            if self._stopping.is_set():
                break
        client.close()


def enough(code: int, *kinds: Kind) -> Callable[[Sequence[Try]], bool]:
    """Whether so many of each of these kinds were answered with this code."""

    def holds(tries: Sequence[Try]) -> bool:
        found = Counter(each.kind for each in tries if each.answer.code == code)
        return all(found[kind] >= ENOUGH for kind in kinds)

    return holds


# --- Outages: each returns how it ends ----------------------------------------------------------------------------


def stopped(server: DatabaseServer, _site: LoginSite) -> Callable[[], None]:
    server.stop()
    return server.start


def killed(server: DatabaseServer, _site: LoginSite) -> Callable[[], None]:
    server.kill()
    return server.start


def silent(server: DatabaseServer, _site: LoginSite) -> Callable[[], None]:
    server.pause()
    return server.resume


def gone_when_the_daemon_starts(server: DatabaseServer, site: LoginSite) -> Callable[[], None]:
    server.stop()
    site.mail.daemon.reload()
    end = time.monotonic() + PATIENCE_S
    while len(site.mail.daemon.workers()) > WORKERS:
        assert time.monotonic() < end, site.mail.daemon.log_tail()
        time.sleep(POLL_S)
    return server.start


Begin = Callable[[DatabaseServer, LoginSite], Callable[[], None]]
CASES = [
    pytest.param(Postgres, "libmilter", (stopped, killed, gone_when_the_daemon_starts), id="postgres libmilter"),
    pytest.param(MariaDb, "native", (stopped, silent, gone_when_the_daemon_starts), id="mariadb native"),
]


@dataclass(frozen=True, slots=True)
class Outage:
    """When it began, when the database was gone for certain, and when it answered again."""

    name: str
    began: float
    gone: float
    ending: float
    back: float


@pytest.mark.attack("L10", "V15")
@pytest.mark.parametrize(("kind", "engine", "outages"), CASES, indirect=["engine"])
def test_only_what_depends_on_the_database_waits(
    kind: type[Postgres | MariaDb], engine: str, outages: Sequence[Begin]
) -> None:
    if not kind.is_installed():
        pytest.skip(f"{kind.__doc__} is not installed")
    with kind() as server:
        _under_load(server, engine, outages)


def _under_load(server: DatabaseServer, engine: str, begins: Sequence[Begin]) -> None:
    access = server.create("outage", statements(server.dialect))
    senders = SENDERS.format(
        database=server.dialect.value, host=HOST, port=server.port, name=access.name, user=USER, password=PASSWORD
    )
    with open_login_site(
        users=(ALICE, BOB), senders=senders, submission=DIRECT, workers=WORKERS, engine=engine
    ) as site:
        up = time.monotonic()
        with Traffic(site) as traffic:
            traffic.wait_for(enough(250, NEW, KNOWN, INBOUND), since=up)
            outages = [_endure(traffic, server, each) for each in begins]
        assert traffic.failures == []
        assert_answers(traffic.tries, outages, up=up)
        assert_delivered(site, traffic.tries)
        assert_logged(site, traffic.tries)


def _endure(traffic: Traffic, server: DatabaseServer, outage: Begin) -> Outage:
    began = time.monotonic()
    end_outage = outage(server, traffic.site)
    gone = time.monotonic()
    try:
        traffic.wait_for(enough(451, NEW, FORBIDDEN), since=gone)
        traffic.wait_for(enough(250, INBOUND), since=gone)
        if outage is not gone_when_the_daemon_starts:
            traffic.wait_for(enough(250, KNOWN), since=gone)
        time.sleep(max(0.0, gone + LASTS_S - time.monotonic()))
    finally:
        ending = time.monotonic()
        end_outage()
    back = time.monotonic()
    traffic.wait_for(enough(250, *FROM_LOGINS[:2]), since=back)
    traffic.wait_for(enough(550, FORBIDDEN), since=back)
    return Outage(outage.__name__, began, gone, ending, back)


def assert_answers(tries: Sequence[Try], outages: Sequence[Outage], *, up: float) -> None:
    """Each got what is due to it, or waits, and that only while the database is not there or was not a moment ago."""
    for each in tries:
        if each.kind == INBOUND or not each.waits:
            assert each.answer.code == (550 if each.kind == FORBIDDEN else 250), each
            assert each.kind != FORBIDDEN or IS_FORBIDDEN.fullmatch(each.answer.text), each
    for outage in outages:
        during = [each for each in tries if outage.gone <= each.began and each.ended <= outage.ending]
        asked = [each for each in during if each.kind in (NEW, FORBIDDEN)]
        assert all(each.waits for each in asked), outage
        inbound = [each.ended - each.began for each in during if each.kind == INBOUND]
        assert statistics.median(inbound) < UNAFFECTED_S, outage
    # On a busy host the first connections, of all threads of all workers at once, may take too long.
    times = [(up, up), *((outage.began, outage.back) for outage in outages)]
    for each in tries:
        if each.waits:
            assert any(each.ended > began and each.began < back + BACK_WITHIN_S for began, back in times), each


def assert_delivered(site: LoginSite, tries: Sequence[Try]) -> None:
    """What was accepted, each message once; what is of logins with signatures that verify."""
    accepted = {each.answer.queue_id: each.kind for each in tries if each.answer.code == 250}
    delivered: dict[str, bytes] = {}
    for found in site.mail.postfix.wait_delivered(len(accepted), timeout_s=PATIENCE_S):
        message = found.message.replace(b"\n", b"\r\n")
        match = _ID.search(fields_named(message, "Received")[0])
        assert match is not None, message
        queue_id = match[1].decode("ascii")
        assert queue_id not in delivered, f"{queue_id} was delivered twice"
        delivered[queue_id] = message
    assert delivered.keys() == accepted.keys()
    site.mail.postfix.wait_empty()
    signed = [message for queue_id, message in delivered.items() if accepted[queue_id] != INBOUND]
    for message in signed:
        assert site.mail.verifiers.mailguard(message) == [("r1", True), ("e1", True)], message
    for message in signed[:SAMPLE]:
        assert site.mail.verifiers.verdicts(message) == {"r1": EVERYBODY, "e1": EVERYBODY}


def assert_logged(site: LoginSite, tries: Sequence[Try]) -> None:
    """A line for each, which says what was done."""
    end = time.monotonic() + PATIENCE_S
    while len(records := site.mail.records()) < len(tries):
        assert time.monotonic() < end, (len(records), len(tries))
        time.sleep(POLL_S)
    due = Counter(
        {
            ("tempfail", "sender-unavailable"): sum(each.waits for each in tries),
            ("reject", "sender-from"): sum(each.answer.code == 550 for each in tries),
            ("sign", None): sum(each.answer.code == 250 and each.kind != INBOUND for each in tries),
        }
    )
    found = Counter((record["action"], record.get("rule")) for record in records if record["role"] == "sign")
    assert found == due
