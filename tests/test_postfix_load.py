"""Under load through the real Postfix: reloads, killed workers and the end of the daemon lose and garble no message.

milter_default_action is tempfail. In every test the messages answered with 250 are the messages delivered, each
once, each signed with a signature that verifies. Refusals (4xx) are counted and the messages sent again.
"""

from __future__ import annotations

import itertools
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

import zone0
from daemon_process import eventually
from postfix_site import Answer, Client, PostfixSite, configuration, fields_named, open_site
from sandbox_place import free_port
from serving_worker import worker_of
from smtp_load import (
    AUTH,
    CONNECT,
    CONTENT,
    DATA,
    EHLO,
    END,
    MAIL,
    RCPT,
    SESSIONS,
    Load,
    Refusal,
    Sent,
    Stage,
    conversation,
    delivered_queue_ids,
    message_of,
)

pytestmark = pytest.mark.postfix

# Delivered at once, not through a second service: the queue id of the answer is that of the file.
DIRECT = {"content_filter": ""}
ENOUGH = 1_000
RELOADS = 20
KILLS = 20
WORKERS = 4
PATIENCE_S = 60.0
POLL_S = 0.01
# Long enough for Postfix to hand over what it can to a worker that does not read.
HANDED_OVER_AFTER_S = 0.2
LARGE_BODY = b"0123456789abcdef" * 4 + b"\r\n"


def signers(message: bytes) -> list[str]:
    """The s= of its signatures, from the top."""
    found = []
    for value in fields_named(message, "DKIM-Signature"):
        tags = dict(tag.split(b"=", 1) for tag in b"".join(value.split()).rstrip(b";").split(b";"))
        found.append(tags[b"s"].decode())
    return found


def assert_nothing_lost(site: PostfixSite, sent: list[Sent]) -> dict[str, bytes]:
    """What was accepted was delivered, each once, each verifying; the messages by their queue ids."""
    assert len({each.queue_id for each in sent}) == len(sent)
    assert len({each.token for each in sent}) == len(sent)
    delivered = delivered_queue_ids(site, len(sent))
    assert delivered.keys() == {each.queue_id for each in sent}
    site.postfix.wait_empty()
    for each in sent:
        message = delivered[each.queue_id]
        assert fields_named(message, "Subject") == [b" " + each.token.encode()]
        verdicts = site.verifiers.mailguard(message)
        assert verdicts, message
        assert all(passes for _, passes in verdicts), message
    return delivered


# --- Reloads ---------------------------------------------------------------------------------------------------

SELECTORS = {f"n{number:02}": zone0.ed25519_key(100 + number) for number in range(RELOADS + 1)}


def signing_with(selector: str) -> str:
    return f'[domains."us.test"]\nselectors = [{{ name = "{selector}", key_file = "keys/{selector}.pem" }}]\n'


