"""What SPF comes to is kept with the answer that it rests on: the same for whoever asks again, within bounds."""

from __future__ import annotations

import tracemalloc
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailguard.dns.answers import Answers
from mailguard.dns.cache import AnswerCache
from mailguard.dns.question import Answer, Question, RecordType, Status
from mailguard.spf.check import check_host
from mailguard.spf.record import Published
from mailguard.spf.result import SpfIdentity, SpfResult
from spf_asking import BANK_IP, EVIL_IP, NOW, V6, envelope

TXT = Question("evil.test", RecordType.TXT)
TEXTS = [
    None,
    "junk",
    f"v=spf1 ip4:{EVIL_IP} -all",
    f"v=spf1 ip4:{BANK_IP} ~ip4:{EVIL_IP} ?all",
    f"v=spf1 -ip6:{V6} +all",
    f"v=spf1 ip4:{BANK_IP}",
    f"v=spf1 ip4:{BANK_IP} redirect=other.test",
    f"v=spf1 ip4:{BANK_IP} -all exp=why.test",
    "v=spf1 ip4:128.0.0.0/1 -all",
    f"v=spf1 exists:%{{l}}.test ip4:{EVIL_IP} -all",
    "v=spf1 foo",
]
CLIENTS = [EVIL_IP, BANK_IP, V6, f"::ffff:{EVIL_IP}"]
# The reverse path and the identity: two senders, the null one, HELO.
SENDERS = [
    ("x@evil.test", SpfIdentity.MAIL_FROM),
    ("y@evil.test", SpfIdentity.MAIL_FROM),
    ("", SpfIdentity.MAIL_FROM),
    ("x@bank.test", SpfIdentity.HELO),
]
checks = st.lists(st.tuples(st.sampled_from(CLIENTS), st.sampled_from(SENDERS)), min_size=1, max_size=8)


def published(text: str | None, status: Status = Status.NOERROR) -> Answer:
    if text is None:
        return Answer(TXT, Status.NODATA if status is Status.NOERROR else status)
    return Answer(TXT, status, (text.encode(),))


def others() -> dict[Question, Answer]:
    known = [
        Answer(Question("other.test", RecordType.TXT), Status.NOERROR, (b"v=spf1 -all",)),
        Answer(Question("why.test", RecordType.TXT), Status.NOERROR, (b"%{i} for %{s}",)),
        Answer(Question("x.test", RecordType.A), Status.NOERROR, ("127.0.0.2",)),
        Answer(Question("y.test", RecordType.A), Status.NXDOMAIN),
    ]
    return {answer.question: answer for answer in known}


def checked(
    answer: Answer, client: str, mail_from: str, identity: SpfIdentity
) -> tuple[SpfResult, tuple[Answer, ...]]:
    answers = Answers({**others(), TXT: answer}, closed=True)
    result = check_host(envelope(mail_from, client), answers, identity=identity, now=NOW)
    return result, answers.consumed


@given(st.sampled_from(TEXTS), checks)
@settings(max_examples=300)
def test_who_asked_before_changes_nothing(text: str | None, asked: list[tuple[str, tuple[str, SpfIdentity]]]) -> None:
    kept = published(text)
    for client, (mail_from, identity) in asked:
        assert checked(kept, client, mail_from, identity) == checked(published(text), client, mail_from, identity)


@pytest.mark.parametrize("text", TEXTS, ids=range(len(TEXTS)))
def test_another_answer_has_another_result(text: str | None) -> None:
    """The records at a name change, or do not come and then do."""
    versions = [published(each) for each in TEXTS] + [published(None, Status.TEMPFAIL), published(text)]
    for answer, client in product(versions, CLIENTS):
        fresh = Answer(TXT, answer.status, answer.records)
        for mail_from, identity in SENDERS:
            assert checked(answer, client, mail_from, identity) == checked(fresh, client, mail_from, identity)


@pytest.mark.parametrize("text", [None, TEXTS[2]], ids=["no record", "a match"])
def test_it_is_made_once(text: str | None) -> None:
    answer = published(text)
    results = [checked(answer, EVIL_IP, *sender)[0] for sender in SENDERS]
    assert results[1] is results[0], "the local part has no part in it"
    assert len({id(result) for result in results}) == 3
    assert [result.identity for result in results] == [identity for _, identity in SENDERS]
    assert [result.is_null_sender for result in results] == [False, False, True, False]


