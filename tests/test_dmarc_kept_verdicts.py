"""What DMARC comes to is kept with the answers that it rests on, and changes nothing: neither verdicts nor traces."""

from __future__ import annotations

import gc
import tracemalloc
import weakref
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dmarc_asking import dkim, spf
from dmarc_worlds import AT, NAMES, RECORDS, names, senders, signatures
from mailguard.dkim.result import DkimResult
from mailguard.dmarc.discover import Discovery
from mailguard.dmarc.evaluate import judge, needs
from mailguard.dmarc.result import DmarcReason, DmarcStatus, DmarcVerdict
from mailguard.dns.answers import Answers
from mailguard.dns.cache import AnswerCache
from mailguard.dns.question import Answer, Question, RecordType, Status
from mailguard.domain import Domain
from mailguard.spf.result import SpfResult

contents = st.sampled_from(RECORDS) | st.sampled_from([Status.NODATA, Status.NXDOMAIN, Status.TEMPFAIL, Status.BOGUS])
changes = st.dictionaries(st.sampled_from((*AT, *NAMES)), contents, max_size=3)
messages = st.tuples(changes, names, senders, signatures)


class Dns:
    """What the cache hands out: the same answers, until they change."""

    def __init__(self) -> None:
        self.content: dict[str, str | Status] = {}
        self.answers: dict[Question, Answer] = {}

    def change(self, changed: dict[str, str | Status]) -> None:
        self.content |= changed
        self.answers = {question: kept for question, kept in self.answers.items() if question.name not in changed}

    def at_hand(self, question: Question) -> Answer:
        if question not in self.answers:
            self.answers[question] = self.fresh(question)
        return self.answers[question]

    def fresh(self, question: Question) -> Answer:
        content = self.content.get(question.name, Status.NODATA)
        if isinstance(content, Status):
            return Answer(question, content)
        if question.rdtype is not RecordType.TXT:
            return Answer(question, Status.NODATA)
        return Answer(question, Status.NOERROR, (content.encode(),))


def judged(
    at_hand: Callable[[Question], Answer], author: str, sender: SpfResult | None, signed: Sequence[DkimResult]
) -> tuple[DmarcVerdict, tuple[Answer, ...]]:
    """The verdict, and what it rests on. As judge_inbound does, what may be needed is asked for before."""
    answers = Answers(at_hand=at_hand)
    candidates = [one.domain for one in (sender, *signed) if one is not None and one.domain is not None]
    discovery = needs(Domain(author), candidates=candidates, answers=answers)
    verdict = judge(Domain(author), spf=sender, dkim=signed, answers=answers, discovery=discovery)
    return verdict, answers.consumed


@given(st.lists(messages, min_size=1, max_size=6))
@settings(max_examples=300)
def test_a_verdict_is_what_it_would_be_without_those_before(
    sequence: list[tuple[dict[str, str | Status], str, SpfResult | None, list[DkimResult]]],
) -> None:
    dns = Dns()
    for changed, author, sender, signed in sequence:
        dns.change(changed)
        first = judged(dns.at_hand, author, sender, signed)
        assert first == judged(dns.fresh, author, sender, signed)
        again = judged(dns.at_hand, author, sender, signed)
        assert again == first
        assert all(answer is dns.answers[answer.question] for answer in again[1])


PASSING = (spf("b.test"), [dkim("b.test")])
REJECT = "v=DMARC1; p=reject"


def test_it_is_made_once_for_the_same_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    dns = Dns()
    dns.change({"_dmarc.b.test": REJECT})
    verdict, read = judged(dns.at_hand, "b.test", *PASSING)
    again, read_again = judged(dns.at_hand, "b.test", *PASSING)
    assert again is verdict
    assert [answer.question.name for answer in read] == ["_dmarc.b.test", "_dmarc.test"]
    assert all(one is other for one, other in zip(read, read_again, strict=True))
    failing = judged(dns.at_hand, "b.test", spf("b.test", "fail"), [dkim("b.test", "fail")])[0]
    assert (failing.status, failing.reason) == (DmarcStatus.FAIL, DmarcReason.NOTHING_PASSED)


@pytest.mark.parametrize("changed", ["_dmarc.b.test", "_dmarc.test"], ids=["the record", "above it"])
def test_other_answers_are_judged_anew(changed: str) -> None:
    dns = Dns()
    dns.change({"_dmarc.b.test": REJECT})
    verdict = judged(dns.at_hand, "b.test", *PASSING)[0]
    dns.change({changed: dns.content.get(changed, Status.NODATA)})
    again = judged(dns.at_hand, "b.test", *PASSING)[0]
    assert again == verdict
    assert again is not verdict