@pytest.mark.attack("V06", "V08", "P18")
@pytest.mark.parametrize(
    ("engine", "reloads"),
    [("libmilter", RELOADS), ("native", RELOADS // 4)],
    indirect=["engine"],
    scope="module",
)
def test_reloads_each_with_another_selector(engine: str, reloads: int) -> None:
    """A reload takes seconds of CPU time: the second engine has fewer."""
    names = list(SELECTORS)[: reloads + 1]
    with open_site(selectors=SELECTORS, domains=signing_with(names[0]), submission=DIRECT, engine=engine) as site:
        address = site.milter
        with Load(site) as load:
            load.wait_for_generation(0)
            for number in range(1, reloads + 1):
                site.daemon.reload(configuration(address, domains=signing_with(names[number]), engine=engine))
                load.wait_for_generation(number)
                if number % 5 == 0:
                    said = site.daemon.reload(
                        configuration(address, domains=signing_with("n00"), sign="no_such_key = 1", engine=engine)
                    )
                    assert "the last reload failed" in said
            load.wait_for_messages(ENOUGH * reloads // RELOADS)
        assert load.failures == []
        assert load.refusals == []
        delivered = assert_nothing_lost(site, load.sent)
        used: Counter[str] = Counter()
        for sent in load.sent:
            (selector,) = signers(delivered[sent.queue_id])
            used[selector] += 1
            # Once a reload is done, no new session meets an older configuration.
            assert names.index(selector) >= sent.generation, (selector, sent)
        assert sorted(used) == names
        assert site.daemon.log().count("reload failed; the old configuration stays") == reloads // 5
        assert "mailguard.toml" in site.daemon.log()
        assert Path(address.removeprefix("unix:")).is_socket()


# --- Killed workers --------------------------------------------------------------------------------------------


@pytest.fixture
def tcp_site(request: pytest.FixtureRequest, engine: str) -> Iterator[PostfixSite]:
    """Over TCP, where /proc tells which worker serves a session. The parameter is how many workers there are."""
    address = f"inet:127.0.0.1:{free_port()}"
    with open_site(address=address, workers=request.param, submission=DIRECT, engine=engine) as made:
        yield made


# Where a worker is killed, by what the session has reached. "idle" is between two messages; at "body" and "end" the
# worker holds a message whose last line Postfix has already read, in part or wholly.
STAGES: tuple[Stage, ...] = (CONNECT, EHLO, AUTH, MAIL, RCPT, DATA, CONTENT, "body", END, "idle")
IN_FLIGHT = frozenset({MAIL, RCPT, DATA, CONTENT, "body", END})


def interrupted(site: PostfixSite, at: Stage, tokens: Iterator[str]) -> tuple[list[Sent], Refusal | None]:
    """A session whose worker is killed at this stage: what was accepted before, and the 4xx that it then got."""
    clients: list[Client] = []
    sent: list[Sent] = []
    unsent = list(itertools.islice(tokens, 2))
    body = LARGE_BODY * 50_000 if at == "body" else b"Hello\r\n"
    last = CONNECT
    worker = 0
    for stage, answer in conversation(
        site.postfix.ports["submission"], [message_of(token, body) for token in unsent], hold=clients
    ):
        if answer.code >= 400:
            return sent, Refusal(last, answer)
        last = stage
        if stage == END:
            sent.append(Sent(unsent.pop(0), answer.queue_id, 0))
        if worker:
            continue
        if stage == CONTENT and at in ("body", END):
            # It must not answer before it is killed.
            worker = worker_of(site, clients[0])
            os.kill(worker, signal.SIGSTOP)
            threading.Timer(HANDED_OVER_AFTER_S, os.kill, (worker, signal.SIGKILL)).start()
        elif stage == at or (stage, at) == (END, "idle"):
            worker = worker_of(site, clients[0])
            kill(site, worker)
    return sent, None


def kill(site: PostfixSite, worker: int) -> None:
    """And wait until it is gone."""
    os.kill(worker, signal.SIGKILL)
    eventually(lambda: worker not in site.daemon.workers())


@pytest.mark.attack("V02")
@pytest.mark.parametrize("tcp_site", [WORKERS], indirect=True)
def test_twenty_killed_workers(tcp_site: PostfixSite) -> None:
    site = tcp_site
    refused: dict[Stage, list[Refusal | None]] = {}
    sent: list[Sent] = []
    tokens = (f"killed-{number}" for number in itertools.count())
    with Load(site, sessions=SESSIONS - 1) as load:
        for number in range(KILLS):
            load.wait_for_messages(number * ENOUGH // KILLS)
            # A worker that dies young comes back after a while; the others go on meanwhile.
            eventually(lambda: len(site.daemon.workers()) >= WORKERS - 1)
            stage = STAGES[number % len(STAGES)]
            accepted, refusal = interrupted(site, stage, tokens)
            sent += accepted
            refused.setdefault(stage, []).append(refusal)
            sent.append(Sent(f"again-{number}", send(site, f"again-{number}").queue_id, 0))
        load.wait_for_messages(ENOUGH)
    assert load.failures == []
    # Each of the sessions whose worker was killed got a 4xx. For these stages this was for a message of which the
    # worker had seen at least MAIL.
    assert {stage: len(found) for stage, found in refused.items()} == dict.fromkeys(STAGES, KILLS // len(STAGES))
    assert all(each is not None and each.is_for_want_of_a_milter for found in refused.values() for each in found)
    assert sum(len(refused[stage]) for stage in IN_FLIGHT) == 12
    assert all(each.is_for_want_of_a_milter for each in load.refusals), load.refusals
    # The last one is noted after it is gone.
    eventually(lambda: site.daemon.log().count("status=-9") >= KILLS)
    assert site.daemon.log().count("status=-9") == KILLS
    assert_nothing_lost(site, [*load.sent, *sent])


def send(site: PostfixSite, token: str) -> Answer:
    """In sessions of its own, until it is accepted."""
    while True:
        for stage, answer in conversation(site.postfix.ports["submission"], [message_of(token)]):
            if answer.code >= 400:
                assert answer.code in (451, 454)
                time.sleep(POLL_S)
                break
            if stage == END:
                return answer


@pytest.mark.attack("V01")
@pytest.mark.parametrize("tcp_site", [2], indirect=True)
def test_a_killed_worker_costs_its_own_messages_a_451(tcp_site: PostfixSite) -> None:
    site = tcp_site
    port = site.postfix.ports["submission"]
    # Two messages before their last line, at two workers.
    by_worker: dict[int, Iterator[tuple[Stage, Answer]]] = {}
    # A new session is tried until it meets the other one.
    deadline = time.monotonic() + PATIENCE_S
    while len(by_worker) < 2:
        assert time.monotonic() < deadline, "one worker serves all"
        clients: list[Client] = []
        session = conversation(port, [message_of(f"v01-{len(by_worker)}")], hold=clients)
        while next(session)[0] != CONTENT:
            pass
        by_worker.setdefault(worker_of(site, clients[0]), session)
    (killed, first), (_, second) = by_worker.items()
    os.kill(killed, signal.SIGKILL)
    _, answer = next(first)
    assert (answer.code, answer.text[:5]) == (451, b"4.7.1")
    stage, accepted = next(second)
    assert (stage, accepted.code) == (END, 250)
    again = Sent("again", send(site, "again").queue_id, 0)
    assert_nothing_lost(site, [Sent("v01-1", accepted.queue_id, 0), again])
    eventually(lambda: len(site.daemon.workers()) == 2)
    assert killed not in site.daemon.workers()


# --- The end ---------------------------------------------------------------------------------------------------


@pytest.mark.attack("V07")
def test_the_end_of_the_daemon_and_its_return(engine: str) -> None:
    with open_site(workers=WORKERS, submission=DIRECT, engine=engine) as site:
        with Load(site) as load:
            load.wait_for_messages(200)
            assert site.daemon.stop() == 0
            load.generation = 1
            load.wait_until(lambda: len(load.refusals) >= SESSIONS)
            site.daemon.start()
            load.wait_for_generation(2)
            load.wait_for_messages(400)
        assert load.failures == []
        assert all(each.is_for_want_of_a_milter for each in load.refusals), load.refusals
        # What was under way was finished: nothing was refused once its content had begun.
        assert not [each for each in load.refusals if each.stage in (DATA, CONTENT)]
        # Without a daemon nothing is accepted unsigned.
        assert_nothing_lost(site, load.sent)