def test_what_is_looked_up_is_not_kept_with_the_record() -> None:
    answer = published(TEXTS[9])
    results = [checked(answer, EVIL_IP, *sender)[0].mechanism for sender in SENDERS[:2]]
    assert results == ["exists:%{l}.test", f"ip4:{EVIL_IP}"]


@pytest.mark.parametrize(
    "text",
    [
        "v=spf1 exists:" + "%{S}" * 2_000 + ".test ?all",
        "v=spf1 exists:" + "".join(f"%{{s{number % 127 + 1}r}}" for number in range(1_000)) + ".test ?all",
        "v=spf1 exists:" + "%_" * 4_000 + ".test ?all",
        "v=spf1 redirect=" + "%{d}." * 1_600 + "test",
        "v=spf1 x=" + "%_" * 4_000,
        "v=spf1" + " ip4:192.0.2.1" * 580,
        "v=spf1" + " a" * 4_000,
    ],
    ids=["macros", "different macros", "escapes", "redirect", "unknown modifier", "networks", "terms"],
)
def test_what_is_kept_of_a_record_is_bounded(text: str) -> None:
    """What was read is kept as long as the answer is, whose room in the cache is estimated from its text."""
    answer = Answer(Question("evil.test", RecordType.TXT), Status.NOERROR, (text.encode(),))
    tracemalloc.start()
    try:
        assert Published.of(answer).record is not None
        taken = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert taken <= 4 * len(text) + 1_024 * text.count(" ")


def test_what_is_kept_of_the_results_is_bounded() -> None:
    """However many clients and senders ask: a result for each term and each kind of identity."""
    numbers = range(450)
    text = "v=spf1 " + " ".join(f"ip4:10.0.{number // 200}.{number % 200}" for number in numbers)
    txt = Question("evil.test", RecordType.TXT)
    answer = Answer(txt, Status.NOERROR, (text.encode(),))
    answers = Answers({txt: answer})

    def check(number: int) -> None:
        client = f"10.0.{number // 200}.{number % 200}"
        for mail_from, identity in (
            (f"x{number}@evil.test", SpfIdentity.MAIL_FROM),
            ("", SpfIdentity.MAIL_FROM),
            ("", SpfIdentity.HELO),
        ):
            result = check_host(envelope(mail_from, client), answers, identity=identity, now=NOW)
            assert (result.status.value, result.mechanism) == ("pass", f"ip4:{client}")

    tracemalloc.start()
    try:
        for number in numbers:
            check(number)
        taken = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert taken <= 4 * len(text) + 1_280 * text.count(" ")


@pytest.mark.attack("N10")
@pytest.mark.parametrize("text", [None, b"junk", b"v=spf1", b"v=spf1 -all"], ids=["none", "junk", "empty", "record"])
@pytest.mark.parametrize("name", ["evil.test", ".".join(["x" * 60] * 3) + ".test"], ids=["short", "long"])
def test_what_is_kept_of_a_name_is_within_its_estimate(text: bytes | None, name: str) -> None:
    """Random names cost a stranger nothing; each may come as all that a name can come as."""
    cache = AnswerCache(clock=lambda: 0.0, max_bytes=2**40, max_entries=10**9)

    def ask(number: int) -> None:
        question = Question(f"n{number}.{name}", RecordType.TXT)
        status, records = (Status.NODATA, ()) if text is None else (Status.NOERROR, (bytes(bytearray(text)),))
        answer = Answer(question, status, records, 300)
        cache.put(answer)
        answers = Answers({question: answer})
        check_host(envelope(f"x@{question.name}", EVIL_IP), answers, identity=SpfIdentity.MAIL_FROM, now=NOW)
        for identity in SpfIdentity:
            check_host(envelope("", EVIL_IP, helo=question.name), answers, identity=identity, now=NOW)

    ask(0)
    tracemalloc.start()
    try:
        before, weighed = tracemalloc.get_traced_memory()[0], cache.estimated_bytes
        for number in range(1, 101):
            ask(number)
        taken = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert taken <= 1.5 * (cache.estimated_bytes - weighed)