def test_a_temporary_error_lasts_as_long_as_its_answer() -> None:
    dns = Dns()
    dns.change({"_dmarc.b.test": Status.TEMPFAIL})
    states = [judged(dns.at_hand, "b.test", *PASSING)[0].status for _ in range(2)]
    dns.change({"_dmarc.b.test": REJECT})
    states += [judged(dns.at_hand, "b.test", *PASSING)[0].status for _ in range(2)]
    dns.change({"_dmarc.b.test": Status.TEMPFAIL})
    states.append(judged(dns.at_hand, "b.test", *PASSING)[0].status)
    error, passed = DmarcStatus.TEMPERROR, DmarcStatus.PASS
    assert states == [error, error, passed, passed, error]


def test_a_walk_of_a_sender_below_counts_too() -> None:
    """What the walk of SPF's domain or of d= finds may change while the author's own stays."""
    dns = Dns()
    dns.change({"_dmarc.b.test": REJECT})
    below: tuple[SpfResult, list[DkimResult]] = (spf("a.b.test"), [])
    assert judged(dns.at_hand, "b.test", *below)[0].status is DmarcStatus.PASS
    dns.change({"_dmarc.a.b.test": "v=DMARC1; p=none; psd=n"})
    assert judged(dns.at_hand, "b.test", *below)[0].status is DmarcStatus.FAIL
    dns.change({"_dmarc.a.b.test": Status.NODATA})
    assert judged(dns.at_hand, "b.test", *below)[0].status is DmarcStatus.PASS


def test_whether_the_author_domain_exists_counts_too() -> None:
    dns = Dns()
    dns.change({"_dmarc.b.test": "v=DMARC1; p=none; np=reject", "a.b.test": Status.NXDOMAIN})
    policies = [judged(dns.at_hand, "a.b.test", None, [])[0].policy_tag]
    dns.change({"a.b.test": Status.NODATA})
    policies.append(judged(dns.at_hand, "a.b.test", None, [])[0].policy_tag)
    assert policies == ["np", "p"]


def test_the_record_of_a_domain_above_is_no_reason_to_begin_again() -> None:
    dns = Dns()
    dns.change({"_dmarc.b.test": REJECT})
    below = (spf("a.b.test"), [dkim("a.b.test")])
    verdict = judged(dns.at_hand, "a.b.test", *below)[0]
    assert verdict.record_domain == "b.test"
    assert judged(dns.at_hand, "a.b.test", *below)[0] is verdict
    dns.change({"_dmarc.a.b.test": "v=DMARC1; p=none"})
    assert judged(dns.at_hand, "a.b.test", *below)[0].record_domain == "a.b.test"


def test_a_record_is_not_kept_alive_by_other_answers() -> None:
    dns = Dns()
    dns.change({"_dmarc.b.test": REJECT, "_dmarc.test": "v=DMARC1; p=none; psd=y"})
    for author in ("a.b.test", "b.test"):
        judged(dns.at_hand, author, None, [])
    gone = weakref.ref(dns.answers[Question("_dmarc.b.test", RecordType.TXT)])
    dns.change({"_dmarc.b.test": REJECT})
    gc.collect()
    assert gone() is None
    discoveries = [one for one in gc.get_objects() if isinstance(one, Discovery)]
    assert [one.record_domain for one in discoveries if one.author_domain in ("a.b.test", "b.test")] == []


@pytest.mark.attack("N10")
@pytest.mark.parametrize(
    "text",
    [
        REJECT,
        "v=DMARC1; rua=mailto:r@b.test",
        "v =DMARC1;p =reject",
        "v=DMARC1;p=none;np=reject;rua=RUA;ruf=RUA",
        None,
    ],
    ids=["a record", "no policy", "white space", "reports", "none"],
)
@pytest.mark.parametrize("start", ["b.test", "x.a.b.c.d.e.f.test", "x" * 60 + "." + "y" * 60])
def test_what_is_kept_is_within_the_estimate(text: str | None, start: str) -> None:
    """However the messages of a domain differ."""
    cache = AnswerCache(clock=lambda: 0.0, max_bytes=2**40, max_entries=10**9)
    above = Dns()

    def ask(number: int) -> None:
        author = f"n{number}.{start}"
        first = Question(f"_dmarc.{author}", RecordType.TXT)
        addresses = ",".join(f"mailto:a{each}@b{number}.test" for each in range(10))
        records = () if text is None else (f"{text.replace('RUA', addresses)};x={number}".encode(),)
        answer = Answer(first, Status.NOERROR if records else Status.NODATA, records, 300)
        cache.put(answer)
        for kind in range(5):
            signed = [dkim(f"s{place}.{kind}.{author}") for place in range(2)] if kind % 2 else [dkim(author)] * 2

            def at_hand(question: Question) -> Answer:
                return answer if question == first else above.at_hand(question)

            for below in ("", "x.", "y."):
                judged(at_hand, below + author, spf(author, "fail" if kind > 2 else "pass"), signed)
        above.answers = {kept: one for kept, one in above.answers.items() if not kept.name.endswith(author)}

    ask(0)
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        weighed = cache.estimated_bytes
        for number in range(1, 51):
            ask(number)
        gc.collect()
        taken = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert taken <= 1.5 * (cache.estimated_bytes - weighed)
